//! Linear layer with a low-rank adapter.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, Scalar, backend_extension};
use burn::tensor::Tensor;

use super::graph::register;

/// Forward and gradients of a linear layer with a low-rank adapter, on one backend.
///
/// Shapes: `x [rows, in]`, `weight [in, out]` (Burn's orientation), `a [r, in]`, `b [out, r]` (PEFT's), `y [rows, out]`.
pub trait LinearBody: Backend {
    /// `y = x·W + s·(x·Aᵀ)·Bᵀ`.
    ///
    /// The two paths are cheaper here than folding: `rows·r·(in + out)` against `in·out·r`.
    fn linear_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let h = Self::float_mul_scalar(product_t::<Self>(x.clone(), a), Scalar::from(scale));
        Self::float_add(Self::float_matmul(x, weight), product_t::<Self>(h, b))
    }

    /// `(dx, dA, dB)` with `dh = s·dy·B`: `dx = dy·Wᵀ + dh·A`, `dA = dhᵀ·x`, `dB = s·dyᵀ·(x·Aᵀ)`.
    fn linear_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        scale: f32,
        wants_dx: bool,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>, FloatTensor<Self>) {
        let scaled = |t| Self::float_mul_scalar(t, Scalar::from(scale));
        let dh = scaled(Self::float_matmul(dy.clone(), b));
        let dx = wants_dx
            .then(|| Self::float_add(product_t::<Self>(dy.clone(), weight), Self::float_matmul(dh.clone(), a.clone())));
        let da = Self::float_matmul(Self::float_swap_dims(dh, 0, 1), x.clone());
        let h = scaled(product_t::<Self>(x, a));
        (dx, da, Self::float_matmul(Self::float_swap_dims(dy, 0, 1), h))
    }
}

impl LinearBody for Flex {}

/// `left · rightᵀ`.
fn product_t<B: Backend>(left: FloatTensor<B>, right: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(left, B::float_swap_dims(right, 0, 1))
}

/// The fused linear layer as an operation of a backend; its backward lives in the implementation for `Autodiff`.
#[backend_extension(Flex, Autodiff)]
pub trait LoraLinear: Backend {
    /// `x·W + s·(x·Aᵀ)·Bᵀ`; `W` is a constant, no gradient flows into it.
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;
}

impl LoraLinear for Flex {
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        Self::linear_forward(x, weight, a, b, scale)
    }
}

#[derive(Debug)]
struct LoraLinearBackward;

impl<B: LinearBody> Backward<B, 3> for LoraLinearBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, f32);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let dy = grads.consume::<B>(&ops.node);
        let (x, weight, a, b, scale) = ops.state;
        let (dx, da, db) = B::linear_backward(x, weight, a, b, dy, scale, parents[0].is_some());
        register::<B, 3>(parents, [dx, Some(da), Some(db)], grads);
    }
}

impl<B: LinearBody, C: CheckpointStrategy> LoraLinear for Autodiff<B, C> {
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let prepared = LoraLinearBackward.prepare::<C>([x.node(), a.node(), b.node()]).compute_bound().stateful();
        let (x, weight, a, b) = (x.into_primitive(), weight.into_primitive(), a.into_primitive(), b.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => {
                let y = B::linear_forward(x.clone(), weight.clone(), a.clone(), b.clone(), scale);
                prepared.finish((x, weight, a, b, scale), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::linear_forward(x, weight, a, b, scale)),
        }
    }
}

/// A linear layer without bias and its adapter: `y = x·W + s·(x·Aᵀ)·Bᵀ`.
///
/// Gradients reach `x`, `a` and `b`; `weight` is a constant. Only `x` is kept for the backward.
///
/// # Shapes
/// - `x`: `[…, in]`, `weight`: `[in, out]` (Burn's orientation)
/// - `a`: `[r, in]`, `b`: `[out, r]` (PEFT's `lora_A.weight`, `lora_B.weight`)
/// - output: `[…, out]`
///
/// # Panics
/// When a shape does not fit another, as Burn's own operations do.
#[must_use]
pub fn lora_linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f32,
) -> Tensor<D> {
    let mut shape = x.shape();
    let [input, output] = weight.dims();
    let rows = shape.num_elements() / input.max(1);
    let y = <Dispatch as LoraLinear>::lora_linear(
        x.reshape([rows, input]).into_dispatch(),
        weight.into_dispatch(),
        a.into_dispatch(),
        b.into_dispatch(),
        scale,
    );
    shape[D - 1] = output;
    Tensor::<2>::from_dispatch(y).reshape(shape)
}
