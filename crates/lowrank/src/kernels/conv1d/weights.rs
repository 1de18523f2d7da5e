//! Frozen weights and the adapter that is folded into them.

#![expect(unsafe_code, reason = "the update is added to values in place")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use std::borrow::Cow;
use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::super::gemm::Matrix;
use super::super::lanes::arch;
use super::super::scratch;
use super::super::shared::Shared;
use super::super::strips::{self, Place, Start};
use super::super::values::Values;

/// A low-rank update `s·B·A` of a weight seen as the matrix `(out, n)`, `n = in/groups · kernel`.
#[derive(Debug, Clone, Copy)]
pub struct LowRank<'a> {
    /// `(r, n)`.
    pub a: &'a [f32],
    /// `(out, r / blocks)`.
    pub b: &'a [f32],
    /// `r`.
    pub rank: usize,
    /// Independent blocks: rows of `B` in block `i` meet the rows of `A` in block `i`.
    pub blocks: usize,
    /// `s`.
    pub scale: f32,
}

/// A frozen weight `(out, in/groups, kernel)` and the update that is folded into it.
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a> {
    /// `W`.
    pub base: Values<'a>,
    /// `s·B·A`.
    pub low_rank: Option<LowRank<'a>>,
}

impl<'a> Weight<'a> {
    /// A weight without an adapter.
    #[must_use]
    pub fn plain(values: &'a [f32]) -> Self {
        Self { base: Values::F32(values), low_rank: None }
    }

    /// Whether there are `out · n` values, and the factors fit them.
    pub(super) fn fits(&self, out: usize, n: usize) -> bool {
        self.base.len() == out * n
            && self.low_rank.is_none_or(|low| {
                low.blocks > 0
                    && out.is_multiple_of(low.blocks)
                    && low.rank.is_multiple_of(low.blocks)
                    && low.a.len() == low.rank * n
                    && low.b.len() == out * (low.rank / low.blocks)
            })
    }

    /// `W + s·B·A` as `f32`; rows are `n` long.
    pub(super) fn folded(&self, n: usize) -> Cow<'a, [f32]> {
        if let Some(values) = self.in_place() {
            return Cow::Borrowed(values);
        }
        let mut values = vec![0.0; self.base.len()];
        let rows = (FOLDED / n.max(1)).max(ROWS);
        let chunks = values.par_chunks_mut((rows * n).max(1)).enumerate();
        chunks.for_each(|(index, values)| {
            let rows = index * rows..index * rows + values.len() / n;
            scratch::with(self.memory(rows.len()), |memory| self.fold(n, rows, 0..n, values, memory));
        });
        Cow::Owned(values)
    }

    /// The values themselves, where they are what is multiplied with.
    pub(super) fn in_place(&self) -> Option<&'a [f32]> {
        if self.low_rank.is_none() { self.base.in_place() } else { None }
    }

    /// What [`Weight::fold`] needs for so many rows.
    pub(super) fn memory(&self, rows: usize) -> usize {
        self.low_rank.map_or(0, |low| low.rank / low.blocks * (rows + strips::width()))
    }

    /// Writes `W + s·B·A` of some rows and columns as `f32`; rows of `W` are `n` long.
    pub(super) fn fold(&self, n: usize, rows: Range<usize>, columns: Range<usize>, to: &mut [f32], memory: &mut [f32]) {
        if let (Some(low), Some(values)) = (self.low_rank, self.base.in_place()) {
            let values = &values[(rows.start * n + columns.start).min(values.len())..];
            return low.write(self.base.len() / n, n, [rows, columns], Start::matrix(values, n), to, memory);
        }
        for (row, to) in rows.clone().zip(to.chunks_exact_mut(columns.len().max(1))) {
            self.base.unpack(row * n + columns.start, to);
        }
        if let Some(low) = self.low_rank {
            low.write(self.base.len() / n, n, [rows, columns], Start::THERE, to, memory);
        }
    }
}

impl LowRank<'_> {
    /// Writes `start + s·B·A`, a matrix `(out, n)`, of some rows and columns.
    fn write(
        &self,
        out: usize,
        n: usize,
        [rows, columns]: [Range<usize>; 2],
        start: Start<'_>,
        mut to: &mut [f32],
        memory: &mut [f32],
    ) {
        let (rank, of_block) = (self.rank / self.blocks, out / self.blocks);
        let (mut row, width) = (rows.start, columns.len());
        while row < rows.end && width > 0 {
            let block = row / of_block;
            let end = rows.end.min((block + 1) * of_block);
            let (values, rest) = to.split_at_mut((end - row) * width);
            let (b, strip) = memory.split_at_mut((end - row) * rank);
            b.iter_mut().zip(&self.b[row * rank..]).for_each(|(to, value)| *to = self.scale * value);
            let b = Matrix::row_major(b, [end - row, rank]);
            let a = Matrix::new(&self.a[block * rank * n + columns.start..], [rank, width], [n, 1]);
            let start = start.below(row - rows.start);
            arch().dispatch(Fold { left: b, right: a, start, values, strip });
            (row, to) = (end, rest);
        }
    }
}

/// `values = start + left·right`, row-major.
struct Fold<'a> {
    left: Matrix<'a, f32>,
    right: Matrix<'a, f32>,
    start: Start<'a>,
    values: &'a mut [f32],
    strip: &'a mut [f32],
}

impl WithSimd for Fold<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { left, right, start, values, strip } = self;
        let place = Place { output: &Shared::new(values), start: 0, row_stride: right.columns };
        // SAFETY: the values are borrowed alone; where they are what it starts with, they have been written.
        unsafe { strips::multiply_in_place(simd, left, right, start, place, strip) };
    }
}

/// Values that a task folds, and rows at least.
const FOLDED: usize = 1 << 16;
const ROWS: usize = 16;
