//! The echo behind `pong`: what arrives on one stream is offered to another, in order. A message that the other
//! stream can not take yet is left unread and tried again.

#![forbid(unsafe_code)]

use std::time::Duration;

use fulmar::agent::{Agent, AgentError};
use fulmar::client::{Action, Client, ExclusivePublication, Offer, Subscription};
use fulmar::time::{NanoTime, Now, SystemClock};

use crate::args::EchoArgs;
use crate::failure::Failure;
use crate::outlet::{Target, refused};

const FRAGMENT_LIMIT: usize = 16;
/// How long an answer waits for its ping to be connected; a ping sees the pong a little before it is seen.
const UNCONNECTED_GRACE: Duration = Duration::from_secs(1);

/// Reads pings, writes pongs.
pub(crate) struct Echo {
    subscription: Subscription,
    publication: ExclusivePublication,
    message: Vec<u8>,
    unconnected_since: Option<NanoTime>,
}

impl Echo {
    /// Adds both ends.
    pub(crate) fn add(client: &Client, args: &EchoArgs) -> Result<Echo, Failure> {
        let (ping, pong) = (ping_target(args), pong_target(args));
        let subscription = client
            .add_subscription(&ping.channel, ping.stream)
            .map_err(|error| refused("subscription", &ping, &error))?;
        let publication = client
            .add_exclusive_publication(&pong.channel, pong.stream)
            .map_err(|error| refused("publication", &pong, &error))?;
        Ok(Echo {
            subscription,
            publication,
            message: Vec::new(),
            unconnected_since: None,
        })
    }

    /// Whether the driver gave the client up, so that nothing will arrive any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.subscription.is_closed()
    }

    /// Answers what has arrived; returns the number of fragments read.
    pub(crate) fn poll(&mut self) -> usize {
        let Echo {
            subscription,
            publication,
            message,
            unconnected_since,
        } = self;
        subscription.controlled_poll(
            |payload, _header| {
                message.clear();
                payload.append_to(message);
                answer(publication, message, unconnected_since)
            },
            FRAGMENT_LIMIT,
        )
    }
}

fn answer(
    publication: &mut ExclusivePublication,
    message: &[u8],
    unconnected_since: &mut Option<NanoTime>,
) -> Action {
    let mut outcome = publication.offer(message);
    if outcome == Offer::AdminAction {
        outcome = publication.offer(message);
    }
    match outcome {
        Offer::BackPressured | Offer::AdminAction => Action::Abort,
        Offer::NotConnected => {
            let now = SystemClock.nanos();
            let since = *unconnected_since.get_or_insert(now);
            if (since + UNCONNECTED_GRACE).is_due(now) {
                // Nobody listens for the answer, so it is dropped like any message to an unconnected stream.
                Action::Continue
            } else {
                Action::Abort
            }
        }
        Offer::Position(_) => {
            *unconnected_since = None;
            Action::Continue
        }
        Offer::Closed | Offer::MaxPositionExceeded | Offer::TooLong => Action::Continue,
    }
}

impl Agent for Echo {
    fn role_name(&self) -> &str {
        "pong"
    }

    fn do_work(&mut self, _now: Now) -> Result<usize, AgentError> {
        Ok(self.poll())
    }

    fn next_deadline(&self) -> NanoTime {
        NanoTime::never_after(SystemClock.nanos())
    }
}

/// Where pings go.
pub(crate) fn ping_target(args: &EchoArgs) -> Target {
    Target {
        channel: args.ping_channel.clone(),
        stream: args.ping_stream,
    }
}

/// Where pongs go.
pub(crate) fn pong_target(args: &EchoArgs) -> Target {
    Target {
        channel: args.pong_channel.clone(),
        stream: args.pong_stream,
    }
}
