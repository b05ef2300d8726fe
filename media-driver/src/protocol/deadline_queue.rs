//! The deadlines of many members, of which only the earliest are looked at: a member that waits costs nothing until then.
#![forbid(unsafe_code)]

use core::cmp::Reverse;
use std::collections::BinaryHeap;

use fulmar::time::NanoTime;

/// Deadlines by the index of their member, in order. Each member has one at most.
///
/// A deadline that was moved to a later time leaves its old entry behind until that comes up; so moving deadlines, which
/// happens far more often than that they are reached, mostly costs a store.
#[derive(Debug)]
pub struct DeadlineQueue {
    /// Times since `origin`, which compare without wrapping, and members.
    entries: BinaryHeap<Reverse<(i64, u32)>>,
    members: Vec<Member>,
    origin: NanoTime,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    /// When it is due; [`NEVER`] without a deadline.
    due: i64,
    /// The time of its earliest entry; [`NEVER`] if it has none.
    queued: i64,
}

const NEVER: i64 = i64::MAX;

/// Entries for each member, before those that others overtook are thrown out.
const ENTRIES_PER_MEMBER: usize = 4;
/// So many members are counted at least: fewer are not worth the work.
const MEMBERS_MIN: usize = 16;

impl Member {
    const NONE: Member = Member {
        due: NEVER,
        queued: NEVER,
    };
}

impl DeadlineQueue {
    /// Without members; times are within 146 years of `now`.
    #[must_use]
    pub fn new(now: NanoTime) -> Self {
        Self {
            entries: BinaryHeap::new(),
            members: Vec::new(),
            origin: now,
        }
    }

    /// There are `count` members now, none of which has a deadline.
    pub fn reset(&mut self, count: usize) {
        self.entries.clear();
        self.members.clear();
        self.members.resize(count, Member::NONE);
    }

    /// Sets the deadline of a member, or takes it away.
    #[inline]
    pub fn set(&mut self, index: usize, deadline: Option<NanoTime>) {
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        member.due = deadline.map_or(NEVER, |deadline| deadline.since(self.origin));
        if member.due < member.queued {
            member.queued = member.due;
            self.entries.push(Reverse((member.due, index as u32)));
            if self.entries.len() > ENTRIES_PER_MEMBER * self.members.len().max(MEMBERS_MIN) {
                self.rebuild();
            }
        }
    }

    /// Keeps one entry for each member that has a deadline. Deadlines that fall leave entries behind which do not come up.
    fn rebuild(&mut self) {
        let mut entries = core::mem::take(&mut self.entries).into_vec();
        entries.clear();
        for (index, member) in self.members.iter_mut().enumerate() {
            member.queued = member.due;
            if member.due != NEVER {
                entries.push(Reverse((member.due, index as u32)));
            }
        }
        self.entries = entries.into();
    }

    /// A member whose deadline has come; it has none any more. To be called until there is none.
    #[inline]
    pub fn poll_due(&mut self, now: NanoTime) -> Option<usize> {
        self.settle();
        let Reverse((time, index)) = self.entries.peek().copied()?;
        if time > now.since(self.origin) {
            return None;
        }
        self.entries.pop();
        self.members[index as usize] = Member::NONE;
        Some(index as usize)
    }

    /// Brings the earliest deadline to the front, after others were moved: then [`Self::earliest`] is right.
    #[inline]
    pub fn settle(&mut self) {
        while let Some(Reverse((time, index))) = self.entries.peek().copied() {
            let member = &mut self.members[index as usize];
            if time == member.queued && time == member.due {
                return;
            }
            self.entries.pop();
            // Otherwise an earlier entry of it came up before.
            if time == member.queued {
                member.queued = member.due;
                if member.due != NEVER {
                    self.entries.push(Reverse((member.due, index)));
                }
            }
        }
    }

    /// The earliest deadline, or a time before it if deadlines were moved since [`Self::settle`].
    #[inline]
    #[must_use]
    pub fn earliest(&self) -> Option<NanoTime> {
        self.entries
            .peek()
            .map(|Reverse((time, _))| self.origin.plus_nanos(*time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: NanoTime = NanoTime(i64::MAX - 1000);

    fn at(time: i64) -> NanoTime {
        ORIGIN.plus_nanos(time)
    }

    fn queue(count: usize) -> DeadlineQueue {
        let mut queue = DeadlineQueue::new(ORIGIN);
        queue.reset(count);
        queue
    }

    fn due(queue: &mut DeadlineQueue, now: i64) -> Vec<usize> {
        core::iter::from_fn(|| queue.poll_due(at(now))).collect()
    }

    #[test]
    fn members_come_in_the_order_of_their_deadlines_even_where_the_clock_wraps() {
        let mut queue = queue(3);
        queue.set(0, Some(at(3000)));
        queue.set(1, Some(at(10)));
        queue.set(2, Some(at(900)));
        queue.set(3, Some(at(1)));
        assert_eq!(queue.earliest(), Some(at(10)));
        assert_eq!(due(&mut queue, 9), []);
        assert_eq!(due(&mut queue, 2000), [1, 2]);
        assert_eq!(queue.earliest(), Some(at(3000)));
        assert_eq!(due(&mut queue, 3000), [0]);
        assert_eq!(queue.earliest(), None);
    }

    #[test]
    fn a_deadline_that_was_moved_counts_where_it_is_now() {
        let mut queue = queue(2);
        queue.set(0, Some(at(10)));
        queue.set(0, Some(at(50)));
        queue.set(1, Some(at(60)));
        queue.set(1, Some(at(40)));
        assert_eq!(due(&mut queue, 30), []);
        assert_eq!(queue.earliest(), Some(at(40)), "exact once nothing is due");
        assert_eq!(due(&mut queue, 40), [1]);
        assert_eq!(due(&mut queue, 1000), [0]);
        assert_eq!(due(&mut queue, 1000), []);
    }

    #[test]
    fn a_deadline_that_was_taken_away_does_not_come() {
        let mut queue = queue(2);
        queue.set(0, Some(at(10)));
        queue.set(0, None);
        assert_eq!(due(&mut queue, 100), []);
        assert_eq!(queue.earliest(), None);
        queue.set(0, Some(at(200)));
        queue.reset(1);
        assert_eq!(due(&mut queue, 1000), []);
    }

    #[test]
    fn moving_deadlines_on_and_on_takes_no_memory() {
        let mut queue = queue(4);
        for time in 0..10_000 {
            for index in 0..4 {
                queue.set(index, Some(at(time + 100)));
            }
        }
        assert!(queue.entries.len() <= 4, "{}", queue.entries.len());
        queue.reset(4);
        for time in (0..10_000).rev() {
            for index in 0..4 {
                queue.set(index, Some(at(time + 100 + index as i64)));
            }
            assert!(queue.entries.len() <= 64, "{}", queue.entries.len());
        }
        queue.set(2, None);
        assert_eq!(due(&mut queue, 10_000), [0, 1, 3]);
        assert!(queue.entries.is_empty());
    }

    #[test]
    fn it_agrees_with_a_list_that_is_looked_through() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut queue = queue(20);
        let mut list = [None; 20];
        let mut now = 0;
        for _ in 0..5_000 {
            let index = random.usize(..20);
            let deadline = random.bool().then(|| now + random.i64(1..300));
            queue.set(index, deadline.map(at));
            list[index] = deadline;
            now += random.i64(0..20);
            let mut expected: Vec<usize> = (0..20)
                .filter(|index| list[*index].is_some_and(|time| time <= now))
                .collect();
            for index in &expected {
                list[*index] = None;
            }
            let mut found = due(&mut queue, now);
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected);
            assert_eq!(
                queue.earliest(),
                list.iter().flatten().min().map(|time| at(*time))
            );
        }
    }
}
