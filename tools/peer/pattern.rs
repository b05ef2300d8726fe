//! Messages whose content proves itself: who sent it, which of the sender's messages it is, and bytes that follow from
//! both. Shared by the C client program and the tests, so that either language checks what the other sent.

use std::collections::BTreeMap;

/// Bytes at the start of a message that name sender and number; shorter messages carry the fill alone.
pub const HEADER: usize = 16;

/// Writes message `number` of sender `seed` into `message`, whose length is the message's.
pub fn write(message: &mut [u8], seed: u64, number: u64) {
    let mut at = 0;
    if message.len() >= HEADER {
        message[..8].copy_from_slice(&seed.to_le_bytes());
        message[8..HEADER].copy_from_slice(&number.to_le_bytes());
        at = HEADER;
    }
    let mut state = mix(seed ^ number.rotate_left(32));
    for chunk in message[at..].chunks_mut(8) {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(seed | 1);
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    value ^ (value >> 29)
}

/// Checks messages from any number of senders: each sender's numbers are consecutive, each content is right.
#[derive(Debug, Default)]
pub struct Verifier {
    next: BTreeMap<u64, u64>,
    expected: Vec<u8>,
    /// Messages seen.
    pub messages: u64,
    /// Messages that were damaged, repeated, lost before or out of order.
    pub errors: u64,
    /// What was wrong first.
    pub first_error: Option<String>,
}

impl Verifier {
    /// Checks one message. The first number of a sender may be anything: a subscriber may join late.
    pub fn on_message(&mut self, message: &[u8]) {
        self.messages += 1;
        let (Some(seed), Some(number)) = (word(message, 0), word(message, 8)) else {
            return self.fail(format!("a message of {} bytes", message.len()));
        };
        let next = self.next.entry(seed).or_insert(number);
        let wanted = *next;
        *next = number.wrapping_add(1);
        if number != wanted {
            return self.fail(format!("sender {seed}: number {number} instead of {wanted}"));
        }
        self.expected.resize(message.len(), 0);
        write(&mut self.expected, seed, number);
        if self.expected != message {
            self.fail(format!("sender {seed}: number {number} is damaged"));
        }
    }

    /// How many senders were heard.
    #[must_use]
    pub fn senders(&self) -> usize {
        self.next.len()
    }

    fn fail(&mut self, what: String) {
        self.errors += 1;
        self.first_error.get_or_insert(what);
    }
}

fn word(message: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(
        message.get(offset..offset + 8)?.try_into().ok()?,
    ))
}
