//! The socket of the name resolution between drivers, and its pace: [`Gossip`] decides, this moves datagrams. It runs on
//! the resource agent, where names are looked up.
#![forbid(unsafe_code)]

use core::net::{IpAddr, SocketAddr};

use fulmar::log::Payload;
use fulmar::time::NanoTime;
use thiserror::Error;

use super::interface::{Family, InterfaceParam, find_by_name, find_by_prefix};
use super::resolver::{NameFault, NameRequest, NameResolver, NameUse};
use super::udp_channel::HostPort;
use crate::commands::NameResolutionEvent;
use crate::config::DriverContext;
use crate::io::{
    InterfaceList, IoError, Network, ReceiveBatch, SendBatch, SendEntry, SocketRole, SocketSpec, UdpSocket,
};
use crate::protocol::gossip::{Gossip, GossipSettings};

/// How often the socket and the timers are looked at (wire-protocol 6.8), nanoseconds.
pub const WORK_INTERVAL_NS: i64 = 10_000_000;

/// Datagrams of one receive call.
const BATCH: usize = 4;

/// Receive calls of one turn at most, so that a flood does not keep the resource agent from its other work.
const RECEIVES_MAX: usize = 16;

/// Why the name resolution between drivers can not start.
#[derive(Debug, Error)]
pub enum GossipError {
    /// The setting does not parse.
    #[error("aeron.driver.resolver.interface={0}: must be address:port[/prefix] or {{name}}:port")]
    Interface(String),
    /// The setting names a host without address.
    #[error("aeron.driver.resolver.interface={interface}: {fault}")]
    Host {
        /// The setting.
        interface: String,
        /// What the look-up says.
        fault: NameFault,
    },
    /// No interface is as the setting says.
    #[error("aeron.driver.resolver.interface={0}: no network interface matches")]
    NoInterface(String),
    /// A bootstrap neighbour does not parse.
    #[error("aeron.driver.resolver.bootstrap.neighbor: {0} is not host:port")]
    Bootstrap(String),
    /// The interfaces can not be listed.
    #[error("the network interfaces can not be listed: {0}")]
    Interfaces(#[from] std::io::Error),
    /// There is no socket.
    #[error("the resolver's socket: {0}")]
    Socket(#[from] IoError),
}

/// Name resolution between drivers on a socket.
pub struct GossipResolver {
    gossip: Gossip,
    socket: Box<dyn UdpSocket>,
    received: ReceiveBatch,
    bootstraps: Vec<HostPort>,
    next_work: NanoTime,
    /// Neighbours and names as last reported.
    counts: (usize, usize),
    events: Vec<NameResolutionEvent>,
}

impl GossipResolver {
    /// Opens the socket of the settings `aeron.driver.resolver.*`. May wait for a look-up of the interface's name.
    ///
    /// # Errors
    /// [`GossipError`]: without its socket the driver would not be known by its name.
    pub fn open(
        context: &DriverContext,
        network: &dyn Network,
        resolver: &dyn NameResolver,
        interfaces: &dyn InterfaceList,
        now: NanoTime,
    ) -> Result<Self, GossipError> {
        let bootstraps = bootstraps(&context.driver_resolver_bootstrap_neighbor)?;
        let bind = bind_address(&context.driver_resolver_interface, resolver, interfaces)?;
        let socket = network.open(&SocketSpec::new(SocketRole::Receive, bind))?;
        let bound = socket.local_address();
        let settings = GossipSettings {
            name: context.driver_resolver_name.clone(),
            bound,
            bootstrap: bootstraps.iter().map(|at| at.text.clone()).collect(),
            mtu_length: usize::try_from(context.mtu_length).unwrap_or_default(),
            self_interval_ns: context.driver_resolver_self_resolution_interval_ns,
            gossip_interval_ns: context.driver_resolver_neighbor_resolution_interval_ns,
            timeout_ns: context.driver_resolver_neighbor_timeout_ns,
            bootstrap_interval_ns: context.driver_resolver_bootstrap_neighbor_resolution_interval_ns,
        };
        let started = NameResolutionEvent::Started {
            bound,
            name: settings.name.clone(),
        };
        Ok(Self {
            gossip: Gossip::new(settings, now),
            socket,
            received: ReceiveBatch::new(BATCH),
            bootstraps,
            next_work: now,
            counts: (0, 0),
            events: vec![started],
        })
    }

    /// Takes in what was received and sends what is due. Answers whether there was anything.
    pub fn do_work(&mut self, now: NanoTime) -> bool {
        self.next_work = now.plus_nanos(WORK_INTERVAL_NS);
        let mut is_busy = self.receive(now);
        let socket = &mut self.socket;
        is_busy |= self.gossip.on_timer(now, &mut |frame, to| {
            let entry = SendEntry::datagram(Payload::from_slice(frame), Some(to));
            // A neighbour that can not be reached is forgotten by its silence; the next frame is sent all the same.
            socket.send(&SendBatch::of(entry));
        });
        let counts = (self.gossip.neighbor_count(), self.gossip.cache_count());
        if self.counts != counts {
            self.counts = counts;
            let (neighbors, names) = counts;
            self.events.push(NameResolutionEvent::Counts { neighbors, names });
        }
        is_busy
    }

    fn receive(&mut self, now: NanoTime) -> bool {
        let (mut is_busy, mut invalid) = (false, 0);
        for _ in 0..RECEIVES_MAX {
            self.socket.receive(&mut self.received);
            if self.received.is_empty() {
                break;
            }
            is_busy = true;
            for datagram in self.received.datagrams() {
                let heard = self.gossip.on_datagram(now, datagram.bytes, datagram.from);
                invalid += usize::from(heard.is_malformed);
            }
        }
        if invalid > 0 {
            self.events
                .push(NameResolutionEvent::InvalidPackets { count: invalid });
        }
        is_busy
    }

    /// The bootstrap neighbours to be looked up now; each is answered with [`on_bootstrap`](Self::on_bootstrap).
    pub fn poll_bootstraps(&mut self, now: NanoTime) -> Vec<(usize, HostPort)> {
        let due = self.gossip.poll_bootstraps(now).into_iter();
        due.filter_map(|index| Some((index, self.bootstraps.get(index)?.clone())))
            .collect()
    }

    /// The address of a bootstrap neighbour.
    pub fn on_bootstrap(&mut self, now: NanoTime, index: usize, address: SocketAddr) {
        if !self.gossip.on_bootstrap(now, index, address) {
            return;
        }
        self.next_work = now;
        if let Some(at) = self.bootstraps.get(index) {
            self.events.push(NameResolutionEvent::Bootstrap {
                index,
                name: at.text.clone(),
                address,
            });
        }
    }

    /// What others are to know.
    pub fn take_events(&mut self) -> Vec<NameResolutionEvent> {
        core::mem::take(&mut self.events)
    }

    /// The address of a driver by its name.
    #[must_use]
    pub fn look_up(&self, request: &NameRequest) -> Option<IpAddr> {
        let is_channel = matches!(request.used_as, NameUse::Endpoint | NameUse::Control);
        let prefer_v6 = request.family == Family::V6;
        is_channel.then(|| self.gossip.look_up(&request.host, prefer_v6))?
    }

    /// When it wants to be driven again.
    #[must_use]
    pub fn next_deadline(&self) -> NanoTime {
        self.next_work
    }
}

fn bootstraps(setting: &str) -> Result<Vec<HostPort>, GossipError> {
    let parts = setting.split(',').map(str::trim).filter(|part| !part.is_empty());
    let parse = |part: &str| {
        let at = HostPort::parse(part).filter(|at| at.port != 0);
        at.ok_or_else(|| GossipError::Bootstrap(part.to_owned()))
    };
    parts.map(parse).collect()
}

fn bind_address(
    setting: &str,
    resolver: &dyn NameResolver,
    interfaces: &dyn InterfaceList,
) -> Result<SocketAddr, GossipError> {
    let param = InterfaceParam::parse(setting).ok_or_else(|| GossipError::Interface(setting.to_owned()))?;
    let none = || GossipError::NoInterface(setting.to_owned());
    let address = match &param {
        InterfaceParam::Named { name, .. } => {
            let list = interfaces.interfaces()?;
            find_by_name(&list, name, Family::V4)
                .or_else(|| find_by_name(&list, name, Family::V6))
                .ok_or_else(none)?
                .address
        }
        InterfaceParam::Address {
            host, prefix_length, ..
        } => {
            let address = host_address(host, resolver).map_err(|fault| GossipError::Host {
                interface: setting.to_owned(),
                fault,
            })?;
            match prefix_length {
                // The socket says itself whether the address is one of this machine.
                None => address,
                Some(_) if address.is_unspecified() => address,
                Some(length) => {
                    find_by_prefix(&interfaces.interfaces()?, address, *length, false)
                        .ok_or_else(none)?
                        .address
                }
            }
        }
    };
    Ok(SocketAddr::new(address, param.port()))
}

fn host_address(host: &str, resolver: &dyn NameResolver) -> Result<IpAddr, NameFault> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    resolver.look_up(&NameRequest {
        host: host.to_owned(),
        used_as: NameUse::Interface,
        family: Family::V4,
        is_re_resolution: false,
    })
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::config::DriverSettings;
    use crate::io::{NetworkInterface, SystemNetwork};
    use crate::media::resolver::SystemResolver;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn interfaces() -> Vec<NetworkInterface> {
        vec![NetworkInterface {
            name: "lo".to_owned(),
            index: 1,
            address: LOCALHOST,
            prefix_length: 8,
            is_up: true,
            is_loopback: true,
            is_multicast: false,
        }]
    }

    fn open(name: &str, interface: &str, bootstrap: &str) -> Result<GossipResolver, GossipError> {
        let mut settings = DriverSettings::defaults();
        for (key, value) in [
            ("aeron.name.resolver.supplier", "driver"),
            ("aeron.driver.resolver.name", name),
            ("aeron.driver.resolver.interface", interface),
            ("aeron.driver.resolver.bootstrap.neighbor", bootstrap),
        ] {
            settings.set(key, value).unwrap();
        }
        let context = settings.conclude().unwrap();
        GossipResolver::open(
            &context,
            &SystemNetwork::default(),
            &SystemResolver,
            &interfaces(),
            NanoTime(0),
        )
    }

    fn bound(resolver: &mut GossipResolver) -> SocketAddr {
        match resolver.take_events().as_slice() {
            [NameResolutionEvent::Started { bound, .. }] => *bound,
            other => panic!("{other:?}"),
        }
    }

    fn request(host: &str, used_as: NameUse) -> NameRequest {
        NameRequest {
            host: host.to_owned(),
            used_as,
            family: Family::V4,
            is_re_resolution: false,
        }
    }

    /// The host part of a bootstrap neighbour of a test is the loopback.
    fn drive(resolvers: &mut [GossipResolver], now: NanoTime) -> Vec<Vec<NameResolutionEvent>> {
        let drive = |resolver: &mut GossipResolver| {
            resolver.do_work(now);
            for (index, at) in resolver.poll_bootstraps(now) {
                resolver.on_bootstrap(now, index, SocketAddr::new(LOCALHOST, at.port));
            }
            resolver.take_events()
        };
        resolvers.iter_mut().map(drive).collect()
    }

    #[test]
    fn two_drivers_learn_each_others_names_over_sockets_and_forget_them() {
        let mut first = open("first", "127.0.0.1:0", "").unwrap();
        let at = bound(&mut first);
        let mut second = open("second", "localhost:0", &format!("localhost:{}", at.port())).unwrap();
        assert_eq!(bound(&mut second).ip(), LOCALHOST);
        let mut both = [first, second];
        let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
        // Datagrams over loopback are there when the call that sent them returns.
        for turn in 0..300 {
            let events = drive(&mut both, NanoTime(turn * WORK_INTERVAL_NS));
            of_first.extend(events[0].clone());
            of_second.extend(events[1].clone());
        }
        let counts = NameResolutionEvent::Counts {
            neighbors: 1,
            names: 1,
        };
        assert_eq!(of_first, core::slice::from_ref(&counts));
        let bootstrap = NameResolutionEvent::Bootstrap {
            index: 0,
            name: format!("localhost:{}", at.port()),
            address: at,
        };
        assert_eq!(of_second, [bootstrap, counts]);
        let [mut first, second] = both;
        for used_as in [NameUse::Endpoint, NameUse::Control] {
            assert_eq!(first.look_up(&request("second", used_as)), Some(LOCALHOST));
            assert_eq!(second.look_up(&request("first", used_as)), Some(LOCALHOST));
            assert_eq!(first.look_up(&request("first", used_as)), Some(LOCALHOST));
        }
        assert_eq!(first.look_up(&request("second", NameUse::Interface)), None);
        drop(second);
        first.do_work(NanoTime(13_100_000_000));
        assert_eq!(first.look_up(&request("second", NameUse::Endpoint)), None);
        let gone = NameResolutionEvent::Counts {
            neighbors: 0,
            names: 0,
        };
        assert_eq!(first.take_events(), [gone]);
    }

    #[test]
    fn what_can_not_be_read_is_counted() {
        let mut resolver = open("first", "127.0.0.1:0", "").unwrap();
        let at = bound(&mut resolver);
        let mut stranger = SystemNetwork::default().open(&SocketSpec::sender_to(at)).unwrap();
        for frame in [&[0_u8; 3][..], &[0xff; 40]] {
            let entry = SendEntry::datagram(Payload::from_slice(frame), Some(at));
            assert_eq!(stranger.send(&SendBatch::of(entry)).datagrams, 1);
        }
        assert!(resolver.do_work(NanoTime(0)));
        let invalid = NameResolutionEvent::InvalidPackets { count: 2 };
        assert_eq!(resolver.take_events(), [invalid]);
        assert_eq!(resolver.next_deadline(), NanoTime(WORK_INTERVAL_NS));
    }

    #[test]
    fn the_interface_is_found_like_that_of_a_channel() {
        for (interface, address) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("127.9.9.9:0/8", "127.0.0.1"),
            ("{lo}:0", "127.0.0.1"),
            ("localhost", "127.0.0.1"),
            ("0.0.0.0:0", "0.0.0.0"),
            ("0.0.0.0:0/0", "0.0.0.0"),
        ] {
            let mut resolver = open("first", interface, "").unwrap();
            assert_eq!(bound(&mut resolver).ip().to_string(), address, "{interface}");
        }
        for (interface, bootstrap, names) in [
            ("10.99.0.1:0/24", "", "10.99.0.1:0/24"),
            ("{nosuch}:0", "", "{nosuch}"),
            ("127.0.0.1:x", "", "127.0.0.1:x"),
            ("no..such:1", "", "no..such:1"),
            ("127.0.0.1:0", "neighbour", "neighbour"),
            ("127.0.0.1:0", "a:1,b:0", "b:0"),
        ] {
            let error = open("first", interface, bootstrap).err().unwrap().to_string();
            assert!(error.contains(names), "{error}");
        }
        let taken = bound(&mut open("first", "127.0.0.1:0", "").unwrap());
        drop(
            SystemNetwork::default()
                .open(&SocketSpec::new(SocketRole::Receive, taken))
                .unwrap(),
        );
        let _holder = SystemNetwork::default()
            .open(&SocketSpec::new(SocketRole::Receive, taken))
            .unwrap();
        let error = open("first", &taken.to_string(), "").err().unwrap();
        assert!(matches!(error, GossipError::Socket(_)), "{error}");
    }
}
