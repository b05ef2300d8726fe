//! Appending several messages at once: one tail move for all, each message an ordinary frame of its own.
//!
//! The range is written in groups. The first frame of a group is opened with a length that spans the rest of the
//! range, so that everything behind it belongs to that open frame until it is committed with its own length; readers
//! come to the others only over it, and find the whole group at once. So the others need no opening store, and what a
//! publisher that dies leaves behind is one open frame, whoever repairs it: complete groups are there, in order, the
//! rest becomes padding.
//!
//! No code of the caller runs between the reservation and the last commit.
#![forbid(unsafe_code)]

use super::{
    AppendOutcome, AppendWindow, ConcurrentAppender, Cursor, ExclusiveAppender, Reservation, Template,
    commit_frame, open_frame,
};
use crate::log::buffers::LogBuffers;
use crate::log::descriptor::{FRAME_HEADER_LENGTH, frame_occupied};
use crate::log::frame::{FLAGS_UNFRAGMENTED, TYPE_DATA, length_word, offset_word};
use crate::log::payload::NoReservedValue;
use crate::log::words::{HeaderWord, Words};

/// A group is committed once it has so many bytes; fewer in the small terms of the loom models.
const GROUP_BYTES: usize = if cfg!(loom) { 128 } else { 4096 };

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOutcome {
    /// Leading messages that were appended.
    pub accepted: usize,
    /// [`AppendOutcome::Appended`] with the position behind the last of them, or why the first message was not.
    pub outcome: AppendOutcome,
}

/// Several messages in order, in private memory of the caller.
trait Batch {
    /// The first message; `None` in an empty batch.
    fn first(&self) -> Option<&[u8]>;

    /// How many leading messages go into one reservation.
    fn fit(&self, room: Room) -> Fit;

    /// So many leading messages, no more than [`Batch::fit`] counts.
    fn leading(&self, count: usize) -> impl Iterator<Item = &[u8]>;
}

/// What one reservation can take.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// Longest message of one frame, bytes.
    payload: usize,
    /// Bytes that may be reserved.
    bytes: usize,
    /// Bytes up to the limit: each message starts below it.
    starts: u64,
}

/// The leading messages that one reservation takes.
#[derive(Clone, Copy, Debug, Default)]
struct Fit {
    count: usize,
    /// Bytes of their frames; at most [`Room::bytes`].
    occupied: usize,
}

/// A list of messages.
struct List<'a>(&'a [&'a [u8]]);

impl Batch for List<'_> {
    #[inline(always)]
    fn first(&self) -> Option<&[u8]> {
        self.0.first().copied()
    }

    #[inline(always)]
    fn fit(&self, room: Room) -> Fit {
        let mut fit = Fit::default();
        for message in self.0 {
            let starts_below_limit = (fit.occupied as u64) < room.starts;
            if !starts_below_limit || message.len() > room.payload {
                break;
            }
            let end = fit.occupied + frame_occupied(message.len());
            if end > room.bytes {
                break;
            }
            fit.occupied = end;
            fit.count += 1;
        }
        fit
    }

    #[inline(always)]
    fn leading(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        self.0.get(..count).unwrap_or_default().iter().copied()
    }
}

/// Messages of one length, one behind the other. What is left behind the last whole one is a message too, which goes
/// on its own.
struct Strip<'a> {
    bytes: &'a [u8],
    /// At least 1.
    length: usize,
}

impl Batch for Strip<'_> {
    #[inline(always)]
    fn first(&self) -> Option<&[u8]> {
        self.bytes.chunks(self.length).next()
    }

    #[inline(always)]
    fn fit(&self, room: Room) -> Fit {
        if self.length > room.payload {
            return Fit::default();
        }
        let each = frame_occupied(self.length);
        let below_limit = usize::try_from(room.starts.div_ceil(each as u64)).unwrap_or(usize::MAX);
        let count = (self.bytes.len() / self.length)
            .min(room.bytes / each)
            .min(below_limit);
        Fit {
            count,
            occupied: count * each,
        }
    }

    #[inline(always)]
    fn leading(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        let bytes = self.bytes.get(..count * self.length).unwrap_or_default();
        bytes.chunks_exact(self.length)
    }
}

impl Template {
    /// Whether there is a first message, and the stream could take it if it had room.
    #[inline(always)]
    fn could_take_first_of(&self, batch: &impl Batch) -> bool {
        batch
            .first()
            .is_some_and(|first| first.len() <= self.max_message_length)
    }

    /// Room at a place `to_end` bytes before the end of its term and `starts` bytes below the limit. A batch reserves
    /// no more than the longest message may: other publishers can move the tail up to the limit after it was looked
    /// at, and what lies beyond the limit then is what a single message could have put there.
    #[inline(always)]
    fn room(&self, to_end: usize, starts: u64) -> Room {
        Room {
            payload: self.max_frame_payload,
            bytes: frame_occupied(self.max_message_length).min(to_end),
            starts,
        }
    }
}

/// Writes the messages, which fill the range up to its end.
#[inline(always)]
fn write_batch<'m, B: Words>(
    log: &LogBuffers<B>,
    template: &Template,
    range: Reservation,
    occupied: usize,
    mut messages: impl Iterator<Item = &'m [u8]>,
) {
    let term = log.term(range.partition);
    let end = range.offset + occupied;
    let mut offset = range.offset;
    let mut ready = None;
    while let Some(first) = messages.next() {
        let head = term.slot(offset);
        let group_end = offset + GROUP_BYTES;
        open_frame(
            head,
            length_word(-((end - offset) as i32), FLAGS_UNFRAGMENTED, TYPE_DATA),
            template.session_id,
            range.stream_word,
        );
        // Only now, so that the range is covered by open frames at any time.
        if let Some((slot, word)) = ready {
            commit_frame(slot, word);
        }
        head.copy_payload(0, first);
        ready = Some((head, data_word(first.len())));
        offset += frame_occupied(first.len());
        while offset < group_end
            && let Some(message) = messages.next()
        {
            let slot = term.slot(offset);
            // SYNC frame-length: the commit of the group's first frame publishes this one too.
            slot.store_relaxed(HeaderWord::Length, data_word(message.len()));
            slot.store_relaxed(
                HeaderWord::Offset,
                offset_word(offset as i32, template.session_id),
            );
            slot.store_relaxed(HeaderWord::Stream, range.stream_word);
            slot.copy_payload(0, message);
            offset += frame_occupied(message.len());
        }
    }
    if let Some((slot, word)) = ready {
        commit_frame(slot, word);
    }
}

#[inline(always)]
fn data_word(length: usize) -> i64 {
    length_word(
        (length + FRAME_HEADER_LENGTH) as i32,
        FLAGS_UNFRAGMENTED,
        TYPE_DATA,
    )
}

/// The outcome of a batch of which at most the first message was appended, on its own.
fn single(outcome: AppendOutcome) -> BatchOutcome {
    BatchOutcome {
        accepted: usize::from(matches!(outcome, AppendOutcome::Appended { .. })),
        outcome,
    }
}

/// The outcome of an empty batch.
fn nothing(position: i64) -> BatchOutcome {
    BatchOutcome {
        accepted: 0,
        outcome: AppendOutcome::Appended { position },
    }
}

impl<B: Words> ConcurrentAppender<B> {
    /// Appends as many leading messages as go into one reservation: those of one frame each that start below the
    /// limit and fit into the term, of together no more bytes than the longest message takes. A first message that
    /// does not fit is offered on its own, as by [`ConcurrentAppender::offer`]. Nothing happens to an empty batch.
    #[inline]
    pub fn offer_batch<W: AppendWindow>(&self, window: &W, messages: &[&[u8]], limit: i64) -> BatchOutcome {
        self.append_batch(window, &List(messages), limit)
    }

    /// As [`ConcurrentAppender::offer_batch`], with messages of `length` bytes each that lie one behind the other,
    /// the last of which may be shorter. A `length` of 0 is taken for 1.
    #[inline]
    pub fn offer_batch_of<W: AppendWindow>(
        &self,
        window: &W,
        messages: &[u8],
        length: usize,
        limit: i64,
    ) -> BatchOutcome {
        let strip = Strip {
            bytes: messages,
            length: length.max(1),
        };
        self.append_batch(window, &strip, limit)
    }

    #[inline(always)]
    fn append_batch<W: AppendWindow>(&self, window: &W, batch: &impl Batch, limit: i64) -> BatchOutcome {
        let cursor = self.cursor.get();
        let before = self.distance(cursor);
        if before >= self.template.term_length {
            return self.append_in_active_term(window, batch, limit);
        }
        self.append_behind(window, batch, limit, cursor, before)
    }

    /// The term known so far is full or gone.
    #[cold]
    #[inline(never)]
    fn append_in_active_term<W: AppendWindow>(
        &self,
        window: &W,
        batch: &impl Batch,
        limit: i64,
    ) -> BatchOutcome {
        // No reason to rotate.
        if !self.template.could_take_first_of(batch) {
            return self.offer_first(window, batch, limit);
        }
        match self.place(limit) {
            Ok((cursor, before)) => self.append_behind(window, batch, limit, cursor, before),
            Err(outcome) => single(outcome),
        }
    }

    /// Appends in the cursor's term, whose tail was seen `before` bytes from its start, inside the term.
    #[inline(always)]
    fn append_behind<W: AppendWindow>(
        &self,
        window: &W,
        batch: &impl Batch,
        limit: i64,
        cursor: Cursor,
        before: u64,
    ) -> BatchOutcome {
        let position = cursor.term_begin.wrapping_add(before as i64);
        if position >= limit {
            // Every batch to the network comes by here once: its publication looks at the limit only then.
            if self.template.could_take_first_of(batch) {
                return single(AppendOutcome::AtLimit { position });
            }
            return self.offer_first(window, batch, limit);
        }
        let to_end = (self.template.term_length - before) as usize;
        let room = self.template.room(to_end, limit.wrapping_sub(position) as u64);
        let fit = batch.fit(room);
        if fit.count == 0 {
            return self.offer_first(window, batch, limit);
        }
        let range = match self.raise(window, cursor, fit.occupied) {
            Ok(range) => range,
            // Others have moved the tail meanwhile.
            Err(raw) => match self.end_of_term(window, cursor.partition, raw, fit.occupied) {
                Ok(range) => range,
                Err(outcome) => return single(outcome),
            },
        };
        let messages = batch.leading(fit.count);
        write_batch(&self.log, &self.template, range, fit.occupied, messages);
        // SYNC owner-window: every commit is visible once the window is empty.
        window.leave();
        BatchOutcome {
            accepted: fit.count,
            outcome: AppendOutcome::Appended {
                position: range.position() + fit.occupied as i64,
            },
        }
    }

    /// The first message on its own, however it ends; nothing for an empty batch.
    #[cold]
    #[inline(never)]
    fn offer_first<W: AppendWindow>(&self, window: &W, batch: &impl Batch, limit: i64) -> BatchOutcome {
        match batch.first() {
            Some(message) => single(self.offer_long(window, message, &NoReservedValue, limit)),
            None => nothing(self.position()),
        }
    }
}

impl<B: Words> ExclusiveAppender<B> {
    /// Appends as many leading messages as go into one reservation, as
    /// [`ConcurrentAppender::offer_batch`].
    #[inline]
    pub fn offer_batch(&mut self, messages: &[&[u8]], limit: i64) -> BatchOutcome {
        self.append_batch(&List(messages), limit)
    }

    /// As [`ExclusiveAppender::offer_batch`], with messages of `length` bytes each that lie one behind the other, the
    /// last of which may be shorter. A `length` of 0 is taken for 1.
    #[inline]
    pub fn offer_batch_of(&mut self, messages: &[u8], length: usize, limit: i64) -> BatchOutcome {
        let strip = Strip {
            bytes: messages,
            length: length.max(1),
        };
        self.append_batch(&strip, limit)
    }

    #[inline(always)]
    fn append_batch(&mut self, batch: &impl Batch, limit: i64) -> BatchOutcome {
        let position = self.position();
        if position >= limit {
            // Every batch to the network comes by here once: its publication looks at the limit only then.
            if self.template.could_take_first_of(batch) {
                return single(AppendOutcome::AtLimit { position });
            }
            return self.offer_first(batch, limit);
        }
        let to_end = self.template.term_length as usize - self.offset;
        let room = self.template.room(to_end, limit.wrapping_sub(position) as u64);
        let fit = batch.fit(room);
        if fit.count == 0 {
            return self.offer_first(batch, limit);
        }
        let range = match self.reserve(fit.occupied, limit) {
            Ok(range) => range,
            Err(outcome) => return single(outcome),
        };
        let messages = batch.leading(fit.count);
        write_batch(&self.log, &self.template, range, fit.occupied, messages);
        BatchOutcome {
            accepted: fit.count,
            outcome: AppendOutcome::Appended {
                position: self.position(),
            },
        }
    }

    #[cold]
    #[inline(never)]
    fn offer_first(&mut self, batch: &impl Batch, limit: i64) -> BatchOutcome {
        match batch.first() {
            Some(message) => single(self.offer_long(message, &NoReservedValue, limit)),
            None => nothing(self.position()),
        }
    }
}
