//! How eagerly an image is polled while its stream flows.
#![forbid(unsafe_code)]

/// Keeps a reader off the heels of its publisher.
///
/// Who reads a line of the log right after, and while, it is written takes it away from the writer, and both slow down.
/// In a stream that flows without gaps a reader that has caught up therefore rests for a moment before it looks again,
/// and finds several messages at once. The rest grows from poll to poll while the stream flows and ends with the first
/// gap, so that single messages, round trips and the start of a burst are never delayed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moderation {
    /// Polls in a row that found nothing.
    empty_polls: u32,
    /// Pauses of the rest after the last poll that caught up.
    pauses: u32,
    /// The reader has caught up and did not rest yet.
    is_due: bool,
}

impl Moderation {
    /// A gap between two messages that takes more empty polls than this is no continuous flow.
    const GAP_POLLS: u32 = 2;
    /// Fewer fragments in a poll are no dense stream: the messages of round trips come one by one, however soon.
    const DENSE: usize = 3;
    /// Pauses of the first rest; one takes from 1 to 50 ns, depending on the processor.
    const FIRST: u32 = 4;
    /// Pauses of the longest rest.
    const LONGEST: u32 = 64;

    /// Before a poll: the pauses to make.
    #[inline(always)]
    pub(super) fn take_rest(&mut self) -> u32 {
        if core::mem::take(&mut self.is_due) {
            self.pauses
        } else {
            0
        }
    }

    /// After a poll.
    #[inline(always)]
    pub(super) fn after(&mut self, fragments: usize, limit: usize) {
        if fragments == 0 {
            self.empty_polls = self.empty_polls.saturating_add(1);
            return;
        }
        if self.empty_polls > Self::GAP_POLLS || fragments < Self::DENSE {
            self.pauses = 0;
        } else if fragments < limit {
            self.pauses = (self.pauses * 2).clamp(Self::FIRST, Self::LONGEST);
            self.is_due = true;
        }
        self.empty_polls = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls that found so many fragments each, and the rests before them.
    fn rests(moderation: &mut Moderation, polls: &[usize]) -> Vec<u32> {
        polls
            .iter()
            .map(|fragments| {
                let rest = moderation.take_rest();
                moderation.after(*fragments, 10);
                rest
            })
            .collect()
    }

    #[test]
    fn rests_grow_while_the_stream_flows_up_to_the_longest() {
        let rests = rests(&mut Moderation::default(), &[3, 3, 3, 3, 3, 3, 3, 3]);
        assert_eq!(rests, [0, 4, 8, 16, 32, 64, 64, 64]);
    }

    #[test]
    fn a_gap_ends_them_and_one_rest_is_made_once() {
        let mut moderation = Moderation::default();
        assert_eq!(rests(&mut moderation, &[3, 3, 0, 0, 0]), [0, 4, 8, 0, 0]);
        assert_eq!(rests(&mut moderation, &[3, 0, 0, 0]), [0; 4]);
        assert_eq!(rests(&mut moderation, &[3, 3, 3]), [0, 0, 4]);
    }

    #[test]
    fn single_messages_and_round_trips_are_never_delayed() {
        let polls = [1, 0, 0, 0].repeat(50);
        assert_eq!(rests(&mut Moderation::default(), &polls)[4..], [0; 196]);
    }

    #[test]
    fn messages_that_come_one_by_one_are_no_stream_however_soon_they_come() {
        assert_eq!(rests(&mut Moderation::default(), &[1; 200]), [0; 200]);
        assert_eq!(
            rests(&mut Moderation::default(), &[5, 5, 2, 5, 5]),
            [0, 4, 8, 0, 4]
        );
    }

    #[test]
    fn a_reader_that_has_more_to_take_does_not_rest() {
        assert_eq!(rests(&mut Moderation::default(), &[10, 10, 10, 10]), [0; 4]);
    }
}
