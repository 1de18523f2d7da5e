//! The delta of an adapter as products of two matrices, in the layout of the stored weight.

use std::ops::Range;

use super::factors::Factors;
use super::group::GroupMode;
use crate::Result;
use crate::kernels::gemm::{Matrix, Real, product};

/// `scale * left @ right`, block by block of rows: the weight is seen as the matrix `(rows, columns)` that it is stored
/// as, and the rows of each of `groups` groups have their own part of `left`, or `right`, or both.
///
/// Layers that store `(out, in)` have `left = B` and `right = A`. Those that store `(in, out, k)` have `left = A^T`, with
/// `taps` rows for each of the weight's, and `right = B^T`: their product is `(in, k, out)`.
#[derive(Debug, Clone)]
pub(super) struct Delta<T> {
    pub rows: usize,
    pub columns: usize,
    pub groups: usize,
    pub rank: usize,
    pub scale: T,
    /// Rows of `left` for each of the weight's.
    pub taps: usize,
    left: Factor<T>,
    right: Factor<T>,
}

/// One side of the product: the values of all groups.
#[derive(Debug, Clone)]
struct Factor<T> {
    values: Vec<T>,
    /// From one group to the next; 0 when all have the same.
    group: usize,
    /// From one row to the next, and from one column.
    strides: [usize; 2],
}

impl<T: Copy> Factor<T> {
    fn at(&self, group: usize, row: usize, column: usize) -> T {
        self.values[group * self.group + row * self.strides[0] + column * self.strides[1]]
    }

    fn matrix(&self, group: usize, first: usize, size: [usize; 2]) -> Matrix<'_, T> {
        Matrix::new(&self.values[group * self.group + first * self.strides[0]..], size, self.strides)
    }
}

/// A sum, and the sum of the magnitudes of its terms, which bounds what rounding can do to it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Term {
    pub value: f64,
    pub magnitude: f64,
}

impl Term {
    pub fn add(&mut self, term: f64) {
        self.value += term;
        self.magnitude += term.abs();
    }
}

impl<T: Real> Delta<T> {
    /// The delta of the weight.
    ///
    /// # Errors
    /// When a `dense` adapter has entries that do not fit the grouped weight.
    pub fn of_weight(factors: &Factors) -> Result<Self> {
        let layer = factors.layer();
        if factors.mode() == GroupMode::Dense && layer.groups() > 1 {
            return Self::of_weight(&factors.to_per_group()?);
        }
        let rows = layer.weight_shape()[0];
        let columns: usize = layer.weight_shape()[1..].iter().product();
        let blocks = if factors.mode() == GroupMode::Shared { 1 } else { layer.groups() };
        let rank = factors.rank() / blocks;
        let scale = T::from(factors.scale());
        let of_a = |strides, width: usize| {
            let group = if blocks == 1 { 0 } else { rank * width };
            Factor { values: convert(factors.a()), group, strides }
        };
        let of_b = |strides, groups: usize| {
            let group = if groups == 1 { 0 } else { layer.out_features() / groups * rank };
            Factor { values: convert(factors.b()), group, strides }
        };
        Ok(if layer.kind().is_transposed() {
            // The rows of all groups have outputs of their own, so that `B` is divided even where `A` is shared.
            let (groups, taps) = (layer.groups(), layer.kernel().iter().product());
            let width = rows / groups * taps;
            let (left, right) = (of_a([1, width], width), of_b([1, rank], groups));
            Self { rows, columns, groups, rank, scale, taps, left, right }
        } else {
            let (left, right) = (of_b([rank, 1], blocks), of_a([columns, 1], columns));
            Self { rows, columns, groups: blocks, rank, scale, taps: 1, left, right }
        })
    }

    /// The delta that PEFT takes `DoRA`'s norm with on a grouped convolution: the values of a `dense` adapter's `B` as
    /// `(out/g, r)` times `A` as `(r, in * k)`, in which each row holds `g` rows of the weight.
    pub fn as_peft_has_it(dense: &Factors) -> Self {
        let (rank, layer) = (dense.rank(), dense.layer());
        let (rows, columns) = (layer.out_features() / layer.groups(), dense.a().len() / rank);
        Self {
            rows,
            columns,
            groups: 1,
            rank,
            scale: T::from(dense.scale()),
            taps: 1,
            left: Factor { values: convert(dense.b()), group: 0, strides: [rank, 1] },
            right: Factor { values: convert(dense.a()), group: 0, strides: [columns, 1] },
        }
    }

    /// The delta of the bias, which has one column: `scale * B.bias`.
    pub fn of_bias(scale: f32, bias: &[f32]) -> Self {
        Self {
            rows: bias.len(),
            columns: 1,
            groups: 1,
            rank: 1,
            scale: T::from(scale),
            taps: 1,
            left: Factor { values: convert(bias), group: 0, strides: [1, 1] },
            right: Factor { values: vec![T::from(1.0)], group: 0, strides: [1, 1] },
        }
    }

    /// Rows `range` of the delta, row-major.
    pub fn rows(&self, range: Range<usize>, out: &mut [T]) {
        if self.scale == T::from(0.0) {
            // The product may overflow on its own; an adapter with alpha = 0 adds nothing all the same.
            out.fill(T::from(0.0));
            return;
        }
        let (per_group, outputs) = (self.rows / self.groups, self.columns / self.taps);
        let mut rest = out;
        for (group, rows) in self.by_group(range) {
            let (block, tail) = rest.split_at_mut(rows.len() * self.columns);
            let first = (rows.start - group * per_group) * self.taps;
            let left = self.left.matrix(group, first, [rows.len() * self.taps, self.rank]);
            product(self.scale, left, self.right.matrix(group, 0, [self.rank, outputs]), block);
            rest = tail;
            if self.taps > 1 && outputs > 1 {
                block.chunks_exact_mut(self.columns).for_each(|row| turn(row, [self.taps, outputs]));
            }
        }
    }

    /// `right @ probe(group, ..)` for all groups and taps, in `f64` and by plain loops: the first half of the way through
    /// an adapter that is not merged.
    pub fn hidden(&self, probe: impl Fn(usize, usize) -> f64) -> Vec<Term> {
        let outputs = self.columns / self.taps;
        let hidden = |at: usize| {
            let (group, tap, p) = (at / (self.taps * self.rank), at / self.rank % self.taps, at % self.rank);
            let mut sum = Term::default();
            for column in 0..outputs {
                sum.add(self.right.at(group, p, column).into() * probe(group, column * self.taps + tap));
            }
            sum
        };
        (0..self.groups * self.taps * self.rank).map(hidden).collect()
    }

    /// `scale * left @ hidden` of one row: the second half.
    pub fn output(&self, row: usize, hidden: &[Term]) -> Term {
        let scale: f64 = self.scale.into();
        let per_group = self.rows / self.groups;
        let (group, first) = (row / per_group, row % per_group * self.taps);
        let mut sum = Term::default();
        let terms = self.taps * self.rank;
        for (at, hidden) in hidden[group * terms..][..terms].iter().enumerate() {
            let left: f64 = self.left.at(group, first + at / self.rank, at % self.rank).into();
            sum.value += scale * left * hidden.value;
            sum.magnitude += (scale * left).abs() * hidden.magnitude;
        }
        sum
    }

    /// Cuts a range of rows where groups meet.
    fn by_group(&self, range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + use<T> {
        let per_group = self.rows / self.groups;
        let groups = range.start / per_group..range.end.div_ceil(per_group);
        groups.map(move |group| (group, range.start.max(group * per_group)..range.end.min((group + 1) * per_group)))
    }
}

/// A row-major matrix to its transpose.
fn turn<T: Copy>(values: &mut [T], [rows, columns]: [usize; 2]) {
    let turned: Vec<T> = (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect();
    values.copy_from_slice(&turned);
}

fn convert<T: Real>(values: &[f32]) -> Vec<T> {
    values.iter().map(|value| T::from(*value)).collect()
}
