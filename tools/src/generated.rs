//! Messages that `publish --generate` makes and `subscribe --verify` checks: numbered, checksummed, and different
//! from each other in every word.
//!
//! ```text
//! offset  field
//! 0       u32  checksum of everything behind it and of the length
//! 4       u32  bit 31: this is the last message; bits 0..31: the number of the message, counted from 0, modulo 2^31
//! 8       filling that depends on the number
//! ```
//! All little-endian. The number wraps, but the verifier knows which one it expects, so only a gap of exactly 2^31
//! messages would go unseen.

#![forbid(unsafe_code)]

/// The shortest generated message in bytes.
pub(crate) const MIN_LENGTH: usize = 8;

const LAST: u32 = 1 << 31;
const NUMBER_MASK: u32 = LAST - 1;
const MIX_A: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX_B: u64 = 0xd6e8_feb8_6659_fd93;

/// Whether more messages follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// More follow.
    Within,
    /// This one ends the run.
    Last,
}

/// Fills `message` (at least [`MIN_LENGTH`] bytes) as number `number`.
pub(crate) fn write_message(message: &mut [u8], number: u64, place: Place) {
    assert!(
        message.len() >= MIN_LENGTH,
        "a generated message has a header of 8 bytes"
    );
    let mut filling = number.wrapping_mul(MIX_B) ^ MIX_A;
    for chunk in message[MIN_LENGTH..].chunks_mut(8) {
        filling = filling.wrapping_add(MIX_A).rotate_left(23);
        chunk.copy_from_slice(&filling.to_le_bytes()[..chunk.len()]);
    }
    let mut word = low_number(number);
    if place == Place::Last {
        word |= LAST;
    }
    message[4..8].copy_from_slice(&word.to_le_bytes());
    let sum = checksum(&message[4..]);
    message[..4].copy_from_slice(&sum.to_le_bytes());
}

#[expect(clippy::cast_possible_truncation, reason = "the number is kept modulo 2^31")]
fn low_number(number: u64) -> u32 {
    (number as u32) & NUMBER_MASK
}

/// Folds each 8 bytes into a 64-bit state by multiplication, and the state into 32 bits.
fn checksum(bytes: &[u8]) -> u32 {
    let mut state = (bytes.len() as u64).wrapping_mul(MIX_A);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().expect("chunks_exact gives 8 bytes"));
        state = (state ^ word).wrapping_mul(MIX_B);
        state ^= state >> 32;
    }
    let mut tail = [0; 8];
    tail[..words.remainder().len()].copy_from_slice(words.remainder());
    state = (state ^ u64::from_le_bytes(tail)).wrapping_mul(MIX_B);
    #[expect(clippy::cast_possible_truncation, reason = "both halves are folded in")]
    {
        (state ^ (state >> 32)) as u32
    }
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its content is not what was generated.
    Corrupt,
    /// This many messages are missing before it.
    Gap(u64),
    /// It came again, or after its successor.
    OutOfOrder,
    /// It came after the message that said it was the last.
    AfterEnd,
}

/// Checks one publisher's messages, in the order in which they arrive.
#[derive(Debug, Default)]
pub(crate) struct Verifier {
    expected: u64,
    ended: bool,
    /// Messages seen, good or bad.
    pub(crate) seen: u64,
    /// Missing, corrupt and misplaced messages.
    pub(crate) errors: u64,
}

impl Verifier {
    /// Checks the next message.
    #[inline]
    pub(crate) fn check(&mut self, message: &[u8]) -> Result<(), Fault> {
        self.seen += 1;
        let result = self.examine(message);
        match result {
            Ok(()) => {}
            Err(Fault::Gap(missing)) => self.errors = self.errors.saturating_add(missing),
            Err(_) => self.errors += 1,
        }
        result
    }

    /// The number of the message that should come next.
    pub(crate) fn expected(&self) -> u64 {
        self.expected
    }

    /// Whether the last message has come.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    fn examine(&mut self, message: &[u8]) -> Result<(), Fault> {
        let Some(word) = decode(message) else {
            // Its number can not be trusted. Taking it for the expected one keeps a single bad message from
            // counting a second time as a gap.
            self.expected += 1;
            return Err(Fault::Corrupt);
        };
        if self.ended {
            if word & NUMBER_MASK != 0 {
                return Err(Fault::AfterEnd);
            }
            // A publisher whose session is fixed by its channel was started again.
            self.expected = 0;
        }
        let ahead = (word & NUMBER_MASK).wrapping_sub(low_number(self.expected)) & NUMBER_MASK;
        if ahead > NUMBER_MASK / 2 {
            return Err(Fault::OutOfOrder);
        }
        self.expected += u64::from(ahead) + 1;
        self.ended = word & LAST != 0;
        if ahead == 0 {
            Ok(())
        } else {
            Err(Fault::Gap(u64::from(ahead)))
        }
    }
}

fn decode(message: &[u8]) -> Option<u32> {
    let sum = u32::from_le_bytes(message.get(..4)?.try_into().ok()?);
    let word = u32::from_le_bytes(message.get(4..8)?.try_into().ok()?);
    (sum == checksum(&message[4..])).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize, number: u64, place: Place) -> Vec<u8> {
        let mut bytes = vec![0; length];
        write_message(&mut bytes, number, place);
        bytes
    }

    #[test]
    fn a_complete_run_has_no_errors() {
        for length in [8, 9, 15, 16, 17, 32, 1000] {
            let mut verifier = Verifier::default();
            for number in 0..100 {
                let place = if number == 99 { Place::Last } else { Place::Within };
                assert_eq!(verifier.check(&message(length, number, place)), Ok(()));
            }
            assert_eq!((verifier.seen, verifier.errors), (100, 0));
            assert!(verifier.has_ended());
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = message(45, 7, Place::Within);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
        assert_eq!(decode(&good[..44]), None);
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&good), Some(7));
    }

    #[test]
    fn gaps_repeats_and_late_comers_are_told_apart() {
        let mut verifier = Verifier::default();
        assert_eq!(verifier.check(&message(32, 3, Place::Within)), Err(Fault::Gap(3)));
        assert_eq!(verifier.check(&message(32, 4, Place::Within)), Ok(()));
        assert_eq!(
            verifier.check(&message(32, 4, Place::Within)),
            Err(Fault::OutOfOrder)
        );
        assert_eq!(
            verifier.check(&message(32, 1, Place::Within)),
            Err(Fault::OutOfOrder)
        );
        assert_eq!(verifier.check(&[1, 2, 3]), Err(Fault::Corrupt));
        assert_eq!(verifier.check(&message(32, 6, Place::Last)), Ok(()));
        assert_eq!(
            verifier.check(&message(32, 7, Place::Within)),
            Err(Fault::AfterEnd)
        );
        assert_eq!(verifier.errors, 3 + 1 + 1 + 1 + 1);
        assert_eq!(verifier.expected(), 7);
    }

    #[test]
    fn a_new_run_may_follow_the_end_of_the_last() {
        let mut verifier = Verifier::default();
        for _ in 0..2 {
            assert_eq!(verifier.check(&message(32, 0, Place::Within)), Ok(()));
            assert_eq!(verifier.check(&message(32, 1, Place::Last)), Ok(()));
        }
        assert_eq!((verifier.seen, verifier.errors), (4, 0));
    }

    #[test]
    fn numbers_may_wrap() {
        let mut verifier = Verifier {
            expected: u64::from(NUMBER_MASK),
            ..Verifier::default()
        };
        assert_eq!(
            verifier.check(&message(16, u64::from(NUMBER_MASK), Place::Within)),
            Ok(())
        );
        assert_eq!(
            verifier.check(&message(16, u64::from(NUMBER_MASK) + 1, Place::Within)),
            Ok(())
        );
    }
}
