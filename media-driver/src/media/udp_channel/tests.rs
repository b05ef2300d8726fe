//! Addresses of channels on a made-up machine. What is refused and what is shared was compared with Aeron's C driver.

use fulmar::control::ErrorCode;
use fulmar::uri::{ChannelUri, Role};

use super::*;
use crate::media::resolver::NameFault;

fn interface(index: u32, name: &str, address: &str, prefix_length: u8) -> NetworkInterface {
    let address: IpAddr = address.parse().unwrap();
    NetworkInterface {
        name: name.to_owned(),
        index,
        address,
        prefix_length,
        is_up: true,
        is_loopback: address.is_loopback(),
        is_multicast: !address.is_loopback(),
    }
}

/// A machine with two networks, one of them down, and the names `localhost` and `group`.
fn world(spec: &ChannelSpec) -> Resolution {
    let mut down = interface(4, "eth9", "10.9.0.1", 30);
    down.is_up = false;
    let interfaces = vec![
        interface(1, "lo", "127.0.0.1", 8),
        interface(1, "lo", "::1", 128),
        interface(2, "eth0", "192.168.1.20", 16),
        interface(2, "eth0", "fe80::20", 64),
        interface(3, "eth1", "192.168.1.30", 24),
        interface(3, "eth1", "2001:db8::30", 48),
        down,
    ];
    let answer = |request: NameRequest| {
        let result = match (request.host.as_str(), request.family) {
            ("localhost", Family::V4) => Ok("127.0.0.1".parse().unwrap()),
            ("localhost", Family::V6) => Ok("::1".parse().unwrap()),
            ("group", _) => Ok("224.0.1.1".parse().unwrap()),
            _ => Err(NameFault {
                reason: "no such name".to_owned(),
            }),
        };
        NameAnswer { request, result }
    };
    Resolution {
        answers: spec.names().into_iter().map(answer).collect(),
        interfaces,
    }
}

fn resolve_as(role: Role, query: &str, unique: i64) -> Result<UdpChannel, ParamsError> {
    let text = if query.starts_with("aeron") {
        query.to_owned()
    } else {
        format!("aeron:udp?{query}")
    };
    let spec = ChannelSpec::from_uri(&ChannelUri::parse(&text).unwrap(), role)?;
    let resolution = world(&spec);
    UdpChannel::resolve(spec, &resolution, unique)
}

fn publication(query: &str) -> UdpChannel {
    resolve_as(Role::Publication, query, 7).unwrap()
}

fn subscription(query: &str) -> UdpChannel {
    resolve_as(Role::Subscription, query, 7).unwrap()
}

fn refusal(role: Role, query: &str) -> (ErrorCode, String) {
    let error = resolve_as(role, query, 7).expect_err(query);
    (error.code, error.text)
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_unicast_publication_sends_from_anywhere_to_its_endpoint() {
    let channel = publication("endpoint=localhost:40123");
    assert_eq!(channel.remote_data, at("127.0.0.1:40123"));
    assert_eq!(channel.remote_control, at("127.0.0.1:40123"));
    assert_eq!(channel.send_bind_address(), at("0.0.0.0:0"));
    assert_eq!(channel.unicast_destination(), Some(at("127.0.0.1:40123")));
    assert_eq!(channel.canonical_form, "UDP-0.0.0.0:0-localhost:40123");
    assert!(!channel.is_multicast && !channel.has_group_semantics());
    assert_eq!(channel.interface, None);
}

#[test]
fn a_unicast_subscription_binds_its_endpoint() {
    let channel = subscription("endpoint=192.168.1.20:40123");
    assert_eq!(channel.receive_bind_address(), at("192.168.1.20:40123"));
    assert_eq!(channel.explicit_control, None);
    let channel = subscription("endpoint=[::1]:40123");
    assert_eq!(channel.receive_bind_address(), at("[::1]:40123"));
    assert_eq!(channel.family, Family::V6);
    assert_eq!(channel.canonical_form, "UDP-[::]:0-[::1]:40123");
}

#[test]
fn an_interface_fixes_the_address_a_unicast_publication_sends_from() {
    for (value, local) in [
        ("192.168.1.20", "192.168.1.20:0"),
        ("192.168.1.20:40300", "192.168.1.20:40300"),
        ("192.168.1.0/24", "192.168.1.30:0"),
        ("localhost:40300/24", "127.0.0.1:40300"),
        ("{eth1}", "192.168.1.30:0"),
        ("{eth0}:9", "192.168.1.20:9"),
        ("0.0.0.0:9", "0.0.0.0:9"),
    ] {
        let channel = publication(&format!("endpoint=10.1.1.1:1|interface={value}"));
        assert_eq!(channel.send_bind_address(), at(local), "{value}");
        assert_eq!(
            channel.canonical_form,
            format!("UDP-{local}-10.1.1.1:1"),
            "{value}"
        );
    }
    let channel = publication("endpoint=[2001:db8::1]:1|interface={eth0}");
    assert_eq!(channel.send_bind_address(), at("[fe80::20%2]:0"));
}

#[test]
fn an_interface_that_is_not_there_is_refused_by_both_sides() {
    for role in [Role::Publication, Role::Subscription] {
        for value in [
            "10.99.0.1",
            "10.9.0.1",
            "{eth9}",
            "{nosuch}",
            "[2001:db9::]/32",
            "[::1]",
        ] {
            let (code, text) = refusal(role, &format!("endpoint=10.1.1.1:1|interface={value}"));
            assert_eq!(code, ErrorCode::GenericError, "{value}");
            assert!(
                text.starts_with("no network interface matches: aeron:udp?"),
                "{text}"
            );
        }
        for value in [
            "10.99.0.1/33",
            "{lo",
            "{}",
            "10.1.1.1:x",
            "10.1.1.1/",
            ":1",
            "[x]",
            "{lo}x",
        ] {
            let (code, text) = refusal(role, &format!("endpoint=10.1.1.1:1|interface={value}"));
            assert_eq!(code, ErrorCode::GenericError, "{value}");
            assert!(
                text.starts_with(&format!("invalid interface={value}: ")),
                "{text}"
            );
        }
        let (code, _) = refusal(role, "endpoint=10.1.1.1:1|interface=lo");
        assert_eq!(code, ErrorCode::UnknownHost);
    }
}

#[test]
fn multicast_without_interface_takes_the_longest_netmask_that_is_not_loopback() {
    let channel = subscription("endpoint=224.20.30.39:40456");
    assert!(channel.is_multicast && channel.has_group_semantics());
    assert_eq!(channel.remote_data, at("224.20.30.39:40456"));
    assert_eq!(channel.remote_control, at("224.20.30.40:40456"));
    assert_eq!(channel.receive_bind_address(), at("0.0.0.0:40456"));
    let used = channel.interface.clone().unwrap();
    assert_eq!((used.index, used.name.as_str()), (3, "eth1"));
    let channel = publication("endpoint=224.20.30.39:40456|ttl=4");
    assert_eq!(channel.send_bind_address(), at("192.168.1.30:0"));
    assert_eq!((channel.ttl, channel.unicast_destination()), (Some(4), None));
    assert_eq!(channel.canonical_form, "UDP-192.168.1.30:0-224.20.30.39:40456");
}

#[test]
fn multicast_falls_back_to_loopback_and_is_refused_without_any_interface() {
    let uri = ChannelUri::parse("aeron:udp?endpoint=224.20.30.39:40456").unwrap();
    let spec = ChannelSpec::from_uri(&uri, Role::Subscription).unwrap();
    assert!(spec.needs_interfaces() && spec.names().is_empty());
    let mut resolution = world(&spec);
    resolution.interfaces.retain(|interface| interface.name == "lo");
    let channel = UdpChannel::resolve(spec.clone(), &resolution, 7).unwrap();
    assert_eq!(channel.interface.unwrap().name, "lo");
    resolution.interfaces.clear();
    let error = UdpChannel::resolve(spec, &resolution, 7).unwrap_err();
    assert!(error.text.starts_with("no network interface for multicast"));
}

#[test]
fn multicast_goes_through_the_interface_that_is_named() {
    for (value, local) in [
        ("localhost", "127.0.0.1:0"),
        ("127.0.0.0/24", "127.0.0.1:0"),
        ("{lo}", "127.0.0.1:0"),
        ("192.168.0.0/16", "192.168.1.30:0"),
        ("192.168.1.20/32", "192.168.1.20:0"),
        ("192.168.1.20", "192.168.1.20:0"),
        ("0.0.0.0/0", "192.168.1.30:0"),
    ] {
        let channel = publication(&format!("endpoint=224.20.30.39:40456|interface={value}"));
        assert_eq!(channel.send_bind_address(), at(local), "{value}");
    }
    for value in ["[::1]", "10.99.0.0/16"] {
        refusal(
            Role::Subscription,
            &format!("endpoint=224.20.30.39:40456|interface={value}"),
        );
    }
}

#[test]
fn multicast_of_ip_version_6_names_the_link() {
    let channel = subscription("endpoint=[ff02::11]:40456|interface={eth0}");
    assert_eq!(channel.remote_data, at("[ff02::11%2]:40456"));
    assert_eq!(channel.remote_control, at("[ff02::12%2]:40456"));
    assert_eq!(channel.receive_bind_address(), at("[::]:40456"));
    assert_eq!(channel.canonical_form, "UDP-[fe80::20%2]:0-[ff02::11]:40456");
}

#[test]
fn even_multicast_addresses_are_refused() {
    for (role, endpoint) in [
        (Role::Publication, "224.20.30.40:40456"),
        (Role::Subscription, "224.20.30.40:40456"),
        (Role::ReceiveDestination, "[ff02::10]:40456"),
    ] {
        let (code, text) = refusal(role, &format!("endpoint={endpoint}"));
        assert_eq!(code, ErrorCode::GenericError);
        assert!(text.contains("odd"), "{text}");
    }
    // A name is looked up first.
    assert!(publication("endpoint=group:1").is_multicast);
    let destination = resolve_as(Role::SendDestination, "endpoint=224.20.30.40:1", 7).unwrap();
    assert_eq!(
        (destination.is_multicast, destination.remote_data),
        (false, at("224.20.30.40:1"))
    );
}

#[test]
fn the_control_group_is_the_next_address_without_carry() {
    assert_eq!(control_group(at("224.0.1.255:9")), at("224.0.1.0:9"));
    assert_eq!(control_group(at("224.0.1.1:9")), at("224.0.1.2:9"));
    assert_eq!(control_group(at("[ff02::1ff]:9")), at("[ff02::100]:9"));
    assert_eq!(control_group(at("[ff02::11%3]:9")), at("[ff02::12%3]:9"));
}

#[test]
fn control_is_where_a_publication_binds_and_where_a_subscription_reports_to() {
    let channel = publication("endpoint=10.1.1.1:1|control=localhost:40200");
    assert_eq!(channel.send_bind_address(), at("127.0.0.1:40200"));
    assert_eq!(channel.unicast_destination(), Some(at("10.1.1.1:1")));
    assert_eq!(channel.canonical_form, "UDP-localhost:40200-10.1.1.1:1");

    let channel = subscription("endpoint=localhost:40201|control=10.1.1.1:40200");
    assert_eq!(channel.receive_bind_address(), at("127.0.0.1:40201"));
    assert_eq!(channel.remote_control, at("10.1.1.1:40200"));
    assert_eq!(channel.explicit_control, Some(at("10.1.1.1:40200")));

    let channel = subscription("control=10.1.1.1:40200|control-mode=response");
    assert_eq!(channel.receive_bind_address(), at("0.0.0.0:0"));
    assert!(channel.is_response() && !channel.has_group_semantics());
}

#[test]
fn several_destinations_have_no_address_of_their_own() {
    let channel = publication("control-mode=manual");
    assert!(channel.is_manual() && channel.has_group_semantics());
    assert_eq!(channel.send_bind_address(), at("0.0.0.0:0"));
    assert_eq!(channel.unicast_destination(), None);
    let channel = publication("control-mode=dynamic|control=192.168.1.20:40200");
    assert!(channel.is_dynamic() && channel.is_multi_destination());
    assert_eq!(channel.send_bind_address(), at("192.168.1.20:40200"));
    assert_eq!(channel.canonical_form, "UDP-192.168.1.20:40200-0.0.0.0:0");
    let channel = publication("control-mode=response|control=localhost:40200");
    assert_eq!(channel.send_bind_address(), at("127.0.0.1:40200"));
    assert_eq!(channel.unicast_destination(), None);
}

#[test]
fn channels_without_port_or_address_are_set_apart() {
    for (role, query) in [
        (Role::Subscription, "endpoint=localhost:0"),
        (Role::Subscription, "control-mode=manual"),
        (Role::Subscription, "control-mode=manual|endpoint=localhost:0"),
        (Role::Subscription, "mtu=8|rcv-wnd=64k|control-mode=response"),
        (Role::Subscription, "tags=7"),
        (Role::Publication, "control-mode=manual"),
        (Role::Publication, "control-mode=manual|endpoint=localhost:0"),
        (Role::Publication, "endpoint=10.1.1.1:1|control=localhost:0"),
        (Role::Publication, "control-mode=dynamic|control=localhost:0"),
    ] {
        let one = resolve_as(role, query, 7).unwrap();
        let other = resolve_as(role, query, 8).unwrap();
        assert!(!one.is_shared_by(&other), "{query}");
        assert!(one.canonical_form.ends_with("#7"), "{}", one.canonical_form);
    }
    let destination = resolve_as(Role::ReceiveDestination, "endpoint=localhost:0", 7).unwrap();
    assert_eq!(destination.canonical_form, "UDP-0.0.0.0:0-localhost:0");
}

#[test]
fn sharing_goes_by_the_text_of_the_addresses_and_by_tags() {
    let shares = |a: &str, b: &str| subscription(a).is_shared_by(&subscription(b));
    assert!(shares(
        "endpoint=localhost:1|alias=x",
        "endpoint=localhost:1|mtu=64"
    ));
    assert!(shares("endpoint=localhost:1|tags=5", "endpoint=localhost:1"));
    assert!(shares("endpoint=localhost:1", "endpoint=localhost:1|tags=5"));
    assert!(!shares(
        "endpoint=localhost:1|tags=5",
        "endpoint=localhost:1|tags=6"
    ));
    // As in the C driver, which then fails to bind: a name may mean another address tomorrow.
    assert!(!shares("endpoint=localhost:1", "endpoint=127.0.0.1:1"));
    assert!(!shares(
        "endpoint=localhost:1",
        "endpoint=localhost:1|interface=localhost"
    ));
    assert!(!shares(
        "endpoint=localhost:1",
        "endpoint=localhost:1|control=localhost:2"
    ));
}

#[test]
fn a_spy_has_the_form_of_the_publication_it_spies_on() {
    for query in [
        "endpoint=localhost:40123",
        "endpoint=10.1.1.1:1|control=localhost:40200",
        "control-mode=dynamic|control=192.168.1.20:40200",
        "endpoint=224.20.30.39:40456|interface=localhost",
    ] {
        let spy = subscription(&format!("aeron-spy:aeron:udp?{query}"));
        assert!(publication(query).is_shared_by(&spy), "{query}");
    }
}

#[test]
fn a_tag_means_an_endpoint_unless_addresses_contradict() {
    let existing = subscription("endpoint=localhost:40202|tags=5");
    let local = at("127.0.0.1:40202");
    let verdict = |query: &str| existing.matches_tag(&subscription(query), local);
    for query in [
        "tags=5",
        "endpoint=localhost:40202|tags=5",
        "endpoint=127.0.0.1:40202|tags=5",
    ] {
        assert_eq!(verdict(query), Ok(true), "{query}");
    }
    for query in [
        "tags=6",
        "endpoint=localhost:40202",
        "endpoint=localhost:1|tags=6",
    ] {
        assert_eq!(verdict(query), Ok(false), "{query}");
    }
    for query in [
        "endpoint=localhost:40203|tags=5",
        "control-mode=manual|tags=5",
        "control=localhost:9|tags=5",
        "endpoint=localhost:40202|control=localhost:9|tags=5",
    ] {
        let error = verdict(query).unwrap_err();
        assert_eq!(error.code, ErrorCode::GenericError, "{query}");
        assert!(
            error.text.starts_with("tag 5 is that of aeron:udp?"),
            "{}",
            error.text
        );
    }
}

#[test]
fn a_tag_with_port_zero_means_the_port_that_was_bound() {
    let existing = subscription("endpoint=localhost:0|tags=8");
    let local = at("127.0.0.1:54321");
    let verdict = |query: &str| existing.matches_tag(&subscription(query), local);
    assert_eq!(verdict("endpoint=localhost:0|tags=8"), Ok(true));
    assert_eq!(verdict("endpoint=127.0.0.1:54321|tags=8"), Ok(true));
    assert!(verdict("endpoint=127.0.0.1:54322|tags=8").is_err());
}

#[test]
fn ports_are_needed_where_somebody_has_to_be_reached() {
    let generic = ErrorCode::GenericError;
    for (role, query, names) in [
        (Role::Publication, "endpoint=localhost:0", "endpoint"),
        (Role::SendDestination, "endpoint=localhost:0", "endpoint"),
        (Role::Publication, "endpoint=localhost", "endpoint"),
        (Role::Publication, "endpoint=localhost:70000", "endpoint"),
        (Role::Subscription, "endpoint=localhost", "endpoint"),
        (Role::Subscription, "control=localhost:0", "control"),
        (Role::Subscription, "endpoint=a:1|control=localhost:0", "control"),
        (
            Role::ReceiveDestination,
            "endpoint=a:1|control=localhost:0",
            "control",
        ),
        (Role::Publication, "control=localhost:40200", "control-mode"),
    ] {
        let (code, text) = refusal(role, query);
        assert_eq!(code, generic, "{query}");
        assert!(text.contains(names), "{text}");
    }
    assert_eq!(
        subscription("control=localhost:40200").receive_bind_address(),
        at("0.0.0.0:0")
    );
}

#[test]
fn channels_that_say_nothing_are_invalid() {
    for role in [Role::Publication, Role::Subscription] {
        for query in ["alias=x", "control-mode=odd", "control-mode=dynamic"] {
            assert_eq!(refusal(role, query).0, ErrorCode::InvalidChannel, "{query}");
        }
    }
    let uri = ChannelUri::parse("aeron:udp?tags=7").unwrap();
    assert!(
        ChannelSpec::from_uri(&uri, Role::Publication)
            .unwrap()
            .is_tag_only()
    );
    let uri = ChannelUri::parse("aeron:udp?tags=7|endpoint=a:1").unwrap();
    assert!(
        !ChannelSpec::from_uri(&uri, Role::Publication)
            .unwrap()
            .is_tag_only()
    );
    let uri = ChannelUri::parse("aeron:ipc").unwrap();
    assert!(ChannelSpec::from_uri(&uri, Role::Publication).is_err());
}

#[test]
fn names_without_address_are_named() {
    for (query, host) in [
        ("endpoint=nosuch.invalid:1", "nosuch.invalid"),
        ("endpoint=256.1.1.1:1", "256.1.1.1"),
        ("endpoint=localhost:1|control=nosuch:1", "nosuch"),
        ("endpoint=localhost:1|interface=nosuch", "nosuch"),
    ] {
        let (code, text) = refusal(Role::Publication, query);
        assert_eq!(code, ErrorCode::UnknownHost);
        assert!(
            text.starts_with(&format!("Unable to resolve host=({host})")),
            "{text}"
        );
        assert!(text.contains("no such name"), "{text}");
    }
}

#[test]
fn only_names_and_interfaces_are_asked_for() {
    let spec = |query: &str| {
        let uri = ChannelUri::parse(&format!("aeron:udp?{query}")).unwrap();
        ChannelSpec::from_uri(&uri, Role::Publication).unwrap()
    };
    assert!(spec("endpoint=10.1.1.1:1").is_self_contained());
    assert!(spec("endpoint=[::1]:1|control=[::1]:2").is_self_contained());
    assert!(spec("endpoint=[fe80::1%2]:1").is_self_contained());
    assert!(spec("control-mode=manual").is_self_contained());
    for query in [
        "endpoint=localhost:1",
        "endpoint=10.1.1.1:1|control=localhost:1",
        "endpoint=10.1.1.1:1|interface=10.1.1.1",
        "endpoint=224.0.1.1:1",
        "endpoint=[fe80::1%eth0]:1",
    ] {
        assert!(!spec(query).is_self_contained(), "{query}");
    }
    let names = spec("endpoint=[::1]:1|control=ctl:1|interface=itf").names();
    let asked: Vec<_> = names
        .iter()
        .map(|name| (name.host.as_str(), name.used_as, name.family))
        .collect();
    assert_eq!(
        asked,
        [
            ("ctl", NameUse::Control, Family::V6),
            ("itf", NameUse::Interface, Family::V6)
        ]
    );
}

#[test]
fn scopes_are_names_or_numbers_of_interfaces() {
    let channel = publication("endpoint=[fe80::1%eth1]:1");
    assert_eq!(channel.remote_data, at("[fe80::1%3]:1"));
    let channel = publication("endpoint=[fe80::1%2]:1");
    assert_eq!(channel.remote_data, at("[fe80::1%2]:1"));
    // The scope of an address that is the same everywhere would only keep it from comparing equal.
    assert_eq!(publication("endpoint=[::1%lo]:1").remote_data, at("[::1]:1"));
    let (code, text) = refusal(Role::Publication, "endpoint=[fe80::1%nosuch]:1");
    assert_eq!(code, ErrorCode::GenericError);
    assert!(text.contains("scope"), "{text}");
}

#[test]
fn addresses_of_two_families_do_not_go_together() {
    let (code, text) = refusal(Role::Publication, "endpoint=[::1]:1|control=127.0.0.1:2");
    assert_eq!(code, ErrorCode::GenericError);
    assert!(text.contains("families"), "{text}");
    // A name follows the literal address beside it.
    let channel = publication("endpoint=[2001:db8::1]:1|control=localhost:2");
    assert_eq!(channel.send_bind_address(), at("[::1]:2"));
}

#[test]
fn a_host_to_be_looked_up_again_is_read_from_its_text() {
    let name = HostPort::parse("example.org:40123").unwrap();
    let request = name.request(NameUse::Endpoint, Family::V4).unwrap();
    assert_eq!((request.host.as_str(), name.port), ("example.org", 40123));
    let literal = HostPort::parse("[::1]:9").unwrap();
    assert_eq!(literal.request(NameUse::Endpoint, Family::V4), None);
    assert!(HostPort::parse("example.org").is_none());
}
