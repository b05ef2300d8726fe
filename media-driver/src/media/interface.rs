//! Which network interface a channel means (wire-protocol 6.2). The list of interfaces is an input: what the system has
//! is asked for elsewhere, on the agent that makes slow system calls.
#![forbid(unsafe_code)]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::io::NetworkInterface;

/// Families of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The address that means every interface.
    #[must_use]
    pub const fn wildcard(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// Bits of an address.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// How the interface is named: `interface` of a channel, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceParam {
    /// `addr[:port][/prefix]`: an interface whose address has this prefix.
    Address {
        /// Address or name, without brackets and scope.
        host: String,
        /// Whether the host was in brackets, that is, is an IPv6 address.
        is_bracketed: bool,
        /// Port to bind; 0 if not given.
        port: u16,
        /// Bits that have to match; `None` if not given, which means all.
        prefix_length: Option<u8>,
    },
    /// `{name}[:port]`: the interface of this name.
    Named {
        /// Its name.
        name: String,
        /// Port to bind; 0 if not given.
        port: u16,
    },
}

impl InterfaceParam {
    /// Reads the value of `interface`; `None` if it is no such value.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('{') {
            let (name, after) = rest.split_once('}')?;
            let port = match after.strip_prefix(':') {
                Some(port) => decimal(port)?,
                None if after.is_empty() => 0,
                None => return None,
            };
            return (!name.is_empty()).then(|| Self::Named {
                name: name.to_owned(),
                port,
            });
        }
        let (address, prefix_length) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(decimal(prefix)?)),
            None => (text, None),
        };
        let (host, is_bracketed, port) = if let Some(rest) = address.strip_prefix('[') {
            let (inside, after) = rest.split_once(']')?;
            // The scope only says which interface is meant, and that is what is being looked for.
            let host = inside.split_once('%').map_or(inside, |(host, _)| host);
            host.parse::<Ipv6Addr>().ok()?;
            (host, true, after)
        } else {
            let end = address.find(':').unwrap_or(address.len());
            let (host, after) = address.split_at(end);
            (host, false, after)
        };
        let port = match port.strip_prefix(':') {
            Some(port) => decimal(port)?,
            None if port.is_empty() => 0,
            None => return None,
        };
        let most = if is_bracketed { 128 } else { 32 };
        let is_sound = !host.is_empty() && prefix_length.is_none_or(|length| length <= most);
        is_sound.then(|| Self::Address {
            host: host.to_owned(),
            is_bracketed,
            port,
            prefix_length,
        })
    }

    /// Port to bind; 0 if not given.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Address { port, .. } | Self::Named { port, .. } => *port,
        }
    }
}

/// A decimal number without sign.
fn decimal<T: core::str::FromStr>(text: &str) -> Option<T> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { text.parse().ok() } else { None }
}

/// The interface that is up and whose address begins with the first `prefix_length` bits of `address`. Of several the one
/// with the longest netmask is taken, for multicast preferably one that can carry it.
#[must_use]
pub fn find_by_prefix(
    interfaces: &[NetworkInterface],
    address: IpAddr,
    prefix_length: u8,
    for_multicast: bool,
) -> Option<&NetworkInterface> {
    let matching = interfaces
        .iter()
        .filter(|interface| interface.is_up && shares_prefix(interface.address, address, prefix_length));
    // `max_by_key` takes the last of equals; of equals the first of the system's list is wanted.
    matching.rev().max_by_key(|interface| {
        let is_able = !for_multicast || interface.is_multicast;
        (is_able, interface.prefix_length)
    })
}

/// The interface for multicast when the channel names none: up, able to carry multicast, with the longest netmask;
/// loopback if there is no other.
#[must_use]
pub fn find_for_multicast(interfaces: &[NetworkInterface], family: Family) -> Option<&NetworkInterface> {
    let usable = interfaces.iter().filter(|interface| {
        interface.is_up
            && Family::of(interface.address) == family
            && (interface.is_multicast || interface.is_loopback)
    });
    usable
        .rev()
        .max_by_key(|interface| (!interface.is_loopback, interface.prefix_length))
}

/// The first address of the needed family of the interface with this name, if it is up.
#[must_use]
pub fn find_by_name<'a>(
    interfaces: &'a [NetworkInterface],
    name: &str,
    family: Family,
) -> Option<&'a NetworkInterface> {
    interfaces.iter().find(|interface| {
        interface.is_up && interface.name == name && Family::of(interface.address) == family
    })
}

/// Whether two addresses of one family have their first `length` bits in common.
#[must_use]
pub fn shares_prefix(a: IpAddr, b: IpAddr, length: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let differing = u32::from(a) ^ u32::from(b);
            length == 0 || differing.checked_shr(32 - u32::from(length.min(32))) == Some(0)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let differing = u128::from(a) ^ u128::from(b);
            length == 0 || differing.checked_shr(128 - u32::from(length.min(128))) == Some(0)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(rows: &[(&str, &str, u8, bool)]) -> Vec<NetworkInterface> {
        let row =
            |(index, (name, address, prefix_length, is_multicast)): (usize, &(&str, &str, u8, bool))| {
                let address: IpAddr = address.parse().unwrap();
                NetworkInterface {
                    name: (*name).to_owned(),
                    index: index as u32 + 1,
                    address,
                    prefix_length: *prefix_length,
                    is_up: true,
                    is_loopback: address.is_loopback(),
                    is_multicast: *is_multicast,
                }
            };
        rows.iter().enumerate().map(row).collect()
    }

    fn v4(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn values_are_taken_apart() {
        let address = |host: &str, is_bracketed, port, prefix_length| {
            Some(InterfaceParam::Address {
                host: host.to_owned(),
                is_bracketed,
                port,
                prefix_length,
            })
        };
        let parse = InterfaceParam::parse;
        assert_eq!(
            parse("192.168.1.0/24"),
            address("192.168.1.0", false, 0, Some(24))
        );
        assert_eq!(parse("192.168.1.20:9"), address("192.168.1.20", false, 9, None));
        assert_eq!(parse("localhost:9/8"), address("localhost", false, 9, Some(8)));
        assert_eq!(
            parse("[fe80::1%eth0]:9/64"),
            address("fe80::1", true, 9, Some(64))
        );
        assert_eq!(parse("[::1]"), address("::1", true, 0, None));
        let named = |name: &str, port| {
            let name = name.to_owned();
            Some(InterfaceParam::Named { name, port })
        };
        assert_eq!(parse("{eth0}"), named("eth0", 0));
        assert_eq!(parse("{eth0.1:2}:77"), named("eth0.1:2", 77));
        for text in [
            "",
            "{}",
            "{eth0",
            "{eth0}x",
            "{eth0}:",
            "a:",
            "a:70000",
            "a/",
            "a/33",
            "a/-1",
            "a/+1",
            ":1",
            "/8",
            "[::1]/129",
            "[::1]x",
            "[::1",
            "[localhost]",
            "a:1:2",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("{eth0}:77").unwrap().port(), 77);
    }

    #[test]
    fn prefixes_are_compared_bit_by_bit() {
        let shares = |a, b, length| shares_prefix(v4(a), v4(b), length);
        assert!(shares("10.1.2.3", "10.1.2.3", 32));
        assert!(!shares("10.1.2.3", "10.1.2.2", 32));
        assert!(shares("10.1.2.3", "10.1.2.2", 31));
        assert!(shares("10.1.2.3", "250.1.2.3", 0));
        assert!(!shares("10.1.2.3", "138.1.2.3", 1));
        assert!(shares("2001:db8::1", "2001:db8:ffff::", 32));
        assert!(!shares("2001:db8::1", "2001:db8:8000::", 33));
        assert!(shares("::1", "ff::", 0));
        assert!(!shares("::1", "127.0.0.1", 0));
        assert!(shares("::1", "::1", 255), "more bits than there are mean all");
    }

    #[test]
    fn the_longest_netmask_of_those_that_match_wins_and_then_the_first() {
        let list = interfaces(&[
            ("lo", "127.0.0.1", 8, false),
            ("a", "10.1.0.1", 16, true),
            ("b", "10.1.1.1", 24, true),
            ("c", "10.1.2.1", 24, true),
            ("tun", "10.1.3.1", 30, false),
        ]);
        let found = |address, length, multicast| {
            find_by_prefix(&list, v4(address), length, multicast).map(|found| found.name.as_str())
        };
        assert_eq!(found("10.1.0.0", 16, true), Some("b"));
        assert_eq!(found("10.1.0.0", 16, false), Some("tun"));
        assert_eq!(found("10.1.3.1", 32, true), Some("tun"), "asked for by address");
        assert_eq!(found("127.0.0.1", 32, true), Some("lo"));
        assert_eq!(found("10.2.0.0", 16, true), None);
        let chosen = find_for_multicast(&list, Family::V4).unwrap();
        assert_eq!(chosen.name, "b");
        assert_eq!(find_for_multicast(&list, Family::V6), None);
        assert_eq!(find_for_multicast(&list[..1], Family::V4).unwrap().name, "lo");
        assert_eq!(find_for_multicast(&list[4..], Family::V4), None);
    }

    #[test]
    fn a_name_gives_the_first_address_of_the_family() {
        let mut list = interfaces(&[
            ("eth0", "fe80::1", 64, true),
            ("eth0", "10.0.0.1", 8, true),
            ("eth0", "10.0.0.2", 8, true),
        ]);
        let found = |list: &[NetworkInterface], family| find_by_name(list, "eth0", family).map(|i| i.address);
        assert_eq!(found(&list, Family::V4), Some(v4("10.0.0.1")));
        assert_eq!(found(&list, Family::V6), Some(v4("fe80::1")));
        for interface in &mut list {
            interface.is_up = false;
        }
        assert_eq!(found(&list, Family::V4), None);
    }
}
