//! The delta of an adapter as products of two matrices, in the layout of the stored weight.

use std::ops::Range;

use super::factors::Factors;
use super::group::GroupMode;
use crate::Result;
use crate::kernels::gemm::{Matrix, Real, product};

/// `scale * left @ right`, block by block of rows: the weight is seen as the matrix `(rows, columns)` that it is stored
/// as, and the rows of each of `groups` groups have their own `rank` rows of `right`.
///
/// Layers that store `(out, in)` have `left = B` and `right = A`; the transposed ones `left = A^T` and `right = B^T`.
#[derive(Debug, Clone)]
pub(super) struct Delta<T> {
    pub rows: usize,
    pub columns: usize,
    pub groups: usize,
    pub rank: usize,
    pub scale: T,
    left: Vec<T>,
    left_strides: [usize; 2],
    right: Vec<T>,
    right_strides: [usize; 2],
}

/// A sum, and the sum of the magnitudes of its terms, which bounds what rounding can do to it.
#[derive(Debug, Clone, Copy, Default)]
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
        let columns = layer.weight_shape()[1..].iter().product();
        let groups = if factors.mode() == GroupMode::Shared { 1 } else { layer.groups() };
        let rank = factors.rank() / groups;
        let (a, b) = (convert(factors.a()), convert(factors.b()));
        let scale = T::from(factors.scale());
        Ok(if layer.kind().is_transposed() {
            let (left_strides, right_strides) = ([1, rows], [1, rank]);
            Self { rows, columns, groups, rank, scale, left: a, left_strides, right: b, right_strides }
        } else {
            let (left_strides, right_strides) = ([rank, 1], [columns, 1]);
            Self { rows, columns, groups, rank, scale, left: b, left_strides, right: a, right_strides }
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
            left: convert(dense.b()),
            left_strides: [rank, 1],
            right: convert(dense.a()),
            right_strides: [columns, 1],
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
            left: convert(bias),
            left_strides: [1, 1],
            right: vec![T::from(1.0)],
            right_strides: [1, 1],
        }
    }

    /// Rows `range` of the delta, row-major.
    pub fn rows(&self, range: Range<usize>, out: &mut [T]) {
        if self.scale == T::from(0.0) {
            // The product may overflow on its own; an adapter with alpha = 0 adds nothing all the same.
            out.fill(T::from(0.0));
            return;
        }
        let mut rest = out;
        for (group, rows) in self.by_group(range) {
            let (block, tail) = rest.split_at_mut(rows.len() * self.columns);
            let left = &self.left[rows.start * self.left_strides[0]..];
            let left = Matrix::new(left, [rows.len(), self.rank], self.left_strides);
            product(self.scale, left, self.group_of_right(group), block);
            rest = tail;
        }
    }

    /// `right @ probe` for all groups, in `f64` and by plain loops: the first half of the way through an adapter that
    /// is not merged.
    pub fn hidden(&self, probe: &[f64]) -> Vec<Term> {
        let hidden = |row: usize| {
            let mut sum = Term::default();
            for (column, x) in probe.iter().enumerate() {
                let right: f64 = self.right[row * self.right_strides[0] + column * self.right_strides[1]].into();
                sum.add(right * x);
            }
            sum
        };
        (0..self.groups * self.rank).map(hidden).collect()
    }

    /// `scale * left @ hidden` of one row: the second half.
    pub fn output(&self, row: usize, hidden: &[Term]) -> Term {
        let scale: f64 = self.scale.into();
        let group = row / (self.rows / self.groups);
        let mut sum = Term::default();
        for (p, hidden) in hidden[group * self.rank..][..self.rank].iter().enumerate() {
            let left: f64 = self.left[row * self.left_strides[0] + p * self.left_strides[1]].into();
            sum.value += scale * left * hidden.value;
            sum.magnitude += (scale * left).abs() * hidden.magnitude;
        }
        sum
    }

    fn group_of_right(&self, group: usize) -> Matrix<'_, T> {
        let start = group * self.rank * self.right_strides[0];
        Matrix::new(&self.right[start..], [self.rank, self.columns], self.right_strides)
    }

    /// Cuts a range of rows where groups meet.
    fn by_group(&self, range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + use<T> {
        let per_group = self.rows / self.groups;
        let groups = range.start / per_group..range.end.div_ceil(per_group);
        groups.map(move |group| (group, range.start.max(group * per_group)..range.end.min((group + 1) * per_group)))
    }
}

fn convert<T: Real>(values: &[f32]) -> Vec<T> {
    values.iter().map(|value| T::from(*value)).collect()
}
