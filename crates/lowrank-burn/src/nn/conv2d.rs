//! [`burn::nn::conv::Conv2d`] with adapters on the fused operation.

use burn::module::{Module, Param};
use burn::nn::PaddingConfig2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};

use super::{Fused, conv};
use crate::ops::ConvDims;

/// The configuration of a [`Conv2d`] layer: Burn's own.
pub use burn::nn::conv::Conv2dConfig;

/// A convolution over `[batch, channels, height, width]`, as [`burn::nn::conv::Conv2d`].
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[channels_out, channels_in / groups, kernel_height, kernel_width]`.
    pub weight: Param<Tensor<4>>,
    /// `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Stride of the convolution.
    pub stride: [usize; 2],
    /// Size of the kernel.
    pub kernel_size: [usize; 2],
    /// Spacing between kernel elements.
    pub dilation: [usize; 2],
    /// Controls the connections between input and output channels.
    pub groups: usize,
    /// How many zeros are added on each side.
    #[module(skip)]
    pub padding: PaddingConfig2d,
    #[module(skip)]
    fused: Fused,
}

impl From<burn::nn::conv::Conv2d> for Conv2d {
    fn from(layer: burn::nn::conv::Conv2d) -> Self {
        Self {
            weight: layer.weight,
            bias: layer.bias,
            stride: layer.stride,
            kernel_size: layer.kernel_size,
            dilation: layer.dilation,
            groups: layer.groups,
            padding: layer.padding,
            fused: Fused,
        }
    }
}

impl Conv2d {
    /// A layer with Burn's initialisation.
    #[must_use]
    pub fn new(config: &Conv2dConfig, device: &Device) -> Self {
        config.init(device).into()
    }

    /// Applies the convolution and its active adapters.
    ///
    /// # Shapes
    /// - input: `[batch, channels_in, height_in, width_in]`
    /// - output: `[batch, channels_out, height_out, width_out]`
    ///
    /// # Panics
    /// When the channels differ or the padded input is smaller than the kernel.
    #[must_use]
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = input.dims();
        let padding = match self.padding {
            PaddingConfig2d::Valid => [(0, 0); 2],
            PaddingConfig2d::Explicit(top, left, bottom, right) => [(top, bottom), (left, right)],
            PaddingConfig2d::Same => [(0, height), (1, width)].map(|(axis, length)| {
                same_padding(self.kernel_size[axis], self.stride[axis], self.dilation[axis], length)
            }),
        };
        let options = ConvOptions::new_with_padding(self.stride, padding, self.dilation, self.groups);
        conv::forward(input, &self.weight, self.bias.as_ref(), &ConvDims::Two(options))
    }
}

/// Zeros before and after one axis such that the output has `ceil(length / stride)` positions.
pub(super) fn same_padding(kernel: usize, stride: usize, dilation: usize, length: usize) -> (usize, usize) {
    let span = dilation * (kernel - 1) + 1;
    let needed = (length.div_ceil(stride).saturating_sub(1) * stride + span).saturating_sub(length);
    (needed / 2, needed - needed / 2)
}
