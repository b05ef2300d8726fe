//! Streams over networks that lose datagrams, by the settings that users have for it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod loopback;

use fulmar::cnc::CncFile;
use fulmar::counters::SystemCounter;
use fulmar::directory::{Directory, FsDirectory};
use fulmar::id::CounterId;
use fulmar_media_driver::{DriverSettings, LaunchError, MediaDriver};
use loopback::{STREAM, client, driver, stream, subscribe};

fn counter(driver: &MediaDriver, counter: SystemCounter) -> i64 {
    let region = FsDirectory::new(driver.dir()).map_cnc().unwrap();
    let cnc = CncFile::open(&region).unwrap();
    cnc.counters().value(CounterId(counter.id())).unwrap()
}

/// Sends over two drivers with these settings; the answer is (retransmits, NAKs) as the drivers count them.
fn stream_with(settings: &[(&str, &str)], channel_params: &str) -> (i64, i64) {
    let (near, far) = (driver(settings), driver(settings));
    let (publisher, subscriber) = (client(&near), client(&far));
    let (mut subscription, port) = subscribe(&subscriber, "127.0.0.1", "");
    let channel = format!("aeron:udp?endpoint=127.0.0.1:{port}{channel_params}");
    let mut publication = publisher.add_publication(&channel, STREAM).unwrap();
    stream(&mut publication, &mut [&mut subscription], 600);
    (
        counter(&near, SystemCounter::RetransmitsSent),
        counter(&far, SystemCounter::NakMessagesSent),
    )
}

#[test]
fn random_loss_in_both_directions_costs_no_message() {
    let (retransmits, naks) = stream_with(
        &[
            ("aeron.udp.channel.incoming.interceptors", "loss"),
            ("aeron.udp.channel.outgoing.interceptors", "loss"),
            (
                "aeron.udp.channel.transport.bindings.loss.args",
                "rate=0.05|seed=77|recv-msg-mask=0xFFFF",
            ),
        ],
        "",
    );
    assert!(retransmits > 0, "something was lost");
    assert!(naks > 0, "and asked for again");
}

#[test]
fn fixed_and_repeated_gaps_cost_no_message() {
    for (interceptor, key, args) in [
        (
            "fixed-loss",
            "aeron.udp.channel.transport.bindings.fixed.loss.args",
            "term-id=7|term-offset=2048|length=4096",
        ),
        (
            "multi-gap-loss",
            "aeron.udp.channel.transport.bindings.multi.gap.loss.args",
            "term-id=7|gap-radix=8192|gap-length=64|total-gaps=5",
        ),
    ] {
        let (retransmits, naks) = stream_with(
            &[
                ("aeron.udp.channel.incoming.interceptors", interceptor),
                (key, args),
            ],
            "|init-term-id=7|term-id=7|term-offset=0|term-length=64k",
        );
        assert!(retransmits > 0, "{interceptor}");
        assert!(naks > 0, "{interceptor}");
    }
}

#[test]
fn a_capture_holds_what_went_over_the_wire() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("driver.pcap");
    {
        let driver = driver(&[("fulmar.capture", path.to_str().unwrap())]);
        let client = client(&driver);
        let (mut subscription, port) = subscribe(&client, "127.0.0.1", "");
        let channel = format!("aeron:udp?endpoint=127.0.0.1:{port}");
        let mut publication = client.add_publication(&channel, STREAM).unwrap();
        stream(&mut publication, &mut [&mut subscription], 20);
    }
    let file = std::fs::read(&path).unwrap();
    // Behind the header of the file and that of the packet: IP, UDP, then the frame, whose type is at 6.
    let (mut at, mut types) = (24, std::collections::BTreeSet::new());
    while at < file.len() {
        let length = u32::from_le_bytes(file[at + 8..at + 12].try_into().unwrap()) as usize;
        let packet = &file[at + 16..at + 16 + length];
        types.insert(packet[20 + 8 + 6]);
        at += 16 + length;
    }
    // DATA, SM and SETUP.
    assert!(types.is_superset(&[1, 3, 5].into()), "{types:?}");
}

#[test]
fn a_driver_does_not_start_with_interceptors_that_are_set_wrongly() {
    let launch = |key: &str, value: &str| {
        let home = tempfile::tempdir().unwrap();
        let mut settings = DriverSettings::defaults();
        settings
            .set("aeron.dir", home.path().join("driver").to_str().unwrap())
            .unwrap();
        settings.set(key, value).unwrap();
        MediaDriver::launch(settings.conclude().unwrap()).err().unwrap()
    };
    let error = launch("aeron.udp.channel.incoming.interceptors", "los");
    assert!(matches!(error, LaunchError::Interceptors(_)), "{error}");
    let error = launch("fulmar.capture", "/nowhere/at/all.pcap");
    assert!(matches!(error, LaunchError::Capture { .. }), "{error}");
}
