//! Named worlds: each is about one thing that must go well, whatever the seed draws of the rest.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use fulmar_media_driver::sim::report::Report;
use fulmar_media_driver::sim::swarm;

/// Runs a scenario with three seeds; nothing may be wrong.
fn run(scenario: &str) -> Vec<Report> {
    (1..4)
        .map(|seed| {
            let report = swarm::run(seed, swarm::plan(scenario, seed).unwrap());
            assert!(report.violation.is_none(), "{report}");
            report
        })
        .collect()
}

fn faults(report: &Report, kind: &str) -> u64 {
    report.faults.get(kind).copied().unwrap_or(0)
}

#[test]
fn a_quiet_stream_between_two_hosts_loses_and_repeats_nothing() {
    for report in run("two-hosts") {
        assert!(report.delivered > 20_000, "{}", report.delivered);
        assert_eq!(report.delivered, report.offered);
        assert_eq!(faults(&report, "datagram lost"), 0);
    }
}

#[test]
fn a_link_that_does_everything_wrong_a_little_breaks_nothing() {
    for report in run("lossy") {
        assert_eq!(report.delivered, report.offered);
        for kind in [
            "datagram lost",
            "datagram duplicated",
            "datagram reordered",
            "datagram corrupted",
        ] {
            assert!(faults(&report, kind) > 0, "{kind}");
        }
    }
}

#[test]
fn hosts_that_did_not_hear_each_other_find_each_other_again() {
    for report in run("partition") {
        assert!(faults(&report, "datagram cut off") > 0);
    }
}

#[test]
fn a_driver_that_was_killed_has_a_successor_and_its_clients_go_on_there() {
    for report in run("restart") {
        assert_eq!(faults(&report, "driver killed"), 2);
    }
}

#[test]
fn publishers_that_die_in_a_claim_hold_nobody_up_for_ever() {
    for report in run("killed-mid-claim") {
        // The second one may find no room, because of what the first left open.
        assert!(faults(&report, "claim left open") >= 1);
        assert_eq!(faults(&report, "client killed"), 2);
        assert!(report.delivered > 0);
    }
}

#[test]
fn receivers_of_a_group_that_die_do_not_disturb_the_others() {
    for report in run("multicast") {
        assert_eq!(faults(&report, "client killed"), 1);
        assert_eq!(faults(&report, "driver killed"), 1);
        assert!(faults(&report, "datagram lost") > 0);
        // What the one that lives gets alone.
        assert!(report.delivered > report.offered, "{report}");
    }
}

#[test]
fn receivers_that_announce_themselves_or_are_named_come_and_go() {
    for report in run("mdc") {
        assert_eq!(faults(&report, "client closed"), 3);
        assert!(faults(&report, "datagram lost") > 0);
        assert!(report.delivered > 2 * report.offered, "{report}");
    }
}

#[test]
fn subscribers_with_two_sources_get_everything_of_both() {
    for report in run("mds") {
        assert!(faults(&report, "datagram lost") > 0);
        assert!(report.delivered > 0, "{report}");
    }
}

#[test]
fn spies_see_everything_beside_receivers_that_come_and_go() {
    for report in run("spy") {
        assert_eq!(faults(&report, "client closed"), 2);
        // The spies alone got all of it.
        assert!(report.delivered > report.offered, "{report}");
    }
}

#[test]
fn subscribers_of_a_publisher_that_closes_see_the_end_soon() {
    for report in run("closing") {
        assert_eq!(faults(&report, "end of stream seen"), 9);
    }
}

#[test]
fn an_end_that_is_not_announced_is_seen() {
    let mut plan = swarm::plan("closing", 1).unwrap();
    for (_, publisher) in &mut plan.streams[2].publishers {
        publisher.channel.push_str("|eos=false");
    }
    let report = swarm::run(1, plan);
    let violation = report.violation.as_ref().unwrap();
    assert_eq!(violation.rule, "the end of a stream is told", "{report}");
}

#[test]
fn publishers_and_images_that_find_no_room_come_when_there_is_some() {
    for report in run("no-space") {
        assert_eq!(faults(&report, "storage short"), 2);
        assert!(faults(&report, "publication refused for now") > 0);
        assert!(report.delivered > 0, "{report}");
    }
}
