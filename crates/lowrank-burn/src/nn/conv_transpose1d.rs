//! [`burn::nn::conv::ConvTranspose1d`] with adapters on the fused operation.

use burn::module::{Module, Param};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};
use lowrank::geometry::PaddingMode;

use super::{Fused, conv};
use crate::ops::{ConvDims, Transposed};

/// The configuration of a [`ConvTranspose1d`] layer: Burn's own.
pub use burn::nn::conv::ConvTranspose1dConfig;

/// A transposed convolution over `[batch, channels, length]`, as [`burn::nn::conv::ConvTranspose1d`].
///
/// PEFT has no adapter for it. Here it has the factors of a convolution, `A (r, in, k…)` and `B (out, r, 1…)`, and the
/// delta `s·Σ_p B[o, p]·A[p, i, t]` in the place that the weight has for it, `[i, o, t]`.
#[derive(Module, Debug)]
pub struct ConvTranspose1d {
    /// `[channels_in, channels_out / groups, kernel_size]`.
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
    /// How much of the output is left out at each end.
    pub padding: usize,
    /// How much the output is longer at its end.
    pub padding_out: usize,
    /// Channels of the input and of the output.
    pub channels: [usize; 2],
    #[module(skip)]
    fused: Fused,
}

impl From<burn::nn::conv::ConvTranspose1d> for ConvTranspose1d {
    fn from(layer: burn::nn::conv::ConvTranspose1d) -> Self {
        Self {
            weight: layer.weight,
            bias: layer.bias,
            stride: layer.stride,
            kernel_size: layer.kernel_size,
            dilation: layer.dilation,
            groups: layer.groups,
            padding: layer.padding,
            padding_out: layer.padding_out,
            channels: layer.channels,
            fused: Fused,
        }
    }
}

impl ConvTranspose1d {
    /// A layer with Burn's initialisation.
    #[must_use]
    pub fn new(config: &ConvTranspose1dConfig, device: &Device) -> Self {
        config.init(device).into()
    }

    /// Applies the transposed convolution and its active adapters:
    /// `y[n, o, q] = bias[o] + Σ (W + delta)[i, o, j]·x[n, i, t]`, over all `t` and `j` with
    /// `q = stride·t + dilation·j − padding`.
    ///
    /// # Shapes
    /// - input: `[batch, channels_in, length_in]`
    /// - output: `[batch, channels_out, length_out]`, with
    ///   `length_out = stride·(length_in − 1) + dilation·(kernel_size − 1) + 1 − 2·padding + padding_out`
    ///
    /// # Panics
    /// When the channels differ, or nothing of the output is left within the padding.
    #[must_use]
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let (stride, padding_out) = ([self.stride], [self.padding_out]);
        let options = ConvOptions::new(stride, [self.padding], [self.dilation], self.groups);
        let (input, padding_out) = conv::within_stride(input, stride, padding_out);
        let dims = ConvDims::Transposed(Transposed::new(ConvDims::One(options, PaddingMode::Zeros), &padding_out));
        conv::forward(input, &self.weight, self.bias.as_ref(), &dims)
    }
}
