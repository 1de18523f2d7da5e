//! [`burn::nn::GroupNorm`] on the fused operation.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::ops;

/// The configuration of a [`GroupNorm`] layer: Burn's own.
pub use burn::nn::GroupNormConfig;

/// `y = γ·(x - mean) / √(variance + ε) + β` over groups of channels, as [`burn::nn::GroupNorm`]. As many groups as channels
/// are instance normalisation.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// `[num_channels]`; `weight` in `PyTorch`.
    pub gamma: Option<Param<Tensor<1>>>,
    /// `[num_channels]`; `bias` in `PyTorch`.
    pub beta: Option<Param<Tensor<1>>>,
    /// The number of groups.
    pub num_groups: usize,
    /// The number of channels.
    pub num_channels: usize,
    /// `ε`.
    pub epsilon: f64,
    /// Whether there are `γ` and `β`.
    pub affine: bool,
}

impl From<burn::nn::GroupNorm> for GroupNorm {
    fn from(layer: burn::nn::GroupNorm) -> Self {
        Self {
            gamma: layer.gamma,
            beta: layer.beta,
            num_groups: layer.num_groups,
            num_channels: layer.num_channels,
            epsilon: layer.epsilon,
            affine: layer.affine,
        }
    }
}

impl GroupNorm {
    /// A layer with Burn's initialisation: ones and zeros.
    #[must_use]
    pub fn new(config: &GroupNormConfig, device: &Device) -> Self {
        config.init(device).into()
    }

    /// Normalises each group of channels of each sample.
    ///
    /// # Shapes
    /// - input: `[batch, num_channels, …]`
    /// - output: that of the input
    ///
    /// # Panics
    /// When the second axis of `input` is not `num_channels`.
    #[must_use]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        assert_eq!(input.dims()[1], self.num_channels, "channels");
        let [gamma, beta] = [&self.gamma, &self.beta].map(|parameter| parameter.as_ref().map(Param::val));
        ops::group_norm(input, gamma, beta, self.num_groups, self.epsilon)
    }
}
