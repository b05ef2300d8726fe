//! Commands and responses against the layout tables of the specification (sections 7.2 and 8.2): every expected
//! message is put together field by field at the offset the table gives, not in the order the encoder writes.

use std::net::SocketAddr;

use fulmar::control::command::{self, type_id as command_type};
use fulmar::control::response::{
    AvailableImage, PublicationError, PublicationReady, UnavailableImage, type_id as response_type,
};
use fulmar::control::{Command, CommandError, CommandHeader, ErrorCode, Response, ResponseError, Text};
use fulmar::id::{ClientId, CorrelationId, CounterId, RegistrationId, SessionId, StreamId};

/// A message of known length whose fields are placed by offset.
struct Message(Vec<u8>);

impl Message {
    fn of(length: usize) -> Self {
        Self(vec![0; length])
    }

    /// A command from client 0x1122 with correlation id 0x3344.
    fn command(length: usize) -> Self {
        Self::of(length).i64(0, 0x1122).i64(8, 0x3344)
    }

    fn bytes(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn i32(self, offset: usize, value: i32) -> Self {
        self.bytes(offset, &value.to_le_bytes())
    }

    fn i64(self, offset: usize, value: i64) -> Self {
        self.bytes(offset, &value.to_le_bytes())
    }
}

const HEADER: CommandHeader = CommandHeader {
    client_id: ClientId(0x1122),
    correlation_id: CorrelationId(0x3344),
};

#[track_caller]
fn check_command(type_id: i32, message: &Message, command: Command<'_>) {
    let mut encoded = vec![0xEE; 3];
    assert_eq!(command.encode(HEADER, &mut encoded), type_id);
    assert_eq!(encoded, message.0);
    assert_eq!(command.type_id(), type_id);
    assert_eq!(Command::decode(type_id, &message.0), Ok((HEADER, command)));
}

#[track_caller]
fn check_response(type_id: i32, message: &Message, response: Response<'_>) {
    let mut encoded = vec![0xEE; 3];
    assert_eq!(response.encode(&mut encoded), type_id);
    assert_eq!(encoded, message.0);
    assert_eq!(response.type_id(), type_id);
    assert_eq!(Response::decode(type_id, &message.0), Ok(response));
}

#[track_caller]
fn check_malformed(type_id: i32, payload: &[u8], header: Option<CommandHeader>) {
    assert_eq!(
        Command::decode(type_id, payload),
        Err(CommandError::Malformed {
            type_id,
            length: payload.len(),
            header
        })
    );
}

const CHANNEL: &str = "aeron:ipc?mtu=64";

fn channel() -> Text<'static> {
    Text::from(CHANNEL)
}

#[test]
fn type_ids_are_those_of_the_tables() {
    assert_eq!(
        [
            command_type::ADD_PUBLICATION,
            command_type::REMOVE_PUBLICATION,
            command_type::ADD_EXCLUSIVE_PUBLICATION,
            command_type::ADD_SUBSCRIPTION,
            command_type::REMOVE_SUBSCRIPTION,
            command_type::CLIENT_KEEPALIVE,
            command_type::ADD_DESTINATION,
            command_type::REMOVE_DESTINATION,
            command_type::ADD_COUNTER,
            command_type::REMOVE_COUNTER,
            command_type::CLIENT_CLOSE,
            command_type::ADD_RECEIVE_DESTINATION,
            command_type::REMOVE_RECEIVE_DESTINATION,
            command_type::TERMINATE_DRIVER,
            command_type::ADD_STATIC_COUNTER,
            command_type::REJECT_IMAGE,
            command_type::REMOVE_DESTINATION_BY_ID,
            command_type::NEXT_AVAILABLE_SESSION_ID,
        ],
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
    );
    assert_eq!(
        [
            response_type::ON_ERROR,
            response_type::ON_AVAILABLE_IMAGE,
            response_type::ON_PUBLICATION_READY,
            response_type::ON_OPERATION_SUCCESS,
            response_type::ON_UNAVAILABLE_IMAGE,
            response_type::ON_EXCLUSIVE_PUBLICATION_READY,
            response_type::ON_SUBSCRIPTION_READY,
            response_type::ON_COUNTER_READY,
            response_type::ON_UNAVAILABLE_COUNTER,
            response_type::ON_CLIENT_TIMEOUT,
            response_type::ON_STATIC_COUNTER,
            response_type::ON_PUBLICATION_ERROR,
            response_type::ON_NEXT_AVAILABLE_SESSION_ID,
        ],
        [
            0x0F01, 0x0F02, 0x0F03, 0x0F04, 0x0F05, 0x0F06, 0x0F07, 0x0F08, 0x0F09, 0x0F0A, 0x0F0B, 0x0F0C,
            0x0F0D
        ]
    );
}

#[test]
fn a_whole_command_byte_by_byte() {
    let mut encoded = Vec::new();
    Command::AddPublication {
        stream_id: StreamId(1001),
        channel: Text::from("aeron:ipc"),
    }
    .encode(HEADER, &mut encoded);
    let expected: &[u8] = b"\x22\x11\0\0\0\0\0\0\x44\x33\0\0\0\0\0\0\xe9\x03\0\0\x09\0\0\0aeron:ipc";
    assert_eq!(encoded, expected);
}

#[test]
fn additions_of_publications() {
    let message = Message::command(24 + 16)
        .i32(16, -5)
        .i32(20, 16)
        .bytes(24, CHANNEL.as_bytes());
    let (stream_id, channel) = (StreamId(-5), channel());
    check_command(0x01, &message, Command::AddPublication { stream_id, channel });
    check_command(
        0x03,
        &message,
        Command::AddExclusivePublication { stream_id, channel },
    );
}

#[test]
fn removal_of_a_publication_with_and_without_flags() {
    let registration_id = RegistrationId(0x5566_7788_99AA);
    let keep = Command::RemovePublication {
        registration_id,
        revoke: false,
    };
    let revoke = Command::RemovePublication {
        registration_id,
        revoke: true,
    };
    let plain = Message::command(32).i64(16, 0x5566_7788_99AA);
    check_command(0x02, &plain, keep);
    let flagged = plain.i64(24, 1);
    check_command(0x02, &flagged, revoke);

    assert_eq!(Command::decode(0x02, &flagged.0[..24]), Ok((HEADER, keep)));
    for length in 25..32 {
        check_malformed(0x02, &flagged.0[..length], Some(HEADER));
    }
    let other_flags = flagged.i64(24, i64::MIN | 6);
    assert_eq!(Command::decode(0x02, &other_flags.0), Ok((HEADER, keep)));
}

#[test]
fn addition_of_a_subscription_ignores_the_unused_id() {
    let message = Message::command(32 + 16)
        .i64(16, -1)
        .i32(24, 7)
        .i32(28, 16)
        .bytes(32, CHANNEL.as_bytes());
    let command = Command::AddSubscription {
        stream_id: StreamId(7),
        channel: channel(),
    };
    check_command(0x04, &message, command);
    let from_c = message.i64(16, 0);
    assert_eq!(Command::decode(0x04, &from_c.0), Ok((HEADER, command)));
}

#[test]
fn commands_of_one_id_or_none() {
    let registration_id = RegistrationId(-2);
    let message = Message::command(24).i64(16, -2);
    check_command(0x05, &message, Command::RemoveSubscription { registration_id });
    check_command(0x0A, &message, Command::RemoveCounter { registration_id });
    check_command(0x06, &Message::command(16), Command::ClientKeepalive);
    check_command(0x0B, &Message::command(16), Command::ClientClose);
    let message = Message::command(20).i32(16, 1001);
    let stream_id = StreamId(1001);
    check_command(0x12, &message, Command::NextAvailableSessionId { stream_id });
    let message = Message::command(32).i64(16, 8).i64(24, 9);
    check_command(
        0x11,
        &message,
        Command::RemoveDestinationById {
            registration_id: RegistrationId(8),
            destination_registration_id: RegistrationId(9),
        },
    );
}

#[test]
fn destinations() {
    let message = Message::command(28 + 16)
        .i64(16, 42)
        .i32(24, 16)
        .bytes(28, CHANNEL.as_bytes());
    let (registration_id, channel) = (RegistrationId(42), channel());
    check_command(
        0x07,
        &message,
        Command::AddDestination {
            registration_id,
            channel,
        },
    );
    check_command(
        0x08,
        &message,
        Command::RemoveDestination {
            registration_id,
            channel,
        },
    );
    check_command(
        0x0C,
        &message,
        Command::AddReceiveDestination {
            registration_id,
            channel,
        },
    );
    check_command(
        0x0D,
        &message,
        Command::RemoveReceiveDestination {
            registration_id,
            channel,
        },
    );
}

#[test]
fn counters_align_the_label_behind_the_key() {
    for (key, aligned) in [(&b""[..], 0), (b"k", 4), (b"key", 4), (b"key4", 4), (b"key-5", 8)] {
        let message = Message::command(28 + aligned + 5)
            .i32(16, -1001)
            .i32(20, key.len() as i32)
            .bytes(24, key)
            .i32(24 + aligned, 5)
            .bytes(28 + aligned, b"label");
        let label = Text::from("label");
        check_command(
            0x09,
            &message,
            Command::AddCounter {
                type_id: -1001,
                key,
                label,
            },
        );
        let message = Message::command(36 + aligned + 5)
            .i64(16, i64::MIN)
            .i32(24, 1001)
            .i32(28, key.len() as i32)
            .bytes(32, key)
            .i32(32 + aligned, 5)
            .bytes(36 + aligned, b"label");
        check_command(
            0x0F,
            &message,
            Command::AddStaticCounter {
                registration_id: RegistrationId(i64::MIN),
                type_id: 1001,
                key,
                label,
            },
        );
    }
}

#[test]
fn counters_of_senders_that_forget_the_alignment_keep_what_is_there() {
    for key_length in 0..9_usize {
        let aligned = key_length.div_ceil(4) * 4;
        for label_length in 0..6_usize {
            let full = Message::command(28 + aligned + label_length)
                .i32(20, key_length as i32)
                .bytes(24, &vec![b'k'; key_length])
                .i32(24 + aligned, label_length as i32)
                .bytes(28 + aligned, &vec![b'l'; label_length])
                .0;
            let forgotten = aligned - key_length;
            for missing in 0..full.len() - 16 {
                let sent = &full[..full.len() - missing];
                if missing > forgotten {
                    check_malformed(0x09, sent, Some(HEADER));
                    continue;
                }
                let (_, command) = Command::decode(0x09, sent).unwrap();
                let Command::AddCounter { key, label, .. } = command else {
                    panic!("another command: {command:?}")
                };
                assert_eq!(key, vec![b'k'; key_length]);
                assert_eq!(label.as_bytes(), vec![b'l'; label_length.saturating_sub(missing)]);
            }
        }
    }
}

#[test]
fn counters_of_java_are_longer_than_needed() {
    let message = Message::command(28 + 4 + 5 + 4)
        .i32(20, 2)
        .bytes(24, b"k1")
        .i32(28, 5)
        .bytes(32, b"label");
    assert_eq!(
        Command::decode(0x09, &message.0).map(|(_, command)| command),
        Ok(Command::AddCounter {
            type_id: 0,
            key: b"k1",
            label: Text::from("label")
        })
    );
}

#[test]
fn keys_and_labels_above_the_limits_are_handed_over() {
    let key = [b'k'; command::MAX_COUNTER_KEY_LENGTH + 1];
    let label = "l".repeat(command::MAX_COUNTER_LABEL_LENGTH + 1);
    let mut encoded = Vec::new();
    let sent = Command::AddCounter {
        type_id: 0,
        key: &key,
        label: Text::from(label.as_str()),
    };
    sent.encode(HEADER, &mut encoded);
    assert_eq!(Command::decode(0x09, &encoded), Ok((HEADER, sent)));
}

#[test]
fn termination_takes_an_empty_token() {
    let message = Message::command(20);
    check_command(0x0E, &message, Command::TerminateDriver { token: b"" });
    let message = Message::command(23).i32(16, 3).bytes(20, b"\x00\xff\x7f");
    check_command(
        0x0E,
        &message,
        Command::TerminateDriver {
            token: b"\x00\xff\x7f",
        },
    );
}

#[test]
fn rejections_are_padded_to_40_bytes() {
    for (reason, length) in [("", 40), ("abc", 40), ("abcd", 40), ("abcde", 41)] {
        let message = Message::command(length)
            .i64(16, 77)
            .i64(24, 4096)
            .i32(32, reason.len() as i32)
            .bytes(36, reason.as_bytes());
        let command = Command::RejectImage {
            image_correlation_id: CorrelationId(77),
            position: 4096,
            reason: Text::from(reason),
        };
        check_command(0x10, &message, command);
        check_malformed(0x10, &message.0[..39], Some(HEADER));
    }
}

#[test]
fn the_rejection_of_the_c_client_has_no_ids_and_trailing_bytes() {
    let message = Message::of(41 + 3).i64(16, 77).i32(32, 3).bytes(36, b"odd");
    let (header, command) = Command::decode(0x10, &message.0).unwrap();
    assert_eq!(
        (header.client_id, header.correlation_id),
        (ClientId(0), CorrelationId(0))
    );
    assert!(matches!(command, Command::RejectImage { reason, .. } if reason == "odd"));
}

#[test]
fn commands_without_a_whole_header_can_not_be_answered() {
    for type_id in 0x01..=0x12 {
        for length in 0..16 {
            check_malformed(type_id, &vec![1; length], None);
        }
    }
    for type_id in [i32::MIN, -1, 0, 0x13, 0x0F01, i32::MAX] {
        assert_eq!(
            Command::decode(type_id, &Message::command(16).0),
            Err(CommandError::Unknown {
                type_id,
                header: Some(HEADER)
            })
        );
        assert_eq!(
            Command::decode(type_id, &[1; 15]),
            Err(CommandError::Unknown {
                type_id,
                header: None
            })
        );
    }
}

#[test]
fn lengths_that_are_negative_or_too_long_are_malformed() {
    for (type_id, offset, total) in [
        (0x01, 20, 40),
        (0x03, 20, 40),
        (0x04, 28, 48),
        (0x07, 24, 44),
        (0x08, 24, 44),
        (0x09, 20, 40),
        (0x0C, 24, 44),
        (0x0D, 24, 44),
        (0x0E, 16, 36),
        (0x0F, 28, 48),
        (0x10, 32, 52),
    ] {
        for length in [-1, i32::MIN, i32::MAX, 17] {
            let message = Message::command(total).i32(offset, length);
            check_malformed(type_id, &message.0, Some(HEADER));
        }
    }
}

#[test]
fn responses_of_fixed_length() {
    let correlation_id = CorrelationId(0x1_0000_0002);
    let registration_id = RegistrationId(0x1_0000_0002);
    let counter_id = CounterId(9);
    let one_id = || Message::of(8).i64(0, 0x1_0000_0002);
    let id_and_number = || Message::of(12).i64(0, 0x1_0000_0002).i32(8, 9);
    check_response(0x0F04, &one_id(), Response::OperationSuccess { correlation_id });
    let client_id = ClientId(0x1_0000_0002);
    check_response(0x0F0A, &one_id(), Response::ClientTimeout { client_id });
    check_response(
        0x0F07,
        &Message::of(12).i64(0, 0x1_0000_0002).i32(8, -1),
        Response::SubscriptionReady {
            correlation_id,
            channel_status_counter_id: CounterId::NONE,
        },
    );
    check_response(
        0x0F08,
        &id_and_number(),
        Response::CounterReady {
            registration_id,
            counter_id,
        },
    );
    check_response(
        0x0F09,
        &id_and_number(),
        Response::UnavailableCounter {
            registration_id,
            counter_id,
        },
    );
    check_response(
        0x0F0B,
        &id_and_number(),
        Response::StaticCounter {
            correlation_id,
            counter_id,
        },
    );
    check_response(
        0x0F0D,
        &id_and_number(),
        Response::NextAvailableSessionId {
            correlation_id,
            session_id: SessionId(9),
        },
    );
}

#[test]
fn errors() {
    let message = Message::of(16 + 5)
        .i64(0, 7)
        .i32(8, 11)
        .i32(12, 5)
        .bytes(16, b"wrong");
    check_response(
        0x0F01,
        &message,
        Response::Error {
            correlation_id: CorrelationId(7),
            error_code: ErrorCode::GenericError,
            message: Text::from("wrong"),
        },
    );
    let unknown = message.i32(8, 99);
    assert!(matches!(
        Response::decode(0x0F01, &unknown.0),
        Ok(Response::Error {
            error_code: ErrorCode::UnknownCodeValue,
            ..
        })
    ));
}

#[test]
fn available_images_align_the_source_behind_the_path() {
    for path in ["", "/", "/dev/shm/x", "/dev/shm/xy", "/dev/shm/xyz"] {
        let aligned = path.len().div_ceil(4) * 4;
        let message = Message::of(36 + aligned + 9)
            .i64(0, 1)
            .i32(8, -2)
            .i32(12, 3)
            .i64(16, 4)
            .i32(24, 5)
            .i32(28, path.len() as i32)
            .bytes(32, path.as_bytes())
            .i32(32 + aligned, 9)
            .bytes(36 + aligned, b"aeron:ipc");
        check_response(
            0x0F02,
            &message,
            Response::AvailableImage(AvailableImage {
                image_correlation_id: CorrelationId(1),
                session_id: SessionId(-2),
                stream_id: StreamId(3),
                subscription_registration_id: RegistrationId(4),
                subscriber_position_counter_id: CounterId(5),
                log_path: Text::from(path),
                source_identity: Text::from("aeron:ipc"),
            }),
        );
    }
}

#[test]
fn publications_ready() {
    let message = Message::of(36 + 5)
        .i64(0, 1)
        .i64(8, 2)
        .i32(16, 3)
        .i32(20, 4)
        .i32(24, 5)
        .i32(28, -1)
        .i32(32, 5)
        .bytes(36, b"/path");
    let ready = PublicationReady {
        correlation_id: CorrelationId(1),
        original_registration_id: RegistrationId(2),
        session_id: SessionId(3),
        stream_id: StreamId(4),
        position_limit_counter_id: CounterId(5),
        channel_status_counter_id: CounterId::NONE,
        log_path: Text::from("/path"),
    };
    check_response(0x0F03, &message, Response::PublicationReady(ready));
    check_response(0x0F06, &message, Response::ExclusivePublicationReady(ready));
}

#[test]
fn unavailable_images() {
    let message = Message::of(24 + 9)
        .i64(0, 1)
        .i64(8, 2)
        .i32(16, 3)
        .i32(20, 9)
        .bytes(24, b"aeron:ipc");
    check_response(
        0x0F05,
        &message,
        Response::UnavailableImage(UnavailableImage {
            image_correlation_id: CorrelationId(1),
            subscription_registration_id: RegistrationId(2),
            stream_id: StreamId(3),
            channel: Text::from("aeron:ipc"),
        }),
    );
}

#[test]
fn publication_errors_carry_the_address_of_the_receiver() {
    let ipv4: (Option<SocketAddr>, i16, &[u8]) = (Some(([127, 0, 0, 1], 40123).into()), 1, &[127, 0, 0, 1]);
    let octets = [0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let ipv6: (Option<SocketAddr>, i16, &[u8]) = (Some((octets, 40123).into()), 2, &octets);
    for (source, kind, address) in [ipv4, ipv6, (None, 0, &[])] {
        for (text, length) in [("", 72), ("x", 72), ("four", 72), ("fives", 73)] {
            let port: u16 = if source.is_some() { 40123 } else { 0 };
            let message = Message::of(length)
                .i64(0, 1)
                .i64(8, -1)
                .i32(16, 2)
                .i32(20, 3)
                .i64(24, -4)
                .i64(32, -1)
                .bytes(40, &kind.to_le_bytes())
                .bytes(42, &port.to_le_bytes())
                .bytes(44, address)
                .i32(60, 13)
                .i32(64, text.len() as i32)
                .bytes(68, text.as_bytes());
            check_response(
                0x0F0C,
                &message,
                Response::PublicationError(PublicationError {
                    registration_id: RegistrationId(1),
                    destination_registration_id: RegistrationId(-1),
                    session_id: SessionId(2),
                    stream_id: StreamId(3),
                    receiver_id: -4,
                    group_tag: -1,
                    source,
                    error_code: ErrorCode::ImageRejected,
                    message: Text::from(text),
                }),
            );
            let unpadded = &message.0[..68 + text.len()];
            assert_eq!(
                Response::decode(0x0F0C, unpadded),
                Response::decode(0x0F0C, &message.0)
            );
            assert!(Response::decode(0x0F0C, unpadded).is_ok());
        }
    }
}

#[test]
fn responses_that_are_cut_are_malformed_and_unknown_types_are_told_apart() {
    for type_id in 0x0F01..=0x0F0D {
        for length in 0..8 {
            assert_eq!(
                Response::decode(type_id, &vec![0; length]),
                Err(ResponseError::Malformed { type_id, length })
            );
        }
    }
    for type_id in [i32::MIN, -1, 0, 1, 0x0F00, 0x0F0E, i32::MAX] {
        assert_eq!(
            Response::decode(type_id, &[0; 200]),
            Err(ResponseError::Unknown { type_id })
        );
    }
}

#[test]
fn encoding_again_does_not_move_the_buffer() {
    let mut buffer = Vec::with_capacity(256);
    let place = buffer.as_ptr();
    for correlation_id in 0..100 {
        Response::PublicationReady(PublicationReady {
            correlation_id: CorrelationId(correlation_id),
            original_registration_id: RegistrationId(2),
            session_id: SessionId(3),
            stream_id: StreamId(4),
            position_limit_counter_id: CounterId(5),
            channel_status_counter_id: CounterId::NONE,
            log_path: Text::from("/dev/shm/aeron-user/publications/1.logbuffer"),
        })
        .encode(&mut buffer);
        Response::OperationSuccess {
            correlation_id: CorrelationId(correlation_id),
        }
        .encode(&mut buffer);
        assert_eq!(buffer.len(), 8);
    }
    assert_eq!(buffer.as_ptr(), place);
    assert_eq!(buffer.capacity(), 256);
}
