//! Simulated worlds from fixed seeds: nothing they draw breaks a rule, two runs of a seed do the same, and rules that
//! are broken on purpose are seen.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use fulmar_media_driver::sim::report::{Report, Summary};
use fulmar_media_driver::sim::{Link, swarm};

/// Enough for every kind of fault to be drawn; `fulmar sim` runs as many as one likes.
const SEEDS: std::ops::Range<u64> = 0..50;

fn run(scenario: &str, seed: u64) -> Report {
    swarm::run(seed, swarm::plan(scenario, seed).unwrap())
}

#[test]
fn no_swarm_of_the_fixed_seeds_breaks_a_rule() {
    let mut summary = Summary::default();
    for seed in SEEDS {
        let report = run(swarm::SWARM, seed);
        assert!(report.violation.is_none(), "{report}");
        assert!(report.delivered > 0, "seed {seed:#x} moved nothing");
        summary.add(&report);
    }
    let seen = |kind| summary.faults.get(kind).copied().unwrap_or(0);
    for kind in [
        "agent stalled",
        "client closed",
        "client killed",
        "client stalled",
        "claim left open",
        "datagram corrupted",
        "datagram cut off",
        "datagram duplicated",
        "datagram held by a clog",
        "datagram lost",
        "datagram refused",
        "datagram reordered",
        "driver closed",
        "driver killed",
        "link narrow",
        "queue or buffer full",
        "storage short",
        "stream opened again",
        "wall clock stepped",
    ] {
        assert!(seen(kind) > 0, "no {kind} in any world: {:?}", summary.faults);
    }
}

#[test]
fn two_runs_of_a_seed_do_the_same_and_two_seeds_do_not() {
    let mut traces = Vec::new();
    for seed in 0..4 {
        let (first, second) = (run(swarm::SWARM, seed), run(swarm::SWARM, seed));
        assert_eq!(first, second, "seed {seed:#x}");
        traces.push(first.trace);
    }
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 4);
}

#[test]
fn corruption_that_no_checksum_finds_is_seen() {
    let found = (0..5).any(|seed| {
        let mut plan = swarm::plan("two-hosts", seed).unwrap();
        plan.checksums = false;
        plan.faulty_link = Link {
            corrupt_ppm: 100_000,
            ..plan.faulty_link
        };
        plan.faults_ns = 2_000_000_000;
        swarm::run(seed, plan).violation.is_some()
    });
    assert!(found, "damaged datagrams passed all checks");
}

#[test]
fn a_link_that_stays_cut_is_seen() {
    let mut plan = swarm::plan("two-hosts", 1).unwrap();
    plan.faults_ns = 1_000_000_000;
    plan.healed_link.is_cut = true;
    let report = swarm::run(1, plan);
    let violation = report.violation.as_ref().unwrap();
    assert_eq!(violation.rule, "everybody gets on after the faults");
    assert!(
        report
            .to_string()
            .ends_with("replay: fulmar sim --seed 0x1 --scenario two-hosts")
    );
}

#[test]
fn an_image_that_ends_is_seen_where_none_may() {
    let mut plan = swarm::plan("partition", 3).unwrap();
    plan.keeps_images = true;
    let broken = (0..5).any(|seed| {
        let report = swarm::run(seed, plan.clone());
        report
            .violation
            .is_some_and(|violation| violation.rule == "small faults break no image")
    });
    assert!(broken, "no image ended");
}

#[test]
fn a_world_without_end_is_seen() {
    let mut plan = swarm::plan("two-hosts", 1).unwrap();
    plan.rounds_max = 100;
    let violation = swarm::run(1, plan).violation;
    assert_eq!(violation.map(|violation| violation.rule), Some("worlds end"));
}
