//! Several adapters in one: PEFT's `add_weighted_adapter`.
//!
//! [`combine`] does it for the factors of one module, [`combine_adapters`] for whole adapters. With `w_i` the weight of an
//! adapter, `s_i` its scale and `p(..)` what its density leaves over:
//!
//! | `combination_type` | the result |
//! |---|---|
//! | `cat` | `sum_i w_i s_i B_i A_i`, exactly; its rank is the sum of the ranks |
//! | `svd` | the same, cut to `svd_rank` |
//! | `linear` | `A = sum_i sign(w_i s_i) sqrt(abs(w_i s_i)) A_i`, `B = sum_i sqrt(abs(w_i s_i)) B_i` |
//! | `magnitude_prune`, `ties`, `dare_linear`, `dare_ties` | as `linear`, with `p(A_i)` and `p(B_i)` |
//! | `.._svd` | `sum_i w_i p(s_i B_i A_i)`, cut to `svd_rank` |
//!
//! `magnitude_prune` and `ties` keep the largest magnitudes, `dare_linear` and `dare_ties` a random choice, which they
//! divide by the density (Yu et al., "Language models are super Mario", 2024). `ties` and `dare_ties` put, instead of the
//! sum, the mean over the adapters whose value has the winning sign (Yadav et al., "TIES-merging", 2023). Without a
//! density of 1, both may change more than they add up: [`CombinedModule::distance`] says how much.
//!
//! `linear` and the four like it add factors, not deltas: `B A` then has the products of one adapter's `B` with the
//! other's `A`, which no single adapter had. They make sense for adapters that have a common start, and give a small
//! result at once; `svd` and `cat` are the weighted sum.
//!
//! The result has the scale 1, whatever those of the adapters are. The bias of `B` (`lora_bias`) is combined as the
//! factors are, with the weights `w_i s_i`.
//!
//! # Where PEFT differs
//!
//! - `svd` and the types that end in it work for every kind: a convolution's delta is decomposed as `(out, in/g * k)`, a
//!   grouped one's group by group. PEFT fails for `Conv1d` and `Conv3d`, and for groups.
//! - `cat` keeps the rank rows of a group together; PEFT's result for grouped convolutions is another function. A density
//!   counts what a grouped `A` holds, not the zeros that PEFT's form has between groups.
//! - `lora_bias` is combined; PEFT leaves the new bias as it was drawn. The scale is 1 with `rsLoRA` too, where PEFT
//!   takes over the flag and so multiplies the result by the root of its rank.
//! - Ranks and scales that differ between modules (`rank_pattern`, `alpha_pattern`) are followed and written; PEFT's file
//!   does not load again.
//! - One adapter alone is combined as asked; PEFT takes `linear`, which for one is exact, in place of any type.
//! - There is no `svd_clamp`: what it cuts off depends on the signs that a decomposition happens to choose.
//!   `svd_full_matrices` and `svd_driver` choose between ways to one result.
//! - The seed of `dare` is a setting, and the choice depends on nothing else.
//!
//! The vote of `ties` is PEFT's also where one could wish for another: it counts the values without their weights, so
//! that a negative weight does not turn an adapter's vote.

pub(crate) mod adapters;
mod how;
mod tasks;

pub use adapters::{Combined, CombinedModule, Source, combine_adapters};
pub use how::{Combination, CombinationType, MajoritySign};

use super::blocks::Blocks;
use super::{Factors, GroupMode, Layer};
use crate::random::Random;
use crate::{Error, Result, Subject};

/// One set of factors from those of several adapters of one layer, each with its weight, of either sign.
///
/// The result has the scale 1. It has the grouped form of the adapters when they share one; else it is `per_group`, or
/// `dense` when one of them reaches outside its groups. A `dense` adapter that does not is taken as `per_group`.
///
/// `svd_rank` is the rank of the whole layer. It is rounded up to a multiple of the groups, and down to what the delta
/// can have. `module` names the random numbers of `dare`, beside the seed: the path of the module.
///
/// ```
/// use lowrank::adapter::combine::{Combination, CombinationType, combine};
/// use lowrank::adapter::{Factors, GroupMode, Layer, LayerKind};
///
/// let layer = Layer::new(LayerKind::Conv1d, &[1, 1, 2], 1)?;
/// let adapter = |a: [f32; 2]| Factors::new(layer.clone(), GroupMode::default(), 1, 2.0, a.into(), vec![1.0], None);
/// let (first, second) = (adapter([1.0, 0.0])?, adapter([0.0, 1.0])?);
/// let cat = combine(&[(&first, 1.0), (&second, -0.5)], &Combination::new(CombinationType::Cat), "conv")?;
/// assert_eq!((cat.rank(), cat.scale()), (2, 1.0));
/// assert_eq!(cat.delta()?, [2.0, -1.0]);
/// # Ok::<(), lowrank::Error>(())
/// ```
///
/// # Errors
/// When a setting is wrong ([`Combination::check`]); when there are no adapters, or they sit on different layers; when a
/// type that adds factors finds ranks that differ; when a weight or a value is not finite; when one has the magnitude of
/// `DoRA`.
pub fn combine(adapters: &[(&Factors, f64)], how: &Combination, module: &str) -> Result<Factors> {
    how.check()?;
    check_dora(adapters.iter().any(|(factors, _)| factors.magnitude().is_some()))?;
    let layer = common_layer(adapters)?;
    let forms = common_form(adapters.iter().map(|(factors, _)| *factors))?;
    // Deltas have their scale in them when they are pruned; factors get its root with the weight's.
    let kind = how.combination_type;
    let (scales, weights): (Vec<f64>, Vec<f64>) = adapters
        .iter()
        .map(|(factors, weight)| (f64::from(factors.scale()), *weight))
        .map(|(scale, weight)| if kind.is_svd() { (scale, weight) } else { (1.0, weight * scale) })
        .unzip();
    let parts: Vec<Blocks> = forms.iter().zip(&scales).map(|(factors, scale)| Blocks::of(factors, *scale)).collect();
    let draw = |tensor: &str, index: usize| {
        Random::new(how.seed.unwrap_or(0), &format!("dare {tensor} {module}"), index as u64)
    };
    let blocks = match kind {
        CombinationType::Cat => Blocks::cat(&parts, &weights),
        CombinationType::Svd => Blocks::cat(&parts, &weights).truncate(rank_of_a_block(&parts, how))?,
        _ if kind.is_svd() => {
            let deltas = parts.iter().map(Blocks::delta).collect();
            let delta = tasks::add(deltas, &weights, how, |index| draw("delta", index));
            parts[0].nearest(&delta, rank_of_a_block(&parts, how))?
        }
        _ => add_factors(parts, &weights, how, draw)?,
    };
    let bias = add_biases(&forms, &scales, &weights, how, draw);
    let (a, b, bias) = (narrow(&blocks.a)?, narrow(&blocks.b)?, bias.as_deref().map(narrow).transpose()?);
    Factors::new(layer, forms[0].mode(), blocks.rank * blocks.groups, 1.0, a, b, bias)
}

/// How far `combined` is from the weighted sum of the deltas, as a share of that sum; `None` when the sum is zero.
pub(crate) fn distance(combined: &Factors, adapters: &[(&Factors, f64)]) -> Result<Option<f64>> {
    let forms = common_form(adapters.iter().map(|(factors, _)| *factors).chain([combined]))?;
    let parts: Vec<Blocks> = forms.iter().map(|factors| Blocks::of(factors, factors.scale().into())).collect();
    let mut weights: Vec<f64> = adapters.iter().map(|(_, weight)| -weight).collect();
    let sum = Blocks::cat(&parts[..weights.len()], &weights).norm();
    weights.push(1.0);
    Ok((sum > 0.0).then(|| Blocks::cat(&parts, &weights).norm() / sum))
}

/// Magnitudes are no part of a sum.
pub(super) fn check_dora(dora: bool) -> Result<()> {
    if !dora {
        return Ok(());
    }
    Err(Error::new(Subject::Adapter, "DoRA adapters cannot be combined: their magnitudes do not add up")
        .with_hint("merge it into the base model, and combine what was trained on that"))
}

fn common_layer(adapters: &[(&Factors, f64)]) -> Result<Layer> {
    let Some((first, _)) = adapters.first() else {
        return Err(Error::new(Subject::Adapter, "there is no adapter to combine"));
    };
    for (factors, weight) in adapters {
        if factors.layer() != first.layer() {
            let shown =
                |layer: &Layer| format!("{} {:?}, groups {}", layer.kind(), layer.weight_shape(), layer.groups());
            return Err(Error::new(Subject::Adapter, "adapters for different layers cannot be combined")
                .found(shown(factors.layer()))
                .expected(shown(first.layer())));
        }
        let size = weight * f64::from(factors.scale());
        if !size.is_finite() {
            return Err(
                Error::new(Subject::Adapter, "a weight, or the scale it is multiplied with, is not finite").found(size)
            );
        }
    }
    Ok(first.layer().clone())
}

/// The factors in one grouped form. `shared` ones stay when all are.
fn common_form<'a>(adapters: impl Iterator<Item = &'a Factors> + Clone) -> Result<Vec<Factors>> {
    if adapters.clone().all(|factors| factors.mode() == GroupMode::Shared) {
        return Ok(adapters.cloned().collect());
    }
    match adapters.clone().map(Factors::to_per_group).collect() {
        Ok(forms) => Ok(forms),
        Err(_) => adapters.map(Factors::to_dense).collect(),
    }
}

fn add_factors(
    parts: Vec<Blocks>,
    weights: &[f64],
    how: &Combination,
    draw: impl Fn(&str, usize) -> Random,
) -> Result<Blocks> {
    if parts.iter().any(|part| part.rank != parts[0].rank) {
        let ranks: Vec<String> = parts.iter().map(|part| (part.rank * part.groups).to_string()).collect();
        return Err(Error::new(Subject::Adapter, format!("{} needs adapters of one rank", how.combination_type))
            .found(format!("r = {}", ranks.join(", ")))
            .with_hint("svd, cat, and the types that end in svd take any ranks"));
    }
    let like = Blocks { a: Vec::new(), b: Vec::new(), ..parts[0] };
    let (a, b): (Vec<_>, Vec<_>) = parts.into_iter().map(|part| (part.a, part.b)).unzip();
    // The sign goes to one side, or two negative factors would make a positive product.
    let roots: Vec<f64> = weights.iter().map(|weight| weight.abs().sqrt()).collect();
    let signed: Vec<f64> = weights.iter().map(|weight| weight.abs().sqrt().copysign(*weight)).collect();
    let a = tasks::add(a, &signed, how, |index| draw("lora_A", index));
    let b = tasks::add(b, &roots, how, |index| draw("lora_B", index));
    Ok(Blocks { b, a, ..like })
}

/// The biases of `B`, of those adapters that have one.
fn add_biases(
    forms: &[Factors],
    scales: &[f64],
    weights: &[f64],
    how: &Combination,
    draw: impl Fn(&str, usize) -> Random,
) -> Option<Vec<f64>> {
    let there = forms.iter().zip(scales).zip(weights).filter_map(|((factors, scale), weight)| {
        Some((factors.bias()?.iter().map(|value| scale * f64::from(*value)).collect(), *weight))
    });
    let (biases, weights): (Vec<_>, Vec<_>) = there.unzip();
    (!biases.is_empty()).then(|| tasks::add(biases, &weights, how, |index| draw("lora_B.bias", index)))
}

fn rank_of_a_block(parts: &[Blocks], how: &Combination) -> usize {
    let largest = parts.iter().map(|part| part.rank).max().unwrap_or(1);
    how.svd_rank.map_or(largest, |rank| rank.div_ceil(parts[0].groups))
}

#[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
pub(super) fn narrow(values: &[f64]) -> Result<Vec<f32>> {
    let narrow: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    match narrow.iter().find(|value| !value.is_finite()) {
        None => Ok(narrow),
        Some(value) => Err(Error::new(Subject::Adapter, "the result has values that are not finite")
            .found(value)
            .with_hint("look at the adapters with `lowrank inspect`, and use smaller weights")),
    }
}

#[cfg(test)]
mod tests;
