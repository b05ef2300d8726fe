//! Unicast streams over real loopback sockets, in every threading mode.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod loopback;

use loopback::{STREAM, client, driver, stream, subscribe, until};

const MODES: [&str; 3] = ["DEDICATED", "SHARED_NETWORK", "SHARED"];

#[test]
fn two_clients_of_one_driver_talk_over_udp() {
    for mode in MODES {
        let driver = driver(&[("aeron.threading.mode", mode)]);
        let (publisher, subscriber) = (client(&driver), client(&driver));
        let (mut subscription, port) = subscribe(&subscriber, "127.0.0.1", "");
        let channel = format!("aeron:udp?endpoint=127.0.0.1:{port}");
        let mut publication = publisher.add_publication(&channel, STREAM).unwrap();
        until("they are connected", || {
            publication.is_connected() && subscription.is_connected()
        });
        // Several terms.
        stream(&mut publication, &mut [&mut subscription], 400);
        assert!(publication.position().unwrap() > 3 * 65536, "{mode}");
    }
}

#[test]
fn clients_of_two_drivers_talk_over_udp() {
    for mode in MODES {
        let settings = [("aeron.threading.mode", mode)];
        let (near, far) = (driver(&settings), driver(&settings));
        let (publisher, subscriber) = (client(&near), client(&far));
        let (mut subscription, port) = subscribe(&subscriber, "127.0.0.1", "");
        let channel = format!("aeron:udp?endpoint=127.0.0.1:{port}");
        let mut publication = publisher.add_exclusive_publication(&channel, STREAM).unwrap();
        stream(&mut publication, &mut [&mut subscription], 400);
        let source = subscription.images()[0].source_identity().to_owned();
        assert_eq!(publication.local_addresses(), [source]);
        // The end of the stream is told and found.
        publication.close();
        until("the image is gone", || subscription.has_no_images());
    }
}
