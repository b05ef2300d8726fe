//! Channels: any bytes parse or are refused; what parses answers every question, and builds into a channel with the
//! same parameters.
#![no_main]

use fulmar::uri::{ChannelBuilder, ChannelUri, Role};
use libfuzzer_sys::fuzz_target;

const PREFIXES: [&str; 4] = ["", "aeron:ipc?", "aeron:udp?", "aeron-spy:aeron:udp?"];

fuzz_target!(|data: &[u8]| {
    let Some((&prefix, rest)) = data.split_first() else {
        return;
    };
    let mut text = PREFIXES[usize::from(prefix) % PREFIXES.len()].as_bytes().to_vec();
    text.extend_from_slice(rest);
    let uri = match ChannelUri::parse_bytes(&text) {
        Ok(uri) => uri,
        Err(error) => {
            assert!(error.to_string().len() < 4 * 4096);
            return;
        }
    };
    assert_eq!(uri.as_str().as_bytes(), text);
    for role in [
        Role::Publication,
        Role::Subscription,
        Role::SendDestination,
        Role::ReceiveDestination,
    ] {
        let _ = uri.check_role(role);
    }
    let params = uri.params();
    let _ = params.check_publication();
    let _ = params.check_subscription();
    let _ = params.flow_control();
    let _ = (
        params.tags(),
        params.group(),
        params.control_mode(),
        params.interface(),
    );
    if let Ok(Some(position)) = params.initial_position(65536) {
        assert!(position.position(65536) >= 0);
    }
    if let Ok(builder) = ChannelBuilder::from_uri(&uri) {
        let rebuilt = ChannelUri::parse(&builder.build()).expect("a builder prints valid channels");
        for (key, _) in uri.iter() {
            assert_eq!(rebuilt.get(key), uri.get(key));
        }
    }
});
