//! An image: one publication's stream as one subscription sees it (shared-memory spec 11).
//!
//! The position is the only thing an image writes that others read. It is stored once per poll, after everything
//! before it has been read: the driver may zero those bytes from then on.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::action::Action;
use super::assembler::{Assembler, Fragment, UNFRAGMENTED};
use super::client::Client;
use super::error::{ClientError, PositionError, RegistrationError};
use super::event::ImageInfo;
use super::header::{Assembled, Header, Stream};
use super::moderation::Moderation;
use crate::counters::CounterLease;
use crate::id::{RegistrationId, SessionId, StreamId};
use crate::log::descriptor::FRAME_ALIGNMENT;
use crate::log::frame::word_length;
use crate::log::metadata::producer_position;
use crate::log::{
    Action as Scan, FrameView, HeaderWord, LogBuffers, Payload, Slot, Term, scan_block, scan_fragments,
};
use crate::memory::View;
use crate::sync::{AtomicBool, AtomicU32, Ordering, spin_loop};

/// How often a poll looks for the next message before it says that there is none. A look takes less than a nanosecond,
/// the pause that callers make between two polls many: some looks in a row see a message a little sooner.
const LOOKS: u32 = 7;

/// Can be polled, and its driver lives.
const LIVE: u32 = 0;
/// Can be polled to the end of what is there; its driver is gone.
const ENDED: u32 = 1;
/// Can not be polled, and its position must not be stored: the counter may belong to somebody else.
const CLOSED: u32 = 2;

/// What the conductor and the handles of one image share.
// Not in a cache line with what other threads write.
#[repr(align(128))]
pub(super) struct ImageShared {
    info: ImageInfo,
    log: Arc<LogBuffers>,
    position: CounterLease,
    state: AtomicU32,
    /// Whether the conductor found the position taken away when it last looked.
    was_lapsed: AtomicBool,
}

impl ImageShared {
    /// An image whose position counter stands at its join position. `Err` says what is wrong with it.
    pub(super) fn new(info: ImageInfo, log: Arc<LogBuffers>, position: CounterLease) -> Result<Self, String> {
        let join = info.join_position;
        if join < 0 || join % FRAME_ALIGNMENT as i64 != 0 || join >= log.shape().max_possible_position() {
            return Err(format!("join position {join}"));
        }
        Ok(ImageShared {
            info,
            log,
            position,
            state: AtomicU32::new(LIVE),
            was_lapsed: AtomicBool::new(false),
        })
    }

    pub(super) fn info(&self) -> &ImageInfo {
        &self.info
    }

    /// The facts with the position of now; where it began if the driver has taken the position away.
    pub(super) fn current_info(&self) -> ImageInfo {
        let position = self.position.counter().get_acquire();
        ImageInfo {
            position: if self.position.is_held() {
                position
            } else {
                self.info.join_position
            },
            ..self.info.clone()
        }
    }

    pub(super) fn log(&self) -> &Arc<LogBuffers> {
        &self.log
    }

    pub(super) fn end(&self) {
        let _ = self
            .state
            .compare_exchange(LIVE, ENDED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Closes the image; true if it was live until now.
    pub(super) fn close(&self) -> bool {
        self.state.swap(CLOSED, Ordering::AcqRel) == LIVE
    }

    pub(super) fn is_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) != LIVE
    }

    /// Whether the driver has taken the position away although it is still there itself: the reader stood still for
    /// longer than the driver's patience. What it would read may be overwritten, what it would store is another's.
    /// True from the second look on.
    pub(super) fn has_lapsed_again(&self) -> bool {
        let lapsed = self.state.load(Ordering::Acquire) == LIVE && !self.position.is_held();
        self.was_lapsed.swap(lapsed, Ordering::Relaxed) && lapsed
    }

    #[inline(always)]
    fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLOSED
    }

    /// Whether the log may be read: either nobody writes it any more, or the driver keeps it for this reader.
    #[inline(always)]
    fn is_readable(&self) -> bool {
        match self.state.load(Ordering::Acquire) {
            LIVE => self.position.is_held(),
            ENDED => true,
            _ => false,
        }
    }

    /// Tells the driver how far was read; whether that may be kept. A driver that is gone is told nothing: should it
    /// come to life again, it has given the counter to somebody else by then.
    #[inline(always)]
    fn store(&self, position: i64) -> bool {
        match self.state.load(Ordering::Acquire) {
            LIVE if self.position.is_held() => {
                // SYNC subscriber-position: everything before it has been read; the driver may zero it.
                self.position.counter().set_release(position);
                true
            }
            ENDED => true,
            _ => false,
        }
    }
}

/// A run of whole frames, headers included, where it lies in the log.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The frames.
    pub frames: Payload<'a>,
    /// Stream position of its first byte.
    pub position: i64,
    /// The session.
    pub session_id: SessionId,
    /// The term the block lies in.
    pub term_id: crate::id::TermId,
    /// Where in the term it starts, bytes.
    pub term_offset: i32,
    /// Where in the log file it starts, bytes.
    pub file_offset: u64,
}

/// An image of a subscription.
// Not in a cache line with what other threads write.
#[repr(align(128))]
pub struct Image {
    position: i64,
    /// Where the term that holds the position begins, bytes from the start of the stream. A position at its end may be
    /// that of the term before.
    term_begin: i64,
    /// That term, so that a poll that finds nothing touches the image and the log, and nothing on the way between them.
    term: Term<View>,
    stream: Stream,
    shared: Arc<ImageShared>,
    client: Client,
    assembler: Assembler,
    moderation: Moderation,
}

/// Moves the position when a poll ends, however it ends: a handler that panics has had its fragment.
struct Progress<'a> {
    shared: &'a ImageShared,
    position: &'a mut i64,
    reached: i64,
}

impl Progress<'_> {
    #[inline(always)]
    fn store(&mut self) {
        if self.reached > *self.position && self.shared.store(self.reached) {
            *self.position = self.reached;
        }
    }
}

impl Drop for Progress<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.store();
    }
}

impl Image {
    pub(super) fn new(shared: Arc<ImageShared>, client: Client) -> Self {
        let log = &shared.log;
        let (shape, position) = (log.shape(), shared.info.join_position);
        Image {
            position,
            term_begin: position - i64::from(shape.offset(position)),
            term: log.term(shape.partition(position)).clone(),
            stream: Stream {
                shape,
                session_id: log.session_id(),
                stream_id: log.stream_id(),
            },
            assembler: Assembler::new(log.max_message_length()),
            moderation: Moderation::new(log.term_length()),
            shared,
            client,
        }
    }

    /// Takes the next messages of this image, at most `fragment_limit` fragments of them; returns the fragments. What a
    /// poll may leave is said at [`Subscription::poll`](super::Subscription::poll).
    #[inline]
    pub fn poll(&mut self, handler: impl FnMut(Payload<'_>, &Header<'_>), fragment_limit: usize) -> usize {
        self.bounded_poll(handler, i64::MAX, fragment_limit)
    }

    /// As [`Self::poll`], with fragments as they are.
    #[inline]
    pub fn poll_fragments(
        &mut self,
        mut handler: impl FnMut(Payload<'_>, &Header<'_>),
        fragment_limit: usize,
    ) -> usize {
        self.scan(i64::MAX, fragment_limit, |header, _, _| {
            handler(header.frame.payload(), &header);
            Scan::Continue
        })
    }

    /// As [`Self::poll`], up to `limit_position`: a fragment that starts there or later is left for the next poll.
    #[inline]
    pub fn bounded_poll(
        &mut self,
        mut handler: impl FnMut(Payload<'_>, &Header<'_>),
        limit_position: i64,
        fragment_limit: usize,
    ) -> usize {
        self.scan(limit_position, fragment_limit, |header, assembler, _| {
            if header.frame.flags() & UNFRAGMENTED == UNFRAGMENTED {
                handler(header.frame.payload(), &header);
            } else if let Some(whole) = assemble(header, assembler) {
                handler(Payload::from_slice(assembler.message()), &whole);
            }
            Scan::Continue
        })
    }

    /// As [`Self::poll`], where the handler says how to go on. An aborted message comes again at the next poll.
    #[inline]
    pub fn controlled_poll(
        &mut self,
        handler: impl FnMut(Payload<'_>, &Header<'_>) -> Action,
        fragment_limit: usize,
    ) -> usize {
        self.bounded_controlled_poll(handler, i64::MAX, fragment_limit)
    }

    /// [`Self::controlled_poll`] and [`Self::bounded_poll`] in one.
    #[inline]
    pub fn bounded_controlled_poll(
        &mut self,
        mut handler: impl FnMut(Payload<'_>, &Header<'_>) -> Action,
        limit_position: i64,
        fragment_limit: usize,
    ) -> usize {
        self.scan(limit_position, fragment_limit, |header, assembler, progress| {
            let action = if header.frame.flags() & UNFRAGMENTED == UNFRAGMENTED {
                handler(header.frame.payload(), &header)
            } else if let Some(whole) = assemble(header, assembler) {
                let action = handler(Payload::from_slice(assembler.message()), &whole);
                if action == Action::Abort {
                    assembler.undo();
                }
                action
            } else {
                Action::Continue
            };
            match action {
                Action::Continue => Scan::Continue,
                Action::Abort => Scan::Abort,
                Action::Break => Scan::Break,
                Action::Commit => {
                    progress.store();
                    Scan::Continue
                }
            }
        })
    }

    /// Hands one block of whole frames, at most `byte_limit` bytes, to the handler; returns the bytes. A padding
    /// frame ends a block, and is itself the block if it comes first, even when longer than the limit.
    pub fn block_poll(&mut self, handler: impl FnOnce(Block<'_>), byte_limit: usize) -> usize {
        if !self.shared.is_readable() {
            return 0;
        }
        let start = self.position;
        let index = self.stream.shape.partition(start);
        let offset = self.term_offset();
        let term = &self.term;
        let first = term.slot(offset as u32 as usize);
        // SYNC frame-length: the header is complete once this is positive.
        if !self.is_in_place(first, first.load_acquire(HeaderWord::Length)) {
            self.on_lapped();
            return 0;
        }
        let block = scan_block(term, offset, byte_limit);
        if block.corrupt {
            self.on_corrupt();
        }
        let length = (block.end_offset - offset).max(0) as usize;
        let Some(frames) = term
            .payload(offset as usize, length)
            .filter(|frames| !frames.is_empty())
        else {
            return 0;
        };
        let mut progress = Progress {
            shared: &self.shared,
            position: &mut self.position,
            reached: start + length as i64,
        };
        handler(Block {
            frames,
            position: start,
            session_id: self.stream.session_id,
            term_id: self.stream.shape.term_id(start),
            term_offset: offset,
            file_offset: (index as u64) * u64::from(self.stream.shape.term_length() as u32) + offset as u64,
        });
        progress.store();
        length
    }

    #[inline(always)]
    fn scan(
        &mut self,
        limit_position: i64,
        fragment_limit: usize,
        mut on_frame: impl FnMut(Header<'_>, &mut Assembler, &mut Progress<'_>) -> Scan,
    ) -> usize {
        for _ in 0..self.moderation.take_rest() {
            spin_loop();
        }
        let shape = self.stream.shape;
        let start = self.position;
        let offset = self.term_offset();
        // Most polls of a waiting reader end here, so nothing else comes before.
        let next = self.term.slot(offset as u32 as usize);
        // SYNC frame-length: the header is complete once this is positive.
        let mut word = next.load_acquire(HeaderWord::Length);
        let mut looks = 1;
        while word_length(word) <= 0 {
            if looks == LOOKS {
                self.moderation.after_nothing();
                return 0;
            }
            looks += 1;
            word = next.load_acquire(HeaderWord::Length);
        }
        if !self.shared.is_readable() {
            return 0;
        }
        let term_begin = self.term_begin;
        let term_length = i64::from(shape.term_length());
        let published = || producer_position(self.shared.log.metadata(), shape);
        let limit_position = limit_position.min(self.moderation.bound(start, published));
        let limit_offset = limit_position.saturating_sub(term_begin).min(term_length);
        if limit_offset <= i64::from(offset) {
            return 0;
        }
        if !self.is_in_place(next, word) {
            self.on_lapped();
            return 0;
        }
        let stream = &self.stream;
        let assembler = &mut self.assembler;
        let shared = &*self.shared;
        let term = &self.term;
        let mut progress = Progress {
            shared,
            position: &mut self.position,
            reached: start,
        };
        let read = scan_fragments(term, offset, limit_offset as i32, fragment_limit, |frame| {
            let header = Header {
                stream,
                term_begin,
                frame,
                assembled: None,
            };
            // The handler before may have closed the subscription, or the conductor the image.
            if shared.is_closed() {
                return Scan::Abort;
            }
            progress.reached = header.position();
            on_frame(header, assembler, &mut progress)
        });
        progress.reached = term_begin + i64::from(read.offset);
        drop(progress);
        let published = || producer_position(self.shared.log.metadata(), shape);
        let caught_up = read.caught_up || self.moderation.is_near(self.position, published);
        if self
            .moderation
            .after(read.fragments, self.position - start, caught_up)
        {
            self.probe();
        }
        if read.corrupt {
            self.on_corrupt();
        }
        read.fragments
    }

    /// Rests where the next message is not there yet, and tells the moderation whether it is now.
    #[cold]
    #[inline(never)]
    fn probe(&mut self) {
        for _ in 0..Moderation::PROBE {
            spin_loop();
        }
        let offset = self.term_offset();
        let next = self.term.slot(offset as u32 as usize);
        let found = word_length(next.load_relaxed(HeaderWord::Length)) > 0;
        self.moderation.after_probe(found);
    }

    /// The position's offset in [`Self::term`], which is the one that begins there if another one ends there.
    #[inline(always)]
    fn term_offset(&mut self) -> i32 {
        if self.position - self.term_begin >= i64::from(self.stream.shape.term_length()) {
            self.enter_term();
        }
        (self.position - self.term_begin) as i32
    }

    #[cold]
    #[inline(never)]
    fn enter_term(&mut self) {
        let shape = self.stream.shape;
        self.term_begin = self.position - i64::from(shape.offset(self.position));
        self.term = self.shared.log.term(shape.partition(self.position)).clone();
    }

    /// Whether the frame in the slot of the position, if there is one with this length word, is the one that was
    /// written there: not one of a later term, after the driver has gone on without this reader.
    #[inline(always)]
    fn is_in_place(&self, slot: Slot<'_, View>, word: i64) -> bool {
        let shape = &self.stream.shape;
        FrameView::new(slot, word).is_none_or(|frame| {
            frame.term_id() == shape.term_id(self.position)
                && frame.term_offset() == shape.offset(self.position)
        })
    }

    /// Closes the image and says so, once; the publisher shall not wait for it.
    #[cold]
    fn on_corrupt(&self) {
        if self.shared.close() {
            self.client.discard_corrupt(self.shared.clone(), self.position);
        }
        self.client.report(ClientError::CorruptFrame {
            image: self.shared.info.correlation_id,
            position: self.position,
        });
    }

    /// Closes the image and says so, once.
    #[cold]
    fn on_lapped(&self) {
        if self.shared.close() {
            self.client.discard_lapped(self.shared.clone());
        }
        self.client.report(ClientError::ImageLapped {
            image: self.shared.info.correlation_id,
            position: self.position,
        });
    }

    /// Whether a frame is there to be read, or the stream is not at what was written of it.
    pub(super) fn has_more(&self) -> bool {
        if self.shared.is_closed() {
            return false;
        }
        let term = self.shared.log.term(self.stream.shape.partition(self.position));
        let offset = self.stream.shape.offset(self.position);
        !scan_block(term, offset, usize::MAX).is_empty_from(offset)
    }

    pub(super) fn is(&self, shared: &Arc<ImageShared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    pub(super) fn shared(&self) -> &Arc<ImageShared> {
        &self.shared
    }

    pub(super) fn into_log(self) -> Arc<LogBuffers> {
        self.shared.log.clone()
    }

    /// How far this image was consumed, bytes from the start of the stream.
    #[inline]
    #[must_use]
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Moves the position forward without reading, within the current term. Fragments of a message under
    /// construction are dropped.
    ///
    /// # Errors
    /// [`PositionError`] unless `position` is a multiple of 32 from the current position to the end of the term.
    pub fn set_position(&mut self, position: i64) -> Result<(), PositionError> {
        if !self.shared.is_readable() {
            return Err(PositionError::Closed);
        }
        let lowest = self.position;
        let highest =
            lowest - i64::from(self.stream.shape.offset(lowest)) + i64::from(self.stream.shape.term_length());
        if !(lowest..=highest).contains(&position) {
            return Err(PositionError::OutOfRange {
                position,
                lowest,
                highest,
            });
        }
        if position % FRAME_ALIGNMENT as i64 != 0 {
            return Err(PositionError::Unaligned(position));
        }
        if !self.shared.store(position) {
            return Err(PositionError::Closed);
        }
        self.position = position;
        self.assembler.reset();
        Ok(())
    }

    /// Where the stream ends, bytes; `i64::MAX` until that is known.
    #[must_use]
    pub fn end_of_stream_position(&self) -> i64 {
        self.shared.log.metadata().end_of_stream_position()
    }

    /// Whether everything up to the end of the stream was consumed.
    #[must_use]
    pub fn is_end_of_stream(&self) -> bool {
        self.position >= self.end_of_stream_position()
    }

    /// Transports the image has been seen on; 0 once closed.
    #[must_use]
    pub fn active_transport_count(&self) -> i32 {
        if self.shared.is_closed() {
            0
        } else {
            self.shared.log.metadata().active_transport_count()
        }
    }

    /// Whether its publication was revoked.
    #[must_use]
    pub fn is_publication_revoked(&self) -> bool {
        self.shared.log.metadata().is_revoked()
    }

    /// Whether nothing can be polled any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// The session of its publication.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.stream.session_id
    }

    /// The stream.
    #[must_use]
    pub fn stream_id(&self) -> StreamId {
        self.stream.stream_id
    }

    /// Names the image; for IPC the publication's registration id.
    #[must_use]
    pub fn correlation_id(&self) -> RegistrationId {
        self.shared.info.correlation_id
    }

    /// Where it comes from: `host:port`, or `aeron:ipc`.
    #[must_use]
    pub fn source_identity(&self) -> &str {
        &self.shared.info.source_identity
    }

    /// Where this subscription joined the stream, bytes.
    #[must_use]
    pub fn join_position(&self) -> i64 {
        self.shared.info.join_position
    }

    /// The length of a term, bytes.
    #[must_use]
    pub fn term_length(&self) -> i32 {
        self.stream.shape.term_length()
    }

    /// Facts about the image as of now.
    #[must_use]
    pub fn info(&self) -> ImageInfo {
        ImageInfo {
            position: self.position,
            ..self.shared.info.clone()
        }
    }

    /// Asks the driver to stop taking this image, telling the publisher why (at most 1023 bytes), and waits for the
    /// driver's word.
    ///
    /// # Errors
    /// [`RegistrationError`]: refused, late, reason too long, or the driver is away.
    pub fn reject(&self, reason: &str) -> Result<(), RegistrationError> {
        self.client
            .reject_image(self.shared.info.correlation_id, self.position, reason)
    }
}

impl core::fmt::Debug for Image {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Image")
            .field("info", self.shared.info())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// Takes a fragment into the message under construction; the message's header, if that completed it.
#[inline(never)]
fn assemble<'a>(header: Header<'a>, assembler: &mut Assembler) -> Option<Header<'a>> {
    let fragment = Fragment {
        payload: header.frame.payload(),
        flags: header.frame.flags(),
        start: header.start(),
        end: header.position(),
        reserved_value: header.frame.reserved_value(),
    };
    assembler.on_fragment(&fragment).then(|| Header {
        assembled: Some(Assembled {
            first: assembler.first(),
            length: assembler.message().len(),
        }),
        ..header
    })
}

// Cache lines: what an application thread writes in its handle is in no line that another thread reads.
const _: () = assert!(align_of::<ImageShared>() == 128 && align_of::<Image>() == 128);
