//! Softmax.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use lowrank::kernels::softmax as kernels;

use super::flex::{are_f32, contiguous, rewrite, values};

/// Forward and gradient of softmax over the last axis, on one backend.
pub trait SoftmaxBody: Backend {
    /// `yᵢ = e^xᵢ / Σ e^xⱼ`.
    fn softmax_forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        forward::<Self>(x)
    }

    /// `dxᵢ = yᵢ·(dyᵢ - Σ yⱼ·dyⱼ)`.
    fn softmax_backward(y: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        backward::<Self>(y, dy)
    }
}

impl SoftmaxBody for Flex {
    fn softmax_forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !are_f32([&x]) {
            return forward::<Self>(x);
        }
        let width = x.shape()[x.rank() - 1];
        rewrite(x, |x| kernels::softmax(x, width))
    }

    fn softmax_backward(y: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        if !are_f32([&y, &dy]) {
            return backward::<Self>(y, dy);
        }
        let (y, width) = (contiguous(y), dy.shape()[dy.rank() - 1]);
        rewrite(dy, |dy| kernels::softmax_backward(values(&y), dy, width))
    }
}

fn forward<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let last = x.rank() - 1;
    B::softmax(x, last)
}

fn backward<B: Backend>(y: FloatTensor<B>, dy: FloatTensor<B>) -> FloatTensor<B> {
    let last = y.rank() - 1;
    let share = B::float_sum_dim(B::float_mul(y.clone(), dy.clone()), last);
    B::float_mul(y, B::float_sub(dy, share))
}

/// Softmax over the last axis as an operation of a backend; its backward lives in the implementation for `Autodiff`.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub trait Softmax: Backend {
    /// Softmax over the last axis.
    fn softmax_of_rows(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: SoftmaxBody> Softmax for B {
    fn softmax_of_rows(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::softmax_forward(x)
    }
}

#[derive(Debug)]
struct SoftmaxBackward;

impl<B: SoftmaxBody> Backward<B, 1> for SoftmaxBackward {
    /// `y`, which the next operation keeps too.
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [node] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        if let Some(node) = node {
            grads.register::<B>(node.id, B::softmax_backward(ops.state, dy));
        }
    }
}

impl<B: SoftmaxBody, C: CheckpointStrategy> Softmax for Autodiff<B, C> {
    fn softmax_of_rows(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let prepared = SoftmaxBackward.prepare::<C>([x.node()]).compute_bound().stateful();
        let y = B::softmax_forward(x.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(y.clone(), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

/// `yᵢ = e^xᵢ / Σ e^xⱼ` along an axis. The last axis is the fast one; another is swapped with it.
///
/// # Panics
/// When `dim` is not an axis of `x`.
#[must_use]
pub fn softmax<const D: usize>(x: Tensor<D>, dim: usize) -> Tensor<D> {
    let of_rows = |x: Tensor<D>| Tensor::from_dispatch(<Dispatch as Softmax>::softmax_of_rows(x.into_dispatch()));
    if dim == D - 1 { of_rows(x) } else { of_rows(x.swap_dims(dim, D - 1)).swap_dims(dim, D - 1) }
}
