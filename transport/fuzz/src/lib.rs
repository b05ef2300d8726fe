//! What the targets share: taking the fuzzer's bytes apart, and regions filled with them.

use fulmar::id::{RegistrationId, SessionId, StreamId, TermId};
use fulmar::log::{LogBuffers, LogInit, Metadata};
use fulmar::memory::{AtomicBuffer, Region, View};

/// The fuzzer's bytes, taken from the front. What is missing at the end is zero.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All bytes of one run.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all bytes were taken.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `length` bytes.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Whatever is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes.
    pub fn i32(&mut self) -> i32 {
        i32::from_le_bytes(self.array())
    }

    /// Eight bytes.
    pub fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.array())
    }

    /// A position: mostly a small multiple of `unit`, sometimes one near the end of the range, sometimes anything.
    pub fn position(&mut self, unit: i64) -> i64 {
        match self.u8() & 7 {
            7 => self.i64(),
            6 => (i64::MAX & !31) - i64::from(self.u16()) * unit / 4,
            _ => i64::from(self.u16()) * unit,
        }
    }
}

/// A heap region of `length` bytes that starts with `bytes`.
#[must_use]
pub fn region(length: usize, bytes: &[u8]) -> Region {
    let region = Region::heap(length);
    region.as_view().copy_in(0, &bytes[..bytes.len().min(length)]);
    region
}

/// Writes words anywhere into a view: pairs of an offset and a value, `count` at most.
pub fn patch(view: &View, input: &mut Input<'_>, count: usize) {
    for _ in 0..count {
        if input.is_empty() {
            return;
        }
        let words = view.capacity() / 4;
        let offset = usize::from(input.u16()) % words * 4;
        view.store_relaxed_i32(offset, input.i32());
    }
}

/// Length of the terms of [`scribbled_log`]: far shorter than a file's, so that the fuzzer reaches their ends.
pub const TERM_LENGTH: usize = 1024;

/// A log of short terms whose tails, active term count and terms come from the fuzzer; only the fields that are
/// checked when a log is opened are sound.
#[must_use]
pub fn scribbled_log(input: &mut Input<'_>) -> LogBuffers {
    let metadata = Region::heap(4096).as_view();
    let init = LogInit {
        mtu_length: 256,
        ..LogInit::ipc_default(
            RegistrationId(1),
            SessionId(2),
            StreamId(3),
            TermId(input.i32()),
            TERM_LENGTH as i32,
        )
    };
    let fields = Metadata::new(metadata.clone()).expect("the length is right");
    init.write_to(&fields);
    for partition in 0..3 {
        fields.tail_release(partition, tail(input, init.initial_term_id));
    }
    fields.active_term_count_release(if input.u8() < 0xF0 {
        i32::from(input.u8()) & 7
    } else {
        input.i32()
    });
    let terms = core::array::from_fn(|_| {
        let length = usize::from(input.u16()) % (TERM_LENGTH + 1);
        region(TERM_LENGTH, input.bytes(length)).as_view()
    });
    LogBuffers::from_parts(terms, metadata).expect("the checked fields are sound")
}

/// A raw tail: mostly an aligned offset of a term near the first, sometimes anything.
fn tail(input: &mut Input<'_>, initial: TermId) -> i64 {
    let kind = input.u8();
    if kind >= 0xF0 {
        return input.i64();
    }
    let term_id = i64::from(initial.get().wrapping_add(i32::from(kind & 7)));
    let offset = i64::from(input.u8()) * 32 % (TERM_LENGTH as i64 + 256);
    (term_id << 32) | offset
}
