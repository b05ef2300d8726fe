//! Parameters of a channel with their types and ranges (spec 13.3; wire protocol, 8.2 to 8.6).
//!
//! A value is checked when it is asked for: a subscription that carries `mtu=8` is fine, because nobody asks a
//! subscription for its mtu. [`Params::check_publication`] and [`Params::check_subscription`] ask for all that the
//! role knows. Limits that depend on settings of the driver are not known here.

#![forbid(unsafe_code)]

use thiserror::Error;

use super::address::Address;
use super::channel_uri::ChannelUri;
use super::value::{
    ValueFault, check_range, parse_bool, parse_duration_ns, parse_i32, parse_i64, parse_size,
};
use crate::bits::is_power_of_two;
use crate::id::{SessionId, TermId};

/// Names of parameters.
#[allow(missing_docs, reason = "each constant is the key it names")]
pub mod key {
    pub const ENDPOINT: &str = "endpoint";
    pub const INTERFACE: &str = "interface";
    pub const CONTROL: &str = "control";
    pub const CONTROL_MODE: &str = "control-mode";
    pub const TTL: &str = "ttl";
    pub const TAGS: &str = "tags";
    pub const ALIAS: &str = "alias";
    pub const SESSION_ID: &str = "session-id";
    pub const STREAM_ID: &str = "stream-id";
    pub const TERM_LENGTH: &str = "term-length";
    pub const INITIAL_TERM_ID: &str = "init-term-id";
    pub const TERM_ID: &str = "term-id";
    pub const TERM_OFFSET: &str = "term-offset";
    pub const MTU: &str = "mtu";
    pub const PUBLICATION_WINDOW: &str = "pub-wnd";
    pub const RECEIVER_WINDOW: &str = "rcv-wnd";
    pub const LINGER: &str = "linger";
    pub const SPARSE: &str = "sparse";
    pub const EOS: &str = "eos";
    pub const SPIES_SIMULATE_CONNECTION: &str = "ssc";
    pub const FLOW_CONTROL: &str = "fc";
    pub const CONGESTION_CONTROL: &str = "cc";
    pub const MAX_RESEND: &str = "max-resend";
    pub const RESPONSE_CORRELATION_ID: &str = "response-correlation-id";
    pub const UNTETHERED_WINDOW_LIMIT_TIMEOUT: &str = "untethered-window-limit-timeout";
    pub const UNTETHERED_LINGER_TIMEOUT: &str = "untethered-linger-timeout";
    pub const UNTETHERED_RESTING_TIMEOUT: &str = "untethered-resting-timeout";
    pub const SO_SNDBUF: &str = "so-sndbuf";
    pub const SO_RCVBUF: &str = "so-rcvbuf";
    pub const RELIABLE: &str = "reliable";
    pub const REJOIN: &str = "rejoin";
    pub const TETHER: &str = "tether";
    pub const GROUP: &str = "group";
    pub const GROUP_TAG: &str = "gtag";
    pub const NAK_DELAY: &str = "nak-delay";
    pub const MEDIA_RECEIVE_TIMESTAMP_OFFSET: &str = "media-rcv-ts-offset";
    pub const CHANNEL_RECEIVE_TIMESTAMP_OFFSET: &str = "channel-rcv-ts-offset";
    pub const CHANNEL_SEND_TIMESTAMP_OFFSET: &str = "channel-snd-ts-offset";
}

/// Least term length, bytes.
pub const TERM_MIN_LENGTH: i64 = 64 * 1024;
/// Greatest term length, bytes.
pub const TERM_MAX_LENGTH: i64 = 1024 * 1024 * 1024;
/// Least mtu, bytes: the least multiple of 32 that leaves room behind the frame header.
pub const MTU_MIN_LENGTH: i64 = 64;
/// Greatest mtu, bytes: what fits a UDP datagram and is a multiple of 32.
pub const MTU_MAX_LENGTH: i64 = 65504;
/// Greatest number of concurrent resends.
pub const MAX_RESEND_MAX: i64 = 256;
/// `response-correlation-id=prototype`, as a number.
pub const PROTOTYPE_CORRELATION_ID: i64 = -2;

const FRAME_ALIGNMENT: i64 = 32;
const I32_MAX: i64 = i32::MAX as i64;

/// A parameter whose value does not parse, is out of range or contradicts another one. The driver answers
/// GENERIC_ERROR.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("invalid {key}={value}: {reason}")]
pub struct ParamError {
    /// Name of the parameter.
    pub key: &'static str,
    /// Its value in the channel; empty if the parameter is missing although another one needs it.
    pub value: String,
    /// What is wrong with it.
    pub reason: ValueFault,
}

/// `control-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlMode {
    /// Receivers announce themselves at the control address.
    Dynamic,
    /// The application adds and removes destinations.
    Manual,
    /// One end of a response channel.
    Response,
}

/// `session-id` of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionIdParam {
    /// This id.
    Id(SessionId),
    /// `tag:<n>`: session id, mtu and term length of the network publication with that entity tag.
    OfTag(i64),
}

/// `tags`. A part that is no number counts as absent, as in the C driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Tags {
    /// Names the channel: another one with the same tag shares its transport.
    pub channel: Option<i64>,
    /// Names the publication.
    pub entity: Option<i64>,
}

/// Where a publication starts: `init-term-id`, `term-id`, `term-offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InitialPosition {
    /// Term id of position 0.
    pub initial_term_id: TermId,
    /// Term to start in.
    pub term_id: TermId,
    /// Offset in that term to start at, bytes.
    pub term_offset: i32,
}

impl InitialPosition {
    /// The position in bytes for a term length; terms count from the initial one, wrapping.
    #[must_use]
    pub const fn position(&self, term_length: i32) -> i64 {
        let terms = self.term_id.get().wrapping_sub(self.initial_term_id.get());
        terms as i64 * term_length as i64 + self.term_offset as i64
    }

    const fn check(&self, term_length: i64) -> Result<(), (&'static str, ValueFault)> {
        if self.term_id.get().wrapping_sub(self.initial_term_id.get()) < 0 {
            return Err((key::TERM_ID, ValueFault::BeforeInitialTerm));
        }
        let offset = self.term_offset as i64;
        if let Err(fault) = check_range(offset, 0, term_length) {
            return Err((key::TERM_OFFSET, fault));
        }
        if offset % FRAME_ALIGNMENT != 0 {
            return Err((key::TERM_OFFSET, ValueFault::NotAligned));
        }
        Ok(())
    }
}

/// `group`: whether the receiver treats the channel as a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// As the addresses suggest.
    Infer,
    /// Yes.
    True,
    /// No; any unknown word means this too.
    False,
}

/// `cc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CongestionControl {
    /// Constant window.
    Static,
    /// Window by the cubic function.
    Cubic,
}

/// `fc`: flow control of multicast and multi-destination publications. Absent options are set by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowControl {
    /// The strategy.
    pub strategy: FlowControlStrategy,
    /// `g:<tag>`.
    pub group_tag: Option<i64>,
    /// `g:/<min>`: receivers needed before the publication counts as connected.
    pub group_min_size: Option<i32>,
    /// `t:<duration>`, nanoseconds.
    pub receiver_timeout_ns: Option<i64>,
    /// `rrwm:<n>`: multiple of the window that may be resent.
    pub retransmit_window_multiple: Option<i32>,
}

/// Strategies of multicast flow control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowControlStrategy {
    /// Follow the fastest receiver.
    Max,
    /// Follow the slowest receiver.
    Min,
    /// Follow the slowest receiver of a group.
    Tagged,
}

/// Where a timestamp is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestampOffset {
    /// The reserved value field of the frame header.
    Reserved,
    /// This offset in the payload, bytes.
    Payload(i32),
}

/// The parameters of one channel.
#[derive(Clone, Copy, Debug)]
pub struct Params<'a> {
    uri: &'a ChannelUri,
}

type Param<T> = Result<Option<T>, ParamError>;

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $key:expr, $parse:expr;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// The value does not parse or is out of range.
            pub fn $name(&self) -> Param<$type> {
                self.parsed($key, $parse)
            }
        )*
    };
}

impl<'a> Params<'a> {
    pub(super) const fn new(uri: &'a ChannelUri) -> Self {
        Self { uri }
    }

    getters! {
        /// `term-length`: power of two from 64 KiB to 1 GiB, bytes.
        term_length: i32 = key::TERM_LENGTH, parse_term_length;
        /// `mtu`: multiple of 32, more than 32 and at most 65504, bytes, frame header included.
        mtu: i32 = key::MTU, parse_mtu;
        /// `session-id` of a publication: a number or `tag:<n>`.
        session_id: SessionIdParam = key::SESSION_ID, parse_session_id;
        /// `session-id` of a subscription, a number only: take this session and no other.
        subscribed_session_id: SessionId = key::SESSION_ID, |text| parse_i32(text).map(SessionId);
        /// `stream-id`; C ignores it, Java wants it to be the stream id of the command.
        stream_id: i32 = key::STREAM_ID, parse_i32;
        /// `linger`: how long a publication stays after its last byte was consumed, nanoseconds.
        linger_ns: i64 = key::LINGER, parse_duration_ns;
        /// `eos`: tell receivers that the stream has ended.
        eos: bool = key::EOS, parse_bool;
        /// `ssc`: a spy alone makes the publication connected.
        spies_simulate_connection: bool = key::SPIES_SIMULATE_CONNECTION, parse_bool;
        /// `sparse`: do not allocate the blocks of a log beforehand.
        sparse: bool = key::SPARSE, parse_bool;
        /// `max-resend`: 1 to 256 concurrent resends.
        max_resend: i32 = key::MAX_RESEND, |text| in_i32(parse_i64(text)?, 1, MAX_RESEND_MAX);
        /// `pub-wnd`: bytes a publication may be ahead of its slowest consumer; for its limits see
        /// [`Params::publication_window_within`].
        publication_window: i32 = key::PUBLICATION_WINDOW, |text| in_i32(parse_size(text)?, 0, I32_MAX);
        /// `rcv-wnd`: bytes a receiver lets the sender be ahead.
        receiver_window: i32 = key::RECEIVER_WINDOW, |text| in_i32(parse_size(text)?, 0, I32_MAX);
        /// `tether`: a slow subscriber holds the others back.
        tether: bool = key::TETHER, parse_bool;
        /// `rejoin`: come back after having been left behind.
        rejoin: bool = key::REJOIN, parse_bool;
        /// `reliable`: ask again for what was lost, instead of filling the gap.
        reliable: bool = key::RELIABLE, parse_bool;
        /// `gtag`: the group tag that a receiver sends.
        group_tag: i64 = key::GROUP_TAG, parse_i64;
        /// `untethered-window-limit-timeout`, nanoseconds.
        untethered_window_limit_timeout_ns: i64 = key::UNTETHERED_WINDOW_LIMIT_TIMEOUT, parse_duration_ns;
        /// `untethered-linger-timeout`, nanoseconds.
        untethered_linger_timeout_ns: i64 = key::UNTETHERED_LINGER_TIMEOUT, parse_duration_ns;
        /// `untethered-resting-timeout`, nanoseconds.
        untethered_resting_timeout_ns: i64 = key::UNTETHERED_RESTING_TIMEOUT, parse_duration_ns;
        /// `response-correlation-id`: not negative, or [`PROTOTYPE_CORRELATION_ID`]; `-1` in the channel means none
        /// and reads as -1.
        response_correlation_id: i64 = key::RESPONSE_CORRELATION_ID, parse_response_correlation_id;
        /// `so-sndbuf`: socket send buffer, bytes.
        socket_sndbuf: i32 = key::SO_SNDBUF, |text| in_i32(parse_size(text)?, 0, I32_MAX);
        /// `so-rcvbuf`: socket receive buffer, bytes.
        socket_rcvbuf: i32 = key::SO_RCVBUF, |text| in_i32(parse_size(text)?, 0, I32_MAX);
        /// `ttl` of multicast, 0 to 255; what is above counts as 255.
        ttl: u8 = key::TTL, parse_ttl;
        /// `cc`: `static` or `cubic`.
        congestion_control: CongestionControl = key::CONGESTION_CONTROL, parse_congestion_control;
        /// `fc`: `max`, `min` or `tagged` with options. Only multicast and multi-destination publications look at it.
        flow_control: FlowControl = key::FLOW_CONTROL, parse_flow_control;
        /// `nak-delay`, nanoseconds.
        nak_delay_ns: i64 = key::NAK_DELAY, parse_duration_ns;
        /// `media-rcv-ts-offset`.
        media_receive_timestamp_offset: TimestampOffset = key::MEDIA_RECEIVE_TIMESTAMP_OFFSET, parse_timestamp_offset;
        /// `channel-rcv-ts-offset`.
        channel_receive_timestamp_offset: TimestampOffset =
            key::CHANNEL_RECEIVE_TIMESTAMP_OFFSET, parse_timestamp_offset;
        /// `channel-snd-ts-offset`.
        channel_send_timestamp_offset: TimestampOffset = key::CHANNEL_SEND_TIMESTAMP_OFFSET, parse_timestamp_offset;
        /// `endpoint`: destination of a publication, bind address of a subscription.
        endpoint: Address<'a> = key::ENDPOINT, Address::parse;
        /// `control`: where receivers and senders find each other.
        control: Address<'a> = key::CONTROL, Address::parse;
    }

    /// `interface` as written: which network interface to use.
    #[must_use]
    pub fn interface(&self) -> Option<&'a str> {
        self.uri.get(key::INTERFACE)
    }

    /// `alias` as written: for people.
    #[must_use]
    pub fn alias(&self) -> Option<&'a str> {
        self.uri.get(key::ALIAS)
    }

    /// `control-mode`; unknown words behave as absent.
    #[must_use]
    pub fn control_mode(&self) -> Option<ControlMode> {
        match self.uri.get(key::CONTROL_MODE)? {
            "dynamic" => Some(ControlMode::Dynamic),
            "manual" => Some(ControlMode::Manual),
            "response" => Some(ControlMode::Response),
            _ => None,
        }
    }

    /// Whether this is one end of a response channel.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.control_mode() == Some(ControlMode::Response)
    }

    /// `tags`; whatever is no number, and the reserved -1, counts as absent.
    #[must_use]
    pub fn tags(&self) -> Tags {
        let Some(text) = self.uri.get(key::TAGS) else {
            return Tags::default();
        };
        let (channel, entity) = text.split_once(',').unwrap_or((text, ""));
        let tag = |part| parse_i64(part).ok().filter(|tag| *tag != -1);
        Tags {
            channel: tag(channel),
            entity: tag(entity),
        }
    }

    /// `group`; unknown words mean `false`.
    #[must_use]
    pub fn group(&self) -> Option<Group> {
        Some(match self.uri.get(key::GROUP)? {
            "infer" => Group::Infer,
            "true" => Group::True,
            _ => Group::False,
        })
    }

    /// `init-term-id`, `term-id` and `term-offset` for a log with this term length, bytes.
    ///
    /// # Errors
    /// A value does not parse, some of the three are missing, the term is before the initial one (wrapping), or the
    /// offset is no multiple of 32 or beyond the term.
    pub fn initial_position(&self, term_length: i32) -> Param<InitialPosition> {
        let initial_term_id = self.parsed(key::INITIAL_TERM_ID, parse_i32)?;
        let term_id = self.parsed(key::TERM_ID, parse_i32)?;
        let term_offset = self.parsed(key::TERM_OFFSET, parse_i32)?;
        let position = match (initial_term_id, term_id, term_offset) {
            (None, None, None) => return Ok(None),
            (Some(initial_term_id), Some(term_id), Some(term_offset)) => InitialPosition {
                initial_term_id: TermId(initial_term_id),
                term_id: TermId(term_id),
                term_offset,
            },
            (None, ..) => return Err(self.error(key::INITIAL_TERM_ID, ValueFault::IncompletePosition)),
            (_, None, _) => return Err(self.error(key::TERM_ID, ValueFault::IncompletePosition)),
            (.., None) => return Err(self.error(key::TERM_OFFSET, ValueFault::IncompletePosition)),
        };
        position
            .check(i64::from(term_length))
            .map_err(|(key, fault)| self.error(key, fault))?;
        Ok(Some(position))
    }

    /// `pub-wnd` for a publication with these lengths in bytes: at least the mtu, at most half a term.
    ///
    /// # Errors
    /// The value does not parse or is out of that range.
    pub fn publication_window_within(&self, mtu: i32, term_length: i32) -> Param<i32> {
        self.parsed(key::PUBLICATION_WINDOW, |text| {
            in_i32(parse_size(text)?, i64::from(mtu), i64::from(term_length) / 2)
        })
    }

    /// Asks for every parameter that a publication knows, so that the first bad one is found.
    ///
    /// # Errors
    /// The first bad one. Limits that need settings of the driver are checked only if the channel itself tells them.
    pub fn check_publication(&self) -> Result<(), ParamError> {
        let term_length = self.term_length()?;
        let mtu = self.mtu()?;
        let longest = term_length.unwrap_or(TERM_MAX_LENGTH as i32);
        self.initial_position(longest)?;
        self.publication_window_within(mtu.unwrap_or(0), longest)?;
        self.session_id()?;
        self.linger_ns()?;
        self.eos()?;
        self.spies_simulate_connection()?;
        self.sparse()?;
        self.max_resend()?;
        if self.uri.is_udp() {
            self.channel_send_timestamp_offset()?;
        }
        self.check_common()
    }

    /// Asks for every parameter that a subscription knows, so that the first bad one is found.
    ///
    /// # Errors
    /// The first bad one.
    pub fn check_subscription(&self) -> Result<(), ParamError> {
        self.subscribed_session_id()?;
        self.receiver_window()?;
        self.tether()?;
        self.rejoin()?;
        self.reliable()?;
        self.sparse()?;
        self.group_tag()?;
        if self.uri.is_udp() {
            self.nak_delay_ns()?;
            self.media_receive_timestamp_offset()?;
            self.channel_receive_timestamp_offset()?;
            self.congestion_control()?;
        }
        self.check_common()
    }

    fn check_common(&self) -> Result<(), ParamError> {
        self.response_correlation_id()?;
        self.untethered_window_limit_timeout_ns()?;
        self.untethered_linger_timeout_ns()?;
        self.untethered_resting_timeout_ns()?;
        self.socket_sndbuf()?;
        self.socket_rcvbuf()?;
        if self.uri.is_udp() {
            self.endpoint()?;
            self.control()?;
            self.ttl()?;
        }
        Ok(())
    }

    fn parsed<T>(&self, key: &'static str, parse: impl FnOnce(&'a str) -> Result<T, ValueFault>) -> Param<T> {
        self.uri
            .get(key)
            .map(parse)
            .transpose()
            .map_err(|reason| self.error(key, reason))
    }

    fn error(&self, key: &'static str, reason: ValueFault) -> ParamError {
        ParamError {
            key,
            value: self.uri.get(key).unwrap_or_default().to_owned(),
            reason,
        }
    }
}

fn in_i32(value: i64, min: i64, max: i64) -> Result<i32, ValueFault> {
    let fault = ValueFault::OutOfRange { min, max };
    i32::try_from(check_range(value, min, max)?).map_err(|_| fault)
}

fn parse_term_length(text: &str) -> Result<i32, ValueFault> {
    let length = in_i32(parse_size(text)?, TERM_MIN_LENGTH, TERM_MAX_LENGTH)?;
    if is_power_of_two(i64::from(length)) {
        Ok(length)
    } else {
        Err(ValueFault::NotPowerOfTwo)
    }
}

fn parse_mtu(text: &str) -> Result<i32, ValueFault> {
    let length = in_i32(parse_size(text)?, MTU_MIN_LENGTH, MTU_MAX_LENGTH)?;
    if i64::from(length) % FRAME_ALIGNMENT == 0 {
        Ok(length)
    } else {
        Err(ValueFault::NotAligned)
    }
}

fn parse_session_id(text: &str) -> Result<SessionIdParam, ValueFault> {
    match text.strip_prefix("tag:") {
        Some(tag) => parse_i64(tag).map(SessionIdParam::OfTag),
        None => parse_i32(text).map(|id| SessionIdParam::Id(SessionId(id))),
    }
}

fn parse_response_correlation_id(text: &str) -> Result<i64, ValueFault> {
    if text == "prototype" {
        return Ok(PROTOTYPE_CORRELATION_ID);
    }
    check_range(parse_i64(text)?, -1, i64::MAX)
}

/// Values above 255 mean 255, as in the C driver.
fn parse_ttl(text: &str) -> Result<u8, ValueFault> {
    let value = check_range(parse_i64(text)?, 0, i64::MAX)?;
    Ok(u8::try_from(value).unwrap_or(u8::MAX))
}

fn parse_congestion_control(text: &str) -> Result<CongestionControl, ValueFault> {
    match text {
        "static" => Ok(CongestionControl::Static),
        "cubic" => Ok(CongestionControl::Cubic),
        _ => Err(ValueFault::NotKnownWord),
    }
}

fn parse_timestamp_offset(text: &str) -> Result<TimestampOffset, ValueFault> {
    if text == "reserved" {
        return Ok(TimestampOffset::Reserved);
    }
    in_i32(parse_i64(text)?, 0, I32_MAX).map(TimestampOffset::Payload)
}

fn parse_flow_control(text: &str) -> Result<FlowControl, ValueFault> {
    let mut parts = text.split(',');
    let strategy = match parts.next() {
        Some("max") => FlowControlStrategy::Max,
        Some("min") => FlowControlStrategy::Min,
        Some("tagged") => FlowControlStrategy::Tagged,
        _ => return Err(ValueFault::NotKnownWord),
    };
    let mut flow_control = FlowControl {
        strategy,
        group_tag: None,
        group_min_size: None,
        receiver_timeout_ns: None,
        retransmit_window_multiple: None,
    };
    let counts_receivers = strategy != FlowControlStrategy::Max;
    for part in parts {
        match part.split_once(':') {
            Some(("g", group)) if counts_receivers => {
                let (tag, min_size) = match group.split_once('/') {
                    Some((tag, min_size)) => (tag, Some(min_size)),
                    None => (group, None),
                };
                if !tag.is_empty() || min_size.is_none() {
                    flow_control.group_tag = Some(parse_i64(tag)?);
                }
                if let Some(min_size) = min_size {
                    flow_control.group_min_size = Some(in_i32(parse_i64(min_size)?, 0, I32_MAX)?);
                }
            }
            Some(("t", timeout)) if counts_receivers => {
                flow_control.receiver_timeout_ns = Some(parse_duration_ns(timeout)?);
            }
            Some(("rrwm", multiple)) => {
                flow_control.retransmit_window_multiple = Some(in_i32(parse_i64(multiple)?, 1, I32_MAX)?);
            }
            _ => return Err(ValueFault::NotKnownWord),
        }
    }
    Ok(flow_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipc(query: &str) -> ChannelUri {
        ChannelUri::parse(&format!("aeron:ipc?{query}")).unwrap()
    }

    fn udp(query: &str) -> ChannelUri {
        ChannelUri::parse(&format!("aeron:udp?{query}")).unwrap()
    }

    const TERM_RANGE: ValueFault = ValueFault::OutOfRange {
        min: TERM_MIN_LENGTH,
        max: TERM_MAX_LENGTH,
    };

    #[test]
    fn absent_parameters_are_none() {
        let uri = ipc("");
        let params = uri.params();
        assert_eq!(params.term_length(), Ok(None));
        assert_eq!(params.session_id(), Ok(None));
        assert_eq!(params.initial_position(65536), Ok(None));
        assert_eq!(params.group(), None);
        assert_eq!(params.tags(), Tags::default());
        assert_eq!(params.check_publication(), Ok(()));
        assert_eq!(params.check_subscription(), Ok(()));
    }

    #[test]
    fn term_length_is_a_power_of_two_in_range() {
        let term_length = |text: &str| ipc(&format!("term-length={text}")).params().term_length();
        let fault = |text: &str| term_length(text).unwrap_err().reason;
        assert_eq!(term_length("64k"), Ok(Some(65536)));
        assert_eq!(term_length("1g"), Ok(Some(1 << 30)));
        assert_eq!(fault("63k"), TERM_RANGE);
        assert_eq!(fault("2g"), TERM_RANGE);
        assert_eq!(fault("4294967296"), TERM_RANGE);
        assert_eq!(fault("96k"), ValueFault::NotPowerOfTwo);
        assert_eq!(fault("-65536"), ValueFault::NotSize);
        assert_eq!(
            term_length("abc").unwrap_err().to_string(),
            "invalid term-length=abc: must be a number with an optional suffix k, m or g"
        );
    }

    #[test]
    fn mtu_is_aligned_and_in_range() {
        let mtu = |text: &str| ipc(&format!("mtu={text}")).params().mtu();
        assert_eq!(mtu("64"), Ok(Some(64)));
        assert_eq!(mtu("65504"), Ok(Some(65504)));
        assert_eq!(mtu("2k"), Ok(Some(2048)));
        for bad in ["0", "8", "32", "65535", "65536", "1400", "x"] {
            assert!(mtu(bad).is_err(), "{bad}");
        }
        assert_eq!(mtu("1400").unwrap_err().reason, ValueFault::NotAligned);
    }

    #[test]
    fn a_subscription_does_not_look_at_keys_of_publications() {
        let uri = udp("mtu=8|rcv-wnd=64k|control-mode=response");
        assert_eq!(uri.params().check_subscription(), Ok(()));
        assert_eq!(uri.params().receiver_window(), Ok(Some(65536)));
        assert!(uri.params().is_response());
        assert_eq!(uri.params().check_publication().unwrap_err().key, "mtu");
    }

    #[test]
    fn session_ids_are_numbers_or_for_publications_tags() {
        let uri = ipc("session-id=-7");
        assert_eq!(
            uri.params().session_id(),
            Ok(Some(SessionIdParam::Id(SessionId(-7))))
        );
        assert_eq!(uri.params().subscribed_session_id(), Ok(Some(SessionId(-7))));
        let uri = ipc("session-id=tag:1001");
        assert_eq!(uri.params().session_id(), Ok(Some(SessionIdParam::OfTag(1001))));
        assert!(uri.params().subscribed_session_id().is_err());
        for bad in ["tag:", "tag:x", "2147483648", "x"] {
            assert!(
                ipc(&format!("session-id={bad}")).params().session_id().is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn tags_that_are_no_numbers_count_as_absent() {
        let tags = |text: &str| {
            let tags = ipc(&format!("tags={text}")).params().tags();
            (tags.channel, tags.entity)
        };
        assert_eq!(tags("7"), (Some(7), None));
        assert_eq!(tags("7,8"), (Some(7), Some(8)));
        assert_eq!(tags(",8"), (None, Some(8)));
        assert_eq!(tags("7,"), (Some(7), None));
        assert_eq!(tags("-1,-1"), (None, None));
        assert_eq!(tags("abc"), (None, None));
    }

    #[test]
    fn an_initial_position_is_complete_ordered_and_aligned() {
        let position = |query: &str| {
            let uri = ipc(query);
            uri.params().initial_position(65536)
        };
        let fault = |query: &str| {
            position(query)
                .map_err(|error| (error.key, error.reason))
                .unwrap_err()
        };
        let explicit = position("init-term-id=5|term-id=8|term-offset=1024")
            .unwrap()
            .unwrap();
        assert_eq!(explicit.position(65536), 197_632);
        let wrapped = position("init-term-id=2147483647|term-id=-2147483648|term-offset=65536").unwrap();
        assert_eq!(wrapped.unwrap().position(65536), 131_072);

        assert_eq!(
            fault("term-id=8|term-offset=1024"),
            ("init-term-id", ValueFault::IncompletePosition)
        );
        assert_eq!(
            fault("init-term-id=8|term-offset=1024"),
            ("term-id", ValueFault::IncompletePosition)
        );
        assert_eq!(
            fault("init-term-id=8|term-id=8"),
            ("term-offset", ValueFault::IncompletePosition)
        );
        assert_eq!(
            fault("init-term-id=8|term-id=7|term-offset=0"),
            ("term-id", ValueFault::BeforeInitialTerm)
        );
        assert_eq!(
            fault("init-term-id=8|term-id=8|term-offset=33"),
            ("term-offset", ValueFault::NotAligned)
        );
        assert_eq!(
            fault("init-term-id=8|term-id=8|term-offset=65568"),
            ("term-offset", ValueFault::OutOfRange { min: 0, max: 65536 })
        );
        assert_eq!(fault("init-term-id=8|term-id=8|term-offset=-32").0, "term-offset");
    }

    #[test]
    fn the_publication_window_lies_between_mtu_and_half_a_term() {
        let window = |text: &str| {
            ipc(&format!("pub-wnd={text}"))
                .params()
                .publication_window_within(1408, 65536)
        };
        assert_eq!(window("1408"), Ok(Some(1408)));
        assert_eq!(window("32k"), Ok(Some(32768)));
        assert!(window("1407").is_err());
        assert!(window("32769").is_err());
    }

    #[test]
    fn resends_are_limited() {
        let max_resend = |text: &str| ipc(&format!("max-resend={text}")).params().max_resend();
        assert_eq!(max_resend("1"), Ok(Some(1)));
        assert_eq!(max_resend("256"), Ok(Some(256)));
        assert!(max_resend("0").is_err());
        assert!(max_resend("257").is_err());
    }

    #[test]
    fn flags_and_durations_refuse_what_does_not_parse() {
        for key in ["eos", "ssc", "sparse"] {
            assert!(ipc(&format!("{key}=true")).params().check_publication().is_ok());
            assert_eq!(
                ipc(&format!("{key}=1"))
                    .params()
                    .check_publication()
                    .unwrap_err()
                    .key,
                key
            );
        }
        for key in ["tether", "rejoin", "reliable"] {
            assert!(ipc(&format!("{key}=false")).params().check_subscription().is_ok());
            assert_eq!(
                ipc(&format!("{key}=no"))
                    .params()
                    .check_subscription()
                    .unwrap_err()
                    .key,
                key
            );
        }
        for key in [
            "untethered-window-limit-timeout",
            "untethered-linger-timeout",
            "untethered-resting-timeout",
        ] {
            let uri = ipc(&format!("{key}=5x"));
            assert_eq!(uri.params().check_publication().unwrap_err().key, key);
            assert_eq!(uri.params().check_subscription().unwrap_err().key, key);
        }
        assert_eq!(ipc("linger=2s").params().linger_ns(), Ok(Some(2_000_000_000)));
        assert_eq!(
            ipc("linger=x").params().check_publication().unwrap_err().key,
            "linger"
        );
    }

    #[test]
    fn response_channels_name_a_correlation_id() {
        let id = |text: &str| {
            ipc(&format!("response-correlation-id={text}"))
                .params()
                .response_correlation_id()
        };
        assert_eq!(id("5"), Ok(Some(5)));
        assert_eq!(id("-1"), Ok(Some(-1)));
        assert_eq!(id("prototype"), Ok(Some(PROTOTYPE_CORRELATION_ID)));
        assert!(id("-2").is_err());
        assert!(id("Prototype").is_err());
    }

    #[test]
    fn unknown_words_fall_back_where_the_drivers_do() {
        assert_eq!(udp("control-mode=odd").params().control_mode(), None);
        assert_eq!(
            udp("control-mode=manual").params().control_mode(),
            Some(ControlMode::Manual)
        );
        assert_eq!(udp("group=infer").params().group(), Some(Group::Infer));
        assert_eq!(udp("group=odd").params().group(), Some(Group::False));
        assert!(udp("cc=odd").params().congestion_control().is_err());
        assert_eq!(
            udp("cc=cubic").params().congestion_control(),
            Ok(Some(CongestionControl::Cubic))
        );
    }

    #[test]
    fn flow_control_options_depend_on_the_strategy() {
        let flow_control = |text: &str| udp(&format!("fc={text}")).params().flow_control();
        let plain = |strategy| FlowControl {
            strategy,
            group_tag: None,
            group_min_size: None,
            receiver_timeout_ns: None,
            retransmit_window_multiple: None,
        };
        assert_eq!(
            flow_control("min,g:/3"),
            Ok(Some(FlowControl {
                group_min_size: Some(3),
                ..plain(FlowControlStrategy::Min)
            }))
        );
        assert_eq!(
            flow_control("tagged,g:1001/2,t:5s"),
            Ok(Some(FlowControl {
                group_tag: Some(1001),
                group_min_size: Some(2),
                receiver_timeout_ns: Some(5_000_000_000),
                ..plain(FlowControlStrategy::Tagged)
            }))
        );
        assert_eq!(
            flow_control("max,rrwm:8"),
            Ok(Some(FlowControl {
                retransmit_window_multiple: Some(8),
                ..plain(FlowControlStrategy::Max)
            }))
        );
        for bad in [
            "",
            "odd",
            "max,g:1",
            "max,t:1s",
            "min,x:1",
            "min,",
            "min,g:",
            "min,g:1/-1",
            "min,rrwm:0",
        ] {
            let uri = udp(&format!("endpoint=a:1|fc={bad}"));
            let result = uri.params().flow_control();
            assert!(
                bad.is_empty() == (result == Ok(None)) && (bad.is_empty() || result.is_err()),
                "{bad}"
            );
        }
    }

    #[test]
    fn addresses_and_socket_parameters_are_for_udp() {
        let uri = udp("endpoint=localhost|so-rcvbuf=32k");
        assert_eq!(uri.params().socket_rcvbuf(), Ok(Some(32768)));
        assert_eq!(uri.params().check_publication().unwrap_err().key, "endpoint");
        assert_eq!(ipc("endpoint=localhost").params().check_publication(), Ok(()));
        assert_eq!(udp("ttl=255").params().ttl(), Ok(Some(255)));
        assert_eq!(udp("ttl=256").params().ttl(), Ok(Some(255)));
        assert!(udp("ttl=-1").params().ttl().is_err());
        assert!(udp("ttl=abc").params().ttl().is_err());
        assert_eq!(
            udp("channel-snd-ts-offset=reserved")
                .params()
                .channel_send_timestamp_offset(),
            Ok(Some(TimestampOffset::Reserved))
        );
        assert_eq!(
            udp("channel-rcv-ts-offset=8")
                .params()
                .channel_receive_timestamp_offset(),
            Ok(Some(TimestampOffset::Payload(8)))
        );
        assert!(
            udp("media-rcv-ts-offset=-1")
                .params()
                .media_receive_timestamp_offset()
                .is_err()
        );
    }
}
