//! Normalisation: to mean 0 and variance 1, then `γ` and `β`.

mod channels;
mod layer;

pub use channels::{BatchNorm, GroupNorm, channel_parameters};
pub use layer::{layer_norm, layer_norm_backward, layer_norm_parameters};

/// What a set of values is normalised by: its mean, and `1 / √(variance + ε)`, with the variance over `n`, not `n - 1`.
pub type Moments = [f32; 2];

/// The moments from a mean and a variance.
#[must_use]
pub fn moments(mean: f32, variance: f32, epsilon: f32) -> Moments {
    [mean, 1.0 / (variance + epsilon).sqrt()]
}

/// A count as a number to divide by.
#[expect(
    clippy::cast_precision_loss,
    reason = "a mean over more than 2²⁴ values is not wrong by the rounding of its count"
)]
fn count(values: usize) -> f32 {
    values as f32
}

#[cfg(test)]
mod tests;
