//! When a quiet stream repeats itself: heartbeats and status messages of many streams, which began at any time, come to
//! stand on one grid, so that one wake-up of the agent and one wake-up of the peer serve all of them.
//!
//! Where an endpoint has hundreds of them, they share several phases of the grid instead of one: all at once they would
//! fill the socket that takes them, and always the same ones would be lost.
#![forbid(unsafe_code)]

use fulmar::id::{SessionId, StreamId};
use fulmar::time::NanoTime;

/// Streams of one endpoint that share a phase: half of what a socket of the usual length holds of the shortest frames.
pub const STREAMS_PER_PHASE: usize = 128;
/// Phases stand at multiples of this, ns: when the sender looks at its timers.
pub const PHASE_STEP_NS: i64 = 4_000_000;
/// Phases at most: they fit between two heartbeats. So many times [`STREAMS_PER_PHASE`] streams are spread.
pub const PHASES_MAX: usize = 25;

/// By how much the repetitions of a stream stand beside the grid, ns, one of so many streams of an endpoint. Both ends
/// come to the same as long as they have the same number of streams: then they share their wake-ups.
#[must_use]
pub fn phase_ns(stream_id: StreamId, session_id: SessionId, phases: usize) -> i64 {
    let mixed = (u64::from(stream_id.0 as u32) << 32 | u64::from(session_id.0 as u32))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let phases = phases.clamp(1, PHASES_MAX);
    let phase = (mixed >> 32) as usize % phases;
    (phase * PHASES_MAX / phases) as i64 * PHASE_STEP_NS
}

/// Phases that so many streams of an endpoint are spread over.
#[must_use]
pub fn phases(streams: usize) -> usize {
    streams.div_ceil(STREAMS_PER_PHASE).clamp(1, PHASES_MAX)
}

/// When a heartbeat is due that repeats the one sent at `last`: not later than `interval_ns` after it, nor earlier by a
/// quarter of that. After at most eight heartbeats they are due `phase_ns` after whole multiples of the interval.
#[inline]
#[must_use]
pub fn next_heartbeat(last: NanoTime, interval_ns: i64, phase_ns: i64) -> NanoTime {
    next(last, interval_ns, (interval_ns, phase_ns), interval_ns / 8)
}

/// When a status message is due that repeats the one sent at `last`: not later than `interval_ns` after it, nor earlier
/// by a sixteenth of that. After at most sixteen they are due `phase_ns` after multiples of half the interval, which for
/// the usual intervals is when heartbeats come.
#[inline]
#[must_use]
pub fn next_status_message(last: NanoTime, interval_ns: i64, phase_ns: i64) -> NanoTime {
    next(last, interval_ns, (interval_ns / 2, phase_ns), interval_ns / 32)
}

/// On the way to the grid streams stand on a finer one, of steps: each repetition is early by what is beyond a step, and
/// by one more step.
#[inline]
fn next(last: NanoTime, interval_ns: i64, (grid_ns, phase_ns): (i64, i64), step_ns: i64) -> NanoTime {
    let latest = last.plus_nanos(interval_ns);
    if step_ns <= 0 {
        return latest;
    }
    let past_grid = latest.0.wrapping_sub(phase_ns).rem_euclid(grid_ns);
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
        next: fn(NanoTime, i64, i64) -> NanoTime,
        interval: i64,
        shortest: i64,
        (grid, phase): (i64, i64),
        rounds: usize,
    ) {
        for start in (-300 * MS..300 * MS).step_by(1_234_567) {
            let mut last = NanoTime(start);
            for round in 0..rounds + 4 {
                let due = next(last, interval, phase);
                let waited = due.since(last);
                assert!(waited <= interval && waited > shortest, "{waited} from {last:?}");
                if round >= rounds {
                    assert_eq!(due.0.rem_euclid(grid), phase, "from {start}");
                    assert_eq!(waited, interval - LATE);
                }
                last = due.plus_nanos(LATE);
            }
        }
    }

    #[test]
    fn repetitions_come_to_the_grid_and_none_comes_late_or_much_too_early() {
        for phase in [0, 8 * MS, 96 * MS] {
            comes_to_the_grid(next_heartbeat, 100 * MS, 75 * MS, (100 * MS, phase), 8);
            comes_to_the_grid(next_status_message, 200 * MS, 187 * MS, (100 * MS, phase), 16);
        }
    }

    #[test]
    fn any_interval_will_do() {
        for interval in [0, 1, 2, 7, 8, 9, 31, 32, 33, 63, 65] {
            for next in [next_heartbeat, next_status_message] {
                for phase in [0, 5, PHASE_STEP_NS] {
                    let waited = next(NanoTime(1000), interval, phase).since(NanoTime(1000));
                    assert!((0..=interval).contains(&waited), "{interval}: {waited}");
                }
            }
        }
        assert!(next_heartbeat(NanoTime(i64::MAX), 100, 8).since(NanoTime(i64::MAX)) > 70);
    }

    #[test]
    fn few_streams_share_one_phase_and_many_are_spread_evenly() {
        assert_eq!(phases(0), 1);
        assert_eq!(phases(STREAMS_PER_PHASE), 1);
        assert_eq!(phases(STREAMS_PER_PHASE + 1), 2);
        assert_eq!(phases(1_000_000), PHASES_MAX);
        assert_eq!(phase_ns(StreamId(-1), SessionId(-1), 1), 0);
        for streams in [300, 1000, 3000] {
            let mut members = std::collections::BTreeMap::<i64, usize>::new();
            for stream in 0..streams {
                let session = SessionId((stream as i32).wrapping_mul(77_777_777));
                let phase = phase_ns(StreamId(1000 + stream as i32), session, phases(streams));
                assert!((0..100 * MS).contains(&phase) && phase % PHASE_STEP_NS == 0);
                *members.entry(phase).or_default() += 1;
            }
            assert_eq!(members.len(), phases(streams));
            let most = members.values().max().copied().unwrap();
            assert!(most <= STREAMS_PER_PHASE * 5 / 4, "{streams}: {members:?}");
        }
        // One session per publisher, and streams of one session.
        let alike = (0..1000).map(|n| phase_ns(StreamId(7), SessionId(n), 8));
        let of_one = (0..1000).map(|n| phase_ns(StreamId(n), SessionId(7), 8));
        for phases in [alike.collect::<Vec<_>>(), of_one.collect::<Vec<_>>()] {
            let first = phases.iter().filter(|phase| **phase == 0).count();
            assert!((100..=150).contains(&first), "{first}");
        }
    }
}
