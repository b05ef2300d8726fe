//! A status message that opens the window again may be lost. Its sender then waits, everything has been consumed, and
//! nothing would make the receiver send another one before its timer (wire protocol 4.6). A receiver can tell: nothing
//! has come beyond the limit that it gave before. Then it says the same again, a few times.
#![forbid(unsafe_code)]

use fulmar::time::NanoTime;

use super::recovery_time::RecoveryTime;

/// Reminders of one status message.
pub const REMINDERS_MAX: u32 = 3;
/// Each waits for so many times as long as the one before.
const REMINDER_FACTOR: i64 = 4;
/// Deviations that data is waited for beyond its usual time.
const REMINDER_DEVIATIONS: i64 = 4;

/// The status message that may have to be said again. Receiver only.
#[derive(Clone, Copy, Debug)]
pub struct WindowReminder {
    /// Before the first reminder, ns; 0 for no reminders.
    first_ns: i64,
    /// Largest datagram, bytes: with less room than that a sender waits.
    mtu: i64,
    /// From opening the window to data beyond the limit before.
    answer_time: RecoveryTime,
    /// What the last status message allowed.
    limit: i64,
    /// What was allowed before; `i64::MAX` once the sender is known to have gone beyond it.
    limit_before: i64,
    /// When the limit was told first, if the sender seemed to wait for it.
    opened: Option<NanoTime>,
    last_sent: NanoTime,
    reminders: u32,
}

impl WindowReminder {
    /// Nothing was said yet.
    #[must_use]
    pub fn new(first_ns: i64, mtu: i32, now: NanoTime) -> Self {
        Self {
            first_ns,
            mtu: i64::from(mtu),
            answer_time: RecoveryTime::new(),
            limit: i64::MIN,
            limit_before: i64::MAX,
            opened: None,
            last_sent: now,
            reminders: 0,
        }
    }

    /// A status message left that allows what lies before `limit`.
    pub fn on_status_message(&mut self, now: NanoTime, limit: i64, high_water_mark: i64) {
        self.last_sent = now;
        if limit == self.limit {
            self.reminders = self.reminders.saturating_add(1);
            return;
        }
        self.limit_before = if self.limit == i64::MIN {
            i64::MAX
        } else {
            self.limit
        };
        self.limit = limit;
        self.reminders = 0;
        self.opened = self.is_waiting(high_water_mark).then_some(now);
    }

    /// Data has come up to here.
    #[inline]
    pub fn on_high_water_mark(&mut self, now: NanoTime, high_water_mark: i64) {
        if high_water_mark <= self.limit_before {
            return;
        }
        self.limit_before = i64::MAX;
        let Some(opened) = self.opened.take() else {
            return;
        };
        let took = now.since(opened);
        // What was said more than once may have been lost, or the stream has paused: that is no time a path takes.
        if self.reminders == 0 {
            self.answer_time.on_sample(took);
        } else {
            self.answer_time.on_guess(took);
        }
    }

    /// When to say the same again, if nothing comes.
    #[inline]
    #[must_use]
    pub fn deadline(&self, high_water_mark: i64) -> Option<NanoTime> {
        if self.first_ns == 0 || self.reminders >= REMINDERS_MAX || !self.is_waiting(high_water_mark) {
            return None;
        }
        let usual = self.answer_time.with_deviations(REMINDER_DEVIATIONS).unwrap_or(0);
        let wait = usual
            .max(self.first_ns)
            .saturating_mul(REMINDER_FACTOR.pow(self.reminders));
        Some(self.last_sent.plus_nanos(wait))
    }

    /// Whether the sender has used up what it was allowed before, as far as is known.
    #[inline]
    fn is_waiting(&self, high_water_mark: i64) -> bool {
        high_water_mark > self.limit_before.saturating_sub(self.mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const MTU: i32 = 1408;
    const WINDOW: i64 = 128 * 1024;

    fn at(nanos: i64) -> NanoTime {
        NanoTime(nanos)
    }

    /// The first window is used up, and what opens the second was said at 0.
    fn opened() -> WindowReminder {
        let mut reminder = WindowReminder::new(MS, MTU, at(-MS));
        reminder.on_status_message(at(-MS), WINDOW, 0);
        assert_eq!(reminder.deadline(WINDOW), None, "nothing was allowed before");
        reminder.on_status_message(at(0), 2 * WINDOW, WINDOW);
        reminder
    }

    #[test]
    fn a_sender_that_stays_where_its_window_ended_is_reminded_a_few_times() {
        let mut reminder = opened();
        let mut sent = Vec::new();
        while let Some(due) = reminder.deadline(WINDOW) {
            sent.push(due.0);
            reminder.on_status_message(due, 2 * WINDOW, WINDOW);
        }
        assert_eq!(sent, [MS, 5 * MS, 21 * MS]);
    }

    #[test]
    fn data_beyond_the_limit_before_ends_it() {
        let mut reminder = opened();
        reminder.on_high_water_mark(at(10), WINDOW + 1056);
        assert_eq!(reminder.deadline(WINDOW + 1056), None);
    }

    #[test]
    fn a_sender_with_room_is_not_reminded_before_it_has_used_it_up() {
        let mut reminder = WindowReminder::new(MS, MTU, at(0));
        reminder.on_status_message(at(0), WINDOW, 0);
        reminder.on_status_message(at(0), WINDOW + WINDOW / 4, WINDOW / 2);
        assert_eq!(reminder.deadline(WINDOW / 2), None);
        assert_eq!(reminder.deadline(WINDOW - i64::from(MTU)), None, "one more fits");
        assert_eq!(reminder.deadline(WINDOW - 32), Some(at(MS)));
    }

    #[test]
    fn over_a_long_path_only_the_first_window_is_reminded_early() {
        let mut reminder = opened();
        reminder.on_high_water_mark(at(100 * MS), WINDOW + 1056);
        let mut now = 100 * MS;
        for window in 2..10 {
            reminder.on_status_message(at(now), (window + 1) * WINDOW, window * WINDOW);
            let due = reminder.deadline(window * WINDOW).unwrap();
            assert!(due.0 > now + 100 * MS, "{due:?}");
            now += 100 * MS;
            reminder.on_high_water_mark(at(now), window * WINDOW + 1056);
        }
    }

    /// Opens the next window at `now`; when it is said again.
    fn open(reminder: &mut WindowReminder, window: i64, now: i64) -> Option<NanoTime> {
        reminder.on_status_message(at(now), (window + 1) * WINDOW, window * WINDOW);
        reminder.deadline(window * WINDOW)
    }

    /// Nothing comes for `pause` ns, the reminders go, and then the sender goes on.
    fn pause(reminder: &mut WindowReminder, window: i64, now: i64, pause: i64) {
        let mut reminders = 0;
        while let Some(due) = reminder
            .deadline(window * WINDOW)
            .filter(|due| due.0 < now + pause)
        {
            reminder.on_status_message(due, (window + 1) * WINDOW, window * WINDOW);
            reminders += 1;
        }
        assert!(reminders > 0);
        reminder.on_high_water_mark(at(now + pause), window * WINDOW + 1056);
    }

    #[test]
    fn a_stream_that_pauses_where_its_window_ends_does_not_put_reminders_off() {
        let mut reminder = opened();
        reminder.on_high_water_mark(at(MS / 10), WINDOW + 1056);
        for window in 2..20 {
            let now = window * 1000 * MS;
            assert_eq!(open(&mut reminder, window, now), Some(at(now + MS)));
            pause(&mut reminder, window, now, 500 * MS);
        }
    }

    #[test]
    fn a_pause_in_the_first_window_counts_until_another_is_answered_at_once() {
        let mut reminder = opened();
        pause(&mut reminder, 1, 0, 500 * MS);
        let now = 600 * MS;
        assert!(open(&mut reminder, 2, now).unwrap().0 > now + 500 * MS);
        reminder.on_high_water_mark(at(now + MS / 10), 2 * WINDOW + 1056);
        let now = 700 * MS;
        assert_eq!(open(&mut reminder, 3, now), Some(at(now + MS)));
    }

    #[test]
    fn it_can_be_switched_off() {
        let mut reminder = WindowReminder::new(0, MTU, at(0));
        reminder.on_status_message(at(0), WINDOW, 0);
        reminder.on_status_message(at(0), 2 * WINDOW, WINDOW);
        assert_eq!(reminder.deadline(WINDOW), None);
    }
}
