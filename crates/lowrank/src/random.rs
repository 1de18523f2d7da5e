//! Random numbers that are a pure function of `(seed, purpose, index)`.
//!
//! A stream is found by its name, not by what was drawn before it, so a resumed run, another thread count or a module
//! added elsewhere changes no number. The generator is `ChaCha8`, whose output is fixed for all time.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use rand_distr::{Distribution, StandardNormal};

/// One stream of random numbers.
#[derive(Debug, Clone)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The stream for `purpose` (for instance `"lora_A encoder.conv1"`), number `index`, of a run's `seed`.
    #[must_use]
    pub fn new(seed: u64, purpose: &str, index: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&index.to_le_bytes());
        key[16..24].copy_from_slice(&fnv1a(purpose).to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `[0, 1)`, with the 24 bits an `f32` holds.
    pub fn unit(&mut self) -> f32 {
        #[expect(clippy::cast_precision_loss, reason = "24 bits are exact in f32")]
        let value = (self.bits() >> 40) as f32;
        value / 16_777_216.0
    }

    /// Uniform in `[low, high)`.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Normal with mean 0 and standard deviation 1.
    pub fn normal(&mut self) -> f32 {
        StandardNormal.sample(&mut self.0)
    }

    /// A whole number below `bound` (which is at least 1), each equally likely.
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.bits()) * bound as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_function_of_its_name() {
        let draw = |seed, purpose, index| Random::new(seed, purpose, index).bits();
        assert_eq!(draw(1, "a", 0), draw(1, "a", 0));
        let others = [draw(2, "a", 0), draw(1, "b", 0), draw(1, "a", 1)];
        assert!(others.iter().all(|other| *other != draw(1, "a", 0)));
    }

    #[test]
    fn moments_are_those_of_the_distribution() {
        let mut random = Random::new(7, "moments", 0);
        let n = 100_000;
        let uniform: Vec<f32> = (0..n).map(|_| random.uniform(-1.0, 3.0)).collect();
        let normal: Vec<f32> = (0..n).map(|_| random.normal()).collect();
        let (mean, var) = moments(&uniform);
        assert!((mean - 1.0).abs() < 0.02 && (var - 16.0 / 12.0).abs() < 0.02);
        let (mean, var) = moments(&normal);
        assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.02);
    }

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = f64::from(u32::try_from(values.len()).unwrap());
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        (mean, values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n)
    }

    #[test]
    fn shuffling_keeps_every_item() {
        let mut items: Vec<usize> = (0..100).collect();
        Random::new(3, "shuffle", 0).shuffle(&mut items);
        assert!(items.iter().enumerate().any(|(place, item)| place != *item));
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
