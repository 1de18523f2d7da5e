//! Products of many rows on the matrix unit.
//!
//! Some columns of the right factor are packed for all tasks, in at most 8 MB. A task takes some rows: it packs 768
//! steps of them, which stay in the second-level cache, and multiplies each panel of the right factor by them.

#![expect(unsafe_code, reason = "tasks write their own part of one output")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use std::ops::Range;

use pulp::bytemuck::{cast_slice, cast_slice_mut};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::super::amx::{BLOCK, PANEL, STEPS, Sums, Unit, available, multiply, pack_left, pack_right};
use super::super::buffers::written;
use super::super::gemm::Matrix;
use super::super::lanes::{Lanes, arch};
use super::super::scratch::{self, Buffer};
use super::super::shared::Shared;
use super::super::strips::{Start, width};
use super::chunks;
use super::product::{TASKS, Term};
use super::right::Right;
use crate::threads::awake;

/// Multiplications of a product that is worth the packing of both factors; tests take the unit for less.
const LEAST: usize = 1 << if cfg!(test) { 15 } else { 21 };
/// Rows of a task.
const ROWS: usize = 4 * PANEL;
/// Steps of the left factor that are packed at a time.
const DEPTH: usize = 24 * STEPS;
/// Columns of a strip of the right factor, which becomes two panels.
const STRIP: usize = 2 * PANEL;
/// Values of four bytes of the right factor that are packed at a time.
const PACKED: usize = 1 << 21;

/// Whether [`product`] is the fastest way.
pub(super) fn takes(terms: &[Term<'_>], [rows, columns]: [usize; 2]) -> bool {
    let depth = terms.iter().map(|(left, _)| left.columns).max().unwrap_or(0);
    available()
        && width() == STRIP
        && rows.min(columns).min(depth) >= PANEL
        && rows * columns * depth >= LEAST
        && terms.iter().all(|(left, _)| left.column_stride == 1 && left.columns > 0)
}

/// `bias + Σ left·right`, row-major.
pub(super) fn product(terms: &[Term<'_>], bias: Option<&[f32]>, [rows, columns]: [usize; 2]) -> Vec<f32> {
    let write = |output: &Shared<'_>| {
        let mut start = bias.map_or(Start::ZERO, Start::bias);
        for (left, right) in terms {
            let panels = Panels { left: *left, right, start, output, row_stride: columns };
            let strips = (PACKED / panels.strip()).max(1);
            chunks(0..columns, strips * STRIP).for_each(|columns| panels.multiply(columns));
            start = Start::THERE;
        }
    };
    // SAFETY: the first term writes every row of every column.
    unsafe { written(rows * columns, |y| awake(|| write(&Shared::new(y)))) }
}

/// A term, and where it goes.
struct Panels<'a> {
    left: Matrix<'a, f32>,
    right: &'a Right<'a>,
    start: Start<'a>,
    output: &'a Shared<'a>,
    row_stride: usize,
}

impl Panels<'_> {
    /// Values of a packed panel.
    fn panel(&self) -> usize {
        self.left.columns.div_ceil(STEPS) * BLOCK
    }

    /// Values of four bytes that a packed strip takes.
    fn strip(&self) -> usize {
        STRIP / PANEL * self.panel() / 2
    }

    /// Some columns of the output.
    fn multiply(&self, columns: Range<usize>) {
        let mut packed = Buffer::new(columns.len().div_ceil(STRIP) * self.strip());
        packed.par_chunks_mut(self.strip()).enumerate().for_each(|(index, panels)| {
            let first = columns.start + index * STRIP;
            let (columns, panels) = (first..columns.end.min(first + STRIP), cast_slice_mut(panels));
            let right = self.right;
            scratch::with(right.memory() * STRIP, |memory| arch().dispatch(Pack { right, columns, panels, memory }));
        });
        let count = columns.len().div_ceil(PANEL);
        let packed: &[u16] = &cast_slice(&packed)[..count * self.panel()];
        // Where there are few rows, the columns are shared out as well.
        let rows = self.left.rows.div_ceil(ROWS);
        let share = count.div_ceil((TASKS / rows).max(1));
        (0..rows * count.div_ceil(share)).into_par_iter().for_each(|index| {
            let (row, first) = (index % rows * ROWS, index / rows * share);
            let rows = row..self.left.rows.min(row + ROWS);
            let right = &packed[first * self.panel()..count.min(first + share) * self.panel()];
            let columns = columns.start + first * PANEL..columns.end;
            let len = rows.len().div_ceil(PANEL) * self.left.columns.min(DEPTH).div_ceil(STEPS) * BLOCK;
            scratch::with(len / 2, |memory| {
                arch().dispatch(Task { panels: self, rows, columns, right, memory: cast_slice_mut(memory) });
            });
        });
    }

    /// Adds sums to what the output begins with, from this row and column on.
    #[inline(always)]
    fn put<S: Simd>(&self, simd: S, sums: &Sums, row: usize, columns: Range<usize>, start: Start<'_>) {
        let len = columns.len().min(PANEL);
        for (row, sums) in (row..self.left.rows).zip(&sums.0) {
            // SAFETY: the rows and columns of a task are written by it alone; those that are there have been.
            let y = unsafe { self.output.part(row * self.row_stride + columns.start, len) };
            for from in (0..len).step_by(S::F32_LANES) {
                // A length that is known makes loads and stores of registers.
                let count = if len == PANEL { S::F32_LANES } else { S::F32_LANES.min(len - from) };
                let (sum, y) = (Lanes::load(simd, &sums[from..from + S::F32_LANES]), &mut y[from..from + count]);
                let sum = if start.there {
                    sum + Lanes::load(simd, y)
                } else if start.values.is_empty() {
                    sum
                } else {
                    sum + Lanes::load(simd, &start.values[columns.start + from..][..count])
                };
                sum.store(y);
            }
        }
    }
}

/// Packs a strip.
struct Pack<'a, 'm> {
    right: &'a Right<'a>,
    columns: Range<usize>,
    panels: &'m mut [u16],
    memory: &'m mut [f32],
}

impl WithSimd for Pack<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        pack_right(self.right.strip(simd, self.columns, STRIP, self.memory), self.panels);
    }
}

/// Some rows of some columns.
struct Task<'a, 'm> {
    panels: &'a Panels<'a>,
    rows: Range<usize>,
    /// From the first of the task on.
    columns: Range<usize>,
    right: &'a [u16],
    memory: &'m mut [u16],
}

impl WithSimd for Task<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { panels, rows, columns, right, memory } = self;
        let (unit, mut sums) = (Unit::new(), Sums::default());
        for steps in chunks(0..panels.left.columns, DEPTH) {
            let (first, len) = (steps.start / STEPS * BLOCK, steps.len().div_ceil(STEPS) * BLOCK);
            let start = if first == 0 { panels.start } else { Start::THERE };
            let left = &mut memory[..rows.len().div_ceil(PANEL) * len];
            pack_left(simd, panels.left.rows(rows.clone()).columns(steps), left);
            for (column, right) in columns.clone().step_by(PANEL).zip(right.chunks_exact(panels.panel())) {
                for (row, left) in rows.clone().step_by(PANEL).zip(left.chunks_exact(len)) {
                    multiply(&unit, left, &right[first..first + len], &mut sums);
                    panels.put(simd, &sums, row, column..columns.end, start);
                }
            }
        }
    }
}
