//! Checkpoints that survive a kill: everything a run needs to go on bit by bit, in a folder that is there whole or not
//! at all.
//!
//! `checkpoints/step-00000042/` holds the vectors as safetensors files and, written last, a manifest with their digests
//! and its own. The folder is filled under a temporary name, renamed, and its name made durable. No file points to the
//! newest checkpoint: it is found by looking at all of them and believing the digests. A checkpoint is never
//! overwritten; saving the same step once more makes `step-00000042-1`.

use std::collections::BTreeMap;
use std::iter::once;
use std::path::{Path, PathBuf};

use lowrank::files::new_dir::NewDir;
use lowrank::files::storage::{Disk, Storage};
use lowrank::files::{atomic, create_dir, exists, list};
use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};

use super::early_stopping::EarlyStopping;
use super::gradient::non_finite;
use super::log::LogLine;
use super::optim::{OptimizerState, ParamSlot};
use crate::tasks::Evaluation;

mod manifest;
mod vectors;

pub use manifest::sha256;
pub(super) use manifest::sha256_of;
use manifest::{MANIFEST, Manifest};

/// The folder of the checkpoints in a run's folder.
pub const CHECKPOINTS: &str = "checkpoints";

/// Complete checkpoints that are kept: the newest, and one more in case it is damaged.
const KEEP: usize = 2;

/// Where a run is: all of a checkpoint but its vectors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps of the schedule that are done, skipped ones included.
    pub step: u64,
    /// The epoch the next batch belongs to, counted from 0.
    pub epoch: u64,
    /// Batches of that epoch that are done.
    pub batch: u64,
    /// The seed all random numbers of the run come from.
    pub seed: u64,
    /// [`sha256`] of the run's configuration: a run goes on only under the configuration it began with.
    pub config_digest: String,
    /// The trained parameters, in the order of the vectors.
    pub slots: Vec<ParamSlot>,
    /// The best evaluation so far and how long it has not been beaten.
    pub early_stopping: EarlyStopping,
    /// The evaluation before the first step.
    pub baseline: Option<Evaluation>,
    /// Counts that outlive an interruption, such as `skipped_steps`.
    pub counters: BTreeMap<String, u64>,
    /// The log lines of the evaluations so far.
    pub history: Vec<LogLine>,
    /// Seconds of training so far, interruptions left out.
    pub seconds: f64,
}

/// Everything a run needs to go on as if it had never stopped.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checkpoint {
    /// Where the run is.
    pub progress: Progress,
    /// The trained parameters, one behind the other.
    pub params: Vec<f32>,
    /// What the optimiser remembers.
    pub optimizer: OptimizerState,
    /// The parameters of the best evaluation so far, unless they are `params`.
    pub best_params: Option<Vec<f32>>,
    /// What belongs to the adapter and does not train, one behind the other: it was computed from the base, and another
    /// processor may compute other digits.
    pub frozen: Vec<f32>,
}

/// The newest complete checkpoint of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Latest {
    /// Its folder.
    pub path: PathBuf,
    /// What it holds.
    pub checkpoint: Checkpoint,
    /// The newer ones that were passed over, each with the reason.
    pub warnings: Vec<String>,
}

impl Checkpoint {
    /// Saves into the folder `dir`, which is created if it is missing, and returns the checkpoint's own folder. Once this
    /// returns, neither a kill nor a loss of power takes it away. Older checkpoints are then removed until two
    /// complete ones are left, and so is what killed runs left behind.
    ///
    /// # Errors
    /// `Subject::Diverged` when a value is not finite; `Subject::Model` when a vector does not fit the slots;
    /// `Subject::File` when the checkpoint cannot be written. What was saved before is unharmed.
    pub fn save(&self, dir: &Path) -> Result<PathBuf> {
        if !exists(dir) {
            create_dir(dir)?;
            let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Disk.sync_dir(above).map_err(|error| Error::io(dir, "create the folder", error))?;
        }
        self.save_on(&Disk, dir)
    }

    /// [`Checkpoint::save`] into a folder that exists, on any [`Storage`].
    ///
    /// # Errors
    /// As there.
    pub fn save_on(&self, storage: &dyn Storage, dir: &Path) -> Result<PathBuf> {
        self.check()?;
        let target = free_name(dir, self.progress.step);
        let folder = NewDir::create(storage, &target)?;
        let mut manifest = Manifest::new(self);
        for (name, bytes) in vectors::write(self)? {
            atomic::write_to(storage, &folder.path().join(name), &bytes)?;
            manifest.add(name, &bytes);
        }
        atomic::write_to(storage, &folder.path().join(MANIFEST), manifest.seal()?.as_bytes())?;
        folder.publish()?;
        remove_old(storage, dir, &target);
        Ok(target)
    }

    /// Reads the checkpoint in the folder `path`.
    ///
    /// # Errors
    /// `Subject::File` when a file is missing, is not, to the bit, what was written, or is of another version of the
    /// format.
    pub fn load(path: &Path) -> Result<Self> {
        let manifest = Manifest::open(&path.join(MANIFEST))?;
        let mut checkpoint = vectors::read(path, &manifest)?;
        checkpoint.progress = manifest.into_progress();
        checkpoint.check().map_err(|error| error.at(path.display()))?;
        Ok(checkpoint)
    }

    /// The newest checkpoint in `dir` that is complete; none when there are none at all, or no `dir`. Damaged ones are
    /// passed over with a warning.
    ///
    /// # Errors
    /// When there are checkpoints and none is complete: every reason, at once.
    pub fn latest(dir: &Path) -> Result<Option<Latest>> {
        if !exists(dir) {
            return Ok(None);
        }
        let mut errors = Vec::new();
        for (step, path) in newest_first(dir)? {
            match Self::load(&path) {
                Ok(checkpoint) if checkpoint.progress.step == step => {
                    let warnings = errors.iter().map(|error| format!("passed over a damaged checkpoint: {error}"));
                    return Ok(Some(Latest { path, checkpoint, warnings: warnings.collect() }));
                }
                Ok(checkpoint) => errors.push(
                    Error::new(Subject::File, "the checkpoint of another step")
                        .at(path.display())
                        .found(checkpoint.progress.step)
                        .expected(step),
                ),
                Err(error) => errors.push(error),
            }
        }
        let hint = format!("no checkpoint is whole: remove `{}` to start from the beginning", dir.display());
        let hinted = |error: Error| if error.hint().is_none() { error.with_hint(hint.clone()) } else { error };
        Error::all(errors.into_iter().map(hinted).collect()).map(|()| None)
    }

    /// Every vector is as long as the slots say, and every value finite.
    fn check(&self) -> Result<()> {
        let slots = &self.progress.slots;
        let len = slots.iter().map(|slot| slot.len).fold(0, usize::saturating_add);
        let (best, OptimizerState { m, v, .. }) = (self.best_params.as_deref(), &self.optimizer);
        for (name, values, whole) in [
            ("params", &*self.params, true),
            ("best_params", best.unwrap_or(&self.params), true),
            ("m", m, false),
            ("v", v, false),
        ] {
            if values.len() != len && (whole || !values.is_empty()) {
                return Err(Error::new(Subject::Model, format!("`{name}` does not fit the parameters"))
                    .found(format!("{} values", values.len()))
                    .expected(len));
            }
            if let Some(culprit) = non_finite(slots, values) {
                return Err(Error::new(Subject::Diverged, format!("`{name}` is not finite: {culprit}"))
                    .with_hint("go on from the checkpoint before, with a lower learning rate"));
            }
        }
        Ok(())
    }
}

/// A name for the checkpoint of `step` that is not taken.
fn free_name(dir: &Path, step: u64) -> PathBuf {
    let first = dir.join(format!("step-{step:08}"));
    let more = (1_u64..).map(|number| dir.join(format!("step-{step:08}-{number}")));
    once(first.clone()).chain(more).find(|path| !exists(path)).unwrap_or(first)
}

/// The step and the number a checkpoint's folder is named after.
fn parse_name(name: &str) -> Option<(u64, u64)> {
    let rest = name.strip_prefix("step-")?;
    let (step, number) = rest.split_once('-').unwrap_or((rest, "0"));
    Some((step.parse().ok()?, number.parse().ok()?))
}

/// The folders in `dir` that have the name of a checkpoint, with the step.
fn newest_first(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found: Vec<_> =
        list(dir)?.into_iter().filter_map(|name| Some((parse_name(&name)?, dir.join(name)))).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found.into_iter().map(|((step, _), path)| (step, path)).collect())
}

/// Removes checkpoints but the `new` one and the newest complete ones. What cannot be removed now goes with the next.
fn remove_old(storage: &dyn Storage, dir: &Path, new: &Path) {
    let mut complete = 0;
    for (step, path) in newest_first(dir).unwrap_or_default() {
        let keep = path == new
            || complete < KEEP && Checkpoint::load(&path).is_ok_and(|checkpoint| checkpoint.progress.step == step);
        if keep {
            complete += 1;
        } else {
            let _ = storage.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests;
