//! What a channel and the driver's settings together say about a publication or a subscription (shared-memory spec
//! 13.3 and 13.5; wire protocol 8.3 and 8.4): every parameter has a value here, checked, and no text is left.

use fulmar::control::ErrorCode;
use fulmar::id::{SessionId, TermId};
use fulmar::uri::params::{PROTOTYPE_CORRELATION_ID, key};
use fulmar::uri::{
    ChannelUri, CongestionControl, Group, InitialPosition, ParamError, Role, SessionIdParam, TimestampOffset,
    UriError,
};

use super::choice::ReceiverGroup;
use super::context::DriverContext;
use super::limits::{DURATION_MAX, TERM_LENGTH_MIN};

/// A channel that can not be used as asked; what the client is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ParamsError {
    /// Code of the response.
    pub code: ErrorCode,
    /// Text of the response. The same fault on the same channel has the same text, so that repeats become one entry
    /// of the error log.
    pub text: String,
}

impl ParamsError {
    /// A GENERIC_ERROR.
    pub(crate) fn generic(text: String) -> Self {
        Self::new(text)
    }

    fn new(text: String) -> Self {
        Self {
            code: ErrorCode::GenericError,
            text,
        }
    }

    /// A bad value of a parameter.
    pub(crate) fn of_param(error: &ParamError, uri: &ChannelUri) -> Self {
        Self {
            code: ErrorCode::from(error),
            text: format!("{error}: {uri}"),
        }
    }
}

impl From<UriError> for ParamsError {
    fn from(error: UriError) -> Self {
        Self {
            code: ErrorCode::from(&error),
            text: error.to_string(),
        }
    }
}

/// How long each stage of an untethered subscription lasts, ns (spec 13.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UntetheredTimeouts {
    /// How long a subscriber may be far behind before it loses its image.
    pub window_limit_ns: i64,
    /// How long it still holds the publisher back after that.
    pub linger_ns: i64,
    /// How long it rests before it joins again.
    pub resting_ns: i64,
}

/// A network publication named by its entity tag, whose identity `session-id=tag:n` copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaggedPublication {
    /// Its session.
    pub session_id: SessionId,
    /// Its MTU, bytes.
    pub mtu_length: i32,
    /// Length of its terms, bytes.
    pub term_length: i32,
}

/// Which parameters the channel itself gave, rather than the settings; only these can clash when a publication is
/// shared (spec 13.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explicit {
    /// `mtu`.
    pub mtu_length: bool,
    /// `term-length`.
    pub term_length: bool,
    /// `ssc`.
    pub spies_simulate_connection: bool,
}

/// Everything that shapes one publication. Lengths in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationParams {
    /// Whether the media is UDP.
    pub is_network: bool,
    /// Length of a term: power of two.
    pub term_length: i32,
    /// Longest frame, header included: multiple of 32.
    pub mtu_length: i32,
    /// The session asked for; `None` lets the driver choose. [`PublicationParams::settle`] fills it.
    pub session_id: Option<SessionId>,
    /// Where to start; `None` lets the driver choose. [`PublicationParams::settle`] fills it.
    pub position: Option<InitialPosition>,
    /// How far the publisher may be ahead of its subscribers or receivers; at most half a term.
    pub publication_window_length: i32,
    /// Concurrent retransmissions as the channel gives them; 0 if it does not.
    pub max_resend: i32,
    /// Names this publication for `session-id=tag:n`; -1 for none.
    pub entity_tag: i64,
    /// The other end of a response channel; -1 for none, -2 for a prototype.
    pub response_correlation_id: i64,
    /// How long the drained publication is kept, ns.
    pub linger_timeout_ns: i64,
    /// Stages of subscribers that may be left behind.
    pub untethered: UntetheredTimeouts,
    /// Whether this is the sending end of a response channel.
    pub is_response: bool,
    /// Whether blocks of the log are left to be allocated when touched.
    pub sparse: bool,
    /// Whether receivers are told that the stream ended.
    pub signal_eos: bool,
    /// Whether a spy alone makes the publication connected.
    pub spies_simulate_connection: bool,
    /// Send buffer of the socket; 0 leaves the system's default, and for IPC.
    pub socket_sndbuf_length: i32,
    /// Receive buffer of the socket; 0 leaves the system's default, and for IPC.
    pub socket_rcvbuf_length: i32,
    /// What the channel itself gave.
    pub explicit: Explicit,
}

impl PublicationParams {
    /// Reads the channel of a publication. `session-id=tag:n` finds no publication.
    ///
    /// # Errors
    /// INVALID_CHANNEL for a channel that no publication can have, GENERIC_ERROR for a bad parameter.
    pub fn from_uri(uri: &ChannelUri, context: &DriverContext) -> Result<Self, ParamsError> {
        Self::from_uri_with(uri, context, |_| None)
    }

    /// Reads the channel of a publication; `tagged` finds the network publication with an entity tag.
    ///
    /// # Errors
    /// As [`PublicationParams::from_uri`].
    pub fn from_uri_with(
        uri: &ChannelUri,
        context: &DriverContext,
        tagged: impl FnOnce(i64) -> Option<TaggedPublication>,
    ) -> Result<Self, ParamsError> {
        uri.check_role(Role::Publication)?;
        let copied = copied_identity(uri, tagged)?;
        let mut params = Self::read(uri, context).map_err(|error| ParamsError::of_param(&error, uri))?;
        if let Some(copied) = copied {
            params.copy_identity(&copied, uri)?;
        }
        let length = params.term_length;
        let checked = uri.params().initial_position(length).and_then(|position| {
            params.position = position;
            uri.params().publication_window_within(params.mtu_length, length)
        });
        let asked = checked.map_err(|error| ParamsError::of_param(&error, uri))?;
        params.publication_window_length = publication_window(asked, &params, context);
        params.check_network(uri)?;
        Ok(params)
    }

    fn read(uri: &ChannelUri, context: &DriverContext) -> Result<Self, ParamError> {
        let params = uri.params();
        params.check_publication()?;
        let is_network = uri.is_udp();
        let (term_default, mtu_default) = if is_network {
            (context.term_buffer_length, context.mtu_length)
        } else {
            (context.ipc_term_buffer_length, context.ipc_mtu_length)
        };
        let (term_length, mtu_length) = (params.term_length()?, params.mtu()?);
        let spies = params.spies_simulate_connection()?;
        let response_correlation_id = params.response_correlation_id()?.unwrap_or(NONE);
        let is_response = params.is_response();
        let forced = is_network && is_response && response_correlation_id == PROTOTYPE_CORRELATION_ID;
        Ok(Self {
            is_network,
            term_length: if forced {
                TERM_LENGTH_MIN as i32
            } else {
                term_length.unwrap_or(term_default)
            },
            mtu_length: mtu_length.unwrap_or(mtu_default),
            session_id: match params.session_id()? {
                Some(SessionIdParam::Id(session_id)) => Some(session_id),
                Some(SessionIdParam::OfTag(_)) | None => None,
            },
            position: None,
            publication_window_length: 0,
            max_resend: params.max_resend()?.unwrap_or(0),
            entity_tag: params.tags().entity.unwrap_or(NONE),
            response_correlation_id,
            linger_timeout_ns: bounded(
                params
                    .linger_ns()?
                    .unwrap_or(context.publication_linger_timeout_ns),
            ),
            untethered: untethered(uri, context)?,
            is_response,
            sparse: params.sparse()?.unwrap_or(context.term_buffer_sparse_file),
            signal_eos: params.eos()?.unwrap_or(true),
            spies_simulate_connection: spies.unwrap_or(context.spies_simulate_connection),
            socket_sndbuf_length: socket_buffer(
                is_network,
                params.socket_sndbuf()?,
                context.socket_so_sndbuf,
            ),
            socket_rcvbuf_length: socket_buffer(
                is_network,
                params.socket_rcvbuf()?,
                context.socket_so_rcvbuf,
            ),
            explicit: Explicit {
                mtu_length: mtu_length.is_some(),
                term_length: term_length.is_some(),
                spies_simulate_connection: spies.is_some(),
            },
        })
    }

    fn copy_identity(&mut self, tagged: &TaggedPublication, uri: &ChannelUri) -> Result<(), ParamsError> {
        if self.explicit.mtu_length && self.mtu_length != tagged.mtu_length {
            return Err(clash(key::MTU, self.mtu_length, tagged.mtu_length, uri));
        }
        if self.explicit.term_length && self.term_length != tagged.term_length {
            return Err(clash(key::TERM_LENGTH, self.term_length, tagged.term_length, uri));
        }
        self.session_id = Some(tagged.session_id);
        self.mtu_length = tagged.mtu_length;
        self.term_length = tagged.term_length;
        Ok(())
    }

    /// What only network channels have to fulfil.
    fn check_network(&self, uri: &ChannelUri) -> Result<(), ParamsError> {
        if !self.is_network {
            return Ok(());
        }
        if self.is_response && self.response_correlation_id == NONE {
            return Err(ParamsError::new(format!(
                "control-mode=response on a publication needs response-correlation-id: {uri}"
            )));
        }
        if self.socket_sndbuf_length != 0 && self.mtu_length > self.socket_sndbuf_length {
            return Err(ParamsError::new(format!(
                "invalid mtu={}: must not be above so-sndbuf={}: {uri}",
                self.mtu_length, self.socket_sndbuf_length
            )));
        }
        Ok(())
    }

    /// Fills in what the driver chose where the channel left it open, so that later requests to share can be compared
    /// with it.
    pub fn settle(&mut self, session_id: SessionId, initial_term_id: TermId) {
        self.session_id = Some(session_id);
        self.position.get_or_insert(InitialPosition {
            initial_term_id,
            term_id: initial_term_id,
            term_offset: 0,
        });
    }

    /// Whether a request with the parameters `asked` may share this publication of the session `session_id`: what its
    /// channel gives explicitly has to be equal (spec 13.5). A start that was left open and not
    /// [settled](PublicationParams::settle) equals no explicit one.
    ///
    /// # Errors
    /// GENERIC_ERROR, naming the first parameter that differs.
    pub fn check_clash(&self, asked: &PublicationParams, session_id: SessionId) -> Result<(), ParamsError> {
        if let Some(wanted) = asked.session_id {
            differ(key::SESSION_ID, wanted.get(), session_id.get())?;
        }
        if asked.explicit.mtu_length {
            differ(key::MTU, asked.mtu_length, self.mtu_length)?;
        }
        if asked.explicit.term_length {
            differ(key::TERM_LENGTH, asked.term_length, self.term_length)?;
        }
        if let Some(wanted) = asked.position {
            self.check_start(&wanted)?;
        }
        if asked.is_network && asked.explicit.spies_simulate_connection {
            differ(
                key::SPIES_SIMULATE_CONNECTION,
                asked.spies_simulate_connection,
                self.spies_simulate_connection,
            )?;
        }
        Ok(())
    }

    fn check_start(&self, wanted: &InitialPosition) -> Result<(), ParamsError> {
        let Some(start) = self.position else {
            return Err(ParamsError::new(format!(
                "{}={} clashes with an existing publication on this stream, whose start the driver chose",
                key::INITIAL_TERM_ID,
                wanted.initial_term_id
            )));
        };
        differ(
            key::INITIAL_TERM_ID,
            wanted.initial_term_id,
            start.initial_term_id,
        )?;
        differ(key::TERM_ID, wanted.term_id, start.term_id)?;
        differ(key::TERM_OFFSET, wanted.term_offset, start.term_offset)
    }
}

/// Everything that shapes one subscription. Lengths in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionParams {
    /// The only session to take; `None` takes any.
    pub session_id: Option<SessionId>,
    /// Whether this is the receiving end of a response channel.
    pub is_response: bool,
    /// The other end of a response channel; -1 for none.
    pub response_correlation_id: i64,
    /// Whether this subscriber holds publishers back when it is slow.
    pub tether: bool,
    /// Whether the stream is joined again after its image ended.
    pub rejoin: bool,
    /// Whether lost frames are asked for again.
    pub reliable: bool,
    /// Whether the receiver treats the stream as a group.
    pub group: Group,
    /// Group tag sent to the publisher.
    pub group_tag: Option<i64>,
    /// Window offered to the sender before congestion control changes it.
    pub receiver_window_length: i32,
    /// Congestion control; `None` leaves it to the settings.
    pub congestion_control: Option<CongestionControl>,
    /// How long to wait before asking for lost frames, ns; `None` leaves it to the settings.
    pub nak_delay_ns: Option<i64>,
    /// Whether blocks of the log are left to be allocated when touched.
    pub sparse: bool,
    /// Stages of a subscriber that may be left behind.
    pub untethered: UntetheredTimeouts,
    /// Send buffer of the socket; 0 leaves the system's default, and for IPC.
    pub socket_sndbuf_length: i32,
    /// Receive buffer of the socket; 0 leaves the system's default, and for IPC.
    pub socket_rcvbuf_length: i32,
    /// Where the time a datagram reached the machine is written.
    pub media_receive_timestamp: Option<TimestampOffset>,
    /// Where the time the receiver took a frame is written.
    pub channel_receive_timestamp: Option<TimestampOffset>,
}

impl SubscriptionParams {
    /// Reads the channel of a subscription.
    ///
    /// # Errors
    /// INVALID_CHANNEL for a channel that no subscription can have, GENERIC_ERROR for a bad parameter.
    pub fn from_uri(uri: &ChannelUri, context: &DriverContext) -> Result<Self, ParamsError> {
        uri.check_role(Role::Subscription)?;
        let params = Self::read(uri, context).map_err(|error| ParamsError::of_param(&error, uri))?;
        let socket = params.socket_rcvbuf_length;
        if socket != 0 && params.receiver_window_length > socket {
            return Err(ParamsError::new(format!(
                "invalid rcv-wnd={}: must not be above so-rcvbuf={socket}: {uri}",
                params.receiver_window_length
            )));
        }
        Ok(params)
    }

    fn read(uri: &ChannelUri, context: &DriverContext) -> Result<Self, ParamError> {
        let params = uri.params();
        params.check_subscription()?;
        let is_network = uri.is_udp();
        let inferred = match context.receiver_group_consideration {
            ReceiverGroup::Infer => Group::Infer,
            ReceiverGroup::ForceTrue => Group::True,
            ReceiverGroup::ForceFalse => Group::False,
        };
        Ok(Self {
            session_id: params.subscribed_session_id()?,
            is_response: params.is_response(),
            response_correlation_id: params.response_correlation_id()?.unwrap_or(NONE),
            tether: params.tether()?.unwrap_or(context.tether_subscriptions),
            rejoin: params.rejoin()?.unwrap_or(context.rejoin_stream),
            reliable: params.reliable()?.unwrap_or(context.reliable_stream),
            group: params.group().unwrap_or(inferred),
            group_tag: params.group_tag()?.or(context.receiver_group_tag),
            receiver_window_length: params.receiver_window()?.unwrap_or(context.initial_window_length),
            congestion_control: if is_network {
                params.congestion_control()?
            } else {
                None
            },
            nak_delay_ns: if is_network {
                params.nak_delay_ns()?.map(bounded)
            } else {
                None
            },
            sparse: params.sparse()?.unwrap_or(context.term_buffer_sparse_file),
            untethered: untethered(uri, context)?,
            socket_sndbuf_length: socket_buffer(
                is_network,
                params.socket_sndbuf()?,
                context.socket_so_sndbuf,
            ),
            socket_rcvbuf_length: socket_buffer(
                is_network,
                params.socket_rcvbuf()?,
                context.socket_so_rcvbuf,
            ),
            media_receive_timestamp: if is_network {
                params.media_receive_timestamp_offset()?
            } else {
                None
            },
            channel_receive_timestamp: if is_network {
                params.channel_receive_timestamp_offset()?
            } else {
                None
            },
        })
    }

    /// Whether a later subscription on the same network endpoint and stream may join this one's image (spec 13.5).
    ///
    /// # Errors
    /// GENERIC_ERROR, naming the first parameter that differs.
    pub fn check_clash(&self, asked: &SubscriptionParams) -> Result<(), ParamsError> {
        differ(key::RELIABLE, asked.reliable, self.reliable)?;
        differ(key::REJOIN, asked.rejoin, self.rejoin)?;
        differ("control-mode=response", asked.is_response, self.is_response)
    }
}

/// "None" in correlation ids and tags.
const NONE: i64 = -1;

fn copied_identity(
    uri: &ChannelUri,
    tagged: impl FnOnce(i64) -> Option<TaggedPublication>,
) -> Result<Option<TaggedPublication>, ParamsError> {
    match uri.params().session_id() {
        Ok(Some(SessionIdParam::OfTag(tag))) => tagged(tag).map(Some).ok_or_else(|| {
            ParamsError::new(format!(
                "session-id=tag:{tag}: no network publication has this entity tag: {uri}"
            ))
        }),
        Ok(_) => Ok(None),
        Err(error) => Err(ParamsError::of_param(&error, uri)),
    }
}

/// The window of the channel, else of the settings, else half a term; never above half a term.
fn publication_window(asked: Option<i32>, params: &PublicationParams, context: &DriverContext) -> i32 {
    let configured = if params.is_network {
        context.publication_term_window_length
    } else {
        context.ipc_publication_term_window_length
    };
    let half = params.term_length / 2;
    match asked.unwrap_or(configured) {
        0 => half,
        window => window.min(half),
    }
}

fn untethered(uri: &ChannelUri, context: &DriverContext) -> Result<UntetheredTimeouts, ParamError> {
    let params = uri.params();
    let window_limit = params
        .untethered_window_limit_timeout_ns()?
        .unwrap_or(context.untethered_window_limit_timeout_ns);
    let linger = params
        .untethered_linger_timeout_ns()?
        .or(context.untethered_linger_timeout_ns);
    let resting = params
        .untethered_resting_timeout_ns()?
        .unwrap_or(context.untethered_resting_timeout_ns);
    Ok(UntetheredTimeouts {
        window_limit_ns: bounded(window_limit),
        linger_ns: bounded(linger.unwrap_or(window_limit)),
        resting_ns: bounded(resting),
    })
}

/// A duration that can be added to any time.
fn bounded(nanos: i64) -> i64 {
    nanos.min(DURATION_MAX)
}

fn socket_buffer(is_network: bool, asked: Option<i32>, configured: i32) -> i32 {
    if is_network {
        asked.unwrap_or(configured)
    } else {
        0
    }
}

fn differ<T: PartialEq + core::fmt::Display>(key: &str, asked: T, existing: T) -> Result<(), ParamsError> {
    if asked == existing {
        return Ok(());
    }
    Err(ParamsError::new(format!(
        "{key}={asked} clashes with the existing {key}={existing} on this stream"
    )))
}

fn clash(key: &str, asked: i32, existing: i32, uri: &ChannelUri) -> ParamsError {
    ParamsError::new(format!(
        "{key}={asked} clashes with {key}={existing} of the tagged publication: {uri}"
    ))
}
