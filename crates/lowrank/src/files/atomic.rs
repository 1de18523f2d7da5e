//! Writing so that a name always holds the whole old content or the whole new one.
//!
//! The content goes to a temporary sibling, reaches the medium, and takes the final name. Whoever is killed before
//! that leaves a temporary file, which the next writer in the same folder recognises by its name, and by the lock that
//! nobody holds any more, and removes.

use std::fs::{self, File, Permissions};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::storage::{Disk, OpenFile, Storage};
use crate::error::{Error, Result, Subject};

const PREFIX: &str = ".lowrank-";
const SUFFIX: &str = ".tmp";

/// A file that appears under its name only when it is complete.
///
/// An existing file keeps its permissions. Where the name is a symbolic link, the link is replaced by a file and what
/// it pointed to stays as it is: the blobs of a download cache are not written to.
pub struct AtomicFile<'s> {
    storage: &'s dyn Storage,
    target: PathBuf,
    size: u64,
    open: Option<OpenFile>,
}

impl<'s> AtomicFile<'s> {
    /// Begins to write `target`, of `size` bytes in all (for the message when they do not fit).
    ///
    /// # Errors
    /// When the folder is missing or cannot be written to, or when `target` is a folder.
    pub fn create(storage: &'s dyn Storage, target: &Path, size: u64) -> Result<Self> {
        let permissions = existing_permissions(target)?;
        let dir = parent(target);
        remove_leftovers(storage, dir);
        for _ in 0..16 {
            match storage.create(&temporary(dir), permissions.as_ref()) {
                Ok(open) => return Ok(Self { storage, target: target.to_owned(), size, open: Some(open) }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failure(target, size, error)),
            }
        }
        Err(failure(target, size, io::ErrorKind::AlreadyExists.into()))
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// When they cannot be written. What has the final name is unchanged.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        self.storage.write(open, bytes).map_err(|error| failure(&self.target, self.size, error))
    }

    /// Waits until the content is on the medium, so that of several files all can be complete before one is published.
    ///
    /// # Errors
    /// When the system cannot store it. What has the final name is unchanged.
    pub fn sync(&mut self) -> Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        self.storage.sync(open).map_err(|error| failure(&self.target, self.size, error))
    }

    /// Gives a synced file its name.
    ///
    /// # Errors
    /// When it cannot be renamed (what has the name is unchanged), or the name cannot be made durable (the new content
    /// is there and complete).
    pub fn publish(mut self) -> Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        let renamed = self.storage.rename(&open.path, &self.target);
        renamed.map_err(|error| failure(&self.target, self.size, error))?;
        self.open = None;
        let synced = self.storage.sync_dir(parent(&self.target));
        synced.map_err(|error| failure(&self.target, self.size, error))
    }

    /// [`Self::sync`], then [`Self::publish`].
    ///
    /// # Errors
    /// As those two.
    pub fn commit(mut self) -> Result<()> {
        self.sync()?;
        self.publish()
    }
}

impl Drop for AtomicFile<'_> {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            // What cannot be removed now is a leftover, and goes with the next writer.
            let _ = self.storage.remove(&open.path);
        }
    }
}

/// Writes `bytes` to `path`, whole or not at all.
///
/// # Errors
/// When the folder is missing or cannot be written to, or when the disk is full; `path` then holds what it held.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_to(&Disk, path, bytes)
}

/// [`write`], on any [`Storage`].
///
/// # Errors
/// As [`write`].
pub fn write_to(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(storage, path, bytes.len() as u64)?;
    file.write(bytes)?;
    file.commit()
}

/// The folder `path` is in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A name for a temporary file or folder that no other writer uses.
pub(super) fn temporary(dir: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    dir.join(format!("{PREFIX}{}-{}{SUFFIX}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)))
}

/// Whether `name` is one that [`temporary`] gives.
pub(super) fn is_temporary(name: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let inner = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    inner.and_then(|inner| inner.split_once('-')).is_some_and(|(process, count)| number(process) && number(count))
}

/// Removes what killed writers left in `dir`. Failing to is no reason not to write.
pub(super) fn remove_leftovers(storage: &dyn Storage, dir: &Path) {
    for name in storage.list(dir).unwrap_or_default() {
        let path = dir.join(&name);
        let plain = fs::symlink_metadata(&path).is_ok_and(|data| data.is_file() || data.is_dir());
        if plain && name.to_str().is_some_and(is_temporary) {
            // The lock is held until the file is gone, so that nobody begins to use it in between.
            if let Ok(file) = File::open(&path)
                && file.try_lock().is_ok()
            {
                let _ = storage.remove(&path);
            }
        }
    }
}

fn existing_permissions(target: &Path) -> Result<Option<Permissions>> {
    match fs::metadata(target) {
        Ok(data) if data.is_dir() => {
            Err(Error::new(Subject::File, "is a folder").at(target.display()).expected("the name of a file"))
        }
        Ok(data) => Ok(Some(data.permissions())),
        Err(_) => Ok(None),
    }
}

/// The error for an operation on `path` that failed while `size` bytes were being written there.
pub(super) fn failure(path: &Path, size: u64, source: io::Error) -> Error {
    let (problem, hint) = match source.kind() {
        io::ErrorKind::StorageFull => ("the disk is full", "free some space, or write to another disk"),
        io::ErrorKind::QuotaExceeded => ("the disk quota is used up", "free some space, or write to another disk"),
        io::ErrorKind::FileTooLarge => (
            "the file is larger than this process or file system may write",
            "raise `ulimit -f`, or write to another disk",
        ),
        io::ErrorKind::NotFound => ("cannot write: the folder does not exist", "create the folder first"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ("cannot write: not permitted", "write to a folder you own")
        }
        _ => return Error::io(path, "write", source),
    };
    Error::new(Subject::File, problem)
        .at(path.display())
        .expected(format!("room for {size} bytes"))
        .with_hint(format!("{hint}; what was there before is unchanged"))
        .because(source)
}
