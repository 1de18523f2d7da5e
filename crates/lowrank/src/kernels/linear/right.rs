//! Right factors, in the type their values are held in.

#![expect(unsafe_code, reason = "the update is added to a strip in place")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use std::ops::Range;

use pulp::Simd;

use super::super::gemm::Matrix;
use super::super::shared::Shared;
use super::super::strips::{self, Place, RUN, Start, multiply};
use super::super::values::Values;

/// A right factor: `matrix + update[0]·update[1]`.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub matrix: Held<'a>,
    pub update: Option<[Matrix<'a, f32>; 2]>,
}

impl<'a> Right<'a> {
    pub fn plain(matrix: impl Into<Held<'a>>) -> Self {
        Self { matrix: matrix.into(), update: None }
    }

    /// Rows of memory that [`Right::strip`] needs: those of the strip, and beside it those of the second factor or, before
    /// that, of what is unpacked.
    pub fn memory(&self) -> usize {
        self.matrix.rows + self.update.map_or(RUN, |[_, second]| second.rows.max(RUN))
    }

    /// Packs a strip with the update added: rows of `stride` values.
    #[inline(always)]
    pub fn strip<'m, S: Simd>(
        &self,
        simd: S,
        columns: Range<usize>,
        stride: usize,
        memory: &'m mut [f32],
    ) -> &'m [f32] {
        let (strip, beside) = memory.split_at_mut(self.matrix.rows * stride);
        self.matrix.pack(columns.clone(), strip, stride, beside);
        if let Some([first, second]) = self.update {
            let count = columns.len();
            strips::pack(second, columns, beside, stride);
            let place = Place { output: &Shared::new(strip), start: 0, row_stride: stride };
            // SAFETY: the strip is borrowed alone, and packed.
            unsafe { multiply(simd, first, (beside, stride), count, Start::THERE, place) };
        }
        strip
    }
}

/// A matrix of values that may be of half precision; rows or columns of it are contiguous.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    values: Values<'a>,
    pub rows: usize,
    pub columns: usize,
    row_stride: usize,
    pub column_stride: usize,
}

impl<'a> From<Matrix<'a, f32>> for Held<'a> {
    fn from(Matrix { data, rows, columns, row_stride, column_stride }: Matrix<'a, f32>) -> Self {
        Self { values: Values::F32(data), rows, columns, row_stride, column_stride }
    }
}

impl<'a> Held<'a> {
    /// A matrix whose rows follow each other.
    pub fn row_major(values: Values<'a>, [rows, columns]: [usize; 2]) -> Self {
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    pub fn transposed(self) -> Self {
        let Self { values, rows, columns, row_stride, column_stride } = self;
        Self { values, rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride }
    }

    /// A part of the matrix: where it is, or unpacked in `memory`.
    #[inline(always)]
    pub fn part<'m>(self, rows: Range<usize>, columns: Range<usize>, memory: &'m mut [f32]) -> Matrix<'m, f32>
    where
        'a: 'm,
    {
        let Self { row_stride, column_stride, .. } = self;
        if let Some(data) = self.values.in_place() {
            let all = Matrix { data, rows: self.rows, columns: self.columns, row_stride, column_stride };
            return all.rows(rows).columns(columns);
        }
        let by_row = column_stride == 1;
        let (lines, along, stride) = if by_row { (rows, columns, row_stride) } else { (columns, rows, column_stride) };
        let shape = [lines.len(), along.len()];
        for (line, to) in lines.zip(memory.chunks_exact_mut(along.len().max(1))) {
            self.values.unpack(line * stride + along.start, to);
        }
        let part = Matrix::row_major(&*memory, shape);
        if by_row { part } else { part.transposed() }
    }

    /// As [`strips::pack`], through `memory` for [`RUN`] rows of so many columns.
    #[inline(always)]
    pub fn pack(self, columns: Range<usize>, strip: &mut [f32], stride: usize, memory: &mut [f32]) {
        let step = if self.values.in_place().is_some() { self.rows.max(1) } else { RUN };
        for first in (0..self.rows).step_by(step) {
            let part = self.part(first..self.rows.min(first + step), columns.clone(), memory);
            strips::pack(part, 0..part.columns, &mut strip[first * stride..], stride);
        }
    }
}
