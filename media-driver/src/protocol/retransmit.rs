//! Frames sent again on request (wire protocol 3.8). A request becomes an action: it may wait for the delay, is sent,
//! and lingers, so that the requests which a receiver repeats until the frames arrive are not answered once more. Once
//! the round trip is known, a request that comes later than that after the frames says that they were lost again: it is
//! answered, and each time the action then lingers for twice as long.
//!
//! Long ranges are sent in portions, one per send pass, so that one receiver that lost a lot does not stop the other
//! streams of the agent. How much may be sent again at all is a [`RetransmitBudget`].
#![forbid(unsafe_code)]

use fulmar::time::NanoTime;

use super::recovery_time::{RECOVERY_MAX_NS, RecoveryTime, backed_off};

/// A learnt linger time is at least this, ns: below it, it is threads that wait for a processor. Half of what our own
/// receivers wait at least before they repeat a request.
pub const LEARNT_LINGER_MIN_NS: i64 = 250_000;

/// What happens when all actions are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetransmitSemantics {
    /// One receiver asks: the oldest action is given up, as what is asked for now is what holds it up now.
    Unicast,
    /// Many receivers ask: nobody's action is taken away.
    Group,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NakOutcome {
    /// It will be sent, now or after the delay.
    Accepted,
    /// An action covers it.
    Suppressed,
    /// There is no free action.
    Overflow,
}

/// A part of an action that is to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resend {
    /// Names the action for [`RetransmitHandler::on_sent`].
    pub action: usize,
    /// First byte.
    pub position: i64,
    /// Behind the last byte; never beyond the end of the term of `position`.
    pub end: i64,
    /// Whether this is the first part.
    pub is_first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting(NanoTime),
    Sending,
    Lingering {
        /// From here on a repeated request is answered.
        answers_from: NanoTime,
        /// From here on nothing is known of it.
        until: NanoTime,
    },
}

#[derive(Clone, Copy, Debug)]
struct Action {
    position: i64,
    end: i64,
    next: i64,
    stage: Stage,
    /// Order of acceptance.
    age: u64,
    /// How often the same was sent before.
    repeats: u32,
}

impl Action {
    /// It was sent, and what comes back for it should have come long ago.
    fn is_overdue(&self, now: NanoTime) -> bool {
        matches!(self.stage, Stage::Lingering { answers_from, .. } if answers_from.is_due(now))
    }
}

/// Deviations that a round trip is given beyond its usual time. Our own receivers give it more.
const LINGER_DEVIATIONS: i64 = 1;

/// The actions of one publication.
#[derive(Debug)]
pub struct RetransmitHandler {
    actions: Vec<Option<Action>>,
    semantics: RetransmitSemantics,
    delay_ns: i64,
    linger_ns: i64,
    round_trip: RecoveryTime,
    accepted: u64,
    /// Actions that wait or are sent; lingering ones need no attention.
    pending: usize,
}

impl RetransmitHandler {
    /// No actions. `capacity` of them at a time, each sent `delay_ns` after its request and then kept for `linger_ns`.
    ///
    /// # Panics
    /// If the capacity is 0.
    #[must_use]
    pub fn new(semantics: RetransmitSemantics, capacity: usize, delay_ns: i64, linger_ns: i64) -> Self {
        assert!(
            capacity > 0,
            "a publication answers at least one request at a time"
        );
        Self {
            actions: vec![None; capacity],
            semantics,
            delay_ns,
            linger_ns,
            round_trip: RecoveryTime::new(),
            accepted: 0,
            pending: 0,
        }
    }

    /// The bytes `[position, position + length)` are asked for. They lie in one term, and `length` is positive and
    /// already clamped.
    pub fn on_nak(&mut self, now: NanoTime, position: i64, length: i32) -> NakOutcome {
        self.end_lingering(now);
        let mut repeated = None;
        for (index, action) in self.actions.iter().enumerate() {
            let Some(action) = action else { continue };
            if !(action.position..action.end).contains(&position) {
                continue;
            }
            if !action.is_overdue(now) {
                return NakOutcome::Suppressed;
            }
            repeated = Some((index, action.repeats.saturating_add(1)));
        }
        let Some((index, repeats)) = repeated.or_else(|| self.free_action().map(|index| (index, 0))) else {
            return NakOutcome::Overflow;
        };
        let stage = if self.delay_ns == 0 {
            Stage::Sending
        } else {
            Stage::Waiting(now.plus_nanos(self.delay_ns))
        };
        self.accepted += 1;
        self.pending += 1;
        self.actions[index] = Some(Action {
            position,
            end: position + i64::from(length),
            next: position,
            stage,
            age: self.accepted,
            repeats,
        });
        NakOutcome::Accepted
    }

    /// A round trip to the receiver took so long, ns.
    pub fn on_round_trip(&mut self, round_trip_ns: i64) {
        self.round_trip.on_sample(round_trip_ns.min(RECOVERY_MAX_NS));
    }

    fn end_lingering(&mut self, now: NanoTime) {
        for action in &mut self.actions {
            if let Some(Action {
                stage: Stage::Lingering { until, .. },
                ..
            }) = action
                && until.is_due(now)
            {
                *action = None;
            }
        }
    }

    fn free_action(&mut self) -> Option<usize> {
        if let Some(index) = self.actions.iter().position(Option::is_none) {
            return Some(index);
        }
        if self.semantics == RetransmitSemantics::Group {
            return None;
        }
        let oldest =
            (0..self.actions.len()).min_by_key(|index| self.actions[*index].map(|action| action.age))?;
        if self.actions[oldest].is_some_and(|action| !matches!(action.stage, Stage::Lingering { .. })) {
            self.pending -= 1;
        }
        self.actions[oldest] = None;
        Some(oldest)
    }

    /// The oldest action that is to be sent at `now`, if any; [`RetransmitHandler::on_sent`] has to follow.
    #[inline]
    pub fn poll_resend(&mut self, now: NanoTime) -> Option<Resend> {
        if self.pending == 0 {
            return None;
        }
        let mut chosen: Option<(usize, u64)> = None;
        for (index, slot) in self.actions.iter_mut().enumerate() {
            let Some(action) = slot else { continue };
            if let Stage::Waiting(until) = action.stage
                && until.is_due(now)
            {
                action.stage = Stage::Sending;
            }
            if action.stage == Stage::Sending && chosen.is_none_or(|(_, age)| action.age < age) {
                chosen = Some((index, action.age));
            }
        }
        let (index, _) = chosen?;
        let action = self.actions[index]?;
        Some(Resend {
            action: index,
            position: action.next,
            end: action.end,
            is_first: action.next == action.position,
        })
    }

    /// The bytes before `next` of an action were sent; `None` if nothing more of it can be. A finished action lingers.
    pub fn on_sent(&mut self, now: NanoTime, action: usize, next: Option<i64>) {
        let Some(Some(action)) = self.actions.get_mut(action) else {
            return;
        };
        if action.stage != Stage::Sending {
            return;
        }
        match next {
            Some(next) if next < action.end => action.next = next.max(action.next),
            _ => {
                let learnt = self.round_trip.with_deviations(LINGER_DEVIATIONS);
                let quiet_ns = learnt.map_or(self.linger_ns, |learnt| {
                    backed_off(learnt.max(LEARNT_LINGER_MIN_NS), action.repeats, self.linger_ns)
                });
                action.stage = Stage::Lingering {
                    answers_from: now.plus_nanos(quiet_ns),
                    until: now.plus_nanos(quiet_ns.max(self.linger_ns)),
                };
                self.pending -= 1;
            }
        }
    }

    /// When an action is to be sent; `None` if none waits.
    #[must_use]
    pub fn next_deadline(&self, now: NanoTime) -> Option<NanoTime> {
        if self.pending == 0 {
            return None;
        }
        let due = |action: &Action| match action.stage {
            Stage::Waiting(until) => Some(until),
            Stage::Sending => Some(now),
            Stage::Lingering { .. } => None,
        };
        self.actions
            .iter()
            .flatten()
            .filter_map(due)
            .reduce(NanoTime::earlier)
    }
}

/// Bytes that a publication may send again: a bucket that is filled by what it sends for the first time and, slowly,
/// by time, so that the end of a stream is repaired as well. Requests can be forged; without a bound one of 28 bytes
/// costs megabytes.
#[derive(Debug)]
pub struct RetransmitBudget {
    tokens: i64,
    capacity: i64,
    share_percent: i64,
    filled: NanoTime,
    per_interval: i64,
}

/// How often time alone adds one receiver window, nanoseconds.
const FILL_INTERVAL_NS: i64 = 100_000_000;

impl RetransmitBudget {
    /// A full bucket of `capacity` bytes. Of each first-time byte `share_percent` go in per receiver, and
    /// `per_interval` bytes every 100 ms.
    #[must_use]
    pub fn new(capacity: i64, per_interval: i64, share_percent: i32, now: NanoTime) -> Self {
        Self {
            tokens: capacity,
            capacity,
            share_percent: i64::from(share_percent),
            filled: now,
            per_interval,
        }
    }

    /// Time adds nothing for what was before `now`.
    pub fn start(&mut self, now: NanoTime) {
        self.filled = now;
    }

    /// New data was sent to so many receivers.
    #[inline]
    pub fn on_sent(&mut self, bytes: i64, receivers: usize) {
        // Each receiver loses its own datagrams. No more than 16 count, so that forged receivers buy little.
        let receivers = receivers.clamp(1, 16) as i64;
        let earned = bytes.saturating_mul(self.share_percent).saturating_mul(receivers) / 100;
        self.tokens = self.tokens.saturating_add(earned).min(self.capacity);
    }

    /// Bytes that may be sent again now.
    pub fn available(&mut self, now: NanoTime) -> i64 {
        let elapsed = now.since(self.filled);
        if elapsed >= FILL_INTERVAL_NS {
            let intervals = elapsed / FILL_INTERVAL_NS;
            self.filled = now;
            self.tokens = self
                .tokens
                .saturating_add(intervals.saturating_mul(self.per_interval))
                .min(self.capacity);
        }
        self.tokens
    }

    /// Bytes were sent again.
    pub fn spend(&mut self, bytes: i64) {
        self.tokens -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: i64 = 10_000_000;

    fn at(nanos: i64) -> NanoTime {
        NanoTime(nanos)
    }

    fn unicast(capacity: usize) -> RetransmitHandler {
        RetransmitHandler::new(RetransmitSemantics::Unicast, capacity, 0, LINGER)
    }

    fn group(capacity: usize) -> RetransmitHandler {
        RetransmitHandler::new(RetransmitSemantics::Group, capacity, 0, LINGER)
    }

    fn send_all(handler: &mut RetransmitHandler, now: NanoTime) -> Vec<(i64, i64)> {
        let mut sent = Vec::new();
        while let Some(resend) = handler.poll_resend(now) {
            sent.push((resend.position, resend.end));
            handler.on_sent(now, resend.action, Some(resend.end));
        }
        sent
    }

    #[test]
    fn a_request_is_answered_at_once_without_a_delay() {
        let mut handler = unicast(1);
        assert_eq!(handler.on_nak(at(0), 64, 128), NakOutcome::Accepted);
        assert_eq!(handler.next_deadline(at(0)), Some(at(0)));
        assert_eq!(send_all(&mut handler, at(0)), [(64, 192)]);
        assert_eq!(handler.next_deadline(at(0)), None);
    }

    #[test]
    fn repeats_are_ignored_until_the_linger_ends() {
        for mut handler in [unicast(16), group(16)] {
            handler.on_nak(at(0), 64, 128);
            assert_eq!(handler.on_nak(at(0), 64, 128), NakOutcome::Suppressed, "unsent");
            send_all(&mut handler, at(0));
            assert_eq!(handler.on_nak(at(LINGER - 1), 64, 128), NakOutcome::Suppressed);
            assert_eq!(
                handler.on_nak(at(LINGER - 1), 160, 320),
                NakOutcome::Suppressed,
                "starts inside"
            );
            assert_eq!(handler.on_nak(at(LINGER), 64, 128), NakOutcome::Accepted);
            assert_eq!(send_all(&mut handler, at(LINGER)), [(64, 192)]);
        }
    }

    #[test]
    fn what_is_lost_again_is_sent_again_after_a_round_trip_and_each_time_later() {
        let mut handler = unicast(16);
        (0..50).for_each(|_| handler.on_round_trip(1_000_000));
        let mut sent = Vec::new();
        for now in (0..40_000_000).step_by(100_000) {
            if handler.on_nak(at(now), 64, 128) == NakOutcome::Accepted {
                assert_eq!(send_all(&mut handler, at(now)), [(64, 192)]);
                sent.push(now);
            }
        }
        let waits: Vec<i64> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!((1_000_000..1_300_000).contains(&waits[0]), "{waits:?}");
        assert!(waits[1] >= 2_000_000 && waits[2] >= 4_000_000, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LINGER), "{waits:?}");
    }

    #[test]
    fn a_request_that_covers_more_than_one_action_waits_for_the_later_one() {
        let mut handler = unicast(16);
        handler.on_round_trip(1_000_000);
        handler.on_nak(at(0), 0, 64);
        send_all(&mut handler, at(0));
        handler.on_nak(at(1_900_000), 64, 64);
        send_all(&mut handler, at(1_900_000));
        assert_eq!(handler.on_nak(at(2_000_000), 64, 64), NakOutcome::Suppressed);
        assert_eq!(handler.on_nak(at(2_000_000), 0, 64), NakOutcome::Accepted);
        assert_eq!(send_all(&mut handler, at(2_000_000)), [(0, 64)]);
    }

    #[test]
    fn a_late_repeat_of_an_old_request_is_ignored_within_the_round_trip() {
        let mut handler = unicast(16);
        (0..10).for_each(|_| handler.on_round_trip(100_000_000));
        handler.on_nak(at(0), 64, 128);
        send_all(&mut handler, at(0));
        for now in (0..100_000_000).step_by(1_000_000) {
            assert_eq!(
                handler.on_nak(at(now), 64, 128),
                NakOutcome::Suppressed,
                "at {now}"
            );
        }
        assert_eq!(handler.on_nak(at(200_000_000), 64, 128), NakOutcome::Accepted);
    }

    #[test]
    fn only_the_start_of_a_request_decides_whether_it_is_covered() {
        let mut handler = group(4);
        handler.on_nak(at(0), 1024, 64);
        assert_eq!(
            handler.on_nak(at(0), 960, 256),
            NakOutcome::Accepted,
            "begins before"
        );
        assert_eq!(
            handler.on_nak(at(0), 1216, 64),
            NakOutcome::Accepted,
            "begins at the end"
        );
    }

    #[test]
    fn a_full_group_pool_overflows() {
        let mut handler = group(2);
        handler.on_nak(at(0), 0, 32);
        handler.on_nak(at(0), 32, 32);
        assert_eq!(handler.on_nak(at(0), 64, 32), NakOutcome::Overflow);
        send_all(&mut handler, at(0));
        assert_eq!(
            handler.on_nak(at(1), 64, 32),
            NakOutcome::Overflow,
            "lingering ones count"
        );
        assert_eq!(handler.on_nak(at(LINGER), 64, 32), NakOutcome::Accepted);
    }

    #[test]
    fn a_full_unicast_pool_gives_the_oldest_action_up() {
        let mut handler = unicast(2);
        handler.on_nak(at(0), 0, 32);
        handler.on_nak(at(0), 32, 32);
        assert_eq!(handler.on_nak(at(0), 64, 32), NakOutcome::Accepted);
        assert_eq!(send_all(&mut handler, at(0)), [(32, 64), (64, 96)]);
        assert_eq!(handler.on_nak(at(1), 0, 32), NakOutcome::Accepted, "forgotten");
        assert_eq!(handler.next_deadline(at(1)), Some(at(1)));
    }

    #[test]
    fn the_delay_holds_a_request_back() {
        let mut handler = RetransmitHandler::new(RetransmitSemantics::Unicast, 1, 500, LINGER);
        handler.on_nak(at(0), 0, 32);
        assert_eq!(handler.poll_resend(at(499)), None);
        assert_eq!(handler.next_deadline(at(499)), Some(at(500)));
        assert_eq!(handler.on_nak(at(499), 0, 32), NakOutcome::Suppressed);
        assert_eq!(send_all(&mut handler, at(500)), [(0, 32)]);
    }

    #[test]
    fn a_long_range_is_sent_in_portions() {
        let mut handler = unicast(1);
        handler.on_nak(at(0), 0, 4096);
        let first = handler.poll_resend(at(0)).unwrap();
        assert!(first.is_first);
        handler.on_sent(at(0), first.action, Some(1024));
        let second = handler.poll_resend(at(0)).unwrap();
        assert_eq!(
            (second.position, second.end, second.is_first),
            (1024, 4096, false)
        );
        handler.on_sent(at(0), second.action, None);
        assert_eq!(handler.poll_resend(at(0)), None, "nothing more of it can be sent");
        assert_eq!(handler.on_nak(at(1), 2048, 32), NakOutcome::Suppressed);
    }

    #[test]
    fn the_budget_follows_what_is_sent_and_slowly_the_time() {
        let mut budget = RetransmitBudget::new(1000, 100, 50, at(0));
        assert_eq!(budget.available(at(0)), 1000);
        budget.spend(1000);
        budget.on_sent(200, 1);
        assert_eq!(budget.available(at(0)), 100);
        budget.on_sent(200, 3);
        assert_eq!(budget.available(at(0)), 400, "each receiver loses its own");
        assert_eq!(budget.available(at(FILL_INTERVAL_NS)), 500);
        assert_eq!(
            budget.available(at(100 * FILL_INTERVAL_NS)),
            1000,
            "never above the capacity"
        );
        budget.on_sent(i64::MAX, 2000);
        assert_eq!(budget.available(at(100 * FILL_INTERVAL_NS)), 1000);
    }
}
