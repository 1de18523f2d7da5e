//! transformers' `Conv1D`, the linear layer of GPT-2, with adapters on the fused operation.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

use super::{Fused, linear};

/// `y = x·W + b` with the weight as transformers' `Conv1D` stores it, `(in, out)`. Not a convolution.
///
/// The class is called `Conv1D` there; here the name says whose it is, apart from [`Conv1d`](super::Conv1d). Tensors have
/// the names and the layout of a checkpoint of transformers, and an adapter the keys that PEFT gives it on that class:
/// `lora_A.weight` `(r, in)` and `lora_B.weight` `(out, r)`, as on a [`Linear`](super::Linear).
#[derive(Module, Debug)]
pub struct HfConv1D {
    /// `[d_input, d_output]`.
    pub weight: Param<Tensor<2>>,
    /// `[d_output]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    fused: Fused,
}

impl HfConv1D {
    /// A layer with transformers' initialisation: the weight normal with a deviation of 0.02, the bias zero.
    #[must_use]
    pub fn new(d_input: usize, d_output: usize, device: &Device) -> Self {
        Self {
            weight: Initializer::Normal { mean: 0.0, std: 0.02 }.init([d_input, d_output], device),
            bias: Initializer::Zeros.init([d_output], device),
            fused: Fused,
        }
    }

    /// Applies the layer and its active adapters.
    ///
    /// # Shapes
    /// - input: `[…, d_input]`
    /// - output: `[…, d_output]`
    ///
    /// # Panics
    /// When the last axis of `input` is not `d_input`.
    #[must_use]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        linear::forward(input, &self.weight, Some(&self.bias))
    }
}
