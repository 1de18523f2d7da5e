//! What a backend computes: the default in Burn's operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar, TensorMetadata};
use burn::tensor::{Shape, Slice};

use super::Norm;

/// The gradients that were asked for.
#[derive(Debug)]
pub struct NormGradients<B: Backend> {
    /// By the input.
    pub dx: Option<FloatTensor<B>>,
    /// By `γ` and `β`.
    pub parameters: Option<[FloatTensor<B>; 2]>,
}

/// Which gradients are asked for.
#[derive(Debug, Clone, Copy)]
pub struct NormWants {
    /// That of the input.
    pub dx: bool,
    /// Those of `γ` and `β`.
    pub parameters: bool,
}

/// Forward and gradients of normalisation, on one backend.
///
/// Moments are `[sets, 2]`: the mean and `1 / √(variance + ε)` of each set of values that is normalised together.
pub trait NormBody: Backend {
    /// `(y, moments)`.
    fn norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        norm: Norm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        forward::<Self>(x, gamma, beta, norm)
    }

    /// The gradients, through the moments too.
    fn norm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        norm: Norm,
        wants: NormWants,
    ) -> NormGradients<Self> {
        backward::<Self>(x, gamma, &moments, dy, norm, wants)
    }

    /// `y`, by given moments of each channel.
    fn norm_by_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        moments: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        forward_by::<Self>(x, gamma, beta, &moments)
    }

    /// The gradients where the moments are given; `x` is there when those of the parameters are asked for.
    fn norm_by_backward(
        x: Option<FloatTensor<Self>>,
        gamma: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        wants_dx: bool,
    ) -> NormGradients<Self> {
        backward_by::<Self>(x, gamma, &moments, dy, wants_dx)
    }
}

pub(super) fn forward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    norm: Norm,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (shape, Norm::Layer { epsilon } | Norm::Group { epsilon, .. }) = (x.shape(), norm);
    let sets = B::float_reshape(x, sets(&shape, norm));
    let mean = B::float_mean_dim(sets.clone(), 1);
    let apart = B::float_sub(sets, mean.clone());
    let variance = B::float_mean_dim(B::float_mul(apart.clone(), apart.clone()), 1);
    let rstd = B::float_recip(B::float_sqrt(B::float_add_scalar(variance, Scalar::from(epsilon))));
    let normalised = B::float_reshape(B::float_mul(apart, rstd.clone()), shape.clone());
    let [gamma, beta] = [gamma, beta].map(|parameter| B::float_reshape(parameter, broadcast(&shape, norm)));
    (B::float_add(B::float_mul(normalised, gamma), beta), B::float_cat(vec![mean, rstd], 1))
}

pub(super) fn backward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    moments: &FloatTensor<B>,
    dy: FloatTensor<B>,
    norm: Norm,
    wants: NormWants,
) -> NormGradients<B> {
    let shape = x.shape();
    let in_sets = |tensor| B::float_reshape(tensor, sets(&shape, norm));
    let [mean, rstd] = columns::<B>(moments);
    let normalised = B::float_mul(B::float_sub(in_sets(x), mean), rstd.clone());
    let parameters = wants
        .parameters
        .then(|| parameters::<B>(B::float_reshape(normalised.clone(), shape.clone()), dy.clone(), axis(&shape, norm)));
    let dx = wants.dx.then(|| {
        let gamma = B::float_reshape(gamma, broadcast(&shape, norm));
        let slope = in_sets(B::float_mul(dy, gamma));
        let level = B::float_mean_dim(slope.clone(), 1);
        let tilt = B::float_mean_dim(B::float_mul(slope.clone(), normalised.clone()), 1);
        let along = B::float_add(level, B::float_mul(normalised, tilt));
        B::float_reshape(B::float_mul(B::float_sub(slope, along), rstd), shape.clone())
    });
    NormGradients { dx, parameters }
}

pub(super) fn forward_by<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    moments: &FloatTensor<B>,
) -> FloatTensor<B> {
    let along = along(&x.shape(), 1);
    let [mean, rstd] = columns::<B>(moments).map(|column| B::float_reshape(column, along.clone()));
    let [gamma, beta] = [gamma, beta].map(|parameter| B::float_reshape(parameter, along.clone()));
    let normalised = B::float_mul(B::float_sub(x, mean), rstd);
    B::float_add(B::float_mul(normalised, gamma), beta)
}

pub(super) fn backward_by<B: Backend>(
    x: Option<FloatTensor<B>>,
    gamma: FloatTensor<B>,
    moments: &FloatTensor<B>,
    dy: FloatTensor<B>,
    wants_dx: bool,
) -> NormGradients<B> {
    let along = along(&dy.shape(), 1);
    let [mean, rstd] = columns::<B>(moments).map(|column| B::float_reshape(column, along.clone()));
    let parameters = x.map(|x| parameters::<B>(B::float_mul(B::float_sub(x, mean), rstd.clone()), dy.clone(), 1));
    let dx = wants_dx.then(|| B::float_mul(dy, B::float_mul(B::float_reshape(gamma, along), rstd)));
    NormGradients { dx, parameters }
}

/// `[sets, values of a set]`.
fn sets(shape: &Shape, norm: Norm) -> Shape {
    let count = match norm {
        Norm::Layer { .. } => shape.num_elements() / shape[shape.num_dims() - 1].max(1),
        Norm::Group { groups, .. } => shape[0] * groups,
    };
    Shape::new([count, shape.num_elements() / count.max(1)])
}

/// The axis of the parameters.
fn axis(shape: &Shape, norm: Norm) -> usize {
    if matches!(norm, Norm::Layer { .. }) { shape.num_dims() - 1 } else { 1 }
}

fn broadcast(shape: &Shape, norm: Norm) -> Shape {
    along(shape, axis(shape, norm))
}

/// The size of one axis, and 1 elsewhere.
fn along(shape: &Shape, axis: usize) -> Shape {
    let mut sizes = vec![1; shape.num_dims()];
    sizes[axis] = shape[axis];
    Shape::from(sizes)
}

/// The two columns of the moments, `[sets, 1]` each.
fn columns<B: Backend>(moments: &FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let column = |index| Slice::new(index, Some(index + 1), 1);
    [0, 1].map(|index| B::float_slice(moments.clone(), &[Slice::full(), column(index)]))
}

/// `Σ dy·x̂` and `Σ dy` over all axes but one.
fn parameters<B: Backend>(normalised: FloatTensor<B>, dy: FloatTensor<B>, axis: usize) -> [FloatTensor<B>; 2] {
    let (size, others) = (dy.shape()[axis], (0..dy.rank()).filter(|other| *other != axis).collect::<Vec<_>>());
    [B::float_mul(normalised, dy.clone()), dy]
        .map(|terms| B::float_reshape(B::float_sum_dims(terms, &others), Shape::new([size])))
}
