//! Error log and loss report against the bytes of the spec, and against memory that somebody else writes.

use proptest::prelude::*;

use super::{ErrorLog, ErrorRecord, LossRecord, LossReport, error_log, loss_report};
use crate::id::{SessionId, StreamId};
use crate::memory::{AtomicBuffer, Region, View};
use crate::time::EpochMs;

fn view(length: usize) -> View {
    Region::heap(length).as_view()
}

#[test]
fn an_error_has_its_documented_bytes() {
    let buffer = view(256);
    let mut log = ErrorLog::new(buffer.clone());
    assert!(log.record(EpochMs(0x10), 1, "first error"));
    assert!(log.record(EpochMs(0x20), 2, "second"));
    assert!(!log.record(EpochMs(0x30), 1, "first error"));
    let mut bytes = [0u8; 72];
    buffer.copy_out(0, &mut bytes);
    let mut expected = [0u8; 72];
    expected[0] = 24 + 11;
    expected[4] = 2;
    expected[8] = 0x30;
    expected[16] = 0x10;
    expected[24..35].copy_from_slice(b"first error");
    expected[40] = 24 + 6;
    expected[44] = 1;
    expected[48] = 0x20;
    expected[56] = 0x20;
    expected[64..70].copy_from_slice(b"second");
    assert_eq!(bytes, expected);
}

#[test]
fn errors_are_distinct_by_code_and_text() {
    let buffer = view(1024);
    let mut log = ErrorLog::new(buffer.clone());
    assert!(log.record(EpochMs(1), 1, "a"));
    assert!(log.record(EpochMs(2), 2, "a"));
    assert!(log.record(EpochMs(3), 1, "b"));
    for _ in 0..9 {
        assert!(!log.record(EpochMs(4), 2, "a"));
    }
    let counts: Vec<_> = error_log::read_all(&buffer)
        .into_iter()
        .map(|record| (record.count, record.first.0, record.last.0, record.text))
        .collect();
    assert_eq!(
        counts,
        [
            (1, 1, 1, "a".into()),
            (10, 2, 4, "a".into()),
            (1, 3, 3, "b".into())
        ]
    );
}

#[test]
fn an_error_with_a_key_is_counted_again_whatever_its_text() {
    let buffer = view(1024);
    let mut log = ErrorLog::new(buffer.clone());
    assert!(log.record_keyed(EpochMs(1), 1, "space", "5 bytes are left"));
    for left in 0..50 {
        let text = format!("{left} bytes are left");
        assert!(!log.record_keyed(EpochMs(2), 1, "space", &text));
    }
    assert!(log.record_keyed(EpochMs(3), 2, "space", "another code"));
    assert!(log.record(EpochMs(4), 1, "5 bytes are left"), "its own key");
    let counts: Vec<_> = error_log::read_all(&buffer)
        .into_iter()
        .map(|record| (record.count, record.first.0, record.last.0, record.text))
        .collect();
    assert_eq!(
        counts,
        [
            (51, 1, 2, "5 bytes are left".into()),
            (1, 3, 3, "another code".into()),
            (1, 4, 4, "5 bytes are left".into())
        ]
    );
}

#[test]
fn an_error_that_does_not_fit_is_dropped_and_shorter_ones_still_go_in() {
    let buffer = view(80);
    let mut log = ErrorLog::new(buffer.clone());
    assert!(log.record(EpochMs(1), 1, "12345678901234567890"));
    assert!(!log.record(EpochMs(1), 1, "123456789"));
    assert!(log.record(EpochMs(1), 1, "12345678"), "exactly what is left");
    assert!(!log.record(EpochMs(1), 1, ""));
    assert_eq!(error_log::read_all(&buffer).len(), 2);
}

#[test]
fn every_length_in_the_error_log_is_survived() {
    for length in (-64..128).chain([i32::MIN, i32::MAX, 1 << 20, 250, 256, 257]) {
        let buffer = view(256);
        let mut log = ErrorLog::new(buffer.clone());
        for text in ["one", "two", "three"] {
            assert!(log.record(EpochMs(1), 1, text));
        }
        buffer.store_release_i32(32, length);
        let records = error_log::read_all(&buffer);
        assert_eq!(records[0].text, "one", "length {length}");
        let total: usize = records.iter().map(|record| record.text.len()).sum();
        assert!(total <= 3 * 256, "length {length}");
        assert!(
            !log.record(EpochMs(2), 1, "two"),
            "the writer does not read lengths"
        );
        assert!(log.record(EpochMs(2), 1, "four"));
    }
}

#[test]
fn a_loss_has_its_documented_bytes() {
    let buffer = view(256);
    let mut report = LossReport::new(buffer.clone());
    let entry = report
        .create_entry(
            EpochMs(0x10),
            0x20,
            SessionId(-2),
            StreamId(3),
            "aeron:udp",
            "h:1",
        )
        .unwrap();
    report.record(&entry, EpochMs(0x11), 0x30);
    let mut bytes = [0u8; 128];
    buffer.copy_out(0, &mut bytes);
    let mut expected = [0u8; 128];
    expected[0] = 2;
    expected[8] = 0x50;
    expected[16] = 0x10;
    expected[24] = 0x11;
    expected[32..36].copy_from_slice(&(-2i32).to_le_bytes());
    expected[36] = 3;
    expected[40] = 9;
    expected[44..53].copy_from_slice(b"aeron:udp");
    expected[56] = 3;
    expected[60..63].copy_from_slice(b"h:1");
    assert_eq!(bytes, expected);
    assert!(
        report
            .create_entry(EpochMs(1), 1, SessionId(1), StreamId(1), "c", "s")
            .is_some()
    );
    assert_eq!(buffer.load_relaxed_i64(64), 1, "the next entry starts at 64");
}

proptest! {
    #[test]
    fn errors_are_read_as_they_were_recorded(
        errors in prop::collection::vec(("[a-d]{0,3}", 0..3i32, 0..1000i64), 0..80)
    ) {
        let buffer = view(1024);
        let mut log = ErrorLog::new(buffer.clone());
        let mut expected: Vec<(i32, ErrorRecord)> = Vec::new();
        let mut end = 0;
        for (text, code, ms) in errors {
            let known = expected.iter_mut().find(|(known, record)| *known == code && record.text == text);
            let is_new = if let Some((_, record)) = known {
                record.count += 1;
                record.last = EpochMs(ms);
                false
            } else if end + 24 + text.len() <= 1024 {
                end += (24 + text.len()).next_multiple_of(8);
                let record = ErrorRecord { count: 1, first: EpochMs(ms), last: EpochMs(ms), text: text.clone() };
                expected.push((code, record));
                true
            } else {
                false
            };
            prop_assert_eq!(log.record(EpochMs(ms), code, &text), is_new);
        }
        let expected: Vec<ErrorRecord> = expected.into_iter().map(|(_, record)| record).collect();
        prop_assert_eq!(error_log::read_all(&buffer), expected);
    }

    #[test]
    fn losses_are_read_as_they_were_recorded(
        losses in prop::collection::vec(("[a-z:]{0,70}", "[a-z:]{0,70}", 1..1000i64), 0..20)
    ) {
        let buffer = view(2048);
        let mut report = LossReport::new(buffer.clone());
        let mut expected = Vec::new();
        for (number, (channel, source, lost)) in losses.into_iter().enumerate() {
            let (session_id, stream_id) = (SessionId(number as i32), StreamId(-1));
            let Some(entry) = report.create_entry(EpochMs(lost), lost, session_id, stream_id, &channel, &source) else {
                continue;
            };
            report.record(&entry, EpochMs(lost + 1), 7);
            expected.push(LossRecord {
                observation_count: 2,
                total_bytes_lost: lost + 7,
                first: EpochMs(lost),
                last: EpochMs(lost + 1),
                session_id,
                stream_id,
                channel,
                source,
            });
        }
        prop_assert_eq!(loss_report::read_all(&buffer), expected);
    }

    #[test]
    fn whatever_stands_in_the_reports_their_readers_come_to_an_end(
        mut bytes in prop::collection::vec(any::<u8>(), 512),
        lengths in prop::collection::vec((0usize..128, prop_oneof![-8..600i32, any::<i32>()]), 0..40)
    ) {
        for (place, value) in lengths {
            bytes[place * 4..place * 4 + 4].copy_from_slice(&value.to_le_bytes());
        }
        let buffer = view(512);
        buffer.copy_in(0, &bytes);
        prop_assert!(error_log::read_all(&buffer).len() <= 512 / 24);
        prop_assert!(loss_report::read_all(&buffer).len() <= 512 / 64);
    }
}
