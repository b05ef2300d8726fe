//! Members that behave, members that do not, lost answers, a log that answers late, out of order or not at all, time and
//! restarts, all at random; and what must hold whatever happens.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use fulmar::time::{EpochMs, NanoTime, Now};

use super::*;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

/// What one client believes.
#[derive(Clone, Default)]
struct Client {
    group: String,
    instance_id: Option<String>,
    member_id: String,
    generation: i32,
    /// Told to assign for these.
    to_assign: Vec<String>,
    is_joined: bool,
    is_synced: bool,
    /// Does nothing any more.
    is_dead: bool,
    awaits: Option<RequestToken>,
}

/// What a request was, for judging its answer.
struct Asked {
    client: usize,
    group: String,
    generation: i32,
    member_id: String,
    instance_id: Option<String>,
}

/// How often things happened, to know that the test is about something.
#[derive(Default, Debug)]
struct Seen {
    stable: u64,
    synced: u64,
    fenced: u64,
    illegal: u64,
    unknown: u64,
    rebalancing: u64,
    full: u64,
    committed: u64,
    failed: u64,
    deleted: u64,
    restarts: u64,
    skipped: u64,
}

struct World {
    random: Random,
    settings: Settings,
    coordinator: Coordinator,
    now_ms: i64,
    tokens: u64,
    nonce: u64,
    clients: Vec<Client>,
    asked: BTreeMap<RequestToken, Asked>,
    /// Changes not acknowledged, and what the log holds.
    waiting: BTreeMap<PersistToken, Vec<Record>>,
    acknowledged: BTreeMap<PersistToken, Vec<Record>>,
    log: Vec<Record>,
    log_fails: bool,
    /// What the leader of a generation assigned with, as the first answer told.
    nonces: BTreeMap<(String, i32), String>,
    instances: BTreeMap<String, String>,
    generations: BTreeMap<Arc<str>, i32>,
    seen: Seen,
}

const GROUPS: [&str; 3] = ["a", "b", "c"];

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let settings = Settings {
            initial_rebalance_delay_ms: random.of(&[0, 0, 3_000]),
            new_member_join_timeout_ms: 40_000,
            offsets_retention_ms: 60_000,
            offsets_check_interval_ms: 20_000,
            max_groups: random.of(&[2, 3, 10, 10]),
            max_members_per_group: random.of(&[2, 4, 10, 10]),
            max_pending_members_per_group: random.of(&[1, 3, 10, 10]),
            max_offsets_per_group: 4,
            max_bytes: random.of(&[8_000, 20_000, 1 << 20, 1 << 20]),
            max_unacknowledged: random.of(&[2, 6, 100]),
            ..Settings::default()
        };
        let clients = (0..9).map(|it| Client {
            group: random.of(&GROUPS).to_owned(),
            instance_id: (it % 3 == 0).then(|| random.of(&["i", "j"]).to_owned()),
            generation: -1,
            ..Client::default()
        });
        let clients = clients.collect();
        let mut world = World {
            coordinator: Coordinator::new(settings.clone()),
            settings,
            now_ms: 0,
            tokens: 0,
            nonce: 0,
            clients,
            asked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            log: Vec::new(),
            log_fails: random.percent(50),
            nonces: BTreeMap::new(),
            instances: BTreeMap::new(),
            generations: BTreeMap::new(),
            seen: Seen::default(),
            random,
        };
        world.coordinator.on_loaded(world.now());
        world
    }

    fn now(&self) -> Now {
        Now {
            nanos: NanoTime(self.now_ms * 1_000_000),
            epoch: EpochMs(1_000_000 + self.now_ms),
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..62 => self.client_step(),
            62..68 => self.odd_request(),
            68..88 => self.log_step(),
            88..97 => {
                let ms = self.random.of(&[1, 100, 1_000, 3_000, 6_000, 20_000]);
                self.pass(ms);
            }
            97..99 => self.change_client(),
            _ if self.random.percent(20) => self.restart(),
            _ => self.pass(70_000),
        }
        self.settle();
    }

    /// Takes all events and looks at everything.
    fn settle(&mut self) {
        while let Some(event) = self.coordinator.poll_event() {
            match event {
                Event::Respond { token, response } => self.on_answer(token, &response),
                Event::Persist { token, records } => {
                    assert!(!records.is_empty());
                    assert!(
                        self.waiting
                            .last_key_value()
                            .is_none_or(|(last, _)| *last < token)
                    );
                    self.waiting.insert(token, records);
                }
            }
        }
        self.coordinator.check();
        let present: BTreeMap<_, _> = self.coordinator.generations().collect();
        for (id, generation) in &self.generations {
            match present.get(id) {
                Some(now) => assert!(now >= generation, "generations only grow"),
                None => self.nonces.retain(|(group, _), _| **group != **id),
            }
        }
        self.generations = present;
    }

    fn ask(&mut self, client: usize, request: Request) -> RequestToken {
        self.tokens += 1;
        let token = RequestToken(self.tokens);
        let it = &self.clients[client];
        let asked = match &request {
            Request::Join(join) => (join.member_id.clone(), join.instance_id.clone(), -1),
            Request::Sync(sync) => (sync.member_id.clone(), it.instance_id.clone(), sync.generation),
            _ => (it.member_id.clone(), it.instance_id.clone(), it.generation),
        };
        let (member_id, instance_id, generation) = asked;
        let asked = Asked {
            client,
            group: it.group.clone(),
            generation,
            member_id,
            instance_id,
        };
        self.asked.insert(token, asked);
        let now = self.now();
        self.coordinator.on_request(token, request, now);
        token
    }

    /// A client does what comes next for it, unless it waits for an answer; it does not always have that patience.
    fn client_step(&mut self) {
        let index = self.random.below(self.clients.len());
        let client = self.clients[index].clone();
        if client.is_dead || (client.awaits.is_some() && self.random.percent(95)) {
            return;
        }
        let request = if !client.is_joined || self.random.percent(3) {
            self.join(&client)
        } else if !client.is_synced {
            Request::Sync(self.sync(&client))
        } else {
            match self.random.below(20) {
                0..12 => Request::Heartbeat(HeartbeatRequest {
                    group_id: client.group.clone(),
                    generation: client.generation,
                    member_id: client.member_id.clone(),
                    instance_id: client.instance_id.clone(),
                }),
                12..18 => self.commit(&client),
                18 => self.join(&client),
                _ => Request::Leave(LeaveRequest {
                    group_id: client.group.clone(),
                    members: vec![LeavingMember {
                        member_id: client.member_id.clone(),
                        instance_id: client.instance_id.clone(),
                    }],
                }),
            }
        };
        let token = self.ask(index, request);
        self.clients[index].awaits = Some(token);
    }

    fn join(&mut self, client: &Client) -> Request {
        let mut protocols = Vec::new();
        for name in ["range", "sticky", "other"] {
            if self.random.percent(if name == "range" { 97 } else { 30 }) {
                let length = self.random.of(&[0, 5, 5, 5, 5, 300]);
                protocols.push(Protocol {
                    name: name.into(),
                    metadata: Arc::from(vec![0; length]),
                });
            }
        }
        Request::Join(JoinRequest {
            api_version: self.random.of(&[0, 3, 5, 9, 9, 9]),
            group_id: client.group.clone(),
            member_id: client.member_id.clone(),
            instance_id: client.instance_id.clone(),
            client_id: "c".into(),
            client_host: "h".into(),
            session_timeout_ms: self.random.of(&[6_000, 10_000, 30_000]),
            rebalance_timeout_ms: self.random.of(&[-1, 0, 5_000, 20_000, 60_000]),
            protocol_type: if self.random.percent(98) {
                "consumer".into()
            } else {
                "connect".into()
            },
            protocols,
            member_entropy: u128::from(self.random.next()),
        })
    }

    fn sync(&mut self, client: &Client) -> SyncRequest {
        self.nonce += 1;
        let nonce = self.nonce;
        let assign = |id: &String| (id.clone(), format!("{nonce}/{id}").into_bytes());
        SyncRequest {
            group_id: client.group.clone(),
            generation: client.generation,
            member_id: client.member_id.clone(),
            instance_id: client.instance_id.clone(),
            protocol_type: None,
            protocol: None,
            assignments: client.to_assign.iter().map(assign).collect(),
        }
    }

    fn commit(&mut self, client: &Client) -> Request {
        let partitions = (0..self.random.below(3)).map(|_| CommitPartition {
            topic: self.random.of(&["t", "u"]).into(),
            partition: self.random.of(&[0, 0, 1, 2, -1]),
            offset: self.random.of(&[1, 2, 3, i64::MAX, -7]),
            leader_epoch: 0,
            metadata: "x".repeat(self.random.of(&[0, 3, 4_096, 4_097])),
            refused: None,
        });
        let partitions = partitions.collect();
        Request::OffsetCommit(OffsetCommitRequest {
            api_version: 8,
            group_id: client.group.clone(),
            generation: client.generation,
            member_id: client.member_id.clone(),
            instance_id: client.instance_id.clone(),
            retention_ms: self.random.of(&[-1, -1, -1, 0, 10_000, 100_000]),
            partitions,
        })
    }

    /// A request by somebody who has no business in the group, or is an administrator.
    fn odd_request(&mut self) {
        let index = self.random.below(self.clients.len());
        let mut client = self.clients[index].clone();
        client.group = self.random.of(&["a", "b", "c", ""]).to_owned();
        client.generation = self.random.of(&[-1, 0, 1, i32::MAX, i32::MIN, client.generation]);
        if self.random.percent(50) {
            client.member_id = self.random.of(&["", "nobody"]).to_owned();
        }
        if self.random.percent(50) {
            client.instance_id = self.random.of(&[None, Some("i".to_owned()), Some(String::new())]);
        }
        let group_id = client.group.clone();
        let request = match self.random.below(8) {
            0 | 1 => {
                let generation = -1;
                self.commit(&Client {
                    generation,
                    member_id: String::new(),
                    instance_id: None,
                    ..client
                })
            }
            2 => Request::Heartbeat(HeartbeatRequest {
                group_id,
                generation: client.generation,
                member_id: client.member_id,
                instance_id: client.instance_id,
            }),
            3 => Request::DeleteGroups(DeleteGroupsRequest {
                group_ids: vec![group_id.clone(), group_id, "a".into()],
            }),
            4 => Request::OffsetDelete(OffsetDeleteRequest {
                group_id,
                partitions: vec![("t".into(), 0)],
            }),
            5 => {
                let member = LeavingMember {
                    member_id: client.member_id,
                    instance_id: client.instance_id,
                };
                Request::Leave(LeaveRequest {
                    group_id,
                    members: vec![member.clone(), member],
                })
            }
            6 => Request::List(ListRequest::default()),
            _ => Request::Describe(DescribeRequest { group_id }),
        };
        self.ask(index, request);
    }

    fn change_client(&mut self) {
        let index = self.random.below(self.clients.len());
        let client = &mut self.clients[index];
        if self.random.percent(50) {
            client.is_dead = !client.is_dead;
        } else {
            // It starts from nothing, as a new process.
            let fresh = Client {
                generation: -1,
                ..Client::default()
            };
            *client = Client {
                group: client.group.clone(),
                instance_id: client.instance_id.clone(),
                ..fresh
            };
        }
    }

    /// The log answers for one change, mostly the oldest.
    fn log_step(&mut self) {
        let tokens: Vec<PersistToken> = self.waiting.keys().copied().collect();
        let Some(first) = tokens.first() else {
            return;
        };
        let token = if self.random.percent(80) {
            *first
        } else {
            self.random.of(&tokens)
        };
        let is_stored = !(self.log_fails && self.random.percent(15));
        self.acknowledge(token, is_stored);
        let now = self.now();
        assert!(!self.coordinator.on_persisted(token, now), "acknowledged once");
    }

    fn acknowledge(&mut self, token: PersistToken, is_stored: bool) {
        let records = self.waiting.remove(&token).unwrap();
        let now = self.now();
        if is_stored {
            self.acknowledged.insert(token, records);
            assert!(self.coordinator.on_persisted(token, now));
        } else {
            self.seen.failed += 1;
            assert!(self.coordinator.on_persist_failed(token, now));
        }
        if self.waiting.is_empty() {
            let records = core::mem::take(&mut self.acknowledged);
            self.log.extend(records.into_values().flatten());
        }
    }

    fn acknowledge_all(&mut self) {
        while let Some(token) = self.waiting.keys().next().copied() {
            self.acknowledge(token, true);
            self.settle();
        }
    }

    fn pass(&mut self, ms: i64) {
        let end = self.now_ms + ms;
        while let Some(at) = self.coordinator.next_deadline() {
            let at_ms = at.0.div_euclid(1_000_000);
            if at_ms > end {
                break;
            }
            self.now_ms = self.now_ms.max(at_ms);
            let now = self.now();
            self.coordinator.on_time(now);
            self.settle();
            let next = self.coordinator.next_deadline().unwrap();
            assert!(!next.is_due(now.nanos), "a deadline that was due did nothing");
        }
        self.now_ms = end;
    }

    fn restart(&mut self) {
        self.settle();
        self.acknowledge_all();
        self.check_rebuild();
        self.seen.restarts += 1;
        let (tokens, mut fresh) = (core::mem::take(&mut self.asked), self.rebuilt());
        assert!(fresh.poll_event().is_none());
        self.coordinator = fresh;
        // Connections are gone, and with them what was asked.
        for client in &mut self.clients {
            client.awaits = client.awaits.filter(|it| !tokens.contains_key(it));
        }
        self.generations.clear();
        self.nonces.clear();
    }

    /// A coordinator that has read the log, as it was written or compacted: the newest value of each key, in any order.
    fn rebuilt(&self) -> Coordinator {
        let mut fresh = Coordinator::new(self.settings.clone());
        if self.tokens.is_multiple_of(2) {
            let newest = self.log.iter().map(|it| (&it.key, &it.value));
            for (key, value) in newest.collect::<BTreeMap<_, _>>() {
                if let Some(value) = value {
                    assert_eq!(fresh.restore(key, Some(value)), Ok(()));
                }
            }
        } else {
            for record in &self.log {
                assert_eq!(fresh.restore(&record.key, record.value.as_deref()), Ok(()));
            }
        }
        fresh.on_loaded(self.now());
        fresh
    }

    /// What the log gives back is what is there.
    fn check_rebuild(&mut self) {
        let mut fresh = self.rebuilt();
        let now = self.now();
        for group in GROUPS {
            let group_id = group.to_owned();
            let fetch = Request::OffsetFetch(OffsetFetchRequest {
                group_id: group_id.clone(),
                topics: None,
            });
            let mut answers = Vec::new();
            for coordinator in [&mut self.coordinator, &mut fresh] {
                let mut ask = |request| {
                    coordinator.on_request(RequestToken(0), request, now);
                    coordinator.poll_event()
                };
                let describe = Request::Describe(DescribeRequest {
                    group_id: group_id.clone(),
                });
                answers.push((ask(fetch.clone()), ask(describe)));
            }
            let [(offsets, described), (offsets_again, described_again)] = answers.as_slice() else {
                panic!("two coordinators");
            };
            assert!(matches!(offsets, Some(Event::Respond { .. })));
            assert_eq!(offsets, offsets_again);
            let response = described.as_ref().map(|it| match it {
                Event::Respond {
                    response: Response::Describe(it),
                    ..
                } => it.state,
                other => panic!("{other:?}"),
            });
            if response == Some(GroupState::Stable) && !self.log_fails {
                self.seen.stable += 1;
                assert_eq!(described, described_again);
            }
        }
    }

    fn on_answer(&mut self, token: RequestToken, response: &Response) {
        let asked = self
            .asked
            .remove(&token)
            .expect("an answer to a request not answered yet");
        let error = match response {
            Response::Join(it) => it.error,
            Response::Sync(it) => it.error,
            Response::Heartbeat(error) => *error,
            Response::Leave(it) => it
                .error
                .or_else(|| it.members.first().and_then(|(_, error)| *error)),
            Response::OffsetCommit(it) => it.partitions.first().and_then(|it| it.error),
            Response::DeleteGroups(it) => it.groups.first().and_then(|(_, error)| *error),
            _ => None,
        };
        match error {
            Some(GroupError::FencedInstanceId) => self.seen.fenced += 1,
            Some(GroupError::IllegalGeneration) => self.seen.illegal += 1,
            Some(GroupError::UnknownMemberId) => self.seen.unknown += 1,
            Some(GroupError::RebalanceInProgress) => self.seen.rebalancing += 1,
            Some(GroupError::GroupMaxSizeReached) => self.seen.full += 1,
            _ => {}
        }
        match response {
            Response::Sync(it) if it.error.is_none() => self.check_assignment(&asked, &it.assignment),
            Response::Join(it) if it.error.is_none() => self.check_joined(it),
            Response::OffsetCommit(_) if error.is_none() => self.seen.committed += 1,
            Response::DeleteGroups(_) if error.is_none() => self.seen.deleted += 1,
            _ => {}
        }
        let is_lost = self.random.percent(5);
        let client = &mut self.clients[asked.client];
        if client.awaits != Some(token) {
            return;
        }
        client.awaits = None;
        if is_lost {
            return;
        }
        match (response, error) {
            (_, Some(GroupError::UnknownMemberId | GroupError::FencedInstanceId))
            | (Response::Leave(_), _) => {
                client.member_id.clear();
                client.generation = -1;
                client.is_joined = false;
            }
            (Response::Join(it), None) => {
                client.member_id = it.member_id.to_string();
                client.generation = it.generation;
                client.to_assign = it.members.iter().map(|it| it.member_id.to_string()).collect();
                client.is_joined = true;
                client.is_synced = false;
            }
            (Response::Join(it), Some(GroupError::MemberIdRequired)) => {
                client.member_id = it.member_id.to_string();
            }
            (_, Some(GroupError::RebalanceInProgress | GroupError::IllegalGeneration)) => {
                client.is_joined = false
            }
            (Response::Sync(_), None) => client.is_synced = true,
            (Response::Sync(_), Some(_)) => client.is_joined = false,
            _ => {}
        }
    }

    fn check_joined(&mut self, it: &JoinResponse) {
        let is_leader = it.leader == it.member_id;
        assert_eq!(is_leader, !it.members.is_empty());
        assert!(it.generation > 0);
        assert!(it.members.len() <= self.settings.max_members_per_group);
        self.seen.skipped += u64::from(it.skip_assignment);
        for member in &it.members {
            if let Some(instance) = &member.instance_id {
                self.instances
                    .insert(member.member_id.to_string(), instance.to_string());
            }
        }
    }

    /// All members of a generation have what one leader assigned, and each what is meant for it.
    fn check_assignment(&mut self, asked: &Asked, assignment: &[u8]) {
        self.seen.synced += 1;
        let text = core::str::from_utf8(assignment).unwrap();
        let (nonce, id) = text.split_once('/').expect("an assignment of a leader");
        let key = (asked.group.clone(), asked.generation);
        let first = self.nonces.entry(key).or_insert_with(|| nonce.to_owned());
        assert_eq!(first, nonce, "two assignments in one generation");
        let same_instance =
            asked.instance_id.is_some() && self.instances.get(id) == asked.instance_id.as_ref();
        assert!(
            id == asked.member_id || same_instance,
            "an assignment meant for somebody else"
        );
    }

    /// Nobody does anything any more, and the log catches up.
    fn end(&mut self) {
        self.settle();
        self.acknowledge_all();
        // New joins are held for 40 s at most, sessions and rebalances are up to 60 s long.
        for _ in 0..6 {
            self.pass(60_000);
            self.acknowledge_all();
        }
        self.check_rebuild();
        assert!(self.asked.is_empty(), "requests without an answer");
        let now = self.now();
        self.coordinator
            .on_request(RequestToken(0), Request::List(ListRequest::default()), now);
        let Some(Event::Respond {
            response: Response::List(list),
            ..
        }) = self.coordinator.poll_event()
        else {
            panic!("a list");
        };
        assert!(list.groups.iter().all(|it| it.state == GroupState::Empty));
        // And once the offsets have expired, nothing is left, here and in the log.
        for _ in 0..10 {
            self.pass(60_000);
            self.acknowledge_all();
        }
        assert_eq!((self.coordinator.group_count(), self.coordinator.bytes()), (0, 0));
        assert_eq!(self.rebuilt().group_count(), 0);
    }
}

#[test]
fn whatever_members_the_log_and_time_do_the_rules_of_groups_hold() {
    let mut total = Seen::default();
    for seed in 0..80 {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        world.end();
        let seen = world.seen;
        total.stable += seen.stable;
        total.synced += seen.synced;
        total.fenced += seen.fenced;
        total.illegal += seen.illegal;
        total.unknown += seen.unknown;
        total.rebalancing += seen.rebalancing;
        total.full += seen.full;
        total.committed += seen.committed;
        total.failed += seen.failed;
        total.deleted += seen.deleted;
        total.restarts += seen.restarts;
        total.skipped += seen.skipped;
    }
    // The test is about something: each of these happened often.
    let counts = [
        total.stable,
        total.synced,
        total.fenced,
        total.illegal,
        total.unknown,
        total.rebalancing,
        total.full,
        total.committed,
        total.failed,
        total.deleted,
        total.restarts,
        total.skipped,
    ];
    assert!(counts.iter().all(|it| *it >= 10), "{total:?}");
}
