//! The append kernel: reserve a range by raising the tail, write frames into it, commit each by its length
//! (shared-memory spec 10.2 to 10.7). Publications differ in who may raise the tail: any number of
//! [`ConcurrentAppender`]s, or one [`ExclusiveAppender`].
//!
//! The limit is an argument: a caller may pass one it read earlier and read it again only when it is reached.
#![forbid(unsafe_code)]

mod batch;

use core::cell::Cell;
use core::mem;

pub use batch::BatchOutcome;

use crate::bits::align;
use crate::id::{SessionId, StreamId, TermId};
use crate::log::buffers::LogBuffers;
use crate::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH, fragmented_length, frame_occupied};
use crate::log::frame::{
    FLAG_BEGIN, FLAG_END, FLAGS_UNFRAGMENTED, FrameView, TYPE_DATA, TYPE_PADDING, length_word, offset_word,
    stream_word,
};
use crate::log::metadata::{producer_position, raw_tail, raw_tail_offset, raw_tail_term_id};
use crate::log::payload::{ReservedValue, Source};
use crate::log::rotate::{rotate, rotate_exclusive};
use crate::log::words::{HeaderWord, Slot, Words};
use crate::memory::copy::SHORT_COPY_MAX;
use crate::position::partition_of_term_count;
use crate::sync::{Ordering, fence};

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Appended; the stream position behind it.
    Appended {
        /// Position behind the last frame, bytes.
        position: i64,
    },
    /// The position had reached the limit; nothing was appended.
    AtLimit {
        /// Position the message would have started at, bytes.
        position: i64,
    },
    /// A rotation happened or is under way; nothing was appended; try again at once.
    AdminAction,
    /// The stream can never take this message.
    MaxPositionExceeded,
    /// The message is longer than the log allows.
    TooLong,
}

/// What a publisher tells its driver about the range it is appending to, so that the driver knows at once whom an
/// unfinished range belongs to when somebody dies. All three are plain stores to memory of this publisher.
pub trait AppendWindow {
    /// Stores 1, before the tail is raised.
    fn enter(&self);
    /// Stores the length, then with release order `position | 2`, after the tail was raised and before the first
    /// frame is written. `position` is where the range starts, a multiple of 32.
    fn claimed(&self, position: i64, length: i64);
    /// Stores 0 with release order, after the last commit.
    fn leave(&self);
}

/// No window: for exclusive use, tests and foreign drivers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWindow;

impl AppendWindow for NoWindow {
    #[inline(always)]
    fn enter(&self) {}
    #[inline(always)]
    fn claimed(&self, _position: i64, _length: i64) {}
    #[inline(always)]
    fn leave(&self) {}
}

impl<W: AppendWindow + ?Sized> AppendWindow for &W {
    #[inline(always)]
    fn enter(&self) {
        (**self).enter();
    }
    #[inline(always)]
    fn claimed(&self, position: i64, length: i64) {
        (**self).claimed(position, length);
    }
    #[inline(always)]
    fn leave(&self) {
        (**self).leave();
    }
}

/// A range of a term that belongs to the appender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reservation {
    pub(crate) partition: usize,
    /// First byte, a multiple of 32; the range ends at or before the end of the term.
    pub(crate) offset: usize,
    /// Position of the start of the term.
    pub(crate) term_begin: i64,
    /// Stream and term id.
    pub(crate) stream_word: i64,
}

impl Reservation {
    #[inline(always)]
    pub(crate) fn position(&self) -> i64 {
        self.term_begin + self.offset as i64
    }

    pub(crate) fn term_id(&self) -> TermId {
        TermId((self.stream_word >> 32) as i32)
    }
}

/// Header words that are the same for every frame of a publication, and its fragment sizes.
#[derive(Clone, Copy, Debug)]
struct Template {
    session_id: SessionId,
    stream_id: StreamId,
    max_payload_length: usize,
    max_message_length: usize,
    /// The longest message of one frame: the lesser of both.
    max_frame_payload: usize,
    term_length: u64,
    /// The term length, or 0 where even a short message may take several frames: then no tail lies below it, and
    /// every message takes the general path.
    inline_term_length: u64,
}

impl Template {
    fn of<B: Words>(log: &LogBuffers<B>) -> Template {
        let max_payload_length = log.max_payload_length();
        let max_message_length = log.max_message_length();
        let term_length = u64::from(log.term_length().unsigned_abs());
        Template {
            session_id: log.session_id(),
            stream_id: log.stream_id(),
            max_payload_length,
            max_message_length,
            max_frame_payload: max_payload_length.min(max_message_length),
            term_length,
            inline_term_length: if max_payload_length.min(max_message_length) >= SHORT_COPY_MAX {
                term_length
            } else {
                0
            },
        }
    }
}

/// Opens a frame: the negative length goes first, so that a publisher that dies from here on leaves its extent.
#[inline(always)]
pub(crate) fn open_frame<B: Words>(slot: Slot<'_, B>, word: i64, session_id: SessionId, stream_word: i64) {
    // SYNC frame-claim: whoever sees any later byte of the frame sees this length.
    slot.store_release(HeaderWord::Length, word);
    fence(Ordering::Release);
    slot.store_relaxed(HeaderWord::Offset, offset_word(slot.offset() as i32, session_id));
    slot.store_relaxed(HeaderWord::Stream, stream_word);
}

/// Commits a frame.
#[inline(always)]
pub(crate) fn commit_frame<B: Words>(slot: Slot<'_, B>, word: i64) {
    // SYNC frame-length: publishes the frame to readers.
    slot.store_release(HeaderWord::Length, word);
}

/// Writes a whole padding frame of `length` bytes, header included.
#[cold]
fn write_padding<B: Words>(slot: Slot<'_, B>, length: i32, session_id: SessionId, stream_word: i64) {
    open_frame(
        slot,
        length_word(-length, FLAGS_UNFRAGMENTED, TYPE_PADDING),
        session_id,
        stream_word,
    );
    commit_frame(slot, length_word(length, FLAGS_UNFRAGMENTED, TYPE_PADDING));
}

/// An open frame while the application's code runs. Should that panic, the rest of the reserved range becomes padding
/// and the window empty, so that a process that goes on does not block its stream.
struct OpenFrame<'a, B: Words, W: AppendWindow> {
    slot: Slot<'a, B>,
    /// From the slot to the end of the reserved range, bytes.
    rest: usize,
    window: W,
}

impl<B: Words, W: AppendWindow> Drop for OpenFrame<'_, B, W> {
    #[cold]
    fn drop(&mut self) {
        commit_frame(
            self.slot,
            length_word(self.rest as i32, FLAGS_UNFRAGMENTED, TYPE_PADDING),
        );
        // SYNC owner-window: every commit is visible once the window is empty.
        self.window.leave();
    }
}

/// One data frame with the `length` bytes of `source` from `from` on.
struct Fragment<'s, S: ?Sized, R> {
    source: &'s S,
    from: usize,
    length: usize,
    flags: u8,
    reserved: &'s R,
}

impl<S: Source + ?Sized, R> Fragment<'_, S, R> {
    /// Writes it into a range that has `rest` bytes from the slot on.
    #[inline(always)]
    fn write_to<B: Words, W: AppendWindow>(
        &self,
        slot: Slot<'_, B>,
        rest: usize,
        window: &W,
        session_id: SessionId,
        stream_word: i64,
    ) where
        R: ReservedValue<B>,
    {
        let frame_length = (self.length + FRAME_HEADER_LENGTH) as i32;
        open_frame(
            slot,
            length_word(-frame_length, self.flags, TYPE_DATA),
            session_id,
            stream_word,
        );
        // The compiler makes one copy of the closure and calls it; a message in one piece needs no call.
        match self.source.in_one_piece() {
            Some(whole) if self.flags == FLAGS_UNFRAGMENTED => slot.copy_payload(0, whole),
            _ => self
                .source
                .read(self.from, self.length, |at, piece| slot.copy_payload(at, piece)),
        }
        let word = length_word(frame_length, self.flags, TYPE_DATA);
        if R::IS_USED
            && let Some(frame) = FrameView::new(slot, word)
        {
            let open = OpenFrame { slot, rest, window };
            let value = self.reserved.value(&frame);
            mem::forget(open);
            slot.store_relaxed(HeaderWord::Reserved, value);
        }
        commit_frame(slot, word);
    }
}

/// Writes a message of several frames, each committed before the next is begun.
fn write_fragments<B, W, S, R>(
    log: &LogBuffers<B>,
    template: &Template,
    window: &W,
    range: Reservation,
    source: &S,
    reserved: &R,
) where
    B: Words,
    W: AppendWindow,
    S: Source + ?Sized,
    R: ReservedValue<B>,
{
    let total = source.length();
    let term = log.term(range.partition);
    let mut offset = range.offset;
    let end = offset + fragmented_length(total, template.max_payload_length);
    let mut from = 0;
    while from < total {
        let length = (total - from).min(template.max_payload_length);
        let mut flags = 0;
        if from == 0 {
            flags |= FLAG_BEGIN;
        }
        if from + length == total {
            flags |= FLAG_END;
        }
        let fragment = Fragment {
            source,
            from,
            length,
            flags,
            reserved,
        };
        fragment.write_to(
            term.slot(offset),
            end - offset,
            window,
            template.session_id,
            range.stream_word,
        );
        offset += frame_occupied(length);
        from += length;
    }
}

/// The term a concurrent appender last appended to. The active term count is read again only when this term is over.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// Raw tail at offset 0 of the term.
    raw_begin: i64,
    /// Position of the start of the term.
    term_begin: i64,
    /// Stream and term id.
    stream_word: i64,
    partition: usize,
}

/// Appends to a log that others append to as well. One per thread.
#[derive(Debug)]
pub struct ConcurrentAppender<B> {
    log: LogBuffers<B>,
    template: Template,
    owner_tag: i64,
    cursor: Cell<Cursor>,
}

impl<B: Words> ConcurrentAppender<B> {
    /// An appender whose claims carry `owner_tag`, by which the driver knows whose they are; 0 when there is none.
    #[must_use]
    pub fn new(log: LogBuffers<B>, owner_tag: i64) -> ConcurrentAppender<B> {
        let shape = log.shape();
        let partition = partition_of_term_count(log.metadata().active_term_count_acquire());
        let term_id = raw_tail_term_id(log.metadata().tail_acquire(partition));
        ConcurrentAppender {
            template: Template::of(&log),
            cursor: Cell::new(Cursor {
                raw_begin: raw_tail(term_id, 0),
                term_begin: shape.position(term_id, 0),
                stream_word: stream_word(log.stream_id(), term_id),
                partition,
            }),
            owner_tag,
            log,
        }
    }

    /// The log.
    pub fn log(&self) -> &LogBuffers<B> {
        &self.log
    }

    /// What claims of this appender carry.
    #[must_use]
    pub fn owner_tag(&self) -> i64 {
        self.owner_tag
    }

    /// Where the stream has come to, by all publishers.
    #[inline]
    #[must_use]
    pub fn position(&self) -> i64 {
        producer_position(self.log.metadata(), self.log.shape())
    }

    /// Appends a message. `limit` is a value of the publication limit counter, loaded with acquire order.
    ///
    /// Short messages are appended inline; whatever else can happen is a call, so that the short path keeps nothing
    /// across calls.
    #[inline(always)]
    pub fn offer<W, S, R>(&self, window: &W, source: &S, reserved: &R, limit: i64) -> AppendOutcome
    where
        W: AppendWindow,
        S: Source + ?Sized,
        R: ReservedValue<B>,
    {
        let length = source.length();
        // A constant, so that the copy below needs no branch for longer messages.
        if length > SHORT_COPY_MAX {
            return self.offer_long(window, source, reserved, limit);
        }
        let cursor = self.cursor.get();
        let before = self.distance(cursor);
        if before >= self.template.inline_term_length {
            return self.offer_long(window, source, reserved, limit);
        }
        self.offer_frame(window, source, reserved, limit, cursor, before)
    }

    /// A message of one frame, where the tail was seen `before` bytes from the start of the cursor's term, inside it.
    #[inline(always)]
    fn offer_frame<W, S, R>(
        &self,
        window: &W,
        source: &S,
        reserved: &R,
        limit: i64,
        cursor: Cursor,
        before: u64,
    ) -> AppendOutcome
    where
        W: AppendWindow,
        S: Source + ?Sized,
        R: ReservedValue<B>,
    {
        let position = cursor.term_begin.wrapping_add(before as i64);
        if position >= limit {
            return AppendOutcome::AtLimit { position };
        }
        let occupied = frame_occupied(source.length());
        match self.raise(window, cursor, occupied) {
            Ok(range) => self.write_unfragmented(window, range, source, reserved),
            Err(raw) => self.offer_at_end(window, cursor.partition, raw, source, reserved),
        }
    }

    /// Any message, from the start.
    #[inline(never)]
    fn offer_long<W, S, R>(&self, window: &W, source: &S, reserved: &R, limit: i64) -> AppendOutcome
    where
        W: AppendWindow,
        S: Source + ?Sized,
        R: ReservedValue<B>,
    {
        let cursor = self.cursor.get();
        let before = self.distance(cursor);
        if source.length() > self.template.max_frame_payload || before >= self.template.term_length {
            return self.offer_anywhere(window, source, reserved, limit);
        }
        self.offer_frame(window, source, reserved, limit, cursor, before)
    }

    /// Also a message of several frames, and one that finds its term full or gone.
    #[inline(never)]
    fn offer_anywhere<W, S, R>(&self, window: &W, source: &S, reserved: &R, limit: i64) -> AppendOutcome
    where
        W: AppendWindow,
        S: Source + ?Sized,
        R: ReservedValue<B>,
    {
        let length = source.length();
        if length > self.template.max_message_length {
            return AppendOutcome::TooLong;
        }
        match self.reserve(
            window,
            fragmented_length(length, self.template.max_payload_length),
            limit,
        ) {
            Ok(range) => self.write_message(window, range, source, reserved),
            Err(outcome) => outcome,
        }
    }

    /// Any message, after the tail was raised from `raw` past the end of the expected term.
    #[cold]
    #[inline(never)]
    fn offer_at_end<W, S, R>(
        &self,
        window: &W,
        partition: usize,
        raw: i64,
        source: &S,
        reserved: &R,
    ) -> AppendOutcome
    where
        W: AppendWindow,
        S: Source + ?Sized,
        R: ReservedValue<B>,
    {
        let occupied = fragmented_length(source.length(), self.template.max_payload_length);
        match self.end_of_term(window, partition, raw, occupied) {
            Ok(range) => self.write_message(window, range, source, reserved),
            Err(outcome) => outcome,
        }
    }

    #[inline(always)]
    fn write_message<W, S, R>(
        &self,
        window: &W,
        range: Reservation,
        source: &S,
        reserved: &R,
    ) -> AppendOutcome
    where
        W: AppendWindow,
        S: Source + ?Sized,
        R: ReservedValue<B>,
    {
        let length = source.length();
        if length <= self.template.max_payload_length {
            return self.write_unfragmented(window, range, source, reserved);
        }
        write_fragments(&self.log, &self.template, window, range, source, reserved);
        window.leave();
        let occupied = fragmented_length(length, self.template.max_payload_length);
        AppendOutcome::Appended {
            position: range.position() + occupied as i64,
        }
    }

    #[inline(always)]
    fn write_unfragmented<W, S, R>(
        &self,
        window: &W,
        range: Reservation,
        source: &S,
        reserved: &R,
    ) -> AppendOutcome
    where
        W: AppendWindow,
        S: Source + ?Sized,
        R: ReservedValue<B>,
    {
        let length = source.length();
        let fragment = Fragment {
            source,
            from: 0,
            length,
            flags: FLAGS_UNFRAGMENTED,
            reserved,
        };
        let occupied = frame_occupied(length);
        fragment.write_to(
            self.log.term(range.partition).slot(range.offset),
            occupied,
            window,
            self.template.session_id,
            range.stream_word,
        );
        // SYNC owner-window: every commit is visible once the window is empty.
        window.leave();
        AppendOutcome::Appended {
            position: range.position() + occupied as i64,
        }
    }

    /// How far the tail of the cursor's term is from its start. As an unsigned distance, the tail of another term is
    /// as far out as that of a full term.
    #[inline(always)]
    fn distance(&self, cursor: Cursor) -> u64 {
        // SYNC tail: acquire.
        let raw = self.log.metadata().tail_acquire(cursor.partition);
        raw.wrapping_sub(cursor.raw_begin) as u64
    }

    /// Raises the tail of the cursor's term. `Ok` leaves the window at the range; `Err`, with the raw tail as it was,
    /// leaves it reserving: the range is not inside that term.
    #[inline(always)]
    fn raise<W: AppendWindow>(
        &self,
        window: &W,
        cursor: Cursor,
        occupied: usize,
    ) -> Result<Reservation, i64> {
        window.enter();
        // SYNC owner-window: the window is set before the tail is raised, for who sees the raised tail.
        let raw = self
            .log
            .metadata()
            .tail_fetch_add(cursor.partition, occupied as i64);
        let offset = raw.wrapping_sub(cursor.raw_begin) as u64;
        if offset > self.template.term_length - occupied as u64 {
            return Err(raw);
        }
        let range = Reservation {
            partition: cursor.partition,
            offset: offset as usize,
            term_begin: cursor.term_begin,
            stream_word: cursor.stream_word,
        };
        window.claimed(range.position(), occupied as i64);
        Ok(range)
    }

    /// Reserves `occupied` bytes. `Ok` leaves the window at the range, `Err` leaves it empty.
    #[inline]
    pub(crate) fn reserve<W: AppendWindow>(
        &self,
        window: &W,
        occupied: usize,
        limit: i64,
    ) -> Result<Reservation, AppendOutcome> {
        let (cursor, before) = self.place(limit)?;
        let position = cursor.term_begin.wrapping_add(before as i64);
        if position >= limit {
            return Err(AppendOutcome::AtLimit { position });
        }
        self.raise(window, cursor, occupied)
            .or_else(|raw| self.end_of_term(window, cursor.partition, raw, occupied))
    }

    /// The active term, and how far from its start the tail was seen, inside the term.
    #[inline(always)]
    fn place(&self, limit: i64) -> Result<(Cursor, u64), AppendOutcome> {
        let mut cursor = self.cursor.get();
        let mut before = self.distance(cursor);
        if before >= self.template.term_length {
            cursor = self.find_active_term(limit)?;
            before = self.distance(cursor);
            if before >= self.template.term_length {
                return Err(AppendOutcome::AdminAction);
            }
        }
        Ok((cursor, before))
    }

    fn cursor_of(&self, partition: usize, term_id: TermId) -> Cursor {
        Cursor {
            raw_begin: raw_tail(term_id, 0),
            term_begin: self.log.shape().position(term_id, 0),
            stream_word: stream_word(self.template.stream_id, term_id),
            partition,
        }
    }

    /// The term known so far is full or gone: looks the active one up, and rotates it if it is full too.
    #[cold]
    fn find_active_term(&self, limit: i64) -> Result<Cursor, AppendOutcome> {
        let shape = self.log.shape();
        let metadata = self.log.metadata();
        let term_count = metadata.active_term_count_acquire();
        let partition = partition_of_term_count(term_count);
        let raw = metadata.tail_acquire(partition);
        let term_id = raw_tail_term_id(raw);
        if term_count != shape.term_count(term_id) {
            return Err(AppendOutcome::AdminAction);
        }
        let cursor = self.cursor_of(partition, term_id);
        self.cursor.set(cursor);
        let offset = raw_tail_offset(raw, shape.term_length());
        if offset < shape.term_length() {
            return Ok(cursor);
        }
        let position = shape.position(term_id, offset);
        if position >= limit {
            return Err(AppendOutcome::AtLimit { position });
        }
        if position >= shape.max_possible_position() {
            return Err(AppendOutcome::MaxPositionExceeded);
        }
        rotate(metadata, term_count, term_id);
        Err(AppendOutcome::AdminAction)
    }

    /// The tail was raised past the end of the term (spec 10.3), or in a later term than expected.
    #[cold]
    fn end_of_term<W: AppendWindow>(
        &self,
        window: &W,
        partition: usize,
        raw: i64,
        occupied: usize,
    ) -> Result<Reservation, AppendOutcome> {
        let shape = self.log.shape();
        let term_length = shape.term_length() as usize;
        let term_id = raw_tail_term_id(raw);
        let cursor = self.cursor_of(partition, term_id);
        // Frames start at multiples of 32 whatever somebody has done to the tail.
        let offset = raw_tail_offset(raw, shape.term_length()) as usize & !(FRAME_ALIGNMENT - 1);
        let range = Reservation {
            partition,
            offset,
            term_begin: cursor.term_begin,
            stream_word: cursor.stream_word,
        };
        let end = offset + occupied;
        if end <= term_length {
            window.claimed(range.position(), occupied as i64);
            return Ok(range);
        }
        if offset < term_length {
            let rest = term_length - offset;
            window.claimed(range.position(), rest as i64);
            write_padding(
                self.log.term(partition).slot(offset),
                rest as i32,
                self.template.session_id,
                range.stream_word,
            );
        }
        let outcome = if cursor.term_begin.wrapping_add(end as i64) >= shape.max_possible_position() {
            AppendOutcome::MaxPositionExceeded
        } else {
            rotate(self.log.metadata(), shape.term_count(term_id), term_id);
            AppendOutcome::AdminAction
        };
        window.leave();
        Err(outcome)
    }

    pub(crate) fn session_id(&self) -> SessionId {
        self.template.session_id
    }

    pub(crate) fn max_payload_length(&self) -> usize {
        self.template.max_payload_length
    }
}

/// What became of a block of ready frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOutcome {
    /// As for a message.
    Append(AppendOutcome),
    /// The bytes are no run of well formed frames for this place of this log.
    Malformed,
}

/// Appends to a log that nobody else appends to: no read-modify-write.
#[derive(Debug)]
pub struct ExclusiveAppender<B> {
    log: LogBuffers<B>,
    template: Template,
    partition: usize,
    term_id: TermId,
    /// Position of the start of the term.
    term_begin: i64,
    /// Stream and term id.
    stream_word: i64,
    /// Where the next frame goes, bytes from the start of the term; a multiple of 32, at most the term length.
    offset: usize,
}

impl<B: Words> ExclusiveAppender<B> {
    /// Takes up the log where its tail stands.
    #[must_use]
    pub fn new(log: LogBuffers<B>) -> ExclusiveAppender<B> {
        let shape = log.shape();
        let partition = partition_of_term_count(log.metadata().active_term_count_acquire());
        let raw = log.metadata().tail_acquire(partition);
        let term_id = raw_tail_term_id(raw);
        ExclusiveAppender {
            template: Template::of(&log),
            partition,
            term_id,
            term_begin: shape.position(term_id, 0),
            stream_word: stream_word(log.stream_id(), term_id),
            offset: raw_tail_offset(raw, shape.term_length()) as usize & !(FRAME_ALIGNMENT - 1),
            log,
        }
    }

    /// The log.
    pub fn log(&self) -> &LogBuffers<B> {
        &self.log
    }

    /// Where the stream has come to.
    #[inline(always)]
    #[must_use]
    pub fn position(&self) -> i64 {
        self.term_begin.wrapping_add(self.offset as i64)
    }

    /// Appends a message. `limit` is a value of the publication limit counter, loaded with acquire order.
    ///
    /// Short messages are appended inline, as by [`ConcurrentAppender::offer`].
    #[inline(always)]
    pub fn offer<S, R>(&mut self, source: &S, reserved: &R, limit: i64) -> AppendOutcome
    where
        S: Source + ?Sized,
        R: ReservedValue<B>,
    {
        let length = source.length();
        if length > SHORT_COPY_MAX || self.template.inline_term_length == 0 {
            return self.offer_long(source, reserved, limit);
        }
        match self.reserve(frame_occupied(length), limit) {
            Ok(range) => self.write_unfragmented(range, source, reserved),
            Err(outcome) => outcome,
        }
    }

    #[inline(never)]
    fn offer_long<S, R>(&mut self, source: &S, reserved: &R, limit: i64) -> AppendOutcome
    where
        S: Source + ?Sized,
        R: ReservedValue<B>,
    {
        let length = source.length();
        if length <= self.template.max_frame_payload {
            return match self.reserve(frame_occupied(length), limit) {
                Ok(range) => self.write_unfragmented(range, source, reserved),
                Err(outcome) => outcome,
            };
        }
        if length > self.template.max_message_length {
            return AppendOutcome::TooLong;
        }
        match self.reserve(fragmented_length(length, self.template.max_payload_length), limit) {
            Ok(range) => {
                write_fragments(&self.log, &self.template, &NoWindow, range, source, reserved);
                AppendOutcome::Appended {
                    position: self.position(),
                }
            }
            Err(outcome) => outcome,
        }
    }

    #[inline(always)]
    fn write_unfragmented<S, R>(&self, range: Reservation, source: &S, reserved: &R) -> AppendOutcome
    where
        S: Source + ?Sized,
        R: ReservedValue<B>,
    {
        let fragment = Fragment {
            source,
            from: 0,
            length: source.length(),
            flags: FLAGS_UNFRAGMENTED,
            reserved,
        };
        fragment.write_to(
            self.log.term(range.partition).slot(range.offset),
            frame_occupied(fragment.length),
            &NoWindow,
            self.template.session_id,
            range.stream_word,
        );
        AppendOutcome::Appended {
            position: self.position(),
        }
    }

    /// Appends one padding frame that stands for `length` bytes of payload, at most the longest message.
    pub fn append_padding(&mut self, length: usize, limit: i64) -> AppendOutcome {
        if length > self.template.max_message_length {
            return AppendOutcome::TooLong;
        }
        match self.reserve(frame_occupied(length), limit) {
            Ok(range) => {
                write_padding(
                    self.log.term(range.partition).slot(range.offset),
                    (length + FRAME_HEADER_LENGTH) as i32,
                    self.template.session_id,
                    range.stream_word,
                );
                AppendOutcome::Appended {
                    position: self.position(),
                }
            }
            Err(outcome) => outcome,
        }
    }

    /// Appends a run of ready frames at once (spec 10.7). The frames carry this log's session, stream and the active
    /// term id, the first one the active offset; a block that does not fit the rest of the term makes the log rotate
    /// only when that rest is empty, otherwise it is malformed, since its term offset can not be right.
    pub fn offer_block(&mut self, block: &[u8], limit: i64) -> BlockOutcome {
        let position = self.position();
        if position >= limit {
            return BlockOutcome::Append(AppendOutcome::AtLimit { position });
        }
        let term_length = self.log.term_length() as usize;
        if self.offset >= term_length {
            return BlockOutcome::Append(self.next_term());
        }
        if block.len() > term_length - self.offset || !self.is_well_formed(block) {
            return BlockOutcome::Malformed;
        }
        let occupied = align(block.len(), FRAME_ALIGNMENT);
        let range = match self.reserve(occupied, limit) {
            Ok(range) => range,
            Err(outcome) => return BlockOutcome::Append(outcome),
        };
        let slot = self.log.term(range.partition).slot(range.offset);
        if let Some(rest) = block.get(FRAME_HEADER_LENGTH..) {
            slot.copy_payload(0, rest);
        }
        slot.store_relaxed(HeaderWord::Reserved, block_word(block, 24));
        slot.store_relaxed(HeaderWord::Stream, block_word(block, 16));
        slot.store_relaxed(HeaderWord::Offset, block_word(block, 8));
        // This commits all frames: readers come to the others over the first.
        commit_frame(slot, block_word(block, 0));
        BlockOutcome::Append(AppendOutcome::Appended {
            position: self.position(),
        })
    }

    fn is_well_formed(&self, block: &[u8]) -> bool {
        let mut at = 0;
        while at < block.len() {
            let Some(frame) = block.get(at..).filter(|rest| rest.len() >= FRAME_HEADER_LENGTH) else {
                return false;
            };
            let word = block_word(frame, 0);
            let length = word as i32;
            let fits = length >= FRAME_HEADER_LENGTH as i32 && length as usize <= frame.len();
            let expected_offset = offset_word((self.offset + at) as i32, self.template.session_id);
            if !fits
                || crate::log::frame::word_type(word) != TYPE_DATA
                || block_word(frame, 8) != expected_offset
                || block_word(frame, 16) != self.stream_word
            {
                return false;
            }
            at += align(length as usize, FRAME_ALIGNMENT);
        }
        at > 0
    }

    /// Raises the tail by `occupied` bytes, before the frame is written (spec 10.7).
    #[inline(always)]
    pub(crate) fn reserve(&mut self, occupied: usize, limit: i64) -> Result<Reservation, AppendOutcome> {
        let position = self.position();
        if position >= limit {
            return Err(AppendOutcome::AtLimit { position });
        }
        let end = self.offset + occupied;
        self.log
            .metadata()
            .tail_release(self.partition, raw_tail(self.term_id, end as i32));
        if end as u64 > self.template.term_length {
            return Err(self.end_of_term());
        }
        let range = Reservation {
            partition: self.partition,
            offset: self.offset,
            term_begin: self.term_begin,
            stream_word: self.stream_word,
        };
        self.offset = end;
        Ok(range)
    }

    #[cold]
    fn end_of_term(&mut self) -> AppendOutcome {
        let term_length = self.log.term_length() as usize;
        if self.offset < term_length {
            write_padding(
                self.log.term(self.partition).slot(self.offset),
                (term_length - self.offset) as i32,
                self.template.session_id,
                self.stream_word,
            );
            // Also in the last term, so that the padding is written once.
            self.offset = term_length;
        }
        self.next_term()
    }

    #[cold]
    fn next_term(&mut self) -> AppendOutcome {
        let shape = self.log.shape();
        let next_begin = self.term_begin.wrapping_add(i64::from(shape.term_length()));
        if next_begin >= shape.max_possible_position() {
            return AppendOutcome::MaxPositionExceeded;
        }
        let term_count = shape.term_count(self.term_id);
        rotate_exclusive(self.log.metadata(), term_count, self.term_id);
        self.term_id = TermId(self.term_id.0.wrapping_add(1));
        self.partition = partition_of_term_count(term_count.wrapping_add(1));
        self.term_begin = next_begin;
        self.stream_word = stream_word(self.template.stream_id, self.term_id);
        self.offset = 0;
        AppendOutcome::AdminAction
    }

    pub(crate) fn session_id(&self) -> SessionId {
        self.template.session_id
    }

    pub(crate) fn max_payload_length(&self) -> usize {
        self.template.max_payload_length
    }
}

fn block_word(block: &[u8], at: usize) -> i64 {
    block
        .get(at..at + 8)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, i64::from_le_bytes)
}
