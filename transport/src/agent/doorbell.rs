//! A wake-up call between threads and between processes.
//!
//! ```text
//!   0  i32 sequence   counts rings; the futex word
//!  64  i32 sleeping   how many wait in the kernel
//!  68  i32 sleeps     counts announcements; for sleepers that look again before they wait
//! 128  end
//! ```
//!
//! Who brings work does so first and rings after. Who waits remembers the sequence, looks for work, and sleeps only
//! while the sequence is unchanged. A ring costs a system call only when somebody sleeps: the ringer raises the
//! sequence and then looks at `sleeping`, the waiter raises `sleeping` and then looks at the sequence, and at least
//! one of the two sees the other. Every wait is bounded, so that whatever another process stores in the two words
//! costs at worst a delay or a needless cycle.
//!
//! Ringers that ring for every message can not afford the two read-modify-writes of a ring. For them there is the
//! other way round ([`OfferBell`]): they only look at `sleeping`, after a fence, and the sleeper looks for work once
//! more between its announcement, which ends in a fence as well, and its sleep. One of the two sees the other.
//!
//! A sleeper that waits for sockets, too, can not wait on a futex. Then the ringer gives the [`Alarm`] of the
//! doorbell instead.

#[cfg(not(loom))]
use core::cell::Cell;
#[cfg(not(loom))]
use core::time::Duration;

use crate::memory::AtomicBuffer;
#[cfg(not(loom))]
use crate::memory::{Region, View};
#[cfg(not(loom))]
use crate::sync::Arc;
use crate::sync::{Ordering, fence};

/// Offset of the sequence, the futex word.
pub const SEQUENCE_OFFSET: usize = 0;
/// Offset of the count of sleepers; on its own cache line.
pub const SLEEPING_OFFSET: usize = 64;
/// Offset of the count of announcements; beside the count of sleepers, with which it is read.
pub const SLEEPS_OFFSET: usize = 68;
/// Length of a doorbell.
pub const DOORBELL_LENGTH: usize = 128;

/// The two words and the rule by which neither side misses the other; without the kernel, so that it can be model
/// checked.
#[derive(Clone, Debug)]
pub struct DoorbellWords<B> {
    words: B,
}

impl<B: AtomicBuffer> DoorbellWords<B> {
    /// Takes [`DOORBELL_LENGTH`] bytes.
    ///
    /// # Panics
    /// If the buffer is shorter.
    pub fn new(words: B) -> Self {
        assert!(words.capacity() >= DOORBELL_LENGTH, "a doorbell has 128 bytes");
        Self { words }
    }

    /// The sequence, to be remembered before looking for work.
    #[inline]
    pub fn sequence(&self) -> i32 {
        // SYNC doorbell-sequence: the work of whoever raised it to this value is visible.
        self.words.load_acquire_i32(SEQUENCE_OFFSET)
    }

    /// Raises the sequence; `true` if somebody sleeps and the kernel must be told.
    #[inline]
    pub fn raise(&self) -> bool {
        // SYNC doorbell-sequence: what was stored before is visible to whoever sees the new value.
        self.words.fetch_add_i32(SEQUENCE_OFFSET, 1);
        // SYNC doorbell-sleeping: a read by read-modify-write. If a sleeper's increment comes later in the order of
        // this word, it reads from here, and then its look at the sequence sees the line above. A plain load could
        // miss the sleeper while the sleeper misses the ring.
        self.words.fetch_add_i32(SLEEPING_OFFSET, 0) != 0
    }

    /// Announces a sleeper; `false` if the doorbell rang since `seen`, and then there is no need to sleep. Either
    /// way [`Self::leave`] follows.
    #[inline]
    pub fn enter(&self, seen: i32) -> bool {
        // SYNC doorbell-sleeping: see `raise`.
        self.words.fetch_add_i32(SLEEPING_OFFSET, 1);
        self.sequence() == seen
    }

    /// Takes the announcement back.
    #[inline]
    pub fn leave(&self) {
        self.words.fetch_add_i32(SLEEPING_OFFSET, -1);
    }

    /// Announces a sleeper that now looks for work once more before it sleeps. [`Self::leave`] follows in the end.
    #[inline]
    pub fn announce(&self) {
        self.words.fetch_add_i32(SLEEPS_OFFSET, 1);
        // SYNC doorbell-announced: whoever sees the sleeper sees the new count as well.
        self.words.fetch_add_i32(SLEEPING_OFFSET, 1);
        // SYNC doorbell-last-look: the look for work that follows sees everything that was stored before the fence of
        // a ringer that saw no sleeper.
        fence(Ordering::SeqCst);
    }

    /// As [`Self::announce`], for a sleeper that is announced and has used up an alarm: the next ringer gives another
    /// one.
    #[inline]
    pub fn announce_again(&self) {
        self.words.fetch_add_i32(SLEEPS_OFFSET, 1);
        // SYNC doorbell-last-look: as in `announce`.
        fence(Ordering::SeqCst);
    }

    /// For who stored work: the number of the announcement of a sleeper that may not see it.
    #[inline(always)]
    pub fn announcement(&self) -> Option<i32> {
        // SYNC doorbell-last-look: either the look below sees the sleeper, or the sleeper's look sees the work.
        fence(Ordering::SeqCst);
        // SYNC doorbell-announced: the count is at least as new as the sleeper.
        (self.words.load_acquire_i32(SLEEPING_OFFSET) != 0)
            .then(|| self.words.load_relaxed_i32(SLEEPS_OFFSET))
    }
}

/// What wakes a thread that sleeps elsewhere than on the futex of its doorbell.
#[cfg(not(loom))]
pub trait Alarm: Send + Sync + core::fmt::Debug {
    /// Ends the sleep, or the next one if the thread is awake. Never blocks; what it can not do the longest wait of
    /// the sleeper makes good.
    fn sound(&self);
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The doorbell rang since the remembered sequence.
    Rung,
    /// The time was over, or a signal came.
    TimedOut,
}

/// A doorbell in shared memory or on the heap; cloning shares it.
#[cfg(not(loom))]
#[derive(Clone, Debug)]
pub struct Doorbell {
    view: View,
    words: DoorbellWords<View>,
    /// Instead of the futex.
    alarm: Option<Arc<dyn Alarm>>,
}

#[cfg(not(loom))]
impl Doorbell {
    /// Longest wait in one call; a wait for longer returns early.
    pub const WAIT_MAX: Duration = Duration::from_secs(3600);

    /// A doorbell over the first [`DOORBELL_LENGTH`] bytes of a view, which may be shared with other processes.
    ///
    /// # Panics
    /// If the view is shorter.
    #[must_use]
    pub fn new(view: View) -> Self {
        Self {
            words: DoorbellWords::new(view.clone()),
            view,
            alarm: None,
        }
    }

    /// As [`Self::new`], for a thread that is not woken by the futex but by `alarm`. [`Self::wait`] is not for it.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_alarm(view: View, alarm: Arc<dyn Alarm>) -> Self {
        Self {
            alarm: Some(alarm),
            ..Self::new(view)
        }
    }

    /// The words, for a thread that sleeps by its own means.
    #[must_use]
    pub fn words(&self) -> &DoorbellWords<View> {
        &self.words
    }

    /// A doorbell for the threads of this process.
    #[must_use]
    pub fn heap() -> Self {
        Self::new(Region::heap(DOORBELL_LENGTH).as_view())
    }

    /// The sequence, to be remembered before looking for work and handed to [`Self::wait`].
    #[inline]
    #[must_use]
    pub fn sequence(&self) -> i32 {
        self.words.sequence()
    }

    /// Wakes whoever waits. Comes after the work it announces was stored.
    #[inline]
    pub fn ring(&self) {
        if self.words.raise() {
            self.wake_sleepers();
        }
    }

    /// Sleeps until the doorbell rings, the time is over or a signal comes; returns at once if it rang since `seen`.
    pub fn wait(&self, seen: i32, timeout: Duration) -> Woken {
        if self.words.enter(seen) {
            self.sleep(seen, timeout.min(Self::WAIT_MAX));
        }
        self.words.leave();
        if self.words.sequence() == seen {
            Woken::TimedOut
        } else {
            Woken::Rung
        }
    }

    fn futex_word(&self) -> *mut i32 {
        self.view.pointer(SEQUENCE_OFFSET, size_of::<i32>()).cast()
    }

    #[cold]
    fn wake_sleepers(&self) {
        if let Some(alarm) = &self.alarm {
            alarm.sound();
            return;
        }
        // SAFETY: FUTEX_WAKE(uaddr, op, count) reads no memory of ours; the address is a 4-byte aligned word that
        // `view` keeps mapped for the whole call. No PRIVATE flag, as sleepers may be other processes.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.futex_word(),
                libc::FUTEX_WAKE,
                libc::c_int::MAX,
            );
        }
    }

    fn sleep(&self, seen: i32, timeout: Duration) {
        let relative = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
        };
        // SAFETY: FUTEX_WAIT(uaddr, op, value, timeout) reads the word, a 4-byte aligned one that `view` keeps
        // mapped for the whole call, and `relative`, a valid timespec (below 3601 s, nanoseconds below 10^9) that
        // outlives the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.futex_word(),
                libc::FUTEX_WAIT,
                seen,
                &raw const relative,
            )
        };
        if result != 0 {
            let error = std::io::Error::last_os_error().raw_os_error();
            if !matches!(error, Some(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT)) {
                // The word can not be waited on (its file was truncated, or the call is forbidden). Without a real
                // wait here the caller would spin.
                super::idle::sleep(timeout);
            }
        }
    }
}

/// A doorbell for one who stores work all the time, and only looks whether somebody sleeps. At most one alarm is given
/// per announcement of the sleeper. Used by one thread at a time.
#[cfg(not(loom))]
#[derive(Debug)]
pub struct OfferBell {
    words: DoorbellWords<View>,
    alarm: Arc<dyn Alarm>,
    /// The announcement that the last alarm answered.
    answered: Cell<Option<i32>>,
}

#[cfg(not(loom))]
impl OfferBell {
    /// A bell over the first [`DOORBELL_LENGTH`] bytes of a view.
    ///
    /// # Panics
    /// If the view is shorter.
    #[must_use]
    pub fn new(view: View, alarm: Arc<dyn Alarm>) -> Self {
        Self {
            words: DoorbellWords::new(view),
            alarm,
            answered: Cell::new(None),
        }
    }

    /// Comes after work was stored: wakes the sleeper if there is one. Costs a fence and a load if there is none.
    #[inline(always)]
    pub fn after_offer(&self) {
        if let Some(announcement) = self.words.announcement() {
            self.answer(announcement);
        }
    }

    #[cold]
    fn answer(&self, announcement: i32) {
        if self.answered.replace(Some(announcement)) != Some(announcement) {
            self.alarm.sound();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::AtomicUsize;
    use crate::time::SystemClock;

    #[derive(Debug, Default)]
    struct Counted(AtomicUsize);

    impl Alarm for Counted {
        fn sound(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_alarm_takes_the_place_of_the_futex() {
        let alarm = Arc::new(Counted::default());
        let doorbell = Doorbell::with_alarm(Region::heap(DOORBELL_LENGTH).as_view(), alarm.clone());
        doorbell.ring();
        assert_eq!(alarm.0.load(Ordering::Relaxed), 0, "nobody sleeps");
        doorbell.words().announce();
        doorbell.ring();
        assert_eq!(alarm.0.load(Ordering::Relaxed), 1);
        doorbell.words().leave();
        doorbell.ring();
        assert_eq!(alarm.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_offer_gives_one_alarm_per_announcement() {
        let alarm = Arc::new(Counted::default());
        let region = Region::heap(DOORBELL_LENGTH);
        let sleeper = DoorbellWords::new(region.as_view());
        let one = OfferBell::new(region.as_view(), alarm.clone());
        let other = OfferBell::new(region.as_view(), alarm.clone());
        let alarms_after = |bell: &OfferBell| {
            bell.after_offer();
            alarm.0.load(Ordering::Relaxed)
        };
        assert_eq!(alarms_after(&one), 0);
        sleeper.announce();
        assert_eq!(alarms_after(&one), 1);
        assert_eq!(alarms_after(&one), 1);
        assert_eq!(alarms_after(&other), 2, "each bell for itself");
        sleeper.announce_again();
        assert_eq!(alarms_after(&one), 3);
        sleeper.leave();
        assert_eq!(alarms_after(&other), 3);
        sleeper.announce();
        assert_eq!(alarms_after(&other), 4);
    }

    #[test]
    fn a_ring_before_the_wait_is_not_lost() {
        let doorbell = Doorbell::heap();
        let seen = doorbell.sequence();
        doorbell.ring();
        assert_eq!(doorbell.wait(seen, Duration::from_secs(60)), Woken::Rung);
    }

    #[test]
    fn a_quiet_doorbell_ends_the_wait_when_the_time_is_over() {
        let doorbell = Doorbell::heap();
        let before = SystemClock.nanos();
        assert_eq!(
            doorbell.wait(doorbell.sequence(), Duration::from_millis(5)),
            Woken::TimedOut
        );
        assert!(SystemClock.nanos().since(before) >= 5_000_000);
    }

    #[test]
    fn a_sleeper_in_another_mapping_of_the_file_is_woken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bell");
        let ours = crate::memory::mapped::create(&path, 4096, 0o600, crate::memory::mapped::Blocks::Allocate)
            .unwrap();
        let theirs = crate::memory::mapped::open(&path).unwrap();
        let sleeper = Doorbell::new(ours.as_view());
        let ringer = Doorbell::new(theirs.as_view());
        let seen = sleeper.sequence();
        std::thread::scope(|scope| {
            let woken = scope.spawn(|| sleeper.wait(seen, Duration::from_secs(60)));
            while theirs.as_view().load_acquire_i32(SLEEPING_OFFSET) == 0 {
                std::thread::yield_now();
            }
            ringer.ring();
            assert_eq!(woken.join().unwrap(), Woken::Rung);
        });
        assert_eq!(theirs.as_view().load_acquire_i32(SLEEPING_OFFSET), 0);
    }

    #[test]
    fn waiting_on_a_truncated_file_still_takes_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bell");
        let region =
            crate::memory::mapped::create(&path, 4096, 0o600, crate::memory::mapped::Blocks::Allocate)
                .unwrap();
        let doorbell = Doorbell::new(region.as_view());
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        let before = SystemClock.nanos();
        assert_eq!(doorbell.wait(0, Duration::from_millis(5)), Woken::TimedOut);
        assert!(SystemClock.nanos().since(before) >= 5_000_000);
    }

    #[test]
    fn nonsense_in_the_words_costs_no_more_than_the_timeout() {
        for (sequence, sleeping) in [(i32::MAX, i32::MAX), (i32::MIN, -1), (-1, i32::MIN)] {
            let region = Region::heap(DOORBELL_LENGTH);
            region.as_view().store_relaxed_i32(SEQUENCE_OFFSET, sequence);
            region.as_view().store_relaxed_i32(SLEEPING_OFFSET, sleeping);
            let doorbell = Doorbell::new(region.as_view());
            let seen = doorbell.sequence();
            assert_eq!(doorbell.wait(seen, Duration::from_millis(1)), Woken::TimedOut);
            doorbell.ring();
            assert_eq!(doorbell.wait(seen, Duration::from_millis(1)), Woken::Rung);
        }
    }
}
