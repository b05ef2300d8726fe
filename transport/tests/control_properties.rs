//! Properties of the codec of commands and responses: what is encoded is read back, and nothing that a hostile
//! process writes does more than fail to decode.

use std::net::SocketAddr;

use fulmar::control::response::{AvailableImage, PublicationError, PublicationReady, UnavailableImage};
use fulmar::control::{Command, CommandError, CommandHeader, ErrorCode, Response, Text};
use fulmar::id::{ClientId, CorrelationId, CounterId, RegistrationId, SessionId, StreamId};
use proptest::prelude::*;

/// Raw material from which any command or response is made.
#[derive(Clone, Debug)]
struct Parts {
    kind: usize,
    longs: [i64; 4],
    ints: [i32; 4],
    flag: bool,
    first: Vec<u8>,
    second: Vec<u8>,
    source: Option<SocketAddr>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..70);
    let source = proptest::option::of(any::<(std::net::IpAddr, u16)>().prop_map(SocketAddr::from));
    (
        any::<usize>(),
        any::<[i64; 4]>(),
        any::<[i32; 4]>(),
        any::<bool>(),
        bytes(),
        bytes(),
        source,
    )
        .prop_map(|(kind, longs, ints, flag, first, second, source)| Parts {
            kind,
            longs,
            ints,
            flag,
            first,
            second,
            source,
        })
}

fn command(parts: &Parts) -> Command<'_> {
    let registration_id = RegistrationId(parts.longs[2]);
    let stream_id = StreamId(parts.ints[0]);
    let (channel, label) = (Text(&parts.first), Text(&parts.second));
    let key = parts.first.as_slice();
    let type_id = parts.ints[1];
    match parts.kind % 18 {
        0 => Command::AddPublication { stream_id, channel },
        1 => Command::AddExclusivePublication { stream_id, channel },
        2 => Command::RemovePublication {
            registration_id,
            revoke: parts.flag,
        },
        3 => Command::AddSubscription { stream_id, channel },
        4 => Command::RemoveSubscription { registration_id },
        5 => Command::ClientKeepalive,
        6 => Command::AddDestination {
            registration_id,
            channel,
        },
        7 => Command::RemoveDestination {
            registration_id,
            channel,
        },
        8 => Command::AddCounter { type_id, key, label },
        9 => Command::RemoveCounter { registration_id },
        10 => Command::ClientClose,
        11 => Command::AddReceiveDestination {
            registration_id,
            channel,
        },
        12 => Command::RemoveReceiveDestination {
            registration_id,
            channel,
        },
        13 => Command::TerminateDriver { token: key },
        14 => Command::AddStaticCounter {
            registration_id,
            type_id,
            key,
            label,
        },
        15 => Command::RejectImage {
            image_correlation_id: CorrelationId(parts.longs[2]),
            position: parts.longs[3],
            reason: channel,
        },
        16 => Command::RemoveDestinationById {
            registration_id,
            destination_registration_id: RegistrationId(parts.longs[3]),
        },
        _ => Command::NextAvailableSessionId { stream_id },
    }
}

fn header(parts: &Parts) -> CommandHeader {
    CommandHeader {
        client_id: ClientId(parts.longs[0]),
        correlation_id: CorrelationId(parts.longs[1]),
    }
}

fn response(parts: &Parts) -> Response<'_> {
    let correlation_id = CorrelationId(parts.longs[0]);
    let registration_id = RegistrationId(parts.longs[0]);
    let counter_id = CounterId(parts.ints[2]);
    let (session_id, stream_id) = (SessionId(parts.ints[0]), StreamId(parts.ints[1]));
    let (first, second) = (Text(&parts.first), Text(&parts.second));
    let error_code = ErrorCode::from_i32(parts.ints[3].rem_euclid(16) - 1);
    let ready = PublicationReady {
        correlation_id,
        original_registration_id: RegistrationId(parts.longs[1]),
        session_id,
        stream_id,
        position_limit_counter_id: counter_id,
        channel_status_counter_id: CounterId(parts.ints[3]),
        log_path: first,
    };
    match parts.kind % 13 {
        0 => Response::Error {
            correlation_id,
            error_code,
            message: first,
        },
        1 => Response::AvailableImage(AvailableImage {
            image_correlation_id: correlation_id,
            session_id,
            stream_id,
            subscription_registration_id: RegistrationId(parts.longs[1]),
            subscriber_position_counter_id: counter_id,
            log_path: first,
            source_identity: second,
        }),
        2 => Response::PublicationReady(ready),
        3 => Response::OperationSuccess { correlation_id },
        4 => Response::UnavailableImage(UnavailableImage {
            image_correlation_id: correlation_id,
            subscription_registration_id: RegistrationId(parts.longs[1]),
            stream_id,
            channel: first,
        }),
        5 => Response::ExclusivePublicationReady(ready),
        6 => Response::SubscriptionReady {
            correlation_id,
            channel_status_counter_id: counter_id,
        },
        7 => Response::CounterReady {
            registration_id,
            counter_id,
        },
        8 => Response::UnavailableCounter {
            registration_id,
            counter_id,
        },
        9 => Response::ClientTimeout {
            client_id: ClientId(parts.longs[0]),
        },
        10 => Response::StaticCounter {
            correlation_id,
            counter_id,
        },
        11 => Response::PublicationError(PublicationError {
            registration_id,
            destination_registration_id: RegistrationId(parts.longs[1]),
            session_id,
            stream_id,
            receiver_id: parts.longs[2],
            group_tag: parts.longs[3],
            source: parts.source,
            error_code,
            message: first,
        }),
        _ => Response::NextAvailableSessionId {
            correlation_id,
            session_id,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn commands_are_read_back(parts in parts()) {
        let (header, command) = (header(&parts), command(&parts));
        let mut encoded = Vec::new();
        let type_id = command.encode(header, &mut encoded);
        prop_assert_eq!(Command::decode(type_id, &encoded), Ok((header, command)));
        // Trailing bytes change nothing; some clients send them.
        if !matches!(command, Command::RemovePublication { .. }) || parts.first.len() >= 8 {
            encoded.extend_from_slice(&parts.first);
            prop_assert_eq!(Command::decode(type_id, &encoded), Ok((header, command)));
        }
    }

    #[test]
    fn responses_are_read_back(parts in parts()) {
        let response = response(&parts);
        let mut encoded = Vec::new();
        let type_id = response.encode(&mut encoded);
        prop_assert_eq!(Response::decode(type_id, &encoded), Ok(response));
        encoded.extend_from_slice(&parts.first);
        prop_assert_eq!(Response::decode(type_id, &encoded), Ok(response));
    }

    #[test]
    fn a_cut_command_keeps_its_header_or_its_meaning(parts in parts(), cut in any::<prop::sample::Index>()) {
        let (header, command) = (header(&parts), command(&parts));
        let mut encoded = Vec::new();
        let type_id = command.encode(header, &mut encoded);
        let length = cut.index(encoded.len());
        match Command::decode(type_id, &encoded[..length]) {
            // Forms of other clients: flags left out, the last bytes of a label forgotten, a short reason not padded.
            Ok((decoded, _)) => {
                prop_assert_eq!(decoded, header);
                prop_assert!(length >= 24);
            }
            Err(CommandError::Malformed { header: decoded, .. }) => {
                prop_assert_eq!(decoded, (length >= 16).then_some(header));
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn any_bytes_decode_to_something_that_encodes_or_to_an_error(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0_u8), 0_u8..40], 0..200),
        type_id in prop_oneof![0..0x14_i32, 0x0F00..0x0F10_i32, any::<i32>()],
    ) {
        let mut again = Vec::new();
        if let Ok((header, command)) = Command::decode(type_id, &bytes) {
            prop_assert_eq!(command.encode(header, &mut again), type_id);
            prop_assert_eq!(Command::decode(type_id, &again), Ok((header, command)));
        }
        if let Ok(response) = Response::decode(type_id, &bytes) {
            prop_assert_eq!(response.encode(&mut again), type_id);
            prop_assert_eq!(Response::decode(type_id, &again), Ok(response));
        }
    }
}
