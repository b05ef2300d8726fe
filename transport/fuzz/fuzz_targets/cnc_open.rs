//! CnC file: whatever stands in its header, it is refused, or its sections lie inside and can be used.
#![no_main]

use std::sync::LazyLock;

use fulmar::cnc::{CncFile, CncSpec};
use fulmar::memory::{AtomicBuffer, Region};
use fulmar::report::error_log;
use fulmar::ring::{BroadcastReceiver, ReadAction};
use fulmar::time::EpochMs;
use fulmar_fuzz::{Input, patch};
use libfuzzer_sys::fuzz_target;

const SPEC: CncSpec = CncSpec {
    to_driver_length: 1024 + 768,
    to_clients_length: 1024 + 128,
    counter_values_length: 1024,
    error_log_length: 1024,
    page_size: 4096,
    client_liveness_timeout_ns: 1,
    start: EpochMs(2),
    pid: 3,
};

static REGION: LazyLock<Region> =
    LazyLock::new(|| Region::heap(SPEC.file_length().expect("the spec is sound")));

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let view = REGION.as_view();
    view.zero(0, view.capacity());
    CncFile::create(&REGION, &SPEC)
        .expect("the spec is sound")
        .publish_version();
    patch(&REGION.view(0, 64), &mut input, 4);
    patch(&view, &mut input, 16);
    let Ok(cnc) = CncFile::open(&REGION) else {
        return;
    };
    let sections = [
        cnc.to_driver(),
        cnc.to_clients(),
        cnc.counter_metadata(),
        cnc.counter_values(),
        cnc.error_log(),
    ];
    assert!(sections.iter().map(AtomicBuffer::capacity).sum::<usize>() <= REGION.len());
    let mut scratch = Vec::new();
    let ring = cnc.to_driver_ring();
    let _ = ring.read(10, |_, _| ReadAction::Continue, &mut scratch);
    let _ = ring.write(1, b"message");
    cnc.counters().for_each(|_| {});
    let _ = error_log::read_all(&cnc.error_log());
    if let Ok(mut receiver) = BroadcastReceiver::new(cnc.to_clients()) {
        let _ = receiver.receive(&mut scratch);
    }
    let _ = (
        cnc.driver_heartbeat(),
        cnc.start_timestamp(),
        cnc.pid(),
        cnc.page_size(),
    );
});
