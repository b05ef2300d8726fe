//! Finding what was lost, and deciding when to ask for it (wire protocol 4.4).
//!
//! Aeron's receivers look at the first gap only: the next is asked for when that one is filled, so that `n` separate
//! losses take `n` round trips. Ours ask for every gap at once, each with a timer of its own, up to [`GAPS_MAX`].
//!
//! A sender that serves one request at a time (unicast) ignores repeats of the last one for its linger time, but
//! answers anything else. So that several gaps do not make each other's repeats look new, only the first gap is asked
//! for again at the usual pace, the others not before [`CROWDED_RETRY_NS`]; and when several are due at once the
//! first goes last, so that it is the one whose repeats are ignored.
#![forbid(unsafe_code)]

use fulmar::id::TermId;
use fulmar::log::frame::word_length;
use fulmar::log::{HeaderWord, LogBuffers, Words, scan_gap};
use fulmar::time::NanoTime;

use super::feedback_delay::FeedbackDelay;

/// Gaps that are known at a time; more are found when these are filled.
pub const GAPS_MAX: usize = 16;

/// Lost bytes that are known at a time, so that a datagram far ahead does not make passes long.
const LOST_BYTES_MAX: i64 = 2 << 20;

/// Time between requests for a gap behind the first, ns: the linger time of a sender's retransmission.
pub const CROWDED_RETRY_NS: i64 = 10_000_000;

/// Which gaps are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NakScope {
    /// Every one that is known.
    EveryGap,
    /// The first only.
    FirstGap,
}

/// What a pass has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossOutcome {
    /// Everything before this position has arrived, and frames start here. It may lie beyond the high-water mark.
    pub rebuild_position: i64,
    /// A gap that was not known before: congestion control counts it as a loss.
    pub loss_found: bool,
}

#[derive(Clone, Copy, Debug)]
struct OpenGap {
    position: i64,
    length: i64,
    deadline: NanoTime,
}

impl OpenGap {
    const NONE: OpenGap = OpenGap {
        position: 0,
        length: 0,
        deadline: NanoTime(0),
    };

    const fn end(&self) -> i64 {
        self.position + self.length
    }

    /// Whether this gap was a part of the other one, or is still all of it: it was asked for already.
    const fn is_within(&self, other: &OpenGap) -> bool {
        self.position >= other.position && self.end() <= other.end()
    }
}

/// The gaps of one image. Conductor only.
#[derive(Debug)]
pub struct LossDetector {
    delays: FeedbackDelay,
    scope: NakScope,
    /// In order of position; the first `count` are valid.
    gaps: [OpenGap; GAPS_MAX],
    count: usize,
    /// The last rebuild position that was returned.
    rebuild_position: i64,
    /// A frame starts here or is missing, and what lies before is known: it has arrived, or is one of the gaps. A gap
    /// that ends behind this has no end yet: more of it may be missing, and what comes may start anywhere in it.
    scanned_to: i64,
    /// The high-water mark of the last pass.
    high_water_mark: i64,
}

impl LossDetector {
    /// No gaps.
    #[must_use]
    pub const fn new(delays: FeedbackDelay, scope: NakScope) -> Self {
        Self {
            delays,
            scope,
            gaps: [OpenGap::NONE; GAPS_MAX],
            count: 0,
            rebuild_position: -1,
            scanned_to: -1,
            high_water_mark: -1,
        }
    }

    /// Looks at what has arrived between `rebuild_position` (that of the last pass, or the fastest subscriber's if it
    /// is further) and the high-water mark, and raises the gaps whose time has come: `raise(term id, offset in the
    /// term, length)`. A gap that is raised is to be asked for, or given up on unreliable streams; it is raised again
    /// later for as long as it is there.
    ///
    /// Subscriber positions are written by clients: a rebuild position where no frame starts moves nothing but what
    /// this stream's own subscribers see, and never leads outside the log.
    pub fn on_pass<B: Words>(
        &mut self,
        now: NanoTime,
        log: &LogBuffers<B>,
        rebuild_position: i64,
        high_water_mark: i64,
        mut raise: impl FnMut(TermId, i32, i32),
    ) -> LossOutcome {
        self.start_from(rebuild_position);
        let mut loss_found = false;
        if self.scanned_to >= high_water_mark && self.count == 0 {
            self.rebuild_position = self.scanned_to;
        } else {
            match self.scope {
                NakScope::EveryGap => loss_found = self.find_every_gap(now, log, high_water_mark),
                NakScope::FirstGap => loss_found = self.find_first_gap(now, log, high_water_mark),
            }
            self.raise_due(now, log, &mut raise);
        }
        self.high_water_mark = high_water_mark;
        LossOutcome {
            rebuild_position: self.rebuild_position,
            loss_found,
        }
    }

    /// When the next gap is to be raised, if there is one.
    #[must_use]
    pub fn next_deadline(&self) -> Option<NanoTime> {
        let gaps = self.gaps.get(..self.count).unwrap_or(&[]);
        gaps.iter().map(|gap| gap.deadline).reduce(NanoTime::earlier)
    }

    /// Takes the caller's rebuild position as the start. Subscribers may have read past what was known.
    fn start_from(&mut self, rebuild_position: i64) {
        let position = rebuild_position.max(0);
        if position < self.rebuild_position || self.rebuild_position < 0 {
            self.count = 0;
            self.scanned_to = position;
        }
        self.rebuild_position = position;
        self.scanned_to = self.scanned_to.max(position);
    }

    fn find_first_gap<B: Words>(&mut self, now: NanoTime, log: &LogBuffers<B>, high_water_mark: i64) -> bool {
        let known = self.take_gaps();
        let found = scan(log, self.rebuild_position, high_water_mark);
        self.rebuild_position = found.rebuild_position;
        self.scanned_to = found.rebuild_position;
        let Some(length) = found.gap_length else {
            return false;
        };
        let mut gap = OpenGap {
            position: found.rebuild_position,
            length,
            deadline: NanoTime(0),
        };
        let same = known
            .as_slice()
            .first()
            .filter(|known| known.position == gap.position && known.length == gap.length);
        gap.deadline = match same {
            Some(known) => known.deadline,
            None => now.plus_nanos(self.delays.first()),
        };
        let is_new = same.is_none();
        self.push(gap);
        is_new
    }

    fn find_every_gap<B: Words>(&mut self, now: NanoTime, log: &LogBuffers<B>, high_water_mark: i64) -> bool {
        if high_water_mark == self.high_water_mark && !self.needs_look(now, log) {
            return false;
        }
        let known = self.take_gaps();
        let mut loss_found = false;
        if self.look_again(now, log, &known) {
            loss_found = self.look_further(now, log, high_water_mark, &known);
        }
        self.rebuild_position = match self.open().first() {
            Some(gap) => gap.position,
            None => self.scanned_to,
        };
        loss_found
    }

    /// Whether something has come in at the start of a gap, or a gap is due.
    fn needs_look<B: Words>(&self, now: NanoTime, log: &LogBuffers<B>) -> bool {
        let gaps = self.open();
        gaps.is_empty() || gaps.iter().any(|gap| !is_untouched(gap, now, log))
    }

    /// Looks at the known gaps that have an end, and keeps what is left of them. `false` if there is no room for all
    /// the parts: what lies behind them has to be found anew.
    fn look_again<B: Words>(&mut self, now: NanoTime, log: &LogBuffers<B>, known: &Gaps) -> bool {
        for gap in known.as_slice() {
            let has_end = gap.end() <= self.scanned_to;
            if !has_end {
                continue;
            }
            if gap.position >= self.rebuild_position && is_untouched(gap, now, log) {
                self.push(*gap);
                continue;
            }
            let mut at = gap.position.max(self.rebuild_position);
            while at < gap.end() {
                let found = scan(log, at, gap.end());
                let Some(length) = found.gap_length else { break };
                let rest = OpenGap {
                    position: found.rebuild_position,
                    length,
                    deadline: gap.deadline,
                };
                if !self.push(rest) {
                    self.scanned_to = rest.position;
                    return false;
                }
                at = rest.end();
            }
        }
        true
    }

    /// Looks at what has come since the last pass, and says whether more was lost.
    fn look_further<B: Words>(
        &mut self,
        now: NanoTime,
        log: &LogBuffers<B>,
        high_water_mark: i64,
        known: &Gaps,
    ) -> bool {
        let mut loss_found = false;
        while self.scanned_to < high_water_mark && self.count < GAPS_MAX {
            let lost_bytes: i64 = self.open().iter().map(|gap| gap.length).sum();
            let found = scan(log, self.scanned_to, high_water_mark);
            let has_moved = found.rebuild_position > self.scanned_to;
            self.scanned_to = found.rebuild_position;
            let Some(length) = found.gap_length else {
                // A frame that can not be stops the walk where it is.
                if has_moved {
                    continue;
                }
                break;
            };
            if lost_bytes >= LOST_BYTES_MAX {
                break;
            }
            let mut gap = OpenGap {
                position: found.rebuild_position,
                length,
                deadline: NanoTime(0),
            };
            let before = known.as_slice().iter().find(|before| gap.is_within(before));
            gap.deadline = match before {
                Some(before) => before.deadline,
                None => now.plus_nanos(self.delays.first()),
            };
            loss_found |= before.is_none();
            self.push(gap);
            // Only where a term or a frame starts it is known that the gap has an end.
            let has_end = log.shape().offset(gap.end()) == 0 || !is_empty_at(log, gap.end());
            if !has_end {
                break;
            }
            self.scanned_to = gap.end();
        }
        loss_found
    }

    /// Raises the gaps that are due, the first one last.
    fn raise_due<B: Words>(
        &mut self,
        now: NanoTime,
        log: &LogBuffers<B>,
        raise: &mut impl FnMut(TermId, i32, i32),
    ) {
        let shape = log.shape();
        for (index, gap) in self.gaps.iter_mut().enumerate().take(self.count).rev() {
            if !gap.deadline.is_due(now) {
                continue;
            }
            raise(
                shape.term_id(gap.position),
                shape.offset(gap.position),
                gap.length as i32,
            );
            let retry = self.delays.retry();
            let is_crowded = index > 0 && !self.delays.is_group();
            let wait = if is_crowded {
                retry.max(CROWDED_RETRY_NS)
            } else {
                retry
            };
            gap.deadline = now.plus_nanos(wait);
        }
    }

    fn open(&self) -> &[OpenGap] {
        self.gaps.get(..self.count).unwrap_or(&[])
    }

    fn take_gaps(&mut self) -> Gaps {
        Gaps {
            gaps: self.gaps,
            count: core::mem::take(&mut self.count),
        }
    }

    /// `false` if there is no room.
    fn push(&mut self, gap: OpenGap) -> bool {
        let Some(slot) = self.gaps.get_mut(self.count) else {
            return false;
        };
        *slot = gap;
        self.count += 1;
        true
    }
}

/// The gaps as they were before a pass.
struct Gaps {
    gaps: [OpenGap; GAPS_MAX],
    count: usize,
}

impl Gaps {
    fn as_slice(&self) -> &[OpenGap] {
        self.gaps.get(..self.count).unwrap_or(&[])
    }
}

/// What lies in one term behind a position.
struct Found {
    /// Where the frames end, or the first frame boundary at or behind the limit.
    rebuild_position: i64,
    /// Bytes that are missing there.
    gap_length: Option<i64>,
}

/// Walks the frames from `position` to `limit` or the end of the term.
fn scan<B: Words>(log: &LogBuffers<B>, position: i64, limit: i64) -> Found {
    let shape = log.shape();
    let offset = shape.offset(position);
    let term_start = position - i64::from(offset);
    let limit_offset = (limit - term_start).min(i64::from(shape.term_length())) as i32;
    let found = scan_gap(log.term(shape.partition(position)), offset, limit_offset);
    Found {
        rebuild_position: term_start + i64::from(found.rebuild_offset),
        gap_length: found.gap.map(|gap| i64::from(gap.length)),
    }
}

fn is_empty_at<B: Words>(log: &LogBuffers<B>, position: i64) -> bool {
    let shape = log.shape();
    let slot = log
        .term(shape.partition(position))
        .slot(shape.offset(position) as usize);
    // SYNC frame-length: acquire.
    word_length(slot.load_acquire(HeaderWord::Length)) == 0
}

/// Whether nothing has come in at the start of the gap, and it is not due: then it needs no look at its other bytes.
fn is_untouched<B: Words>(gap: &OpenGap, now: NanoTime, log: &LogBuffers<B>) -> bool {
    !gap.deadline.is_due(now) && is_empty_at(log, gap.position)
}
