//! Linear layers: plain, and with a low-rank adapter.

mod body;
mod flex;
mod graph;

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor};

pub use body::LinearBody;
pub use graph::LoraLinear;

/// A linear layer and its adapter: `y = x·W + s·(x·Aᵀ)·Bᵀ + bias`.
///
/// Gradients reach `x`, `a`, `b` and the bias; `weight` is a constant. It may be of half precision while all else is `f32`.
/// Only `x` is kept for the backward.
///
/// # Shapes
/// - `x`: `[…, in]`, `weight`: `[in, out]` (Burn's orientation)
/// - `a`: `[r, in]`, `b`: `[out, r]` (PEFT's `lora_A.weight`, `lora_B.weight`)
/// - `bias`: `[out]`
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
    bias: Option<Tensor<1>>,
    scale: f32,
) -> Tensor<D> {
    check(&x, &weight, bias.as_ref());
    let ([rank, inputs], [outputs, columns]) = (a.dims(), b.dims());
    assert_eq!([inputs, outputs, columns], [weight.dims()[0], weight.dims()[1], rank], "factors of the weight's shape");
    let (constant, trained) = split_bias(bias, &weight, x.dtype());
    add_bias(
        Tensor::from_dispatch(<Dispatch as LoraLinear>::lora_linear(
            x.into_dispatch(),
            weight.into_dispatch(),
            a.into_dispatch(),
            b.into_dispatch(),
            constant.into_dispatch(),
            scale,
        )),
        trained,
    )
}

/// A linear layer: `y = x·W + bias`.
///
/// # Shapes
/// - `x`: `[…, in]`, `weight`: `[in, out]` (Burn's orientation), `bias`: `[out]`
/// - output: `[…, out]`
///
/// # Panics
/// When a shape does not fit another.
#[must_use]
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    check(&x, &weight, bias.as_ref());
    let (constant, trained) = split_bias(bias, &weight, x.dtype());
    add_bias(
        Tensor::from_dispatch(<Dispatch as LoraLinear>::plain_linear(
            x.into_dispatch(),
            weight.into_dispatch(),
            constant.into_dispatch(),
        )),
        trained,
    )
}

fn check<const D: usize>(x: &Tensor<D>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) {
    let [inputs, outputs] = weight.dims();
    assert_eq!(x.dims()[D - 1], inputs, "the last axis of the input has what the weight takes");
    assert!(bias.is_none_or(|bias| bias.dims() == [outputs]), "a bias for each output");
}

/// A bias that is a constant of the operation, and one that is trained and added after it, in the type of the input.
fn split_bias(bias: Option<Tensor<1>>, weight: &Tensor<2>, dtype: DType) -> (Tensor<1>, Option<Tensor<1>>) {
    let zeros = || Tensor::zeros([weight.dims()[1]], (&weight.device(), dtype));
    match bias.map(|bias| bias.cast(dtype)) {
        Some(bias) if bias.is_tracked() => (zeros(), Some(bias)),
        Some(bias) => (bias, None),
        None => (zeros(), None),
    }
}

/// `y[…, o] + bias[o]`.
fn add_bias<const D: usize>(y: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}
