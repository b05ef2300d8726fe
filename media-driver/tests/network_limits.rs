//! What strangers can make a driver do by announcing streams over a loopback socket.
#![expect(
    clippy::disallowed_types,
    reason = "the stranger of these tests has a socket of its own"
)]

mod loopback;

use std::net::UdpSocket;

use fulmar::id::{SessionId, StreamId, TermId};
use fulmar::wire::Setup;
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
