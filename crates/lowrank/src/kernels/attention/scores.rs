//! A block of rows of the scores.

#![expect(unsafe_code, reason = "products write parts of one output")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use std::ops::Range;

use pulp::Simd;

use super::super::buffers::Buffers;
use super::super::gemm::Matrix;
use super::super::lanes::Lanes;
use super::super::math::exp;
use super::super::reduce::{largest, sum};
use super::super::shared::Shared;
use super::super::strips::{Place, Start, Strips, multiply_all};
use super::Attention;

/// Rows of products of some queries (or their gradients) with every key (or value) that any of them sees.
pub(super) struct Scores<'m> {
    pub rows: &'m mut [f32],
    pub stride: usize,
    /// The queries.
    pub queries: Range<usize>,
    /// Keys seen by the last of them.
    pub seen: usize,
}

impl<'m> Scores<'m> {
    /// `left · strips`, with the keys or the values transposed and packed.
    #[inline(always)]
    pub fn new<S: Simd>(
        simd: S,
        shape: &Attention,
        left: Matrix<'_, f32>,
        strips: Strips<'_>,
        queries: Range<usize>,
        memory: &'m mut [f32],
    ) -> Self {
        let (stride, seen) = (shape.row(), shape.seen(queries.end - 1));
        let rows = &mut memory[..queries.len() * stride];
        let place = Place { output: &Shared::new(rows), start: 0, row_stride: stride };
        // Whole registers: packed keys and rows of scores have room for them.
        let columns = seen.next_multiple_of(S::F32_LANES);
        // SAFETY: scratch of this thread.
        unsafe { multiply_all(simd, left.rows(queries.clone()), strips, columns, Start::ZERO, place) };
        Self { rows, stride, queries, seen }
    }

    /// As a matrix `(queries, seen)`.
    pub fn matrix(&self) -> Matrix<'_, f32> {
        Matrix::new(self.rows, [self.queries.len(), self.seen], [self.stride, 1])
    }
}

/// From scores to probabilities; the logarithm of each row's sum goes to `sums`.
#[inline(always)]
pub(super) fn softmax<S: Simd>(simd: S, shape: &Attention, scores: &mut Scores<'_>, sums: &mut [f32]) {
    let scale = shape.scale();
    for ((row, query), log_sum) in scores.rows.chunks_exact_mut(scores.stride).zip(scores.queries.clone()).zip(sums) {
        let (row, unseen) = row[..scores.seen].split_at_mut(shape.seen(query));
        let largest = largest(simd, row);
        let row = Buffers::from(row).map(
            simd,
            [],
            #[inline(always)]
            |s, []| exp((s - largest) * scale),
        );
        let sum = sum(
            simd,
            [&*row],
            #[inline(always)]
            |[p]| p,
        );
        *log_sum = sum.ln() + largest * scale;
        let inverse = 1.0 / sum;
        Buffers::from(row).map(
            simd,
            [],
            #[inline(always)]
            |p, []| p * inverse,
        );
        unseen.fill(0.0);
    }
}

/// From scores to the probabilities that [`softmax`] made of them.
#[inline(always)]
pub(super) fn softmax_again<S: Simd>(simd: S, shape: &Attention, scores: &mut Scores<'_>, sums: &[f32]) {
    let scale = shape.scale();
    for ((row, query), log_sum) in scores.rows.chunks_exact_mut(scores.stride).zip(scores.queries.clone()).zip(sums) {
        let (row, unseen) = row[..scores.seen].split_at_mut(shape.seen(query));
        Buffers::from(row).map(
            simd,
            [],
            #[inline(always)]
            |s, []| exp(s.mul_add(scale, -*log_sum)),
        );
        unseen.fill(0.0);
    }
}

/// `ds = p·(dp − Σ p·dp) / √head_dim`, over `dp`.
#[inline(always)]
pub(super) fn softmax_backward<S: Simd>(simd: S, shape: &Attention, p: &Scores<'_>, dp: &mut Scores<'_>) {
    let scale = shape.scale();
    let rows = dp.rows.chunks_exact_mut(dp.stride).zip(p.rows.chunks_exact(p.stride)).zip(p.queries.clone());
    for ((dp_row, p_row), query) in rows {
        let seen = shape.seen(query);
        let (row, unseen) = dp_row[..dp.seen].split_at_mut(seen);
        let p_row = &p_row[..seen];
        let mean = sum(
            simd,
            [p_row, &*row],
            #[inline(always)]
            |[p, dp]| p * dp,
        );
        Buffers::from(row).map(
            simd,
            [p_row],
            #[inline(always)]
            |dp, [p]: [Lanes<S>; 1]| (dp - mean) * p * scale,
        );
        unseen.fill(0.0);
    }
}
