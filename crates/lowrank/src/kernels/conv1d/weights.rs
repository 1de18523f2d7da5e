//! Frozen weights and the adapter that is folded into them.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use super::super::gemm::{self, Matrix};
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
            let first = index * rows;
            self.fold(n, first..first + values.len() / n, 0..n, values);
        });
        Cow::Owned(values)
    }

    /// The values themselves, where they are what is multiplied with.
    pub(super) fn in_place(&self) -> Option<&'a [f32]> {
        if self.low_rank.is_none() { self.base.in_place() } else { None }
    }

    /// Writes `W + s·B·A` of some rows and columns as `f32`; rows of `W` are `n` long.
    pub(super) fn fold(&self, n: usize, rows: Range<usize>, columns: Range<usize>, to: &mut [f32]) {
        for (row, to) in rows.clone().zip(to.chunks_exact_mut(columns.len().max(1))) {
            self.base.unpack(row * n + columns.start, to);
        }
        if let Some(low) = self.low_rank {
            low.add(self.base.len() / n, n, rows, columns, to);
        }
    }
}

impl LowRank<'_> {
    /// Adds `s·B·A`, a matrix `(out, n)`, of some rows and columns.
    fn add(&self, out: usize, n: usize, rows: Range<usize>, columns: Range<usize>, mut to: &mut [f32]) {
        let (rank, of_block) = (self.rank / self.blocks, out / self.blocks);
        let (mut row, width) = (rows.start, columns.len());
        while row < rows.end && width > 0 {
            let block = row / of_block;
            let end = rows.end.min((block + 1) * of_block);
            let (values, rest) = to.split_at_mut((end - row) * width);
            let b = Matrix::new(&self.b[row * rank..], [end - row, rank], [rank, 1]);
            let a = Matrix::new(&self.a[block * rank * n + columns.start..], [rank, width], [n, 1]);
            gemm::add_product(self.scale, b, a, values);
            (row, to) = (end, rest);
        }
    }
}

/// Values that a task folds, and rows at least.
const FOLDED: usize = 1 << 14;
const ROWS: usize = 16;
