//! Claims: a reserved frame that is filled later (shared-memory spec 10.2, try claim).
//!
//! The payload is staged in private memory of the client and copied at commit. A concurrent claim is *fenced*: a
//! claimer that was stopped may find that the driver has turned its claim into padding, and that the place belongs
//! to somebody else by now. So the claim's length word carries a nonce, and both the commit and the driver take the
//! frame over by a compare-exchange of that word: one of them wins. Foreign readers and drivers see a negative
//! length, and wait or unblock as ever.
#![forbid(unsafe_code)]

use crate::bits::align;
use crate::id::TermId;
use crate::log::append::{
    AppendOutcome, AppendWindow, ConcurrentAppender, ExclusiveAppender, Reservation, commit_frame, open_frame,
};
use crate::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH, frame_occupied};
use crate::log::frame::{
    FLAGS_UNFRAGMENTED, TYPE_DATA, TYPE_PADDING, VERSION_FENCED, fenced_word, length_word, offset_word,
};
use crate::log::words::{HeaderWord, Slot, Words};

/// A frame that belongs to the claimer until it commits, aborts, or is found dead.
#[derive(Clone, Copy, Debug)]
pub struct Claimed {
    range: Reservation,
    /// Header and payload, bytes.
    frame_length: i32,
    nonce: u32,
}

impl Claimed {
    fn new(range: Reservation, frame_length: i32, nonce: u32) -> Claimed {
        Claimed {
            range,
            frame_length,
            nonce,
        }
    }

    /// Stream position behind the frame.
    #[inline]
    #[must_use]
    pub fn position(&self) -> i64 {
        self.range.position() + self.occupied()
    }

    /// Payload, bytes.
    #[inline]
    #[must_use]
    pub fn length(&self) -> usize {
        self.frame_length as usize - FRAME_HEADER_LENGTH
    }

    /// Where the frame stands in its term, bytes.
    #[must_use]
    pub fn term_offset(&self) -> i32 {
        self.range.offset as i32
    }

    /// The term the frame stands in.
    #[must_use]
    pub fn term_id(&self) -> TermId {
        self.range.term_id()
    }

    fn occupied(&self) -> i64 {
        align(self.frame_length as usize, FRAME_ALIGNMENT) as i64
    }
}

/// Header fields of a claim that the application may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameFields {
    /// Flags.
    pub flags: u8,
    /// Frame type.
    pub frame_type: u16,
    /// Reserved value.
    pub reserved_value: i64,
}

impl Default for FrameFields {
    /// A message in one frame, reserved value 0.
    fn default() -> Self {
        FrameFields {
            flags: FLAGS_UNFRAGMENTED,
            frame_type: TYPE_DATA,
            reserved_value: 0,
        }
    }
}

/// Why a commit or abort did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The driver has turned the claim into padding: this process was stopped for too long.
    #[error("the claim was revoked by the driver")]
    ClaimRevoked,
}

/// The nonce of a claim: differs between owners and between positions, and its version byte is that of a fence.
#[inline]
fn nonce_of(owner_tag: i64, position: i64) -> u32 {
    // Positions are multiples of 32; a multiplication by an odd constant spreads both over the upper bits.
    let mixed =
        ((owner_tag as u64) ^ ((position as u64) >> 5).rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let folded = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    ((folded >> 32) as u32 & !0xff) | u32::from(VERSION_FENCED)
}

fn fill_and_commit<B: Words>(slot: Slot<'_, B>, claimed: &Claimed, staged: &[u8], fields: FrameFields) {
    slot.copy_payload(0, staged);
    slot.store_relaxed(HeaderWord::Reserved, fields.reserved_value);
    commit_frame(
        slot,
        length_word(claimed.frame_length, fields.flags, fields.frame_type),
    );
}

impl<B: Words> ConcurrentAppender<B> {
    /// Claims a frame for `length` bytes of payload.
    ///
    /// # Errors
    /// The outcome when there is no claim: never [`AppendOutcome::Appended`].
    #[inline]
    pub fn claim<W: AppendWindow>(
        &self,
        window: &W,
        length: usize,
        limit: i64,
    ) -> Result<Claimed, AppendOutcome> {
        if length > self.max_payload_length() {
            return Err(AppendOutcome::TooLong);
        }
        let occupied = frame_occupied(length);
        let range = self.reserve(window, occupied, limit)?;
        let frame_length = (length + FRAME_HEADER_LENGTH) as i32;
        let claimed = Claimed::new(range, frame_length, nonce_of(self.owner_tag(), range.position()));
        let slot = self.log().term(range.partition).slot(range.offset);
        open_frame(
            slot,
            fenced_word(frame_length, claimed.nonce),
            self.session_id(),
            range.stream_word,
        );
        slot.store_relaxed(HeaderWord::Reserved, self.owner_tag());
        // SYNC owner-window: from here on the claim is known by the owner tag in its header.
        window.leave();
        Ok(claimed)
    }

    /// Copies the staged payload into a claim of this appender and commits it. Returns the position behind it.
    ///
    /// # Errors
    /// [`CommitError::ClaimRevoked`], and nothing written, when the driver has unblocked the claim.
    ///
    /// # Panics
    /// If `staged` is not as long as the claim.
    #[inline]
    pub fn commit<W: AppendWindow>(
        &self,
        window: &W,
        claimed: &Claimed,
        staged: &[u8],
        fields: FrameFields,
    ) -> Result<i64, CommitError> {
        assert!(
            staged.len() == claimed.length(),
            "the staged payload fills its claim"
        );
        self.finish(window, claimed, staged, fields)
    }

    /// Gives a claim of this appender up: it becomes padding.
    ///
    /// # Errors
    /// [`CommitError::ClaimRevoked`] when the driver has done so already.
    #[inline]
    pub fn abort<W: AppendWindow>(&self, window: &W, claimed: &Claimed) -> Result<(), CommitError> {
        let fields = FrameFields {
            frame_type: TYPE_PADDING,
            ..FrameFields::default()
        };
        self.finish(window, claimed, &[], fields).map(|_| ())
    }

    #[inline]
    fn finish<W: AppendWindow>(
        &self,
        window: &W,
        claimed: &Claimed,
        staged: &[u8],
        fields: FrameFields,
    ) -> Result<i64, CommitError> {
        let range = claimed.range;
        let slot = self.log().term(range.partition).slot(range.offset);
        // SYNC claim-fence: the window is set before the frame is taken over, for who sees it taken over.
        window.enter();
        window.claimed(range.position(), claimed.occupied());
        let taken = self.is_ours(slot, claimed)
            && slot
                .compare_exchange(
                    HeaderWord::Length,
                    fenced_word(claimed.frame_length, claimed.nonce),
                    length_word(-claimed.frame_length, fields.flags, fields.frame_type),
                )
                .is_ok();
        if taken {
            fill_and_commit(slot, claimed, staged, fields);
        }
        // SYNC owner-window: the frame is committed before the window is empty.
        window.leave();
        if taken {
            Ok(claimed.position())
        } else {
            Err(CommitError::ClaimRevoked)
        }
    }

    /// Whether the header at the slot is the one this claim wrote. The nonce has 24 bits; term id, offset and owner
    /// tag rule out a claim of somebody else at a recycled place that happens to share them.
    #[inline]
    fn is_ours(&self, slot: Slot<'_, B>, claimed: &Claimed) -> bool {
        slot.load_acquire(HeaderWord::Length) == fenced_word(claimed.frame_length, claimed.nonce)
            && slot.load_relaxed(HeaderWord::Stream) == claimed.range.stream_word
            && slot.load_relaxed(HeaderWord::Offset)
                == offset_word(claimed.range.offset as i32, self.session_id())
            && slot.load_relaxed(HeaderWord::Reserved) == self.owner_tag()
    }
}

impl<B: Words> ExclusiveAppender<B> {
    /// Claims a frame for `length` bytes of payload.
    ///
    /// # Errors
    /// The outcome when there is no claim: never [`AppendOutcome::Appended`].
    #[inline]
    pub fn claim(&mut self, length: usize, limit: i64) -> Result<Claimed, AppendOutcome> {
        if length > self.max_payload_length() {
            return Err(AppendOutcome::TooLong);
        }
        let frame_length = (length + FRAME_HEADER_LENGTH) as i32;
        let range = self.reserve(frame_occupied(length), limit)?;
        open_frame(
            self.log().term(range.partition).slot(range.offset),
            length_word(-frame_length, FLAGS_UNFRAGMENTED, TYPE_DATA),
            self.session_id(),
            range.stream_word,
        );
        Ok(Claimed::new(range, frame_length, 0))
    }

    /// Copies the staged payload into a claim of this appender and commits it. Returns the position behind it.
    ///
    /// # Panics
    /// If `staged` is not as long as the claim.
    #[inline]
    pub fn commit(&self, claimed: &Claimed, staged: &[u8], fields: FrameFields) -> i64 {
        assert!(
            staged.len() == claimed.length(),
            "the staged payload fills its claim"
        );
        let slot = self
            .log()
            .term(claimed.range.partition)
            .slot(claimed.range.offset);
        fill_and_commit(slot, claimed, staged, fields);
        claimed.position()
    }

    /// Gives a claim of this appender up: it becomes padding.
    #[inline]
    pub fn abort(&self, claimed: &Claimed) {
        let slot = self
            .log()
            .term(claimed.range.partition)
            .slot(claimed.range.offset);
        commit_frame(
            slot,
            length_word(claimed.frame_length, FLAGS_UNFRAGMENTED, TYPE_PADDING),
        );
    }
}
