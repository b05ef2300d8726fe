//! Building channels. Every setter checks what the channel has become, so that a builder only ever holds, and prints,
//! a valid channel; that is why setters return results and [`ChannelBuilder::build`] does not.

#![forbid(unsafe_code)]

use core::fmt::Display;

use thiserror::Error;

use super::channel_uri::{ChannelUri, Media, Role, UriError};
use super::params::{ControlMode, InitialPosition, ParamError, SessionIdParam, Tags, key};
use super::value::print_duration_ns;

/// Collects the parameters of a channel.
///
/// ```
/// # use fulmar::uri::{BuildError, ChannelBuilder};
/// # fn main() -> Result<(), BuildError> {
/// let channel = ChannelBuilder::ipc().term_length(64 * 1024)?.mtu(2048)?.build();
/// assert_eq!(channel, "aeron:ipc?term-length=65536|mtu=2048");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelBuilder {
    media: Media,
    is_spy: bool,
    entries: Vec<(String, String)>,
}

/// Why a parameter can not be part of the channel.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    /// A key or value with a separator in it or empty, a channel too long, or one without an address.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// A value out of range, or contradicting another one.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// A key or value that would be read back as something else.
    #[error("can not be written in a channel: {key}={value}")]
    Unwritable {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident($type:ty) = $key:expr, $print:expr;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// The value is out of range or contradicts another parameter.
            pub fn $name(self, value: $type) -> Result<Self, BuildError> {
                self.set($key, $print(value))
            }
        )*
    };
}

impl ChannelBuilder {
    /// `aeron:ipc`.
    #[must_use]
    pub const fn ipc() -> Self {
        Self {
            media: Media::Ipc,
            is_spy: false,
            entries: Vec::new(),
        }
    }

    /// `aeron:udp?endpoint=...`: where to send to, or what to bind, as `host:port`.
    ///
    /// # Errors
    /// The endpoint is no address.
    pub fn udp(endpoint: &str) -> Result<Self, BuildError> {
        Self::empty_udp().set(key::ENDPOINT, endpoint)
    }

    /// `aeron:udp?control=...|control-mode=...`: a channel found through its control address.
    ///
    /// # Errors
    /// The control address is no address.
    pub fn udp_control(control: &str, mode: ControlMode) -> Result<Self, BuildError> {
        Self::empty_udp()
            .put(key::CONTROL, control)
            .set(key::CONTROL_MODE, print_control_mode(mode))
    }

    /// `aeron:udp?control-mode=manual`: a channel whose destinations are added one by one.
    #[must_use]
    pub fn udp_manual() -> Self {
        Self::empty_udp().put(key::CONTROL_MODE, print_control_mode(ControlMode::Manual))
    }

    /// The channel of a text, to be changed. Unfinished parameters at its end are dropped, and of repeated keys the
    /// one that counts is kept.
    ///
    /// # Errors
    /// The text is no valid channel.
    pub fn from_uri(uri: &ChannelUri) -> Result<Self, BuildError> {
        let mut builder = Self {
            media: uri.media(),
            is_spy: uri.is_spy(),
            entries: Vec::new(),
        };
        for (key, _) in uri.iter() {
            let value = uri.get(key).unwrap_or_default();
            builder = builder.put(key, value);
        }
        builder.checked()
    }

    /// Turns a UDP channel into a spy on it.
    ///
    /// # Errors
    /// The channel is IPC.
    pub fn spy(mut self) -> Result<Self, BuildError> {
        self.is_spy = true;
        self.checked()
    }

    setters! {
        /// `term-length`, bytes: power of two from 64 KiB to 1 GiB.
        term_length(i32) = key::TERM_LENGTH, print;
        /// `mtu`, bytes: multiple of 32 from 64 to 65504.
        mtu(i32) = key::MTU, print;
        /// `session-id`, or `tag:<n>` for a publication.
        session_id(SessionIdParam) = key::SESSION_ID, print_session_id;
        /// `tags`.
        tags(Tags) = key::TAGS, print_tags;
        /// `alias`: any text without `|`.
        alias(&str) = key::ALIAS, print;
        /// `endpoint`: `host:port`.
        endpoint(&str) = key::ENDPOINT, print;
        /// `interface`.
        interface(&str) = key::INTERFACE, print;
        /// `control`: `host:port`.
        control(&str) = key::CONTROL, print;
        /// `control-mode`.
        control_mode(ControlMode) = key::CONTROL_MODE, print_control_mode;
        /// `ttl` of multicast.
        ttl(u8) = key::TTL, print;
        /// `linger`, nanoseconds.
        linger_ns(i64) = key::LINGER, print_duration_ns;
        /// `eos`.
        eos(bool) = key::EOS, print;
        /// `ssc`.
        spies_simulate_connection(bool) = key::SPIES_SIMULATE_CONNECTION, print;
        /// `sparse`.
        sparse(bool) = key::SPARSE, print;
        /// `max-resend`, 1 to 256.
        max_resend(i32) = key::MAX_RESEND, print;
        /// `pub-wnd`, bytes: from the mtu to half a term.
        publication_window(i32) = key::PUBLICATION_WINDOW, print;
        /// `rcv-wnd`, bytes.
        receiver_window(i32) = key::RECEIVER_WINDOW, print;
        /// `tether`.
        tether(bool) = key::TETHER, print;
        /// `rejoin`.
        rejoin(bool) = key::REJOIN, print;
        /// `reliable`.
        reliable(bool) = key::RELIABLE, print;
        /// `gtag`.
        group_tag(i64) = key::GROUP_TAG, print;
        /// `fc`, for example `min,g:/3`.
        flow_control(&str) = key::FLOW_CONTROL, print;
        /// `so-sndbuf`, bytes.
        socket_sndbuf(i32) = key::SO_SNDBUF, print;
        /// `so-rcvbuf`, bytes.
        socket_rcvbuf(i32) = key::SO_RCVBUF, print;
        /// `untethered-window-limit-timeout`, nanoseconds.
        untethered_window_limit_timeout_ns(i64) = key::UNTETHERED_WINDOW_LIMIT_TIMEOUT, print_duration_ns;
        /// `untethered-linger-timeout`, nanoseconds.
        untethered_linger_timeout_ns(i64) = key::UNTETHERED_LINGER_TIMEOUT, print_duration_ns;
        /// `untethered-resting-timeout`, nanoseconds.
        untethered_resting_timeout_ns(i64) = key::UNTETHERED_RESTING_TIMEOUT, print_duration_ns;
        /// `response-correlation-id`.
        response_correlation_id(i64) = key::RESPONSE_CORRELATION_ID, print;
    }

    /// `init-term-id`, `term-id` and `term-offset`.
    ///
    /// # Errors
    /// The term is before the initial one, or the offset is not aligned or beyond the term.
    pub fn initial_position(self, position: InitialPosition) -> Result<Self, BuildError> {
        self.put(key::INITIAL_TERM_ID, &position.initial_term_id.to_string())
            .put(key::TERM_ID, &position.term_id.to_string())
            .set(key::TERM_OFFSET, position.term_offset.to_string())
    }

    /// Any other parameter, known or not. A key set before gets the new value.
    ///
    /// # Errors
    /// Key or value can not be written, or the value is out of range.
    pub fn set(self, key: &str, value: impl AsRef<str>) -> Result<Self, BuildError> {
        let value = value.as_ref();
        let writable =
            !key.is_empty() && !key.contains(['=', '|']) && !value.is_empty() && !value.contains('|');
        if !writable {
            return Err(BuildError::Unwritable {
                key: key.to_owned(),
                value: value.to_owned(),
            });
        }
        self.put(key, value).checked()
    }

    /// The channel's text.
    #[must_use]
    pub fn build(&self) -> String {
        self.print()
    }

    const fn empty_udp() -> Self {
        Self {
            media: Media::Udp,
            is_spy: false,
            entries: Vec::new(),
        }
    }

    fn put(mut self, key: &str, value: &str) -> Self {
        match self.entries.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => value.clone_into(old),
            None => self.entries.push((key.to_owned(), value.to_owned())),
        }
        self
    }

    fn checked(self) -> Result<Self, BuildError> {
        let uri = ChannelUri::parse(&self.print())?;
        uri.check_role(Role::Subscription)?;
        let params = uri.params();
        // A tag is a session id for publications only; everything else has one meaning in both roles.
        if !matches!(params.session_id(), Ok(Some(SessionIdParam::OfTag(_)))) {
            params.check_subscription()?;
        }
        params.check_publication()?;
        params.flow_control()?;
        Ok(self)
    }

    fn print(&self) -> String {
        let mut text = String::from(match (self.is_spy, self.media) {
            (false, Media::Ipc) => "aeron:ipc",
            (false, Media::Udp) => "aeron:udp",
            (true, Media::Ipc) => "aeron-spy:aeron:ipc",
            (true, Media::Udp) => "aeron-spy:aeron:udp",
        });
        for (index, (key, value)) in self.entries.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '|' });
            text.push_str(key);
            text.push('=');
            text.push_str(value);
        }
        text
    }
}

impl Display for ChannelBuilder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.print())
    }
}

fn print(value: impl Display) -> String {
    value.to_string()
}

const fn print_control_mode(mode: ControlMode) -> &'static str {
    match mode {
        ControlMode::Dynamic => "dynamic",
        ControlMode::Manual => "manual",
        ControlMode::Response => "response",
    }
}

fn print_session_id(session_id: SessionIdParam) -> String {
    match session_id {
        SessionIdParam::Id(id) => id.to_string(),
        SessionIdParam::OfTag(tag) => format!("tag:{tag}"),
    }
}

/// Without any tag the text is empty, which [`ChannelBuilder::set`] refuses.
fn print_tags(tags: Tags) -> String {
    let tag = |tag: Option<i64>| tag.map(|tag| tag.to_string()).unwrap_or_default();
    match tags.entity {
        Some(_) => format!("{},{}", tag(tags.channel), tag(tags.entity)),
        None => tag(tags.channel),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{SessionId, TermId};

    #[test]
    fn channels_are_printed_in_the_order_of_the_calls() {
        let builder = ChannelBuilder::ipc()
            .term_length(65536)
            .unwrap()
            .session_id(SessionIdParam::Id(SessionId(-7)))
            .unwrap()
            .tags(Tags {
                channel: None,
                entity: Some(8),
            })
            .unwrap()
            .linger_ns(0)
            .unwrap()
            .untethered_resting_timeout_ns(10_000_000_000)
            .unwrap();
        let text =
            "aeron:ipc?term-length=65536|session-id=-7|tags=,8|linger=0ns|untethered-resting-timeout=10s";
        assert_eq!(builder.build(), text);
        assert_eq!(builder.to_string(), text);
        assert_eq!(ChannelBuilder::ipc().build(), "aeron:ipc");
        let spy = ChannelBuilder::udp("localhost:40123").unwrap().spy().unwrap();
        assert_eq!(spy.build(), "aeron-spy:aeron:udp?endpoint=localhost:40123");
        assert_eq!(
            ChannelBuilder::udp_manual().build(),
            "aeron:udp?control-mode=manual"
        );
    }

    #[test]
    fn a_key_set_again_gets_the_new_value() {
        let builder = ChannelBuilder::ipc()
            .mtu(64)
            .unwrap()
            .eos(true)
            .unwrap()
            .mtu(128)
            .unwrap();
        assert_eq!(builder.build(), "aeron:ipc?mtu=128|eos=true");
    }

    #[test]
    fn invalid_values_do_not_get_in() {
        assert!(matches!(
            ChannelBuilder::ipc().mtu(1400),
            Err(BuildError::Param(ParamError { key: "mtu", .. }))
        ));
        assert!(ChannelBuilder::ipc().term_length(65537).is_err());
        assert!(ChannelBuilder::ipc().alias("a|b").is_err());
        assert!(ChannelBuilder::ipc().alias("").is_err());
        assert!(ChannelBuilder::ipc().set("", "x").is_err());
        assert!(ChannelBuilder::ipc().set("a=b", "x").is_err());
        assert!(ChannelBuilder::ipc().tags(Tags::default()).is_err());
        assert!(ChannelBuilder::ipc().alias(&"x".repeat(4095)).is_err());
        assert!(ChannelBuilder::ipc().spy().is_err());
        assert!(ChannelBuilder::udp("localhost").is_err());
        assert!(ChannelBuilder::udp_control("x", ControlMode::Dynamic).is_err());
        assert!(
            ChannelBuilder::udp("localhost:1")
                .unwrap()
                .flow_control("odd")
                .is_err()
        );
    }

    #[test]
    fn parameters_that_depend_on_each_other_are_checked_in_either_order() {
        let position = InitialPosition {
            initial_term_id: TermId(5),
            term_id: TermId(8),
            term_offset: 131_072,
        };
        let small = ChannelBuilder::ipc().term_length(65536).unwrap();
        assert!(small.initial_position(position).is_err());
        let positioned = ChannelBuilder::ipc().initial_position(position).unwrap();
        assert!(positioned.clone().term_length(65536).is_err());
        assert_eq!(
            positioned.term_length(131_072).unwrap().build(),
            "aeron:ipc?init-term-id=5|term-id=8|term-offset=131072|term-length=131072"
        );
        assert!(
            ChannelBuilder::ipc()
                .term_length(65536)
                .unwrap()
                .publication_window(32769)
                .is_err()
        );
    }

    #[test]
    fn a_channel_can_be_changed() {
        let uri = ChannelUri::parse("aeron:udp?endpoint=a:1|mtu=64|mtu=1|endpoint=b:2|odd").unwrap();
        let builder = ChannelBuilder::from_uri(&uri).unwrap();
        assert_eq!(builder.build(), "aeron:udp?endpoint=b:2|mtu=64");
        assert_eq!(
            builder.session_id(SessionIdParam::OfTag(3)).unwrap().build(),
            "aeron:udp?endpoint=b:2|mtu=64|session-id=tag:3"
        );
    }
}
