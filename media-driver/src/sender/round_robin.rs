//! Which publication is sent first: another one in each pass, so that none always waits for the others.
#![forbid(unsafe_code)]

/// A start that moves on by one in each pass.
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
