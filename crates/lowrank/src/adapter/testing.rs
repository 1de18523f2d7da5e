//! What the tests of several rooms start from.

use super::LayerKind;
use crate::random::Random;

/// Every kind, with and without groups: kind, weight, groups.
pub const LAYERS: [(LayerKind, &[usize], usize); 12] = [
    (LayerKind::Linear, &[5, 7], 1),
    (LayerKind::Conv1D, &[7, 5], 1),
    (LayerKind::Embedding, &[11, 4], 1),
    (LayerKind::Conv1d, &[6, 4, 3], 1),
    (LayerKind::Conv1d, &[6, 2, 3], 3),
    (LayerKind::Conv1d, &[8, 1, 5], 4),
    (LayerKind::Conv2d, &[6, 4, 2, 3], 1),
    (LayerKind::Conv2d, &[6, 2, 3, 1], 2),
    (LayerKind::Conv3d, &[4, 2, 2, 1, 3], 1),
    (LayerKind::ConvTranspose1d, &[6, 4, 3], 1),
    (LayerKind::ConvTranspose1d, &[6, 2, 3], 3),
    (LayerKind::ConvTranspose2d, &[6, 4, 2, 3], 2),
];

/// Values of the normal distribution.
pub fn draw(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed, "tools", 0);
    (0..count).map(|_| random.normal()).collect()
}

/// The Frobenius norm.
fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// The distance from `whole`, as a share of its norm.
pub fn distance(found: &[f32], whole: &[f64]) -> f64 {
    assert_eq!(found.len(), whole.len());
    let gap = norm(found.iter().zip(whole).map(|(found, whole)| f64::from(*found) - whole));
    gap / norm(whole.iter().copied())
}
