//! The size of a low-rank matrix, and how many directions it really uses, without building it.

use faer::Mat;

/// What a product `scale * B * A` of thin factors comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spectrum {
    /// Frobenius norm.
    pub norm: f64,
    /// The exponential of the entropy of the singular values, each taken as a share of their sum (Roy and Vetterli, "The
    /// effective rank", 2007): between 1 and the rank, and the rank when all are equal. 0 for a matrix of zeros.
    pub effective_rank: f64,
}

/// The spectrum of `scale * B * A`, where `b` has `r` columns and `a` has `r` rows, both row-major.
///
/// With `B = Q1 R1` and `A^T = Q2 R2` the singular values are those of `R1 R2^T`, which has at most `r` rows and
/// columns. `None` when a value is not finite, or the decomposition does not converge.
pub fn spectrum(scale: f64, b: &[f32], a: &[f32], r: usize) -> Option<Spectrum> {
    if r == 0 || a.iter().chain(b).any(|value| !value.is_finite()) {
        return None;
    }
    let (rows, columns) = (b.len() / r, a.len() / r);
    let b = Mat::from_fn(rows, r, |i, p| f64::from(b[i * r + p]));
    let a = Mat::from_fn(columns, r, |j, p| f64::from(a[p * columns + j]));
    let core = b.qr().thin_R() * a.qr().thin_R().transpose();
    let singular = core.singular_values().ok()?;
    let total: f64 = singular.iter().sum();
    let norm = scale.abs() * singular.iter().map(|value| value * value).sum::<f64>().sqrt();
    if total <= 0.0 {
        return Some(Spectrum { norm: 0.0, effective_rank: 0.0 });
    }
    let shares = singular.iter().map(|value| value / total).filter(|share| *share > 0.0);
    Some(Spectrum { norm, effective_rank: shares.map(|share| -share * share.ln()).sum::<f64>().exp() })
}

/// A grouped `B` of `r/g` columns as the matrix of `r` columns that it stands for, zero outside the groups.
pub fn ungrouped(b: &[f32], r: usize, groups: usize) -> Vec<f32> {
    let width = r / groups;
    let outputs = b.len() / width / groups;
    let mut all = vec![0.0; b.len() * groups];
    for (row, values) in b.chunks_exact(width).enumerate() {
        let start = row * r + row / outputs * width;
        all[start..start + width].copy_from_slice(values);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: Option<Spectrum>, norm: f64, effective_rank: f64) {
        let found = found.unwrap();
        let near = |x: f64, y: f64| (x - y).abs() < 1e-12;
        assert!(near(found.norm, norm) && near(found.effective_rank, effective_rank), "{found:?}");
    }

    #[test]
    fn two_equal_directions_are_two_and_one_is_one() {
        // B = I (3 x 2), A = 2 I (2 x 4)
        let (b, a) = ([1.0, 0.0, 0.0, 1.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0]);
        close(spectrum(0.5, &b, &a, 2), 2.0_f64.sqrt(), 2.0);
        // Both columns of B alike: one direction, of norm |(1, 1)| * |(2, 2)|.
        close(spectrum(1.0, &[1.0, 1.0, 1.0, 1.0, 0.0, 0.0], &a, 2), 4.0, 1.0);
        close(spectrum(1.0, &[0.0; 6], &a, 2), 0.0, 0.0);
    }

    #[test]
    fn a_rank_above_both_sides_is_fine() {
        close(spectrum(1.0, &[3.0, 4.0], &[1.0, 0.0], 2), 3.0, 1.0);
    }

    #[test]
    fn what_is_not_finite_has_no_spectrum() {
        assert_eq!(spectrum(1.0, &[f32::NAN], &[1.0], 1), None);
        assert_eq!(spectrum(1.0, &[1.0], &[f32::INFINITY], 1), None);
    }

    #[test]
    fn groups_stand_beside_each_other() {
        // Two outputs in two groups, r = 4: each row has its own two columns.
        assert_eq!(ungrouped(&[1.0, 2.0, 3.0, 4.0], 4, 2), [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 3.0, 4.0]);
    }
}
