//! Golden frames (wire-protocol spec 1.12), round trips, and frames that lie.
#![forbid(unsafe_code)]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::resolution::{Entry, EntryIter};
use super::*;
use crate::id::{SessionId, StreamId, TermId};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

const RECEIVER_ID: i64 = 0x0815_0b4d_092a_7aef;

fn encoded(sm: &StatusMessage) -> Vec<u8> {
    let mut bytes = [0; status_message::SM_MAX_LENGTH];
    let length = sm.encode(&mut bytes);
    bytes[..length].to_vec()
}

fn encoded_error(error: &ErrorFrame<'_>) -> Vec<u8> {
    let mut bytes = [0; error::ERR_MAX_LENGTH];
    let length = error.encode(&mut bytes);
    bytes[..length].to_vec()
}

#[test]
fn a_setup_is_as_captured() {
    let bytes =
        hex("2800000000000500 40000000 d2040000 e9030000 fbffffff fdffffff 00000100 80050000 00000000");
    let setup = Setup {
        flags: 0,
        term_offset: 64,
        session_id: SessionId(1234),
        stream_id: StreamId(1001),
        initial_term_id: TermId(-5),
        active_term_id: TermId(-3),
        term_length: 65536,
        mtu: 1408,
        ttl: 0,
    };
    assert_eq!(classify(&bytes), Ok(FrameKind::Setup));
    assert_eq!(Setup::parse(&bytes), Ok(setup));
    assert_eq!(setup.check(), Ok(()));
    assert_eq!(setup.encode().to_vec(), bytes);
}

#[test]
fn status_messages_are_as_captured() {
    let eliciting = hex(
        "2c00000000800300 37000000 e9030000 00000000 00000000 00000000 ef7a2a094d0b1508 4d00000000000000",
    );
    let plain = hex(
        "2c00000000000300 37000000 e9030000 0a000000 00000000 00800000 ef7a2a094d0b1508 4d00000000000000",
    );
    let sm = StatusMessage {
        flags: 0,
        session_id: SessionId(55),
        stream_id: StreamId(1001),
        term_id: TermId(10),
        term_offset: 0,
        window: 32768,
        receiver_id: RECEIVER_ID,
        group_tag: Some(77),
        has_bad_tag_length: false,
    };
    assert_eq!(classify(&plain), Ok(FrameKind::StatusMessage));
    assert_eq!(StatusMessage::parse(&plain), Ok(sm));
    assert_eq!(encoded(&sm), plain);
    let sm = StatusMessage {
        flags: StatusMessage::FLAG_SEND_SETUP,
        term_id: TermId(0),
        window: 0,
        ..sm
    };
    assert_eq!(StatusMessage::parse(&eliciting), Ok(sm));
    assert!(sm.is_send_setup() && !sm.is_eos());
    assert_eq!(encoded(&sm), eliciting);
}

#[test]
fn a_nak_is_as_captured() {
    let bytes = hex("1c00000000000200 37000000 e9030000 0a000000 40000000 40000000");
    let nak = Nak {
        session_id: SessionId(55),
        stream_id: StreamId(1001),
        term_id: TermId(10),
        term_offset: 64,
        length: 64,
    };
    assert_eq!(classify(&bytes), Ok(FrameKind::Nak));
    assert_eq!(Nak::parse(&bytes), Ok(nak));
    assert_eq!(nak.encode().to_vec(), bytes);
}

#[test]
fn an_rttm_answer_is_as_captured() {
    let bytes = hex("2800000000000600 d2040000 e9030000 6300000000000000 0000000000000000 0700000000000000");
    let request = Rttm {
        flags: Rttm::FLAG_REPLY,
        session_id: SessionId(1234),
        stream_id: StreamId(1001),
        echo_timestamp: 99,
        reception_delta: 5,
        receiver_id: 7,
    };
    assert!(request.is_request());
    assert_eq!(classify(&bytes), Ok(FrameKind::Rttm));
    assert_eq!(Rttm::parse(&bytes), Ok(request.answer()));
    assert_eq!(request.answer().encode().to_vec(), bytes);
    assert_eq!(Rttm::parse(&request.encode()), Ok(request));
}

#[test]
fn a_response_setup_is_as_captured() {
    let bytes = hex("1400000000000b00 4d000000 11270000 92100000");
    let setup = ResponseSetup {
        session_id: SessionId(77),
        stream_id: StreamId(10001),
        response_session_id: SessionId(4242),
    };
    assert_eq!(classify(&bytes), Ok(FrameKind::ResponseSetup));
    assert_eq!(ResponseSetup::parse(&bytes), Ok(setup));
    assert_eq!(setup.encode().to_vec(), bytes);
}

#[test]
fn an_eos_heartbeat_is_as_captured() {
    let bytes = hex("0000000000e00100 40010000 d2040000 e9030000 fdffffff 0000000000000000");
    assert_eq!(classify(&bytes), Ok(FrameKind::Data));
    assert!(is_heartbeat(&bytes) && is_eos(&bytes) && !is_revoked(&bytes));
    let encoded = encode_heartbeat(0xE0, SessionId(1234), StreamId(1001), TermId(-3), 320);
    assert_eq!(encoded.to_vec(), bytes);
    let revoked = encode_heartbeat(0xF0, SessionId(1234), StreamId(1001), TermId(-3), 320);
    assert!(is_revoked(&revoked));
    assert_eq!(
        validate_data_packet(&bytes, 65536),
        Ok(PacketExtent {
            heartbeat: true,
            length: 0
        })
    );
}

#[test]
fn a_padding_header_is_as_captured() {
    let bytes = hex("4000000000c00000 c0ff0000 05000000 e9030000 00000000 0000000000000000");
    let header = DataHeader::parse(&bytes).unwrap();
    assert!(header.is_padding());
    assert_eq!((header.frame_length, header.term_offset), (64, 65472));
    assert_eq!(header.session_id, SessionId(5));
    assert_eq!(header.encode().to_vec(), bytes);
    assert_eq!(
        validate_data_packet(&bytes, 65536),
        Ok(PacketExtent {
            heartbeat: false,
            length: 64
        })
    );
    assert!(validate_data_packet(&bytes, 32768).is_err());
}

#[test]
fn a_self_announcement_is_as_captured() {
    let bytes = hex("2000000000000700 01 80 b65f 00000000 7f000001 0500 6e6f646541 0000000000");
    let entry = Entry {
        is_self: true,
        port: 24502,
        age_ms: 0,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        name: b"nodeA",
    };
    assert_eq!(classify(&bytes), Ok(FrameKind::Resolution));
    let entries: Vec<_> = EntryIter::parse(&bytes).unwrap().collect();
    assert_eq!(entries, [Ok(entry)]);
    let mut out = [0xFF; 1408];
    let written = resolution::encode([entry], &mut out);
    assert_eq!(&out[..written.length], bytes);
    assert_eq!(written.entries, 1);
}

#[test]
fn an_error_is_as_captured() {
    let bytes = hex(
        "3100000000080400 05000000 e9030000 0700000000000000 4d00000000000000 0d000000 09000000 6e6f207468616e6b73",
    );
    let error = ErrorFrame {
        session_id: SessionId(5),
        stream_id: StreamId(1001),
        receiver_id: 7,
        group_tag: Some(77),
        error_code: ErrorFrame::IMAGE_REJECTED,
        text: b"no thanks",
    };
    assert_eq!(classify(&bytes), Ok(FrameKind::Error));
    assert_eq!(ErrorFrame::parse(&bytes), Ok(error));
    assert_eq!(encoded_error(&error), bytes);
}

#[test]
fn a_status_message_without_a_tag_or_with_something_else_has_none() {
    let sm = StatusMessage {
        flags: StatusMessage::FLAG_EOS,
        session_id: SessionId(1),
        stream_id: StreamId(2),
        term_id: TermId(3),
        term_offset: 32,
        window: 64,
        receiver_id: -1,
        group_tag: None,
        has_bad_tag_length: false,
    };
    let bytes = encoded(&sm);
    assert_eq!(bytes.len(), 36);
    assert_eq!(StatusMessage::parse(&bytes), Ok(sm));
    for (frame_length, datagram_length) in [(40u8, 40), (0, 36), (28, 44), (48, 48)] {
        let mut bytes = bytes.clone();
        bytes.resize(datagram_length, 0xAA);
        bytes[0] = frame_length;
        let parsed = StatusMessage::parse(&bytes).unwrap();
        assert!(parsed.has_bad_tag_length && parsed.group_tag.is_none());
        assert_eq!(parsed.receiver_id, -1);
    }
    let mut cut = bytes;
    cut[0] = 44;
    assert_eq!(StatusMessage::parse(&cut), Err(WireError::FrameLength));
    assert_eq!(sm.encode(&mut [0; 35]), 0);
}

#[test]
fn fields_of_a_status_message_stay_inside_the_term() {
    let sm = StatusMessage {
        flags: 0,
        session_id: SessionId(1),
        stream_id: StreamId(2),
        term_id: TermId(3),
        term_offset: 65504,
        window: 32768,
        receiver_id: 1,
        group_tag: None,
        has_bad_tag_length: false,
    };
    assert_eq!(sm.check(65536), Ok(()));
    for (term_offset, window) in [(65536, 0), (-32, 0), (33, 0), (0, -1), (0, 32769), (0, i32::MAX)] {
        let bad = StatusMessage {
            term_offset,
            window,
            ..sm
        };
        assert!(bad.check(65536).is_err(), "{term_offset} {window}");
    }
}

#[test]
fn a_nak_stays_inside_the_term() {
    let nak = Nak {
        session_id: SessionId(1),
        stream_id: StreamId(2),
        term_id: TermId(3),
        term_offset: 65504,
        length: 32,
    };
    assert_eq!(nak.check(65536), Ok(()));
    assert_eq!(Nak { length: 0, ..nak }.check(65536), Ok(()));
    for (term_offset, length) in [
        (65504, 33),
        (65504, i32::MAX),
        (0, -1),
        (65536, 0),
        (-32, 64),
        (16, 32),
    ] {
        let bad = Nak {
            term_offset,
            length,
            ..nak
        };
        assert!(bad.check(65536).is_err(), "{term_offset} {length}");
    }
}

#[test]
fn fields_of_a_setup_stay_in_their_ranges() {
    let setup = Setup {
        flags: 0,
        term_offset: 0,
        session_id: SessionId(1),
        stream_id: StreamId(2),
        initial_term_id: TermId(0),
        active_term_id: TermId(0),
        term_length: 65536,
        mtu: 32,
        ttl: 0,
    };
    assert_eq!(setup.check(), Ok(()));
    let bad = [
        Setup {
            term_length: 100_000,
            ..setup
        },
        Setup {
            term_length: 32768,
            ..setup
        },
        Setup {
            term_length: i32::MIN,
            ..setup
        },
        Setup {
            term_offset: 65536,
            ..setup
        },
        Setup {
            term_offset: -32,
            ..setup
        },
        Setup {
            term_offset: 33,
            ..setup
        },
        Setup { mtu: 1400, ..setup },
        Setup { mtu: 0, ..setup },
        Setup { mtu: 65536, ..setup },
    ];
    for setup in bad {
        assert!(setup.check().is_err(), "{setup:?}");
    }
}

#[test]
fn classification_follows_the_common_check() {
    let valid = Setup {
        flags: 0,
        term_offset: 0,
        session_id: SessionId(1),
        stream_id: StreamId(2),
        initial_term_id: TermId(0),
        active_term_id: TermId(0),
        term_length: 65536,
        mtu: 1408,
        ttl: 0,
    }
    .encode();
    assert_eq!(classify(&valid[..7]), Err(WireError::TooShort));
    assert_eq!(classify(&valid[..39]), Err(WireError::TooShort));
    let with = |at: usize, value: u8| {
        let mut bytes = valid;
        bytes[at] = value;
        classify(&bytes)
    };
    assert_eq!(with(0, 41), Err(WireError::FrameLength));
    assert_eq!(with(0, 0), Ok(FrameKind::Setup));
    assert_eq!(with(3, 0x80), Err(WireError::FrameLength));
    assert_eq!(with(4, 1), Err(WireError::Version));
    for unknown in [8, 9, 10, 12] {
        assert_eq!(with(6, unknown), Err(WireError::Type));
    }
    assert_eq!(with(7, 0xFF), Err(WireError::Type));
    assert_eq!(with(6, 1), Err(WireError::Unaligned));
    let mut data = [0u8; 64];
    data[6] = 1;
    // The frame length of data is not looked at here.
    data[0] = 0xFF;
    assert_eq!(classify(&data), Ok(FrameKind::Data));
    assert_eq!(classify(&data[..63]), Err(WireError::Unaligned));
    assert_eq!(classify(&data[..31]), Err(WireError::TooShort));
    data[6] = 0;
    assert_eq!(classify(&data[..32]), Ok(FrameKind::Data));
}

/// A frame of this length and type at this offset, as it travels: padding only as its header.
fn frame(frame_type: FrameType, term_offset: i32, frame_length: i32) -> Vec<u8> {
    let header = DataHeader {
        frame_length,
        version: 0,
        flags: 0xC0,
        frame_type,
        term_offset,
        session_id: SessionId(1),
        stream_id: StreamId(2),
        term_id: TermId(3),
        reserved_value: 0,
    };
    let mut bytes = header.encode().to_vec();
    if frame_type == FrameType::DATA {
        bytes.resize(crate::bits::align(frame_length.max(32) as usize, 32), 7);
    }
    bytes
}

fn length_of(datagram: &[u8]) -> Result<i64, WireError> {
    validate_data_packet(datagram, 65536).map(|extent| {
        assert!(!extent.heartbeat);
        extent.length
    })
}

#[test]
fn a_datagram_of_whole_frames_is_as_long_as_they_are() {
    let data = FrameType::DATA;
    let three = [frame(data, 96, 33), frame(data, 160, 32), frame(data, 192, 100)].concat();
    assert_eq!(length_of(&three), Ok(64 + 32 + 128));
    let padded = [frame(data, 65408, 33), frame(FrameType::PAD, 65472, 64)].concat();
    assert_eq!(length_of(&padded), Ok(128));
    // Padding that travels as a whole.
    let mut whole = frame(FrameType::PAD, 0, 96);
    whole.resize(96, 0);
    assert_eq!(length_of(&whole), Ok(96));
    // Padding of which more than the header travels, but not all: what follows the header lies inside it.
    assert_eq!(length_of(&whole[..64]), Ok(96));
}

#[test]
fn a_datagram_whose_frames_do_not_fit_together_is_refused() {
    let data = FrameType::DATA;
    let cases = [
        ("trailing zeros", [frame(data, 0, 64), vec![0; 32]].concat()),
        ("cut frame", frame(data, 0, 96)[..64].to_vec()),
        ("hole", [frame(data, 0, 64), frame(data, 96, 32)].concat()),
        ("same offset", [frame(data, 0, 64), frame(data, 0, 32)].concat()),
        ("not a slot", frame(data, 33, 64)),
        ("negative offset", frame(data, -32, 64)),
        ("offset at the end", frame(data, 65536, 32)),
        ("past the end", frame(data, 65504, 64)),
        ("padding past the end", frame(FrameType::PAD, 65504, 64)),
        ("huge padding", frame(FrameType::PAD, 0, i32::MAX)),
        ("half a header", frame(data, 0, 16)),
        ("negative length", frame(data, 0, -64)),
        ("other type", frame(FrameType(2), 0, 64)),
        (
            "type of a later frame",
            [frame(data, 0, 32), frame(FrameType::SETUP, 32, 32)].concat(),
        ),
        ("two heartbeats", [frame(data, 0, 0), frame(data, 0, 0)].concat()),
        ("nothing", Vec::new()),
        ("less than a header", frame(data, 0, 64)[..31].to_vec()),
    ];
    for (name, datagram) in cases {
        assert!(validate_data_packet(&datagram, 65536).is_err(), "{name}");
    }
    let misplaced_heartbeat = encode_heartbeat(0xC0, SessionId(1), StreamId(2), TermId(3), 33);
    assert_eq!(
        validate_data_packet(&misplaced_heartbeat, 65536),
        Err(WireError::TermOffset)
    );
}

#[test]
fn an_error_text_stays_inside_its_frame() {
    let text = [b'x'; 2000];
    let error = ErrorFrame {
        session_id: SessionId(1),
        stream_id: StreamId(2),
        receiver_id: 3,
        group_tag: None,
        error_code: 13,
        text: &text,
    };
    let bytes = encoded_error(&error);
    assert_eq!(bytes.len(), 1063);
    assert_eq!((bytes[5], &bytes[24..32]), (0, &[0xFF; 8][..]));
    assert_eq!(ErrorFrame::parse(&bytes).unwrap().text.len(), ERROR_TEXT_MAX);
    assert_eq!(error.encode(&mut [0; 100]), 0);
    for length in [-1i32, 1024, 1023 + 1, i32::MAX, i32::MIN] {
        let mut bytes = bytes.clone();
        bytes[36..40].copy_from_slice(&length.to_le_bytes());
        assert_eq!(ErrorFrame::parse(&bytes), Err(WireError::TextLength));
    }
    let mut shorter_frame = bytes;
    shorter_frame[0..4].copy_from_slice(&1062i32.to_le_bytes());
    assert_eq!(ErrorFrame::parse(&shorter_frame), Err(WireError::TextLength));
}

#[test]
fn resolution_entries_are_packed_while_they_fit_and_read_until_one_is_broken() {
    let first = Entry {
        is_self: false,
        port: 1,
        age_ms: 1000,
        address: IpAddr::V6(Ipv6Addr::LOCALHOST),
        name: b"a",
    };
    let second = Entry {
        name: b"a longer name",
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        ..first
    };
    let mut bytes = [0xFF; 128];
    let written = resolution::encode([first, second], &mut bytes);
    assert_eq!(
        (written.entries, written.length),
        (2, 8 + first.encoded_length() + second.encoded_length())
    );
    let read: Vec<_> = EntryIter::parse(&bytes[..written.length])
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(read, [first, second]);
    let one = resolution::encode([first, second], &mut bytes[..written.length - 1]);
    assert_eq!(one.entries, 1);
    assert_eq!(resolution::encode([first], &mut bytes[..30]).length, 0);
    let unnamed = Entry { name: b"", ..first };
    assert_eq!(resolution::encode([unnamed], &mut bytes).length, 0);
    // The name length of the second entry is negative, too long, or passes the frame.
    let written = resolution::encode([first, second], &mut bytes);
    let at = 8 + first.encoded_length() + 12;
    for length in [-1i16, 513, 16, 0] {
        bytes[at..at + 2].copy_from_slice(&length.to_le_bytes());
        let cut = &mut bytes[..written.length - 3];
        let cut_length = cut.len() as i32;
        cut[0..4].copy_from_slice(&cut_length.to_le_bytes());
        let mut entries = EntryIter::parse(cut).unwrap();
        assert_eq!(entries.next(), Some(Ok(first)));
        assert!(matches!(entries.next(), Some(Err(_))), "{length}");
        assert_eq!(entries.next(), None);
    }
}

#[test]
fn a_datagram_is_described_in_one_line() {
    let nak = hex("1c00000000000200 37000000 e9030000 0a000000 40000000 40000000");
    assert_eq!(
        dissect::line(&nak),
        "NAK session=55 stream=1001 term=10 offset=64 length=64"
    );
    let two = [frame(FrameType::DATA, 0, 33), frame(FrameType::PAD, 64, 64)].concat();
    assert_eq!(
        dissect::line(&two),
        "DATA session=1 stream=2 term=3 offset=0 length=33 flags=0xc0, PAD offset=64 length=64 flags=0xc0"
    );
    let error = ErrorFrame {
        session_id: SessionId(5),
        stream_id: StreamId(6),
        receiver_id: 7,
        group_tag: None,
        error_code: 13,
        text: b"line\nbreak\"",
    };
    assert_eq!(
        dissect::line(&encoded_error(&error)),
        "ERR session=5 stream=6 receiver=7 code=13 text=\"line\\nbreak\\\"\""
    );
    assert!(dissect::line(&[]).starts_with("invalid"));
}

proptest! {
    #[test]
    fn control_frames_survive_the_journey(
        flags: u8, ids in any::<[i32; 8]>(), words in any::<[i64; 3]>(), tag: Option<i64>, text in prop::collection::vec(any::<u8>(), 0..=1023),
    ) {
        let (session_id, stream_id) = (SessionId(ids[0]), StreamId(ids[1]));
        let setup = Setup {
            flags, term_offset: ids[2], session_id, stream_id, initial_term_id: TermId(ids[3]),
            active_term_id: TermId(ids[4]), term_length: ids[5], mtu: ids[6], ttl: ids[7],
        };
        prop_assert_eq!(Setup::parse(&setup.encode()), Ok(setup));
        let sm = StatusMessage {
            flags, session_id, stream_id, term_id: TermId(ids[2]), term_offset: ids[3], window: ids[4],
            receiver_id: words[0], group_tag: tag, has_bad_tag_length: false,
        };
        prop_assert_eq!(StatusMessage::parse(&encoded(&sm)), Ok(sm));
        let nak = Nak { session_id, stream_id, term_id: TermId(ids[2]), term_offset: ids[3], length: ids[4] };
        prop_assert_eq!(Nak::parse(&nak.encode()), Ok(nak));
        let rttm = Rttm {
            flags, session_id, stream_id, echo_timestamp: words[0], reception_delta: words[1], receiver_id: words[2],
        };
        prop_assert_eq!(Rttm::parse(&rttm.encode()), Ok(rttm));
        let error = ErrorFrame {
            session_id, stream_id, receiver_id: words[0], group_tag: tag, error_code: ids[2], text: &text,
        };
        let bytes = encoded_error(&error);
        prop_assert_eq!(ErrorFrame::parse(&bytes), Ok(error));
        let response = ResponseSetup { session_id, stream_id, response_session_id: SessionId(ids[2]) };
        prop_assert_eq!(ResponseSetup::parse(&response.encode()), Ok(response));
    }

    #[test]
    fn a_data_header_survives_the_journey(bytes in any::<[u8; 32]>()) {
        let header = DataHeader::parse(&bytes).unwrap();
        prop_assert_eq!(header.encode(), bytes);
    }

    #[test]
    fn resolution_entries_survive_the_journey(
        entries in prop::collection::vec((any::<bool>(), any::<u16>(), any::<i32>(), any::<IpAddr>(), prop::collection::vec(any::<u8>(), 1..40)), 1..20),
    ) {
        let entries: Vec<Entry<'_>> = entries.iter().map(|(is_self, port, age_ms, address, name)| {
            Entry { is_self: *is_self, port: *port, age_ms: *age_ms, address: *address, name }
        }).collect();
        let mut bytes = [0; 1408];
        let written = resolution::encode(entries.iter().copied(), &mut bytes);
        let read: Vec<_> = EntryIter::parse(&bytes[..written.length]).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(&read[..], &entries[..written.entries]);
    }

    #[test]
    fn any_bytes_are_classified_and_parsed_without_harm(
        mut bytes in prop::collection::vec(any::<u8>(), 0..256), kind in 0u8..13, sane_header: bool, term_bits in 6u32..31,
    ) {
        if sane_header && bytes.len() >= 8 {
            let length = (bytes.len() as i32).to_le_bytes();
            bytes[..4].copy_from_slice(&length);
            bytes[4] = 0;
            bytes[6..8].copy_from_slice(&[kind, 0]);
        }
        let _ = (Setup::parse(&bytes), StatusMessage::parse(&bytes), Nak::parse(&bytes), Rttm::parse(&bytes));
        let _ = (ErrorFrame::parse(&bytes), ResponseSetup::parse(&bytes), DataHeader::parse(&bytes));
        if let Ok(entries) = EntryIter::parse(&bytes) {
            prop_assert!(entries.count() <= bytes.len());
        }
        if let Ok(extent) = validate_data_packet(&bytes, 1 << term_bits) {
            let offset = i64::from(DataHeader::parse(&bytes).unwrap().term_offset);
            prop_assert!(extent.length % 32 == 0 && offset + extent.length <= 1 << term_bits);
            prop_assert!(extent.heartbeat || extent.length >= bytes.len() as i64);
        }
        let line = dissect::line(&bytes);
        prop_assert!(!line.is_empty() && !line.contains('\n'));
        if classify(&bytes).is_ok() {
            prop_assert!(bytes.len() >= 20);
        }
    }
}
