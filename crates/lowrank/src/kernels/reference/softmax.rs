//! Softmax of rows.

/// `yᵢ = e^xᵢ / Σ e^xⱼ` for each row of `width` values.
#[must_use]
pub fn forward(x: &[f64], width: usize) -> Vec<f64> {
    let row = |x: &[f64]| {
        let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<_> = x.iter().map(|x| (x - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(move |power| power / sum)
    };
    x.chunks(width).flat_map(row).collect()
}

/// `dxᵢ = Σ dyⱼ·∂yⱼ/∂xᵢ` with `∂yⱼ/∂xᵢ = yⱼ·(δᵢⱼ - yᵢ)`, for each row.
#[must_use]
pub fn backward(y: &[f64], dy: &[f64], width: usize) -> Vec<f64> {
    let row = |(y, dy): (&[f64], &[f64])| {
        let at = |i: usize| {
            let terms = y.iter().zip(dy).enumerate();
            terms.map(|(j, (yj, dyj))| dyj * yj * (f64::from(i == j) - y[i])).sum::<f64>()
        };
        (0..y.len()).map(at).collect::<Vec<_>>()
    };
    y.chunks(width).zip(dy.chunks(width)).flat_map(row).collect()
}
