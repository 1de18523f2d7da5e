//! Products of a few rows, which take as long as the right factor takes to be read: it is read once, where it is.

#![expect(unsafe_code, reason = "tasks write their own columns of one output")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::{Simd, WithSimd};

use super::super::buffers::Buffers;
use super::super::gemm::Matrix;
use super::super::lanes::{Lanes, arch};
use super::super::reduce::sum;
use super::super::scratch;
use super::super::strips::{Place, Start, multiply_in_place, width};
use super::chunks;
use super::product::Task;

/// Rows so few that packing the right factor would take longer than the product.
pub(super) const ROWS: usize = 8;
/// Rows of the right factor that are added at a time to one or two rows: each is a stream of memory.
const STREAMS: usize = 4;
/// Rows of the right factor that are added at a time to more rows, from a strip that stays in the first-level cache.
const STEPS: usize = 32;
/// Columns for which such streams stay in the first-level cache, to be read for the second row.
const COLUMNS: usize = 512;

/// Whether [`run`] takes a left factor.
pub(super) fn takes(left: Matrix<'_, f32>) -> bool {
    left.rows <= ROWS && left.column_stride == 1
}

/// Computes a task of factors that [`takes`] lets through.
pub(super) fn run(task: &Task<'_>) {
    let strip = STEPS * width();
    // What is unpacked at a time: a column, some steps of a strip, or of a stream.
    let column = task.terms.iter().map(|(left, _)| left.columns).max().unwrap_or(0);
    let part = column.max(strip).max(STREAMS * COLUMNS);
    scratch::with(strip + part, |memory| arch().dispatch(Few { task, memory, strip }));
}

struct Few<'t, 'a, 'm> {
    task: &'t Task<'a>,
    memory: &'m mut [f32],
    /// Values of `memory` for a strip.
    strip: usize,
}

impl WithSimd for Few<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { task, memory, strip } = self;
        let (width, (strip, memory)) = (strip / STEPS, memory.split_at_mut(strip));
        let zeros = vec![0.0; task.columns.len()];
        let start = if task.start.values.is_empty() { &zeros } else { task.start.values };
        for row in task.rows.clone() {
            // SAFETY: the columns are written by their task alone.
            unsafe { task.place.output.write(task.place.start + row * task.place.row_stride, start) };
        }
        for (left, right) in task.terms {
            let (right, columns) = (right.matrix, task.columns.clone());
            if right.column_stride != 1 {
                for column in columns {
                    let values = &right.part(0..right.rows, column..column + 1, memory).data[..right.rows];
                    for row in task.rows.clone() {
                        task.output(row)[column - task.columns.start] += dot(simd, row_of(*left, row), values);
                    }
                }
            } else if task.rows.len() > 2 {
                for steps in chunks(0..right.rows, STEPS) {
                    let left = left.columns(steps.clone());
                    for columns in chunks(columns.clone(), width) {
                        let place =
                            Place { start: task.place.start + columns.start - task.columns.start, ..task.place };
                        let right = right.part(steps.clone(), columns, memory);
                        // SAFETY: the columns are written by their task alone, and have been above.
                        unsafe { multiply_in_place(simd, left, right, Start::THERE, place, strip) };
                    }
                }
            } else {
                for columns in chunks(columns, COLUMNS) {
                    for steps in chunks(0..right.rows, STREAMS) {
                        let right = right.part(steps.clone(), columns.clone(), memory);
                        for row in task.rows.clone() {
                            let x = &row_of(*left, row)[steps.clone()];
                            let y = task.output(row);
                            add(simd, x, right, &mut y[columns.start - task.columns.start..][..columns.len()]);
                        }
                    }
                }
            }
        }
    }
}

impl Task<'_> {
    /// A row of the output.
    #[expect(clippy::mut_from_ref, reason = "one row at a time, of columns that are the task's")]
    fn output(&self, row: usize) -> &mut [f32] {
        let start = self.place.start + row * self.place.row_stride;
        // SAFETY: the columns are used by their task alone, and written before they are read.
        unsafe { self.place.output.part(start, self.columns.len()) }
    }
}

fn row_of(matrix: Matrix<'_, f32>, row: usize) -> &[f32] {
    &matrix.data[row * matrix.row_stride..][..matrix.columns]
}

/// `Σ x·values`.
#[inline(always)]
fn dot<S: Simd>(simd: S, x: &[f32], values: &[f32]) -> f32 {
    sum(
        simd,
        [x, values],
        #[inline(always)]
        |[x, value]| x * value,
    )
}

/// `y += Σ_step x[step] · right[step]`, of at most [`STREAMS`] steps, with the rows of `right` contiguous.
#[inline(always)]
fn add<S: Simd>(simd: S, x: &[f32], right: Matrix<'_, f32>, y: &mut [f32]) {
    let row = |step: usize| row_of(right, step);
    if let Ok(x) = <[f32; STREAMS]>::try_from(x) {
        let rows = [row(0), row(1), row(2), row(3)];
        Buffers::from(y).map(
            simd,
            rows,
            #[inline(always)]
            |y, [first, second, third, fourth]: [Lanes<S>; STREAMS]| {
                // Two sums side by side: a step need not wait for the one before.
                second.mul_add(x[1], first.mul_add(x[0], y)) + fourth.mul_add(x[3], third * x[2])
            },
        );
        return;
    }
    let mut y = y;
    for (step, &x) in x.iter().enumerate() {
        y = Buffers::from(y).map(
            simd,
            [row(step)],
            #[inline(always)]
            |y, [value]: [Lanes<S>; 1]| value.mul_add(x, y),
        );
    }
}
