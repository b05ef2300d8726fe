//! What the targets share: sockets without a network, and frames with fields near those of a live stream.

use std::net::SocketAddr;

pub use fulmar_fuzz::Input;

#[path = "../../tests/receiver_support/mod.rs"]
pub mod receiver_support;

mod send_socket;

pub use send_socket::{SendLine, SendTraffic};

/// An address of the other side, one of 65,536.
#[must_use]
pub fn peer(index: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 9], index.max(1)))
}

/// A step of time, nanoseconds: mostly short, sometimes so long that everything runs out.
pub fn time_step(input: &mut Input<'_>) -> i64 {
    let (kind, count) = (input.u8(), i64::from(input.u8()));
    count
        * match kind & 7 {
            0..=2 => 1_000,
            3..=4 => 100_000,
            5 => 2_000_000,
            6 => 40_000_000,
            _ => 500_000_000,
        }
}

/// A position near `base`: mostly up to two kilobytes before or behind it and aligned, sometimes farther, sometimes
/// anything that is not negative.
pub fn position_near(input: &mut Input<'_>, base: i64) -> i64 {
    let kind = input.u8();
    let distance = i64::from(input.u8()) - 128;
    let position = match kind & 15 {
        0..=9 => base.saturating_add(distance / 2 * 32),
        10..=12 => base.saturating_add(distance * 1024),
        13 => base.saturating_add(distance),
        14 => base.saturating_add(distance * 65_536),
        _ => input.i64() & i64::MAX & !31,
    };
    position.max(0)
}

/// Changes up to four bytes of a frame and perhaps its length.
pub fn mutate(input: &mut Input<'_>, frame: &mut Vec<u8>) {
    for _ in 0..=input.u8() & 3 {
        if frame.is_empty() {
            return;
        }
        // The header is where the decisions are.
        let at = usize::from(input.u8()) % frame.len().min(48);
        frame[at] = input.u8();
    }
    let cut = usize::from(input.u8());
    if cut & 7 == 7 {
        frame.truncate(frame.len().saturating_sub(cut >> 3));
    }
}
