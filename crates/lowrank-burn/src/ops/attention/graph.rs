//! Attention as a node of the autodiff graph.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, backend_extension};

use super::super::graph::register;
use super::Heads;
use super::body::AttentionBody;

/// Attention as an operation of a backend; its backward lives in the implementation for `Autodiff`.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub trait Attend: Backend {
    /// `softmax(q·kᵀ / √head_dim)·v`, head by head.
    fn attend(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, heads: Heads) -> FloatTensor<Self>;
}

impl<B: AttentionBody> Attend for B {
    fn attend(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, heads: Heads) -> FloatTensor<Self> {
        Self::attention_forward(q, k, v, heads).0
    }
}

#[derive(Debug)]
struct AttendBackward;

impl<B: AttentionBody> Backward<B, 3> for AttendBackward {
    /// `q`, `k`, `v`, and a number for each head and query.
    type State = ([FloatTensor<B>; 3], FloatTensor<B>, Heads);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let d_o = grads.consume::<B>(&ops.node);
        let (qkv, sums, heads) = ops.state;
        register::<B, 3>(parents, B::attention_backward(qkv, sums, d_o, heads).map(Some), grads);
    }
}

impl<B: AttentionBody, C: CheckpointStrategy> Attend for Autodiff<B, C> {
    fn attend(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, heads: Heads) -> FloatTensor<Self> {
        let prepared = AttendBackward.prepare::<C>([q.node(), k.node(), v.node()]).compute_bound().stateful();
        let (q, k, v) = (q.into_primitive(), k.into_primitive(), v.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => {
                let (o, sums) = B::attention_forward(q.clone(), k.clone(), v.clone(), heads);
                prepared.finish(([q, k, v], sums, heads), o)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::attention_forward(q, k, v, heads).0),
        }
    }
}
