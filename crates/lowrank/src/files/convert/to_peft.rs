//! From a LyCORIS file, or a directory with forms that are our own, to a directory that PEFT reads.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::adapter_dir::{self, Adapter};
use super::super::checkpoint::Checkpoint;
use super::super::combine_dirs::check_output;
use super::{Converted, ConvertedModule, factors, layer};
use crate::adapter::combine::adapters::float_of;
use crate::adapter::lycoris::{Locon, Named, name_of};
use crate::adapter::rank::set_ranks;
use crate::adapter::state_dict::{ModuleTensors, StateDict};
use crate::adapter::{DoraNorm, Factors, GroupMode, Layer, LayerKind};
use crate::config::{LoraConfig, Patterns};
use crate::error::{Error, Result, Subject};
use crate::float::FloatType;
use crate::suggest::nearest;
use crate::target::first_match;

/// The largest rank that factors of the form `shared` get in PEFT's, `r` times the groups. PEFT runs a convolution with as
/// many outputs beside the layer; `A` has that many rows over all inputs.
pub const DENSE_RANK: usize = 1024;

/// How an adapter becomes one that PEFT reads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToPeft<'a> {
    /// The base model of a LyCORIS file, whose names of modules are ambiguous without.
    pub base: Option<&'a Path>,
    /// The prefix of the modules in a LyCORIS file; without one, the one of
    /// [`PREFIXES`](crate::adapter::lycoris::PREFIXES) that the file has.
    pub prefix: Option<String>,
    /// Groups of convolutions, by a pattern as in `rank_pattern`. Neither a weight nor shared factors tell how many.
    pub groups: Vec<(String, usize)>,
    /// Whether factors that reach outside the groups of a convolution lose what does.
    pub project: bool,
}

/// Converts `input`, a LyCORIS or kohya file or the directory of an adapter, to an adapter that PEFT reads, and writes it to
/// the directory `output`. With `force` an adapter that is there is replaced.
///
/// Factors of the form [`GroupMode::Shared`] become dense ones, whose rank is `r` times the groups; LyCORIS's are of that
/// form wherever [`ToPeft::groups`] says that a convolution has groups. Scales stay what they are; alphas and ranks that
/// differ by module are in `alpha_pattern` and `rank_pattern` by whole path.
///
/// # Errors
/// When `output` exists and may not be replaced, or `input` cannot be read; when a setting has no use for it. All at once: of
/// a LyCORIS file as [`Named::from_tensors`], names that are those of no module of the base, or of several, and shapes that
/// do not fit it; of a directory, convolutions of the form `shared` with groups that are not given; a pattern of
/// [`ToPeft::groups`] that matches nothing; dense factors above [`DENSE_RANK`]; `DoRA` on grouped convolutions with the exact
/// norm, which is not PEFT's.
pub fn convert_to_peft(input: &Path, how: &ToPeft<'_>, output: &Path, force: bool) -> Result<Converted> {
    check_output(output, force)?;
    let (config, state, converted) = if input.is_dir() { from_dir(input, how)? } else { from_file(input, how)? };
    adapter_dir::write(output, &config, &state, None)?;
    Ok(converted)
}

fn from_dir(input: &Path, how: &ToPeft<'_>) -> Result<(LoraConfig, StateDict, Converted)> {
    let given = [how.base.map(|_| "base"), how.prefix.as_ref().map(|_| "prefix")];
    let unused = given.into_iter().flatten().map(|name| {
        Error::new(Subject::Config, format!("`{name}` has no use for an adapter of PEFT's"))
            .at(input.display())
            .with_hint("leave it out: it belongs to LyCORIS files")
    });
    Error::all(unused.collect())?;
    let Adapter { config, mut state, warnings } = adapter_dir::read(input)?;
    check_patterns(&how.groups, &state.modules.keys().collect::<Vec<_>>())?;
    let mut converted = Converted { warnings, ..Converted::default() };
    let (mut errors, mut ranks) = (Vec::new(), Vec::new());
    for (path, module) in &mut state.modules {
        match redone(path, module, &config, how) {
            Ok((tensors, made)) => {
                ranks.push((made.rank, alpha_at(&config, path, &made)?));
                *module = tensors;
                converted.modules.push(made);
            }
            Err(error) => errors.push(error.at(format_args!("module `{path}`"))),
        }
    }
    Error::all(errors)?;
    let mode = if config.group_mode == GroupMode::Shared { GroupMode::default() } else { config.group_mode };
    let mut config = LoraConfig { group_mode: mode, ..config };
    if converted.modules.iter().any(|module| module.rank != module.from) {
        let paths = converted.modules.iter().map(|module| module.path.as_str()).zip(ranks);
        set_ranks(&mut config, &paths.map(|(path, (rank, alpha))| (path, rank, alpha)).collect::<Vec<_>>());
    }
    Ok((config, state, converted))
}

/// The alpha that keeps the scale at the new rank.
fn alpha_at(config: &LoraConfig, path: &str, module: &ConvertedModule) -> Result<f64> {
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    let growth = module.rank as f64 / module.from as f64;
    Ok(config.alpha_for(path)? * if config.use_rslora { growth.sqrt() } else { growth })
}

/// One module of a directory in PEFT's form.
fn redone(
    path: &str,
    tensors: &ModuleTensors,
    config: &LoraConfig,
    how: &ToPeft<'_>,
) -> Result<(ModuleTensors, ConvertedModule)> {
    let layer = grouped(path, layer(tensors)?, config.group_mode == GroupMode::Shared, how)?;
    let (own, dropped) = factors(path, tensors, &layer, config, how.project)?;
    let dense = dense(&own)?;
    let made = made(path, &layer, own.rank(), &dense, dropped);
    let unchanged = own.mode() != GroupMode::Shared && dropped == 0.0;
    let tensors = if unchanged { tensors.clone() } else { ModuleTensors::from_factors(&dense, float_of(&[tensors]))? };
    Ok((tensors, made))
}

/// The layer with the groups that were given. `shared` factors do not tell them.
fn grouped(path: &str, layer: Layer, shared: bool, how: &ToPeft<'_>) -> Result<Layer> {
    if layer.kind().kernel_axes() == 0 {
        return Ok(layer);
    }
    let given = first_match(&how.groups, path)?;
    match given {
        None if shared && layer.groups() == 1 => {
            Err(Error::new(Subject::Adapter, "shared factors do not tell how many groups their convolution has")
                .with_hint("say it with `--groups`, by the end of the path: conv1=4; conv2=1 where it has none"))
        }
        None => Ok(layer),
        Some(groups) if layer.groups() > 1 && layer.groups() != *groups => {
            Err(Error::new(Subject::Adapter, "its factors are for another number of groups")
                .found(layer.groups())
                .expected(groups))
        }
        Some(groups) => Layer::new(layer.kind(), layer.weight_shape(), *groups),
    }
}

/// In PEFT's form, with the identical forward there.
fn dense(factors: &Factors) -> Result<Factors> {
    factors.check_norm(DoraNorm::Peft)?;
    let (groups, rank) = (factors.layer().groups(), factors.rank());
    if factors.mode() == GroupMode::Shared && groups > 1 && rank.saturating_mul(groups) > DENSE_RANK {
        return Err(Error::new(Subject::Adapter, "shared factors are too large in PEFT's dense form")
            .found(format!("r = {rank} times {groups} groups = {}", rank.saturating_mul(groups)))
            .expected(format!("at most {DENSE_RANK}"))
            .with_hint("give PEFT the merged weights: `lowrank merge`"));
    }
    if factors.mode() == GroupMode::Dense { Ok(factors.clone()) } else { factors.to_dense() }
}

fn made(path: &str, layer: &Layer, from: usize, dense: &Factors, dropped: f64) -> ConvertedModule {
    let (kind, groups) = (layer.kind(), layer.groups());
    ConvertedModule { path: path.to_owned(), kind, groups, from, rank: dense.rank(), dropped }
}

fn from_file(input: &Path, how: &ToPeft<'_>) -> Result<(LoraConfig, StateDict, Converted)> {
    let wrong = |problem: &str| Error::new(Subject::Config, problem.to_owned()).at(input.display());
    if how.project {
        return Err(wrong("`project` has no use for a LyCORIS file: nothing in it reaches outside its groups"));
    }
    let file = Checkpoint::open(input)?;
    let tensors = file.names().map(|name| Ok((name.to_owned(), file.read(name)?))).collect::<Result<_>>()?;
    let named = Named::from_tensors(tensors, how.prefix.as_deref()).map_err(|error| error.at(input.display()))?;
    let Some(base) = how.base else {
        return Err(wrong("the names of a LyCORIS file do not tell the paths of the modules, which the base does")
            .with_hint("name the model, a .safetensors file or its folder, with `--base`"));
    };
    let base = Checkpoint::open(base)?;
    let paths = paths(&named, &base)?;
    check_patterns(&how.groups, &paths.iter().map(|(path, _)| path).collect::<Vec<_>>())?;

    let (mut state, mut converted) = (StateDict::default(), Converted::default());
    let (mut errors, mut ranks) = (Vec::new(), Vec::new());
    for (path, locon) in &paths {
        match module(path, locon, &base, how) {
            Ok((tensors, made, alpha)) => {
                ranks.push((path.as_str(), made.rank, alpha));
                state.modules.insert(path.clone(), tensors);
                converted.modules.push(made);
            }
            Err(error) => errors.push(error.at(format_args!("module `{path}`"))),
        }
    }
    let dora = paths.iter().filter(|(_, locon)| locon.is_dora()).count();
    if dora != 0 && dora != paths.len() {
        errors.push(
            Error::new(
                Subject::Adapter,
                "some modules have a magnitude of DoRA, others not: PEFT has it for all or none",
            )
            .found(format!("{dora} of {} modules with `dora_scale`", paths.len()))
            .with_hint("merge it into the base with LyCORIS, and make an adapter of the change with `lowrank extract`"),
        );
    }
    Error::all(errors.into_iter().map(|error| error.at(input.display())).collect())?;
    let mut config = LoraConfig {
        target_modules: Some(Patterns::List(paths.iter().map(|(path, _)| path.clone()).collect())),
        base_model_name_or_path: Some(base.path().display().to_string()),
        use_dora: dora != 0,
        dora_norm: DoraNorm::Peft,
        ..LoraConfig::default()
    };
    set_ranks(&mut config, &ranks);
    converted.left_out = named.left_out;
    Ok((config, state, converted))
}

/// The modules of the base that the names stand for.
fn paths(named: &Named, base: &Checkpoint) -> Result<Vec<(String, Locon)>> {
    let mut by_name = BTreeMap::<String, Vec<&str>>::new();
    for path in base.names().filter_map(|name| name.strip_suffix(".weight")) {
        by_name.entry(name_of(path)).or_default().push(path);
    }
    let (mut paths, mut errors) = (Vec::new(), Vec::new());
    for (name, locon) in &named.modules {
        let found = by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        let error = |problem: &str| {
            Error::new(Subject::Adapter, problem.to_owned()).at(format_args!("module `{}_{name}`", named.prefix))
        };
        match found {
            [path] => paths.push(((*path).to_owned(), locon.clone())),
            [] => errors.push(unknown(error("no module of the base has this name"), name, &by_name)),
            several => errors.push(
                error("several modules of the base have this name")
                    .found(several.join(" and "))
                    .with_hint("rename the keys of the file: which of them is meant, it does not say"),
            ),
        }
    }
    Error::all(errors)?;
    paths.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(paths)
}

/// The error for a name that the base has not, with what it may be there. Nothing is guessed.
fn unknown(error: Error, name: &str, by_name: &BTreeMap<String, Vec<&str>>) -> Error {
    let longer = by_name.iter().find(|(other, _)| other.strip_suffix(name).is_some_and(|rest| rest.ends_with('_')));
    let shorter =
        by_name.iter().find(|(other, _)| name.strip_suffix(other.as_str()).is_some_and(|rest| rest.ends_with('_')));
    let path = |paths: &Vec<&str>| paths.first().copied().unwrap_or_default().to_owned();
    if let Some((_, paths)) = longer {
        return error.with_hint(format!(
            "the base has `{}`: the adapter was trained on the inner model; name that one with `--base`",
            path(paths)
        ));
    }
    if let Some((other, paths)) = shorter {
        let front = name.strip_suffix(other.as_str()).unwrap_or_default();
        return error.with_hint(format!(
            "the base has `{}`: if `{front}` belongs to the prefix, name it with `--prefix`",
            path(paths)
        ));
    }
    match nearest(name, by_name.keys().map(String::as_str)) {
        Some(near) => error.with_hint(format!("the nearest name is `{near}`: is this the adapter's base?")),
        None => error.with_hint("is this the model that the adapter was trained on?"),
    }
}

/// One module of a file in PEFT's form, and its alpha at the new rank.
fn module(
    path: &str,
    locon: &Locon,
    base: &Checkpoint,
    how: &ToPeft<'_>,
) -> Result<(ModuleTensors, ConvertedModule, f64)> {
    let shape = base.get(&format!("{path}.weight")).map(|info| info.shape.as_slice()).unwrap_or_default();
    let kind = match shape.len() {
        2 => LayerKind::Linear,
        3 => LayerKind::Conv1d,
        4 => LayerKind::Conv2d,
        5 => LayerKind::Conv3d,
        _ => {
            return Err(Error::new(Subject::Adapter, "no adapter is for a weight of this shape")
                .found(format!("{shape:?}"))
                .expected("two to five axes"));
        }
    };
    let groups = if kind.kernel_axes() > 0 { *first_match(&how.groups, path)?.unwrap_or(&1) } else { 1 };
    let layer = Layer::new(kind, shape, groups)?;
    let own = locon.factors(&layer)?;
    let dense = dense(&own)?;
    let made = made(path, &layer, own.rank(), &dense, 0.0);
    let float: FloatType = locon.float();
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    let alpha = locon.alpha() * (made.rank as f64 / made.from as f64);
    Ok((ModuleTensors::from_factors(&dense, float)?, made, alpha))
}

/// Every pattern must be that of a module.
fn check_patterns(groups: &[(String, usize)], paths: &[&String]) -> Result<()> {
    let mut errors = Vec::new();
    for pattern in groups {
        let mut any = false;
        for path in paths {
            any |= first_match(std::slice::from_ref(pattern), path)?.is_some();
        }
        if !any {
            let error = Error::new(Subject::Target, format!("`{}` matches no module", pattern.0)).at("groups");
            let ends = paths.iter().flat_map(|path| {
                path.match_indices('.').filter_map(|(dot, _)| path.get(dot + 1..)).chain([path.as_str()])
            });
            errors.push(match nearest(&pattern.0, ends) {
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None => error.with_hint("name convolutions that have an adapter, by path or by the end of it"),
            });
        }
    }
    Error::all(errors)
}
