//! An adapter of another rank: the nearest one below, the same one above.

use super::blocks::Blocks;
use super::combine::adapters::{float_of, layer_of};
use super::combine::narrow;
use super::extract::Nearest;
use super::rank::{Cut, lost, set_ranks};
use super::state_dict::{ModuleTensors, StateDict};
use super::{Factors, GroupMode};
use crate::config::LoraConfig;
use crate::init::{Init, initialise};
use crate::random::Random;
use crate::{Error, Result, Subject};

/// `factors` at another rank, with the same scale and bias, and in the same form but for `dense` ones that stay within
/// their groups, which become `per_group`.
///
/// Below their rank, `B A` is cut by its singular value decomposition, which needs no more memory than the factors, group
/// by group. Above it the factors are kept as they are: what is added starts as a new adapter does, without effect and ready
/// to be trained; `module` names its random numbers. A cut takes no more rank than the weight can use.
///
/// # Errors
/// When `cut` is wrong, when a value is not finite, and with the magnitude of `DoRA`, which belongs to one delta.
pub fn resize(factors: &Factors, cut: Cut, module: &str) -> Result<Nearest> {
    cut.check()?;
    check_dora(factors.magnitude().is_some())?;
    let compact = (factors.mode() == GroupMode::Dense).then(|| factors.to_per_group().ok()).flatten();
    let factors = compact.as_ref().unwrap_or(factors);
    let blocks = Blocks::of(factors, 1.0);
    if let Cut::Rank(rank) = cut
        && rank.div_ceil(blocks.groups) >= blocks.rank
    {
        let added = rank.div_ceil(blocks.groups) - blocks.rank;
        return Ok(Nearest { factors: grow(factors, blocks, added, module)?, energy: 1.0, error: 0.0 });
    }
    let svds = blocks.decompose()?;
    let rank = cut.of_group(&svds);
    if rank >= blocks.rank {
        return Ok(Nearest { factors: factors.clone(), energy: 1.0, error: 0.0 });
    }
    let lost = lost(&svds, rank);
    Ok(Nearest { factors: with(factors, &blocks.cut(&svds, rank))?, energy: 1.0 - lost, error: lost.sqrt() })
}

fn grow(factors: &Factors, blocks: Blocks, added: usize, module: &str) -> Result<Factors> {
    if added == 0 {
        return Ok(factors.clone());
    }
    let (layer, mode) = (factors.layer(), factors.mode());
    let rank = if mode == GroupMode::Shared { added } else { added * layer.groups() };
    let mut random = Random::new(0, &format!("resize {module}"), 0);
    let fresh = initialise(layer, mode, rank, factors.scale(), false, Init::Default, &mut random)?;
    with(factors, &Blocks::cat(&[blocks, Blocks::of(&fresh, 1.0)], &[1.0, 1.0]))
}

/// `blocks` as factors that are otherwise as `factors`.
fn with(factors: &Factors, blocks: &Blocks) -> Result<Factors> {
    let (a, b) = (narrow(&blocks.a)?, narrow(&blocks.b)?);
    let rank = blocks.rank * blocks.groups;
    let bias = factors.bias().map(<[f32]>::to_vec);
    Factors::new(factors.layer().clone(), factors.mode(), rank, factors.scale(), a, b, bias)
}

fn check_dora(dora: bool) -> Result<()> {
    if !dora {
        return Ok(());
    }
    Err(Error::new(Subject::Adapter, "a DoRA adapter cannot be resized: its magnitudes belong to its delta")
        .with_hint("merge it into the base model, and extract an adapter of the rank you want"))
}

/// What became of one module.
#[derive(Debug, Clone, PartialEq)]
pub struct ResizedModule {
    /// The path of the module in the base model.
    pub path: String,
    /// The rank it had.
    pub from: usize,
    /// The rank it has.
    pub rank: usize,
    /// The share of the delta's energy that is kept.
    pub energy: f64,
    /// The Frobenius norm of what is missing, as a share of the delta's.
    pub error: f64,
}

/// A whole adapter at another rank.
#[derive(Debug, Clone)]
pub struct Resized {
    /// The configuration that goes with [`Self::state`].
    pub config: LoraConfig,
    /// The tensors.
    pub state: StateDict,
    /// What became of each module, by path.
    pub modules: Vec<ResizedModule>,
}

/// Every module of an adapter at another rank, each as [`resize`] does; what is saved in full stays.
///
/// The scale of every module stays what it is: alphas change with the ranks, with `use_rslora` by their root. `r` and
/// `lora_alpha` are the most frequent ones, others are in `rank_pattern` and `alpha_pattern` by whole path.
///
/// # Errors
/// When `cut` is wrong; for `DoRA`, whose magnitudes belong to one delta. All modules at once: as [`resize`].
pub fn resize_adapter(config: &LoraConfig, state: &StateDict, cut: Cut) -> Result<Resized> {
    cut.check()?;
    check_dora(config.use_dora)?;
    let mut resized = Resized { config: config.clone(), state: state.clone(), modules: Vec::new() };
    let (mut ranks, mut errors) = (Vec::new(), Vec::new());
    for (path, tensors) in &state.modules {
        let cut = alike(config, state, path, cut)?;
        match resize_module(config, (path, state.owner(path)), tensors, cut) {
            Ok((tensors, module, alpha)) => {
                ranks.push((path.as_str(), module.rank, alpha));
                resized.modules.push(module);
                resized.state.modules.insert(path.clone(), tensors);
            }
            Err(error) => errors.push(error.at(format_args!("module `{path}`"))),
        }
    }
    Error::all(errors)?;
    set_ranks(&mut resized.config, &ranks);
    Ok(resized)
}

/// Both projections of an attention have one rank: the larger of those that the cut gives.
fn alike(config: &LoraConfig, state: &StateDict, path: &str, cut: Cut) -> Result<Cut> {
    let owner = state.owner(path);
    let projections: Vec<_> = state.modules.iter().filter(|(other, _)| state.owner(other) == owner).collect();
    if projections.len() < 2 {
        return Ok(cut);
    }
    let rank =
        |(path, tensors): (&String, &ModuleTensors)| Ok(resize_module(config, (path, owner), tensors, cut)?.1.rank);
    let ranks = projections.into_iter().map(rank).collect::<Result<Vec<_>>>()?;
    Ok(ranks.into_iter().max().map_or(cut, Cut::Rank))
}

/// Of the module at `path`, which the configuration means by `named`.
fn resize_module(
    config: &LoraConfig,
    (path, named): (&str, &str),
    tensors: &ModuleTensors,
    cut: Cut,
) -> Result<(ModuleTensors, ResizedModule, f64)> {
    let layer = layer_of(&[tensors])?;
    let factors = tensors.factors(&layer, config.scaling_for(named)?, config.group_mode, config.dora_norm)?;
    let Nearest { factors: resized, energy, error } = resize(&factors, cut, path)?;
    let (from, rank, alpha) = (factors.rank(), resized.rank(), config.alpha_for(named)?);
    let module = ResizedModule { path: path.to_owned(), from, rank, energy, error };
    if rank == from {
        return Ok((tensors.clone(), module, alpha));
    }
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    let ratio = rank as f64 / from as f64;
    let alpha = alpha * if config.use_rslora { ratio.sqrt() } else { ratio };
    Ok((ModuleTensors::from_factors(&resized, float_of(&[tensors]))?, module, alpha))
}

#[cfg(test)]
mod tests;
