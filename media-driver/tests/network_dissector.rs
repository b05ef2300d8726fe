//! What a dissector that others wrote (tshark's, for Aeron) says of our traffic: a capture that holds every kind of
//! frame, read back packet by packet.
//!
//! Without tshark the test says that it is skipped; with `FULMAR_EXPECT_TSHARK=1` it fails then.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_types,
    reason = "helpers of tests fail by panicking, and a port is kept by a socket that nobody reads"
)]

mod loopback;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;

use fulmar::bits::align;
use fulmar::wire::StatusMessage;
use fulmar::wire::data::{DataHeader, is_eos, is_heartbeat, is_revoked};
use fulmar::wire::resolution::EntryIter;
use fulmar::wire::{ErrorFrame, FrameKind, Rttm, classify};
use loopback::{STREAM, client, driver, exchange, stream, subscribe, until};

/// What the dissector makes of a kind of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// A frame of its own, under this field.
    As(&'static str),
    /// Its type is newer than the dissector, which leaves the datagram alone: a payload of unknown protocol.
    Unknown,
    /// Its layout is newer than the dissector, which takes the session id for the length of an offending frame that
    /// follows. So it says "malformed" wherever the session id is more than the bytes that are left, whoever sent it: the
    /// suite `wire` shows the same mark on the frames of Aeron's C driver. It is the only mark in the capture.
    OldLayout(&'static str),
}

use Reading::{As, OldLayout, Unknown};

/// Every kind of frame that we send, and what tshark 4.0 makes of it.
const KINDS: [(&str, Reading); 20] = [
    ("DATA", As("data")),
    ("PAD", As("pad")),
    ("heartbeat", As("heartbeat")),
    // With one more flag the dissector calls it a data frame without data.
    ("heartbeat, end of stream", As("data")),
    ("heartbeat, revoked", As("data")),
    ("SETUP", As("setup")),
    ("SM", As("sm")),
    ("SM that asks for SETUP", As("sm")),
    ("SM, end of stream", As("sm")),
    ("SM with group tag", As("sm")),
    ("NAK", As("nak")),
    ("RTTM request", As("rtt")),
    ("RTTM answer", As("rtt")),
    ("ERR, session id that fits", As("err")),
    ("ERR with group tag, session id that fits", As("err")),
    ("ERR", OldLayout("err")),
    ("ERR with group tag", OldLayout("err")),
    ("RSP_SETUP", Unknown),
    ("RES, IPv4", Unknown),
    ("RES, IPv6", Unknown),
];

/// Fields of the dissector, one for each layout that it knows.
const FIELDS: [&str; 8] = ["data", "pad", "heartbeat", "setup", "sm", "nak", "rtt", "err"];

/// The one session id with which the dissector finds what is there, see [`OldLayout`]: the 28 bytes between it and the
/// text of an ERR are the offending frame then.
const FITTING_SESSION: i32 = 28;
const OTHER_SESSION: i32 = -1_395_026_950;

/// Why the far end rejects streams.
const REASON: &str = "not today";

/// The ERR of Aeron's C driver (which the suite `wire` gets from it) for receiver 7, with group tag 77 and without, for
/// session 5 of [`STREAM`]. Our frames differ from it in session and receiver only.
const ERRORS_OF_C: [&str; 2] = [
    "310000000008040005000000e903000007000000000000004d000000000000000d000000090000006e6f7420746f646179",
    "310000000000040005000000e90300000700000000000000ffffffffffffffff0d000000090000006e6f7420746f646179",
];

/// One frame of a datagram: its kind and the length in its header.
struct Frame {
    kind: &'static str,
    length: u32,
}

/// The datagrams of a capture file as far as it is written.
fn datagrams(capture: &Path) -> Vec<Vec<Frame>> {
    let file = std::fs::read(capture).unwrap();
    let (mut rest, mut datagrams) = (file.get(24..).unwrap_or_default(), Vec::new());
    while let Some((header, after)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        let Some((packet, after)) = after.split_at_checked(length) else {
            break;
        };
        let ip_header = if packet[0] >> 4 == 4 { 20 } else { 40 };
        datagrams.push(frames(&packet[ip_header + 8..]));
        rest = after;
    }
    datagrams
}

fn frames(datagram: &[u8]) -> Vec<Frame> {
    let kind = match classify(datagram).unwrap() {
        FrameKind::Data if is_revoked(datagram) => "heartbeat, revoked",
        FrameKind::Data if is_eos(datagram) => "heartbeat, end of stream",
        FrameKind::Data if is_heartbeat(datagram) => "heartbeat",
        FrameKind::Data => return data_frames(datagram),
        FrameKind::Setup => "SETUP",
        FrameKind::Nak => "NAK",
        FrameKind::StatusMessage => match StatusMessage::parse(datagram).unwrap() {
            message if message.is_eos() => "SM, end of stream",
            message if message.is_send_setup() => "SM that asks for SETUP",
            message if message.group_tag.is_some() => "SM with group tag",
            _ => "SM",
        },
        FrameKind::Rttm if Rttm::parse(datagram).unwrap().is_request() => "RTTM request",
        FrameKind::Rttm => "RTTM answer",
        FrameKind::Error => {
            let error = ErrorFrame::parse(datagram).unwrap();
            assert_is_laid_out_as_c_does(datagram, &error);
            match (error.group_tag, error.session_id.0) {
                (None, FITTING_SESSION) => "ERR, session id that fits",
                (Some(_), FITTING_SESSION) => "ERR with group tag, session id that fits",
                (None, _) => "ERR",
                (Some(_), _) => "ERR with group tag",
            }
        }
        FrameKind::ResponseSetup => "RSP_SETUP",
        FrameKind::Resolution => {
            let mut entries = EntryIter::parse(datagram).unwrap();
            match entries.next().unwrap().unwrap().address {
                IpAddr::V4(_) => "RES, IPv4",
                IpAddr::V6(_) => "RES, IPv6",
            }
        }
    };
    let length = u32::from_le_bytes(datagram[..4].try_into().unwrap());
    vec![Frame { kind, length }]
}

fn assert_is_laid_out_as_c_does(datagram: &[u8], error: &ErrorFrame) {
    let [tagged, plain] = ERRORS_OF_C;
    let golden = if error.group_tag.is_some() { tagged } else { plain };
    let mut expected: Vec<u8> = (0..golden.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&golden[at..at + 2], 16).unwrap())
        .collect();
    expected[8..12].copy_from_slice(&error.session_id.0.to_le_bytes());
    expected[16..24].copy_from_slice(&datagram[16..24]);
    assert_eq!(datagram, expected);
}

fn data_frames(mut datagram: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(header) = DataHeader::parse(datagram) {
        let length = u32::try_from(header.frame_length).unwrap();
        // Of padding only the header travels, at the end of a datagram.
        let kind = if header.is_padding() { "PAD" } else { "DATA" };
        frames.push(Frame { kind, length });
        datagram = datagram.get(align(length as usize, 32)..).unwrap_or_default();
    }
    frames
}

/// A loopback address whose port nobody else is given while the socket lives.
fn kept_address(last: u8) -> (SocketAddr, UdpSocket) {
    let guard = UdpSocket::bind("127.0.0.1:0").unwrap();
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 64 | (high & 63), low, last);
    ((address, guard.local_addr().unwrap().port()).into(), guard)
}

/// Makes two drivers send each other frames of every kind; what one of them sends and gets is recorded.
fn record(capture: &Path) {
    let ((near_resolver, _near_port), (far_resolver, _far_port)) = (kept_address(2), kept_address(3));
    let (near_resolver, far_resolver) = (near_resolver.to_string(), far_resolver.to_string());
    let near = driver(&[
        ("fulmar.capture", capture.to_str().unwrap()),
        ("aeron.name.resolver.supplier", "driver"),
        ("aeron.driver.resolver.name", "near"),
        ("aeron.driver.resolver.interface", &near_resolver),
        ("aeron.driver.resolver.bootstrap.neighbor", &far_resolver),
    ]);
    let far = driver(&[
        ("aeron.name.resolver.supplier", "driver"),
        ("aeron.driver.resolver.name", "far"),
        ("aeron.driver.resolver.interface", &far_resolver),
        ("aeron.cubiccongestioncontrol.measurertt", "true"),
        ("aeron.udp.channel.incoming.interceptors", "fixed-loss"),
        (
            "aeron.udp.channel.transport.bindings.fixed.loss.args",
            "term-id=7|term-offset=2048|length=4096",
        ),
    ]);
    let (here, there) = (client(&near), client(&far));

    // Several terms, with a gap in the first; round trips are measured. It ends in the usual way.
    let (mut subscription, port) = subscribe(&there, "127.0.0.1", "|cc=cubic");
    let channel = format!(
        "aeron:udp?endpoint=127.0.0.1:{port}|init-term-id=7|term-id=7|term-offset=0|term-length=64k|linger=0"
    );
    let mut publication = here.add_exclusive_publication(&channel, STREAM).unwrap();
    stream(&mut publication, &mut [&mut subscription], 200);
    publication.close();
    until("the stream has ended", || subscription.has_no_images());

    // Receivers with a group tag and without, IPv4 and IPv6, which reject the stream.
    for (host, params, session) in [
        ("127.0.0.1", "|gtag=77", OTHER_SESSION),
        ("[::1]", "", OTHER_SESSION),
        ("127.0.0.1", "|gtag=77", FITTING_SESSION),
        ("[::1]", "", FITTING_SESSION),
    ] {
        let (mut subscription, port) = subscribe(&there, host, params);
        let channel = format!("aeron:udp?endpoint={host}:{port}|session-id={session}");
        let mut publication = here.add_exclusive_publication(&channel, STREAM).unwrap();
        stream(&mut publication, &mut [&mut subscription], 10);
        subscription.images()[0].reject(REASON).unwrap();
        until("it is not connected any more", || !publication.is_connected());
    }

    // Requests and responses; the subscription to responses asks for its stream. The request is revoked in the end.
    let mut exchange = exchange(&here, &there);
    stream(&mut exchange.request, &mut [&mut exchange.requests], 20);
    stream(&mut exchange.response, &mut [&mut exchange.responses], 20);
    exchange.request.revoke();
    until("the request is gone", || exchange.requests.has_no_images());

    // What is sent by timer comes when it comes.
    until("every kind of frame was recorded", || {
        let seen: BTreeSet<_> = kinds(&datagrams(capture)).collect();
        KINDS
            .iter()
            .all(|(kind, _)| seen.contains(kind) || *kind == "RES, IPv6")
    });
}

/// A driver that resolves names over IPv6 tells a neighbour its name.
fn record_name_over_ipv6(capture: &Path) {
    let neighbor = UdpSocket::bind("[::1]:0").unwrap();
    let _driver = driver(&[
        ("fulmar.capture", capture.to_str().unwrap()),
        ("aeron.name.resolver.supplier", "driver"),
        ("aeron.driver.resolver.name", "near"),
        ("aeron.driver.resolver.interface", "[::1]:0"),
        (
            "aeron.driver.resolver.bootstrap.neighbor",
            &neighbor.local_addr().unwrap().to_string(),
        ),
    ]);
    until("an IPv6 address was recorded", || {
        kinds(&datagrams(capture)).any(|kind| kind == "RES, IPv6")
    });
}

fn kinds(datagrams: &[Vec<Frame>]) -> impl Iterator<Item = &'static str> {
    datagrams.iter().flatten().map(|frame| frame.kind)
}

/// What the dissector says of one packet.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    /// Lengths of frames by the field the dissector has for them, in the order of the packet.
    frames: BTreeMap<&'static str, Vec<u32>>,
    is_malformed: bool,
}

impl Verdict {
    fn expected(datagram: &[Frame]) -> Self {
        let mut verdict = Self {
            frames: BTreeMap::new(),
            is_malformed: false,
        };
        for frame in datagram {
            let (_, reading) = KINDS.iter().find(|(kind, _)| *kind == frame.kind).unwrap();
            if let As(field) | OldLayout(field) = *reading {
                verdict.frames.entry(field).or_default().push(frame.length);
            }
            verdict.is_malformed |= matches!(reading, OldLayout(_));
        }
        verdict
    }

    /// Reads the columns that [`dissect`] asks for.
    fn parse(line: &str) -> Self {
        let mut columns = line.split('|');
        let protocols = columns.next().unwrap();
        let malformed = columns.next().unwrap();
        // Severities up to "note" (0x40_0000) are remarks on the traffic: that this is a NAK.
        let severities = columns.next().unwrap().split(',');
        let is_error = severities
            .filter_map(|word| word.parse().ok())
            .any(|it: u32| it > 0x40_0000);
        let frames: BTreeMap<_, Vec<u32>> = FIELDS
            .into_iter()
            .zip(columns)
            .filter(|(_, lengths)| !lengths.is_empty())
            .map(|(field, lengths)| (field, lengths.split(',').map(|it| it.parse().unwrap()).collect()))
            .collect();
        // Either the dissector at work is Aeron's, or nobody knows the payload.
        let words: Vec<_> = protocols.split(':').collect();
        assert_eq!(words.contains(&"aeron"), !frames.is_empty(), "{line}");
        assert!(
            words[2..]
                .iter()
                .all(|word| ["udp", "aeron", "data"].contains(word)),
            "{line}"
        );
        Self {
            frames,
            is_malformed: !malformed.is_empty() || is_error,
        }
    }
}

/// The dissector, with the settings it comes with.
fn tshark(home: &Path) -> Command {
    let mut command = Command::new("tshark");
    command.env("WIRESHARK_CONFIG_DIR", home);
    command
}

/// Has a capture dissected: one line for each packet.
fn dissect(home: &Path, capture: &Path) -> String {
    let mut command = tshark(home);
    command.arg("-n").arg("-r").arg(capture);
    // Whoever the driver talks to, it speaks one protocol. Checksums are looked at.
    command.args(["-d", "udp.port==1-65535,aeron"]);
    command.args(["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]);
    command.args(["-T", "fields", "-E", "separator=|", "-E", "aggregator=,"]);
    command.args([
        "-e",
        "frame.protocols",
        "-e",
        "_ws.malformed",
        "-e",
        "_ws.expert.severity",
    ]);
    for field in FIELDS {
        command.arg("-e").arg(format!("aeron.{field}.frame_length"));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_dissector_reads_every_kind_of_frame() {
    let home = tempfile::tempdir().unwrap();
    let version = match tshark(home.path()).arg("--version").output() {
        Ok(output) => String::from_utf8(output.stdout).unwrap(),
        Err(error) => {
            let is_expected = std::env::var("FULMAR_EXPECT_TSHARK").is_ok_and(|value| value == "1");
            assert!(!is_expected, "tshark does not start: {error}");
            println!("skipped: tshark is not installed");
            return;
        }
    };
    let version = version.lines().next().unwrap_or_default();
    let captures = ["driver.pcap", "names.pcap"].map(|name| home.path().join(name));
    record(&captures[0]);
    record_name_over_ipv6(&captures[1]);
    let mut sent = Vec::new();
    for capture in &captures {
        let recorded = datagrams(capture);
        let lines = dissect(home.path(), capture);
        assert_eq!(lines.lines().count(), recorded.len());
        for (datagram, line) in recorded.iter().zip(lines.lines()) {
            let kinds: Vec<_> = datagram.iter().map(|frame| frame.kind).collect();
            assert_eq!(
                Verdict::parse(line),
                Verdict::expected(datagram),
                "{version} reads {kinds:?} otherwise than the table says: {line}"
            );
        }
        sent.extend(recorded);
    }
    println!("{version} on {} datagrams:", sent.len());
    for (kind, reading) in KINDS {
        let count = kinds(&sent).filter(|it| *it == kind).count();
        assert_ne!(count, 0, "no {kind} was sent");
        println!("{count:5} {kind}: {reading:?}");
    }
}
