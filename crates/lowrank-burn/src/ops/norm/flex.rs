//! The CPU: tensors of `f32` by [`lowrank::kernels::norm`], anything else by the default.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use lowrank::kernels::norm::{
    BatchNorm, GroupNorm, Moments, channel_parameters, layer_norm, layer_norm_backward, layer_norm_parameters,
};

use super::Norm;
use super::body::{self, NormBody, NormGradients, NormWants};
use crate::ops::flex::{are_f32, contiguous, rewrite, tensor, values};

impl NormBody for Flex {
    fn norm_forward(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, norm: Norm) -> (FlexTensor, FlexTensor) {
        if !are_f32([&x, &gamma, &beta]) || !is_fast(&x.shape(), norm) {
            return body::forward::<Self>(x, gamma, beta, norm);
        }
        let (gamma, beta) = (contiguous(gamma), contiguous(beta));
        let parameters = [values(&gamma), values(&beta)];
        let mut moments = vec![[0.0; 2]; sets(&x.shape(), norm)];
        let y = match norm {
            Norm::Layer { epsilon } => rewrite(x, |x| layer_norm(x, parameters, epsilon, &mut moments)),
            Norm::Group { groups, epsilon } => {
                let (norm, x) = (group_norm(&x.shape(), groups), contiguous(x));
                norm.moments(values(&x), epsilon, &mut moments);
                rewrite(x, |x| norm.forward(x, parameters, &moments))
            }
        };
        let shape = [moments.len(), 2];
        (y, tensor(moments.into_flattened(), shape))
    }

    fn norm_backward(
        x: FlexTensor,
        gamma: FlexTensor,
        moments: FlexTensor,
        dy: FlexTensor,
        norm: Norm,
        wants: NormWants,
    ) -> NormGradients<Self> {
        if !are_f32([&x, &gamma, &moments, &dy]) || !is_fast(&x.shape(), norm) {
            return body::backward::<Self>(x, gamma, &moments, dy, norm, wants);
        }
        let shape = x.shape();
        let (x, gamma, moments, dy) = (contiguous(x), contiguous(gamma), contiguous(moments), contiguous(dy));
        let (x, gamma, moments) = (values(&x), values(&gamma), pairs(&moments));
        match norm {
            Norm::Layer { .. } => NormGradients {
                parameters: wants.parameters.then(|| {
                    parameters(gamma.len(), |gradients| layer_norm_parameters(x, moments, values(&dy), gradients))
                }),
                dx: wants.dx.then(|| rewrite(dy, |dy| layer_norm_backward(x, gamma, moments, dy))),
            },
            Norm::Group { groups, .. } => {
                let norm = group_norm(&shape, groups);
                let mut sums = vec![[0.0; 2]; shape[0] * shape[1]];
                norm.sums(x, moments, values(&dy), &mut sums);
                NormGradients {
                    parameters: wants
                        .parameters
                        .then(|| parameters(gamma.len(), |gradients| channel_parameters(&sums, gradients))),
                    dx: wants.dx.then(|| {
                        let mut means = vec![[0.0; 2]; moments.len()];
                        norm.means(gamma, &sums, &mut means);
                        rewrite(dy, |dy| norm.backward(x, gamma, moments, &means, dy))
                    }),
                }
            }
        }
    }

    fn norm_by_forward(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, moments: FlexTensor) -> FlexTensor {
        if !are_f32([&x, &gamma, &beta, &moments]) || length(&x.shape()) < 2 {
            return body::forward_by::<Self>(x, gamma, beta, &moments);
        }
        let (gamma, beta, moments) = (contiguous(gamma), contiguous(beta), contiguous(moments));
        let norm = batch_norm(&x.shape());
        rewrite(x, |x| norm.forward(x, [values(&gamma), values(&beta)], pairs(&moments)))
    }

    fn norm_by_backward(
        x: Option<FlexTensor>,
        gamma: FlexTensor,
        moments: FlexTensor,
        dy: FlexTensor,
        wants_dx: bool,
    ) -> NormGradients<Self> {
        let (shape, x_is_f32) = (dy.shape(), x.iter().all(|x| are_f32([x])));
        if !are_f32([&gamma, &moments, &dy]) || !x_is_f32 || length(&shape) < 2 {
            return body::backward_by::<Self>(x, gamma, &moments, dy, wants_dx);
        }
        let (gamma, moments, dy) = (contiguous(gamma), contiguous(moments), contiguous(dy));
        let (norm, moments) = (batch_norm(&shape), pairs(&moments));
        NormGradients {
            parameters: x.map(|x| {
                let mut sums = vec![[0.0; 2]; shape[0] * shape[1]];
                norm.sums(values(&contiguous(x)), moments, values(&dy), &mut sums);
                parameters(shape[1], |gradients| channel_parameters(&sums, gradients))
            }),
            dx: wants_dx.then(|| rewrite(dy, |dy| norm.backward(values(&gamma), moments, dy))),
        }
    }
}

/// Whether the kernels take this shape: they go along the last axis, or along what follows the channels.
fn is_fast(shape: &Shape, norm: Norm) -> bool {
    match norm {
        Norm::Layer { .. } => shape[shape.num_dims() - 1] > 0,
        Norm::Group { .. } => length(shape) > 1,
    }
}

fn sets(shape: &Shape, norm: Norm) -> usize {
    match norm {
        Norm::Layer { .. } => shape.num_elements() / shape[shape.num_dims() - 1],
        Norm::Group { groups, .. } => shape[0] * groups,
    }
}

fn group_norm(shape: &Shape, groups: usize) -> GroupNorm {
    GroupNorm { channels: shape[1], groups, length: length(shape) }
}

fn batch_norm(shape: &Shape) -> BatchNorm {
    BatchNorm { channels: shape[1], length: length(shape) }
}

/// Positions of a channel.
fn length(shape: &Shape) -> usize {
    shape.iter().skip(2).product()
}

fn pairs(moments: &FlexTensor) -> &[Moments] {
    values(moments).as_chunks().0
}

fn parameters(channels: usize, write: impl FnOnce([&mut [f32]; 2])) -> [FlexTensor; 2] {
    let [mut dgamma, mut dbeta] = [vec![0.0; channels], vec![0.0; channels]];
    write([&mut dgamma, &mut dbeta]);
    [dgamma, dbeta].map(|gradient| tensor(gradient, [channels]))
}
