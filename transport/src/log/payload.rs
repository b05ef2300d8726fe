//! What an append copies from, and where its reserved values come from.
#![forbid(unsafe_code)]

use crate::log::frame::FrameView;
use crate::log::words::Words;

/// The bytes of a message: one slice, two, or a list of them. They are private memory of the caller.
pub trait Source {
    /// Length in bytes.
    fn length(&self) -> usize;

    /// Hands the `length` bytes from `from` on to `put`, in order and in as many pieces as they lie in; `put` gets
    /// the offset of each piece relative to `from`. The range lies inside the source.
    fn read(&self, from: usize, length: usize, put: impl FnMut(usize, &[u8]));

    /// All of it, if it lies in one piece: it is copied without a call then.
    #[inline(always)]
    fn in_one_piece(&self) -> Option<&[u8]> {
        None
    }
}

impl Source for [u8] {
    #[inline(always)]
    fn length(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn read(&self, from: usize, length: usize, mut put: impl FnMut(usize, &[u8])) {
        // A message in one frame is the whole slice; the test is folded away there.
        if from == 0 && length == self.len() {
            put(0, self);
        } else if let Some(piece) = self.get(from..).and_then(|rest| rest.get(..length)) {
            put(0, piece);
        }
    }

    #[inline(always)]
    fn in_one_piece(&self) -> Option<&[u8]> {
        Some(self)
    }
}

impl<const N: usize> Source for [u8; N] {
    #[inline(always)]
    fn length(&self) -> usize {
        N
    }

    #[inline(always)]
    fn read(&self, from: usize, length: usize, put: impl FnMut(usize, &[u8])) {
        self.as_slice().read(from, length, put);
    }

    #[inline(always)]
    fn in_one_piece(&self) -> Option<&[u8]> {
        Some(self)
    }
}

impl Source for Vec<u8> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn read(&self, from: usize, length: usize, put: impl FnMut(usize, &[u8])) {
        self.as_slice().read(from, length, put);
    }

    #[inline(always)]
    fn in_one_piece(&self) -> Option<&[u8]> {
        Some(self)
    }
}

impl<S: Source + ?Sized> Source for &S {
    #[inline(always)]
    fn length(&self) -> usize {
        (**self).length()
    }

    #[inline(always)]
    fn read(&self, from: usize, length: usize, put: impl FnMut(usize, &[u8])) {
        (**self).read(from, length, put);
    }

    #[inline(always)]
    fn in_one_piece(&self) -> Option<&[u8]> {
        (**self).in_one_piece()
    }
}

/// Two sources one after the other.
impl<S: Source, T: Source> Source for (S, T) {
    #[inline(always)]
    fn length(&self) -> usize {
        self.0.length().saturating_add(self.1.length())
    }

    #[inline]
    fn read(&self, from: usize, length: usize, mut put: impl FnMut(usize, &[u8])) {
        let first = self.0.length();
        let head = first.saturating_sub(from).min(length);
        if head > 0 {
            self.0.read(from, head, &mut put);
        }
        if length > head {
            let rest = from.saturating_sub(first);
            self.1
                .read(rest, length - head, |at, piece| put(head + at, piece));
        }
    }
}

/// A gather list: fragment boundaries ignore the boundaries of its parts.
impl Source for [&[u8]] {
    #[inline]
    fn length(&self) -> usize {
        self.iter()
            .fold(0, |length: usize, part| length.saturating_add(part.len()))
    }

    #[inline]
    fn read(&self, from: usize, length: usize, mut put: impl FnMut(usize, &[u8])) {
        let mut skip = from;
        let mut done = 0;
        for part in self {
            if done == length {
                return;
            }
            let Some(rest) = part.get(skip..) else {
                skip -= part.len();
                continue;
            };
            skip = 0;
            let piece = rest.get(..length - done).unwrap_or(rest);
            put(done, piece);
            done += piece.len();
        }
    }
}

/// Where the reserved value of each frame comes from (spec 10.2): nowhere, or a function of the frame, whose payload
/// is in place and which is not committed yet.
pub trait ReservedValue<B: Words> {
    /// Whether [`ReservedValue::value`] is asked at all.
    const IS_USED: bool;

    /// The reserved value of a frame.
    fn value(&self, frame: &FrameView<'_, B>) -> i64;
}

/// The reserved value stays 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReservedValue;

impl<B: Words> ReservedValue<B> for NoReservedValue {
    const IS_USED: bool = false;

    #[inline(always)]
    fn value(&self, _frame: &FrameView<'_, B>) -> i64 {
        0
    }
}

impl<B: Words, F: Fn(&FrameView<'_, B>) -> i64> ReservedValue<B> for F {
    const IS_USED: bool = true;

    #[inline(always)]
    fn value(&self, frame: &FrameView<'_, B>) -> i64 {
        self(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(source: &(impl Source + ?Sized), from: usize, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        let mut expected_at = 0;
        source.read(from, length, |at, piece| {
            assert_eq!(at, expected_at);
            out[at..at + piece.len()].copy_from_slice(piece);
            expected_at += piece.len();
        });
        assert_eq!(expected_at, length);
        out
    }

    #[test]
    fn every_range_of_every_kind_of_source_is_the_same_bytes() {
        let bytes: Vec<u8> = (0..20).collect();
        let pair = (&bytes[..7], &bytes[7..]);
        let list: [&[u8]; 5] = [&bytes[..1], &[], &bytes[1..9], &bytes[9..20], &[]];
        assert_eq!(pair.length(), 20);
        assert_eq!(list[..].length(), 20);
        for from in 0..=20 {
            for length in 0..=20 - from {
                let expected = &bytes[from..from + length];
                assert_eq!(gather(&bytes, from, length), expected);
                assert_eq!(gather(&pair, from, length), expected);
                assert_eq!(gather(&list[..], from, length), expected);
            }
        }
    }
}
