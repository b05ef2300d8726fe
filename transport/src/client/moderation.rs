//! How eagerly an image is polled while its stream flows.
#![forbid(unsafe_code)]

/// Keeps a reader off the heels of its publisher.
///
/// Who reads a line of the log right after, and while, it is written takes it away from the writer, and both slow down.
/// In a stream that flows without gaps a reader that has caught up therefore rests for a moment before it looks again,
/// and finds many messages at once. The rest grows while the stream flows, until a rest is worth [`Self::WORTH`] bytes,
/// and ends with the first gap, so that single messages, round trips and the start of a burst are never delayed.
///
/// Where nothing is published meanwhile, in a loop that publishes and polls by turns or has other work to do between
/// two polls, rests are in vain. Therefore a rest has to prove its worth once it is as long as [`Self::PROBE`]: one is
/// made at the end of a poll, and unless something was published meanwhile, there are none for a long time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moderation {
    /// A rest after which so many bytes are found is long enough; after twice as many it is too long.
    worth: i64,
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
    proof: Proof,
}

/// Whether rests are known to bring something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// Not known yet.
    Open,
    /// They do.
    Given,
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
    /// The same where frames are long: few of their lines are looked at while they are written, and the processor is
    /// better left to those who clean the log.
    const LONGEST_OF_LONG: u32 = 64;
    /// Frames longer than this on average are long, bytes.
    const LONG: i64 = 512;
    /// Bytes that make a rest worth it, or an eighth of a term if that is less. The lines that reader and publisher
    /// fight for are the few at the end, so what is gained beyond this is little.
    const WORTH: i64 = 64 << 10;
    /// Pauses of the rest that has to prove its worth: so many take longer than the gaps of any dense stream.
    pub(super) const PROBE: u32 = 64;
    /// How often the reader catches up without a rest after one was found to be in vain.
    const REFUTED: u32 = 1 << 14;

    /// Before the first poll of a log with such terms, bytes.
    pub(super) fn new(term_length: i32) -> Self {
        Self {
            worth: Self::WORTH.min(i64::from(term_length) / 8),
            empty_polls: 0,
            pauses: 0,
            is_due: false,
            fragments: 0,
            bytes: 0,
            proof: Proof::Open,
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

    /// After a poll that found nothing.
    #[inline(always)]
    pub(super) fn after_nothing(&mut self) {
        self.empty_polls = self.empty_polls.saturating_add(1);
    }

    /// After a poll that took `fragments`, `bytes` of the log, and left nothing that is committed if it has caught up.
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
            self.proof = Proof::Given;
        } else {
            self.proof = Proof::Refuted(Self::REFUTED);
            self.pauses = 0;
        }
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
        self.pauses = 0;
        if !matches!(self.proof, Proof::Refuted(_)) {
            self.proof = Proof::Open;
        }
    }

    /// In a dense stream.
    #[inline(always)]
    fn rest_next(&mut self) -> bool {
        match self.proof {
            Proof::Open if self.pauses == Self::PROBE => return true,
            Proof::Refuted(0) => self.proof = Proof::Open,
            Proof::Refuted(left) => {
                self.proof = Proof::Refuted(left - 1);
                return false;
            }
            Proof::Open | Proof::Given => self.set_pauses(),
        }
        self.is_due = true;
        false
    }

    #[inline(always)]
    fn set_pauses(&mut self) {
        if self.bytes < self.worth {
            let longest = if self.bytes > Self::LONG * self.fragments as i64 {
                Self::LONGEST_OF_LONG
            } else {
                Self::LONGEST
            };
            self.pauses = (self.pauses * 2).clamp(Self::FIRST, longest);
        } else if self.bytes > 2 * self.worth {
            self.pauses /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A poll that finds so many publishes, before and after, in the same thread.
    const IN_VAIN: usize = 5;

    /// Polls that found so many fragments of 64 bytes each, and the rests before them.
    fn rests(moderation: &mut Moderation, polls: &[usize]) -> Vec<u32> {
        rests_of_frames(moderation, polls, 64)
    }

    fn rests_of_frames(moderation: &mut Moderation, polls: &[usize], frame: i64) -> Vec<u32> {
        polls
            .iter()
            .map(|fragments| {
                let rest = moderation.take_rest();
                if moderation.after(*fragments, *fragments as i64 * frame, *fragments < 10) {
                    moderation.after_probe(*fragments != IN_VAIN);
                }
                rest
            })
            .collect()
    }

    #[test]
    fn rests_grow_while_the_stream_flows_up_to_the_longest() {
        let rests = rests(&mut Moderation::new(16 << 20), &[3; 12]);
        // The seventh was made at the end of the poll before.
        assert_eq!(rests, [0, 4, 8, 16, 32, 64, 0, 128, 256, 512, 512, 512]);
    }

    #[test]
    fn rests_that_bring_nothing_are_given_up_for_long() {
        let mut moderation = Moderation::new(16 << 20);
        assert_eq!(rests(&mut moderation, &[IN_VAIN; 6]), [0, 4, 8, 16, 32, 64]);
        let long = Moderation::REFUTED as usize;
        let again = rests(&mut moderation, &vec![IN_VAIN; long + 3]);
        assert_eq!(again[..=long], vec![0; long + 1]);
        assert_eq!(again[long + 1..], [0, 4]);
    }

    #[test]
    fn a_gap_does_not_make_rests_worth_it_that_were_in_vain() {
        let mut moderation = Moderation::new(16 << 20);
        rests(&mut moderation, &[IN_VAIN; 6]);
        assert_eq!(rests(&mut moderation, &[0, 0, 0, 3, 3, 3]), [0; 6]);
    }

    #[test]
    fn rests_that_were_worth_it_prove_it_anew_after_a_gap() {
        let mut moderation = Moderation::new(16 << 20);
        rests(&mut moderation, &[3; 8]);
        let polls = [0, 0, 0, 3, 3, 3, 3, 3, 3, IN_VAIN, IN_VAIN, IN_VAIN];
        let rests = rests(&mut moderation, &polls);
        assert_eq!(rests, [256, 0, 0, 0, 0, 4, 8, 16, 32, 64, 0, 0]);
    }

    #[test]
    fn a_rest_that_is_worth_it_grows_no_more_and_one_worth_too_much_shrinks() {
        let mut moderation = Moderation::new(16 << 20);
        let enough = Moderation::WORTH / 5 + 1;
        assert_eq!(rests(&mut moderation, &[5, 5, 5]), [0, 4, 8]);
        assert_eq!(rests_of_frames(&mut moderation, &[5, 5, 5], enough), [16, 16, 16]);
        assert_eq!(
            rests_of_frames(&mut moderation, &[5, 5, 5], 3 * enough),
            [16, 8, 4]
        );
    }

    #[test]
    fn what_several_polls_take_counts_as_one_when_the_limit_parts_them() {
        let mut moderation = Moderation::new(16 << 20);
        let polls = [10, 10, 1].repeat(3);
        assert_eq!(rests(&mut moderation, &polls), [0, 0, 0, 4, 0, 0, 8, 0, 0]);
        // After a gap they begin anew, also where the first poll is full.
        assert_eq!(rests(&mut moderation, &[0, 0, 0, 10, 1, 3]), [16, 0, 0, 0, 0, 4]);
    }

    #[test]
    fn long_frames_are_waited_for_less() {
        let mut moderation = Moderation::new(16 << 20);
        let rests = rests_of_frames(&mut moderation, &[3; 9], 1088);
        assert_eq!(rests, [0, 4, 8, 16, 32, 64, 0, 64, 64]);
    }

    #[test]
    fn an_eighth_of_a_short_term_makes_a_rest_worth_it() {
        let mut moderation = Moderation::new(64 << 10);
        assert_eq!(rests_of_frames(&mut moderation, &[4, 4, 4, 4], 2048), [0; 4]);
        assert_eq!(rests_of_frames(&mut moderation, &[4, 4, 4], 2000), [0, 4, 8]);
    }

    #[test]
    fn a_gap_ends_them_and_one_rest_is_made_once() {
        let mut moderation = Moderation::new(16 << 20);
        assert_eq!(rests(&mut moderation, &[3, 3, 0, 0, 0]), [0, 4, 8, 0, 0]);
        assert_eq!(rests(&mut moderation, &[3, 0, 0, 0]), [0; 4]);
        assert_eq!(rests(&mut moderation, &[3, 3, 3]), [0, 0, 4]);
    }

    #[test]
    fn single_messages_and_round_trips_are_never_delayed() {
        let polls = [1, 0, 0, 0].repeat(50);
        assert_eq!(rests(&mut Moderation::new(16 << 20), &polls)[4..], [0; 196]);
    }

    #[test]
    fn messages_that_come_one_by_one_are_no_stream_however_soon_they_come() {
        assert_eq!(rests(&mut Moderation::new(16 << 20), &[1; 200]), [0; 200]);
        assert_eq!(
            rests(&mut Moderation::new(16 << 20), &[5, 5, 2, 5, 5]),
            [0, 4, 8, 0, 4]
        );
    }

    #[test]
    fn a_reader_that_left_something_does_not_rest() {
        assert_eq!(rests(&mut Moderation::new(16 << 20), &[10, 10, 10, 10]), [0; 4]);
    }
}
