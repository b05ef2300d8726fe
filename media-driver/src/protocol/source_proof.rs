//! Whether somebody is at the address that a SETUP came from. An image costs memory, counters and time in every cycle,
//! and a source address may be forged; so only so many images are made for unproven sources, and beyond that a source
//! has to prove itself first:
//!
//! ```text
//! source                    endpoint
//!   SETUP            ->
//!                    <-     RTTM request, its timestamp a keyed hash of source, stream and session
//!   RTTM answer      ->     the hash is right: the source is noted
//!                    <-     SM that asks for a SETUP
//!   SETUP            ->     an image is made
//! ```
//!
//! Every publisher answers RTTM requests (wire protocol 3.9), so this needs no new frame. Nothing is remembered of a
//! source before it has proven itself, and what is sent to it is never longer than what it sent.
#![forbid(unsafe_code)]

use core::hash::{BuildHasher, BuildHasherDefault, Hash};
use core::net::SocketAddr;
use std::hash::DefaultHasher;

use fulmar::id::{SessionId, StreamId};
use fulmar::time::NanoTime;
use fulmar::wire::Rttm;

use super::report_rate::ReportRate;

/// Images of one endpoint, made or in the making, whose sources have proven nothing.
pub const UNPROVEN_IMAGES_MAX: usize = 64;
/// How long a proof waits for the SETUP that makes use of it, nanoseconds.
pub const PROOF_TIMEOUT_NS: i64 = 2_000_000_000;
/// Proofs that wait at a time.
pub const PROOFS_MAX: usize = 256;
/// Of these, proofs of one host, so that no one of them keeps all others out.
const PROOFS_OF_ADDRESS_MAX: usize = 64;

/// Requests go out at 4,000 a second, so that a flood of SETUPs does not become one of requests. Those that are lost to
/// a flood come again with the next SETUP.
const REQUEST_INTERVAL_NS: i64 = 250_000;
const REQUESTS_BURST: i64 = 64;
/// Answers are taken for one to two of these, nanoseconds.
const EPOCH_NS: i64 = 10_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Claim {
    source: SocketAddr,
    stream_id: StreamId,
    session_id: SessionId,
}

/// The proofs of sources of one endpoint.
#[derive(Debug)]
pub struct SourceProofs {
    secret: u64,
    requests: ReportRate,
    proven: Vec<(Claim, NanoTime)>,
}

impl SourceProofs {
    /// None yet. `secret` is known to nobody else; all memory is taken now.
    #[must_use]
    pub fn new(secret: u64, now: NanoTime) -> Self {
        Self {
            secret,
            requests: ReportRate::new(REQUESTS_BURST, REQUEST_INTERVAL_NS, now),
            proven: Vec::with_capacity(PROOFS_MAX),
        }
    }

    /// The request that a source has to answer, as often as requests may be sent.
    pub fn request(
        &mut self,
        now: NanoTime,
        source: SocketAddr,
        stream_id: StreamId,
        session_id: SessionId,
        receiver_id: i64,
    ) -> Option<Rttm> {
        self.requests.take(now)?;
        let claim = Claim {
            source,
            stream_id,
            session_id,
        };
        Some(Rttm {
            flags: Rttm::FLAG_REPLY,
            session_id,
            stream_id,
            echo_timestamp: self.hash(&claim, epoch(now)),
            reception_delta: 0,
            receiver_id,
        })
    }

    /// An answer came from `source`; whether it proves that somebody is there.
    pub fn on_answer(&mut self, now: NanoTime, answer: &Rttm, source: SocketAddr) -> bool {
        let claim = Claim {
            source,
            stream_id: answer.stream_id,
            session_id: answer.session_id,
        };
        let epoch = epoch(now);
        let is_right = [epoch, epoch - 1]
            .into_iter()
            .any(|epoch| self.hash(&claim, epoch) == answer.echo_timestamp);
        if !is_right {
            return false;
        }
        self.proven
            .retain(|(proven, since)| *proven != claim && now.since(*since) < PROOF_TIMEOUT_NS);
        let of_address = self
            .proven
            .iter()
            .filter(|(proven, _)| proven.source.ip() == source.ip())
            .count();
        if self.proven.len() >= PROOFS_MAX || of_address >= PROOFS_OF_ADDRESS_MAX {
            return false;
        }
        self.proven.push((claim, now));
        true
    }

    /// Whether a source has proven itself lately.
    #[must_use]
    pub fn is_proven(
        &self,
        now: NanoTime,
        source: SocketAddr,
        stream_id: StreamId,
        session_id: SessionId,
    ) -> bool {
        let claim = Claim {
            source,
            stream_id,
            session_id,
        };
        self.proven
            .iter()
            .any(|(proven, since)| *proven == claim && now.since(*since) < PROOF_TIMEOUT_NS)
    }

    /// A proof has brought its image: it makes room for others of its host, of whom hundreds may wait.
    pub fn use_up(&mut self, source: SocketAddr, stream_id: StreamId, session_id: SessionId) {
        let claim = Claim {
            source,
            stream_id,
            session_id,
        };
        self.proven.retain(|(proven, _)| *proven != claim);
    }

    fn hash(&self, claim: &Claim, epoch: i64) -> i64 {
        // SipHash; the secret goes in first and last.
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((
            self.secret,
            claim,
            epoch,
            self.secret.rotate_left(32),
        ));
        hash as i64
    }
}

fn epoch(now: NanoTime) -> i64 {
    now.0.div_euclid(EPOCH_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId(5);
    const SESSION: SessionId = SessionId(-9);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    /// Proofs of as many ports of a host as are taken.
    fn prove_many(proofs: &mut SourceProofs, now: NanoTime, host: u8) -> usize {
        (1..1000)
            .filter(|port| {
                let source = SocketAddr::from(([10, 0, 0, host], *port));
                let claim = Claim {
                    source,
                    stream_id: STREAM,
                    session_id: SESSION,
                };
                let answer = Rttm {
                    echo_timestamp: proofs.hash(&claim, epoch(now)),
                    ..asked_once()
                };
                proofs.on_answer(now, &answer, source)
            })
            .count()
    }

    fn asked_once() -> Rttm {
        asked(&mut SourceProofs::new(0, NanoTime(0)), NanoTime(0)).answer()
    }

    fn asked(proofs: &mut SourceProofs, now: NanoTime) -> Rttm {
        proofs.request(now, address(1), STREAM, SESSION, 7).unwrap()
    }

    #[test]
    fn a_proof_that_was_used_makes_room_at_once() {
        let (mut proofs, now) = (SourceProofs::new(1, NanoTime(0)), NanoTime(5));
        assert_eq!(prove_many(&mut proofs, now, 1), PROOFS_OF_ADDRESS_MAX);
        let used = SocketAddr::from(([10, 0, 0, 1], 1));
        assert!(proofs.is_proven(now, used, STREAM, SESSION));
        proofs.use_up(used, STREAM, SESSION);
        assert!(!proofs.is_proven(now, used, STREAM, SESSION));
        assert_eq!(proofs.proven.len(), PROOFS_OF_ADDRESS_MAX - 1);
    }

    #[test]
    fn who_answers_is_proven_for_a_while() {
        let (mut proofs, now) = (SourceProofs::new(1, NanoTime(0)), NanoTime(5));
        let answer = asked(&mut proofs, now).answer();
        assert!(!proofs.is_proven(now, address(1), STREAM, SESSION));
        assert!(proofs.on_answer(now, &answer, address(1)));
        assert!(proofs.is_proven(now, address(1), STREAM, SESSION));
        assert!(!proofs.is_proven(now, address(2), STREAM, SESSION));
        assert!(!proofs.is_proven(now, address(1), STREAM, SessionId(1)));
        assert!(!proofs.is_proven(now.plus_nanos(PROOF_TIMEOUT_NS), address(1), STREAM, SESSION));
    }

    #[test]
    fn an_answer_counts_for_its_source_session_and_time_only() {
        let (mut proofs, now) = (SourceProofs::new(1, NanoTime(0)), NanoTime(5));
        let answer = asked(&mut proofs, now).answer();
        assert!(!proofs.on_answer(now, &answer, address(2)));
        let other = Rttm {
            session_id: SessionId(1),
            ..answer
        };
        assert!(!proofs.on_answer(now, &other, address(1)));
        assert!(!proofs.on_answer(now.plus_nanos(2 * EPOCH_NS), &answer, address(1)));
        assert!(proofs.on_answer(now.plus_nanos(EPOCH_NS), &answer, address(1)));
        let stranger = SourceProofs::new(2, NanoTime(0)).on_answer(now, &answer, address(1));
        assert!(!stranger, "another secret, another hash");
    }

    #[test]
    fn no_guess_out_of_many_is_taken() {
        let mut proofs = SourceProofs::new(3, NanoTime(0));
        let mut guess = asked(&mut proofs, NanoTime(0)).answer();
        let right = guess.echo_timestamp;
        for wrong in (0..64).map(|bit| right ^ (1 << bit)).chain(-1000..1000) {
            guess.echo_timestamp = wrong;
            assert_eq!(proofs.on_answer(NanoTime(0), &guess, address(1)), wrong == right);
        }
    }

    #[test]
    fn no_host_keeps_all_others_out() {
        let (mut proofs, now) = (SourceProofs::new(5, NanoTime(0)), NanoTime(5));
        assert_eq!(prove_many(&mut proofs, now, 1), PROOFS_OF_ADDRESS_MAX);
        assert_eq!(prove_many(&mut proofs, now, 2), PROOFS_OF_ADDRESS_MAX);
        let later = now.plus_nanos(PROOF_TIMEOUT_NS);
        assert_eq!(prove_many(&mut proofs, later, 1), PROOFS_OF_ADDRESS_MAX);
    }

    #[test]
    fn requests_and_proofs_are_bounded() {
        let mut proofs = SourceProofs::new(4, NanoTime(0));
        let mut requests = 0;
        for port in 1..=20_000 {
            let now = NanoTime(i64::from(port) * 10_000);
            if let Some(request) = proofs.request(now, address(port), STREAM, SESSION, 7) {
                requests += 1;
                proofs.on_answer(now, &request.answer(), address(port));
            }
        }
        // A fifth of a second.
        assert!((800..=900).contains(&requests), "{requests}");
        for host in 2..=255 {
            prove_many(&mut proofs, NanoTime(200_000_000), host);
        }
        assert_eq!(proofs.proven.len(), PROOFS_MAX);
        assert_eq!(proofs.proven.capacity(), PROOFS_MAX);
    }
}
