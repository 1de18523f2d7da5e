//! What a backend computes: the default in Burn's operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar, TensorMetadata};
use burn::tensor::Shape;

use super::super::cast::cast_as;

/// Forward and gradients of linear layers, plain and with a low-rank adapter, on one backend.
///
/// Shapes: `x [rows…, in]`, `weight [in, out]` (Burn's orientation), `a [r, in]`, `b [out, r]` (PEFT's), `bias [out]`, `y`
/// and `dy [rows…, out]`. All of one type, but for `weight`, which may be of another, such as half precision.
pub trait LinearBody: Backend {
    /// `y = x·W + s·(x·Aᵀ)·Bᵀ + bias`.
    fn low_rank_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        low_rank_forward::<Self>(x, weight, a, b, bias, scale)
    }

    /// `(dx, dA, dB)` with `dh = s·dy·B`: `dx = dy·Wᵀ + dh·A`, `dA = dhᵀ·x`, `dB = s·dyᵀ·(x·Aᵀ)`; `dx` only when
    /// `wants_dx`.
    fn low_rank_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        scale: f32,
        wants_dx: bool,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>, FloatTensor<Self>) {
        low_rank_backward::<Self>(x, weight, a, b, dy, scale, wants_dx)
    }

    /// `y = x·W + bias`.
    fn dense_forward(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        dense_forward::<Self>(x, weight, bias)
    }

    /// `dx = dy·Wᵀ`.
    fn dense_dx(weight: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        dense_dx::<Self>(weight, dy)
    }

    /// `dW = xᵀ·dy`.
    fn dense_dw(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        dense_dw::<Self>(x, dy)
    }
}

/// The default of [`LinearBody::low_rank_forward`].
pub(super) fn low_rank_forward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    bias: FloatTensor<B>,
    scale: f32,
) -> FloatTensor<B> {
    let low = B::float_mul_scalar(product::<B>(rows::<B>(x.clone()), transposed::<B>(a)), Scalar::from(scale));
    let low = product::<B>(low, transposed::<B>(b));
    let y = dense_forward::<B>(x, weight, bias);
    let shape = y.shape();
    B::float_add(y, B::float_reshape(low, shape))
}

/// The default of [`LinearBody::low_rank_backward`].
pub(super) fn low_rank_backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    dy: FloatTensor<B>,
    scale: f32,
    wants_dx: bool,
) -> (Option<FloatTensor<B>>, FloatTensor<B>, FloatTensor<B>) {
    let scaled = |t| B::float_mul_scalar(t, Scalar::from(scale));
    let (shape, x, rows_of_dy) = (x.shape(), rows::<B>(x), rows::<B>(dy.clone()));
    let dh = scaled(product::<B>(rows_of_dy.clone(), b));
    let dx = wants_dx.then(|| {
        let through_a = B::float_reshape(product::<B>(dh.clone(), a.clone()), shape);
        B::float_add(dense_dx::<B>(weight, dy), through_a)
    });
    let h = scaled(product::<B>(x.clone(), transposed::<B>(a)));
    let da = product::<B>(transposed::<B>(dh), x);
    (dx, da, product::<B>(transposed::<B>(rows_of_dy), h))
}

/// The default of [`LinearBody::dense_forward`].
pub(super) fn dense_forward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
) -> FloatTensor<B> {
    let (shape, weight) = (with_last(x.shape(), weight.shape()[1]), cast_as::<B>(weight, &x));
    let bias = B::float_reshape(bias, Shape::new([1, weight.shape()[1]]));
    B::float_reshape(B::float_add(product::<B>(rows::<B>(x), weight), bias), shape)
}

/// The default of [`LinearBody::dense_dx`].
pub(super) fn dense_dx<B: Backend>(weight: FloatTensor<B>, dy: FloatTensor<B>) -> FloatTensor<B> {
    let (shape, weight) = (with_last(dy.shape(), weight.shape()[0]), cast_as::<B>(weight, &dy));
    B::float_reshape(product::<B>(rows::<B>(dy), transposed::<B>(weight)), shape)
}

/// The default of [`LinearBody::dense_dw`].
pub(super) fn dense_dw<B: Backend>(x: FloatTensor<B>, dy: FloatTensor<B>) -> FloatTensor<B> {
    product::<B>(transposed::<B>(rows::<B>(x)), rows::<B>(dy))
}

/// `shape` with another last axis.
pub(super) fn with_last(mut shape: Shape, width: usize) -> Shape {
    let last = shape.num_dims() - 1;
    shape[last] = width;
    shape
}

/// A matrix of the last axis.
fn rows<B: Backend>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    let shape = tensor.shape();
    let width = shape[shape.num_dims() - 1];
    let rows = shape.iter().take(shape.num_dims() - 1).product::<usize>();
    B::float_reshape(tensor, Shape::new([rows, width]))
}

fn transposed<B: Backend>(matrix: FloatTensor<B>) -> FloatTensor<B> {
    B::float_swap_dims(matrix, 0, 1)
}

fn product<B: Backend>(left: FloatTensor<B>, right: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(left, right)
}
