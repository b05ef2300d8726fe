//! Frames by hand (wire protocol, section 1). The drivers' own codecs are deliberately not used: what they would get
//! wrong twice, on both sides of a socket, shows against these.

/// Type codes.
pub const PAD: u16 = 0;
/// Data, and heartbeats.
pub const DATA: u16 = 1;
/// Negative acknowledgement.
pub const NAK: u16 = 2;
/// Status message.
pub const SM: u16 = 3;
/// Image rejection.
pub const ERR: u16 = 4;
/// Announcement of a session.
pub const SETUP: u16 = 5;
/// Round trip time measurement.
pub const RTTM: u16 = 6;
/// Name resolver gossip.
pub const RES: u16 = 7;
/// Announcement of a response session.
pub const RSP_SETUP: u16 = 11;

/// Begin and end of a message in one frame.
pub const WHOLE: u8 = 0xC0;
/// SM that asks for a SETUP; SETUP that offers a response; RTTM that wants an answer.
pub const ASKS: u8 = 0x80;
/// SETUP of a publication with group semantics; SM of a receiver that leaves.
pub const BIT_40: u8 = 0x40;

/// Little-endian fields one after another.
struct Fields(Vec<u8>);

impl Fields {
    fn header(length: usize, flags: u8, kind: u16) -> Fields {
        let mut fields = Fields(Vec::with_capacity(length));
        fields = fields.i32(i32::try_from(length).expect("short"));
        fields.0.extend_from_slice(&[0, flags]);
        fields.0.extend_from_slice(&kind.to_le_bytes());
        fields
    }

    fn i32(mut self, value: i32) -> Fields {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn i64(mut self, value: i64) -> Fields {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }
}

/// The fields of a SETUP.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub flags: u8,
    pub term_offset: i32,
    pub session: i32,
    pub stream: i32,
    pub initial_term: i32,
    pub active_term: i32,
    pub term_length: i32,
    pub mtu: i32,
    pub ttl: i32,
}

/// A SETUP of 40 bytes.
pub fn setup(setup: &Setup) -> Vec<u8> {
    let s = setup;
    let fields = Fields::header(40, s.flags, SETUP)
        .i32(s.term_offset)
        .i32(s.session)
        .i32(s.stream);
    let fields = fields.i32(s.initial_term).i32(s.active_term);
    fields.i32(s.term_length).i32(s.mtu).i32(s.ttl).0
}

/// Session and stream of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub session: i32,
    pub stream: i32,
}

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub term: i32,
    pub offset: i32,
}

/// The fields of a status message.
#[derive(Clone, Copy, Debug)]
pub struct Sm {
    pub flags: u8,
    pub key: Key,
    pub at: Place,
    pub window: i32,
    pub receiver: i64,
    pub group_tag: Option<i64>,
}

/// A status message of 36 or 44 bytes.
pub fn sm(sm: &Sm) -> Vec<u8> {
    let length = if sm.group_tag.is_some() { 44 } else { 36 };
    let fields = Fields::header(length, sm.flags, SM)
        .i32(sm.key.session)
        .i32(sm.key.stream);
    let fields = fields
        .i32(sm.at.term)
        .i32(sm.at.offset)
        .i32(sm.window)
        .i64(sm.receiver);
    match sm.group_tag {
        Some(tag) => fields.i64(tag).0,
        None => fields.0,
    }
}

/// A NAK of 28 bytes.
pub fn nak(key: Key, at: Place, length: i32) -> Vec<u8> {
    let fields = Fields::header(28, 0, NAK).i32(key.session).i32(key.stream);
    fields.i32(at.term).i32(at.offset).i32(length).0
}

/// An RTTM of 40 bytes.
pub fn rttm(flags: u8, key: Key, echo: i64, receiver: i64) -> Vec<u8> {
    let fields = Fields::header(40, flags, RTTM).i32(key.session).i32(key.stream);
    fields.i64(echo).i64(0).i64(receiver).0
}

/// An ERR with code 13. Without a group tag Aeron fills its place with -1.
pub fn err(key: Key, receiver: i64, group_tag: Option<i64>, text: &str) -> Vec<u8> {
    let flags = if group_tag.is_some() { 8 } else { 0 };
    let fields = Fields::header(40 + text.len(), flags, ERR)
        .i32(key.session)
        .i32(key.stream);
    let fields = fields.i64(receiver).i64(group_tag.unwrap_or(-1)).i32(13);
    let mut bytes = fields.i32(i32::try_from(text.len()).expect("short")).0;
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// An RSP_SETUP of 20 bytes.
pub fn rsp_setup(key: Key, response_session: i32) -> Vec<u8> {
    let fields = Fields::header(20, 0, RSP_SETUP).i32(key.session).i32(key.stream);
    fields.i32(response_session).0
}

/// One frame of a log, padded to 32 bytes.
pub fn data(flags: u8, key: Key, at: Place, payload: &[u8]) -> Vec<u8> {
    let mut bytes = log_header(32 + payload.len(), flags, DATA, key, at);
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes
}

/// The header of padding of so many bytes, which is all that travels of it.
pub fn pad(key: Key, at: Place, length: usize) -> Vec<u8> {
    log_header(length, WHOLE, PAD, key, at)
}

/// A heartbeat with these flags.
pub fn heartbeat(flags: u8, key: Key, at: Place) -> Vec<u8> {
    let mut bytes = log_header(32, flags, DATA, key, at);
    bytes[..4].fill(0);
    bytes
}

fn log_header(length: usize, flags: u8, kind: u16, key: Key, at: Place) -> Vec<u8> {
    let fields = Fields::header(length, flags, kind)
        .i32(at.offset)
        .i32(key.session);
    fields.i32(key.stream).i32(at.term).i64(0).0
}

/// A self-announcement of a name resolver with an IPv4 address.
pub fn announcement(name: &str, address: [u8; 4], port: u16) -> Vec<u8> {
    let entry = (14 + name.len()).next_multiple_of(8);
    let mut bytes = Fields::header(8 + entry, 0, RES).0;
    bytes.extend_from_slice(&[1, 0x80]);
    bytes.extend_from_slice(&port.to_le_bytes());
    bytes.extend_from_slice(&0i32.to_le_bytes());
    bytes.extend_from_slice(&address);
    bytes.extend_from_slice(&i16::try_from(name.len()).expect("short").to_le_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes.resize(8 + entry, 0);
    bytes
}

/// Fields of a received datagram, of its first frame unless said otherwise. A field beyond the end is a failed test.
#[derive(Clone, Copy)]
pub struct Frame<'a>(pub &'a [u8]);

impl Frame<'_> {
    pub fn length(self) -> i32 {
        self.i32_at(0)
    }

    pub fn flags(self) -> u8 {
        self.0[5]
    }

    pub fn kind(self) -> u16 {
        u16::from_le_bytes([self.0[6], self.0[7]])
    }

    pub fn i32_at(self, offset: usize) -> i32 {
        i32::from_le_bytes(self.0[offset..offset + 4].try_into().expect("four bytes"))
    }

    pub fn i64_at(self, offset: usize) -> i64 {
        i64::from_le_bytes(self.0[offset..offset + 8].try_into().expect("eight bytes"))
    }

    pub fn is_data(self) -> bool {
        self.kind() == DATA && self.length() > 0
    }

    pub fn is_heartbeat(self) -> bool {
        self.kind() == DATA && self.length() == 0
    }

    pub fn key(self) -> Key {
        let offset = if matches!(self.kind(), PAD | DATA | SETUP) {
            12
        } else {
            8
        };
        Key {
            session: self.i32_at(offset),
            stream: self.i32_at(offset + 4),
        }
    }

    /// Where a DATA, PAD, SM or NAK is, or a SETUP's sender stands.
    pub fn place(self) -> Place {
        let (term, offset) = match self.kind() {
            PAD | DATA => (20, 8),
            SETUP => (24, 8),
            _ => (16, 20),
        };
        Place {
            term: self.i32_at(term),
            offset: self.i32_at(offset),
        }
    }

    pub fn setup(self) -> Setup {
        assert_eq!((self.kind(), self.0.len()), (SETUP, 40), "not a SETUP: {self:?}");
        Setup {
            flags: self.flags(),
            term_offset: self.i32_at(8),
            session: self.i32_at(12),
            stream: self.i32_at(16),
            initial_term: self.i32_at(20),
            active_term: self.i32_at(24),
            term_length: self.i32_at(28),
            mtu: self.i32_at(32),
            ttl: self.i32_at(36),
        }
    }

    pub fn sm(self) -> Sm {
        assert_eq!(self.kind(), SM, "not an SM: {self:?}");
        let length = usize::try_from(self.length()).expect("positive");
        assert_eq!(length, self.0.len(), "{self:?}");
        Sm {
            flags: self.flags(),
            key: self.key(),
            at: self.place(),
            window: self.i32_at(24),
            receiver: self.i64_at(28),
            group_tag: (length == 44).then(|| self.i64_at(36)),
        }
    }

    /// Length of the gap that a NAK names.
    pub fn gap(self) -> i32 {
        assert_eq!((self.kind(), self.0.len()), (NAK, 28), "not a NAK: {self:?}");
        self.i32_at(24)
    }

    /// The log frames of a DATA datagram.
    pub fn frames(self) -> Vec<LogFrame> {
        let (mut frames, mut offset) = (Vec::new(), 0);
        while offset < self.0.len() {
            let frame = Frame(&self.0[offset..]);
            let length = usize::try_from(frame.length()).expect("positive");
            let aligned = length.next_multiple_of(32);
            assert!(length >= 32, "a frame of {length} bytes in {self:?}");
            let carried = if frame.kind() == PAD { 32 } else { aligned };
            assert!(
                offset + carried <= self.0.len(),
                "a frame beyond the end of {self:?}"
            );
            frames.push(LogFrame {
                kind: frame.kind(),
                flags: frame.flags(),
                at: frame.place(),
                length,
                payload: self.0[offset + 32..offset + carried.min(length)].to_vec(),
            });
            offset += carried;
        }
        frames
    }
}

/// [`Frame::is_data`] as a plain function.
pub fn is_data(frame: Frame<'_>) -> bool {
    frame.is_data()
}

/// [`Frame::is_heartbeat`] as a plain function.
pub fn is_heartbeat(frame: Frame<'_>) -> bool {
    frame.is_heartbeat()
}

/// One frame out of a datagram.
#[derive(Clone, Debug)]
pub struct LogFrame {
    pub kind: u16,
    pub flags: u8,
    pub at: Place,
    pub length: usize,
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.kind() {
            PAD => "PAD",
            DATA if self.length() == 0 => "HEARTBEAT",
            DATA => "DATA",
            NAK => "NAK",
            SM => "SM",
            ERR => "ERR",
            SETUP => "SETUP",
            RTTM => "RTTM",
            RES => "RES",
            RSP_SETUP => "RSP_SETUP",
            _ => "?",
        };
        write!(f, "{name} {}:", self.0.len())?;
        for word in self.0.chunks(4).take(11) {
            write!(f, " ")?;
            for byte in word {
                write!(f, "{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// The golden vectors of section 1.12.
#[test]
fn frames_made_by_hand_are_the_golden_ones() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let key = |session| Key {
        session,
        stream: 1001,
    };
    let made = setup(&Setup {
        flags: 0,
        term_offset: 64,
        session: 1234,
        stream: 1001,
        initial_term: -5,
        active_term: -3,
        term_length: 65_536,
        mtu: 1408,
        ttl: 0,
    });
    assert_eq!(
        hex(made),
        "280000000000050040000000d2040000e9030000fbfffffffdffffff000001008005000000000000"
    );
    let place = |term, offset| Place { term, offset };
    let mut message = Sm {
        flags: ASKS,
        key: key(55),
        at: place(0, 0),
        window: 0,
        receiver: 0x0815_0b4d_092a_7aef,
        group_tag: Some(77),
    };
    assert_eq!(
        hex(sm(&message)),
        "2c0000000080030037000000e9030000000000000000000000000000ef7a2a094d0b15084d00000000000000"
    );
    (message.flags, message.at, message.window) = (0, place(10, 0), 32_768);
    assert_eq!(
        hex(sm(&message)),
        "2c0000000000030037000000e90300000a0000000000000000800000ef7a2a094d0b15084d00000000000000"
    );
    assert_eq!(
        hex(nak(key(55), place(10, 64), 64)),
        "1c0000000000020037000000e90300000a0000004000000040000000"
    );
    assert_eq!(
        hex(rttm(0, key(1234), 99, 7)),
        "2800000000000600d2040000e9030000630000000000000000000000000000000700000000000000"
    );
    let response = Key {
        session: 77,
        stream: 10_001,
    };
    assert_eq!(
        hex(rsp_setup(response, 4242)),
        "1400000000000b004d0000001127000092100000"
    );
    assert_eq!(
        hex(heartbeat(0xE0, key(1234), place(-3, 320))),
        "0000000000e0010040010000d2040000e9030000fdffffff0000000000000000"
    );
    assert_eq!(
        hex(pad(key(5), place(0, 65_472), 64)),
        "4000000000c00000c0ff000005000000e9030000000000000000000000000000"
    );
    assert_eq!(
        hex(announcement("nodeA", [127, 0, 0, 1], 24_502)),
        "20000000000007000180b65f000000007f00000105006e6f6465410000000000"
    );
    assert_eq!(
        hex(err(key(5), 7, Some(77), "no thanks")),
        "310000000008040005000000e903000007000000000000004d000000000000000d000000090000006e6f207468616e6b73"
    );
}
