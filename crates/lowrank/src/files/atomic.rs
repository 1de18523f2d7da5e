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

/// [`write()`], on any [`Storage`].
///
/// # Errors
/// As [`write()`].
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
    const UNCHANGED: &str = "what was there before is unchanged";
    let full = |problem: &str, hint: &str| {
        Error::new(Subject::File, problem.to_owned())
            .expected(format!("room for {size} bytes"))
            .with_hint(format!("{hint}; {UNCHANGED}"))
    };
    let space = "free some space, or write to another disk";
    let error = match source.kind() {
        io::ErrorKind::StorageFull => full("the disk is full", space),
        io::ErrorKind::QuotaExceeded => full("the disk quota is used up", space),
        io::ErrorKind::FileTooLarge => full(
            "the file is larger than this process or file system may write",
            "raise `ulimit -f`, or write to another disk",
        ),
        io::ErrorKind::NotFound => {
            Error::new(Subject::File, "cannot write: the folder does not exist").with_hint("create the folder first")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Error::new(Subject::File, "cannot write: not permitted")
                .with_hint(format!("write to a folder you own; {UNCHANGED}"))
        }
        _ => return Error::io(path, "write", source),
    };
    error.at(path.display()).because(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        super::super::read::list(dir).unwrap()
    }

    #[test]
    fn nothing_shows_before_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&Disk, &path, 3).unwrap();
        file.write(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()).len(), 2);
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let given_up = AtomicFile::create(&Disk, &path, 3).unwrap();
        drop(given_up);
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn what_killed_writers_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at(".lowrank-1-0.tmp"), "half").unwrap();
        fs::create_dir(at(".lowrank-99999999-7.tmp")).unwrap();
        fs::write(at(".lowrank-99999999-7.tmp/model.safetensors"), "half").unwrap();
        let kept = [
            ".lowrank-1.tmp",
            ".lowrank--1.tmp",
            ".lowrank-1-.tmp",
            ".lowrank-1-a.tmp",
            "lowrank-1-0.tmp",
            ".lowrank-1-0.tmpx",
        ];
        for name in kept {
            fs::write(at(name), "not ours").unwrap();
        }
        let in_use = AtomicFile::create(&Disk, &at("b"), 1).unwrap();
        write(&at("a"), b"x").unwrap();
        let left = names(dir.path());
        assert_eq!(left.len(), kept.len() + 2, "{left:?}");
        assert!(kept.iter().all(|name| at(name).exists()));
        in_use.commit().unwrap();
        assert!(at("b").exists(), "a file in use is no leftover");
    }

    #[test]
    fn a_folder_in_the_way_and_a_missing_folder_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(dir.path(), b"x").unwrap_err().to_string().contains("is a folder"));
        let error = write(&dir.path().join("no/a"), b"x").unwrap_err();
        assert!(error.to_string().contains("the folder does not exist"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_kept_and_new_files_follow_the_umask() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let (ours, plain) = (dir.path().join("ours"), dir.path().join("plain"));
        fs::write(&plain, "x").unwrap();
        write(&ours, b"x").unwrap();
        assert_eq!(mode(&ours), mode(&plain), "the umask decides for new files");
        for kept in [0o600, 0o640, 0o444, 0o666, 0o777] {
            fs::set_permissions(&ours, Permissions::from_mode(kept)).unwrap();
            write(&ours, b"y").unwrap();
            assert_eq!(mode(&ours), kept, "{kept:o}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_replaced_and_what_it_led_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (blob, link) = (dir.path().join("blob"), dir.path().join("link"));
        fs::write(&blob, "content").unwrap();
        std::os::unix::fs::symlink(&blob, &link).unwrap();
        write(&link, b"new").unwrap();
        assert_eq!(fs::read(&blob).unwrap(), b"content");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
        assert_eq!(fs::read(&link).unwrap(), b"new");
    }

    #[cfg(unix)]
    #[test]
    fn saving_over_a_file_that_is_being_read_leaves_the_reader_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"old content").unwrap();
        let (file, length) = super::super::read::open(&path).unwrap();
        write(&path, b"new").unwrap();
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        super::super::read::read_at(&file, &mut bytes, 0).unwrap();
        assert_eq!(bytes, b"old content");
    }
}
