//! [`burn::nn::BatchNorm`] in evaluation, on the fused operation.

use burn::module::{Module, Param, RunningState};
use burn::tensor::{Device, Tensor};

use crate::ops;

/// The configuration of a [`BatchNorm`] layer: Burn's own.
pub use burn::nn::BatchNormConfig;

/// `y = γ·(x - running_mean) / √(running_var + ε) + β`: [`burn::nn::BatchNorm`] in evaluation, always.
///
/// The running statistics stay what the base model learned, also while adapters are trained: an adapter is a change of
/// weights, and has no file for other statistics.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// `[channels]`; `weight` in `PyTorch`.
    pub gamma: Param<Tensor<1>>,
    /// `[channels]`; `bias` in `PyTorch`.
    pub beta: Param<Tensor<1>>,
    /// `[channels]`.
    pub running_mean: RunningState<Tensor<1>>,
    /// `[channels]`.
    pub running_var: RunningState<Tensor<1>>,
    /// `ε`.
    pub epsilon: f64,
}

impl From<burn::nn::BatchNorm> for BatchNorm {
    fn from(layer: burn::nn::BatchNorm) -> Self {
        Self {
            gamma: layer.gamma,
            beta: layer.beta,
            running_mean: layer.running_mean,
            running_var: layer.running_var,
            epsilon: layer.epsilon,
        }
    }
}

impl BatchNorm {
    /// A layer with Burn's initialisation: a mean of 0 and a variance of 1, to load others over.
    #[must_use]
    pub fn new(config: &BatchNormConfig, device: &Device) -> Self {
        config.init(device).into()
    }

    /// Normalises each channel by its running statistics.
    ///
    /// # Shapes
    /// - input: `[batch, channels, …]`
    /// - output: that of the input
    ///
    /// # Panics
    /// When the second axis of `input` is not that of the parameters.
    #[must_use]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let device = input.device();
        let statistics = [&self.running_mean, &self.running_var].map(|state| state.value().to_device(&device).detach());
        ops::batch_norm_eval(input, [self.gamma.val(), self.beta.val()], statistics, self.epsilon)
    }
}
