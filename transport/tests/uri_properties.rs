//! Properties of channels: an oracle of the parser, printing and reading back, and hostile text.

use std::fmt::Write;

use fulmar::id::{SessionId, TermId};
use fulmar::uri::{Address, ChannelBuilder, ChannelUri, InitialPosition, Role, SessionIdParam, Tags, value};
use proptest::prelude::*;

/// The parser table of the specification, written as a walk over characters in two states.
fn oracle(query: &str) -> Option<Vec<(String, String)>> {
    let (mut entries, mut key, mut in_value, mut text) = (Vec::new(), String::new(), false, String::new());
    for c in query.chars() {
        match (in_value, c) {
            (false, '=') if text.is_empty() => return None,
            (false, '=') => {
                key = std::mem::take(&mut text);
                in_value = true;
            }
            (false, '|') => return None,
            (true, '|') if text.is_empty() => return None,
            (true, '|') => {
                entries.push((key.clone(), std::mem::take(&mut text)));
                in_value = false;
            }
            (_, c) => text.push(c),
        }
    }
    if in_value && !text.is_empty() {
        entries.push((key, text));
    }
    Some(entries)
}

/// Asks for everything that can be asked for.
fn ask_everything(uri: &ChannelUri) -> String {
    let mut answers = String::new();
    let params = uri.params();
    for role in [
        Role::Publication,
        Role::Subscription,
        Role::SendDestination,
        Role::ReceiveDestination,
    ] {
        let _ = write!(answers, "{:?}", uri.check_role(role));
    }
    let _ = write!(
        answers,
        "{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}",
        params.check_publication(),
        params.check_subscription(),
        params.flow_control(),
        params.congestion_control(),
        params.stream_id(),
        params.tags(),
        params.group(),
        params.control_mode(),
        params.interface(),
        params.alias(),
        params.initial_position(65536),
        params.publication_window_within(64, 65536),
    );
    answers
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "term-length",
            "mtu",
            "init-term-id",
            "term-id",
            "term-offset",
            "session-id",
            "tags",
            "linger",
            "pub-wnd",
            "rcv-wnd",
            "endpoint",
            "control",
            "control-mode",
            "fc",
            "cc",
            "max-resend",
            "alias",
            "ttl",
            "response-correlation-id",
            "nak-delay",
            "64k",
            "1g",
            "tag:7",
            "manual",
            "dynamic",
            "response",
            "=",
            "|",
            "?",
            "aeron:",
            "prototype",
            "min,g:1/2",
            "[::1]:1",
            "a:1",
            "5s",
            "-1",
            "true",
            "infer",
        ])
        .prop_map(str::to_owned),
        any::<i64>().prop_map(|n| n.to_string()),
        "\\PC{0,3}",
    ]
}

fn hostile_text() -> impl Strategy<Value = String> {
    let prefix = proptest::sample::select(vec![
        "aeron:ipc?",
        "aeron:udp?",
        "aeron:ipc",
        "aeron-spy:aeron:udp?",
        "aeron-spy:aeron:ipc?",
        "",
    ]);
    (prefix, proptest::collection::vec(word(), 0..12))
        .prop_map(|(prefix, words)| prefix.to_owned() + &words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_parser_agrees_with_its_table(query in "[a=|?é]{0,12}") {
        let text = format!("aeron:ipc?{query}");
        let parsed = ChannelUri::parse(&text).ok().map(|uri| {
            uri.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<Vec<_>>()
        });
        prop_assert_eq!(parsed, oracle(&query));
    }

    #[test]
    fn hostile_text_is_answered(text in hostile_text()) {
        if let Ok(uri) = ChannelUri::parse(&text) {
            prop_assert_eq!(uri.as_str(), &text);
            prop_assert_eq!(&uri.to_string(), &text);
            prop_assert_eq!(ask_everything(&uri), ask_everything(&uri.clone()));
            if let Ok(builder) = ChannelBuilder::from_uri(&uri) {
                let rebuilt = ChannelUri::parse(&builder.build()).unwrap();
                for (key, _) in uri.iter() {
                    prop_assert_eq!(rebuilt.get(key), uri.get(key));
                }
            }
        } else {
            let error = ChannelUri::parse(&text).unwrap_err();
            prop_assert!(error.to_string().ends_with(&text));
        }
    }

    #[test]
    fn hostile_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
        if let Err(error) = ChannelUri::parse_bytes(&bytes) {
            // A byte that is no text takes three when printed.
            prop_assert!(error.uri.len() <= 3 * 4095);
        }
    }

    #[test]
    fn built_channels_are_read_back(
        term_bits in 16_u32..=30,
        mtu in 2_i32..=2047,
        session_id in any::<i32>(),
        tags in any::<(Option<u32>, Option<u32>)>(),
        initial_term_id in any::<i32>(),
        terms in 0_i32..=i32::MAX,
        frames in any::<prop::sample::Index>(),
        linger in 0..i64::MAX,
        flags in any::<[bool; 3]>(),
    ) {
        let (term_length, mtu) = (1_i32 << term_bits, mtu * 32);
        let position = InitialPosition {
            initial_term_id: TermId(initial_term_id),
            term_id: TermId(initial_term_id.wrapping_add(terms)),
            term_offset: i32::try_from(frames.index(term_length as usize / 32 + 1) * 32).unwrap(),
        };
        let window = mtu.min(term_length / 2);
        let mut builder = ChannelBuilder::ipc()
            .term_length(term_length).unwrap()
            .session_id(SessionIdParam::Id(SessionId(session_id))).unwrap()
            .initial_position(position).unwrap()
            .linger_ns(linger).unwrap()
            .eos(flags[0]).unwrap()
            .sparse(flags[1]).unwrap()
            .tether(flags[2]).unwrap();
        if mtu <= term_length / 2 {
            builder = builder.mtu(mtu).unwrap().publication_window(window).unwrap();
        }
        let tags = Tags { channel: tags.0.map(i64::from), entity: tags.1.map(i64::from) };
        if tags != Tags::default() {
            builder = builder.tags(tags).unwrap();
        }
        let uri = ChannelUri::parse(&builder.build()).unwrap();
        let params = uri.params();
        prop_assert_eq!(params.term_length(), Ok(Some(term_length)));
        prop_assert_eq!(params.session_id(), Ok(Some(SessionIdParam::Id(SessionId(session_id)))));
        prop_assert_eq!(params.initial_position(term_length), Ok(Some(position)));
        prop_assert!(position.position(term_length) >= 0);
        prop_assert_eq!(params.linger_ns(), Ok(Some(linger)));
        prop_assert_eq!(params.tags(), tags);
        prop_assert_eq!((params.eos(), params.sparse(), params.tether()),
            (Ok(Some(flags[0])), Ok(Some(flags[1])), Ok(Some(flags[2]))));
        if mtu <= term_length / 2 {
            prop_assert_eq!(params.mtu(), Ok(Some(mtu)));
            prop_assert_eq!(params.publication_window_within(mtu, term_length), Ok(Some(window)));
        }
    }

    #[test]
    fn sizes_durations_and_numbers_are_read_back(number in any::<i64>(), text in "\\PC{0,8}") {
        let positive = number & i64::MAX;
        prop_assert_eq!(value::parse_size(&value::print_size(positive)), Ok(positive));
        prop_assert_eq!(value::parse_duration_ns(&value::print_duration_ns(positive)), Ok(positive));
        prop_assert_eq!(value::parse_i64(&number.to_string()), Ok(number));
        if let Ok(size) = value::parse_size(&text) {
            prop_assert!(size >= 0);
        }
        if let Ok(address) = Address::parse(&text) {
            prop_assert!(!address.host.is_empty());
        }
    }
}
