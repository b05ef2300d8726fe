//! A world can be seen again, whatever became of it: a panic has a line that replays it, a capture changes nothing, and
//! the same seeds give the same trace.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fs::{self, File};
use std::io::{self, Write};

use fulmar_media_driver::sim::plan::{Event, Plan};
use fulmar_media_driver::sim::report::Summary;
use fulmar_media_driver::sim::swarm;

/// A short world.
fn plan() -> Plan {
    let mut plan = swarm::plan("lossy", 7).unwrap();
    plan.faults_ns = 1_000_000_000;
    plan
}

#[test]
fn a_world_that_panics_is_a_violation_with_a_line_that_replays_it() {
    let mut plan = plan();
    // There is no such client: the world runs into it half a second later.
    plan.events = vec![(
        500_000_000,
        Event::StallClient {
            client: 99,
            for_ns: 1,
        },
    )];
    let report = swarm::run(7, plan.clone());
    let violation = report.violation.as_ref().unwrap();
    assert_eq!(violation.rule, "no panics");
    assert!(
        violation.what.contains("index is 99") && violation.what.contains("sim/world/"),
        "{violation}"
    );
    let text = report.to_string();
    assert!(
        text.ends_with("replay: fulmar sim --seed 0x7 --scenario lossy"),
        "{text}"
    );
    assert!(
        text.contains("0.500000 StallClient"),
        "the last events are there: {text}"
    );
    assert!(
        report.simulated_ns >= 500_000_000 && report.delivered > 0,
        "{report:?}"
    );
    assert_eq!(report, swarm::run(7, plan));
}

#[test]
fn a_world_that_can_not_be_made_is_a_violation_too() {
    let mut plan = plan();
    plan.settings.push(("aeron.mtu.length", "much".to_owned()));
    let report = swarm::run(9, plan);
    assert_eq!(report.violation.as_ref().unwrap().rule, "drivers start");
    assert!(
        report
            .to_string()
            .ends_with("fulmar sim --seed 0x9 --scenario lossy")
    );
}

#[test]
fn a_capture_holds_every_datagram_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let run = |name: &str| {
        let path = directory.path().join(name);
        let report = swarm::run_captured(7, plan(), Box::new(File::create(&path).unwrap()));
        (report, fs::read(path).unwrap())
    };
    let (report, bytes) = run("first");
    assert_eq!((report.clone(), bytes.clone()), run("second"));
    assert_eq!(report, swarm::run(7, plan()));
    let mut packets = 0;
    let mut rest = &bytes[24..];
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        rest = &rest[16 + length..];
        packets += 1;
    }
    assert_eq!(packets, report.packets);
}

struct Broken;

impl Write for Broken {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("no space left"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_capture_that_can_not_be_written_is_said() {
    let report = swarm::run_captured(7, plan(), Box::new(Broken));
    let text = report.violation.unwrap().to_string();
    assert!(text.contains("the capture is written: no space left"), "{text}");
}

#[test]
fn the_same_seeds_give_the_same_trace_and_others_another() {
    let trace = |seeds: std::ops::Range<u64>| {
        let mut summary = Summary::default();
        for seed in seeds {
            let report = swarm::run(seed, plan());
            assert!(report.violation.is_none(), "{report}");
            summary.add(&report);
        }
        summary.trace
    };
    let first = trace(0..3);
    assert_eq!(first, trace(0..3));
    assert_ne!(first, trace(1..4));
    assert_ne!(first, trace(0..2));
}

#[test]
fn a_good_world_tells_its_last_events_too() {
    let report = swarm::run(7, plan());
    assert!(report.violation.is_none(), "{report}");
    let last = report.last_events.last().unwrap();
    assert!(last.contains("all clients close"), "{last}");
    assert!(!report.to_string().contains(last), "they are told on request");
}
