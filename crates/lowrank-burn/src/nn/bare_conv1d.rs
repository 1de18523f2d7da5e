//! A causal convolution at any dilation, with parameters that a checkpoint holds bare.

use burn::module::{Module, Param};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};
use lowrank::geometry::PaddingMode;

use super::{Conv1dConfig, Fused, conv};
use crate::ops::ConvDims;

/// A causal convolution over `[batch, channels, length]` whose dilation comes with the input: one filter, and one adapter on
/// it, for several scales.
///
/// `PyTorch` models write such a filter as two parameters and a call of `F.conv1d`, without a module of its own. So the
/// parameters of the layer `dw` are `dw_weight` and `dw_bias` in a checkpoint, beside their siblings, where those of a
/// [`Conv1d`](super::Conv1d) would be `dw.weight` and `dw.bias`. PEFT has nowhere to put an adapter on them: merge it, or use
/// it here.
#[derive(Module, Debug)]
pub struct BareConv1d {
    /// `[channels_out, channels_in / groups, kernel_size]`.
    pub weight: Param<Tensor<3>>,
    /// `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Size of the kernel.
    pub kernel_size: usize,
    /// Controls the connections between input and output channels.
    pub groups: usize,
    #[module(skip)]
    fused: Fused,
}

impl BareConv1d {
    /// A layer with Burn's initialisation; stride, dilation and padding of the configuration do not apply.
    #[must_use]
    pub fn new(config: &Conv1dConfig, device: &Device) -> Self {
        let layer = config.init(device);
        let (kernel_size, groups) = (layer.kernel_size, layer.groups);
        Self { weight: layer.weight, bias: layer.bias, kernel_size, groups, fused: Fused }
    }

    /// Applies the convolution and its active adapters: `y[t]` sees `x[t]`, `x[t - dilation]`, and so on, with zeros before
    /// the beginning.
    ///
    /// # Shapes
    /// - input: `[batch, channels_in, length]`
    /// - output: `[batch, channels_out, length]`
    ///
    /// # Panics
    /// When the channels differ, or `dilation` is 0.
    #[must_use]
    pub fn forward(&self, input: Tensor<3>, dilation: usize) -> Tensor<3> {
        let span = dilation * (self.kernel_size - 1);
        let options = ConvOptions::new_with_padding([1], [(span, 0)], [dilation], self.groups);
        conv::forward(input, &self.weight, self.bias.as_ref(), &ConvDims::One(options, PaddingMode::Zeros))
    }
}
