//! One transport of a receive endpoint: a socket, and how what comes through it is answered. An endpoint has one of its
//! own, or, under manual control, one per destination (wire spec 6.5, 6.6).
#![forbid(unsafe_code)]

use core::fmt;
use std::net::SocketAddr;

use fulmar::time::NanoTime;

use crate::commands::TransportId;
use crate::io::UdpSocket;
use crate::protocol::connections::{FeedbackRule, TransportRule};

/// What a [`ReceiveDestination`] is made from.
pub struct DestinationParts {
    /// Names it within its endpoint.
    pub id: TransportId,
    /// How it answers.
    pub feedback: FeedbackRule,
    /// Its socket.
    pub socket: Box<dyn UdpSocket>,
    /// The name behind an explicit control address, `host:port`; `None` if there is none, or if it is no name and hence
    /// never looked up again.
    pub control_name: Option<String>,
    /// Hops of its multicast datagrams; 0 when unknown or not multicast.
    pub multicast_ttl: u8,
}

/// One transport of a receive endpoint.
pub struct ReceiveDestination {
    rule: TransportRule,
    pub(super) socket: Box<dyn UdpSocket>,
    pub(super) control_name: Option<String>,
    pub(super) multicast_ttl: u8,
    /// When data, a SETUP or an accepted round trip measurement came last, or when its name was asked for last.
    pub(super) last_activity: NanoTime,
}

impl fmt::Debug for ReceiveDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveDestination")
            .field("rule", &self.rule)
            .field("local_address", &self.socket.local_address())
            .finish_non_exhaustive()
    }
}

impl ReceiveDestination {
    /// A transport that nothing came through yet.
    #[must_use]
    pub fn new(parts: DestinationParts, now: NanoTime) -> Self {
        // Only an explicit control address can change.
        let is_controlled = matches!(parts.feedback, FeedbackRule::Control(_));
        Self {
            rule: TransportRule {
                id: parts.id,
                feedback: parts.feedback,
            },
            socket: parts.socket,
            control_name: parts.control_name.filter(|_| is_controlled),
            multicast_ttl: parts.multicast_ttl,
            last_activity: now,
        }
    }

    /// Names it within its endpoint.
    #[must_use]
    pub fn id(&self) -> TransportId {
        self.rule.id
    }

    /// How it answers.
    #[must_use]
    pub fn rule(&self) -> TransportRule {
        self.rule
    }

    /// The agent is done with its socket, which another thread closes.
    pub fn release(&mut self) {
        self.socket.release();
    }

    /// Where it is bound.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.socket.local_address()
    }

    /// Its explicit control address, if it has one and its name is resolved.
    #[must_use]
    pub fn explicit_control(&self) -> Option<SocketAddr> {
        match self.rule.feedback {
            FeedbackRule::Control(address) => address,
            FeedbackRule::Source | FeedbackRule::Group(_) => None,
        }
    }

    /// Sets the explicit control address; `false` if it has none, or has this one already.
    pub(super) fn set_control(&mut self, address: SocketAddr) -> bool {
        let FeedbackRule::Control(control) = &mut self.rule.feedback else {
            return false;
        };
        control.replace(address) != Some(address)
    }
}
