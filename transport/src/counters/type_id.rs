//! Type ids of counters and the layouts of their keys (shared-memory spec 5.6). Ids of applications start at
//! [`USER_MIN`]; what lies between is reserved for other products of the protocol's family.
#![forbid(unsafe_code)]

use super::layout::{KEY_LENGTH, Key};
use crate::id::{ClientId, CounterId, RegistrationId, SessionId, StreamId};

/// System counters, see [`super::SystemCounter`].
pub const SYSTEM: i32 = 0;
/// Position limit of a publication.
pub const PUBLISHER_LIMIT: i32 = 1;
/// Position up to which the sender has sent.
pub const SENDER_POSITION: i32 = 2;
/// Highest position that the receiver has seen.
pub const RECEIVER_HIGH_WATER_MARK: i32 = 3;
/// Position up to which a subscription has consumed.
pub const SUBSCRIBER_POSITION: i32 = 4;
/// Position up to which the receiver has everything.
pub const RECEIVER_POSITION: i32 = 5;
/// Status of a send channel endpoint.
pub const SEND_CHANNEL_STATUS: i32 = 6;
/// Status of a receive channel endpoint.
pub const RECEIVE_CHANNEL_STATUS: i32 = 7;
/// Flow-control limit of the sender.
pub const SENDER_LIMIT: i32 = 9;
/// What congestion control shows per image.
pub const PER_IMAGE: i32 = 10;
/// When a client was last alive.
pub const CLIENT_HEARTBEAT: i32 = 11;
/// Producer position of a publication, sampled by the driver.
pub const PUBLISHER_POSITION: i32 = 12;
/// Times the sender was held back by flow control.
pub const SENDER_BACK_PRESSURE: i32 = 13;
/// Local address of a channel endpoint.
pub const LOCAL_SOCKET_ADDRESS: i32 = 14;
/// Neighbours of the name resolver.
pub const RESOLVER_NEIGHBORS: i32 = 15;
/// Entries in the cache of the name resolver.
pub const RESOLVER_CACHE: i32 = 16;
/// Receivers that min or tagged flow control knows.
pub const FLOW_CONTROL_RECEIVERS: i32 = 17;
/// Destinations of a multi-destination publication.
pub const MDC_DESTINATIONS: i32 = 18;
/// NAKs received for a publication.
pub const SENDER_NAKS_RECEIVED: i32 = 19;
/// NAKs sent for an image.
pub const RECEIVER_NAKS_SENT: i32 = 20;
/// A bootstrap neighbour of the name resolver.
pub const RESOLVER_BOOTSTRAP_NEIGHBOR: i32 = 21;
/// The least id for applications.
pub const USER_MIN: i32 = 1000;

/// Most bytes of a channel in a stream key.
pub const STREAM_CHANNEL_MAX: usize = KEY_LENGTH - STREAM_CHANNEL_OFFSET;
/// Most bytes of a channel in a channel key.
pub const CHANNEL_MAX: usize = KEY_LENGTH - 4;
/// Most bytes of an address in a local socket address key, which keeps a NUL behind it.
pub const ADDRESS_MAX: usize = KEY_LENGTH - ADDRESS_OFFSET - 1;

const STREAM_CHANNEL_OFFSET: usize = 20;
const ADDRESS_OFFSET: usize = 8;
const _: () = assert!(STREAM_CHANNEL_MAX == 92 && CHANNEL_MAX == 108 && ADDRESS_MAX == 103);

/// Key of a counter of one stream (types 1 to 5, 9, 10, 12, 13, 17, 19, 20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamKey {
    /// Publication, subscription or image.
    pub registration_id: RegistrationId,
    /// Session of the stream.
    pub session_id: SessionId,
    /// Id of the stream.
    pub stream_id: StreamId,
    /// Channel as it was given, cut to [`STREAM_CHANNEL_MAX`] bytes.
    pub channel: String,
}

/// Key of a local address (type 14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAddressKey {
    /// The channel status counter that the address belongs to.
    pub channel_status_id: CounterId,
    /// `address:port`.
    pub address: String,
}

/// Key of a system counter.
#[must_use]
pub fn system_key(id: i32) -> Key {
    let mut key = [0; KEY_LENGTH];
    put(&mut key, 0, &id.to_le_bytes());
    key
}

/// Key of a counter of one stream; the channel is cut to [`STREAM_CHANNEL_MAX`] bytes.
#[must_use]
pub fn stream_key(
    registration_id: RegistrationId,
    session_id: SessionId,
    stream_id: StreamId,
    channel: &str,
) -> Key {
    let mut key = [0; KEY_LENGTH];
    put(&mut key, 0, &registration_id.0.to_le_bytes());
    put(&mut key, 8, &session_id.0.to_le_bytes());
    put(&mut key, 12, &stream_id.0.to_le_bytes());
    put_text(&mut key, 16, channel, STREAM_CHANNEL_MAX);
    key
}

/// Key of a channel endpoint (types 6, 7, 18); the channel is cut to [`CHANNEL_MAX`] bytes.
#[must_use]
pub fn channel_key(channel: &str) -> Key {
    let mut key = [0; KEY_LENGTH];
    put_text(&mut key, 0, channel, CHANNEL_MAX);
    key
}

/// Key of a client's heartbeat.
#[must_use]
pub fn heartbeat_key(client_id: ClientId) -> Key {
    let mut key = [0; KEY_LENGTH];
    put(&mut key, 0, &client_id.0.to_le_bytes());
    key
}

/// Key of a local address; the address is cut to [`ADDRESS_MAX`] bytes.
#[must_use]
pub fn socket_address_key(channel_status_id: CounterId, address: &str) -> Key {
    let mut key = [0; KEY_LENGTH];
    put(&mut key, 0, &channel_status_id.0.to_le_bytes());
    put_text(&mut key, 4, address, ADDRESS_MAX);
    key
}

/// Reads a key of a counter of one stream. A text length that can not be is cut to what the key holds.
#[must_use]
pub fn read_stream_key(key: &Key) -> StreamKey {
    StreamKey {
        registration_id: RegistrationId(i64_at(key, 0)),
        session_id: SessionId(i32_at(key, 8)),
        stream_id: StreamId(i32_at(key, 12)),
        channel: text_at(key, 16, STREAM_CHANNEL_MAX),
    }
}

/// Reads the channel out of a channel key. A text length that can not be is cut to what the key holds.
#[must_use]
pub fn read_channel_key(key: &Key) -> String {
    text_at(key, 0, CHANNEL_MAX)
}

/// Reads the client id out of a heartbeat key.
#[must_use]
pub fn read_heartbeat_key(key: &Key) -> ClientId {
    ClientId(i64_at(key, 0))
}

/// Reads a local address key. A text length that can not be is cut to what the key holds.
#[must_use]
pub fn read_socket_address_key(key: &Key) -> SocketAddressKey {
    SocketAddressKey {
        channel_status_id: CounterId(i32_at(key, 0)),
        address: text_at(key, 4, ADDRESS_MAX),
    }
}

/// Offsets and lengths given here are constants of the layouts above.
fn put(key: &mut Key, offset: usize, bytes: &[u8]) {
    key[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// An i32 length and that many bytes of `text`, at most `max`.
fn put_text(key: &mut Key, offset: usize, text: &str, max: usize) {
    let length = text.len().min(max);
    put(key, offset, &(length as i32).to_le_bytes());
    put(key, offset + 4, &text.as_bytes()[..length]);
}

fn text_at(key: &Key, offset: usize, max: usize) -> String {
    let length = usize::try_from(i32_at(key, offset)).unwrap_or(0).min(max);
    String::from_utf8_lossy(&key[offset + 4..offset + 4 + length]).into_owned()
}

fn i32_at(key: &Key, offset: usize) -> i32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&key[offset..offset + 4]);
    i32::from_le_bytes(bytes)
}

fn i64_at(key: &Key, offset: usize) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key[offset..offset + 8]);
    i64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_key_has_its_documented_bytes() {
        let key = stream_key(RegistrationId(0x0102), SessionId(-2), StreamId(1001), "aeron:ipc");
        let mut expected = [0u8; KEY_LENGTH];
        expected[..29]
            .copy_from_slice(b"\x02\x01\0\0\0\0\0\0\xfe\xff\xff\xff\xe9\x03\0\0\x09\0\0\0aeron:ipc");
        assert_eq!(key, expected);
        let back = read_stream_key(&key);
        assert_eq!(back.registration_id, RegistrationId(0x0102));
        assert_eq!(back.session_id, SessionId(-2));
        assert_eq!(back.stream_id, StreamId(1001));
        assert_eq!(back.channel, "aeron:ipc");
    }

    #[test]
    fn texts_are_cut_to_what_a_key_holds() {
        let long = "x".repeat(200);
        assert_eq!(
            read_stream_key(&stream_key(RegistrationId(1), SessionId(2), StreamId(3), &long)).channel,
            long[..92]
        );
        assert_eq!(read_channel_key(&channel_key(&long)), long[..108]);
        let key = socket_address_key(CounterId(7), &long);
        assert_eq!(key[KEY_LENGTH - 1], 0);
        let address = read_socket_address_key(&key);
        assert_eq!(address.channel_status_id, CounterId(7));
        assert_eq!(address.address, long[..103]);
    }

    #[test]
    fn impossible_text_lengths_do_not_lead_outside_the_key() {
        for length in [-1, i32::MIN, i32::MAX, 93, 109, 113] {
            let mut key = [b'a'; KEY_LENGTH];
            for offset in [0, 4, 16] {
                put(&mut key, offset, &length.to_le_bytes());
            }
            assert!(read_stream_key(&key).channel.len() <= 92);
            assert!(read_channel_key(&key).len() <= 108 * 3);
            assert!(read_socket_address_key(&key).address.len() <= 103 * 3);
        }
    }

    #[test]
    fn short_keys_have_their_documented_bytes() {
        assert_eq!(system_key(45)[..8], [45, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read_heartbeat_key(&heartbeat_key(ClientId(-5))), ClientId(-5));
        assert_eq!(heartbeat_key(ClientId(3))[..9], [3, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            socket_address_key(CounterId(1), "a:1")[..12],
            *b"\x01\0\0\0\x03\0\0\0a:1\0"
        );
    }
}
