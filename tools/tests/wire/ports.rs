//! Addresses that nobody else takes between the moment a test thinks of them and the moment a driver binds them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;

use fulmar::sync::{AtomicU32, Ordering};

use super::peer::Peer;

/// Sockets that keep ports from being given to somebody else, for as long as the tests run.
static GUARDS: Mutex<Vec<Peer>> = Mutex::new(Vec::new());

fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn guard(socket: Peer) -> u16 {
    let port = socket.address().port();
    GUARDS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .push(socket);
    port
}

/// A free loopback address, which is not 127.0.0.1. The system does not hand out its port to sockets on the wildcard or
/// on 127.0.0.1, since a socket there has it, and nobody else binds this address.
pub fn free_address() -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let last = u8::try_from(number() % 250).expect("small") + 2;
    let address = Ipv4Addr::new(127, 64 | (high & 63), low, last);
    SocketAddr::from((address, guard(Peer::new())))
}

/// An IPv4 group of this process and call alone, with an odd or even last byte. Its port can be bound by all who share
/// it, and is not handed out to others.
pub fn group(odd: bool) -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let last = u8::try_from(number() % 120).expect("small") * 2 + u8::from(odd);
    let port = guard(Peer::sharing(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
    SocketAddr::from(([239, high, low, last], port))
}
