//! Convolution with a low-rank adapter, 1-D and 2-D.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, Scalar, TensorMetadata, backend_extension};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Shape, Tensor, module};

/// Stride, zero padding, dilation and groups of a convolution over one or two axes.
#[derive(Debug, Clone)]
pub enum ConvDims {
    /// Over `[batch, channels, length]`.
    One(ConvOptions<1>),
    /// Over `[batch, channels, height, width]`.
    Two(ConvOptions<2>),
}

impl ConvDims {
    /// The number of groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        match self {
            Self::One(options) => options.groups,
            Self::Two(options) => options.groups,
        }
    }

    /// The same convolution in one group.
    #[must_use]
    pub fn ungrouped(&self) -> Self {
        match self.clone() {
            Self::One(options) => Self::One(ConvOptions { groups: 1, ..options }),
            Self::Two(options) => Self::Two(ConvOptions { groups: 1, ..options }),
        }
    }

    /// The convolution of kernel size 1 that follows this one in a two-path adapter: no stride, padding or dilation.
    #[must_use]
    pub fn pointwise(&self, groups: usize) -> Self {
        match self {
            Self::One(_) => Self::One(ConvOptions::new([1], [0], [1], groups)),
            Self::Two(_) => Self::Two(ConvOptions::new([1, 1], [0, 0], [1, 1], groups)),
        }
    }
}

/// What the fused convolution needs beside its tensors.
#[derive(Debug, Clone)]
pub struct LowRankConv {
    /// Geometry of the convolution.
    pub dims: ConvDims,
    /// `s` in `W + s·B·A`.
    pub scale: f32,
    /// Independent low-rank blocks: the number of groups when each group has its own rows of `A`
    /// ([`GroupMode::PerGroup`](lowrank::adapter::GroupMode)), otherwise 1.
    pub blocks: usize,
}

/// Forward and gradients of a convolution with a folded low-rank adapter, on one backend.
///
/// Shapes, with `g` groups, kernel `k…`, `n = in/g · Πk`: `x [batch, in, length…]`, `weight [out, in/g, k…]`,
/// `a [r, n]`, `b [out, r / blocks]`, `y` and `dy [batch, out, length…]`.
pub trait ConvBody: Backend {
    /// `y = conv(x, W + s·B·A)`.
    fn conv_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        spec: &LowRankConv,
    ) -> FloatTensor<Self> {
        conv::<Self>(x, fold::<Self>(weight, a, b, spec), &spec.dims)
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
        let kernel = weight.shape();
        let folded = fold::<Self>(weight, a.clone(), b.clone(), spec);
        let dx = wants_dx.then(|| conv_dx::<Self>(x.clone(), folded.clone(), dy.clone(), &spec.dims));
        let (da, db) = if spec.blocks == spec.dims.groups() {
            low_rank_gradients::<Self>(x, &a, b, dy, &kernel, spec)
        } else {
            // `A` is shared by all groups: the grouped weight is small (`out · in/g · k`), so its dense gradient is
            // cheaper than `r` channels for every group.
            let dw = conv_dw::<Self>(x, folded, dy, &spec.dims);
            let dw = Self::float_reshape(dw, Shape::new([kernel[0], a.shape()[1]]));
            let da = Self::float_matmul(Self::float_swap_dims(b, 0, 1), dw.clone());
            (da, Self::float_matmul(dw, Self::float_swap_dims(a, 0, 1)))
        };
        let scaled = |t| Self::float_mul_scalar(t, Scalar::from(spec.scale));
        let da = if spec.blocks == spec.dims.groups() { da } else { scaled(da) };
        (dx, da, scaled(db))
    }
}

impl ConvBody for Flex {}

/// `W + s·B·A`, block by block.
fn fold<B: Backend>(
    weight: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    spec: &LowRankConv,
) -> FloatTensor<B> {
    let kernel = weight.shape();
    let (rank, n) = (a.shape()[0], a.shape()[1]);
    let a = B::float_reshape(a, Shape::new([spec.blocks, rank / spec.blocks, n]));
    let b = B::float_reshape(b, Shape::new([spec.blocks, kernel[0] / spec.blocks, rank / spec.blocks]));
    let delta = B::float_mul_scalar(B::float_matmul(b, a), Scalar::from(spec.scale));
    B::float_add(weight, B::float_reshape(delta, kernel))
}

/// `dA` (scaled) and `dB` (not yet scaled), when every group has its own block.
///
/// `h = A * x` has `r` channels; `dB = dy·hᵀ`, `dh = s·Bᵀ·dy`, and `dA` is the weight gradient of that small convolution.
fn low_rank_gradients<B: Backend>(
    x: FloatTensor<B>,
    a: &FloatTensor<B>,
    b: FloatTensor<B>,
    dy: FloatTensor<B>,
    kernel: &Shape,
    spec: &LowRankConv,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (rank, out, blocks) = (a.shape()[0], kernel[0], spec.blocks);
    let mut a_kernel = kernel.clone();
    a_kernel[0] = rank;
    let a4 = B::float_reshape(a.clone(), a_kernel);
    let h = conv::<B>(x.clone(), a4.clone(), &spec.dims);
    let h_shape = h.shape();
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
    let da = conv_dw::<B>(x, a4, B::float_reshape(dh, h_shape), &spec.dims);
    (B::float_reshape(da, a.shape()), db)
}

fn conv<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, dims: &ConvDims) -> FloatTensor<B> {
    match dims.clone() {
        ConvDims::One(options) => B::conv1d(x, weight, None, options),
        ConvDims::Two(options) => B::conv2d(x, weight, None, options),
    }
}

fn conv_dx<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    dy: FloatTensor<B>,
    dims: &ConvDims,
) -> FloatTensor<B> {
    match dims.clone() {
        ConvDims::One(options) => B::conv1d_x_backward(x, weight, dy, options),
        ConvDims::Two(options) => B::conv2d_x_backward(x, weight, dy, options),
    }
}

fn conv_dw<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    dy: FloatTensor<B>,
    dims: &ConvDims,
) -> FloatTensor<B> {
    match dims.clone() {
        ConvDims::One(options) => B::conv1d_weight_backward(x, weight, dy, options),
        ConvDims::Two(options) => B::conv2d_weight_backward(x, weight, dy, options),
    }
}

/// The fused convolution as an operation of a backend; its backward lives in the implementation for `Autodiff`.
#[backend_extension(Flex, Autodiff)]
pub trait LoraConv: Backend {
    /// `conv(x, W + s·B·A)`; `W` is a constant, no gradient flows into it.
    fn lora_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        spec: LowRankConv,
    ) -> FloatTensor<Self>;
}

impl LoraConv for Flex {
    fn lora_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        spec: LowRankConv,
    ) -> FloatTensor<Self> {
        Self::conv_forward(x, weight, a, b, &spec)
    }
}

#[derive(Debug)]
struct LoraConvBackward;

impl<B: ConvBody> Backward<B, 3> for LoraConvBackward {
    /// `x`, `weight`, `a`, `b`: the weight and the factors are shared with the model, only `x` is kept for us.
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, LowRankConv);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [node_x, node_a, node_b] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        let (x, weight, a, b, spec) = ops.state;
        let (dx, da, db) = B::conv_backward(x, weight, a, b, dy, &spec, node_x.is_some());
        for (node, grad) in [(node_x, dx), (node_a, Some(da)), (node_b, Some(db))] {
            if let (Some(node), Some(grad)) = (node, grad) {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

impl<B: ConvBody, C: CheckpointStrategy> LoraConv for Autodiff<B, C> {
    fn lora_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        spec: LowRankConv,
    ) -> FloatTensor<Self> {
        let prepared = LoraConvBackward.prepare::<C>([x.node(), a.node(), b.node()]).compute_bound().stateful();
        let (x, weight, a, b) = (x.into_primitive(), weight.into_primitive(), a.into_primitive(), b.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => {
                let y = B::conv_forward(x.clone(), weight.clone(), a.clone(), b.clone(), &spec);
                prepared.finish((x, weight, a, b, spec), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::conv_forward(x, weight, a, b, &spec)),
        }
    }
}

/// Convolution with the folded kernel `W + s·B·A`, in one pass over `x`:
///
/// `y[n, o, t] = Σ_i Σ_j (W[o, i, j] + s·Σ_p B[o, p]·A[p, i, j]) · x[n, i, stride·t + dilation·j − padding]`
///
/// Gradients reach `x`, `a` and `b`; `weight` is a constant.
///
/// # Shapes
/// - `x`: `[batch, in, length…]`
/// - `weight`: `[out, in/groups, kernel…]`
/// - `a`: `[r, in/groups · Πkernel]`, `b`: `[out, r / blocks]`
/// - output: `[batch, out, length…]`
///
/// # Panics
/// When a shape does not fit another, as Burn's own operations do.
///
/// PEFT computes `conv(x, W) + s·conv(conv(x, A), B)` instead, which pays two further passes over full-size
/// activations and drops dilation and padding mode in `A`.
#[must_use]
pub fn lora_conv<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<D>,
    a: Tensor<2>,
    b: Tensor<2>,
    spec: &LowRankConv,
) -> Tensor<D> {
    let (x, dims) = without_remainder(x, &weight, &spec.dims);
    Tensor::from_dispatch(<Dispatch as LoraConv>::lora_conv(
        x.into_dispatch(),
        weight.into_dispatch(),
        a.into_dispatch(),
        b.into_dispatch(),
        LowRankConv { dims, ..spec.clone() },
    ))
}

/// A plain convolution over the axes of `dims`.
///
/// # Panics
/// When the rank `D` is not that of `dims`, or a shape does not fit another.
#[must_use]
pub fn convolve<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<D>,
    bias: Option<Tensor<1>>,
    dims: &ConvDims,
) -> Tensor<D> {
    let (x, dims) = without_remainder(x, &weight, dims);
    match dims {
        ConvDims::One(options) => same_rank(module::conv1d(same_rank(x), same_rank(weight), bias, options)),
        ConvDims::Two(options) => same_rank(module::conv2d(same_rank(x), same_rank(weight), bias, options)),
    }
}

/// The input without the positions at its end that no output reads, in padding or in `x` itself.
///
/// Burn 0.22.1 computes a wrong weight gradient for a grouped 1-D convolution whose stride leaves such a remainder.
fn without_remainder<const D: usize>(x: Tensor<D>, weight: &Tensor<D>, dims: &ConvDims) -> (Tensor<D>, ConvDims) {
    let ConvDims::One(options) = dims else { return (x, dims.clone()) };
    let ([stride], [dilation], [(before, after)]) = (options.stride, options.dilation, options.padding);
    let (length, span) = (x.dims()[2], dilation * (weight.dims()[2].saturating_sub(1)) + 1);
    let padded = length + before + after;
    if options.groups == 1 || stride == 1 || padded < span {
        return (x, dims.clone());
    }
    let remainder = (padded - span) % stride;
    let (after, unread) = (after.saturating_sub(remainder), remainder.saturating_sub(after));
    let (x, padding) = if unread < length {
        (x.narrow(2, 0, length - unread), (before, after))
    } else {
        // All outputs read padding alone; a tensor cannot be empty, so a zero stands in for a position of it.
        (x.narrow(2, 0, 1).mul_scalar(0.0), (before - (unread - length) - 1, after))
    };
    (x, ConvDims::One(ConvOptions { padding: [padding], ..options.clone() }))
}

/// The same tensor under a rank that is known to be equal.
fn same_rank<const D: usize, const E: usize>(tensor: Tensor<D>) -> Tensor<E> {
    Tensor::from_dispatch(tensor.into_dispatch())
}
