//! `host:port` as channels write it. Names are kept as text; resolving them is the driver's.

#![forbid(unsafe_code)]

use super::value::ValueFault;

/// A host, which may be a name or an IP address, and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address<'a> {
    /// Name or address, without the brackets of an IPv6 address and without its scope.
    pub host: &'a str,
    /// What follows `%` in an IPv6 address: interface name or index.
    pub scope: Option<&'a str>,
    /// Whether the host was in brackets, that is, is an IPv6 address.
    pub is_bracketed: bool,
    /// UDP port; 0 lets the system choose.
    pub port: u16,
}

impl<'a> Address<'a> {
    /// Reads `host:port` or `[ipv6%scope]:port`. The port is mandatory.
    ///
    /// # Errors
    /// [`ValueFault::NotAddress`], or [`ValueFault::OutOfRange`] for a port above 65535.
    pub fn parse(text: &'a str) -> Result<Address<'a>, ValueFault> {
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']').ok_or(ValueFault::NotAddress)?;
            let port = parse_port(after.strip_prefix(':').ok_or(ValueFault::NotAddress)?)?;
            let (host, scope) = match inside.split_once('%') {
                Some((host, scope)) if !scope.is_empty() => (host, Some(scope)),
                Some(_) => return Err(ValueFault::NotAddress),
                None => (inside, None),
            };
            if host.parse::<core::net::Ipv6Addr>().is_err() {
                return Err(ValueFault::NotAddress);
            }
            return Ok(Address {
                host,
                scope,
                is_bracketed: true,
                port,
            });
        }
        let (host, port) = text.split_once(':').ok_or(ValueFault::NotAddress)?;
        if host.is_empty() {
            return Err(ValueFault::NotAddress);
        }
        Ok(Address {
            host,
            scope: None,
            is_bracketed: false,
            port: parse_port(port)?,
        })
    }
}

fn parse_port(text: &str) -> Result<u16, ValueFault> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ValueFault::NotAddress);
    }
    text.parse().map_err(|_| ValueFault::OutOfRange {
        min: 0,
        max: i64::from(u16::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_separated() {
        let address = Address::parse("localhost:40123").unwrap();
        assert_eq!((address.host, address.port), ("localhost", 40123));
        assert!(!address.is_bracketed);
        let address = Address::parse("[fe80::1%eth0]:0").unwrap();
        assert_eq!(
            (address.host, address.scope, address.port),
            ("fe80::1", Some("eth0"), 0)
        );
        assert!(address.is_bracketed);
        assert_eq!(Address::parse("[::]:1").unwrap().scope, None);
    }

    #[test]
    fn an_address_without_a_valid_port_is_none() {
        for text in [
            "",
            "localhost",
            "localhost:",
            ":1",
            "a:b",
            "a:-1",
            "a:+1",
            "a:1:2",
            "[::1]",
            "[::1]1",
            "[::1:1",
            "[x]:1",
            "[]:1",
            "[::1%]:1",
            "::1:80",
        ] {
            assert_eq!(Address::parse(text), Err(ValueFault::NotAddress), "{text}");
        }
        assert!(matches!(
            Address::parse("a:65536"),
            Err(ValueFault::OutOfRange { .. })
        ));
        assert!(Address::parse("a:65535").is_ok());
    }
}
