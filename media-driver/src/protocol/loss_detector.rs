//! Finding what was lost, and deciding when to ask for it (wire protocol 4.4).
//!
//! Aeron's receivers look at the first gap only: the next is asked for when that one is filled, so that `n` separate
//! losses take `n` round trips. Ours ask for every gap at once, each with a timer of its own, up to [`GAPS_MAX`].
//!
//! A sender that serves one request at a time (unicast) ignores repeats of the last one for its linger time, but
//! answers anything else. So that several gaps do not make each other's repeats look new, only the first gap is asked
//! for again at the usual pace, the others not before [`CROWDED_RETRY_NS`]; and when several are due at once the
//! first goes last, so that it is the one whose repeats are ignored.
//!
//! With [`LossDetector::learning`] that is so until the first gap was filled. From then on the time between request and
//! data is known, and a gap that is not filled well after it was lost once more: every gap is asked for again then.
#![forbid(unsafe_code)]

use fulmar::id::TermId;
use fulmar::log::descriptor::FRAME_ALIGNMENT;
use fulmar::log::frame::word_length;
use fulmar::log::{HeaderWord, LogBuffers, Words, scan_gap};
use fulmar::time::NanoTime;

use super::feedback_delay::FeedbackDelay;
use super::recovery_time::{RecoveryTime, backed_off};

/// Gaps that are known at a time; more are found when these are filled.
pub const GAPS_MAX: usize = 16;

/// Lost bytes that are known at a time, so that a datagram far ahead does not make passes long.
const LOST_BYTES_MAX: i64 = 2 << 20;

/// Time between requests for a gap behind the first, ns: the linger time of a sender's retransmission.
pub const CROWDED_RETRY_NS: i64 = 10_000_000;

/// A learnt time between requests is at least this, ns, and at least what is configured: on the shortest paths it is
/// threads that wait for a processor.
pub const LEARNT_RETRY_MIN_NS: i64 = 500_000;

/// Deviations that a repair is waited for beyond its usual time.
const RETRY_DEVIATIONS: i64 = 4;

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
    /// Bytes that were found to be missing in this pass and were not known to be before, for the loss report.
    pub bytes_lost: i64,
}

#[derive(Clone, Copy, Debug)]
struct OpenGap {
    position: i64,
    length: i64,
    deadline: NanoTime,
    /// When its first byte was asked for.
    asked: Option<NanoTime>,
    /// How often it was asked for.
    requests: u32,
}

impl OpenGap {
    const NONE: OpenGap = OpenGap::at(0, 0);

    /// Nobody has asked for it, nor is to.
    const fn at(position: i64, length: i64) -> OpenGap {
        OpenGap {
            position,
            length,
            deadline: NanoTime(0),
            asked: None,
            requests: 0,
        }
    }

    /// Goes on where the other one stood.
    const fn resume(&mut self, before: &OpenGap) {
        self.deadline = before.deadline;
        self.asked = before.asked;
        self.requests = before.requests;
    }

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
    /// Time from asking for a gap to its first byte, where it is learnt.
    recovery: Option<RecoveryTime>,
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
    /// Bytes found to be missing in this pass.
    bytes_lost: i64,
}

impl LossDetector {
    /// No gaps.
    #[must_use]
    pub const fn new(delays: FeedbackDelay, scope: NakScope) -> Self {
        Self {
            delays,
            scope,
            recovery: None,
            gaps: [OpenGap::NONE; GAPS_MAX],
            count: 0,
            rebuild_position: 0,
            scanned_to: 0,
            high_water_mark: 0,
            bytes_lost: 0,
        }
    }

    /// Learns how long repairs take, and asks again when one takes longer. Without effect where a group shares the
    /// requests, and where only the first gap is asked for.
    #[must_use]
    pub fn learning(mut self) -> Self {
        let can_learn = !self.delays.is_group() && self.scope == NakScope::EveryGap;
        self.recovery = can_learn.then(RecoveryTime::new);
        self
    }

    /// Looks at what has arrived between `rebuild_position` (that of the last pass, or the fastest subscriber's if it
    /// is further) and the high-water mark, and raises the gaps whose time has come: `raise(term id, offset in the
    /// term, length)`. A gap that is raised is to be asked for, or given up on unreliable streams; it is raised again
    /// later for as long as it is there.
    ///
    /// Subscriber positions are written by clients: a rebuild position that can not be is ignored, and one where no
    /// frame starts harms nothing but this stream.
    pub fn on_pass<B: Words>(
        &mut self,
        now: NanoTime,
        log: &LogBuffers<B>,
        rebuild_position: i64,
        high_water_mark: i64,
        mut raise: impl FnMut(TermId, i32, i32),
    ) -> LossOutcome {
        let end_position = log.shape().max_possible_position();
        let is_possible =
            (0..=end_position).contains(&rebuild_position) && rebuild_position % FRAME_ALIGNMENT as i64 == 0;
        if is_possible {
            self.start_from(rebuild_position);
        }
        let high_water_mark = high_water_mark.min(end_position);
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
            bytes_lost: core::mem::take(&mut self.bytes_lost),
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
        if rebuild_position < self.rebuild_position {
            self.count = 0;
            self.scanned_to = rebuild_position;
        }
        self.rebuild_position = rebuild_position;
        self.scanned_to = self.scanned_to.max(rebuild_position);
    }

    fn find_first_gap<B: Words>(&mut self, now: NanoTime, log: &LogBuffers<B>, high_water_mark: i64) -> bool {
        let known = self.take_gaps();
        let found = scan(log, self.rebuild_position, high_water_mark);
        self.rebuild_position = found.rebuild_position;
        self.scanned_to = found.rebuild_position;
        let Some(length) = found.gap_length else {
            return false;
        };
        let mut gap = OpenGap::at(found.rebuild_position, length);
        if is_being_filled(&gap, log, high_water_mark) {
            return false;
        }
        let same = known
            .as_slice()
            .first()
            .filter(|known| known.position == gap.position && known.length == gap.length);
        match same {
            Some(known) => gap.resume(known),
            None => gap.deadline = now.plus_nanos(self.delays.first()),
        }
        let is_new = same.is_none();
        if is_new {
            self.bytes_lost += known.missing_from(&gap);
        }
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
            self.learn(now, log, gap);
            let has_end = gap.end() <= self.scanned_to;
            if !has_end {
                continue;
            }
            if gap.position >= self.rebuild_position && is_untouched(gap, now, log) {
                if !self.push(*gap) {
                    self.scanned_to = gap.position;
                    return false;
                }
                continue;
            }
            let mut at = gap.position.max(self.rebuild_position);
            while at < gap.end() {
                let found = scan(log, at, gap.end());
                let Some(length) = found.gap_length else { break };
                let end = found.rebuild_position + length;
                let rest = OpenGap {
                    position: found.rebuild_position,
                    // A part without a frame behind it reaches to the end of the whole for now.
                    length: if end < gap.end() && !is_frame_at(log, end) {
                        gap.end() - found.rebuild_position
                    } else {
                        length
                    },
                    deadline: gap.deadline,
                    // Where the first byte has come the clock starts anew with the next request.
                    asked: gap.asked.filter(|_| found.rebuild_position == gap.position),
                    requests: gap.requests,
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
            let mut gap = OpenGap::at(found.rebuild_position, length);
            if is_being_filled(&gap, log, high_water_mark) {
                break;
            }
            let before = known.as_slice().iter().find(|before| gap.is_within(before));
            match before {
                Some(before) => {
                    gap.resume(before);
                    if gap.position != before.position {
                        gap.asked = None;
                    }
                }
                None => gap.deadline = now.plus_nanos(self.delays.first()),
            }
            if before.is_none() {
                loss_found = true;
                self.bytes_lost += known.missing_from(&gap);
            }
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
            gap.asked.get_or_insert(now);
            let retry = self.delays.retry();
            let is_crowded = index > 0 && !self.delays.is_group();
            let learnt = self
                .recovery
                .and_then(|time| time.with_deviations(RETRY_DEVIATIONS));
            let wait = match learnt {
                Some(learnt) => {
                    let learnt = learnt.max(LEARNT_RETRY_MIN_NS).max(retry);
                    backed_off(learnt, gap.requests, CROWDED_RETRY_NS)
                }
                None if is_crowded => retry.max(CROWDED_RETRY_NS),
                None => retry,
            };
            gap.requests = gap.requests.saturating_add(1);
            gap.deadline = now.plus_nanos(wait);
        }
    }

    /// The first byte of a gap that was asked for has come: that is how long a repair takes. One that was asked for more
    /// than once, as over any longer path the first one is, counts only until one comes that was not: else it says how
    /// much is lost, and where much is, what is waited for would grow and grow.
    fn learn<B: Words>(&mut self, now: NanoTime, log: &LogBuffers<B>, gap: &OpenGap) {
        let has_come =
            |gap: &OpenGap| gap.position < self.rebuild_position || !is_empty_at(log, gap.position);
        let Some(asked) = gap.asked.filter(|_| has_come(gap)) else {
            return;
        };
        let took = now.since(asked);
        match &mut self.recovery {
            Some(recovery) if gap.requests == 1 => recovery.on_sample(took),
            Some(recovery) => recovery.on_guess(took),
            None => {}
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

    /// Bytes of `gap` that none of these covers: a gap at the end grows while nothing comes.
    fn missing_from(&self, gap: &OpenGap) -> i64 {
        let covered = |known: &OpenGap| {
            let overlap = known.end().min(gap.end()) - known.position.max(gap.position);
            overlap.max(0)
        };
        gap.length - self.as_slice().iter().map(covered).sum::<i64>()
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
    let limit_offset = (limit - term_start).clamp(0, i64::from(shape.term_length())) as i32;
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

/// Whether a gap ends where no frame starts: inside a datagram that is being written into it at this moment.
///
/// A gap ends where the memory is not zero any more. But the receiver writes a datagram into the middle of a gap while
/// it is looked at, its first word last: the end may lie inside a payload, whose bytes are no frame. Whoever walked on
/// from there would pass over real gaps, and nobody would ever ask for them; whoever filled it would cut the datagram.
/// The next pass sees the frame.
fn is_being_filled<B: Words>(gap: &OpenGap, log: &LogBuffers<B>, high_water_mark: i64) -> bool {
    let end = gap.end();
    end < high_water_mark && log.shape().offset(end) != 0 && !is_empty_at(log, end) && !is_frame_at(log, end)
}

/// Whether the header of a frame of this stream stands here, complete.
fn is_frame_at<B: Words>(log: &LogBuffers<B>, position: i64) -> bool {
    let shape = log.shape();
    let (offset, term_id) = (shape.offset(position), shape.term_id(position));
    let slot = log.term(shape.partition(position)).slot(offset as usize);
    let pair = |low: i32, high: i32| i64::from(low.cast_unsigned()) | i64::from(high) << 32;
    // SYNC frame-length: acquire. The other words of a header that is not published yet may be behind its length; then
    // they do not match, or they are right.
    word_length(slot.load_acquire(HeaderWord::Length)) != 0
        && slot.load_relaxed(HeaderWord::Offset) == pair(offset, log.session_id().get())
        && slot.load_relaxed(HeaderWord::Stream) == pair(log.stream_id().get(), term_id.get())
}

/// Whether nothing has come in at the start of the gap, and it is not due: then it needs no look at its other bytes.
fn is_untouched<B: Words>(gap: &OpenGap, now: NanoTime, log: &LogBuffers<B>) -> bool {
    !gap.deadline.is_due(now) && is_empty_at(log, gap.position)
}

#[cfg(test)]
mod tests {
    use fulmar::id::{RegistrationId, SessionId, StreamId};
    use fulmar::log::{LogInit, Metadata, rebuild};
    use fulmar::memory::Region;
    use fulmar::wire::{DataHeader, FrameType};
    use proptest::prelude::*;

    use super::*;

    const TERM: i64 = 4096;
    const INITIAL: TermId = TermId(i32::MAX);
    const RETRY: i64 = 100_000;

    fn log() -> LogBuffers {
        let init = LogInit {
            mtu_length: 256,
            ..LogInit::ipc_default(RegistrationId(1), SessionId(2), StreamId(3), INITIAL, TERM as i32)
        };
        let metadata = Region::heap(4096).as_view();
        init.write_to(&Metadata::new(metadata.clone()).unwrap());
        let terms = core::array::from_fn(|_| Region::heap(TERM as usize).as_view());
        LogBuffers::from_parts(terms, metadata).unwrap()
    }

    /// A frame of `length` bytes, a multiple of 32, arrives at a position.
    fn arrive(log: &LogBuffers, position: i64, length: i64) -> bool {
        let shape = log.shape();
        let mut bytes = DataHeader {
            frame_length: length as i32,
            version: 0,
            flags: 0xC0,
            frame_type: FrameType::DATA,
            term_offset: shape.offset(position),
            session_id: SessionId(2),
            stream_id: StreamId(3),
            term_id: shape.term_id(position),
            reserved_value: 0,
        }
        .encode()
        .to_vec();
        // Bytes that would be taken for frame lengths if a walk went astray.
        bytes.resize(length as usize, 0x7F);
        rebuild::insert(
            log.term(shape.partition(position)),
            shape.offset(position),
            &bytes,
        )
    }

    /// The payload of a datagram that is being written: its header is not there yet.
    fn half_arrive(log: &LogBuffers, position: i64, length: i64) {
        use fulmar::memory::AtomicBuffer;
        let shape = log.shape();
        let term = log.term(shape.partition(position));
        // Would be taken for frames of 96 bytes each.
        let payload: Vec<u8> = (32..length as usize)
            .map(|at| if at % 32 == 0 { 96 } else { 0 })
            .collect();
        term.buffer()
            .copy_in(shape.offset(position) as usize + 32, &payload);
    }

    fn unicast(scope: NakScope) -> LossDetector {
        LossDetector::new(FeedbackDelay::unicast(1_000, 100), scope)
    }

    /// A detector, its log, and what it says.
    struct Watch {
        log: LogBuffers,
        detector: LossDetector,
        rebuild_position: i64,
        high_water_mark: i64,
        raised: Vec<(i64, i64)>,
        losses: usize,
    }

    impl Watch {
        fn new(scope: NakScope) -> Watch {
            Watch::with(unicast(scope))
        }

        fn with(detector: LossDetector) -> Watch {
            Watch {
                log: log(),
                detector,
                rebuild_position: 0,
                high_water_mark: 0,
                raised: Vec::new(),
                losses: 0,
            }
        }

        fn arrive(&mut self, position: i64, length: i64) {
            assert!(arrive(&self.log, position, length));
            self.high_water_mark = self.high_water_mark.max(position + length);
        }

        /// One pass; the gaps that were raised, by position and length.
        fn pass(&mut self, now: i64) -> Vec<(i64, i64)> {
            let shape = self.log.shape();
            let mut raised = Vec::new();
            let outcome = self.detector.on_pass(
                NanoTime(now),
                &self.log,
                self.rebuild_position,
                self.high_water_mark,
                |term_id, offset, length| {
                    assert!(length > 0 && offset + length <= TERM as i32);
                    raised.push((shape.position(term_id, offset), i64::from(length)));
                },
            );
            self.rebuild_position = outcome.rebuild_position;
            self.losses += usize::from(outcome.loss_found);
            self.raised.extend(&raised);
            raised
        }
    }

    #[test]
    fn a_gap_is_raised_after_the_delay_and_again_until_it_is_filled() {
        for scope in [NakScope::EveryGap, NakScope::FirstGap] {
            let mut watch = Watch::new(scope);
            watch.arrive(0, 64);
            assert_eq!(watch.pass(0), []);
            assert_eq!(watch.rebuild_position, 64);
            watch.arrive(192, 64);
            assert_eq!(watch.pass(10_000), []);
            assert_eq!((watch.rebuild_position, watch.losses), (64, 1));
            assert_eq!(watch.detector.next_deadline(), Some(NanoTime(11_000)));
            assert_eq!(watch.pass(10_999), []);
            assert_eq!(watch.pass(11_000), [(64, 128)]);
            assert_eq!(watch.pass(11_000 + RETRY - 1), []);
            assert_eq!(watch.pass(11_000 + RETRY), [(64, 128)]);
            assert_eq!(watch.losses, 1);
            watch.arrive(64, 128);
            assert_eq!(watch.pass(11_000 + 5 * RETRY), []);
            assert_eq!(watch.rebuild_position, 256);
            assert_eq!(watch.detector.next_deadline(), None);
        }
    }

    #[test]
    fn every_gap_is_asked_for_at_once_the_first_one_last() {
        let mut watch = Watch::new(NakScope::EveryGap);
        for position in [64, 192, 320] {
            watch.arrive(position, 64);
        }
        assert_eq!(watch.pass(0), []);
        assert_eq!(watch.pass(1_000), [(256, 64), (128, 64), (0, 64)]);
        assert_eq!((watch.rebuild_position, watch.losses), (0, 1));
        // Only the first is hurried.
        for retry in 1..=99 {
            assert_eq!(watch.pass(1_000 + retry * RETRY), [(0, 64)]);
        }
        assert_eq!(
            watch.pass(1_000 + CROWDED_RETRY_NS),
            [(256, 64), (128, 64), (0, 64)]
        );
        // The next becomes the first when that is filled.
        watch.arrive(0, 64);
        let now = 1_000 + CROWDED_RETRY_NS + RETRY;
        assert_eq!(watch.pass(now), []);
        assert_eq!(watch.rebuild_position, 128);
        assert_eq!(watch.pass(1_000 + 2 * CROWDED_RETRY_NS), [(256, 64), (128, 64)]);
        assert_eq!(watch.pass(1_000 + 2 * CROWDED_RETRY_NS + RETRY), [(128, 64)]);
        assert_eq!(watch.losses, 1);
    }

    #[test]
    fn a_datagram_that_is_being_written_into_a_gap_does_not_hide_the_gaps_behind_it() {
        for is_known_before in [false, true] {
            let mut watch = Watch::new(NakScope::EveryGap);
            watch.arrive(320, 64);
            // Something is missing before and behind the datagram that comes in at 64.
            watch.arrive(512, 64);
            if is_known_before {
                assert_eq!(watch.pass(0), []);
                assert_eq!(watch.pass(1_000), [(384, 128), (0, 320)]);
            }
            half_arrive(&watch.log, 64, 192);
            for now in [200_000, 202_000] {
                for (position, length) in watch.pass(now) {
                    assert!(
                        [(0, 320), (384, 128), (0, 96)].contains(&(position, length)),
                        "{position} {length}"
                    );
                }
                assert_eq!(watch.rebuild_position, 0);
            }
            watch.arrive(64, 192);
            watch.pass(20_000_000);
            assert_eq!(watch.pass(40_000_000), [(384, 128), (256, 64), (0, 64)]);
            for (position, length) in [(0, 64), (256, 64), (384, 128)] {
                watch.arrive(position, length);
            }
            watch.pass(50_000_000);
            assert_eq!(watch.rebuild_position, 576);
        }
    }

    #[test]
    fn a_gap_that_falls_apart_pushes_no_other_one_out() {
        let mut watch = Watch::new(NakScope::EveryGap);
        let last = GAPS_MAX as i64 - 1;
        // As many gaps as are known at a time, the first one of three slots, the others of one.
        watch.arrive(96, 32);
        for gap in 1..=last {
            watch.arrive(96 + gap * 64, 32);
        }
        watch.pass(0);
        assert_eq!(watch.pass(1_000).len(), GAPS_MAX);
        watch.arrive(32, 32);
        watch.pass(CROWDED_RETRY_NS / 2);
        watch.arrive(0, 32);
        watch.arrive(64, 32);
        for gap in 1..last {
            watch.arrive(64 + gap * 64, 32);
        }
        watch.pass(CROWDED_RETRY_NS);
        assert_eq!(
            watch.rebuild_position,
            64 + last * 64,
            "the last gap is still missed"
        );
        watch.arrive(64 + last * 64, 32);
        watch.pass(2 * CROWDED_RETRY_NS);
        assert_eq!(watch.rebuild_position, 128 + last * 64);
    }

    #[test]
    fn a_gap_that_ends_inside_a_half_written_datagram_is_left_alone() {
        for scope in [NakScope::EveryGap, NakScope::FirstGap] {
            let mut watch = Watch::new(scope);
            watch.arrive(320, 64);
            half_arrive(&watch.log, 64, 192);
            assert_eq!(watch.pass(0), []);
            assert_eq!(watch.pass(10_000), [], "whoever filled it would cut the datagram");
            assert_eq!(watch.rebuild_position, 0);
            watch.arrive(64, 192);
            watch.pass(20_000);
            assert!(watch.pass(30_000).contains(&(0, 64)));
        }
    }

    #[test]
    fn the_first_gap_alone_is_asked_for_when_the_setting_says_so() {
        let mut watch = Watch::new(NakScope::FirstGap);
        for position in [64, 192] {
            watch.arrive(position, 64);
        }
        watch.pass(0);
        assert_eq!(watch.pass(1_000), [(0, 64)]);
        watch.arrive(0, 64);
        assert_eq!(watch.pass(2_000), []);
        assert_eq!(watch.pass(3_000), [(128, 64)]);
        assert_eq!(watch.losses, 2);
        // Any other extent is another gap.
        watch.arrive(128, 32);
        assert_eq!(watch.pass(4_000), []);
        assert_eq!(watch.pass(5_000), [(160, 32)]);
        assert_eq!(watch.losses, 3);
    }

    #[test]
    fn what_is_left_of_a_gap_is_not_asked_for_before_its_time() {
        let mut watch = Watch::new(NakScope::EveryGap);
        watch.arrive(256, 64);
        watch.pass(0);
        assert_eq!(watch.pass(1_000), [(0, 256)]);
        watch.arrive(0, 64);
        watch.arrive(128, 64);
        assert_eq!(watch.pass(2_000), []);
        assert_eq!(watch.rebuild_position, 64);
        assert_eq!(watch.pass(1_000 + RETRY), [(192, 64), (64, 64)]);
        assert_eq!(watch.losses, 1);
        watch.arrive(64, 64);
        watch.pass(1_000 + RETRY + 1);
        assert_eq!(watch.rebuild_position, 192);
    }

    #[test]
    fn a_gap_up_to_a_heartbeat_grows_with_the_next() {
        for scope in [NakScope::EveryGap, NakScope::FirstGap] {
            let mut watch = Watch::new(scope);
            watch.arrive(0, 64);
            watch.high_water_mark = 128;
            watch.pass(0);
            assert_eq!(watch.pass(1_000), [(64, 64)]);
            watch.high_water_mark = 256;
            assert_eq!(watch.pass(2_000), []);
            assert_eq!(watch.pass(3_000), [(64, 192)]);
            assert_eq!(watch.losses, 2);
            // The missing frame turns out to begin before the first mark and to end behind it.
            watch.arrive(64, 160);
            watch.pass(4_000);
            assert_eq!(watch.rebuild_position, 224);
        }
    }

    #[test]
    fn a_gap_ends_with_its_term() {
        let mut watch = Watch::new(NakScope::EveryGap);
        watch.arrive(0, TERM - 64);
        watch.arrive(TERM + 96, 64);
        watch.pass(0);
        assert_eq!(watch.rebuild_position, TERM - 64);
        assert_eq!(watch.pass(1_000), [(TERM, 96), (TERM - 64, 64)]);
        watch.arrive(TERM - 64, 64);
        watch.pass(2_000);
        assert_eq!(watch.rebuild_position, TERM);
        watch.arrive(TERM, 96);
        watch.pass(3_000);
        assert_eq!(watch.rebuild_position, TERM + 160);
    }

    #[test]
    fn subscribers_that_have_read_further_are_followed() {
        for scope in [NakScope::EveryGap, NakScope::FirstGap] {
            let mut watch = Watch::new(scope);
            watch.arrive(128, 64);
            watch.pass(0);
            assert_eq!(watch.pass(1_000), [(0, 128)]);
            watch.arrive(0, 64);
            watch.rebuild_position = 64;
            watch.pass(2_000);
            assert_eq!(watch.rebuild_position, 64);
            watch.pass(3_000);
            let left = watch.pass(1_000 + RETRY);
            assert_eq!(left.iter().filter(|gap| **gap == (64, 64)).count(), left.len());
            watch.arrive(64, 64);
            watch.arrive(192, 64);
            watch.rebuild_position = 256;
            assert_eq!(watch.pass(2 * RETRY), []);
            assert_eq!(
                (watch.rebuild_position, watch.detector.next_deadline()),
                (256, None)
            );
        }
    }

    #[test]
    fn more_gaps_than_are_known_at_a_time_are_found_as_others_are_filled() {
        let mut watch = Watch::new(NakScope::EveryGap);
        for index in 0..30 {
            watch.arrive(index * 128 + 64, 64);
        }
        watch.pass(0);
        assert_eq!(watch.pass(1_000).len(), GAPS_MAX);
        for index in 0..30 {
            watch.arrive(index * 128, 64);
            watch.pass(2_000 + index);
            assert_eq!(
                watch.rebuild_position,
                if index < 29 { (index + 1) * 128 } else { 30 * 128 }
            );
        }
        assert_eq!(watch.losses, 1 + 14);
        assert_eq!(watch.detector.next_deadline(), None);
    }

    #[test]
    fn parts_of_a_gap_that_are_too_many_are_found_again() {
        let mut watch = Watch::new(NakScope::EveryGap);
        watch.arrive(40 * 64, 64);
        watch.pass(0);
        assert_eq!(watch.pass(1_000), [(0, 40 * 64)]);
        for index in 0..40 {
            if index % 2 == 1 {
                watch.arrive(index * 64, 64);
            }
        }
        assert_eq!(watch.pass(1_000 + RETRY).len(), GAPS_MAX);
        for index in 0..40 {
            if index % 2 == 0 {
                watch.arrive(index * 64, 64);
            }
        }
        watch.pass(2_000 + RETRY);
        watch.pass(3_000 + RETRY);
        assert_eq!(watch.rebuild_position, 41 * 64);
    }

    /// A detector that has asked for a gap at 1,000 and got it so much later.
    fn learnt(repair_ns: i64) -> Watch {
        let mut watch = Watch::with(unicast(NakScope::EveryGap).learning());
        watch.arrive(64, 64);
        watch.pass(0);
        assert_eq!(watch.pass(1_000), [(0, 64)]);
        watch.arrive(0, 64);
        assert_eq!(watch.pass(1_000 + repair_ns), []);
        assert_eq!(watch.rebuild_position, 128);
        watch
    }

    /// When the gap at `position` is raised from `start` on, while nothing comes, up to a time.
    fn raised_at(watch: &mut Watch, position: i64, start: i64, end: i64) -> Vec<i64> {
        let mut times = Vec::new();
        for now in (start..end).step_by(10_000) {
            let raised = watch.pass(now);
            times.extend(raised.iter().filter(|gap| gap.0 == position).map(|_| now - start));
        }
        times
    }

    #[test]
    fn a_repair_that_takes_longer_than_usual_is_asked_for_again_whichever_gap_it_is() {
        for (first, position) in [(128, 128), (128, 256)] {
            let mut watch = learnt(200_000);
            watch.arrive(first + 64, 64);
            watch.arrive(320, 64);
            let times = raised_at(&mut watch, position, 10_000_000, 25_000_000);
            // 500 us and a pass, then twice as long each time, at most 10 ms.
            let waits: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert_eq!(
                waits,
                [500_000, 1_000_000, 2_000_000, 4_000_000],
                "{position}: {times:?}"
            );
        }
    }

    #[test]
    fn over_a_long_path_nothing_is_asked_for_twice_before_it_can_have_come() {
        const MS: i64 = 1_000_000;
        let mut watch = learnt(100 * MS);
        watch.arrive(192, 64);
        let times = raised_at(&mut watch, 128, 200 * MS, 450 * MS);
        assert_eq!(times.len(), 1, "{times:?}");
        let times = raised_at(&mut watch, 128, 450 * MS, 1_000 * MS);
        assert!(!times.is_empty(), "it was lost");
    }

    #[test]
    fn the_first_repair_over_a_long_path_is_learnt_though_it_was_asked_for_often() {
        const MS: i64 = 1_000_000;
        let mut watch = Watch::with(unicast(NakScope::EveryGap).learning());
        watch.arrive(64, 64);
        assert!(raised_at(&mut watch, 0, 0, 100 * MS).len() > 100);
        watch.arrive(0, 64);
        watch.pass(100 * MS);
        watch.arrive(192, 64);
        assert_eq!(raised_at(&mut watch, 128, 200 * MS, 400 * MS).len(), 1);
    }

    #[test]
    fn a_first_repair_that_took_long_is_forgotten_with_the_first_that_was_asked_for_once() {
        const MS: i64 = 1_000_000;
        let mut watch = Watch::with(unicast(NakScope::EveryGap).learning());
        watch.arrive(64, 64);
        assert!(raised_at(&mut watch, 0, 0, 1_000 * MS).len() > 1);
        watch.arrive(0, 64);
        watch.pass(1_000 * MS);
        watch.arrive(192, 64);
        watch.pass(1_100 * MS);
        assert_eq!(watch.pass(1_100 * MS + 1_000), [(128, 64)]);
        watch.arrive(128, 64);
        watch.pass(1_100 * MS + 201_000);
        watch.arrive(320, 64);
        let times = raised_at(&mut watch, 256, 1_200 * MS, 1_201 * MS);
        let waits: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(waits, [500_000], "{times:?}");
    }

    #[test]
    fn waits_stay_bounded_where_most_repairs_are_lost_again() {
        const MS: i64 = 1_000_000;
        let mut watch = learnt(200_000);
        let mut now = 10 * MS;
        for gap in 0..12i64 {
            let position = 128 + gap * 128;
            watch.arrive(position + 64, 64);
            let end = now + 40 * MS;
            let times = raised_at(&mut watch, position, now, end);
            let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
            assert_eq!(longest, Some(CROWDED_RETRY_NS), "{times:?}");
            watch.arrive(position, 64);
            watch.pass(end);
            now = end;
        }
    }

    #[test]
    fn repairs_that_were_asked_for_again_teach_nothing_and_keep_a_bounded_pace() {
        const MS: i64 = 1_000_000;
        let mut watch = learnt(200_000);
        let mut now = 10 * MS;
        let mut requests = Vec::new();
        for gap in 0..12i64 {
            let position = 128 + gap * 128;
            watch.arrive(position + 64, 64);
            requests.push(raised_at(&mut watch, position, now, now + 50 * MS).len());
            watch.arrive(position, 64);
            now += 50 * MS;
            watch.pass(now);
        }
        assert_eq!(requests, [9; 12], "500 us, doubled up to 10 ms, in 50 ms");
    }

    #[test]
    fn parts_of_a_gap_and_late_originals_are_not_taken_for_its_repair() {
        let mut watch = learnt(200_000);
        let before = watch.detector.recovery;
        watch.arrive(512, 64);
        watch.pass(10_000_000);
        assert_eq!(watch.pass(10_001_000), [(128, 384)]);
        // Something in the middle of it comes first: its first byte is still missing.
        watch.arrive(256, 64);
        watch.pass(11_000_000);
        assert_eq!(watch.detector.recovery, before);
        // A gap that was never asked for closes by itself.
        watch.arrive(640, 64);
        watch.pass(11_000_500);
        watch.arrive(576, 64);
        watch.pass(11_000_600);
        assert_eq!(watch.detector.recovery, before);
    }

    #[test]
    fn groups_and_detectors_of_the_first_gap_keep_their_times() {
        let group = FeedbackDelay::group(10, 10_000_000, fastrand::Rng::with_seed(3));
        assert!(
            LossDetector::new(group, NakScope::EveryGap)
                .learning()
                .recovery
                .is_none()
        );
        assert!(unicast(NakScope::FirstGap).learning().recovery.is_none());
    }

    #[test]
    fn gaps_of_a_group_wait_a_random_time_each() {
        let delays = FeedbackDelay::group(10, 10_000_000, fastrand::Rng::with_seed(3));
        let mut watch = Watch::with(LossDetector::new(delays, NakScope::EveryGap));
        for position in [64, 192, 320] {
            watch.arrive(position, 64);
        }
        watch.pass(0);
        let mut times = Vec::new();
        for now in (0..=10_000_000).step_by(1_000) {
            times.extend(watch.pass(now).iter().map(|gap| (gap.0, now)));
            if times.len() >= 3 {
                break;
            }
        }
        let mut moments: Vec<_> = times.iter().map(|(_, now)| *now).collect();
        moments.dedup();
        assert_eq!(moments.len(), times.len(), "{times:?}");
    }

    #[test]
    fn gaps_of_an_unreliable_stream_are_raised_when_they_are_found() {
        let mut watch = Watch::with(LossDetector::new(FeedbackDelay::none(), NakScope::EveryGap));
        watch.arrive(64, 64);
        watch.arrive(192, 64);
        assert_eq!(watch.pass(5), [(128, 64), (0, 64)]);
    }

    #[test]
    fn a_frame_that_can_not_be_stops_the_rebuild() {
        let mut watch = Watch::new(NakScope::EveryGap);
        watch.arrive(0, 64);
        watch.log.term(0).slot(64).store_release(HeaderWord::Length, 7);
        watch.arrive(256, 64);
        for now in [0, 1_000, CROWDED_RETRY_NS] {
            assert_eq!(watch.pass(now), []);
            assert_eq!(watch.rebuild_position, 64);
        }
    }

    proptest! {
        #[test]
        fn what_is_missing_is_asked_for_and_what_has_arrived_is_not(
            first_only: bool,
            lengths in prop::collection::vec(1..8i64, 10..120),
            order in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8), 1..300),
        ) {
            // Frames of a stream over several terms: none crosses a term.
            let mut frames = Vec::new();
            let mut at = 0i64;
            for length in lengths {
                let length = (length * 32).min(TERM - at % TERM);
                frames.push((at, length));
                at += length;
            }
            let scope = if first_only { NakScope::FirstGap } else { NakScope::EveryGap };
            let mut watch = Watch::new(scope);
            let mut here = vec![false; frames.len()];
            let mut now = 0;
            for (index, step) in order {
                // Only what the window allows: less than a term beyond what is complete.
                let window = watch.rebuild_position + TERM / 2;
                let allowed = frames.iter().filter(|frame| frame.0 + frame.1 <= window).count();
                if step < 3 && allowed > 0 {
                    let chosen = index.index(allowed);
                    if !here[chosen] {
                        here[chosen] = true;
                        watch.arrive(frames[chosen].0, frames[chosen].1);
                    }
                } else if allowed > 0 {
                    let mark = frames[index.index(allowed)].0;
                    watch.high_water_mark = watch.high_water_mark.max(mark);
                }
                now += 1_000 << (step * 3);
                let mut raised = watch.pass(now);
                if first_only {
                    // Aeron looks at one term per pass.
                    raised.extend(watch.pass(now));
                }
                let complete = frames.iter().zip(&here).find(|(_, here)| !**here).map_or(at, |(frame, _)| frame.0);
                prop_assert_eq!(watch.rebuild_position, complete);
                for (position, length) in raised {
                    for (frame, here) in frames.iter().zip(&here) {
                        let overlaps = frame.0 < position + length && position < frame.0 + frame.1;
                        prop_assert!(!overlaps || !here, "{position} {length} {frame:?}");
                    }
                    prop_assert!(position + length <= watch.high_water_mark);
                }
            }
            // Whatever is raised is answered: then nothing is missing below the mark in the end.
            for _ in 0..frames.len() * 2 + 2 {
                now += CROWDED_RETRY_NS;
                for (position, length) in watch.pass(now) {
                    for (frame, here) in frames.iter().zip(&mut here) {
                        let is_covered = position <= frame.0 && frame.0 < position + length;
                        if is_covered && !*here {
                            *here = true;
                            watch.arrive(frame.0, frame.1);
                        }
                    }
                }
            }
            prop_assert!(watch.rebuild_position >= watch.high_water_mark);
            prop_assert_eq!(watch.detector.next_deadline(), None);
        }

        #[test]
        fn hostile_positions_and_logs_are_survived(
            words in prop::collection::vec((0..384usize, any::<i32>()), 0..60),
            passes in prop::collection::vec((0..4 * TERM, -64..2 * TERM, any::<i64>(), 0..8u8), 1..30),
        ) {
            let log = log();
            for (slot, length) in words {
                let length = if length % 2 == 0 { length & 0xFE0 } else { length };
                log.term(slot / 128).slot(slot % 128 * 32).store_release(HeaderWord::Length, i64::from(length as u32));
            }
            for scope in [NakScope::EveryGap, NakScope::FirstGap] {
                let mut detector = unicast(scope);
                for (position, ahead, now, kind) in &passes {
                    let position = if *kind == 7 { *now } else { *position };
                    let mark = if *kind == 6 { *now } else { position.saturating_add(*ahead) };
                    let mut raised = 0;
                    let outcome = detector.on_pass(NanoTime(*now), &log, position, mark, |_, offset, length| {
                        assert!(offset >= 0 && length > 0 && offset + length <= TERM as i32);
                        raised += 1;
                    });
                    prop_assert!(outcome.rebuild_position >= 0 && raised <= GAPS_MAX);
                }
            }
        }
    }
}
