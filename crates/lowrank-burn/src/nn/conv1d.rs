//! [`burn::nn::conv::Conv1d`] with adapters on the fused operation, and `PyTorch`'s padding modes.

use burn::module::{Module, Param};
use burn::nn::PaddingConfig1d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};
use lowrank::geometry::PaddingMode;

use super::{Fused, conv};
use crate::ops::ConvDims;

/// The configuration of a [`Conv1d`] layer: Burn's own.
pub use burn::nn::conv::Conv1dConfig;

/// A convolution over `[batch, channels, length]`, as [`burn::nn::conv::Conv1d`].
#[derive(Module, Debug)]
pub struct Conv1d {
    /// `[channels_out, channels_in / groups, kernel_size]`.
    pub weight: Param<Tensor<3>>,
    /// `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Stride of the convolution.
    pub stride: usize,
    /// Size of the kernel.
    pub kernel_size: usize,
    /// Spacing between kernel elements.
    pub dilation: usize,
    /// Controls the connections between input and output channels.
    pub groups: usize,
    /// How much is added at each end.
    #[module(skip)]
    pub padding: PaddingConfig1d,
    /// What is added at each end; Burn's layer has zeros only.
    #[module(skip)]
    pub padding_mode: PaddingMode,
    #[module(skip)]
    fused: Fused,
}

impl From<burn::nn::conv::Conv1d> for Conv1d {
    fn from(layer: burn::nn::conv::Conv1d) -> Self {
        Self {
            weight: layer.weight,
            bias: layer.bias,
            stride: layer.stride,
            kernel_size: layer.kernel_size,
            dilation: layer.dilation,
            groups: layer.groups,
            padding: layer.padding,
            padding_mode: PaddingMode::Zeros,
            fused: Fused,
        }
    }
}

impl Conv1d {
    /// A layer with Burn's initialisation and zero padding.
    #[must_use]
    pub fn new(config: &Conv1dConfig, device: &Device) -> Self {
        config.init(device).into()
    }

    /// The same layer with another padding mode.
    #[must_use]
    pub fn with_padding_mode(mut self, mode: PaddingMode) -> Self {
        self.padding_mode = mode;
        self
    }

    /// Applies the convolution and its active adapters.
    ///
    /// `Same` keeps the length at stride 1 for any dilation, as in `PyTorch`; Burn's layer leaves dilation out of the
    /// count.
    ///
    /// # Shapes
    /// - input: `[batch, channels_in, length_in]`
    /// - output: `[batch, channels_out, length_out]`
    ///
    /// # Panics
    /// When the channels differ, the padded input is shorter than the kernel, or reflect or circular padding is longer
    /// than the input allows.
    #[must_use]
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let padding = self.padding_pair(input.dims()[2]);
        let options = ConvOptions::new_with_padding([self.stride], [padding], [self.dilation], self.groups);
        let dims = ConvDims::One(options, self.padding_mode);
        conv::forward(input, &self.weight, self.bias.as_ref(), &dims)
    }

    fn padding_pair(&self, length: usize) -> (usize, usize) {
        match self.padding {
            PaddingConfig1d::Valid => (0, 0),
            PaddingConfig1d::Explicit(left, right) => (left, right),
            PaddingConfig1d::Same => super::conv2d::same_padding(self.kernel_size, self.stride, self.dilation, length),
        }
    }
}
