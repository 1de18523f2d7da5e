//! The directory PEFT keeps an adapter in: `adapter_config.json`, `adapter_model.safetensors`, `README.md`.
//!
//! The adapter named `default` is in the directory itself, every other in a folder of its name inside.

use std::path::{Path, PathBuf};

use super::atomic::AtomicFile;
use super::checkpoint::Checkpoint;
use super::foreign::refuse_foreign;
use super::limits;
use super::read::{create_dir, exists, list, read_bytes, read_to_string};
use super::shards::inside;
use super::storage::{Disk, Storage};
use super::writer;
use crate::adapter::state_dict::StateDict;
use crate::config::LoraConfig;
use crate::error::{Error, Result, Subject};

/// The configuration's name.
pub const CONFIG: &str = "adapter_config.json";
/// The weights' name.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// The model card's name.
pub const CARD: &str = "README.md";

/// An adapter as its directory has it.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// `adapter_config.json`.
    pub config: LoraConfig,
    /// What is unusual about the configuration and has no effect, for the user to know.
    pub warnings: Vec<String>,
    /// `adapter_model.safetensors`.
    pub state: StateDict,
}

/// Reads the adapter in `dir`.
///
/// No more memory is asked for than the file of weights takes, and some for its header.
///
/// # Errors
/// When a file is missing (adapters in folders inside are named), when the weights are a pickle, when either file is
/// malformed, when the configuration asks for what is not supported, and when the two do not belong together.
pub fn read(dir: &Path) -> Result<Adapter> {
    if dir.is_file() {
        return Err(Error::new(Subject::File, "a file, not an adapter")
            .at(dir.display())
            .expected(format!("a folder with {CONFIG} and {WEIGHTS}"))
            .with_hint("name the folder it is in"));
    }
    let names = list(dir)?;
    for needed in [CONFIG, WEIGHTS] {
        if !names.iter().any(|name| name == needed) {
            return Err(missing(dir, needed, &names));
        }
    }
    let path = inside(dir, CONFIG)?;
    let (config, warnings) =
        LoraConfig::from_json(&read_to_string(&path, limits::CONFIG_BYTES)?, &path.display().to_string())?;
    let path = inside(dir, WEIGHTS)?;
    let file = Checkpoint::open(&path)?;
    let tensors = file.names().map(|name| Ok((name.to_owned(), file.read(name)?))).collect::<Result<_>>()?;
    let state = StateDict::from_tensors(tensors, &config, &path.display().to_string())?;
    Ok(Adapter { config, warnings, state })
}

/// Writes an adapter to `dir`, which is created when it is not there. Without `card` an existing `README.md` stays.
///
/// Each file is replaced whole or not at all. All are complete on the medium before the first takes its name, and a
/// configuration that has not changed is not touched: saving the next step of a training replaces the weights at one
/// stroke. Only where the configuration changes too can a power failure between two renames leave one old and one new
/// file, which reading refuses when the ranks differ.
///
/// # Errors
/// Before anything is written: when the configuration is not valid, when the tensors are not what it says, and when a
/// value is not finite. Then: when the disk is full or does not permit it; what was there before is unchanged.
pub fn write(dir: &Path, config: &LoraConfig, state: &StateDict, card: Option<&str>) -> Result<()> {
    write_to(&Disk, dir, config, state, card)
}

/// [`write()`], on any [`Storage`].
///
/// # Errors
/// As [`write()`].
pub fn write_to(
    storage: &dyn Storage,
    dir: &Path,
    config: &LoraConfig,
    state: &StateDict,
    card: Option<&str>,
) -> Result<()> {
    config.validate_for_loading()?;
    state.check(config)?;
    create_dir(dir)?;
    let tensors = state.to_tensors();
    let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), *tensor));
    let mut files = vec![writer::complete(storage, &dir.join(WEIGHTS), tensors)?];
    files.extend(text(storage, &dir.join(CONFIG), &config.to_json())?);
    if let Some(card) = card {
        files.extend(text(storage, &dir.join(CARD), card)?);
    }
    files.into_iter().try_for_each(AtomicFile::publish)
}

/// A small file, complete but not yet in its place; none when it holds `content` already.
fn text<'s>(storage: &'s dyn Storage, path: &Path, content: &str) -> Result<Option<AtomicFile<'s>>> {
    if exists(path) && read_bytes(path, limits::CONFIG_BYTES).is_ok_and(|bytes| bytes == content.as_bytes()) {
        return Ok(None);
    }
    let mut file = AtomicFile::create(storage, path, content.len() as u64)?;
    file.write(content.as_bytes())?;
    file.sync()?;
    Ok(Some(file))
}

/// The folder of the adapter `name` among those of `dir`: `dir` itself for `default`.
///
/// # Errors
/// When the name is not that of a folder, or holds a dot, which PEFT's module names cannot.
pub fn named(dir: &Path, name: &str) -> Result<PathBuf> {
    if name == "default" {
        return Ok(dir.to_owned());
    }
    if name.is_empty() || name.contains(['/', '\\', ':', '.']) || name.chars().any(char::is_control) {
        return Err(Error::new(Subject::Adapter, "not a name for an adapter")
            .found(format!("{name:?}"))
            .expected("a plain name without dots and slashes"));
    }
    Ok(dir.join(name))
}

/// The adapters in `dir`, sorted: `default` for the directory itself, and the folders inside that hold one.
///
/// # Errors
/// When the directory cannot be read.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let here = exists(&dir.join(CONFIG)).then(|| "default".to_owned());
    let inside = list(dir)?.into_iter().filter(|name| exists(&dir.join(name).join(CONFIG)));
    Ok(here.into_iter().chain(inside).collect())
}

fn missing(dir: &Path, needed: &str, there: &[String]) -> Error {
    let pickle = dir.join("adapter_model.bin");
    if needed == WEIGHTS
        && exists(&pickle)
        && let Err(error) = refuse_foreign(&pickle)
    {
        return error;
    }
    let error =
        Error::new(Subject::File, format!("no {needed}")).at(dir.display()).expected(format!("{CONFIG} and {WEIGHTS}"));
    let inside = names(dir).unwrap_or_default();
    if needed == CONFIG && !inside.is_empty() {
        return error.with_hint(format!("there are adapters in folders inside: name one of {}", inside.join(", ")));
    }
    if there.iter().any(|name| name == "config.json") {
        return error.with_hint("this looks like a whole model: an adapter is expected here");
    }
    error
}
