//! The operation of a backend, and its backward.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, backend_extension};

use super::super::graph::register;
use super::body::LstmBody;
use super::sequence::{self, Trace};

/// An LSTM over time as an operation of a backend; its backward lives in the implementation for `Autodiff`.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub trait Lstm: Backend {
    /// The hidden state after every step, then the cell state after the last: `[time + 1, batch, hidden]`.
    fn lstm(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
        cell: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl<B: LstmBody> Lstm for B {
    fn lstm(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
        cell: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        sequence::forward::<Self>(&input, weight, hidden, cell)
    }
}

#[derive(Debug)]
struct LstmBackward;

impl<B: LstmBody> Backward<B, 4> for LstmBackward {
    type State = Trace<B>;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let dstates = grads.consume::<B>(&ops.node);
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let gradients = sequence::backward::<B>(ops.state, &dstates, parents[1].is_some());
        let states = (Some(gradients.hidden), Some(gradients.cell));
        register::<B, 4>(parents, [Some(gradients.input), gradients.weight, states.0, states.1], grads);
    }
}

impl<B: LstmBody, C: CheckpointStrategy> Lstm for Autodiff<B, C> {
    fn lstm(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
        cell: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [input.node(), weight.node(), hidden.node(), cell.node()];
        let prepared = LstmBackward.prepare::<C>(nodes).compute_bound().stateful();
        let (input, weight) = (input.into_primitive(), weight.into_primitive());
        let (hidden, cell) = (hidden.into_primitive(), cell.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => {
                let (states, trace) = sequence::forward_traced::<B>(&input, weight, hidden, cell);
                prepared.finish(trace, states)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(sequence::forward::<B>(&input, weight, hidden, cell)),
        }
    }
}
