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
    /// `W`.
    pub weight: Tensor<D>,
    /// What is folded into it.
    pub factors: Option<Factors>,
    /// The bias.
    pub bias: Option<Tensor<1>>,
}

/// A convolution over one axis in which sample `n` has the kernel and the bias of `own[which[n]]`, in one pass.
///
/// For inference on the CPU: `None` on other backends, over several axes, and where a gradient is wanted, which one
/// convolution for each of `own` gives as well.
#[must_use]
pub fn convolve_each<const D: usize>(
    x: &Tensor<D>,
    own: &[OwnConv<D>],
    which: &[usize],
    dims: &ConvDims,
) -> Option<Tensor<D>> {
    if x.is_tracked() || !matches!(dims, ConvDims::One(..)) {
        return None;
    }
    let own = own.iter().map(Own::new).collect::<Option<Vec<_>>>()?;
    let on_tape = x.is_autodiff();
    let x = primitive(x)?;
    let fast = Fast::new(&x, &own.first()?.weight, dims, [])?;
    let x = contiguous(x);
    let layers: Vec<_> = own.iter().map(Own::layer).collect();
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

/// [`OwnConv`] in the memory of the CPU, contiguous.
struct Own {
    weight: FlexTensor,
    factors: Option<[FlexTensor; 2]>,
    scale: f32,
    blocks: usize,
    bias: Option<FlexTensor>,
}

impl Own {
    fn new<const D: usize>(own: &OwnConv<D>) -> Option<Self> {
        let weight = contiguous(primitive(&own.weight)?);
        let (scale, blocks) = own.factors.as_ref().map_or((1.0, 1), |factors| (factors.scale, factors.blocks));
        let factors = match &own.factors {
            Some(Factors { a, b, .. }) => Some([contiguous(primitive(a)?), contiguous(primitive(b)?)]),
            None => None,
        };
        let bias = match &own.bias {
            Some(bias) => Some(contiguous(primitive(bias)?)),
            None => None,
        };
        let singles = factors.iter().flatten().chain(&bias);
        let fits = can_be_held(&weight) && singles.into_iter().all(|tensor| are_f32([tensor]));
        fits.then_some(Self { weight, factors, scale, blocks, bias })
    }

    fn layer(&self) -> Layer<'_> {
        let low_rank = self.factors.as_ref().map(|[a, b]| LowRank {
            a: values(a),
            b: values(b),
            rank: a.shape()[0],
            blocks: self.blocks,
            scale: self.scale,
        });
        Layer { weight: Weight { base: held(&self.weight), low_rank }, bias: self.bias.as_ref().map(values) }
    }
}
