//! Random numbers from a seed: the generator xoshiro256**, its state filled by splitmix64, a stream for each purpose.
//! Not for secrets.
#![forbid(unsafe_code)]

/// A stream of random numbers. The same seed and purpose give the same stream, on every machine and in every build.
#[derive(Clone, Debug)]
pub struct Prng {
    state: [u64; 4],
}

impl Prng {
    /// The stream of a purpose. Streams of different purposes have nothing to do with each other.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a, so that every byte of the name counts; splitmix64 spreads what comes out.
        let name = purpose.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        let mut counter = split_mix(seed).wrapping_add(split_mix(name).rotate_left(32));
        // Four outputs of splitmix64 in a row are never all zero, which would be the one state without a way out.
        let state = core::array::from_fn(|_| {
            counter = counter.wrapping_add(GOLDEN);
            split_mix(counter)
        });
        Self { state }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number from 0 to `n - 1`. How much the numbers differ in frequency is below `n / 2^64`.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "there is no number below 0");
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// `true` in so many of a million cases: never for 0, always from 1,000,000 on.
    pub fn chance(&mut self, parts_per_million: u32) -> bool {
        self.below(1_000_000) < u64::from(parts_per_million)
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    /// If `high` is less than `low`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        assert!(low <= high, "{low} to {high} is empty");
        let numbers = high.abs_diff(low).wrapping_add(1);
        // All 2^64 numbers: their count is one too many for the type.
        let offset = if numbers == 0 {
            self.next_u64()
        } else {
            self.below(numbers)
        };
        low.wrapping_add_unsigned(offset)
    }

    /// One of the items.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output function of splitmix64.
fn split_mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seed: u64, purpose: &str) -> Vec<u64> {
        let mut prng = Prng::new(seed, purpose);
        (0..4).map(|_| prng.next_u64()).collect()
    }

    #[test]
    fn the_stream_follows_from_seed_and_purpose_alone() {
        assert_eq!(first(1, "loss"), first(1, "loss"));
        assert_ne!(first(1, "loss"), first(2, "loss"));
        assert_ne!(first(1, "loss"), first(1, "delay"));
        assert_ne!(first(0, ""), [0; 4], "the seed 0 is as good as any");
        // Seeds that somebody wrote down stay good in later versions and on other machines.
        assert_eq!(first(1, "loss")[0], 4_909_731_857_669_857_292);
    }

    /// The published generator, from the state 1, 2, 3, 4: worked out by hand from its definition.
    #[test]
    fn the_generator_is_the_published_one() {
        let mut prng = Prng { state: [1, 2, 3, 4] };
        assert_eq!(prng.next_u64(), 11520);
        assert_eq!(prng.next_u64(), 0);
        assert_eq!(prng.next_u64(), 1_509_978_240);
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_all_of_it() {
        let mut prng = Prng::new(7, "test");
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[prng.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
        let mut ends = [false; 2];
        for _ in 0..1000 {
            let number = prng.between(-3, 3);
            assert!((-3..=3).contains(&number));
            ends[0] |= number == -3;
            ends[1] |= number == 3;
        }
        assert_eq!(ends, [true; 2]);
        assert_eq!(prng.between(5, 5), 5);
        let wide: Vec<i64> = (0..10).map(|_| prng.between(i64::MIN, i64::MAX)).collect();
        assert!(wide.iter().any(|number| *number < 0) && wide.iter().any(|number| *number > 0));
        assert_eq!(*prng.pick(&["only"]), "only");
    }

    #[test]
    fn chances_are_parts_per_million() {
        let mut prng = Prng::new(7, "test");
        assert!((0..10_000).all(|_| !prng.chance(0)));
        assert!((0..10_000).all(|_| prng.chance(1_000_000)));
        let hits = (0..100_000).filter(|_| prng.chance(100_000)).count();
        // Six standard deviations of a binomial distribution.
        assert!((9430..=10_570).contains(&hits), "{hits}");
    }
}
