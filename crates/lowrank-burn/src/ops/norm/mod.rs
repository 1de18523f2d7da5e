//! Normalisation: of layers, of groups of channels, and of batches by their running statistics.

mod body;
mod flex;
mod graph;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

pub use body::{NormBody, NormGradients, NormWants};
pub use graph::Normalise;

/// What is normalised together, by its own mean and variance.
#[derive(Debug, Clone, Copy)]
pub enum Norm {
    /// The last axis (Ba, Kiros and Hinton, 2016).
    Layer {
        /// `ε`.
        epsilon: f32,
    },
    /// Groups of channels of one sample, over all positions (Wu and He, 2018).
    Group {
        /// How many groups.
        groups: usize,
        /// `ε`.
        epsilon: f32,
    },
}

/// `γ·(x - mean) / √(variance + ε) + β` over the last axis.
///
/// # Shapes
/// - `x`: `[…, width]`, `gamma`, `beta`: `[width]`
/// - output: that of `x`
///
/// # Panics
/// When a shape does not fit another.
#[must_use]
pub fn layer_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Option<Tensor<1>>, epsilon: f64) -> Tensor<D> {
    let beta = beta.unwrap_or_else(|| gamma.zeros_like());
    normalise(x, gamma, beta, Norm::Layer { epsilon: narrow(epsilon) })
}

/// `γ·(x - mean) / √(variance + ε) + β`, with the mean and the variance of each group of channels of each sample. As many
/// groups as channels are instance normalisation.
///
/// # Shapes
/// - `x`: `[batch, channels, …]`, `gamma`, `beta`: `[channels]`
/// - output: that of `x`
///
/// # Panics
/// When a shape does not fit another, or `groups` does not divide the channels.
#[must_use]
pub fn group_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Option<Tensor<1>>,
    beta: Option<Tensor<1>>,
    groups: usize,
    epsilon: f64,
) -> Tensor<D> {
    let options = (&x.device(), x.dtype());
    let gamma = gamma.unwrap_or_else(|| Tensor::ones([x.dims()[1]], options));
    let beta = beta.unwrap_or_else(|| Tensor::zeros([x.dims()[1]], options));
    normalise(x, gamma, beta, Norm::Group { groups, epsilon: narrow(epsilon) })
}

/// `γ·(x - mean) / √(variance + ε) + β` by a given mean and variance of each channel, which are constants: batch
/// normalisation in evaluation (Ioffe and Szegedy, 2015).
///
/// # Shapes
/// - `x`: `[batch, channels, …]`, `gamma`, `beta`, `mean`, `variance`: `[channels]`
/// - output: that of `x`
///
/// # Panics
/// When a shape does not fit another.
#[must_use]
pub fn batch_norm_eval<const D: usize>(
    x: Tensor<D>,
    [gamma, beta]: [Tensor<1>; 2],
    [mean, variance]: [Tensor<1>; 2],
    epsilon: f64,
) -> Tensor<D> {
    let rstd = variance.add_scalar(epsilon).sqrt().recip();
    let moments: Tensor<2> = Tensor::stack(vec![mean, rstd], 1);
    check(x.dims()[1], &gamma, &beta);
    Tensor::from_dispatch(<Dispatch as Normalise>::normalise_by(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        moments.into_dispatch(),
    ))
}

fn normalise<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Tensor<1>, norm: Norm) -> Tensor<D> {
    let channels = x.dims()[if matches!(norm, Norm::Layer { .. }) { D - 1 } else { 1 }];
    check(channels, &gamma, &beta);
    if let Norm::Group { groups, .. } = norm {
        assert!(groups > 0 && channels.is_multiple_of(groups), "{channels} channels in {groups} groups");
    }
    Tensor::from_dispatch(<Dispatch as Normalise>::normalise(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        norm,
    ))
}

fn check(channels: usize, gamma: &Tensor<1>, beta: &Tensor<1>) {
    assert_eq!([gamma.dims(), beta.dims()], [[channels]; 2], "γ and β for each channel");
}

#[expect(clippy::cast_possible_truncation, reason = "Burn's layers hold ε in f64")]
fn narrow(epsilon: f64) -> f32 {
    epsilon as f32
}
