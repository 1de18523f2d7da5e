//! Which modules get an adapter, at which rank and scale: PEFT's matching rules, held to account.
//!
//! A module is targeted exactly when PEFT 0.21.2 would target it. Where PEFT lets a name or a pattern that does nothing
//! pass in silence, or with a warning, [`resolve`] says so: as an error, with the nearest names, for what would have
//! given a module an adapter or a rank, and as a warning for what would have taken one away.

mod hint;
mod layers;
mod names;
mod pattern;
#[cfg(test)]
mod peft_cases;
mod python;
mod rank;
mod rules;
mod saved;
mod survey;
#[cfg(test)]
mod tests;
mod tokens;

pub(crate) use pattern::{Pattern, Role, check_length};

use crate::adapter::{GroupMode, Layer, LayerKind};
use crate::config::{LoraConfig, Patterns};
use crate::{Error, Result};
use rules::Rules;
use survey::Survey;

/// A module of a model: every one that has a path, whether it can be adapted or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleInfo {
    /// Its path, `encoder.layers.0.fc1`. The model itself has an empty one and is never targeted.
    pub path: String,
    /// Its class, as PyTorch calls it: `Conv1d`, `ReLU`, `ModuleList`.
    pub class: String,
    /// What an adapter needs to know of it; `None` when it cannot be adapted.
    pub layer: Option<Layer>,
}

/// A module that gets an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The module's path.
    pub path: String,
    /// Its layer.
    pub layer: Layer,
    /// The entry of `target_modules` that chose it.
    pub pattern: String,
    /// The rank, of `rank_pattern` or `r`.
    pub rank: usize,
    /// The alpha, of `alpha_pattern` or `lora_alpha`.
    pub alpha: f64,
    /// `alpha / rank`, or `alpha / sqrt(rank)` with `use_rslora`.
    pub scale: f32,
    /// The form of the factors on a grouped convolution.
    pub mode: GroupMode,
}

/// The class of an attention with one weight for the projections of all its inputs. An adapter on it is one on that weight,
/// `in_proj_weight`, and one on the module `out_proj` in it.
pub(crate) const ATTENTION: &str = "MultiheadAttention";

/// What a configuration does to a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution {
    /// The modules that get an adapter, in the order of the model.
    pub targets: Vec<Target>,
    /// The paths of the modules that train in full and are saved; none is inside another.
    pub modules_to_save: Vec<String>,
    /// The modules of which single rows train, each with the rows.
    pub token_indices: Vec<(String, Vec<usize>)>,
    /// What a saved configuration has to say for `target_modules`: the configured value, but the paths of the targets
    /// in place of a word such as `all-conv`, which PEFT would take for a pattern.
    pub target_modules: Patterns,
    /// What is probably not meant, though it can be done.
    pub warnings: Vec<String>,
}

/// The modules of a model that `config` targets and saves. `modules` has them all, in the order of the model.
///
/// - A string in `target_modules` must match the whole path (`re.fullmatch`). `all-linear` stands for every `Linear`
///   and `Conv1D`, `all-conv` for every `Conv1d`, `Conv2d` and `Conv3d`, `all-layers` for all that can be adapted,
///   transposed convolutions too, for which PEFT has no adapters. The
///   output layer counts with the others: PEFT leaves it out of `all-linear` in transformers' own models; here, name it
///   in `exclude_modules`.
/// - A name in a list matches the path it is equal to, and every path that ends with it behind a dot.
///   `layers_to_transform` restricts the latter only.
/// - A `MultiheadAttention` is adapted with its output projection, which has its rank and alpha. `all-linear` has the latter
///   alone, as in PEFT.
/// - `exclude_modules` matches in the same ways. Modules in `modules_to_save`, and all inside them, get no adapter.
/// - A name in `modules_to_save` matches every path that ends with it, with or without a dot before.
///   Tasks add their heads: `SEQ_CLS` and `TOKEN_CLS` `classifier` and `score`, `QUESTION_ANS` `qa_outputs`.
/// - `trainable_token_indices` are rows of the embeddings whose path ends with a name, with or without a dot before; a list
///   without a name is for `embed_tokens`, or for the model's only embedding.
/// - `rank_pattern` and `alpha_pattern` give the value of the first key that matches, as [`LoraConfig::rank_for`] has it.
///
/// `config` is a valid one: see [`LoraConfig::validate`].
///
/// # Errors
/// All of these at once: a pattern, a name or a layer number that matches nothing, with the nearest names; a target
/// that cannot be adapted; a rank that the groups of a convolution do not divide; a module that would be adapted and
/// saved in full; no target at all. Alone: a pattern that cannot be compiled, or takes too long.
pub fn resolve(config: &LoraConfig, modules: &[ModuleInfo]) -> Result<Resolution> {
    let rules = Rules::new(config)?;
    let modules: Vec<_> = modules.iter().filter(|module| !module.path.is_empty()).collect();
    let mut findings = Findings::default();
    let survey = Survey::of(config, &modules, &rules)?;
    survey.report(config, &modules, &mut findings);
    let modules_to_save = saved::modules(config, &modules, &survey.targets, &mut findings);
    let targets = rank::targets(config, &survey.targets, &mut findings)?;
    let token_indices = tokens::modules(config, &modules, &survey.targets, &modules_to_save, &mut findings);
    let target_modules = survey.target_modules(config, &mut findings);
    Error::all(findings.errors)?;
    Ok(Resolution { targets, modules_to_save, token_indices, target_modules, warnings: findings.warnings })
}

/// The value of the first key that matches `path`, of `rank_pattern` or `alpha_pattern`.
pub(crate) fn first_match<'a, T>(patterns: &'a [(String, T)], path: &str) -> Result<Option<&'a T>> {
    for (key, value) in patterns {
        if Pattern::new(key, Role::Key)?.matches(path)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// What has been found wrong, or odd.
#[derive(Default)]
struct Findings {
    errors: Vec<Error>,
    warnings: Vec<String>,
}

/// The layers that take an adapter, for messages.
fn adaptable() -> String {
    use LayerKind::{Conv1D, Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, Embedding, Linear};
    let kinds = [Linear, Conv1D, Embedding, Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d];
    kinds.map(|kind| kind.to_string()).join(", ")
}
