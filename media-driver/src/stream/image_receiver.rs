//! The receiver's half of an image: takes data into the log, and sends status messages, requests for lost data, round
//! trip measurements and rejections (wire spec 4.3, 4.5, 4.7 to 4.9, 4.11).
//!
//! The receiver alone writes frames into the log. The conductor's half scans them, decides what is lost and what the
//! next status message says, and hands both over through [`ImageShared`].
#![forbid(unsafe_code)]

use core::net::SocketAddr;
use std::sync::Arc;

use fulmar::counters::{Counter, SystemCounter};
use fulmar::id::{RegistrationId, SessionId, StreamId};
use fulmar::log::gap::Gap as Hole;
use fulmar::log::{LogBuffers, gap_fill, rebuild};
use fulmar::position::PositionShape;
use fulmar::time::NanoTime;
use fulmar::wire::error::ERR_MAX_LENGTH;
use fulmar::wire::setup::SETUP_LENGTH;
use fulmar::wire::status_message::SM_MAX_LENGTH;
use fulmar::wire::{
    DataHeader, ErrorFrame, Nak, PacketExtent, ResponseSetup, Rttm, Setup, StatusMessage, is_eos, is_revoked,
    validate_data_packet,
};

use super::image_shared::{GAPS_MAX, Gap, ImageShared, NextStatusMessage};
use super::resting::Watch;
use crate::commands::TransportId;
use crate::network_counters::NetworkCounters;
use crate::protocol::connections::{Admission, Connections, FeedbackKind, TransportRule};
use crate::protocol::quiet_timer;
use crate::protocol::rtt::{self, RttmAction};
use crate::protocol::window_reminder::WindowReminder;

/// Takes feedback frames on their way out. They are copied; when they leave is the sink's business.
pub trait FeedbackSink {
    /// One frame, through the socket of `transport`, to `to`.
    fn send(&mut self, transport: TransportId, to: SocketAddr, frame: &[u8]);
}

/// The counters that the receiver keeps for an image.
#[derive(Clone, Debug)]
pub struct ImageReceiverCounters {
    /// `rcv-hwm`.
    pub high_water_mark: Counter,
    /// `rcv-naks-sent`.
    pub naks_sent: Counter,
}

/// What an [`ImageReceiver`] is made from.
#[derive(Debug)]
pub struct ImageParts {
    /// Names the image.
    pub correlation_id: RegistrationId,
    /// Its log, as an image log.
    pub log: LogBuffers,
    /// Where it joins: position of the SETUP's active term id and offset.
    pub join_position: i64,
    /// The other half's end.
    pub shared: Arc<ImageShared>,
    /// Counters.
    pub counters: ImageReceiverCounters,
    /// Names the receiving endpoint.
    pub receiver_id: i64,
    /// Its group tag, if any.
    pub group_tag: Option<i64>,
    /// Time between status messages without another reason, nanoseconds.
    pub status_message_timeout_ns: i64,
    /// Time before a status message that opened the window is said again when nothing comes, nanoseconds; 0 for not at
    /// all.
    pub status_message_repeat_ns: i64,
    /// How long a silent source counts as active, nanoseconds.
    pub image_liveness_timeout_ns: i64,
    /// The largest window that congestion control ever gives, bytes.
    pub window_max: i32,
    /// Whether lost data is asked for; otherwise gaps become padding.
    pub is_reliable: bool,
    /// Setting `fulmar.receiver.source.check`.
    pub checks_source: bool,
    /// The transport that the SETUP came through.
    pub transport: TransportRule,
    /// Who sent the SETUP.
    pub source: SocketAddr,
}

/// No padding is longer than this share of a term: a message takes an eighth, and its fragments' headers as much again.
const PADDING_SHARE: i32 = 4;

/// What became of a data datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataOutcome {
    /// Its frames are in the log, or were already.
    Accepted,
    /// A heartbeat.
    Heartbeat,
    /// Beyond the window.
    OverRun,
    /// Before the window.
    UnderRun,
    /// Its structure is wrong.
    Invalid,
    /// Not listened to: the image is rejected, the term is before the first one.
    Ignored,
    /// Not from the source that the image belongs to.
    Foreign,
}

/// The receiver's half of an image.
#[derive(Debug)]
pub struct ImageReceiver {
    correlation_id: RegistrationId,
    log: LogBuffers,
    shape: PositionShape,
    shared: Arc<ImageShared>,
    counters: ImageReceiverCounters,
    connections: Connections,
    receiver_id: i64,
    group_tag: Option<i64>,
    status_message_timeout_ns: i64,
    image_liveness_timeout_ns: i64,
    window_max: i64,
    is_reliable: bool,
    high_water_mark: i64,
    /// How often the conductor had called when it was looked at last.
    seen_attention: i64,
    /// Version of the scheduled status message that was seen last.
    seen_version: i64,
    next: NextStatusMessage,
    last_position: i64,
    last_sent: NanoTime,
    /// Where its status messages stand beside the grid, ns.
    phase_ns: i64,
    reminder: WindowReminder,
    end_of_stream: Option<i64>,
}

impl ImageReceiver {
    /// An image that joins now; its first status message goes out with the next pass.
    #[must_use]
    pub fn new(parts: ImageParts, now: NanoTime) -> Self {
        let ImageParts {
            correlation_id,
            log,
            join_position,
            shared,
            counters,
            receiver_id,
            group_tag,
            status_message_timeout_ns,
            status_message_repeat_ns,
            image_liveness_timeout_ns,
            window_max,
            is_reliable,
            checks_source,
            transport,
            source,
        } = parts;
        let mut connections = Connections::new(checks_source);
        connections.on_activity(now, transport, source, SETUP_LENGTH);
        counters.high_water_mark.set_release(join_position);
        let reminder = WindowReminder::new(status_message_repeat_ns, log.mtu_length(), now);
        Self {
            correlation_id,
            shape: log.shape(),
            log,
            shared,
            counters,
            connections,
            receiver_id,
            group_tag,
            status_message_timeout_ns,
            image_liveness_timeout_ns,
            window_max: i64::from(window_max),
            is_reliable,
            high_water_mark: join_position,
            seen_attention: 0,
            seen_version: 0,
            next: NextStatusMessage {
                position: join_position,
                window: 0,
            },
            last_position: join_position,
            last_sent: now,
            phase_ns: 0,
            reminder,
            end_of_stream: None,
        }
    }

    /// It is one of the images of its endpoint that are spread over so many phases.
    pub fn spread(&mut self, phases: usize) {
        self.phase_ns = quiet_timer::phase_ns(self.stream_id(), self.session_id(), phases);
    }

    /// Names the image.
    #[must_use]
    pub fn correlation_id(&self) -> RegistrationId {
        self.correlation_id
    }

    /// Its session.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.log.session_id()
    }

    /// Its stream.
    #[must_use]
    pub fn stream_id(&self) -> StreamId {
        self.log.stream_id()
    }

    /// Whether its sources have said where the stream ends.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.end_of_stream.is_some()
    }

    /// How far data or heartbeats have come.
    #[must_use]
    pub fn high_water_mark(&self) -> i64 {
        self.high_water_mark
    }

    /// Bytes beyond the last status message's position that are taken.
    fn window_tolerated(&self) -> i64 {
        i64::from(self.shape.term_length() / 2)
    }

    /// Takes a DATA or PAD datagram, or a heartbeat, of this image's session and stream (spec 4.3). `header` is that of
    /// its first frame.
    #[inline]
    pub fn on_data(
        &mut self,
        now: NanoTime,
        rule: TransportRule,
        source: SocketAddr,
        header: &DataHeader,
        datagram: &[u8],
    ) -> DataOutcome {
        if self.shape.term_count(header.term_id) < 0 || self.shared.rejection().is_some() {
            return DataOutcome::Ignored;
        }
        let Ok(extent) = validate_data_packet(datagram, self.shape.term_length()) else {
            return DataOutcome::Invalid;
        };
        let position = self.shape.position(header.term_id, header.term_offset);
        let end = position + extent.length;
        if self.connections.admission(now, rule.id, source) == Admission::Foreign {
            return DataOutcome::Foreign;
        }
        if self.is_over_run(position, extent, datagram.len()) {
            return DataOutcome::OverRun;
        }
        if extent.heartbeat {
            return self.on_heartbeat(now, rule, source, position, datagram);
        }
        if position < self.last_position {
            if end >= self.last_position - self.window_max {
                self.connections.on_activity(now, rule, source, datagram.len());
            }
            return DataOutcome::UnderRun;
        }
        self.on_accepted(now, rule, source, datagram.len());
        let term = self.log.term(self.shape.partition(position));
        rebuild::insert(term, header.term_offset, datagram);
        self.raise_high_water_mark(now, end);
        DataOutcome::Accepted
    }

    /// Whether data or a heartbeat lies beyond what is tolerated.
    ///
    /// A sender lets padding at the end of a term go if its header is within the window: of such a datagram what it
    /// carries counts, not what it covers, which lies in the same term. Else the padding would be dropped again and
    /// again, and with it every heartbeat behind it: the image would starve while its subscribers are only slow.
    fn is_over_run(&self, position: i64, extent: PacketExtent, datagram_length: usize) -> bool {
        let limit = self.last_position + self.window_tolerated();
        if !extent.heartbeat {
            return position + extent.length.min(datagram_length as i64) > limit;
        }
        let is_behind_padding = self.shape.offset(position) == 0
            && position - limit <= i64::from(self.shape.term_length() / PADDING_SHARE);
        position > limit && position > self.high_water_mark && !is_behind_padding
    }

    fn on_heartbeat(
        &mut self,
        now: NanoTime,
        rule: TransportRule,
        source: SocketAddr,
        position: i64,
        datagram: &[u8],
    ) -> DataOutcome {
        let oldest = self.last_position - i64::from(self.shape.term_length());
        if position < oldest.max(0) {
            return DataOutcome::UnderRun;
        }
        self.on_accepted(now, rule, source, datagram.len());
        self.raise_high_water_mark(now, position);
        // An end that is announced again does not move it: what subscribers were told stays.
        if is_eos(datagram)
            && let Some(end) = self.connections.on_end_of_stream(rule.id, position)
            && self.end_of_stream.is_none()
        {
            self.end_of_stream = Some(end);
            self.shared.set_end_of_stream(end, is_revoked(datagram));
        }
        DataOutcome::Heartbeat
    }

    #[inline]
    fn on_accepted(&mut self, now: NanoTime, rule: TransportRule, source: SocketAddr, bytes: usize) {
        self.connections.on_activity(now, rule, source, bytes);
        self.shared.set_time_of_last_packet(now);
    }

    #[inline]
    fn raise_high_water_mark(&mut self, now: NanoTime, position: i64) {
        if position > self.high_water_mark {
            self.reminder.on_high_water_mark(now, position);
            self.high_water_mark = position;
            self.shared.set_high_water_mark(position);
            self.counters.high_water_mark.set_release(position);
        }
    }

    /// A SETUP for this image: its transport is alive, and new ones become known. A SETUP of another stream that only
    /// shares the ids is not listened to.
    pub fn on_setup(&mut self, now: NanoTime, rule: TransportRule, source: SocketAddr, setup: &Setup) {
        let is_same = setup.initial_term_id == self.shape.initial_term_id
            && setup.term_length == self.shape.term_length();
        if is_same && self.connections.admission(now, rule.id, source) != Admission::Foreign {
            self.connections.on_activity(now, rule, source, SETUP_LENGTH);
        }
    }

    /// A round trip measurement for this image. A sample is noted.
    pub fn on_rttm(&mut self, now: NanoTime, frame: &Rttm) -> RttmAction {
        let action = rtt::on_rttm(now, frame, self.receiver_id);
        if let RttmAction::Sample { rtt_ns } = action {
            self.shared.record_rtt(rtt_ns);
        }
        action
    }

    /// Makes room for the connections of so many transports, so that their first datagrams take no memory.
    pub fn reserve_connections(&mut self, transports: usize) {
        self.connections.reserve(transports);
    }

    /// A destination was added to the endpoint.
    pub fn add_destination(&mut self, now: NanoTime, rule: TransportRule) {
        self.connections.add_destination(now, rule);
    }

    /// A destination was removed from the endpoint.
    pub fn remove_destination(&mut self, transport: TransportId) {
        self.connections.remove_destination(transport);
    }

    /// The control address of a transport was resolved anew.
    pub fn set_control(&mut self, transport: TransportId, address: SocketAddr) {
        self.connections.set_control(transport, address);
    }

    /// Sends what is due; returns the number of events, not of frames. A status message that only repeats the one before
    /// is none.
    #[inline]
    pub fn send_pending(
        &mut self,
        now: NanoTime,
        sink: &mut dyn FeedbackSink,
        system: &NetworkCounters,
    ) -> usize {
        self.seen_attention = self.shared.attention();
        if self.shared.rejection().is_some() {
            return self.send_rejection(now, sink, system);
        }
        let mut work = self.send_status_message(now, sink, system);
        work += self.work_off_gaps(now, sink, system);
        if self.shared.take_rtt_wanted() {
            self.send_rtt_request(now, sink);
            work += 1;
        }
        work
    }

    /// Says what to watch while it rests. It may do so at any time: the conductor calls for whatever there is to send, but
    /// for what comes at [`Self::next_deadline`].
    pub fn rest(&self, watch: &mut Option<AttentionWatch>) {
        watch
            .get_or_insert_with(|| AttentionWatch {
                shared: Arc::clone(&self.shared),
                seen: 0,
            })
            .seen = self.seen_attention;
    }

    /// The time at which the next status message is due without another reason.
    #[inline]
    #[must_use]
    pub fn next_deadline(&self) -> NanoTime {
        quiet_timer::next_status_message(self.last_sent, self.status_message_timeout_ns, self.phase_ns)
    }

    /// When a status message is said again because the sender seems not to have heard it. It is to leave on time. An
    /// image that was rejected or has a successor says nothing again.
    #[inline]
    #[must_use]
    pub fn reminder_deadline(&self) -> Option<NanoTime> {
        self.reminder
            .deadline(self.high_water_mark)
            .filter(|_| !self.shared.is_superseded() && self.shared.rejection().is_none())
    }

    #[inline]
    fn send_status_message(
        &mut self,
        now: NanoTime,
        sink: &mut dyn FeedbackSink,
        system: &NetworkCounters,
    ) -> usize {
        let scheduled = self.shared.status_message_after(self.seen_version);
        if let Some((version, next)) = scheduled {
            self.seen_version = version;
            self.next = next;
        }
        let mut is_timed = self.shared.take_status_message_due();
        is_timed |= self.next_deadline().is_due(now);
        let is_reminder = self
            .reminder_deadline()
            .is_some_and(|deadline| deadline.is_due(now));
        if scheduled.is_none() && !is_timed && !is_reminder {
            return 0;
        }
        self.last_sent = now;
        let limit = self.next.position + i64::from(self.next.window);
        self.reminder.on_status_message(now, limit, self.high_water_mark);
        if is_timed {
            let active = self.connections.active(now, self.image_liveness_timeout_ns);
            self.shared.set_active_transports(active);
            if self.shared.is_superseded() {
                return 0;
            }
            self.send_response_setup(now, sink);
        }
        let mut bytes = [0; SM_MAX_LENGTH];
        let frame = self.encode_status_message(&mut bytes);
        let mut sent = 0;
        self.connections
            .for_each_live(now, FeedbackKind::Paced, frame.len(), |transport, to| {
                sink.send(transport, to, frame);
                sent += 1;
            });
        self.last_position = self.next.position;
        system.add(SystemCounter::StatusMessagesSent, sent);
        usize::from(scheduled.is_some())
    }

    fn encode_status_message<'a>(&self, bytes: &'a mut [u8; SM_MAX_LENGTH]) -> &'a [u8] {
        let NextStatusMessage { position, window } = self.next;
        let flags = if self.shared.is_sending_end_of_stream() {
            StatusMessage::FLAG_EOS
        } else {
            0
        };
        let length = StatusMessage {
            flags,
            session_id: self.session_id(),
            stream_id: self.stream_id(),
            term_id: self.shape.term_id(position),
            term_offset: self.shape.offset(position),
            window,
            receiver_id: self.receiver_id,
            group_tag: self.group_tag,
            has_bad_tag_length: false,
        }
        .encode(bytes);
        &bytes[..length]
    }

    /// Tells the publisher which session answers, until it is connected (spec 7, steps 4 to 7).
    fn send_response_setup(&mut self, now: NanoTime, sink: &mut dyn FeedbackSink) {
        let Some(response_session_id) = self.shared.response_session() else {
            return;
        };
        let frame = ResponseSetup {
            session_id: self.session_id(),
            stream_id: self.stream_id(),
            response_session_id,
        }
        .encode();
        self.connections
            .for_each_live(now, FeedbackKind::Paced, frame.len(), |transport, to| {
                sink.send(transport, to, &frame);
            });
    }

    /// Asks for what was lost, or gives it up. The same gap may wait several times when the receiver was slow.
    #[inline]
    fn work_off_gaps(
        &mut self,
        now: NanoTime,
        sink: &mut dyn FeedbackSink,
        system: &NetworkCounters,
    ) -> usize {
        let mut done = [Gap {
            term_id: self.shape.initial_term_id,
            term_offset: 0,
            length: 0,
        }; GAPS_MAX];
        let mut count = 0;
        while count < GAPS_MAX {
            let Some(gap) = self.shared.next_gap() else {
                break;
            };
            if done[..count].contains(&gap) {
                continue;
            }
            done[count] = gap;
            count += 1;
            if self.is_reliable {
                self.send_nak(now, gap, sink, system);
            } else {
                self.fill_gap(gap, system);
            }
        }
        count
    }

    fn send_nak(&mut self, now: NanoTime, gap: Gap, sink: &mut dyn FeedbackSink, system: &NetworkCounters) {
        let frame = Nak {
            session_id: self.session_id(),
            stream_id: self.stream_id(),
            term_id: gap.term_id,
            term_offset: gap.term_offset,
            length: gap.length,
        }
        .encode();
        let mut sent = 0;
        self.connections
            .for_each_live(now, FeedbackKind::Nak, frame.len(), |transport, to| {
                sink.send(transport, to, &frame);
                sent += 1;
            });
        system.add(SystemCounter::NakMessagesSent, sent);
        self.counters.naks_sent.add_relaxed(sent);
    }

    /// The receiver is the only writer of frames, so nothing can come into the gap while it is filled.
    fn fill_gap(&mut self, gap: Gap, system: &NetworkCounters) {
        let position = self.shape.position(gap.term_id, gap.term_offset);
        let is_behind = position < self.last_position || position >= self.high_water_mark;
        if is_behind || self.shape.term_count(gap.term_id) < 0 {
            return;
        }
        let term = self.log.term(self.shape.partition(position));
        let hole = Hole {
            offset: gap.term_offset,
            length: gap.length,
        };
        if gap_fill::fill(term, hole, self.session_id(), self.stream_id(), gap.term_id) {
            system.increment(SystemCounter::LossGapFills);
        }
    }

    fn send_rtt_request(&mut self, now: NanoTime, sink: &mut dyn FeedbackSink) {
        let frame = rtt::request(now, self.session_id(), self.stream_id(), self.receiver_id).encode();
        self.connections
            .for_each_live(now, FeedbackKind::Paced, frame.len(), |transport, to| {
                sink.send(transport, to, &frame);
            });
    }

    /// Tells every source, in place of status messages, that the image was rejected (spec 4.9).
    fn send_rejection(
        &mut self,
        now: NanoTime,
        sink: &mut dyn FeedbackSink,
        system: &NetworkCounters,
    ) -> usize {
        let Some(rejection) = self.shared.rejection() else {
            return 0;
        };
        if !self.next_deadline().is_due(now) && !self.shared.take_status_message_due() {
            return 0;
        }
        self.last_sent = now;
        let mut bytes = [0; ERR_MAX_LENGTH];
        let length = ErrorFrame {
            session_id: self.log.session_id(),
            stream_id: self.log.stream_id(),
            receiver_id: self.receiver_id,
            group_tag: self.group_tag,
            error_code: ErrorFrame::IMAGE_REJECTED,
            text: &rejection.reason,
        }
        .encode(&mut bytes);
        let frame = &bytes[..length];
        let mut sent = 0;
        self.connections
            .for_each(now, FeedbackKind::Paced, frame.len(), |transport, to| {
                sink.send(transport, to, frame);
                sent += 1;
            });
        system.add(SystemCounter::ErrorFramesSent, sent);
        1
    }
}

/// What the receiver looks at of an image at rest.
#[derive(Debug)]
pub struct AttentionWatch {
    shared: Arc<ImageShared>,
    seen: i64,
}

impl Watch for AttentionWatch {
    #[inline]
    fn has_news(&self) -> bool {
        self.shared.attention() != self.seen
    }
}
