//! What must hold in every simulated world, whatever is done to it. The checkers know what was offered and look at
//! what arrives and at the counters of every driver; they call nothing of the product but its counters.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use fulmar::counters::type_id;
use fulmar::id::SessionId;
use fulmar::time::NanoTime;

use super::workload::{Lengths, compose};

/// Bytes of a frame's header, and what frames are aligned to (shared-memory spec 6).
const FRAME_ALIGNMENT: i64 = 32;
const HEADER_LENGTH: i64 = 32;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {what}")]
pub struct Violation {
    /// The rule that was broken, in a word or two.
    pub rule: &'static str,
    /// How, with the numbers needed to find it.
    pub what: String,
}

impl Violation {
    /// A broken rule.
    #[must_use]
    pub fn new(rule: &'static str, what: String) -> Self {
        Self { rule, what }
    }
}

/// A message as a subscriber saw it.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Who got it.
    pub subscriber: u64,
    /// The image it came on.
    pub image: i64,
    /// Where the subscriber joined that image, bytes.
    pub join_position: i64,
    /// The session.
    pub session_id: SessionId,
    /// The stream position after the message, bytes.
    pub position: i64,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// Where an accepted message stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    session_id: SessionId,
    /// The position before its first frame and after its last, bytes.
    start: i64,
    end: i64,
}

struct Offered {
    stream: u32,
    lengths: Lengths,
    places: Vec<Place>,
    is_alive: bool,
    /// How many messages it had offered when everything was well again.
    well_from: Option<u64>,
}

struct Taker {
    stream: u32,
    is_alive: bool,
    /// Nobody waits for it.
    may_be_left_behind: bool,
    /// Whether it was there when everything was well again.
    was_there: bool,
    /// By publisher, and by session: one that loses its driver goes on in another session, and a subscriber that was away
    /// may come to the later one first.
    latest: BTreeMap<(u64, i32), Latest>,
}

/// The image on which the latest message of a publisher's session came.
#[derive(Clone, Copy, Debug)]
struct Latest {
    /// Number of the first message on that image.
    first: u64,
    /// Number after the latest.
    next: u64,
}

impl Taker {
    /// Where it is furthest in what a publisher offered.
    fn latest(&self, publisher: u64) -> Option<Latest> {
        let sessions = self.latest.range((publisher, i32::MIN)..=(publisher, i32::MAX));
        sessions
            .map(|(_, latest)| *latest)
            .max_by_key(|latest| latest.next)
    }
}

/// Tells the images apart that a subscriber ever had. A successor of a driver counts its images from the beginning, but
/// none of them joins the same session at the same position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RunKey {
    subscriber: u64,
    publisher: u64,
    image: i64,
    session_id: i32,
    join_position: i64,
}

/// One subscriber on one image, for one publisher.
struct Run {
    first: u64,
    next: u64,
    position: i64,
}

/// Messages that can be under way to a subscriber that is not behind.
const UNDER_WAY_MAX: u64 = 50;

/// More than a driver is started on a host.
pub const RUNS_OF_HOST: u64 = 1_000_000;

/// A counter that only grows, of one run of one driver. Records are used again, and one subscription has a position in
/// each of its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Growing {
    /// The run of the driver: [`RUNS_OF_HOST`] times its host, and which one there.
    pub driver: u64,
    /// The record.
    pub counter: i32,
    /// Whose it is.
    pub registration: i64,
    /// Of what.
    pub reference: i64,
}

/// A counter as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub counter: Growing,
    /// Its type id.
    pub kind: i32,
    /// Its value.
    pub value: i64,
}

/// All the checks of one world.
#[derive(Default)]
pub struct Checkers {
    publishers: Vec<Offered>,
    subscribers: Vec<Taker>,
    runs: BTreeMap<RunKey, Run>,
    seen: BTreeMap<Growing, i64>,
    /// Hosts whose sender limits may go back.
    sender_limits_fall: BTreeSet<u64>,
    offered: u64,
    delivered: u64,
    bytes: u64,
    refused: u64,
    expected: Vec<u8>,
}

impl Checkers {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets sender limits of a host go back: min and tagged flow control lower their limit when a receiver joins that is
    /// behind the others, and where spies stand for receivers it falls to their position when the last receiver leaves.
    pub fn let_sender_limits_fall(&mut self, host: u64) {
        self.sender_limits_fall.insert(host);
    }

    fn sender_limits_fall(&self, counter: Growing) -> bool {
        self.sender_limits_fall.contains(&(counter.driver / RUNS_OF_HOST))
    }

    /// A new publisher on a stream of the plan; returns its id.
    pub fn add_publisher(&mut self, stream: u32, lengths: Lengths) -> u64 {
        self.publishers.push(Offered {
            stream,
            lengths,
            places: Vec::new(),
            is_alive: true,
            well_from: None,
        });
        self.publishers.len() as u64 - 1
    }

    /// A new subscriber on a stream of the plan; returns its id.
    pub fn add_subscriber(&mut self, stream: u32) -> u64 {
        self.subscribers.push(Taker {
            stream,
            is_alive: true,
            may_be_left_behind: false,
            was_there: false,
            latest: BTreeMap::new(),
        });
        self.subscribers.len() as u64 - 1
    }

    /// Nobody waits for this subscriber: losses that its publisher does not notice may break its images.
    pub fn let_be_left_behind(&mut self, subscriber: u64) {
        self.subscribers[subscriber as usize].may_be_left_behind = true;
    }

    /// The publisher is gone: nothing more is expected of it.
    pub fn on_publisher_gone(&mut self, id: u64) {
        self.publishers[id as usize].is_alive = false;
    }

    /// The subscriber is gone: nothing more needs to reach it.
    pub fn on_subscriber_gone(&mut self, id: u64) {
        self.subscribers[id as usize].is_alive = false;
    }

    /// A publication was refused and is asked for again.
    pub fn on_refused_for_now(&mut self) {
        self.refused += 1;
    }

    /// How often that was.
    #[must_use]
    pub fn refused_for_now(&self) -> u64 {
        self.refused
    }

    /// The session of a publisher's latest message, and how many it offered; `None` if it offered nothing.
    #[must_use]
    pub fn latest_of(&self, publisher: u64) -> Option<(SessionId, u64)> {
        let places = &self.publishers[publisher as usize].places;
        Some((places.last()?.session_id, places.len() as u64))
    }

    /// Number after the latest message of a publisher that a subscriber got.
    #[must_use]
    pub fn taken_by(&self, subscriber: u64, publisher: u64) -> u64 {
        self.subscribers[subscriber as usize]
            .latest(publisher)
            .map_or(0, |latest| latest.next)
    }

    /// Messages accepted from publishers.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// Messages taken by subscribers.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Their bytes.
    #[must_use]
    pub fn delivered_bytes(&self) -> u64 {
        self.bytes
    }

    /// A message was accepted.
    ///
    /// # Errors
    /// If its position does not follow from the one before.
    pub fn on_offered(
        &mut self,
        publisher: u64,
        session_id: SessionId,
        position: i64,
        length: usize,
        payload_max: usize,
    ) -> Result<(), Violation> {
        let offered = &mut self.publishers[publisher as usize];
        let start = position - framed_length(length, payload_max);
        if let Some(last) = offered.places.last()
            && last.session_id == session_id
            && start < last.end
        {
            return Err(Violation::new(
                "publisher positions grow",
                format!(
                    "publisher {publisher} got {position} for message {}, which begins at {start}, before the end {} of the \
                     message before it",
                    offered.places.len(),
                    last.end
                ),
            ));
        }
        offered.places.push(Place {
            session_id,
            start,
            end: position,
        });
        self.offered += 1;
        Ok(())
    }

    /// A message came.
    ///
    /// # Errors
    /// If it was never offered, is not the next one of its run, stands elsewhere or has other bytes.
    pub fn on_received(&mut self, received: &Received<'_>) -> Result<(), Violation> {
        let Some((publisher, number)) = self.identify(received) else {
            return Err(Violation::new(
                "nothing is made up",
                format!(
                    "subscriber {} got {} bytes at {} that nobody offered",
                    received.subscriber,
                    received.payload.len(),
                    received.position
                ),
            ));
        };
        let at = || {
            format!(
                "subscriber {} on image {} of session {}: message {number} of publisher {publisher} at {}",
                received.subscriber, received.image, received.session_id.0, received.position
            )
        };
        let offered = &self.publishers[publisher as usize];
        compose(publisher, number, offered.lengths, &mut self.expected);
        if self.expected != received.payload {
            return Err(Violation::new(
                "bytes arrive as offered",
                format!("{} has other bytes", at()),
            ));
        }
        let place = offered.places[number as usize];
        if place.end != received.position || place.session_id != received.session_id {
            return Err(Violation::new(
                "messages stand where they were put",
                format!("{}, offered as {place:?}", at()),
            ));
        }
        let key = RunKey {
            subscriber: received.subscriber,
            publisher,
            image: received.image,
            session_id: received.session_id.0,
            join_position: received.join_position,
        };
        let taker = &mut self.subscribers[received.subscriber as usize];
        let first = match self.runs.get_mut(&key) {
            Some(run) => {
                if number != run.next {
                    let rule = if number < run.next {
                        "nothing comes twice"
                    } else {
                        "no gaps"
                    };
                    return Err(Violation::new(rule, format!("{}, expected {}", at(), run.next)));
                }
                if received.position <= run.position {
                    return Err(Violation::new(
                        "subscriber positions grow",
                        format!("{} after {}", at(), run.position),
                    ));
                }
                run.next += 1;
                run.position = received.position;
                run.first
            }
            None => {
                // Where a message stands across the join position, its rest is no message.
                let before = number
                    .checked_sub(1)
                    .map(|number| offered.places[number as usize])
                    .filter(|before| before.session_id == place.session_id);
                if place.start < received.join_position
                    || before.is_some_and(|before| before.start >= received.join_position)
                {
                    return Err(Violation::new(
                        "no gap at the join position",
                        format!(
                            "{} is the first after joining at {}, {before:?} is the one before it, {place:?} its own",
                            at(),
                            received.join_position
                        ),
                    ));
                }
                let latest = taker.latest.get(&(publisher, received.session_id.0));
                if let Some(latest) = latest.filter(|latest| number < latest.next) {
                    return Err(Violation::new(
                        "nothing comes twice",
                        format!("{} on a new image, after {latest:?} on the one before", at()),
                    ));
                }
                let run = Run {
                    first: number,
                    next: number + 1,
                    position: received.position,
                };
                self.runs.insert(key, run);
                number
            }
        };
        let next = number + 1;
        let of = (publisher, received.session_id.0);
        taker.latest.insert(of, Latest { first, next });
        self.delivered += 1;
        self.bytes += received.payload.len() as u64;
        Ok(())
    }

    /// Who offered this, and as which message.
    fn identify(&self, received: &Received<'_>) -> Option<(u64, u64)> {
        let word = |at: usize| {
            let bytes = received.payload.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let (publisher, number) = (word(0)?, word(8)?);
        let offered = self.publishers.get(usize::try_from(publisher).ok()?)?;
        (number < offered.places.len() as u64).then_some((publisher, number))
    }

    /// Messages accepted from every publisher that lives, to see whether it gets on.
    #[must_use]
    pub fn progress(&self) -> Vec<(u64, u64)> {
        let living = self.publishers.iter().enumerate().filter(|(_, one)| one.is_alive);
        living
            .map(|(id, offered)| (id as u64, offered.places.len() as u64))
            .collect()
    }

    /// A subscriber that lives and lacks a message of a publisher that lives, if there is one.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        for (id, taker) in self
            .subscribers
            .iter()
            .enumerate()
            .filter(|(_, one)| one.is_alive)
        {
            for (publisher, offered) in self.publishers.iter().enumerate() {
                if !offered.is_alive || offered.stream != taker.stream || offered.places.is_empty() {
                    continue;
                }
                let latest = taker.latest(publisher as u64);
                let (next, wanted) = (
                    latest.map_or(0, |latest| latest.next),
                    offered.places.len() as u64,
                );
                if next < wanted {
                    return Some(format!(
                        "subscriber {id} stands at message {next} of publisher {publisher}, which offered {wanted}"
                    ));
                }
            }
        }
        None
    }

    /// From now on everything is well: [`Self::check_well`] looks back to this point. It expects nothing of subscribers
    /// that are behind now and may be left there.
    pub fn begin_well(&mut self) {
        for offered in self.publishers.iter_mut().filter(|one| one.is_alive) {
            offered.well_from = Some(offered.places.len() as u64);
        }
        for taker in &mut self.subscribers {
            let is_behind = |(publisher, offered): (usize, &Offered)| {
                let latest = taker.latest(publisher as u64);
                let next = latest.map_or(0, |latest| latest.next);
                offered.is_alive
                    && offered.stream == taker.stream
                    && next + UNDER_WAY_MAX < offered.places.len() as u64
            };
            let mut publishers = self.publishers.iter().enumerate();
            // Nobody waits until it has caught up, so that its image may still end when what it lacks is gone.
            taker.was_there = taker.is_alive && !(taker.may_be_left_behind && publishers.any(is_behind));
        }
    }

    /// That whoever was there when everything was well again got all that was offered since, on one image.
    ///
    /// # Errors
    /// If an image ended although nothing was wrong, or came only later.
    pub fn check_well(&self) -> Result<(), Violation> {
        let takers = self.subscribers.iter().enumerate();
        for (id, taker) in takers.filter(|(_, one)| one.is_alive && one.was_there) {
            for publisher in 0..self.publishers.len() as u64 {
                let Some(latest) = taker.latest(publisher) else {
                    continue;
                };
                let offered = &self.publishers[publisher as usize];
                let Some(well_from) = offered.well_from.filter(|_| offered.is_alive) else {
                    continue;
                };
                // What was offered since is on the latest image only if that began before.
                if latest.first > well_from {
                    return Err(Violation::new(
                        "nothing is lost without faults",
                        format!(
                            "subscriber {id} began an image of publisher {publisher} at message {}; {well_from} were offered \
                             when everything was well again",
                            latest.first
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// That no subscriber whom its publishers wait for had to join a stream more often than once, and that one alone on
    /// its stream has it from its beginning: nothing at all was lost.
    ///
    /// # Errors
    /// If one had, or has not.
    pub fn check_unbroken(&self) -> Result<(), Violation> {
        let mut runs: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
        let waited_for = |key: &RunKey| !self.subscribers[key.subscriber as usize].may_be_left_behind;
        for (key, run) in self.runs.iter().filter(|(key, _)| waited_for(key)) {
            let (count, first) = runs
                .entry((key.subscriber, key.publisher))
                .or_insert((0, run.first));
            (*count, *first) = (*count + 1, run.first.min(*first));
        }
        for ((subscriber, publisher), (count, first)) in runs {
            if count > 1 {
                return Err(Violation::new(
                    "small faults break no image",
                    format!("subscriber {subscriber} had {count} images of publisher {publisher}"),
                ));
            }
            let stream = self.subscribers[subscriber as usize].stream;
            let takers = self.subscribers.iter().filter(|taker| taker.stream == stream);
            // Nothing is accepted before somebody is there, and with several it can be another.
            if first > 0 && takers.count() == 1 {
                return Err(Violation::new(
                    "the first subscriber has it all",
                    format!("subscriber {subscriber} begins at message {first} of publisher {publisher}"),
                ));
            }
        }
        Ok(())
    }

    /// Looks at the counters of one driver, all taken at one time.
    ///
    /// # Errors
    /// If a position or limit went back, or two of them do not stand as they must.
    pub fn on_counters(&mut self, seen: &[Seen], term_length: i64, now: NanoTime) -> Result<(), Violation> {
        for one in seen {
            self.on_counter(one.counter, one.kind, one.value, now)?;
        }
        self.check_relations(seen, term_length)
    }

    fn check_relations(&self, seen: &[Seen], term_length: i64) -> Result<(), Violation> {
        let registered = |kind: i32, registration: i64| {
            let found = seen
                .iter()
                .find(|one| one.kind == kind && one.counter.registration == registration);
            found.map(|one| one.value)
        };
        let broken = |rule: &'static str, image: &Seen, low: i64, high: i64| {
            Err(Violation::new(rule, format!("{image:?}: {low} is beyond {high}")))
        };
        for one in seen {
            let registration = one.counter.registration;
            match one.kind {
                type_id::SENDER_POSITION if !self.sender_limits_fall(one.counter) => {
                    // Of the padding at the end of a term only the header goes out, so that takes no room. It is as long
                    // as the longest message at most, which is an eighth of a term and its headers.
                    let padding = if one.value % term_length == 0 {
                        term_length / 4
                    } else {
                        0
                    };
                    let limit = registered(type_id::SENDER_LIMIT, registration);
                    if let Some(limit) = limit.filter(|limit| one.value > limit + padding) {
                        return broken("the sender stays within its limit", one, one.value, limit);
                    }
                }
                type_id::RECEIVER_HIGH_WATER_MARK => {
                    let rebuilt = registered(type_id::RECEIVER_POSITION, registration);
                    if let Some(rebuilt) = rebuilt.filter(|rebuilt| *rebuilt > one.value) {
                        return broken("nothing is rebuilt before it arrives", one, rebuilt, one.value);
                    }
                    let readers = seen
                        .iter()
                        .filter(|reader| {
                            reader.kind == type_id::SUBSCRIBER_POSITION
                                && reader.counter.reference == registration
                        })
                        .map(|reader| reader.value);
                    if let Some(fastest) = readers.clone().max().filter(|fastest| *fastest > one.value) {
                        return broken("nobody reads before it arrives", one, fastest, one.value);
                    }
                    // Three terms, of which the one that is read and the one that is written are never cleaned.
                    if let Some(slowest) = readers.min().filter(|slowest| one.value > slowest + term_length) {
                        return broken(
                            "nobody writes where a reader may still read",
                            one,
                            one.value,
                            slowest + term_length,
                        );
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Positions and limits never go back.
    fn on_counter(
        &mut self,
        counter: Growing,
        kind: i32,
        value: i64,
        now: NanoTime,
    ) -> Result<(), Violation> {
        if !only_grows(kind) || (kind == type_id::SENDER_LIMIT && self.sender_limits_fall(counter)) {
            return Ok(());
        }
        match self.seen.insert(counter, value) {
            Some(before) if value < before => Err(Violation::new(
                "positions and limits never go back",
                format!(
                    "{counter:?} of type {kind} went from {before} to {value} by {} ns",
                    now.0
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// The publisher limit is not among them: when the last subscriber leaves it falls back to where that one stood.
fn only_grows(kind: i32) -> bool {
    [
        type_id::PUBLISHER_POSITION,
        type_id::SENDER_POSITION,
        type_id::SENDER_LIMIT,
        type_id::RECEIVER_HIGH_WATER_MARK,
        type_id::RECEIVER_POSITION,
        type_id::SUBSCRIBER_POSITION,
    ]
    .contains(&kind)
}

/// What a message takes in a log, bytes.
fn framed_length(length: usize, payload_max: usize) -> i64 {
    let (length, payload_max) = (length as i64, payload_max as i64);
    let aligned = |payload: i64| (payload + HEADER_LENGTH + FRAME_ALIGNMENT - 1) & -FRAME_ALIGNMENT;
    if length <= payload_max {
        return aligned(length);
    }
    let rest = length % payload_max;
    let last = if rest == 0 { 0 } else { aligned(rest) };
    length / payload_max * aligned(payload_max) + last
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: Lengths = Lengths { min: 16, max: 16 };
    const SESSION: SessionId = SessionId(9);

    /// One publisher with ten messages of 64 bytes each, and one subscriber.
    fn checkers() -> Checkers {
        let mut checkers = Checkers::new();
        assert_eq!(checkers.add_publisher(0, LENGTHS), 0);
        assert_eq!(checkers.add_subscriber(0), 0);
        for number in 1..=10 {
            checkers.on_offered(0, SESSION, number * 64, 16, 1376).unwrap();
        }
        checkers
    }

    fn receive(checkers: &mut Checkers, number: u64, join_position: i64) -> Result<(), &'static str> {
        let mut payload = Vec::new();
        compose(0, number, LENGTHS, &mut payload);
        let position = (number as i64 + 1) * 64;
        receive_bytes(checkers, &payload, position, join_position)
    }

    fn receive_bytes(
        checkers: &mut Checkers,
        payload: &[u8],
        position: i64,
        join_position: i64,
    ) -> Result<(), &'static str> {
        let received = Received {
            subscriber: 0,
            image: 1,
            join_position,
            session_id: SESSION,
            position,
            payload,
        };
        checkers
            .on_received(&received)
            .map_err(|violation| violation.rule)
    }

    #[test]
    fn a_whole_run_from_the_join_position_is_fine_and_complete_at_its_end() {
        let mut checkers = checkers();
        for number in 3..10 {
            assert!(checkers.missing().is_some());
            receive(&mut checkers, number, 192).unwrap();
        }
        assert_eq!(checkers.missing(), None);
        assert_eq!((checkers.offered(), checkers.delivered()), (10, 7));
    }

    #[test]
    fn gaps_and_duplicates_are_found() {
        let mut checkers = checkers();
        receive(&mut checkers, 0, 0).unwrap();
        receive(&mut checkers, 1, 0).unwrap();
        assert_eq!(receive(&mut checkers, 3, 0), Err("no gaps"));
        assert_eq!(receive(&mut checkers, 1, 0), Err("nothing comes twice"));
    }

    #[test]
    fn a_gap_at_the_join_position_is_found() {
        assert_eq!(receive(&mut checkers(), 1, 0), Err("no gap at the join position"));
        assert_eq!(
            receive(&mut checkers(), 1, 128),
            Err("no gap at the join position")
        );
        // It joined in the middle of message 0.
        assert_eq!(receive(&mut checkers(), 1, 32), Ok(()));
    }

    #[test]
    fn other_bytes_and_made_up_messages_are_found() {
        let mut payload = Vec::new();
        compose(0, 0, LENGTHS, &mut payload);
        let mut longer = payload.clone();
        longer.push(0);
        assert_eq!(
            receive_bytes(&mut checkers(), &longer, 64, 0),
            Err("bytes arrive as offered")
        );
        assert_eq!(
            receive_bytes(&mut checkers(), &payload, 128, 0),
            Err("messages stand where they were put")
        );
        payload[8] = 10;
        assert_eq!(
            receive_bytes(&mut checkers(), &payload, 64, 0),
            Err("nothing is made up")
        );
        assert_eq!(
            receive_bytes(&mut checkers(), &[1, 2], 64, 0),
            Err("nothing is made up")
        );
    }

    #[test]
    fn positions_that_go_back_are_found() {
        let mut checkers = checkers();
        let rule = |result: Result<(), Violation>| result.map_err(|violation| violation.rule);
        let counter = Growing {
            driver: 1,
            counter: 70,
            registration: 5,
            reference: 6,
        };
        let mut look = |counter, value| {
            let kind = type_id::SENDER_LIMIT;
            rule(checkers.on_counter(counter, kind, value, NanoTime(0)))
        };
        assert_eq!(look(counter, 640), Ok(()));
        assert_eq!(look(Growing { driver: 2, ..counter }, 64), Ok(()));
        assert_eq!(
            look(
                Growing {
                    reference: 7,
                    ..counter
                },
                64
            ),
            Ok(())
        );
        assert_eq!(look(counter, 639), Err("positions and limits never go back"));
        checkers.let_sender_limits_fall(0);
        let later = checkers.on_counter(counter, type_id::SENDER_LIMIT, 600, NanoTime(0));
        assert_eq!(later, Ok(()));
        assert_eq!(
            rule(checkers.on_offered(0, SESSION, 640, 16, 1376)),
            Err("publisher positions grow")
        );
    }

    #[test]
    fn a_second_image_is_not_unbroken() {
        let mut checkers = checkers();
        receive(&mut checkers, 0, 0).unwrap();
        checkers.check_unbroken().unwrap();
        let mut payload = Vec::new();
        compose(0, 1, LENGTHS, &mut payload);
        checkers
            .on_received(&Received {
                subscriber: 0,
                image: 2,
                join_position: 64,
                session_id: SESSION,
                position: 128,
                payload: &payload,
            })
            .unwrap();
        assert!(checkers.check_unbroken().is_err());
    }

    /// Message `number` on an image of its own that was joined right before it.
    fn receive_on_new_image(checkers: &mut Checkers, image: i64, number: u64) -> Result<(), &'static str> {
        let mut payload = Vec::new();
        compose(0, number, LENGTHS, &mut payload);
        let received = Received {
            subscriber: 0,
            image,
            join_position: number as i64 * 64,
            session_id: SESSION,
            position: (number as i64 + 1) * 64,
            payload: &payload,
        };
        checkers
            .on_received(&received)
            .map_err(|violation| violation.rule)
    }

    #[test]
    fn a_later_session_may_be_read_before_the_one_before_it() {
        let mut checkers = checkers();
        let successor = SessionId(10);
        checkers.on_offered(0, successor, 64, 16, 1376).unwrap();
        let mut payload = Vec::new();
        compose(0, 10, LENGTHS, &mut payload);
        let received = Received {
            subscriber: 0,
            image: 2,
            join_position: 0,
            session_id: successor,
            position: 64,
            payload: &payload,
        };
        checkers.on_received(&received).unwrap();
        for number in 0..10 {
            receive(&mut checkers, number, 0).unwrap();
        }
        assert_eq!(checkers.missing(), None);
        assert_eq!(
            receive_on_new_image(&mut checkers, 3, 9),
            Err("nothing comes twice")
        );
    }

    #[test]
    fn a_new_image_repeats_nothing() {
        let mut checkers = checkers();
        receive_on_new_image(&mut checkers, 1, 4).unwrap();
        assert_eq!(
            receive_on_new_image(&mut checkers, 2, 4),
            Err("nothing comes twice")
        );
        receive_on_new_image(&mut checkers, 3, 5).unwrap();
    }

    #[test]
    fn an_image_that_begins_after_everything_is_well_lost_something() {
        let mut checkers = checkers();
        let rule = |checkers: &Checkers| checkers.check_well().map_err(|violation| violation.rule);
        receive_on_new_image(&mut checkers, 1, 4).unwrap();
        checkers.begin_well();
        checkers.on_offered(0, SESSION, 704, 16, 1376).unwrap();
        checkers.on_offered(0, SESSION, 768, 16, 1376).unwrap();
        receive_on_new_image(&mut checkers, 2, 10).unwrap();
        assert_eq!(rule(&checkers), Ok(()), "ten had been offered by then");
        receive_on_new_image(&mut checkers, 3, 11).unwrap();
        assert_eq!(rule(&checkers), Err("nothing is lost without faults"));
        checkers.on_publisher_gone(0);
        assert_eq!(rule(&checkers), Ok(()), "nothing is expected of it any more");
    }

    #[test]
    fn who_is_behind_when_everything_is_well_again_may_be_left_there_if_nobody_waits() {
        for (may_be_left_behind, lacks, expected) in [
            (false, 60, Err("nothing is lost without faults")),
            (true, 60, Ok(())),
            (true, 40, Err("nothing is lost without faults")),
        ] {
            let mut checkers = checkers();
            if may_be_left_behind {
                checkers.let_be_left_behind(0);
            }
            receive_on_new_image(&mut checkers, 1, 9).unwrap();
            let end = 10 + lacks;
            for number in 10..=end {
                let position = (number + 1) * 64;
                if number == end {
                    checkers.begin_well();
                }
                checkers.on_offered(0, SESSION, position, 16, 1376).unwrap();
            }
            checkers.on_offered(0, SESSION, (end + 2) * 64, 16, 1376).unwrap();
            receive_on_new_image(&mut checkers, 2, end as u64 + 1).unwrap();
            let found = checkers.check_well().map_err(|violation| violation.rule);
            assert_eq!(found, expected, "{may_be_left_behind} {lacks}");
        }
    }

    #[test]
    fn a_lonely_subscriber_that_begins_late_is_not_unbroken() {
        let mut checkers = checkers();
        receive_on_new_image(&mut checkers, 1, 4).unwrap();
        let rule = |checkers: &Checkers| checkers.check_unbroken().map_err(|violation| violation.rule);
        assert_eq!(rule(&checkers), Err("the first subscriber has it all"));
        checkers.add_subscriber(0);
        assert_eq!(rule(&checkers), Ok(()), "the other one was first");
    }

    #[test]
    fn counters_that_do_not_stand_as_they_must_are_found() {
        let look = |values: &[(i32, i64)]| {
            let seen: Vec<Seen> = values
                .iter()
                .enumerate()
                .map(|(counter, (kind, value))| {
                    let of_reader = *kind == type_id::SUBSCRIBER_POSITION;
                    let counter = Growing {
                        driver: 1,
                        counter: counter as i32,
                        registration: if of_reader { 8 } else { 7 },
                        reference: if of_reader { 7 } else { 0 },
                    };
                    Seen {
                        counter,
                        kind: *kind,
                        value: *value,
                    }
                })
                .collect();
            Checkers::new()
                .on_counters(&seen, 1000, NanoTime(0))
                .map_err(|violation| violation.rule)
        };
        let (position, limit) = (type_id::SENDER_POSITION, type_id::SENDER_LIMIT);
        assert_eq!(look(&[(position, 64), (limit, 64)]), Ok(()));
        assert_eq!(
            look(&[(position, 96), (limit, 64)]),
            Err("the sender stays within its limit")
        );
        let (mark, rebuilt) = (type_id::RECEIVER_HIGH_WATER_MARK, type_id::RECEIVER_POSITION);
        let reader = type_id::SUBSCRIBER_POSITION;
        assert_eq!(
            look(&[(mark, 1064), (rebuilt, 96), (reader, 64), (reader, 1064)]),
            Ok(())
        );
        assert_eq!(
            look(&[(mark, 64), (rebuilt, 96)]),
            Err("nothing is rebuilt before it arrives")
        );
        assert_eq!(
            look(&[(mark, 64), (reader, 96)]),
            Err("nobody reads before it arrives")
        );
        assert_eq!(
            look(&[(mark, 1096), (reader, 64), (reader, 1064)]),
            Err("nobody writes where a reader may still read")
        );
    }

    #[test]
    fn long_messages_take_whole_frames_and_a_rest() {
        assert_eq!(framed_length(16, 1376), 64);
        assert_eq!(framed_length(1376, 1376), 1408);
        assert_eq!(framed_length(1377, 1376), 1408 + 64);
        assert_eq!(framed_length(2752, 1376), 2816);
    }
}
