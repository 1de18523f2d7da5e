//! Convolution of a batch in which not every sample has the same weight.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Tensor;
use lowrank::kernels::activation::Activation;
use lowrank::kernels::conv1d::{self, Layer, LowRank, Weight};

use super::super::flex::{are_f32, can_be_held, contiguous, held, tensor, values};
use super::ConvDims;
use super::flex::Fast;

/// The factors of an adapter on a convolution; see [`lora_conv`](super::lora_conv) for the shapes.
#[derive(Debug, Clone)]
pub struct Factors {
    /// `A`.
    pub a: Tensor<2>,
    /// `B`.
    pub b: Tensor<2>,
    /// `s` in `W + s·B·A`.
    pub scale: f32,
    /// Independent low-rank blocks.
    pub blocks: usize,
}

/// What some samples of a batch are convolved with.
#[derive(Debug, Clone)]
pub struct OwnConv<const D: usize> {
    /// `W`, where it is not the layer's.
    pub weight: Option<Tensor<D>>,
    /// What is folded into it.
    pub factors: Option<Factors>,
    /// The bias.
    pub bias: Option<Tensor<1>>,
}

/// A convolution over one axis by `weight` in which sample `n` has the kernel and the bias of `own[which[n]]`, in one pass.
///
/// For inference on the CPU: `None` on other backends, over several axes, and where a gradient is wanted, which one
/// convolution for each of `own` gives as well.
#[must_use]
pub fn convolve_each<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<D>,
    own: &[OwnConv<D>],
    which: &[usize],
    dims: &ConvDims,
) -> Option<Tensor<D>> {
    let own = own.iter().map(Own::new).collect::<Option<Vec<_>>>()?;
    let on_tape = x.is_autodiff();
    let [x, weight] = [primitive(x)?, primitive(weight)?];
    let fast = Fast::new(&x, &weight, dims, [])?;
    let [x, weight] = [x, weight].map(contiguous);
    let layers: Vec<_> = own.iter().map(|own| own.layer(&weight)).collect();
    let y = conv1d::forward_each(&fast.problem(), values(&x), &layers, which, Activation::Identity);
    let y = Tensor::from_primitive::<Flex>(tensor(y, fast.output()));
    Some(if on_tape { y.autodiff() } else { y })
}

/// A tensor of the CPU, if it is one that needs no gradient.
fn primitive<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
    if tensor.is_tracked() {
        return None;
    }
    tensor.clone().without_autodiff().try_into_primitive::<Flex>().ok()
}

/// The same, contiguous, of a tensor that need not be there.
#[expect(clippy::option_option, reason = "there may be no tensor, and there may be one that cannot be taken")]
fn optional<const D: usize>(tensor: Option<&Tensor<D>>) -> Option<Option<FlexTensor>> {
    tensor.map_or(Some(None), |tensor| primitive(tensor).map(contiguous).map(Some))
}

/// [`OwnConv`] in the memory of the CPU, contiguous.
struct Own {
    weight: Option<FlexTensor>,
    factors: Option<[FlexTensor; 2]>,
    scale: f32,
    blocks: usize,
    bias: Option<FlexTensor>,
}

impl Own {
    fn new<const D: usize>(own: &OwnConv<D>) -> Option<Self> {
        let (scale, blocks) = own.factors.as_ref().map_or((1.0, 1), |factors| (factors.scale, factors.blocks));
        let factors = match &own.factors {
            Some(Factors { a, b, .. }) => Some([contiguous(primitive(a)?), contiguous(primitive(b)?)]),
            None => None,
        };
        let weight = optional(own.weight.as_ref())?;
        let bias = optional(own.bias.as_ref())?;
        let singles = factors.iter().flatten().chain(&bias);
        let fits = weight.as_ref().is_none_or(can_be_held) && singles.into_iter().all(|tensor| are_f32([tensor]));
        fits.then_some(Self { weight, factors, scale, blocks, bias })
    }

    /// `base` is the weight of those that have none of their own.
    fn layer<'a>(&'a self, base: &'a FlexTensor) -> Layer<'a> {
        let low_rank = self.factors.as_ref().map(|[a, b]| LowRank {
            a: values(a),
            b: values(b),
            rank: a.shape()[0],
            blocks: self.blocks,
            scale: self.scale,
        });
        let base = held(self.weight.as_ref().unwrap_or(base));
        Layer { weight: Weight { base, low_rank }, bias: self.bias.as_ref().map(values) }
    }
}
