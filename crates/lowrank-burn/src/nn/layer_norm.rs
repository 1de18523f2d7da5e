//! [`burn::nn::LayerNorm`] on the fused operation.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::ops;

/// The configuration of a [`LayerNorm`] layer: Burn's own.
pub use burn::nn::LayerNormConfig;

/// `y = γ·(x - mean) / √(variance + ε) + β` over the last axis, as [`burn::nn::LayerNorm`].
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[d_model]`; `weight` in `PyTorch`.
    pub gamma: Param<Tensor<1>>,
    /// `[d_model]`; `bias` in `PyTorch`.
    pub beta: Option<Param<Tensor<1>>>,
    /// `ε`. Burn's layer does not tell its own, so it comes from the configuration.
    pub epsilon: f64,
}

impl LayerNorm {
    /// A layer with Burn's initialisation: ones and zeros.
    #[must_use]
    pub fn new(config: &LayerNormConfig, device: &Device) -> Self {
        Self::from_burn(config.init(device), config.epsilon)
    }

    /// Burn's layer with its parameters, and the `ε` of its configuration, which it does not show.
    #[must_use]
    pub fn from_burn(layer: burn::nn::LayerNorm, epsilon: f64) -> Self {
        Self { gamma: layer.gamma, beta: layer.beta, epsilon }
    }

    /// Normalises the last axis.
    ///
    /// # Shapes
    /// - input: `[…, d_model]`
    /// - output: `[…, d_model]`
    ///
    /// # Panics
    /// When the last axis of `input` is not `d_model`.
    #[must_use]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(input, self.gamma.val(), self.beta.as_ref().map(Param::val), self.epsilon)
    }
}
