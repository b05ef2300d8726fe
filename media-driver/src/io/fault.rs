//! A network that loses datagrams on purpose: Aeron's loss interceptors, for tests of what is built on it.
//!
//! | name | parameters | what it drops |
//! | --- | --- | --- |
//! | `loss` | `rate`, `seed`, `recv-msg-mask` | each datagram with this probability, if bit `type` of the mask (hexadecimal) is set |
//! | `fixed-loss` | `term-id`, `term-offset`, `length` | the data of this range of a term, once per stream and session |
//! | `multi-gap-loss` | `term-id`, `gap-radix`, `gap-length`, `total-gaps` | the same for ranges of `gap-length` at each multiple of `gap-radix`, from the first on |
//!
//! Parameters are separated by `|`. What is sent again passes, except that `loss` may meet it again. The interceptors
//! of datagrams that go out are ours: Aeron has them for datagrams that come in only.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use fulmar::sync::{AtomicU64, Ordering};
use fulmar::wire::{DataHeader, FrameType};

use super::batch::{SendBatch, SendOutcome};
use super::network::{IoError, Network, Registration, UdpSocket};
use super::receive::{ReceiveBatch, ReceiveOutcome};
use super::spec::SocketSpec;

/// Streams of which an interceptor remembers what it has dropped; nothing is dropped of others.
const STREAMS_MAX: usize = 4096;

/// Frame types that `loss` drops unless told otherwise: PAD, DATA, NAK and SM.
const MASK_DEFAULT: u32 = 0xF;

/// Bytes of a data header.
const HEADER_LENGTH: usize = 32;

/// What is wrong with the settings of interceptors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No interceptor has this name.
    #[error("there is no interceptor {name}; there are loss, fixed-loss and multi-gap-loss")]
    UnknownInterceptor {
        /// As given.
        name: String,
    },
    /// No parameter of the interceptor has this name.
    #[error("{interceptor} has no parameter {key}")]
    UnknownParameter {
        /// The interceptor.
        interceptor: &'static str,
        /// As given.
        key: String,
    },
    /// A parameter is missing.
    #[error("{interceptor} needs {key}")]
    Missing {
        /// The interceptor.
        interceptor: &'static str,
        /// The parameter.
        key: &'static str,
    },
    /// A parameter is no number, or not one that makes sense.
    #[error("{interceptor}: {key}={value} is no {expected}")]
    BadValue {
        /// The interceptor.
        interceptor: &'static str,
        /// The parameter.
        key: &'static str,
        /// As given.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// The settings of interceptors as text.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultSettings<'a> {
    /// Names for datagrams that come in, separated by commas.
    pub incoming: &'a str,
    /// Names for datagrams that go out.
    pub outgoing: &'a str,
    /// Parameters of `loss`.
    pub loss: &'a str,
    /// Parameters of `fixed-loss`.
    pub fixed_loss: &'a str,
    /// Parameters of `multi-gap-loss`.
    pub multi_gap_loss: &'a str,
}

/// What to lose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultRules {
    incoming: Vec<Rule>,
    outgoing: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq)]
enum Rule {
    Random { rate: f64, seed: u64, mask: u32 },
    Gaps(Gaps),
}

/// Ranges of a term: `length` bytes at each of `count` places, `first` and every `distance` after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gaps {
    term_id: i32,
    first: i64,
    distance: i64,
    length: i64,
    count: i64,
}

impl FaultRules {
    /// Reads the settings.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(settings: FaultSettings<'_>) -> Result<Self, FaultError> {
        let rules = |names: &str| {
            names
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(|name| match name {
                    "loss" => random(settings.loss),
                    "fixed-loss" => fixed(settings.fixed_loss),
                    "multi-gap-loss" => multi_gap(settings.multi_gap_loss),
                    _ => Err(FaultError::UnknownInterceptor {
                        name: name.to_owned(),
                    }),
                })
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            incoming: rules(settings.incoming)?,
            outgoing: rules(settings.outgoing)?,
        })
    }

    /// Loses each datagram that goes out and each that comes in with this probability, whatever it is.
    #[must_use]
    pub fn random(rate: f64, seed: u64) -> Self {
        let rule = Rule::Random {
            rate,
            seed,
            mask: u32::MAX,
        };
        Self {
            incoming: vec![rule.clone()],
            outgoing: vec![rule],
        }
    }

    /// Whether nothing is ever lost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.incoming.is_empty() && self.outgoing.is_empty()
    }
}

fn random(text: &str) -> Result<Rule, FaultError> {
    const NAME: &str = "loss";
    let args = Args::parse(NAME, text, &["rate", "seed", "recv-msg-mask"])?;
    let rate = args
        .get("rate", "probability from 0 to 1", |text| {
            text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate))
        })?
        .unwrap_or(0.0);
    let seed = args.get("seed", "number", |text| text.parse().ok())?.unwrap_or(0);
    let mask = args
        .get("recv-msg-mask", "hexadecimal number", |text| {
            let digits = text.trim_start_matches("0x").trim_start_matches("0X");
            u32::from_str_radix(digits, 16).ok()
        })?
        .unwrap_or(MASK_DEFAULT);
    Ok(Rule::Random { rate, seed, mask })
}

fn fixed(text: &str) -> Result<Rule, FaultError> {
    const NAME: &str = "fixed-loss";
    let args = Args::parse(NAME, text, &["term-id", "term-offset", "length"])?;
    Ok(Rule::Gaps(Gaps {
        term_id: args.need("term-id", "number", |text| text.parse().ok())?,
        first: args.need("term-offset", OFFSET, offset)?,
        distance: 0,
        length: args.need("length", OFFSET, offset)?,
        count: 1,
    }))
}

fn multi_gap(text: &str) -> Result<Rule, FaultError> {
    const NAME: &str = "multi-gap-loss";
    let args = Args::parse(NAME, text, &["term-id", "gap-radix", "gap-length", "total-gaps"])?;
    let radix = args.need("gap-radix", "length from 1 to 2^30", |text| {
        text.parse().ok().filter(|radix| (1..=1 << 30).contains(radix))
    })?;
    // As in Aeron: the next power of two.
    let distance = i64::from(u32::next_power_of_two(radix));
    Ok(Rule::Gaps(Gaps {
        term_id: args.need("term-id", "number", |text| text.parse().ok())?,
        first: distance,
        distance,
        length: args.need("gap-length", OFFSET, offset)?,
        count: args.need("total-gaps", OFFSET, offset)?,
    }))
}

const OFFSET: &str = "number from 0 to 2^30";

fn offset(text: &str) -> Option<i64> {
    text.parse().ok().filter(|value| (0..=1 << 30).contains(value))
}

/// Parameters by name.
struct Args<'a> {
    interceptor: &'static str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Args<'a> {
    fn parse(interceptor: &'static str, text: &'a str, known: &[&'static str]) -> Result<Self, FaultError> {
        let mut pairs = Vec::new();
        for part in text.split('|').map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if !known.contains(&key) {
                return Err(FaultError::UnknownParameter {
                    interceptor,
                    key: key.to_owned(),
                });
            }
            pairs.push((key, value));
        }
        Ok(Self { interceptor, pairs })
    }

    fn get<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, FaultError> {
        let Some((_, value)) = self.pairs.iter().rev().find(|(name, _)| *name == key) else {
            return Ok(None);
        };
        parse(value).map(Some).ok_or_else(|| FaultError::BadValue {
            interceptor: self.interceptor,
            key,
            value: (*value).to_owned(),
            expected,
        })
    }

    fn need<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, FaultError> {
        self.get(key, expected, parse)?.ok_or(FaultError::Missing {
            interceptor: self.interceptor,
            key,
        })
    }
}

/// A network whose sockets lose datagrams.
pub struct FaultNetwork {
    inner: Arc<dyn Network>,
    rules: FaultRules,
    /// Sockets opened so far: each loses by a sequence of its own, so that runs with the same seed lose alike
    /// whatever the others do.
    opened: AtomicU64,
}

impl FaultNetwork {
    /// Loses what the rules say of what goes through `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Network>, rules: FaultRules) -> Self {
        Self {
            inner,
            rules,
            opened: AtomicU64::new(0),
        }
    }
}

impl Network for FaultNetwork {
    fn open(&self, spec: &SocketSpec) -> Result<Box<dyn UdpSocket>, IoError> {
        let inner = self.inner.open(spec)?;
        let ordinal = self.opened.fetch_add(1, Ordering::Relaxed);
        let losses = |rules: &[Rule], side: u64| {
            rules
                .iter()
                .map(|rule| Loss::new(rule, ordinal * 2 + side))
                .collect()
        };
        Ok(Box::new(FaultSocket {
            inner,
            incoming: losses(&self.rules.incoming, 0),
            outgoing: losses(&self.rules.outgoing, 1),
        }))
    }
}

struct FaultSocket {
    inner: Box<dyn UdpSocket>,
    incoming: Vec<Loss>,
    outgoing: Vec<Loss>,
}

impl FaultSocket {
    /// Sends what was let through, and adds it and what was lost before it to `outcome`. Whether all of it went out.
    fn flush(&mut self, kept: &mut SendBatch<'_>, lost: &mut [Lost], outcome: &mut SendOutcome) -> bool {
        let sent = self.inner.send(kept);
        let is_short = sent.is_short(kept);
        outcome.error = sent.error;
        // The lost ones count as sent as far as everything in front of them was.
        for (index, entry) in kept.entries().iter().enumerate().take(sent.datagrams) {
            if let Some(lost) = lost.get_mut(index) {
                outcome.datagrams += 1 + lost.datagrams;
                outcome.bytes += entry.bytes.len() + lost.bytes;
                *lost = Lost::default();
            }
        }
        if !is_short && let Some(lost) = lost.get_mut(kept.len()) {
            outcome.datagrams += lost.datagrams;
            outcome.bytes += lost.bytes;
            *lost = Lost::default();
        }
        kept.clear();
        !is_short
    }
}

/// Datagrams that were lost in front of one that was let through.
#[derive(Clone, Copy, Default)]
struct Lost {
    datagrams: usize,
    bytes: usize,
}

impl UdpSocket for FaultSocket {
    fn local_address(&self) -> SocketAddr {
        self.inner.local_address()
    }

    fn send(&mut self, batch: &SendBatch<'_>) -> SendOutcome {
        if self.outgoing.is_empty() {
            return self.inner.send(batch);
        }
        let mut outcome = SendOutcome::default();
        let mut kept = SendBatch::new();
        let mut lost = [Lost::default(); SendBatch::CAPACITY + 1];
        for entry in batch.entries() {
            for datagram in entry.split() {
                if kept.is_full() && !self.flush(&mut kept, &mut lost, &mut outcome) {
                    return outcome;
                }
                let mut header = [0; HEADER_LENGTH];
                let known = datagram.bytes.len().min(HEADER_LENGTH);
                let head = header.get_mut(..known).unwrap_or_default();
                let _ = datagram.bytes.copy_to(0, head);
                let length = datagram.bytes.len();
                if self.outgoing.iter_mut().any(|loss| loss.takes(head, length)) {
                    if let Some(lost) = lost.get_mut(kept.len()) {
                        lost.datagrams += 1;
                        lost.bytes += length;
                    }
                } else {
                    kept.push(datagram);
                }
            }
        }
        self.flush(&mut kept, &mut lost, &mut outcome);
        outcome
    }

    fn receive(&mut self, into: &mut ReceiveBatch) -> ReceiveOutcome {
        let mut outcome = self.inner.receive(into);
        if !self.incoming.is_empty() && outcome.datagrams > 0 {
            let incoming = &mut self.incoming;
            (outcome.datagrams, outcome.bytes) = into.retain(|datagram| {
                !incoming
                    .iter_mut()
                    .any(|loss| loss.takes(datagram.bytes, datagram.bytes.len()))
            });
        }
        outcome
    }

    fn reconnect(&mut self, to: SocketAddr) -> Result<(), IoError> {
        self.inner.reconnect(to)
    }

    fn register(&mut self, waiter: &Registration) -> Result<(), IoError> {
        self.inner.register(waiter)
    }

    fn release(&mut self) {
        self.inner.release();
    }
}

/// One interceptor of one socket.
enum Loss {
    Random {
        rate: f64,
        mask: u32,
        chance: fastrand::Rng,
    },
    Gaps {
        gaps: Gaps,
        /// By stream and session: where the last datagram that was lost ended. What lies before it was sent again.
        done: BTreeMap<(i32, i32), i64>,
    },
}

impl Loss {
    fn new(rule: &Rule, sequence: u64) -> Self {
        match *rule {
            Rule::Random { rate, seed, mask } => {
                let spread = sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                Self::Random {
                    rate,
                    mask,
                    chance: fastrand::Rng::with_seed(seed ^ spread),
                }
            }
            Rule::Gaps(gaps) => Self::Gaps {
                gaps,
                done: BTreeMap::new(),
            },
        }
    }

    /// Whether a datagram of `length` bytes, which starts with `head`, is lost.
    fn takes(&mut self, head: &[u8], length: usize) -> bool {
        match self {
            Self::Random { rate, mask, chance } => {
                let kind = match head.get(6..8) {
                    Some(&[low, high]) => u32::from(u16::from_le_bytes([low, high])),
                    _ => 0,
                };
                let is_meant = mask.checked_shr(kind).unwrap_or(0) & 1 != 0;
                is_meant && chance.f64() < *rate
            }
            Self::Gaps { gaps, done } => {
                let Some(header) = DataHeader::parse(head) else {
                    return false;
                };
                // Heartbeats carry nothing that could be missing.
                let is_data = header.frame_type == FrameType::DATA && header.frame_length > 0;
                if !is_data || header.term_id.0 != gaps.term_id {
                    return false;
                }
                let start = i64::from(header.term_offset);
                let end = start + length as i64;
                if !gaps.overlap(start, end) {
                    return false;
                }
                let key = (header.stream_id.0, header.session_id.0);
                if done.get(&key).is_some_and(|done| start < *done)
                    || (done.len() >= STREAMS_MAX && !done.contains_key(&key))
                {
                    return false;
                }
                done.insert(key, end);
                true
            }
        }
    }
}

impl Gaps {
    /// Whether `[start, end)` has bytes in a gap.
    fn overlap(&self, start: i64, end: i64) -> bool {
        let touches = |index: i64| {
            let gap = self.first + index * self.distance;
            (0..self.count).contains(&index) && start < gap + self.length && gap < end
        };
        let is_some = self.length > 0;
        // Without a distance there is one gap. Else: the gap at or in front of the start, the next one, and the last
        // one, which may be longer than the distance.
        let index = (start - self.first)
            .checked_div_euclid(self.distance)
            .unwrap_or(0);
        is_some && (touches(index) || touches(index + 1) || touches(self.count - 1))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use fulmar::id::{SessionId, StreamId, TermId};
    use fulmar::log::Payload;

    use super::super::batch::SendEntry;
    use super::super::conformance::{self, pair, send};
    use super::super::system::SystemNetwork;
    use super::*;

    fn network(settings: FaultSettings<'_>) -> FaultNetwork {
        FaultNetwork::new(
            Arc::new(SystemNetwork::default()),
            FaultRules::parse(settings).unwrap(),
        )
    }

    fn data(term_id: i32, term_offset: i32, session: i32, length: usize) -> Vec<u8> {
        let header = DataHeader {
            frame_length: length as i32,
            version: 0,
            flags: 0xC0,
            frame_type: FrameType::DATA,
            term_offset,
            session_id: SessionId(session),
            stream_id: StreamId(10),
            term_id: TermId(term_id),
            reserved_value: 0,
        };
        let mut bytes = header.encode().to_vec();
        bytes.resize(length, 7);
        bytes
    }

    #[test]
    fn without_faults_and_with_faults_that_never_strike_it_passes_the_conformance_suite() {
        conformance::check(&network(FaultSettings::default()));
        conformance::check(&network(FaultSettings {
            incoming: "loss",
            outgoing: "loss, fixed-loss",
            loss: "rate=0.0|seed=1",
            fixed_loss: "term-id=99|term-offset=0|length=0",
            ..FaultSettings::default()
        }));
    }

    /// Which of 1000 datagrams arrive.
    fn survivors(settings: FaultSettings<'_>) -> Vec<u32> {
        let network = network(settings);
        let (mut sender, mut receiver) = pair(&network, Ipv4Addr::LOCALHOST.into());
        let to = Some(receiver.local_address());
        let mut batch = ReceiveBatch::new(16);
        let mut arrived = Vec::new();
        for number in 0..1000u32 {
            let mut bytes = data(1, 0, 5, 64);
            bytes[32..36].copy_from_slice(&number.to_le_bytes());
            assert_eq!(
                send(&mut *sender, &bytes, to).datagrams,
                1,
                "loss looks like success"
            );
            receiver.receive(&mut batch);
            arrived.extend(batch.datagrams().map(|datagram| {
                u32::from_le_bytes([
                    datagram.bytes[32],
                    datagram.bytes[33],
                    datagram.bytes[34],
                    datagram.bytes[35],
                ])
            }));
        }
        arrived
    }

    #[test]
    fn random_loss_follows_its_rate_and_its_seed_on_both_sides() {
        for incoming in [true, false] {
            let with = |loss| {
                survivors(FaultSettings {
                    incoming: if incoming { "loss" } else { "" },
                    outgoing: if incoming { "" } else { "loss" },
                    loss,
                    ..FaultSettings::default()
                })
            };
            let first = with("rate=0.3|seed=1234|recv-msg-mask=0xF");
            // Five standard deviations of a binomial distribution.
            assert!((628..=772).contains(&first.len()), "{}", first.len());
            assert_eq!(
                first,
                with("rate=0.3|seed=1234"),
                "the same seed, the default mask"
            );
            assert_ne!(first, with("rate=0.3|seed=1235"));
            assert_eq!(with("rate=1.0").len(), 0);
            assert_eq!(with("rate=1.0|recv-msg-mask=0xFD").len(), 1000, "not data");
        }
    }

    /// Sends the datagrams of a term in order, then all of them once more; answers the offsets that were missing the
    /// first time, and checks that nothing is missing the second time.
    fn missing(settings: FaultSettings<'_>, runs: bool) -> Vec<i32> {
        let network = network(settings);
        let (mut sender, mut receiver) = pair(&network, Ipv4Addr::LOCALHOST.into());
        let to = Some(receiver.local_address());
        let mut batch = ReceiveBatch::new(16);
        let offsets = || (0..64).map(|index| index * 1024);
        let bytes: Vec<u8> = offsets().flat_map(|offset| data(3, offset, 5, 1024)).collect();
        let mut pass = || {
            let mut arrived = Vec::new();
            for part in bytes.chunks(16 * 1024) {
                let batch_out = if runs {
                    SendBatch::of(SendEntry::run(Payload::from_slice(part), 1024, to))
                } else {
                    let mut batch = SendBatch::new();
                    for one in part.chunks(1024) {
                        assert!(batch.push(SendEntry::datagram(Payload::from_slice(one), to)));
                    }
                    batch
                };
                let outcome = sender.send(&batch_out);
                assert_eq!((outcome.datagrams, outcome.bytes), (16, part.len()));
                while receiver.receive(&mut batch).is_full || !batch.is_empty() {
                    arrived.extend(
                        batch
                            .datagrams()
                            .filter_map(|datagram| DataHeader::parse(datagram.bytes))
                            .map(|header| header.term_offset),
                    );
                }
            }
            offsets()
                .filter(|offset| !arrived.contains(offset))
                .collect::<Vec<i32>>()
        };
        let first = pass();
        assert_eq!(pass(), [0; 0], "what is sent again passes");
        first
    }

    #[test]
    fn a_fixed_range_is_lost_once() {
        for runs in [true, false] {
            for outgoing in [true, false] {
                let with = |fixed_loss| {
                    missing(
                        FaultSettings {
                            incoming: if outgoing { "" } else { "fixed-loss" },
                            outgoing: if outgoing { "fixed-loss" } else { "" },
                            fixed_loss,
                            ..FaultSettings::default()
                        },
                        runs,
                    )
                };
                assert_eq!(with("term-id=3|term-offset=2048|length=2048"), [2048, 3072]);
                assert_eq!(with("term-id=3|term-offset=3071|length=2"), [2048, 3072]);
                assert_eq!(with("term-id=4|term-offset=0|length=65536"), [0; 0]);
                assert_eq!(with("term-id=3|term-offset=0|length=65536").len(), 64);
            }
        }
    }

    #[test]
    fn several_gaps_are_lost_once_each() {
        let with = |multi_gap_loss| {
            missing(
                FaultSettings {
                    incoming: "multi-gap-loss",
                    multi_gap_loss,
                    ..FaultSettings::default()
                },
                true,
            )
        };
        assert_eq!(
            with("term-id=3|gap-radix=8192|gap-length=1025|total-gaps=3"),
            [8192, 9216, 16384, 17408, 24576, 25600]
        );
        // The radix becomes a power of two; several gaps may lie in one datagram.
        assert_eq!(
            with("term-id=3|gap-radix=300|gap-length=1|total-gaps=4"),
            [0, 1024, 2048]
        );
    }

    #[test]
    fn heartbeats_other_frames_and_short_datagrams_pass_the_gaps() {
        let rules = FaultRules::parse(FaultSettings {
            incoming: "fixed-loss",
            fixed_loss: "term-id=3|term-offset=0|length=1000000",
            ..FaultSettings::default()
        })
        .unwrap();
        let mut loss = Loss::new(&rules.incoming[0], 0);
        let mut heartbeat = data(3, 64, 5, 32);
        heartbeat[..4].fill(0);
        assert!(!loss.takes(&heartbeat, 32));
        let mut setup = data(3, 64, 5, 40);
        setup[6] = 5;
        assert!(!loss.takes(&setup, 40));
        assert!(!loss.takes(&data(3, 64, 5, 64)[..20], 20));
        assert!(!loss.takes(&[], 0));
        assert!(loss.takes(&data(3, 64, 5, 64), 64));
        assert!(!loss.takes(&data(3, 64, 5, 64), 64));
        assert!(loss.takes(&data(3, 64, 6, 64), 64), "each session for itself");
        for session in 0..10_000 {
            loss.takes(&data(3, i32::MAX, session, 64), 64);
        }
        let Loss::Gaps { done, .. } = loss else {
            panic!("gaps were asked for")
        };
        assert!(done.len() <= STREAMS_MAX);
    }

    #[test]
    fn wrong_settings_are_refused_with_a_reason() {
        let error = |incoming, args| {
            FaultRules::parse(FaultSettings {
                incoming,
                outgoing: "",
                loss: args,
                fixed_loss: args,
                multi_gap_loss: args,
            })
            .unwrap_err()
            .to_string()
        };
        assert_eq!(
            error("loss,tea", ""),
            "there is no interceptor tea; there are loss, fixed-loss and multi-gap-loss"
        );
        assert_eq!(
            error("loss", "rate=2"),
            "loss: rate=2 is no probability from 0 to 1"
        );
        assert_eq!(
            error("loss", "rate=NaN"),
            "loss: rate=NaN is no probability from 0 to 1"
        );
        assert_eq!(error("loss", "rat=1"), "loss has no parameter rat");
        assert_eq!(
            error("loss", "recv-msg-mask=xyz"),
            "loss: recv-msg-mask=xyz is no hexadecimal number"
        );
        assert_eq!(error("fixed-loss", "term-id=1"), "fixed-loss needs term-offset");
        assert_eq!(
            error("fixed-loss", "term-id=1|term-offset=-1|length=1"),
            "fixed-loss: term-offset=-1 is no number from 0 to 2^30"
        );
        assert_eq!(
            error(
                "multi-gap-loss",
                "term-id=1|gap-radix=0|gap-length=1|total-gaps=1"
            ),
            "multi-gap-loss: gap-radix=0 is no length from 1 to 2^30"
        );
        assert!(FaultRules::parse(FaultSettings::default()).unwrap().is_empty());
    }
}
