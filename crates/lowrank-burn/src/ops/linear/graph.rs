//! Linear layers as nodes of the autodiff graph.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, backend_extension};

use super::super::cast::cast_as;
use super::super::graph::register;
use super::body::LinearBody;

/// Linear layers as operations of a backend; their backward lives in the implementation for `Autodiff`.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub trait LoraLinear: Backend {
    /// `x·W + s·(x·Aᵀ)·Bᵀ + bias`; `W` and the bias are constants, no gradient flows into them.
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;

    /// `x·W + bias`; the bias is a constant.
    fn plain_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: LinearBody> LoraLinear for B {
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        Self::low_rank_forward(x, weight, a, b, bias, scale)
    }

    fn plain_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::dense_forward(x, weight, bias)
    }
}

#[derive(Debug)]
struct LoraLinearBackward;

impl<B: LinearBody> Backward<B, 3> for LoraLinearBackward {
    /// `x`, `weight`, `a`, `b`: the weight and the factors are shared with the model, only `x` is kept for us.
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, f32);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let dy = grads.consume::<B>(&ops.node);
        let (x, weight, a, b, scale) = ops.state;
        let (dx, da, db) = B::low_rank_backward(x, weight, a, b, dy, scale, parents[0].is_some());
        register::<B, 3>(parents, [dx, Some(da), Some(db)], grads);
    }
}

#[derive(Debug)]
struct PlainLinearBackward;

impl<B: LinearBody> Backward<B, 2> for PlainLinearBackward {
    /// `x` only when the weight is trained, and the weight.
    type State = (Option<FloatTensor<B>>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let dy = grads.consume::<B>(&ops.node);
        let (x, weight) = ops.state;
        let dx = parents[0].map(|_| B::dense_dx(weight.clone(), dy.clone()));
        let dw = x.map(|x| cast_as::<B>(B::dense_dw(x, dy), &weight));
        register::<B, 2>(parents, [dx, dw], grads);
    }
}

impl<B: LinearBody, C: CheckpointStrategy> LoraLinear for Autodiff<B, C> {
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let prepared = LoraLinearBackward.prepare::<C>([x.node(), a.node(), b.node()]).compute_bound().stateful();
        let (x, weight, a, b) = (x.into_primitive(), weight.into_primitive(), a.into_primitive(), b.into_primitive());
        let bias = bias.into_primitive();
        match prepared {
            OpsKind::Tracked(prepared) => {
                let y = B::low_rank_forward(x.clone(), weight.clone(), a.clone(), b.clone(), bias, scale);
                prepared.finish((x, weight, a, b, scale), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::low_rank_forward(x, weight, a, b, bias, scale)),
        }
    }

    fn plain_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let trained = weight.is_tracked();
        let prepared = PlainLinearBackward.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful();
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => {
                let kept = trained.then(|| x.clone());
                let y = B::dense_forward(x, weight.clone(), bias);
                prepared.finish((kept, weight), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::dense_forward(x, weight, bias)),
        }
    }
}
