//! The text of a channel taken apart, with the tolerance and the strictness of the parser table of spec 13.3.

#![forbid(unsafe_code)]

use core::fmt;
use core::ops::Range;
use core::str::FromStr;

use thiserror::Error;

use super::params::{ControlMode, Params};

/// Longest channel text, bytes.
pub const MAX_CHANNEL_LENGTH: usize = 4095;

const SPY_PREFIX: &str = "aeron-spy:";
const AERON_PREFIX: &str = "aeron:";

/// Keys of which the last occurrence counts; of all others the first does, as in the C driver.
const LAST_WINS: [&str; 6] = ["endpoint", "interface", "control", "control-mode", "ttl", "tags"];

/// How messages of a channel travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Media {
    /// Through shared memory, inside one driver.
    Ipc,
    /// Through UDP.
    Udp,
}

/// What a channel is wanted for; not every channel serves every role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Publishing to it.
    Publication,
    /// Subscribing to it.
    Subscription,
    /// Adding it to a publication, or removing it.
    SendDestination,
    /// Adding it to a subscription, or removing it.
    ReceiveDestination,
}

/// A channel whose syntax is valid. Values of parameters are checked by [`Params`], the fitness for a purpose by
/// [`ChannelUri::check_role`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelUri {
    text: String,
    media: Media,
    is_spy: bool,
    /// Ranges of keys and values in `text`, in order.
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    key: Range<usize>,
    value: Range<usize>,
}

/// What is wrong with a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UriFault {
    /// Longer than [`MAX_CHANNEL_LENGTH`].
    #[error("URI is longer than 4095 characters")]
    TooLong,
    /// Not UTF-8.
    #[error("URI is no text")]
    NotText,
    /// Neither `aeron:ipc` nor `aeron:udp?`, with or without the spy prefix.
    #[error("invalid URI scheme or transport")]
    SchemeOrTransport,
    /// A `=` without a key before it.
    #[error("empty key in URI")]
    EmptyKey,
    /// A key without `=` before the next parameter.
    #[error("key without value in URI")]
    KeyWithoutValue,
    /// Nothing between `=` and the next parameter.
    #[error("empty value in URI")]
    EmptyValue,
    /// A spy of IPC: an ordinary subscription does that.
    #[error("spies are for aeron:udp only")]
    SpyOfIpc,
    /// The spy prefix where something is sent.
    #[error("spy prefix is for subscriptions only")]
    SpyNotAllowed,
    /// Nothing to bind or to send to.
    #[error("channel needs an endpoint, control or tags")]
    NoAddress,
    /// `control-mode=dynamic` alone.
    #[error("control-mode=dynamic needs control")]
    DynamicWithoutControl,
    /// Only UDP channels are destinations of a publication.
    #[error("destination is not aeron:udp")]
    DestinationNotUdp,
    /// A destination has to name where to send.
    #[error("destination has no endpoint")]
    DestinationWithoutEndpoint,
}

/// A channel that can not be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{fault}: {uri}")]
pub struct UriError {
    /// What is wrong.
    pub fault: UriFault,
    /// The channel, cut to [`MAX_CHANNEL_LENGTH`] bytes.
    pub uri: String,
}

impl UriError {
    fn new(fault: UriFault, uri: &[u8]) -> Self {
        let kept = uri.get(..MAX_CHANNEL_LENGTH).unwrap_or(uri);
        Self {
            fault,
            uri: String::from_utf8_lossy(kept).into_owned(),
        }
    }
}

impl ChannelUri {
    /// Takes a channel text apart.
    ///
    /// # Errors
    /// A [`UriFault`] of syntax; for every one of them the driver answers INVALID_CHANNEL.
    pub fn parse(text: &str) -> Result<ChannelUri, UriError> {
        parse(text).map_err(|fault| UriError::new(fault, text.as_bytes()))
    }

    /// As [`parse`](Self::parse), for bytes of a message.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and [`UriFault::NotText`].
    pub fn parse_bytes(bytes: &[u8]) -> Result<ChannelUri, UriError> {
        if bytes.len() > MAX_CHANNEL_LENGTH {
            return Err(UriError::new(UriFault::TooLong, bytes));
        }
        match core::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text),
            Err(_) => Err(UriError::new(UriFault::NotText, bytes)),
        }
    }

    /// The text this was parsed from.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How messages travel.
    #[must_use]
    pub const fn media(&self) -> Media {
        self.media
    }

    /// Whether the media is IPC.
    #[must_use]
    pub const fn is_ipc(&self) -> bool {
        matches!(self.media, Media::Ipc)
    }

    /// Whether the media is UDP.
    #[must_use]
    pub const fn is_udp(&self) -> bool {
        matches!(self.media, Media::Udp)
    }

    /// Whether the channel has the prefix `aeron-spy:`.
    #[must_use]
    pub const fn is_spy(&self) -> bool {
        self.is_spy
    }

    /// The text without the prefix `aeron-spy:`: the channel of the publication spied on.
    #[must_use]
    pub fn without_spy_prefix(&self) -> &str {
        self.text.strip_prefix(SPY_PREFIX).unwrap_or(&self.text)
    }

    /// The value of a key. Of a repeated key the first counts, except for endpoint, interface, control,
    /// control-mode, ttl and tags, where the last does.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut values = self.iter().filter(|(k, _)| *k == key).map(|(_, value)| value);
        if LAST_WINS.contains(&key) {
            values.last()
        } else {
            values.next()
        }
    }

    /// All keys and values in order, repetitions and unknown keys included.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().filter_map(|entry| {
            Some((
                self.text.get(entry.key.clone())?,
                self.text.get(entry.value.clone())?,
            ))
        })
    }

    /// The parameters with their types.
    #[must_use]
    pub const fn params(&self) -> Params<'_> {
        Params::new(self)
    }

    /// Whether the channel can serve the role, as far as its text tells.
    ///
    /// # Errors
    /// [`UriFault::SpyNotAllowed`], [`UriFault::NoAddress`], [`UriFault::DynamicWithoutControl`],
    /// [`UriFault::DestinationNotUdp`] or [`UriFault::DestinationWithoutEndpoint`].
    pub fn check_role(&self, role: Role) -> Result<(), UriError> {
        self.role_fault(role)
            .map_or(Ok(()), |fault| Err(UriError::new(fault, self.text.as_bytes())))
    }

    fn role_fault(&self, role: Role) -> Option<UriFault> {
        let sends = matches!(role, Role::Publication | Role::SendDestination);
        if self.is_spy && sends {
            return Some(UriFault::SpyNotAllowed);
        }
        if role == Role::SendDestination {
            if self.is_ipc() {
                return Some(UriFault::DestinationNotUdp);
            }
            if self.get("endpoint").is_none() {
                return Some(UriFault::DestinationWithoutEndpoint);
            }
        }
        if self.is_ipc() {
            return None;
        }
        let mode = self.params().control_mode();
        let has_control = self.get("control").is_some();
        if mode == Some(ControlMode::Dynamic) && !has_control {
            return Some(UriFault::DynamicWithoutControl);
        }
        let has_address = has_control || self.get("endpoint").is_some() || self.get("tags").is_some();
        let needs_none = matches!(mode, Some(ControlMode::Manual | ControlMode::Response));
        (!has_address && !needs_none).then_some(UriFault::NoAddress)
    }
}

impl fmt::Display for ChannelUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ChannelUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

fn parse(text: &str) -> Result<ChannelUri, UriFault> {
    if text.len() > MAX_CHANNEL_LENGTH {
        return Err(UriFault::TooLong);
    }
    let (is_spy, channel) = match text.strip_prefix(SPY_PREFIX) {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let rest = channel
        .strip_prefix(AERON_PREFIX)
        .ok_or(UriFault::SchemeOrTransport)?;
    let (media, query) = if let Some(query) = rest.strip_prefix("udp?") {
        (Media::Udp, query)
    } else if let Some(query) = rest.strip_prefix("ipc?") {
        (Media::Ipc, query)
    } else if rest == "ipc" {
        (Media::Ipc, "")
    } else {
        return Err(UriFault::SchemeOrTransport);
    };
    if is_spy && media == Media::Ipc {
        return Err(UriFault::SpyOfIpc);
    }
    let entries = parse_query(query, text.len() - query.len())?;
    Ok(ChannelUri {
        text: text.to_owned(),
        media,
        is_spy,
        entries,
    })
}

/// Only the last parameter may lack its value (and is then no parameter); `=` is an ordinary character of values.
fn parse_query(query: &str, start: usize) -> Result<Vec<Entry>, UriFault> {
    let mut entries = Vec::new();
    let mut offset = start;
    let mut rest = Some(query);
    while let Some(text) = rest {
        let (param, next) = match text.split_once('|') {
            Some((param, next)) => (param, Some(next)),
            None => (text, None),
        };
        match param.split_once('=') {
            Some(("", _)) => return Err(UriFault::EmptyKey),
            Some((_, "")) if next.is_some() => return Err(UriFault::EmptyValue),
            Some((_, "")) => {}
            Some((key, value)) => {
                let value_start = offset + key.len() + 1;
                entries.push(Entry {
                    key: offset..offset + key.len(),
                    value: value_start..value_start + value.len(),
                });
            }
            None if next.is_some() => return Err(UriFault::KeyWithoutValue),
            None => {}
        }
        offset += param.len() + 1;
        rest = next;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Option<UriFault> {
        ChannelUri::parse(text).err().map(|error| error.fault)
    }

    fn role_fault(text: &str, role: Role) -> Option<UriFault> {
        ChannelUri::parse(text)
            .and_then(|uri| uri.check_role(role))
            .err()
            .map(|error| error.fault)
    }

    fn entries(text: &str) -> Vec<(String, String)> {
        let uri = ChannelUri::parse(text).unwrap();
        uri.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn empty_keys_and_inner_empty_values_are_refused() {
        assert_eq!(fault("aeron:ipc?=x"), Some(UriFault::EmptyKey));
        assert_eq!(fault("aeron:ipc?="), Some(UriFault::EmptyKey));
        assert_eq!(fault("aeron:ipc?a=b|=x"), Some(UriFault::EmptyKey));
        assert_eq!(fault("aeron:ipc?a=|b=c"), Some(UriFault::EmptyValue));
        assert_eq!(fault("aeron:ipc?a=|"), Some(UriFault::EmptyValue));
        assert_eq!(fault("aeron:ipc?a=b||c=d"), Some(UriFault::KeyWithoutValue));
        assert_eq!(fault("aeron:ipc?a=b||"), Some(UriFault::KeyWithoutValue));
        assert_eq!(fault("aeron:ipc?|a=b"), Some(UriFault::KeyWithoutValue));
        assert_eq!(fault("aeron:ipc?abc|a=b"), Some(UriFault::KeyWithoutValue));
    }

    #[test]
    fn an_unfinished_last_parameter_is_ignored() {
        assert_eq!(entries("aeron:ipc"), []);
        assert_eq!(entries("aeron:ipc?"), []);
        assert_eq!(entries("aeron:ipc?abc"), []);
        assert_eq!(entries("aeron:ipc?a="), []);
        assert_eq!(entries("aeron:ipc?a=b|"), [pair("a", "b")]);
        assert_eq!(entries("aeron:ipc?a=b|c"), [pair("a", "b")]);
        assert_eq!(entries("aeron:ipc?a=b|c="), [pair("a", "b")]);
    }

    #[test]
    fn parameters_keep_their_order_and_equals_signs_in_values() {
        assert_eq!(
            entries("aeron:udp?endpoint=[::1]:40123|z=1|x=a=b"),
            [pair("endpoint", "[::1]:40123"), pair("z", "1"), pair("x", "a=b")]
        );
    }

    #[test]
    fn of_repeated_keys_the_first_counts_except_for_addresses() {
        let uri = ChannelUri::parse("aeron:udp?mtu=64|mtu=128|endpoint=a:1|endpoint=b:2|unknown=x").unwrap();
        assert_eq!(uri.get("mtu"), Some("64"));
        assert_eq!(uri.get("endpoint"), Some("b:2"));
        assert_eq!(uri.get("unknown"), Some("x"));
        assert_eq!(uri.get("MTU"), None);
    }

    #[test]
    fn other_schemes_and_letter_cases_are_refused_with_the_known_text() {
        for text in [
            "",
            "aeron",
            "aeron:",
            "aeron:ipcx",
            "aeron:udp",
            "aeron:udpx?a=b",
            "aeron:tcp?x=1",
            "AERON:ipc",
            "aeron:IPC",
            "aeron-spy:",
            "aeron-spy:aeron:udp",
            "aeron-spy:aeron-spy:aeron:udp?endpoint=a:1",
            " aeron:ipc",
            "aeron:ipc ",
        ] {
            let error = ChannelUri::parse(text).unwrap_err();
            assert_eq!(error.fault, UriFault::SchemeOrTransport, "{text}");
            assert_eq!(
                error.to_string(),
                format!("invalid URI scheme or transport: {text}")
            );
        }
        assert_eq!(fault("aeron-spy:aeron:ipc"), Some(UriFault::SpyOfIpc));
    }

    #[test]
    fn the_length_limit_is_4095_bytes() {
        let prefix = "aeron:ipc?alias=";
        let longest = format!("{prefix}{}", "x".repeat(MAX_CHANNEL_LENGTH - prefix.len()));
        assert_eq!(longest.len(), 4095);
        assert_eq!(fault(&longest), None);
        assert_eq!(fault(&format!("{longest}x")), Some(UriFault::TooLong));
        let error = ChannelUri::parse_bytes(&[b'x'; 100_000]).unwrap_err();
        assert_eq!((error.fault, error.uri.len()), (UriFault::TooLong, 4095));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert_eq!(
            ChannelUri::parse_bytes(b"aeron:ipc?alias=\xff")
                .unwrap_err()
                .fault,
            UriFault::NotText
        );
        assert!(ChannelUri::parse_bytes("aeron:ipc?alias=möwe".as_bytes()).is_ok());
    }

    #[test]
    fn a_udp_channel_needs_something_to_bind_or_send_to() {
        for role in [Role::Publication, Role::Subscription] {
            assert_eq!(role_fault("aeron:udp?", role), Some(UriFault::NoAddress));
            assert_eq!(role_fault("aeron:udp?endpoint", role), Some(UriFault::NoAddress));
            assert_eq!(role_fault("aeron:udp?alias=x", role), Some(UriFault::NoAddress));
            assert_eq!(
                role_fault("aeron:udp?control-mode=dynamic|endpoint=a:1", role),
                Some(UriFault::DynamicWithoutControl)
            );
            assert_eq!(
                role_fault("aeron:udp?control-mode=odd", role),
                Some(UriFault::NoAddress)
            );
            for accepted in [
                "aeron:udp?endpoint=localhost:40123",
                "aeron:udp?control=localhost:40123",
                "aeron:udp?control-mode=manual",
                "aeron:udp?control-mode=dynamic|control=a:1",
                "aeron:udp?control-mode=odd|endpoint=a:1",
                "aeron:udp?tags=7",
                "aeron:udp?mtu=8|rcv-wnd=64k|control-mode=response",
                "aeron:udp?control-mode=manual|endpoint=localhost:0",
                "aeron:ipc?so-rcvbuf=32k|alias=test|term-length=64k|mtu=2048",
                "aeron:ipc",
            ] {
                assert_eq!(role_fault(accepted, role), None, "{accepted}");
            }
        }
    }

    #[test]
    fn spies_only_listen() {
        let spy = "aeron-spy:aeron:udp?endpoint=a:1";
        assert_eq!(role_fault(spy, Role::Publication), Some(UriFault::SpyNotAllowed));
        assert_eq!(
            role_fault(spy, Role::SendDestination),
            Some(UriFault::SpyNotAllowed)
        );
        assert_eq!(role_fault(spy, Role::Subscription), None);
        assert_eq!(role_fault(spy, Role::ReceiveDestination), None);
        let uri = ChannelUri::parse(spy).unwrap();
        assert!(uri.is_spy());
        assert_eq!(uri.without_spy_prefix(), "aeron:udp?endpoint=a:1");
        assert_eq!(uri.get("endpoint"), Some("a:1"));
    }

    #[test]
    fn a_send_destination_is_a_udp_endpoint() {
        let role = Role::SendDestination;
        assert_eq!(role_fault("aeron:ipc", role), Some(UriFault::DestinationNotUdp));
        assert_eq!(
            role_fault("aeron:udp?control=a:1", role),
            Some(UriFault::DestinationWithoutEndpoint)
        );
        assert_eq!(role_fault("aeron:udp?endpoint=a:1", role), None);
        assert_eq!(role_fault("aeron:ipc", Role::ReceiveDestination), None);
    }
}
