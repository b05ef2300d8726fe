//! Log metadata: whatever stands in it, a log is refused or opened with numbers that its terms can keep.
#![no_main]

use std::sync::LazyLock;

use fulmar::id::{RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::{LogBuffers, LogInit, Metadata, producer_position};
use fulmar::memory::{AtomicBuffer, Region};
use fulmar_fuzz::{Input, patch};
use libfuzzer_sys::fuzz_target;

const TERM_LENGTH: usize = 64 * 1024;
const METADATA_OFFSET: usize = 3 * TERM_LENGTH;
const LENGTH: usize = METADATA_OFFSET + 4096;

/// Made once; nothing is written to the terms.
static REGION: LazyLock<Region> = LazyLock::new(|| Region::heap(LENGTH));

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let metadata = REGION.view(METADATA_OFFSET, 4096);
    metadata.zero(0, 4096);
    let init = LogInit::ipc_default(
        RegistrationId(1),
        SessionId(2),
        StreamId(3),
        TermId(4),
        TERM_LENGTH as i32,
    );
    init.write_to(&Metadata::new(metadata.clone()).expect("the length is right"));
    // The fields that are checked, then anything anywhere.
    for offset in [276, 280, 284, 272] {
        if input.u8() & 3 == 0 {
            metadata.store_relaxed_i32(offset, input.i32());
        }
    }
    patch(&metadata, &mut input, 32);
    let Ok(log) = LogBuffers::open(REGION.clone()) else {
        return;
    };
    assert_eq!(log.term_length() as usize, TERM_LENGTH);
    assert!(log.mtu_length() > 32);
    assert!(log.max_payload_length() <= 65504 - 32);
    let fields = log.metadata();
    let position = producer_position(fields, log.shape());
    let _ = log.shape().partition(position.max(0));
    let _ = (
        fields.end_of_stream_position(),
        fields.is_connected(),
        fields.is_revoked(),
    );
    let _ = (
        fields.active_transport_count(),
        fields.page_size(),
        log.registration_id(),
    );
    let _ = (log.session_id(), log.stream_id(), format!("{log:?}"));
});
