//! A wire in user space between two hosts: packets that the kernel hands to one TUN device come out of the other one
//! lost, doubled, delayed or out of order, from a seed. For kernels without NETEM.
//!
//! What happens to a packet is decided by [`Impairment`], which knows no device and no clock.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fulmar::sync::{AtomicBool, Ordering};
use fulmar::time::{NanoTime, SystemClock};

use crate::network::{Host, Namespace};

/// What a wire does to the packets of one direction. Shares are in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Share of packets that begin a burst of loss (Gilbert and Elliott's model), and the mean length of a burst.
    pub(crate) loss: u32,
    pub(crate) burst: u32,
    /// Share of packets that arrive twice.
    pub(crate) duplicates: u32,
    /// Share of packets that are held back by up to `hold`, so that later ones overtake them.
    pub(crate) reorder: u32,
    pub(crate) hold: Duration,
    /// Delay of every packet.
    pub(crate) delay: Duration,
}

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) packets: u64,
    pub(crate) lost: u64,
    /// Bytes of UDP payload that were lost.
    pub(crate) lost_bytes: u64,
    pub(crate) doubled: u64,
    pub(crate) overtaken: u64,
}

/// Decides, from a seed.
pub(crate) struct Impairment {
    faults: Faults,
    state: u64,
    burst_left: u32,
    pub(crate) tally: Tally,
}

impl Impairment {
    pub(crate) fn new(faults: Faults, seed: u64) -> Impairment {
        Impairment {
            faults,
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            burst_left: 0,
            tally: Tally::default(),
        }
    }

    /// How long each copy of a packet is held back: none if it is lost, two if it is doubled.
    pub(crate) fn decide(&mut self, length: usize) -> [Option<Duration>; 2] {
        self.tally.packets += 1;
        if self.is_lost() {
            self.tally.lost += 1;
            self.tally.lost_bytes += length as u64;
            return [None, None];
        }
        let mut held = self.faults.delay;
        if self.chance(self.faults.reorder) {
            self.tally.overtaken += 1;
            held += self.faults.hold.mul_f64(f64::from(self.random(1000)) / 1000.0);
        }
        let again = self.chance(self.faults.duplicates).then(|| {
            self.tally.doubled += 1;
            held + self.faults.hold.mul_f64(f64::from(self.random(1000)) / 1000.0)
        });
        [Some(held), again]
    }

    fn is_lost(&mut self) -> bool {
        if self.burst_left > 0 {
            self.burst_left -= 1;
            return true;
        }
        if !self.chance(self.faults.loss) {
            return false;
        }
        // Uniform with the wanted mean; the first packet of the burst is this one.
        self.burst_left = self.random(2 * self.faults.burst.max(1) - 1);
        true
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.random(1000) < thousandths
    }

    /// A number below `bound`, or 0.
    fn random(&mut self, bound: u32) -> u32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        u32::try_from((self.state >> 32) % u64::from(bound.max(1))).expect("smaller than the bound")
    }
}

/// Most packets on the wire in one direction; more are lost, as in any queue.
const QUEUE_MAX: usize = 4096;
/// Packets between two looks at what is due.
const BATCH: usize = 64;
/// Bytes of the IPv4 and UDP headers.
const HEADERS: usize = 28;
const UDP: u8 = 17;

/// Two hosts and the wire between them. The wire goes on until it is dropped.
pub(crate) struct Wire {
    stop: Arc<AtomicBool>,
    tallies: Arc<Mutex<[Tally; 2]>>,
    thread: Option<JoinHandle<()>>,
}

/// Makes two hosts, 10.78.0.1 and 10.78.0.2, and a wire with these faults from the first to the second and back.
pub(crate) fn hosts_on_a_wire(there: Faults, back: Faults, seed: u64) -> (Host, Host, Wire) {
    let (near, near_end) = host("10.78.0.1");
    let (far, far_end) = host("10.78.0.2");
    let stop = Arc::new(AtomicBool::new(false));
    let tallies = Arc::new(Mutex::new([Tally::default(); 2]));
    let (ends, counts) = (Arc::clone(&stop), Arc::clone(&tallies));
    let mut directions = [
        Direction::new(Impairment::new(there, seed)),
        Direction::new(Impairment::new(back, seed ^ 0xffff)),
    ];
    #[expect(clippy::disallowed_methods, reason = "the wire runs beside the test")]
    let thread = std::thread::spawn(move || {
        let devices = [near_end, far_end];
        while !ends.load(Ordering::Acquire) {
            carry(&devices, &mut directions);
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            *counts = [directions[0].impairment.tally, directions[1].impairment.tally];
        }
    });
    let wire = Wire {
        stop,
        tallies,
        thread: Some(thread),
    };
    (near, far, wire)
}

impl Wire {
    /// What became of the packets there and back.
    pub(crate) fn tallies(&self) -> [Tally; 2] {
        *self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A host whose link is a TUN device, and the other end of that link.
fn host(address: &str) -> (Host, File) {
    let namespace = Namespace::new();
    let device = open_tun(&namespace);
    namespace.ip(&format!("addr add {address}/24 dev eth0"));
    namespace.ip("link set eth0 mtu 1500 up");
    let host = Host {
        namespace,
        address: address.to_owned(),
    };
    (host, device)
}

/// Opens a TUN device inside a namespace.
fn open_tun(namespace: &Namespace) -> File {
    let name = namespace.file();
    // The namespace is one of the thread, so a thread that ends right after this enters it.
    std::thread::scope(|scope| {
        let opened = scope.spawn(|| {
            // SAFETY: the descriptor is open for as long as `name` is borrowed.
            let entered = unsafe { libc::setns(name.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
            let device = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open("/dev/net/tun")
                .expect("a kernel with TUN devices");
            // SAFETY: all zeros is a value of this plain C structure.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (into, byte) in request.ifr_name.iter_mut().zip(b"eth0") {
                *into = libc::c_char::try_from(*byte).expect("ASCII");
            }
            let flags = libc::IFF_TUN | libc::IFF_NO_PI;
            request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).expect("fits");
            // SAFETY: the kernel reads and writes one `ifreq`, which is exclusively borrowed.
            let made = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
            assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
            device
        });
        opened.join().expect("the device is made")
    })
}

/// One direction: what is on the wire, in the order in which it arrives.
struct Direction {
    impairment: Impairment,
    /// By arrival in nanoseconds of the clock, and number.
    on_the_wire: BTreeMap<(i64, u64), Vec<u8>>,
    next: u64,
}

impl Direction {
    fn new(impairment: Impairment) -> Direction {
        Direction {
            impairment,
            on_the_wire: BTreeMap::new(),
            next: 0,
        }
    }

    fn take(&mut self, now: NanoTime, packet: &[u8]) {
        let is_udp = packet.len() > HEADERS && packet[0] >> 4 == 4 && packet[9] == UDP;
        let held = if is_udp {
            self.impairment.decide(packet.len() - HEADERS)
        } else {
            [Some(Duration::ZERO), None]
        };
        for held in held.into_iter().flatten() {
            if self.on_the_wire.len() == QUEUE_MAX {
                self.impairment.tally.lost += 1;
                self.impairment.tally.lost_bytes += packet.len().saturating_sub(HEADERS) as u64;
                continue;
            }
            self.next += 1;
            self.on_the_wire
                .insert(((now + held).0, self.next), packet.to_vec());
        }
    }

    /// Hands out what has arrived; when the next packet arrives.
    fn deliver(&mut self, now: NanoTime, mut to: &File) -> Option<NanoTime> {
        while let Some(entry) = self.on_the_wire.first_entry() {
            let due = NanoTime(entry.key().0);
            if !due.is_due(now) {
                return Some(due);
            }
            // A host that is going away takes nothing any more.
            let _ = to.write(&entry.remove());
        }
        None
    }
}

/// Moves what is there, then waits for more, at most until the next packet is due.
fn carry(devices: &[File; 2], directions: &mut [Direction; 2]) {
    let mut packet = [0; 2048];
    let mut next = None;
    let mut moved = false;
    for from in 0..2 {
        for _ in 0..BATCH {
            let Ok(length) = (&devices[from]).read(&mut packet) else {
                break;
            };
            moved = true;
            directions[from].take(SystemClock.nanos(), &packet[..length]);
        }
        let due = directions[from].deliver(SystemClock.nanos(), &devices[1 - from]);
        next = [next, due]
            .into_iter()
            .flatten()
            .min_by_key(|time: &NanoTime| time.0);
    }
    if !moved {
        wait(devices, next);
    }
}

fn wait(devices: &[File; 2], until: Option<NanoTime>) {
    const LONGEST: i64 = 20_000_000;
    let nanos = until.map_or(LONGEST, |until| {
        until.since(SystemClock.nanos()).clamp(0, LONGEST)
    });
    let timeout = libc::timespec {
        tv_sec: 0,
        tv_nsec: nanos,
    };
    let mut polled = devices.each_ref().map(|device| libc::pollfd {
        fd: device.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: two valid entries and a time, all exclusively borrowed or constant; no signal mask.
    unsafe { libc::ppoll(polled.as_mut_ptr(), 2, &raw const timeout, std::ptr::null()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_the_wanted_shares_and_repeat_from_the_seed() {
        let faults = Faults {
            loss: 20,
            burst: 5,
            duplicates: 50,
            reorder: 100,
            hold: Duration::from_millis(2),
            delay: Duration::from_millis(1),
        };
        let run = |seed| {
            let mut impairment = Impairment::new(faults, seed);
            let fates: Vec<_> = (0..20_000).map(|_| impairment.decide(100)).collect();
            (fates, impairment.tally)
        };
        let (fates, tally) = run(7);
        assert_eq!(run(7), (fates.clone(), tally));
        assert_ne!(run(8).1, tally);
        // Bursts of five that begin at 2 % of the packets outside: about 9 %.
        assert!((1200..2400).contains(&tally.lost), "{tally:?}");
        assert_eq!(tally.lost_bytes, 100 * tally.lost);
        assert!((700..1200).contains(&tally.doubled), "{tally:?}");
        assert!((1500..2200).contains(&tally.overtaken), "{tally:?}");
        let longest = fates.iter().flatten().flatten().max().expect("most arrive");
        assert!(*longest <= Duration::from_millis(5));
    }

    #[test]
    fn a_perfect_wire_does_nothing() {
        let mut impairment = Impairment::new(Faults::default(), 1);
        for _ in 0..1000 {
            assert_eq!(impairment.decide(1), [Some(Duration::ZERO), None]);
        }
    }
}
