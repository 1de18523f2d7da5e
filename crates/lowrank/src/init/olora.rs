//! `"olora"`: the factors are those of a QR decomposition of the weight.
//!
//! K. Büyükakyüz, "`OLoRA`: Orthonormal Low-Rank Adaptation of Large Language Models", 2024.

use faer::Mat;

/// `A = R[..rank]`, `(rank, columns)`, and `B = Q[.., ..rank]`, `(rows, rank)`, of a weight `W = Q R`, `(rows, columns)`.
///
/// The first columns of `Q` depend on the first columns of `W` alone, so only those are decomposed, and `A = B^T W`. The
/// diagonal of `R` is positive, which makes the factors those of the weight and of nothing else; LAPACK, and so
/// PEFT, may have both signs of a pair turned.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
pub fn factors(weight: &[f32], [rows, columns]: [usize; 2], rank: usize) -> (Vec<f32>, Vec<f32>) {
    let weight = Mat::from_fn(rows, columns, |row, column| f64::from(weight[row * columns + column]));
    let q = weight.subcols(0, rank).qr().compute_thin_Q();
    let r = q.transpose() * &weight;
    let sign = |p: usize| if r[(p, p)] < 0.0 { -1.0 } else { 1.0 };
    let a = (0..rank).flat_map(|p| r.row(p).iter().map(|x| (sign(p) * x) as f32).collect::<Vec<_>>()).collect();
    let row_of_b = |row: usize| (0..rank).map(|p| (sign(p) * q[(row, p)]) as f32).collect::<Vec<_>>();
    (a, (0..rows).flat_map(row_of_b).collect())
}
