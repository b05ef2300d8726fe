//! When a quiet stream repeats itself: heartbeats and status messages of many streams, which began at any time, come to
//! stand on one grid, so that one wake-up of the agent and one wake-up of the peer serve all of them.
#![forbid(unsafe_code)]

use fulmar::time::NanoTime;

/// When a heartbeat is due that repeats the one sent at `last`: not later than `interval_ns` after it, nor earlier by a
/// quarter of that. After at most eight heartbeats they are due at whole multiples of the interval.
#[inline]
#[must_use]
pub fn next_heartbeat(last: NanoTime, interval_ns: i64) -> NanoTime {
    next(last, interval_ns, interval_ns, interval_ns / 8)
}

/// When a status message is due that repeats the one sent at `last`: not later than `interval_ns` after it, nor earlier
/// by a sixteenth of that. After at most sixteen they are due at multiples of half the interval, which for the usual
/// intervals is when heartbeats come.
#[inline]
#[must_use]
pub fn next_status_message(last: NanoTime, interval_ns: i64) -> NanoTime {
    next(last, interval_ns, interval_ns / 2, interval_ns / 32)
}

/// On the way to the grid streams stand on a finer one, of steps: each repetition is early by what is beyond a step, and
/// by one more step.
#[inline]
fn next(last: NanoTime, interval_ns: i64, grid_ns: i64, step_ns: i64) -> NanoTime {
    let latest = last.plus_nanos(interval_ns);
    if step_ns <= 0 {
        return latest;
    }
    let past_grid = latest.0.rem_euclid(grid_ns);
    let early = if past_grid < step_ns {
        past_grid
    } else {
        past_grid % step_ns + step_ns
    };
    latest.plus_nanos(-early)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    /// Each wake-up is a little late.
    const LATE: i64 = 80_000;

    fn comes_to_the_grid(
        next: fn(NanoTime, i64) -> NanoTime,
        interval: i64,
        shortest: i64,
        grid: i64,
        rounds: usize,
    ) {
        for start in (-300 * MS..300 * MS).step_by(1_234_567) {
            let mut last = NanoTime(start);
            for round in 0..rounds + 4 {
                let due = next(last, interval);
                let waited = due.since(last);
                assert!(waited <= interval && waited > shortest, "{waited} from {last:?}");
                if round >= rounds {
                    assert_eq!(due.0.rem_euclid(grid), 0, "from {start}");
                    assert_eq!(waited, interval - LATE);
                }
                last = due.plus_nanos(LATE);
            }
        }
    }

    #[test]
    fn repetitions_come_to_the_grid_and_none_comes_late_or_much_too_early() {
        comes_to_the_grid(next_heartbeat, 100 * MS, 75 * MS, 100 * MS, 8);
        comes_to_the_grid(next_status_message, 200 * MS, 187 * MS, 100 * MS, 16);
    }

    #[test]
    fn any_interval_will_do() {
        for interval in [0, 1, 2, 7, 8, 9, 31, 32, 33, 63, 65] {
            for next in [next_heartbeat, next_status_message] {
                let waited = next(NanoTime(1000), interval).since(NanoTime(1000));
                assert!((0..=interval).contains(&waited), "{interval}: {waited}");
            }
        }
        assert!(next_heartbeat(NanoTime(i64::MAX), 100).since(NanoTime(i64::MAX)) > 70);
    }
}
