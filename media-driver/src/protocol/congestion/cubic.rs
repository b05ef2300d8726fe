//! A window that shrinks by a fifth on loss and grows back along a cubic function: slowly near the size at which the
//! loss came, faster when that is passed (wire protocol 5.4, `cubic`). Units are the sender's MTU.
#![forbid(unsafe_code)]

use fulmar::time::NanoTime;

use super::{RebuildPass, Window};

/// Steepness of the function, MTUs per cubic second.
const C: f64 = 0.4;
/// The part of the window that a loss costs.
const B: f64 = 0.2;
/// Window at the start, MTUs.
const INITIAL_CWND: i32 = 10;
/// Round trips between measurements.
const RTT_INTERVALS: i64 = 4;
const NANOS_PER_SECOND: f64 = 1e9;

/// How cubic congestion control is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CubicSettings {
    /// Whether round-trip times are measured.
    pub measure_rtt: bool,
    /// Round-trip time until one is measured, and time between changes of the window, ns.
    pub initial_rtt_ns: i64,
    /// Whether the window grows at least as fast as that of TCP.
    pub tcp_mode: bool,
}

/// The state of one image.
#[derive(Debug)]
pub struct Cubic {
    settings: CubicSettings,
    mtu: i32,
    cwnd: i32,
    cwnd_max: i32,
    /// Window at which the last loss came, MTUs.
    w_max: i32,
    /// Time from a loss until the window is back there, seconds.
    k: f64,
    last_loss: NanoTime,
    last_update: NanoTime,
    rtt_ns: i64,
    rtt_interval_ns: i64,
    last_rtt: NanoTime,
}

impl Cubic {
    /// Starts at `now` with ten MTUs of `mtu` bytes, or as many as fit into `window_max` bytes.
    #[must_use]
    pub fn new(now: NanoTime, window_max: i32, mtu: i32, settings: CubicSettings) -> Self {
        let mtu = mtu.max(1);
        let cwnd_max = (window_max / mtu).max(1);
        let settings = CubicSettings {
            initial_rtt_ns: settings.initial_rtt_ns.max(1),
            ..settings
        };
        Self {
            settings,
            mtu,
            cwnd: INITIAL_CWND.min(cwnd_max),
            cwnd_max,
            w_max: cwnd_max,
            k: k_of(cwnd_max),
            last_loss: now,
            last_update: now,
            rtt_ns: settings.initial_rtt_ns,
            rtt_interval_ns: settings.initial_rtt_ns.saturating_mul(RTT_INTERVALS),
            last_rtt: now,
        }
    }

    /// The window, bytes.
    #[must_use]
    pub const fn window(&self) -> i32 {
        self.cwnd * self.mtu
    }

    /// The largest window, bytes.
    #[must_use]
    pub const fn window_max(&self) -> i32 {
        self.cwnd_max * self.mtu
    }

    /// The last round-trip time, ns.
    #[must_use]
    pub const fn rtt_ns(&self) -> i64 {
        self.rtt_ns
    }

    /// Every pass: the window from now on.
    pub fn on_rebuild(&mut self, now: NanoTime, pass: RebuildPass) -> Window {
        let mut force_status_message = false;
        if pass.loss_found {
            force_status_message = true;
            self.w_max = self.cwnd;
            self.k = k_of(self.w_max);
            self.cwnd = ((f64::from(self.cwnd) * (1.0 - B)) as i32).max(1);
            self.last_loss = now;
        } else if self.cwnd < self.cwnd_max && now.since(self.last_update) > self.settings.initial_rtt_ns {
            self.grow(now);
            self.last_update = now;
        } else if self.cwnd == 1 && pass.consumption_position > pass.last_status_message_position {
            // A quarter of one MTU is not much to report by: the sender would wait for the timer.
            force_status_message = true;
        }
        Window {
            length: self.window(),
            force_status_message,
        }
    }

    /// An answer to a measurement.
    pub fn on_rttm(&mut self, now: NanoTime, rtt_ns: i64) {
        self.rtt_ns = rtt_ns.max(1);
        self.last_rtt = now;
        let rtt = self.rtt_ns.max(self.settings.initial_rtt_ns);
        self.rtt_interval_ns = rtt.saturating_mul(RTT_INTERVALS);
    }

    /// Whether the round-trip time is to be measured now.
    #[must_use]
    pub fn should_measure_rtt(&self, now: NanoTime) -> bool {
        self.settings.measure_rtt && now.since(self.last_rtt) > self.rtt_interval_ns
    }

    /// A measurement was asked for.
    pub fn on_rttm_sent(&mut self, now: NanoTime) {
        self.last_rtt = now;
    }

    fn grow(&mut self, now: NanoTime) {
        let since_loss = now.since(self.last_loss).max(0) as f64 / NANOS_PER_SECOND;
        let from_k = since_loss - self.k;
        let cubic = (C * (from_k * from_k * from_k)) as i32;
        let mut cwnd = self.w_max.saturating_add(cubic);
        if self.settings.tcp_mode && cwnd < self.w_max {
            let rtt = self.rtt_ns as f64 / NANOS_PER_SECOND;
            let tcp = f64::from(self.w_max) * (1.0 - B) + 3.0 * B / (2.0 - B) * (since_loss / rtt);
            cwnd = cwnd.max(tcp as i32);
        }
        self.cwnd = cwnd.clamp(1, self.cwnd_max);
    }
}

/// Time until the function is back at `w_max`, seconds. The root is that of `libm`: the same on every machine.
fn k_of(w_max: i32) -> f64 {
    libm::cbrt(f64::from(w_max) * B / C)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MTU: i32 = 1408;
    const SETTINGS: CubicSettings = CubicSettings {
        measure_rtt: true,
        initial_rtt_ns: 100_000,
        tcp_mode: false,
    };
    const QUIET: RebuildPass = RebuildPass {
        loss_found: false,
        consumption_position: 0,
        last_status_message_position: 0,
    };
    const LOSS: RebuildPass = RebuildPass {
        loss_found: true,
        ..QUIET
    };

    fn seconds(seconds: f64) -> NanoTime {
        NanoTime((seconds * NANOS_PER_SECOND) as i64)
    }

    fn cubic(mtus: i32) -> Cubic {
        Cubic::new(NanoTime(0), mtus * MTU + 5, MTU, SETTINGS)
    }

    #[test]
    fn the_first_window_is_ten_mtus_or_what_there_is() {
        assert_eq!(cubic(93).window(), 10 * MTU);
        assert_eq!(cubic(93).window_max(), 93 * MTU);
        assert_eq!(cubic(4).window(), 4 * MTU);
        assert_eq!(Cubic::new(NanoTime(0), 0, MTU, SETTINGS).window(), MTU);
    }

    #[test]
    fn a_loss_costs_a_fifth_and_is_reported_at_once() {
        let mut cubic = cubic(100);
        let window = cubic.on_rebuild(NanoTime(1), LOSS);
        assert_eq!((window.length, window.force_status_message), (8 * MTU, true));
        for _ in 0..20 {
            let _ = cubic.on_rebuild(NanoTime(2), LOSS);
        }
        assert_eq!(cubic.window(), MTU);
    }

    #[test]
    fn the_window_comes_back_to_where_the_loss_was_and_goes_beyond() {
        let mut cubic = cubic(100);
        cubic.cwnd = 80;
        assert_eq!(cubic.on_rebuild(NanoTime(0), LOSS).length, 64 * MTU);
        // K = cbrt(80 * 0.2 / 0.4) = 3.42 s.
        assert_eq!(cubic.on_rebuild(seconds(0.000_2), QUIET).length, 65 * MTU);
        assert_eq!(cubic.on_rebuild(seconds(1.0), QUIET).length, 75 * MTU);
        assert_eq!(cubic.on_rebuild(seconds(3.42), QUIET).length, 80 * MTU);
        assert_eq!(cubic.on_rebuild(seconds(6.0), QUIET).length, 86 * MTU);
        assert_eq!(cubic.on_rebuild(seconds(60.0), QUIET).length, 100 * MTU);
    }

    /// A seed of the simulator is to mean the same world everywhere, so the last bit counts.
    #[test]
    fn the_root_is_the_same_to_the_last_bit_everywhere() {
        assert_eq!(
            [1, 10, 93, 1000].map(|w_max| k_of(w_max).to_bits()),
            [
                0x3FE9_65FE_A53D_6E3D,
                0x3FFB_5C0F_BCFE_C4D4,
                0x400C_C492_D38C_E8DA,
                0x401F_BF7E_4E8C_C9CC
            ]
        );
    }

    #[test]
    fn the_window_changes_once_per_round_trip() {
        let mut cubic = cubic(100);
        cubic.cwnd = 80;
        let _ = cubic.on_rebuild(seconds(1.0), LOSS);
        let first = cubic.on_rebuild(seconds(3.0), QUIET).length;
        assert_eq!(cubic.on_rebuild(seconds(3.000_1), QUIET).length, first);
        assert!(cubic.on_rebuild(seconds(5.0), QUIET).length > first);
    }

    #[test]
    fn a_window_of_one_mtu_is_reported_whenever_something_was_consumed() {
        let mut cubic = cubic(1);
        let consumed = RebuildPass {
            consumption_position: 32,
            ..QUIET
        };
        assert!(cubic.on_rebuild(NanoTime(1), consumed).force_status_message);
        assert!(!cubic.on_rebuild(NanoTime(1), QUIET).force_status_message);
    }

    #[test]
    fn tcp_mode_grows_at_least_like_tcp() {
        let settings = CubicSettings {
            tcp_mode: true,
            ..SETTINGS
        };
        let mut friendly = Cubic::new(NanoTime(0), 100 * MTU, MTU, settings);
        let mut plain = Cubic::new(NanoTime(0), 100 * MTU, MTU, SETTINGS);
        for cubic in [&mut friendly, &mut plain] {
            cubic.cwnd = 80;
            let _ = cubic.on_rebuild(NanoTime(0), LOSS);
            let _ = cubic.on_rebuild(seconds(0.01), QUIET);
        }
        // 64 + 3 * 0.2 / 1.8 * 0.01 s / 100 us.
        assert_eq!(friendly.window(), (64 + 33) * MTU);
        assert_eq!(plain.window(), 65 * MTU);
    }

    #[test]
    fn the_round_trip_is_measured_every_four_of_them() {
        let mut cubic = cubic(10);
        assert!(!cubic.should_measure_rtt(NanoTime(400_000)));
        assert!(cubic.should_measure_rtt(NanoTime(400_001)));
        cubic.on_rttm_sent(NanoTime(400_001));
        assert!(!cubic.should_measure_rtt(NanoTime(800_001)));
        cubic.on_rttm(NanoTime(500_000), 1_000_000);
        assert_eq!(cubic.rtt_ns(), 1_000_000);
        assert!(!cubic.should_measure_rtt(NanoTime(4_500_000)));
        assert!(cubic.should_measure_rtt(NanoTime(4_500_001)));
        cubic.on_rttm(NanoTime(4_500_000), 5);
        assert!(cubic.should_measure_rtt(NanoTime(4_900_001)));
        let mut silent = cubic;
        silent.settings.measure_rtt = false;
        assert!(!silent.should_measure_rtt(NanoTime(1 << 60)));
    }

    proptest! {
        #[test]
        fn the_window_stays_between_one_mtu_and_the_maximum(
            window_max: i32, mtu: i32, rtt: i64, passes in prop::collection::vec((any::<i64>(), any::<bool>(), any::<i64>()), 0..50),
        ) {
            let settings = CubicSettings { initial_rtt_ns: rtt, tcp_mode: true, ..SETTINGS };
            let mut cubic = Cubic::new(NanoTime(0), window_max, mtu, settings);
            for (now, loss_found, rtt) in passes {
                let window = cubic.on_rebuild(NanoTime(now), RebuildPass { loss_found, ..QUIET });
                cubic.on_rttm(NanoTime(now), rtt);
                prop_assert!(window.length >= mtu.max(1));
                prop_assert!(window.length <= cubic.window_max());
                prop_assert!(cubic.window_max() <= window_max.max(mtu).max(1));
            }
        }
    }
}
