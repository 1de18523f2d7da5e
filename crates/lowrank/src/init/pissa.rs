//! `"pissa"`: the factors are the principal part of the weight, and what is left stays frozen.
//!
//! F. Meng, Z. Wang, M. Zhang, "`PiSSA`: Principal Singular Values and Singular Vectors Adaptation of Large Language
//! Models", 2024.

use faer::Mat;

use crate::random::Random;
use crate::svd::Svd;
use crate::{Error, Result, Subject};

/// `A = diag(sqrt(S/s)) V^T`, `(rank, columns)`, and `B = U diag(sqrt(S/s))`, `(rows, rank)`, from the first `rank`
/// singular values of a weight `(rows, columns)`: `s B A` is the matrix of that rank nearest to the weight.
///
/// # Errors
/// When `scale` is 0, and when the weight cannot be decomposed.
pub fn exact(weight: &[f32], shape: [usize; 2], rank: usize, scale: f32) -> Result<(Vec<f32>, Vec<f32>)> {
    split(&Svd::of(weight, shape)?, rank, scale)
}

/// `"pissa_niter_N"`: as [`exact`], from a decomposition of the weight within the range of `(W W^T)^N W G`, with a normal
/// `G`, `(columns, rank)`.
///
/// That is algorithm 5.1 over 4.4 of N. Halko, P. Martinsson, J. Tropp, "Finding structure with randomness", 2011, which
/// `torch.svd_lowrank` has too; it costs `O(rows columns rank)` for each of `2 N + 2` products.
///
/// # Errors
/// As [`exact`].
pub fn randomised(
    weight: &[f32],
    [rows, columns]: [usize; 2],
    rank: usize,
    scale: f32,
    iterations: usize,
    random: &mut Random,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let weight = Mat::from_fn(rows, columns, |row, column| f64::from(weight[row * columns + column]));
    let basis = |matrix: Mat<f64>| matrix.qr().compute_thin_Q();
    let mut range = basis(&weight * Mat::from_fn(columns, rank, |_, _| f64::from(random.normal())));
    for _ in 0..iterations {
        let domain = basis(weight.transpose() * &range);
        range = basis(&weight * domain);
    }
    let inside = range.transpose() * &weight;
    let values = |matrix: &Mat<f64>| {
        let rows = matrix.row_iter();
        rows.flat_map(|row| row.iter().copied().collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    split(&Svd::of_product(&values(&range), &values(&inside), [rows, rank, columns])?, rank, scale)
}

/// Both sides get the root of `S/s`; with a negative `s`, `B` gets the sign.
#[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
fn split(svd: &Svd, rank: usize, scale: f32) -> Result<(Vec<f32>, Vec<f32>)> {
    if scale == 0.0 {
        return Err(Error::new(Subject::Adapter, "the scale is 0, so that no factors hold a part of the weight")
            .with_hint("use an alpha other than 0"));
    }
    let scale = f64::from(scale);
    let roots: Vec<f64> = svd.singular_values().iter().take(rank).map(|value| (value / scale.abs()).sqrt()).collect();
    let right = svd.right(rank);
    let columns = right.len() / rank;
    let a = right.iter().enumerate().map(|(index, v)| (roots[index / columns] * v) as f32).collect();
    let left = svd.left(rank);
    let b = left.iter().enumerate().map(|(index, u)| (scale.signum() * roots[index % rank] * u) as f32).collect();
    Ok((a, b))
}
