//! [`burn::nn::Gelu`] on the fused operation.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::ops;

/// `x·Φ(x)`, as [`burn::nn::Gelu`].
#[derive(Module, Debug, Default)]
pub struct Gelu {
    /// Whether to use the tanh approximation.
    pub approximate: bool,
}

impl From<burn::nn::Gelu> for Gelu {
    fn from(layer: burn::nn::Gelu) -> Self {
        Self { approximate: layer.approximate }
    }
}

impl Gelu {
    /// Applies the function to every value.
    #[must_use]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        if self.approximate { ops::gelu_approximate(input) } else { ops::gelu(input) }
    }
}
