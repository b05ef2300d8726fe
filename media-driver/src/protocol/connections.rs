//! Where an image's data comes from and where its feedback goes: one connection per transport of the endpoint (wire
//! spec 4.7, 4.8).
//!
//! The source of plain unicast data is whoever sent the SETUP. Others are not heard while that source is (setting
//! `fulmar.receiver.source.check`): a single forged datagram can neither end a stream nor put data into it. When the
//! source has been silent for [`SOURCE_SILENCE_NS`], ten heartbeats, another one takes over, and feedback follows it: a
//! publisher behind a translator that was given another port goes on. Multicast and channels with an explicit control
//! address are not bound: their data comes from where they like, and their feedback goes to a configured address.
//!
//! A source address may be forged, so what is sent to one is bounded by what came from it: to an address that has not
//! yet answered, three times the bytes received; afterwards requests for lost data the same, plus one per
//! [`NAK_INTERVAL_NS`].
#![forbid(unsafe_code)]

use core::net::SocketAddr;

use fulmar::time::NanoTime;

use crate::commands::TransportId;

/// How long a silent connection gets feedback, nanoseconds.
pub const CONNECTION_TIMEOUT_NS: i64 = 5_000_000_000;
/// How long the bound source has to be silent before another one may take over, nanoseconds.
pub const SOURCE_SILENCE_NS: i64 = 1_000_000_000;
/// Bytes that may be sent per byte received.
pub const AMPLIFICATION_MAX: i64 = 3;
/// One request for lost data per so many nanoseconds is always granted.
pub const NAK_INTERVAL_NS: i64 = 10_000_000;
/// Requests for lost data that are granted at first, whatever was received.
pub const NAK_BURST: i64 = 64;
/// Bytes of one request for lost data.
const NAK_BYTES: i64 = 28;
/// Connections that a new image has room for without taking more memory.
const CONNECTIONS_EXPECTED: usize = 4;
/// Ends the growth of the byte counts; far beyond any bound that they are compared with.
const BYTES_MAX: i64 = 1 << 60;

/// How a transport answers what comes in through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedbackRule {
    /// To whoever sent it: plain unicast.
    Source,
    /// To an explicit control address; `None` while its name can not be resolved.
    Control(Option<SocketAddr>),
    /// To the control group: multicast.
    Group(SocketAddr),
}

impl FeedbackRule {
    /// The address for feedback on something that came from `source`.
    #[must_use]
    pub fn address(self, source: SocketAddr) -> Option<SocketAddr> {
        match self {
            Self::Source => Some(source),
            Self::Control(address) => address,
            Self::Group(address) => Some(address),
        }
    }
}

/// A transport of the endpoint, as far as an image has to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportRule {
    /// Which one.
    pub id: TransportId,
    /// How it answers.
    pub feedback: FeedbackRule,
}

/// What is sent as feedback, as far as its amount is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedbackKind {
    /// Paced by a timer or by what was received.
    Paced,
    /// A request for lost data.
    Nak,
}

/// What came from an address and what was sent to it.
#[derive(Clone, Copy, Debug)]
struct Amplification {
    since: NanoTime,
    received: i64,
    sent: i64,
    naks_sent: i64,
    /// Whether something came after something was sent: there is somebody at this address.
    answered: bool,
}

impl Amplification {
    fn new(now: NanoTime, received: i64) -> Self {
        Self {
            since: now,
            received,
            sent: 0,
            naks_sent: 0,
            answered: false,
        }
    }

    fn on_received(&mut self, bytes: i64) {
        self.answered |= self.sent > 0;
        self.received = (self.received + bytes).min(BYTES_MAX);
    }

    /// Whether `bytes` may be sent; counts them if so.
    fn take(&mut self, now: NanoTime, kind: FeedbackKind, bytes: i64) -> bool {
        let bound = AMPLIFICATION_MAX * self.received;
        if !self.answered && self.sent + bytes > bound {
            return false;
        }
        if kind == FeedbackKind::Nak {
            let granted = (NAK_BURST + now.since(self.since).max(0) / NAK_INTERVAL_NS) * NAK_BYTES;
            if self.naks_sent + bytes > bound + granted {
                return false;
            }
            self.naks_sent = (self.naks_sent + bytes).min(BYTES_MAX);
        }
        self.sent = (self.sent + bytes).min(BYTES_MAX);
        true
    }
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    rule: TransportRule,
    /// Whoever it was created for; `None` for a destination that was added and is not heard of yet.
    source: Option<SocketAddr>,
    /// Where feedback goes, once known.
    control: Option<SocketAddr>,
    last_activity: NanoTime,
    end_of_stream: Option<i64>,
    amplification: Amplification,
}

impl Connection {
    fn new(now: NanoTime, rule: TransportRule, source: Option<SocketAddr>, received: i64) -> Self {
        let control = match (rule.feedback, source) {
            (feedback, Some(source)) => feedback.address(source),
            (FeedbackRule::Control(address), None) => address,
            (FeedbackRule::Group(address), None) => Some(address),
            (FeedbackRule::Source, None) => None,
        };
        Self {
            rule,
            source,
            control,
            last_activity: now,
            end_of_stream: None,
            amplification: Amplification::new(now, received),
        }
    }

    fn is_bound_to_other(&self, source: SocketAddr) -> bool {
        self.rule.feedback == FeedbackRule::Source && self.source.is_some_and(|bound| bound != source)
    }
}

/// Whose datagram it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The source of the connection, or a connection that has none.
    Known,
    /// Another one, which may take over because the bound source has fallen silent.
    TakesOver,
    /// Another one while the bound source is heard: not to be listened to.
    Foreign,
}

/// The connections of one image.
#[derive(Debug)]
pub struct Connections {
    entries: Vec<Connection>,
    checks_source: bool,
}

impl Connections {
    /// None yet. `checks_source`: setting `fulmar.receiver.source.check`.
    #[must_use]
    pub fn new(checks_source: bool) -> Self {
        Self {
            entries: Vec::with_capacity(CONNECTIONS_EXPECTED),
            checks_source,
        }
    }

    fn find(&self, transport: TransportId) -> Option<usize> {
        self.entries
            .iter()
            .position(|connection| connection.rule.id == transport)
    }

    fn entry(&mut self, transport: TransportId) -> Option<&mut Connection> {
        let index = self.find(transport)?;
        self.entries.get_mut(index)
    }

    /// Makes room for `additional` more, so that their first datagrams take no memory.
    pub fn reserve(&mut self, additional: usize) {
        self.entries.reserve(additional);
    }

    /// A destination was added: one with a known feedback address gets feedback before anything came from it.
    pub fn add_destination(&mut self, now: NanoTime, rule: TransportRule) {
        self.reserve(1);
        if rule.feedback != FeedbackRule::Source && self.find(rule.id).is_none() {
            self.entries.push(Connection::new(now, rule, None, 0));
        }
    }

    /// A destination was removed.
    pub fn remove_destination(&mut self, transport: TransportId) {
        self.entries.retain(|connection| connection.rule.id != transport);
    }

    /// The name of an explicit control address was resolved anew.
    pub fn set_control(&mut self, transport: TransportId, address: SocketAddr) {
        if let Some(connection) = self.entry(transport) {
            connection.rule.feedback = FeedbackRule::Control(Some(address));
            connection.control = Some(address);
        }
    }

    /// Whether a datagram that came through a transport is listened to.
    #[inline]
    #[must_use]
    pub fn admission(&self, now: NanoTime, transport: TransportId, source: SocketAddr) -> Admission {
        let Some(connection) = self.find(transport).and_then(|index| self.entries.get(index)) else {
            return Admission::Known;
        };
        if !self.checks_source || !connection.is_bound_to_other(source) {
            Admission::Known
        } else if now.since(connection.last_activity) >= SOURCE_SILENCE_NS {
            Admission::TakesOver
        } else {
            Admission::Foreign
        }
    }

    /// Something acceptable of `bytes` bytes came from a source that is listened to.
    #[inline]
    pub fn on_activity(&mut self, now: NanoTime, rule: TransportRule, source: SocketAddr, bytes: usize) {
        let bytes = bytes as i64;
        let checks_source = self.checks_source;
        let Some(connection) = self.entry(rule.id) else {
            self.entries.push(Connection::new(now, rule, Some(source), bytes));
            return;
        };
        connection.last_activity = now;
        if checks_source && connection.is_bound_to_other(source) {
            connection.source = Some(source);
            connection.control = rule.feedback.address(source);
            connection.amplification = Amplification::new(now, bytes);
            return;
        }
        if connection.source.is_none() {
            connection.source = Some(source);
        }
        if connection.control.is_none() {
            connection.control = rule.feedback.address(source);
        }
        connection.amplification.on_received(bytes);
    }

    /// The stream ends at `position`, as the source of this transport says. Returns the end of the stream once all
    /// connections have one: the farthest.
    pub fn on_end_of_stream(&mut self, transport: TransportId, position: i64) -> Option<i64> {
        if let Some(connection) = self.entry(transport) {
            connection.end_of_stream = Some(position);
        }
        self.entries
            .iter()
            .map(|connection| connection.end_of_stream)
            .try_fold(0, |farthest: i64, end| Some(farthest.max(end?)))
            .filter(|_| !self.entries.is_empty())
    }

    /// Connections with a datagram within `timeout_ns`.
    #[must_use]
    pub fn active(&self, now: NanoTime, timeout_ns: i64) -> usize {
        self.entries
            .iter()
            .filter(|connection| now.since(connection.last_activity) < timeout_ns)
            .count()
    }

    /// Whether any connection gets feedback.
    #[must_use]
    pub fn any_live(&self, now: NanoTime) -> bool {
        self.entries.iter().any(|connection| is_live(connection, now))
    }

    /// Calls `send` with transport and address of every live connection that may be sent `bytes` more.
    #[inline]
    pub fn for_each_live(
        &mut self,
        now: NanoTime,
        kind: FeedbackKind,
        bytes: usize,
        mut send: impl FnMut(TransportId, SocketAddr),
    ) {
        for connection in &mut self.entries {
            if is_live(connection, now) {
                feed_back(connection, now, self.checks_source, (kind, bytes), &mut send);
            }
        }
    }

    /// As [`Self::for_each_live`], for those that have fallen silent as well: a rejection is told to everybody.
    pub fn for_each(
        &mut self,
        now: NanoTime,
        kind: FeedbackKind,
        bytes: usize,
        mut send: impl FnMut(TransportId, SocketAddr),
    ) {
        for connection in &mut self.entries {
            feed_back(connection, now, self.checks_source, (kind, bytes), &mut send);
        }
    }
}

#[inline]
fn is_live(connection: &Connection, now: NanoTime) -> bool {
    now.since(connection.last_activity) < CONNECTION_TIMEOUT_NS
}

#[inline]
fn feed_back(
    connection: &mut Connection,
    now: NanoTime,
    is_bounded: bool,
    (kind, bytes): (FeedbackKind, usize),
    send: &mut impl FnMut(TransportId, SocketAddr),
) {
    let Some(address) = connection.control else {
        return;
    };
    // A configured address is nobody's that the network could choose.
    let is_learnt = connection.rule.feedback == FeedbackRule::Source;
    if is_learnt && is_bounded && !connection.amplification.take(now, kind, bytes as i64) {
        return;
    }
    send(connection.rule.id, address);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: i64 = 1_000_000_000;
    const PLAIN: TransportRule = TransportRule {
        id: TransportId(0),
        feedback: FeedbackRule::Source,
    };

    fn address(last: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], port))
    }

    fn controlled(id: u32, control: Option<SocketAddr>) -> TransportRule {
        TransportRule {
            id: TransportId(id),
            feedback: FeedbackRule::Control(control),
        }
    }

    fn live(connections: &mut Connections, now: NanoTime) -> Vec<(u32, SocketAddr)> {
        let mut targets = Vec::new();
        connections.for_each_live(now, FeedbackKind::Paced, 1, |transport, address| {
            targets.push((transport.0, address));
        });
        targets
    }

    fn connected(checks_source: bool) -> Connections {
        let mut connections = Connections::new(checks_source);
        connections.on_activity(NanoTime(0), PLAIN, address(1, 100), 40);
        connections
    }

    #[test]
    fn plain_unicast_feedback_goes_to_whoever_created_the_connection() {
        let mut connections = connected(false);
        connections.on_activity(NanoTime(1), PLAIN, address(2, 100), 40);
        assert_eq!(live(&mut connections, NanoTime(1)), [(0, address(1, 100))]);
    }

    #[test]
    fn multicast_and_explicit_control_feedback_goes_to_the_configured_address() {
        let mut connections = Connections::new(true);
        let group = TransportRule {
            id: TransportId(1),
            feedback: FeedbackRule::Group(address(9, 900)),
        };
        connections.on_activity(NanoTime(0), group, address(1, 100), 40);
        connections.on_activity(
            NanoTime(0),
            controlled(2, Some(address(8, 800))),
            address(1, 100),
            40,
        );
        assert_eq!(
            live(&mut connections, NanoTime(0)),
            [(1, address(9, 900)), (2, address(8, 800))]
        );
    }

    #[test]
    fn an_unresolved_control_address_gets_feedback_once_resolved() {
        let mut connections = Connections::new(true);
        connections.add_destination(NanoTime(0), controlled(1, None));
        connections.on_activity(NanoTime(0), controlled(1, None), address(1, 100), 40);
        assert_eq!(live(&mut connections, NanoTime(0)), []);
        connections.set_control(TransportId(1), address(8, 800));
        assert_eq!(live(&mut connections, NanoTime(0)), [(1, address(8, 800))]);
    }

    #[test]
    fn a_connection_gets_feedback_for_five_seconds_of_silence() {
        let mut connections = connected(true);
        assert_eq!(live(&mut connections, NanoTime(5 * SECOND_NS - 1)).len(), 1);
        assert_eq!(live(&mut connections, NanoTime(5 * SECOND_NS)).len(), 0);
        assert!(!connections.any_live(NanoTime(5 * SECOND_NS)));
        assert_eq!(connections.active(NanoTime(5 * SECOND_NS), 10 * SECOND_NS), 1);
        let mut rejected = 0;
        connections.for_each(NanoTime(6 * SECOND_NS), FeedbackKind::Paced, 40, |_, _| {
            rejected += 1;
        });
        assert_eq!(rejected, 1, "a rejection is told to silent ones as well");
    }

    #[test]
    fn an_added_destination_with_control_gets_feedback_at_once_and_a_plain_one_when_heard() {
        let mut connections = connected(true);
        connections.add_destination(NanoTime(5), controlled(1, Some(address(8, 800))));
        connections.add_destination(
            NanoTime(5),
            TransportRule {
                id: TransportId(2),
                ..PLAIN
            },
        );
        assert_eq!(live(&mut connections, NanoTime(5)).len(), 2);
        connections.on_activity(
            NanoTime(6),
            TransportRule {
                id: TransportId(2),
                ..PLAIN
            },
            address(3, 300),
            64,
        );
        assert_eq!(live(&mut connections, NanoTime(6)).len(), 3);
        connections.remove_destination(TransportId(1));
        assert_eq!(
            live(&mut connections, NanoTime(6)),
            [(0, address(1, 100)), (2, address(3, 300))]
        );
    }

    #[test]
    fn the_stream_ends_when_every_connection_says_so_at_the_farthest_position() {
        let mut connections = connected(true);
        connections.on_activity(
            NanoTime(0),
            controlled(1, Some(address(8, 800))),
            address(2, 1),
            40,
        );
        assert_eq!(connections.on_end_of_stream(TransportId(1), 640), None);
        assert_eq!(connections.on_end_of_stream(TransportId(0), 320), Some(640));
    }

    #[test]
    fn other_sources_are_not_heard_while_the_bound_one_is() {
        let connections = connected(true);
        let id = TransportId(0);
        assert_eq!(
            connections.admission(NanoTime(1), id, address(1, 100)),
            Admission::Known
        );
        for other in [address(2, 100), address(1, 101)] {
            assert_eq!(
                connections.admission(NanoTime(SECOND_NS - 1), id, other),
                Admission::Foreign
            );
            assert_eq!(
                connections.admission(NanoTime(SECOND_NS), id, other),
                Admission::TakesOver
            );
        }
        assert_eq!(
            connected(false).admission(NanoTime(1), id, address(2, 100)),
            Admission::Known,
            "without the check everybody is heard"
        );
    }

    #[test]
    fn a_source_with_a_new_port_takes_over_after_silence_and_gets_the_feedback() {
        let mut connections = connected(true);
        connections.on_activity(NanoTime(SECOND_NS), PLAIN, address(1, 200), 64);
        assert_eq!(
            live(&mut connections, NanoTime(SECOND_NS)),
            [(0, address(1, 200))]
        );
        assert_eq!(
            connections.admission(NanoTime(SECOND_NS), TransportId(0), address(1, 100)),
            Admission::Foreign
        );
    }

    #[test]
    fn data_with_explicit_control_may_come_from_any_source() {
        let mut connections = Connections::new(true);
        let rule = controlled(0, Some(address(8, 800)));
        connections.on_activity(NanoTime(0), rule, address(1, 1), 40);
        assert_eq!(
            connections.admission(NanoTime(1), TransportId(0), address(2, 2)),
            Admission::Known
        );
    }

    fn sent(
        connections: &mut Connections,
        now: NanoTime,
        kind: FeedbackKind,
        bytes: usize,
        times: usize,
    ) -> usize {
        let mut count = 0;
        for _ in 0..times {
            connections.for_each_live(now, kind, bytes, |_, _| count += 1);
        }
        count * bytes
    }

    #[test]
    fn an_address_that_never_answered_gets_at_most_three_times_its_bytes() {
        let mut connections = connected(true);
        let paced = sent(&mut connections, NanoTime(1), FeedbackKind::Paced, 36, 100);
        let naks = sent(&mut connections, NanoTime(1), FeedbackKind::Nak, 28, 100);
        assert!(paced + naks <= 3 * 40, "{paced} + {naks}");
        assert!(paced > 0);
    }

    #[test]
    fn an_address_that_answered_gets_its_status_messages_and_bounded_requests() {
        let mut connections = connected(true);
        assert_eq!(
            sent(&mut connections, NanoTime(1), FeedbackKind::Paced, 36, 1),
            36
        );
        connections.on_activity(NanoTime(2), PLAIN, address(1, 100), 32);
        assert_eq!(
            sent(&mut connections, NanoTime(3), FeedbackKind::Paced, 36, 25),
            25 * 36
        );
        let naks = sent(&mut connections, NanoTime(3), FeedbackKind::Nak, 28, 50_000);
        assert!(naks <= 3 * 72 + 64 * 28, "{naks}");
        let later = NanoTime(3 + SECOND_NS);
        let naks = sent(&mut connections, later, FeedbackKind::Nak, 28, 50_000);
        assert!((99 * 28..=101 * 28).contains(&naks), "{naks}");
        connections.on_activity(later, PLAIN, address(1, 100), 1408);
        let naks = sent(&mut connections, later, FeedbackKind::Nak, 28, 50_000);
        assert!((3 * 1408 - 28..=3 * 1408 + 28).contains(&naks), "{naks}");
    }

    #[test]
    fn configured_addresses_are_not_bounded() {
        let mut connections = Connections::new(true);
        connections.add_destination(NanoTime(0), controlled(1, Some(address(8, 800))));
        assert_eq!(
            sent(&mut connections, NanoTime(0), FeedbackKind::Nak, 28, 1000),
            28_000
        );
    }
}
