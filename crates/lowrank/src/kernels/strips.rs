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

use super::block::{self, Rows, Scalars};
use super::gemm::Matrix;
use super::lanes::{Lanes, arch};
use super::shared::Shared;

/// Steps of a product at a time: as many rows of a strip stay in the second-level cache. The first would take a third of
/// them, but what a product waits for is less the strip, which is read in order, than its sums, which lie far apart: the
/// fewer times they are read and written the better.
const DEPTH: usize = 384;
/// Rows of the left factor at a time: those steps of them stay in the second-level cache.
const ROWS: usize = 48;

/// Rows of a full block. With [`registers`] it takes three quarters of the registers: a step loads ten registers for
/// 24 multiplications where there are 32, and seven for twelve where there are 16.
#[inline(always)]
fn rows<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 6 } else { 4 }
}

/// Registers of columns of a full block.
#[inline(always)]
fn registers<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 4 } else { 3 }
}

/// Rows of a strip that are packed at a time: some lines of the cache of each column, where columns are contiguous.
pub(super) const RUN: usize = 64;
/// Columns that are packed together: one store writes a value of each.
const TOGETHER: usize = 8;

/// Values of a register on this machine, and columns of a full strip.
fn sizes() -> (usize, usize) {
    struct Sizes;
    impl WithSimd for Sizes {
        type Output = (usize, usize);

        fn with_simd<S: Simd>(self, _simd: S) -> Self::Output {
            (S::F32_LANES, registers::<S>() * S::F32_LANES)
        }
    }
    arch().dispatch(Sizes)
}

/// Columns of a full strip on this machine.
pub(super) fn width() -> usize {
    sizes().1
}

/// What the sums of a product begin with.
///
/// Not an enum: of one whose variants hold nothing the compiler reads what is not there, and memory checkers say so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start<'a> {
    /// What is there already.
    pub there: bool,
    /// A value for each column of each row, or none at all.
    pub values: &'a [f32],
    /// From the values of a row to those of the next: none, where all rows have the same.
    pub row_stride: usize,
}

impl<'a> Start<'a> {
    pub const ZERO: Self = Self { there: false, values: &[], row_stride: 0 };
    pub const THERE: Self = Self { there: true, ..Self::ZERO };

    /// A value for each column.
    pub fn bias(values: &'a [f32]) -> Self {
        Self { values, ..Self::ZERO }
    }

    /// A matrix with rows at a stride.
    pub fn matrix(values: &'a [f32], row_stride: usize) -> Self {
        Self { values, row_stride, ..Self::ZERO }
    }

    /// Without the rows above.
    pub fn below(self, row: usize) -> Self {
        if self.values.is_empty() { self } else { Self { values: &self.values[row * self.row_stride..], ..self } }
    }

    /// Without the columns before.
    #[inline(always)]
    fn beside(self, column: usize) -> Self {
        if self.values.is_empty() { self } else { Self { values: &self.values[column..], ..self } }
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
///
/// # Panics
/// When neither the rows nor the columns of the matrix are contiguous.
pub(super) fn pack(matrix: Matrix<'_, f32>, columns: Range<usize>, strip: &mut [f32], stride: usize) {
    let count = columns.len();
    let matrix = matrix.columns(columns);
    let strip = &mut strip[..matrix.rows * stride];
    if matrix.column_stride == 1 {
        for (row, to) in strip.chunks_exact_mut(stride).enumerate() {
            copy(&matrix.data[row * matrix.row_stride..][..count], to);
            to[count..].fill(0.0);
        }
        return;
    }
    assert!(matrix.row_stride == 1 || matrix.rows < 2, "rows or columns that are contiguous");
    for (block, to) in strip.chunks_mut(RUN * stride).enumerate() {
        let from = matrix.rows(block * RUN..block * RUN + to.len() / stride);
        let together = count / TOGETHER * TOGETHER;
        for column in (0..together).step_by(TOGETHER) {
            interleave::<TOGETHER>(from.columns(column..column + TOGETHER), &mut to[column..], stride);
        }
        for column in together..count {
            interleave::<1>(from.columns(column..column + 1), &mut to[column..], stride);
        }
        if count < stride {
            to.chunks_exact_mut(stride).for_each(|to| to[count..].fill(0.0));
        }
    }
}

/// The values of a row that may be short: a call of `memcpy` would take longer than they do.
#[inline]
fn copy(from: &[f32], to: &mut [f32]) {
    let (from, rest) = from.as_chunks::<16>();
    let (whole, to) = to.split_at_mut(from.len() * 16);
    whole.as_chunks_mut().0.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    to[..rest.len()].copy_from_slice(rest);
}

/// Packs `N` columns, which a row of the strip has side by side and one store writes.
#[inline]
fn interleave<const N: usize>(columns: Matrix<'_, f32>, strip: &mut [f32], stride: usize) {
    let from: [&[f32]; N] =
        std::array::from_fn(|column| &columns.data[column * columns.column_stride..][..columns.rows]);
    for (row, to) in strip.chunks_mut(stride).enumerate() {
        to[..N].copy_from_slice(&from.map(|column| column[row]));
    }
}

/// A packed matrix: its strips one after the other, the last as narrow as whole registers allow.
#[derive(Clone, Copy)]
pub(super) struct Strips<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    lanes: usize,
    width: usize,
}

impl<'a> Strips<'a> {
    /// Values that a matrix takes once packed.
    pub fn len(matrix: Matrix<'_, f32>) -> usize {
        matrix.columns.next_multiple_of(sizes().0) * matrix.rows
    }

    /// Packs a matrix into memory of [`Strips::len`] values.
    pub fn pack(matrix: Matrix<'_, f32>, data: &'a mut [f32]) -> Self {
        let (lanes, width) = sizes();
        for first in (0..matrix.columns).step_by(width) {
            let columns = first..matrix.columns.min(first + width);
            let stride = columns.len().next_multiple_of(lanes);
            pack(matrix, columns, &mut data[first * matrix.rows..], stride);
        }
        Self { data, rows: matrix.rows, columns: matrix.columns, lanes, width }
    }

    /// The strip that begins with this column, and the stride of its rows.
    #[inline(always)]
    fn strip(self, first: usize) -> (&'a [f32], usize) {
        let stride = (self.columns - first).next_multiple_of(self.lanes).min(self.width);
        (&self.data[first * self.rows..][..stride * self.rows], stride)
    }
}

/// `place = start + left · right`, of so many columns of the right factor and as many rows as `left` has columns.
///
/// # Safety
/// Nobody else uses the places of the product meanwhile; those of [`Start::THERE`] have been written.
#[inline(always)]
pub(super) unsafe fn multiply_all<S: Simd>(
    simd: S,
    left: Matrix<'_, f32>,
    right: Strips<'_>,
    columns: usize,
    start: Start<'_>,
    place: Place<'_>,
) {
    let width = registers::<S>() * S::F32_LANES;
    for first in (0..columns).step_by(width) {
        let count = width.min(columns - first);
        let strip = right.strip(first);
        let place = Place { start: place.start + first, ..place };
        // SAFETY: a part of the places of the caller's.
        unsafe { multiply(simd, left, strip, count, start.beside(first), place) };
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
    // Compiled once, not wherever it is called from; it carries its own instruction set.
    simd.vectorize(Product { left, right, count, start, place });
}

/// `place = start + left · right`, with the rows of `right` read where they are; columns beside the last whole register are
/// packed in `strip`, memory for as many rows of a full strip, first.
///
/// # Safety
/// As [`multiply_all`].
///
/// # Panics
/// When the values of a row of `right` are not one after the other.
#[inline(always)]
pub(super) unsafe fn multiply_in_place<S: Simd>(
    simd: S,
    left: Matrix<'_, f32>,
    right: Matrix<'_, f32>,
    start: Start<'_>,
    place: Place<'_>,
    strip: &mut [f32],
) {
    assert!(right.column_stride == 1, "rows that are contiguous");
    let width = registers::<S>() * S::F32_LANES;
    for first in (0..right.columns).step_by(width) {
        let columns = first..right.columns.min(first + width);
        let (count, start) = (columns.len(), start.beside(first));
        let right = if count.is_multiple_of(S::F32_LANES) {
            (right.columns(columns).data, right.row_stride)
        } else {
            let stride = count.next_multiple_of(S::F32_LANES);
            pack(right, columns, strip, stride);
            (&*strip, stride)
        };
        let place = Place { start: place.start + first, ..place };
        // SAFETY: a part of the places of the caller's.
        unsafe { multiply(simd, left, right, count, start, place) };
    }
}

#[derive(Clone, Copy)]
struct Product<'a> {
    left: Matrix<'a, f32>,
    right: (&'a [f32], usize),
    count: usize,
    start: Start<'a>,
    place: Place<'a>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let whole = self.count.is_multiple_of(S::F32_LANES);
        match (self.count.div_ceil(S::F32_LANES), whole) {
            (0, _) => {}
            (1, true) => self.all::<S, 1, true>(simd),
            (1, false) => self.all::<S, 1, false>(simd),
            (2, true) => self.all::<S, 2, true>(simd),
            (2, false) => self.all::<S, 2, false>(simd),
            (4, true) if registers::<S>() == 4 => self.all::<S, 4, true>(simd),
            (4, false) if registers::<S>() == 4 => self.all::<S, 4, false>(simd),
            (_, true) => self.all::<S, 3, true>(simd),
            (_, false) => self.all::<S, 3, false>(simd),
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn all<S: Simd, const N: usize, const WHOLE: bool>(self, simd: S) {
        let Matrix { rows: all, columns: depth, .. } = self.left;
        for first in (0..all).step_by(ROWS) {
            let end = all.min(first + ROWS);
            for step in (0..depth.max(1)).step_by(DEPTH) {
                let steps = step..depth.min(step + DEPTH);
                let start = if step == 0 { self.start } else { Start::THERE };
                let mut row = first;
                while row < end {
                    let left = end - row;
                    if left >= 6 && rows::<S>() == 6 {
                        self.block::<S, 6, N, WHOLE>(simd, row, steps.clone(), start);
                        row += 6;
                    } else if left >= 4 {
                        self.block::<S, 4, N, WHOLE>(simd, row, steps.clone(), start);
                        row += 4;
                    } else if left >= 2 {
                        self.block::<S, 2, N, WHOLE>(simd, row, steps.clone(), start);
                        row += 2;
                    } else {
                        self.block::<S, 1, N, WHOLE>(simd, row, steps.clone(), start);
                        row += 1;
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn block<S: Simd, const M: usize, const N: usize, const WHOLE: bool>(
        self,
        simd: S,
        row: usize,
        steps: Range<usize>,
        start: Start<'_>,
    ) {
        let Self { left, right: (right, row_stride), count, place, .. } = self;
        let Matrix { data, row_stride: rows, column_stride: columns, .. } = left;
        let a = Scalars {
            data: &data[(row * rows + steps.start * columns).min(data.len())..],
            row_stride: rows,
            step_stride: columns,
        };
        let data = &right[(steps.start * row_stride).min(right.len())..];
        // What the sums begin with is added at the end: an array that is filled before a loop stays in memory.
        let sums: [[S::f32s; N]; M] =
            block::product(simd, a, Rows { data, row_stride, taps: &[0], depth: steps.len(), ahead: N * S::F32_LANES });
        for m in 0..M {
            let at = place.start + (row + m) * place.row_stride;
            for n in 0..N {
                let from = n * S::F32_LANES;
                // A length that is known makes loads and stores of registers.
                let len = if WHOLE { S::F32_LANES } else { S::F32_LANES.min(count - from) };
                let sum = Lanes::new(simd, sums[m][n]);
                let sum = if start.there {
                    // SAFETY: by the promise of who called `multiply`.
                    sum + Lanes::load(simd, unsafe { place.output.part(at + from, len) })
                } else if start.values.is_empty() {
                    sum
                } else {
                    sum + Lanes::load(simd, &start.values[(row + m) * start.row_stride + from..][..len])
                };
                let sum = [sum.value()];
                // SAFETY: by the promise of who called `multiply`.
                unsafe { place.output.write(at + from, &cast_slice(&sum)[..len]) };
            }
        }
    }
}
