//! Labels of the driver's counters (shared-memory spec 5.6). Built when a counter is allocated, never on the data
//! path; the record cuts them to 380 bytes.
#![forbid(unsafe_code)]

use crate::id::{ClientId, CounterId, RegistrationId, SessionId, StreamId};

/// `<name>: <registration id> <session id> <stream id> <channel>`.
#[must_use]
pub fn stream_label(
    name: &str,
    registration_id: RegistrationId,
    session_id: SessionId,
    stream_id: StreamId,
    channel: &str,
) -> String {
    format!("{name}: {registration_id} {session_id} {stream_id} {channel}")
}

/// A stream label with the position at which the subscription joined: `... @<join position>`.
#[must_use]
pub fn stream_join_label(
    name: &str,
    registration_id: RegistrationId,
    session_id: SessionId,
    stream_id: StreamId,
    channel: &str,
    join_position: i64,
) -> String {
    format!("{name}: {registration_id} {session_id} {stream_id} {channel} @{join_position}")
}

/// `<name>: <channel>`, before the endpoint has an address.
#[must_use]
pub fn channel_label(name: &str, channel: &str) -> String {
    format!("{name}: {channel}")
}

/// `<name>: <channel> <bound address:port>`; the address is empty for a subscription without a socket of its own.
#[must_use]
pub fn bound_channel_label(name: &str, channel: &str, address: &str) -> String {
    format!("{name}: {channel} {address}")
}

/// `client-heartbeat: id=<client id>`.
#[must_use]
pub fn heartbeat_label(client_id: ClientId) -> String {
    format!("client-heartbeat: id={client_id}")
}

/// What a client appends to the label of its heartbeat: ` name=<name> version=<v> commit=<sha>`.
#[must_use]
pub fn heartbeat_label_suffix(name: &str, version: &str, commit: &str) -> String {
    format!(" name={name} version={version} commit={commit}")
}

/// `<name>: <channel status counter id> <address:port>`.
#[must_use]
pub fn socket_address_label(name: &str, channel_status_id: CounterId, address: &str) -> String {
    format!("{name}: {channel_status_id} {address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_their_documented_form() {
        let (registration, session, stream) = (RegistrationId(12), SessionId(-7), StreamId(1001));
        assert_eq!(
            stream_label("pub-lmt", registration, session, stream, "aeron:ipc"),
            "pub-lmt: 12 -7 1001 aeron:ipc"
        );
        assert_eq!(
            stream_join_label("sub-pos", registration, session, stream, "aeron:ipc", 197_632),
            "sub-pos: 12 -7 1001 aeron:ipc @197632"
        );
        assert_eq!(
            channel_label("snd-channel", "aeron:udp"),
            "snd-channel: aeron:udp"
        );
        assert_eq!(
            bound_channel_label("snd-channel", "aeron:udp", "127.0.0.1:5"),
            "snd-channel: aeron:udp 127.0.0.1:5"
        );
        assert_eq!(
            bound_channel_label("rcv-channel", "aeron:udp", ""),
            "rcv-channel: aeron:udp "
        );
        assert_eq!(heartbeat_label(ClientId(9)), "client-heartbeat: id=9");
        assert_eq!(
            heartbeat_label_suffix("a", "1.0.0", "b"),
            " name=a version=1.0.0 commit=b"
        );
        assert_eq!(
            socket_address_label("snd-local-sockaddr", CounterId(3), "127.0.0.1:5"),
            "snd-local-sockaddr: 3 127.0.0.1:5"
        );
    }
}
