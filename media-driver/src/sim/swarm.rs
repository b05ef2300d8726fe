//! Plans of worlds: named scenarios, and the swarm, in which the seed draws everything. In a swarm most kinds of faults
//! are off in most worlds, so that each is also seen alone and against others that are strong.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::Write;

use super::checkers::Violation;
use super::network::{Burst, CapturePoint, Link};
use super::plan::{Event, Plan, StreamPlan, host_address};
use super::prng::Prng;
use super::report::Report;
use super::scenarios::{self, link_fault, publisher, quiet, subscriber, unicast};
use super::workload::{Lengths, MESSAGE_LENGTH_MIN, Pause, PublisherPlan, Slow, SubscriberPlan};

const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

/// The scenario in which the seed draws everything.
pub const SWARM: &str = "swarm";

/// Makes the plan of a scenario from a seed.
type MakePlan = fn(u64) -> Plan;

/// All scenarios: name, what is in it, plan.
const SCENARIOS: &[(&str, &str, MakePlan)] = &[
    (SWARM, "everything is drawn from the seed", swarm),
    (
        "two-hosts",
        "one stream between two hosts, no faults",
        scenarios::two_hosts,
    ),
    (
        "lossy",
        "one stream between two hosts over a link that does everything wrong a little",
        scenarios::lossy,
    ),
    (
        "partition",
        "two hosts that do not hear each other for longer than images live",
        scenarios::partition,
    ),
    (
        "restart",
        "both drivers are killed and started again, one after the other",
        scenarios::restart,
    ),
    (
        "killed-mid-claim",
        "publishers that share a log die in the middle of their claims",
        scenarios::killed_mid_claim,
    ),
    (
        "multicast",
        "a group behind lossy links whose slowest sets the pace; one receiver dies, and the driver of another",
        scenarios::multicast,
    ),
    (
        "mdc",
        "receivers that announce themselves and receivers that are named, behind lossy links; they come and go",
        scenarios::mdc,
    ),
    (
        "mds",
        "subscribers with two sources: two publishers, one twice, one over the network and one in memory",
        scenarios::mds,
    ),
    (
        "spy",
        "spies beside receivers that come and go, one of which keeps the stream going alone",
        scenarios::spy,
    ),
    (
        "closing",
        "publishers close: their subscribers get everything and see the end long before images time out",
        scenarios::closing,
    ),
    (
        "no-space",
        "first the publisher's host has no room for logs, then the subscriber's",
        scenarios::no_space,
    ),
];

/// Names of all scenarios, and what is in them.
pub fn scenarios() -> impl Iterator<Item = (&'static str, &'static str)> {
    SCENARIOS.iter().map(|(name, about, _)| (*name, *about))
}

/// The plan of a scenario; `None` if there is none of this name.
#[must_use]
pub fn plan(scenario: &str, seed: u64) -> Option<Plan> {
    let (_, _, make) = SCENARIOS.iter().find(|(name, ..)| *name == scenario)?;
    Some(make(seed))
}

/// Runs a world. One that can not be made is one with a violation, and so is one that panics.
#[must_use]
pub fn run(seed: u64, plan: Plan) -> Report {
    super::run::run(seed, plan, |_| Ok(()))
}

/// Runs a world as [`run`] does, and writes every datagram that is sent in it to `capture`, as
/// [`SimNetwork::capture`](super::SimNetwork::capture) does. The world is the same as without.
#[must_use]
pub fn run_captured(seed: u64, plan: Plan, capture: Box<dyn Write + Send>) -> Report {
    super::run::run(seed, plan, |world| {
        world
            .network()
            .capture(capture, CapturePoint::Sent)
            .map_err(|error| Violation::new("the capture is written", error.to_string()))
    })
}

/// Everything from the seed.
fn swarm(seed: u64) -> Plan {
    let mut prng = Prng::new(seed, "plan");
    let hosts = *prng.pick(&[1, 2, 2, 3, 3, 4, 5]);
    let mut plan = quiet(SWARM, hosts);
    draw_settings(&mut plan, &mut prng);
    draw_streams(&mut plan, &mut prng);
    // Streams of their own: what is drawn for one kind of faults does not shift what is drawn for another.
    draw_link(&mut plan, &mut Prng::new(seed, "plan of links"));
    draw_partitions(&mut plan, &mut Prng::new(seed, "plan of partitions"));
    draw_stalls(&mut plan, &mut Prng::new(seed, "plan of stalls"));
    draw_wall_clocks(&mut plan, &mut Prng::new(seed, "plan of wall clocks"));
    draw_paces(&mut plan, &mut Prng::new(seed, "plan of paces"));
    draw_refusals(&mut plan, &mut Prng::new(seed, "plan of refusals"));
    draw_returns(&mut plan, &mut Prng::new(seed, "plan of returns"));
    draw_storage(&mut plan, &mut Prng::new(seed, "plan of storage"));
    draw_ends(&mut plan, &mut Prng::new(seed, "plan of ends"));
    plan.events.sort_by_key(|(at, _)| *at);
    plan
}

fn draw_settings(plan: &mut Plan, prng: &mut Prng) {
    let term = prng.pick(&["64k", "128k", "256k"]).to_string();
    plan.settings.push(("aeron.term.buffer.length", term.clone()));
    plan.settings.push(("aeron.ipc.term.buffer.length", term));
    let mtu = prng.pick(&["1408", "1408", "4k", "256"]).to_string();
    plan.settings.push(("aeron.mtu.length", mtu.clone()));
    plan.settings.push(("aeron.ipc.mtu.length", mtu));
    let messages = prng.between(1, 8).to_string();
    plan.settings
        .push(("aeron.network.publication.max.messages.per.send", messages));
    let strategy = prng.pick(&["default", "default", "cubic"]).to_string();
    if strategy == "cubic" {
        // Its window, in datagrams, grows with the third power of the seconds since the latest loss: 3 after two
        // seconds, 86 after six.
        plan.recovery_ns = plan.recovery_ns.max(12 * SECOND);
    }
    plan.settings.push(("aeron.congestioncontrol.supplier", strategy));
    if prng.chance(200_000) {
        plan.settings.push(("fulmar.nak.every.gap", "false".to_owned()));
    }
    if prng.chance(200_000) {
        // Windows that just fit into receive buffers that are small: while a receiver stands still, they overflow.
        let length = prng.pick(&["16k", "32k"]).to_string();
        plan.settings
            .push(("aeron.rcv.initial.window.length", length.clone()));
        plan.settings.push(("aeron.socket.so_rcvbuf", length));
    }
    plan.missed_turn_ppm = *prng.pick(&[0, 10_000, 200_000]);
    plan.faults_ns = prng.between(2 * SECOND, 6 * SECOND);
}

/// How the publishers of a stream reach its subscribers.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Ipc,
    Unicast,
    Multicast,
    /// Receivers name themselves to the publisher.
    MdcDynamic,
    /// The publisher's application names the receivers.
    MdcManual,
    /// A subscriber with two sources, see [`draw_sources`].
    Mds,
}

fn draw_streams(plan: &mut Plan, prng: &mut Prng) {
    for stream in 0..prng.between(1, 3) {
        let kind = *prng.pick(&[
            Kind::Ipc,
            Kind::Unicast,
            Kind::Unicast,
            Kind::Multicast,
            Kind::MdcDynamic,
            Kind::MdcManual,
            Kind::Mds,
        ]);
        let mut drawn = StreamPlan::default();
        match kind {
            Kind::Mds => draw_sources(&mut drawn, plan.hosts, 40_001 + stream as u16, prng),
            _ => draw_receivers(&mut drawn, kind, plan.hosts, 40_001 + stream as u16, prng),
        }
        let lengths = Lengths {
            min: MESSAGE_LENGTH_MIN,
            max: *prng.pick(&[16, 200, 1_500, 7_000]),
        };
        let interval_ns = *prng.pick(&[3 * MILLISECOND, 10 * MILLISECOND, 30 * MILLISECOND]);
        let burst = prng.between(1, 5) as u32;
        let claim_ppm = *prng.pick(&[0, 300_000]);
        let lazy_ppm = *prng.pick(&[0, 0, 500_000]);
        let stream_id = 1001 + stream as i32;
        for (_, publisher) in &mut drawn.publishers {
            publisher.stream_id = stream_id;
            publisher.lengths = lengths;
            publisher.interval_ns = interval_ns;
            publisher.burst = burst;
            publisher.claim_ppm = claim_ppm;
        }
        for (_, subscriber) in &mut drawn.subscribers {
            subscriber.stream_id = stream_id;
            subscriber.lazy_ppm = lazy_ppm;
        }
        plan.streams.push(drawn);
    }
}

/// Some of the hosts, at least one; on a world of one host that one.
fn draw_hosts(hosts: usize, but: usize, prng: &mut Prng) -> Vec<usize> {
    let others: Vec<usize> = (0..hosts).filter(|host| hosts == 1 || *host != but).collect();
    let first = *prng.pick(&others);
    let is_taken = |host: &usize| *host == first || prng.chance(500_000);
    others.iter().copied().filter(is_taken).collect()
}

/// Publishers on one host, receivers on others, and spies.
fn draw_receivers(drawn: &mut StreamPlan, kind: Kind, hosts: usize, port: u16, prng: &mut Prng) {
    let from = prng.below(hosts as u64) as usize;
    let local = host_address(from);
    let mut receivers = draw_hosts(hosts, from, prng);
    let mut strategy = *prng.pick(&["max", "min", "tagged,g:7"]);
    let mut destinations = Vec::new();
    let group = format!("aeron:udp?endpoint=224.20.30.41:{port}|interface=");
    let control = format!("control={local}:{}|control-mode=", port + 200);
    let mut channel = match kind {
        Kind::Ipc => "aeron:ipc".to_owned(),
        Kind::Unicast | Kind::Mds => unicast(receivers[0], port),
        Kind::Multicast => format!("{group}{local}|fc={strategy}"),
        Kind::MdcDynamic => format!("aeron:udp?{control}dynamic|fc={strategy}"),
        Kind::MdcManual => {
            destinations = receivers.iter().map(|to| unicast(*to, port)).collect();
            format!("aeron:udp?{control}manual|fc={strategy}")
        }
    };
    match kind {
        Kind::Ipc => receivers = vec![from],
        Kind::Unicast => receivers.truncate(1),
        _ => {}
    }
    if matches!(kind, Kind::Ipc | Kind::Unicast) {
        strategy = "";
        if prng.chance(500_000) {
            receivers.push(receivers[0]);
        }
    }
    for to in receivers {
        let mut channel = match kind {
            Kind::Multicast => format!("{group}{}", host_address(to)),
            Kind::MdcDynamic => format!("{}|{control}dynamic", unicast(to, port)),
            Kind::MdcManual => unicast(to, port),
            _ => channel.clone(),
        };
        let is_tagged = strategy.starts_with("tagged") && prng.chance(700_000);
        if is_tagged {
            channel.push_str("|gtag=7");
        }
        let subscriber = SubscriberPlan {
            may_be_left_behind: strategy == "max" || (strategy.starts_with("tagged") && !is_tagged),
            ..subscriber(channel)
        };
        drawn.subscribers.push((to, subscriber));
    }
    if !matches!(kind, Kind::Ipc) && prng.chance(250_000) {
        if prng.chance(300_000) {
            channel.push_str("|ssc=true");
            // Spies keep the stream going without receivers: nobody waits for one that joins.
            for (_, subscriber) in &mut drawn.subscribers {
                subscriber.may_be_left_behind = true;
            }
        }
        let spy = subscriber(format!("aeron-spy:{channel}"));
        drawn.subscribers.push((from, spy));
    }
    // Destinations belong to the publication, not to who added them: only one may.
    let shares = prng.chance(300_000) && destinations.is_empty();
    let publisher = PublisherPlan {
        exclusive: !shares,
        destinations,
        ..publisher(channel)
    };
    drawn.publishers = vec![(from, publisher); 1 + usize::from(shares)];
}

/// One subscriber that listens at two addresses, or at one and in its own host's memory.
fn draw_sources(drawn: &mut StreamPlan, hosts: usize, port: u16, prng: &mut Prng) {
    let to = prng.below(hosts as u64) as usize;
    let from = draw_hosts(hosts, to, prng);
    let (from, other) = (from[0], from[from.len() - 1]);
    let (first, second) = (unicast(to, port), unicast(to, port + 100));
    let control = format!("control={}:{}|control-mode=", host_address(from), port + 200);
    let mut destinations = vec![first.clone(), second.clone()];
    match prng.below(4) {
        // Two publishers, each at its address.
        0 => {
            drawn.publishers.push((from, publisher(first)));
            drawn.publishers.push((other, publisher(second)));
        }
        // One publisher that sends everything to both.
        1 => {
            let publisher = PublisherPlan {
                destinations: destinations.clone(),
                ..publisher(format!("aeron:udp?{control}manual|fc=min"))
            };
            drawn.publishers.push((from, publisher));
        }
        // The subscriber announces itself to one of them.
        2 => {
            destinations[0] = format!("{first}|{control}dynamic");
            let channel = format!("aeron:udp?{control}dynamic|fc=min");
            drawn.publishers.push((from, publisher(channel)));
            drawn.publishers.push((other, publisher(second)));
        }
        // One of them is on the subscriber's host.
        _ => {
            destinations[1] = "aeron:ipc".to_owned();
            drawn.publishers.push((from, publisher(first)));
            drawn.publishers.push((to, publisher("aeron:ipc".to_owned())));
        }
    }
    let subscriber = SubscriberPlan {
        destinations,
        ..subscriber("aeron:udp?control-mode=manual".to_owned())
    };
    drawn.subscribers.push((to, subscriber));
}

/// Off in half of the cases, else up to a maximum, small values more often.
fn weight(prng: &mut Prng, max_ppm: u64) -> u32 {
    match prng.below(4) {
        0 => prng.below(max_ppm + 1) as u32,
        1 => prng.below(max_ppm / 10 + 1) as u32,
        _ => 0,
    }
}

fn draw_link(plan: &mut Plan, prng: &mut Prng) {
    let delay_ns = prng.between(0, 2 * MILLISECOND) as u64;
    plan.healed_link.delay_ns = delay_ns;
    let burst = Burst {
        enter_ppm: weight(prng, 5_000),
        leave_ppm: prng.between(50_000, 1_000_000) as u32,
    };
    let bytes_per_second = prng.between(1_000_000, 100_000_000) as u64;
    let queue_bytes = *prng.pick(&[16 << 20, 64 << 10, 8 << 10]);
    plan.faulty_link = Link {
        delay_ns,
        jitter_ns: prng.between(0, MILLISECOND) as u64,
        loss_ppm: weight(prng, 200_000),
        burst: (burst.enter_ppm > 0).then_some(burst),
        duplicate_ppm: weight(prng, 100_000),
        reorder_ppm: weight(prng, 200_000),
        reorder_ns: prng.between(0, 3 * MILLISECOND) as u64,
        corrupt_ppm: weight(prng, 50_000),
        bytes_per_second: prng.chance(300_000).then_some(bytes_per_second),
        queue_bytes,
        ..Link::perfect()
    };
    // A burst outlives an image of a quiet stream, and so may a queue that is always full.
    let link = &plan.faulty_link;
    let is_fast = link.bytes_per_second.is_none() || link.queue_bytes >= 16 << 20;
    plan.keeps_images = link.burst.is_none() && link.loss_ppm <= 50_000 && is_fast;
}

fn draw_partitions(plan: &mut Plan, prng: &mut Prng) {
    if plan.hosts < 2 || prng.chance(600_000) {
        return;
    }
    let normal = plan.faulty_link;
    for _ in 0..prng.between(1, 3) {
        let from = prng.below(plan.hosts as u64) as usize;
        let to = (from + prng.between(1, plan.hosts as i64 - 1) as usize) % plan.hosts;
        let at = prng.between(0, plan.faults_ns);
        let for_ns = prng.between(10 * MILLISECOND, 5 * SECOND);
        let (during, kind) = match prng.below(6) {
            0 | 1 => {
                let clogged = Link {
                    is_clogged: true,
                    ..normal
                };
                (clogged, "link clogged")
            }
            2 => {
                let mtu = prng.between(100, 1_200) as usize;
                (Link { mtu, ..normal }, "link narrow")
            }
            _ => {
                let cut = Link {
                    is_cut: true,
                    ..normal
                };
                (cut, "partition")
            }
        };
        let both = prng.chance(500_000);
        for pair in [(from, to), (to, from)].into_iter().take(1 + usize::from(both)) {
            link_fault(&mut plan.events, pair, (at, for_ns), during, normal, kind);
        }
    }
    plan.keeps_images = false;
    plan.recovery_ns = plan.recovery_ns.max(8 * SECOND);
}

fn draw_stalls(plan: &mut Plan, prng: &mut Prng) {
    if prng.chance(700_000) {
        return;
    }
    // Everybody is stalled once at most: several stalls in a row would outlast a liveness timeout.
    let mut stalled = BTreeSet::new();
    for _ in 0..prng.between(1, 4) {
        let at = prng.between(0, plan.faults_ns);
        let for_ns = prng.between(MILLISECOND, 3 * SECOND);
        let host = prng.below(plan.hosts as u64) as usize;
        let event = match prng.below(2) {
            0 => {
                let agent = prng.below(4) as usize;
                if !stalled.insert((host, agent)) {
                    continue;
                }
                Event::StallAgent { host, agent, for_ns }
            }
            _ => {
                let client = prng.below(plan.client_count() as u64) as usize;
                if !stalled.insert((usize::MAX, client)) {
                    continue;
                }
                Event::StallClient { client, for_ns }
            }
        };
        plan.events.push((at, event));
    }
    plan.keeps_images = false;
    plan.recovery_ns = plan.recovery_ns.max(8 * SECOND);
}

/// Steps of wall clocks, which must not matter to anything.
fn draw_wall_clocks(plan: &mut Plan, prng: &mut Prng) {
    if prng.chance(700_000) {
        return;
    }
    for _ in 0..prng.between(1, 5) {
        let at = prng.between(0, plan.faults_ns);
        let event = Event::StepWallClock {
            host: prng.below(plan.hosts as u64) as usize,
            ms: prng.between(-3_600_000, 3_600_000),
        };
        plan.events.push((at, event));
    }
}

/// Subscribers that are slow, and publishers that pause.
fn draw_paces(plan: &mut Plan, prng: &mut Prng) {
    let (slow_ppm, pause_ppm) = (*prng.pick(&[0, 0, 400_000]), *prng.pick(&[0, 0, 500_000]));
    for stream in &mut plan.streams {
        for (_, subscriber) in &mut stream.subscribers {
            let slow = Slow {
                interval_ns: prng.between(MILLISECOND, 50 * MILLISECOND),
                fragment_limit: prng.between(1, 20) as usize,
            };
            subscriber.slow = prng.chance(slow_ppm).then_some(slow);
        }
        for (_, publisher) in &mut stream.publishers {
            let pause = Pause {
                after: prng.between(1, 500) as u32,
                for_ns: prng.between(10 * MILLISECOND, 3 * SECOND),
            };
            publisher.pause = prng.chance(pause_ppm).then_some(pause);
        }
    }
}

/// Sockets that do not take what is sent, for shorter than an image lives.
fn draw_refusals(plan: &mut Plan, prng: &mut Prng) {
    if prng.chance(700_000) {
        return;
    }
    let mut at = 0;
    for _ in 0..prng.between(1, 3) {
        at += prng.between(0, plan.faults_ns / 3);
        let errno = *prng.pick(&[
            None,
            Some(libc::ENOBUFS),
            Some(libc::EPERM),
            Some(libc::ENETUNREACH),
            Some(libc::ECONNREFUSED),
        ]);
        let mut ppm = *prng.pick(&[10_000, 500_000, 1_000_000]);
        if errno.is_none() {
            // A buffer that is full, without an error, drains: senders try again without a pause.
            ppm = ppm.min(900_000);
        }
        let refused = Event::RefuseSends { ppm, errno };
        plan.events.push((at, refused));
        at += prng.between(MILLISECOND, 500 * MILLISECOND);
        let taken = Event::RefuseSends { ppm: 0, errno: None };
        plan.events.push((at, taken));
    }
}

/// Publishers and subscribers that leave and come back, within their client or with a new one.
fn draw_returns(plan: &mut Plan, prng: &mut Prng) {
    if prng.chance(700_000) {
        return;
    }
    for _ in 0..prng.between(1, 4) {
        let at = prng.between(0, plan.faults_ns);
        let client = prng.below(plan.client_count() as u64) as usize;
        let event = if prng.chance(500_000) {
            Event::ReopenStream { client }
        } else {
            Event::CloseClient {
                client,
                away_ns: prng.between(0, 2 * SECOND),
            }
        };
        plan.events.push((at, event));
    }
    // A receiver that left is waited for for 5 s by publishers that wait for the slowest.
    plan.recovery_ns = plan.recovery_ns.max(14 * SECOND);
}

/// A host without room for more logs: who wants to publish there has to try again, and images come later.
fn draw_storage(plan: &mut Plan, prng: &mut Prng) {
    if prng.chance(850_000) {
        return;
    }
    let host = prng.below(plan.hosts as u64) as usize;
    let later = prng.between(0, plan.faults_ns);
    let at = *prng.pick(&[0, later]);
    let until = at + prng.between(100 * MILLISECOND, 3 * SECOND);
    for (at, is_short) in [(at, true), (until, false)] {
        plan.events.push((at, Event::Storage { host, is_short }));
    }
    // Otherwise nobody might want a log in that time.
    let client = prng.below(plan.client_count() as u64) as usize;
    plan.events
        .push((prng.between(at, until), Event::ReopenStream { client }));
    for stream in &mut plan.streams {
        for (_, publisher) in &mut stream.publishers {
            publisher.awaits_storage = true;
        }
    }
    plan.recovery_ns = plan.recovery_ns.max(14 * SECOND);
}

fn draw_ends(plan: &mut Plan, prng: &mut Prng) {
    if prng.chance(700_000) {
        return;
    }
    for _ in 0..prng.between(1, 3) {
        let at = prng.between(SECOND / 2, plan.faults_ns);
        let client = prng.below(plan.client_count() as u64) as usize;
        let event = match prng.below(4) {
            0 => Event::CloseClient {
                client,
                away_ns: prng.between(0, 2 * SECOND),
            },
            1 => Event::KillClient { client },
            kind => Event::RestartDriver {
                host: prng.below(plan.hosts as u64) as usize,
                killed: kind == 2,
                down_ns: prng.between(10 * MILLISECOND, 2 * SECOND),
            },
        };
        plan.events.push((at, event));
    }
    plan.keeps_images = false;
    // The unblock timeout and the liveness timeouts, one after the other.
    plan.recovery_ns = plan.recovery_ns.max(20 * SECOND);
}
