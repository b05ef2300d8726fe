//! The bytes of logs, against the tables of the shared-memory spec 9.2, 9.3 and 9.5.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use core::cell::Cell;

use fulmar::id::{RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::descriptor::log_length;
use fulmar::log::{
    AppendOutcome, ConcurrentAppender, ExclusiveAppender, FrameFields, FrameView, LogBuffers, LogError,
    LogInit, LogType, NoReservedValue, NoWindow, Source,
};
use fulmar::memory::{AtomicBuffer, Region, View};

const L: i32 = 65536;

fn init() -> LogInit {
    LogInit::ipc_default(
        RegistrationId(0x1122_3344_5566_7788),
        SessionId(0x0A0B_0C0D),
        StreamId(1001),
        TermId(5),
        L,
    )
}

fn make(init: &LogInit) -> LogBuffers {
    let region = Region::heap(log_length(init.term_length, init.page_size) as usize);
    LogBuffers::initialise(region, init).unwrap()
}

fn bytes(log: &LogBuffers, offset: usize, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    log.region().as_view().copy_out(offset, &mut out);
    out
}

fn metadata(log: &LogBuffers) -> Vec<u8> {
    bytes(log, log.region().len() - 4096, 4096)
}

fn i32_at(bytes: &[u8], offset: usize) -> i32 {
    i32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

fn i64_at(bytes: &[u8], offset: usize) -> i64 {
    i64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

#[test]
fn every_metadata_field_stands_at_its_offset() {
    let init = LogInit {
        start_term_id: TermId(8),
        start_term_offset: 1024,
        page_size: 8192,
        mtu_length: 4096,
        publication_window_length: 101,
        receiver_window_length: 102,
        socket_sndbuf_length: 103,
        os_default_socket_sndbuf_length: 104,
        os_max_socket_sndbuf_length: 105,
        socket_rcvbuf_length: 106,
        os_default_socket_rcvbuf_length: 107,
        os_max_socket_rcvbuf_length: 108,
        max_resend: 109,
        entity_tag: 110,
        response_correlation_id: 111,
        linger_timeout_ns: 112,
        untethered_window_limit_timeout_ns: 113,
        untethered_resting_timeout_ns: 114,
        untethered_linger_timeout_ns: 0x0102_0304_0506_0708,
        group: true,
        rejoin: true,
        sparse: false,
        spies_simulate_connection: true,
        log_type: LogType::Exclusive,
        ..init()
    };
    let log = make(&init);
    let m = metadata(&log);
    // Term 8 is count 3, partition 0; the other two hold the ids that rotation expects (spec 9.5).
    assert_eq!(i64_at(&m, 0), (8 << 32) + 1024);
    assert_eq!(i64_at(&m, 8), 6 << 32);
    assert_eq!(i64_at(&m, 16), 7 << 32);
    assert_eq!(i32_at(&m, 24), 3);
    assert_eq!(i64_at(&m, 128), i64::MAX);
    assert_eq!(i32_at(&m, 136), 0);
    assert_eq!(i32_at(&m, 140), 0);
    assert_eq!(i64_at(&m, 256), 0x1122_3344_5566_7788);
    let words: Vec<i32> = (264..320).step_by(4).map(|offset| i32_at(&m, offset)).collect();
    assert_eq!(
        words,
        [5, 32, 4096, L, 8192, 101, 102, 103, 104, 105, 106, 107, 108, 109]
    );
    let header: [u8; 32] = [
        0, 0, 0, 0, 0, 0xC0, 1, 0, 0, 0, 0, 0, 0x0D, 0x0C, 0x0B, 0x0A, 0xE9, 3, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0,
    ];
    assert_eq!(m[320..352], header);
    assert!(m[352..448].iter().all(|byte| *byte == 0));
    let longs: Vec<i64> = (448..488).step_by(8).map(|offset| i64_at(&m, offset)).collect();
    assert_eq!(longs, [110, 111, 112, 113, 114]);
    assert_eq!(m[488..500], [1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0]);
    assert_eq!(i64_at(&m, 500), 0x0102_0304_0506_0708);
    assert!(m[28..128].iter().all(|byte| *byte == 0));
    assert!(m[144..256].iter().all(|byte| *byte == 0));
    assert!(m[508..].iter().all(|byte| *byte == 0));

    let opened = LogBuffers::open(log.region().clone()).unwrap();
    let fields = opened.metadata();
    assert_eq!(fields.untethered_linger_timeout_ns(), 0x0102_0304_0506_0708);
    assert_eq!(fields.log_type(), Some(LogType::Exclusive));
    assert_eq!(opened.session_id(), SessionId(0x0A0B_0C0D));
    assert_eq!(opened.stream_id(), StreamId(1001));
    assert_eq!(opened.max_payload_length(), 4064);
    assert_eq!(opened.max_message_length(), 8192);
    fields.set_revoked();
    fields.set_connected(true);
    fields.set_end_of_stream_position(77);
    let m = metadata(&log);
    assert_eq!(m[496..500], [1, 1, 0, 0]);
    assert_eq!(i32_at(&m, 136), 1);
    assert_eq!(i64_at(&m, 128), 77);
}

#[test]
fn an_image_leaves_its_tails_at_zero() {
    let log = make(&LogInit {
        log_type: LogType::Image,
        start_term_id: TermId(7),
        ..init()
    });
    assert!(metadata(&log)[..28].iter().all(|byte| *byte == 0));
}

#[test]
fn initial_tails_wrap_with_the_term_id() {
    let log = make(&LogInit {
        initial_term_id: TermId(i32::MIN),
        start_term_id: TermId(i32::MIN),
        ..init()
    });
    let m = metadata(&log);
    assert_eq!(i64_at(&m, 0), i64::from(i32::MIN) << 32);
    assert_eq!(i64_at(&m, 8), i64::from(i32::MAX - 1) << 32);
    assert_eq!(i64_at(&m, 16), i64::from(i32::MAX) << 32);
}

#[test]
fn a_frame_is_header_payload_and_reserved_value() {
    let log = make(&init());
    let appender = ConcurrentAppender::new(log.clone(), 0);
    let outcome = appender.offer(
        &NoWindow,
        b"hello, log",
        &|_: &FrameView<'_, View>| 0x0102_0304_0506_0708,
        i64::MAX,
    );
    assert_eq!(outcome, AppendOutcome::Appended { position: 64 });
    let mut expected = vec![
        42, 0, 0, 0, 0, 0xC0, 1, 0, 0, 0, 0, 0, 0x0D, 0x0C, 0x0B, 0x0A, 0xE9, 3, 0, 0, 5, 0, 0, 0, 8, 7, 6,
        5, 4, 3, 2, 1,
    ];
    expected.extend_from_slice(b"hello, log");
    expected.resize(96, 0);
    assert_eq!(bytes(&log, 0, 96), expected);
    assert_eq!(i64_at(&metadata(&log), 0), (5 << 32) + 64);
}

#[test]
fn a_fenced_claim_reads_as_an_open_frame_and_commits_as_an_ordinary_one() {
    let log = make(&init());
    let appender = ConcurrentAppender::new(log.clone(), 0x0011_2233_4455_6677);
    let claim = appender.claim(&NoWindow, 5, i64::MAX).unwrap();
    let open = bytes(&log, 0, 96);
    assert_eq!(i32_at(&open, 0), -37);
    assert_eq!(open[4], 0xF5);
    assert_eq!(i32_at(&open, 8), 0);
    assert_eq!(i32_at(&open, 20), 5);
    assert_eq!(i64_at(&open, 24), 0x0011_2233_4455_6677);
    assert_eq!(
        appender
            .commit(&NoWindow, &claim, b"12345", FrameFields::default())
            .unwrap(),
        64
    );
    let committed = bytes(&log, 0, 96);
    assert_eq!(committed[..8], [37, 0, 0, 0, 0, 0xC0, 1, 0]);
    assert_eq!(i64_at(&committed, 24), 0);
    assert_eq!(&committed[32..40], b"12345\0\0\0");
}

/// A message that looks at the header of its own frame while it is copied.
struct Onlooker<'a> {
    log: &'a LogBuffers,
    length_seen: Cell<i32>,
}

impl Source for Onlooker<'_> {
    fn length(&self) -> usize {
        5
    }

    fn read(&self, _from: usize, _length: usize, mut put: impl FnMut(usize, &[u8])) {
        self.length_seen.set(i32_at(&bytes(self.log, 0, 32), 0));
        put(0, b"12345");
    }
}

#[test]
fn a_frame_is_open_until_its_payload_is_there() {
    let shared = make(&init());
    let exclusive = make(&init());
    let onlooker = |log| Onlooker {
        log,
        length_seen: Cell::new(0),
    };
    let message = onlooker(&shared);
    ConcurrentAppender::new(shared.clone(), 0).offer(&NoWindow, &message, &NoReservedValue, i64::MAX);
    assert_eq!(message.length_seen.get(), -37);
    let message = onlooker(&exclusive);
    ExclusiveAppender::new(exclusive.clone()).offer(&message, &NoReservedValue, i64::MAX);
    assert_eq!(message.length_seen.get(), -37);
    for log in [&shared, &exclusive] {
        assert_eq!(i32_at(&bytes(log, 0, 32), 0), 37);
    }
}

#[test]
fn fragments_carry_begin_and_end_and_a_full_payload_each() {
    let log = make(&init());
    let mut appender = ExclusiveAppender::new(log.clone());
    let message: Vec<u8> = (0..1376 * 2 + 1).map(|index| index as u8).collect();
    let outcome = appender.offer(&message, &NoReservedValue, i64::MAX);
    assert_eq!(
        outcome,
        AppendOutcome::Appended {
            position: 2 * 1408 + 64
        }
    );
    for (offset, length, flags) in [(0, 1408, 0x80), (1408, 1408, 0), (2816, 33, 0x40)] {
        let header = bytes(&log, offset, 32);
        assert_eq!(i32_at(&header, 0), length);
        assert_eq!(header[4..8], [0, flags, 1, 0]);
        assert_eq!(i32_at(&header, 8), offset as i32);
    }
    assert_eq!(bytes(&log, 2816 + 32, 1), message[2752..]);
}

#[test]
fn the_end_of_a_term_is_one_padding_frame() {
    let log = make(&LogInit {
        start_term_offset: L - 64,
        ..init()
    });
    let appender = ConcurrentAppender::new(log.clone(), 0);
    assert_eq!(
        appender.offer(&NoWindow, &[0; 64], &NoReservedValue, i64::MAX),
        AppendOutcome::AdminAction
    );
    let padding = bytes(&log, L as usize - 64, 32);
    assert_eq!(padding[..8], [64, 0, 0, 0, 0, 0xC0, 0, 0]);
    assert_eq!(i32_at(&padding, 8), L - 64);
    let m = metadata(&log);
    assert_eq!(i64_at(&m, 8), 6 << 32);
    assert_eq!(i32_at(&m, 24), 1);
    assert_eq!(
        appender.offer(&NoWindow, &[0; 64], &NoReservedValue, i64::MAX),
        AppendOutcome::Appended {
            position: i64::from(L) + 96
        }
    );
}

#[test]
fn numbers_that_make_no_log_are_refused() {
    let region = |length: usize| Region::heap(length);
    let length = log_length(L, 4096) as usize;
    for bad in [
        LogInit {
            term_length: 65535,
            ..init()
        },
        LogInit {
            page_size: 100,
            ..init()
        },
        LogInit {
            mtu_length: 33,
            ..init()
        },
        LogInit {
            start_term_offset: 16,
            ..init()
        },
        LogInit {
            start_term_offset: L + 32,
            ..init()
        },
        LogInit {
            start_term_id: TermId(4),
            ..init()
        },
    ] {
        assert!(LogBuffers::initialise(region(length), &bad).is_err());
    }
    assert!(matches!(
        LogBuffers::initialise(region(length - 4096), &init()),
        Err(LogError::TooShort { .. })
    ));
    assert_eq!(
        LogBuffers::open(region(length)).unwrap_err(),
        LogError::TermLength(0)
    );
    assert!(matches!(
        LogBuffers::open(region(4088)),
        Err(LogError::TooShort { .. })
    ));
    assert_eq!(
        LogBuffers::open(region(4100)).unwrap_err(),
        LogError::Misaligned(4100)
    );
    let log = make(&init());
    let end = log.region().len() - 4096;
    let view = log.region().as_view();
    view.store_relaxed_i32(end + 276, 131072);
    assert!(matches!(
        LogBuffers::open(log.region().clone()),
        Err(LogError::TooShort { .. })
    ));
    view.store_relaxed_i32(end + 276, L);
    view.store_relaxed_i32(end + 268, 24);
    assert_eq!(
        LogBuffers::open(log.region().clone()).unwrap_err(),
        LogError::HeaderLength(24)
    );
}
