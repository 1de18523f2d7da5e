//! A backward that starts from a given gradient.
//!
//! Burn's `backward` starts from ones. Multiplying the output by the gradient and summing would do, but takes passes
//! over full-size tensors that `PyTorch`'s `y.backward(dy)` does not; this operation hands the gradient over instead.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Gradients as TensorGradients, Tensor};

/// A scalar that stands for `sum(y * dy)`, without its value.
#[backend_extension(Flex, Autodiff)]
trait Seed: Backend {
    fn seed(y: FloatTensor<Self>, dy: FloatTensor<Self>, zero: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Seed for Flex {
    fn seed(_y: FloatTensor<Self>, _dy: FloatTensor<Self>, zero: FloatTensor<Self>) -> FloatTensor<Self> {
        zero
    }
}

#[derive(Debug)]
struct SeedBackward;

impl<B: Backend> Backward<B, 1> for SeedBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [node] = ops.parents;
        let _one = grads.consume::<B>(&ops.node);
        if let Some(node) = node {
            grads.register::<B>(node.id, ops.state);
        }
    }
}

impl<B: Backend, C: CheckpointStrategy> Seed for Autodiff<B, C> {
    fn seed(y: FloatTensor<Self>, dy: FloatTensor<Self>, zero: FloatTensor<Self>) -> FloatTensor<Self> {
        let prepared = SeedBackward.prepare::<C>([y.node()]).compute_bound().stateful();
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(dy.into_primitive(), zero.into_primitive()),
            OpsKind::UnTracked(prepared) => prepared.finish(zero.into_primitive()),
        }
    }
}

/// The gradients of all that `y` depends on, for the gradient `dy` of `y`.
pub fn backward(y: Tensor<3>, dy: Tensor<3>) -> TensorGradients {
    let zero = Tensor::<1>::zeros([1], &y.device());
    let seeded = <Dispatch as Seed>::seed(y.into_dispatch(), dy.into_dispatch(), zero.into_dispatch());
    Tensor::<1>::from_dispatch(seeded).backward()
}
