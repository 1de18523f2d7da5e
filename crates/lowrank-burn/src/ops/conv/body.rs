//! What a backend computes: the default in Burn's operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar, TensorMetadata};
use burn::tensor::Shape;
use burn::tensor::ops::ConvOptions;

use super::super::cast::cast_as;
use super::{ConvDims, LowRankConv, padding};

/// Forward and gradients of convolutions, plain and with a folded low-rank adapter, on one backend.
///
/// A transposed convolution arrives here too; the defaults make it of convolutions.
///
/// Shapes, with `g` groups, kernel `k…`, `n = in/g · Πk`: `x [batch, in, length…]`, `weight [out, in/g, k…]`,
/// `a [r, n]`, `b [out, r / blocks]`, `bias [out]`, `y` and `dy [batch, out, length…]`. All of one type, but for `weight`,
/// which may be of another, such as half precision.
pub trait ConvBody: Backend {
    /// `y = conv(x, W + s·B·A) + bias`.
    fn conv_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: &LowRankConv,
    ) -> FloatTensor<Self> {
        folded_forward::<Self>(x, weight, a, b, bias, spec)
    }

    /// `(dx, dA, dB)`; `dx` only when `wants_dx`.
    fn conv_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        spec: &LowRankConv,
        wants_dx: bool,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>, FloatTensor<Self>) {
        folded_backward::<Self>(x, weight, a, b, dy, spec, wants_dx)
    }

    /// `y = conv(x, W) + bias`.
    fn plain_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dims: &ConvDims,
    ) -> FloatTensor<Self> {
        conv::<Self>(x, weight, bias, dims)
    }

    /// `dx = convᵀ(dy, W)`.
    fn plain_dx(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        dims: &ConvDims,
    ) -> FloatTensor<Self> {
        conv_dx::<Self>(x, weight, dy, dims)
    }

    /// The gradient of `W`.
    fn plain_dw(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        dims: &ConvDims,
    ) -> FloatTensor<Self> {
        conv_dw::<Self>(x, weight, dy, dims)
    }
}

/// The default of [`ConvBody::conv_forward`].
pub(super) fn folded_forward<B: ConvBody>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    bias: FloatTensor<B>,
    spec: &LowRankConv,
) -> FloatTensor<B> {
    conv::<B>(x, fold::<B>(weight, a, b, spec), bias, &spec.dims)
}

/// The default of [`ConvBody::conv_backward`].
pub(super) fn folded_backward<B: ConvBody>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    dy: FloatTensor<B>,
    spec: &LowRankConv,
    wants_dx: bool,
) -> (Option<FloatTensor<B>>, FloatTensor<B>, FloatTensor<B>) {
    let kernel = weight.shape();
    let folded = fold::<B>(weight, a.clone(), b.clone(), spec);
    let dx = wants_dx.then(|| B::plain_dx(x.clone(), folded.clone(), dy.clone(), &spec.dims));
    let scaled = |t| B::float_mul_scalar(t, Scalar::from(spec.scale));
    if spec.blocks == spec.dims.groups() {
        let (da, db) = low_rank_gradients::<B>(x, &a, b, dy, &kernel, spec);
        return (dx, da, scaled(db));
    }
    // `A` is shared by all groups: the grouped weight is small (`out · in/g · k`), so its dense gradient is cheaper than
    // `r` channels for every group.
    let dw = as_matrix::<B>(B::plain_dw(x, folded, dy, &spec.dims), &spec.dims);
    let da = B::float_matmul(B::float_swap_dims(b, 0, 1), dw.clone());
    (dx, scaled(da), scaled(B::float_matmul(dw, B::float_swap_dims(a, 0, 1))))
}

/// `W + s·B·A`, block by block.
fn fold<B: Backend>(
    weight: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    spec: &LowRankConv,
) -> FloatTensor<B> {
    let (kernel, weight) = (weight.shape(), cast_as::<B>(weight, &a));
    let (rank, n, outputs) = (a.shape()[0], a.shape()[1], b.shape()[0]);
    let a = B::float_reshape(a, Shape::new([spec.blocks, rank / spec.blocks, n]));
    let b = B::float_reshape(b, Shape::new([spec.blocks, outputs / spec.blocks, rank / spec.blocks]));
    let delta = B::float_mul_scalar(B::float_matmul(b, a), Scalar::from(spec.scale));
    let delta = B::float_reshape(delta, Shape::new([outputs, n]));
    B::float_add(weight, laid_out::<B>(delta, &kernel, &spec.dims))
}

/// A matrix `[rows, in/groups · Πk]` as a weight with so many outputs is laid out; `kernel` is the shape of another.
fn laid_out<B: Backend>(matrix: FloatTensor<B>, kernel: &Shape, dims: &ConvDims) -> FloatTensor<B> {
    if let ConvDims::Transposed(transposed) = dims {
        return transposed.laid_out::<B>(matrix, kernel);
    }
    let mut shape = kernel.clone();
    shape[0] = matrix.shape()[0];
    B::float_reshape(matrix, shape)
}

/// The reverse of [`laid_out`].
fn as_matrix<B: Backend>(weight: FloatTensor<B>, dims: &ConvDims) -> FloatTensor<B> {
    if let ConvDims::Transposed(transposed) = dims {
        return transposed.as_matrix::<B>(weight);
    }
    let shape = weight.shape();
    let columns = shape.num_elements() / shape[0];
    B::float_reshape(weight, Shape::new([shape[0], columns]))
}

/// `dA` (scaled) and `dB` (not yet scaled), when every group has its own block.
///
/// `h = A * x` has `r` channels; `dB = dy·hᵀ`, `dh = s·Bᵀ·dy`, and `dA` is the weight gradient of that small convolution.
fn low_rank_gradients<B: ConvBody>(
    x: FloatTensor<B>,
    a: &FloatTensor<B>,
    b: FloatTensor<B>,
    dy: FloatTensor<B>,
    kernel: &Shape,
    spec: &LowRankConv,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let down = laid_out::<B>(a.clone(), kernel, &spec.dims);
    let h = convolved::<B>(x.clone(), down.clone(), None, &spec.dims);
    let h_shape = h.shape();
    let (rank, out, blocks) = (a.shape()[0], b.shape()[0], spec.blocks);
    let batch = h_shape[0];
    let positions = h_shape.iter().skip(2).product::<usize>();
    let grouped = |t, channels: usize| B::float_reshape(t, Shape::new([batch, blocks, channels / blocks, positions]));
    let dy = grouped(dy, out);
    let h = grouped(h, rank);

    let db = B::float_matmul(dy.clone(), B::float_swap_dims(h, 2, 3));
    let db = B::float_reshape(B::float_sum_dim(db, 0), Shape::new([out, rank / blocks]));

    let bt = B::float_swap_dims(B::float_reshape(b, Shape::new([1, blocks, out / blocks, rank / blocks])), 2, 3);
    let bt = B::float_expand(bt, Shape::new([batch, blocks, rank / blocks, out / blocks]));
    let dh = B::float_mul_scalar(B::float_matmul(bt, dy), Scalar::from(spec.scale));
    let da = conv_dw::<B>(x, down, B::float_reshape(dh, h_shape), &spec.dims);
    (as_matrix::<B>(da, &spec.dims), db)
}

pub(super) fn conv<B: ConvBody>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    dims: &ConvDims,
) -> FloatTensor<B> {
    convolved::<B>(x, weight, Some(bias), dims)
}

fn convolved<B: ConvBody>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    dims: &ConvDims,
) -> FloatTensor<B> {
    let weight = cast_as::<B>(weight, &x);
    match padding::pad::<B>(x, dims) {
        (x, ConvDims::One(options, _)) => B::conv1d(x, weight, bias, options),
        (x, ConvDims::Two(options)) => B::conv2d(x, weight, bias, options),
        (x, ConvDims::Three(options)) => B::conv3d(x, weight, bias, options),
        (x, ConvDims::Transposed(transposed)) => transposed.forward::<B>(x, weight, bias),
    }
}

pub(super) fn conv_dx<B: ConvBody>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    dy: FloatTensor<B>,
    dims: &ConvDims,
) -> FloatTensor<B> {
    let weight = cast_as::<B>(weight, &dy);
    match padding::pad::<B>(x, dims) {
        (x, ConvDims::One(options, _)) => padding::fold::<B>(B::conv1d_x_backward(x, weight, dy, options), dims),
        (x, ConvDims::Two(options)) => B::conv2d_x_backward(x, weight, dy, options),
        (x, ConvDims::Three(options)) => B::conv3d_x_backward(x, weight, dy, options),
        (_, ConvDims::Transposed(transposed)) => transposed.dx::<B>(weight, dy),
    }
}

pub(super) fn conv_dw<B: ConvBody>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    dy: FloatTensor<B>,
    dims: &ConvDims,
) -> FloatTensor<B> {
    let weight = cast_as::<B>(weight, &dy);
    match padding::pad::<B>(x, dims) {
        (x, ConvDims::One(options, _)) => {
            let (x, options) = without_remainder::<B>(x, weight.shape()[2], options);
            B::conv1d_weight_backward(x, weight, dy, options)
        }
        (x, ConvDims::Two(options)) => B::conv2d_weight_backward(x, weight, dy, options),
        (x, ConvDims::Three(options)) => B::conv3d_weight_backward(x, weight, dy, options),
        (x, ConvDims::Transposed(transposed)) => transposed.dw::<B>(x, weight, dy),
    }
}

/// The input without the positions at its end that no output reads, in padding or in `x` itself.
///
/// Burn 0.22.1 computes a wrong weight gradient for a grouped 1-D convolution whose stride leaves such a remainder.
fn without_remainder<B: Backend>(
    x: FloatTensor<B>,
    kernel: usize,
    options: ConvOptions<1>,
) -> (FloatTensor<B>, ConvOptions<1>) {
    let ([stride], [dilation], [(before, after)]) = (options.stride, options.dilation, options.padding);
    let (length, span) = (x.shape()[2], dilation * kernel.saturating_sub(1) + 1);
    let padded = length + before + after;
    if options.groups == 1 || stride == 1 || padded < span {
        return (x, options);
    }
    let remainder = (padded - span) % stride;
    let (after, unread) = (after.saturating_sub(remainder), remainder.saturating_sub(after));
    let (x, padding) = if unread < length {
        (padding::positions::<B>(&x, 0..length - unread), (before, after))
    } else {
        // All outputs read padding alone; a tensor cannot be empty, so a zero stands in for a position of it.
        let zero = B::float_mul_scalar(padding::positions::<B>(&x, 0..1), Scalar::from(0.0_f32));
        (zero, (before - (unread - length) - 1, after))
    };
    (x, ConvOptions { padding: [padding], ..options })
}
