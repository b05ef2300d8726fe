//! Tables of names, interfaces and addresses as text: each is taken or refused, and what a table says is what it
//! answers.
#![no_main]

use fulmar_media_driver::io::NetworkInterface;
use fulmar_media_driver::media::interface::{Family, InterfaceParam, find_by_name, find_by_prefix};
use fulmar_media_driver::media::resolver::{NameRequest, NameResolver, NameUse, TableResolver};
use fulmar_media_driver::media::udp_channel::HostPort;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    if let Ok(table) = TableResolver::parse(&text) {
        for host in text.split([',', '|']).map(str::trim).take(8) {
            for used_as in [
                NameUse::Endpoint,
                NameUse::Control,
                NameUse::Interface,
                NameUse::Neighbor,
            ] {
                for is_re_resolution in [false, true] {
                    let request = NameRequest {
                        host: host.to_owned(),
                        used_as,
                        family: Family::V4,
                        is_re_resolution,
                    };
                    if let Some(Ok(address)) = table.at_once(&request) {
                        let is_in_text = text
                            .split([',', '|'])
                            .any(|field| field.trim().parse() == Ok(address));
                        assert!(is_in_text, "{address} was made up");
                    }
                }
            }
        }
    }
    if let Some(at) = HostPort::parse(&text) {
        assert_eq!(at.text, text);
        assert_eq!(
            at.literal().is_some(),
            at.request(NameUse::Endpoint, Family::V6).is_none()
        );
    }
    let interfaces = [NetworkInterface {
        name: "lo".to_owned(),
        index: 1,
        address: [127, 0, 0, 1].into(),
        prefix_length: 8,
        is_up: true,
        is_loopback: true,
        is_multicast: false,
    }];
    match InterfaceParam::parse(&text) {
        Some(InterfaceParam::Address {
            host,
            is_bracketed,
            prefix_length,
            ..
        }) => {
            let bits = if is_bracketed { 128 } else { 32 };
            assert!(!host.is_empty() && prefix_length.is_none_or(|length| length <= bits));
            if let Ok(address) = host.parse() {
                let _ = find_by_prefix(&interfaces, address, prefix_length.unwrap_or(bits), false);
            }
        }
        Some(InterfaceParam::Named { name, .. }) => {
            let found = find_by_name(&interfaces, &name, Family::V4);
            assert_eq!(found.is_some(), name == "lo");
        }
        None => {}
    }
});
