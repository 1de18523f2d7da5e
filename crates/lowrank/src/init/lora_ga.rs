//! `"lora_ga"`: the factors are singular vectors of the loss's gradient, so that the first steps of training go where those
//! of the whole weight would.
//!
//! S. Wang, L. Yu, J. Li, "`LoRA-GA`: Low-Rank Adaptation with Gradient Approximation", 2024.

use super::blocks::{Blocks, Matrices, by_blocks};
use crate::adapter::{Factors, GroupMode, Layer};
use crate::random::Random;
use crate::svd::Svd;
use crate::{Error, Result, Subject};

/// `lora_ga_config`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraGa {
    /// Which singular vectors the factors take.
    pub direction: Direction,
    /// How long they are.
    pub scale: Scaling,
    /// `γ` of [`Scaling::Stable`], above 0.
    pub stable_gamma: f64,
}

impl Default for LoraGa {
    fn default() -> Self {
        Self { direction: Direction::ArB2r, scale: Scaling::Stable, stable_gamma: 16.0 }
    }
}

/// Which of the first `2r` singular vectors of the gradient, by falling singular value, become `A` and `B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// `"ArB2r"`: `A` the first `r` right ones, `B` the second `r` left ones.
    #[default]
    ArB2r,
    /// `"A2rBr"`: `A` the second `r`, `B` the first.
    A2rBr,
    /// `"ArBr"`: `A` those at odd places (counted from 0), `B` those at even places.
    ArBr,
    /// `"random"`: the same random `r` for both.
    Random,
}

/// How long the factors are; `B` has the singular values on it in each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scaling {
    /// `"stable"`: `B` times `out^(1/4) / sqrt(γ)`.
    #[default]
    Stable,
    /// `"weight_svd"`: `B` so that its first column is as long as the largest singular value of the weight.
    WeightSvd,
    /// `"gd_scale"`: both divided by the adapter's scale.
    GdScale,
    /// `"unit"`: as they are.
    Unit,
}

/// Factors for `layer` from the `gradient` of the loss with respect to its `weight`, both in the shape `PyTorch` stores.
///
/// As [`decompose`](super::decompose()) of the gradient: a convolution is the matrix `(out, in/g * k)`, each group with rows of
/// `A` of its own a matrix of its own; PEFT falls back to its default start there. The model begins with
/// `(W - s B_0 A_0) + s B A`. Only [`Direction::Random`] draws from `random`.
///
/// # Errors
/// As [`decompose`](super::decompose()); when the matrix has fewer than `2r` singular vectors, and when it is zero.
#[expect(clippy::too_many_arguments, reason = "a layer, the form of its factors, its values, and how")]
pub fn from_gradient(
    layer: &Layer,
    mode: GroupMode,
    rank: usize,
    scale: f32,
    gradient: &[f32],
    weight: &[f32],
    config: &LoraGa,
    random: &mut Random,
) -> Result<Factors> {
    let (gradient, weight) = (Matrices::new(layer, gradient)?, Matrices::new(layer, weight)?);
    by_blocks(Blocks { layer, mode, rank, scale }, |block, shape, rank| {
        let values = [gradient.block(block, shape), weight.block(block, shape)];
        factors(values, shape, rank, scale, config, random)
    })
}

#[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
#[expect(clippy::cast_precision_loss, reason = "the outputs of a layer are far below 2^53")]
fn factors(
    [gradient, weight]: [&[f32]; 2],
    [rows, columns]: [usize; 2],
    rank: usize,
    scale: f32,
    config: &LoraGa,
    random: &mut Random,
) -> Result<(Vec<f32>, Vec<f32>)> {
    if 2 * rank > rows.min(columns) {
        return Err(Error::new(Subject::Adapter, "the gradient has fewer singular vectors than \"lora_ga\" takes")
            .found(format!("rank {rank} for a matrix of {rows} by {columns}"))
            .expected(format!("at most {}, half of the smaller side", rows.min(columns) / 2))
            .with_hint("give this module a smaller rank in rank_pattern, or leave it out of target_modules"));
    }
    let svd = Svd::of(gradient, [rows, columns])?;
    let values = svd.singular_values();
    if values[0] == 0.0 {
        return Err(Error::new(Subject::Adapter, "the gradient is zero, and has no direction")
            .with_hint("the loss does not depend on this module: leave it out of target_modules"));
    }
    let (of_a, of_b) = places(config.direction, rank, random);
    let (right, left) = (svd.right(2 * rank), svd.left(2 * rank));
    let scale = f64::from(scale);
    let lengths = match config.scale {
        Scaling::Stable => (1.0, (rows as f64).powf(0.25) / config.stable_gamma.sqrt()),
        Scaling::WeightSvd => (1.0, largest(weight, [rows, columns])? / values[of_b[0]].max(f64::MIN_POSITIVE)),
        Scaling::GdScale => (1.0 / scale, 1.0 / scale),
        Scaling::Unit => (1.0, 1.0),
    };
    let a = of_a.iter().flat_map(|p| right[p * columns..][..columns].iter().map(|value| (lengths.0 * value) as f32));
    let b = (0..rows * rank).map(|at| {
        let p = of_b[at % rank];
        (lengths.1 * values[p] * left[at / rank * 2 * rank + p]) as f32
    });
    Ok((a.collect(), b.collect()))
}

/// The singular vectors that become rows of `A`, and columns of `B`.
fn places(direction: Direction, rank: usize, random: &mut Random) -> (Vec<usize>, Vec<usize>) {
    let (first, second) = ((0..rank).collect(), (rank..2 * rank).collect());
    match direction {
        Direction::ArB2r => (first, second),
        Direction::A2rBr => (second, first),
        Direction::ArBr => ((1..2 * rank).step_by(2).collect(), (0..2 * rank).step_by(2).collect()),
        Direction::Random => {
            let mut all: Vec<usize> = (0..2 * rank).collect();
            random.shuffle(&mut all);
            all.truncate(rank);
            (all.clone(), all)
        }
    }
}

fn largest(weight: &[f32], shape: [usize; 2]) -> Result<f64> {
    Ok(Svd::of(weight, shape)?.singular_values()[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::LayerKind;

    fn drawn(count: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed, "gradient", 0);
        (0..count).map(|_| random.normal()).collect()
    }

    fn conv() -> Layer {
        Layer::new(LayerKind::Conv1d, &[12, 5, 3], 1).unwrap()
    }

    fn start(layer: &Layer, mode: GroupMode, config: LoraGa) -> Factors {
        let len = layer.weight_shape().iter().product();
        let (gradient, weight) = (drawn(len, 1), drawn(len, 2));
        let random = &mut Random::new(3, "start", 0);
        from_gradient(layer, mode, 4, 0.5, &gradient, &weight, &config, random).unwrap()
    }

    /// `|u^T M v|` of a row of `A` and a column of `B` with the first singular vectors: where each factor points.
    fn along(vectors: &[f64], own: &[f64]) -> f64 {
        let length = own.iter().map(|x| x * x).sum::<f64>().sqrt();
        (vectors.iter().zip(own).map(|(v, x)| v * x).sum::<f64>() / length).abs()
    }

    #[test]
    fn factors_point_along_the_singular_vectors_that_the_direction_names() {
        let svd = Svd::of(&drawn(180, 1), [12, 15]).unwrap();
        let (left, right) = (svd.left(8), svd.right(8));
        let column = |p: usize| (0..12).map(|row| left[row * 8 + p]).collect::<Vec<_>>();
        for (direction, of_a, of_b) in [
            (Direction::ArB2r, [0, 1, 2, 3], [4, 5, 6, 7]),
            (Direction::A2rBr, [4, 5, 6, 7], [0, 1, 2, 3]),
            (Direction::ArBr, [1, 3, 5, 7], [0, 2, 4, 6]),
        ] {
            for scale in [Scaling::Stable, Scaling::WeightSvd, Scaling::GdScale, Scaling::Unit] {
                let factors = start(&conv(), GroupMode::Shared, LoraGa { direction, scale, ..LoraGa::default() });
                for p in 0..4 {
                    let a: Vec<f64> = factors.a()[p * 15..][..15].iter().map(|x| f64::from(*x)).collect();
                    let b: Vec<f64> = factors.b().iter().skip(p).step_by(4).map(|x| f64::from(*x)).collect();
                    assert!((along(&right[of_a[p] * 15..][..15], &a) - 1.0).abs() < 1e-6, "{direction:?} A {p}");
                    assert!((along(&column(of_b[p]), &b) - 1.0).abs() < 1e-6, "{direction:?} B {p}");
                }
            }
        }
        let random = start(&conv(), GroupMode::Shared, LoraGa { direction: Direction::Random, ..LoraGa::default() });
        assert!(random.a().iter().all(|a| a.is_finite()));
    }

    #[test]
    fn lengths_are_those_that_the_scale_names() {
        let (svd, weight) = (Svd::of(&drawn(180, 1), [12, 15]).unwrap(), Svd::of(&drawn(180, 2), [12, 15]).unwrap());
        let value = svd.singular_values()[4];
        for (scale, a, b) in [
            (Scaling::Stable, 1.0, value * 12_f64.powf(0.25) / 4.0),
            (Scaling::WeightSvd, 1.0, weight.singular_values()[0]),
            (Scaling::GdScale, 2.0, 2.0 * value),
            (Scaling::Unit, 1.0, value),
        ] {
            let factors = start(&conv(), GroupMode::Shared, LoraGa { scale, ..LoraGa::default() });
            let norm =
                |values: &mut dyn Iterator<Item = &f32>| values.map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            assert!((norm(&mut factors.a()[..15].iter()) - a).abs() < 1e-5, "{scale:?}");
            assert!((norm(&mut factors.b().iter().step_by(4)) / b - 1.0).abs() < 1e-5, "{scale:?}");
        }
    }

    #[test]
    fn groups_are_layers_of_their_own() {
        let layer = Layer::new(LayerKind::Conv1d, &[12, 5, 3], 2).unwrap();
        let of = |mode| start(&layer, mode, LoraGa::default());
        assert_eq!(of(GroupMode::Dense).delta().unwrap(), of(GroupMode::PerGroup).delta().unwrap());
        let linear = Layer::new(LayerKind::Linear, &[6, 15], 1).unwrap();
        let random = &mut Random::new(3, "start", 0);
        let (gradient, weight) = (&drawn(180, 1)[..90], &drawn(180, 2)[..90]);
        let first =
            from_gradient(&linear, GroupMode::Shared, 2, 0.5, gradient, weight, &LoraGa::default(), random).unwrap();
        assert_eq!(of(GroupMode::PerGroup).a()[..30], first.a()[..]);
    }

    #[test]
    fn what_has_no_direction_is_refused() {
        let random = &mut Random::new(3, "start", 0);
        let mut of = |rank, gradient: &[f32]| {
            let weight = drawn(180, 2);
            let config = LoraGa::default();
            from_gradient(&conv(), GroupMode::Shared, rank, 1.0, gradient, &weight, &config, random).unwrap_err()
        };
        assert!(of(7, &drawn(180, 1)).to_string().contains("at most 6"));
        assert!(of(4, &[0.0; 180]).to_string().contains("the gradient is zero"));
    }
}
