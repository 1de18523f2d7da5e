//! Normal: PEFT's `"gaussian"` for `A`, and the start of an embedding's factors.

use crate::random::Random;

/// Normal with mean 0.
pub fn fill(values: &mut [f32], deviation: f32, random: &mut Random) {
    values.fill_with(|| deviation * random.normal());
}

/// The standard deviation of a `"gaussian"` `A`: `1/r`.
#[must_use]
pub fn deviation(rank: usize) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "ranks are exact in f32")]
    let rank = rank.max(1) as f32;
    1.0 / rank
}
