//! Unicast streams over real loopback sockets, in every threading mode.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod loopback;

use loopback::{STREAM, client, driver, stream, subscribe, until};

const MODES: [&str; 3] = ["DEDICATED", "SHARED_NETWORK", "SHARED"];

/// Where the system has no `io_uring`, the second is the first once more.
const BACKENDS: [&str; 2] = ["mmsg", "uring"];

/// Every mode with every backend.
fn settings() -> impl Iterator<Item = [(&'static str, &'static str); 2]> {
    let of_mode = |mode| BACKENDS.map(|io| [("aeron.threading.mode", mode), ("fulmar.io", io)]);
    MODES.into_iter().flat_map(of_mode)
}

#[test]
fn two_clients_of_one_driver_talk_over_udp() {
    for settings in settings() {
        let driver = driver(&settings);
        let (publisher, subscriber) = (client(&driver), client(&driver));
        let (mut subscription, port) = subscribe(&subscriber, "127.0.0.1", "");
        let channel = format!("aeron:udp?endpoint=127.0.0.1:{port}");
        let mut publication = publisher.add_publication(&channel, STREAM).unwrap();
        until("they are connected", || {
            publication.is_connected() && subscription.is_connected()
        });
        // Several terms.
        stream(&mut publication, &mut [&mut subscription], 400);
        assert!(publication.position().unwrap() > 3 * 65536, "{settings:?}");
    }
}

#[test]
fn clients_of_two_drivers_talk_over_udp() {
    for settings in settings() {
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

#[test]
fn an_address_is_free_soon_after_its_subscription_was_closed() {
    for settings in settings() {
        let driver = driver(&settings);
        let client = client(&driver);
        let (mut subscription, port) = subscribe(&client, "127.0.0.1", "");
        let channel = format!("aeron:udp?endpoint=127.0.0.1:{port}");
        for _ in 0..5 {
            let mut publication = client.add_publication(&channel, STREAM).unwrap();
            stream(&mut publication, &mut [&mut subscription], 20);
            publication.close();
            subscription.close();
            // The receiver hands the socket to the conductor, which closes it.
            let mut again = None;
            until("the address is free", || {
                again = client.add_subscription(&channel, STREAM).ok();
                again.is_some()
            });
            subscription = again.unwrap();
        }
    }
}
