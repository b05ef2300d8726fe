//! The mark that tshark's dissector puts on ERR frames: it is put on those of Aeron's C driver as well, since ours are
//! the same bytes. `network_dissector` of the media driver looks at all other frames.
//!
//! Without tshark only the bytes are compared; with `FULMAR_EXPECT_TSHARK=1` the test fails then.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::frames::{self, ERR};
use super::process::{Directory, Make};
use super::stage::{QUICK_TIMER, Stage};

/// What the dissector of tshark 4.0 takes the session id for is the length of a frame that follows: only this one is
/// the length of what does follow before the text.
const FITTING_SESSION: i32 = 28;

/// A capture of packets without a link layer: IPv4 and UDP around each datagram.
fn capture(datagrams: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    // Magic, version 2.4, offset, accuracy, longest packet, raw IP.
    for word in [0xA1B2_C3D4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(word.to_le_bytes());
    }
    for datagram in datagrams {
        let udp_length = u16::try_from(8 + datagram.len()).expect("short");
        let length = 20 + udp_length;
        for word in [0, 0, u32::from(length), u32::from(length)] {
            file.extend(word.to_le_bytes());
        }
        // Version and header length, total length, no fragment, 64 hops, UDP, no checksum, from and to.
        for half in [0x4500, length, 0, 0, 0x4011, 0, 0x7F00, 1, 0x7F00, 1] {
            file.extend(half.to_be_bytes());
        }
        for half in [40_000, 40_001, udp_length, 0] {
            file.extend(half.to_be_bytes());
        }
        file.extend(datagram);
    }
    file
}

/// For each packet: the protocols, the frame length of an ERR, its text, and whether there is a mark of any severity
/// above a note.
fn dissect(file: &Path) -> Option<Vec<(String, bool)>> {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(file);
    command.args([
        "-d",
        "udp.port==1-65535,aeron",
        "-T",
        "fields",
        "-E",
        "separator=|",
    ]);
    for field in ["aeron.err.frame_length", "aeron.err.string", "_ws.expert.message"] {
        command.args(["-e", field]);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            let is_expected = std::env::var("FULMAR_EXPECT_TSHARK").is_ok_and(|value| value == "1");
            assert!(!is_expected, "tshark does not start: {error}");
            println!("skipped: tshark is not installed");
            return None;
        }
    };
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().map(|line| {
        let (reading, mark) = line.rsplit_once('|').expect("three columns");
        (reading.to_owned(), !mark.is_empty())
    });
    Some(lines.collect())
}

/// The ERR that a driver sends for an image of this session.
fn error_frame(make: Make, session: i32, group_tag: Option<i64>) -> Vec<u8> {
    let mut stage = Stage::new(make, &[QUICK_TIMER]);
    let params = group_tag.map_or(String::new(), |tag| format!("|gtag={tag}"));
    let mut source = stage.subscribe_to_source(&params);
    source.key.session = session;
    let receiver = source.join(0).receiver;
    stage.client.ok("image_count s 1 10000");
    stage.client.ok("reject s 0 not today");
    let captured = source.peer.expect("an error frame", |frame| frame.kind() == ERR);
    assert_eq!(
        captured.bytes,
        frames::err(source.key, receiver, group_tag, "not today")
    );
    stage.end();
    captured.bytes
}

#[test]
fn error_frames_of_both_drivers_are_marked_alike() {
    let mut datagrams = Vec::new();
    let mut expected = Vec::new();
    for make in [Make::C, Make::Fulmar] {
        for group_tag in [None, Some(77)] {
            for (session, reading, is_marked) in [
                (FITTING_SESSION, "49|not today", false),
                (-1_395_026_950, "49|", true),
            ] {
                datagrams.push(error_frame(make, session, group_tag));
                expected.push((reading.to_owned(), is_marked));
            }
        }
    }
    // Every driver has a receiver id of its own; nothing else differs.
    let (of_c, of_ours) = datagrams.split_at(4);
    for (c, ours) in of_c.iter().zip(of_ours) {
        assert_eq!((&c[..16], &c[24..]), (&ours[..16], &ours[24..]));
    }
    let dir = Directory::new();
    fs::create_dir_all(dir.path()).expect("nobody has it");
    let file = dir.file("errors.pcap");
    fs::write(&file, capture(&datagrams)).expect("room");
    if let Some(read) = dissect(&file) {
        assert_eq!(read, expected);
    }
}
