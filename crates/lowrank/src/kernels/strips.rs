//! Products of matrices in registers: the left factor lies where it is, the right one is packed in strips.
//!
//! A strip is as many columns as a block of [`block::multiply`] has, one row after the other, so that a block reads it in
//! order and a part of it stays in the first-level cache. The left factor is read one value at a time and needs neither
//! order nor copy. Both may be transposed: only the packing notices.

#![expect(unsafe_code, reason = "products write parts of one output; the caller keeps them apart")]
#![expect(clippy::needless_range_loop, reason = "loops of a constant length over arrays, which become registers")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use std::ops::Range;

use pulp::bytemuck::cast_slice;
use pulp::{Simd, WithSimd};

use super::block::{self, COLUMNS, Rows, Scalars};
use super::gemm::Matrix;
use super::lanes::arch;
use super::shared::Shared;

/// Steps of a product at a time: as many rows of a strip take three quarters of the first-level cache.
const DEPTH: usize = 128;
/// Rows of the left factor at a time: those steps of them take as much of the second-level cache.
const ROWS: usize = 64;

/// Columns of a full strip on this machine.
pub(super) fn width() -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;

        fn with_simd<S: Simd>(self, _simd: S) -> usize {
            COLUMNS * S::F32_LANES
        }
    }
    arch().dispatch(Width)
}

/// Values that a matrix takes once packed: every strip is as wide as a full one.
pub(super) fn packed_len(matrix: Matrix<'_, f32>) -> usize {
    matrix.columns.next_multiple_of(width()) * matrix.rows
}

/// What the sums of a product begin with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start<'a> {
    Zero,
    /// A value for each column.
    Bias(&'a [f32]),
    /// What is there already.
    There,
}

impl<'a> Start<'a> {
    #[inline(always)]
    fn columns(self, columns: Range<usize>) -> Self {
        match self {
            Self::Bias(bias) => Self::Bias(&bias[columns]),
            other => other,
        }
    }
}

/// Where a product goes: `(row, column)` at `start + row · row_stride + column`.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub output: &'a Shared<'a>,
    pub start: usize,
    pub row_stride: usize,
}

/// The strip of `matrix` with these columns, zeros beside them: rows of `stride` values.
#[inline(always)]
pub(super) fn pack(matrix: Matrix<'_, f32>, columns: Range<usize>, strip: &mut [f32], stride: usize) {
    let count = columns.len();
    let matrix = matrix.columns(columns);
    let strip = &mut strip[..matrix.rows * stride];
    if matrix.column_stride == 1 {
        for (row, to) in strip.chunks_exact_mut(stride).enumerate() {
            to[..count].copy_from_slice(&matrix.data[row * matrix.row_stride..][..count]);
            to[count..].fill(0.0);
        }
        return;
    }
    // Sixteen rows at a time: a line of the cache of each column.
    for (block, to) in strip.chunks_mut(16 * stride).enumerate() {
        let rows = to.len() / stride;
        for column in 0..count {
            let from = &matrix.data[block * 16 * matrix.row_stride + column * matrix.column_stride..];
            for row in 0..rows {
                to[row * stride + column] = from[row * matrix.row_stride];
            }
        }
        if count < stride {
            to.chunks_exact_mut(stride).for_each(|to| to[count..].fill(0.0));
        }
    }
}

/// All strips of a matrix, one after the other.
#[inline(always)]
pub(super) fn pack_all<S: Simd>(_simd: S, matrix: Matrix<'_, f32>, strips: &mut [f32]) {
    let width = COLUMNS * S::F32_LANES;
    for (index, strip) in strips.chunks_exact_mut(width * matrix.rows).enumerate() {
        pack(matrix, index * width..matrix.columns.min((index + 1) * width), strip, width);
    }
}

/// `place = start + left · right`, `right (left.columns, columns)` packed by [`pack_all`].
///
/// # Safety
/// Nobody else uses the places of the product meanwhile; those of [`Start::There`] have been written.
#[inline(always)]
pub(super) unsafe fn multiply_all<S: Simd>(
    simd: S,
    left: Matrix<'_, f32>,
    strips: &[f32],
    columns: usize,
    start: Start<'_>,
    place: Place<'_>,
) {
    let width = COLUMNS * S::F32_LANES;
    for first in (0..columns).step_by(width) {
        let count = width.min(columns - first);
        let strip = (&strips[first * left.columns..], width);
        let place = Place { start: place.start + first, ..place };
        // SAFETY: a part of the places of the caller's.
        unsafe { multiply(simd, left, strip, count, start.columns(first..first + count), place) };
    }
}

/// `place = start + left · right` for `count` columns of the right factor, at most those of a full block: the rows of
/// `right` are at a stride, and hold `count` values rounded up to registers.
///
/// # Safety
/// As [`multiply_all`].
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd>(
    simd: S,
    left: Matrix<'_, f32>,
    right: (&[f32], usize),
    count: usize,
    start: Start<'_>,
    place: Place<'_>,
) {
    let product = Product { left, right, count, place };
    // SAFETY: the caller's promise.
    unsafe {
        match count.div_ceil(S::F32_LANES) {
            0 => {}
            1 => product.all::<S, 1>(simd, start),
            2 => product.all::<S, 2>(simd, start),
            _ => product.all::<S, COLUMNS>(simd, start),
        }
    }
}

#[derive(Clone, Copy)]
struct Product<'a> {
    left: Matrix<'a, f32>,
    right: (&'a [f32], usize),
    count: usize,
    place: Place<'a>,
}

impl Product<'_> {
    #[inline(always)]
    unsafe fn all<S: Simd, const N: usize>(self, simd: S, start: Start<'_>) {
        let Matrix { rows, columns: depth, .. } = self.left;
        for first in (0..rows).step_by(ROWS) {
            let end = rows.min(first + ROWS);
            for step in (0..depth.max(1)).step_by(DEPTH) {
                let steps = step..depth.min(step + DEPTH);
                let start = if step == 0 { start } else { Start::There };
                let mut row = first;
                while row < end {
                    let left = end - row;
                    // SAFETY: the caller's promise.
                    unsafe {
                        if left >= 8 && block::rows::<S>() == 8 {
                            self.block::<S, 8, N>(simd, row, steps.clone(), start);
                            row += 8;
                        } else if left >= 4 {
                            self.block::<S, 4, N>(simd, row, steps.clone(), start);
                            row += 4;
                        } else if left >= 2 {
                            self.block::<S, 2, N>(simd, row, steps.clone(), start);
                            row += 2;
                        } else {
                            self.block::<S, 1, N>(simd, row, steps.clone(), start);
                            row += 1;
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn block<S: Simd, const M: usize, const N: usize>(
        self,
        simd: S,
        row: usize,
        steps: Range<usize>,
        start: Start<'_>,
    ) {
        let Self { left, right: (right, row_stride), count, place } = self;
        let at = |m: usize| place.start + (row + m) * place.row_stride;
        let mut sums = [[simd.splat_f32s(0.0); N]; M];
        match start {
            Start::Zero => {}
            Start::Bias(bias) => sums = [read(simd, bias); M],
            Start::There => {
                for m in 0..M {
                    // SAFETY: the caller's promise.
                    sums[m] = read(simd, unsafe { place.output.part(at(m), count) });
                }
            }
        }
        let Matrix { data, row_stride: rows, column_stride: columns, .. } = left;
        let a = Scalars {
            data: &data[(row * rows + steps.start * columns).min(data.len())..],
            row_stride: rows,
            step_stride: columns,
        };
        let data = &right[(steps.start * row_stride).min(right.len())..];
        block::multiply(simd, &mut sums, a, Rows { data, row_stride, taps: &[0], depth: steps.len() });
        for m in 0..M {
            let sums: &[f32] = cast_slice(sums[m].as_slice());
            // SAFETY: the caller's promise.
            unsafe { place.output.write(at(m), &sums[..count]) };
        }
    }
}

#[inline(always)]
fn read<S: Simd, const N: usize>(simd: S, values: &[f32]) -> [S::f32s; N] {
    let mut registers = [simd.splat_f32s(0.0); N];
    for n in 0..N {
        let from = (n * S::F32_LANES).min(values.len());
        let to = (from + S::F32_LANES).min(values.len());
        registers[n] = simd.partial_load_f32s(&values[from..to]);
    }
    registers
}
