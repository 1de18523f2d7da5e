//! What surrounds the adapted layers in a model. The one place that says whose functions they are.

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Int, Tensor};
use lowrank_burn::nn::{Linear, LinearConfig};
use lowrank_burn::ops;

pub use lowrank_burn::nn::{GroupNorm, GroupNormConfig, LayerNorm, LayerNormConfig};
pub use lowrank_burn::ops::{attention, gelu};

/// `x` where positive, else `0.1 * x`.
pub fn leaky_relu(x: Tensor<3>) -> Tensor<3> {
    ops::leaky_relu(x, 0.1)
}

/// The mean cross entropy of logits.
pub fn cross_entropy(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, labels)
}

/// The mean over time of features `[batch, time, width]`, and a linear head.
#[derive(Module, Debug)]
pub struct Head {
    head: Linear,
}

impl Head {
    /// A head with Burn's initialisation.
    pub fn new(width: usize, classes: usize, device: &Device) -> Self {
        Self { head: Linear::new(&LinearConfig::new(width, classes), device) }
    }

    /// Logits.
    pub fn forward(&self, features: Tensor<3>) -> Tensor<2> {
        self.head.forward(features.mean_dim(1).squeeze_dim::<2>(1))
    }
}
