//! Convolution over one axis, with a low-rank adapter folded into its weight: forward and every gradient.
//!
//! `y[n, o, t] = b[o] + Σ_i Σ_j (W[o, i, j] + s·Σ_p B[o, p]·A[p, i, j]) · x[n, i, stride·t + dilation·j − padding]`
//!
//! A task takes a tile of columns, copies what it reads into a window (which is where stride, padding of any mode, and
//! large dilations end: a tap is an offset afterwards), and multiplies packed weights with it in registers. The input
//! gradient is the same product with the weights transposed, one pass for each phase of the stride. The gradients of the
//! factors are sums along the columns of two windows, so the dense weight gradient never exists: `h = A * x` and
//! `dB = s·dy·hᵀ`, `dh = s·Bᵀ·dy` and `dA = Σ dh·x`, with `x` read once. With enough channels, forward and input gradient
//! take fewer multiplications than taps: `winograd`, half of them for a kernel of three. Three kinds of geometry leave
//! the registers of that path half empty and have their own: `depthwise`, `patches` for few channels under a wide stride,
//! and `short` for large batches of a few positions.
//!
//! Scratch: the weight of a group packed, shared by all threads (folded block by block on the way, and unpacked there from
//! half precision; as many groups at a time as there are threads); and a window for each thread, of about 96 Ki values or 48
//! columns of every channel, whichever is more (of every tap as well, where dilation sets the taps further apart than the
//! tile is wide); in `winograd` up to 7/4 of the weight in its place; under long kernels at wide strides the patches, at
//! most four times the input; beside a dense weight gradient as much again. A thread keeps both for the next call, packed
//! weights up to 16 MB. Sums are split by the shape, never by threads: the same bits for any number of them.

mod depthwise;
mod direct;
mod each;
mod forward;
mod input_gradient;
mod kernel;
mod low_rank_gradients;
mod matrix;
mod panels;
mod patches;
mod product;
mod short;
mod signals;
mod sums;
mod tiles;
mod weight_gradient;
mod weights;
mod window;
mod winograd;

pub use each::{Layer, forward_each};
pub use forward::forward;
pub use input_gradient::input_gradient;
pub use low_rank_gradients::low_rank_gradients;
pub use weight_gradient::weight_gradient;
pub use weights::{LowRank, Weight};

use crate::geometry::ConvGeometry;
use signals::Shape;

/// Values a window may hold: with the weights beside it, it stays in the second-level cache of a core.
const WINDOW: usize = 96 * 1024;

/// A batch of signals through a convolution.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// The convolution; of one axis.
    pub geometry: &'a ConvGeometry,
    /// Signals.
    pub batch: usize,
    /// Samples of each.
    pub length: usize,
}

impl Problem<'_> {
    /// Columns of the output.
    ///
    /// # Errors
    /// When the signals are too short; see [`ConvGeometry::output_lengths`].
    pub fn output_length(&self) -> crate::Result<usize> {
        Ok(self.geometry.output_lengths(&[self.length])?[0])
    }

    fn columns(&self) -> usize {
        self.output_length().expect("the signals are as long as the convolution needs")
    }

    fn inputs(&self) -> Shape {
        let groups = self.geometry.groups();
        Shape { groups, channels: self.geometry.in_channels() / groups, length: self.length }
    }

    fn outputs(&self) -> Shape {
        let groups = self.geometry.groups();
        Shape { groups, channels: self.geometry.out_channels() / groups, length: self.columns() }
    }

    fn taps(&self) -> usize {
        self.geometry.axes()[0].kernel
    }

    /// Values of a row of the weight, `in/groups · kernel`.
    fn row(&self) -> usize {
        self.inputs().channels * self.taps()
    }
}

#[cfg(test)]
mod tests;
