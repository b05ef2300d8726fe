//! The rules of kafka gateway 5, one test each.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use fulmar::time::{EpochMs, NanoTime, Now};

use super::*;

/// A coordinator with a clock, a log, and all answers so far.
pub(super) struct Bench {
    pub(super) coordinator: Coordinator,
    pub(super) now_ms: i64,
    tokens: u64,
    entropy: u128,
    pub(super) answers: BTreeMap<RequestToken, Response>,
    pub(super) log: Vec<Record>,
    /// Changes are acknowledged as soon as they are put out.
    acknowledges: bool,
    unacknowledged: Vec<PersistToken>,
}

fn settings() -> Settings {
    Settings {
        initial_rebalance_delay_ms: 0,
        ..Settings::default()
    }
}

impl Bench {
    fn new() -> Bench {
        Bench::with(settings())
    }

    pub(super) fn with(settings: Settings) -> Bench {
        let mut bench = Bench::loading(settings);
        bench.coordinator.on_loaded(bench.now());
        bench
    }

    fn loading(settings: Settings) -> Bench {
        Bench {
            coordinator: Coordinator::new(settings),
            now_ms: 0,
            tokens: 0,
            entropy: 0,
            answers: BTreeMap::new(),
            log: Vec::new(),
            acknowledges: true,
            unacknowledged: Vec::new(),
        }
    }

    /// The same log read by a new coordinator.
    fn restarted(self, settings: Settings) -> Bench {
        let mut bench = Bench::loading(settings);
        bench.now_ms = self.now_ms;
        bench.entropy = self.entropy;
        for record in &self.log {
            bench
                .coordinator
                .restore(&record.key, record.value.as_deref())
                .unwrap();
        }
        bench.log = self.log;
        bench.coordinator.on_loaded(bench.now());
        bench
    }

    pub(super) fn now(&self) -> Now {
        // The monotonic clock is about to wrap: nothing may depend on its origin.
        let nanos = NanoTime(i64::MAX - 5).plus_nanos(self.now_ms * 1_000_000);
        Now {
            nanos,
            epoch: EpochMs(1_700_000_000_000 + self.now_ms),
        }
    }

    fn send(&mut self, request: Request) -> RequestToken {
        self.tokens += 1;
        let token = RequestToken(self.tokens);
        let now = self.now();
        self.coordinator.on_request(token, request, now);
        self.drain();
        token
    }

    pub(super) fn drain(&mut self) {
        while let Some(event) = self.coordinator.poll_event() {
            match event {
                Event::Respond { token, response } => {
                    assert_eq!(self.answers.insert(token, response), None, "answered twice");
                }
                Event::Persist { token, records } => {
                    self.log.extend(records);
                    self.unacknowledged.push(token);
                    if self.acknowledges {
                        self.acknowledge(true);
                    }
                }
            }
        }
    }

    fn acknowledge(&mut self, is_stored: bool) {
        for token in core::mem::take(&mut self.unacknowledged) {
            let now = self.now();
            let known = if is_stored {
                self.coordinator.on_persisted(token, now)
            } else {
                self.coordinator.on_persist_failed(token, now)
            };
            assert!(known);
        }
        self.drain();
    }

    /// Lets time pass, with every deadline on the way.
    fn pass(&mut self, ms: i64) {
        let end = self.now_ms + ms;
        while let Some(at) = self.coordinator.next_deadline() {
            let wait = at.since(self.now().nanos).max(0).div_euclid(1_000_000);
            if self.now_ms + wait > end {
                break;
            }
            self.now_ms += wait;
            let now = self.now();
            self.coordinator.on_time(now);
            self.drain();
            let next = self.coordinator.next_deadline().unwrap();
            assert!(!next.is_due(now.nanos), "a deadline that was due is still there");
        }
        self.now_ms = end;
    }

    fn take(&mut self, token: RequestToken) -> Response {
        self.answers.remove(&token).expect("an answer")
    }

    fn is_held(&self, token: RequestToken) -> bool {
        !self.answers.contains_key(&token)
    }

    fn join(&mut self, join: JoinRequest) -> RequestToken {
        self.entropy += 1;
        let member_entropy = self.entropy;
        self.send(Request::Join(JoinRequest {
            member_entropy,
            ..join
        }))
    }

    fn joined(&mut self, token: RequestToken) -> JoinResponse {
        match self.take(token) {
            Response::Join(it) => it,
            other => panic!("{other:?}"),
        }
    }

    /// Both steps of a dynamic member's first join.
    fn enter(&mut self, group: &str, join: &JoinRequest) -> (String, RequestToken) {
        let token = self.join(JoinRequest {
            group_id: group.into(),
            ..join.clone()
        });
        let id = self.joined(token).member_id.to_string();
        let join = JoinRequest {
            group_id: group.into(),
            member_id: id.clone(),
            ..join.clone()
        };
        (id, self.join(join))
    }

    fn sync(&mut self, id: &str, generation: i32, assignments: &[(&str, &[u8])]) -> RequestToken {
        let assignments = assignments
            .iter()
            .map(|(id, it)| ((*id).to_owned(), it.to_vec()))
            .collect();
        self.send(Request::Sync(SyncRequest {
            assignments,
            ..sync_of(id, generation)
        }))
    }

    fn synced(&mut self, token: RequestToken) -> Result<Vec<u8>, GroupError> {
        match self.take(token) {
            Response::Sync(it) => it.error.map_or(Ok(it.assignment.to_vec()), Err),
            other => panic!("{other:?}"),
        }
    }

    fn beat(&mut self, id: &str, generation: i32) -> Option<GroupError> {
        let request = HeartbeatRequest {
            group_id: "g".into(),
            generation,
            member_id: id.into(),
            instance_id: None,
        };
        self.heartbeat(request)
    }

    fn heartbeat(&mut self, request: HeartbeatRequest) -> Option<GroupError> {
        let token = self.send(Request::Heartbeat(request));
        match self.take(token) {
            Response::Heartbeat(error) => error,
            other => panic!("{other:?}"),
        }
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<Option<GroupError>> {
        let members = members.iter().map(|(id, instance)| LeavingMember {
            member_id: (*id).into(),
            instance_id: instance.map(str::to_owned),
        });
        let request = LeaveRequest {
            group_id: "g".into(),
            members: members.collect(),
        };
        let token = self.send(Request::Leave(request));
        match self.take(token) {
            Response::Leave(it) => it.members.into_iter().map(|(_, error)| error).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn commit_of(&mut self, id: &str, generation: i32, offset: i64) -> RequestToken {
        let partitions = vec![at("t", 0, offset)];
        self.send(Request::OffsetCommit(OffsetCommitRequest {
            partitions,
            ..commit(id, generation)
        }))
    }

    fn committed(&mut self, token: RequestToken) -> Option<GroupError> {
        match self.take(token) {
            Response::OffsetCommit(it) => it.partitions.first().unwrap().error,
            other => panic!("{other:?}"),
        }
    }

    fn commits(&mut self, id: &str, generation: i32, offset: i64) -> Option<GroupError> {
        let token = self.commit_of(id, generation, offset);
        self.committed(token)
    }

    fn fetch(&mut self, topics: Option<Vec<(String, Vec<i32>)>>) -> Vec<FetchedOffset> {
        let token = self.send(Request::OffsetFetch(OffsetFetchRequest {
            group_id: "g".into(),
            topics,
        }));
        match self.take(token) {
            Response::OffsetFetch(it) => {
                assert_eq!(it.error, None);
                it.partitions
            }
            other => panic!("{other:?}"),
        }
    }

    fn offset(&mut self) -> i64 {
        self.fetch(Some(vec![("t".into(), vec![0])]))
            .first()
            .unwrap()
            .offset
    }

    fn describe(&mut self) -> DescribeResponse {
        let token = self.send(Request::Describe(DescribeRequest { group_id: "g".into() }));
        match self.take(token) {
            Response::Describe(it) => it,
            other => panic!("{other:?}"),
        }
    }

    fn state(&mut self) -> GroupState {
        self.describe().state
    }

    fn delete(&mut self, ids: &[&str]) -> RequestToken {
        let group_ids = ids.iter().map(|it| (*it).to_owned()).collect();
        self.send(Request::DeleteGroups(DeleteGroupsRequest { group_ids }))
    }

    fn deleted(&mut self, token: RequestToken) -> Vec<Option<GroupError>> {
        match self.take(token) {
            Response::DeleteGroups(it) => it.groups.into_iter().map(|(_, error)| error).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// A stable group `g` of one dynamic member.
    fn stable_one(&mut self) -> String {
        let (id, token) = self.enter("g", &joiner("one"));
        assert_eq!(self.joined(token).generation, 1);
        let token = self.sync(&id, 1, &[(&id, b"all")]);
        assert_eq!(self.synced(token), Ok(b"all".to_vec()));
        id
    }

    /// A stable group `g` of two dynamic members in generation 2: leader and follower.
    fn stable_two(&mut self) -> (String, String) {
        let leader = self.stable_one();
        let (follower, follower_join) = self.enter("g", &joiner("two"));
        let leader_join = self.join(JoinRequest {
            member_id: leader.clone(),
            ..joiner("one")
        });
        assert_eq!(self.joined(leader_join).generation, 2);
        assert_eq!(self.joined(follower_join).generation, 2);
        let waits = self.sync(&follower, 2, &[]);
        let token = self.sync(&leader, 2, &[(&leader, b"L"), (&follower, b"F")]);
        assert_eq!(self.synced(token), Ok(b"L".to_vec()));
        assert_eq!(self.synced(waits), Ok(b"F".to_vec()));
        (leader, follower)
    }

    /// A stable group `g` of two static members, `i1` leading and `i2`, in generation 2.
    fn stable_static(&mut self) -> (String, String) {
        let token = self.join(fixed("i1"));
        let leader = self.joined(token).member_id.to_string();
        let token = self.sync(&leader, 1, &[]);
        assert_eq!(self.synced(token), Ok(vec![]));
        let waits = self.join(fixed("i2"));
        let token = self.join(JoinRequest {
            member_id: leader.clone(),
            ..fixed("i1")
        });
        assert_eq!(self.joined(token).generation, 2);
        let follower = self.joined(waits).member_id.to_string();
        let waits = self.sync(&follower, 2, &[]);
        let token = self.sync(&leader, 2, &[(&leader, b"L"), (&follower, b"F")]);
        assert_eq!(self.synced(token), Ok(b"L".to_vec()));
        assert_eq!(self.synced(waits), Ok(b"F".to_vec()));
        (leader, follower)
    }
}

fn protocol(name: &str, metadata: &[u8]) -> Protocol {
    Protocol {
        name: name.into(),
        metadata: Arc::from(metadata),
    }
}

/// A consumer's metadata: its topics and user data.
fn subscription(topics: &[&str], user_data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 0, u8::try_from(topics.len()).unwrap()];
    for topic in topics {
        bytes.extend([0, u8::try_from(topic.len()).unwrap()]);
        bytes.extend(topic.as_bytes());
    }
    bytes.extend(user_data);
    bytes
}

fn joiner(client: &str) -> JoinRequest {
    JoinRequest {
        api_version: 9,
        group_id: "g".into(),
        member_id: String::new(),
        instance_id: None,
        client_id: client.into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", &subscription(&["t"], client.as_bytes()))],
        member_entropy: 0,
    }
}

fn fixed(instance: &str) -> JoinRequest {
    JoinRequest {
        instance_id: Some(instance.into()),
        ..joiner(instance)
    }
}

fn sync_of(id: &str, generation: i32) -> SyncRequest {
    SyncRequest {
        group_id: "g".into(),
        generation,
        member_id: id.into(),
        instance_id: None,
        protocol_type: None,
        protocol: None,
        assignments: Vec::new(),
    }
}

fn at(topic: &str, partition: i32, offset: i64) -> CommitPartition {
    CommitPartition {
        topic: topic.into(),
        partition,
        offset,
        leader_epoch: 3,
        metadata: "note".into(),
        refused: None,
    }
}

fn commit(id: &str, generation: i32) -> OffsetCommitRequest {
    OffsetCommitRequest {
        api_version: 8,
        group_id: "g".into(),
        generation,
        member_id: id.into(),
        instance_id: None,
        retention_ms: -1,
        partitions: vec![at("t", 0, 1)],
    }
}

const DAY_MS: i64 = 24 * 3_600_000;

// Joining (5.1).

#[test]
fn a_first_join_from_version_4_on_is_answered_with_an_id_to_join_with() {
    let mut bench = Bench::new();
    let token = bench.join(joiner("client"));
    let answer = bench.joined(token);
    assert_eq!(answer.error, Some(GroupError::MemberIdRequired));
    assert!(answer.member_id.starts_with("client-"));
    assert_eq!(answer.generation, -1);
    assert_eq!(bench.state(), GroupState::Empty);
    let token = bench.join(JoinRequest {
        member_id: answer.member_id.to_string(),
        ..joiner("client")
    });
    let second = bench.joined(token);
    assert_eq!((second.error, second.generation), (None, 1));
    assert_eq!(second.member_id, answer.member_id);
    assert_eq!(second.leader, answer.member_id);
    assert_eq!(second.protocol.as_deref(), Some("range"));
    assert_eq!(second.protocol_type.as_deref(), Some("consumer"));
}

#[test]
fn a_first_join_before_version_4_and_one_of_a_static_member_are_admitted_directly() {
    for join in [
        JoinRequest {
            api_version: 3,
            ..joiner("old")
        },
        fixed("i"),
    ] {
        let mut bench = Bench::new();
        let token = bench.join(join);
        let answer = bench.joined(token);
        assert_eq!((answer.error, answer.generation), (None, 1));
    }
}

#[test]
fn an_id_that_was_given_out_is_forgotten_after_one_session_timeout_and_the_group_with_it() {
    let mut bench = Bench::new();
    let token = bench.join(joiner("late"));
    let id = bench.joined(token).member_id.to_string();
    bench.pass(9_999);
    assert_eq!(bench.coordinator.group_count(), 1);
    bench.pass(1);
    assert_eq!(bench.coordinator.group_count(), 0);
    assert_eq!(bench.coordinator.bytes(), 0);
    let token = bench.join(JoinRequest {
        member_id: id,
        ..joiner("late")
    });
    assert_eq!(bench.joined(token).error, Some(GroupError::UnknownMemberId));
}

#[test]
fn the_first_generation_waits_the_initial_delay_and_longer_while_members_keep_coming() {
    let mut bench = Bench::with(Settings::default());
    let short = JoinRequest {
        rebalance_timeout_ms: 7_000,
        ..joiner("c")
    };
    let (_, first) = bench.enter("g", &short);
    bench.pass(2_999);
    assert!(bench.is_held(first));
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    let (_, second) = bench.enter("g", &short);
    bench.pass(3_000);
    let (_, third) = bench.enter("g", &short);
    assert!(bench.is_held(first));
    // Two whole delays and what is left of the rebalance timeout.
    bench.pass(1_000);
    assert!(bench.is_held(first));
    bench.pass(1);
    for token in [first, second, third] {
        assert_eq!(bench.joined(token).generation, 1);
    }
}

#[test]
fn the_initial_delay_ends_by_itself_when_nobody_else_comes() {
    let mut bench = Bench::with(Settings::default());
    let (_, token) = bench.enter("g", &joiner("c"));
    bench.pass(3_000);
    assert_eq!(bench.joined(token).generation, 1);
}

#[test]
fn joins_are_held_until_every_known_member_has_rejoined() {
    let mut bench = Bench::new();
    let (leader, follower) = bench.stable_two();
    let (third, third_join) = bench.enter("g", &joiner("three"));
    let leader_join = bench.join(JoinRequest {
        member_id: leader.clone(),
        ..joiner("one")
    });
    assert!(bench.is_held(third_join));
    assert!(bench.is_held(leader_join));
    let follower_join = bench.join(JoinRequest {
        member_id: follower.clone(),
        ..joiner("two")
    });
    for (id, token) in [
        (&leader, leader_join),
        (&follower, follower_join),
        (&third, third_join),
    ] {
        let answer = bench.joined(token);
        assert_eq!((answer.error, answer.generation), (None, 3));
        assert_eq!(*answer.member_id, **id);
        assert_eq!(answer.members.len(), if *id == leader { 3 } else { 0 });
    }
}

#[test]
fn a_rebalance_also_waits_for_who_was_just_given_an_id() {
    let mut bench = Bench::new();
    let (leader, follower) = bench.stable_two();
    let token = bench.join(joiner("three"));
    let third = bench.joined(token).member_id.to_string();
    let leader_join = bench.join(JoinRequest {
        member_id: leader,
        ..joiner("one")
    });
    let follower_join = bench.join(JoinRequest {
        member_id: follower,
        ..joiner("two")
    });
    assert!(bench.is_held(leader_join));
    let token = bench.join(JoinRequest {
        member_id: third,
        ..joiner("three")
    });
    for token in [leader_join, follower_join, token] {
        assert_eq!(bench.joined(token).generation, 3);
    }
}

#[test]
fn dynamic_members_that_do_not_rejoin_in_time_are_removed() {
    let mut bench = Bench::new();
    let (leader, follower) = bench.stable_two();
    let token = bench.join(JoinRequest {
        member_id: leader.clone(),
        ..joiner("one")
    });
    for _ in 0..11 {
        bench.pass(5_000);
        assert_eq!(bench.beat(&follower, 2), Some(GroupError::RebalanceInProgress));
    }
    assert!(bench.is_held(token));
    bench.pass(5_000);
    assert_eq!(bench.joined(token).members.len(), 1);
    assert_eq!(bench.beat(&follower, 2), Some(GroupError::UnknownMemberId));
}

#[test]
fn static_members_that_do_not_rejoin_stay_until_their_session_ends() {
    let mut bench = Bench::new();
    let slow = JoinRequest {
        session_timeout_ms: 300_000,
        ..fixed("slow")
    };
    let token = bench.join(slow);
    let slow = bench.joined(token).member_id.to_string();
    let token = bench.sync(&slow, 1, &[]);
    assert_eq!(bench.synced(token), Ok(vec![]));
    let token = bench.join(fixed("i"));
    bench.pass(60_000);
    let answer = bench.joined(token);
    assert_eq!(answer.generation, 2);
    assert_eq!(
        answer.leader, answer.member_id,
        "a member that is not there can not lead"
    );
    assert_eq!(answer.members.len(), 2);
    let id = answer.member_id.to_string();
    let token = bench.sync(&id, 2, &[(&slow, b"kept")]);
    assert_eq!(bench.synced(token), Ok(vec![]));
    let token = bench.sync(&slow, 2, &[]);
    assert_eq!(bench.synced(token), Ok(b"kept".to_vec()));
}

#[test]
fn a_rebalance_is_postponed_while_only_silent_static_members_are_left_to_lead() {
    let mut bench = Bench::new();
    let token = bench.join(JoinRequest {
        session_timeout_ms: 300_000,
        ..fixed("slow")
    });
    let slow = bench.joined(token).member_id.to_string();
    let token = bench.sync(&slow, 1, &[]);
    assert_eq!(bench.synced(token), Ok(vec![]));
    let (other, token) = bench.enter("g", &joiner("goes"));
    assert_eq!(bench.leave(&[(&other, None)]), [None]);
    assert_eq!(bench.joined(token).error, Some(GroupError::UnknownMemberId));
    bench.pass(299_999);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    bench.pass(1);
    assert_eq!(bench.state(), GroupState::Empty);
}

#[test]
fn the_protocol_is_one_that_all_support_chosen_by_votes() {
    let mut bench = Bench::with(Settings::default());
    let with = |names: &[&str]| JoinRequest {
        protocols: names.iter().map(|it| protocol(it, it.as_bytes())).collect(),
        ..joiner("c")
    };
    let (_, first) = bench.enter("g", &with(&["only-mine", "range", "sticky"]));
    let (_, second) = bench.enter("g", &with(&["sticky", "range"]));
    let (_, third) = bench.enter("g", &with(&["sticky", "other", "range"]));
    bench.pass(10_000);
    let answer = bench.joined(first);
    assert_eq!(answer.protocol.as_deref(), Some("sticky"));
    assert!(answer.members.iter().all(|it| &*it.metadata == b"sticky"));
    assert_eq!(bench.joined(second).protocol.as_deref(), Some("sticky"));
    assert_eq!(bench.joined(third).protocol.as_deref(), Some("sticky"));
}

#[test]
fn the_leader_gets_all_members_with_their_metadata_untouched_and_others_none() {
    let mut bench = Bench::with(Settings::default());
    let bytes: Vec<u8> = (0..=255).collect();
    let join = |type_: &str, metadata: &[u8]| JoinRequest {
        protocol_type: type_.into(),
        protocols: vec![protocol("p", metadata)],
        ..joiner("c")
    };
    let (first, first_join) = bench.enter("g", &join("connect", &bytes));
    let (second, second_join) = bench.enter("g", &join("connect", &[]));
    bench.pass(10_000);
    let answer = bench.joined(first_join);
    assert_eq!(answer.protocol_type.as_deref(), Some("connect"));
    let of = |id: &str| answer.members.iter().find(|it| &*it.member_id == id).unwrap();
    assert_eq!(*of(&first).metadata, *bytes);
    assert_eq!(*of(&second).metadata, []);
    assert_eq!(bench.joined(second_join).members, []);
}

#[test]
fn joins_that_do_not_fit_the_group_are_refused() {
    let mut bench = Bench::new();
    bench.stable_one();
    let mut error = |join: JoinRequest| {
        let token = bench.join(join);
        bench.joined(token).error
    };
    let fits = joiner("c");
    let other_type = JoinRequest {
        protocol_type: "connect".into(),
        ..fits.clone()
    };
    assert_eq!(error(other_type), Some(GroupError::InconsistentGroupProtocol));
    let other_name = JoinRequest {
        protocols: vec![protocol("sticky", b"")],
        ..fits.clone()
    };
    assert_eq!(error(other_name), Some(GroupError::InconsistentGroupProtocol));
    for (type_, protocols) in [("", fits.protocols.clone()), ("consumer", vec![])] {
        let join = JoinRequest {
            protocol_type: type_.into(),
            protocols,
            group_id: "h".into(),
            ..fits.clone()
        };
        assert_eq!(error(join), Some(GroupError::InconsistentGroupProtocol));
    }
    for session_timeout_ms in [-1, 0, 5_999, 1_800_001, i32::MAX] {
        let join = JoinRequest {
            session_timeout_ms,
            ..fits.clone()
        };
        assert_eq!(error(join), Some(GroupError::InvalidSessionTimeout));
    }
    let no_id = JoinRequest {
        group_id: String::new(),
        ..fits.clone()
    };
    assert_eq!(error(no_id), Some(GroupError::InvalidGroupId));
    let long_id = JoinRequest {
        group_id: "x".repeat(40_000),
        ..fits.clone()
    };
    assert_eq!(error(long_id), Some(GroupError::InvalidGroupId));
    let unknown = JoinRequest {
        member_id: "nobody".into(),
        ..fits.clone()
    };
    assert_eq!(error(unknown.clone()), Some(GroupError::UnknownMemberId));
    let no_group = JoinRequest {
        group_id: "h".into(),
        ..unknown
    };
    assert_eq!(error(no_group), Some(GroupError::UnknownMemberId));
    let no_owner = JoinRequest {
        member_id: "nobody".into(),
        ..fixed("i")
    };
    assert_eq!(error(no_owner), Some(GroupError::UnknownMemberId));
    let large = JoinRequest {
        protocols: vec![protocol("range", &vec![0; 2 << 20])],
        ..fits
    };
    assert_eq!(error(large), Some(GroupError::InvalidRequest));
    assert_eq!(bench.coordinator.group_count(), 1);
}

#[test]
fn a_join_without_a_rebalance_timeout_uses_its_session_timeout() {
    let mut bench = Bench::new();
    let old = JoinRequest {
        api_version: 0,
        rebalance_timeout_ms: -1,
        ..joiner("old")
    };
    let token = bench.join(old.clone());
    let first = bench.joined(token).member_id.to_string();
    let token = bench.sync(&first, 1, &[]);
    assert_eq!(bench.synced(token), Ok(vec![]));
    let token = bench.join(old);
    bench.pass(9_000);
    assert_eq!(bench.beat(&first, 1), Some(GroupError::RebalanceInProgress));
    assert!(bench.is_held(token));
    bench.pass(1_000);
    assert_eq!(bench.joined(token).generation, 2);
}

#[test]
fn a_member_that_never_got_an_answer_is_not_waited_for_without_end() {
    let mut bench = Bench::new();
    let leader = bench.stable_one();
    let patient = JoinRequest {
        rebalance_timeout_ms: i32::MAX,
        api_version: 0,
        ..joiner("gone")
    };
    let gone = bench.join(patient);
    for _ in 0..30 {
        bench.pass(9_900);
        assert_eq!(bench.beat(&leader, 1), Some(GroupError::RebalanceInProgress));
    }
    assert!(bench.is_held(gone));
    bench.pass(5_000);
    assert_eq!(bench.joined(gone).error, Some(GroupError::UnknownMemberId));
}

#[test]
fn bounds_on_members_groups_and_bytes_hold() {
    let settings = Settings {
        max_members_per_group: 2,
        max_pending_members_per_group: 2,
        max_groups: 2,
        ..settings()
    };
    let mut bench = Bench::with(settings.clone());
    let (_, _) = bench.stable_two();
    let full = Some(GroupError::GroupMaxSizeReached);
    for join in [
        joiner("three"),
        JoinRequest {
            api_version: 3,
            ..joiner("three")
        },
        fixed("three"),
    ] {
        let token = bench.join(join);
        assert_eq!(bench.joined(token).error, full);
    }
    let mut error = |group: &str| {
        let token = bench.join(JoinRequest {
            group_id: group.into(),
            ..joiner("c")
        });
        bench.joined(token).error
    };
    assert_eq!(error("h"), Some(GroupError::MemberIdRequired));
    assert_eq!(error("h"), Some(GroupError::MemberIdRequired));
    assert_eq!(error("h"), full);
    assert_eq!(error("third"), full);
    let mut bench = Bench::with(Settings {
        max_bytes: 20_000,
        ..settings
    });
    let big = JoinRequest {
        protocols: vec![protocol("range", &[7; 15_000])],
        api_version: 3,
        ..joiner("big")
    };
    let token = bench.join(big.clone());
    assert_eq!(bench.joined(token).error, None);
    let token = bench.join(big);
    assert_eq!(bench.joined(token).error, full);
    assert!(bench.coordinator.bytes() <= 20_000);
}

#[test]
fn strings_as_long_as_the_wire_allows_are_stored_and_longer_ones_refused() {
    let long = "x".repeat(32_767);
    let mut bench = Bench::with(Settings {
        max_offset_metadata: usize::MAX,
        ..settings()
    });
    let join = JoinRequest {
        group_id: long.clone(),
        instance_id: Some(long.clone()),
        client_id: long.clone(),
        client_host: long.clone(),
        protocol_type: long.clone(),
        protocols: vec![protocol(&long, b"p"), protocol(&long, b"the same name again")],
        ..joiner("")
    };
    let too_long = format!("{long}x");
    for refused in [
        JoinRequest {
            client_id: too_long.clone(),
            ..join.clone()
        },
        JoinRequest {
            client_host: too_long.clone(),
            ..join.clone()
        },
        JoinRequest {
            instance_id: Some(too_long.clone()),
            ..join.clone()
        },
        JoinRequest {
            instance_id: Some(String::new()),
            ..join.clone()
        },
        JoinRequest {
            protocol_type: too_long.clone(),
            ..join.clone()
        },
        JoinRequest {
            protocols: vec![protocol(&too_long, b"")],
            ..join.clone()
        },
    ] {
        let token = bench.join(refused);
        assert_eq!(bench.joined(token).error, Some(GroupError::InvalidRequest));
    }
    assert_eq!(bench.coordinator.group_count(), 0);
    let token = bench.join(join);
    let answer = bench.joined(token);
    assert_eq!(answer.error, None);
    assert_eq!(*answer.members.first().unwrap().metadata, *b"p");
    let id = answer.member_id.to_string();
    let sync = SyncRequest {
        group_id: long.clone(),
        assignments: vec![(id.clone(), vec![1])],
        ..sync_of(&id, 1)
    };
    let token = bench.send(Request::Sync(sync));
    assert_eq!(bench.synced(token), Ok(vec![1]));
    let request = OffsetCommitRequest {
        group_id: long.clone(),
        partitions: vec![
            CommitPartition {
                metadata: long.clone(),
                ..at(&long, i32::MAX, i64::MAX)
            },
            at(&too_long, 0, 1),
            CommitPartition {
                metadata: too_long,
                ..at("t", 0, 1)
            },
        ],
        ..commit(&id, 1)
    };
    let token = bench.send(Request::OffsetCommit(request));
    let Response::OffsetCommit(answer) = bench.take(token) else {
        panic!("a commit")
    };
    let errors: Vec<_> = answer.partitions.iter().map(|it| it.error).collect();
    let unknown = Some(GroupError::UnknownTopicOrPartition);
    assert_eq!(errors, [None, unknown, Some(GroupError::OffsetMetadataTooLarge)]);
    let bytes = bench.coordinator.bytes();
    let bench = bench.restarted(settings());
    assert_eq!(bench.coordinator.bytes(), bytes);
}

// Assignment (5.1, 5.4).

#[test]
fn the_sync_of_a_follower_waits_for_the_leader_and_the_leader_for_the_log() {
    let mut bench = Bench::new();
    let leader = bench.stable_one();
    let (follower, follower_join) = bench.enter("g", &joiner("two"));
    let leader_join = bench.join(JoinRequest {
        member_id: leader.clone(),
        ..joiner("one")
    });
    assert_eq!(bench.joined(leader_join).error, None);
    assert_eq!(bench.joined(follower_join).error, None);
    let waits = bench.sync(&follower, 2, &[]);
    assert!(bench.is_held(waits));
    bench.acknowledges = false;
    let token = bench.sync(&leader, 2, &[(&leader, b"L"), ("stranger", b"S")]);
    assert!(bench.is_held(waits));
    assert!(bench.is_held(token));
    assert_eq!(bench.state(), GroupState::CompletingRebalance);
    bench.acknowledge(true);
    assert_eq!(bench.synced(token), Ok(b"L".to_vec()));
    assert_eq!(bench.synced(waits), Ok(vec![]), "nothing for who is left out");
    assert_eq!(bench.state(), GroupState::Stable);
}

#[test]
fn an_assignment_that_can_not_be_stored_is_given_to_nobody() {
    let mut bench = Bench::new();
    let (id, token) = bench.enter("g", &joiner("one"));
    assert_eq!(bench.joined(token).generation, 1);
    bench.acknowledges = false;
    let token = bench.sync(&id, 1, &[(&id, b"all")]);
    bench.acknowledge(false);
    assert_eq!(bench.synced(token), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    let token = bench.join(JoinRequest {
        member_id: id,
        ..joiner("one")
    });
    assert_eq!(bench.joined(token).generation, 2);
}

#[test]
fn a_sync_repeated_while_stable_gets_the_same_assignment() {
    let mut bench = Bench::new();
    let (leader, follower) = bench.stable_two();
    let before = bench.log.len();
    for (id, assignment) in [(&leader, b"L"), (&follower, b"F")] {
        let token = bench.sync(id, 2, &[(&follower, b"ignored")]);
        assert_eq!(bench.synced(token), Ok(assignment.to_vec()));
    }
    assert_eq!(bench.log.len(), before);
}

#[test]
fn a_sync_sent_again_while_the_first_is_held_takes_its_place() {
    let mut bench = Bench::new();
    let (id, token) = bench.enter("g", &joiner("one"));
    assert_eq!(bench.joined(token).error, None);
    bench.acknowledges = false;
    let first = bench.sync(&id, 1, &[(&id, b"all")]);
    let second = bench.sync(&id, 1, &[(&id, b"all")]);
    assert_eq!(bench.synced(first), Err(GroupError::RebalanceInProgress));
    assert_eq!(bench.unacknowledged.len(), 1);
    bench.acknowledge(true);
    assert_eq!(bench.synced(second), Ok(b"all".to_vec()));
}

#[test]
fn syncs_that_do_not_fit_are_refused() {
    let mut bench = Bench::new();
    let id = bench.stable_one();
    let mut error = |request: SyncRequest| {
        let token = bench.send(Request::Sync(request));
        bench.synced(token).err()
    };
    let fits = sync_of(&id, 1);
    assert_eq!(
        error(SyncRequest {
            generation: 0,
            ..fits.clone()
        }),
        Some(GroupError::IllegalGeneration)
    );
    assert_eq!(error(sync_of("nobody", 1)), Some(GroupError::UnknownMemberId));
    let no_group = SyncRequest {
        group_id: "h".into(),
        ..fits.clone()
    };
    assert_eq!(error(no_group), Some(GroupError::UnknownMemberId));
    let other = Some("other".to_owned());
    let wrong_type = SyncRequest {
        protocol_type: other.clone(),
        ..fits.clone()
    };
    assert_eq!(error(wrong_type), Some(GroupError::InconsistentGroupProtocol));
    let wrong_name = SyncRequest {
        protocol: other,
        ..fits.clone()
    };
    assert_eq!(error(wrong_name), Some(GroupError::InconsistentGroupProtocol));
    let right = SyncRequest {
        protocol_type: Some("consumer".into()),
        protocol: Some("range".into()),
        ..fits.clone()
    };
    assert_eq!(error(right), None);
    let token = bench.join(JoinRequest {
        member_id: id,
        ..joiner("one")
    });
    assert_eq!(bench.joined(token).generation, 2);
}

#[test]
fn a_leader_that_does_not_deliver_in_time_is_removed_and_the_others_rebalance() {
    let mut bench = Bench::new();
    let leader = bench.stable_one();
    let (follower, follower_join) = bench.enter("g", &joiner("two"));
    let leader_join = bench.join(JoinRequest {
        member_id: leader.clone(),
        ..joiner("one")
    });
    assert_eq!(bench.joined(leader_join).leader.to_string(), leader);
    assert_eq!(bench.joined(follower_join).error, None);
    let waits = bench.sync(&follower, 2, &[]);
    for _ in 0..12 {
        bench.pass(5_000);
        let gone = Some(GroupError::UnknownMemberId);
        let expected = if bench.is_held(waits) { None } else { gone };
        assert_eq!(bench.beat(&leader, 2), expected);
    }
    assert_eq!(bench.synced(waits), Err(GroupError::RebalanceInProgress));
    let token = bench.join(JoinRequest {
        member_id: follower.clone(),
        ..joiner("two")
    });
    let answer = bench.joined(token);
    assert_eq!((answer.generation, answer.leader.to_string()), (3, follower));
}

#[test]
fn a_rebalance_answers_the_syncs_that_are_held() {
    let mut bench = Bench::new();
    let leader = bench.stable_one();
    let (follower, follower_join) = bench.enter("g", &joiner("two"));
    let leader_join = bench.join(JoinRequest {
        member_id: leader,
        ..joiner("one")
    });
    assert_eq!(bench.joined(leader_join).error, None);
    assert_eq!(bench.joined(follower_join).error, None);
    let waits = bench.sync(&follower, 2, &[]);
    let (_, third) = bench.enter("g", &joiner("three"));
    assert_eq!(bench.synced(waits), Err(GroupError::RebalanceInProgress));
    assert!(bench.is_held(third));
}

// Rejoining (5.1).

#[test]
fn while_stable_a_follower_that_changes_nothing_gets_the_present_generation() {
    let mut bench = Bench::new();
    let (leader, follower) = bench.stable_two();
    let token = bench.join(JoinRequest {
        member_id: follower.clone(),
        ..joiner("two")
    });
    let answer = bench.joined(token);
    assert_eq!((answer.error, answer.generation), (None, 2));
    assert_eq!(*answer.leader, *leader);
    assert_eq!(answer.members, []);
    assert_eq!(bench.beat(&leader, 2), None);
}

#[test]
fn while_stable_a_join_of_the_leader_or_with_changed_protocols_starts_a_rebalance() {
    let mut bench = Bench::new();
    let (leader, follower) = bench.stable_two();
    let changed = vec![protocol("range", &subscription(&["t", "u"], b""))];
    let token = bench.join(JoinRequest {
        member_id: follower.clone(),
        protocols: changed.clone(),
        ..joiner("two")
    });
    assert!(bench.is_held(token));
    let leader_join = bench.join(JoinRequest {
        member_id: leader.clone(),
        ..joiner("one")
    });
    assert_eq!(bench.joined(token).generation, 3);
    let members = bench.joined(leader_join).members;
    assert!(
        members
            .iter()
            .any(|it| it.metadata == changed.first().unwrap().metadata)
    );
    let waits = bench.sync(&follower, 3, &[]);
    let token = bench.sync(&leader, 3, &[]);
    assert!(bench.synced(token).is_ok() && bench.synced(waits).is_ok());
    let token = bench.join(JoinRequest {
        member_id: leader,
        ..joiner("one")
    });
    assert!(bench.is_held(token));
    assert_eq!(bench.beat(&follower, 3), Some(GroupError::RebalanceInProgress));
}

#[test]
fn while_completing_a_join_that_changes_nothing_gets_the_present_generation() {
    let mut bench = Bench::new();
    let (id, token) = bench.enter("g", &joiner("one"));
    let first = bench.joined(token);
    let token = bench.join(JoinRequest {
        member_id: id.clone(),
        ..joiner("one")
    });
    assert_eq!(bench.joined(token), first);
    let changed = JoinRequest {
        protocols: vec![protocol("sticky", b"")],
        member_id: id,
        ..joiner("one")
    };
    let token = bench.join(changed);
    let answer = bench.joined(token);
    assert_eq!(
        (answer.generation, answer.protocol.as_deref()),
        (2, Some("sticky"))
    );
}

#[test]
fn a_join_sent_again_while_the_first_is_held_takes_its_place() {
    let mut bench = Bench::new();
    let (leader, _) = bench.stable_two();
    let rejoin = JoinRequest {
        member_id: leader,
        ..joiner("one")
    };
    let first = bench.join(rejoin.clone());
    let second = bench.join(rejoin);
    assert_eq!(bench.joined(first).error, Some(GroupError::RebalanceInProgress));
    assert!(bench.is_held(second));
}

// Liveness (5.1).

#[test]
fn a_heartbeat_is_answered_by_the_state_of_the_group() {
    let mut bench = Bench::new();
    assert_eq!(bench.beat("nobody", 1), Some(GroupError::UnknownMemberId));
    let (id, token) = bench.enter("g", &joiner("one"));
    assert_eq!(bench.joined(token).error, None);
    assert_eq!(bench.state(), GroupState::CompletingRebalance);
    assert_eq!(bench.beat(&id, 1), None);
    let token = bench.sync(&id, 1, &[]);
    assert!(bench.synced(token).is_ok());
    assert_eq!(bench.beat(&id, 1), None);
    assert_eq!(bench.beat(&id, 0), Some(GroupError::IllegalGeneration));
    assert_eq!(bench.beat(&id, 2), Some(GroupError::IllegalGeneration));
    assert_eq!(bench.beat("nobody", 1), Some(GroupError::UnknownMemberId));
    let (other, _) = bench.enter("g", &joiner("two"));
    assert_eq!(bench.beat(&id, 1), Some(GroupError::RebalanceInProgress));
    assert_eq!(bench.leave(&[(&id, None), (&other, None)]), [None, None]);
    assert_eq!(bench.state(), GroupState::Empty);
    assert_eq!(bench.beat(&id, 1), Some(GroupError::UnknownMemberId));
}

#[test]
fn a_member_that_is_not_heard_of_for_a_session_timeout_is_removed() {
    let mut bench = Bench::new();
    let (leader, follower) = bench.stable_two();
    for _ in 0..4 {
        bench.pass(5_000);
        let is_alone = bench.describe().members.len() == 1;
        let expected = is_alone.then_some(GroupError::RebalanceInProgress);
        assert_eq!(bench.beat(&leader, 2), expected);
    }
    assert_eq!(bench.beat(&follower, 2), Some(GroupError::UnknownMemberId));
    bench.pass(10_000);
    assert_eq!(bench.state(), GroupState::Empty);
}

#[test]
fn a_held_join_counts_as_alive() {
    let mut bench = Bench::with(Settings {
        new_member_join_timeout_ms: 20_000,
        ..settings()
    });
    let (leader, follower) = bench.stable_two();
    let token = bench.join(JoinRequest {
        member_id: leader,
        ..joiner("one")
    });
    for _ in 0..5 {
        bench.pass(9_000);
        assert_eq!(bench.beat(&follower, 2), Some(GroupError::RebalanceInProgress));
    }
    assert!(bench.is_held(token));
    let other = bench.join(JoinRequest {
        member_id: follower,
        ..joiner("two")
    });
    assert_eq!(bench.joined(token).members.len(), 2);
    assert_eq!(bench.joined(other).error, None);
}

#[test]
fn leaving_removes_at_once_and_rebalances() {
    let mut bench = Bench::new();
    let (leader, follower) = bench.stable_two();
    assert_eq!(bench.leave(&[(&leader, None)]), [None]);
    assert_eq!(bench.beat(&follower, 2), Some(GroupError::RebalanceInProgress));
    let token = bench.join(JoinRequest {
        member_id: follower.clone(),
        ..joiner("two")
    });
    let answer = bench.joined(token);
    assert_eq!(
        (answer.generation, answer.leader.to_string()),
        (3, follower.clone())
    );
    assert_eq!(
        bench.leave(&[(&leader, None)]),
        [Some(GroupError::UnknownMemberId)]
    );
    assert_eq!(bench.leave(&[(&follower, None)]), [None]);
    assert_eq!(bench.state(), GroupState::Empty);
}

#[test]
fn several_leave_at_once_by_id_or_instance_with_an_error_for_each() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.leave(&[("nobody", None)]),
        [Some(GroupError::UnknownMemberId)]
    );
    let (first, second) = bench.stable_static();
    let token = bench.join(joiner("pending"));
    let pending = bench.joined(token).member_id.to_string();
    let outcome = bench.leave(&[
        ("", Some("i1")),
        ("", Some("i1")),
        (&first, None),
        ("other", Some("i2")),
        (&second, Some("i2")),
        ("", None),
        (&pending, None),
    ]);
    let unknown = Some(GroupError::UnknownMemberId);
    assert_eq!(
        outcome,
        [
            None,
            unknown,
            unknown,
            Some(GroupError::FencedInstanceId),
            None,
            unknown,
            None
        ]
    );
    assert_eq!(bench.state(), GroupState::Empty);
}

#[test]
fn requests_are_refused_while_loading_and_after_resigning_and_held_ones_answered() {
    let mut bench = Bench::loading(settings());
    assert_eq!(bench.beat("m", 1), Some(GroupError::CoordinatorLoadInProgress));
    assert_eq!(bench.coordinator.next_deadline(), None);
    bench.coordinator.on_loaded(bench.now());
    let (leader, _) = bench.stable_two();
    let token = bench.join(JoinRequest {
        member_id: leader.clone(),
        ..joiner("one")
    });
    assert!(bench.is_held(token));
    bench.coordinator.on_resigned(bench.now());
    bench.drain();
    assert_eq!(bench.joined(token).error, Some(GroupError::NotCoordinator));
    assert_eq!(bench.beat(&leader, 2), Some(GroupError::NotCoordinator));
    assert_eq!(bench.coordinator.next_deadline(), None);
}

// Static membership (5.2).

#[test]
fn a_static_follower_that_restarts_causes_no_rebalance_and_keeps_its_assignment() {
    let mut bench = Bench::new();
    let (leader, old) = bench.stable_static();
    // What it owned is in the user data, and is gone with the restart.
    let restarted = vec![protocol("range", &subscription(&["t"], b"other user data"))];
    let token = bench.join(JoinRequest {
        protocols: restarted,
        ..fixed("i2")
    });
    let answer = bench.joined(token);
    assert_eq!((answer.error, answer.generation), (None, 2));
    assert_ne!(*answer.member_id, *old);
    assert_eq!(
        (&*answer.leader, answer.skip_assignment),
        (leader.as_str(), false)
    );
    assert_eq!(bench.beat(&leader, 2), None);
    let token = bench.sync(&answer.member_id, 2, &[]);
    assert_eq!(bench.synced(token), Ok(b"F".to_vec()));
}

#[test]
fn a_static_leader_that_restarts_is_told_to_skip_the_assignment() {
    let mut bench = Bench::new();
    bench.stable_static();
    let token = bench.join(fixed("i1"));
    let answer = bench.joined(token);
    assert!(answer.skip_assignment);
    assert_eq!(answer.leader, answer.member_id);
    assert_eq!(answer.members.len(), 2);
    let token = bench.sync(&answer.member_id, 2, &[]);
    assert_eq!(bench.synced(token), Ok(b"L".to_vec()));
}

#[test]
fn a_static_leader_that_restarts_before_version_9_is_treated_as_a_follower() {
    let mut bench = Bench::new();
    let (old, _) = bench.stable_static();
    let token = bench.join(JoinRequest {
        api_version: 8,
        ..fixed("i1")
    });
    let answer = bench.joined(token);
    assert_eq!((answer.skip_assignment, answer.leader.to_string()), (false, old));
    assert_eq!(answer.members, []);
}

#[test]
fn a_static_member_that_comes_back_with_another_subscription_causes_a_rebalance() {
    let mut bench = Bench::new();
    let (leader, _) = bench.stable_static();
    let changed = vec![protocol("range", &subscription(&["u"], b""))];
    let token = bench.join(JoinRequest {
        protocols: changed,
        ..fixed("i2")
    });
    assert!(bench.is_held(token));
    assert_eq!(bench.beat(&leader, 2), Some(GroupError::RebalanceInProgress));
}

#[test]
fn the_older_of_two_with_one_instance_id_is_fenced() {
    let mut bench = Bench::new();
    let (_, old) = bench.stable_static();
    let token = bench.join(fixed("i2"));
    assert_eq!(bench.joined(token).error, None);
    let fenced = Some(GroupError::FencedInstanceId);
    let instance_id = Some("i2".to_owned());
    let beat = HeartbeatRequest {
        group_id: "g".into(),
        generation: 2,
        member_id: old.clone(),
        instance_id: instance_id.clone(),
    };
    assert_eq!(bench.heartbeat(beat), fenced);
    let token = bench.send(Request::Sync(SyncRequest {
        instance_id: instance_id.clone(),
        ..sync_of(&old, 2)
    }));
    assert_eq!(bench.synced(token).err(), fenced);
    let token = bench.join(JoinRequest {
        member_id: old.clone(),
        ..fixed("i2")
    });
    assert_eq!(bench.joined(token).error, fenced);
    let request = OffsetCommitRequest {
        instance_id,
        ..commit(&old, 2)
    };
    let token = bench.send(Request::OffsetCommit(request));
    assert_eq!(bench.committed(token), fenced);
    assert_eq!(bench.leave(&[(&old, Some("i2"))]), [fenced]);
}

#[test]
fn requests_held_for_a_static_member_are_fenced_when_it_is_replaced() {
    let mut bench = Bench::new();
    let (leader, _) = bench.stable_static();
    let held = bench.join(JoinRequest {
        member_id: leader,
        ..fixed("i1")
    });
    assert!(bench.is_held(held));
    let second = bench.join(fixed("i1"));
    assert_eq!(bench.joined(held).error, Some(GroupError::FencedInstanceId));
    assert!(bench.is_held(second));
}

#[test]
fn a_replacement_that_can_not_be_stored_can_be_tried_again() {
    let mut bench = Bench::new();
    bench.stable_static();
    bench.acknowledges = false;
    let token = bench.join(fixed("i2"));
    assert!(bench.is_held(token));
    bench.acknowledge(false);
    assert_eq!(
        bench.joined(token).error,
        Some(GroupError::CoordinatorNotAvailable)
    );
    bench.acknowledges = true;
    let token = bench.join(fixed("i2"));
    let answer = bench.joined(token);
    assert_eq!((answer.error, answer.generation), (None, 2));
}

// Offsets (5.3, 5.4).

#[test]
fn a_commit_without_membership_makes_a_group_and_is_allowed_only_while_it_is_empty() {
    let mut bench = Bench::new();
    assert_eq!(bench.commits("", -1, 7), None);
    assert_eq!(bench.offset(), 7);
    assert_eq!(bench.state(), GroupState::Empty);
    let id = bench.stable_one();
    assert_eq!(bench.commits("", -1, 8), Some(GroupError::UnknownMemberId));
    assert_eq!(bench.offset(), 7);
    assert_eq!(bench.leave(&[(&id, None)]), [None]);
    assert_eq!(bench.commits("", -1, 9), None);
    assert_eq!(bench.offset(), 9);
}

#[test]
fn a_commit_of_a_member_is_checked_against_id_and_generation() {
    let mut bench = Bench::new();
    let id = bench.stable_one();
    assert_eq!(bench.commits(&id, 1, 5), None);
    assert_eq!(bench.commits(&id, 0, 6), Some(GroupError::IllegalGeneration));
    assert_eq!(bench.commits(&id, -1, 6), Some(GroupError::IllegalGeneration));
    assert_eq!(bench.commits("nobody", 1, 6), Some(GroupError::UnknownMemberId));
    assert_eq!(bench.offset(), 5);
    let stored = bench.fetch(None);
    let [it] = stored.as_slice() else {
        panic!("one offset")
    };
    assert_eq!((it.leader_epoch, it.metadata.as_str()), (3, "note"));
}

#[test]
fn a_commit_of_the_old_generation_succeeds_while_preparing_and_is_put_off_while_completing() {
    let mut bench = Bench::new();
    let (leader, follower) = bench.stable_two();
    let token = bench.join(JoinRequest {
        member_id: leader.clone(),
        ..joiner("one")
    });
    assert_eq!(bench.commits(&follower, 2, 5), None);
    let other = bench.join(JoinRequest {
        member_id: follower.clone(),
        ..joiner("two")
    });
    assert_eq!(
        (bench.joined(token).error, bench.joined(other).error),
        (None, None)
    );
    assert_eq!(bench.state(), GroupState::CompletingRebalance);
    assert_eq!(
        bench.commits(&follower, 3, 6),
        Some(GroupError::RebalanceInProgress)
    );
    assert_eq!(
        bench.commits(&follower, 2, 6),
        Some(GroupError::IllegalGeneration)
    );
    assert_eq!(bench.offset(), 5);
}

#[test]
fn a_commit_keeps_the_session_alive() {
    let mut bench = Bench::new();
    let id = bench.stable_one();
    for offset in 0..5 {
        bench.pass(9_000);
        assert_eq!(bench.commits(&id, 1, offset), None);
    }
    assert_eq!(bench.state(), GroupState::Stable);
}

#[test]
fn a_commit_with_a_generation_to_an_unknown_group_is_refused_by_version() {
    let mut bench = Bench::new();
    let mut error = |api_version| {
        let token = bench.send(Request::OffsetCommit(OffsetCommitRequest {
            api_version,
            ..commit("m", 1)
        }));
        bench.committed(token)
    };
    assert_eq!(error(8), Some(GroupError::IllegalGeneration));
    assert_eq!(error(9), Some(GroupError::GroupIdNotFound));
    assert_eq!(bench.coordinator.group_count(), 0);
}

#[test]
fn partitions_of_a_commit_succeed_and_fail_each_on_its_own() {
    let mut bench = Bench::with(Settings {
        max_offsets_per_group: 3,
        ..settings()
    });
    let partitions = vec![
        at("t", 0, 1),
        CommitPartition {
            metadata: "x".repeat(4_097),
            ..at("t", 1, 1)
        },
        CommitPartition {
            refused: Some(GroupError::UnknownTopicOrPartition),
            ..at("gone", 0, 1)
        },
        at("t", -1, 1),
        at("t", 2, -5),
        CommitPartition {
            metadata: "x".repeat(4_096),
            ..at("t", 3, 1)
        },
        at("t", 4, 1),
        at("t", 5, 1),
    ];
    let token = bench.send(Request::OffsetCommit(OffsetCommitRequest {
        partitions,
        ..commit("", -1)
    }));
    let Response::OffsetCommit(answer) = bench.take(token) else {
        panic!("a commit")
    };
    let errors: Vec<_> = answer.partitions.iter().map(|it| it.error).collect();
    let expected = [
        None,
        Some(GroupError::OffsetMetadataTooLarge),
        Some(GroupError::UnknownTopicOrPartition),
        Some(GroupError::UnknownTopicOrPartition),
        Some(GroupError::InvalidRequest),
        None,
        None,
        Some(GroupError::InvalidCommitOffsetSize),
    ];
    assert_eq!(errors, expected);
    assert_eq!(bench.fetch(None).len(), 3);
    assert_eq!(bench.commits("", -1, 9), None, "a full group still moves on");
}

#[test]
fn a_commit_is_answered_and_seen_only_when_it_is_stored() {
    let mut bench = Bench::new();
    bench.acknowledges = false;
    let first = bench.commit_of("", -1, 1);
    assert!(bench.is_held(first));
    assert_eq!(bench.offset(), -1);
    bench.acknowledge(true);
    assert_eq!(bench.committed(first), None);
    assert_eq!(bench.offset(), 1);
    let second = bench.commit_of("", -1, 2);
    bench.acknowledge(false);
    assert_eq!(bench.committed(second), Some(GroupError::CoordinatorNotAvailable));
    assert_eq!(bench.offset(), 1);
}

#[test]
fn changes_take_effect_in_the_order_of_the_log_whatever_the_order_of_acknowledgements() {
    let mut bench = Bench::new();
    bench.acknowledges = false;
    let first = bench.commit_of("", -1, 1);
    let second = bench.commit_of("", -1, 2);
    bench.unacknowledged.reverse();
    let later = bench.unacknowledged.split_off(1);
    bench.acknowledge(true);
    assert!(
        bench.is_held(second),
        "it is not known yet whether the first is stored"
    );
    bench.unacknowledged = later;
    bench.acknowledge(true);
    assert_eq!((bench.committed(first), bench.committed(second)), (None, None));
    assert_eq!(bench.offset(), 2);
    let now = bench.now();
    assert!(!bench.coordinator.on_persisted(PersistToken(0), now));
    assert!(!bench.coordinator.on_persisted(PersistToken(99), now));
}

#[test]
fn too_many_changes_waiting_for_the_log_are_refused_with_a_retriable_error() {
    let mut bench = Bench::with(Settings {
        max_unacknowledged: 2,
        ..settings()
    });
    bench.acknowledges = false;
    let first = bench.commit_of("", -1, 1);
    let second = bench.commit_of("", -1, 2);
    assert_eq!(
        bench.commits("", -1, 3),
        Some(GroupError::CoordinatorNotAvailable)
    );
    let token = bench.delete(&["g"]);
    assert_eq!(bench.deleted(token), [Some(GroupError::CoordinatorNotAvailable)]);
    bench.acknowledge(true);
    assert_eq!((bench.committed(first), bench.committed(second)), (None, None));
    assert_eq!(bench.coordinator.unacknowledged(), 0);
}

#[test]
fn a_fetch_of_nothing_stored_or_of_an_unknown_group_is_offset_minus_one_without_error() {
    let mut bench = Bench::new();
    let ask = Some(vec![("t".to_owned(), vec![0, 1]), ("u".to_owned(), vec![])]);
    for _ in 0..2 {
        let answer = bench.fetch(ask.clone());
        assert_eq!(answer.len(), 2);
        let it = answer.get(1).unwrap();
        assert_eq!((it.offset, it.leader_epoch, it.metadata.as_str()), (-1, -1, ""));
        assert_eq!(bench.commits("", -1, 7), None);
    }
    assert_eq!(bench.offset(), 7);
}

#[test]
fn offsets_expire_when_the_group_has_been_empty_for_the_retention_and_the_group_with_them() {
    let mut bench = Bench::new();
    let id = bench.stable_one();
    assert_eq!(bench.commits(&id, 1, 5), None);
    for _ in 0..(8 * DAY_MS / 9_000) {
        bench.pass(9_000);
        assert_eq!(bench.beat(&id, 1), None);
    }
    assert_eq!(bench.offset(), 5, "not for a live group");
    assert_eq!(bench.leave(&[(&id, None)]), [None]);
    bench.pass(7 * DAY_MS - 60_000);
    assert_eq!(bench.offset(), 5);
    bench.pass(12 * 60_000);
    assert_eq!(bench.offset(), -1);
    bench.pass(20 * 60_000);
    assert_eq!(bench.coordinator.group_count(), 0);
    assert_eq!(bench.coordinator.bytes(), 0);
    let bench = bench.restarted(settings());
    assert_eq!(bench.coordinator.group_count(), 0);
}

#[test]
fn offsets_without_membership_expire_by_their_commit_and_by_a_retention_of_their_own() {
    let mut bench = Bench::new();
    for (topic, retention_ms) in [("own", 60_000), ("forever", i64::MAX)] {
        let own = OffsetCommitRequest {
            api_version: 2,
            retention_ms,
            partitions: vec![at(topic, 0, 1)],
            ..commit("", -1)
        };
        let token = bench.send(Request::OffsetCommit(own));
        assert_eq!(bench.committed(token), None);
    }
    assert_eq!(bench.commits("", -1, 5), None);
    let topics = |bench: &mut Bench| {
        let left = bench.fetch(None);
        left.into_iter().map(|it| it.topic).collect::<Vec<_>>()
    };
    bench.pass(11 * 60_000);
    assert_eq!(topics(&mut bench), ["forever", "t"]);
    bench.pass(7 * DAY_MS);
    assert_eq!(topics(&mut bench), ["forever"]);
}

#[test]
fn offsets_of_topics_no_longer_subscribed_expire_in_a_stable_group() {
    let settings = Settings {
        offsets_retention_ms: 60_000,
        offsets_check_interval_ms: 1_000,
        ..settings()
    };
    let mut bench = Bench::with(settings);
    let id = bench.stable_one();
    let partitions = vec![at("t", 0, 1), at("dropped", 0, 2)];
    let token = bench.send(Request::OffsetCommit(OffsetCommitRequest {
        partitions,
        ..commit(&id, 1)
    }));
    assert_eq!(bench.committed(token), None);
    for _ in 0..13 {
        bench.pass(5_000);
        assert_eq!(bench.beat(&id, 1), None);
    }
    let left = bench.fetch(None);
    assert_eq!(left.iter().map(|it| it.topic.as_str()).collect::<Vec<_>>(), ["t"]);
}

#[test]
fn a_commit_on_its_way_is_not_lost_to_the_expiry_of_the_one_before() {
    let mut bench = Bench::new();
    assert_eq!(bench.commits("", -1, 5), None);
    bench.pass(7 * DAY_MS - 60_000);
    bench.acknowledges = false;
    let token = bench.commit_of("", -1, 6);
    bench.pass(11 * 60_000);
    bench.acknowledge(true);
    assert_eq!(bench.committed(token), None);
    assert_eq!(bench.offset(), 6);
    let mut bench = bench.restarted(settings());
    assert_eq!(bench.offset(), 6);
}

#[test]
fn a_member_that_left_does_not_disturb_the_group_when_its_session_would_have_ended() {
    let mut bench = Bench::new();
    let (leader, follower) = bench.stable_two();
    bench.pass(5_000);
    assert_eq!(bench.leave(&[(&follower, None)]), [None]);
    let token = bench.join(JoinRequest {
        member_id: leader.clone(),
        ..joiner("one")
    });
    assert_eq!(bench.joined(token).generation, 3);
    let token = bench.sync(&leader, 3, &[]);
    assert!(bench.synced(token).is_ok());
    bench.pass(6_000);
    assert_eq!(bench.beat(&leader, 3), None);
}

// Administration (5.3, 9.2).

#[test]
fn describe_and_list_tell_states_and_members() {
    let mut bench = Bench::new();
    let unknown = bench.describe();
    assert_eq!(
        (unknown.state, unknown.known, unknown.error),
        (GroupState::Dead, false, None)
    );
    let (leader, _) = bench.stable_two();
    let (_, _) = bench.enter("h", &joiner("other"));
    let it = bench.describe();
    assert_eq!(
        (it.state, it.protocol_type.as_str(), it.protocol.as_str()),
        (GroupState::Stable, "consumer", "range")
    );
    let member = it.members.iter().find(|it| *it.member_id == *leader).unwrap();
    assert_eq!(
        (&*member.assignment, member.client_id.as_str()),
        (&b"L"[..], "one")
    );
    let mut list = |states: &[&str], types: &[&str]| {
        let own = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect();
        let token = bench.send(Request::List(ListRequest {
            states: own(states),
            types: own(types),
        }));
        let Response::List(it) = bench.take(token) else {
            panic!("a list")
        };
        it.groups
            .iter()
            .map(|it| it.group_id.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(list(&[], &[]), ["g", "h"]);
    assert_eq!(list(&["stable"], &["Classic"]), ["g"]);
    assert_eq!(list(&["Empty", "CompletingRebalance"], &[]), ["h"]);
    assert_eq!(list(&[], &["consumer"]), [""; 0]);
}

#[test]
fn only_empty_groups_can_be_deleted_and_are_gone_with_their_offsets() {
    let mut bench = Bench::new();
    let id = bench.stable_one();
    assert_eq!(bench.commits(&id, 1, 5), None);
    let token = bench.delete(&["g", "unknown"]);
    let refused = [Some(GroupError::NonEmptyGroup), Some(GroupError::GroupIdNotFound)];
    assert_eq!(bench.deleted(token), refused);
    assert_eq!(bench.leave(&[(&id, None)]), [None]);
    bench.acknowledges = false;
    let late = bench.commit_of("", -1, 6);
    let token = bench.delete(&["unknown", "g", "g"]);
    assert!(bench.is_held(token));
    assert_eq!(bench.state(), GroupState::Dead);
    assert_eq!(bench.offset(), -1);
    assert_eq!(
        bench.commits("", -1, 9),
        Some(GroupError::CoordinatorNotAvailable)
    );
    bench.acknowledge(true);
    assert_eq!(bench.committed(late), None);
    let not_found = Some(GroupError::GroupIdNotFound);
    assert_eq!(bench.deleted(token), [not_found, None, not_found]);
    assert_eq!(
        (bench.coordinator.group_count(), bench.coordinator.bytes()),
        (0, 0)
    );
    let bench = bench.restarted(settings());
    assert_eq!(
        bench.coordinator.group_count(),
        0,
        "nothing comes back from the log"
    );
}

#[test]
fn a_deletion_that_can_not_be_stored_leaves_the_group_as_it_was() {
    let mut bench = Bench::new();
    assert_eq!(bench.commits("", -1, 5), None);
    bench.acknowledges = false;
    let token = bench.delete(&["g"]);
    bench.acknowledge(false);
    assert_eq!(bench.deleted(token), [Some(GroupError::CoordinatorNotAvailable)]);
    assert_eq!(bench.offset(), 5);
}

#[test]
fn offsets_can_be_deleted_unless_their_topic_is_subscribed() {
    let mut bench = Bench::new();
    let delete = |bench: &mut Bench| {
        let partitions = vec![("t".to_owned(), 0), ("free".to_owned(), 0)];
        let request = OffsetDeleteRequest {
            group_id: "g".into(),
            partitions,
        };
        let token = bench.send(Request::OffsetDelete(request));
        let Response::OffsetDelete(it) = bench.take(token) else {
            panic!("an offset deletion")
        };
        (
            it.error,
            it.partitions.into_iter().map(|it| it.error).collect::<Vec<_>>(),
        )
    };
    assert_eq!(delete(&mut bench), (Some(GroupError::GroupIdNotFound), vec![]));
    let id = bench.stable_one();
    let partitions = vec![at("t", 0, 1), at("free", 0, 2)];
    let token = bench.send(Request::OffsetCommit(OffsetCommitRequest {
        partitions,
        ..commit(&id, 1)
    }));
    assert_eq!(bench.committed(token), None);
    assert_eq!(
        delete(&mut bench),
        (None, vec![Some(GroupError::GroupSubscribedToTopic), None])
    );
    assert_eq!(bench.fetch(None).len(), 1);
    assert_eq!(bench.leave(&[(&id, None)]), [None]);
    assert_eq!(delete(&mut bench), (None, vec![None, None]));
    assert_eq!(bench.fetch(None), []);
}

// Restart (5.4, 9.2 G11).

#[test]
fn after_a_restart_members_go_on_and_offsets_are_there() {
    let mut bench = Bench::new();
    let (leader, follower) = bench.stable_two();
    assert_eq!(bench.commits(&leader, 2, 42), None);
    let before = (bench.describe(), bench.fetch(None));
    let mut bench = bench.restarted(settings());
    assert_eq!((bench.describe(), bench.fetch(None)), before);
    bench.pass(9_999);
    assert_eq!(bench.beat(&leader, 2), None);
    assert_eq!(bench.commits(&leader, 2, 43), None);
    let token = bench.sync(&leader, 2, &[]);
    assert_eq!(bench.synced(token), Ok(b"L".to_vec()));
    bench.pass(1);
    assert_eq!(
        bench.beat(&follower, 2),
        Some(GroupError::UnknownMemberId),
        "one session to show up"
    );
    let token = bench.join(JoinRequest {
        member_id: leader,
        ..joiner("one")
    });
    assert_eq!(bench.joined(token).generation, 3);
}

#[test]
fn damaged_records_of_the_log_are_refused_or_make_a_group_that_works() {
    let mut bench = Bench::new();
    let (leader, _) = bench.stable_static();
    assert_eq!(bench.commits(&leader, 2, 5), None);
    let mut refused = 0;
    for record in bench.log.clone() {
        let (key, value) = (record.key, record.value.unwrap());
        for bit in 0..(key.len() + value.len()) * 8 {
            let (mut key, mut value) = (key.clone(), value.clone());
            let byte = key.iter_mut().chain(&mut value).nth(bit / 8).unwrap();
            *byte ^= 1 << (bit % 8);
            let mut fresh = Bench::loading(settings());
            refused += u32::from(fresh.coordinator.restore(&key, Some(&value)).is_err());
            let now = fresh.now();
            fresh.coordinator.on_loaded(now);
            fresh.coordinator.check();
            for _ in 0..10 {
                fresh.pass(10_000);
                fresh.coordinator.check();
            }
            let token = fresh.join(JoinRequest {
                api_version: 3,
                ..joiner("next")
            });
            assert!(fresh.answers.contains_key(&token) || fresh.state() == GroupState::PreparingRebalance);
            fresh.coordinator.check();
        }
    }
    assert!(refused > 1_000);
    let record = bench.log.first().unwrap().clone();
    let outcome = bench.coordinator.restore(&record.key, record.value.as_deref());
    assert_eq!(outcome, Err(RestoreError::AlreadyLoaded));
}
