//! A folder that appears under its name only when everything in it is complete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::atomic::{failure, parent, remove_leftovers, temporary};
use super::storage::Storage;
use crate::error::Result;

/// A folder being filled under a temporary name beside its final one.
pub struct NewDir<'s> {
    storage: &'s dyn Storage,
    target: PathBuf,
    temporary: Option<PathBuf>,
    // Open and locked for as long as the folder is filled: how the next writer knows it from a leftover.
    _lock: Option<File>,
}

impl<'s> NewDir<'s> {
    /// Begins a folder that will be `target`.
    ///
    /// # Errors
    /// When the folder above is missing or cannot be written to.
    pub fn create(storage: &'s dyn Storage, target: &Path) -> Result<Self> {
        let dir = parent(target);
        remove_leftovers(storage, dir);
        let path = temporary(dir);
        storage.create_dir(&path).map_err(|error| failure(target, 0, error))?;
        let lock = File::open(&path).ok().filter(|folder| folder.try_lock().is_ok());
        Ok(Self { storage, target: target.to_owned(), temporary: Some(path), _lock: lock })
    }

    /// Where to put the content.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.temporary.as_deref().unwrap_or(&self.target)
    }

    /// Gives the folder its name. A folder that has it is put aside first, put back should this fail, and removed
    /// when it has succeeded.
    ///
    /// # Errors
    /// When a name cannot be changed, or not be made durable.
    pub fn publish(mut self) -> Result<()> {
        let Some(path) = &self.temporary else { return Ok(()) };
        let (storage, target, dir) = (self.storage, &self.target, parent(&self.target));
        let failed = |error| failure(target, 0, error);
        storage.sync_dir(path).map_err(failed)?;
        let aside = fs::symlink_metadata(target).is_ok().then(|| set_aside(target));
        if let Some(aside) = &aside {
            if fs::symlink_metadata(aside).is_ok() {
                storage.remove(aside).map_err(failed)?;
            }
            storage.rename(target, aside).map_err(failed)?;
        }
        if let Err(error) = storage.rename(path, target) {
            if let Some(aside) = &aside {
                storage.rename(aside, target).map_err(failed)?;
            }
            return Err(failed(error));
        }
        self.temporary = None;
        storage.sync_dir(dir).map_err(failed)?;
        if let Some(aside) = &aside {
            storage.remove(aside).map_err(failed)?;
        }
        Ok(())
    }
}

impl Drop for NewDir<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.temporary.take() {
            // What cannot be removed now is a leftover, and goes with the next writer.
            let _ = self.storage.remove(&path);
        }
    }
}

/// Puts back what a run that was killed between two renames left aside.
///
/// # Errors
/// When it is there and cannot be renamed.
pub(super) fn recover(storage: &dyn Storage, target: &Path) -> Result<()> {
    let aside = set_aside(target);
    match (fs::symlink_metadata(target), fs::symlink_metadata(&aside)) {
        (Err(error), Ok(_)) if error.kind() == io::ErrorKind::NotFound => {
            storage.rename(&aside, target).map_err(|error| failure(target, 0, error))
        }
        _ => Ok(()),
    }
}

/// The name a folder has while the one that replaces it is put in its place.
pub(super) fn set_aside(target: &Path) -> PathBuf {
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    target.with_file_name(format!(".{name}.lowrank-old"))
}
