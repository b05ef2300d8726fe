//! Pages of a new log are made ready before whoever writes the log comes to them.
#![forbid(unsafe_code)]

use core::ops::Range;

use fulmar::log::LogBuffers;

/// Makes the pages of a log ready a little ahead of its writer, once around the log: to have a page allocated and zeroed
/// takes whoever stores to it first as long as dozens of messages. Writers and readers still enter it in tables of their
/// own, which is far less.
///
/// Memory is taken as it is needed: no more ahead than was written, in whole pages, and never more than
/// [`Self::FURTHEST`].
#[derive(Debug)]
pub(super) struct PagesAhead {
    start: i64,
    /// Where the stream has been around the log once, so that every page was touched.
    end: i64,
    term_length: i64,
    /// Pages below this position were dealt with.
    ready: i64,
    /// The position of the writer at which more is due; beyond all positions when nothing is left to do.
    due: i64,
}

impl PagesAhead {
    const PAGE: i64 = 4096;
    /// Bytes ahead of the writer, at most.
    const FURTHEST: i64 = 256 << 10;
    /// Bytes in one step, at most: some microseconds.
    const STEP: i64 = 64 << 10;

    /// For a log in which nothing was written yet, whose stream starts at `start`.
    pub(super) fn new(log: &LogBuffers, start: i64) -> Self {
        let term_length = i64::from(log.term_length());
        Self {
            start,
            end: start.saturating_add(3 * term_length),
            term_length,
            ready: start,
            due: start.saturating_add(1),
        }
    }

    /// In every duty cycle, with the position of the writer.
    #[inline(always)]
    pub(super) fn follow(&mut self, log: &LogBuffers, written: i64) {
        if written >= self.due {
            self.make_ready(log, written);
        }
    }

    #[cold]
    fn make_ready(&mut self, log: &LogBuffers, written: i64) {
        let Some(range) = self.next(written) else {
            return;
        };
        let shape = log.shape();
        let pages = log.term(shape.partition(range.start)).buffer();
        let length = (range.end - range.start) as usize;
        if pages
            .populate(shape.offset(range.start) as usize, length)
            .is_err()
        {
            // The system has no such call, or no room: then pages come to be when they are written to.
            self.due = i64::MAX;
        }
    }

    /// What to make ready now: whole pages of one term.
    fn next(&mut self, written: i64) -> Option<Range<i64>> {
        if written >= self.end || self.ready >= self.end {
            self.due = i64::MAX;
            return None;
        }
        let furthest = Self::FURTHEST.min(self.term_length / 4);
        let ahead = (written - self.start).min(furthest);
        let from = self.ready.max(written) & !(Self::PAGE - 1);
        let end_of_term = (from & !(self.term_length - 1)) + self.term_length;
        let to = (written + ahead + Self::PAGE - 1) & !(Self::PAGE - 1);
        let to = to.min(end_of_term).min(from + Self::STEP);
        self.ready = to.max(self.ready);
        // When half of it is used up, and not before the writer has moved.
        self.due = (self.ready - ahead / 2).max(written + 1);
        (from < to).then_some(from..to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::fixtures::{TERM, log_at};

    const TERM_LENGTH: i64 = TERM as i64;
    const PAGE: i64 = PagesAhead::PAGE;

    fn pages(start: i64) -> PagesAhead {
        PagesAhead::new(&log_at(start), start)
    }

    #[test]
    fn nothing_is_taken_for_a_stream_that_was_never_written() {
        let pages = pages(0);
        assert_eq!(pages.due, 1);
    }

    #[test]
    fn no_more_is_ahead_than_was_written() {
        let mut pages = pages(0);
        assert_eq!(pages.next(64), Some(0..PAGE));
        assert!(pages.due > 64, "that is enough for now");
        assert_eq!(pages.next(PAGE), Some(PAGE..2 * PAGE));
        assert_eq!(pages.next(2 * PAGE), Some(2 * PAGE..4 * PAGE));
    }

    #[test]
    fn what_the_writer_is_past_is_left_alone() {
        let mut pages = pages(0);
        assert_eq!(pages.next(8 * PAGE + 32), Some(8 * PAGE..13 * PAGE));
    }

    #[test]
    fn no_step_reaches_into_the_next_term() {
        let mut pages = pages(0);
        assert_eq!(
            pages.next(TERM_LENGTH - 32),
            Some(TERM_LENGTH - PAGE..TERM_LENGTH)
        );
        assert_eq!(
            pages.next(TERM_LENGTH),
            Some(TERM_LENGTH..TERM_LENGTH + TERM_LENGTH / 4)
        );
    }

    #[test]
    fn every_page_is_made_ready_before_the_writer_comes_and_once() {
        for start in [0, 32, 5 * TERM_LENGTH + 4064] {
            let mut pages = pages(start);
            let mut ready = start & !(PAGE - 1);
            for written in (start..start + 4 * TERM_LENGTH).step_by(1024) {
                if written >= pages.due
                    && let Some(range) = pages.next(written)
                {
                    assert!(range.start == ready || written < start + 2 * PAGE, "at {written}");
                    ready = range.end;
                }
                let first_time = written < start + 3 * TERM_LENGTH;
                assert!(
                    ready > written || written < start + 2 * PAGE || !first_time,
                    "at {written}"
                );
            }
            assert_eq!(pages.due, i64::MAX);
            assert!(ready - start <= 3 * TERM_LENGTH + TERM_LENGTH / 4, "{ready}");
        }
    }

    #[test]
    fn positions_that_nobody_can_have_are_survived() {
        let mut pages = pages(0);
        assert_eq!(pages.next(i64::MAX), None);
        assert_eq!(pages.due, i64::MAX);
    }
}
