//! What a layer reads, told to whoever observes it: see [`Adapters::observe`](crate::attach::Adapters::observe).

use burn::module::Param;
use burn::tensor::Tensor;

use crate::adapter::LoraAdapter;
use crate::ops::ConvDims;
use crate::values;

/// `[.., d_input]` before a linear layer.
pub(super) fn linear<const D: usize>(x: &Tensor<D>, weight: &Param<Tensor<2>>) {
    if let Some(adapter) = weight.reparameterization::<LoraAdapter>() {
        adapter.observe(|moments| moments.add_linear(&values::of(x.clone())));
    }
}

/// `[batch, channels, length..]` before a convolution; signals that are too short are the layer's to refuse.
pub(super) fn convolution<const D: usize>(x: &Tensor<D>, weight: &Param<Tensor<D>>, dims: &ConvDims) {
    if let Some(adapter) = weight.reparameterization::<LoraAdapter>() {
        adapter.observe(|moments| {
            let shape = x.dims();
            if let Ok(geometry) = dims.geometry(shape[1], &weight.lazy_shape()) {
                let _ = moments.add_convolution(&geometry, &values::of(x.clone()), &shape[2..]);
            }
        });
    }
}
