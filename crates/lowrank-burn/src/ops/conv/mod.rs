//! Convolution with a low-rank adapter over one to three axes, and its transpose.

mod body;
mod each;
mod flex;
mod graph;
mod padding;
mod transpose;

use burn::backend::Dispatch;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Tensor};
use lowrank::Result;
use lowrank::geometry::{Axis, ConvGeometry, Padding, PaddingMode};

pub use body::ConvBody;
pub use each::{Factors, OwnConv, convolve_each};
pub use graph::LoraConv;
pub use transpose::Transposed;

/// Stride, padding, dilation and groups of a convolution over one to three axes, or of a transposed one.
#[derive(Debug, Clone)]
pub enum ConvDims {
    /// Over `[batch, channels, length]`, and what is added at the ends of the signals.
    One(ConvOptions<1>, PaddingMode),
    /// Over `[batch, channels, height, width]`, with zeros around.
    Two(ConvOptions<2>),
    /// Over `[batch, channels, depth, height, width]`, with zeros around.
    Three(ConvOptions<3>),
    /// The transpose of one of these.
    Transposed(Transposed),
}

impl ConvDims {
    /// The number of groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        match self {
            Self::One(options, _) => options.groups,
            Self::Two(options) => options.groups,
            Self::Three(options) => options.groups,
            Self::Transposed(transposed) => transposed.conv.groups(),
        }
    }

    /// The output channels of a weight of that shape.
    #[must_use]
    pub fn outputs(&self, weight: &[usize]) -> usize {
        if let Self::Transposed(_) = self { weight[1] * self.groups() } else { weight[0] }
    }

    /// The geometry of a convolution of so many channels by a weight of that shape; of a transposed one that of the
    /// convolution whose transpose it is, which takes as many channels as it gives.
    ///
    /// # Errors
    /// When they do not fit each other.
    pub fn geometry(&self, channels: usize, weight: &[usize]) -> Result<ConvGeometry> {
        let (along, mode) = match self {
            Self::One(options, mode) => (axes(options, weight), *mode),
            Self::Two(options) => (axes(options, weight), PaddingMode::Zeros),
            Self::Three(options) => (axes(options, weight), PaddingMode::Zeros),
            Self::Transposed(transposed) => return transposed.conv.geometry(channels, weight),
        };
        ConvGeometry::new(channels, weight[0], self.groups(), mode, along)
    }

    /// The same convolution in one group.
    #[must_use]
    pub fn ungrouped(&self) -> Self {
        match self.clone() {
            Self::One(options, mode) => Self::One(ConvOptions { groups: 1, ..options }, mode),
            Self::Two(options) => Self::Two(ConvOptions { groups: 1, ..options }),
            Self::Three(options) => Self::Three(ConvOptions { groups: 1, ..options }),
            Self::Transposed(transposed) => Self::Transposed(transposed.ungrouped()),
        }
    }

    /// The convolution of kernel size 1 that follows this one in a two-path adapter: no stride, padding or dilation.
    #[must_use]
    pub fn pointwise(&self, groups: usize) -> Self {
        match self {
            Self::One(..) => Self::One(ConvOptions::new([1], [0], [1], groups), PaddingMode::Zeros),
            Self::Two(_) => Self::Two(ConvOptions::new([1; 2], [0; 2], [1; 2], groups)),
            Self::Three(_) => Self::Three(ConvOptions::new([1; 3], [0; 3], [1; 3], groups)),
            Self::Transposed(transposed) => transposed.conv.pointwise(groups),
        }
    }
}

fn axes<const D: usize>(options: &ConvOptions<D>, weight: &[usize]) -> Vec<Axis> {
    let axis = |at: usize| Axis {
        kernel: weight[2 + at],
        stride: options.stride[at],
        dilation: options.dilation[at],
        padding: Padding::Explicit(options.padding[at].0, options.padding[at].1),
    };
    (0..D).map(axis).collect()
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

/// Convolution with the folded kernel `W + s·B·A`, in one pass over `x`, plus a bias:
///
/// `y[n, o, t] = Σ_i Σ_j (W[o, i, j] + s·Σ_p B[o, p]·A[p, i, j]) · x[n, i, stride·t + dilation·j − padding]`
///
/// A transposed convolution puts what a convolution reads: `y[n, o, q] = Σ_i Σ_j (…) · x[n, i, t]` over all `t` and `j` with
/// `q = stride·t + dilation·j − padding`.
///
/// Gradients reach `x`, `a`, `b` and the bias; `weight` is a constant. It may be of half precision while all else is `f32`.
///
/// # Shapes
/// - `x`: `[batch, in, length…]`
/// - `weight`: `[out, in/groups, kernel…]`, of a transposed convolution `[in, out/groups, kernel…]`
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
    bias: Option<Tensor<1>>,
    spec: &LowRankConv,
) -> Tensor<D> {
    let (constant, trained) = split_bias(bias, &weight, &spec.dims, x.dtype());
    let y = Tensor::from_dispatch(<Dispatch as LoraConv>::lora_conv(
        x.into_dispatch(),
        weight.into_dispatch(),
        a.into_dispatch(),
        b.into_dispatch(),
        constant.into_dispatch(),
        spec.clone(),
    ));
    add_bias(y, trained)
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
    let (constant, trained) = split_bias(bias, &weight, dims, x.dtype());
    let y = Tensor::from_dispatch(<Dispatch as LoraConv>::plain_conv(
        x.into_dispatch(),
        weight.into_dispatch(),
        constant.into_dispatch(),
        dims.clone(),
    ));
    add_bias(y, trained)
}

/// A bias that is a constant of the operation, and one that is trained and added after it, in the type of the input.
fn split_bias<const D: usize>(
    bias: Option<Tensor<1>>,
    weight: &Tensor<D>,
    dims: &ConvDims,
    dtype: DType,
) -> (Tensor<1>, Option<Tensor<1>>) {
    let zeros = || Tensor::zeros([dims.outputs(&weight.dims())], (&weight.device(), dtype));
    match bias.map(|bias| bias.cast(dtype)) {
        Some(bias) if bias.is_tracked() => (zeros(), Some(bias)),
        Some(bias) => (bias, None),
        None => (zeros(), None),
    }
}

/// `y[n, o, …] + bias[o]`.
fn add_bias<const D: usize>(y: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let Some(bias) = bias else { return y };
    let mut shape = [1; D];
    shape[1] = bias.dims()[0];
    y + bias.reshape(shape)
}
