//! A matrix product whose columns are whole registers.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::{Simd, WithSimd};

use super::super::block::{self, COLUMNS, Rows, Scalars};
use super::super::lanes::arch;

/// Rows of a block at most, on any machine.
pub(super) const PANEL: usize = 8;

/// A factor of which one value is used at a time: `(row, step)` is at
/// `row / PANEL · panel_stride + row % PANEL · row_stride + step · step_stride`.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub data: &'a [f32],
    pub panel_stride: usize,
    pub row_stride: usize,
    pub step_stride: usize,
}

impl<'a> Panels<'a> {
    /// Rows at a stride.
    pub fn rows(data: &'a [f32], row_stride: usize) -> Self {
        Self { data, panel_stride: PANEL * row_stride, row_stride, step_stride: 1 }
    }

    /// Rows that stand side by side, their steps at a stride.
    pub fn columns(data: &'a [f32], step_stride: usize) -> Self {
        Self { data, panel_stride: PANEL, row_stride: 1, step_stride }
    }

    #[inline(always)]
    fn from(self, row: usize) -> Scalars<'a> {
        let start = row / PANEL * self.panel_stride + row % PANEL * self.row_stride;
        Scalars { data: &self.data[start..], row_stride: self.row_stride, step_stride: self.step_stride }
    }
}

/// A matrix with rows at a stride.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub data: &'a [f32],
    pub stride: usize,
}

/// `out[row, column] += Σ_step a[row, step] · b[step, column]`, for as many rows as `out` has; of `b` and of `out`, the
/// first `width` columns.
pub(super) fn add_product(
    a: Panels<'_>,
    b: Matrix<'_>,
    [steps, width]: [usize; 2],
    (out, out_stride): (&mut [f32], usize),
) {
    arch().dispatch(Product { a, b, steps, width, rows: out.len() / out_stride, out, out_stride });
}

struct Product<'a> {
    a: Panels<'a>,
    b: Matrix<'a>,
    steps: usize,
    width: usize,
    rows: usize,
    out: &'a mut [f32],
    out_stride: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut column = 0;
        while column < self.width {
            let registers = match (self.width - column) / S::F32_LANES {
                2 | 4 => self.columns::<S, 2>(simd, column),
                1 => self.columns::<S, 1>(simd, column),
                _ => self.columns::<S, COLUMNS>(simd, column),
            };
            column += registers * S::F32_LANES;
        }
    }
}

impl Product<'_> {
    /// `N` registers of columns, and returns `N`.
    #[inline(always)]
    fn columns<S: Simd, const N: usize>(&mut self, simd: S, column: usize) -> usize {
        let mut row = 0;
        while row < self.rows {
            row += match (self.rows - row).min(block::rows::<S>()) {
                8 => self.block::<S, 8, N>(simd, row, column),
                4.. => self.block::<S, 4, N>(simd, row, column),
                2.. => self.block::<S, 2, N>(simd, row, column),
                _ => self.block::<S, 1, N>(simd, row, column),
            };
        }
        N
    }

    /// `M` rows, and returns `M`.
    #[inline(always)]
    fn block<S: Simd, const M: usize, const N: usize>(&mut self, simd: S, row: usize, column: usize) -> usize {
        let at = |m: usize| (row + m) * self.out_stride + column;
        let mut sums = [[simd.splat_f32s(0.0); N]; M];
        for (m, sums) in sums.iter_mut().enumerate() {
            sums.copy_from_slice(&S::as_simd_f32s(&self.out[at(m)..]).0[..N]);
        }
        let (row_stride, ahead) = (self.b.stride, N * S::F32_LANES);
        let b = Rows { data: &self.b.data[column..], row_stride, taps: &[0], depth: self.steps, ahead };
        block::multiply(simd, &mut sums, self.a.from(row), b);
        for (m, sums) in sums.iter().enumerate() {
            let at = (row + m) * self.out_stride + column;
            S::as_mut_simd_f32s(&mut self.out[at..]).0[..N].copy_from_slice(sums);
        }
        M
    }
}
