//! How long a receiver waits before it asks for lost data, and before it asks again (wire protocol 4.4).
//!
//! One receiver asks at once. Many receivers of one group wait a random time, drawn so that the first of them is
//! likely to be alone: its request brings the data for all, and the others need not ask.
//!
//! The logarithms are those of `libm`, which are the same on every machine; those of the standard library are the
//! system's.
#![forbid(unsafe_code)]

/// The delays of one image.
#[derive(Debug)]
pub enum FeedbackDelay {
    /// Always the same.
    Fixed {
        /// Before the first request, ns.
        first_ns: i64,
        /// Between requests, ns.
        retry_ns: i64,
    },
    /// Random, each time anew.
    Random(GroupDelay),
}

impl FeedbackDelay {
    /// For one receiver: the first request after `delay_ns` (at least 1), further ones after `ratio` times that.
    #[must_use]
    pub fn unicast(delay_ns: i64, ratio: i32) -> Self {
        let first_ns = delay_ns.max(1);
        Self::Fixed {
            first_ns,
            retry_ns: first_ns.saturating_mul(i64::from(ratio.max(1))),
        }
    }

    /// For one of about `group_size` receivers: random up to `max_backoff_ns`. The random numbers are those of `rng`.
    #[must_use]
    pub fn group(group_size: i32, max_backoff_ns: i64, rng: fastrand::Rng) -> Self {
        Self::Random(GroupDelay::new(group_size, max_backoff_ns, rng))
    }

    /// For a stream that does not ask but gives up: gaps are raised as soon as they are found.
    #[must_use]
    pub const fn none() -> Self {
        Self::Fixed {
            first_ns: 0,
            retry_ns: 0,
        }
    }

    /// Time from finding a gap to raising it, ns.
    pub fn first(&mut self) -> i64 {
        match self {
            Self::Fixed { first_ns, .. } => *first_ns,
            Self::Random(delay) => delay.draw(),
        }
    }

    /// Time from raising a gap to raising it again, ns.
    pub fn retry(&mut self) -> i64 {
        match self {
            Self::Fixed { retry_ns, .. } => *retry_ns,
            Self::Random(delay) => delay.draw(),
        }
    }

    /// Whether a group of receivers shares the requests.
    #[must_use]
    pub const fn is_group(&self) -> bool {
        matches!(self, Self::Random(_))
    }
}

/// Random delays for a group, exponentially more likely near their maximum.
#[derive(Debug)]
pub struct GroupDelay {
    lambda: f64,
    max_backoff_ns: f64,
    rng: fastrand::Rng,
}

impl GroupDelay {
    fn new(group_size: i32, max_backoff_ns: i64, rng: fastrand::Rng) -> Self {
        Self {
            lambda: libm::log(f64::from(group_size.max(1))) + 1.0,
            max_backoff_ns: max_backoff_ns.max(1) as f64,
            rng,
        }
    }

    fn draw(&mut self) -> i64 {
        let uniform = self.rng.f64();
        self.delay(uniform)
    }

    /// The delay for a uniform number from 0 to 1, ns: from 0 to the maximum. It is the formula of the specification
    /// with the products that cancel out taken away.
    fn delay(&self, uniform: f64) -> i64 {
        let delay = libm::log1p(uniform * libm::expm1(self.lambda)) / self.lambda;
        (delay * self.max_backoff_ns) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unicast_delay_grows_by_the_ratio_and_is_never_zero() {
        let mut delay = FeedbackDelay::unicast(1_000, 100);
        assert_eq!((delay.first(), delay.retry()), (1_000, 100_000));
        let mut delay = FeedbackDelay::unicast(0, 100);
        assert_eq!((delay.first(), delay.retry()), (1, 100));
        let mut delay = FeedbackDelay::unicast(i64::MAX, i32::MAX);
        assert_eq!((delay.first(), delay.retry()), (i64::MAX, i64::MAX));
        assert!(!delay.is_group());
    }

    /// Seeds of the simulator stay good only as long as the numbers of this generator are the same.
    #[test]
    fn the_generator_gives_the_same_numbers_in_every_version() {
        let mut rng = fastrand::Rng::with_seed(1);
        assert_eq!(
            [rng.u64(..), rng.u64(..)],
            [12_120_239_713_417_281_201, 9_861_924_296_701_902_397]
        );
        assert_eq!(
            (rng.i32(..), rng.f64().to_bits()),
            (-216_381_818, 4_605_190_635_480_788_476)
        );
    }

    #[test]
    fn group_delays_are_those_of_the_specification() {
        let delay = GroupDelay::new(10, 10_000_000, fastrand::Rng::with_seed(1));
        let tenths = |uniform| (delay.delay(uniform) + 50_000) / 100_000;
        assert_eq!((tenths(0.1), tenths(0.5), tenths(0.9)), (39, 80, 97));
        assert_eq!(delay.delay(0.0), 0);
        assert_eq!(delay.delay(1.0), 10_000_000);
    }

    /// A seed of the simulator is to mean the same world everywhere, so the last bit counts.
    #[test]
    fn the_logarithms_are_the_same_to_the_last_bit_everywhere() {
        let lambda = |group_size| {
            GroupDelay::new(group_size, 1, fastrand::Rng::with_seed(1))
                .lambda
                .to_bits()
        };
        assert_eq!(
            [lambda(2), lambda(10), lambda(1000)],
            [
                0x3FFB_1721_7F7D_1CF8,
                0x400A_6BB1_BBB5_5516,
                0x401F_A18A_998F_FFA0
            ]
        );
        let bits = |value: f64| value.to_bits();
        assert_eq!(
            [bits(libm::expm1(1.7)), bits(libm::expm1(3.3))],
            [0x4011_E552_770D_F8A6, 0x403A_1CD5_E780_7B7B]
        );
        assert_eq!(
            [bits(libm::log1p(0.1)), bits(libm::log1p(5.5))],
            [0x3FB8_663F_793C_46C7, 0x3FFD_F2E6_D6E5_FBAA]
        );
        let delay = GroupDelay::new(10, 1 << 53, fastrand::Rng::with_seed(1));
        assert_eq!(
            [delay.delay(0.1), delay.delay(0.7)],
            [3_507_328_783_824_326, 8_077_097_472_486_260]
        );
    }

    #[test]
    fn group_delays_are_spread_over_the_whole_time_and_repeat_with_the_seed() {
        let draws = |seed| {
            let mut delay = FeedbackDelay::group(10, 1_000_000, fastrand::Rng::with_seed(seed));
            (0..1000).map(|_| delay.first()).collect::<Vec<_>>()
        };
        let drawn = draws(7);
        assert_eq!(drawn, draws(7));
        assert_ne!(drawn, draws(8));
        assert!(drawn.iter().all(|delay| (0..=1_000_000).contains(delay)));
        let early = drawn.iter().filter(|delay| **delay < 500_000).count();
        // A tenth of the group asks in the first half of the time.
        assert!((100..300).contains(&early), "{early}");
    }

    #[test]
    fn degenerate_groups_have_delays_too() {
        for (size, max) in [(0, 0), (i32::MIN, -1), (1, 1), (i32::MAX, i64::MAX)] {
            let mut delay = FeedbackDelay::group(size, max, fastrand::Rng::with_seed(1));
            assert!(delay.first() >= 0 && delay.retry() >= 0);
        }
    }
}
