//! [`burn::nn::Linear`] with adapters on the fused operation.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::Fused;
use super::conv::{low_rank_paths, reduced};
use crate::adapter::LowRank;
use crate::ops::{linear, lora_linear};

/// The configuration of a [`Linear`] layer: Burn's own.
pub use burn::nn::LinearConfig;

/// `y = x·W + b`, as [`burn::nn::Linear`].
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_input, d_output]`, the transpose of PyTorch's.
    pub weight: Param<Tensor<2>>,
    /// `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    fused: Fused,
}

impl From<burn::nn::Linear> for Linear {
    fn from(layer: burn::nn::Linear) -> Self {
        Self { weight: layer.weight, bias: layer.bias, fused: Fused }
    }
}

impl Linear {
    /// A layer with Burn's initialisation.
    #[must_use]
    pub fn new(config: &LinearConfig, device: &Device) -> Self {
        config.init(device).into()
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
        let bias = self.bias.as_ref().map(Param::val);
        let Some(paths) = low_rank_paths(&self.weight) else {
            return linear(input, self.weight.val(), bias);
        };
        let weight = reduced(self.weight.base(), &paths);
        let mut paths = paths.into_iter().peekable();
        let first = paths.next_if(|(path, _)| !path.drops(&input));
        let y = match first {
            Some((path, multiplier)) => {
                let scale = path.scale * multiplier;
                lora_linear(input.clone(), weight, path.a.val(), path.b.val(), bias, scale)
            }
            None => linear(input.clone(), weight, bias),
        };
        paths.fold(y, |y, (path, multiplier)| y + two_path(input.clone(), path, multiplier))
    }
}

/// `s·(dropout(x)·Aᵀ)·Bᵀ`.
fn two_path<const D: usize>(x: Tensor<D>, path: &LowRank, multiplier: f32) -> Tensor<D> {
    let x = match &path.dropout {
        Some(dropout) => dropout.forward(x),
        None => x,
    };
    let h = linear(x, path.a.val().transpose(), None);
    linear(h, path.b.val().transpose(), None).mul_scalar(path.scale * multiplier)
}
