//! The operations of a backend, and their backward.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, backend_extension};

use super::super::graph::register;
use super::Norm;
use super::body::{NormBody, NormGradients, NormWants};

/// Normalisation as operations of a backend; their backward lives in the implementation for `Autodiff`.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub trait Normalise: Backend {
    /// `γ·(x - mean) / √(variance + ε) + β`, by the moments of `x` itself.
    fn normalise(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        norm: Norm,
    ) -> FloatTensor<Self>;

    /// The same by given moments of each channel, `[channels, 2]`, which are constants.
    fn normalise_by(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        moments: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl<B: NormBody> Normalise for B {
    fn normalise(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        norm: Norm,
    ) -> FloatTensor<Self> {
        Self::norm_forward(x, gamma, beta, norm).0
    }

    fn normalise_by(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        moments: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::norm_by_forward(x, gamma, beta, moments)
    }
}

#[derive(Debug)]
struct NormaliseBackward;

impl<B: NormBody> Backward<B, 3> for NormaliseBackward {
    /// `x`, `γ`, and the moments: two numbers for each set.
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, Norm);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, gamma, moments, norm) = ops.state;
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let wants = wants(parents);
        register::<B, 3>(parents, each(B::norm_backward(x, gamma, moments, dy, norm, wants)), grads);
    }
}

#[derive(Debug)]
struct NormaliseByBackward;

impl<B: NormBody> Backward<B, 3> for NormaliseByBackward {
    /// `x` only when the parameters are trained, `γ`, and the moments.
    type State = (Option<FloatTensor<B>>, FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, gamma, moments) = ops.state;
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let wants_dx = parents[0].is_some();
        register::<B, 3>(parents, each(B::norm_by_backward(x, gamma, moments, dy, wants_dx)), grads);
    }
}

fn wants([x, gamma, beta]: [Option<NodeId>; 3]) -> NormWants {
    NormWants { dx: x.is_some(), parameters: gamma.is_some() || beta.is_some() }
}

/// `[dx, dγ, dβ]`.
fn each<B: Backend>(gradients: NormGradients<B>) -> [Option<FloatTensor<B>>; 3] {
    let [dgamma, dbeta] = gradients.parameters.map_or([None, None], |gradients| gradients.map(Some));
    [gradients.dx, dgamma, dbeta]
}

impl<B: NormBody, C: CheckpointStrategy> Normalise for Autodiff<B, C> {
    fn normalise(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        norm: Norm,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let prepared = NormaliseBackward.prepare::<C>(nodes).compute_bound().stateful();
        let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => {
                let (y, moments) = B::norm_forward(x.clone(), gamma.clone(), beta, norm);
                prepared.finish((x, gamma, moments, norm), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::norm_forward(x, gamma, beta, norm).0),
        }
    }

    fn normalise_by(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        moments: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let trained = gamma.is_tracked() || beta.is_tracked();
        let nodes = [x.node(), gamma.node(), beta.node()];
        let prepared = NormaliseByBackward.prepare::<C>(nodes).compute_bound().stateful();
        let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
        let moments = moments.into_primitive();
        match prepared {
            OpsKind::Tracked(prepared) => {
                let kept = trained.then(|| x.clone());
                let y = B::norm_by_forward(x, gamma.clone(), beta, moments.clone());
                prepared.finish((kept, gamma, moments), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::norm_by_forward(x, gamma, beta, moments)),
        }
    }
}
