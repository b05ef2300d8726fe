//! What a link does to datagrams: drawn from streams of random numbers that belong to this link and one purpose each,
//! so that neither another link nor another fault shifts the draws.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::net::IpAddr;

use super::Parcel;
use crate::sim::prng::Prng;

/// Loss in bursts (Gilbert's model): a link is either well or in a burst, in which it loses everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// How probably a datagram begins a burst, parts per million.
    pub enter_ppm: u32,
    /// How probably a datagram ends the burst it falls into, parts per million; that datagram passes.
    pub leave_ppm: u32,
}

/// What datagrams from one address to another meet, in one direction. Probabilities are parts per million of the
/// datagrams, lengths are those of datagrams without headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// How long each datagram travels, nanoseconds.
    pub delay_ns: u64,
    /// At most so much longer, evenly spread, nanoseconds. Datagrams still arrive in order.
    pub jitter_ns: u64,
    /// Loss, each datagram for itself.
    pub loss_ppm: u32,
    /// Loss in bursts.
    pub burst: Option<Burst>,
    /// Datagrams that arrive twice.
    pub duplicate_ppm: u32,
    /// Datagrams that later ones may overtake.
    pub reorder_ppm: u32,
    /// How much longer those travel, nanoseconds.
    pub reorder_ns: u64,
    /// Datagrams with flipped bits: what checksums find does not arrive, see
    /// [`SimNetwork::set_checksum`](super::SimNetwork::set_checksum).
    pub corrupt_ppm: u32,
    /// How many bytes a second go in; `None`: any number at once.
    pub bytes_per_second: Option<u64>,
    /// How many bytes may wait for their turn, and how many a clogged link holds; what does not fit is lost.
    pub queue_bytes: usize,
    /// Longest datagram that passes, bytes; longer ones are lost.
    pub mtu: usize,
    /// Nothing passes: a partition, in this direction.
    pub is_cut: bool,
    /// Everything is held until this ends, then it arrives at once.
    pub is_clogged: bool,
}

impl Link {
    /// No delay and no fault.
    #[must_use]
    pub const fn perfect() -> Self {
        Self {
            delay_ns: 0,
            jitter_ns: 0,
            loss_ppm: 0,
            burst: None,
            duplicate_ppm: 0,
            reorder_ppm: 0,
            reorder_ns: 0,
            corrupt_ppm: 0,
            bytes_per_second: None,
            queue_bytes: 16 << 20,
            mtu: super::DATAGRAM_MAX,
            is_cut: false,
            is_clogged: false,
        }
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::perfect()
    }
}

/// When a datagram arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Nanoseconds of the network.
    pub(super) at: i64,
    pub(super) is_reordered: bool,
}

/// Why a link does not take a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    Cut,
    Oversize,
    QueueFull,
    Lost,
}

/// The state of a link between two addresses.
#[derive(Debug)]
pub(super) struct LinkState {
    /// Its own setting, if it has one.
    pub(super) setting: Option<Link>,
    loss: Prng,
    burst: Prng,
    duplicate: Prng,
    reorder: Prng,
    corrupt: Prng,
    jitter: Prng,
    is_in_burst: bool,
    /// When all that went in has gone out, nanoseconds of the network.
    free_at: i64,
    /// When the latest datagram that kept its place arrives.
    last_arrival: i64,
    /// What waits for the clog to end, oldest first.
    pub(super) held: VecDeque<Parcel>,
    held_bytes: usize,
}

impl LinkState {
    pub(super) fn new(seed: u64, from: IpAddr, to: IpAddr) -> Self {
        let stream = |purpose: &str| Prng::new(seed, &format!("network {purpose} {from} {to}"));
        Self {
            setting: None,
            loss: stream("loss"),
            burst: stream("burst"),
            duplicate: stream("duplicate"),
            reorder: stream("reorder"),
            corrupt: stream("corrupt"),
            jitter: stream("jitter"),
            is_in_burst: false,
            free_at: i64::MIN,
            last_arrival: i64::MIN,
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }

    /// Puts a datagram on the wire at `now`; tells when it is at the other end of the queue, which is where it starts
    /// to travel.
    pub(super) fn enter(&mut self, link: &Link, now: i64, length: usize) -> Result<i64, Refusal> {
        if link.is_cut {
            return Err(Refusal::Cut);
        }
        if length > link.mtu {
            return Err(Refusal::Oversize);
        }
        let mut start = now;
        if let Some(rate) = link.bytes_per_second {
            let rate = u128::from(rate.max(1));
            let waiting_ns = u128::from(self.free_at.saturating_sub(now).max(0).unsigned_abs());
            let waiting = waiting_ns * rate / 1_000_000_000;
            // A datagram on an idle link does not wait, however long it is.
            if waiting_ns > 0 && waiting + length as u128 > link.queue_bytes as u128 {
                return Err(Refusal::QueueFull);
            }
            let duration = nanos(u64::try_from(length as u128 * 1_000_000_000 / rate).unwrap_or(u64::MAX));
            self.free_at = self.free_at.max(now).saturating_add(duration);
            start = self.free_at;
        }
        if self.is_lost(link) {
            return Err(Refusal::Lost);
        }
        Ok(start)
    }

    /// Both kinds of loss are drawn for each datagram, so that one does not shift the other.
    fn is_lost(&mut self, link: &Link) -> bool {
        if let Some(burst) = link.burst {
            let turns = if self.is_in_burst {
                burst.leave_ppm
            } else {
                burst.enter_ppm
            };
            self.is_in_burst ^= self.burst.chance(turns);
        } else {
            self.is_in_burst = false;
        }
        let is_lost_alone = link.loss_ppm > 0 && self.loss.chance(link.loss_ppm);
        self.is_in_burst || is_lost_alone
    }

    /// When a datagram that starts at `start` arrives.
    pub(super) fn arrival(&mut self, link: &Link, start: i64) -> Arrival {
        let mut at = start.saturating_add(nanos(link.delay_ns));
        if link.jitter_ns > 0 {
            at = at.saturating_add(self.jitter.between(0, nanos(link.jitter_ns)));
        }
        at = at.max(self.last_arrival);
        let is_reordered = link.reorder_ppm > 0 && self.reorder.chance(link.reorder_ppm);
        if is_reordered {
            at = at.saturating_add(nanos(link.reorder_ns));
        } else {
            self.last_arrival = at;
        }
        Arrival { at, is_reordered }
    }

    pub(super) fn duplicates(&mut self, link: &Link) -> bool {
        link.duplicate_ppm > 0 && self.duplicate.chance(link.duplicate_ppm)
    }

    pub(super) fn corrupts(&mut self, link: &Link) -> bool {
        link.corrupt_ppm > 0 && self.corrupt.chance(link.corrupt_ppm)
    }

    /// Flips one to eight bits.
    pub(super) fn flip(&mut self, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        let first = self.corrupt.below(bytes.len() as u64 * 8) as usize;
        let more = self.corrupt.below(8);
        for _ in 0..more {
            let bit = self.corrupt.below(bytes.len() as u64 * 8) as usize;
            // The first bit stays flipped: something is wrong in any case.
            if bit != first
                && let Some(byte) = bytes.get_mut(bit / 8)
            {
                *byte ^= 1 << (bit % 8);
            }
        }
        if let Some(byte) = bytes.get_mut(first / 8) {
            *byte ^= 1 << (first % 8);
        }
    }

    /// Keeps a datagram until the clog ends; gives it back if there is no room.
    pub(super) fn hold(&mut self, link: &Link, parcel: Parcel) -> Option<Parcel> {
        let bytes = self.held_bytes + parcel.bytes.len() + super::DATAGRAM_OVERHEAD;
        if bytes > link.queue_bytes {
            return Some(parcel);
        }
        self.held_bytes = bytes;
        self.held.push_back(parcel);
        None
    }

    /// What was held, oldest first.
    pub(super) fn release(&mut self) -> VecDeque<Parcel> {
        self.held_bytes = 0;
        core::mem::take(&mut self.held)
    }
}

/// A time of a setting, cut to what can be added to.
fn nanos(setting: u64) -> i64 {
    i64::try_from(setting).unwrap_or(i64::MAX)
}
