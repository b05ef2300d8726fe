//! Images: made when a SETUP of a wanted session was seen, joined to subscriptions, and taken through their life cycle
//! (wire-protocol 4.2, 4.8; shared-memory spec 13.6, 13.11). The receiver has one half; it comes back before the log is
//! freed.
#![forbid(unsafe_code)]

use std::sync::Arc;

use fulmar::control::{ErrorCode, Text};
use fulmar::counters::{Counter, SystemCounter, label, type_id};
use fulmar::id::{CorrelationId, CounterId, RegistrationId, SessionId, StreamId};
use fulmar::log::{LogInit, LogType};
use fulmar::position::PositionShape;
use fulmar::time::NanoTime;
use fulmar::uri::{CongestionControl as CongestionChoice, Group};
use fulmar::wire::Setup;

use super::agent::Conductor;
use super::services::{CommandFailure, CounterSpec};
use super::sources::{self, Identity, Source};
use super::subscriptions::SubscriptionLink;
use crate::commands::{
    CreateLog, CreatedLog, EndpointCommand, EndpointId, ResourceCommand, ResourceError, SetupSeen,
};
use crate::config::{SubscriptionParams, UntetheredTimeouts};
use crate::protocol::congestion::{CongestionControl, CubicSettings};
use crate::protocol::connections::FeedbackRule;
use crate::protocol::feedback_delay::FeedbackDelay;
use crate::protocol::loss_detector::{LossDetector, NakScope};
use crate::stream::image_conductor::{ImageConductor, ImageConductorParts, ImageEvent, ImageState};
use crate::stream::image_receiver::{ImageParts, ImageReceiver, ImageReceiverCounters};
use crate::stream::image_shared::ImageShared;
use crate::stream::position_counter::PositionCounter;
use crate::stream::subscribers::Subscriber;

/// SETUP flags (wire-protocol 1.5).
const FLAG_SEND_RESPONSE: u8 = 0x80;
const FLAG_GROUP: u8 = 0x40;

/// An image whose log is being made.
#[derive(Debug)]
pub(super) struct PendingImage {
    correlation_id: RegistrationId,
    pub(super) endpoint: EndpointId,
    seen: SetupSeen,
    has_group_semantics: bool,
}

/// The conductor's view of an image.
#[derive(Debug)]
pub(super) struct NetworkImage {
    pub(super) half: ImageConductor,
    /// Whether the publisher takes a response.
    pub(super) wants_response: bool,
    /// Counters other than those of subscribers.
    counters: Vec<CounterId>,
    /// Round-trip time and window of congestion control, where they are shown.
    cubic: Option<(Counter, Counter)>,
    /// Whether the receiver gave its half back.
    is_released: bool,
}

impl Source for NetworkImage {
    fn identity(&self) -> Identity<'_> {
        Identity {
            image: self.half.correlation_id.into(),
            session_id: self.half.session_id,
            stream_id: self.half.stream_id,
            log_path: &self.half.log_path,
            source: &self.half.source_identity,
        }
    }

    fn subscribers(&self) -> &[Subscriber] {
        &self.half.subscribers
    }

    fn subscribers_mut(&mut self) -> &mut [Subscriber] {
        &mut self.half.subscribers
    }

    fn join_position(&self) -> i64 {
        self.half.join_position()
    }

    fn link(&mut self, subscriber: Subscriber) {
        self.half.link(subscriber);
    }

    fn unlink(&mut self, matches: &mut dyn FnMut(&Subscriber) -> bool) -> Vec<Subscriber> {
        self.half.unlink(matches)
    }

    fn untethered(&self) -> (UntetheredTimeouts, i64) {
        (self.half.untethered, self.half.untethered_threshold())
    }
}

impl Conductor {
    /// A session that is wanted and has no image: it gets one unless something speaks against it.
    pub(super) fn on_create_image(&mut self, seen: SetupSeen) {
        match self.start_image(&seen) {
            Ok(true) => {}
            Ok(false) => self.image_failed(&seen),
            Err(failure) => {
                let source = seen.source;
                self.services.record_keyed(
                    failure.code,
                    failure.key.unwrap_or("image refused"),
                    &format!("no image for {source}: {}", failure.text),
                );
                self.image_failed(&seen);
            }
        }
    }

    fn image_failed(&mut self, seen: &SetupSeen) {
        self.receiver
            .send(EndpointCommand::InitFailed(seen.setup.stream_id, seen.setup.session_id).at(seen.endpoint));
        self.release_receive_endpoint(seen.endpoint);
    }

    /// The oldest link that takes a session.
    fn oldest_link(
        &self,
        endpoint: EndpointId,
        stream_id: StreamId,
        session_id: SessionId,
    ) -> Option<&SubscriptionLink> {
        self.links.iter().find(|link| {
            link.kind.endpoint() == Some(endpoint)
                && link.stream_id == stream_id
                && link.takes_session(session_id)
        })
    }

    /// Asks for the log of an image; `false` if nobody wants it any more.
    fn start_image(&mut self, seen: &SetupSeen) -> Result<bool, CommandFailure> {
        let setup = seen.setup;
        let Some(endpoint) = self
            .receive_endpoint(seen.endpoint)
            .filter(|endpoint| !endpoint.is_closing)
        else {
            return Ok(false);
        };
        let Some(link) = self.oldest_link(seen.endpoint, setup.stream_id, setup.session_id) else {
            return Ok(false);
        };
        let of_channel = &endpoint.params;
        self.check_setup(seen, of_channel)?;
        let is_multicast = matches!(seen.transport.feedback, FeedbackRule::Group(_));
        let has_group_semantics = match link.params.group {
            Group::True => true,
            Group::False => false,
            Group::Infer => is_multicast || setup.flags & FLAG_GROUP != 0,
        };
        let correlation_id = RegistrationId(self.ring.next_correlation_id());
        let mut init = LogInit::ipc_default(
            correlation_id,
            setup.session_id,
            setup.stream_id,
            setup.initial_term_id,
            setup.term_length,
        );
        init.start_term_id = setup.active_term_id;
        init.start_term_offset = setup.term_offset;
        init.page_size = self.context.file_page_size;
        init.mtu_length = setup.mtu;
        init.publication_window_length = 0;
        init.receiver_window_length = of_channel.receiver_window_length;
        init.socket_sndbuf_length = of_channel.socket_sndbuf_length;
        init.socket_rcvbuf_length = of_channel.socket_rcvbuf_length;
        init.os_default_socket_sndbuf_length = self.os_buffers.default_send_length;
        init.os_default_socket_rcvbuf_length = self.os_buffers.default_receive_length;
        init.max_resend = 0;
        init.entity_tag = 0;
        init.response_correlation_id = 0;
        init.linger_timeout_ns = 0;
        init.untethered_window_limit_timeout_ns = of_channel.untethered.window_limit_ns;
        init.untethered_linger_timeout_ns = of_channel.untethered.linger_ns;
        init.untethered_resting_timeout_ns = of_channel.untethered.resting_ns;
        init.group = has_group_semantics;
        init.is_response = of_channel.is_response;
        init.rejoin = of_channel.rejoin;
        init.reliable = link.params.reliable;
        init.sparse = link.params.sparse;
        init.signal_eos = false;
        init.spies_simulate_connection = false;
        init.tether = of_channel.tether;
        init.log_type = LogType::Image;
        let command = ResourceCommand::CreateLog(Box::new(CreateLog {
            registration_id: correlation_id,
            init,
        }));
        if self.resource_commands.offer(command).is_err() {
            self.services.increment(SystemCounter::ResourceAgentProxyFails);
            // The next SETUP asks again.
            return Ok(false);
        }
        self.pending_images.push(PendingImage {
            correlation_id,
            endpoint: seen.endpoint,
            seen: *seen,
            has_group_semantics,
        });
        Ok(true)
    }

    /// What speaks against an image (wire-protocol 4.2).
    fn check_setup(&self, seen: &SetupSeen, of_channel: &SubscriptionParams) -> Result<(), CommandFailure> {
        let setup = seen.setup;
        let window = of_channel.receiver_window_length;
        let refuse =
            |key, text: String| Err(CommandFailure::new(ErrorCode::GenericError, text).counted_as(key));
        // Ended images count until their memory is free.
        let images_max = self.context.receiver_images_max;
        if self.images.len() + self.pending_images.len() >= images_max as usize {
            return refuse(
                "too many images",
                format!("there are as many images as fulmar.receiver.images.max={images_max} allows"),
            );
        }
        if setup.mtu > window {
            return refuse(
                "mtu above the receiver window",
                format!(
                    "its mtu of {} is above the receiver window of {window}",
                    setup.mtu
                ),
            );
        }
        let socket = match of_channel.socket_rcvbuf_length {
            0 => self.os_buffers.default_receive_length,
            length => length,
        };
        if socket != 0 && window.max(setup.mtu) > socket {
            return refuse(
                "window above the socket's receive buffer",
                format!(
                    "the receiver window of {window} or the mtu of {} is above so-rcvbuf={socket}",
                    setup.mtu
                ),
            );
        }
        let admitted = i64::from(self.context.receiver_term_length_max);
        let asked = i64::from(setup.term_length);
        if asked <= admitted {
            return Ok(());
        }
        let budget = admitted.saturating_mul(i64::from(self.context.receiver_images_max));
        let held = self
            .images
            .iter()
            .map(|image| image.half.log.term_length())
            .chain(
                self.pending_images
                    .iter()
                    .map(|image| image.seen.setup.term_length),
            )
            .map(i64::from)
            .sum::<i64>();
        if held + asked > budget {
            return refuse(
                "terms above the budget of images",
                format!(
                    "its term length of {asked} is above fulmar.receiver.term.length.max={admitted}, and the images \
                     have {held} already"
                ),
            );
        }
        Ok(())
    }

    /// The image whose log was asked for under this id.
    pub(super) fn take_pending_image(&mut self, correlation_id: RegistrationId) -> Option<PendingImage> {
        let is_it = |pending: &PendingImage| pending.correlation_id == correlation_id;
        let index = self.pending_images.iter().position(is_it)?;
        Some(self.pending_images.remove(index))
    }

    pub(super) fn on_image_log(
        &mut self,
        pending: PendingImage,
        result: Result<Box<CreatedLog>, ResourceError>,
    ) {
        let seen = pending.seen;
        let outcome = match result {
            Ok(created) => self.complete_image(pending, *created),
            Err(error) => Err(CommandFailure::new(error.code, error.text).counted_as(error.key)),
        };
        match outcome {
            Ok(true) => {}
            Ok(false) => self.image_failed(&seen),
            Err(failure) => {
                let key = failure.key.unwrap_or("image not made");
                let text = format!("no image for {}: {}", seen.source, failure.text);
                self.services.record_keyed(failure.code, key, &text);
                self.image_failed(&seen);
            }
        }
    }

    /// Makes both halves of an image whose log is there; `false` if nobody wants it any more.
    fn complete_image(&mut self, pending: PendingImage, created: CreatedLog) -> Result<bool, CommandFailure> {
        let PendingImage {
            correlation_id,
            endpoint: endpoint_id,
            seen,
            has_group_semantics,
        } = pending;
        let CreatedLog { log, path } = created;
        let setup = seen.setup;
        let endpoint = self
            .receive_endpoint(endpoint_id)
            .filter(|endpoint| !endpoint.is_closing)
            .map(|endpoint| (endpoint.params.clone(), endpoint.receiver_id));
        let link = self
            .oldest_link(endpoint_id, setup.stream_id, setup.session_id)
            .cloned();
        let (Some((of_channel, receiver_id)), Some(link)) = (endpoint, link) else {
            self.delete_log(path, log);
            return Ok(false);
        };
        // A subscription that went and came back while the log was made: the session has its image already.
        let is_served = self.images.iter().any(|image| {
            image.half.is_of(endpoint_id, setup.stream_id, setup.session_id)
                && image.half.accepts_subscribers()
                && !image.is_released
        });
        if is_served {
            self.delete_log(path, log);
            return Ok(false);
        }
        let made = self
            .congestion_control(&of_channel, &link.params, &setup)
            .and_then(|congestion| {
                let counters = self.allocate_image_counters(correlation_id, &link, &setup, &congestion)?;
                Ok((congestion, counters))
            });
        let (congestion, counters) = match made {
            Ok(made) => made,
            Err(failure) => {
                self.delete_log(path, log);
                return Err(failure);
            }
        };
        let shape = PositionShape::new(setup.term_length, setup.initial_term_id);
        let join_position = shape.position(setup.active_term_id, setup.term_offset);
        let now = self.services.timer;
        let shared = Arc::new(ImageShared::new(now, join_position, congestion.initial_window()));
        let receiver = ImageReceiver::new(
            ImageParts {
                correlation_id,
                log: log.clone(),
                join_position,
                shared: Arc::clone(&shared),
                counters: counters.receiver,
                receiver_id,
                group_tag: of_channel.group_tag,
                status_message_timeout_ns: self.context.rcv_status_message_timeout_ns,
                status_message_repeat_ns: self.context.status_message_repeat_ns,
                image_liveness_timeout_ns: self.context.image_liveness_timeout_ns,
                window_max: congestion.window_max(),
                is_reliable: link.params.reliable,
                checks_source: self.context.receiver_source_check,
                transport: seen.transport,
                source: seen.source,
            },
            self.services.now.nanos,
        );
        let half = ImageConductor::new(
            ImageConductorParts {
                correlation_id,
                endpoint: endpoint_id,
                channel: link.channel.clone(),
                source: seen.source,
                log,
                log_path: path,
                shared,
                join_position,
                receiver_position: counters.position,
                loss: self.loss_detector(has_group_semantics, &link.params),
                congestion,
                rejoin: of_channel.rejoin,
                untethered: of_channel.untethered,
                status_message_timeout_ns: self.context.rcv_status_message_timeout_ns,
                image_liveness_timeout_ns: self.context.image_liveness_timeout_ns,
            },
            now,
        );
        for image in &self.images {
            if image.half.is_of(endpoint_id, setup.stream_id, setup.session_id) {
                image.half.supersede();
            }
        }
        self.receiver
            .send(EndpointCommand::AddImage(Box::new(receiver)).at(endpoint_id));
        let mut image = NetworkImage {
            half,
            wants_response: setup.flags & FLAG_SEND_RESPONSE != 0,
            counters: counters.ids,
            cubic: counters.cubic,
            is_released: false,
        };
        for link in self.links.iter() {
            let is_wanted = link.kind.endpoint() == Some(endpoint_id)
                && link.stream_id == setup.stream_id
                && link.takes_session(setup.session_id);
            if is_wanted {
                sources::link_image(&mut self.services, &mut image, link);
            }
        }
        self.images.push(image);
        Ok(true)
    }

    fn congestion_control(
        &self,
        of_channel: &SubscriptionParams,
        params: &SubscriptionParams,
        setup: &Setup,
    ) -> Result<CongestionControl, CommandFailure> {
        let context = &self.context;
        let choice = match params.congestion_control {
            Some(choice) => choice,
            None => match context.congestion_control_supplier.as_str() {
                "default" | "static" => CongestionChoice::Static,
                "cubic" => CongestionChoice::Cubic,
                other => {
                    return Err(CommandFailure::new(
                        ErrorCode::GenericError,
                        format!("unknown congestion control {other}"),
                    ));
                }
            },
        };
        let window = of_channel.receiver_window_length;
        Ok(match choice {
            CongestionChoice::Static => CongestionControl::fixed(window, setup.term_length),
            CongestionChoice::Cubic => CongestionControl::cubic(
                self.services.timer,
                window,
                setup.term_length,
                setup.mtu,
                CubicSettings {
                    measure_rtt: context.cubic_measure_rtt,
                    initial_rtt_ns: context.cubic_initial_rtt_ns,
                    tcp_mode: context.cubic_tcp_mode,
                },
            ),
        })
    }

    fn loss_detector(&mut self, has_group_semantics: bool, params: &SubscriptionParams) -> LossDetector {
        let context = &self.context;
        let delays = if !params.reliable {
            FeedbackDelay::none()
        } else if has_group_semantics {
            FeedbackDelay::group(
                context.nak_multicast_group_size,
                context.nak_multicast_max_backoff_ns,
                fastrand::Rng::with_seed(self.random.u64(..)),
            )
        } else {
            FeedbackDelay::unicast(
                params.nak_delay_ns.unwrap_or(context.nak_unicast_delay_ns),
                context.nak_unicast_retry_delay_ratio,
            )
        };
        let scope = if context.nak_every_gap {
            NakScope::EveryGap
        } else {
            NakScope::FirstGap
        };
        let detector = LossDetector::new(delays, scope);
        if context.nak_adaptive && params.reliable {
            detector.learning()
        } else {
            detector
        }
    }

    fn allocate_image_counters(
        &mut self,
        correlation_id: RegistrationId,
        link: &SubscriptionLink,
        setup: &Setup,
        congestion: &CongestionControl,
    ) -> Result<ImageCounters, CommandFailure> {
        let key = type_id::stream_key(correlation_id, setup.session_id, setup.stream_id, &link.channel);
        let mut ids = Vec::new();
        let services = &mut self.services;
        let mut allocate = |type_id, name, owner_id| {
            let label = label::stream_label(
                name,
                correlation_id,
                setup.session_id,
                setup.stream_id,
                &link.channel,
            );
            let allocated = services.allocate(&CounterSpec {
                type_id,
                key: &key,
                label: label.as_bytes(),
                registration_id: correlation_id.0,
                owner_id,
                reference_id: 0,
            });
            match allocated {
                Ok(id) => {
                    ids.push(id);
                    Ok(services.counter(id))
                }
                Err(failure) => {
                    for id in ids.drain(..) {
                        services.free_counter(id);
                    }
                    Err(failure)
                }
            }
        };
        let owner = link.client_id.0;
        let high_water_mark = allocate(type_id::RECEIVER_HIGH_WATER_MARK, "rcv-hwm", owner)?;
        let position = allocate(type_id::RECEIVER_POSITION, "rcv-pos", owner)?;
        let naks_sent = allocate(type_id::RECEIVER_NAKS_SENT, "rcv-naks-sent", owner)?;
        let cubic = if matches!(congestion, CongestionControl::Cubic(_)) {
            let rtt = allocate(type_id::PER_IMAGE, "rcv-cc-cubic-rtt", -1)?;
            let window = allocate(type_id::PER_IMAGE, "rcv-cc-cubic-wnd", -1)?;
            Some((rtt, window))
        } else {
            None
        };
        Ok(ImageCounters {
            receiver: ImageReceiverCounters {
                high_water_mark,
                naks_sent,
            },
            position: PositionCounter {
                id: position.id(),
                value: position,
            },
            cubic,
            ids,
        })
    }

    /// Joins a link to every image that it matches.
    pub(super) fn link_images(&mut self, link: &SubscriptionLink) {
        for image in &mut self.images {
            let half = &image.half;
            let is_wanted = link.kind.endpoint() == Some(half.endpoint)
                && link.stream_id == half.stream_id
                && link.takes_session(half.session_id)
                && half.accepts_subscribers();
            if is_wanted {
                sources::link_image(&mut self.services, image, link);
            }
        }
    }

    /// Every duty cycle: follows what has arrived at the images that are awake, but for the first `seen`.
    pub(super) fn track_images(&mut self, seen: usize) -> usize {
        let (now, epoch) = (self.services.timer, self.services.epoch());
        let (mut work, mut wakes_receiver) = (0, false);
        let list = &mut self.visits.images;
        for at in seen..list.awake() {
            let Some(index) = list.member(at) else { break };
            let Some(image) = self.images.get_mut(index) else {
                continue;
            };
            let tracked = image.half.track_rebuild(now);
            work += tracked.work;
            wakes_receiver |= tracked.wakes_receiver;
            if tracked.bytes_lost > 0 {
                image
                    .half
                    .record_loss(&mut self.loss_report, epoch, tracked.bytes_lost);
            }
            if tracked.revoked {
                self.services.increment(SystemCounter::PublicationImagesRevoked);
            }
            if tracked.work > 0
                && let Some((rtt, window)) = &image.cubic
            {
                window.set_release(i64::from(image.half.next_status_message().window));
                if let CongestionControl::Cubic(cubic) = image.half.congestion() {
                    rtt.set_release(cubic.rtt_ns());
                }
            }
            let is_busy = tracked.work > 0 || !image.half.is_quiet();
            if list.is_tired(index, is_busy) {
                list.rest(index, |watch| image.half.rest(watch));
            }
        }
        list.end_pass();
        if wakes_receiver {
            self.receiver.ring();
        }
        work
    }

    /// When an image has something to do without input.
    pub(super) fn images_deadline(&self) -> Option<NanoTime> {
        let awake = &self.visits.images;
        (0..awake.awake())
            .filter_map(|at| self.images.get(awake.member(at)?)?.half.next_deadline())
            .reduce(NanoTime::earlier)
    }

    // Life cycle

    pub(super) fn check_images(&mut self) {
        for index in (0..self.images.len()).rev() {
            self.check_image(index);
        }
    }

    fn check_image(&mut self, index: usize) {
        let now = self.services.timer;
        let image = &mut self.images[index];
        let is_alive = matches!(image.half.state(), ImageState::Active | ImageState::Draining);
        // A log that was truncated under the driver ends with its image; other streams go on.
        if is_alive && image.half.log.region().is_damaged() {
            let text = format!(
                "the log {} was truncated by another process: its image on stream {} is ended",
                image.half.log_path, image.half.stream_id
            );
            image.half.abandon(now);
            self.services.record_error(ErrorCode::GenericError, &text);
        }
        let image = &mut self.images[index];
        if is_alive {
            sources::check_untethered(&mut self.services, &self.links, image);
        }
        match image.half.on_timer(now) {
            ImageEvent::None => {}
            // Its sources hear at once that it leaves.
            ImageEvent::Draining => self.receiver.ring(),
            ImageEvent::Linger => {
                let half = &image.half;
                self.receiver
                    .send(EndpointCommand::RemoveImage(half.correlation_id).at(half.endpoint));
                if half.rejoin {
                    self.receiver.send(
                        EndpointCommand::RemoveCoolDown(half.stream_id, half.session_id).at(half.endpoint),
                    );
                }
                sources::end_images(&mut self.services, &self.links, image);
            }
            ImageEvent::Done => {}
        }
        self.free_if_done(index);
    }

    /// The receiver gave an image back: nobody writes to its counters and log any more.
    pub(super) fn on_image_released(&mut self, receiver: Box<ImageReceiver>) {
        let correlation_id = receiver.correlation_id();
        drop(receiver);
        let is_it = |image: &NetworkImage| image.half.correlation_id == correlation_id;
        if let Some(index) = self.images.iter().position(is_it) {
            self.images[index].is_released = true;
            self.free_if_done(index);
        }
    }

    fn free_if_done(&mut self, index: usize) {
        let image = &self.images[index];
        if image.is_released && image.half.state() == ImageState::Done {
            let endpoint = image.half.endpoint;
            self.free_image(index);
            self.release_receive_endpoint(endpoint);
        }
    }

    /// Frees the counters of an ended image and hands its log over.
    pub(super) fn free_image(&mut self, index: usize) {
        let NetworkImage {
            mut half, counters, ..
        } = self.images.remove(index);
        for subscriber in half.unlink(|_| true) {
            self.services.free_counter(subscriber.counter_id);
        }
        for id in counters {
            self.services.free_counter(id);
        }
        let ImageConductor { log_path, log, .. } = half;
        self.delete_log(log_path, log);
    }

    /// A subscriber rejects an image; `false` if there is no such image.
    pub(super) fn reject_network_image(&mut self, image: CorrelationId, reason: Text<'_>) -> bool {
        let is_it = |candidate: &&NetworkImage| candidate.half.correlation_id.0 == image.0;
        let Some(image) = self.images.iter().find(is_it) else {
            return false;
        };
        image.half.reject(&reason.to_string_lossy());
        self.receiver.ring();
        true
    }
}

/// The counters of one image.
struct ImageCounters {
    receiver: ImageReceiverCounters,
    position: PositionCounter,
    cubic: Option<(Counter, Counter)>,
    /// All of them.
    ids: Vec<CounterId>,
}
