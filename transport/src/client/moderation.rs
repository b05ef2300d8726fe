//! How eagerly an image is polled while its stream flows.
#![forbid(unsafe_code)]

/// Keeps a reader off the heels of its publisher.
///
/// Who reads a line of the log right after, and while, it is written takes it away from the writer, and both slow down.
/// In a stream that flows without gaps a reader that has caught up therefore rests for a moment before it looks again,
/// and finds many messages at once. The rest grows while the stream flows, until a rest is worth [`Self::WORTH`] bytes,
/// and ends with the first gap, so that messages that come one by one, round trips of them and the start of a burst are
/// never delayed.
///
/// Even so a reader that goes almost as fast as its publisher would still follow it closely for long before
/// it has caught up. So it keeps some distance: it reads up to there, which takes a look at the publisher's position now
/// and then, and counts as having caught up. Only what is left after a rest that brought no more is read to its end.
///
/// Rests are in vain where nothing is published meanwhile: in a loop that publishes and polls by turns, or where the
/// publisher waits for answers. Therefore a rest has to prove its worth from [`Self::PROBE`] pauses on: it brings clearly
/// more than one of half that length did, and a first one, at the end of a poll, finds something where there was
/// nothing. Otherwise there is none for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moderation {
    /// A rest after which so many bytes are found is long enough; after twice as many it is too long. A quarter of it is
    /// near.
    worth: i64,
    /// Where rests are worth it, the position up to which the reader may go before it looks again how far the publisher is.
    bound: i64,
    /// Polls in a row that found nothing.
    empty_polls: u32,
    /// Pauses of the rest after the last poll that caught up.
    pauses: u32,
    /// The reader has caught up and did not rest yet.
    is_due: bool,
    /// Fragments since the reader last caught up.
    fragments: usize,
    /// Bytes of the log since the reader last caught up.
    bytes: i64,
    /// Rests of this length so far, and the bytes they brought.
    tried: u32,
    brought: i64,
    /// What as many rests of half the length brought.
    half_brought: i64,
    /// Longer rests would bring no more, or are not wanted.
    is_settled: bool,
    /// Pauses of the longest rest for such frames.
    longest: u32,
    proof: Proof,
    /// Proofs in a row that failed.
    refutations: u32,
}

/// Whether rests are known to bring something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// Not known yet.
    Open,
    /// They do, which is believed for so many rests.
    Given(u32),
    /// They do not; none until the reader has caught up so many times.
    Refuted(u32),
}

impl Moderation {
    /// A gap between two messages that takes more empty polls than this is no continuous flow.
    const GAP_POLLS: u32 = 2;
    /// Fewer fragments from one rest to the next are no dense stream: the messages of round trips come one by one,
    /// however soon.
    const DENSE: usize = 3;
    /// Pauses of the first rest; one takes from 1 to 50 ns, depending on the processor.
    const FIRST: u32 = 4;
    /// Pauses of the longest rest.
    const LONGEST: u32 = 512;
    /// The same where frames are long: few of their lines are looked at while they are written.
    const LONGEST_OF_LONG: u32 = 256;
    /// Frames longer than this on average are long, bytes.
    const LONG: i64 = 512;
    /// Bytes that make a rest worth it, or an eighth of a term if that is less. The lines that reader and publisher
    /// fight for are the few at the end, so what is gained beyond this is little.
    const WORTH: i64 = 64 << 10;
    /// Pauses of the rest that has to prove its worth: dense streams of publishers on the host have shorter gaps.
    pub(super) const PROBE: u32 = 64;
    /// From half of that on, so many rests of one length are compared with as many of half the length.
    const TRIES: u32 = 4;
    /// Rests after which a proof is due again.
    const BELIEVED: u32 = 1 << 12;
    /// How often the reader catches up without a rest after a proof failed: the first time, doubled with each further
    /// one, and at most.
    const REFUTED_FIRST: u32 = 1 << 10;
    const REFUTED_LONGEST: u32 = 1 << 16;

    /// Before the first poll of a log with such terms, bytes.
    pub(super) fn new(term_length: i32) -> Self {
        Self {
            worth: Self::WORTH.min(i64::from(term_length) / 8),
            bound: 0,
            empty_polls: 0,
            pauses: 0,
            is_due: false,
            fragments: 0,
            bytes: 0,
            tried: 0,
            brought: 0,
            half_brought: 0,
            is_settled: false,
            longest: Self::LONGEST,
            proof: Proof::Open,
            refutations: 0,
        }
    }

    /// Before a poll: the pauses to make.
    #[inline(always)]
    pub(super) fn take_rest(&mut self) -> u32 {
        if core::mem::take(&mut self.is_due) {
            self.pauses
        } else {
            0
        }
    }

    /// Only where rests have proved their worth: who only publishes and polls by turns takes all there is.
    #[inline(always)]
    fn keeps_distance(&self) -> bool {
        matches!(self.proof, Proof::Given(_))
    }

    /// Before a poll at `position`: the position up to which it may go. Where rests are worth it that is some distance behind
    /// what is `published`, or all of it if the last rest brought no more than that.
    #[inline(always)]
    pub(super) fn bound(&mut self, position: i64, published: impl FnOnce() -> i64) -> i64 {
        if !self.keeps_distance() {
            return i64::MAX;
        }
        if position >= self.bound {
            let published = published();
            // A frame is there to be read: a log with nothing published behind it does not say where its publisher is.
            self.bound = if published <= position {
                i64::MAX
            } else {
                self.far_bound(position, published).unwrap_or(published)
            };
        }
        self.bound
    }

    /// After a poll that went to `position`: whether that is so near to the publisher that a rest is due.
    #[inline(always)]
    pub(super) fn is_near(&mut self, position: i64, published: impl FnOnce() -> i64) -> bool {
        if !self.keeps_distance() || position < self.bound {
            return false;
        }
        let bound = self.far_bound(position, published());
        self.bound = bound.unwrap_or(position);
        bound.is_none()
    }

    /// The bound of a reader that is far behind its publisher.
    fn far_bound(&self, position: i64, published: i64) -> Option<i64> {
        let near = self.worth / 4;
        (published.saturating_sub(position) > 2 * near).then(|| published - near)
    }

    /// After a poll that found nothing.
    #[inline(always)]
    pub(super) fn after_nothing(&mut self) {
        self.empty_polls = self.empty_polls.saturating_add(1);
    }

    /// After a poll that took `fragments`, `bytes` of the log, and came to the end of what is committed, or near to it, if
    /// it has caught up.
    /// If true, the reader makes a rest of [`Self::PROBE`] pauses and then says by [`Self::after_probe`] what came of it.
    #[inline(always)]
    pub(super) fn after(&mut self, fragments: usize, bytes: i64, caught_up: bool) -> bool {
        if fragments == 0 {
            self.after_nothing();
            return false;
        }
        if self.empty_polls > Self::GAP_POLLS {
            self.stop();
            (self.fragments, self.bytes) = (0, 0);
        }
        self.fragments += fragments;
        self.bytes += bytes;
        let probes = caught_up && self.catch_up();
        self.empty_polls = 0;
        probes
    }

    /// After a rest at the end of a poll: whether there is a message where there was none before.
    #[cold]
    pub(super) fn after_probe(&mut self, found: bool) {
        if found {
            self.proof = Proof::Given(Self::BELIEVED);
            self.lengthen();
            self.is_due = true;
        } else {
            self.refute();
        }
    }

    #[cold]
    fn refute(&mut self) {
        let length = Self::REFUTED_FIRST << self.refutations.min(6);
        self.proof = Proof::Refuted(length.min(Self::REFUTED_LONGEST));
        self.refutations = self.refutations.saturating_add(1);
        self.begin_anew();
    }

    #[inline(always)]
    fn catch_up(&mut self) -> bool {
        let is_dense = self.empty_polls <= Self::GAP_POLLS && self.fragments >= Self::DENSE;
        let probes = if is_dense {
            self.rest_next()
        } else {
            self.stop();
            false
        };
        (self.fragments, self.bytes) = (0, 0);
        probes
    }

    /// The stream is not dense, or no longer: if it is again, rests begin anew.
    #[inline(always)]
    fn stop(&mut self) {
        self.begin_anew();
        if !matches!(self.proof, Proof::Refuted(_)) {
            self.proof = Proof::Open;
        }
    }

    #[inline(always)]
    fn begin_anew(&mut self) {
        self.pauses = 0;
        (self.tried, self.brought) = (0, 0);
        self.is_settled = false;
    }

    /// In a dense stream: whether a probe is due.
    #[inline(always)]
    fn rest_next(&mut self) -> bool {
        match self.proof {
            Proof::Refuted(0) => self.proof = Proof::Open,
            Proof::Refuted(left) => {
                self.proof = Proof::Refuted(left - 1);
                return false;
            }
            Proof::Given(0) => {
                self.proof = Proof::Open;
                self.begin_anew();
            }
            Proof::Given(left) => self.proof = Proof::Given(left - 1),
            Proof::Open => {}
        }
        self.longest = if self.bytes > Self::LONG * self.fragments as i64 {
            Self::LONGEST_OF_LONG
        } else {
            Self::LONGEST
        };
        if self.bytes >= self.worth {
            if self.bytes > 2 * self.worth {
                self.pauses /= 2;
            }
        } else if self.pauses < Self::PROBE / 2 {
            self.pauses = (self.pauses * 2).max(Self::FIRST);
        } else if !self.is_settled {
            return self.try_length();
        }
        self.is_due = true;
        false
    }

    /// One more rest of this length is over: whether a probe is due.
    fn try_length(&mut self) -> bool {
        self.tried += 1;
        self.brought += self.bytes;
        self.is_due = true;
        if self.tried < Self::TRIES {
            return false;
        }
        let brought_more = self.brought >= self.half_brought + self.half_brought / 4;
        if self.pauses < Self::PROBE || (self.proof != Proof::Open && brought_more) {
            self.lengthen();
        } else if brought_more {
            self.is_due = false;
            return true;
        } else if self.proof == Proof::Open {
            self.is_due = false;
            self.refute();
        } else {
            self.pauses /= 2;
            self.is_settled = true;
        }
        false
    }

    /// Twice as long from now on, unless that is too long.
    fn lengthen(&mut self) {
        self.half_brought = self.brought;
        (self.tried, self.brought) = (0, 0);
        if self.pauses < self.longest {
            self.pauses *= 2;
        } else {
            self.pauses = self.longest;
            self.is_settled = true;
            self.refutations = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls that each find three frames, and `rate` bytes more for each pause of the rest before; the rests.
    fn flow(moderation: &mut Moderation, polls: usize, frame: i64, rate: i64) -> Vec<u32> {
        let mut rested = 0;
        (0..polls)
            .map(|_| {
                let rest = moderation.take_rest();
                rested += rest;
                let more = i64::from(rested) * rate / frame;
                rested = 0;
                if moderation.after(3 + more as usize, (3 + more) * frame, true) {
                    rested = Moderation::PROBE;
                    moderation.after_probe(rate > 0);
                }
                rest
            })
            .collect()
    }

    /// Polls that find so many fragments of 64 bytes each, and the rests before them; one that finds ten has not caught
    /// up.
    fn rests(moderation: &mut Moderation, polls: &[usize]) -> Vec<u32> {
        polls
            .iter()
            .map(|fragments| {
                let rest = moderation.take_rest();
                let probes = moderation.after(*fragments, *fragments as i64 * 64, *fragments < 10);
                assert!(!probes);
                rest
            })
            .collect()
    }

    fn short_frames() -> Moderation {
        Moderation::new(16 << 20)
    }

    #[test]
    fn rests_grow_while_the_stream_flows_up_to_the_longest() {
        let mut rests = flow(&mut short_frames(), 30, 64, 32);
        assert_eq!(rests[..12], [0, 4, 8, 16, 32, 32, 32, 32, 64, 64, 64, 64]);
        // A proof was asked for.
        rests.dedup();
        assert_eq!(rests, [0, 4, 8, 16, 32, 64, 128, 256, 512]);
    }

    #[test]
    fn a_rest_that_is_worth_it_grows_no_more_and_one_worth_too_much_shrinks() {
        let enough = Moderation::WORTH / 16 + 1;
        let mut moderation = short_frames();
        assert_eq!(flow(&mut moderation, 6, 64, enough), [0, 4, 8, 16, 16, 16]);
        assert_eq!(flow(&mut moderation, 3, 64, 3 * enough), [16, 8, 8]);
    }

    #[test]
    fn rests_that_bring_nothing_are_given_up_for_longer_and_longer() {
        let mut moderation = short_frames();
        flow(&mut moderation, 1, 64, 0);
        let mut polls = 0;
        let mut ends = Vec::new();
        for _ in 0..10 {
            let rests = flow(&mut moderation, 11, 64, 0);
            assert_eq!(rests, [4, 8, 16, 32, 32, 32, 32, 64, 64, 64, 64]);
            polls = 0;
            while moderation.proof != Proof::Open {
                polls += 1;
                assert_eq!(flow(&mut moderation, 1, 64, 0), [0], "{polls}");
            }
            ends.push(polls);
        }
        let first = u64::from(Moderation::REFUTED_FIRST) + 1;
        assert_eq!(ends[..3], [first, 2 * first - 1, 4 * first - 3]);
        assert_eq!(polls, u64::from(Moderation::REFUTED_LONGEST) + 1);
    }

    #[test]
    fn a_publisher_that_waits_for_answers_is_no_dense_stream() {
        // The next rest finds what the last one did, at once: all that may be under way.
        let mut moderation = short_frames();
        let mut found = Vec::new();
        for _ in 0..30 {
            found.push(moderation.take_rest());
            if moderation.after(8, 512, true) {
                moderation.after_probe(true);
            }
        }
        assert_eq!(found[11], 64);
        assert_eq!(found[12..], [0; 18]);
    }

    #[test]
    fn a_rest_that_brings_no_more_than_half_of_it_grows_no_further() {
        let mut moderation = short_frames();
        let mut rests = Vec::new();
        for _ in 0..100 {
            let rest = moderation.take_rest();
            rests.push(rest);
            let fragments = 3 + rest.min(128) as usize;
            if moderation.after(fragments, fragments as i64 * 64, true) {
                moderation.after_probe(true);
            }
        }
        assert!(rests.contains(&256));
        assert_eq!(rests.last(), Some(&128));
    }

    #[test]
    fn a_proof_is_given_anew_from_time_to_time() {
        let mut moderation = short_frames();
        let believed = Moderation::BELIEVED as usize;
        assert_eq!(flow(&mut moderation, believed, 64, 32).last(), Some(&512));
        // Now it publishes and polls by turns.
        let rests = flow(&mut moderation, believed, 64, 0);
        assert_eq!(rests.last(), Some(&0));
    }

    #[test]
    fn a_gap_does_not_make_rests_worth_it_that_were_in_vain() {
        let mut moderation = short_frames();
        flow(&mut moderation, 12, 64, 0);
        assert_eq!(rests(&mut moderation, &[0, 0, 0, 3, 3, 3]), [0; 6]);
    }

    #[test]
    fn rests_that_were_worth_it_prove_it_anew_after_a_gap() {
        let mut moderation = short_frames();
        flow(&mut moderation, 14, 64, 32);
        assert_eq!(rests(&mut moderation, &[0, 0, 0, 3, 3, 3]), [128, 0, 0, 0, 0, 4]);
        let rests = flow(&mut moderation, 12, 64, 0);
        assert_eq!(rests, [8, 16, 32, 32, 32, 32, 64, 64, 64, 64, 0, 0]);
    }

    #[test]
    fn what_several_polls_take_counts_as_one_when_the_limit_parts_them() {
        let mut moderation = short_frames();
        let polls = [10, 10, 1].repeat(3);
        assert_eq!(rests(&mut moderation, &polls), [0, 0, 0, 4, 0, 0, 8, 0, 0]);
        // After a gap they begin anew, also where the first poll is full.
        assert_eq!(rests(&mut moderation, &[0, 0, 0, 10, 1, 3]), [16, 0, 0, 0, 0, 4]);
    }

    #[test]
    fn long_frames_are_waited_for_less() {
        let mut rests = flow(&mut short_frames(), 100, 1088, 128);
        rests.dedup();
        assert_eq!(rests, [0, 4, 8, 16, 32, 64, 128, 256]);
    }

    /// In the middle of a dense stream.
    fn resting() -> Moderation {
        let mut moderation = short_frames();
        flow(&mut moderation, 14, 64, 32);
        moderation
    }

    fn not_asked() -> i64 {
        panic!("the publisher is looked at again too early")
    }

    const NEAR: i64 = Moderation::WORTH / 4;

    #[test]
    fn a_resting_reader_keeps_its_distance_and_looks_rarely_where_the_publisher_is() {
        let mut moderation = resting();
        let far = 10 * NEAR;
        assert_eq!(moderation.bound(64, || far), far - NEAR);
        assert_eq!(moderation.bound(far - NEAR - 1, not_asked), far - NEAR);
        assert!(!moderation.is_near(far - NEAR - 1, not_asked));
        // It has come up to the bound, and the publisher has gone on.
        assert!(!moderation.is_near(far - NEAR, || far + 2 * NEAR));
        assert_eq!(moderation.bound(far, not_asked), far + NEAR);
        // The publisher goes no faster than the reader: time for a rest.
        let position = far + NEAR + 64;
        assert!(moderation.is_near(position, || position + 2 * NEAR));
        // Which was worth it.
        assert_eq!(
            moderation.bound(position, || position + 4 * NEAR),
            position + 3 * NEAR
        );
    }

    #[test]
    fn after_a_rest_that_brought_little_everything_is_read() {
        let mut moderation = resting();
        assert_eq!(moderation.bound(64, || 64 + NEAR), 64 + NEAR);
        assert!(moderation.is_near(64 + NEAR, || 64 + NEAR + 32));
        assert_eq!(moderation.bound(64 + NEAR, || 64 + NEAR + 32), 64 + NEAR + 32);
        assert!(
            moderation.is_near(64 + NEAR + 32, || 64 + NEAR + 32),
            "that was all"
        );
    }

    #[test]
    fn a_log_that_does_not_say_where_its_publisher_is_bounds_nothing() {
        // Logs of images from the network; and whatever another process may have written there.
        for published in [0, i64::MIN, 5000] {
            let mut moderation = resting();
            assert_eq!(moderation.bound(5000, || published), i64::MAX);
            assert!(!moderation.is_near(5000 + NEAR, not_asked));
        }
        assert_eq!(resting().bound(5000, || i64::MAX), i64::MAX - NEAR);
    }

    #[test]
    fn a_reader_whose_rests_have_not_proved_their_worth_is_not_bound() {
        let mut moderation = short_frames();
        for polls in [0, 5, 20] {
            flow(&mut moderation, polls, 64, 0);
            assert_eq!(moderation.bound(5000, not_asked), i64::MAX);
            assert!(!moderation.is_near(5000, not_asked));
        }
    }

    #[test]
    fn an_eighth_of_a_short_term_makes_a_rest_worth_it() {
        let mut moderation = Moderation::new(64 << 10);
        assert_eq!(flow(&mut moderation, 4, 2752, 0), [0; 4]);
        assert_eq!(flow(&mut moderation, 3, 2720, 0), [0, 4, 8]);
    }

    #[test]
    fn a_gap_ends_them_and_one_rest_is_made_once() {
        let mut moderation = short_frames();
        assert_eq!(rests(&mut moderation, &[3, 3, 0, 0, 0]), [0, 4, 8, 0, 0]);
        assert_eq!(rests(&mut moderation, &[3, 0, 0, 0]), [0; 4]);
        assert_eq!(rests(&mut moderation, &[3, 3, 3]), [0, 0, 4]);
    }

    #[test]
    fn single_messages_and_round_trips_are_never_delayed() {
        let polls = [1, 0, 0, 0].repeat(50);
        assert_eq!(rests(&mut short_frames(), &polls)[4..], [0; 196]);
    }

    #[test]
    fn messages_that_come_one_by_one_are_no_stream_however_soon_they_come() {
        assert_eq!(rests(&mut short_frames(), &[1; 200]), [0; 200]);
        assert_eq!(rests(&mut short_frames(), &[5, 5, 2, 5, 5]), [0, 4, 8, 0, 4]);
    }

    #[test]
    fn a_reader_that_left_something_does_not_rest() {
        assert_eq!(rests(&mut short_frames(), &[10, 10, 10, 10]), [0; 4]);
    }
}
