//! Subscribers that may be left behind (shared-memory spec 13.12): active, lingering, resting, active again.
#![forbid(unsafe_code)]

use fulmar::time::NanoTime;

use crate::config::UntetheredTimeouts;

/// Where a subscriber stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TetherState {
    /// It polls, or was not yet behind for long.
    Active,
    /// Its image is gone; it is still counted among the positions that hold the publisher back.
    Linger,
    /// Not counted any more; joins again when rested.
    Resting,
    /// Not counted any more and never joins again.
    Closed,
}

/// What the owner has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TetherAction {
    /// Nothing.
    None,
    /// Tell the subscriber that its image is gone.
    ImageUnavailable,
    /// Stop counting its position; it keeps its counter for the return.
    StopCounting,
    /// Stop counting its position and free its counter.
    Close,
    /// Move its position to the join position and announce the image again.
    Rejoin,
}

/// The state of one subscriber of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Tether {
    state: TetherState,
    since: NanoTime,
    tethered: bool,
    rejoin: bool,
}

impl Tether {
    /// A subscriber that must never be left behind.
    #[must_use]
    pub fn tethered(now: NanoTime) -> Self {
        Self {
            state: TetherState::Active,
            since: now,
            tethered: true,
            rejoin: true,
        }
    }

    /// A subscriber that may be left behind and, with `rejoin`, comes back.
    #[must_use]
    pub fn untethered(now: NanoTime, rejoin: bool) -> Self {
        Self {
            state: TetherState::Active,
            since: now,
            tethered: false,
            rejoin,
        }
    }

    /// The current state.
    #[must_use]
    pub fn state(&self) -> TetherState {
        self.state
    }

    /// Whether its position holds the publisher back.
    #[inline]
    #[must_use]
    pub fn is_working(&self) -> bool {
        matches!(self.state, TetherState::Active | TetherState::Linger)
    }

    /// Whether it currently has an image.
    #[must_use]
    pub fn has_image(&self) -> bool {
        self.state == TetherState::Active
    }

    /// At each timer: `threshold` is the position at or below which a subscriber counts as far behind.
    pub fn on_timer(
        &mut self,
        now: NanoTime,
        position: i64,
        threshold: i64,
        timeouts: &UntetheredTimeouts,
    ) -> TetherAction {
        if self.tethered {
            return TetherAction::None;
        }
        let waited = now.since(self.since);
        match self.state {
            TetherState::Active if position > threshold => {
                self.since = now;
                TetherAction::None
            }
            TetherState::Active if waited >= timeouts.window_limit_ns => {
                self.enter(TetherState::Linger, now);
                TetherAction::ImageUnavailable
            }
            TetherState::Linger if waited >= timeouts.linger_ns && self.rejoin => {
                self.enter(TetherState::Resting, now);
                TetherAction::StopCounting
            }
            TetherState::Linger if waited >= timeouts.linger_ns => {
                self.enter(TetherState::Closed, now);
                TetherAction::Close
            }
            // It stays out of the count until its owner has moved it to the join position: see `rejoin`.
            TetherState::Resting if waited >= timeouts.resting_ns => TetherAction::Rejoin,
            _ => TetherAction::None,
        }
    }

    /// The owner has moved the position: it counts again.
    pub fn rejoin(&mut self, now: NanoTime) {
        self.enter(TetherState::Active, now);
    }

    /// Its image is gone for good.
    pub fn end(&mut self, now: NanoTime) {
        self.enter(TetherState::Closed, now);
    }

    fn enter(&mut self, state: TetherState, now: NanoTime) {
        self.state = state;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;
    const TIMEOUTS: UntetheredTimeouts = UntetheredTimeouts {
        window_limit_ns: 5 * S,
        linger_ns: 5 * S,
        resting_ns: 10 * S,
    };

    fn walk(mut tether: Tether, seconds: i64) -> Vec<(i64, TetherAction)> {
        let mut actions = Vec::new();
        for second in 1..=seconds {
            let now = NanoTime(second * S);
            let action = tether.on_timer(now, 0, 100, &TIMEOUTS);
            if action == TetherAction::Rejoin {
                assert!(!tether.is_working(), "it counts only once it was moved");
                tether.rejoin(now);
            }
            if action != TetherAction::None {
                actions.push((second, action));
            }
        }
        actions
    }

    #[test]
    fn a_stalled_subscriber_loses_its_image_rests_and_returns() {
        let actions = walk(Tether::untethered(NanoTime(0), true), 20);
        assert_eq!(
            actions,
            [
                (5, TetherAction::ImageUnavailable),
                (10, TetherAction::StopCounting),
                (20, TetherAction::Rejoin)
            ]
        );
    }

    #[test]
    fn without_rejoin_it_is_closed_for_good() {
        let actions = walk(Tether::untethered(NanoTime(0), false), 60);
        assert_eq!(
            actions,
            [(5, TetherAction::ImageUnavailable), (10, TetherAction::Close)]
        );
    }

    #[test]
    fn a_tethered_subscriber_is_never_left_behind() {
        assert_eq!(walk(Tether::tethered(NanoTime(0)), 100), []);
    }

    #[test]
    fn keeping_up_refreshes_the_time() {
        let mut tether = Tether::untethered(NanoTime(0), true);
        assert_eq!(
            tether.on_timer(NanoTime(4 * S), 200, 100, &TIMEOUTS),
            TetherAction::None
        );
        assert_eq!(
            tether.on_timer(NanoTime(8 * S), 0, 100, &TIMEOUTS),
            TetherAction::None
        );
        assert_eq!(
            tether.on_timer(NanoTime(9 * S), 0, 100, &TIMEOUTS),
            TetherAction::ImageUnavailable
        );
        assert!(tether.is_working());
    }
}
