//! A network that keeps a record of its datagrams: a capture file (pcap) for the usual tools, with IP and UDP headers
//! made up from what the sockets know.
//!
//! ```text
//! file header 24 bytes: magic 0xA1B23C4D (times in nanoseconds), version 2.4, longest packet, link type 101 (raw IP)
//! each packet 16 bytes: seconds, nanoseconds, length kept, length; then the packet: IP header, UDP header, datagram
//! ```
//!
//! For looking into things, not for production: every batch is written out before the driver goes on. A file that can
//! not be written any further is given up; the network goes on.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use fulmar::time::{Clock, NanoTime, SystemClock};

use super::batch::{SendBatch, SendOutcome};
use super::network::{IoError, Network, Registration, UdpSocket};
use super::receive::{ReceiveBatch, ReceiveOutcome};
use super::spec::SocketSpec;

const MAGIC: u32 = 0xA1B2_3C4D;
const LINK_TYPE_RAW_IP: u32 = 101;
/// Longest packet: IP and UDP header and the longest datagram.
const SNAP_LENGTH: u32 = 65_536 + 48;
const PROTOCOL_UDP: u8 = 17;
const HOPS: u8 = 64;
const UDP_HEADER_LENGTH: usize = 8;

/// A network whose datagrams are written to a file.
pub struct CaptureNetwork {
    inner: Arc<dyn Network>,
    capture: Arc<Mutex<Capture>>,
}

impl CaptureNetwork {
    /// Records what goes through `inner` in a new file at `path`; what was there is lost.
    ///
    /// # Errors
    /// What the system says about the file.
    pub fn create(inner: Arc<dyn Network>, path: &str) -> io::Result<Self> {
        Self::write_to(inner, Box::new(File::create(path)?))
    }

    /// Records what goes through `inner`.
    ///
    /// # Errors
    /// What `target` says.
    pub fn write_to(inner: Arc<dyn Network>, target: Box<dyn Write + Send>) -> io::Result<Self> {
        Ok(Self {
            inner,
            capture: Arc::new(Mutex::new(Capture::new(target)?)),
        })
    }
}

impl Network for CaptureNetwork {
    fn open(&self, spec: &SocketSpec) -> Result<Box<dyn UdpSocket>, IoError> {
        let inner = self.inner.open(spec)?;
        Ok(Box::new(CaptureSocket {
            hears_at: spec.join.map(|join| join.group.ip()),
            peer: spec.connect,
            inner,
            capture: Arc::clone(&self.capture),
        }))
    }
}

struct CaptureSocket {
    inner: Box<dyn UdpSocket>,
    capture: Arc<Mutex<Capture>>,
    peer: Option<SocketAddr>,
    /// The group, for a member of one.
    hears_at: Option<IpAddr>,
}

impl UdpSocket for CaptureSocket {
    fn local_address(&self) -> SocketAddr {
        self.inner.local_address()
    }

    fn send(&mut self, batch: &SendBatch<'_>) -> SendOutcome {
        let outcome = self.inner.send(batch);
        if outcome.datagrams > 0 {
            let local = self.inner.local_address();
            let mut capture = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
            let time = capture.time();
            let sent = batch.entries().iter().flat_map(|entry| entry.split());
            for datagram in sent.take(outcome.datagrams) {
                if let Some(to) = datagram.to.or(self.peer) {
                    capture.add(time, local, to, datagram.bytes.len(), |bytes| {
                        let _ = datagram.bytes.copy_to(0, bytes);
                    });
                }
            }
            capture.flush();
        }
        outcome
    }

    fn receive(&mut self, into: &mut ReceiveBatch) -> ReceiveOutcome {
        let outcome = self.inner.receive(into);
        if outcome.datagrams > 0 {
            let mut local = self.inner.local_address();
            if let Some(group) = self.hears_at {
                local.set_ip(group);
            }
            let mut capture = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
            let now = capture.time();
            for datagram in into.datagrams() {
                let time = datagram.timestamp.unwrap_or(now);
                capture.add(time, datagram.from, local, datagram.bytes.len(), |bytes| {
                    bytes.copy_from_slice(datagram.bytes);
                });
            }
            capture.flush();
        }
        outcome
    }

    fn reconnect(&mut self, to: SocketAddr) -> Result<(), IoError> {
        self.inner.reconnect(to)?;
        self.peer = Some(to);
        Ok(())
    }

    fn register(&mut self, waiter: &Registration) -> Result<(), IoError> {
        self.inner.register(waiter)
    }

    fn release(&mut self) {
        self.inner.release();
    }
}

/// The file.
pub(crate) struct Capture {
    /// `None` once it could not be written.
    target: Option<Box<dyn Write + Send>>,
    /// What was added since the last flush.
    buffer: Vec<u8>,
    /// Nanoseconds since 1970 at a time of the monotonic clock, which is the finer one.
    origin: (i64, NanoTime),
}

impl Capture {
    /// Begins a file.
    ///
    /// # Errors
    /// What `target` says.
    pub(crate) fn new(mut target: Box<dyn Write + Send>) -> io::Result<Self> {
        let mut header = Vec::with_capacity(24);
        header.extend(MAGIC.to_le_bytes());
        header.extend(2u16.to_le_bytes());
        header.extend(4u16.to_le_bytes());
        // Time zone and accuracy: nobody uses them.
        header.extend([0; 8]);
        header.extend(SNAP_LENGTH.to_le_bytes());
        header.extend(LINK_TYPE_RAW_IP.to_le_bytes());
        target.write_all(&header)?;
        target.flush()?;
        let now = SystemClock.now();
        Ok(Self {
            target: Some(target),
            buffer: Vec::new(),
            origin: (now.epoch.0.saturating_mul(1_000_000), now.nanos),
        })
    }

    /// Nanoseconds since 1970.
    fn time(&self) -> i64 {
        self.origin
            .0
            .saturating_add(SystemClock.nanos().since(self.origin.1))
    }

    /// Adds a datagram of `length` bytes, which `fill` writes. `time` is in nanoseconds since 1970.
    pub(crate) fn add(
        &mut self,
        time: i64,
        from: SocketAddr,
        to: SocketAddr,
        length: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        if self.target.is_none() {
            return;
        }
        let udp_length = UDP_HEADER_LENGTH + length;
        let (header, pseudo_sum) = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (ipv4_header(from, to, udp_length), None),
            (from, to) => {
                let (from, to) = (mapped(from), mapped(to));
                let sum = pseudo_header_sum(from, to, udp_length);
                (ipv6_header(from, to, udp_length), Some(sum))
            }
        };
        let packet_length = (header.len() + udp_length) as u32;
        let buffer = &mut self.buffer;
        buffer.extend((time.div_euclid(1_000_000_000) as u32).to_le_bytes());
        buffer.extend((time.rem_euclid(1_000_000_000) as u32).to_le_bytes());
        buffer.extend(packet_length.to_le_bytes());
        buffer.extend(packet_length.to_le_bytes());
        buffer.extend(header);
        let udp_at = buffer.len();
        buffer.extend(from.port().to_be_bytes());
        buffer.extend(to.port().to_be_bytes());
        buffer.extend((udp_length as u16).to_be_bytes());
        // No checksum; IPv6 has to have one.
        buffer.extend([0, 0]);
        let data_at = buffer.len();
        buffer.resize(data_at + length, 0);
        fill(buffer.get_mut(data_at..).unwrap_or_default());
        if let Some(sum) = pseudo_sum {
            let udp = buffer.get(udp_at..).unwrap_or_default();
            let checksum = match finish(add_words(sum, udp)) {
                // Zero would mean that there is none.
                0 => 0xFFFF,
                checksum => checksum,
            };
            if let Some(place) = buffer.get_mut(udp_at + 6..udp_at + 8) {
                place.copy_from_slice(&checksum.to_be_bytes());
            }
        }
    }

    /// Writes out what was added.
    pub(crate) fn flush(&mut self) {
        if let Some(target) = &mut self.target
            && target
                .write_all(&self.buffer)
                .and_then(|()| target.flush())
                .is_err()
        {
            eprintln!("fulmar driver: the capture file can not be written any further");
            self.target = None;
        }
        self.buffer.clear();
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn ipv4_header(from: Ipv4Addr, to: Ipv4Addr, udp_length: usize) -> Vec<u8> {
    let total = u16::try_from(udp_length + 20).unwrap_or(u16::MAX).to_be_bytes();
    let mut header = vec![
        0x45,
        0,
        total[0],
        total[1],
        0,
        0,
        0x40,
        0,
        HOPS,
        PROTOCOL_UDP,
        0,
        0,
    ];
    header.extend(from.octets());
    header.extend(to.octets());
    let checksum = finish(add_words(0, &header)).to_be_bytes();
    if let Some(place) = header.get_mut(10..12) {
        place.copy_from_slice(&checksum);
    }
    header
}

fn ipv6_header(from: Ipv6Addr, to: Ipv6Addr, udp_length: usize) -> Vec<u8> {
    let length = u16::try_from(udp_length).unwrap_or(u16::MAX).to_be_bytes();
    let mut header = vec![0x60, 0, 0, 0, length[0], length[1], PROTOCOL_UDP, HOPS];
    header.extend(from.octets());
    header.extend(to.octets());
    header
}

fn pseudo_header_sum(from: Ipv6Addr, to: Ipv6Addr, udp_length: usize) -> u64 {
    let sum = add_words(add_words(0, &from.octets()), &to.octets());
    sum + udp_length as u64 + u64::from(PROTOCOL_UDP)
}

/// The sum of RFC 1071, before the carries are folded in.
fn add_words(sum: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(2).fold(sum, |sum, pair| {
        let high = u64::from(pair.first().copied().unwrap_or(0)) << 8;
        sum + high + u64::from(pair.get(1).copied().unwrap_or(0))
    })
}

fn finish(mut sum: u64) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

/// A file in memory that whoever made it can read while something else writes to it.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct SharedFile(Arc<Mutex<Vec<u8>>>);

#[cfg(test)]
impl SharedFile {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

#[cfg(test)]
impl Write for SharedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fulmar::log::Payload;

    use super::super::batch::SendEntry;
    use super::super::conformance::{self, collect, pair};
    use super::super::system::SystemNetwork;
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// The packets of a capture file.
    fn packets(file: &[u8]) -> Vec<Vec<u8>> {
        assert_eq!(word(file, 0), MAGIC);
        assert_eq!(file[4..8], [2, 0, 4, 0]);
        assert_eq!(word(file, 20), LINK_TYPE_RAW_IP);
        let mut packets = Vec::new();
        let mut at = 24;
        while at < file.len() {
            assert!(word(file, at) > 1_600_000_000, "seconds since 1970");
            assert!(word(file, at + 4) < 1_000_000_000);
            let length = word(file, at + 8) as usize;
            assert_eq!(word(file, at + 12) as usize, length);
            packets.push(file[at + 16..at + 16 + length].to_vec());
            at += 16 + length;
        }
        packets
    }

    fn captured(ip: IpAddr) -> (Vec<Vec<u8>>, u16, u16) {
        let file = SharedFile::default();
        let network =
            CaptureNetwork::write_to(Arc::new(SystemNetwork::default()), Box::new(file.clone())).unwrap();
        let (mut sender, mut receiver) = pair(&network, ip);
        let to = Some(receiver.local_address());
        let bytes: Vec<u8> = (0..251).collect();
        let run = SendEntry::run(Payload::from_slice(&bytes), 100, to);
        assert_eq!(sender.send(&SendBatch::of(run)).datagrams, 3);
        collect(&mut *receiver, &mut ReceiveBatch::new(4), 3);
        let packets = packets(&file.bytes());
        let ports = (sender.local_address().port(), receiver.local_address().port());
        (packets, ports.0, ports.1)
    }

    #[test]
    fn what_was_sent_and_received_is_in_the_file_as_ipv4() {
        let (packets, from, to) = captured(Ipv4Addr::LOCALHOST.into());
        assert_eq!(packets.len(), 6, "three went out and three came in");
        let bytes: Vec<u8> = (0..251).collect();
        for (packet, datagram) in packets[..3].iter().zip(bytes.chunks(100)) {
            assert_eq!(packet[0], 0x45);
            assert_eq!(
                usize::from(u16::from_be_bytes([packet[2], packet[3]])),
                packet.len()
            );
            assert_eq!(packet[9], PROTOCOL_UDP);
            assert_eq!(finish(add_words(0, &packet[..20])), 0, "the checksum holds");
            assert_eq!(packet[16..20], [127, 0, 0, 1]);
            assert_eq!(packet[20..22], from.to_be_bytes());
            assert_eq!(packet[22..24], to.to_be_bytes());
            assert_eq!(packet[24..26], (datagram.len() as u16 + 8).to_be_bytes());
            assert_eq!(&packet[28..], datagram);
        }
        // The receiver knows where it was heard from.
        assert_eq!(packets[3][12..20], [127, 0, 0, 1, 127, 0, 0, 1]);
        assert_eq!(packets[3][28..], bytes[..100]);
    }

    #[test]
    fn what_was_sent_and_received_is_in_the_file_as_ipv6() {
        if SystemNetwork::default()
            .open(&conformance::local(Ipv6Addr::LOCALHOST.into()))
            .is_err()
        {
            eprintln!("skipped: this machine has no [::1]");
            return;
        }
        let (packets, from, to) = captured(Ipv6Addr::LOCALHOST.into());
        assert_eq!(packets.len(), 6);
        for packet in &packets {
            assert_eq!(packet[0], 0x60);
            assert_eq!(packet[6], PROTOCOL_UDP);
            let source = Ipv6Addr::from(<[u8; 16]>::try_from(&packet[8..24]).unwrap());
            let target = Ipv6Addr::from(<[u8; 16]>::try_from(&packet[24..40]).unwrap());
            assert_eq!(target, Ipv6Addr::LOCALHOST);
            let sum = pseudo_header_sum(source, target, packet.len() - 40);
            assert_eq!(finish(add_words(sum, &packet[40..])), 0, "the checksum holds");
            assert_eq!(packet[40..42], from.to_be_bytes());
            assert_eq!(packet[42..44], to.to_be_bytes());
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        // RFC 1071, section 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(finish(add_words(0, &bytes)), !0xddf2);
        assert_eq!(finish(add_words(0, &[0xff])), !0xff00);
    }

    #[test]
    fn a_captured_network_passes_the_conformance_suite_and_outlives_its_file() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if bytes.len() == 24 {
                    Ok(24)
                } else {
                    Err(io::ErrorKind::StorageFull.into())
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("capture.pcap");
        let network =
            CaptureNetwork::create(Arc::new(SystemNetwork::default()), path.to_str().unwrap()).unwrap();
        conformance::check(&network);
        assert!(packets(&std::fs::read(&path).unwrap()).len() > 100);
        let full = CaptureNetwork::write_to(Arc::new(SystemNetwork::default()), Box::new(Full)).unwrap();
        conformance::check(&full);
    }
}
