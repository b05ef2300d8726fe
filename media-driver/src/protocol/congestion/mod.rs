//! Congestion control on the receiving side (wire protocol 5.4): how large a window the sender is offered.
#![forbid(unsafe_code)]

pub mod cubic;
pub mod static_window;

use fulmar::time::NanoTime;

pub use cubic::{Cubic, CubicSettings};
pub use static_window::StaticWindow;

/// The window after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bytes beyond the consumption position that the sender may send.
    pub length: i32,
    /// The sender has to know at once.
    pub force_status_message: bool,
}

/// What a pass over the log has found, for congestion control to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebuildPass {
    /// A gap was found that was not known before.
    pub loss_found: bool,
    /// Position of the slowest subscriber.
    pub consumption_position: i64,
    /// Position of the last status message.
    pub last_status_message_position: i64,
}

/// The strategy of one image. Conductor only.
#[derive(Debug)]
pub enum CongestionControl {
    /// The same window always.
    Static(StaticWindow),
    /// A window that shrinks on loss and grows back.
    Cubic(Cubic),
}

impl CongestionControl {
    /// A constant window of `window` bytes, at most half the term.
    #[must_use]
    pub fn fixed(window: i32, term_length: i32) -> Self {
        Self::Static(StaticWindow::new(window, term_length))
    }

    /// A window that follows a cubic function, in units of the sender's `mtu`, up to `window` bytes and half the
    /// term.
    #[must_use]
    pub fn cubic(now: NanoTime, window: i32, term_length: i32, mtu: i32, settings: CubicSettings) -> Self {
        let window_max = StaticWindow::new(window, term_length).length();
        Self::Cubic(Cubic::new(now, window_max, mtu, settings))
    }

    /// The window of the first status message, bytes.
    #[must_use]
    pub const fn initial_window(&self) -> i32 {
        match self {
            Self::Static(fixed) => fixed.length(),
            Self::Cubic(cubic) => cubic.window(),
        }
    }

    /// The largest window it ever offers, bytes.
    #[must_use]
    pub const fn window_max(&self) -> i32 {
        match self {
            Self::Static(fixed) => fixed.length(),
            Self::Cubic(cubic) => cubic.window_max(),
        }
    }

    /// Every pass: the window from now on.
    pub fn on_rebuild(&mut self, now: NanoTime, pass: RebuildPass) -> Window {
        match self {
            Self::Static(fixed) => Window {
                length: fixed.length(),
                force_status_message: false,
            },
            Self::Cubic(cubic) => cubic.on_rebuild(now, pass),
        }
    }

    /// An answer to a measurement: the round trip took `rtt_ns`.
    pub fn on_rttm(&mut self, now: NanoTime, rtt_ns: i64) {
        if let Self::Cubic(cubic) = self {
            cubic.on_rttm(now, rtt_ns);
        }
    }

    /// Whether the round-trip time is to be measured now; then [`CongestionControl::on_rttm_sent`] follows.
    #[must_use]
    pub fn should_measure_rtt(&self, now: NanoTime) -> bool {
        match self {
            Self::Static(_) => false,
            Self::Cubic(cubic) => cubic.should_measure_rtt(now),
        }
    }

    /// A measurement was asked for.
    pub fn on_rttm_sent(&mut self, now: NanoTime) {
        if let Self::Cubic(cubic) = self {
            cubic.on_rttm_sent(now);
        }
    }
}
