//! What strangers can make a driver do by announcing streams over a loopback socket.
#![expect(
    clippy::disallowed_types,
    reason = "the stranger of these tests has a socket of its own"
)]

mod loopback;

use std::net::UdpSocket;

use fulmar::id::{SessionId, StreamId, TermId};
use fulmar::wire::Setup;
use fulmar_media_driver::protocol::source_proof::UNPROVEN_IMAGES_MAX;
use loopback::{STREAM, client, driver, subscribe, until};

fn setup(session: i32) -> [u8; 40] {
    Setup {
        flags: 0,
        term_offset: 0,
        session_id: SessionId(session),
        stream_id: StreamId(STREAM),
        initial_term_id: TermId(0),
        active_term_id: TermId(0),
        term_length: 65536,
        mtu: 1408,
        ttl: 0,
    }
    .encode()
}

#[test]
fn no_more_images_are_made_than_the_setting_says() {
    let driver = driver(&[("fulmar.receiver.images.max", "3")]);
    let client = client(&driver);
    let (subscription, port) = subscribe(&client, "127.0.0.1", "");
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut rounds = 0;
    until("the images that may be are there", || {
        for session in 0..20 {
            stranger
                .send_to(&setup(2000 + session), ("127.0.0.1", port))
                .unwrap();
        }
        rounds += 1;
        assert!(subscription.image_count() <= 3);
        subscription.image_count() == 3 && rounds > 50
    });
    assert_eq!(subscription.image_count(), 3);
}

#[test]
fn real_publishers_join_beyond_the_images_that_need_no_proof() {
    let driver = driver(&[]);
    let client = client(&driver);
    let (subscription, port) = subscribe(&client, "127.0.0.1", "");
    let endpoint = format!("aeron:udp?endpoint=127.0.0.1:{port}");
    let count = UNPROVEN_IMAGES_MAX + 16;
    let mut publications = Vec::new();
    for number in 0..count {
        // Half of them with destinations.
        if number % 2 == 0 {
            publications.push(client.add_exclusive_publication(&endpoint, STREAM).unwrap());
        } else {
            let publication = client
                .add_exclusive_publication("aeron:udp?control-mode=manual", STREAM)
                .unwrap();
            publication.add_destination(&endpoint).unwrap();
            publications.push(publication);
        }
    }
    until("all have joined", || {
        subscription.image_count() == count
            && publications.iter().all(|publication| publication.is_connected())
    });
}
