//! Session ids that the driver hands out: one wrapping sequence with a random start (shared-memory spec 13.4).
#![forbid(unsafe_code)]

use fulmar::id::SessionId;

/// The sequence of session ids, which leaves a reserved range out.
#[derive(Clone, Debug)]
pub struct SessionIds {
    next: i32,
    reserved_low: i32,
    reserved_high: i32,
}

/// Ids looked at before the search gives up; far above the number of publications a driver can hold.
const ATTEMPTS_MAX: usize = 1 << 16;

impl SessionIds {
    /// Starts at `start`; ids in `reserved_low..=reserved_high` are never handed out.
    #[must_use]
    pub fn new(start: i32, reserved_low: i32, reserved_high: i32) -> Self {
        Self {
            next: start,
            reserved_low,
            reserved_high,
        }
    }

    /// The next id for which `in_use` is false. `None` when a bounded search finds none.
    pub fn next(&mut self, mut in_use: impl FnMut(SessionId) -> bool) -> Option<SessionId> {
        for _ in 0..ATTEMPTS_MAX {
            if self.reserved_low <= self.next && self.next <= self.reserved_high {
                self.next = self.reserved_high.wrapping_add(1);
                if self.reserved_low <= self.next && self.next <= self.reserved_high {
                    return None;
                }
            }
            let id = SessionId(self.next);
            self.next = self.next.wrapping_add(1);
            if !in_use(id) {
                return Some(id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserved_range_is_left_out() {
        let mut ids = SessionIds::new(-3, -1, 1000);
        let drawn: Vec<i32> = (0..4).map(|_| ids.next(|_| false).unwrap().0).collect();
        assert_eq!(drawn, [-3, -2, 1001, 1002]);
    }

    #[test]
    fn ids_in_use_are_skipped_and_the_sequence_wraps() {
        let mut ids = SessionIds::new(i32::MAX, -1, 1000);
        assert_eq!(ids.next(|id| id.0 == i32::MAX), Some(SessionId(i32::MIN)));
    }

    #[test]
    fn a_search_without_a_free_id_ends() {
        let mut ids = SessionIds::new(5, -1, 1000);
        assert_eq!(ids.next(|_| true), None);
    }

    #[test]
    fn a_range_that_covers_everything_gives_none() {
        let mut ids = SessionIds::new(5, i32::MIN, i32::MAX);
        assert_eq!(ids.next(|_| false), None);
    }
}
