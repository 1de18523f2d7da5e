//! [`burn::nn::BatchNorm`] in evaluation, on the fused operation.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::ops;

/// The configuration of a [`BatchNorm`] layer: Burn's own.
pub use burn::nn::BatchNormConfig;

/// `y = γ·(x - running_mean) / √(running_var + ε) + β`: [`burn::nn::BatchNorm`] in evaluation, always.
///
/// The running statistics stay what the base model learned, also while adapters are trained. They are plain parameters that
/// never train, so that an adapter file can bring others (PEFT saves those of a norm in `modules_to_save`).
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// `[channels]`; `weight` in `PyTorch`.
    pub gamma: Param<Tensor<1>>,
    /// `[channels]`; `bias` in `PyTorch`.
    pub beta: Param<Tensor<1>>,
    /// `[channels]`.
    pub running_mean: Param<Tensor<1>>,
    /// `[channels]`.
    pub running_var: Param<Tensor<1>>,
    /// `ε`.
    pub epsilon: f64,
}

impl From<burn::nn::BatchNorm> for BatchNorm {
    fn from(layer: burn::nn::BatchNorm) -> Self {
        Self {
            gamma: layer.gamma,
            beta: layer.beta,
            running_mean: Param::from_tensor(layer.running_mean.value()).set_require_grad(false),
            running_var: Param::from_tensor(layer.running_var.value()).set_require_grad(false),
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
        let statistics = [&self.running_mean, &self.running_var].map(|state| state.val().to_device(&device).detach());
        ops::batch_norm_eval(input, [self.gamma.val(), self.beta.val()], statistics, self.epsilon)
    }
}
