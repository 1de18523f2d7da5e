//! Extracting an adapter from two checkpoints: a model, and the same after a training.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::adapter_dir;
use super::checkpoint::Checkpoint;
use super::combine_dirs::check_output;
use crate::adapter::extract::{Nearest, extract};
use crate::adapter::rank::{Cut, set_ranks};
use crate::adapter::state_dict::{ModuleTensors, StateDict};
use crate::adapter::tensor::float_type;
use crate::adapter::{GroupMode, Layer, LayerKind};
use crate::config::{Bias, LoraConfig, Patterns};
use crate::error::{Error, Result, Subject};
use crate::float::FloatType;
use crate::suggest::nearest;
use crate::target::first_match;

/// How an adapter is extracted.
#[derive(Debug, Clone, PartialEq)]
pub struct Extraction {
    /// The rank of every module.
    pub cut: Cut,
    /// Only these modules, by path or by the end of their path; all when there are none.
    pub target_modules: Vec<String>,
    /// Groups of convolutions, by a pattern as in `rank_pattern`. No weight tells how many there are: without, an adapter
    /// of a grouped convolution has the form `shared`, which PEFT does not load.
    pub groups: Vec<(String, usize)>,
    /// Whether modules that changed and can take no adapter are saved in full (`modules_to_save`), and so are the biases of
    /// those that take one (`bias = "lora_only"`).
    pub save: bool,
}

/// An adapter, and what the two checkpoints differ by beside it.
#[derive(Debug, Clone)]
pub struct Extracted {
    /// The configuration that goes with [`Self::state`].
    pub config: LoraConfig,
    /// The tensors.
    pub state: StateDict,
    /// The modules that have an adapter, by path.
    pub modules: Vec<ExtractedModule>,
    /// The tensors that are equal.
    pub equal: Vec<String>,
    /// The tensors that differ and are not in the adapter, each with the reason.
    pub left_out: Vec<(String, String)>,
}

/// One extracted module.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtractedModule {
    /// The path of the module.
    pub path: String,
    /// What it was taken for.
    pub kind: LayerKind,
    /// The rank.
    pub rank: usize,
    /// The share of the energy of the change that is kept.
    pub energy: f64,
    /// The Frobenius norm of what is missing, as a share of that of the change.
    pub error: f64,
}

/// Extracts the adapter that makes `tuned` of `base`, as far as one of the rank can, and writes it to `output` when there is
/// one. With `force` an adapter that is there is replaced. One tensor of each checkpoint is in memory at a time.
///
/// Checkpoints name no classes. Weights of three to five axes are convolutions. One of two is transformers' `Conv1D` when
/// its bias has the length of the second, an embedding when it has no bias and is called as embeddings are (`embed_tokens`,
/// `wte`, ..), else a linear layer. A square weight is what the others are.
///
/// `progress` is told each tensor, how many are done, and how many there are.
///
/// # Errors
/// When `output` exists and may not be replaced; when a checkpoint cannot be read; when a number of `how` is wrong, or one of
/// its names matches no module; when a change is not finite; when nothing is left to extract.
pub fn extract_dir(
    base: &Path,
    tuned: &Path,
    how: &Extraction,
    output: Option<(&Path, bool)>,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<Extracted> {
    how.cut.check()?;
    if let Some((output, force)) = output {
        check_output(output, force)?;
    }
    let pair = Pair { base: Checkpoint::open(base)?, tuned: Checkpoint::open(tuned)? };
    pair.check_targets(&how.target_modules)?;
    let changes = pair.changes(how, progress)?;
    let mut extracted = pair.extract(changes, how, progress)?;
    if how.save {
        pair.save(&mut extracted)?;
    }
    if extracted.modules.is_empty() && extracted.state.saved.is_empty() {
        return Err(Error::new(Subject::Model, "there is nothing to extract")
            .at(tuned.display())
            .found(format!("{} equal tensors, {} left out", extracted.equal.len(), extracted.left_out.len()))
            .expected("a weight that differs from the base's")
            .with_hint("is this the model after training? `lowrank diff` lists what differs"));
    }
    extracted.config.base_model_name_or_path = Some(base.display().to_string());
    if let Some((output, _)) = output {
        adapter_dir::write(output, &extracted.config, &extracted.state, None)?;
    }
    Ok(extracted)
}

struct Pair {
    base: Checkpoint,
    tuned: Checkpoint,
}

/// What differs.
#[derive(Default)]
struct Changes {
    equal: Vec<String>,
    /// Modules whose weight an adapter can change.
    weights: Vec<String>,
    left_out: Vec<(String, String)>,
}

impl Pair {
    fn check_targets(&self, names: &[String]) -> Result<()> {
        let modules = || self.base.names().filter_map(|name| name.strip_suffix(".weight"));
        let missing = names.iter().filter(|name| !modules().any(|module| ends_with(module, name)));
        let errors = missing.map(|name| {
            let error = Error::new(Subject::Target, format!("`{name}` matches no module")).at("target_modules");
            let ends = modules()
                .flat_map(|path| path.match_indices('.').filter_map(|(dot, _)| path.get(dot + 1..)).chain([path]));
            match nearest(name, ends) {
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None => error.with_hint("name modules by path, or by the end of it: q_proj,v_proj"),
            }
        });
        Error::all(errors.collect())
    }

    fn changes(&self, how: &Extraction, progress: &mut dyn FnMut(&str, usize, usize)) -> Result<Changes> {
        let names: BTreeSet<&str> = self.base.names().chain(self.tuned.names()).collect();
        let mut changes = Changes::default();
        for (done, name) in names.iter().enumerate() {
            progress(name, done, names.len());
            match self.difference(name, how)? {
                Difference::None => changes.equal.push((*name).to_owned()),
                Difference::Weight(module) => changes.weights.push(module),
                Difference::Other(reason) => changes.left_out.push(((*name).to_owned(), reason)),
            }
        }
        Ok(changes)
    }

    fn difference(&self, name: &str, how: &Extraction) -> Result<Difference> {
        let other = |reason: &str| Ok(Difference::Other(reason.to_owned()));
        let (base, tuned) = match (self.base.get(name), self.tuned.get(name)) {
            (Some(base), Some(tuned)) => (base, tuned),
            (Some(_), None) => return other("only in the base"),
            (None, _) => return other("only in the tuned model"),
        };
        if base.shape != tuned.shape {
            return other(&format!("of another shape: {:?} in the base, {:?} tuned", base.shape, tuned.shape));
        }
        let (first, second) = (self.base.read(name)?, self.tuned.read(name)?);
        if first == second || first.values().is_some_and(|values| Some(values) == second.values()) {
            return Ok(Difference::None);
        }
        let Some(module) = name.strip_suffix(".weight") else { return other("no weight of a layer") };
        if float_type(base.dtype).is_none() || float_type(tuned.dtype).is_none() {
            return other("not of a floating-point type");
        }
        if !(2..=5).contains(&base.shape.len()) || base.shape.contains(&0) {
            return other("no adapter has a weight of this shape");
        }
        if !how.target_modules.is_empty() && !how.target_modules.iter().any(|target| ends_with(module, target)) {
            return other("not in target_modules");
        }
        Ok(Difference::Weight(module.to_owned()))
    }

    fn extract(
        &self,
        mut changes: Changes,
        how: &Extraction,
        progress: &mut dyn FnMut(&str, usize, usize),
    ) -> Result<Extracted> {
        let kinds = self.kinds(&changes.weights, how)?;
        let (mut modules, mut state, mut errors) = (Vec::new(), StateDict::default(), Vec::new());
        for (done, path) in changes.weights.iter().enumerate() {
            progress(path, done, changes.weights.len());
            let Some(kind) = kinds[done] else {
                let reason = "square, in a model with both ways of storing a linear weight: which one cannot be told";
                changes.left_out.push((format!("{path}.weight"), reason.to_owned()));
                continue;
            };
            match self.module(path, kind, how) {
                Ok(Nearest { factors, energy, error }) => {
                    state.modules.insert(path.clone(), ModuleTensors::from_factors(&factors, FloatType::F32)?);
                    modules.push(ExtractedModule { path: path.clone(), kind, rank: factors.rank(), energy, error });
                }
                Err(error) => errors.push(error.at(format_args!("module `{path}`"))),
            }
        }
        Error::all(errors)?;
        let mut config = LoraConfig {
            target_modules: Some(Patterns::List(state.modules.keys().cloned().collect())),
            fan_in_fan_out: modules.iter().any(|module| module.kind == LayerKind::Conv1D),
            conv_transpose: {
                let transposed = modules.iter().filter(|module| module.kind.is_conv_transpose());
                transposed.map(|module| module.path.clone()).collect()
            },
            ..LoraConfig::default()
        };
        #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
        let ranks = modules.iter().map(|module| (module.path.as_str(), module.rank, module.rank as f64));
        set_ranks(&mut config, &ranks.collect::<Vec<_>>());
        Ok(Extracted { config, state, modules, equal: changes.equal, left_out: changes.left_out })
    }

    fn module(&self, path: &str, kind: LayerKind, how: &Extraction) -> Result<Nearest> {
        let name = format!("{path}.weight");
        let (base, tuned) = (self.base.read(&name)?, self.tuned.read(&name)?);
        let groups = if kind.kernel_axes() > 0 { *first_match(&how.groups, path)?.unwrap_or(&1) } else { 1 };
        let layer = Layer::new(kind, base.shape(), groups)?;
        let [base, tuned] = [base, tuned].map(|tensor| tensor.values().unwrap_or_default());
        let delta = tuned.iter().zip(&base).map(|(tuned, base)| f64::from(*tuned) - f64::from(*base));
        extract(&delta.collect::<Vec<_>>(), &layer, GroupMode::PerGroup, how.cut)
    }

    /// What the modules are; none for a square weight that may be either.
    fn kinds(&self, paths: &[String], how: &Extraction) -> Result<Vec<Option<LayerKind>>> {
        let told: Vec<Option<LayerKind>> = paths.iter().map(|path| self.kind(path, how)).collect::<Result<_>>()?;
        let has = |kind| told.contains(&Some(kind));
        let square = match (has(LayerKind::Linear), has(LayerKind::Conv1D)) {
            (true, true) => None,
            (false, true) => Some(LayerKind::Conv1D),
            (_, false) => Some(LayerKind::Linear),
        };
        Ok(told.into_iter().map(|kind| kind.or(square)).collect())
    }

    /// What a module is; none for a square weight. The bias of a transposed convolution is of its second axis.
    fn kind(&self, path: &str, how: &Extraction) -> Result<Option<LayerKind>> {
        let Some(info) = self.base.get(&format!("{path}.weight")) else { return Ok(None) };
        let bias = self.base.get(&format!("{path}.bias")).map(|info| info.shape.as_slice());
        let groups = *first_match(&how.groups, path)?.unwrap_or(&1);
        let transposed =
            |rows: usize, columns: usize| bias == Some(&[columns.saturating_mul(groups)]) && bias != Some(&[rows]);
        Ok(match info.shape.as_slice() {
            [_, _] if bias.is_none() && is_embedding(path) => Some(LayerKind::Embedding),
            [rows, columns] if rows == columns => None,
            [_, columns] if bias == Some(&[*columns]) => Some(LayerKind::Conv1D),
            [rows, columns, _] if transposed(*rows, *columns) => Some(LayerKind::ConvTranspose1d),
            [rows, columns, _, _] if transposed(*rows, *columns) => Some(LayerKind::ConvTranspose2d),
            [_, _, _] => Some(LayerKind::Conv1d),
            [_, _, _, _] => Some(LayerKind::Conv2d),
            [_, _, _, _, _] => Some(LayerKind::Conv3d),
            _ => Some(LayerKind::Linear),
        })
    }

    /// Moves what can be saved in full from `left_out` into the state.
    fn save(&self, extracted: &mut Extracted) -> Result<()> {
        let mut names = BTreeSet::new();
        let mut left_out = Vec::new();
        for (name, reason) in std::mem::take(&mut extracted.left_out) {
            let same =
                self.base.get(&name).zip(self.tuned.get(&name)).is_some_and(|(base, tuned)| base.shape == tuned.shape);
            match name.rsplit_once('.') {
                Some((module, "bias")) if same && extracted.state.modules.contains_key(module) => {
                    extracted.config.bias = Bias::LoraOnly;
                }
                Some((module, _)) if same && !extracted.state.modules.contains_key(module) => {
                    names.insert(module.to_owned());
                }
                _ => left_out.push((name, reason)),
            }
        }
        extracted.left_out = left_out;
        let mut saved = BTreeMap::new();
        for name in self.tuned.names() {
            let Some((module, parameter)) = name.rsplit_once('.') else { continue };
            let bias = parameter == "bias" && extracted.config.bias == Bias::LoraOnly;
            let of_adapter = bias && extracted.state.modules.contains_key(module);
            if of_adapter || names.contains(module) && self.base.get(name).is_some() {
                saved.insert(name.to_owned(), self.tuned.read(name)?);
            }
        }
        extracted.equal.retain(|name| !saved.contains_key(name));
        extracted.state.saved = saved;
        extracted.config.modules_to_save = (!names.is_empty()).then(|| names.into_iter().collect());
        Ok(())
    }
}

/// How two tensors of one name differ.
enum Difference {
    None,
    /// In the weight of this module, as an adapter's layer has one.
    Weight(String),
    /// Otherwise: why no adapter can have it.
    Other(String),
}

/// Whether a path is `name`, or ends with it after a dot.
fn ends_with(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether a module is called as embeddings are.
fn is_embedding(path: &str) -> bool {
    const ENDS: [&str; 8] =
        ["embed_tokens", "embed_positions", "embedding", "embeddings", "emb", "embed", "wte", "wpe"];
    let last = path.rsplit('.').next().unwrap_or(path);
    last == "shared" || ENDS.iter().any(|end| last.ends_with(end))
}
