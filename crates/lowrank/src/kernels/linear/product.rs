//! Products over all cores.

#![expect(unsafe_code, reason = "tasks write their own part of one output")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::super::buffers::written;
use super::super::gemm::Matrix;
use super::super::lanes::arch;
use super::super::scratch;
use super::super::shared::Shared;
use super::super::strips::{Place, Start, multiply, width};
use super::few;
use super::right::Right;
use crate::threads::awake;

/// Tasks that are enough, and rows that are worth the packing of a strip.
pub(super) const TASKS: usize = 8;
const ROWS: usize = 256;
/// Values of the right factor in a task of a few rows, and how many of its columns at least.
const SHARE: usize = 1 << 18;
const COLUMNS: usize = 512;
/// Multiplications that one core is done with before another has begun.
const SMALL: usize = 1 << 16;

/// What a product is a sum of.
pub(super) type Term<'a> = (Matrix<'a, f32>, Right<'a>);

/// `bias + Σ left·right`, row-major.
pub(super) fn product(terms: &[Term<'_>], bias: Option<&[f32]>, [rows, columns]: [usize; 2]) -> Vec<f32> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    if super::tiles::takes(terms, [rows, columns]) {
        return super::tiles::product(terms, bias, [rows, columns]);
    }
    let depth: usize = terms.iter().map(|(left, _)| left.columns).sum();
    let few = terms.iter().all(|(left, right)| right.update.is_none() && few::takes(*left));
    let (width, height) = if few {
        let tasks = (columns * depth / SHARE).clamp(1, (columns / COLUMNS).max(1));
        (columns.div_ceil(tasks).next_multiple_of(width()), rows)
    } else {
        let chunks = (TASKS / columns.div_ceil(width()).max(1)).min(rows / ROWS).max(1);
        (width(), rows.div_ceil(chunks).next_multiple_of(12))
    };
    let chunks = rows.div_ceil(height.max(1));
    let write = |output: &Shared<'_>| {
        let run = |index: usize| {
            let (first, row) = (index / chunks * width, index % chunks * height);
            let strip = first..columns.min(first + width);
            let start = bias.map_or(Start::ZERO, |bias| Start::bias(&bias[strip.clone()]));
            let place = Place { output, start: row * columns + first, row_stride: columns };
            let task = Task { terms, columns: strip, rows: row..rows.min(row + height), start, place };
            if few { few::run(&task) } else { task.run() }
        };
        let tasks = columns.div_ceil(width) * chunks;
        if tasks == 1 || rows * columns * depth < SMALL {
            (0..tasks).for_each(run);
        } else {
            awake(|| (0..tasks).into_par_iter().for_each(run));
        }
    };
    // SAFETY: the strips cover the columns, and the chunks the rows.
    unsafe { written(rows * columns, |y| write(&Shared::new(y))) }
}

/// Some rows of a strip of the output.
pub(super) struct Task<'a> {
    pub terms: &'a [Term<'a>],
    pub columns: Range<usize>,
    pub rows: Range<usize>,
    /// Of the columns.
    pub start: Start<'a>,
    pub place: Place<'a>,
}

impl Task<'_> {
    fn run(self) {
        let rows = self.terms.iter().map(|(_, right)| right.memory()).max().unwrap_or(0);
        scratch::with(rows * width(), |memory| arch().dispatch(Packed { task: self, memory }));
    }
}

/// With a strip of the right factors packed.
struct Packed<'a, 'm> {
    task: Task<'a>,
    memory: &'m mut [f32],
}

impl WithSimd for Packed<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { task: Task { terms, columns, rows, mut start, place }, memory } = self;
        let count = columns.len();
        let stride = count.next_multiple_of(S::F32_LANES);
        for (left, right) in terms {
            let strip = right.strip(simd, columns.clone(), stride, memory);
            // SAFETY: a strip of rows is written by its task alone; after the first term it has been.
            unsafe { multiply(simd, left.rows(rows.clone()), (strip, stride), count, start, place) };
            start = Start::THERE;
        }
    }
}
