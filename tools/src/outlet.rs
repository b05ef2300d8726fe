//! Either kind of publication behind one `offer`, and what to do while it takes nothing.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::time::Duration;

use fulmar::client::{Client, ExclusivePublication, Offer, Publication, RegistrationError};
use fulmar::id::RegistrationId;
use fulmar::time::{NanoTime, SystemClock};

use crate::failure::Failure;
use crate::render::units::format_duration;
use crate::signals::stop_requested;
use crate::waiter::Waiter;

/// Which kind of publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writers {
    /// Any number of publishers share the session.
    Shared,
    /// One publisher owns it.
    Exclusive,
}

impl Writers {
    /// As `--exclusive` says.
    pub(crate) fn of_flag(exclusive: bool) -> Writers {
        if exclusive {
            Writers::Exclusive
        } else {
            Writers::Shared
        }
    }
}

/// A channel and a stream, as messages name them.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) channel: String,
    pub(crate) stream: i32,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} stream {}", self.channel, self.stream)
    }
}

impl Target {
    /// Whether the stream leaves the driver by the network.
    pub(crate) fn is_network(&self) -> bool {
        self.channel.starts_with("aeron:udp")
    }

    /// Where the other end of the stream has to be.
    pub(crate) fn whereabouts(&self) -> &'static str {
        if self.is_network() {
            "on the host of the endpoint, where no firewall may hold UDP back"
        } else {
            "on the same driver"
        }
    }
}

/// Why `what` could not be added.
pub(crate) fn refused(what: &str, target: &Target, error: &RegistrationError) -> Failure {
    Failure::new(format!("cannot add a {what} on {target}: {error}"))
}

/// A publication of either kind.
pub(crate) enum Outlet {
    Shared(Publication),
    Exclusive(ExclusivePublication),
}

impl Outlet {
    /// Adds a publication.
    pub(crate) fn add(client: &Client, target: &Target, writers: Writers) -> Result<Outlet, Failure> {
        let added = match writers {
            Writers::Shared => client
                .add_publication(&target.channel, target.stream)
                .map(Outlet::Shared),
            Writers::Exclusive => client
                .add_exclusive_publication(&target.channel, target.stream)
                .map(Outlet::Exclusive),
        };
        added.map_err(|error| refused("publication", target, &error))
    }

    /// Offers one message.
    #[inline]
    pub(crate) fn offer(&mut self, message: &[u8]) -> Offer {
        match self {
            Outlet::Shared(publication) => publication.offer(message),
            Outlet::Exclusive(publication) => publication.offer(message),
        }
    }

    /// Offers one message whose frames carry `reserved` as their reserved value.
    pub(crate) fn offer_marked(&mut self, message: &[u8], reserved: i64) -> Offer {
        match self {
            Outlet::Shared(publication) => publication.offer_with(message, |_| reserved),
            Outlet::Exclusive(publication) => publication.offer_with(message, |_| reserved),
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        match self {
            Outlet::Shared(publication) => publication.is_connected(),
            Outlet::Exclusive(publication) => publication.is_connected(),
        }
    }

    /// Where the next message goes, in bytes; `None` once closed.
    pub(crate) fn position(&self) -> Option<i64> {
        match self {
            Outlet::Shared(publication) => publication.position(),
            Outlet::Exclusive(publication) => publication.position(),
        }
    }

    /// Names the publication in the driver's counters.
    pub(crate) fn registration_id(&self) -> RegistrationId {
        match self {
            Outlet::Shared(publication) => publication.original_registration_id(),
            Outlet::Exclusive(publication) => publication.original_registration_id(),
        }
    }

    pub(crate) fn session_id(&self) -> i32 {
        match self {
            Outlet::Shared(publication) => publication.session_id().get(),
            Outlet::Exclusive(publication) => publication.session_id().get(),
        }
    }

    pub(crate) fn max_message_length(&self) -> usize {
        match self {
            Outlet::Shared(publication) => publication.max_message_length(),
            Outlet::Exclusive(publication) => publication.max_message_length(),
        }
    }
}

/// What stands between a message and its stream, and for how long.
pub(crate) struct Patience {
    target: Target,
    connect_timeout: Duration,
    unconnected_since: Option<NanoTime>,
    waiter: Waiter,
    has_waited: bool,
    /// Offers that were refused because the subscribers are behind.
    pub(crate) back_pressured: u64,
}

impl Patience {
    /// Waits for a subscriber for at most `connect_timeout`, and for a slow one without end.
    pub(crate) fn new(target: Target, connect_timeout: Duration) -> Patience {
        Patience {
            target,
            connect_timeout,
            unconnected_since: None,
            waiter: Waiter::for_stream(),
            has_waited: false,
            back_pressured: 0,
        }
    }

    /// A message was taken.
    #[inline]
    pub(crate) fn taken(&mut self) {
        if self.has_waited {
            self.has_waited = false;
            self.unconnected_since = None;
            // The next wait begins awake: a stream that is only a little slower than its publisher opens again soon.
            self.waiter.worked(SystemClock.nanos());
        }
    }

    /// Waits a little before the same message is offered again, or says why that is pointless.
    #[cold]
    pub(crate) fn refused(&mut self, outcome: Offer, length: usize) -> Result<(), Failure> {
        if stop_requested() {
            return Err(Failure::new("interrupted"));
        }
        let now = SystemClock.nanos();
        self.has_waited = true;
        match outcome {
            Offer::Position(_) | Offer::AdminAction => Ok(()),
            Offer::BackPressured => {
                self.back_pressured += 1;
                self.unconnected_since = None;
                self.waiter.wait(now);
                Ok(())
            }
            Offer::NotConnected => {
                let since = *self.unconnected_since.get_or_insert(now);
                if (since + self.connect_timeout).is_due(now) {
                    return Err(self.no_subscriber());
                }
                self.waiter.wait(now);
                Ok(())
            }
            Offer::Closed => Err(Failure::new(format!(
                "the publication on {} was closed",
                self.target
            ))),
            Offer::MaxPositionExceeded => Err(Failure::with_advice(
                format!(
                    "the publication on {} is at the end of its position range",
                    self.target
                ),
                "start a new publication, or use a longer term (channel parameter term-length)",
            )),
            Offer::TooLong => Err(Failure::with_advice(
                format!("a message of {length} bytes is too long for {}", self.target),
                "use a longer term: a message may take an eighth of a term (channel parameter term-length), 16m at most",
            )),
        }
    }

    /// No subscriber came in time.
    pub(crate) fn no_subscriber(&self) -> Failure {
        Failure::with_advice(
            format!(
                "no subscriber on {} within {}",
                self.target,
                format_duration(self.connect_timeout)
            ),
            format!(
                "start one with `fulmar subscribe -c '{}' -s {}` {}, or wait longer with --connect-timeout",
                self.target.channel,
                self.target.stream,
                self.target.whereabouts()
            ),
        )
    }
}

/// A wait that takes longer than this is mentioned to whoever sits at the terminal.
const MENTION_AFTER: Duration = Duration::from_secs(2);

/// Waits until `is_connected`, for at most `timeout`; `awaited` names what is waited for, `absent` says that it did not
/// come.
pub(crate) fn await_connection(
    timeout: Duration,
    awaited: &str,
    mut is_connected: impl FnMut() -> bool,
    absent: impl FnOnce() -> Failure,
) -> Result<(), Failure> {
    let mut now = SystemClock.nanos();
    let deadline = now + timeout;
    let mut mention_at = io::stderr().is_terminal().then(|| now + MENTION_AFTER);
    let mut waiter = Waiter::for_stream();
    while !is_connected() {
        if stop_requested() {
            return Err(Failure::new("interrupted"));
        }
        if deadline.is_due(now) {
            return Err(absent());
        }
        if mention_at.is_some_and(|time| time.is_due(now)) {
            mention_at = None;
            eprintln!("waiting for {awaited}, at most {}", format_duration(timeout));
        }
        waiter.wait(now);
        now = SystemClock.nanos();
    }
    Ok(())
}
