use fulmar::agent::Doorbell;
use fulmar::id::RegistrationId;
use fulmar::log::{AppendOutcome, NoReservedValue};
use fulmar::time::EpochMs;
use fulmar::wire::StatusMessage;

use super::*;
use crate::io::SendError;
use crate::media::fixtures::Line;
use crate::media::send_endpoint::{Addressing, SendEndpointParts};
use crate::protocol::destinations::{Destination, DestinationMode, Destinations};
use crate::stream::fixtures::{Fixture, MS, Options, TERM, at, peer, status};

struct Bench {
    agent: SenderAgent,
    commands: Lane<SenderCommand>,
    events: Lane<NetworkEvent>,
    bell: Doorbell,
    system: Arc<NetworkCounters>,
}

fn bench() -> Bench {
    let bell = Doorbell::heap();
    let commands = Lane::new(Doorbell::heap());
    let events = Lane::new(bell.clone());
    let system = Arc::new(NetworkCounters::heap());
    let agent = SenderAgent::new(
        SenderParts {
            commands: commands.clone(),
            events: events.clone(),
            system: Arc::clone(&system),
            registration: None,
            status_poll_ratio: 6,
            status_poll_interval_ns: 100 * MS,
            receive_capacity: 4,
            resolution_interval_ns: 1000 * MS,
            cycle_threshold_ns: 1000 * MS,
            longest_idle_ns: 10 * MS,
        },
        at(0),
    );
    Bench {
        agent,
        commands,
        events,
        bell,
        system,
    }
}

fn endpoint(id: u64, line: &Line, addressing: Addressing) -> SenderCommand {
    let parts = SendEndpointParts {
        id: EndpointId(id),
        channel: format!("channel {id}"),
        socket: line.socket(),
        control_socket: None,
        addressing,
        name: Some("host:1".to_owned()),
        address: None,
        destinations_counter: None,
        system: Arc::new(NetworkCounters::heap()),
    };
    SenderCommand::AddEndpoint(Box::new(SendEndpoint::new(parts, at(0))))
}

fn publication(endpoint: u64, fixture: Fixture) -> SenderCommand {
    SenderCommand::AddPublication {
        endpoint: EndpointId(endpoint),
        publication: Box::new(fixture.sender),
    }
}

impl Bench {
    fn command(&self, command: SenderCommand) {
        self.commands.offer(command).unwrap();
    }

    fn cycle(&mut self, now: i64) -> usize {
        let now = Now {
            nanos: at(now),
            epoch: EpochMs(0),
        };
        self.agent.do_work(now).unwrap()
    }

    fn last_look(&mut self, now: i64) -> usize {
        self.agent.last_look(Now {
            nanos: at(now),
            epoch: EpochMs(0),
        })
    }

    fn with_publication() -> (Self, Line) {
        let mut bench = bench();
        let line = Line::default();
        bench.command(endpoint(1, &line, Addressing::Connected));
        bench.command(publication(1, Fixture::new()));
        bench.cycle(0);
        (bench, line)
    }
}

fn push(line: &Line, message: &StatusMessage) {
    let mut bytes = [0; 44];
    let length = message.encode(&mut bytes);
    line.push(peer(1), &bytes[..length]);
}

#[test]
fn a_publication_is_sent_from_the_cycle_on_in_which_it_is_added() {
    let (_, line) = Bench::with_publication();
    assert_eq!(line.take_sent().len(), 1, "its SETUP");
}

#[test]
fn a_burst_of_commands_is_spread_over_cycles() {
    let mut bench = bench();
    let line = Line::default();
    for id in 0..10 {
        bench.command(endpoint(id, &line, Addressing::Connected));
    }
    bench.cycle(0);
    assert_eq!(bench.agent.endpoints.len(), COMMANDS_MAX);
    assert_eq!(bench.agent.next_deadline(), at(0), "the rest does not wait");
    bench.cycle(1);
    bench.cycle(2);
    assert_eq!(bench.agent.endpoints.len(), 10);
}

#[test]
fn what_is_removed_travels_back() {
    let (mut bench, _) = Bench::with_publication();
    bench.command(SenderCommand::RemovePublication {
        endpoint: EndpointId(1),
        registration_id: RegistrationId(11),
    });
    bench.command(SenderCommand::RemoveEndpoint(EndpointId(1)));
    bench.cycle(1);
    let Some(NetworkEvent::PublicationReleased(released)) = bench.events.poll() else {
        panic!("the publication")
    };
    assert_eq!(released.registration_id(), RegistrationId(11));
    let Some(NetworkEvent::SendEndpointClosed(closed)) = bench.events.poll() else {
        panic!("the endpoint")
    };
    assert_eq!(closed.id(), EndpointId(1));
    assert!(bench.agent.routes.is_empty());
}

#[test]
fn a_publication_for_an_endpoint_that_is_gone_travels_back_at_once() {
    let mut bench = bench();
    bench.command(publication(9, Fixture::new()));
    bench.command(SenderCommand::RemoveEndpoint(EndpointId(9)));
    bench.command(SenderCommand::RemoveDestination {
        endpoint: EndpointId(9),
        channel: String::new(),
        address: None,
    });
    bench.cycle(0);
    assert!(matches!(
        bench.events.poll(),
        Some(NetworkEvent::PublicationReleased(_))
    ));
    assert!(bench.events.poll().is_none());
}

#[test]
fn resources_survive_a_full_lane() {
    let (mut bench, _) = Bench::with_publication();
    let filler = || NetworkEvent::Error {
        code: ErrorCode::GenericError,
        key: "",
        text: String::new(),
    };
    while bench.events.offer(filler()).is_ok() {}
    bench.command(SenderCommand::RemovePublication {
        endpoint: EndpointId(1),
        registration_id: RegistrationId(11),
    });
    bench.cycle(1);
    assert_eq!(bench.agent.backlog.len(), 1);
    assert_eq!(
        bench.system.get(SystemCounter::ConductorProxyFails).get_relaxed(),
        1
    );
    assert_eq!(bench.agent.next_deadline(), at(1), "it is tried again");
    while bench.events.poll().is_some() {}
    bench.cycle(2);
    assert!(matches!(
        bench.events.poll(),
        Some(NetworkEvent::PublicationReleased(_))
    ));
}

#[test]
fn control_frames_are_taken_in_every_idle_cycle_and_in_every_sixth_busy_one() {
    let mut bench = bench();
    let line = Line::default();
    let mut fixture = Fixture::new();
    fixture.connect(0, TERM / 2);
    for _ in 0..30 {
        fixture.publish(1000);
    }
    bench.command(endpoint(1, &line, Addressing::Connected));
    bench.command(publication(1, fixture));
    push(&line, &status(0, TERM / 2));
    let waiting = |line: &Line| line.with(|traffic| traffic.incoming.len());
    // A pass sends 4 datagrams, so the first cycles are busy; the interval is over at the first one.
    bench.cycle(0);
    assert_eq!(waiting(&line), 0, "due by time");
    push(&line, &status(0, TERM / 2));
    for cycle in 1..6 {
        assert!(bench.cycle(cycle) > 0);
        assert_eq!(waiting(&line), 1, "cycle {cycle}");
    }
    bench.cycle(6);
    assert_eq!(waiting(&line), 0);
    for cycle in 7..20 {
        bench.cycle(cycle);
    }
    push(&line, &status(0, TERM / 2));
    bench.cycle(20 + CONTROL_LOOK_INTERVAL_NS);
    assert_eq!(waiting(&line), 0, "nothing to send");
}

#[test]
fn idle_cycles_that_follow_each_other_closely_share_a_look_at_control_frames() {
    let mut bench = bench();
    let line = Line::default();
    let mut fixture = Fixture::new();
    fixture.connect(0, 2048);
    for _ in 0..3 {
        fixture.publish(1000);
    }
    bench.command(endpoint(1, &line, Addressing::Connected));
    bench.command(publication(1, fixture));
    let taken = |line: &Line, bench: &mut Bench, now| {
        push(line, &status(0, 2048));
        bench.cycle(now);
        line.with(|traffic| traffic.incoming.drain(..).count() == 0)
    };
    bench.cycle(0);
    for now in 1..10 {
        assert!(taken(&line, &mut bench, now), "data waits for a window");
    }
    push(&line, &status(0, TERM / 2));
    bench.cycle(10);
    for now in 11..20 {
        bench.cycle(now);
    }
    line.with(|traffic| assert!(traffic.incoming.is_empty()));
    let mut looks = (20..40).filter(|step| taken(&line, &mut bench, step * 1000));
    assert!((2..=3).contains(&looks.by_ref().count()));
    // Whoever waits for its deadline has nothing overlooked.
    let now = 40_000;
    bench.cycle(now);
    push(&line, &status(0, TERM / 2));
    bench.cycle(now + 1);
    let deadline = bench.agent.next_deadline();
    assert!(deadline.since(at(now)) <= CONTROL_LOOK_INTERVAL_NS);
    bench.cycle(deadline.0);
    line.with(|traffic| assert!(traffic.incoming.is_empty()));
}

#[test]
fn control_frames_are_taken_after_a_short_send() {
    let mut bench = bench();
    let line = Line::default();
    let mut fixture = Fixture::new();
    fixture.connect(0, TERM / 2);
    for _ in 0..20 {
        fixture.publish(1000);
    }
    bench.command(endpoint(1, &line, Addressing::Connected));
    bench.command(publication(1, fixture));
    bench.cycle(0);
    push(&line, &status(0, TERM / 2));
    line.with(|traffic| traffic.room = Some(2));
    assert!(bench.cycle(1) > 0);
    assert_eq!(line.with(|traffic| traffic.incoming.len()), 0);
}

#[test]
fn the_conductor_is_rung_when_a_receiver_comes() {
    let (mut bench, line) = Bench::with_publication();
    let before = bench.bell.sequence();
    bench.cycle(1);
    assert_eq!(bench.bell.sequence(), before);
    push(&line, &status(0, TERM / 2));
    bench.cycle(1 + CONTROL_LOOK_INTERVAL_NS);
    bench.cycle(2 + CONTROL_LOOK_INTERVAL_NS);
    assert_ne!(bench.bell.sequence(), before);
}

#[test]
fn idle_streams_share_their_wake_ups() {
    let mut bench = bench();
    let line = Line::default();
    for id in 0..20u64 {
        bench.command(endpoint(id, &line, Addressing::Connected));
        bench.command(publication(id, Fixture::new()));
    }
    // Their first SETUPs are spread over ten cycles.
    for cycle in 0..10 {
        bench.cycle(cycle * MS / 3);
    }
    let mut wakes = 0;
    let mut now = 4 * MS;
    while now < 1004 * MS {
        now = bench.agent.next_deadline().0;
        bench.cycle(now);
        wakes += 1;
    }
    assert!(wakes <= 13, "{wakes} wake-ups in a second");
    assert!(line.take_sent().len() >= 9 * 20, "and nothing was left out");
}

#[test]
fn a_pass_over_many_publications_ends_in_time_and_the_next_one_goes_on_with_the_others() {
    let mut bench = bench();
    let lines: Vec<Line> = (0..20).map(|_| Line::default()).collect();
    let mut publishers = Vec::new();
    for (id, line) in (0..).zip(&lines) {
        let mut fixture = Fixture::new();
        fixture.connect(0, TERM / 2);
        publishers.push(fixture.publisher);
        bench.command(endpoint(id, line, Addressing::Connected));
        bench.command(SenderCommand::AddPublication {
            endpoint: EndpointId(id),
            publication: Box::new(fixture.sender),
        });
    }
    for cycle in 0..10 {
        bench.cycle(cycle);
    }
    let message = [7u8; 1376];
    for publisher in &mut publishers {
        for _ in 0..8 {
            let outcome = publisher.offer(&message.as_slice(), &NoReservedValue, i64::MAX / 2);
            assert!(matches!(outcome, AppendOutcome::Appended { .. }));
        }
    }
    lines.iter().for_each(|line| drop(line.take_sent()));
    // Each may send four datagrams of 1,408 bytes when it is its turn.
    let share = 4 * 1408;
    let mut sent = vec![0; lines.len()];
    for cycle in 0..4 {
        let bytes = bench.cycle(100 + cycle);
        let is_last = cycle == 3;
        assert_eq!(bytes < PASS_BYTES, is_last, "cycle {cycle}: {bytes}");
        assert!(bytes < PASS_BYTES + share, "cycle {cycle}: {bytes}");
        for (sent, line) in sent.iter_mut().zip(&lines) {
            *sent += line.take_sent().len();
        }
        let (least, most) = (sent.iter().min(), sent.iter().max());
        assert!(most.unwrap() - least.unwrap() <= 4, "cycle {cycle}: {sent:?}");
    }
    assert_eq!(sent, [8; 20]);
}

#[test]
fn a_stream_that_stopped_at_the_end_of_its_term_keeps_nobody_awake() {
    let mut bench = bench();
    let line = Line::default();
    // A window takes half a term.
    let mut fixture = Fixture::with(Options {
        start: i64::from(TERM / 2),
        ..Options::default()
    });
    fixture.connect(0, TERM / 2);
    for _ in 0..TERM / 2 / 64 {
        fixture.publish(32);
    }
    bench.command(endpoint(1, &line, Addressing::Connected));
    bench.command(SenderCommand::AddPublication {
        endpoint: EndpointId(1),
        publication: Box::new(fixture.sender),
    });
    let mut sent = 0;
    for cycle in 0..100 {
        sent += bench.cycle(cycle);
    }
    assert!(sent >= TERM as usize / 2, "{sent}");
    for cycle in 100..130 {
        assert_eq!(bench.cycle(cycle), 0);
        assert_eq!(
            bench.last_look(cycle),
            0,
            "the log's tail has no place in the next term yet"
        );
    }
}

#[test]
fn an_offer_without_a_sign_is_sent_by_the_last_look_before_a_wait() {
    let mut bench = bench();
    let line = Line::default();
    let mut fixture = Fixture::new();
    fixture.connect(0, TERM / 2);
    bench.command(endpoint(1, &line, Addressing::Connected));
    bench.command(SenderCommand::AddPublication {
        endpoint: EndpointId(1),
        publication: Box::new(fixture.sender),
    });
    for cycle in 0..20 {
        bench.cycle(cycle);
    }
    assert_eq!(bench.agent.resting.awake(), 0);
    line.take_sent();
    assert_eq!(bench.last_look(20), 0);
    let message = [1u8; 32];
    let outcome = fixture
        .publisher
        .offer(&message.as_slice(), &NoReservedValue, i64::MAX / 2);
    assert!(matches!(outcome, AppendOutcome::Appended { .. }));
    assert_eq!(bench.last_look(20), 64);
    assert_eq!(line.take_sent().len(), 1);
    assert_eq!(bench.last_look(20), 0);
}

#[test]
fn heartbeats_of_one_endpoint_leave_together_and_keep_nobody_awake() {
    let mut bench = bench();
    let line = Line::default();
    bench.command(endpoint(1, &line, Addressing::Connected));
    for _ in 0..20 {
        let mut fixture = Fixture::new();
        fixture.connect(0, TERM / 2);
        bench.command(publication(1, fixture));
    }
    for cycle in 0..10 {
        bench.cycle(cycle);
    }
    line.take_sent();
    line.with(|traffic| traffic.calls = 0);
    assert_eq!(bench.cycle(101 * MS), 0, "no reason to stay awake");
    let sent = line.take_sent();
    assert_eq!(sent.len(), 20);
    assert!(sent.iter().all(|(_, frame)| fulmar::wire::is_heartbeat(frame)));
    assert_eq!(line.with(|traffic| traffic.calls), 1);
    assert_eq!(bench.agent.next_deadline(), at(200 * MS));
}

#[test]
fn heartbeats_that_the_system_does_not_take_are_counted() {
    let mut bench = bench();
    let line = Line::default();
    let mut fixture = Fixture::new();
    fixture.connect(0, TERM / 2);
    bench.command(endpoint(1, &line, Addressing::Connected));
    bench.command(publication(1, fixture));
    bench.cycle(0);
    line.with(|traffic| traffic.room = Some(0));
    bench.cycle(101 * MS);
    let endpoint = &mut bench.agent.endpoints[0];
    assert!(!endpoint.take_was_short(), "the pass has asked");
    line.with(|traffic| traffic.room = None);
    line.take_sent();
    bench.cycle(200 * MS);
    assert_eq!(line.take_sent().len(), 1, "the next one comes in its time");
}

#[test]
fn a_status_message_is_work_only_if_it_changes_something() {
    let mut bench = bench();
    let line = Line::default();
    bench.command(endpoint(1, &line, Addressing::Connected));
    bench.command(publication(1, Fixture::new()));
    bench.cycle(0);
    let mut work_after = |step: i64, message: &StatusMessage| {
        push(&line, message);
        bench.cycle(step * CONTROL_LOOK_INTERVAL_NS)
    };
    assert!(work_after(1, &status(0, 1024)) > 0, "the first receiver");
    assert_eq!(work_after(2, &status(0, 1024)), 0, "nothing new");
    assert!(work_after(3, &status(0, TERM / 2)) > 0, "a wider window");
    assert_eq!(work_after(4, &status(0, TERM / 2)), 0, "nothing new");
}

#[test]
fn silent_addresses_are_looked_up_again_at_the_interval() {
    let (mut bench, _) = Bench::with_publication();
    for ms in (0..8000).step_by(100) {
        bench.cycle(ms * MS);
    }
    let mut asked = 0;
    while let Some(event) = bench.events.poll() {
        assert!(matches!(event, NetworkEvent::ReResolve { .. }));
        asked += 1;
    }
    assert_eq!(asked, 3, "at 5, 6 and 7 seconds");
    bench.command(SenderCommand::Resolved {
        endpoint: EndpointId(1),
        destination: None,
        name: "host:1".to_owned(),
        address: peer(4),
    });
    bench.cycle(7950 * MS);
    assert!(bench.events.poll().is_none());
}

#[test]
fn destinations_come_and_go_by_command() {
    let mut bench = bench();
    let line = Line::default();
    let destinations = Destinations::new(DestinationMode::Manual, at(0));
    bench.command(endpoint(1, &line, Addressing::Destinations(destinations)));
    bench.command(publication(1, Fixture::new()));
    bench.cycle(0);
    assert!(line.take_sent().is_empty());
    bench.command(SenderCommand::AddDestination {
        endpoint: EndpointId(1),
        destination: Box::new(Destination {
            registration_id: RegistrationId(5),
            channel: "one".to_owned(),
            name: None,
            address: Some(peer(1)),
        }),
    });
    bench.cycle(1);
    assert_eq!(line.take_sent().len(), 1);
    bench.command(SenderCommand::RemoveDestinationById {
        endpoint: EndpointId(1),
        registration_id: RegistrationId(5),
    });
    bench.cycle(200 * MS);
    assert!(line.take_sent().is_empty());
}

#[test]
fn long_cycles_are_counted_and_sleeping_is_none() {
    let (mut bench, line) = Bench::with_publication();
    let longest = |bench: &Bench| bench.system.get(SystemCounter::SenderMaxCycleTime).get_relaxed();
    bench.cycle(MS);
    bench.cycle(3000 * MS);
    let before = longest(&bench);
    push(&line, &status(0, 0));
    assert!(bench.cycle(3001 * MS) > 0);
    bench.cycle(5001 * MS);
    assert_eq!(longest(&bench), 2000 * MS);
    assert!(before < 2000 * MS);
    let exceeded = SystemCounter::SenderCycleTimeThresholdExceeded;
    assert_eq!(bench.system.get(exceeded).get_relaxed(), 1);
}

#[test]
fn receivers_outlive_a_stall_of_the_sender_itself() {
    let mut bench = bench();
    let line = Line::default();
    let fixture = Fixture::new();
    let shared = Arc::clone(&fixture.shared);
    bench.command(endpoint(1, &line, Addressing::Connected));
    bench.command(publication(1, fixture));
    push(&line, &status(0, TERM / 2));
    bench.cycle(0);
    bench.cycle(MS);
    assert!(shared.is_connected());
    // The whole process was stopped: a receiver in it did not send anything either.
    bench.cycle(12_000 * MS);
    assert!(shared.is_connected(), "nobody listened for twelve seconds");
    assert!(
        bench.agent.next_deadline().since(at(12_000 * MS)) <= 104 * MS,
        "heartbeats go on"
    );
    push(&line, &status(0, TERM / 2));
    bench.cycle(12_001 * MS);
    for ms in (12_100..=17_000).step_by(100) {
        bench.cycle(ms * MS);
        assert!(shared.is_connected(), "at {ms} ms");
    }
    bench.cycle(17_002 * MS);
    assert!(
        !shared.is_connected(),
        "five seconds in which the sender did listen"
    );
}

#[test]
fn unsent_data_does_not_keep_the_agent_awake_while_the_network_is_gone() {
    let mut bench = bench();
    let line = Line::default();
    let mut fixture = Fixture::new();
    fixture.connect(0, TERM / 2);
    fixture.publish(1000);
    bench.command(endpoint(1, &line, Addressing::Connected));
    bench.command(publication(1, fixture));
    line.with(|traffic| traffic.failure = Some(SendError { errno: 101 }));
    bench.cycle(0);
    bench.cycle(MS);
    let next = bench.agent.next_deadline();
    assert!(next.since(at(2 * MS)) >= 0, "it does not spin");
    assert!(next.since(at(10 * MS)) <= 0, "and tries again soon");
    line.with(|traffic| traffic.failure = None);
    assert!(bench.cycle(next.0) > 0);
    assert!(!line.take_sent().is_empty());
}
