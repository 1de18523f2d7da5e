//! Activations under the names that transformers has for them.

use burn::tensor::Tensor;
use lowrank::kernels::activation::Activation;
use serde::{Deserialize, Serialize};

use crate::ops::activate;

/// An activation of a `config.json`: transformers' `ACT2FN`, those of it that are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    /// `x·Φ(x)`.
    Gelu,
    /// The tanh form of GELU.
    GeluNew,
    /// The same.
    GeluPytorchTanh,
    /// The same, computed in another order there.
    GeluFast,
    /// `max(x, 0)`.
    Relu,
    /// `x / (1 + e⁻ˣ)`.
    Silu,
    /// The same.
    Swish,
}

impl HiddenAct {
    /// Applies it to every value.
    #[must_use]
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        let activation = match self {
            Self::Gelu => Activation::Gelu,
            Self::GeluNew | Self::GeluPytorchTanh | Self::GeluFast => Activation::GeluTanh,
            Self::Relu => Activation::Relu,
            Self::Silu | Self::Swish => Activation::Silu,
        };
        activate(x, activation)
    }
}
