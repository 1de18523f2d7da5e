//! The files of a model beside its weights: copied along with merged weights, or left out.

use std::collections::BTreeSet;
use std::path::Path;

use super::adapter_dir;
use super::atomic::{AtomicFile, is_temporary};
use super::checkpoint::MODEL;
use super::foreign::is_foreign;
use super::limits;
use super::read::{list, open, read_at};
use super::shards::{INDEX, inside};
use super::storage::Storage;
use crate::error::{Error, Result, Subject};

/// Copies everything of the model folder `from` into `to` but its weights. Returns what was left out: weights in other
/// formats or of another precision, which are not merged; an adapter, which would be applied a second time by a loader
/// that finds it; and hidden entries.
pub(super) fn copy_rest(
    storage: &dyn Storage,
    from: &Path,
    to: &Path,
    weights: &BTreeSet<String>,
) -> Result<Vec<String>> {
    let mut left_out = Vec::new();
    for name in list(from)? {
        let adapter = name == adapter_dir::CONFIG || name == adapter_dir::WEIGHTS;
        if weights.contains(&name) {
            continue;
        }
        if adapter || name.starts_with('.') || name.ends_with(".safetensors") || is_foreign(Path::new(&name)) {
            left_out.push(name);
        } else {
            copy(storage, from, to, &name, 0)?;
        }
    }
    Ok(left_out)
}

fn copy(storage: &dyn Storage, from: &Path, to: &Path, name: &str, depth: usize) -> Result<()> {
    let (source, target) = (inside(from, name)?, to.join(name));
    if !source.is_dir() {
        return copy_file(storage, &source, &target);
    }
    if depth == limits::FOLDER_DEPTH {
        return Err(Error::new(Subject::File, "folders nested too deep")
            .at(source.display())
            .expected(format!("at most {depth}")));
    }
    storage.create_dir(&target).map_err(|error| Error::io(&target, "create the folder", error))?;
    for name in list(&source)?.iter().filter(|name| !name.starts_with('.')) {
        copy(storage, &source, &target, name, depth + 1)?;
    }
    Ok(())
}

fn copy_file(storage: &dyn Storage, source: &Path, target: &Path) -> Result<()> {
    let (file, size) = open(source)?;
    let mut copy = AtomicFile::create(storage, target, size)?;
    let mut buffer = Vec::new();
    let mut position = 0;
    while position < size {
        let length = (limits::BLOCK_BYTES as u64).min(size - position);
        buffer.resize(usize::try_from(length).unwrap_or(limits::BLOCK_BYTES), 0);
        read_at(&file, &mut buffer, position).map_err(|error| Error::io(source, "read", error))?;
        copy.write(&buffer)?;
        position += length;
    }
    copy.commit()
}

/// Checks that replacing the folder `old` by `new` loses nothing but weights.
pub(super) fn check_replaceable(old: &Path, new: &Path) -> Result<()> {
    let names = list(old)?;
    if !names.is_empty() && !names.iter().any(|name| name == MODEL || name == INDEX) {
        return Err(Error::new(Subject::File, "the output is there, and is not a model")
            .at(old.display())
            .expected(format!("a new folder, or one with {MODEL} or {INDEX}"))
            .with_hint("choose another output"));
    }
    let mut lost = Vec::new();
    compare(old, new, "", 0, &mut lost)?;
    lost.retain(|name| !(name == INDEX || name.ends_with(".safetensors") && !name.contains('/')));
    if lost.is_empty() {
        return Ok(());
    }
    Err(Error::new(Subject::File, "replacing the output would lose files")
        .at(old.display())
        .found(lost.join(", "))
        .expected("nothing but what the new model has too")
        .with_hint("choose another output, or move those files elsewhere"))
}

fn compare(old: &Path, new: &Path, place: &str, depth: usize, lost: &mut Vec<String>) -> Result<()> {
    for name in list(old)?.iter().filter(|name| !is_temporary(name)) {
        let (old, new, shown) = (old.join(name), new.join(name), format!("{place}{name}"));
        if !new.exists() || new.is_dir() != old.is_dir() {
            lost.push(shown);
        } else if old.is_dir() && depth < limits::FOLDER_DEPTH {
            compare(&old, &new, &format!("{shown}/"), depth + 1, lost)?;
        }
    }
    Ok(())
}
