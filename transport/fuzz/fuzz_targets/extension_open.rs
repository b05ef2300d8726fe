//! Extension file: whatever stands in it, it is refused, or its tables can be walked, used and freed.
#![no_main]

use std::sync::LazyLock;

use fulmar::agent::ProcessId;
use fulmar::cnc::extension::{Extension, FILE_LENGTH};
use fulmar::id::{ClientId, RegistrationId};
use fulmar::memory::{AtomicBuffer, Region};
use fulmar::time::EpochMs;
use fulmar_fuzz::{Input, patch};
use libfuzzer_sys::fuzz_target;

const PROCESS: ProcessId = ProcessId {
    pid: 1,
    start_time_ticks: 2,
    namespace: 3,
};

/// Small tables, so that the fuzzer fills them.
const CLIENTS: usize = 3;
const OWNERS: usize = 5;
const LENGTH: usize = 1024 + (CLIENTS + OWNERS) * 128;

static REGION: LazyLock<Region> = LazyLock::new(|| Region::heap(FILE_LENGTH));

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let header = REGION.view(0, LENGTH);
    header.zero(0, LENGTH);
    Extension::create(&REGION, PROCESS, EpochMs(4)).expect("the region is long enough");
    header.store_relaxed_i32(12, CLIENTS as i32);
    header.store_relaxed_i32(16, OWNERS as i32);
    patch(&REGION.view(0, 64), &mut input, usize::from(input_count(data)));
    patch(&REGION.view(1024, LENGTH - 1024), &mut input, 32);
    let Ok(extension) = Extension::open(&REGION, EpochMs(4)) else {
        return;
    };
    let client_id = ClientId(input.i64());
    let client = extension.claim_client_slot(client_id, PROCESS);
    let owner = extension.claim_owner_slot(client_id, 7, RegistrationId(8));
    if let Some(owner) = &owner {
        owner.enter();
        owner.claimed(64, 32);
        let _ = owner.window();
        owner.leave();
    }
    assert!(extension.clients().count() <= 1 << 16);
    assert!(extension.owners().count() <= 1 << 16);
    extension.free_slots_of(client_id);
    let _ = extension.driver();
    drop((client, owner));
});

fn input_count(data: &[u8]) -> u8 {
    data.last().copied().unwrap_or(0) & 3
}
