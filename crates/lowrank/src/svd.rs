//! Singular value decompositions, cut to any rank, with signs that are the same everywhere.
//!
//! Everything is computed in `f64`, by one thread. A weight of any kind is decomposed as the matrix
//! `(out, in/g * k)` that it is stored as.

use faer::{Mat, MatRef};

use crate::{Error, Result, Subject};

/// `M = U diag(s) V^T` of a matrix `(rows, columns)`, with `s` descending.
///
/// The first `rank` columns of `U` and rows of `V^T` give the matrix of that rank that is nearest to `M` in the Frobenius
/// norm (Eckart and Young, "The approximation of one matrix by another of lower rank", 1936). A decomposition leaves the
/// sign of each pair open: here the value of largest magnitude in a column of `U`, the first of several, is positive.
///
/// ```
/// use lowrank::svd::Svd;
///
/// let matrix = [3.0_f32, 0.0, 0.0, 0.0, -4.0, 0.0]; // (2, 3)
/// let svd = Svd::of(&matrix, [2, 3])?;
/// assert_eq!(svd.singular_values(), [4.0, 3.0]);
/// assert_eq!(svd.left(1), [0.0, 1.0]); // U, (2, 1)
/// assert_eq!(svd.right(1), [0.0, -1.0, 0.0]); // V^T, (1, 3)
/// assert_eq!(svd.lost(1), 3.0 / 5.0);
/// # Ok::<(), lowrank::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Svd {
    u: Mat<f64>,
    s: Vec<f64>,
    v: Mat<f64>,
}

impl Svd {
    /// The decomposition of a row-major matrix `(rows, columns)`, tall or wide.
    ///
    /// # Errors
    /// When a value is NaN or infinite, and when the decomposition does not converge.
    ///
    /// # Panics
    /// When `matrix` has not the values of its shape.
    pub fn of<T: Copy + Into<f64>>(matrix: &[T], shape: [usize; 2]) -> Result<Self> {
        let matrix = row_major(matrix, shape)?;
        Self::decompose(matrix.as_ref())
    }

    /// The decomposition of `left @ right`, row-major matrices `(rows, inner)` and `(inner, columns)`, without the product:
    /// for thin factors it costs `O((rows + columns) * inner^2)`.
    ///
    /// With `left = Q1 R1` and `right^T = Q2 R2` it is that of `R1 R2^T`, of at most `inner` rows and columns, between `Q1`
    /// and `Q2`.
    ///
    /// # Errors
    /// As [`Self::of`].
    ///
    /// # Panics
    /// When a factor has not the values of its shape.
    pub fn of_product<T: Copy + Into<f64>>(
        left: &[T],
        right: &[T],
        [rows, inner, columns]: [usize; 3],
    ) -> Result<Self> {
        let (left, right) =
            (row_major(left, [rows, inner])?.qr(), row_major(right, [inner, columns])?.transpose().qr());
        let core = Self::decompose((left.thin_R() * right.thin_R().transpose()).as_ref())?;
        Ok(Self::new(left.compute_thin_Q() * core.u, core.s, right.compute_thin_Q() * core.v))
    }

    fn decompose(matrix: MatRef<'_, f64>) -> Result<Self> {
        let svd = matrix.thin_svd().map_err(|_| {
            Error::new(Subject::Adapter, "the singular value decomposition does not converge")
                .found(format!("a matrix of {:?}", [matrix.nrows(), matrix.ncols()]))
        })?;
        Ok(Self::new(svd.U().to_owned(), svd.S().column_vector().iter().copied().collect(), svd.V().to_owned()))
    }

    /// Turns the signs.
    fn new(mut u: Mat<f64>, s: Vec<f64>, mut v: Mat<f64>) -> Self {
        for column in 0..s.len() {
            let largest = u.col(column).iter().fold(0.0_f64, |most, x| if x.abs() > most.abs() { *x } else { most });
            if largest < 0.0 {
                u.col_mut(column).iter_mut().chain(v.col_mut(column).iter_mut()).for_each(|x| *x = -*x);
            }
        }
        Self { u, s, v }
    }

    /// The singular values, descending: as many as the shorter side has, of a product as many as its shortest.
    #[must_use]
    pub fn singular_values(&self) -> &[f64] {
        &self.s
    }

    /// The first `rank` columns of `U`: row-major `(rows, rank)`.
    ///
    /// # Panics
    /// When there are not as many singular values.
    #[must_use]
    pub fn left(&self, rank: usize) -> Vec<f64> {
        self.u.row_iter().flat_map(|row| row.iter().copied().take(rank).collect::<Vec<_>>()).collect()
    }

    /// The first `rank` rows of `V^T`: row-major `(rank, columns)`.
    ///
    /// # Panics
    /// When there are not as many singular values.
    #[must_use]
    pub fn right(&self, rank: usize) -> Vec<f64> {
        (0..rank).flat_map(|row| self.v.col(row).iter().copied()).collect()
    }

    /// What a cut at `rank` loses: the Frobenius norm of the rest, as a share of that of the whole; 0 for a matrix of zeros.
    #[must_use]
    pub fn lost(&self, rank: usize) -> f64 {
        let squares = |values: &[f64]| values.iter().rev().map(|value| value * value).sum::<f64>();
        let all = squares(&self.s);
        if all > 0.0 { (squares(&self.s[rank.min(self.s.len())..]) / all).sqrt() } else { 0.0 }
    }
}

fn row_major<T: Copy + Into<f64>>(values: &[T], [rows, columns]: [usize; 2]) -> Result<Mat<f64>> {
    assert_eq!(Some(values.len()), rows.checked_mul(columns), "the values of a matrix {:?}", [rows, columns]);
    let wide = |index: usize| -> f64 { values[index].into() };
    if let Some(index) = (0..values.len()).find(|index| !wide(*index).is_finite()) {
        return Err(Error::new(Subject::Adapter, "a matrix with a value that is not finite cannot be decomposed")
            .found(format!("{} at {:?}", wide(index), [index / columns, index % columns]))
            .expected("finite numbers"));
    }
    Ok(Mat::from_fn(rows, columns, |row, column| wide(row * columns + column)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn draw(count: usize, seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed, "svd", 0);
        (0..count).map(|_| f64::from(random.normal())).collect()
    }

    fn multiply(left: &[f64], right: &[f64], [rows, inner, columns]: [usize; 3]) -> Vec<f64> {
        let at = |i: usize, j: usize| (0..inner).map(|p| left[i * inner + p] * right[p * columns + j]).sum();
        (0..rows * columns).map(|index| at(index / columns, index % columns)).collect()
    }

    /// `U diag(s) V^T`, cut at `rank`.
    fn cut(svd: &Svd, rank: usize, [rows, columns]: [usize; 2]) -> Vec<f64> {
        let mut left = svd.left(rank);
        left.iter_mut().enumerate().for_each(|(index, u)| *u *= svd.singular_values()[index % rank]);
        multiply(&left, &svd.right(rank), [rows, rank, columns])
    }

    fn norm(values: impl Iterator<Item = f64>) -> f64 {
        values.map(|value| value * value).sum::<f64>().sqrt()
    }

    fn distance(x: &[f64], y: &[f64]) -> f64 {
        assert_eq!(x.len(), y.len());
        norm(x.iter().zip(y).map(|(x, y)| x - y)) / norm(y.iter().copied())
    }

    fn orthonormal(vectors: &[f64], count: usize, at: impl Fn(usize, usize) -> usize) {
        let length = vectors.len() / count;
        for (i, j) in (0..count).flat_map(|i| (0..=i).map(move |j| (i, j))) {
            let dot: f64 = (0..length).map(|index| vectors[at(i, index)] * vectors[at(j, index)]).sum();
            assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12, "{i} {j}: {dot}");
        }
    }

    #[test]
    fn tall_wide_and_square_matrices_come_back() {
        for shape in [[1, 1], [7, 7], [40, 6], [6, 40], [1, 9], [9, 1]] {
            let matrix = draw(shape[0] * shape[1], 1);
            let svd = Svd::of(&matrix, shape).unwrap();
            let rank = shape[0].min(shape[1]);
            assert_eq!(svd.singular_values().len(), rank);
            assert!(svd.singular_values().is_sorted_by(|a, b| a >= b && *b >= 0.0));
            assert!(distance(&cut(&svd, rank, shape), &matrix) < 1e-13, "{shape:?}");
            orthonormal(&svd.left(rank), rank, |i, index| index * rank + i);
            orthonormal(&svd.right(rank), rank, |i, index| i * shape[1] + index);
        }
    }

    #[test]
    fn a_cut_loses_what_it_says_and_nothing_of_the_same_rank_is_nearer() {
        let shape = [12, 30];
        let matrix = draw(360, 2);
        let svd = Svd::of(&matrix, shape).unwrap();
        for rank in [1, 4, 11, 12] {
            let lost = distance(&cut(&svd, rank, shape), &matrix);
            assert!((lost - svd.lost(rank)).abs() < 1e-13, "{rank}");
            let (left, right) = (svd.left(rank), draw(rank * 30, 3));
            let other = multiply(&left, &right, [12, rank, 30]);
            assert!(distance(&other, &matrix) > lost);
        }
    }

    #[test]
    fn a_product_is_decomposed_as_if_it_were_multiplied() {
        // Inner sizes below, between and above the sides.
        for sizes in [[20, 3, 15], [5, 8, 30], [4, 9, 6], [30, 8, 5], [1, 1, 1]] {
            let (left, right) = (draw(sizes[0] * sizes[1], 4), draw(sizes[1] * sizes[2], 5));
            let shape = [sizes[0], sizes[2]];
            let (svd, whole) = (
                Svd::of_product(&left, &right, sizes).unwrap(),
                Svd::of(&multiply(&left, &right, sizes), shape).unwrap(),
            );
            let rank = sizes.into_iter().min().unwrap();
            assert_eq!(svd.singular_values().len(), rank);
            for cut_at in 1..=rank {
                assert!(distance(&cut(&svd, cut_at, shape), &cut(&whole, cut_at, shape)) < 1e-11, "{sizes:?} {cut_at}");
                // Signs included.
                assert!(distance(&svd.left(cut_at), &whole.left(cut_at)) < 1e-9, "{sizes:?}");
            }
        }
    }

    #[test]
    fn signs_do_not_depend_on_that_of_the_matrix() {
        let matrix = draw(35, 6);
        let negative: Vec<f64> = matrix.iter().map(|x| -x).collect();
        let (svd, other) = (Svd::of(&matrix, [5, 7]).unwrap(), Svd::of(&negative, [5, 7]).unwrap());
        assert!(distance(&svd.left(5), &other.left(5)) < 1e-12);
        for column in 0..5 {
            let column: Vec<f64> = svd.left(5).into_iter().skip(column).step_by(5).collect();
            assert!(column.iter().max_by(|x, y| x.abs().total_cmp(&y.abs())).unwrap() > &0.0);
        }
    }

    #[test]
    fn zeros_and_values_that_are_not_finite() {
        let zeros = Svd::of(&[0.0_f32; 6], [2, 3]).unwrap();
        assert!(zeros.singular_values() == [0.0, 0.0] && zeros.lost(1) < f64::MIN_POSITIVE);
        let error = Svd::of(&[0.0, f64::NAN], [1, 2]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a matrix with a value that is not finite cannot be decomposed: found NaN at [0, 1], expected finite numbers"
        );
        assert!(Svd::of_product(&[1.0], &[f32::INFINITY], [1, 1, 1]).is_err());
    }
}
