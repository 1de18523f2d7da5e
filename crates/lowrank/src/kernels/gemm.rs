//! Matrix products on slices: one safe door to the `gemm` crate.

#![expect(unsafe_code, reason = "the gemm crate takes pointers; this file checks what they may reach")]

use std::ops::Range;

use gemm::Parallelism;

/// The types a product is computed in.
pub(crate) trait Real:
    Copy + Default + PartialEq + From<f32> + Into<f64> + std::ops::Add<Output = Self> + 'static
{
}

impl Real for f32 {}
impl Real for f64 {}

/// A matrix that lies in a slice: `(row, column)` is at `row * row_stride + column * column_stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    pub(super) data: &'a [T],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// # Panics
    /// When a corner of the matrix lies outside `data`.
    pub fn new(data: &'a [T], [rows, columns]: [usize; 2], [row_stride, column_stride]: [usize; 2]) -> Self {
        if rows > 0 && columns > 0 {
            let last = (rows - 1).checked_mul(row_stride).zip((columns - 1).checked_mul(column_stride));
            let last = last.and_then(|(row, column)| row.checked_add(column));
            assert!(last.is_some_and(|last| last < data.len()), "the matrix does not fit the slice");
        }
        Self { data, rows, columns, row_stride, column_stride }
    }

    /// A matrix whose rows follow each other.
    pub fn row_major(data: &'a [T], [rows, columns]: [usize; 2]) -> Self {
        Self::new(data, [rows, columns], [columns, 1])
    }

    pub fn transposed(self) -> Self {
        let Self { data, rows, columns, row_stride, column_stride } = self;
        Self { data, rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride }
    }

    /// Some of the rows.
    ///
    /// # Panics
    /// When they are not among them.
    #[inline]
    pub fn rows(self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows of a matrix");
        let data = &self.data[(rows.start * self.row_stride).min(self.data.len())..];
        Self { data, rows: rows.len(), ..self }
    }

    /// Some of the columns.
    ///
    /// # Panics
    /// When they are not among them.
    #[inline]
    pub fn columns(self, columns: Range<usize>) -> Self {
        self.transposed().rows(columns).transposed()
    }
}

/// `out = scale * left @ right`, `out` row-major. One thread, so that the sums are the same on every machine's count.
///
/// # Panics
/// When the sizes do not agree.
pub(crate) fn product<T: Real>(scale: T, left: Matrix<'_, T>, right: Matrix<'_, T>, out: &mut [T]) {
    assert_eq!(left.columns, right.rows, "inner sizes of a product");
    assert_eq!(Some(out.len()), left.rows.checked_mul(right.columns), "size of a product");
    // Strides stay below the length of a slice, which fits `isize`.
    let step = |stride: usize| stride.cast_signed();
    // SAFETY: `Matrix::new` has checked that every element of `left` and `right` lies in its slice (offsets grow with
    // both indices, and the largest is inside), `out` has exactly rows * columns elements and is borrowed alone, and
    // `Real` is implemented for `f32` and `f64` only, which gemm supports.
    unsafe {
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            out.as_mut_ptr(),
            1,
            step(right.columns),
            false,
            left.data.as_ptr(),
            step(left.column_stride),
            step(left.row_stride),
            right.data.as_ptr(),
            step(right.column_stride),
            step(right.row_stride),
            T::from(0.0),
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_plain_and_transposed_matrices() {
        let left = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        let right = [1.0_f32, 0.0, 2.0, 1.0, 0.0, 3.0];
        let mut out = vec![f32::NAN; 4];
        product(2.0, Matrix::new(&left, [2, 3], [3, 1]), Matrix::new(&right, [3, 2], [2, 1]), &mut out);
        assert_eq!(out, [10.0, 22.0, 28.0, 46.0]);
        product(1.0, Matrix::new(&left, [2, 3], [1, 2]), Matrix::new(&right, [3, 2], [1, 3]), &mut out);
        assert_eq!(out, [11.0, 16.0, 14.0, 20.0]);
    }

    #[test]
    fn an_empty_inner_axis_gives_zeros_and_empty_matrices_nothing() {
        let mut out = vec![f64::NAN; 2];
        product(1.0, Matrix::new(&[], [2, 0], [0, 1]), Matrix::new(&[], [0, 1], [1, 1]), &mut out);
        assert_eq!(out, [0.0; 2]);
        product(1.0, Matrix::new(&[], [0, 3], [3, 1]), Matrix::new(&[0.0; 3], [3, 1], [1, 1]), &mut []);
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_matrix_larger_than_its_slice_is_refused() {
        let _ = Matrix::new(&[0.0_f32; 5], [2, 3], [3, 1]);
    }
}
