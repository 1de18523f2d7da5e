//! Merging an adapter into a model's own files, one tensor at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use super::adapter_dir::{self, Adapter};
use super::atomic::{AtomicFile, parent};
use super::checkpoint::{Checkpoint, Shard};
use super::copy_model::{check_replaceable, copy_rest};
use super::header::TensorInfo;
use super::limits;
use super::merge_layout::{Layout, Output, Part};
use super::merge_plan::{Change, plan};
use super::new_dir::{NewDir, recover};
use super::read::exists;
use super::shards::INDEX;
use super::storage::{Disk, Storage};
use super::weight_norm::{Normed, narrowed};
use super::writer::Writer;
use crate::adapter::merge::RowMerge;
use crate::adapter::tensor::{Tensor, float_type};
use crate::adapter::tokens::replace;
use crate::adapter::{MergeReport, merge, merge_bias};
use crate::error::{Error, Result, Subject};

/// How far a merge is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The tensor that was written last.
    pub tensor: &'a str,
    /// Bytes of tensors written.
    pub done: u64,
    /// Bytes of tensors in all.
    pub total: u64,
}

/// What becomes of weight normalisation, `w = g · v / |v|`, in a merged model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightNorm {
    /// Layers that have it keep it, under the names they have: `g = |w|` along the axis that it is on, and `v = w`.
    #[default]
    Keep,
    /// All layers have plain weights, as after `PyTorch`'s `remove_weight_norm`.
    Fold,
}

impl WeightNorm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Keep, Self::Fold];

    /// The name that the command has for it: `keep`, `fold`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Fold => "fold",
        }
    }
}

/// How a merge is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct MergeOptions {
    /// Whether an output that exists is replaced.
    pub force: bool,
    /// What becomes of weight normalisation.
    pub weight_norm: WeightNorm,
}

/// What a merge did.
#[derive(Debug, Clone, Default)]
pub struct MergeSummary {
    /// The tensors that got a delta, each with what its check measured.
    pub merged: Vec<(String, MergeReport)>,
    /// The tensors that were replaced by those the adapter saved.
    pub replaced: Vec<String>,
    /// The weights that were folded and have no adapter.
    pub folded: Vec<String>,
    /// The tensors of which some rows were replaced (`trainable_token_indices`), and how many.
    pub rows: Vec<(String, usize)>,
    /// How many tensors are as they were.
    pub unchanged: usize,
    /// Files of the base folder that are not in the output: weights in other formats, adapters, hidden entries.
    pub left_out: Vec<String>,
    /// What is unusual about the adapter's configuration.
    pub warnings: Vec<String>,
}

/// Merges the adapter in the directory `adapter` into the model `base` and writes the result to `output`.
///
/// A file becomes a file. A folder becomes a folder with the same shards and everything else copied that belongs to the
/// model. Weights keep their type; tensors that the adapter saved in full take that of the tensor they replace. With
/// `force` an existing output is replaced, which may be `base` itself. The output appears under its name when it is
/// complete. Each merged weight is checked against the unmerged one before it is written.
///
/// Weights are read, merged and written some rows at a time: besides the adapter, a few megabytes are in memory, and any
/// tensor that the adapter saved in full. A weight with weight normalisation is folded as a whole and merged then; the
/// adapter adds to the weight, which PEFT's merge into such a layer does not. It is written with normalisation again;
/// [`merge_checkpoint_to`] has the choice.
///
/// # Errors
/// When `base` or `adapter` cannot be read; when they do not belong together (all tensors concerned are named, before
/// anything is written); when `output` exists and may not be replaced, or lies inside `base`; when a merged value is
/// not finite or a merge fails its check; when the output cannot be written. The output is then what it was.
pub fn merge_checkpoint(
    base: &Path,
    adapter: &Path,
    output: &Path,
    force: bool,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<MergeSummary> {
    let options = MergeOptions { force, ..MergeOptions::default() };
    merge_checkpoint_to(&Disk, base, adapter, output, options, progress)
}

/// [`merge_checkpoint()`], on any [`Storage`] and with all options.
///
/// # Errors
/// As [`merge_checkpoint()`].
pub fn merge_checkpoint_to(
    storage: &dyn Storage,
    base: &Path,
    adapter: &Path,
    output: &Path,
    options: MergeOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<MergeSummary> {
    recover(storage, output)?;
    let model = Checkpoint::open(base)?;
    let adapter = adapter_dir::read(adapter)?;
    let changes = plan(&model, &adapter)?;
    check_output(model.path(), output, options.force)?;
    let layout = Layout::new(&model, options.weight_norm, |weight| changes.contains_key(weight))?;
    let summary = MergeSummary { warnings: adapter.warnings.clone(), ..MergeSummary::default() };
    let total = layout.bytes();
    let mut merging = Merging { storage, model: &model, adapter, changes, layout, progress, done: 0, total, summary };
    if model.path().is_dir() {
        merging.folder(output)?;
    } else if let Some(shard) = model.shards().first() {
        merging.file(shard, output)?.publish()?;
    }
    Ok(merging.summary)
}

/// Whether `output` may be written at all, before the work begins.
fn check_output(base: &Path, output: &Path, force: bool) -> Result<()> {
    let refuse = |problem: &str| Error::new(Subject::File, problem.to_owned()).at(output.display());
    if exists(output) {
        if !force {
            return Err(
                refuse("the output is there already").with_hint("choose another name, or replace it with `--force`")
            );
        }
        if output.is_dir() != base.is_dir() {
            return Err(refuse("the output is of another kind than the base").found(kind(output)).expected(kind(base)));
        }
        if base.is_dir() {
            let links = std::fs::symlink_metadata(output).is_ok_and(|data| data.is_symlink());
            if links {
                return Err(refuse("the output is a link").with_hint("name the folder it leads to"));
            }
        }
    }
    if !base.is_dir() && output.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(refuse("not the name of a safetensors file")
            .expected("a name ending in .safetensors, as the base is a file"));
    }
    let (inner, outer) = (parent(output).canonicalize(), base.canonicalize());
    if let (Ok(inner), Ok(outer)) = (inner, outer)
        && base.is_dir()
        && inner.starts_with(outer)
    {
        return Err(refuse("the output lies inside the base model").with_hint("choose a folder beside it"));
    }
    Ok(())
}

fn kind(path: &Path) -> &'static str {
    if path.is_dir() { "a folder" } else { "a file" }
}

struct Merging<'a> {
    storage: &'a dyn Storage,
    model: &'a Checkpoint,
    adapter: Adapter,
    changes: BTreeMap<String, Change>,
    layout: Layout,
    progress: &'a mut dyn FnMut(Progress<'_>),
    done: u64,
    total: u64,
    summary: MergeSummary,
}

impl<'a> Merging<'a> {
    fn folder(&mut self, output: &Path) -> Result<()> {
        let folder = NewDir::create(self.storage, output)?;
        let model = self.model;
        let mut weights = BTreeSet::new();
        for shard in model.shards() {
            let name = shard.path().file_name().unwrap_or_default();
            weights.insert(name.to_string_lossy().into_owned());
            self.file(shard, &folder.path().join(name))?.publish()?;
        }
        // Otherwise the index is copied with the rest: names and sizes are the same.
        if self.layout.renames() && exists(&model.path().join(INDEX)) {
            weights.insert(INDEX.to_owned());
            let text = self.layout.index(model)?;
            let mut file = AtomicFile::create(self.storage, &folder.path().join(INDEX), text.len() as u64)?;
            file.write(text.as_bytes())?;
            file.sync()?;
            file.publish()?;
        }
        self.summary.left_out = copy_rest(self.storage, model.path(), folder.path(), &weights)?;
        if exists(output) {
            check_replaceable(output, folder.path())?;
        }
        folder.publish()
    }

    /// Writes one file, complete but not yet under its name.
    fn file(&mut self, shard: &Shard, target: &Path) -> Result<AtomicFile<'a>> {
        let (model, storage) = (self.model, self.storage);
        let mut outputs: BTreeMap<String, Output> =
            shard.tensors().iter().filter_map(|name| self.layout.output(model, name)).collect();
        let plan = outputs.iter().map(|(name, out)| (name.clone(), out.dtype, out.shape.clone())).collect();
        let mut writer = Writer::create(storage, target, plan, shard.metadata())?;
        for (name, length) in writer.order().to_vec() {
            if let Some((normed, part)) = outputs.remove(&name).and_then(|output| output.normed) {
                self.normed(&name, &normed, part, &mut writer)?;
            } else if let Some(change) = self.changes.remove(&name) {
                self.changed(&name, &change, &mut writer)?;
            } else {
                copy_tensor(model, &name, length, &mut writer)?;
                self.summary.unchanged += 1;
            }
            self.done += length;
            (self.progress)(Progress { tensor: &name, done: self.done, total: self.total });
        }
        writer.finish()
    }

    /// Writes a part of a weight with weight normalisation, or the folded weight, as the adapter changes it.
    fn normed(&mut self, name: &str, normed: &Normed, part: Part, writer: &mut Writer<'_>) -> Result<()> {
        let weight = normed.weight();
        let here = |error: Error| error.at(format_args!("tensor `{weight}`"));
        let (g, v) = (self.present(&normed.g)?, self.present(&normed.v)?);
        let mut folded = normed.fold(&g, &v).map_err(here)?;
        let change = self.changes.get(&weight).and_then(|change| change.module.as_ref());
        if let Some((module, layer)) = change {
            let factors = self.adapter.state.factors(module, layer, &self.adapter.config)?;
            let merged = merge(folded.data(), normed.float(), &[&factors]).map_err(here)?;
            if part != Part::Length {
                self.summary.merged.push((weight.clone(), *merged.report()));
            }
            folded = Tensor::new(folded.dtype(), folded.shape().to_vec(), merged.into_weight())?;
        } else if part == Part::Folded {
            self.summary.folded.push(weight.clone());
        }
        let saved = self.adapter.state.saved.keys().filter(|saved| part.stands_for(normed, saved));
        self.summary.replaced.extend(saved.cloned());
        let written = match part {
            Part::Length => normed.lengths_of(&folded, g.dtype()),
            Part::Direction => normed.direction_of(&folded, &v),
            Part::Folded => narrowed(&folded, normed.dtype),
        };
        writer.write(name, written.map_err(here)?.data())
    }

    /// A tensor of the base, or the one that the adapter saved in its place.
    fn present(&self, name: &str) -> Result<Tensor> {
        match self.adapter.state.saved.get(name) {
            Some(saved) => cast(saved.clone(), self.model, name),
            None => self.model.read(name),
        }
    }

    /// Writes a tensor as the adapter changes it.
    fn changed(&mut self, name: &str, change: &Change, writer: &mut Writer<'_>) -> Result<()> {
        let here = |error: Error| error.at(format_args!("tensor `{name}`"));
        let mut base = Base::Stored(self.model);
        if change.replaced
            && let Some(saved) = self.adapter.state.saved.remove(name)
        {
            base = Base::Saved(cast(saved, self.model, name).map_err(here)?);
            self.summary.replaced.push(name.to_owned());
        }
        if let Some(module) = &change.tokens {
            return self.rows(name, module, &base, writer).map_err(here);
        }
        let Some((module, layer)) = &change.module else { return writer.write(name, &base.whole(name)?) };
        let factors = self.adapter.state.factors(module, layer, &self.adapter.config)?;
        let Some(float) = self.model.get(name).and_then(|info| float_type(info.dtype)) else {
            return Err(here(Error::new(Subject::Merge, "not of a floating-point type")));
        };
        let report = if matches!(name.strip_prefix(module.as_str()), Some(".bias" | "_bias")) {
            let Some(merged) = merge_bias(Some(&base.whole(name)?), float, &[&factors]).map_err(here)? else {
                return Err(here(Error::new(Subject::Merge, "the adapter has no bias to add")));
            };
            writer.write(name, merged.weight())?;
            *merged.report()
        } else {
            let mut merging = RowMerge::new(float, &[&factors]).map_err(here)?;
            merge_rows(&base, name, &mut merging, writer).map_err(here)?
        };
        self.summary.merged.push((name.to_owned(), report));
        Ok(())
    }

    /// Writes a tensor with the rows that the adapter trained of `module` in it.
    fn rows(&mut self, name: &str, module: &str, base: &Base<'_>, writer: &mut Writer<'_>) -> Result<()> {
        let indices = self.adapter.config.trainable_token_indices.as_ref().and_then(|tokens| tokens.of(module));
        let (Some(info), Some(indices)) = (self.model.get(name), indices.map(<[usize]>::to_vec)) else {
            return Err(Error::new(Subject::Merge, "not in `trainable_token_indices`"));
        };
        let (Some(rows), &[height, width]) = (self.adapter.state.tokens.remove(module), info.shape.as_slice()) else {
            return Err(Error::new(Subject::Merge, "there are no rows for it"));
        };
        let rows = cast_to(rows, info, vec![indices.len(), width])?;
        let row_bytes = rows.data().len() / indices.len().max(1);
        let step = (limits::MERGE_BYTES / row_bytes.max(1)).max(1);
        let mut buffer = Vec::new();
        for first in (0..height).step_by(step) {
            let last = (first + step).min(height);
            base.read(name, (first * row_bytes) as u64..(last * row_bytes) as u64, &mut buffer)?;
            replace(&mut buffer, first, row_bytes, &indices, rows.data());
            writer.write(name, &buffer)?;
        }
        self.summary.rows.push((name.to_owned(), indices.len()));
        Ok(())
    }
}

/// Where the values of a tensor come from before the adapter is added.
enum Base<'a> {
    Stored(&'a Checkpoint),
    Saved(Tensor),
}

impl Base<'_> {
    /// The `bytes` of the tensor `name`, in `buffer`.
    fn read(&self, name: &str, bytes: Range<u64>, buffer: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Stored(model) => model.read_bytes(name, bytes, buffer),
            Self::Saved(tensor) => {
                buffer.clear();
                let range = usize::try_from(bytes.start).ok().zip(usize::try_from(bytes.end).ok());
                buffer.extend_from_slice(
                    range.and_then(|(start, end)| tensor.data().get(start..end)).unwrap_or_default(),
                );
                Ok(())
            }
        }
    }

    fn whole(&self, name: &str) -> Result<Vec<u8>> {
        match self {
            Self::Stored(model) => Ok(model.read(name)?.into_data()),
            Self::Saved(tensor) => Ok(tensor.data().to_vec()),
        }
    }
}

fn merge_rows(base: &Base<'_>, name: &str, merging: &mut RowMerge, writer: &mut Writer<'_>) -> Result<MergeReport> {
    let (rows, row_bytes) = (merging.rows(), merging.row_bytes());
    let step = (limits::MERGE_BYTES / row_bytes.max(1)).max(1);
    let (mut report, mut buffer) = (MergeReport::default(), Vec::new());
    let read = |first: usize, buffer: &mut Vec<u8>| {
        let last = (first + step).min(rows);
        base.read(name, (first * row_bytes) as u64..(last * row_bytes) as u64, buffer)
    };
    if merging.measures() {
        for first in (0..rows).step_by(step) {
            read(first, &mut buffer)?;
            merging.measure(first, &buffer)?;
        }
    }
    for first in (0..rows).step_by(step) {
        read(first, &mut buffer)?;
        let (merged, part) = merging.merge(first, &buffer)?;
        writer.write(name, &merged)?;
        report = report.widen(part);
    }
    Ok(report)
}

/// A tensor that the adapter saved, in the type of the one it replaces.
fn cast(saved: Tensor, model: &Checkpoint, name: &str) -> Result<Tensor> {
    let Some(info) = model.get(name) else { return finite(saved) };
    cast_to(saved, info, info.shape.clone())
}

fn cast_to(saved: Tensor, info: &TensorInfo, shape: Vec<usize>) -> Result<Tensor> {
    if info.dtype == saved.dtype() {
        return finite(saved);
    }
    let (Some(values), Some(float)) = (saved.values(), float_type(info.dtype)) else {
        return Err(Error::new(Subject::Merge, "the saved tensor has another type than the base's")
            .found(saved.dtype())
            .expected(info.dtype));
    };
    finite(Tensor::from_values(float, shape, &values)?)
}

fn finite(tensor: Tensor) -> Result<Tensor> {
    match tensor.non_finite() {
        0 => Ok(tensor),
        count => Err(Error::new(Subject::Merge, format!("the saved tensor is not finite in {}", tensor.dtype()))
            .found(format!("{count} NaN or infinite values"))
            .expected("none")),
    }
}

fn copy_tensor(model: &Checkpoint, name: &str, length: u64, writer: &mut Writer<'_>) -> Result<()> {
    let mut buffer = Vec::new();
    let mut position = 0;
    while position < length {
        let end = (position + limits::BLOCK_BYTES as u64).min(length);
        model.read_bytes(name, position..end, &mut buffer)?;
        writer.write(name, &buffer)?;
        position = end;
    }
    Ok(())
}
