//! The golden frames that fuzzing starts from are what their names say, and survive a journey through the codecs.
#![cfg(not(loom))]

use std::fs;
use std::path::Path;

use fulmar::wire::{FrameKind, classify, dissect, validate_data_packet};

/// Name of the file, and how its description begins.
const FRAMES: [(&str, FrameKind, &str); 18] = [
    (
        "data_fragment",
        FrameKind::Data,
        "DATA session=1234 stream=1001 term=-3 offset=0 length=1408 flags=0x80",
    ),
    (
        "data_then_padding",
        FrameKind::Data,
        "DATA session=1234 stream=1001 term=-3 offset=3968 length=40 flags=0xc0, PAD offset=4032 length=64",
    ),
    (
        "data_three_frames",
        FrameKind::Data,
        "DATA session=1234 stream=1001 term=-3 offset=64 length=37 flags=0xc0, DATA offset=128 length=32",
    ),
    (
        "error",
        FrameKind::Error,
        "ERR session=5 stream=1001 receiver=7 code=13 tag=77 text=\"no thanks\"",
    ),
    (
        "heartbeat",
        FrameKind::Data,
        "HEARTBEAT session=1234 stream=1001 term=-3 offset=320 length=0 flags=0xc0",
    ),
    (
        "heartbeat_eos",
        FrameKind::Data,
        "HEARTBEAT session=1234 stream=1001 term=-3 offset=320 length=0 flags=0xe0",
    ),
    (
        "heartbeat_revoked",
        FrameKind::Data,
        "HEARTBEAT session=1234 stream=1001 term=-3 offset=320 length=0 flags=0xf0",
    ),
    (
        "nak",
        FrameKind::Nak,
        "NAK session=55 stream=1001 term=10 offset=64 length=64",
    ),
    (
        "padding",
        FrameKind::Data,
        "PAD session=5 stream=1001 term=0 offset=65472 length=64 flags=0xc0",
    ),
    (
        "resolution",
        FrameKind::Resolution,
        "RES self \"nodeA\" 127.0.0.1 port=24502 age=0ms",
    ),
    (
        "resolution_gossip",
        FrameKind::Resolution,
        "RES \"nodeB\" ::1 port=24502 age=1500ms, \"c\" 10.0.0.1 port=24503 age=20ms",
    ),
    (
        "response_setup",
        FrameKind::ResponseSetup,
        "RSP_SETUP session=77 stream=10001 response-session=4242",
    ),
    (
        "rttm_answer",
        FrameKind::Rttm,
        "RTTM answer session=1234 stream=1001 echo=99 delta=0 receiver=7",
    ),
    (
        "rttm_request",
        FrameKind::Rttm,
        "RTTM request session=1234 stream=1001 echo=99 delta=0 receiver=7",
    ),
    (
        "setup",
        FrameKind::Setup,
        "SETUP flags=0x00 session=1234 stream=1001 initial=-5 active=-3 offset=64 term-length=65536 mtu=1408 ttl=0",
    ),
    (
        "status_message",
        FrameKind::StatusMessage,
        "SM flags=0x00 session=55 stream=1001 term=10 offset=0 window=32768 receiver=582384152308513519 tag=77",
    ),
    (
        "status_message_eliciting",
        FrameKind::StatusMessage,
        "SM flags=0x80 session=55 stream=1001 term=0 offset=0 window=0 receiver=582384152308513519 tag=77",
    ),
    (
        "status_message_untagged",
        FrameKind::StatusMessage,
        "SM flags=0x40 session=55 stream=1001 term=10 offset=64 window=32768 receiver=7",
    ),
];

#[test]
fn every_seed_is_the_frame_that_it_is_named_after() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/wire");
    let mut names: Vec<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    let expected: Vec<&str> = FRAMES.iter().map(|frame| frame.0).collect();
    assert_eq!(names, expected);
    for (name, kind, description) in FRAMES {
        let bytes = fs::read(directory.join(name).with_extension("bin")).unwrap();
        assert_eq!(classify(&bytes), Ok(kind), "{name}");
        let line = dissect::line(&bytes);
        assert!(line.starts_with(description), "{name}: {line}");
        if kind == FrameKind::Data {
            assert!(validate_data_packet(&bytes, 65536).is_ok(), "{name}");
        }
    }
}
