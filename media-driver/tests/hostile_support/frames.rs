//! Datagrams of an attacker: noise, frames whose fields are at their extremes, recordings with flipped bits, and frames
//! that name streams which are there.

use std::path::Path;

use fastrand::Rng;
use fulmar::id::{SessionId, StreamId, TermId};
use fulmar::wire::data::DataHeader;
use fulmar::wire::frame::FrameType;
use fulmar::wire::{ErrorFrame, Nak, ResponseSetup, Rttm, Setup, StatusMessage, encode_heartbeat};

const HEARTBEAT: u8 = 0xC0;
const END: u8 = 0xE0;
const REVOKED: u8 = 0xF0;

/// A stream that an attacker has seen: its names, and about where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) session_id: i32,
    pub(crate) stream_id: i32,
    pub(crate) initial_term_id: i32,
    pub(crate) term_length: i32,
    pub(crate) position: i64,
}

impl Seen {
    pub(crate) fn term_id(&self) -> i32 {
        let terms = self.position / i64::from(self.term_length);
        self.initial_term_id.wrapping_add(terms as i32)
    }

    pub(crate) fn term_offset(&self) -> i32 {
        (self.position % i64::from(self.term_length)) as i32 & !31
    }
}

/// A SETUP that announces a session.
pub(crate) fn setup(stream_id: i32, session_id: i32, initial_term_id: i32, term_length: i32) -> Vec<u8> {
    Setup {
        flags: 0,
        term_offset: 0,
        session_id: SessionId(session_id),
        stream_id: StreamId(stream_id),
        initial_term_id: TermId(initial_term_id),
        active_term_id: TermId(initial_term_id),
        term_length,
        mtu: 1408,
        ttl: 0,
    }
    .encode()
    .to_vec()
}

fn data(seen: &Seen, frame_type: FrameType, flags: u8, body: usize) -> Vec<u8> {
    let header = DataHeader {
        frame_length: 32 + body as i32,
        version: 0,
        flags,
        frame_type,
        term_offset: seen.term_offset(),
        session_id: SessionId(seen.session_id),
        stream_id: StreamId(seen.stream_id),
        term_id: TermId(seen.term_id()),
        reserved_value: 0,
    };
    let mut bytes = header.encode().to_vec();
    bytes.resize(32 + body, 0xEE);
    bytes
}

pub(crate) fn heartbeat(seen: &Seen, flags: u8) -> Vec<u8> {
    encode_heartbeat(
        flags,
        SessionId(seen.session_id),
        StreamId(seen.stream_id),
        TermId(seen.term_id()),
        seen.term_offset(),
    )
    .to_vec()
}

pub(crate) fn status(seen: &Seen, flags: u8, receiver_id: i64) -> Vec<u8> {
    let mut bytes = [0; 44];
    let length = StatusMessage {
        flags,
        session_id: SessionId(seen.session_id),
        stream_id: StreamId(seen.stream_id),
        term_id: TermId(seen.term_id()),
        term_offset: seen.term_offset(),
        window: seen.term_length / 2,
        receiver_id,
        group_tag: (receiver_id & 1 == 0).then_some(receiver_id),
        has_bad_tag_length: false,
    }
    .encode(&mut bytes);
    bytes[..length].to_vec()
}

pub(crate) fn nak(seen: &Seen, length: i32) -> Vec<u8> {
    Nak {
        session_id: SessionId(seen.session_id),
        stream_id: StreamId(seen.stream_id),
        term_id: TermId(seen.term_id()),
        term_offset: 0,
        length,
    }
    .encode()
    .to_vec()
}

pub(crate) fn error(seen: &Seen, receiver_id: i64, text: &[u8]) -> Vec<u8> {
    let mut bytes = [0; 1100];
    let length = ErrorFrame {
        session_id: SessionId(seen.session_id),
        stream_id: StreamId(seen.stream_id),
        receiver_id,
        group_tag: None,
        error_code: ErrorFrame::IMAGE_REJECTED,
        text,
    }
    .encode(&mut bytes);
    bytes[..length].to_vec()
}

fn rttm(seen: &Seen, flags: u8) -> Vec<u8> {
    Rttm {
        flags,
        session_id: SessionId(seen.session_id),
        stream_id: StreamId(seen.stream_id),
        echo_timestamp: 1,
        reception_delta: 0,
        receiver_id: 0,
    }
    .encode()
    .to_vec()
}

fn response_setup(seen: &Seen) -> Vec<u8> {
    ResponseSetup {
        session_id: SessionId(seen.session_id),
        stream_id: StreamId(seen.stream_id),
        response_session_id: SessionId(7),
    }
    .encode()
    .to_vec()
}

/// A resolution frame with one IPv4 entry of the name `ab`.
fn resolution() -> Vec<u8> {
    let mut bytes = vec![
        24, 0, 0, 0, 0, 0, 7, 0, 1, 0, 0x39, 0x30, 0, 0, 0, 0, 127, 0, 0, 1, 2, 0,
    ];
    bytes.extend(b"ab");
    bytes
}

/// What ends, rejects, moves, refills and asks again, in the name of a stream that is there. Status messages among them
/// are about a place where the stream is not: who names its place has seen it.
pub(crate) fn forgeries(seen: &Seen, random: &mut Rng) -> Vec<u8> {
    let elsewhere = Seen {
        initial_term_id: seen.initial_term_id.wrapping_add(random.i32(2..100)),
        ..*seen
    };
    let ahead = Seen {
        position: seen.position + i64::from(random.i32(-64..64)) * 1024,
        ..*seen
    };
    let receiver_id = random.i64(..);
    match random.u8(0..15) {
        0 => heartbeat(&ahead, END),
        1 => heartbeat(&ahead, REVOKED),
        2 => heartbeat(&ahead, HEARTBEAT),
        3 => data(&ahead, FrameType::DATA, HEARTBEAT, random.usize(0..1376)),
        4 => data(&ahead, FrameType::PAD, HEARTBEAT, 0),
        5 => setup(
            seen.stream_id,
            seen.session_id,
            seen.initial_term_id,
            seen.term_length,
        ),
        6 => setup(seen.stream_id, seen.session_id, random.i32(..), 65536),
        7 => status(&elsewhere, 0, receiver_id),
        8 => status(&elsewhere, StatusMessage::FLAG_EOS, receiver_id),
        9 => status(&elsewhere, StatusMessage::FLAG_SEND_SETUP, receiver_id),
        10 => nak(&ahead, random.i32(..)),
        11 => nak(seen, seen.term_length),
        12 => error(seen, receiver_id, &vec![b'x'; random.usize(0..1000)]),
        13 => rttm(seen, if random.bool() { Rttm::FLAG_REPLY } else { 0 }),
        _ => response_setup(seen),
    }
}

/// Noise, short and long, with or without something that looks like a frame's beginning.
pub(crate) fn noise(random: &mut Rng) -> Vec<u8> {
    let length = match random.u8(0..16) {
        0 => 0,
        1 => random.usize(1400..9000),
        _ => random.usize(0..200),
    };
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    if random.bool() && length >= 8 {
        bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
        bytes[4] = 0;
        bytes[6..8].copy_from_slice(&random.u16(0..13).to_le_bytes());
    }
    bytes
}

/// The numbers that code gets wrong.
const EXTREMES: [i32; 18] = [
    0,
    1,
    -1,
    7,
    8,
    31,
    32,
    33,
    1407,
    65535,
    65536,
    65537,
    1 << 24,
    1 << 30,
    (1 << 30) + 1,
    i32::MAX,
    i32::MAX - 31,
    i32::MIN,
];

/// Every type of frame with every field at every extreme, then cut off everywhere: one after the other, again and again.
pub(crate) struct Extremes {
    templates: usize,
    template: usize,
    step: usize,
}

impl Extremes {
    pub(crate) fn new() -> Self {
        Self {
            templates: 15,
            template: 0,
            step: 0,
        }
    }

    fn template(index: usize, seen: &Seen) -> Vec<u8> {
        // As above: status messages do not name the place of the stream.
        let elsewhere = Seen {
            initial_term_id: seen.initial_term_id.wrapping_add(9),
            ..*seen
        };
        match index {
            0 => data(seen, FrameType::DATA, HEARTBEAT, 64),
            1 => data(seen, FrameType::PAD, HEARTBEAT, 0),
            2 => heartbeat(seen, HEARTBEAT),
            3 => heartbeat(seen, END),
            4 => heartbeat(seen, REVOKED),
            5 => setup(
                seen.stream_id,
                seen.session_id,
                seen.initial_term_id,
                seen.term_length,
            ),
            6 => setup(seen.stream_id, seen.session_id.wrapping_add(1), 5, 65536),
            7 => status(&elsewhere, 0, 1),
            8 => status(&elsewhere, StatusMessage::FLAG_EOS, 2),
            9 => nak(seen, 1408),
            10 => error(seen, 3, b"no"),
            11 => rttm(seen, 0),
            12 => rttm(seen, Rttm::FLAG_REPLY),
            13 => response_setup(seen),
            _ => resolution(),
        }
    }

    /// The next one.
    pub(crate) fn next(&mut self, seen: &Seen) -> Vec<u8> {
        let mut bytes = Self::template(self.template, seen);
        let words = bytes.len() / 4;
        let halves = 4;
        if self.step < words * EXTREMES.len() {
            let (word, extreme) = (self.step / EXTREMES.len(), EXTREMES[self.step % EXTREMES.len()]);
            bytes[word * 4..][..4].copy_from_slice(&extreme.to_le_bytes());
        } else if self.step < (words + halves) * EXTREMES.len() {
            // Version, flags and type are shorter.
            let at = self.step - words * EXTREMES.len();
            let extreme = EXTREMES[at % EXTREMES.len()];
            bytes[4 + at / EXTREMES.len()] = extreme as u8;
        } else {
            let cut = self.step - (words + halves) * EXTREMES.len();
            bytes.truncate(cut);
        }
        self.step += 1;
        if self.step > (words + halves) * EXTREMES.len() + words * 4 {
            self.step = 0;
            self.template = (self.template + 1) % self.templates;
        }
        bytes
    }
}

/// The datagrams of a capture file.
pub(crate) fn read_capture(path: &Path) -> Vec<Vec<u8>> {
    let file = std::fs::read(path).unwrap();
    let (mut rest, mut datagrams) = (&file[24..], Vec::new());
    while let Some((header, after)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        let Some((packet, after)) = after.split_at_checked(length) else {
            break;
        };
        let ip_header = if packet[0] >> 4 == 4 { 20 } else { 40 };
        datagrams.push(packet[ip_header + 8..].to_vec());
        rest = after;
    }
    datagrams
}

/// A recorded datagram, half of the time with the names of a stream that is there, with one to eight bits flipped.
pub(crate) fn flipped(recording: &[Vec<u8>], seen: &Seen, random: &mut Rng) -> Vec<u8> {
    let mut bytes = recording[random.usize(..recording.len())].clone();
    if random.bool() && bytes.len() >= 20 {
        // Data frames have their term offset first.
        let at = if bytes[6] < 2 || bytes[6] == 5 { 12 } else { 8 };
        bytes[at..at + 4].copy_from_slice(&seen.session_id.to_le_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&seen.stream_id.to_le_bytes());
    }
    for _ in 0..random.usize(1..=8) {
        if !bytes.is_empty() {
            let at = random.usize(..bytes.len());
            bytes[at] ^= 1 << random.u8(0..8);
        }
    }
    bytes
}
