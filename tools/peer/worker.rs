//! A client process that does what it is told, for the interop tests. One command a line on standard input, one answer
//! a line on standard output: `ok ...` or `err CODE TEXT`. Handles have names given by the test. A command that waits
//! takes a time limit in milliseconds as its last word.
//!
//! The client library is behind [`ClientApi`], so that one script runs on Aeron's C client and on ours.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::time::Duration;

use fulmar::time::{NanoTime, SystemClock};

use super::facts::{CounterLine, EventLog, Failure, ImageFacts, PublicationFacts};
use super::pattern::{self, Verifier};

/// What a script needs of a client.
pub trait ClientApi {
    /// Client id.
    fn client_id(&self) -> i64;
    /// Whether the client gave up.
    fn is_closed(&self) -> bool;
    /// What it was told.
    fn events(&self) -> &EventLog;
    /// Adds a concurrent publication.
    fn add_publication(&self, channel: &str, stream: i32) -> Result<Box<dyn PublicationApi>, Failure>;
    /// Adds an exclusive publication.
    fn add_exclusive(&self, channel: &str, stream: i32) -> Result<Box<dyn PublicationApi>, Failure>;
    /// Adds a subscription.
    fn add_subscription(&self, channel: &str, stream: i32) -> Result<Box<dyn SubscriptionApi>, Failure>;
    /// Adds a counter; a static one if it gets a registration id.
    fn add_counter(
        &self,
        type_id: i32,
        key: &[u8],
        label: &str,
        static_id: Option<i64>,
    ) -> Result<Box<dyn CounterApi>, Failure>;
    /// A session id that is free on the stream.
    fn next_session_id(&self, stream: i32) -> Result<i32, Failure>;
    /// Every allocated counter.
    fn counters(&self) -> Vec<CounterLine>;
}

/// What a script needs of a publication of either kind.
pub trait PublicationApi {
    /// Offers once: a position, or Aeron's code -1 to -6.
    fn offer(&mut self, message: &[u8]) -> i64;
    /// Offers a batch: how many leading messages were accepted, and a position or Aeron's code. A make without batches
    /// offers the first message.
    fn offer_batch(&mut self, messages: &[&[u8]]) -> (usize, i64) {
        let position = messages.first().map_or(0, |message| self.offer(message));
        (usize::from(position > 0), position)
    }
    /// Claims room for `message`, fills it, then commits or aborts as `commit` says, which may take its time.
    /// Answers the position after the claim.
    fn claim(&mut self, message: &[u8], commit: &mut dyn FnMut(i64) -> bool) -> Result<i64, i64>;
    /// Whether a subscriber is there.
    fn is_connected(&self) -> bool;
    /// Whether the client closed it.
    fn is_closed(&self) -> bool;
    /// Position or a negative code.
    fn position(&self) -> i64;
    /// Position limit or a negative code.
    fn position_limit(&self) -> i64;
    /// Ids and lengths.
    fn facts(&self) -> PublicationFacts;
    /// Adds or removes a destination.
    fn destination(&self, add: bool, uri: &str) -> Result<(), Failure>;
    /// Revokes and closes it.
    fn revoke(self: Box<Self>) -> Result<(), Failure>;
}

/// Gets the bytes of a message, the position after it, and the session it came from.
pub type MessageHandler<'a> = &'a mut dyn FnMut(&[u8], i64, i32);

/// What a script needs of a subscription.
pub trait SubscriptionApi {
    /// Delivers whole messages.
    fn poll(&mut self, handler: MessageHandler<'_>, limit: usize) -> Result<usize, Failure>;
    /// Whether any image is connected.
    fn is_connected(&self) -> bool;
    /// Whether the client closed it.
    fn is_closed(&self) -> bool;
    /// Every image. Some libraries take up changes only here and in `poll`.
    fn images(&mut self) -> Vec<ImageFacts>;
    /// Refuses an image.
    fn reject(&mut self, index: usize, reason: &str) -> Result<(), Failure>;
    /// Registration id.
    fn registration_id(&self) -> i64;
    /// Adds or removes a destination.
    fn destination(&self, add: bool, uri: &str) -> Result<(), Failure>;
}

/// What a script needs of a counter.
pub trait CounterApi {
    /// Counter id and registration id.
    fn ids(&self) -> (i32, i64);
    /// Stores a value.
    fn set(&self, value: i64);
    /// Reads the value.
    fn get(&self) -> i64;
}

/// A new client, or why there is none.
pub type Connected = Result<Box<dyn ClientApi>, Failure>;

/// The calls that need no client.
pub struct Library {
    /// Connects to the driver in a directory, waiting for it up to a limit in milliseconds.
    pub connect: fn(&str, u64) -> Connected,
    /// Asks the driver in a directory to stop.
    pub terminate: fn(&str, &[u8]) -> Result<(), Failure>,
    /// Version of the library.
    pub version: fn() -> String,
}

/// Sleeps for a moment while something is on its way.
#[expect(
    clippy::disallowed_methods,
    reason = "the program has no agent whose idle strategy could wait"
)]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

/// Runs `ready` until it says yes or `limit_ms` are over.
fn wait_for(limit_ms: u64, mut ready: impl FnMut() -> bool) -> bool {
    let deadline = deadline(limit_ms);
    loop {
        if ready() {
            return true;
        }
        if deadline.is_due(SystemClock.nanos()) {
            return false;
        }
        pause();
    }
}

fn deadline(limit_ms: u64) -> NanoTime {
    SystemClock.nanos() + Duration::from_millis(limit_ms)
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, Failure> {
    word.parse()
        .map_err(|_| Failure::of(format!("not a number: {word}")))
}

fn bytes_of_hex(hex: &str) -> Result<Vec<u8>, Failure> {
    let pair = |at: usize| {
        hex.get(at..at + 2)
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
    };
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(pair).collect();
    bytes.ok_or_else(|| Failure::of(format!("not hexadecimal: {hex}")))
}

fn missing(what: &str, name: &str) -> Failure {
    Failure::of(format!("no {what} {name}"))
}

/// The answer to one command, without `ok`.
type Answer = Result<String, Failure>;

fn done() -> Answer {
    Ok(String::new())
}

/// A subscription with what its messages proved.
struct Reader {
    subscription: Box<dyn SubscriptionApi>,
    verifier: Verifier,
}

/// Runs commands. Resources drop before the client.
pub struct Worker {
    publications: BTreeMap<String, Box<dyn PublicationApi>>,
    /// The number of the next generated message, by publication name.
    next: BTreeMap<String, u64>,
    readers: BTreeMap<String, Reader>,
    counters: BTreeMap<String, Box<dyn CounterApi>>,
    client: Option<Box<dyn ClientApi>>,
    library: Library,
}

/// Why a nested loop of commands ended.
enum Ended {
    Input,
    Commit,
    Abort,
}

impl Worker {
    /// A worker on a client library.
    #[must_use]
    pub fn new(library: Library) -> Worker {
        Worker {
            publications: BTreeMap::new(),
            next: BTreeMap::new(),
            readers: BTreeMap::new(),
            counters: BTreeMap::new(),
            client: None,
            library,
        }
    }

    /// Obeys until standard input ends.
    pub fn run(mut self) {
        while !matches!(self.commands(), Ended::Input) {}
    }

    /// Obeys until the end of input, or a `commit` or `abort`, which belong to the innermost open claim.
    fn commands(&mut self) -> Ended {
        let mut line = String::new();
        loop {
            line.clear();
            if !matches!(std::io::stdin().lock().read_line(&mut line), Ok(length) if length > 0) {
                return Ended::Input;
            }
            let words: Vec<&str> = line.trim_end_matches('\n').split(' ').collect();
            match words.as_slice() {
                ["commit"] => return Ended::Commit,
                ["abort"] => return Ended::Abort,
                ["claim", name, length, seed] => {
                    let answer = self.claim(name, length, seed);
                    respond(answer);
                }
                words => {
                    let answer = self.obey(words);
                    respond(answer);
                }
            }
        }
    }

    fn client(&self) -> Result<&dyn ClientApi, Failure> {
        self.client.as_deref().ok_or_else(|| Failure::of("not connected"))
    }

    fn publication(&mut self, name: &str) -> Result<&mut Box<dyn PublicationApi>, Failure> {
        self.publications
            .get_mut(name)
            .ok_or_else(|| missing("publication", name))
    }

    fn reader(&mut self, name: &str) -> Result<&mut Reader, Failure> {
        self.readers
            .get_mut(name)
            .ok_or_else(|| missing("subscription", name))
    }

    fn counter(&self, name: &str) -> Result<&dyn CounterApi, Failure> {
        self.counters
            .get(name)
            .map(AsRef::as_ref)
            .ok_or_else(|| missing("counter", name))
    }

    fn obey(&mut self, words: &[&str]) -> Answer {
        match words {
            ["version"] => Ok((self.library.version)()),
            ["connect", dir, limit_ms] => {
                let client = (self.library.connect)(dir, number(limit_ms)?)?;
                let id = client.client_id();
                self.client = Some(client);
                Ok(id.to_string())
            }
            ["disconnect"] => self.disconnect(),
            ["terminate", dir, token] => {
                (self.library.terminate)(dir, token.as_bytes()).and_then(|()| done())
            }
            ["closed"] => Ok(self.client()?.is_closed().to_string()),
            ["events"] => Ok(self.client()?.events().all().join(" ; ")),
            ["event", prefix @ .., limit_ms] => self.event(&prefix.join(" "), number(limit_ms)?),
            ["next_session", stream] => Ok(self.client()?.next_session_id(number(stream)?)?.to_string()),
            ["close", name] => self.close(name),
            ["connected", name, wanted, limit_ms] => self.connected(name, number(wanted)?, number(limit_ms)?),
            ["destination", name, action, uri] => self.destination(name, *action == "add", uri),
            ["churn", channel, stream, cycles] => self.churn(channel, number(stream)?, number(cycles)?),
            _ => self.obey_streams(words),
        }
    }

    fn obey_streams(&mut self, words: &[&str]) -> Answer {
        match words {
            ["add_pub", name, channel, stream] => {
                let publication = self.client()?.add_publication(channel, number(stream)?)?;
                Ok(self.keep(name, publication))
            }
            ["add_xpub", name, channel, stream] => {
                let publication = self.client()?.add_exclusive(channel, number(stream)?)?;
                Ok(self.keep(name, publication))
            }
            ["add_sub", name, channel, stream] => {
                let subscription = self.client()?.add_subscription(channel, number(stream)?)?;
                let id = subscription.registration_id();
                let reader = Reader {
                    subscription,
                    verifier: Verifier::default(),
                };
                self.readers.insert((*name).to_owned(), reader);
                Ok(id.to_string())
            }
            ["offer", name, count, length, seed, limit_ms] => self.offer(
                name,
                number(count)?,
                number(length)?,
                number(seed)?,
                number(limit_ms)?,
            ),
            ["offer_batches", name, count, length, seed, limit_ms] => self.offer_batches(
                name,
                number(count)?,
                number(length)?,
                number(seed)?,
                number(limit_ms)?,
            ),
            ["offer_once", name, length] => {
                let message = vec![0u8; number(length)?];
                Ok(self.publication(name)?.offer(&message).to_string())
            }
            ["fill", name, length] => self.fill(name, number(length)?),
            ["position", name] => Ok(self.publication(name)?.position().to_string()),
            ["limit", name] => Ok(self.publication(name)?.position_limit().to_string()),
            ["is_closed", name] => match self.readers.get(*name) {
                Some(reader) => Ok(reader.subscription.is_closed().to_string()),
                None => Ok(self.publication(name)?.is_closed().to_string()),
            },
            ["revoke", name] => {
                let publication = self.publications.remove(*name);
                publication
                    .ok_or_else(|| missing("publication", name))?
                    .revoke()
                    .and_then(|()| done())
            }
            ["poll", name, count, limit_ms] => self.poll(name, number(count)?, number(limit_ms)?),
            ["images", name] => Ok(self
                .images(name)?
                .iter()
                .map(image_line)
                .collect::<Vec<_>>()
                .join(" ")),
            ["image_count", name, wanted, limit_ms] => {
                self.image_count(name, number(wanted)?, number(limit_ms)?)
            }
            ["reject", name, index, reason @ ..] => {
                let index = number(index)?;
                self.reader(name)?
                    .subscription
                    .reject(index, &reason.join(" "))
                    .and_then(|()| done())
            }
            _ => self.obey_counters(words),
        }
    }

    fn obey_counters(&mut self, words: &[&str]) -> Answer {
        match words {
            ["add_counter", name, type_id, key, label @ ..] => {
                self.add_counter(name, number(type_id)?, key, &label.join(" "), None)
            }
            [
                "add_static_counter",
                name,
                type_id,
                registration_id,
                key,
                label @ ..,
            ] => {
                let id = Some(number(registration_id)?);
                self.add_counter(name, number(type_id)?, key, &label.join(" "), id)
            }
            ["set", name, value] => {
                self.counter(name)?.set(number(value)?);
                done()
            }
            ["get", name] => Ok(self.counter(name)?.get().to_string()),
            ["counters"] => {
                let lines: Vec<String> = self.client()?.counters().iter().map(counter_line).collect();
                Ok(lines.join("\t"))
            }
            other => Err(Failure::of(format!("unknown command: {}", other.join(" ")))),
        }
    }

    fn disconnect(&mut self) -> Answer {
        self.publications.clear();
        self.next.clear();
        self.readers.clear();
        self.counters.clear();
        self.client = None;
        done()
    }

    fn event(&self, prefix: &str, limit_ms: u64) -> Answer {
        let client = self.client()?;
        let mut event = None;
        wait_for(limit_ms, || {
            event = client.events().take(prefix);
            event.is_some()
        });
        event.ok_or_else(|| Failure::of(format!("no event {prefix} but {:?}", client.events().all())))
    }

    fn keep(&mut self, name: &str, publication: Box<dyn PublicationApi>) -> String {
        let facts = publication.facts();
        self.publications.insert(name.to_owned(), publication);
        format!(
            "{} {} {} {} {} {} {}",
            facts.registration_id,
            facts.original_registration_id,
            facts.session_id,
            facts.initial_term_id,
            facts.term_length,
            facts.max_message_length,
            facts.max_payload_length
        )
    }

    fn close(&mut self, name: &str) -> Answer {
        let mut closed = self.publications.remove(name).is_some();
        closed |= self.readers.remove(name).is_some();
        closed |= self.counters.remove(name).is_some();
        self.next.remove(name);
        if closed {
            done()
        } else {
            Err(missing("handle", name))
        }
    }

    fn connected(&mut self, name: &str, wanted: bool, limit_ms: u64) -> Answer {
        let reached = match self.readers.get_mut(name) {
            Some(reader) => wait_for(limit_ms, || {
                // Looking at the images takes up changes.
                reader.subscription.images();
                reader.subscription.is_connected() == wanted
            }),
            None => {
                let publication = self.publication(name)?;
                wait_for(limit_ms, || publication.is_connected() == wanted)
            }
        };
        if reached {
            done()
        } else {
            Err(Failure::of(format!("{name} connected is not {wanted}")))
        }
    }

    fn destination(&mut self, name: &str, add: bool, uri: &str) -> Answer {
        match self.readers.get(name) {
            Some(reader) => reader.subscription.destination(add, uri)?,
            None => self.publication(name)?.destination(add, uri)?,
        }
        done()
    }

    /// Adds and closes publications, one at a time.
    fn churn(&self, channel: &str, stream: i32, cycles: u64) -> Answer {
        for _ in 0..cycles {
            drop(self.client()?.add_publication(channel, stream)?);
        }
        done()
    }

    /// Offers `count` generated messages, waiting out back pressure, and answers the last position.
    fn offer(&mut self, name: &str, count: u64, length: usize, seed: u64, limit_ms: u64) -> Answer {
        let mut next = self.next.get(name).copied().unwrap_or(0);
        let publication = self.publication(name)?;
        let mut message = vec![0u8; length];
        let deadline = deadline(limit_ms);
        let mut position = 0;
        for _ in 0..count {
            pattern::write(&mut message, seed, next);
            loop {
                position = publication.offer(&message);
                if position > 0 {
                    break;
                }
                // Back pressure, administration and a missing subscriber pass; anything else is an error.
                if position < -3 || deadline.is_due(SystemClock.nanos()) {
                    return Err(Failure::of(format!("offer gave {position} at message {next}")));
                }
                std::thread::yield_now();
            }
            next += 1;
        }
        self.next.insert(name.to_owned(), next);
        Ok(position.to_string())
    }

    /// As [`Self::offer`], in batches of up to 40 messages.
    fn offer_batches(&mut self, name: &str, count: u64, length: usize, seed: u64, limit_ms: u64) -> Answer {
        let mut next = self.next.get(name).copied().unwrap_or(0);
        let publication = self.publication(name)?;
        let mut messages = vec![vec![0u8; length]; 40];
        let deadline = deadline(limit_ms);
        let end = next + count;
        let mut position = 0;
        while next < end {
            for (message, number) in messages.iter_mut().zip(next..) {
                pattern::write(message, seed, number);
            }
            let batch: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
            let mut rest = &batch[..batch.len().min((end - next) as usize)];
            while !rest.is_empty() {
                let (accepted, code) = publication.offer_batch(rest);
                rest = &rest[accepted..];
                next += accepted as u64;
                if code > 0 {
                    position = code;
                    continue;
                }
                if code < -3 || deadline.is_due(SystemClock.nanos()) {
                    return Err(Failure::of(format!("a batch gave {code} at message {next}")));
                }
                std::thread::yield_now();
            }
        }
        self.next.insert(name.to_owned(), next);
        Ok(position.to_string())
    }

    /// Offers until the first answer that is neither a position nor `admin action`; answers the count, that code, and
    /// how often `admin action` was said.
    fn fill(&mut self, name: &str, length: usize) -> Answer {
        let publication = self.publication(name)?;
        let message = vec![0u8; length];
        let (mut accepted, mut administration) = (0u64, 0u64);
        loop {
            match publication.offer(&message) {
                -3 => administration += 1,
                code if code < 0 => return Ok(format!("{accepted} {code} {administration}")),
                _ => accepted += 1,
            }
        }
    }

    /// Claims one generated message, answers its position, and obeys further commands until `commit` or `abort`.
    fn claim(&mut self, name: &str, length: &str, seed: &str) -> Answer {
        let (length, seed) = (number(length)?, number(seed)?);
        let mut publication = self
            .publications
            .remove(name)
            .ok_or_else(|| missing("publication", name))?;
        let next = self.next.get(name).copied().unwrap_or(0);
        let mut message = vec![0u8; length];
        pattern::write(&mut message, seed, next);
        let deadline = deadline(5_000);
        let result = loop {
            let claimed = publication.claim(&message, &mut |position| {
                respond(Ok(position.to_string()));
                matches!(self.commands(), Ended::Commit)
            });
            match claimed {
                Err(code @ (-3..=-1)) if deadline.is_due(SystemClock.nanos()) => break Err(code),
                Err(-3..=-1) => pause(),
                other => break other,
            }
        };
        self.publications.insert(name.to_owned(), publication);
        self.next.insert(name.to_owned(), next + 1);
        result
            .map(|position| position.to_string())
            .map_err(|code| Failure::of(format!("claim gave {code}")))
    }

    /// Takes exactly `count` messages (`0`: what is there now, for at most the time given), checking each.
    fn poll(&mut self, name: &str, count: u64, limit_ms: u64) -> Answer {
        let Reader {
            subscription,
            verifier,
        } = self.reader(name)?;
        let wanted = verifier.messages + count;
        let deadline = deadline(limit_ms);
        let (mut last_position, mut last_session) = (-1, 0);
        while count == 0 || verifier.messages < wanted {
            let left = wanted.saturating_sub(verifier.messages);
            let limit = if count > 0 {
                usize::try_from(left.min(64)).unwrap_or(1)
            } else {
                64
            };
            let mut handler = |message: &[u8], position: i64, session: i32| {
                verifier.on_message(message);
                (last_position, last_session) = (position, session);
            };
            let fragments = subscription.poll(&mut handler, limit)?;
            let is_over = deadline.is_due(SystemClock.nanos());
            if count == 0 && (fragments == 0 || is_over) {
                break;
            }
            if fragments == 0 {
                if is_over {
                    return Err(Failure::of(format!(
                        "{left} messages missing after {}",
                        verifier.messages
                    )));
                }
                std::thread::yield_now();
            }
        }
        match &verifier.first_error {
            Some(error) => Err(Failure::of(format!("{} errors, first: {error}", verifier.errors))),
            None => {
                let (messages, senders) = (verifier.messages, verifier.senders());
                Ok(format!("{messages} {last_position} {last_session} {senders}"))
            }
        }
    }

    fn images(&mut self, name: &str) -> Result<Vec<ImageFacts>, Failure> {
        Ok(self.reader(name)?.subscription.images())
    }

    fn image_count(&mut self, name: &str, wanted: usize, limit_ms: u64) -> Answer {
        let subscription = &mut self.reader(name)?.subscription;
        if wait_for(limit_ms, || subscription.images().len() == wanted) {
            done()
        } else {
            Err(Failure::of(format!("{} images", subscription.images().len())))
        }
    }

    fn add_counter(
        &mut self,
        name: &str,
        type_id: i32,
        key: &str,
        label: &str,
        static_id: Option<i64>,
    ) -> Answer {
        let key = bytes_of_hex(key)?;
        let counter = self.client()?.add_counter(type_id, &key, label, static_id)?;
        let (id, registration_id) = counter.ids();
        self.counters.insert(name.to_owned(), counter);
        Ok(format!("{id} {registration_id}"))
    }
}

fn respond(answer: Answer) {
    let line = match answer {
        Ok(text) => format!("ok {text}"),
        Err(error) => format!("err {}", error.to_string().replace('\n', " | ")),
    };
    let mut output = std::io::stdout().lock();
    // A test that has gone away needs no answer; the end of input follows.
    let _ = writeln!(output, "{}", line.trim_end()).and_then(|()| output.flush());
}

/// `session:id:join:position:end-of-stream:revoked:source`.
fn image_line(image: &ImageFacts) -> String {
    format!(
        "{}:{}:{}:{}:{}:{}:{}",
        image.session_id,
        image.correlation_id,
        image.join_position,
        image.position,
        image.is_end_of_stream,
        image.is_publication_revoked,
        image.source_identity
    )
}

/// `id|type|value|registration|owner|reference|key|label`.
fn counter_line(line: &CounterLine) -> String {
    let key: String = line.key.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}|{}|{}|{}|{}|{}|{key}|{}",
        line.id, line.type_id, line.value, line.registration_id, line.owner_id, line.reference_id, line.label
    )
}
