//! Round-trip time measurement on the receiving side (wire protocol 4.11): what to do with an RTTM frame. Whether to
//! send requests at all is for congestion control to say. And on the sending side, where requests are ours alone:
//! receivers of either make answer them.
#![forbid(unsafe_code)]

use fulmar::id::{SessionId, StreamId};
use fulmar::time::NanoTime;
use fulmar::wire::Rttm;

/// Longest round trip that is believed, ns: an answer that claims more is late or a lie.
pub const RTT_MAX_NS: i64 = 10_000_000_000;

/// What an RTTM frame means for the image it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RttmAction {
    /// Nothing: it is for another receiver, or can not be.
    Ignore,
    /// This is to be sent back.
    Answer(Rttm),
    /// A round trip took this long.
    Sample {
        /// Round-trip time, ns: 0 to [`RTT_MAX_NS`].
        rtt_ns: i64,
    },
}

/// Judges an RTTM frame for an existing image of the endpoint that `receiver_id` names. A receiver id of 0 in the
/// frame means any receiver.
#[must_use]
pub fn on_rttm(now: NanoTime, rttm: &Rttm, receiver_id: i64) -> RttmAction {
    if rttm.receiver_id != receiver_id && rttm.receiver_id != 0 {
        return RttmAction::Ignore;
    }
    if rttm.is_request() {
        return RttmAction::Answer(Rttm {
            receiver_id,
            ..rttm.answer()
        });
    }
    let rtt_ns = now
        .since(NanoTime(rttm.echo_timestamp))
        .wrapping_sub(rttm.reception_delta);
    if (0..=RTT_MAX_NS).contains(&rtt_ns) {
        RttmAction::Sample { rtt_ns }
    } else {
        RttmAction::Ignore
    }
}

/// The request of a receiver that wants to know the round-trip time.
#[must_use]
pub fn request(now: NanoTime, session_id: SessionId, stream_id: StreamId, receiver_id: i64) -> Rttm {
    Rttm {
        flags: Rttm::FLAG_REPLY,
        session_id,
        stream_id,
        echo_timestamp: now.0,
        reception_delta: 0,
        receiver_id,
    }
}

/// A sender measures at most this often, ns.
pub const PROBE_INTERVAL_NS: i64 = 20_000_000;
/// An answer is waited for at most so long, ns, before the next request may leave.
const PROBE_PATIENCE_MAX_NS: i64 = 1_000_000_000;

/// A sender's measurements: one at a time. What is not answered makes the next one wait for twice as long, so that
/// answers of the longest paths come before they are forgotten.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    asked: Option<NanoTime>,
    is_answered: bool,
    patience_ns: i64,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            asked: None,
            is_answered: false,
            patience_ns: PROBE_INTERVAL_NS,
        }
    }
}

impl Probe {
    /// The request to send now, to whichever receiver there is; `None` if it is not time for one.
    pub fn poll(&mut self, now: NanoTime, session_id: SessionId, stream_id: StreamId) -> Option<Rttm> {
        if let Some(asked) = self.asked {
            if now.since(asked) < self.patience_ns {
                return None;
            }
            if !self.is_answered {
                self.patience_ns = (self.patience_ns * 2).min(PROBE_PATIENCE_MAX_NS);
            }
        }
        self.asked = Some(now);
        self.is_answered = false;
        Some(request(now, session_id, stream_id, 0))
    }

    /// The round trip that an RTTM frame of the receiver tells, ns. An answer counts once.
    pub fn on_answer(&mut self, now: NanoTime, rttm: &Rttm) -> Option<i64> {
        let asked = self.asked.filter(|asked| asked.0 == rttm.echo_timestamp)?;
        if self.is_answered || rttm.is_request() {
            return None;
        }
        self.is_answered = true;
        self.patience_ns = PROBE_INTERVAL_NS;
        let rtt_ns = now.since(asked).wrapping_sub(rttm.reception_delta);
        (0..=RTT_MAX_NS).contains(&rtt_ns).then_some(rtt_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn probe_at(probe: &mut Probe, nanos: i64) -> Option<Rttm> {
        probe.poll(NanoTime(nanos), SessionId(1), StreamId(2))
    }

    #[test]
    fn a_sender_measures_once_in_an_interval_and_an_answer_counts_once() {
        let mut probe = Probe::default();
        let asked = probe_at(&mut probe, 7).unwrap();
        assert!(asked.is_request() && asked.receiver_id == 0);
        assert_eq!(probe_at(&mut probe, 8), None);
        assert_eq!(
            probe.on_answer(NanoTime(507), &asked),
            None,
            "a request is no answer"
        );
        assert_eq!(probe.on_answer(NanoTime(507), &asked.answer()), Some(500));
        assert_eq!(probe.on_answer(NanoTime(507), &asked.answer()), None);
        assert_eq!(probe_at(&mut probe, PROBE_INTERVAL_NS), None);
        assert!(probe_at(&mut probe, 7 + PROBE_INTERVAL_NS).is_some());
        assert_eq!(
            probe.on_answer(NanoTime(9), &asked.answer()),
            None,
            "of another request"
        );
    }

    #[test]
    fn an_answer_over_a_long_path_comes_in_time_for_a_later_request() {
        let mut probe = Probe::default();
        let mut answers: Vec<(i64, Rttm)> = Vec::new();
        let mut samples = Vec::new();
        for now in (0..2_000 * MS).step_by(1_000_000) {
            if let Some(asked) = probe_at(&mut probe, now) {
                answers.push((now + 300 * MS, asked.answer()));
            }
            for (_, answer) in answers.extract_if(.., |(due, _)| *due <= now) {
                samples.extend(probe.on_answer(NanoTime(now), &answer));
            }
        }
        assert!(
            samples.len() >= 2 && samples.iter().all(|sample| *sample == 300 * MS),
            "{samples:?}"
        );
    }

    const RECEIVER: i64 = 7;

    fn asked_at(nanos: i64) -> Rttm {
        request(NanoTime(nanos), SessionId(1), StreamId(2), RECEIVER)
    }

    #[test]
    fn a_request_is_answered_in_the_receivers_own_name() {
        for receiver_id in [0, RECEIVER] {
            let asked = Rttm {
                receiver_id,
                reception_delta: 9,
                ..asked_at(99)
            };
            let RttmAction::Answer(answer) = on_rttm(NanoTime(1), &asked, RECEIVER) else {
                unreachable!("a request is answered");
            };
            assert_eq!((answer.flags, answer.reception_delta), (0, 0));
            assert_eq!((answer.echo_timestamp, answer.receiver_id), (99, RECEIVER));
        }
        let other = Rttm {
            receiver_id: 8,
            ..asked_at(99)
        };
        assert_eq!(on_rttm(NanoTime(1), &other, RECEIVER), RttmAction::Ignore);
    }

    #[test]
    fn an_answer_gives_the_time_that_has_passed_without_the_time_spent() {
        let mut answer = asked_at(1_000).answer();
        let sample = |rtt_ns| RttmAction::Sample { rtt_ns };
        assert_eq!(on_rttm(NanoTime(5_000), &answer, RECEIVER), sample(4_000));
        answer.reception_delta = 500;
        assert_eq!(on_rttm(NanoTime(5_000), &answer, RECEIVER), sample(3_500));
    }

    #[test]
    fn an_answer_from_the_future_or_the_distant_past_is_ignored() {
        let answer = asked_at(1_000).answer();
        for (now, delta) in [
            (999, 0),
            (2_000 + RTT_MAX_NS, 0),
            (2_000, 2_000),
            (2_000, i64::MIN),
        ] {
            let answer = Rttm {
                reception_delta: delta,
                ..answer
            };
            assert_eq!(on_rttm(NanoTime(now), &answer, RECEIVER), RttmAction::Ignore);
        }
    }
}
