//! Round-trip time measurement on the receiving side (wire protocol 4.11): what to do with an RTTM frame. Whether to
//! send requests at all is for congestion control to say.
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

#[cfg(test)]
mod tests {
    use super::*;

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
