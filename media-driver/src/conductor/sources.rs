//! Joining subscriptions to what they read, whatever it is: an IPC publication, a network publication seen by a spy, or
//! an image from the network. A join is a position counter and an announcement (shared-memory spec 8.4, 13.6, 13.12).
#![forbid(unsafe_code)]

use fulmar::control::response::{AvailableImage, UnavailableImage};
use fulmar::control::{Response, Text};
use fulmar::counters::{label, type_id};
use fulmar::id::{CorrelationId, CounterId, RegistrationId, SessionId, StreamId};

use super::services::{CounterSpec, Services};
use super::subscriptions::{Links, SubscriptionLink};
use crate::config::UntetheredTimeouts;
use crate::protocol::untethered::{Tether, TetherAction};
use crate::stream::subscribers::{LinkId, Subscriber};

/// What local sources, IPC publications and spied ones, name as their source.
pub(super) const LOCAL_SOURCE_IDENTITY: &str = "aeron:ipc";

/// Channels in announcements that an image is gone are cut to this: they are informational, and no response may be
/// longer than the smallest foreign client can take (shared-memory spec 4.3).
const INFORMATIONAL_CHANNEL_MAX: usize = 1024;

/// How a source shows itself to subscribers.
pub(super) struct Identity<'a> {
    /// The id of the image; the registration id for publications.
    pub(super) image: CorrelationId,
    pub(super) session_id: SessionId,
    pub(super) stream_id: StreamId,
    /// The log's file.
    pub(super) log_path: &'a str,
    /// Where it comes from: `host:port`, or [`LOCAL_SOURCE_IDENTITY`].
    pub(super) source: &'a str,
}

/// Something that subscriptions read.
pub(super) trait Source {
    fn identity(&self) -> Identity<'_>;
    fn subscribers(&self) -> &[Subscriber];
    fn subscribers_mut(&mut self) -> &mut [Subscriber];
    /// Where a new subscriber starts.
    fn join_position(&self) -> i64;
    /// Takes a subscriber in.
    fn link(&mut self, subscriber: Subscriber);
    /// Takes the subscribers that `matches` out.
    fn unlink(&mut self, matches: &mut dyn FnMut(&Subscriber) -> bool) -> Vec<Subscriber>;
    /// How long subscribers may be far behind, and the position at or below which they are.
    fn untethered(&self) -> (UntetheredTimeouts, i64);
}

/// Joins a link to a source unless it is joined already: position counter first, then the announcement.
pub(super) fn link_image(services: &mut Services, source: &mut impl Source, link: &SubscriptionLink) {
    let joined = |subscriber: &Subscriber| subscriber.link == link.id;
    if source.subscribers().iter().any(joined) {
        return;
    }
    let join_position = source.join_position();
    let identity = source.identity();
    let key = type_id::stream_key(
        link.registration_id,
        identity.session_id,
        identity.stream_id,
        &link.channel,
    );
    let label = label::stream_join_label(
        "sub-pos",
        link.registration_id,
        identity.session_id,
        identity.stream_id,
        &link.channel,
        join_position,
    );
    let spec = CounterSpec {
        type_id: type_id::SUBSCRIBER_POSITION,
        key: &key,
        label: label.as_bytes(),
        registration_id: link.registration_id.0,
        owner_id: link.client_id.0,
        reference_id: identity.image.0,
    };
    let counter_id = match services.allocate(&spec) {
        Ok(id) => id,
        Err(failure) => {
            services.record_error(failure.code, &failure.text);
            return;
        }
    };
    let position = services.counter(counter_id);
    position.set_release(join_position);
    let now = services.timer;
    let tether = if link.params.tether {
        Tether::tethered(now)
    } else {
        Tether::untethered(now, link.params.rejoin)
    };
    source.link(Subscriber::new(
        (link.id, link.registration_id, link.client_id),
        (counter_id, position),
        tether,
        join_position,
    ));
    announce_image(services, source, link.registration_id, counter_id);
}

fn announce_image(
    services: &mut Services,
    source: &impl Source,
    subscription: RegistrationId,
    counter_id: CounterId,
) {
    let identity = source.identity();
    services.respond(&Response::AvailableImage(AvailableImage {
        image_correlation_id: identity.image,
        session_id: identity.session_id,
        stream_id: identity.stream_id,
        subscription_registration_id: subscription,
        subscriber_position_counter_id: counter_id,
        log_path: Text::from(identity.log_path),
        source_identity: Text::from(identity.source),
    }));
}

/// Tells a subscription that an image is gone.
fn image_gone(services: &mut Services, source: &impl Source, subscription: RegistrationId, channel: &str) {
    let identity = source.identity();
    services.respond(&Response::UnavailableImage(UnavailableImage {
        image_correlation_id: identity.image,
        subscription_registration_id: subscription,
        stream_id: identity.stream_id,
        channel: Text(&channel.as_bytes()[..channel.len().min(INFORMATIONAL_CHANNEL_MAX)]),
    }));
}

/// Takes subscribers out of a source, tells those that have the image that it is gone, and frees their counters.
pub(super) fn drop_subscribers(
    services: &mut Services,
    links: &Links,
    source: &mut impl Source,
    mut matches: impl FnMut(&Subscriber) -> bool,
) {
    for subscriber in source.unlink(&mut matches) {
        if subscriber.tether.has_image() {
            let channel = links.channel_of(subscriber.link);
            image_gone(services, source, subscriber.registration_id, channel);
        }
        services.free_counter(subscriber.counter_id);
    }
}

/// Tells every linked subscription that has the image that it is gone. Counters stay until the source is freed, because
/// subscribers may still be reading.
pub(super) fn end_images(services: &mut Services, links: &Links, source: &mut impl Source) {
    let now = services.timer;
    let mut ended: Vec<(RegistrationId, LinkId)> = Vec::new();
    for subscriber in source.subscribers_mut() {
        if subscriber.tether.has_image() {
            ended.push((subscriber.registration_id, subscriber.link));
        }
        // Nobody is told a second time.
        subscriber.tether.end(now);
    }
    for (registration_id, link) in ended {
        image_gone(services, source, registration_id, links.channel_of(link));
    }
}

/// At each timer: what happens to subscribers that may be left behind.
pub(super) fn check_untethered(services: &mut Services, links: &Links, source: &mut impl Source) {
    let now = services.timer;
    let (timeouts, threshold) = source.untethered();
    let mut actions: Vec<(usize, TetherAction)> = Vec::new();
    for (position, subscriber) in source.subscribers_mut().iter_mut().enumerate() {
        let at = subscriber.last_position();
        let action = subscriber.tether.on_timer(now, at, threshold, &timeouts);
        if action != TetherAction::None {
            actions.push((position, action));
        }
    }
    // Back to front, so that a removal does not move those still to come.
    for (position, action) in actions.into_iter().rev() {
        apply_tether_action(services, links, source, position, action);
    }
}

fn apply_tether_action(
    services: &mut Services,
    links: &Links,
    source: &mut impl Source,
    position: usize,
    action: TetherAction,
) {
    let subscriber = &source.subscribers()[position];
    let (registration_id, counter_id, link) =
        (subscriber.registration_id, subscriber.counter_id, subscriber.link);
    match action {
        TetherAction::None | TetherAction::StopCounting => {}
        TetherAction::ImageUnavailable => {
            image_gone(services, source, registration_id, links.channel_of(link));
        }
        TetherAction::Close => {
            source.unlink(&mut |subscriber| subscriber.link == link);
            services.free_counter(counter_id);
        }
        TetherAction::Rejoin => {
            // Whoever rests does not count, so that two who return together do not hold each other back.
            let join_position = source.join_position();
            let subscriber = &mut source.subscribers_mut()[position];
            subscriber.restart_at(join_position);
            subscriber.tether.rejoin(services.timer);
            announce_image(services, source, registration_id, counter_id);
        }
    }
}
