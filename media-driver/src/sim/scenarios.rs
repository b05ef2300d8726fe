//! Plans of the named scenarios, and what they and the swarm are put together from.
#![forbid(unsafe_code)]

use super::network::{Burst, Link};
use super::plan::{Event, Plan, StreamPlan, host_address};
use super::prng::Prng;
use super::workload::{Lengths, MESSAGE_LENGTH_MIN, PublisherPlan, SubscriberPlan};

const MICROSECOND: i64 = 1_000;
const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

/// A quiet plan of so many hosts, without streams.
pub(super) fn quiet(scenario: &str, hosts: usize) -> Plan {
    let link = Link {
        delay_ns: 50 * MICROSECOND as u64,
        ..Link::perfect()
    };
    Plan {
        scenario: scenario.to_owned(),
        hosts,
        settings: [
            ("aeron.counters.buffer.length", "1m"),
            ("aeron.term.buffer.length", "64k"),
            ("aeron.ipc.term.buffer.length", "64k"),
            ("aeron.timer.interval", "100ms"),
            ("aeron.image.liveness.timeout", "2s"),
            ("aeron.publication.connection.timeout", "2s"),
            ("aeron.publication.linger.timeout", "1s"),
            ("aeron.client.liveness.timeout", "5s"),
            ("aeron.publication.unblock.timeout", "6s"),
            // Whoever has work has a turn at once in a world; the conductor needs no look of its own in between.
            ("fulmar.idle.cap", "1s"),
            // Drivers that were killed leave their directories behind, and their process lives: it is that of the world.
            ("aeron.dir.delete.on.start", "true"),
            // Clients of a world live in one process, whose end would end the world.
            ("fulmar.unblock.early", "false"),
        ]
        .map(|(key, value)| (key, value.to_owned()))
        .to_vec(),
        faulty_link: link,
        healed_link: link,
        checksums: true,
        streams: Vec::new(),
        events: Vec::new(),
        missed_turn_ppm: 0,
        keeps_images: true,
        ends_within_ns: None,
        faults_ns: 5 * SECOND,
        recovery_ns: 4 * SECOND,
        drain_ns: 10 * SECOND,
        closing_ns: 20 * SECOND,
        rounds_max: 100_000_000,
    }
}

pub(super) fn publisher(channel: String) -> PublisherPlan {
    PublisherPlan {
        channel,
        stream_id: 1001,
        destinations: Vec::new(),
        exclusive: true,
        lengths: Lengths {
            min: MESSAGE_LENGTH_MIN,
            max: 4000,
        },
        interval_ns: MILLISECOND,
        burst: 1,
        claim_ppm: 0,
        pause: None,
        awaits_storage: false,
    }
}

pub(super) fn subscriber(channel: String) -> SubscriberPlan {
    SubscriberPlan {
        channel,
        stream_id: 1001,
        destinations: Vec::new(),
        may_be_left_behind: false,
        lazy_ppm: 0,
        slow: None,
    }
}

pub(super) fn unicast(to: usize, port: u16) -> String {
    format!("aeron:udp?endpoint={}:{port}", host_address(to))
}

/// One stream from host 0 to host 1.
pub(super) fn one_stream() -> StreamPlan {
    StreamPlan {
        publishers: vec![(0, publisher(unicast(1, 40_001)))],
        subscribers: vec![(1, subscriber(unicast(1, 40_001)))],
    }
}

pub(super) fn two_hosts(_seed: u64) -> Plan {
    Plan {
        streams: vec![one_stream()],
        faults_ns: 20 * SECOND,
        ..quiet("two-hosts", 2)
    }
}

pub(super) fn lossy(seed: u64) -> Plan {
    let mut prng = Prng::new(seed, "plan");
    let plan = quiet("lossy", 2);
    let faulty_link = Link {
        jitter_ns: 200 * MICROSECOND as u64,
        loss_ppm: 100_000,
        burst: Some(Burst {
            enter_ppm: 1_000,
            leave_ppm: 100_000,
        }),
        duplicate_ppm: 20_000,
        reorder_ppm: 20_000,
        reorder_ns: 500 * MICROSECOND as u64,
        corrupt_ppm: 10_000,
        ..plan.faulty_link
    };
    Plan {
        streams: vec![one_stream()],
        missed_turn_ppm: prng.below(100_000) as u32,
        faulty_link,
        faults_ns: 20 * SECOND,
        ..plan
    }
}

pub(super) fn partition(seed: u64) -> Plan {
    let mut prng = Prng::new(seed, "plan");
    let plan = quiet("partition", 2);
    let cut = Link {
        is_cut: true,
        ..plan.faulty_link
    };
    let mut events = Vec::new();
    let mut at = SECOND;
    for _ in 0..3 {
        let (from, to) = if prng.chance(500_000) { (0, 1) } else { (1, 0) };
        let both = prng.chance(500_000);
        let for_ns = prng.between(100 * MILLISECOND, 6 * SECOND);
        for (from, to) in [(from, to), (to, from)].into_iter().take(1 + usize::from(both)) {
            link_fault(
                &mut events,
                (from, to),
                (at, for_ns),
                cut,
                plan.faulty_link,
                "partition",
            );
        }
        at += for_ns + prng.between(100 * MILLISECOND, 4 * SECOND);
    }
    events.sort_by_key(|(at, _)| *at);
    Plan {
        streams: vec![one_stream()],
        events,
        keeps_images: false,
        faults_ns: at,
        recovery_ns: 8 * SECOND,
        ..plan
    }
}

pub(super) fn restart(seed: u64) -> Plan {
    let mut prng = Prng::new(seed, "plan");
    let event = |host: usize, prng: &mut Prng| Event::RestartDriver {
        host,
        killed: true,
        down_ns: prng.between(10 * MILLISECOND, 3 * SECOND),
    };
    Plan {
        streams: vec![one_stream()],
        events: vec![
            (2 * SECOND, event(0, &mut prng)),
            (9 * SECOND, event(1, &mut prng)),
        ],
        keeps_images: false,
        faults_ns: 12 * SECOND,
        recovery_ns: 12 * SECOND,
        ..quiet("restart", 2)
    }
}

pub(super) fn killed_mid_claim(seed: u64) -> Plan {
    let mut prng = Prng::new(seed, "plan");
    let channel = "aeron:ipc".to_owned();
    let shared = PublisherPlan {
        exclusive: false,
        claim_ppm: 500_000,
        ..publisher(channel.clone())
    };
    Plan {
        streams: vec![StreamPlan {
            publishers: vec![(0, shared.clone()), (0, shared)],
            subscribers: vec![(0, subscriber(channel))],
        }],
        events: vec![
            (prng.between(SECOND, 2 * SECOND), Event::KillClient { client: 0 }),
            (
                prng.between(3 * SECOND, 4 * SECOND),
                Event::KillClient { client: 1 },
            ),
        ],
        faults_ns: 5 * SECOND,
        // The unblock timeout is part of it.
        recovery_ns: 16 * SECOND,
        ..quiet("killed-mid-claim", 1)
    }
}

/// What 5 % of loss and some disorder make of a link.
pub(super) fn lossy_link(link: Link) -> Link {
    Link {
        jitter_ns: 200 * MICROSECOND as u64,
        loss_ppm: 50_000,
        reorder_ppm: 20_000,
        reorder_ns: 500 * MICROSECOND as u64,
        ..link
    }
}

/// A client that leaves at some time and is back before the faults end.
pub(super) fn visit(client: usize, prng: &mut Prng) -> (i64, Event) {
    let event = Event::CloseClient {
        client,
        away_ns: prng.between(10 * MILLISECOND, 2 * SECOND),
    };
    (prng.between(SECOND, 4 * SECOND), event)
}

pub(super) fn multicast(seed: u64) -> Plan {
    let mut prng = Prng::new(seed, "plan");
    let plan = quiet("multicast", 4);
    let channel = |host: usize| {
        let local = host_address(host);
        format!("aeron:udp?endpoint=224.20.30.41:40001|interface={local}")
    };
    let publisher = PublisherPlan {
        interval_ns: 4 * MILLISECOND,
        ..publisher(format!("{}|fc=min", channel(0)))
    };
    // Those on hosts 2 and 3 die. That of host 1 must not notice.
    let subscribers = (1..4).map(|host| {
        let subscriber = SubscriberPlan {
            may_be_left_behind: host > 1,
            ..subscriber(channel(host))
        };
        (host, subscriber)
    });
    let killed = Event::KillClient { client: 2 };
    let restarted = Event::RestartDriver {
        host: 3,
        killed: true,
        down_ns: prng.between(SECOND, 4 * SECOND),
    };
    Plan {
        faulty_link: lossy_link(plan.faulty_link),
        streams: vec![StreamPlan {
            publishers: vec![(0, publisher)],
            subscribers: subscribers.collect(),
        }],
        events: vec![
            (prng.between(SECOND, 2 * SECOND), killed),
            (prng.between(2 * SECOND, 4 * SECOND), restarted),
        ],
        faults_ns: 6 * SECOND,
        // A receiver that is gone is waited for for 5 s.
        recovery_ns: 16 * SECOND,
        ..plan
    }
}

pub(super) fn mdc(seed: u64) -> Plan {
    let mut prng = Prng::new(seed, "plan");
    let plan = quiet("mdc", 4);
    let control = |port: u16| format!("control={}:{port}|control-mode=", host_address(0));
    let own = |host: usize, port: u16| format!("{}|{}dynamic", unicast(host, port), control(40_101));
    let announced = StreamPlan {
        publishers: vec![(
            0,
            PublisherPlan {
                interval_ns: 4 * MILLISECOND,
                ..publisher(format!("aeron:udp?{}dynamic|fc=min", control(40_101)))
            },
        )],
        subscribers: (1..4).map(|host| (host, subscriber(own(host, 40_001)))).collect(),
    };
    let named = StreamPlan {
        publishers: vec![(
            0,
            PublisherPlan {
                stream_id: 1002,
                interval_ns: 4 * MILLISECOND,
                destinations: (1..4).map(|host| unicast(host, 40_002)).collect(),
                ..publisher(format!("aeron:udp?{}manual|fc=min", control(40_102)))
            },
        )],
        subscribers: (1..4)
            .map(|host| {
                let subscriber = SubscriberPlan {
                    stream_id: 1002,
                    ..subscriber(unicast(host, 40_002))
                };
                (host, subscriber)
            })
            .collect(),
    };
    let mut events = vec![visit(2, &mut prng), visit(3, &mut prng), visit(6, &mut prng)];
    events.sort_by_key(|(at, _)| *at);
    Plan {
        faulty_link: lossy_link(plan.faulty_link),
        streams: vec![announced, named],
        events,
        recovery_ns: 12 * SECOND,
        ..plan
    }
}

pub(super) fn mds(seed: u64) -> Plan {
    let mut prng = Prng::new(seed, "plan");
    let plan = quiet("mds", 3);
    let stream = |number: u16, publishers: Vec<(usize, PublisherPlan)>, destinations: Vec<String>| {
        let stream_id = 1001 + i32::from(number);
        let publishers = publishers.into_iter().map(|(host, publisher)| {
            let publisher = PublisherPlan {
                stream_id,
                interval_ns: 4 * MILLISECOND,
                ..publisher
            };
            (host, publisher)
        });
        let subscriber = SubscriberPlan {
            stream_id,
            destinations,
            ..subscriber("aeron:udp?control-mode=manual".to_owned())
        };
        StreamPlan {
            publishers: publishers.collect(),
            subscribers: vec![(2, subscriber)],
        }
    };
    let at = |port: u16| unicast(2, port);
    let memory = "aeron:ipc".to_owned();
    let twice = PublisherPlan {
        destinations: vec![at(40_002), at(40_102)],
        ..publisher("aeron:udp?control-mode=manual|fc=min".to_owned())
    };
    Plan {
        faulty_link: lossy_link(plan.faulty_link),
        streams: vec![
            stream(
                0,
                vec![(0, publisher(at(40_001))), (1, publisher(at(40_101)))],
                vec![at(40_001), at(40_101)],
            ),
            stream(1, vec![(0, twice)], vec![at(40_002), at(40_102)]),
            stream(
                2,
                vec![(1, publisher(at(40_003))), (2, publisher(memory.clone()))],
                vec![at(40_003), memory],
            ),
        ],
        events: vec![visit(prng.below(8) as usize, &mut prng)],
        ..plan
    }
}

pub(super) fn spy(seed: u64) -> Plan {
    let mut prng = Prng::new(seed, "plan");
    let plan = quiet("spy", 2);
    let stream = |number: u16, more: &str| {
        let stream_id = 1001 + i32::from(number);
        let endpoint = unicast(1, 40_001 + number);
        let channel = format!("{endpoint}{more}");
        let subscriber = |channel: String| SubscriberPlan {
            stream_id,
            ..subscriber(channel)
        };
        let publisher = PublisherPlan {
            stream_id,
            ..publisher(channel.clone())
        };
        StreamPlan {
            publishers: vec![(0, publisher)],
            subscribers: vec![
                (
                    1,
                    SubscriberPlan {
                        // The spy keeps the stream going without it: nobody waits for it when it joins.
                        may_be_left_behind: more.contains("ssc=true"),
                        ..subscriber(endpoint)
                    },
                ),
                (0, subscriber(format!("aeron-spy:{channel}"))),
            ],
        }
    };
    let mut events = vec![visit(1, &mut prng), visit(4, &mut prng)];
    events.sort_by_key(|(at, _)| *at);
    Plan {
        faulty_link: lossy_link(plan.faulty_link),
        streams: vec![stream(0, ""), stream(1, "|ssc=true")],
        events,
        recovery_ns: 12 * SECOND,
        ..plan
    }
}

/// Quiet links: nothing keeps the end of a stream from being seen long before an image would time out.
pub(super) fn closing(seed: u64) -> Plan {
    let mut prng = Prng::new(seed, "plan");
    let mut plan = quiet("closing", 3);
    plan.settings
        .push(("aeron.image.liveness.timeout", "10s".to_owned()));
    plan.settings
        .push(("aeron.publication.linger.timeout", "5s".to_owned()));
    let group = |host: usize| {
        let local = host_address(host);
        format!("aeron:udp?endpoint=224.20.30.41:40003|interface={local}")
    };
    let memory = "aeron:ipc".to_owned();
    let single = unicast(1, 40_002);
    let streams = [
        (memory.clone(), vec![(0, memory)]),
        (
            single.clone(),
            vec![(1, single.clone()), (0, format!("aeron-spy:{single}"))],
        ),
        (format!("{}|fc=min", group(0)), vec![(1, group(1)), (2, group(2))]),
    ];
    let mut client = 0;
    for (number, (channel, subscribers)) in streams.into_iter().enumerate() {
        let stream_id = 1001 + number as i32;
        for at in [SECOND, 3 * SECOND, 5 * SECOND] {
            let event = Event::CloseClient {
                client,
                away_ns: prng.between(10 * MILLISECOND, SECOND),
            };
            plan.events.push((at + prng.between(0, 500 * MILLISECOND), event));
        }
        client += 1 + subscribers.len();
        let subscribers = subscribers.into_iter().map(|(host, channel)| {
            let subscriber = SubscriberPlan {
                stream_id,
                ..subscriber(channel)
            };
            (host, subscriber)
        });
        let publisher = PublisherPlan {
            stream_id,
            burst: 3,
            ..publisher(channel)
        };
        plan.streams.push(StreamPlan {
            publishers: vec![(0, publisher)],
            subscribers: subscribers.collect(),
        });
    }
    plan.events.sort_by_key(|(at, _)| *at);
    Plan {
        // Receivers repeat for a second that they have it all before they let go of an image.
        ends_within_ns: Some(2 * SECOND),
        faults_ns: 8 * SECOND,
        ..plan
    }
}

pub(super) fn no_space(seed: u64) -> Plan {
    let mut prng = Prng::new(seed, "plan");
    let mut stream = one_stream();
    stream.publishers[0].1.awaits_storage = true;
    let short = |host: usize, is_short: bool| Event::Storage { host, is_short };
    Plan {
        streams: vec![stream],
        events: vec![
            (0, short(0, true)),
            (prng.between(SECOND, 3 * SECOND), short(0, false)),
            (4 * SECOND, short(1, true)),
            // Its next image finds no room.
            (
                prng.between(4 * SECOND + MILLISECOND, 5 * SECOND),
                Event::ReopenStream { client: 0 },
            ),
            (prng.between(6 * SECOND, 8 * SECOND), short(1, false)),
        ],
        faults_ns: 9 * SECOND,
        ..quiet("no-space", 2)
    }
}

/// A link that is `during` for a while, and `after` then.
pub(super) fn link_fault(
    events: &mut Vec<(i64, Event)>,
    (from, to): (usize, usize),
    (at, for_ns): (i64, i64),
    during: Link,
    after: Link,
    kind: &'static str,
) {
    for (at, link, kind) in [(at, during, kind), (at + for_ns, after, "link mended")] {
        events.push((at, Event::Link { from, to, link, kind }));
    }
}
