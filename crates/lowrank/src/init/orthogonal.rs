//! `"orthogonal"`: both factors random, with a product of zero.

use faer::Mat;

use crate::random::Random;

/// `A`, `(rank, inputs)`, and `B`, `(outputs, rank)`, row-major, of an even rank.
///
/// With a random orthogonal `Q` of `(rank, rank)`, and normal `G` and `H`,
///
/// ```text
/// A = (G Q_0)^T / 10    G: (inputs, rank/2), Q_0: rows 0, 2, .. of Q
/// B = H Q_1 / 10        H: (outputs, rank/2), Q_1: rows 1, 3, .. of Q
/// ```
///
/// so that `B A = H Q_1 Q_0^T G^T / 100 = 0`, while gradients reach both factors from the first step on (D. Datta,
/// "Rethinking `LoRA` initialisation"; PEFT's `orthogonal_init`).
#[must_use]
pub fn factors([inputs, outputs]: [usize; 2], rank: usize, random: &mut Random) -> (Vec<f32>, Vec<f32>) {
    let q = normal(rank, rank, random).qr().compute_thin_Q();
    let half = |odd: usize| Mat::from_fn(rank / 2, rank, |row, column| q[(2 * row + odd, column)]);
    let a = normal(inputs, rank / 2, random) * half(0);
    let b = normal(outputs, rank / 2, random) * half(1);
    #[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
    let tenth = |value: f64| (value / 10.0) as f32;
    let a = a.col_iter().flat_map(|column| column.iter().map(|x| tenth(*x)).collect::<Vec<_>>()).collect();
    let b = b.row_iter().flat_map(|row| row.iter().map(|x| tenth(*x)).collect::<Vec<_>>()).collect();
    (a, b)
}

fn normal(rows: usize, columns: usize, random: &mut Random) -> Mat<f64> {
    Mat::from_fn(rows, columns, |_, _| f64::from(random.normal()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_zero_and_the_factors_are_not() {
        let (a, b) = factors([30, 20], 6, &mut Random::new(1, "orthogonal", 0));
        for (o, i) in (0..20).flat_map(|o| (0..30).map(move |i| (o, i))) {
            let product: f64 = (0..6).map(|p| f64::from(b[o * 6 + p]) * f64::from(a[p * 30 + i])).sum();
            assert!(product.abs() < 1e-8, "{product}");
        }
        // Entries of G Q_0 are sums of rank/2 products, with a deviation of about the root of 1/2.
        for values in [a, b] {
            let squares: f32 = values.iter().map(|x| x * x).sum();
            #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
            let deviation = (squares / values.len() as f32).sqrt();
            assert!((0.05..0.1).contains(&deviation), "{deviation}");
        }
    }
}
