//! The CPU: 1-D convolutions of `f32`, with weights of that or of half precision, by [`lowrank::kernels::conv1d`];
//! anything else by the default.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use lowrank::geometry::ConvGeometry;
use lowrank::kernels::activation::Activation;
use lowrank::kernels::conv1d::{self, LowRank, Problem, Weight};

use super::super::flex::{are_f32, can_be_held, contiguous, held, tensor, values};
use super::body::{self, ConvBody};
use super::{ConvDims, LowRankConv};

impl ConvBody for Flex {
    fn conv_forward(
        x: FlexTensor,
        weight: FlexTensor,
        a: FlexTensor,
        b: FlexTensor,
        bias: FlexTensor,
        spec: &LowRankConv,
    ) -> FlexTensor {
        let Some(fast) = Fast::new(&x, &weight, &spec.dims, [&a, &b, &bias]) else {
            return body::folded_forward::<Self>(x, weight, a, b, bias, spec);
        };
        let [a, b] = [a, b].map(contiguous);
        fast.forward(&x, &weight, Some(low_rank(&a, &b, spec)), &bias)
    }

    fn conv_backward(
        x: FlexTensor,
        weight: FlexTensor,
        a: FlexTensor,
        b: FlexTensor,
        dy: FlexTensor,
        spec: &LowRankConv,
        wants_dx: bool,
    ) -> (Option<FlexTensor>, FlexTensor, FlexTensor) {
        let Some(fast) = Fast::new(&x, &weight, &spec.dims, [&a, &b, &dy]) else {
            return body::folded_backward::<Self>(x, weight, a, b, dy, spec, wants_dx);
        };
        let ([a, b], dy) = ([a, b].map(contiguous), contiguous(dy));
        let low = low_rank(&a, &b, spec);
        let dx = wants_dx.then(|| fast.dx(&weight, Some(low), &dy));
        let x = contiguous(x);
        let (da, db) = conv1d::low_rank_gradients(&fast.problem(), values(&x), values(&dy), &low);
        (dx, tensor(da, a.shape()), tensor(db, b.shape()))
    }

    fn plain_forward(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, dims: &ConvDims) -> FlexTensor {
        match Fast::new(&x, &weight, dims, [&bias]) {
            Some(fast) => fast.forward(&x, &weight, None, &bias),
            None => body::conv::<Self>(x, weight, bias, dims),
        }
    }

    fn plain_dx(x: FlexTensor, weight: FlexTensor, dy: FlexTensor, dims: &ConvDims) -> FlexTensor {
        match Fast::new(&x, &weight, dims, [&dy]) {
            Some(fast) => fast.dx(&weight, None, &dy),
            None => body::conv_dx::<Self>(x, weight, dy, dims),
        }
    }

    fn plain_dw(x: FlexTensor, weight: FlexTensor, dy: FlexTensor, dims: &ConvDims) -> FlexTensor {
        let Some(fast) = Fast::new(&x, &weight, dims, [&dy]) else {
            return body::conv_dw::<Self>(x, weight, dy, dims);
        };
        let [x, dy] = [x, dy].map(contiguous);
        tensor(conv1d::weight_gradient(&fast.problem(), values(&x), values(&dy)), weight.shape())
    }
}

/// A convolution that the kernels take.
pub(super) struct Fast {
    geometry: ConvGeometry,
    batch: usize,
    length: usize,
    columns: usize,
}

impl Fast {
    /// `None` for two axes, for another type than the kernels take, and for shapes that do not fit: those are the default's to refuse.
    pub fn new<const N: usize>(
        x: &FlexTensor,
        weight: &FlexTensor,
        dims: &ConvDims,
        others: [&FlexTensor; N],
    ) -> Option<Self> {
        if !matches!(dims, ConvDims::One(..)) || !are_f32([x]) || !are_f32(others) || !can_be_held(weight) {
            return None;
        }
        let (input, kernel) = (x.shape(), weight.shape());
        let geometry = dims.geometry(input[1], &kernel).ok()?;
        let columns = geometry.output_lengths(&[input[2]]).ok()?[0];
        (geometry.weight_shape()[..] == kernel[..]).then_some(Self {
            geometry,
            batch: input[0],
            length: input[2],
            columns,
        })
    }

    pub fn problem(&self) -> Problem<'_> {
        Problem { geometry: &self.geometry, batch: self.batch, length: self.length }
    }

    /// The shape of the output.
    pub fn output(&self) -> [usize; 3] {
        [self.batch, self.geometry.out_channels(), self.columns]
    }

    fn forward(
        &self,
        x: &FlexTensor,
        weight: &FlexTensor,
        low_rank: Option<LowRank<'_>>,
        bias: &FlexTensor,
    ) -> FlexTensor {
        let [x, weight, bias] = [x, weight, bias].map(|tensor| contiguous(tensor.clone()));
        let weight = Weight { base: held(&weight), low_rank };
        let y = conv1d::forward(&self.problem(), values(&x), &weight, Some(values(&bias)), Activation::Identity);
        tensor(y, self.output())
    }

    fn dx(&self, weight: &FlexTensor, low_rank: Option<LowRank<'_>>, dy: &FlexTensor) -> FlexTensor {
        let [weight, dy] = [weight, dy].map(|tensor| contiguous(tensor.clone()));
        let shape = [self.batch, self.geometry.in_channels(), self.length];
        let weight = Weight { base: held(&weight), low_rank };
        tensor(conv1d::input_gradient(&self.problem(), values(&dy), &weight), shape)
    }
}

fn low_rank<'a>(a: &'a FlexTensor, b: &'a FlexTensor, spec: &LowRankConv) -> LowRank<'a> {
    LowRank { a: values(a), b: values(b), rank: a.shape()[0], blocks: spec.blocks, scale: spec.scale }
}
