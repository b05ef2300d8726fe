use fulmar::id::{ClientId, CounterId};
use fulmar::log::{AppendOutcome, ConcurrentAppender, NoReservedValue, NoWindow};
use fulmar::memory::AtomicBuffer;
use fulmar::uri::ChannelUri;

use super::*;
use crate::DriverSettings;
use crate::protocol::untethered::Tether;
use crate::stream::fixtures::{INITIAL_TERM, MS, SESSION, TERM, at, counter, log_at, shape};
use crate::stream::publication_repair::Holder;
use crate::stream::publication_shared::Receivers;
use crate::stream::subscribers::LinkId;

const WINDOW: i64 = TERM as i64 / 2;
const LINGER: i64 = 5000 * MS;

struct Fixture {
    publication: PublicationConductor,
    shared: Arc<PublicationShared>,
    limit: fulmar::counters::Counter,
    publisher: ConcurrentAppender<View>,
}

fn fixture(channel: &str) -> Fixture {
    fixture_at(channel, 0)
}

fn fixture_at(channel: &str, start: i64) -> Fixture {
    let context = DriverSettings::defaults().conclude().unwrap();
    let uri = ChannelUri::parse(channel).unwrap();
    let mut params = PublicationParams::from_uri(&uri, &context).unwrap();
    params.settle(SESSION, INITIAL_TERM);
    let log = log_at(start);
    let shared = Arc::new(PublicationShared::new(start));
    let position = || PositionCounter {
        id: CounterId(0),
        value: counter(),
    };
    let publisher_limit = position();
    let limit = publisher_limit.value.clone();
    let mut publication = PublicationConductor::new(
        NewNetworkPublication {
            registration_id: RegistrationId(11),
            endpoint: EndpointId(1),
            channel: channel.to_owned(),
            params,
            exclusive: false,
            log: log.clone(),
            log_path: String::new(),
            publisher_limit,
            publisher_position: position(),
            start_position: start,
            shared: Arc::clone(&shared),
        },
        at(0),
    );
    publication.references.push(Reference {
        registration_id: RegistrationId(11),
        client_id: ClientId(1),
    });
    Fixture {
        publication,
        shared,
        limit,
        publisher: ConcurrentAppender::new(log, 0),
    }
}

const UDP: &str = "aeron:udp?endpoint=localhost:40123|term-length=64k";
const SSC: &str = "aeron:udp?endpoint=localhost:40123|term-length=64k|ssc=true";

impl Fixture {
    fn connect(&self) {
        self.shared.set_receivers(Receivers::Enough);
    }

    fn disconnect(&self) {
        self.shared.set_receivers(Receivers::None);
    }

    /// Publishes messages of 1024 bytes until the limit stops it; returns how many.
    fn publish_all(&self) -> usize {
        let bytes = [7u8; 1024];
        let mut count = 0;
        for _ in 0..1000 {
            let limit = self.limit.get_acquire();
            match self
                .publisher
                .offer(&NoWindow, &bytes.as_slice(), &NoReservedValue, limit)
            {
                AppendOutcome::Appended { .. } => count += 1,
                _ if self.publisher.position() >= limit => break,
                _ => {}
            }
        }
        count
    }

    fn sent(&self, position: i64) {
        self.shared.set_sender_position(position);
    }

    fn spy(&mut self, link: u64, position: i64) -> fulmar::counters::Counter {
        let value = counter();
        value.set_release(position);
        self.publication.link(Subscriber::new(
            (LinkId(link), RegistrationId(20), ClientId(2)),
            (CounterId(0), value.clone()),
            Tether::tethered(at(0)),
            position,
        ));
        value
    }

    fn close(&mut self) {
        assert_eq!(self.publication.remove_references(&|_| true), 1);
    }

    fn is_connected(&self) -> bool {
        self.publication.log.metadata().is_connected()
    }
}

#[test]
fn publishers_get_a_window_once_somebody_is_connected() {
    let mut fixture = fixture(UDP);
    fixture.publication.update_limit();
    assert_eq!(fixture.limit.get_relaxed(), 0);
    assert!(!fixture.is_connected());
    fixture.connect();
    fixture.publication.update_limit();
    assert_eq!(fixture.limit.get_relaxed(), WINDOW);
    assert!(fixture.is_connected());
    assert_eq!(fixture.publication.update_limit(), 0, "nothing new");
}

#[test]
fn losing_everybody_pulls_the_limit_down_to_what_was_sent() {
    let mut fixture = fixture(UDP);
    fixture.connect();
    fixture.publication.update_limit();
    fixture.publish_all();
    fixture.sent(2112);
    fixture.disconnect();
    fixture.publication.update_limit();
    assert_eq!(fixture.limit.get_relaxed(), 2112);
    assert!(!fixture.is_connected());
    fixture.connect();
    fixture.publication.update_limit();
    assert_eq!(fixture.limit.get_relaxed(), 2112 + WINDOW);
    assert!(fixture.is_connected());
}

#[test]
fn the_slowest_spy_bounds_the_limit_and_the_sender_does() {
    let mut fixture = fixture(UDP);
    let spy = fixture.spy(1, 0);
    let faster = fixture.spy(2, 0);
    fixture.publication.update_limit();
    assert_eq!(fixture.limit.get_relaxed(), 0, "spies alone are no connection");
    fixture.connect();
    fixture.publication.update_limit();
    fixture.publish_all();
    fixture.sent(20 * 1056);
    faster.set_release(20 * 1056);
    fixture.publication.update_limit();
    assert_eq!(fixture.limit.get_relaxed(), WINDOW, "the slowest spy stands at 0");
    spy.set_release(30 * 1056);
    fixture.publication.update_limit();
    assert_eq!(fixture.limit.get_relaxed(), 20 * 1056 + WINDOW);
    assert_eq!(fixture.shared.fastest_spy_position(), Some(30 * 1056));
}

#[test]
fn with_ssc_a_spy_alone_connects() {
    let mut fixture = fixture(SSC);
    let spy = fixture.spy(1, 0);
    assert!(fixture.is_connected());
    fixture.publication.update_limit();
    assert_eq!(fixture.limit.get_relaxed(), WINDOW);
    spy.set_release(0);
    fixture
        .publication
        .unlink(|subscriber| subscriber.link == LinkId(1));
    assert!(!fixture.is_connected());
    assert_eq!(fixture.shared.fastest_spy_position(), None);
    fixture.publication.update_limit();
    assert_eq!(fixture.limit.get_relaxed(), 0);
}

#[test]
fn a_spy_that_claims_too_much_is_believed_as_far_as_there_is_data() {
    let mut fixture = fixture(SSC);
    let spy = fixture.spy(1, 0);
    fixture.publication.update_limit();
    fixture.publish_all();
    let producer = fixture.publisher.position();
    for lie in [i64::MAX, i64::MIN, producer + 32] {
        spy.set_release(lie);
        fixture.publication.update_limit();
        assert!(fixture.shared.fastest_spy_position().unwrap() <= producer);
        assert!(fixture.limit.get_relaxed() <= producer + WINDOW);
    }
}

#[test]
fn a_stream_runs_through_many_terms_and_publishers_always_find_zeroes() {
    let mut fixture = fixture(UDP);
    fixture.connect();
    let mut messages = 0;
    let mut sent = 0;
    while sent < 20 * i64::from(TERM) {
        fixture.publication.update_limit();
        let limit = fixture.limit.get_relaxed();
        // Everything a publisher may reach is clean: from its position to the limit, and one message beyond.
        let mut at = fixture.publisher.position();
        let end = limit + 2112;
        while at < end {
            let (partition, offset) = (shape().partition(at), shape().offset(at));
            let word = fixture
                .publication
                .log
                .term(partition)
                .buffer()
                .load_relaxed_i64(offset as usize);
            assert_eq!(word, 0, "dirty at {at}, limit {limit}, sent {sent}");
            at += 32;
        }
        messages += fixture.publish_all();
        // The sender gets a part of it, at a frame.
        sent = (sent + 9 * 1056).min(fixture.publisher.position());
        fixture.sent(sent);
    }
    assert!(messages > 1000);
}

#[test]
fn what_may_be_asked_for_again_is_not_cleaned() {
    let mut fixture = fixture(UDP);
    fixture.connect();
    let mut sent = 0;
    while sent < 5 * i64::from(TERM) {
        fixture.publication.update_limit();
        fixture.publish_all();
        sent = (sent + 9 * 1056).min(fixture.publisher.position());
        fixture.sent(sent);
        fixture.publication.update_limit();
        // Messages start at multiples of 1056 bytes of a term, and so does the padding behind the last one.
        let kept = (sent - i64::from(TERM) / 2).max(0)..sent;
        for at in kept.filter(|at| shape().offset(*at) % 1056 == 0) {
            let (partition, offset) = (shape().partition(at), shape().offset(at));
            let term = fixture.publication.log.term(partition).buffer();
            assert_ne!(term.load_relaxed_i64(offset as usize), 0, "at {at}, sent {sent}");
        }
    }
}

#[test]
fn a_limit_that_would_reach_what_was_not_cleaned_waits() {
    let mut fixture = fixture(UDP);
    fixture.publication.clean_position = 0;
    assert!(fixture.publication.is_clean_ahead_of(2 * i64::from(TERM) - 1));
    assert!(!fixture.publication.is_clean_ahead_of(2 * i64::from(TERM)));
    fixture.publication.clean_position = 32;
    assert!(fixture.publication.is_clean_ahead_of(3 * i64::from(TERM) - 1));
    assert!(!fixture.publication.is_clean_ahead_of(3 * i64::from(TERM)));
}

#[test]
fn a_publication_that_starts_late_needs_no_cleaning_from_the_beginning() {
    let start = 7 * i64::from(TERM) + 64;
    let mut fixture = fixture_at(UDP, start);
    fixture.connect();
    fixture.publication.update_limit();
    assert_eq!(fixture.limit.get_relaxed(), start + WINDOW);
}

#[test]
fn nothing_more_is_taken_after_the_last_one_has_closed() {
    let mut fixture = fixture(UDP);
    fixture.connect();
    fixture.publication.update_limit();
    assert_eq!(fixture.limit.get_relaxed(), WINDOW);
    fixture.close();
    assert_eq!(fixture.limit.get_relaxed(), 0);
    assert_eq!(fixture.publish_all(), 0);
}

#[test]
fn closing_with_everything_sent_is_the_end_of_the_stream_at_once() {
    let mut fixture = fixture(UDP);
    fixture.connect();
    fixture.publication.update_limit();
    fixture.publish_all();
    let end = fixture.publisher.position();
    fixture.sent(end);
    fixture.close();
    assert_eq!(fixture.publication.state(), State::Draining);
    assert!(fixture.shared.is_end_of_stream());
    assert!(fixture.limit.get_relaxed() <= end);
    assert_eq!(fixture.publication.log.metadata().end_of_stream_position(), end);
    assert_eq!(fixture.publication.on_timer(at(0)), LifeCycle::Drained);
    assert_eq!(fixture.publication.on_timer(at(LINGER - 1)), LifeCycle::Unchanged);
    assert_eq!(fixture.publication.on_timer(at(LINGER)), LifeCycle::Done);
}

#[test]
fn unsent_data_is_waited_for_while_somebody_takes_it() {
    let mut fixture = fixture(UDP);
    fixture.connect();
    fixture.publication.update_limit();
    fixture.publish_all();
    let end = fixture.publisher.position();
    fixture.sent(1056);
    fixture.close();
    assert!(!fixture.shared.is_end_of_stream());
    assert_eq!(fixture.publication.on_timer(at(MS)), LifeCycle::Stuck(1056));
    assert!(
        !fixture.publication.unblock_at(1056, &|_, _| Holder::Unknown),
        "what is committed is not touched"
    );
    fixture.sent(end);
    assert_eq!(fixture.publication.on_timer(at(2 * MS)), LifeCycle::Drained);
    assert!(fixture.shared.is_end_of_stream());
}

#[test]
fn unsent_data_that_nobody_takes_ends_without_an_end_of_stream() {
    let mut fixture = fixture(UDP);
    fixture.connect();
    fixture.publication.update_limit();
    fixture.publish_all();
    fixture.close();
    fixture.disconnect();
    assert_eq!(fixture.publication.on_timer(at(MS)), LifeCycle::Drained);
    assert!(!fixture.shared.is_end_of_stream());
}

#[test]
fn the_end_of_the_one_receiver_shortens_the_linger() {
    let mut fixture = fixture(UDP);
    fixture.close();
    assert_eq!(fixture.publication.on_timer(at(0)), LifeCycle::Drained);
    fixture.shared.set_received_unicast_eos(true);
    assert_eq!(fixture.publication.on_timer(at(1)), LifeCycle::Done);
}

#[test]
fn a_draining_publication_waits_for_its_spies() {
    let mut fixture = fixture(UDP);
    fixture.connect();
    fixture.publication.update_limit();
    let spy = fixture.spy(1, 0);
    fixture.publish_all();
    let end = fixture.publisher.position();
    fixture.sent(end);
    fixture.close();
    assert_eq!(fixture.publication.on_timer(at(0)), LifeCycle::Unchanged);
    assert!(fixture.shared.is_end_of_stream(), "receivers learn it now");
    spy.set_release(end);
    assert_eq!(fixture.publication.on_timer(at(1)), LifeCycle::Drained);
    assert!(!fixture.publication.accepts_subscribers());
}

#[test]
fn a_spy_that_reads_on_alone_lets_the_sender_skip_what_is_left() {
    let mut fixture = fixture(SSC);
    let spy = fixture.spy(1, 0);
    fixture.publication.update_limit();
    fixture.publish_all();
    let end = fixture.publisher.position();
    fixture.close();
    spy.set_release(end);
    fixture.publication.on_timer(at(0));
    // The spies are published while it drains as well, or the sender would stand still for ever.
    assert_eq!(fixture.publication.state(), State::Linger);
}

#[test]
fn a_revoked_publication_lingers_at_once() {
    let mut fixture = fixture(UDP);
    fixture.connect();
    fixture.publication.update_limit();
    fixture.publish_all();
    let end = fixture.publisher.position();
    fixture.publication.mark_revoked();
    assert!(fixture.publication.revocation_is_pending());
    fixture.close();
    assert_eq!(
        fixture.publication.state(),
        State::Active,
        "revoking goes before draining"
    );
    assert_eq!(fixture.publication.on_timer(at(0)), LifeCycle::Revoked);
    assert!(fixture.shared.is_end_of_stream());
    assert!(!fixture.is_connected());
    assert_eq!(fixture.publication.log.metadata().end_of_stream_position(), end);
    assert_eq!(fixture.publication.update_limit(), 0);
    assert_eq!(fixture.publication.on_timer(at(LINGER)), LifeCycle::Done);
}

#[test]
fn a_revoked_publication_stays_while_somebody_holds_it() {
    let mut fixture = fixture(UDP);
    fixture.publication.mark_revoked();
    assert_eq!(fixture.publication.on_timer(at(0)), LifeCycle::Revoked);
    assert_eq!(fixture.publication.on_timer(at(2 * LINGER)), LifeCycle::Unchanged);
    fixture.close();
    assert_eq!(fixture.publication.on_timer(at(2 * LINGER)), LifeCycle::Done);
}

#[test]
fn a_publisher_that_died_in_a_claim_is_unblocked_at_the_senders_position() {
    use fulmar::log::HeaderWord;
    use fulmar::log::frame::length_word;
    let mut fixture = fixture(UDP);
    fixture.connect();
    fixture.publication.update_limit();
    fixture.publish_all();
    fixture.sent(1056);
    let slot = fixture.publication.log.term(0).slot(1056);
    slot.store_release(HeaderWord::Length, length_word(-1056, 0xC0, 1));
    assert_eq!(fixture.publication.check_blocked(at(0), 15_000 * MS), None);
    fixture.publication.update_limit();
    assert_eq!(fixture.publication.check_blocked(at(1), 15_000 * MS), None);
    let stuck = fixture
        .publication
        .check_blocked(at(15_000 * MS + 1), 15_000 * MS);
    assert_eq!(stuck, Some(1056));
    assert!(
        !fixture.publication.unblock_at(1056, &|_, _| Holder::Live),
        "a live publisher is waited for"
    );
    assert!(fixture.publication.unblock_at(1056, &|_, _| Holder::Unknown));
    let padded = fulmar::log::scan_datagram(fixture.publication.log.term(0), 1056, 1408);
    assert_eq!((padded.length, padded.padding), (32, 1024));
}

#[test]
fn tails_that_nobody_can_have_reached_are_not_believed() {
    let mut fixture = fixture(UDP);
    fixture.connect();
    fixture.publication.update_limit();
    for raw in [i64::MAX, i64::MIN, -1, i64::from(i32::MAX) << 32] {
        for partition in 0..3 {
            fixture
                .publication
                .log
                .metadata()
                .tail_relaxed_store(partition, raw);
        }
        fixture.publication.update_limit();
        let producer = fixture.publication.producer_position;
        assert!((0..=WINDOW + i64::from(TERM)).contains(&producer), "{producer}");
    }
}
