use fulmar::counters::SystemCounter as C;
use fulmar::wire::Setup;

use super::*;
use crate::media::fixtures::Line;
use crate::protocol::flow_control::{FlowControl, Strategy};
use crate::stream::fixtures::{
    Fixture, INITIAL_TERM, MS, Options, RECEIVER, SESSION, STREAM, TERM, asking, at, counter, nak, peer,
    status,
};
use crate::stream::publication_sender::SenderTraits;

const HALF: i32 = TERM / 2;

struct Setting {
    line: Line,
    endpoint: SendEndpoint,
    system: Arc<NetworkCounters>,
    events: Vec<NetworkEvent>,
    destinations: Counter,
}

fn setting(addressing: Addressing) -> Setting {
    let (line, system, destinations) = (Line::default(), Arc::new(NetworkCounters::heap()), counter());
    let parts = SendEndpointParts {
        id: EndpointId(3),
        channel: "aeron:udp?endpoint=host:1".to_owned(),
        socket: line.socket(),
        control_socket: None,
        addressing,
        name: Some("host:1".to_owned()),
        address: Some(peer(1)),
        destinations_counter: Some(destinations.clone()),
        system: Arc::clone(&system),
    };
    Setting {
        line,
        endpoint: SendEndpoint::new(parts, at(0)),
        system,
        events: Vec::new(),
        destinations,
    }
}

fn dynamic() -> Setting {
    setting(Addressing::Destinations(Destinations::new(
        DestinationMode::Dynamic,
        at(0),
    )))
}

fn group() -> Fixture {
    Fixture::with(Options {
        traits: SenderTraits {
            has_group_semantics: true,
            signal_eos: true,
            ..SenderTraits::default()
        },
        flow_control: FlowControl::new(Strategy::Max, 4),
        ..Options::default()
    })
}

impl Setting {
    /// Adds the fixture's publication; its publisher stays with the test.
    fn add(&mut self, fixture: Fixture) -> Publisher {
        let Fixture {
            sender, publisher, ..
        } = fixture;
        self.endpoint.add_publication(Box::new(sender));
        Publisher(publisher)
    }

    fn take(&mut self, now: i64, datagram: &[u8], from: SocketAddr) {
        let events = &mut self.events;
        self.endpoint
            .on_datagram(at(now), datagram, from, &mut |event| events.push(event));
    }

    fn status(&mut self, now: i64, message: &StatusMessage, from: SocketAddr) {
        let mut bytes = [0; 44];
        let length = message.encode(&mut bytes);
        self.take(now, &bytes[..length], from);
    }

    fn count(&self, counter: SystemCounter) -> i64 {
        self.system.get(counter).get_relaxed()
    }

    fn send(&mut self, now: i64) -> Vec<(Option<SocketAddr>, Vec<u8>)> {
        for index in 0..self.endpoint.publications().len() {
            self.endpoint.send(index, at(now));
        }
        self.line.take_sent()
    }
}

struct Publisher(fulmar::log::ExclusiveAppender<fulmar::memory::View>);

impl Publisher {
    fn publish(&mut self, length: usize) {
        let bytes = vec![1u8; length];
        let outcome = self
            .0
            .offer(&bytes.as_slice(), &fulmar::log::NoReservedValue, i64::MAX / 2);
        assert!(matches!(outcome, fulmar::log::AppendOutcome::Appended { .. }));
    }
}

fn kinds(sent: &[(Option<SocketAddr>, Vec<u8>)]) -> Vec<(Option<SocketAddr>, FrameKind)> {
    sent.iter()
        .map(|(to, datagram)| (*to, classify(datagram).unwrap()))
        .collect()
}

// Where frames go (wire protocol 3.10)

#[test]
fn a_connected_socket_needs_no_address_and_an_unconnected_one_does() {
    let mut connected = setting(Addressing::Connected);
    connected.add(Fixture::new());
    assert_eq!(kinds(&connected.send(0)), [(None, FrameKind::Setup)]);
    let mut other = setting(Addressing::To(peer(9)));
    other.add(Fixture::new());
    assert_eq!(kinds(&other.send(0)), [(Some(peer(9)), FrameKind::Setup)]);
    assert_eq!(other.count(C::BytesSent), 40);
}

#[test]
fn a_response_publication_is_silent_until_somebody_asks() {
    let mut setting = setting(Addressing::Response);
    setting.add(Fixture::with(Options {
        traits: SenderTraits {
            is_response: true,
            ..SenderTraits::default()
        },
        response_correlation_id: 42,
        ..Options::default()
    }));
    assert!(setting.send(0).is_empty());
    setting.status(1, &asking(), peer(9));
    assert_eq!(kinds(&setting.send(1)), [(Some(peer(9)), FrameKind::Setup)]);
    setting.status(2, &status(0, HALF), peer(9));
    assert!(matches!(
        setting.events[..],
        [NetworkEvent::ResponseConnected {
            response_correlation_id: 42,
            session_id: SESSION,
            stream_id: STREAM,
            ..
        }]
    ));
    setting.status(3, &status(0, HALF), peer(9));
    assert_eq!(setting.events.len(), 1, "only the first receiver is news");
}

// Status messages, in the order of wire protocol 3.6

#[test]
fn fields_outside_their_range_make_an_invalid_packet_before_anything_is_counted() {
    let mut setting = dynamic();
    setting.add(group());
    let bad = [
        status(33, 0),
        status(0, HALF + 1),
        status(0, -1),
        StatusMessage {
            term_offset: TERM,
            ..status(0, 0)
        },
        StatusMessage {
            term_offset: -32,
            ..status(0, 0)
        },
    ];
    for (count, message) in bad.iter().enumerate() {
        let message = StatusMessage {
            term_offset: if count == 0 { 33 } else { message.term_offset },
            ..*message
        };
        setting.status(0, &message, peer(1));
        assert_eq!(setting.count(C::InvalidPackets), count as i64 + 1);
    }
    assert_eq!(setting.count(C::StatusMessagesReceived), 0);
    assert_eq!(setting.destinations.get_relaxed(), 0);
}

#[test]
fn unknown_sessions_are_checked_against_the_longest_term_and_counted_as_received() {
    let mut setting = setting(Addressing::Connected);
    let unknown = StatusMessage {
        session_id: SessionId(1),
        window: 1 << 29,
        ..status(0, 0)
    };
    setting.status(0, &unknown, peer(1));
    assert_eq!(setting.count(C::StatusMessagesReceived), 1);
    let too_wide = StatusMessage {
        window: (1 << 29) + 1,
        ..unknown
    };
    setting.status(0, &too_wide, peer(1));
    assert_eq!(setting.count(C::InvalidPackets), 1);
}

#[test]
fn an_implausible_position_is_rejected_before_it_makes_a_destination() {
    let mut setting = dynamic();
    setting.add(group());
    setting.status(0, &status(i64::from(HALF) + 32, 0), peer(1));
    assert_eq!(setting.count(C::StatusMessagesRejected), 1);
    assert_eq!(setting.count(C::StatusMessagesReceived), 1, "received it was");
    assert_eq!(setting.destinations.get_relaxed(), 0);
    setting.status(0, &status(i64::from(HALF), 0), peer(1));
    assert_eq!(setting.destinations.get_relaxed(), 1);
}

#[test]
fn a_request_for_no_stream_registers_a_destination_that_is_sent_setups_only() {
    let mut setting = dynamic();
    let mut publisher = setting.add(group());
    let anything = StatusMessage {
        session_id: SessionId(0),
        stream_id: StreamId(0),
        ..asking()
    };
    assert!(setting.send(0).is_empty(), "nobody to send to");
    setting.status(MS, &anything, peer(1));
    assert_eq!(setting.destinations.get_relaxed(), 1);
    let sent = setting.send(MS);
    assert_eq!(kinds(&sent), [(Some(peer(1)), FrameKind::Setup)]);
    assert_eq!(Setup::parse(&sent[0].1).unwrap().flags, Setup::FLAG_GROUP);
    publisher.publish(100);
    setting.status(2 * MS, &status(0, HALF), peer(1));
    assert_eq!(kinds(&setting.send(2 * MS)), [(Some(peer(1)), FrameKind::Data)]);
    setting.endpoint.expire_destinations(at(5002 * MS));
    assert_eq!(setting.destinations.get_relaxed(), 0);
}

#[test]
fn a_forged_request_costs_less_than_three_times_its_bytes() {
    let mut setting = dynamic();
    let mut publisher = setting.add(group());
    setting.status(0, &status(0, HALF), peer(1));
    for _ in 0..20 {
        publisher.publish(1000);
    }
    let victim = peer(666);
    let mut got = 0;
    let mut asked = 0;
    for ms in 0..6000 {
        if ms % 1000 == 0 {
            let forged = StatusMessage {
                receiver_id: 99,
                ..asking()
            };
            setting.status(ms * MS, &forged, victim);
            asked += 36;
        }
        setting.endpoint.expire_destinations(at(ms * MS));
        let sent = setting.send(ms * MS);
        got += sent
            .iter()
            .filter(|(to, _)| *to == Some(victim))
            .map(|(_, datagram)| datagram.len())
            .sum::<usize>();
    }
    assert!(got > 0);
    assert!(got <= 3 * asked, "{got} for {asked}");
}

#[test]
fn a_late_member_of_a_group_hears_of_every_stream_at_once() {
    let mut setting = dynamic();
    setting.add(group());
    setting.status(0, &status(0, HALF), peer(1));
    setting.send(0);
    let anything = StatusMessage {
        session_id: SessionId(0),
        stream_id: StreamId(0),
        receiver_id: 8,
        ..asking()
    };
    setting.status(200 * MS, &anything, peer(2));
    let sent = setting.send(200 * MS);
    let to_new: Vec<_> = kinds(&sent)
        .into_iter()
        .filter(|(to, _)| *to == Some(peer(2)))
        .collect();
    assert_eq!(to_new, [(Some(peer(2)), FrameKind::Setup)]);
}

#[test]
fn streams_that_nobody_has_joined_yet_do_not_multiply_what_a_forged_request_costs() {
    let mut setting = dynamic();
    setting.add(group());
    let (mut got, mut asked) = (0, 0);
    for ms in 0..5000 {
        if ms % 1000 == 0 {
            setting.status(ms * MS, &asking(), peer(666));
            asked += 36;
        }
        let sent = setting.send(ms * MS);
        got += sent.iter().map(|(_, datagram)| datagram.len()).sum::<usize>();
    }
    assert!(got >= asked, "a SETUP for every request: {got}");
    assert!(got <= 3 * asked, "{got} for {asked}");
}

// Several destinations (wire protocol 3.8, 6.4)

#[test]
fn a_dead_destination_does_not_touch_the_others() {
    let mut destinations = Destinations::new(DestinationMode::Manual, at(0));
    for port in [1, 2] {
        destinations.add(
            at(0),
            Destination {
                registration_id: RegistrationId(i64::from(port)),
                channel: port.to_string(),
                name: None,
                address: Some(peer(port)),
            },
        );
    }
    let mut setting = setting(Addressing::Destinations(destinations));
    let mut publisher = setting.add(group());
    setting.line.with(|traffic| traffic.refusing.push(peer(2)));
    setting.status(0, &status(0, HALF), peer(1));
    for pass in 0..10 {
        publisher.publish(1000);
        let sent = setting.send(pass);
        assert_eq!(kinds(&sent), [(Some(peer(1)), FrameKind::Data)], "each once");
    }
    assert_eq!(setting.count(C::ShortSends), 0);
}

#[test]
fn destinations_are_added_counted_resolved_and_removed() {
    let mut setting = setting(Addressing::Destinations(Destinations::new(
        DestinationMode::Manual,
        at(0),
    )));
    setting.add(group());
    let destination = Destination {
        registration_id: RegistrationId(5),
        channel: "aeron:udp?endpoint=there:7".to_owned(),
        name: Some("there:7".to_owned()),
        address: None,
    };
    setting.endpoint.add_destination(at(0), destination);
    assert_eq!(setting.destinations.get_relaxed(), 1);
    assert!(setting.send(0).is_empty(), "its name means nothing yet");
    let mut asked = Vec::new();
    setting
        .endpoint
        .check_resolution(at(0), |event| asked.push(event));
    assert!(matches!(
        &asked[..],
        [NetworkEvent::ReResolve {
            target: ResolveTarget::SendDestination {
                registration_id: RegistrationId(5),
                ..
            },
            name,
        }] if name == "there:7"
    ));
    setting
        .endpoint
        .on_resolved(Some(RegistrationId(5)), peer(7))
        .unwrap();
    assert_eq!(setting.count(C::ResolutionChanges), 1);
    assert_eq!(kinds(&setting.send(1)), [(Some(peer(7)), FrameKind::Setup)]);
    setting
        .endpoint
        .remove_destination("aeron:udp?endpoint=there:7", None);
    assert_eq!(setting.destinations.get_relaxed(), 0);
    assert!(setting.send(500 * MS).is_empty());
}

// Re-resolution (wire protocol 6.7)

#[test]
fn a_silent_unicast_endpoint_is_looked_up_again_and_follows_its_name() {
    let mut setting = setting(Addressing::Connected);
    setting.add(Fixture::new());
    let ask = |setting: &Setting, now| {
        let mut asked = 0;
        setting.endpoint.check_resolution(at(now), |_| asked += 1);
        asked
    };
    assert_eq!(ask(&setting, 4999 * MS), 0);
    assert_eq!(ask(&setting, 5000 * MS), 1);
    setting.status(5000 * MS, &status(0, HALF), peer(1));
    assert_eq!(ask(&setting, 9999 * MS), 0);
    setting.endpoint.on_resolved(None, peer(1)).unwrap();
    assert_eq!(setting.count(C::ResolutionChanges), 0, "the same as before");
    setting.endpoint.on_resolved(None, peer(2)).unwrap();
    assert_eq!(setting.count(C::ResolutionChanges), 1);
    assert_eq!(setting.line.with(|traffic| traffic.connected_to), Some(peer(2)));
    setting.line.with(|traffic| traffic.is_reconnect_refused = true);
    assert!(setting.endpoint.on_resolved(None, peer(3)).is_err());
    assert_eq!(setting.count(C::ResolutionChanges), 1);
}

// Other frames (wire protocol 3.8, 3.9, 3.13, 9)

#[test]
fn bad_requests_are_invalid_packets_and_unknown_ones_nothing() {
    let mut setting = setting(Addressing::Connected);
    setting.add(Fixture::new());
    setting.status(0, &status(0, HALF), peer(1));
    let bad = [
        Nak {
            term_offset: 33,
            ..nak(0, 64)
        },
        Nak {
            term_offset: TERM,
            ..nak(0, 64)
        },
        nak(0, -1),
        Nak {
            term_offset: TERM - 32,
            ..nak(0, 64)
        },
    ];
    for nak in &bad {
        setting.take(0, &nak.encode(), peer(1));
    }
    assert_eq!(setting.count(C::InvalidPackets), bad.len() as i64);
    assert_eq!(setting.count(C::NakMessagesReceived), 0);
    let unknown = Nak {
        session_id: SessionId(5),
        term_offset: 33,
        ..nak(0, 64)
    };
    setting.take(0, &unknown.encode(), peer(1));
    assert_eq!(setting.count(C::InvalidPackets), bad.len() as i64);
    setting.take(0, &nak(0, 0).encode(), peer(1));
    assert_eq!(
        setting.count(C::NakMessagesReceived),
        1,
        "a length of 0 is valid and asks for nothing"
    );
}

#[test]
fn a_socket_that_fails_in_turns_is_reported_at_a_bounded_rate() {
    let mut setting = dynamic();
    setting.add(group());
    setting.status(0, &status(0, HALF), peer(1));
    let mut reports = 0;
    let mut batch = ReceiveBatch::new(1);
    for pass in 0..10_000 {
        let (now, errno) = (pass * MS, [1, 22][pass as usize % 2]);
        setting.line.with(|traffic| {
            traffic.failure = Some(crate::io::SendError { errno });
            traffic.receive_failure = Some(crate::io::ReceiveError { errno });
        });
        // A SETUP is tried every pass, as it never leaves.
        setting.send(now);
        reports += usize::from(setting.endpoint.take_failure(at(now)).is_some());
        let events = &mut setting.events;
        setting
            .endpoint
            .poll_control(at(now), &mut batch, &mut |event| events.push(event));
    }
    // Ten seconds: the burst, and one for each.
    assert_eq!(reports + setting.events.len(), FAILURES_BURST as usize + 9);
    assert!(!setting.events.is_empty(), "failures to receive are told as well");
}

#[test]
fn a_refusal_names_the_destination_it_came_from() {
    let mut destinations = Destinations::new(DestinationMode::Manual, at(0));
    destinations.add(
        at(0),
        Destination {
            registration_id: RegistrationId(77),
            channel: String::new(),
            name: None,
            address: Some(peer(1)),
        },
    );
    let mut setting = setting(Addressing::Destinations(destinations));
    setting.add(group());
    setting.status(0, &status(0, HALF), peer(1));
    let error = ErrorFrame {
        session_id: SESSION,
        stream_id: STREAM,
        receiver_id: RECEIVER,
        group_tag: None,
        error_code: 13,
        text: b"no",
    };
    let mut bytes = [0; 64];
    let length = error.encode(&mut bytes);
    setting.take(1, &bytes[..length], peer(1));
    setting.take(2, &bytes[..length], peer(1));
    assert_eq!(setting.count(C::ErrorFramesReceived), 2);
    let [NetworkEvent::PublicationError(report)] = &setting.events[..] else {
        panic!("one report")
    };
    assert_eq!(report.destination_registration_id, Some(RegistrationId(77)));
}

#[test]
fn a_response_setup_is_for_publications_that_expect_a_response() {
    let mut setting = setting(Addressing::Connected);
    setting.add(Fixture::with(Options {
        response_correlation_id: 42,
        ..Options::default()
    }));
    let frame = ResponseSetup {
        session_id: SESSION,
        stream_id: STREAM,
        response_session_id: SessionId(4242),
    };
    setting.take(0, &frame.encode(), peer(1));
    assert!(matches!(
        setting.events[..],
        [NetworkEvent::ResponseSetup {
            response_correlation_id: 42,
            response_session_id: SessionId(4242),
            ..
        }]
    ));
    let mut plain = super::tests::setting(Addressing::Connected);
    plain.add(Fixture::new());
    plain.take(0, &frame.encode(), peer(1));
    assert!(plain.events.is_empty());
}

#[test]
fn frames_of_receivers_are_ignored_and_nonsense_is_counted() {
    let mut setting = setting(Addressing::Connected);
    let setup = Setup {
        flags: 0,
        term_offset: 0,
        session_id: SESSION,
        stream_id: STREAM,
        initial_term_id: INITIAL_TERM,
        active_term_id: INITIAL_TERM,
        term_length: TERM,
        mtu: 1408,
        ttl: 0,
    };
    setting.take(0, &setup.encode(), peer(1));
    assert_eq!(setting.count(C::InvalidPackets), 0);
    for datagram in [&[][..], &[0; 7], &[0xFF; 36], &[36, 0, 0, 0, 0, 0, 3, 0]] {
        setting.take(0, datagram, peer(1));
    }
    assert_eq!(setting.count(C::InvalidPackets), 4);
}

#[test]
fn a_batch_of_control_frames_is_taken_in_one_poll() {
    let mut setting = setting(Addressing::Connected);
    setting.add(Fixture::new());
    let mut bytes = [0; 44];
    let length = status(0, HALF).encode(&mut bytes);
    for _ in 0..6 {
        setting.line.push(peer(1), &bytes[..length]);
    }
    let mut batch = ReceiveBatch::new(4);
    let events = &mut setting.events;
    let mut poll = || {
        setting
            .endpoint
            .poll_control(at(0), &mut batch, &mut |event| events.push(event))
    };
    assert_eq!([poll(), poll(), poll()], [true, true, false]);
    assert_eq!(setting.count(C::StatusMessagesReceived), 6);
    assert_eq!(setting.count(C::BytesReceived), 6 * 36);
}

#[test]
fn publications_are_found_by_stream_and_session() {
    let mut setting = setting(Addressing::Connected);
    setting.add(Fixture::new());
    assert_eq!(setting.endpoint.find(STREAM, SESSION), Some(0));
    assert_eq!(setting.endpoint.find(STREAM, SessionId(0)), None);
    assert!(setting.endpoint.remove_publication(RegistrationId(12)).is_none());
    assert!(setting.endpoint.remove_publication(RegistrationId(11)).is_some());
    assert_eq!(setting.endpoint.find(STREAM, SESSION), None);
}
