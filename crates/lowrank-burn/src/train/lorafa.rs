//! LoRA-FA (<https://huggingface.co/papers/2308.03303>): `A` stays what it began as, and `B` alone trains.
//!
//! The gradient of `B` is replaced by the one whose step comes nearest to a step along the gradient `G` of the whole weight:
//! with `dB = s·G·Aᵀ`, the `D` that minimises `‖s·D·A − G‖` is `D = dB·(A·Aᵀ)⁻¹ / s²`. A convolution's factors are taken as
//! matrices, `A (r, in/g·k)`, each block of a grouped one for itself; PEFT's `create_lorafa_optimizer` fails there.

use std::ops::Range;

use burn::module::Module;
use lowrank::adapter::GroupMode;
use lowrank::target::Target;
use lowrank::{Error, Result, Subject};

use super::flat::Trainable;
use crate::attach::Adapters;
use crate::values;

/// Added to the diagonal of `A·Aᵀ`, as in PEFT.
const DELTA: f64 = 1e-8;

/// A row of which so small a share of the longest is left beside the others has nothing but [`DELTA`] of its own.
const DEPENDENT: f64 = 1e-7;

/// What turns the gradient of every `B` into LoRA-FA's.
#[derive(Debug, Clone)]
pub(super) struct Projections(Vec<Projection>);

/// That of one `B`.
#[derive(Debug, Clone)]
struct Projection {
    /// Where `B` is in the flat vector.
    place: Range<usize>,
    /// Columns of `B`.
    rank: usize,
    /// `(A·Aᵀ)⁻¹ / s²` of each block, `rank x rank`.
    inverses: Vec<Vec<f64>>,
}

impl Projections {
    /// Those of the adapter `name`, whose `A` is in the model.
    ///
    /// # Errors
    /// When an `A` has dependent rows: that of an embedding, which begins as zero.
    pub fn of<M: Module>(adapters: &Adapters, name: &str, model: &M, trainable: &Trainable) -> Result<Self> {
        let tensors = adapters.trainable_tensors(name)?;
        let tensor = |key: String| tensors.iter().find(|tensor| tensor.name == key);
        let projections = adapters.targets(name)?.iter().filter_map(|target| {
            let a = tensor(format!("{}.lora_A.weight", target.path))?;
            let place = trainable.range(tensor(format!("{}.lora_B.weight", target.path))?.id)?;
            let a = values::read(model, &[a.id]).remove(&a.id)?;
            Some(Projection::new(target, &a, place).map_err(|error| error.at(&target.path)))
        });
        Ok(Self(projections.collect::<Result<_>>()?))
    }

    /// Replaces the gradients of the `B`s.
    pub fn apply(&self, gradients: &mut [f32]) {
        for projection in &self.0 {
            projection.apply(&mut gradients[projection.place.clone()]);
        }
    }
}

impl Projection {
    fn new(target: &Target, a: &[f32], place: Range<usize>) -> Result<Self> {
        let blocks = if target.mode == GroupMode::Shared { 1 } else { target.layer.groups() };
        let (rank, scale) = (target.rank / blocks, f64::from(target.scale));
        let inverse = |a: &[f32]| {
            let inverse = inverse(gram(a, rank), rank).ok_or_else(dependent)?;
            Ok(inverse.into_iter().map(|value| value / (scale * scale)).collect())
        };
        let inverses = a.chunks_exact(a.len() / blocks).map(inverse).collect::<Result<_>>()?;
        Ok(Self { place, rank, inverses })
    }

    fn apply(&self, gradient: &mut [f32]) {
        let of_block = gradient.len() / self.inverses.len();
        for (rows, inverse) in gradient.chunks_exact_mut(of_block).zip(&self.inverses) {
            for row in rows.chunks_exact_mut(self.rank) {
                let own: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
                for (value, column) in row.iter_mut().zip(inverse.chunks_exact(self.rank)) {
                    let sum: f64 = own.iter().zip(column).map(|(a, b)| a * b).sum();
                    #[expect(clippy::cast_possible_truncation, reason = "gradients are of single precision")]
                    let rounded = sum as f32;
                    *value = rounded;
                }
            }
        }
    }
}

fn dependent() -> Error {
    Error::new(Subject::Config, "LoRA-FA needs an `A` whose rows are independent").with_hint(
        "the `A` of an embedding begins as zero: leave embeddings out of target_modules, or set lorafa = false",
    )
}

/// `A·Aᵀ + δ`, of an `A` with `rank` rows.
fn gram(a: &[f32], rank: usize) -> Vec<f64> {
    let rows: Vec<&[f32]> = a.chunks_exact(a.len() / rank).collect();
    let dot =
        |p: usize, q: usize| -> f64 { rows[p].iter().zip(rows[q]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    (0..rank * rank).map(|at| dot(at / rank, at % rank) + if at / rank == at % rank { DELTA } else { 0.0 }).collect()
}

/// The inverse of a symmetric positive definite matrix, by Gauss and Jordan; none when it has no rank to speak of.
fn inverse(mut matrix: Vec<f64>, size: usize) -> Option<Vec<f64>> {
    let largest = (0..size).map(|at| matrix[at * size + at]).fold(0.0, f64::max);
    let mut inverse: Vec<f64> = (0..size * size).map(|at| if at / size == at % size { 1.0 } else { 0.0 }).collect();
    for pivot in 0..size {
        let value = matrix[pivot * size + pivot];
        if value <= DEPENDENT * largest || value <= 2.0 * DELTA {
            return None;
        }
        for column in 0..size {
            matrix[pivot * size + column] /= value;
            inverse[pivot * size + column] /= value;
        }
        for row in (0..size).filter(|row| *row != pivot) {
            let factor = matrix[row * size + pivot];
            for column in 0..size {
                matrix[row * size + column] -= factor * matrix[pivot * size + column];
                inverse[row * size + column] -= factor * inverse[pivot * size + column];
            }
        }
    }
    Some(inverse)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "gradients are of single precision")]
mod tests {
    use burn::nn::conv::Conv1dConfig;
    use burn::tensor::Device;
    use lowrank::config::{LoraConfig, Patterns};
    use lowrank::random::Random;
    use proptest::prelude::*;

    use super::*;
    use crate::attach::{DEFAULT, attach};
    use crate::nn::Conv1d;

    #[derive(Module, Debug)]
    struct Net {
        conv: Conv1d,
    }

    fn drawn(random: &mut Random, len: usize) -> Vec<f32> {
        (0..len).map(|_| random.uniform(-1.0, 1.0)).collect()
    }

    proptest! {
        /// A step of `B` along the new gradient moves the weight by the part of `G` that the rows of `A` span:
        /// what is left of `G` is orthogonal to every one of them.
        #[test]
        fn a_step_moves_the_weight_by_all_of_its_gradient_that_a_can_reach(
            seed in any::<u64>(), groups in 1_usize..3, rank in 1_usize..4, out in 1_usize..4, inputs in 2_usize..4,
        ) {
            let (n, r) = (inputs * 3, rank * groups);
            let device = Device::flex().autodiff();
            let conv = Conv1dConfig::new(inputs * groups, out * groups, 3).with_groups(groups);
            let targets = Some(Patterns::List(vec!["conv".into()]));
            let config = LoraConfig { r, lora_alpha: 3.0, target_modules: targets, ..LoraConfig::default() };
            let (net, adapters) = attach(Net { conv: Conv1d::new(&conv, &device) }, &config, seed).unwrap();
            let trainable = Trainable::of_adapter(&adapters, DEFAULT).unwrap().without_a();
            prop_assert_eq!(trainable.len(), out * groups * rank);
            let a = adapters.trainable_tensors(DEFAULT).unwrap();
            let a = a.iter().find(|tensor| tensor.name.contains("lora_A")).unwrap().id;
            let a = values::read(&net, &[a]).remove(&a).unwrap();
            let scale = adapters.targets(DEFAULT).unwrap()[0].scale;

            let g = drawn(&mut Random::new(seed, "gradient", 0), out * groups * n);
            let a_of = |block: usize, row: usize| &a[(block * rank + row) * n..][..n];
            let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
            let mut gradient: Vec<f32> = (0..out * groups * rank)
                .map(|at| scale * dot(&g[at / rank * n..][..n], a_of(at / rank / out, at % rank)) as f32)
                .collect();
            Projections::of(&adapters, DEFAULT, &net, &trainable).unwrap().apply(&mut gradient);
            for row in 0..out * groups {
                let moved = |column: usize| -> f64 {
                    let of = |p: usize| f64::from(gradient[row * rank + p]) * f64::from(a_of(row / out, p)[column]);
                    f64::from(scale) * (0..rank).map(of).sum::<f64>()
                };
                let left: Vec<f32> = (0..n).map(|column| (f64::from(g[row * n + column]) - moved(column)) as f32).collect();
                for p in 0..rank {
                    prop_assert!(dot(&left, a_of(row / out, p)).abs() < 1e-4, "row {row}, {left:?}");
                }
            }
        }
    }

    #[test]
    fn rows_that_depend_on_each_other_are_refused() {
        assert_eq!(inverse(gram(&[1.0, 2.0, 2.0, 4.0], 2), 2), None);
        assert_eq!(inverse(gram(&[0.0; 4], 2), 2), None);
        assert!(inverse(gram(&[1.0, 2.0, 2.0, -1.0], 2), 2).is_some());
    }
}
