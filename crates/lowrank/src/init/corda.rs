//! `"corda"`: the weight is decomposed by what its inputs look like, so that the factors hold the part that training data use
//! most, or least.
//!
//! Y. Yang, X. Li, Z. Zhou, S. L. Song, J. Wu, L. Nie, B. Ghanem, "`CorDA`: Context-Oriented Decomposition Adaptation of Large
//! Language Models for Task-Aware Parameter-Efficient Fine-tuning", 2024.

use faer::Mat;
use faer::linalg::solvers::DenseSolveCore;

use super::Moments;
use super::blocks::{Blocks, Matrices, by_blocks};
use crate::adapter::{Factors, GroupMode, Layer};
use crate::svd::Svd;
use crate::{Error, Result, Subject};

/// `corda_method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Corda {
    /// `"ipm"`, instruction previewed: the directions that the data use most, to learn the task.
    #[default]
    InstructionPreviewed,
    /// `"kpm"`, knowledge preserved: those that they use least, to keep what the model knows.
    KnowledgePreserved,
}

/// Part of the mean variance that is added to the covariance, until its inverse is one; doubled as often as needed.
const DAMPING: f64 = 0.01;
/// How far `C·C⁻¹` may be from the identity.
const INVERSE_ERROR: f64 = 0.05;

/// Factors for `layer` from its `weight` and the inputs in `moments`: of `W·C = U·S·Vᵀ`, with the damped covariance `C` of the inputs,
/// `B = U·sqrt(S/s)` and `A = sqrt(S/s)·Vᵀ·C⁻¹`, for `r` of the singular values. The model begins with
/// `(W - s B_0 A_0) + s B A`.
///
/// PEFT has linear layers alone, and divides every batch of inputs by its largest value; here batches count as they are.
///
/// # Errors
/// When the rank does not suit the layer and the form, the scale is not positive, or the decomposition fails.
pub fn from_covariance(
    layer: &Layer,
    mode: GroupMode,
    rank: usize,
    scale: f32,
    weight: &[f32],
    moments: &Moments,
    method: Corda,
) -> Result<Factors> {
    if scale <= 0.0 {
        return Err(Error::new(Subject::Adapter, "\"corda\" takes the root of the scale")
            .found(scale)
            .expected("a positive scale")
            .with_hint("use an alpha above 0"));
    }
    let matrices = Matrices::new(layer, weight)?;
    by_blocks(Blocks { layer, mode, rank, scale }, |block, shape, rank| {
        factors(matrices.block(block, shape), shape, rank, scale, &moments.covariance(block), method)
    })
}

#[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
fn factors(
    weight: &[f32],
    [rows, columns]: [usize; 2],
    rank: usize,
    scale: f32,
    covariance: &Mat<f64>,
    method: Corda,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let (covariance, inverse) = inverted(covariance)?;
    let weight = Mat::from_fn(rows, columns, |row, column| f64::from(weight[row * columns + column]));
    let product = weight * covariance;
    let values: Vec<f64> = product.row_iter().flat_map(|row| row.iter().copied().collect::<Vec<_>>()).collect();
    let svd = Svd::of(&values, [rows, columns])?;
    let all = svd.singular_values().len();
    let first = match method {
        Corda::InstructionPreviewed => 0,
        Corda::KnowledgePreserved => all - rank,
    };
    let root = |p: usize| (svd.singular_values()[first + p] / f64::from(scale)).sqrt();
    let (left, right) = (svd.left(all), svd.right(all));
    let vt = Mat::from_fn(rank, columns, |p, column| right[(first + p) * columns + column]) * inverse;
    let a = (0..rank * columns).map(|at| (root(at / columns) * vt[(at / columns, at % columns)]) as f32).collect();
    let b = (0..rows * rank).map(|at| (root(at % rank) * left[at / rank * all + first + at % rank]) as f32).collect();
    Ok((a, b))
}

/// The covariance with some of its mean variance on the diagonal, and its inverse.
fn inverted(covariance: &Mat<f64>) -> Result<(Mat<f64>, Mat<f64>)> {
    let n = covariance.nrows();
    #[expect(clippy::cast_precision_loss, reason = "values of a column")]
    let mean = (0..n).map(|at| covariance[(at, at)]).sum::<f64>() / n as f64;
    if mean.is_nan() || mean <= 0.0 {
        return Err(Error::new(Subject::Adapter, "the inputs of the module are all zero, or there were none"));
    }
    let mut damping = DAMPING;
    loop {
        let mut damped = covariance.clone();
        (0..n).for_each(|at| damped[(at, at)] += damping * mean);
        let inverse = damped.partial_piv_lu().inverse();
        let identity = &damped * &inverse;
        let distance = |at: usize| identity[(at / n, at % n)] - if at / n == at % n { 1.0 } else { 0.0 };
        let error = (0..n * n).map(|at| distance(at).powi(2)).sum::<f64>().sqrt();
        if error < INVERSE_ERROR {
            return Ok((damped, inverse));
        }
        damping *= 2.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::LayerKind;
    use crate::random::Random;

    fn drawn(count: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed, "values", 0);
        (0..count).map(|_| random.normal()).collect()
    }

    /// Inputs of 10 values that vary along three directions, and hardly along the others.
    fn inputs() -> (Vec<f32>, Moments) {
        let (directions, weights, noise) = (drawn(30, 1), drawn(900, 2), drawn(3000, 3));
        let value = |at: usize| {
            let of = |d: usize| weights[at / 10 * 3 + d] * directions[d * 10 + at % 10];
            (0..3).map(of).sum::<f32>() + 1e-3 * noise[at]
        };
        let x: Vec<f32> = (0..3000).map(value).collect();
        let layer = Layer::new(LayerKind::Linear, &[8, 10], 1).unwrap();
        let mut moments = Moments::new(&layer, GroupMode::default());
        moments.add_linear(&x);
        (x, moments)
    }

    #[test]
    fn the_factors_hold_what_the_data_use_most_or_least() {
        let (x, moments) = inputs();
        let (layer, weight) = (Layer::new(LayerKind::Linear, &[8, 10], 1).unwrap(), drawn(80, 4));
        let output = |weight: &[f32]| {
            let of = |at: usize| (0..10).map(|i| f64::from(weight[at % 8 * 10 + i] * x[at / 8 * 10 + i])).sum::<f64>();
            (0..300 * 8).map(|at| of(at).powi(2)).sum::<f64>().sqrt()
        };
        let held = |method| {
            let factors = from_covariance(&layer, GroupMode::default(), 3, 2.0, &weight, &moments, method).unwrap();
            output(&factors.delta().unwrap()) / output(&weight)
        };
        assert!((held(Corda::InstructionPreviewed) - 1.0).abs() < 1e-2, "{}", held(Corda::InstructionPreviewed));
        assert!(held(Corda::KnowledgePreserved) < 1e-2, "{}", held(Corda::KnowledgePreserved));
    }

    #[test]
    fn all_ranks_together_are_the_weight() {
        let (_, moments) = inputs();
        let (layer, weight) = (Layer::new(LayerKind::Linear, &[8, 10], 1).unwrap(), drawn(80, 4));
        for method in [Corda::InstructionPreviewed, Corda::KnowledgePreserved] {
            let factors = from_covariance(&layer, GroupMode::default(), 8, 0.5, &weight, &moments, method).unwrap();
            let delta = factors.delta().unwrap();
            assert!(delta.iter().zip(&weight).all(|(d, w)| (d - w).abs() < 1e-3), "{method:?}");
        }
    }

    #[test]
    fn inputs_that_are_not_there_are_refused() {
        let layer = Layer::new(LayerKind::Linear, &[8, 10], 1).unwrap();
        let moments = Moments::new(&layer, GroupMode::default());
        let of = |scale, moments| {
            from_covariance(&layer, GroupMode::default(), 2, scale, &drawn(80, 4), moments, Corda::default())
                .unwrap_err()
        };
        assert!(of(1.0, &moments).to_string().contains("all zero, or there were none"));
        assert!(of(-1.0, &inputs().1).to_string().contains("expected a positive scale"));
    }
}
