//! Flow control: how far the sender of a publication may go (wire protocol 5.1 to 5.3).
//!
//! | strategy | who sets the limit | channels |
//! |---|---|---|
//! | unicast | the one receiver | unicast and response |
//! | max | the fastest receiver | multicast and multi-destination |
//! | min | the slowest receiver | multicast and multi-destination |
//! | tagged | the slowest receiver of a group | multicast and multi-destination |
//!
//! Unicast and max are the same rule: the limit follows the furthest that any status message granted.
#![forbid(unsafe_code)]

pub mod min;
mod receivers;

use fulmar::control::ErrorCode;
use fulmar::time::NanoTime;
use fulmar::uri::{self, FlowControlStrategy};

use crate::config::{DriverContext, ParamsError};
pub use min::MinFlowControl;

/// What flow control needs to know of a status message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusFacts {
    /// Who sent it.
    pub receiver_id: i64,
    /// Position up to which the receiver has consumed.
    pub position: i64,
    /// Bytes it takes beyond that.
    pub window: i64,
    /// The group it says it belongs to.
    pub group_tag: Option<i64>,
    /// It leaves.
    pub is_eos: bool,
}

impl StatusFacts {
    /// The position up to which the receiver lets the sender go.
    #[inline]
    #[must_use]
    pub fn edge(&self) -> i64 {
        self.position.saturating_add(self.window)
    }
}

/// The rule by which the limit moves.
#[derive(Debug)]
pub enum Strategy {
    /// The one receiver.
    Unicast,
    /// The fastest of the receivers.
    Max,
    /// The slowest of the receivers, or of those with a tag.
    Min(Box<MinFlowControl>),
}

/// Flow control of one publication.
#[derive(Debug)]
pub struct FlowControl {
    strategy: Strategy,
    /// How many receiver windows one request may make the sender send again.
    retransmit_window_multiple: i32,
}

impl FlowControl {
    /// The strategy with its retransmit window multiple, which is positive.
    #[must_use]
    pub fn new(strategy: Strategy, retransmit_window_multiple: i32) -> Self {
        Self {
            strategy,
            retransmit_window_multiple,
        }
    }

    /// Flow control of a unicast or response publication; its channel's `fc` is not looked at.
    #[must_use]
    pub fn unicast(context: &DriverContext) -> Self {
        Self::new(Strategy::Unicast, context.unicast_flow_control_rrwm)
    }

    /// Flow control of a multicast or multi-destination publication: by the channel's `fc`, else by the settings.
    ///
    /// # Errors
    /// GENERIC_ERROR if the settings name an unknown strategy.
    pub fn group(channel: Option<&uri::FlowControl>, context: &DriverContext) -> Result<Self, ParamsError> {
        let strategy = match channel {
            Some(channel) => channel.strategy,
            None => default_strategy(&context.multicast_flow_control_strategy)?,
        };
        let channel = channel.copied();
        let min_size = channel
            .and_then(|channel| channel.group_min_size)
            .unwrap_or(context.flow_control_group_min_size);
        let timeout_ns = channel
            .and_then(|channel| channel.receiver_timeout_ns)
            .unwrap_or(context.flow_control_receiver_timeout_ns)
            .min(TIMEOUT_MAX_NS);
        let tag = channel
            .and_then(|channel| channel.group_tag)
            .unwrap_or(context.flow_control_group_tag);
        let strategy = match strategy {
            FlowControlStrategy::Max => Strategy::Max,
            FlowControlStrategy::Min => {
                Strategy::Min(Box::new(MinFlowControl::new(None, min_size, timeout_ns)))
            }
            FlowControlStrategy::Tagged => {
                Strategy::Min(Box::new(MinFlowControl::new(Some(tag), min_size, timeout_ns)))
            }
        };
        let multiple = channel
            .and_then(|channel| channel.retransmit_window_multiple)
            .unwrap_or(context.multicast_flow_control_rrwm);
        Ok(Self::new(strategy, multiple))
    }

    /// A status message came while the limit was `limit`; returns the new limit, which is never lower.
    #[inline]
    pub fn on_status_message(&mut self, now: NanoTime, facts: &StatusFacts, limit: i64) -> i64 {
        match &mut self.strategy {
            Strategy::Unicast | Strategy::Max => limit.max(facts.edge()),
            Strategy::Min(min) => min.on_status_message(now, facts, limit),
        }
    }

    /// A status message asked for a SETUP.
    pub fn on_trigger_send_setup(&mut self, group_tag: Option<i64>) {
        if let Strategy::Min(min) = &mut self.strategy {
            min.on_trigger_send_setup(group_tag);
        }
    }

    /// A SETUP that was asked for is about to be sent.
    pub fn on_setup(&mut self, now: NanoTime, limit: i64) {
        if let Strategy::Min(min) = &mut self.strategy {
            min.on_setup(now, limit);
        }
    }

    /// Nothing was sent in this pass; returns the new limit, which may be lower.
    #[inline]
    pub fn on_idle(&mut self, now: NanoTime, limit: i64) -> i64 {
        match &mut self.strategy {
            Strategy::Unicast | Strategy::Max => limit,
            Strategy::Min(min) => min.on_idle(now, limit),
        }
    }

    /// A receiver refused the stream.
    pub fn on_error(&mut self, receiver_id: i64) {
        if let Strategy::Min(min) = &mut self.strategy {
            min.on_error(receiver_id);
        }
    }

    /// Whether enough receivers are there for the publication to be connected.
    #[inline]
    #[must_use]
    pub fn has_required_receivers(&self) -> bool {
        match &self.strategy {
            Strategy::Unicast | Strategy::Max => true,
            Strategy::Min(min) => min.has_required_receivers(),
        }
    }

    /// Receivers that are followed; `None` for strategies that do not tell receivers apart.
    #[inline]
    #[must_use]
    pub fn receivers(&self) -> Option<usize> {
        match &self.strategy {
            Strategy::Unicast | Strategy::Max => None,
            Strategy::Min(min) => Some(min.count()),
        }
    }

    /// When the limit may move without a message; `None` if it does not.
    #[must_use]
    pub fn next_deadline(&self) -> Option<NanoTime> {
        match &self.strategy {
            Strategy::Unicast | Strategy::Max => None,
            Strategy::Min(min) => min.next_deadline(),
        }
    }

    /// The most that one request may make the sender send again, bytes (wire protocol 3.8).
    #[must_use]
    pub fn max_retransmit_length(&self, initial_window_length: i32, term_length: i32) -> i64 {
        let window = initial_window_length.min(term_length / 2);
        i64::from(window) * i64::from(self.retransmit_window_multiple)
    }
}

/// Receiver timeouts above a century would overflow the clock.
const TIMEOUT_MAX_NS: i64 = i64::MAX / 4;

/// The strategy that a setting names: ours, or the supplier of Aeron's drivers with the same rule.
fn default_strategy(name: &str) -> Result<FlowControlStrategy, ParamsError> {
    let plain = name.trim().to_ascii_lowercase();
    let plain = plain.rsplit('.').next().unwrap_or_default();
    let plain = plain.strip_prefix("aeron_").unwrap_or(plain);
    Ok(match plain {
        "" | "max" | "max_multicast_flow_control_strategy_supplier" | "maxmulticastflowcontrolsupplier" => {
            FlowControlStrategy::Max
        }
        "min" | "min_flow_control_strategy_supplier" | "minmulticastflowcontrolsupplier" => {
            FlowControlStrategy::Min
        }
        "tagged" | "tagged_flow_control_strategy_supplier" | "taggedmulticastflowcontrolsupplier" => {
            FlowControlStrategy::Tagged
        }
        _ => {
            return Err(ParamsError {
                code: ErrorCode::GenericError,
                text: format!("unknown flow control strategy {name}: must be max, min or tagged"),
            });
        }
    })
}

#[cfg(test)]
mod tests;
