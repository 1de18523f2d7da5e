//! Linear layers with a low-rank adapter: forward and every gradient.
//!
//! `y[n, o] = bias[o] + Σ_i x[n, i] · (W[i, o] + s·Σ_p B[o, p]·A[p, i])`, with `W (in, out)` as Burn has it and `A (r, in)`,
//! `B (out, r)` as PEFT has them.
//!
//! A task takes a strip of the weight, as wide as a block of registers and unpacked from half precision, and all or many of
//! the rows of `x`; neither `x` nor `y` is transposed or copied. Where the processor has a matrix unit, large products are
//! computed there, with both factors packed. Where there are many rows the adapter is folded into the strip, at `in·out·r`
//! operations for all of them; where there are few, `h = x·Aᵀ` is computed first, and `s·h·Bᵀ` is added as more steps of
//! the same sums. The gradients of the factors are sums over rows that are read once: `dB = s·dyᵀ·h` and, with
//! `dh = s·dy·B`, `dA = dhᵀ·x`.
//!
//! Scratch: a thread's strip, or some rows packed (at most 0.6 MB), and for the matrix unit at most 8 MB of the weight.
//!
//! Sums are split by the shape, never by threads: the same bits for any number of them.

mod few;
mod low_rank_gradients;
mod product;
mod right;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tiles;

pub use low_rank_gradients::low_rank_gradients;

use std::ops::Range;

use super::gemm::Matrix;
use super::values::Values;
use product::product;
use right::{Held, Right};

/// A frozen weight `(in, out)` and its adapter.
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a> {
    /// `W`, row-major.
    pub base: Values<'a>,
    /// `in`.
    pub inputs: usize,
    /// `out`.
    pub outputs: usize,
    /// `s·B·A`.
    pub low_rank: Option<LowRank<'a>>,
}

/// A low-rank update `s·B·A`.
#[derive(Debug, Clone, Copy)]
pub struct LowRank<'a> {
    /// `(r, in)`.
    pub a: &'a [f32],
    /// `(out, r)`.
    pub b: &'a [f32],
    /// `r`.
    pub rank: usize,
    /// `s`.
    pub scale: f32,
}

impl<'a> Weight<'a> {
    fn matrix(&self) -> Held<'a> {
        assert_eq!(self.base.len(), self.inputs * self.outputs, "values of the weight");
        Held::row_major(self.base, [self.inputs, self.outputs])
    }

    /// Whether it pays to add the update to the weight, rather than its path to the output.
    fn folds(&self, rows: usize) -> bool {
        rows * (self.inputs + self.outputs) > self.inputs * self.outputs
    }
}

impl<'a> LowRank<'a> {
    /// `A` and `B` as matrices.
    fn factors(&self, inputs: usize, outputs: usize) -> [Matrix<'a, f32>; 2] {
        assert_eq!(self.a.len(), self.rank * inputs, "values of A");
        assert_eq!(self.b.len(), self.rank * outputs, "values of B");
        [Matrix::row_major(self.a, [self.rank, inputs]), Matrix::row_major(self.b, [outputs, self.rank])]
    }
}

/// `y (rows, out) = x·W + s·(x·Aᵀ)·Bᵀ + bias`, of `x (rows, in)`.
///
/// # Panics
/// When a slice does not have the size of its shape.
#[must_use]
pub fn forward(x: &[f32], weight: &Weight<'_>, bias: Option<&[f32]>) -> Vec<f32> {
    let (inputs, outputs) = (weight.inputs, weight.outputs);
    assert!(bias.is_none_or(|bias| bias.len() == outputs), "values of the bias");
    let x = rows_of(x, inputs, "x");
    // W + Aᵀ·(s·Bᵀ)
    let update = weight.low_rank.map(|low| (low.factors(inputs, outputs).map(Matrix::transposed), low.scale));
    with_update(x, weight.matrix(), update, weight.folds(x.rows), bias)
}

/// The gradient `dx (rows, in) = dy·Wᵀ + s·(dy·B)·A` of the input, of `dy (rows, out)`.
///
/// # Panics
/// When a slice does not have the size of its shape.
#[must_use]
pub fn input_gradient(dy: &[f32], weight: &Weight<'_>) -> Vec<f32> {
    let (inputs, outputs) = (weight.inputs, weight.outputs);
    let dy = rows_of(dy, outputs, "dy");
    // Wᵀ + B·(s·A)
    let update = weight.low_rank.map(|low| {
        let [a, b] = low.factors(inputs, outputs);
        ([b, a], low.scale)
    });
    with_update(dy, weight.matrix().transposed(), update, weight.folds(dy.rows), None)
}

/// The gradient `dW (in, out) = xᵀ·dy` of a dense weight, of `x (rows, in)` and `dy (rows, out)`.
///
/// # Panics
/// When the numbers of rows differ, or the last is not whole.
#[must_use]
pub fn weight_gradient(x: &[f32], dy: &[f32], [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    let (x, dy) = (rows_of(x, inputs, "x"), rows_of(dy, outputs, "dy"));
    assert_eq!(x.rows, dy.rows, "rows of x and dy");
    product(&[(x.transposed(), Right::plain(dy))], None, [inputs, outputs])
}

/// `left·right` of two matrices of which rows or columns are contiguous, row-major.
pub(super) fn product_of(left: Matrix<'_, f32>, right: Matrix<'_, f32>) -> Vec<f32> {
    product(&[(left, Right::plain(right))], None, [left.rows, right.columns])
}

/// `left·(right + s·first·second) + bias`.
fn with_update(
    left: Matrix<'_, f32>,
    right: Held<'_>,
    update: Option<([Matrix<'_, f32>; 2], f32)>,
    folds: bool,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let shape = [left.rows, right.columns];
    let Some(([first, second], scale)) = update else {
        return product(&[(left, Right::plain(right))], bias, shape);
    };
    // The second factor, scaled, in the order in which strips are packed.
    let second_shape = [second.rows, second.columns];
    let scaled: Vec<f32> = (0..second.rows * second.columns)
        .map(|at| {
            scale * second.data[at / second.columns * second.row_stride + at % second.columns * second.column_stride]
        })
        .collect();
    let second = Matrix::row_major(&scaled, second_shape);
    if folds {
        return product(&[(left, Right { matrix: right, update: Some([first, second]) })], bias, shape);
    }
    let h = product(&[(left, Right::plain(first))], None, [left.rows, first.columns]);
    let h = Matrix::row_major(&h, [left.rows, first.columns]);
    product(&[(left, Right::plain(right)), (h, Right::plain(second))], bias, shape)
}

/// A range in pieces of `len`.
fn chunks(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(len).map(move |first| first..range.end.min(first + len))
}

/// `values` as rows of `width`.
fn rows_of<'a>(values: &'a [f32], width: usize, name: &str) -> Matrix<'a, f32> {
    let rows = values.len().checked_div(width).unwrap_or(0);
    assert_eq!(values.len(), rows * width, "whole rows of {name}");
    Matrix::row_major(values, [rows, width])
}

#[cfg(test)]
mod tests;
