//! From PEFT's directory to a LyCORIS file.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::adapter_dir::{self, Adapter};
use super::super::checkpoint::Checkpoint;
use super::super::merge_plan::{plan, weight, weight_of_module};
use super::super::read::exists;
use super::super::storage::Disk;
use super::super::writer;
use super::{Converted, ConvertedModule, factors, layer};
use crate::adapter::LayerKind;
use crate::adapter::combine::adapters::float_of;
use crate::adapter::infer::infer_layer;
use crate::adapter::lycoris::{Locon, PREFIXES, name_of};
use crate::adapter::state_dict::{ModuleTensors, StateDict};
use crate::adapter::tensor::Tensor;
use crate::config::LoraConfig;
use crate::error::{Error, Result, Subject};

/// How an adapter becomes a LyCORIS file.
#[derive(Debug, Clone, PartialEq)]
pub struct ToLycoris<'a> {
    /// What stands before a module's path: `lycoris`, or for kohya's tools `lora_unet`, `lora_te`, ..
    pub prefix: String,
    /// The base model, if the adapter is to be checked against it: PEFT's file does not say which linear layers are
    /// transformers' `Conv1D`, which LyCORIS has no adapters for.
    pub base: Option<&'a Path>,
    /// Whether factors that reach outside the groups of a convolution lose what does.
    pub project: bool,
}

impl Default for ToLycoris<'_> {
    fn default() -> Self {
        Self { prefix: PREFIXES[0].to_owned(), base: None, project: false }
    }
}

/// Converts the adapter in the directory `adapter` and writes it to the file `output`. With `force` a file that is there is
/// replaced.
///
/// The scale of every module is in its `alpha`, that of `rsLoRA` too. Factors of grouped convolutions become
/// [`GroupMode::Shared`](crate::adapter::GroupMode::Shared), the one form that LyCORIS has, at the same rank. The metadata
/// names rank, alpha and algorithm as kohya's scripts do.
///
/// # Errors
/// When `output` exists and may not be replaced, or is not named as a safetensors file; when the adapter cannot be read, or
/// does not fit `base`. All at once: what LyCORIS has no place for, by name (embeddings, transformers' `Conv1D`, `lora_bias`,
/// parameters that are saved in full, PEFT's `DoRA` on grouped convolutions), factors that reach outside their groups, and
/// modules whose names would be the same.
pub fn convert_to_lycoris(adapter: &Path, how: &ToLycoris<'_>, output: &Path, force: bool) -> Result<Converted> {
    check_output(output, force)?;
    let adapter = adapter_dir::read(adapter)?;
    let kinds = Kinds::of(&adapter, how.base)?;
    let mut errors = vec![unplaced(&adapter)];
    let (mut converted, mut tensors) = (Converted::default(), BTreeMap::new());
    let mut paths = BTreeMap::<String, &String>::new();
    for (path, module) in &adapter.state.modules {
        let name = format!("{}_{}", how.prefix.trim_end_matches('_'), name_of(path));
        if let Some(other) = paths.insert(name.clone(), path) {
            let error = Error::new(Subject::Adapter, "two modules have one name in a LyCORIS file")
                .at(format_args!("module `{path}`"))
                .found(format!("`{name}`, which is `{other}` too"));
            errors.push(Err(error));
        }
        match kinds.check(path, module).and_then(|()| one(path, &name, module, &adapter.config, how.project)) {
            Ok((module, own)) => {
                converted.modules.push(module);
                tensors.extend(own);
            }
            Err(error) => errors.push(Err(error.at(format_args!("module `{path}`")))),
        }
    }
    Error::all(errors.into_iter().filter_map(Result::err).flat_map(Error::into_parts).collect())?;
    check_finite(&tensors)?;
    let metadata = metadata(&adapter.config);
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    writer::complete_with(&Disk, output, named, &metadata)?.publish()?;
    converted.warnings = adapter.warnings;
    Ok(converted)
}

/// The tensors of one module.
fn one(
    path: &str,
    name: &str,
    module: &ModuleTensors,
    config: &LoraConfig,
    project: bool,
) -> Result<(ConvertedModule, BTreeMap<String, Tensor>)> {
    let layer = layer(module)?;
    let (factors, dropped) = factors(path, module, &layer, config, project)?;
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    let growth = if config.use_rslora { (factors.rank() as f64).sqrt() } else { 1.0 };
    let locon = Locon::from_factors(&factors, config.alpha_for(path)? * growth, float_of(&[module]))?;
    let (kind, groups, rank) = (layer.kind(), layer.groups(), factors.rank());
    let made = ConvertedModule { path: path.to_owned(), kind, groups, from: rank, rank, dropped };
    Ok((made, locon.into_tensors(name)?))
}

/// What an adapter has beside its factors, for which LyCORIS has no place.
fn unplaced(Adapter { state, .. }: &Adapter) -> Result<()> {
    let StateDict { saved, tokens, .. } = state;
    let refuse = |name: &String, what: &str| {
        Error::new(Subject::Adapter, format!("{what} has no place in a LyCORIS file"))
            .at(format_args!("tensor `{name}`"))
            .with_hint("merge the adapter into its base: `lowrank merge`")
    };
    let saved = saved.keys().map(|name| refuse(name, "a parameter that is saved in full"));
    Error::all(saved.chain(tokens.keys().map(|name| refuse(name, "a row that was trained"))).collect())
}

/// What is known of the modules' kinds beside the shapes.
enum Kinds {
    /// A base that the adapter fits.
    Base(Checkpoint, Box<LoraConfig>),
    /// The configuration's word, whether there is a transformers' `Conv1D`.
    Word(bool),
}

impl Kinds {
    fn of(adapter: &Adapter, base: Option<&Path>) -> Result<Self> {
        let Some(base) = base else { return Ok(Self::Word(adapter.config.fan_in_fan_out)) };
        let base = Checkpoint::open(base)?;
        plan(&base, adapter)?;
        Ok(Self::Base(base, Box::new(adapter.config.clone())))
    }

    fn check(&self, path: &str, module: &ModuleTensors) -> Result<()> {
        let conv1d = || Error::new(Subject::Adapter, "LyCORIS has no adapter for Conv1D layers");
        match self {
            Self::Word(true) if module.a.shape().len() == 2 && !module.embedding => Err(conv1d()
                .found("`fan_in_fan_out` true")
                .with_hint("name the base with `--base`: its weights tell which modules are plain linear layers")),
            Self::Word(_) => Ok(()),
            Self::Base(base, config) => {
                let shape = weight(base, &weight_of_module(base, path))?.map(|(_, shape)| shape).unwrap_or_default();
                match infer_layer(&shape, module, path, config)?.kind() {
                    LayerKind::Conv1D => Err(conv1d().with_hint("merge the adapter into its base: `lowrank merge`")),
                    _ => Ok(()),
                }
            }
        }
    }
}

fn check_finite(tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let broken = tensors.iter().filter(|(_, tensor)| tensor.non_finite() > 0).map(|(name, tensor)| {
        Error::new(Subject::Adapter, "values that are not finite")
            .at(format_args!("tensor `{name}`"))
            .found(format!("{} NaN or infinite", tensor.non_finite()))
            .expected("none")
    });
    Error::all(broken.collect())
}

/// What kohya's scripts write of a network, as far as a PEFT adapter knows it.
fn metadata(config: &LoraConfig) -> BTreeMap<String, String> {
    let mut metadata = writer::pytorch();
    metadata.insert("ss_network_module".into(), "lycoris.kohya".into());
    metadata.insert("ss_network_args".into(), "{\"algo\": \"locon\"}".into());
    metadata.insert("ss_network_dim".into(), config.r.to_string());
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    let growth = if config.use_rslora { (config.r as f64).sqrt() } else { 1.0 };
    metadata.insert("ss_network_alpha".into(), (config.lora_alpha * growth).to_string());
    metadata
}

fn check_output(output: &Path, force: bool) -> Result<()> {
    let refuse = |problem: &str| Error::new(Subject::File, problem.to_owned()).at(output.display());
    if output.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(refuse("not the name of a safetensors file").expected("a name ending in .safetensors"));
    }
    if exists(output) && (!force || output.is_dir()) {
        return Err(
            refuse("the output is there already").with_hint("choose another name, or replace it with `--force`")
        );
    }
    Ok(())
}
