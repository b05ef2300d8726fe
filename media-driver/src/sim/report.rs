//! What came of simulated worlds, in numbers and as text.
#![forbid(unsafe_code)]

use core::fmt;
use std::collections::BTreeMap;

use super::checkers::Violation;

/// What one world came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Its scenario.
    pub scenario: String,
    /// How much time passed in it, nanoseconds.
    pub simulated_ns: i64,
    /// Messages that publishers got rid of.
    pub offered: u64,
    /// Messages that subscribers took, each counted for each.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Datagrams that were sent.
    pub packets: u64,
    /// Rounds in which every agent could have a turn.
    pub rounds: u64,
    /// How often which fault was there.
    pub faults: BTreeMap<&'static str, u64>,
    /// Hash of everything that happened; equal for equal seeds.
    pub trace: u64,
    /// What was wrong, if anything.
    pub violation: Option<Violation>,
    /// The last things that happened, before that or before the end.
    pub last_events: Vec<String>,
}

impl Report {
    /// What to type to see this world again.
    #[must_use]
    pub fn replay_line(&self) -> String {
        format!("fulmar sim --seed {:#x} --scenario {}", self.seed, self.scenario)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(violation) = &self.violation else {
            return write!(
                f,
                "seed {:#x} ({}): {} messages in {:.1} s",
                self.seed,
                self.scenario,
                self.delivered,
                seconds(self.simulated_ns)
            );
        };
        writeln!(f, "violation: {violation}")?;
        for event in &self.last_events {
            writeln!(f, "  {event}")?;
        }
        write!(f, "replay: {}", self.replay_line())
    }
}

/// Many worlds together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Worlds that were run.
    pub worlds: u64,
    /// Those with a violation.
    pub failed: u64,
    /// As in [`Report`], added up.
    pub simulated_ns: i64,
    /// As in [`Report`], added up.
    pub offered: u64,
    /// As in [`Report`], added up.
    pub delivered: u64,
    /// As in [`Report`], added up.
    pub delivered_bytes: u64,
    /// As in [`Report`], added up.
    pub packets: u64,
    /// As in [`Report`], added up.
    pub faults: BTreeMap<&'static str, u64>,
    /// Hash of the seeds and traces of all worlds, in the order in which they were added; equal wherever the same seeds
    /// are run.
    pub trace: u64,
}

impl Summary {
    /// Adds a world. The trace depends on the order, so worlds are added in the order of their seeds.
    pub fn add(&mut self, report: &Report) {
        for value in [report.seed, report.trace] {
            self.trace = (self.trace ^ value)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(29);
        }
        self.worlds += 1;
        self.failed += u64::from(report.violation.is_some());
        self.simulated_ns = self.simulated_ns.saturating_add(report.simulated_ns);
        self.offered += report.offered;
        self.delivered += report.delivered;
        self.delivered_bytes += report.delivered_bytes;
        self.packets += report.packets;
        for (kind, count) in &report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }

    /// The summary as text; `wall_ns` is how long it took, nanoseconds.
    #[must_use]
    pub fn render(&self, wall_ns: i64) -> String {
        let wall = seconds(wall_ns).max(0.001);
        let mut text = format!(
            "{} worlds, {} failed\n{:.1} s simulated in {wall:.1} s ({:.0} s a minute)\n{} messages offered, {} delivered \
             ({} bytes), {} packets\n",
            self.worlds,
            self.failed,
            seconds(self.simulated_ns),
            seconds(self.simulated_ns) / wall * 60.0,
            self.offered,
            self.delivered,
            self.delivered_bytes,
            self.packets,
        );
        for (kind, count) in self.faults.iter().filter(|(_, count)| **count > 0) {
            text.push_str(&format!("  {kind:<24}{count:>12}\n"));
        }
        text.push_str(&format!("trace {:#018x}\n", self.trace));
        text
    }
}

fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_world_says_how_to_see_it_again() {
        let report = Report {
            seed: 0x2a,
            scenario: "swarm".to_owned(),
            violation: Some(Violation::new("no gaps", "there is one".to_owned())),
            last_events: vec!["something".to_owned()],
            ..Report::default()
        };
        let text = report.to_string();
        assert_eq!(
            text,
            "violation: no gaps: there is one\n  something\nreplay: fulmar sim --seed 0x2a --scenario swarm"
        );
        let mut summary = Summary::default();
        summary.add(&report);
        summary.add(&Report {
            simulated_ns: 3_000_000_000,
            faults: BTreeMap::from([("datagram lost", 3), ("driver killed", 0)]),
            ..Report::default()
        });
        let text = summary.render(1_000_000_000);
        assert!(text.contains("2 worlds, 1 failed"), "{text}");
        assert!(text.contains("(180 s a minute)"), "{text}");
        assert!(
            text.contains("datagram lost") && !text.contains("driver killed"),
            "{text}"
        );
    }

    #[test]
    fn the_trace_of_a_summary_is_that_of_its_worlds_in_their_order() {
        let world = |seed, trace| Report {
            seed,
            trace,
            ..Report::default()
        };
        let summary = |worlds: &[Report]| {
            let mut summary = Summary::default();
            worlds.iter().for_each(|world| summary.add(world));
            summary
        };
        let worlds = [world(1, 10), world(2, 20)];
        let trace = summary(&worlds).trace;
        assert_eq!(trace, summary(&worlds).trace);
        for others in [
            &[world(2, 20), world(1, 10)][..],
            &[world(1, 10), world(2, 21)],
            &[world(1, 10), world(3, 20)],
            &[world(1, 10)],
        ] {
            assert_ne!(trace, summary(others).trace, "{others:?}");
        }
        let (slow, fast) = (summary(&worlds).render(1 << 40), summary(&worlds).render(1));
        let last = |text: &str| text.lines().last().map(str::to_owned);
        assert_eq!(last(&slow), Some(format!("trace {trace:#018x}")));
        assert_eq!(last(&slow), last(&fast), "the time it took is not part of it");
    }
}
