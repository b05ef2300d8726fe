//! Whatever another process writes into a log: no panic, no endless loop, no access outside it.
#![cfg(not(loom))]

use fulmar::id::{RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::descriptor::log_length;
use fulmar::log::{
    Action, ConcurrentAppender, ExclusiveAppender, FrameFields, LogBuffers, LogInit, Metadata,
    NoReservedValue, NoWindow, clean, pad_range, producer_position, scan_block, scan_fragments, sweep,
    unblock,
};
use fulmar::memory::{AtomicBuffer, Region};
use proptest::prelude::*;

const TERM: i32 = 1024;

/// Numbers that are likely to be near the edges of things.
fn word() -> impl Strategy<Value = i64> {
    prop_oneof![
        any::<i64>(),
        (-3i64..3).prop_map(|n| n << 32),
        (-64i64..2 * i64::from(TERM)),
        (any::<i32>(), -64i64..2 * i64::from(TERM)).prop_map(|(term, low)| (i64::from(term) << 32) + low),
        (0i64..40, 0i64..64).prop_map(|(high, low)| high * i64::from(TERM) + low * 32),
        Just(i64::MAX),
        Just(i64::MAX - 31),
        Just(i64::MIN),
        Just(1i64 << 32),
    ]
}

fn frame_length() -> impl Strategy<Value = i32> {
    prop_oneof![
        Just(0),
        -100..100i32,
        (0..40i32).prop_map(|n| n * 32),
        (0..40i32).prop_map(|n| -n * 32),
        any::<i32>(),
        Just(i32::MIN),
        Just(i32::MAX),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn operations_survive_any_terms_and_tails(
        noise in prop::collection::vec(any::<u8>(), 0..TERM as usize),
        lengths in prop::collection::vec((0..3usize, 0..TERM as usize / 32, frame_length(), any::<i32>()), 0..60),
        tails in [word(), word(), word()],
        term_count in any::<i32>(),
        initial in any::<i32>(),
        positions in prop::collection::vec((word(), word()), 1..10),
    ) {
        let metadata = Region::heap(4096).as_view();
        LogInit {
            mtu_length: 96,
            ..LogInit::ipc_default(RegistrationId(1), SessionId(7), StreamId(9), TermId(initial), TERM)
        }
        .write_to(&Metadata::new(metadata.clone()).unwrap());
        let terms = [0; 3].map(|_| Region::heap(TERM as usize).as_view());
        let log = LogBuffers::from_parts(terms, metadata).unwrap();
        log.term(0).copy_in(0, &noise);
        for (term, index, length, fields) in lengths {
            log.term(term).store_relaxed_i32(index * 32, length);
            log.term(term).store_relaxed_i32(index * 32 + 4, fields);
        }
        let appender = ConcurrentAppender::new(log.clone(), 5);
        let claim = appender.claim(&NoWindow, 10, i64::MAX);
        for (partition, raw) in tails.into_iter().enumerate() {
            log.metadata().tail_release(partition, raw);
        }
        if term_count % 2 == 0 {
            log.metadata().active_term_count_release(term_count);
        }
        let _ = producer_position(log.metadata(), log.shape());
        let mut exclusive = ExclusiveAppender::new(log.clone());
        let fresh = ConcurrentAppender::new(log.clone(), 6);
        for length in [0, 33, 128] {
            let bytes = vec![1; length];
            for limit in [0, i64::MAX] {
                let _ = appender.offer(&NoWindow, &bytes[..], &NoReservedValue, limit);
                let _ = fresh.offer(&NoWindow, &bytes[..], &NoReservedValue, limit);
                let _ = exclusive.offer(&bytes[..], &NoReservedValue, limit);
                let batch = [&bytes[..], &[2; 40], &bytes, &[3; 200]];
                let _ = appender.offer_batch(&NoWindow, &batch, limit);
                let _ = fresh.offer_batch_of(&NoWindow, &noise, length, limit);
                let _ = exclusive.offer_batch(&batch, limit);
                let _ = exclusive.offer_batch_of(&noise, length, limit);
                let _ = exclusive.append_padding(length, limit);
                let _ = exclusive.offer_block(&noise, limit);
            }
            let _ = (appender.position(), exclusive.position());
        }
        if let Ok(claim) = claim {
            let _ = appender.commit(&NoWindow, &claim, &[0; 10], FrameFields::default());
            let _ = appender.abort(&NoWindow, &claim);
        }
        if let Ok(claim) = exclusive.claim(64, i64::MAX) {
            let _ = exclusive.commit(&claim, &[0; 64], FrameFields::default());
        }
        for (first, second) in positions {
            let _ = unblock(&log, first);
            let _ = unblock(&log, first & !31);
            let _ = pad_range(&log, first, second);
            let _ = pad_range(&log, first & !31, second & 0xffff);
            let swept = sweep(&log, first & !31, second, |_| true, 1000);
            prop_assert!(swept.position >= first & !31);
            let cleaned = clean(&log, first, second, 100);
            prop_assert!(cleaned == first || cleaned <= second);
            for (from, limit) in [(first as i32, second as i32), (first as i32 & (TERM - 32), i32::MAX)] {
                for term in 0..3 {
                    let mut turns = 0;
                    let result = scan_fragments(log.term(term), from, limit, usize::MAX, |frame| {
                        turns += 1;
                        assert!(frame.payload().to_vec().len() < TERM as usize);
                        assert!(frame.next_offset() <= TERM);
                        let _ = (frame.reserved_value(), frame.term_id(), frame.frame_length());
                        Action::Continue
                    });
                    prop_assert!(turns <= TERM / 32);
                    prop_assert!(result.corrupt || (0..=TERM).contains(&result.offset));
                    let block = scan_block(log.term(term), from, second as usize);
                    prop_assert!(block.corrupt || (0..=TERM).contains(&block.end_offset));
                }
            }
        }
    }

    #[test]
    fn opening_any_metadata_gives_a_log_or_an_error(
        noise in prop::collection::vec(any::<u8>(), 512..=512),
        fields in prop::collection::vec((0..128usize, prop_oneof![word(), Just(65536), Just(4096), Just(32)]), 0..8),
        valid in any::<bool>(),
    ) {
        let length = log_length(65536, 4096) as usize;
        let region = Region::heap(length);
        if valid {
            let init = LogInit::ipc_default(RegistrationId(1), SessionId(7), StreamId(9), TermId(0), 65536);
            LogBuffers::initialise(region.clone(), &init).unwrap();
        } else {
            region.as_view().copy_in(length - 4096, &noise);
        }
        for (index, value) in fields {
            region.as_view().store_relaxed_i32(length - 4096 + index * 4, value as i32);
        }
        if let Ok(log) = LogBuffers::open(region) {
            prop_assert_eq!(log.term_length(), 65536);
            prop_assert!(log.max_payload_length() >= 32);
            let appender = ConcurrentAppender::new(log.clone(), 1);
            let _ = appender.offer(&NoWindow, &[0; 100], &NoReservedValue, i64::MAX);
            let _ = log.metadata().untethered_linger_timeout_ns();
            let _ = log.metadata().log_type();
        }
    }
}
