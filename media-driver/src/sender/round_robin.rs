//! Which publication is sent first: the next one in each pass, so that none always waits for the others.
#![forbid(unsafe_code)]

/// A start that moves on by one in each pass, or to where a pass was cut short.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    start: usize,
}

impl RoundRobin {
    /// The order of one pass over `count` members: every index once.
    #[inline]
    pub fn pass(&mut self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let start = if self.start < count { self.start } else { 0 };
        self.start = start + 1;
        (start..count).chain(0..start)
    }

    /// The pass ended after this member: the next one begins with the one that follows.
    #[inline]
    pub fn cut_after(&mut self, member: usize) {
        self.start = member + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_is_first_once_in_a_round() {
        let mut order = RoundRobin::default();
        let passes: Vec<Vec<usize>> = (0..4).map(|_| order.pass(3).collect()).collect();
        assert_eq!(passes, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }

    #[test]
    fn a_pass_that_was_cut_short_is_gone_on_with() {
        let mut order = RoundRobin::default();
        let mut sent = Vec::new();
        for _ in 0..4 {
            for member in order.pass(5).take(3) {
                sent.push(member);
                order.cut_after(member);
            }
        }
        assert_eq!(sent, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]);
    }

    #[test]
    fn members_may_leave_between_passes() {
        let mut order = RoundRobin::default();
        for _ in 0..5 {
            assert_eq!(order.pass(5).count(), 5);
        }
        assert_eq!(order.pass(2).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(order.pass(0).count(), 0);
        assert_eq!(order.pass(1).collect::<Vec<_>>(), [0]);
    }
}
