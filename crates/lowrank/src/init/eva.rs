//! `"eva"`: the rows of `A` are the principal directions of the layer's inputs, and ranks go where the inputs vary most.
//!
//! F. Paischer, L. Hauzenberger, T. Schmied, B. Alkin, M. P. Deisenroth, S. Hochreiter, "Parameter Efficient Fine-tuning via
//! Explained Variance Adaptation", 2024.

use super::Moments;
use super::blocks::{Blocks, by_blocks};
use crate::adapter::{Factors, GroupMode, Layer};
use crate::svd::Svd;
use crate::{Error, Result, Subject};

/// `eva_config`: what of it matters where all inputs are seen before the directions are taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Eva {
    /// How many times its own rank a module may get; at least 1, which keeps the ranks.
    pub rho: f64,
    /// Whether directions are divided by the root of their singular value.
    pub whiten: bool,
    /// Whether alpha follows the rank, so that the scale stays what it was.
    pub adjust_scaling_factors: bool,
}

impl Default for Eva {
    fn default() -> Self {
        Self { rho: 2.0, whiten: false, adjust_scaling_factors: true }
    }
}

/// Factors for `layer`: the rows of `A` the first `rank` principal directions of the inputs in `moments`, by falling variance,
/// `B` zero.
///
/// PEFT has linear layers alone, and directions from an incremental decomposition; here they are those of all inputs, and
/// convolutions have them of their unfolded inputs.
///
/// # Errors
/// When the rank does not suit the layer, the form or the inputs, and when there were fewer inputs than directions are taken.
pub fn from_inputs(
    layer: &Layer,
    mode: GroupMode,
    rank: usize,
    scale: f32,
    moments: &Moments,
    config: &Eva,
) -> Result<Factors> {
    by_blocks(Blocks { layer, mode, rank, scale }, |block, [rows, columns], rank| {
        let svd = Svd::of(&moments.scatter(block), [columns, columns])?;
        let values = &svd.singular_values()[..rank];
        if values[rank - 1] <= 1e-12 * values[0] {
            return Err(Error::new(Subject::Adapter, "the inputs vary in fewer directions than the adapter has ranks")
                .found(format!("rank {rank} for inputs of {columns} values"))
                .with_hint("give this module a smaller rank in rank_pattern, or show it more data"));
        }
        // The scatter's values are the squares of the inputs' own.
        let length = |value: f64| if config.whiten { 1.0 / value.sqrt().sqrt() } else { 1.0 };
        #[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
        let direction = |(at, value): (usize, &f64)| (length(values[at / columns]) * value) as f32;
        Ok((svd.right(rank).iter().enumerate().map(direction).collect(), vec![0.0; rows * rank]))
    })
}

/// A module that ranks are shared out to.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The rank it was to have.
    pub rank: usize,
    /// The largest it can have: the smaller side of its matrix, times its blocks.
    pub most: usize,
    /// Its inputs.
    pub moments: &'a Moments,
}

/// The ranks of modules when all of them together keep what they had: one after the other goes to the direction that explains
/// the largest share of its module's variance. A module has `rho` times its own rank at most, and may end with none.
///
/// Ranks of a module with blocks go to all of its blocks at once.
///
/// # Errors
/// When the inputs cannot be decomposed.
pub fn ranks(modules: &[Candidate<'_>], rho: f64) -> Result<Vec<usize>> {
    let mut shares = Vec::new();
    for (module, candidate) in modules.iter().enumerate() {
        let blocks = candidate.moments.blocks();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive here; saturates")]
        #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
        let most = ((candidate.rank as f64 * rho).round() as usize).min(candidate.most) / blocks;
        let explained = explained(candidate.moments)?;
        shares.extend(explained.into_iter().take(most).map(|share| (share, module)));
    }
    // Equal shares stay in the order of the modules.
    shares.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let mut budget: usize = modules.iter().map(|candidate| candidate.rank).sum();
    let mut ranks = vec![0; modules.len()];
    for (_, module) in shares {
        let blocks = modules[module].moments.blocks();
        if blocks <= budget {
            ranks[module] += blocks;
            budget -= blocks;
        }
    }
    Ok(ranks)
}

/// The share of the variance along each direction, the mean over the blocks.
fn explained(moments: &Moments) -> Result<Vec<f64>> {
    let (rows, blocks) = (moments.rows(), moments.blocks());
    let mut shares = vec![0.0; rows];
    for block in 0..blocks {
        let svd = Svd::of(&moments.scatter(block), [rows, rows])?;
        let all: f64 = svd.singular_values().iter().sum();
        for (share, value) in shares.iter_mut().zip(svd.singular_values()) {
            #[expect(clippy::cast_precision_loss, reason = "groups of a layer")]
            let blocks = blocks as f64;
            *share += value / all.max(f64::MIN_POSITIVE) / blocks;
        }
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::LayerKind;
    use crate::random::Random;

    /// Inputs of 4 values that vary most along the last, then along the first.
    fn inputs(second: f32) -> Moments {
        let layer = Layer::new(LayerKind::Linear, &[6, 4], 1).unwrap();
        let mut moments = Moments::new(&layer, GroupMode::default());
        let mut random = Random::new(2, "inputs", 0);
        let mut value = |deviation: f32| deviation * random.normal() + 3.0;
        let x: Vec<f32> = (0..500).flat_map(|_| [value(second), value(0.1), value(0.01), value(4.0)]).collect();
        moments.add_linear(&x);
        moments
    }

    #[test]
    fn rows_of_a_are_the_directions_in_which_the_inputs_vary() {
        let layer = Layer::new(LayerKind::Linear, &[6, 4], 1).unwrap();
        let of = |rank, config| from_inputs(&layer, GroupMode::default(), rank, 1.0, &inputs(2.0), &config).unwrap();
        let factors = of(2, Eva::default());
        for (row, largest) in factors.a().chunks_exact(4).zip([3, 0]) {
            assert!(row[largest].abs() > 0.99, "{row:?}");
            assert!((row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
        }
        assert!(factors.b().iter().all(|b| *b == 0.0));
        let white = of(2, Eva { whiten: true, ..Eva::default() });
        let ratio = |row: usize| white.a()[row * 4..][..4].iter().map(|x| x * x).sum::<f32>().sqrt();
        // Deviations of 4 and 2, whose roots differ by the root of 2.
        assert!((ratio(1) / ratio(0) - 2_f32.sqrt()).abs() < 0.1, "{} {}", ratio(0), ratio(1));
    }

    #[test]
    fn ranks_go_where_the_inputs_vary_most_and_stay_as_many() {
        let (wide, narrow) = (inputs(4.0), inputs(0.05));
        let modules =
            [Candidate { rank: 1, most: 4, moments: &narrow }, Candidate { rank: 2, most: 4, moments: &wide }];
        // The first direction of `narrow` explains nearly all; the next two are those of `wide`, half each.
        assert_eq!(ranks(&modules, 2.0).unwrap(), [1, 2]);
        let modules =
            [Candidate { rank: 2, most: 4, moments: &narrow }, Candidate { rank: 1, most: 4, moments: &wide }];
        assert_eq!(ranks(&modules, 2.0).unwrap(), [1, 2]);
        assert_eq!(ranks(&modules, 1.0).unwrap(), [2, 1], "nobody gets more than it had");
    }

    #[test]
    fn too_few_inputs_are_refused() {
        let layer = Layer::new(LayerKind::Linear, &[6, 4], 1).unwrap();
        let mut moments = Moments::new(&layer, GroupMode::default());
        moments.add_linear(&[1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 1.0, 0.0]);
        let error = from_inputs(&layer, GroupMode::default(), 2, 1.0, &moments, &Eva::default()).unwrap_err();
        assert!(error.to_string().contains("vary in fewer directions"), "{error}");
    }
}
