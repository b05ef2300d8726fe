//! Rows in which the driver under test subscribes and the peer publishes.

use crate::frames::{self, ASKS, BIT_40, ERR, Key, NAK, Place, RTTM, SM, Setup};
use crate::peer::{Captured, Peer};
use crate::ports::free_address;
use crate::process::{Make, Polled};
use crate::stage::{
    ERRORS, IMAGES_REVOKED, INVALID_PACKETS, LOSS_GAP_FILLS, OVER_RUNS, QUICK_TIMER, STRIDE, Source, Stage,
    UNDER_RUNS,
};

/// Half of the term of 64 KiB that rows use, which is the receiver's window.
const HALF: i32 = 32_768;

/// A driver with a subscription and an image at position 0.
fn joined(make: Make, settings: &[(&str, &str)], more: &str) -> (Stage, Source) {
    let mut stage = Stage::new(make, settings);
    let mut source = stage.subscribe_to_source(more);
    source.join(0);
    stage.client.ok("image_count s 1 10000");
    (stage, source)
}

fn row_09_first_status_message(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let mut source = stage.subscribe_to_source("");
    let position = 3 * 65_536 + 4096;
    source.setup(position);
    let captured = source.peer.expect("a status message", |frame| frame.kind() == SM);
    assert_eq!(captured.from, source.to);
    assert_eq!(captured.bytes.len(), 36);
    let sm = captured.frame().sm();
    assert_eq!((sm.flags, sm.key), (0, source.key));
    assert_eq!((source.position_of(&sm), sm.window), (position, HALF));
    assert_ne!(sm.receiver, 0);
    stage.client.ok("image_count s 1 10000");
    let image = stage.client.images("s")[0].clone();
    assert_eq!(
        (image.session_id, image.join_position),
        (source.key.session, position)
    );
    assert_eq!(image.source, source.peer.address().to_string());

    // A long term is limited by the default window.
    let mut long = Source::new(Peer::new(), source.to);
    long.key.session = 77;
    long.line.term_length = 1 << 20;
    assert_eq!(long.join(0).window, 128 * 1024);
    stage.end();
}

fn row_10_data_first(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let mut source = stage.subscribe_to_source("");
    let mut asked = Vec::new();
    while asked.len() < 3 {
        source.messages([0]);
        asked.extend(source.peer.during(20));
    }
    for captured in &asked {
        let sm = captured.frame().sm();
        assert_eq!((sm.flags, sm.key), (ASKS, source.key));
        assert_eq!((sm.at, sm.window), (Place { term: 0, offset: 0 }, 0));
        assert_eq!(captured.from, source.to);
    }
    let apart = asked[2].at - asked[0].at;
    assert!(apart > 1_800_000_000, "two intervals in {apart} ns");
    assert_eq!(stage.client.images("s").len(), 0);
    source.join(0);
    stage.client.ok("image_count s 1 10000");
    stage.end();
}

fn row_11_end_of_stream_first(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let mut source = stage.subscribe_to_source("");
    for flags in [0xE0, 0xE0, 0xF0] {
        source.heartbeat(flags, 4096);
    }
    // Somebody else is asked, and nobody was before.
    let other = Key {
        session: 1,
        ..source.key
    };
    let place = source.line.place(0);
    source.send(&frames::heartbeat(0xC0, other, place));
    let first = source.peer.expect("a status message", |frame| frame.kind() == SM);
    assert_eq!(first.frame().key(), other);
    assert_eq!(stage.client.images("s").len(), 0);
    stage.end();
}

fn row_12_idle_publisher(make: Make) {
    let settings = [("AERON_IMAGE_LIVENESS_TIMEOUT", "1s"), QUICK_TIMER];
    let (mut stage, mut source) = joined(make, &settings, "");
    let mut sms: Vec<Captured> = Vec::new();
    while sms.len() < 11 {
        source.heartbeat(0xC0, 0);
        sms.extend(source.peer.during(50));
    }
    for captured in &sms {
        let sm = captured.frame().sm();
        assert_eq!((sm.flags, source.position_of(&sm), sm.window), (0, 0, HALF));
    }
    let time = sms[10].at - sms[0].at;
    assert!(time > 1_900_000_000, "ten intervals in {time} ns");
    assert_eq!(stage.client.images("s").len(), 1);
    stage.end();
}

fn row_13_consumption(make: Make) {
    let (mut stage, mut source) = joined(make, &[], "");
    let quarter = i64::from(HALF) / 4;
    let count = quarter / STRIDE;
    source.messages(0..count);
    stage.client.ok(&format!("poll s {count} 10000"));
    // A quarter is not more than a quarter: the timer repeats the old position.
    source.sm("a repeated status message");
    let sm = source.sm("a repeated status message");
    assert_eq!(source.position_of(&sm), 0);
    source.messages([count]);
    stage.client.ok("poll s 1 10000");
    let sm = source.sm("a new status message");
    assert_eq!(source.position_of(&sm), (count + 1) * STRIDE);
    assert_eq!((sm.flags, sm.window, sm.at.offset % 32), (0, HALF, 0));
    stage.end();
}

/// Waits for a status message at `position` or later.
#[track_caller]
fn await_position(source: &mut Source, position: i64) {
    loop {
        let sm = source.sm("a later status message");
        if source.position_of(&sm) >= position {
            return;
        }
    }
}

/// NAKs among what was captured, as (position, length).
fn naks(source: &Source, captured: &[Captured]) -> Vec<(i64, i32)> {
    captured
        .iter()
        .filter(|captured| captured.frame().kind() == NAK)
        .map(|captured| {
            (
                source.line.position(captured.frame().place()),
                captured.frame().gap(),
            )
        })
        .collect()
}

/// Waits for NAKs of one gap, and for nothing but them.
#[track_caller]
fn expect_naks(source: &mut Source, position: i64, length: i32) {
    let mut count = 0;
    let all = source
        .peer
        .until(&format!("NAKs of {length} at {position}"), |captured| {
            count += i32::from(captured.frame().kind() == NAK);
            count == 3
        });
    assert_eq!(naks(source, &all), vec![(position, length); 3]);
}

/// After what was sent last, waits until the driver has nothing more to complain about.
#[track_caller]
fn expect_no_naks(source: &mut Source) {
    source.sm("a status message");
    source.peer.drain();
    let mut sms = 0;
    let all = source.peer.until("two status messages", |captured| {
        sms += i32::from(captured.frame().kind() == SM);
        sms == 2
    });
    assert_eq!(naks(source, &all), []);
}

fn row_14_one_lost(make: Make) {
    let (mut stage, mut source) = joined(make, &[], "");
    source.messages([0, 2, 3]);
    expect_naks(&mut source, STRIDE, 128);
    stage.client.ok("poll s 1 10000");
    source.messages([1]);
    expect_no_naks(&mut source);
    let polled = Polled::parse(&stage.client.ok("poll s 3 10000"));
    assert_eq!((polled.messages, polled.position), (4, 4 * STRIDE));
    stage.end();
}

fn row_15_last_one_lost(make: Make) {
    let (mut stage, mut source) = joined(make, &[], "");
    source.messages([0, 1]);
    expect_no_naks(&mut source);
    source.heartbeat(0xC0, 4 * STRIDE);
    expect_naks(&mut source, 2 * STRIDE, 256);
    source.messages([2, 3]);
    stage.client.ok("poll s 4 10000");
    expect_no_naks(&mut source);
    stage.end();
}

/// Ours asks for every gap unless it is told to do as Aeron does.
fn one_gap_at_a_time(make: Make) -> &'static [(&'static str, &'static str)] {
    match make {
        Make::C => &[],
        Make::Fulmar => &[("FULMAR_NAK_EVERY_GAP", "false")],
    }
}

fn row_16_two_lost(make: Make) {
    let (mut stage, mut source) = joined(make, one_gap_at_a_time(make), "");
    source.messages([0, 2, 4]);
    // What there is before the later message came is a gap as well, so wait until all are there.
    source.peer.during(100);
    expect_naks(&mut source, STRIDE, 128);
    source.messages([1]);
    source.peer.during(100);
    expect_naks(&mut source, 3 * STRIDE, 128);
    source.messages([3]);
    stage.client.ok("poll s 5 10000");
    stage.end();
}

#[test]
fn our_driver_asks_for_every_gap() {
    let (mut stage, mut source) = joined(Make::Fulmar, &[], "");
    source.messages([0, 2, 5]);
    let mut wanted = vec![(STRIDE, 128), (3 * STRIDE, 256)];
    source.peer.until("NAKs of both gaps", |captured| {
        if captured.frame().kind() == NAK {
            let gap = (
                source.line.position(captured.frame().place()),
                captured.frame().gap(),
            );
            wanted.retain(|other| *other != gap);
        }
        wanted.is_empty()
    });
    source.messages([1, 3, 4]);
    stage.client.ok("poll s 6 10000");
    expect_no_naks(&mut source);
    stage.end();
}

fn row_17_loss_at_the_end_of_a_term(make: Make) {
    let mut stage = Stage::new(make, one_gap_at_a_time(make));
    let mut source = stage.subscribe_to_source("");
    let last = 65_536 / STRIDE - 1;
    source.join((last - 1) * STRIDE);
    stage.client.ok("image_count s 1 10000");
    source.messages([last - 1, last + 2]);
    source.peer.during(100);
    expect_naks(&mut source, last * STRIDE, 128);
    source.messages([last]);
    source.peer.during(100);
    expect_naks(&mut source, (last + 1) * STRIDE, 128);
    source.messages([last + 1]);
    let polled = Polled::parse(&stage.client.ok("poll s 4 10000"));
    assert_eq!(polled.position, (last + 3) * STRIDE);
    stage.end();
}

fn row_21_fragments_received(make: Make) {
    let (mut stage, source) = joined(make, &[], "");
    let mut message = vec![0; 4000];
    crate::pattern::write(&mut message, 9, 0);
    let parts = [
        (0x80, 0, &message[..1376]),
        (0, 1408, &message[1376..2752]),
        (0x40, 2816, &message[2752..]),
    ];
    for (flags, position, payload) in parts {
        source.send(&frames::data(
            flags,
            source.key,
            source.line.place(position),
            payload,
        ));
    }
    let polled = Polled::parse(&stage.client.ok("poll s 1 10000"));
    assert_eq!(polled.position, 1408 + 1408 + 1280);
    stage.end();
}

fn row_22_padding_received(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let mut source = stage.subscribe_to_source("");
    let last = 65_536 / STRIDE - 1;
    source.join((last - 1) * STRIDE);
    stage.client.ok("image_count s 1 10000");
    let mut datagram = source.message(last - 1);
    datagram.extend(frames::pad(source.key, source.line.place(last * STRIDE), 128));
    source.send(&datagram);
    let mut next = source.message(last);
    next[8..12].fill(0);
    next[20..24].copy_from_slice(&source.line.place(65_536).term.to_le_bytes());
    source.send(&next);
    let polled = Polled::parse(&stage.client.ok("poll s 2 10000"));
    assert_eq!(polled.position, 65_536 + STRIDE);
    expect_no_naks(&mut source);
    stage.end();
}

fn row_23_several_frames_in_a_datagram(make: Make) {
    let (mut stage, source) = joined(make, &[], "");
    let datagram: Vec<u8> = (0..11).flat_map(|number| source.message(number)).collect();
    assert_eq!(datagram.len(), 1408);
    source.send(&datagram);
    source.messages([11]);
    let polled = Polled::parse(&stage.client.ok("poll s 12 10000"));
    assert_eq!(polled.position, 12 * STRIDE);
    stage.end();
}

/// Datagrams of a stream that no receiver may accept.
fn malformed(source: &Source) -> Vec<(&'static str, Vec<u8>)> {
    let good = source.message(0);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let setup = |change: &dyn Fn(&mut Setup)| {
        let mut setup = source.setup_at(0);
        change(&mut setup);
        frames::setup(&setup)
    };
    vec![
        (
            "a length that is no multiple of 32",
            with(&|bytes| bytes.truncate(100)),
        ),
        ("shorter than a header", with(&|bytes| bytes.truncate(7))),
        ("shorter than a data header", with(&|bytes| bytes.truncate(24))),
        (
            "an offset that is no multiple of 32",
            with(&|bytes| bytes[8] = 33),
        ),
        ("a negative offset", with(&|bytes| bytes[8..12].fill(0xFF))),
        ("an offset beyond the term", with(&|bytes| bytes[10] = 1)),
        ("a zero frame behind", with(&|bytes| bytes.extend([0; 32]))),
        ("a frame longer than the datagram", with(&|bytes| bytes[0] = 200)),
        (
            "a frame beyond the term",
            with(&|bytes| bytes[8..12].copy_from_slice(&65_504i32.to_le_bytes())),
        ),
        ("a negative frame length", with(&|bytes| bytes[3] = 0x80)),
        ("another version", with(&|bytes| bytes[4] = 1)),
        ("type 12", with(&|bytes| bytes[6] = 12)),
        (
            "a second frame with a wrong offset",
            with(&|bytes| bytes.extend(source.message(2))),
        ),
        (
            "a term of 100000 bytes",
            setup(&|setup| setup.term_length = 100_000),
        ),
        ("a term of 32 KiB", setup(&|setup| setup.term_length = 32_768)),
        ("an mtu of 1400", setup(&|setup| setup.mtu = 1400)),
        ("a negative mtu", setup(&|setup| setup.mtu = -32)),
        ("an mtu above the maximum", setup(&|setup| setup.mtu = 65_536)),
        ("a SETUP offset of 33", setup(&|setup| setup.term_offset = 33)),
        (
            "a SETUP offset beyond the term",
            setup(&|setup| setup.term_offset = 65_536),
        ),
        ("a SETUP that is cut off", setup(&|_| ())[..36].to_vec()),
    ]
}

fn row_24_malformed_datagrams(make: Make) {
    let (mut stage, mut source) = joined(make, &[], "");
    let before = stage.client.system_counter(INVALID_PACKETS);
    let all = malformed(&source);
    for (number, (what, bytes)) in (1..).zip(&all) {
        source.send(bytes);
        stage.await_value(what, before + number, |stage| {
            stage.client.system_counter(INVALID_PACKETS)
        });
    }
    expect_no_naks(&mut source);
    source.messages(0..4);
    let polled = Polled::parse(&stage.client.ok("poll s 4 10000"));
    assert_eq!(polled.position, 4 * STRIDE);
    let image = stage.client.images("s")[0].clone();
    assert_eq!(
        (image.session_id, image.position),
        (source.key.session, 4 * STRIDE)
    );
    let count = i64::try_from(all.len()).expect("few");
    assert_eq!(stage.client.system_counter(INVALID_PACKETS), before + count);
    assert_eq!(stage.client.system_counter(ERRORS), 0);
    stage.end();
}

fn row_25_beyond_the_window(make: Make) {
    let (mut stage, mut source) = joined(make, &[], "");
    let first_beyond = i64::from(HALF) / STRIDE;
    source.messages([first_beyond]);
    stage.await_system(OVER_RUNS, 1);
    // The last that is within: an over-run would not ask for what is before it.
    source.messages([first_beyond - 1]);
    expect_naks(&mut source, 0, HALF - 128);
    assert_eq!(stage.client.system_counter(OVER_RUNS), 1);
    stage.end();
}

fn row_26_old_and_repeated_data(make: Make) {
    let (mut stage, mut source) = joined(make, &[], "");
    let count = i64::from(HALF) / 4 / STRIDE + 1;
    source.messages(0..count);
    source.messages(0..count);
    stage.client.ok(&format!("poll s {count} 10000"));
    await_position(&mut source, 1);
    // What comes after the repetition has been read, so the repetition is over.
    source.messages([count]);
    stage.client.ok("poll s 1 10000");
    let before = stage.client.system_counter(UNDER_RUNS);
    source.messages([0, 1]);
    stage.await_system(UNDER_RUNS, before + 2);
    source.messages([count + 1]);
    let polled = Polled::parse(&stage.client.ok("poll s 1 10000"));
    assert_eq!(polled.messages, u64::try_from(count + 2).expect("positive"));
    assert_eq!(polled.position, (count + 2) * STRIDE);
    stage.end();
}

fn row_28_publisher_closes(make: Make) {
    let (mut stage, mut source) = joined(make, &[QUICK_TIMER], "");
    source.messages(0..4);
    source.heartbeat(0xE0, 4 * STRIDE);
    stage.client.ok("poll s 4 10000");
    let mut farewells: Vec<i64> = Vec::new();
    while farewells.len() < 4 {
        source.heartbeat(0xE0, 4 * STRIDE);
        for captured in source.peer.during(50) {
            let sm = captured.frame().sm();
            if sm.flags == BIT_40 {
                farewells.push(captured.at);
            } else {
                assert_eq!((sm.flags, farewells.len()), (0, 0));
            }
        }
    }
    let time = farewells[3] - farewells[0];
    assert!(time > 500_000_000, "three intervals in {time} ns");
    stage.client.ok("event image-gone 10000");
    stage.client.ok("image_count s 0 10000");
    stage.end();
}

fn row_29_publisher_is_revoked(make: Make) {
    let (mut stage, source) = joined(make, &[QUICK_TIMER], "");
    source.messages(0..2);
    stage.client.ok("poll s 2 10000");
    // One more message is never polled.
    source.messages([2]);
    source.heartbeat(0xF0, 3 * STRIDE);
    stage.await_system(IMAGES_REVOKED, 1);
    stage.client.ok("event image-gone 10000");
    stage.client.ok("image_count s 0 10000");
    assert!(stage.client.ok("poll s 0 0").starts_with("2 "));
    stage.end();
}

fn row_30_publisher_dies(make: Make) {
    let settings = [("AERON_IMAGE_LIVENESS_TIMEOUT", "7s"), QUICK_TIMER];
    let (mut stage, mut source) = joined(make, &settings, "");
    source.messages([0]);
    stage.client.ok("poll s 1 10000");
    let start = source.sm("a status message");
    assert_eq!(start.flags, 0);
    stage.client.ok("event image-gone 15000");
    let sms = source.peer.drain();
    let (first, last) = (sms[0].at, sms[sms.len() - 1].at);
    // Silent from about 5 s on, though the image lives for 7 s.
    let time = last - first;
    assert!((3_500_000_000..6_000_000_000).contains(&time), "{time} ns");
    stage.client.ok("image_count s 0 10000");
    // The same session again, from the start.
    let mut again = Source::new(Peer::new(), source.to);
    let first = loop {
        again.setup(0);
        if let Some(captured) = again.peer.during(50).pop() {
            break captured.frame().sm();
        }
    };
    assert_eq!((first.flags, again.position_of(&first)), (0, 0));
    stage.client.ok("image_count s 1 10000");
    stage.end();
}

fn row_31_rejected_by_the_application(make: Make) {
    let (mut stage, mut source) = joined(make, &[QUICK_TIMER], "|gtag=77");
    let receiver = source.sm("a status message").receiver;
    source.peer.drain();
    stage.client.ok("reject s 0 does not please me");
    let mut count = 0;
    let all = source.peer.until("four error frames", |captured| {
        count += i32::from(captured.frame().kind() == ERR);
        count == 4
    });
    let errors: Vec<_> = all
        .iter()
        .filter(|captured| captured.frame().kind() == ERR)
        .collect();
    let wanted = frames::err(source.key, receiver, Some(77), "does not please me");
    for error in &errors {
        assert_eq!(error.bytes, wanted);
    }
    let time = errors[3].at - errors[0].at;
    assert!(time > 500_000_000, "three intervals in {time} ns");
    assert!(
        source
            .peer
            .during(500)
            .iter()
            .all(|captured| captured.frame().kind() == ERR)
    );
    stage.end();
}

fn row_34_dynamic_multi_destination_subscriber(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let control = Peer::new();
    let address = control.address();
    stage.subscribe(&format!(
        "aeron:udp?endpoint=127.0.0.1:0|control={address}|control-mode=dynamic"
    ));
    let mut source = Source::new(control, address);
    let mut asked = Vec::new();
    while asked.len() < 3 {
        asked.push(source.peer.expect("a status message", |_| true));
    }
    for captured in &asked {
        let sm = captured.frame().sm();
        assert_eq!((sm.flags, sm.window), (ASKS, 0));
        assert_eq!(
            sm.key,
            Key {
                session: 0,
                stream: 0
            }
        );
    }
    // The first two may be close to each other: one for being there, one for the first interest.
    let apart = asked[2].at - asked[1].at;
    assert!(apart > 900_000_000, "one interval in {apart} ns");
    source.to = asked[0].from;
    // Data may come from another address than control.
    let mut data = Source::new(Peer::new(), source.to);
    data.setup_flags = BIT_40;
    data.setup(0);
    let sm = source.sm("a status message at the control address");
    assert_eq!((sm.flags, source.position_of(&sm)), (0, 0));
    data.messages([0]);
    stage.client.ok("poll s 1 10000");
    // Asking goes on.
    source.peer.expect("it asks on", |frame| {
        frame.kind() == SM && frame.flags() == ASKS && frame.key().session == 0
    });
    assert_eq!(data.peer.drain().len(), 0);
    stage.end();
}

fn row_36_two_destinations_of_one_subscription(make: Make) {
    let mut stage = Stage::new(make, &[]);
    stage.subscribe("aeron:udp?control-mode=manual");
    for _ in 0..2 {
        stage
            .client
            .ok("destination s add aeron:udp?endpoint=127.0.0.1:0");
    }
    stage.await_value("number of receiving sockets", 2, |stage| {
        i64::try_from(stage.addresses("rcv").len()).expect("few")
    });
    let addresses = stage.addresses("rcv");
    let mut first = Source::new(Peer::new(), addresses[0]);
    let mut second = Source::new(Peer::new(), addresses[1]);
    first.join(0);
    second.setup(0);
    second.sm("a status message on the second way");
    for number in 0..20 {
        // Each way loses others, and both carry some.
        if number % 3 != 0 {
            first.messages([number]);
        }
        if number % 3 != 1 {
            second.messages([number]);
        }
    }
    let polled = Polled::parse(&stage.client.ok("poll s 20 10000"));
    assert_eq!((polled.messages, polled.position), (20, 20 * STRIDE));
    assert_eq!(stage.client.images("s").len(), 1);
    let one = first.sm("a status message on the first way");
    let other = second.sm("a status message on the second way");
    assert_eq!(one.receiver, other.receiver);
    assert!(stage.client.ok("poll s 0 0").starts_with("20 "));
    stage.end();
}

fn row_41_cubic_window(make: Make) {
    // The first status message is to leave before the window grows.
    let settings = [
        ("AERON_CUBICCONGESTIONCONTROL_MEASURERTT", "true"),
        ("AERON_CUBICCONGESTIONCONTROL_INITIALRTT", "50ms"),
    ];
    let mut stage = Stage::new(make, &settings);
    let most = 20 * 1408;
    let mut source = stage.subscribe_to_source(&format!("|cc=cubic|rcv-wnd={most}"));
    source.setup(0);
    let first = source.sm("the first status message");
    assert_eq!(first.window, 10 * 1408);
    source.heartbeat(0xC0, 0);
    let asked = source.peer.expect("a measurement", |frame| frame.kind() == RTTM);
    let frame = asked.frame();
    assert_eq!((frame.flags(), frame.key()), (ASKS, source.key));
    assert_eq!(frame.i64_at(32), first.receiver);
    source.send(&frames::rttm(0, source.key, frame.i64_at(16), frame.i64_at(32)));
    source.peer.expect("the next measurement", |next| {
        next.kind() == RTTM && next.i64_at(16) != asked.frame().i64_at(16)
    });
    stage.client.ok("image_count s 1 10000");
    let window = |source: &mut Source, wanted: &dyn Fn(i32) -> bool| loop {
        let window = source.sm("a window").window;
        assert_eq!(window % 1408, 0);
        assert!((1408..=most).contains(&window), "{window}");
        if wanted(window) {
            return;
        }
        source.heartbeat(0xC0, 0);
    };
    window(&mut source, &|window| window == most);
    source.messages([0, 2]);
    window(&mut source, &|window| window < most);
    source.messages([1]);
    stage.client.ok("poll s 3 10000");
    window(&mut source, &|window| window == most);
    stage.end();
}

fn row_42_answer_to_a_measurement(make: Make) {
    let (mut stage, mut source) = joined(make, &[], "");
    let receiver = source.sm("a status message").receiver;
    source.send(&frames::rttm(ASKS, source.key, 123, receiver ^ 1));
    source.send(&frames::rttm(ASKS, source.key, 456, 0));
    let answer = source.peer.expect("an answer", |frame| frame.kind() == RTTM);
    assert_eq!(answer.bytes, frames::rttm(0, source.key, 456, receiver));
    source.send(&frames::rttm(ASKS, source.key, 789, receiver));
    let answer = source.peer.expect("an answer", |frame| frame.kind() == RTTM);
    assert_eq!(answer.frame().i64_at(16), 789);
    assert_eq!(stage.client.images("s").len(), 1);
    stage.end();
}

fn row_43_unreliable(make: Make) {
    let (mut stage, mut source) = joined(make, &[], "|reliable=false");
    source.messages([0, 2]);
    stage.await_system(LOSS_GAP_FILLS, 1);
    let polled = stage.client.ask("poll s 2 10000");
    let error = polled.expect_err("a message is missing");
    assert!(error.contains("number 2 instead of 1"), "{error}");
    expect_no_naks(&mut source);
    assert_eq!(stage.client.images("s")[0].position, 3 * STRIDE);
    stage.end();
}

fn row_44_one_session_only(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let mut source = stage.subscribe_to_source("|session-id=4242");
    let mut other = Source::new(Peer::new(), source.to);
    other.key.session = 4243;
    other.setup(0);
    other.messages([0]);
    source.join(0);
    other.setup(0);
    source.messages([0]);
    stage.client.ok("poll s 1 10000");
    source.sm("a status message");
    assert_eq!(other.peer.drain().len(), 0);
    let images = stage.client.images("s");
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].session_id, 4242);
    stage.end();
}

fn row_46_term_ids_wrap_received(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let mut source = stage.subscribe_to_source("");
    source.line.initial_term = i32::MAX - 1;
    source.join(0);
    stage.client.ok("image_count s 1 10000");
    let count = 4 * 65_536 / STRIDE;
    for start in (0..count).step_by(128) {
        source.messages(start..start + 128);
        stage.client.ok("poll s 128 10000");
        // The window follows what was read.
        await_position(&mut source, (start + 64) * STRIDE);
    }
    assert_eq!(source.line.place(count * STRIDE).term, i32::MIN + 2);
    assert_eq!(stage.client.images("s")[0].position, count * STRIDE);
    stage.end();
}

fn row_50_answers_come_from_where_the_publisher_sent_to(make: Make) {
    let mut stage = Stage::new(make, &[]);
    // Left to itself, the system would answer from 127.0.0.1.
    let to = free_address();
    stage.subscribe(&format!("aeron:udp?endpoint={to}"));
    assert_eq!(stage.receive_address(), to);
    let mut source = Source::new(Peer::new(), to);
    source.setup(0);
    let sm = source.peer.expect("a status message", |_| true);
    assert_eq!(sm.from, to);
    stage.end();
}

fn row_51_mtu_above_the_window(make: Make) {
    let mut stage = Stage::new(make, &[]);
    let mut source = stage.subscribe_to_source("|rcv-wnd=4096");
    source.mtu = 8192;
    source.setup(0);
    stage.await_value("errors", 1, |stage| stage.client.system_counter(ERRORS).min(1));
    source.setup(0);
    // Another session with a fitting mtu is taken, and is the only one that is answered.
    let mut fitting = Source::new(Peer::new(), source.to);
    fitting.key.session = 1;
    assert_eq!(fitting.join(0).window, 4096);
    assert_eq!(source.peer.drain().len(), 0);
    stage.client.ok("image_count s 1 10000");
    stage.end();
}

on_both_drivers!(
    row_09_first_status_message,
    row_10_data_first,
    row_11_end_of_stream_first,
    row_12_idle_publisher,
    row_13_consumption,
    row_14_one_lost,
    row_15_last_one_lost,
    row_16_two_lost,
    row_17_loss_at_the_end_of_a_term,
    row_21_fragments_received,
    row_22_padding_received,
    row_23_several_frames_in_a_datagram,
    row_24_malformed_datagrams,
    row_25_beyond_the_window,
    row_26_old_and_repeated_data,
    row_28_publisher_closes,
    row_29_publisher_is_revoked,
    row_30_publisher_dies,
    row_31_rejected_by_the_application,
    row_34_dynamic_multi_destination_subscriber,
    row_36_two_destinations_of_one_subscription,
    row_41_cubic_window,
    row_42_answer_to_a_measurement,
    row_43_unreliable,
    row_44_one_session_only,
    row_46_term_ids_wrap_received,
    row_50_answers_come_from_where_the_publisher_sent_to,
    row_51_mtu_above_the_window,
);
