//! Plans: what a world is made of, and what is done to it.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};

use super::network::Link;
use super::workload::{PublisherPlan, SubscriberPlan};

/// What a world is made of and what is done to it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The scenario's name, for the line that replays it.
    pub scenario: String,
    /// How many hosts there are; see [`host_address`].
    pub hosts: usize,
    /// Settings of every driver.
    pub settings: Vec<(&'static str, String)>,
    /// Between any two addresses, as long as there are faults.
    pub faulty_link: Link,
    /// Afterwards.
    pub healed_link: Link,
    /// Whether datagrams that were corrupted on their way are found out by their checksum, as those of UDP are.
    pub checksums: bool,
    /// Who talks to whom.
    pub streams: Vec<StreamPlan>,
    /// What happens when, nanoseconds from the start; in order.
    pub events: Vec<(i64, Event)>,
    /// In how many of a million cases an agent misses a turn.
    pub missed_turn_ppm: u32,
    /// Whether the faults are too small to end an image: then none may end.
    pub keeps_images: bool,
    /// How long subscribers may take to get everything of a publisher that was closed and to see its image end,
    /// nanoseconds; `None`: that is not looked at.
    pub ends_within_ns: Option<i64>,
    /// How long the faults last, nanoseconds.
    pub faults_ns: i64,
    /// How long drivers and clients have to find each other again, nanoseconds.
    pub recovery_ns: i64,
    /// How long everything may take to arrive, nanoseconds.
    pub drain_ns: i64,
    /// How long drivers may take to clean up, nanoseconds.
    pub closing_ns: i64,
    /// Rounds after which the world is taken to go on for ever; one of the swarm takes some hundred thousand.
    pub rounds_max: u64,
}

impl Plan {
    /// How many clients there are: one of each publisher and of each subscriber.
    #[must_use]
    pub fn client_count(&self) -> usize {
        let of = |stream: &StreamPlan| stream.publishers.len() + stream.subscribers.len();
        self.streams.iter().map(of).sum()
    }
}

/// A stream: who publishes and who subscribes, and on which hosts. Each of them is an application with a client.
#[derive(Clone, Debug, Default)]
pub struct StreamPlan {
    /// Publishers.
    pub publishers: Vec<(usize, PublisherPlan)>,
    /// Subscribers.
    pub subscribers: Vec<(usize, SubscriberPlan)>,
}

/// A fault that has its time.
#[derive(Clone, Debug)]
pub enum Event {
    /// The link from one host to another changes, in that direction.
    Link {
        /// From this host.
        from: usize,
        /// To this one.
        to: usize,
        /// What it is like from now on.
        link: Link,
        /// The fault's name, for the report.
        kind: &'static str,
    },
    /// An agent gets no turns.
    StallAgent {
        /// Whose driver.
        host: usize,
        /// Which agent: 0 resources, 1 conductor, 2 sender, 3 receiver.
        agent: usize,
        /// For how long, nanoseconds.
        for_ns: i64,
    },
    /// A client and its application get no turns.
    StallClient {
        /// Which, in the order of the plan.
        client: usize,
        /// For how long, nanoseconds.
        for_ns: i64,
    },
    /// A client is closed in order and started again.
    CloseClient {
        /// Which, in the order of the plan.
        client: usize,
        /// How long it stays away, nanoseconds.
        away_ns: i64,
    },
    /// A client closes its publication or subscription and adds it again at once.
    ReopenStream {
        /// Which, in the order of the plan.
        client: usize,
    },
    /// A client dies, a publisher in the middle of a claim, and its application is started again.
    KillClient {
        /// Which, in the order of the plan.
        client: usize,
    },
    /// A driver ends and a new one is started in its directory.
    RestartDriver {
        /// Whose.
        host: usize,
        /// Whether it is killed rather than closed.
        killed: bool,
        /// How long there is none, nanoseconds.
        down_ns: i64,
    },
    /// Sockets do not take all datagrams.
    RefuseSends {
        /// How many of a million they do not take.
        ppm: u32,
        /// The number of the error that they say; `None`: that there is no room now.
        errno: Option<i32>,
    },
    /// There is no room for more logs on a host, or there is again.
    Storage {
        /// On this one.
        host: usize,
        /// Whether there is none.
        is_short: bool,
    },
    /// The wall clock of a host jumps.
    StepWallClock {
        /// Whose.
        host: usize,
        /// By how much, milliseconds.
        ms: i64,
    },
}

/// The address of a host.
#[must_use]
pub fn host_address(host: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, host as u8 + 1))
}
