//! Joins the fragments of a message (shared-memory spec 11.5). One assembler belongs to one image. Messages of one
//! fragment never come here.
#![forbid(unsafe_code)]

use crate::log::frame::Payload;

/// Flag of a message's first fragment.
pub(super) const BEGIN: u8 = 0x80;
/// Flag of a message's last fragment.
pub(super) const END: u8 = 0x40;
/// Both: a message of one fragment.
pub(super) const UNFRAGMENTED: u8 = BEGIN | END;

/// What the header of an assembled message takes from its first fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FirstFragment {
    /// Stream position of its first byte, header included.
    pub(super) start: i64,
    pub(super) flags: u8,
    pub(super) reserved_value: i64,
}

/// One fragment on its way into a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'a> {
    pub(super) payload: Payload<'a>,
    pub(super) flags: u8,
    /// Stream position of its first byte, header included.
    pub(super) start: i64,
    /// Stream position behind it, alignment included.
    pub(super) end: i64,
    pub(super) reserved_value: i64,
}

/// The message under construction.
#[derive(Debug)]
pub(super) struct Assembler {
    buffer: Vec<u8>,
    /// Where the next fragment has to start; -1 when no message is under construction.
    next: i64,
    first: FirstFragment,
    /// Most bytes of a message of this stream.
    limit: usize,
    /// What undoes the latest fragment.
    undo_length: usize,
    undo_next: i64,
}

impl Assembler {
    /// For messages of at most `limit` bytes; whatever claims to be longer is dropped.
    pub(super) fn new(limit: usize) -> Self {
        Assembler {
            buffer: Vec::new(),
            next: -1,
            first: FirstFragment::default(),
            limit,
            undo_length: 0,
            undo_next: -1,
        }
    }

    /// Takes a fragment in; true if it completed a message, which is then in [`Self::message`].
    #[inline]
    pub(super) fn on_fragment(&mut self, fragment: &Fragment<'_>) -> bool {
        self.undo_length = self.buffer.len();
        self.undo_next = self.next;
        if fragment.flags & BEGIN != 0 {
            self.buffer.clear();
            self.first = FirstFragment {
                start: fragment.start,
                flags: fragment.flags,
                reserved_value: fragment.reserved_value,
            };
            // Undoing the first fragment means: nothing under construction.
            self.undo_length = 0;
            self.undo_next = -1;
        } else if self.next != fragment.start {
            self.reset();
            return false;
        }
        if fragment.payload.len() > self.limit - self.buffer.len().min(self.limit) {
            self.reset();
            return false;
        }
        fragment.payload.append_to(&mut self.buffer);
        if fragment.flags & END != 0 {
            self.next = -1;
            return true;
        }
        self.next = fragment.end;
        false
    }

    /// The bytes so far; the whole message after [`Self::on_fragment`] said so.
    #[inline]
    pub(super) fn message(&self) -> &[u8] {
        &self.buffer
    }

    /// What the message's first fragment said.
    #[inline]
    pub(super) fn first(&self) -> FirstFragment {
        self.first
    }

    /// Takes the latest fragment back, because it will be delivered again.
    pub(super) fn undo(&mut self) {
        self.buffer.truncate(self.undo_length);
        self.next = self.undo_next;
    }

    /// Drops the message under construction.
    pub(super) fn reset(&mut self) {
        self.buffer.clear();
        self.next = -1;
        self.undo_length = 0;
        self.undo_next = -1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(bytes: &[u8], flags: u8, start: i64) -> Fragment<'_> {
        Fragment {
            payload: Payload::from_slice(bytes),
            flags,
            start,
            end: start + 64,
            reserved_value: start + 1,
        }
    }

    #[test]
    fn fragments_in_order_make_the_message() {
        let mut assembler = Assembler::new(100);
        assert!(!assembler.on_fragment(&fragment(b"abc", BEGIN, 0)));
        assert!(!assembler.on_fragment(&fragment(b"def", 0, 64)));
        assert!(assembler.on_fragment(&fragment(b"gh", END, 128)));
        assert_eq!(assembler.message(), b"abcdefgh");
        assert_eq!(
            assembler.first(),
            FirstFragment {
                start: 0,
                flags: BEGIN,
                reserved_value: 1
            }
        );
        assert!(
            !assembler.on_fragment(&fragment(b"ij", END, 192)),
            "an end without a begin is dropped"
        );
    }

    #[test]
    fn a_hole_drops_the_message() {
        let mut assembler = Assembler::new(100);
        assert!(!assembler.on_fragment(&fragment(b"abc", BEGIN, 0)));
        assert!(!assembler.on_fragment(&fragment(b"ghi", END, 128)));
        assert_eq!(assembler.message(), b"");
        assert!(
            !assembler.on_fragment(&fragment(b"def", END, 64)),
            "what comes after a drop is not appended"
        );
    }

    #[test]
    fn a_new_begin_drops_what_was_unfinished() {
        let mut assembler = Assembler::new(100);
        assert!(!assembler.on_fragment(&fragment(b"abc", BEGIN, 0)));
        assert!(!assembler.on_fragment(&fragment(b"xy", BEGIN, 640)));
        assert!(assembler.on_fragment(&fragment(b"z", END, 704)));
        assert_eq!(assembler.message(), b"xyz");
    }

    #[test]
    fn an_undone_fragment_is_appended_once() {
        let mut assembler = Assembler::new(100);
        assert!(!assembler.on_fragment(&fragment(b"abc", BEGIN, 0)));
        assert!(assembler.on_fragment(&fragment(b"de", END, 64)));
        assembler.undo();
        assert!(assembler.on_fragment(&fragment(b"de", END, 64)));
        assert_eq!(assembler.message(), b"abcde");
    }

    #[test]
    fn a_message_longer_than_the_stream_allows_is_dropped() {
        let mut assembler = Assembler::new(5);
        assert!(!assembler.on_fragment(&fragment(b"abc", BEGIN, 0)));
        assert!(!assembler.on_fragment(&fragment(b"def", 0, 64)));
        assert!(!assembler.on_fragment(&fragment(b"g", END, 128)));
        assert_eq!(assembler.message(), b"");
    }
}
