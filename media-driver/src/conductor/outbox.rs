//! Commands to another agent, in order, none lost: what finds the lane full waits here.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use fulmar::counters::Counter;

use crate::commands::Lane;

/// The conductor's end of a lane. What waits is bounded by the number of resources, as each has few commands.
#[derive(Debug)]
pub(super) struct Outbox<T> {
    lane: Lane<T>,
    waiting: VecDeque<T>,
    /// Counts what found the lane full.
    fails: Counter,
}

impl<T> Outbox<T> {
    pub(super) fn new(lane: Lane<T>, fails: Counter) -> Self {
        Self {
            lane,
            waiting: VecDeque::new(),
            fails,
        }
    }

    /// Sends a command, now or as soon as there is room.
    pub(super) fn send(&mut self, command: T) {
        if !self.waiting.is_empty() {
            self.waiting.push_back(command);
        } else if let Err(command) = self.lane.offer(command) {
            self.fails.add_relaxed(1);
            self.waiting.push_back(command);
        }
    }

    /// Sends what waits, as far as there is room; the number sent.
    pub(super) fn flush(&mut self) -> usize {
        let mut sent = 0;
        while let Some(command) = self.waiting.pop_front() {
            if let Err(command) = self.lane.offer(command) {
                self.waiting.push_front(command);
                break;
            }
            sent += 1;
        }
        sent
    }

    /// Wakes the reader although no command was sent.
    pub(super) fn ring(&self) {
        self.lane.ring();
    }

    /// Whether anything waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether so much waits that no further client command should be taken.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting.len() >= CROWDED
    }
}

/// Waiting commands above which client commands have to wait, too.
const CROWDED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::QUEUE_CAPACITY;
    use crate::network_counters::NetworkCounters;
    use fulmar::agent::Doorbell;
    use fulmar::counters::SystemCounter;

    #[test]
    fn what_finds_the_lane_full_waits_and_keeps_its_order() {
        let lane = Lane::new(Doorbell::heap());
        let counters = NetworkCounters::heap();
        let fails = counters.get(SystemCounter::SenderProxyFails).clone();
        let mut outbox = Outbox::new(lane.clone(), fails.clone());
        let count = QUEUE_CAPACITY + 3;
        for number in 0..count {
            outbox.send(number);
        }
        assert_eq!(fails.get_relaxed(), 1, "counted when the lane became full");
        assert!(outbox.is_waiting() && !outbox.is_crowded());
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.extend(lane.poll());
            outbox.flush();
        }
        assert_eq!(taken, (0..count).collect::<Vec<_>>());
        assert!(!outbox.is_waiting());
    }
}
