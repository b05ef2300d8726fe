//! The receiver as an agent, with sockets that are queues: what it asks for, what it gives back, what it counts (wire
//! protocol 4.1, 4.2, 6.5 to 7, 9).
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod receiver_support;

use fulmar::agent::{Agent, Doorbell};
use fulmar::control::ErrorCode;
use fulmar::counters::SystemCounter;
use fulmar::id::{RegistrationId, SessionId, StreamId};
use fulmar::time::{EpochMs, NanoTime, Now};
use fulmar::uri::TimestampOffset;
use fulmar::wire::{Rttm, Setup, StatusMessage};
use fulmar_media_driver::DriverSettings;
use fulmar_media_driver::commands::{
    EndpointCommand, EndpointId, Lane, NetworkEvent, ReceiverCommand, ResolveTarget, SetupSeen, TransportId,
};
use fulmar_media_driver::media::receive_destination::{DestinationParts, ReceiveDestination};
use fulmar_media_driver::media::receive_endpoint::{ReceiveEndpoint, ReceiveEndpointParts};
use fulmar_media_driver::media::receive_timestamps::ReceiveTimestamps;
use fulmar_media_driver::network_counters::NetworkCounters;
use fulmar_media_driver::protocol::connections::FeedbackRule;
use fulmar_media_driver::protocol::source_proof::{SourceProofs, UNPROVEN_IMAGES_MAX};
use fulmar_media_driver::receiver::{ReceiverAgent, ReceiverParts};

use receiver_support::*;

const ENDPOINT: EndpointId = EndpointId(1);

/// The receiver with one endpoint.
struct Rig {
    agent: ReceiverAgent,
    commands: Lane<ReceiverCommand>,
    events: Lane<NetworkEvent>,
    counters: NetworkCounters,
    far: Far,
    now: NanoTime,
}

/// What the endpoint of a test is like.
#[derive(Clone, Copy)]
struct Shape {
    feedback: Option<FeedbackRule>,
    session_limit: usize,
    control_name: Option<&'static str>,
    multicast_ttl: u8,
    timestamps: ReceiveTimestamps,
    /// Whether sources have to prove themselves when there are many images.
    asks_for_proof: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            feedback: Some(FeedbackRule::Source),
            session_limit: 100,
            control_name: None,
            multicast_ttl: 0,
            timestamps: ReceiveTimestamps::default(),
            asks_for_proof: false,
        }
    }
}

fn destination(
    id: TransportId,
    feedback: FeedbackRule,
    far: &Far,
    shape: &Shape,
    now: NanoTime,
) -> ReceiveDestination {
    ReceiveDestination::new(
        DestinationParts {
            id,
            feedback,
            socket: Box::new(TestSocket(far.clone())),
            control_name: shape.control_name.map(str::to_owned),
            multicast_ttl: shape.multicast_ttl,
        },
        now,
    )
}

impl Rig {
    fn new(shape: Shape) -> Self {
        Self::with_images_max(shape, 1024)
    }

    fn with_images_max(shape: Shape, images_max: i32) -> Self {
        let now = NanoTime(500 * SECOND);
        let mut settings = DriverSettings::defaults();
        settings
            .set("fulmar.receiver.images.max", &images_max.to_string())
            .unwrap();
        let commands = Lane::new(Doorbell::heap());
        let events = Lane::new(Doorbell::heap());
        let counters = NetworkCounters::heap();
        let agent = ReceiverAgent::new(
            ReceiverParts {
                commands: commands.clone(),
                events: events.clone(),
                counters: counters.clone(),
                context: settings.conclude().unwrap(),
                registration: None,
            },
            now,
        );
        let far = Far::default();
        let transport = shape
            .feedback
            .map(|feedback| destination(TransportId::OWN, feedback, &far, &shape, now));
        let endpoint = ReceiveEndpoint::new(
            ReceiveEndpointParts {
                proofs: shape.asks_for_proof.then(|| SourceProofs::new(99, now)),
                id: ENDPOINT,
                receiver_id: RECEIVER_ID,
                group_tag: None,
                transport,
                session_limit: shape.session_limit,
                timestamps: shape.timestamps,
            },
            now,
        );
        let mut rig = Self {
            agent,
            commands,
            events,
            counters,
            far,
            now,
        };
        rig.command(ReceiverCommand::AddEndpoint(Box::new(endpoint)));
        rig
    }

    /// A plain unicast endpoint with a subscription to the stream of the tests.
    fn subscribed() -> Self {
        let mut rig = Self::new(Shape::default());
        rig.subscribe(None);
        rig
    }

    fn command(&mut self, command: ReceiverCommand) {
        assert!(self.commands.offer(command).is_ok());
        self.work();
    }

    fn subscribe(&mut self, session_id: Option<SessionId>) {
        self.command(EndpointCommand::AddSubscription(STREAM, session_id).at(ENDPOINT));
    }

    fn work(&mut self) -> usize {
        let now = Now {
            nanos: self.now,
            epoch: EpochMs(7),
        };
        self.agent.do_work(now).unwrap()
    }

    fn pass_time(&mut self, nanos: i64) {
        self.now = self.now.plus_nanos(nanos);
        self.work();
    }

    /// A datagram comes in from the usual source.
    fn receive(&mut self, datagram: Vec<u8>) {
        self.receive_from(source(), datagram);
    }

    fn receive_from(&mut self, from: std::net::SocketAddr, datagram: Vec<u8>) {
        self.far.put(from, datagram);
        self.work();
    }

    fn events(&mut self) -> Vec<NetworkEvent> {
        std::iter::from_fn(|| self.events.poll()).collect()
    }

    /// The one image that was asked for.
    fn seen(&mut self) -> SetupSeen {
        let events = self.events();
        let [NetworkEvent::CreateImage(seen)] = &events[..] else {
            panic!("one image is asked for: {events:?}");
        };
        **seen
    }

    /// Answers a request for an image.
    fn add_image(&mut self) -> TestImage {
        let image = TestImage::new(Options {
            now: self.now,
            ..Options::default()
        });
        let TestImage { receiver, .. } = image;
        self.command(EndpointCommand::AddImage(Box::new(receiver)).at(ENDPOINT));
        TestImage {
            receiver: TestImage::plain().receiver,
            ..image
        }
    }

    fn count(&self, counter: SystemCounter) -> i64 {
        self.counters.get(counter).get_relaxed()
    }

    fn status_messages(&self) -> Vec<(std::net::SocketAddr, StatusMessage)> {
        self.far
            .take()
            .into_iter()
            .map(|(to, frame)| (to, StatusMessage::parse(&frame).unwrap()))
            .collect()
    }
}

fn of_session(mut datagram: Vec<u8>, session: i32) -> Vec<u8> {
    datagram[12..16].copy_from_slice(&session.to_le_bytes());
    datagram
}

#[test]
fn data_of_an_unknown_session_asks_its_source_for_a_setup_once_a_second() {
    let mut rig = Rig::subscribed();
    rig.receive(frame(0, &[1; 32]));
    let [(to, message)] = rig.status_messages()[..] else {
        panic!("one status message");
    };
    assert_eq!(to, source());
    assert_eq!(message.flags, StatusMessage::FLAG_SEND_SETUP);
    assert_eq!((message.stream_id, message.session_id), (STREAM, SESSION));
    assert_eq!(
        (message.term_id.0, message.term_offset, message.window),
        (0, 0, 0)
    );
    assert_eq!(message.receiver_id, RECEIVER_ID);
    for _ in 0..9 {
        rig.pass_time(100 * MS);
        rig.receive(frame(0, &[1; 32]));
        assert_eq!(rig.status_messages().len(), 0);
    }
    rig.pass_time(100 * MS);
    rig.receive(frame(0, &[1; 32]));
    assert_eq!(rig.status_messages().len(), 1);
}

#[test]
fn a_cycle_takes_what_waits_but_of_a_flood_only_a_share() {
    let mut rig = Rig::subscribed();
    let datagram = frame(0, &[1; 1376]);
    let length = datagram.len() as i64;
    for _ in 0..30 {
        rig.far.put(source(), datagram.clone());
    }
    rig.work();
    assert_eq!(rig.count(SystemCounter::BytesReceived), 30 * length);
    for _ in 0..400 {
        rig.far.put(source(), datagram.clone());
    }
    rig.work();
    let taken = rig.count(SystemCounter::BytesReceived) - 30 * length;
    assert!((256 << 10..300 << 10).contains(&taken), "{taken}");
    while rig.work() > 0 {}
    assert_eq!(rig.count(SystemCounter::BytesReceived), 430 * length);
}

#[test]
fn an_end_of_stream_of_an_unknown_session_asks_for_nothing() {
    let mut rig = Rig::subscribed();
    rig.receive(heartbeat(0, 0xE0));
    assert_eq!(rig.far.take(), []);
    rig.receive(of_session(frame(0, &[1; 32]), 5));
    assert_eq!(rig.far.take().len(), 1);
}

#[test]
fn nobody_is_asked_for_streams_and_sessions_that_nobody_wants() {
    let mut rig = Rig::new(Shape::default());
    rig.receive(frame(0, &[1; 32]));
    rig.subscribe(Some(SessionId(5)));
    rig.receive(frame(0, &[1; 32]));
    rig.receive(setup(0).encode().to_vec());
    assert_eq!(rig.far.take(), []);
    assert_eq!(rig.events().len(), 0);
    assert_eq!(rig.count(SystemCounter::InvalidPackets), 0);
    rig.receive(of_session(setup(0).encode().to_vec(), 5));
    assert_eq!(rig.seen().setup.session_id, SessionId(5));
}

#[test]
fn a_setup_asks_for_an_image_once_and_again_after_a_failure() {
    let mut rig = Rig::subscribed();
    rig.receive(setup(128).encode().to_vec());
    let seen = rig.seen();
    assert_eq!(seen.setup, setup(128));
    assert_eq!((seen.endpoint, seen.transport), (ENDPOINT, PLAIN));
    assert_eq!(seen.source, source());
    rig.receive(setup(128).encode().to_vec());
    rig.receive(frame(0, &[1; 32]));
    assert_eq!(rig.events().len(), 0);
    assert_eq!(rig.far.take(), []);
    rig.command(EndpointCommand::InitFailed(STREAM, SESSION).at(ENDPOINT));
    rig.receive(setup(128).encode().to_vec());
    rig.seen();
}

#[test]
fn a_setup_with_impossible_fields_is_an_invalid_packet() {
    let good = setup(0);
    let bad = [
        Setup {
            term_length: 100_000,
            ..good
        },
        Setup {
            term_length: 32 * 1024,
            ..good
        },
        Setup { mtu: 1400, ..good },
        Setup { mtu: 65_536, ..good },
        Setup {
            term_offset: 33,
            ..good
        },
        Setup {
            term_offset: TERM_LENGTH,
            ..good
        },
        Setup {
            active_term_id: (INITIAL_TERM.0 - 1).into(),
            ..good
        },
    ];
    let mut rig = Rig::subscribed();
    for (index, setup) in bad.into_iter().enumerate() {
        rig.receive(setup.encode().to_vec());
        assert_eq!(
            rig.count(SystemCounter::InvalidPackets),
            index as i64 + 1,
            "{setup:?}"
        );
    }
    assert_eq!(rig.events().len(), 0);
}

#[test]
fn malformed_datagrams_are_counted_and_frames_for_others_ignored() {
    let mut rig = Rig::subscribed();
    let mut wrong_version = frame(0, &[1; 32]);
    wrong_version[4] = 1;
    let mut unknown_type = frame(0, &[1; 32]);
    unknown_type[6..8].copy_from_slice(&12u16.to_le_bytes());
    let odd_length = frame(0, &[1; 32])[..40].to_vec();
    for (index, datagram) in [vec![0; 7], wrong_version, unknown_type, odd_length]
        .into_iter()
        .enumerate()
    {
        rig.receive(datagram);
        assert_eq!(rig.count(SystemCounter::InvalidPackets), index as i64 + 1);
    }
    let mut bytes = [0; 44];
    let length = StatusMessage {
        flags: 0,
        session_id: SESSION,
        stream_id: STREAM,
        term_id: 0.into(),
        term_offset: 0,
        window: 0,
        receiver_id: 5,
        group_tag: None,
        has_bad_tag_length: false,
    }
    .encode(&mut bytes);
    rig.receive(bytes[..length].to_vec());
    assert_eq!(rig.count(SystemCounter::InvalidPackets), 4);
    assert_eq!(rig.far.take(), []);
}

#[test]
fn an_image_gets_its_data_and_sends_its_feedback() {
    let mut rig = Rig::subscribed();
    rig.receive(setup(0).encode().to_vec());
    rig.seen();
    let mut image = rig.add_image();
    let [(to, message)] = rig.status_messages()[..] else {
        panic!("the first status message");
    };
    assert_eq!((to, message.flags, message.window), (source(), 0, WINDOW));
    rig.receive(frame(0, &[1; 32]));
    image.track();
    assert_eq!(image.conductor.rebuild_position(), 64);
    rig.receive(heartbeat(64, 0xC0));
    assert_eq!(rig.count(SystemCounter::HeartbeatsReceived), 1);
    rig.receive(frame(i64::from(TERM_LENGTH), &[1; 32]));
    assert_eq!(rig.count(SystemCounter::FlowControlOverRuns), 1);
    rig.receive_from(address(66, 6), frame(64, &[1; 32]));
    assert_eq!(rig.count(SystemCounter::InvalidPackets), 1, "not from its source");
    assert_eq!(rig.count(SystemCounter::BytesReceived), 40 + 64 + 32 + 64 + 64);
}

#[test]
fn a_removed_image_comes_back_and_its_session_cools_down_until_told() {
    let mut rig = Rig::subscribed();
    rig.receive(setup(0).encode().to_vec());
    rig.seen();
    rig.add_image();
    rig.far.take();
    rig.command(EndpointCommand::RemoveImage(RegistrationId(9)).at(ENDPOINT));
    let events = rig.events();
    assert!(matches!(&events[..], [NetworkEvent::ImageReleased(image)] if image.session_id() == SESSION));
    rig.receive(setup(0).encode().to_vec());
    rig.receive(frame(0, &[1; 32]));
    assert_eq!((rig.events().len(), rig.far.take().len()), (0, 0));
    rig.command(EndpointCommand::RemoveCoolDown(STREAM, SESSION).at(ENDPOINT));
    rig.receive(setup(0).encode().to_vec());
    rig.seen();
}

#[test]
fn an_image_that_nobody_wants_any_more_comes_back_at_once() {
    let mut rig = Rig::subscribed();
    rig.receive(setup(0).encode().to_vec());
    rig.seen();
    rig.command(EndpointCommand::RemoveSubscription(STREAM, None).at(ENDPOINT));
    rig.add_image();
    assert!(matches!(&rig.events()[..], [NetworkEvent::ImageReleased(_)]));
}

#[test]
fn an_image_that_drains_without_subscription_still_says_that_it_leaves() {
    let mut rig = Rig::subscribed();
    rig.receive(setup(0).encode().to_vec());
    rig.seen();
    let mut image = rig.add_image();
    rig.receive(heartbeat(0, 0xC0));
    rig.far.take();
    rig.command(EndpointCommand::RemoveSubscription(STREAM, None).at(ENDPOINT));
    image.conductor.unlink(|_| true);
    image.conductor.on_timer(image.now);
    rig.work();
    let [(_, message)] = rig.status_messages()[..] else {
        panic!("a status message");
    };
    assert_eq!(message.flags, StatusMessage::FLAG_EOS);
}

#[test]
fn an_explicit_control_address_is_asked_at_once_and_every_second_while_anybody_subscribes() {
    let control = address(9, 900);
    let mut rig = Rig::new(Shape {
        feedback: Some(FeedbackRule::Control(Some(control))),
        ..Shape::default()
    });
    let [(to, message)] = rig.status_messages()[..] else {
        panic!("one status message");
    };
    assert_eq!(to, control);
    assert_eq!(message.flags, StatusMessage::FLAG_SEND_SETUP);
    assert_eq!((message.session_id.0, message.stream_id.0), (0, 0));
    rig.pass_time(3 * SECOND);
    assert_eq!(rig.far.take(), [], "nobody subscribed");
    rig.subscribe(None);
    rig.far.take();
    for _ in 0..3 {
        rig.pass_time(SECOND);
        assert_eq!(rig.status_messages().len(), 1);
    }
    rig.subscribe(Some(SessionId(5)));
    let [(to, message)] = rig.status_messages()[..] else {
        panic!("one status message");
    };
    assert_eq!(
        (to, message.session_id.0, message.stream_id),
        (control, 5, STREAM)
    );
}

#[test]
fn data_on_a_controlled_channel_asks_its_own_source_for_the_setup() {
    let mut rig = Rig::new(Shape {
        feedback: Some(FeedbackRule::Control(Some(address(9, 900)))),
        ..Shape::default()
    });
    rig.subscribe(None);
    rig.far.take();
    rig.receive(frame(0, &[1; 32]));
    assert_eq!(rig.status_messages()[0].0, source());
}

#[test]
fn a_multicast_group_is_asked_and_answered_through_its_control_group() {
    let group = address(200, 4000);
    let mut rig = Rig::new(Shape {
        feedback: Some(FeedbackRule::Group(group)),
        ..Shape::default()
    });
    rig.subscribe(None);
    assert_eq!(rig.far.take(), [], "a group is not asked without reason");
    rig.receive(frame(0, &[1; 32]));
    assert_eq!(rig.status_messages()[0].0, group);
    rig.receive(setup(0).encode().to_vec());
    rig.seen();
    rig.add_image();
    rig.far.take();
    let request = Rttm {
        flags: Rttm::FLAG_REPLY,
        session_id: SESSION,
        stream_id: STREAM,
        echo_timestamp: 99,
        reception_delta: 0,
        receiver_id: RECEIVER_ID,
    };
    rig.receive(request.encode().to_vec());
    let sent = rig.far.take();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, group);
    assert_eq!(Rttm::parse(&sent[0].1).unwrap(), request.answer());
}

#[test]
fn a_higher_ttl_than_ours_is_counted_when_the_setup_was_asked_for() {
    let mut rig = Rig::new(Shape {
        feedback: Some(FeedbackRule::Group(address(200, 4000))),
        multicast_ttl: 4,
        ..Shape::default()
    });
    rig.subscribe(None);
    rig.receive(frame(0, &[1; 32]));
    rig.receive(Setup { ttl: 5, ..setup(0) }.encode().to_vec());
    assert_eq!(rig.count(SystemCounter::PossibleTtlAsymmetry), 1);
    rig.seen();
}

#[test]
fn destinations_are_asked_answered_and_given_back() {
    let mut rig = Rig::new(Shape {
        feedback: None,
        ..Shape::default()
    });
    rig.subscribe(None);
    let control = address(9, 900);
    let (first, second) = (Far::default(), Far::default());
    for (id, feedback, far) in [
        (3, FeedbackRule::Source, &first),
        (4, FeedbackRule::Control(Some(control)), &second),
    ] {
        let destination = destination(TransportId(id), feedback, far, &Shape::default(), rig.now);
        rig.command(EndpointCommand::AddDestination(Box::new(destination)).at(ENDPOINT));
    }
    assert_eq!(first.take(), []);
    assert_eq!(second.take().len(), 1, "the control address is asked at once");
    second.put(source(), setup(0).encode().to_vec());
    rig.work();
    assert_eq!(rig.seen().transport.id, TransportId(4));
    rig.command(EndpointCommand::RemoveDestination(TransportId(3)).at(ENDPOINT));
    let events = rig.events();
    assert!(
        matches!(&events[..], [NetworkEvent::DestinationReleased(destination)] if destination.id() == TransportId(3))
    );
    rig.command(
        EndpointCommand::AddDestination(Box::new(destination(
            TransportId(5),
            FeedbackRule::Source,
            &first,
            &Shape::default(),
            rig.now,
        )))
        .at(EndpointId(66)),
    );
    assert!(matches!(
        &rig.events()[..],
        [NetworkEvent::DestinationReleased(_)]
    ));
}

#[test]
fn two_destinations_with_the_same_session_feed_one_image() {
    let mut rig = Rig::new(Shape {
        feedback: None,
        ..Shape::default()
    });
    rig.subscribe(None);
    let fars = [Far::default(), Far::default()];
    for (id, far) in [(0, &fars[0]), (1, &fars[1])] {
        let destination = destination(
            TransportId(id),
            FeedbackRule::Source,
            far,
            &Shape::default(),
            rig.now,
        );
        rig.command(EndpointCommand::AddDestination(Box::new(destination)).at(ENDPOINT));
    }
    fars[0].put(source(), setup(0).encode().to_vec());
    rig.work();
    rig.seen();
    let mut image = rig.add_image();
    fars[0].take();
    fars[0].put(source(), frame(0, &[1; 32]));
    fars[1].put(address(7, 700), frame(0, &[1; 32]));
    fars[1].put(address(7, 700), frame(64, &[1; 32]));
    rig.work();
    image.track();
    assert_eq!(image.conductor.rebuild_position(), 128);
    rig.pass_time(200 * MS);
    assert_eq!(fars[0].take()[0].0, source());
    assert_eq!(fars[1].take()[0].0, address(7, 700));
}

#[test]
fn a_silent_control_name_is_looked_up_again_and_its_answer_used() {
    let old = address(9, 900);
    let mut rig = Rig::new(Shape {
        feedback: Some(FeedbackRule::Control(Some(old))),
        control_name: Some("host:900"),
        ..Shape::default()
    });
    rig.subscribe(None);
    for _ in 0..4 {
        rig.pass_time(SECOND);
        assert_eq!(rig.events().len(), 0);
    }
    rig.pass_time(SECOND);
    let events = rig.events();
    let [NetworkEvent::ReResolve { target, name }] = &events[..] else {
        panic!("a name is to be looked up: {events:?}");
    };
    assert_eq!(name, "host:900");
    let expected = ResolveTarget::ReceiveTransport {
        endpoint: ENDPOINT,
        transport: TransportId::OWN,
    };
    assert_eq!(*target, expected);
    rig.far.take();
    rig.command(EndpointCommand::Resolved(TransportId::OWN, address(8, 900)).at(ENDPOINT));
    rig.pass_time(SECOND);
    assert_eq!(rig.status_messages()[0].0, address(8, 900));
    rig.receive(frame(0, &[1; 32]));
    rig.events();
    rig.pass_time(SECOND);
    assert_eq!(rig.events().len(), 0, "heard of");
}

#[test]
fn a_group_has_no_name_to_look_up_and_keeps_its_address() {
    let group = address(200, 4000);
    let mut rig = Rig::new(Shape {
        feedback: Some(FeedbackRule::Group(group)),
        control_name: Some("host:900"),
        ..Shape::default()
    });
    rig.subscribe(None);
    rig.pass_time(60 * SECOND);
    assert_eq!(rig.events().len(), 0);
    rig.command(EndpointCommand::Resolved(TransportId::OWN, address(8, 900)).at(ENDPOINT));
    rig.receive(frame(0, &[1; 32]));
    assert_eq!(rig.status_messages()[0].0, group);
}

#[test]
fn a_response_channel_asks_for_the_setup_of_its_session() {
    let control = address(9, 900);
    let mut rig = Rig::new(Shape {
        feedback: Some(FeedbackRule::Control(Some(control))),
        ..Shape::default()
    });
    rig.far.take();
    rig.command(EndpointCommand::RequestSetup(StreamId(5), SessionId(6)).at(ENDPOINT));
    let [(to, message)] = rig.status_messages()[..] else {
        panic!("one status message");
    };
    assert_eq!((to, message.stream_id.0, message.session_id.0), (control, 5, 6));
    assert_eq!(message.flags, StatusMessage::FLAG_SEND_SETUP);
}

#[test]
fn too_many_sessions_of_a_stream_are_reported_once_a_second_and_not_taken() {
    let mut rig = Rig::new(Shape {
        session_limit: 1,
        ..Shape::default()
    });
    rig.subscribe(None);
    rig.receive(setup(0).encode().to_vec());
    rig.seen();
    rig.add_image();
    for session in 0..100 {
        rig.receive(of_session(setup(0).encode().to_vec(), session));
    }
    let events = rig.events();
    assert!(matches!(
        &events[..],
        [NetworkEvent::Error {
            code: ErrorCode::GenericError,
            ..
        }]
    ));
}

#[test]
fn a_flood_of_setups_is_bounded_by_the_number_of_images() {
    let any_number = Shape {
        session_limit: usize::MAX,
        ..Shape::default()
    };
    let mut rig = Rig::with_images_max(any_number, 1);
    rig.subscribe(None);
    for session in 0..10_000 {
        rig.far
            .put(source(), of_session(setup(0).encode().to_vec(), session));
    }
    while rig.work() > 0 {}
    assert_eq!(rig.events().len(), 128, "images in progress at a time");
    let mut rig = Rig::with_images_max(Shape::default(), 1);
    rig.subscribe(None);
    rig.receive(setup(0).encode().to_vec());
    rig.seen();
    rig.add_image();
    rig.receive(of_session(setup(0).encode().to_vec(), 5));
    assert_eq!(rig.events().len(), 0, "there are as many images as there may be");
    rig.command(EndpointCommand::RemoveImage(RegistrationId(9)).at(ENDPOINT));
    rig.events();
    rig.receive(of_session(setup(0).encode().to_vec(), 5));
    rig.seen();
}

/// An endpoint with as many images in the making as unproven sources may have.
fn flooded() -> Rig {
    let mut rig = Rig::new(Shape {
        asks_for_proof: true,
        session_limit: 10_000,
        ..Shape::default()
    });
    rig.subscribe(None);
    for session in 0..10_000 {
        let from = address(7, 1000 + (session % 50_000) as u16);
        rig.receive_from(from, of_session(setup(0).encode().to_vec(), session));
    }
    rig
}

#[test]
fn beyond_a_few_images_a_source_has_to_prove_that_it_is_there() {
    let mut rig = flooded();
    assert_eq!(rig.events().len(), UNPROVEN_IMAGES_MAX);
    let asked = rig.far.take();
    // Time stands still: the burst.
    assert_eq!(asked.len(), 64, "requests are bounded");
    assert!(
        asked
            .iter()
            .all(|(_, frame)| Rttm::parse(frame).unwrap().is_request())
    );

    rig.pass_time(SECOND);
    let wanted = of_session(setup(0).encode().to_vec(), 77_777);
    rig.receive(wanted.clone());
    let [(to, request)] = &rig.far.take()[..] else {
        panic!("one request");
    };
    assert_eq!(*to, source());
    let answer = Rttm::parse(request).unwrap().answer();
    // Somebody else's answer, a guess, and one for another receiver.
    rig.receive_from(address(9, 9), answer.encode().to_vec());
    let guess = Rttm {
        echo_timestamp: answer.echo_timestamp ^ 1,
        ..answer
    };
    rig.receive(guess.encode().to_vec());
    let other = Rttm {
        receiver_id: 0,
        ..answer
    };
    rig.receive(other.encode().to_vec());
    assert_eq!(rig.far.take(), []);

    rig.receive(answer.encode().to_vec());
    let [(to, asking)] = rig.status_messages()[..] else {
        panic!("it is asked for its SETUP");
    };
    assert_eq!(to, source());
    assert!(asking.is_send_setup());
    assert_eq!(asking.session_id, SessionId(77_777));
    rig.receive(wanted);
    assert_eq!(rig.seen().setup.session_id, SessionId(77_777));
}

#[test]
fn images_that_can_not_be_made_are_not_tried_without_end() {
    let mut rig = Rig::new(Shape {
        session_limit: 10_000,
        ..Shape::default()
    });
    rig.subscribe(None);
    let mut asked = 0;
    for session in 0..10_000 {
        // Ten seconds.
        rig.pass_time(MS);
        rig.receive(of_session(setup(0).encode().to_vec(), session));
        for event in rig.events() {
            asked += usize::from(matches!(event, NetworkEvent::CreateImage(_)));
            let failed = EndpointCommand::InitFailed(STREAM, SessionId(session)).at(ENDPOINT);
            rig.command(failed);
        }
    }
    assert!((6_000..=6_500).contains(&asked), "{asked}");
}

#[test]
fn made_up_sessions_are_asked_for_in_bounds() {
    let mut rig = Rig::subscribed();
    for session in 0..5_000 {
        rig.far
            .put(address(66, 6), of_session(frame(0, &[1; 32]), session));
    }
    while rig.work() > 0 {}
    assert_eq!(rig.far.take().len(), 128);
    rig.receive(frame(0, &[1; 32]));
    assert_eq!(rig.far.take().len(), 1, "another source is asked");
}

#[test]
fn the_endpoint_comes_back_with_everything_in_it() {
    let mut rig = Rig::subscribed();
    rig.receive(setup(0).encode().to_vec());
    rig.seen();
    rig.add_image();
    rig.command(ReceiverCommand::RemoveEndpoint(ENDPOINT));
    let events = rig.events();
    let [NetworkEvent::ReceiveEndpointClosed(endpoint)] = &events[..] else {
        panic!("the endpoint: {events:?}");
    };
    assert_eq!(endpoint.image_count(), 1);
    assert_eq!(rig.agent.routes().iter().count(), 0);
    rig.command(ReceiverCommand::RemoveEndpoint(ENDPOINT));
    assert_eq!(rig.events().len(), 0);
}

#[test]
fn what_the_conductor_must_get_waits_while_its_queue_is_full() {
    let mut rig = Rig::subscribed();
    rig.receive(setup(0).encode().to_vec());
    rig.seen();
    rig.add_image();
    while rig.events.room() > 0 {
        let filler = NetworkEvent::Error {
            code: ErrorCode::GenericError,
            key: "filler",
            text: String::new(),
        };
        assert!(rig.events.offer(filler).is_ok());
    }
    rig.command(EndpointCommand::RemoveImage(RegistrationId(9)).at(ENDPOINT));
    assert!(rig.count(SystemCounter::ConductorProxyFails) > 0);
    rig.events();
    rig.work();
    assert!(matches!(&rig.events()[..], [NetworkEvent::ImageReleased(_)]));
}

#[test]
fn feedback_that_a_socket_does_not_take_is_counted() {
    let mut rig = Rig::subscribed();
    rig.far.0.lock().unwrap().is_blocked = true;
    rig.receive(frame(0, &[1; 32]));
    assert_eq!(rig.count(SystemCounter::ShortSends), 1);
    assert_eq!(rig.count(SystemCounter::BytesSent), 0);
}

#[test]
fn the_next_deadline_is_that_of_the_next_thing_to_do() {
    /// Timers of a sleeping agent wait so long for the network to wake it.
    const SLACK: i64 = 2 * MS;
    let mut rig = Rig::new(Shape::default());
    let quiet = rig.agent.next_deadline();
    assert!(quiet.since(rig.now) > 3600 * SECOND, "nothing to do");
    rig.subscribe(None);
    rig.receive(of_session(frame(0, &[1; 32]), 5));
    assert_eq!(
        rig.agent.next_deadline().since(rig.now),
        SECOND + SLACK,
        "the request expires"
    );
    rig.receive(setup(0).encode().to_vec());
    rig.seen();
    rig.add_image();
    assert_eq!(
        rig.agent.next_deadline().since(rig.now),
        200 * MS + SLACK,
        "a status message"
    );
    rig.pass_time(150 * MS);
    assert_eq!(rig.agent.next_deadline().since(rig.now), 50 * MS + SLACK);
    assert_eq!(rig.work(), 0);
    rig.pass_time(50 * MS);
    assert_eq!(rig.agent.next_deadline().since(rig.now), 200 * MS + SLACK);
}

#[test]
fn receive_times_are_written_into_messages_before_anybody_sees_them() {
    use fulmar::memory::AtomicBuffer;
    let mut rig = Rig::new(Shape {
        timestamps: ReceiveTimestamps {
            media: None,
            channel: Some(TimestampOffset::Payload(8)),
        },
        ..Shape::default()
    });
    rig.subscribe(None);
    rig.receive(setup(0).encode().to_vec());
    rig.seen();
    let image = rig.add_image();
    rig.receive(frame(0, &[1; 32]));
    let term = image.log.term(0).buffer();
    assert_eq!(term.load_relaxed_i64(32 + 8), 7_000_000);
    assert_eq!(term.load_relaxed_i64(32), i64::from_le_bytes([1; 8]));
}
