//! What the hardware and the system do without any transport: the floor that round trips stand on.

#![expect(
    clippy::disallowed_types,
    reason = "the very thing is to measure the system's sockets"
)]

use std::io::ErrorKind;
use std::net::UdpSocket;

use fulmar::sync::{AtomicBool, AtomicU64, Ordering, spin_loop};
use fulmar::time::SystemClock;

use super::{Apart, Patience, RoundTripPlan};
use crate::recorder::Recorder;
use crate::side::BenchError;

/// A number goes from one thread to the other in one cache line and comes back in another.
///
/// # Errors
/// None.
pub fn bare_line(plan: &RoundTripPlan) -> Result<Recorder, BenchError> {
    let there = Apart(AtomicU64::new(0));
    let back = Apart(AtomicU64::new(0));
    let (there, back) = (&there.0, &back.0);
    let total = plan.warmup + plan.messages;
    let mut recorder = Recorder::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 1..=total {
                while there.load(Ordering::Acquire) != number {
                    spin_loop();
                }
                back.store(number, Ordering::Release);
            }
        });
        for number in 1..=total {
            let sent = SystemClock.nanos();
            there.store(number, Ordering::Release);
            while back.load(Ordering::Acquire) != number {
                spin_loop();
            }
            let received = SystemClock.nanos();
            if number > plan.warmup {
                recorder.record(received.since(sent));
            }
        }
    });
    Ok(recorder)
}

/// Header and payload of the smallest data frame of the cases that are compared with this.
const DATAGRAM_LENGTH: usize = 64;

/// A datagram of a small frame's length goes over the loopback interface and comes back; both ends ask their socket
/// without a pause.
///
/// # Errors
/// What the system says.
pub fn bare_datagrams(plan: &RoundTripPlan) -> Result<Recorder, BenchError> {
    let near = UdpSocket::bind("127.0.0.1:0")?;
    let far = UdpSocket::bind("127.0.0.1:0")?;
    near.connect(far.local_addr()?)?;
    far.connect(near.local_addr()?)?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let stop = Apart(AtomicBool::new(false));
    let stop = &stop.0;
    let mut recorder = Recorder::new();
    let total = plan.warmup + plan.messages;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut datagram = [0u8; DATAGRAM_LENGTH];
            while !stop.load(Ordering::Relaxed) {
                // What fails shows on the other end.
                if let Ok(length) = far.recv(&mut datagram) {
                    let _ = far.send(&datagram[..length]);
                }
            }
        });
        let mut exchange = || {
            let mut datagram = [0u8; DATAGRAM_LENGTH];
            let mut patience = Patience::default();
            for number in 0..total {
                let sent = SystemClock.nanos();
                near.send(&datagram)?;
                loop {
                    match near.recv(&mut datagram) {
                        Ok(_) => break,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            patience.wait_for("no datagram")?;
                        }
                        Err(error) => return Err(BenchError::from(error)),
                    }
                }
                let received = SystemClock.nanos();
                patience.reset();
                if number >= plan.warmup {
                    recorder.record(received.since(sent));
                }
            }
            Ok(())
        };
        let result = exchange();
        stop.store(true, Ordering::Relaxed);
        result
    })?;
    Ok(recorder)
}
