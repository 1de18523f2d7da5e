//! The convolutions as nodes of the autodiff graph.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, backend_extension};

use super::super::cast::cast_as;
use super::super::graph::register;
use super::body::ConvBody;
use super::{ConvDims, LowRankConv};

/// The convolutions as operations of a backend; their backward lives in the implementation for `Autodiff`.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub trait LoraConv: Backend {
    /// `conv(x, W + s·B·A) + bias`; `W` and the bias are constants, no gradient flows into them.
    fn lora_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: LowRankConv,
    ) -> FloatTensor<Self>;

    /// `conv(x, W) + bias`; the bias is a constant.
    fn plain_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dims: ConvDims,
    ) -> FloatTensor<Self>;
}

impl<B: ConvBody> LoraConv for B {
    fn lora_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: LowRankConv,
    ) -> FloatTensor<Self> {
        Self::conv_forward(x, weight, a, b, bias, &spec)
    }

    fn plain_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dims: ConvDims,
    ) -> FloatTensor<Self> {
        Self::plain_forward(x, weight, bias, &dims)
    }
}

#[derive(Debug)]
struct LoraConvBackward;

impl<B: ConvBody> Backward<B, 3> for LoraConvBackward {
    /// `x`, `weight`, `a`, `b`: the weight and the factors are shared with the model, only `x` is kept for us.
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, LowRankConv);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let dy = grads.consume::<B>(&ops.node);
        let (x, weight, a, b, spec) = ops.state;
        let (dx, da, db) = B::conv_backward(x, weight, a, b, dy, &spec, parents[0].is_some());
        register::<B, 3>(parents, [dx, Some(da), Some(db)], grads);
    }
}

#[derive(Debug)]
struct PlainConvBackward;

impl<B: ConvBody> Backward<B, 2> for PlainConvBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, ConvDims);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let dy = grads.consume::<B>(&ops.node);
        let (x, weight, dims) = ops.state;
        let dx = parents[0].map(|_| B::plain_dx(x.clone(), weight.clone(), dy.clone(), &dims));
        let dw = parents[1].map(|_| cast_as::<B>(B::plain_dw(x, weight.clone(), dy, &dims), &weight));
        register::<B, 2>(parents, [dx, dw], grads);
    }
}

impl<B: ConvBody, C: CheckpointStrategy> LoraConv for Autodiff<B, C> {
    fn lora_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: LowRankConv,
    ) -> FloatTensor<Self> {
        let prepared = LoraConvBackward.prepare::<C>([x.node(), a.node(), b.node()]).compute_bound().stateful();
        let (x, weight, a, b) = (x.into_primitive(), weight.into_primitive(), a.into_primitive(), b.into_primitive());
        let bias = bias.into_primitive();
        match prepared {
            OpsKind::Tracked(prepared) => {
                let y = B::conv_forward(x.clone(), weight.clone(), a.clone(), b.clone(), bias, &spec);
                prepared.finish((x, weight, a, b, spec), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::conv_forward(x, weight, a, b, bias, &spec)),
        }
    }

    fn plain_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dims: ConvDims,
    ) -> FloatTensor<Self> {
        let prepared = PlainConvBackward.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful();
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => {
                let y = B::plain_forward(x.clone(), weight.clone(), bias, &dims);
                prepared.finish((x, weight, dims), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::plain_forward(x, weight, bias, &dims)),
        }
    }
}
