//! [`burn::nn::conv::Conv3d`] with adapters on the fused operation.

use burn::module::{Module, Param};
use burn::nn::PaddingConfig3d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};

use super::{Fused, conv};
use crate::ops::ConvDims;

/// The configuration of a [`Conv3d`] layer: Burn's own.
pub use burn::nn::conv::Conv3dConfig;

/// A convolution over `[batch, channels, depth, height, width]`, as [`burn::nn::conv::Conv3d`].
#[derive(Module, Debug)]
pub struct Conv3d {
    /// `[channels_out, channels_in / groups, kernel_depth, kernel_height, kernel_width]`.
    pub weight: Param<Tensor<5>>,
    /// `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Stride of the convolution.
    pub stride: [usize; 3],
    /// Size of the kernel.
    pub kernel_size: [usize; 3],
    /// Spacing between kernel elements.
    pub dilation: [usize; 3],
    /// Controls the connections between input and output channels.
    pub groups: usize,
    /// How many zeros are added on each side.
    #[module(skip)]
    pub padding: PaddingConfig3d,
    #[module(skip)]
    fused: Fused,
}

impl From<burn::nn::conv::Conv3d> for Conv3d {
    fn from(layer: burn::nn::conv::Conv3d) -> Self {
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

impl Conv3d {
    /// A layer with Burn's initialisation.
    #[must_use]
    pub fn new(config: &Conv3dConfig, device: &Device) -> Self {
        config.init(device).into()
    }

    /// Applies the convolution and its active adapters.
    ///
    /// # Shapes
    /// - input: `[batch, channels_in, depth_in, height_in, width_in]`
    /// - output: `[batch, channels_out, depth_out, height_out, width_out]`
    ///
    /// # Panics
    /// When the channels differ, the padded input is smaller than the kernel, or `Same` would need more zeros on one side
    /// than on the other, which Burn's convolutions over three axes do not take.
    #[must_use]
    pub fn forward(&self, input: Tensor<5>) -> Tensor<5> {
        let shape = input.dims();
        let padding = match self.padding {
            PaddingConfig3d::Valid => [0; 3],
            PaddingConfig3d::Explicit(depth, height, width) => [depth, height, width],
            PaddingConfig3d::Same => std::array::from_fn(|axis| {
                let (kernel, stride, dilation) = (self.kernel_size[axis], self.stride[axis], self.dilation[axis]);
                let (before, after) = super::conv2d::same_padding(kernel, stride, dilation, shape[2 + axis]);
                assert_eq!(before, after, "as many zeros before axis {axis} as after");
                before
            }),
        };
        let options = ConvOptions::new(self.stride, padding, self.dilation, self.groups);
        conv::forward(input, &self.weight, self.bias.as_ref(), &ConvDims::Three(options))
    }
}
