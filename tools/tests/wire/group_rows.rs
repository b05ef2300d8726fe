//! Rows with several receivers, several drivers, or a group address.

use std::net::SocketAddr;

use crate::frames::{self, ASKS, BIT_40, Key, NAK, Place, RSP_SETUP, SETUP, SM, Sm, is_data};
use crate::peer::{Captured, Peer};
use crate::ports::{free_address, group};
use crate::process::{Make, pause};
use crate::stage::{
    Line, MDC_DESTINATIONS, NAKS_SENT, QUICK_TIMER, SENDER_LIMIT, SENDER_POSITION, STREAM, STRIDE, Sink,
    Source, Stage,
};

/// Half of the term of 64 KiB that rows use.
const HALF: i32 = 32_768;

/// The group that feedback goes to.
fn control_of(group: SocketAddr) -> SocketAddr {
    let SocketAddr::V4(group) = group else {
        panic!("IPv4 here")
    };
    let [a, b, c, d] = group.ip().octets();
    SocketAddr::from(([a, b, c, d.wrapping_add(1)], group.port()))
}

/// A publication to destinations that announce themselves, and its control address.
fn dynamic_publication(stage: &mut Stage, more: &str) -> SocketAddr {
    let control = free_address();
    stage.publish(&format!("aeron:udp?control={control}|control-mode=dynamic{more}"));
    control
}

/// A receiver that has announced itself to a control address and was sent a SETUP.
fn announced(control: SocketAddr, id: i64, group_tag: Option<i64>) -> Sink {
    let mut peer = Peer::new();
    let mut hello = Sm {
        flags: ASKS,
        key: Key {
            session: 0,
            stream: 0,
        },
        at: Place { term: 0, offset: 0 },
        window: 0,
        receiver: id,
        group_tag,
    };
    peer.send(control, &frames::sm(&hello));
    let mut first = peer.expect("a SETUP or a heartbeat", |_| true);
    if first.frame().kind() != SETUP {
        // The publication is connected already: who wants a SETUP asks for it.
        hello.key = first.frame().key();
        peer.send(control, &frames::sm(&hello));
        first = peer.expect("a SETUP", |frame| frame.kind() == SETUP);
    }
    let mut sink = Sink::of(peer, id, &first);
    assert_eq!(sink.to, control);
    assert_eq!(sink.setup.flags, BIT_40);
    sink.group_tag = group_tag;
    sink
}

fn row_33_dynamic_multi_destination_publisher(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let control = dynamic_publication(&mut stage, "");
    assert_eq!(stage.only(MDC_DESTINATIONS), 0);
    let mut sink = announced(control, 1, None);
    assert_eq!(stage.only(MDC_DESTINATIONS), 1);
    sink.connect(HALF);
    stage.client.ok("connected p true 10000");
    stage.client.ok("offer p 4 96 1 10000");
    sink.read_to(0, 4 * STRIDE);
    let before = sink.peer.drain().len();
    assert!(before < 100);
    stage.await_value("number of destinations", 0, |stage| stage.only(MDC_DESTINATIONS));
    // Five seconds long it was there, and heard heartbeats.
    let heard = sink.peer.drain();
    let time = heard[heard.len() - 1].at - heard[0].at;
    assert!(time > 4_000_000_000, "{time} ns");
    stage.end();
}

fn row_35_manual_destinations(make: Make) {
    let mut stage = Stage::new(make, &[]);
    stage.publish("aeron:udp?control-mode=manual");
    let (live, mut dead) = (Peer::new(), Peer::at(&free_address().to_string()));
    for address in [live.address(), dead.address()] {
        stage
            .client
            .ok(&format!("destination p add aeron:udp?endpoint={address}"));
    }
    stage.await_value("number of destinations", 2, |stage| stage.only(MDC_DESTINATIONS));
    let mut sink = Sink::meet(live);
    assert_eq!(sink.setup.flags, BIT_40);
    sink.connect(HALF);
    stage.client.ok("connected p true 10000");
    stage.client.ok("offer p 4 96 1 10000");
    sink.read_to(0, 4 * STRIDE);
    dead.expect("the dead one is sent to", is_data);
    // The socket goes, and the other one does not mind.
    let address = dead.address();
    drop(dead);
    for number in 1..20i64 {
        stage.client.ok("offer p 4 96 1 10000");
        sink.read_to(number * 4 * STRIDE, (number + 1) * 4 * STRIDE);
    }
    let mut dead = Peer::at(&address.to_string());
    stage.client.ok("offer p 1 96 1 10000");
    dead.expect("the dead one is sent to still", is_data);
    stage
        .client
        .ok(&format!("destination p remove aeron:udp?endpoint={address}"));
    stage.await_value("number of destinations", 1, |stage| stage.only(MDC_DESTINATIONS));
    stage.end();
}

fn row_37_multicast_publisher(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let group = group(true);
    let mut member = Peer::member(group);
    let mut watcher = Peer::member(control_of(group));
    stage.publish(&format!("aeron:udp?endpoint={group}|interface=127.0.0.1|ttl=4"));
    let first = member.expect("a SETUP", |frame| frame.kind() == SETUP);
    let setup = first.frame().setup();
    assert_eq!((setup.flags, setup.ttl), (BIT_40, 4));
    let sm = Sm {
        flags: 0,
        key: first.frame().key(),
        at: first.frame().place(),
        window: HALF,
        receiver: 3,
        group_tag: None,
    };
    member.send(control_of(group), &frames::sm(&sm));
    stage.client.ok("connected p true 10000");
    stage.client.ok("offer p 1 96 1 10000");
    member.expect("data", is_data);
    // Nothing of the publisher goes to the control group: only what the receiver said.
    let heard = watcher.drain();
    assert!(
        heard.iter().all(|captured| captured.bytes == frames::sm(&sm)),
        "{heard:?}"
    );
    stage.end();
}

fn row_37_multicast_subscribers(make: Make) {
    let group = group(true);
    let channel = format!("aeron:udp?endpoint={group}|interface=127.0.0.1");
    // One receiver of the make under test, one of the other.
    let mut stages = [Stage::new(make, &[]), Stage::new(Make::C, &[])];
    for stage in &mut stages {
        stage.subscribe(&channel);
    }
    let peer = Peer::new();
    peer.speak_on_loopback();
    let mut control = Peer::member(control_of(group));
    let mut source = Source::new(peer, group);
    source.setup_flags = BIT_40;
    source.ttl = 1;
    source.setup(0);
    let mut receivers = std::collections::BTreeSet::new();
    control.until("status messages of both", |captured| {
        let sm = captured.frame().sm();
        assert_eq!((sm.flags, sm.at), (0, source.line.place(0)));
        receivers.insert(sm.receiver);
        receivers.len() == 2
    });
    for stage in &mut stages {
        stage.client.ok("image_count s 1 10000");
    }
    source.messages([0, 2]);
    for _ in 0..3 {
        let nak = control.expect("a NAK", |frame| frame.kind() == NAK);
        assert_eq!(nak.frame().place(), source.line.place(STRIDE));
        assert_eq!(nak.frame().gap(), 128);
    }
    // Both speak from the port of the group: a NAK does not tell whose it is.
    for stage in &mut stages {
        stage.await_value("NAKs were sent", 1, |stage| {
            stage.client.system_counter(NAKS_SENT).min(1)
        });
    }
    source.messages([1]);
    for mut stage in stages {
        stage.client.ok("poll s 3 10000");
        stage.end();
    }
    assert_eq!(source.peer.drain().len(), 0);
}

fn row_38_even_group(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let channel = format!("aeron:udp?endpoint={}|interface=127.0.0.1", group(false));
    let (code, text) = stage.client.refused(&format!("add_pub p {channel} {STREAM}"));
    assert!(code.abs() == 1 || code.abs() == 11, "{code} {text}");
    stage.client.refused(&format!("add_sub s {channel} {STREAM}"));
    stage.end();
}

fn row_39_minimum_flow_control(make: Make) {
    let mut stage = Stage::new(
        make,
        &[QUICK_TIMER, ("AERON_PUBLICATION_CONNECTION_TIMEOUT", "2s")],
    );
    let control = dynamic_publication(&mut stage, "|fc=min,g:/2,t:1s");
    let mut slow = announced(control, 1, None);
    slow.grant(0, 1024);
    // One is not enough: a heartbeat answers, no limit moves.
    slow.peer.expect("a heartbeat", frames::is_heartbeat);
    assert_eq!(stage.client.number("offer_once p 32"), -1);
    assert_eq!(stage.only(SENDER_LIMIT), 0);
    let mut fast = announced(control, 2, None);
    fast.grant(0, HALF);
    slow.grant(0, 1024);
    stage.client.ok("connected p true 10000");
    stage.await_value("limit", 1024, |stage| stage.only(SENDER_LIMIT));
    stage.client.ok("offer p 20 96 1 10000");
    slow.read_to(0, 1024);
    fast.read_to(0, 1024);
    stage.await_value("sender's position", 1024, |stage| stage.only(SENDER_POSITION));
    // The slow one stays away: the other one alone is not enough for long.
    let mut count = 0;
    while stage.client.ask("connected p false 0").is_err() {
        fast.grant(1024, HALF);
        pause(20);
        count += 1;
        assert!(count < 500, "still connected");
    }
    stage.end();
}

fn row_40_tagged_flow_control(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let control = dynamic_publication(&mut stage, "|fc=tagged,g:77/1");
    let mut untagged = announced(control, 1, None);
    untagged.grant(0, 1024);
    untagged.peer.expect("a heartbeat", frames::is_heartbeat);
    assert_eq!(stage.client.number("offer_once p 32"), -1);
    let mut tagged = announced(control, 2, Some(77));
    tagged.grant(0, 8192);
    stage.client.ok("connected p true 10000");
    stage.client.ok("offer p 20 96 1 10000");
    untagged.grant(0, 1024);
    tagged.read_to(0, 20 * STRIDE);
    untagged.read_to(0, 20 * STRIDE);
    stage.end();
}

fn row_40_tagged_subscriber(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let mut source = stage.subscribe_to_source("|gtag=77");
    assert_eq!(source.join(0).group_tag, Some(77));
    stage.end();
}

fn row_47_response_channel_with_us_as_server(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let (mut control, peer) = (Peer::new(), Peer::new());
    let (at, endpoint) = (control.address(), peer.address());
    let id = stage.client.number(&format!(
        "add_sub r aeron:udp?control-mode=response|control={at} 2002"
    ));
    let hello = control.expect("it asks", |frame| frame.kind() == SM);
    assert_eq!(
        hello.frame().sm().key,
        Key {
            session: 0,
            stream: 0
        }
    );
    stage.publish(&format!(
        "aeron:udp?endpoint={endpoint}|response-correlation-id={id}"
    ));
    let mut sink = Sink::meet(peer);
    assert_eq!(sink.setup.flags, ASKS);
    sink.connect(HALF);
    stage.client.ok("connected p true 10000");
    sink.send(&frames::rsp_setup(sink.key, 4242));
    let response = Key {
        session: 4242,
        stream: 2002,
    };
    let asked = control.expect("it asks for the response", |frame| {
        frame.kind() == SM && frame.key() == response
    });
    assert_eq!(asked.frame().flags(), ASKS);
    let mut source = Source::new(control, asked.from);
    source.key = response;
    source.setup(0);
    let sm = loop {
        // It may have asked once more.
        let sm = source.sm("a status message");
        if sm.flags != ASKS {
            break sm;
        }
    };
    assert_eq!((sm.flags, source.position_of(&sm)), (0, 0));
    source.messages([0]);
    stage.client.ok("poll r 1 10000");
    stage.end();
}

fn row_47_response_channel_with_us_as_client(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let mut source = stage.subscribe_to_source("");
    source.setup_flags = ASKS;
    source.join(0);
    stage.client.ok("image_count s 1 10000");
    let image = stage.client.images("s")[0].correlation_id;
    let control = free_address();
    let publication = stage.client.publication(&format!(
        "add_pub p aeron:udp?control-mode=response|control={control}|response-correlation-id={image}|\
         term-length=64k 2002"
    ));
    let key = source.key;
    let mut count = 0;
    let all = source.peer.until("announcements of the response", |captured| {
        count += i32::from(captured.frame().kind() == RSP_SETUP);
        count == 3
    });
    for captured in all.iter().filter(|captured| captured.frame().kind() == RSP_SETUP) {
        assert_eq!(captured.bytes, frames::rsp_setup(key, publication.session_id));
    }
    let peer = Peer::new();
    let mut asking = Sink {
        to: control,
        key: Key {
            session: publication.session_id,
            stream: 2002,
        },
        line: Line {
            initial_term: publication.initial_term_id,
            term_length: 65_536,
        },
        setup: source.setup_at(0),
        id: 9,
        group_tag: None,
        peer,
    };
    asking.flagged(ASKS, 0, 0);
    let setup = asking.peer.expect("a SETUP", |frame| frame.kind() == SETUP);
    assert_eq!((setup.from, setup.frame().key()), (control, asking.key));
    assert_eq!(setup.frame().flags(), 0);
    asking.grant(0, HALF);
    stage.client.ok("connected p true 10000");
    stage.client.ok("offer p 1 96 1 10000");
    asking.read_to(0, STRIDE);
    // Once connected, no more announcements.
    source.sm("a status message");
    source.peer.drain();
    let mut sms = 0;
    let all: Vec<Captured> = source.peer.until("three status messages", |captured| {
        sms += i32::from(captured.frame().kind() == SM);
        sms == 3
    });
    assert_eq!(all.len(), 3, "{all:?}");
    stage.end();
}

on_both_drivers!(
    row_33_dynamic_multi_destination_publisher,
    row_35_manual_destinations,
    row_37_multicast_publisher,
    row_37_multicast_subscribers,
    row_38_even_group,
    row_39_minimum_flow_control,
    row_40_tagged_flow_control,
    row_40_tagged_subscriber,
    row_47_response_channel_with_us_as_server,
    row_47_response_channel_with_us_as_client,
);
