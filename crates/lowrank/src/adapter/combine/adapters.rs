//! Whole adapters: every module, what is saved beside the factors, and the configuration of the result.

use std::collections::{BTreeMap, BTreeSet};

use super::{Combination, combine, distance};
use crate::adapter::rank::set_ranks;
use crate::adapter::state_dict::{ModuleTensors, StateDict};
use crate::adapter::tensor::Tensor;
use crate::adapter::{Factors, GroupMode, Layer, LayerKind};
use crate::config::{Bias, InitLoraWeights, LoraConfig, Patterns};
use crate::float::FloatType;
use crate::target::{Pattern, Role};
use crate::{Error, Result, Subject};

/// One of the adapters to combine.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// What errors and warnings call it: its folder, say.
    pub name: &'a str,
    /// Its configuration.
    pub config: &'a LoraConfig,
    /// Its tensors.
    pub state: &'a StateDict,
    /// Its weight, of either sign.
    pub weight: f64,
}

/// Several adapters in one.
#[derive(Debug, Clone)]
pub struct Combined {
    /// The configuration that goes with [`Self::state`].
    pub config: LoraConfig,
    /// The tensors.
    pub state: StateDict,
    /// What became of each module, by path.
    pub modules: Vec<CombinedModule>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// What became of one module.
#[derive(Debug, Clone, PartialEq)]
pub struct CombinedModule {
    /// The path of the module in the base model.
    pub path: String,
    /// How many of the adapters have it.
    pub adapters: usize,
    /// The rank of the result.
    pub rank: usize,
    /// The Frobenius norm of what the result's delta differs by from the weighted sum of the deltas, as a share of that of
    /// the sum; `None` when the sum is zero.
    pub distance: Option<f64>,
}

/// Combines adapters for one base model, module by module, each as [`combine`] does. A module that some of them do not
/// have is made of those that do. `progress` is told each module, how many are done, and how many there are.
///
/// Files name no classes: a linear layer and transformers' `Conv1D` are the same here. Tensors stay in their type when it
/// is that of all adapters, else they become `f32`.
///
/// The configuration is the first adapter's with these changes. `r` is the most frequent rank, `lora_alpha` equal to it;
/// other ranks are in `rank_pattern` and `alpha_pattern` by whole path, so that every scale is 1, and `use_rslora` is off.
/// `target_modules` are all that any adapter has: the lists together, or paths where the adapters choose by pattern or
/// leave modules out. `init_lora_weights` is true: the factors need nothing but the base model.
///
/// What adapters save in full (`modules_to_save`, `bias`) is no delta and has no weight: it is taken as it is when one
/// adapter has it, or all have the same.
///
/// # Errors
/// When a setting is wrong, or there are no adapters; when two save different values of one parameter, or one saves a
/// module that another adapts; when one has trained rows (`trainable_token_indices`), or `lora_bias` and another an embedding, which PEFT refuses in one adapter; for
/// `DoRA`, whose magnitudes do not add. All modules at once: when the adapters' shapes differ, and as [`combine`].
pub fn combine_adapters(
    sources: &[Source<'_>],
    how: &Combination,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<Combined> {
    how.check()?;
    let Some(first) = sources.first() else {
        return Err(Error::new(Subject::Adapter, "there is no adapter to combine"));
    };
    check_dora(sources)?;
    check_tokens(sources)?;
    let mut state = StateDict { saved: saved(sources)?, copies: copies(sources), ..StateDict::default() };
    let (mut modules, mut errors) = (Vec::new(), Vec::new());
    let paths: BTreeSet<&String> = sources.iter().flat_map(|source| source.state.modules.keys()).collect();
    for (done, path) in paths.iter().enumerate() {
        progress(path, done, paths.len());
        match module(path, sources, how) {
            Ok((tensors, module)) => {
                state.modules.insert((*path).clone(), tensors);
                modules.push(module);
            }
            Err(error) => errors.push(error.at(format_args!("module `{path}`"))),
        }
    }
    Error::all(errors)?;
    let config = configuration(first.config, sources, &state)?;
    if config.lora_bias {
        fill_biases(&mut state, sources)?;
    }
    Ok(Combined { warnings: warnings(sources), config, state, modules })
}

fn check_dora(sources: &[Source<'_>]) -> Result<()> {
    let checked = sources.iter().map(|source| super::check_dora(source.config.use_dora).map_err(|e| e.at(source.name)));
    Error::all(checked.filter_map(Result::err).collect())
}

fn check_tokens(sources: &[Source<'_>]) -> Result<()> {
    let rows = sources.iter().flat_map(|source| source.state.tokens.keys().map(move |module| (source.name, module)));
    let errors = rows.map(|(name, module)| {
        Error::new(Subject::Adapter, "trained rows are no delta, and cannot be combined")
            .at(format_args!("{name}: trained rows of `{module}`"))
            .with_hint("merge one adapter into the base, and the other into the result")
    });
    Error::all(errors.collect())
}

/// The factors of one module.
fn module(path: &str, sources: &[Source<'_>], how: &Combination) -> Result<(ModuleTensors, CombinedModule)> {
    let there: Vec<(&Source<'_>, &ModuleTensors)> =
        sources.iter().filter_map(|source| Some((source, source.state.modules.get(path)?))).collect();
    let tensors: Vec<&ModuleTensors> = there.iter().map(|(_, tensors)| *tensors).collect();
    let layer = layer_of(&tensors)?;
    let factors = there.iter().map(|(source, tensors)| {
        let scale = source.config.scaling_for(source.state.owner(path))?;
        tensors
            .factors(&layer, scale, source.config.group_mode, source.config.dora_norm)
            .map_err(|error| error.at(source.name).with_hint("adapters are combined for one base model"))
    });
    let factors: Vec<Factors> = factors.collect::<Result<_>>()?;
    let weighted: Vec<(&Factors, f64)> =
        factors.iter().zip(&there).map(|(factors, (source, _))| (factors, source.weight)).collect();
    let combined = combine(&weighted, how, path)?;
    let report = CombinedModule {
        path: path.to_owned(),
        adapters: factors.len(),
        rank: combined.rank(),
        distance: distance(&combined, &weighted)?,
    };
    Ok((ModuleTensors::from_factors(&combined, float_of(&tensors))?, report))
}

/// The layer that the tensors are for, as far as they tell: a linear one may be either kind, which is all the same here.
///
/// `B` of a grouped convolution has `r/g` columns, and the adapter with the most groups knows how many there are; another
/// may be `shared`.
pub(crate) fn layer_of(tensors: &[&ModuleTensors]) -> Result<Layer> {
    let groups = |tensors: &ModuleTensors| tensors.rank() / tensors.b.shape().get(1).copied().unwrap_or(1).max(1);
    let Some(telling) = tensors.iter().max_by_key(|tensors| groups(tensors)) else {
        return Err(Error::new(Subject::Adapter, "no adapter has it"));
    };
    if tensors.iter().any(|tensors| tensors.embedding != telling.embedding) {
        return Err(Error::new(Subject::Adapter, "an embedding in one adapter, another layer in the next")
            .with_hint("adapters are combined for one base model"));
    }
    let (groups, a, outputs) = (groups(telling), telling.a.shape(), telling.b.shape()[0]);
    let kind = match a.len() {
        _ if telling.embedding => LayerKind::Embedding,
        3 => LayerKind::Conv1d,
        4 => LayerKind::Conv2d,
        5 => LayerKind::Conv3d,
        _ => LayerKind::Linear,
    };
    let shape = if kind.is_transposed() { vec![a[1], outputs] } else { [&[outputs, a[1] / groups], &a[2..]].concat() };
    Layer::new(kind, &shape, groups)
}

/// The type of all factors, or `f32`.
pub(crate) fn float_of(tensors: &[&ModuleTensors]) -> FloatType {
    let mut floats = tensors.iter().flat_map(|tensors| tensors.parts()).filter_map(|(_, tensor)| tensor.float());
    let first = floats.next().unwrap_or(FloatType::F32);
    if floats.all(|float| float == first) { first } else { FloatType::F32 }
}

/// What PEFT writes again of what is saved in full.
fn copies(sources: &[Source<'_>]) -> BTreeMap<String, Tensor> {
    let all = sources.iter().rev().flat_map(|source| &source.state.copies);
    all.map(|(path, tensor)| (path.clone(), tensor.clone())).collect()
}

/// What the adapters save in full.
fn saved(sources: &[Source<'_>]) -> Result<BTreeMap<String, Tensor>> {
    let (mut saved, mut errors) = (BTreeMap::new(), Vec::new());
    for source in sources {
        for (parameter, tensor) in &source.state.saved {
            let (owner, first) = saved.entry(parameter.clone()).or_insert((source.name, tensor));
            if *first != tensor {
                let error =
                    Error::new(Subject::Adapter, "two adapters save different values, which cannot be combined")
                        .at(format_args!("tensor `{parameter}`"))
                        .found(format!("one in {owner} and one in {}", source.name))
                        .with_hint("only deltas add up: train the adapters without modules_to_save and bias");
                errors.push(error);
            }
        }
    }
    Error::all(errors)?;
    Ok(saved.into_iter().map(|(parameter, (_, tensor))| (parameter, tensor.clone())).collect())
}

fn configuration(first: &LoraConfig, sources: &[Source<'_>], state: &StateDict) -> Result<LoraConfig> {
    let of = |found: fn(&LoraConfig) -> bool| sources.iter().any(|source| found(source.config));
    let default = LoraConfig::default();
    let mut config = LoraConfig {
        peft_version: None,
        use_rslora: false,
        fan_in_fan_out: of(|config| config.fan_in_fan_out),
        lora_bias: of(|config| config.lora_bias),
        bias: match (of(|config| config.bias == Bias::All), of(|config| config.bias == Bias::LoraOnly)) {
            (true, _) => Bias::All,
            (false, true) => Bias::LoraOnly,
            (false, false) => Bias::None,
        },
        modules_to_save: modules_to_save(sources, state)?,
        init_lora_weights: InitLoraWeights::True,
        loftq_config: default.loftq_config,
        eva_config: None,
        corda_config: None,
        lora_ga_config: None,
        group_mode: group_mode(sources),
        conv_transpose: conv_transpose(sources)?,
        ..first.clone()
    };
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    let ranks = state.modules.iter().map(|(path, module)| (path.as_str(), module.rank(), module.rank() as f64));
    set_ranks(&mut config, &ranks.collect::<Vec<_>>());
    set_targets(&mut config, sources, state);
    Ok(config)
}

/// The names of all adapters; none may be of a module that another adapts, because PEFT would save it and not adapt it.
fn modules_to_save(sources: &[Source<'_>], state: &StateDict) -> Result<Option<Vec<String>>> {
    let names = union(sources.iter().flat_map(|source| source.config.modules_to_save.iter().flatten()));
    for name in &names {
        let pattern = Pattern::new(name, Role::Saved)?;
        for path in state.modules.keys() {
            if pattern.matches(path)? {
                return Err(Error::new(Subject::Adapter, "one adapter saves the module in full, another adapts it")
                    .at(format_args!("module `{path}`"))
                    .found(format!("`{name}` in modules_to_save"))
                    .with_hint("train both adapters the same way"));
            }
        }
    }
    Ok((!names.is_empty()).then_some(names))
}

/// That of all adapters. Files have what is `per_group` in PEFT's form, and what is `shared` as it is.
fn group_mode(sources: &[Source<'_>]) -> GroupMode {
    let mode = sources[0].config.group_mode;
    if sources.iter().all(|source| source.config.group_mode == mode) { mode } else { GroupMode::default() }
}

/// Those of all adapters, which have to agree.
fn conv_transpose(sources: &[Source<'_>]) -> Result<Vec<String>> {
    let all = union(sources.iter().flat_map(|source| &source.config.conv_transpose));
    for (path, source) in all.iter().flat_map(|path| sources.iter().map(move |source| (path, source))) {
        if source.state.modules.contains_key(path) && !source.config.conv_transpose.contains(path) {
            return Err(Error::new(
                Subject::Adapter,
                "a transposed convolution in one adapter, another layer in the next",
            )
            .at(format_args!("module `{path}`"))
            .with_hint("adapters are combined for one base model"));
        }
    }
    Ok(all)
}

/// What chooses the modules: kept when all adapters choose alike.
fn set_targets(config: &mut LoraConfig, sources: &[Source<'_>], state: &StateDict) {
    // PEFT holds lists of names as sets, and writes them in any order.
    let sorted = |patterns: &Option<Patterns>| match patterns {
        Some(Patterns::List(names)) => Some(Patterns::List(union(names.iter().collect::<BTreeSet<_>>()))),
        other => other.clone(),
    };
    let choice = |config: &LoraConfig| {
        let (layers, pattern) = (config.layers_to_transform.clone(), config.layers_pattern.clone());
        (sorted(&config.target_modules), sorted(&config.exclude_modules), layers, pattern)
    };
    if sources.iter().all(|source| choice(source.config) == choice(config)) {
        return;
    }
    let lists = sources.iter().map(|source| match &source.config.target_modules {
        Some(Patterns::List(names)) if source.config.exclude_modules.is_none() => {
            source.config.layers_to_transform.is_none().then_some(names)
        }
        _ => None,
    });
    let names = match lists.collect::<Option<Vec<_>>>() {
        Some(lists) => union(lists.into_iter().flatten()),
        None => state.modules.keys().cloned().collect(),
    };
    config.target_modules = Some(Patterns::List(names));
    (config.exclude_modules, config.layers_to_transform, config.layers_pattern) = (None, None, None);
}

/// Every name once, where it is first.
fn union<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.into_iter().filter(|name| seen.insert(*name)).cloned().collect()
}

/// Zeros where no adapter has a bias, because the configuration says that every module has one.
fn fill_biases(state: &mut StateDict, sources: &[Source<'_>]) -> Result<()> {
    for (path, module) in &mut state.modules {
        if module.embedding {
            let with: Vec<&str> =
                sources.iter().filter(|source| source.config.lora_bias).map(|source| source.name).collect();
            return Err(Error::new(Subject::Adapter, "lora_bias is not possible on an Embedding")
                .at(format_args!("module `{path}`"))
                .found(format!("lora_bias in {}", with.join(", ")))
                .with_hint("train the adapters without lora_bias, or without the embedding"));
        }
        if module.bias.is_none() {
            let outputs = module.b.shape()[0];
            let float = module.b.float().unwrap_or(FloatType::F32);
            module.bias = Some(Tensor::from_values(float, vec![outputs], &vec![0.0; outputs])?);
        }
    }
    Ok(())
}

fn warnings(sources: &[Source<'_>]) -> Vec<String> {
    let base = |source: &Source<'_>| source.config.base_model_name_or_path.clone().filter(|name| !name.is_empty());
    let bases = sources.iter().filter_map(|source| Some((source.name, base(source)?))).collect::<Vec<_>>();
    let mut warnings = Vec::new();
    if let [(first, base), ..] = bases.as_slice()
        && let Some((other, another)) = bases.iter().find(|(_, another)| another != base)
    {
        warnings.push(format!("the adapters name different base models: `{base}` in {first}, `{another}` in {other}"));
    }
    for source in sources {
        let saved = source.state.saved.len();
        if saved > 0 && source.weight.total_cmp(&1.0).is_ne() {
            warnings.push(format!(
                "{}: tensors saved in full ({saved}) are taken as they are, without the weight",
                source.name
            ));
        }
    }
    warnings
}
