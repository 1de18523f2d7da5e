//! Gradients of the factors.

#![expect(unsafe_code, reason = "a task writes sums of its own")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::super::gemm::Matrix;
use super::super::lanes::arch;
use super::super::parts::{PARTS, parts};
use super::super::scratch;
use super::super::shared::Shared;
use super::super::strips::{Place, Start, Strips, multiply_all, multiply_in_place, width};
use super::{LowRank, rows_of};
use crate::threads::awake;

/// Rows at a time: those of `x` stay in the second-level cache while they are read twice.
const ROWS: usize = 64;

/// The gradients `dA (r, in)` and `dB (out, r)`, of `x (rows, in)` and `dy (rows, out)`.
///
/// # Panics
/// When a slice does not have the size of its shape.
#[must_use]
pub fn low_rank_gradients(
    x: &[f32],
    dy: &[f32],
    [inputs, outputs]: [usize; 2],
    low: &LowRank<'_>,
) -> (Vec<f32>, Vec<f32>) {
    let (x, dy, [a, b]) = (rows_of(x, inputs, "x"), rows_of(dy, outputs, "dy"), low.factors(inputs, outputs));
    assert_eq!(x.rows, dy.rows, "rows of x and dy");
    // h = x·Aᵀ and dB = dyᵀ·h, dh = dy·B and dA = dhᵀ·x; each sum has its factor's scale at the end.
    let (factors, sums) = ([a.transposed(), b], [low.rank * outputs, low.rank * inputs]);
    let [mut of_a, mut of_b] = factors.map(|factor| vec![0.0; Strips::len(factor)]);
    let (of_a, of_b) = (Strips::pack(factors[0], &mut of_a), Strips::pack(factors[1], &mut of_b));
    let blocks = x.rows.div_ceil(ROWS);
    let of_part = |blocks: Range<usize>| {
        let mut of_part = sums.map(|len| vec![0.0; len]);
        for block in blocks {
            let rows = block * ROWS..x.rows.min((block + 1) * ROWS);
            let [db, da] = &mut of_part;
            for (read, summed, strips, sums) in [(x, dy, of_a, db), (dy, x, of_b, da)] {
                Task { read: read.rows(rows.clone()), summed: summed.rows(rows.clone()), strips, sums }.run(low.rank);
            }
        }
        of_part
    };
    let partial: Vec<_> = awake(|| parts(blocks, PARTS).map(of_part).collect());
    let [mut transposed, mut da] = sums.map(|len| vec![0.0; len]);
    for [of_db, of_da] in &partial {
        transposed.iter_mut().zip(of_db).for_each(|(sum, part)| *sum += low.scale * part);
        da.iter_mut().zip(of_da).for_each(|(sum, part)| *sum += low.scale * part);
    }
    let db = (0..transposed.len()).map(|at| transposed[at % low.rank * outputs + at / low.rank]).collect();
    (da, db)
}

/// `sums (r, n) += (read · factor)ᵀ · summed` over some rows.
struct Task<'a, 's> {
    read: Matrix<'a, f32>,
    summed: Matrix<'a, f32>,
    strips: Strips<'a>,
    sums: &'s mut [f32],
}

impl Task<'_, '_> {
    fn run(self, rank: usize) {
        let narrow = ROWS * rank;
        scratch::with(narrow + ROWS * width(), |memory| arch().dispatch(OnRows { task: self, rank, memory }));
    }
}

struct OnRows<'a, 's, 'm> {
    task: Task<'a, 's>,
    rank: usize,
    memory: &'m mut [f32],
}

impl WithSimd for OnRows<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { task: Task { read, summed, strips, sums }, rank, memory } = self;
        let (narrow, strip) = memory.split_at_mut(ROWS * rank);
        let h = Place { output: &Shared::new(narrow), start: 0, row_stride: rank };
        // SAFETY: scratch of this thread.
        unsafe { multiply_all(simd, read, strips, rank, Start::ZERO, h) };
        let h = Matrix::row_major(&narrow[..read.rows * rank], [read.rows, rank]).transposed();
        let place = Place { output: &Shared::new(sums), start: 0, row_stride: summed.columns };
        // SAFETY: the sums are this task's, and zero at first.
        unsafe { multiply_in_place(simd, h, summed, Start::THERE, place, strip) };
    }
}
