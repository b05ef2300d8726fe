//! Repairing what a dead publisher left open (shared-memory spec 13.10); driver only.
//!
//! A reader can not pass a frame that is never committed. Three tools turn such a range into padding:
//! [`unblock`] at a position where consumers have been stuck for long, for publishers nobody knows anything about;
//! [`sweep`] for the claims of owners that are known to be dead; [`pad_range`] for the range a dead owner was
//! appending to. Frames with a negative length are taken over by compare-exchange, so that a claimer that comes back
//! to life at the same moment and the driver can not both win.
#![forbid(unsafe_code)]

use crate::bits::align;
use crate::id::TermId;
use crate::log::buffers::LogBuffers;
use crate::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH};
use crate::log::frame::{
    FLAGS_UNFRAGMENTED, FrameView, TYPE_PADDING, VERSION_FENCED, length_word, offset_word, stream_word,
    word_length, word_version,
};
use crate::log::metadata::{raw_tail_offset, raw_tail_term_id};
use crate::log::rotate::rotate;
use crate::log::words::{HeaderWord, Slot, Words};
use crate::position::partition_of_term_count;

/// Bytes of a hole that one call searches for the end of the hole: what a duty cycle can afford.
pub const SCAN_BYTES_MAX: usize = 1 << 20;

/// Longest piece of a hole that one call pads, bytes. More than a publisher reserves at once, so that only several
/// dead publishers in a row, or a tail that somebody scribbled on, leave a hole that takes more than one padding.
pub const PAD_BYTES_MAX: usize = 32 << 20;

/// What [`unblock`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblock {
    /// Nothing is open at the position.
    NotNeeded,
    /// The range is now padding.
    Padded {
        /// Bytes, from the position on.
        length: i32,
    },
    /// The log was rotated for a publisher that died between filling the term and rotating.
    Rotated,
    /// Something is open, but where it ends can not be told yet, or its owner lives or has just moved on.
    NotYet {
        /// Where the search for the end of a hole has come to: the next call may go on from here. It is the blocked
        /// position when the search has to begin anew.
        scanned_to: i64,
    },
}

/// Unblocks a log at a position where its consumers are stuck, whoever may be appending there.
pub fn unblock<B: Words>(log: &LogBuffers<B>, blocked_position: i64) -> Unblock {
    unblock_guarded(log, blocked_position, blocked_position, |_, _| false)
}

/// As [`unblock`], but asks `is_in_flight(position, length)` whether a live publisher is appending to any part of
/// that range, or is about to know where it appends: then the range is left alone. It is asked before the search for
/// the end of a hole, about the start alone, and again about all that would become padding.
///
/// `scan_from` is the `scanned_to` of the previous call for this position, or the position itself: at most
/// [`SCAN_BYTES_MAX`] bytes are searched in one call.
///
/// A publisher sets its window before it raises the tail, and before it takes its claim over. So whoever has
/// reserved a part of a hole below the tail read here is seen, or has left its window, and then its frames are seen:
/// the hole is read once more after the question. A frame that is open already is taken over only if its length word
/// is still the one that was read before the question.
pub fn unblock_guarded<B: Words>(
    log: &LogBuffers<B>,
    blocked_position: i64,
    scan_from: i64,
    is_in_flight: impl FnMut(i64, i64) -> bool,
) -> Unblock {
    let hole = HoleSearch {
        scan_from,
        end_position: None,
    };
    unblock_hole(log, blocked_position, hole, is_in_flight)
}

/// As [`unblock_guarded`], for a log that nobody will append to any more: a hole with nothing behind it ends at
/// `end_position`, where the stream ends, or at the tail if that comes first.
pub fn unblock_to<B: Words>(
    log: &LogBuffers<B>,
    blocked_position: i64,
    end_position: i64,
    scan_from: i64,
    is_in_flight: impl FnMut(i64, i64) -> bool,
) -> Unblock {
    if end_position <= blocked_position {
        return Unblock::NotNeeded;
    }
    let hole = HoleSearch {
        scan_from,
        end_position: Some(end_position),
    };
    unblock_hole(log, blocked_position, hole, is_in_flight)
}

/// Where to look for the end of a hole.
struct HoleSearch {
    scan_from: i64,
    /// The end of the stream, if it is known.
    end_position: Option<i64>,
}

fn unblock_hole<B: Words>(
    log: &LogBuffers<B>,
    blocked_position: i64,
    search: HoleSearch,
    mut is_in_flight: impl FnMut(i64, i64) -> bool,
) -> Unblock {
    let shape = log.shape();
    let metadata = log.metadata();
    if !is_frame_position(blocked_position) || blocked_position >= shape.max_possible_position() {
        return Unblock::NotNeeded;
    }
    let begin_anew = Unblock::NotYet {
        scanned_to: blocked_position,
    };
    let offset = shape.offset(blocked_position) as usize;
    let term_id = shape.term_id(blocked_position);
    let term_count = shape.term_count(term_id);
    let term_length = shape.term_length() as usize;
    // SYNC tail: acquire.
    let raw = metadata.tail_acquire(shape.partition(blocked_position));
    if offset == 0 && metadata.active_term_count_acquire() == term_count.wrapping_sub(1) {
        let previous = TermId(term_id.0.wrapping_sub(1));
        let partition = partition_of_term_count(term_count.wrapping_sub(1));
        let previous_raw = metadata.tail_acquire(partition);
        let is_full = raw_tail_term_id(previous_raw) == previous
            && raw_tail_offset(previous_raw, shape.term_length()) == shape.term_length();
        if term_count <= 0 || !is_full {
            return Unblock::NotNeeded;
        }
        rotate(metadata, term_count.wrapping_sub(1), previous);
        return Unblock::Rotated;
    }
    // Frames start at multiples of 32 whatever somebody has done to the tail.
    let tail_offset = raw_tail_offset(raw, shape.term_length()) as usize & !(FRAME_ALIGNMENT - 1);
    if raw_tail_term_id(raw) != term_id || offset >= tail_offset {
        return Unblock::NotNeeded;
    }
    let slot = log.term(shape.partition(blocked_position)).slot(offset);
    // SYNC frame-claim: acquire.
    let word = slot.load_acquire(HeaderWord::Length);
    let (length, hole_end) = match word_length(word) {
        1.. => return Unblock::NotNeeded,
        0 => {
            if is_in_flight(blocked_position, FRAME_HEADER_LENGTH as i64) {
                return begin_anew;
            }
            match search.end_of_hole(slot, blocked_position, tail_offset) {
                HoleEnd::At(end) => {
                    let end = end.min(offset + PAD_BYTES_MAX);
                    (end - offset, Some(end))
                }
                HoleEnd::Unknown { scanned_to } => return Unblock::NotYet { scanned_to },
            }
        }
        open => (open_length(open, tail_offset - offset), None),
    };
    // SYNC owner-window: whoever reserved a part of the range has its window set, or its frames are seen below.
    let is_free = !is_in_flight(blocked_position, align(length, FRAME_ALIGNMENT) as i64)
        && hole_end.is_none_or(|end| is_still_zero(slot, end));
    if !is_free || !pad(log, slot, word, length, term_id) {
        return begin_anew;
    }
    // There is nothing behind the last term.
    if hole_end == Some(term_length) && term_count < i32::MAX {
        rotate(metadata, term_count, term_id);
    }
    Unblock::Padded {
        length: length as i32,
    }
}

/// What [`sweep`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Where it stopped: `to_position`, the end of the budget, or a frame whose extent can not be told.
    pub position: i64,
    /// Claims of dead owners that are padding now.
    pub padded: usize,
    /// Open frames that were passed: claims of the living, and offers under way.
    pub open: usize,
    /// It stopped at `position` because a range there was reserved and has no header yet, or a corrupt one.
    pub at_hole: bool,
}

/// Walks the frames from `from_position` (a frame boundary, such as a consumer position) to `to_position` (the
/// producer position), at most `budget_frames` of them, and pads every fenced claim whose owner is dead.
pub fn sweep<B: Words>(
    log: &LogBuffers<B>,
    from_position: i64,
    to_position: i64,
    mut is_dead: impl FnMut(i64) -> bool,
    budget_frames: usize,
) -> Sweep {
    let shape = log.shape();
    let mut result = Sweep {
        position: from_position,
        padded: 0,
        open: 0,
        at_hole: false,
    };
    if !is_frame_position(from_position) {
        return result;
    }
    for _ in 0..budget_frames {
        if result.position >= to_position {
            break;
        }
        let slot = log
            .term(shape.partition(result.position))
            .slot(shape.offset(result.position) as usize);
        // SYNC frame-claim: acquire.
        let word = slot.load_acquire(HeaderWord::Length);
        let length = word_length(word).unsigned_abs() as usize;
        if !(FRAME_HEADER_LENGTH..=slot.remaining()).contains(&length) {
            result.at_hole = true;
            break;
        }
        if word_length(word) < 0 {
            let is_revoked = word_version(word) == VERSION_FENCED
                && is_dead(slot.load_relaxed(HeaderWord::Reserved))
                && pad(log, slot, word, length, shape.term_id(result.position));
            if is_revoked {
                result.padded += 1;
            } else {
                result.open += 1;
            }
        }
        // Positions come from counters that anybody can write; at the end of their range the sweep ends.
        result.position = result
            .position
            .saturating_add(align(length, FRAME_ALIGNMENT) as i64);
    }
    result
}

/// What [`pad_range`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PadRange {
    /// Bytes that are padding now.
    pub padded: i64,
    /// Everything in the range is committed.
    pub complete: bool,
}

/// Pads what is not committed of `[position, position + length)`, the range a dead owner was appending to. The range
/// is cut at the end of its term and at the tail; a range that is not in the log any more is complete. Numbers come
/// from the owner's slot and are not trusted.
pub fn pad_range<B: Words>(log: &LogBuffers<B>, position: i64, length: i64) -> PadRange {
    let shape = log.shape();
    let mut result = PadRange {
        padded: 0,
        complete: true,
    };
    if !is_frame_position(position) || length <= 0 {
        return result;
    }
    let partition = shape.partition(position);
    let term_id = shape.term_id(position);
    // SYNC tail: acquire.
    let raw = log.metadata().tail_acquire(partition);
    if raw_tail_term_id(raw) != term_id {
        return result;
    }
    let mut offset = shape.offset(position) as usize;
    let tail_offset = raw_tail_offset(raw, shape.term_length()) as usize;
    let end = (offset as u64)
        .saturating_add(length.unsigned_abs())
        .min((tail_offset & !(FRAME_ALIGNMENT - 1)) as u64) as usize;
    while offset < end {
        let slot = log.term(partition).slot(offset);
        // SYNC frame-claim: acquire.
        let word = slot.load_acquire(HeaderWord::Length);
        let rest = end - offset;
        let pad_length = match word_length(word) {
            1.. => match FrameView::new(slot, word) {
                Some(frame) => {
                    offset = frame.next_offset() as usize;
                    continue;
                }
                None => {
                    result.complete = false;
                    break;
                }
            },
            0 => next_header(slot, end).map_or(rest, |next| next - offset),
            open => open_length(open, rest),
        };
        if !pad(log, slot, word, pad_length, term_id) {
            result.complete = false;
            break;
        }
        let occupied = align(pad_length, FRAME_ALIGNMENT);
        result.padded += occupied as i64;
        offset += occupied;
    }
    result
}

fn is_frame_position(position: i64) -> bool {
    position >= 0 && position % FRAME_ALIGNMENT as i64 == 0
}

/// The extent of a frame with this negative length, cut to `room`: a length that can not be is taken for all of it.
fn open_length(negative: i32, room: usize) -> usize {
    let length = negative.unsigned_abs() as usize;
    if (FRAME_HEADER_LENGTH..=room).contains(&length) {
        length
    } else {
        room
    }
}

/// Where a hole ends.
enum HoleEnd {
    /// At this offset.
    At(usize),
    /// Not known, or not yet.
    Unknown { scanned_to: i64 },
}

impl HoleSearch {
    /// The hole at `slot` ends at the next frame below the tail, or at the end of the term if the tail is there, or
    /// where the stream ends.
    fn end_of_hole<B: Words>(self, slot: Slot<'_, B>, position: i64, tail_offset: usize) -> HoleEnd {
        let offset = slot.offset();
        let room = tail_offset - offset;
        let from = multiple_within(self.scan_from.saturating_sub(position), room);
        let limit = self.end_position.map_or(room, |end| {
            let distance = end.saturating_sub(position) as u64 & !(FRAME_ALIGNMENT as u64 - 1);
            distance.min(room as u64) as usize
        });
        let to = limit.min(from.saturating_add(SCAN_BYTES_MAX));
        // The search is strictly behind a slot; what is at `from` was not looked at yet.
        let last_seen = offset + from.saturating_sub(FRAME_ALIGNMENT);
        if let Some(next) = next_header(slot.term().slot(last_seen), offset + to) {
            return HoleEnd::At(next);
        }
        let scanned_to = if to < limit {
            position.saturating_add(to as i64)
        } else if limit > 0 && (self.end_position.is_some() || tail_offset == slot.term().length()) {
            return HoleEnd::At(offset + limit);
        } else {
            // From the start again: the end may show anywhere once a publisher is ready.
            position
        };
        HoleEnd::Unknown { scanned_to }
    }
}

/// A distance from an untrusted hint: 0 unless it is a multiple of 32 below `room`.
fn multiple_within(distance: i64, room: usize) -> usize {
    usize::try_from(distance)
        .ok()
        .filter(|distance| *distance < room && distance % FRAME_ALIGNMENT == 0)
        .unwrap_or(0)
}

/// The first offset behind `slot` and below `end` with a frame length.
fn next_header<B: Words>(slot: Slot<'_, B>, end: usize) -> Option<usize> {
    (slot.offset() + FRAME_ALIGNMENT..end)
        .step_by(FRAME_ALIGNMENT)
        // SYNC frame-claim: acquire; the header of whoever wrote behind the hole.
        .find(|offset| word_length(slot.term().slot(*offset).load_acquire(HeaderWord::Length)) != 0)
}

/// Reads the lengths back from `end` to the slot: a publisher that has written its header meanwhile shows.
fn is_still_zero<B: Words>(slot: Slot<'_, B>, end: usize) -> bool {
    (slot.offset()..end)
        .step_by(FRAME_ALIGNMENT)
        .rev()
        .all(|offset| word_length(slot.term().slot(offset).load_acquire(HeaderWord::Length)) == 0)
}

/// Takes the frame over if its length word is still `observed`, and makes it padding of `length` bytes.
fn pad<B: Words>(
    log: &LogBuffers<B>,
    slot: Slot<'_, B>,
    observed: i64,
    length: usize,
    term_id: TermId,
) -> bool {
    let length = length as i32;
    // SYNC claim-fence: a claimer that commits from here on finds its nonce gone.
    let is_ours = slot
        .compare_exchange(
            HeaderWord::Length,
            observed,
            length_word(-length, FLAGS_UNFRAGMENTED, TYPE_PADDING),
        )
        .is_ok();
    if is_ours {
        slot.store_relaxed(
            HeaderWord::Offset,
            offset_word(slot.offset() as i32, log.session_id()),
        );
        slot.store_relaxed(HeaderWord::Stream, stream_word(log.stream_id(), term_id));
        slot.store_relaxed(HeaderWord::Reserved, 0);
        // SYNC frame-length: publishes the padding to readers.
        slot.store_release(
            HeaderWord::Length,
            length_word(length, FLAGS_UNFRAGMENTED, TYPE_PADDING),
        );
    }
    is_ours
}
