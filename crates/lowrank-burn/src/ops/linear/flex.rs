//! The CPU: `f32`, and weights of half precision, by [`lowrank::kernels::linear`]; anything else by the default.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use lowrank::kernels::linear::{LowRank, Weight, forward, input_gradient, low_rank_gradients, weight_gradient};

use super::body::{self, LinearBody, with_last};
use crate::ops::flex::{are_f32, can_be_held, contiguous, held, tensor, values};

impl LinearBody for Flex {
    fn low_rank_forward(
        x: FlexTensor,
        weight: FlexTensor,
        a: FlexTensor,
        b: FlexTensor,
        bias: FlexTensor,
        scale: f32,
    ) -> FlexTensor {
        if !are_f32([&x, &a, &b, &bias]) || !can_be_held(&weight) {
            return body::low_rank_forward::<Self>(x, weight, a, b, bias, scale);
        }
        let ([x, weight, a, b], bias) = ([x, weight, a, b].map(contiguous), contiguous(bias));
        let weight = Weight { low_rank: Some(low_rank(&a, &b, scale)), ..dense(&weight) };
        let y = forward(values(&x), &weight, Some(values(&bias)));
        tensor(y, with_last(x.shape(), weight.outputs))
    }

    fn low_rank_backward(
        x: FlexTensor,
        weight: FlexTensor,
        a: FlexTensor,
        b: FlexTensor,
        dy: FlexTensor,
        scale: f32,
        wants_dx: bool,
    ) -> (Option<FlexTensor>, FlexTensor, FlexTensor) {
        if !are_f32([&x, &a, &b, &dy]) || !can_be_held(&weight) {
            return body::low_rank_backward::<Self>(x, weight, a, b, dy, scale, wants_dx);
        }
        let ([x, weight, a, b], dy) = ([x, weight, a, b].map(contiguous), contiguous(dy));
        let low = low_rank(&a, &b, scale);
        let weight = Weight { low_rank: Some(low), ..dense(&weight) };
        let dx = wants_dx.then(|| tensor(input_gradient(values(&dy), &weight), x.shape()));
        let (da, db) = low_rank_gradients(values(&x), values(&dy), [weight.inputs, weight.outputs], &low);
        (dx, tensor(da, a.shape()), tensor(db, b.shape()))
    }

    fn dense_forward(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        if !are_f32([&x, &bias]) || !can_be_held(&weight) {
            return body::dense_forward::<Self>(x, weight, bias);
        }
        let [x, weight, bias] = [x, weight, bias].map(contiguous);
        let weight = dense(&weight);
        tensor(forward(values(&x), &weight, Some(values(&bias))), with_last(x.shape(), weight.outputs))
    }

    fn dense_dx(weight: FlexTensor, dy: FlexTensor) -> FlexTensor {
        if !are_f32([&dy]) || !can_be_held(&weight) {
            return body::dense_dx::<Self>(weight, dy);
        }
        let [weight, dy] = [weight, dy].map(contiguous);
        let weight = dense(&weight);
        tensor(input_gradient(values(&dy), &weight), with_last(dy.shape(), weight.inputs))
    }

    fn dense_dw(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        if !are_f32([&x, &dy]) {
            return body::dense_dw::<Self>(x, dy);
        }
        let [x, dy] = [x, dy].map(contiguous);
        let shape = [&x, &dy].map(|tensor| tensor.shape()[tensor.rank() - 1]);
        tensor(weight_gradient(values(&x), values(&dy), shape), shape)
    }
}

/// A weight `[in, out]` that is contiguous.
fn dense(weight: &FlexTensor) -> Weight<'_> {
    let shape = weight.shape();
    Weight { base: held(weight), inputs: shape[0], outputs: shape[1], low_rank: None }
}

fn low_rank<'a>(a: &'a FlexTensor, b: &'a FlexTensor, scale: f32) -> LowRank<'a> {
    LowRank { a: values(a), b: values(b), rank: a.shape()[0], scale }
}
