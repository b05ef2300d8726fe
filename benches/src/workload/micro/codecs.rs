//! Frames taken apart and put together. That both are right is checked before anything is measured, with all fields;
//! while it is measured each result is looked at briefly.

use std::hint::black_box;

use fulmar::id::{SessionId, StreamId, TermId};
use fulmar::log::frame::FLAGS_UNFRAGMENTED;
use fulmar::wire::status_message::{SM_MAX_LENGTH, SM_MIN_LENGTH};
use fulmar::wire::{DataHeader, FrameType, Nak, Setup, StatusMessage};

use super::{Work, each};
use crate::side::BenchError;

const SESSION: SessionId = SessionId(0x1234_5678);
const STREAM: StreamId = StreamId(1001);
const TERM: TermId = TermId(77);

const DATA: DataHeader = DataHeader {
    frame_length: 1056,
    version: 0,
    flags: FLAGS_UNFRAGMENTED,
    frame_type: FrameType::DATA,
    term_offset: 4096,
    session_id: SESSION,
    stream_id: STREAM,
    term_id: TERM,
    reserved_value: 42,
};

const SETUP: Setup = Setup {
    flags: 0,
    term_offset: 4096,
    session_id: SESSION,
    stream_id: STREAM,
    initial_term_id: TERM,
    active_term_id: TERM,
    term_length: 16 << 20,
    mtu: 1408,
    ttl: 0,
};

const STATUS: StatusMessage = StatusMessage {
    flags: 0,
    session_id: SESSION,
    stream_id: STREAM,
    term_id: TERM,
    term_offset: 4096,
    window: 128 << 10,
    receiver_id: 9,
    group_tag: None,
    has_bad_tag_length: false,
};

const NAK: Nak = Nak {
    session_id: SESSION,
    stream_id: STREAM,
    term_id: TERM,
    term_offset: 4096,
    length: 1408,
};

/// Parses `bytes`, which hold `expected`.
fn parse<T, E>(
    bytes: Vec<u8>,
    expected: T,
    parse: impl Fn(&[u8]) -> Result<T, E> + 'static,
) -> Result<Box<dyn Work>, BenchError>
where
    T: PartialEq + 'static,
    E: 'static,
{
    if parse(&bytes).ok().is_none_or(|parsed| parsed != expected) {
        return Err("the frame is not what was encoded".into());
    }
    each(move |_| black_box(parse(black_box(&bytes))).is_ok())
}

/// Encodes into an array, whose frame length is looked at.
fn encode<const N: usize>(
    length: usize,
    encode: impl Fn() -> [u8; N] + 'static,
) -> Result<Box<dyn Work>, BenchError> {
    let length = u8::try_from(length)?;
    each(move |_| black_box(encode()).first() == Some(&length))
}

fn of_status_message() -> Vec<u8> {
    let mut bytes = vec![0; SM_MAX_LENGTH];
    let length = STATUS.encode(&mut bytes);
    bytes.truncate(length);
    bytes
}

pub(super) fn data_parse() -> Result<Box<dyn Work>, BenchError> {
    parse(DATA.encode().to_vec(), DATA, |bytes| {
        DataHeader::parse(bytes).ok_or(())
    })
}

pub(super) fn data_encode() -> Result<Box<dyn Work>, BenchError> {
    // The lowest byte of 1056.
    encode(0x20, || black_box(&DATA).encode())
}

pub(super) fn setup_parse() -> Result<Box<dyn Work>, BenchError> {
    parse(SETUP.encode().to_vec(), SETUP, Setup::parse)
}

pub(super) fn setup_encode() -> Result<Box<dyn Work>, BenchError> {
    encode(SETUP.encode().len(), || black_box(&SETUP).encode())
}

pub(super) fn status_message_parse() -> Result<Box<dyn Work>, BenchError> {
    parse(of_status_message(), STATUS, StatusMessage::parse)
}

pub(super) fn status_message_encode() -> Result<Box<dyn Work>, BenchError> {
    each(|_| {
        let mut bytes = [0; SM_MAX_LENGTH];
        let length = black_box(&STATUS).encode(&mut bytes);
        black_box(&bytes);
        length == SM_MIN_LENGTH
    })
}

pub(super) fn nak_parse() -> Result<Box<dyn Work>, BenchError> {
    parse(NAK.encode().to_vec(), NAK, Nak::parse)
}

pub(super) fn nak_encode() -> Result<Box<dyn Work>, BenchError> {
    encode(NAK.encode().len(), || black_box(&NAK).encode())
}
