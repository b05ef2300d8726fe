//! How drivers tell each other their names (wire-protocol 6.8): each announces itself to those it knows and passes on
//! what it heard, so that a channel can name a driver instead of an address.
//!
//! A pure machine: datagrams and times come in, frames to send come out. Sockets and names of bootstrap neighbours are
//! somebody else's. All tables are bounded, because anybody can send to the port.
#![forbid(unsafe_code)]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::BTreeMap;

use fulmar::time::NanoTime;
use fulmar::wire::DATAGRAM_MAX_LENGTH;
use fulmar::wire::resolution::{Entry, EntryIter, encode};

/// Names remembered at most.
pub const CACHE_ENTRIES_MAX: usize = 4096;

/// Neighbours remembered at most; each one is sent a datagram a second.
pub const NEIGHBORS_MAX: usize = 512;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// What the machine goes by. Durations in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipSettings {
    /// Name of this driver.
    pub name: String,
    /// Where the resolver's socket is bound; the address may be the wildcard.
    pub bound: SocketAddr,
    /// Neighbours to start with, as `host:port`.
    pub bootstrap: Vec<String>,
    /// Longest frame, bytes.
    pub mtu_length: usize,
    /// How often this driver announces itself.
    pub self_interval_ns: i64,
    /// How often it passes on what it knows.
    pub gossip_interval_ns: i64,
    /// How long a silent neighbour and a name are remembered.
    pub timeout_ns: i64,
    /// How often bootstrap neighbours that are not heard of are looked up again.
    pub bootstrap_interval_ns: i64,
}

/// What a datagram was good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Entries that were taken up or refreshed.
    pub entries: usize,
    /// Whether the frame, or an entry of it, could not be read; what came after that was not looked at.
    pub is_malformed: bool,
}

/// A neighbour to start with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// As configured: `host:port`.
    pub text: String,
    /// Its address, once looked up.
    pub address: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug)]
struct Cached {
    address: IpAddr,
    port: u16,
    last_activity: NanoTime,
}

#[derive(Clone, Copy, Debug)]
struct Neighbor {
    /// When it was last heard of.
    last_activity: NanoTime,
    /// Whether a datagram came from its address. What others say of it is enough to announce ourselves, which is short;
    /// the whole cache goes only to those that are there, or a few made-up entries would aim it at anybody.
    has_spoken: bool,
}

/// The families of addresses are separate entries of the cache, IPv4 first.
type CacheKey = (Vec<u8>, bool);

/// The state of name resolution between drivers.
#[derive(Debug)]
pub struct Gossip {
    settings: GossipSettings,
    cache: BTreeMap<CacheKey, Cached>,
    neighbors: BTreeMap<SocketAddr, Neighbor>,
    bootstraps: Vec<Bootstrap>,
    next_self: NanoTime,
    next_gossip: NanoTime,
    next_bootstrap: NanoTime,
    next_expiry: NanoTime,
    frame: Vec<u8>,
}

impl Gossip {
    /// A machine that knows nobody yet. It asks for its bootstrap neighbours and announces itself at once.
    #[must_use]
    pub fn new(settings: GossipSettings, now: NanoTime) -> Self {
        let bootstrap = |text: &String| Bootstrap {
            text: text.clone(),
            address: None,
        };
        Self {
            cache: BTreeMap::new(),
            neighbors: BTreeMap::new(),
            bootstraps: settings.bootstrap.iter().map(bootstrap).collect(),
            next_self: now,
            next_gossip: now.plus_nanos(settings.gossip_interval_ns),
            next_bootstrap: now,
            next_expiry: NanoTime::never_after(now),
            frame: vec![0; settings.mtu_length.min(DATAGRAM_MAX_LENGTH)],
            settings,
        }
    }

    /// Takes up a datagram from `from`.
    pub fn on_datagram(&mut self, now: NanoTime, datagram: &[u8], from: SocketAddr) -> Heard {
        let mut heard = Heard::default();
        let Ok(entries) = EntryIter::parse(datagram) else {
            heard.is_malformed = true;
            return heard;
        };
        for entry in entries {
            match entry {
                Ok(entry) => heard.entries += usize::from(self.on_entry(now, &entry, from)),
                Err(_) => heard.is_malformed = true,
            }
        }
        heard
    }

    fn on_entry(&mut self, now: NanoTime, entry: &Entry<'_>, from: SocketAddr) -> bool {
        if entry.name == self.settings.name.as_bytes() && entry.port == self.settings.bound.port() {
            return false;
        }
        // A driver bound to every address does not know which one it is reached by; its datagram tells.
        let at = if entry.is_self && entry.address.is_unspecified() {
            SocketAddr::new(from.ip().to_canonical(), from.port())
        } else {
            SocketAddr::new(entry.address, entry.port)
        };
        let age_ns = i64::from(entry.age_ms.max(0)) * NANOS_PER_MILLI;
        if !is_usable(at) || age_ns >= self.settings.timeout_ns {
            return false;
        }
        let last_activity = now.plus_nanos(-age_ns);
        let is_taken = self.remember(entry.name, at, last_activity);
        self.meet(
            at,
            last_activity,
            entry.is_self,
            entry.is_self && is_same(from, at),
        );
        let deadline = last_activity.plus_nanos(self.settings.timeout_ns);
        self.next_expiry = self.next_expiry.earlier(deadline);
        is_taken
    }

    /// Older news than what is known is no news: it travels the long way round.
    fn remember(&mut self, name: &[u8], at: SocketAddr, last_activity: NanoTime) -> bool {
        let is_full = self.cache.len() >= CACHE_ENTRIES_MAX;
        let news = Cached {
            address: at.ip(),
            port: at.port(),
            last_activity,
        };
        match self.cache.get_mut(&(name.to_owned(), at.is_ipv6())) {
            Some(known) if known.last_activity.since(last_activity) > 0 => false,
            Some(known) => {
                *known = news;
                true
            }
            None if is_full => false,
            None => {
                self.cache.insert((name.to_owned(), at.is_ipv6()), news);
                true
            }
        }
    }

    fn meet(&mut self, at: SocketAddr, last_activity: NanoTime, is_self: bool, has_spoken: bool) {
        let is_full = self.neighbors.len() >= NEIGHBORS_MAX;
        match self.neighbors.get_mut(&at) {
            // Only its own word says that a neighbour lives.
            Some(known) if is_self => {
                known.last_activity = last_activity;
                known.has_spoken |= has_spoken;
            }
            Some(_) => {}
            None if is_full => {}
            None => {
                let neighbor = Neighbor {
                    last_activity,
                    has_spoken,
                };
                self.neighbors.insert(at, neighbor);
            }
        }
    }

    /// Does what is due; frames to be sent go to `transmit`. Answers whether something was done.
    pub fn on_timer(&mut self, now: NanoTime, transmit: &mut dyn FnMut(&[u8], SocketAddr)) -> bool {
        let mut is_busy = false;
        if self.next_expiry.is_due(now) {
            self.expire(now);
            is_busy = true;
        }
        if self.next_self.is_due(now) {
            self.next_self = now.plus_nanos(self.settings.self_interval_ns);
            self.announce(transmit);
            is_busy = true;
        }
        if self.next_gossip.is_due(now) {
            self.next_gossip = now.plus_nanos(self.settings.gossip_interval_ns);
            self.pass_on(now, transmit);
            is_busy = true;
        }
        is_busy
    }

    fn expire(&mut self, now: NanoTime) {
        let timeout_ns = self.settings.timeout_ns;
        let lives = |last_activity: NanoTime| !last_activity.plus_nanos(timeout_ns).is_due(now);
        self.cache.retain(|_, cached| lives(cached.last_activity));
        self.neighbors.retain(|_, neighbor| lives(neighbor.last_activity));
        let cached = self.cache.values().map(|cached| cached.last_activity);
        let neighbors = self.neighbors.values().map(|neighbor| neighbor.last_activity);
        let oldest = cached.chain(neighbors).reduce(NanoTime::earlier);
        self.next_expiry = match oldest {
            Some(oldest) => oldest.plus_nanos(timeout_ns),
            None => NanoTime::never_after(now),
        };
    }

    fn announce(&mut self, transmit: &mut dyn FnMut(&[u8], SocketAddr)) {
        let own = Entry {
            is_self: true,
            port: self.settings.bound.port(),
            age_ms: 0,
            address: self.settings.bound.ip(),
            name: self.settings.name.as_bytes(),
        };
        let length = encode([own], &mut self.frame).length;
        let Some(frame) = self.frame.get(..length).filter(|frame| !frame.is_empty()) else {
            return;
        };
        let bootstraps = self.bootstraps.iter().filter_map(|bootstrap| bootstrap.address);
        for to in bootstraps.clone() {
            transmit(frame, to);
        }
        for to in self.neighbors.keys() {
            if !bootstraps.clone().any(|bootstrap| bootstrap == *to) {
                transmit(frame, *to);
            }
        }
    }

    fn pass_on(&mut self, now: NanoTime, transmit: &mut dyn FnMut(&[u8], SocketAddr)) {
        let age_ms = |cached: &Cached| now.since(cached.last_activity) / NANOS_PER_MILLI;
        let entries = self.cache.iter().map(|((name, _), cached)| Entry {
            is_self: false,
            port: cached.port,
            age_ms: i32::try_from(age_ms(cached)).unwrap_or(i32::MAX),
            address: cached.address,
            name,
        });
        let entries: Vec<Entry<'_>> = entries.collect();
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let written = encode(rest.iter().copied(), &mut self.frame);
            // An entry that fits no frame of this MTU at all is left out.
            rest = rest.get(written.entries.max(1)..).unwrap_or_default();
            let Some(frame) = self.frame.get(..written.length).filter(|frame| !frame.is_empty()) else {
                continue;
            };
            for (to, _) in self.neighbors.iter().filter(|(_, neighbor)| neighbor.has_spoken) {
                transmit(frame, *to);
            }
        }
    }

    /// The bootstrap neighbours to be looked up now: those that are not among the neighbours. Each is answered with
    /// [`on_bootstrap`](Self::on_bootstrap).
    pub fn poll_bootstraps(&mut self, now: NanoTime) -> Vec<usize> {
        if self.bootstraps.is_empty() || !self.next_bootstrap.is_due(now) {
            return Vec::new();
        }
        self.next_bootstrap = now.plus_nanos(self.settings.bootstrap_interval_ns);
        let is_near = |bootstrap: &Bootstrap| {
            let address = bootstrap.address;
            address.is_some_and(|address| self.neighbors.contains_key(&address))
        };
        let all = self.bootstraps.iter().enumerate();
        all.filter(|(_, bootstrap)| !is_near(bootstrap))
            .map(|(index, _)| index)
            .collect()
    }

    /// The address of a bootstrap neighbour; it is announced to at once if it is a new one. Answers whether it is.
    pub fn on_bootstrap(&mut self, now: NanoTime, index: usize, address: SocketAddr) -> bool {
        let Some(bootstrap) = self.bootstraps.get_mut(index) else {
            return false;
        };
        if !is_usable(address) || bootstrap.address == Some(address) {
            return false;
        }
        bootstrap.address = Some(address);
        self.next_self = now;
        true
    }

    /// The address of a driver, by its name; IPv4 or IPv6 as preferred, or the other one.
    #[must_use]
    pub fn look_up(&self, name: &str, prefer_v6: bool) -> Option<IpAddr> {
        if name == self.settings.name {
            return Some(self.own_address());
        }
        let of = |is_v6| self.cache.get(&(name.as_bytes().to_owned(), is_v6));
        let found = of(prefer_v6).or_else(|| of(!prefer_v6));
        found.map(|cached| cached.address)
    }

    /// Bound to every address, this machine reaches itself by loopback.
    fn own_address(&self) -> IpAddr {
        match self.settings.bound.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            bound => bound,
        }
    }

    /// Neighbours known.
    #[must_use]
    pub fn neighbor_count(&self) -> usize {
        self.neighbors.len()
    }

    /// Names known.
    #[must_use]
    pub fn cache_count(&self) -> usize {
        self.cache.len()
    }

    /// The neighbours to start with.
    #[must_use]
    pub fn bootstraps(&self) -> &[Bootstrap] {
        &self.bootstraps
    }

    /// When something is due next, apart from datagrams.
    #[must_use]
    pub fn next_deadline(&self) -> NanoTime {
        let deadline = self.next_self.earlier(self.next_gossip).earlier(self.next_expiry);
        if self.bootstraps.is_empty() {
            deadline
        } else {
            deadline.earlier(self.next_bootstrap)
        }
    }
}

fn is_same(from: SocketAddr, at: SocketAddr) -> bool {
    from.ip().to_canonical() == at.ip() && from.port() == at.port()
}

/// Whether something can be sent there: hostile gossip must not make this driver send to a whole network.
fn is_usable(at: SocketAddr) -> bool {
    let is_broadcast = matches!(at.ip(), IpAddr::V4(ip) if ip.is_broadcast());
    at.port() != 0 && !at.ip().is_unspecified() && !at.ip().is_multicast() && !is_broadcast
}

#[cfg(test)]
mod tests;
