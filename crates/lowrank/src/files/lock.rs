//! One process a folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process;

use super::storage::{Disk, Storage as _, is_at};
use crate::error::{Error, Result, Subject};

/// The name of the lock file.
pub const LOCK_FILE: &str = ".lowrank.lock";

/// The right to write in a folder, until it is dropped.
///
/// The lock is the operating system's, on a file that also names the owner's process. A process that dies, however it
/// dies, holds it no longer, so a lock file left behind is taken over without asking and without a look at process
/// numbers, which are reused.
#[derive(Debug)]
pub struct RunLock {
    path: PathBuf,
    _file: File,
}

impl RunLock {
    /// Takes the lock of the folder `dir`.
    ///
    /// # Errors
    /// When another process has it (named by its number), or when the lock file cannot be created.
    pub fn acquire(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK_FILE);
        let failed = |error| Error::io(&path, "lock", error);
        loop {
            let mut options = OpenOptions::new();
            let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(taken(dir, &mut file)),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // The owner before us removed the file between our opening and our locking it: try with the one there now.
            if !is_at(&file, &path).map_err(failed)? {
                continue;
            }
            file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
            writeln!(file, "{}", process::id()).map_err(failed)?;
            return Ok(Self { path, _file: file });
        }
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Still locked here. A file that cannot be removed is taken over by the next run.
        let _ = Disk.remove(&self.path);
    }
}

fn taken(dir: &Path, file: &mut File) -> Error {
    let mut owner = String::new();
    let read = file.take(32).read_to_string(&mut owner);
    let owner = owner.trim();
    let known = read.is_ok() && !owner.is_empty() && owner.bytes().all(|byte| byte.is_ascii_digit());
    let found = if known { format!("process {owner}") } else { "another process".to_owned() };
    Error::new(Subject::File, "the folder is in use")
        .at(dir.display())
        .found(found)
        .expected("no other run")
        .with_hint("wait for the other run, stop it, or write to another folder")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_second_run_is_refused_with_the_owner_and_a_third_may_follow() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunLock::acquire(dir.path()).unwrap();
        let error = RunLock::acquire(dir.path()).unwrap_err();
        assert!(error.to_string().contains(&format!("found process {}", process::id())), "{error}");
        assert!(error.hint().is_some());
        drop(first);
        assert!(!dir.path().join(LOCK_FILE).exists());
        drop(RunLock::acquire(dir.path()).unwrap());
    }

    #[test]
    fn a_lock_file_nobody_holds_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK_FILE);
        fs::write(&path, "1\nand a longer line than ours").unwrap();
        let lock = RunLock::acquire(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        drop(lock);
    }

    #[test]
    fn an_owner_that_wrote_nothing_yet_is_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::acquire(dir.path()).unwrap();
        fs::write(dir.path().join(LOCK_FILE), "").unwrap();
        assert!(RunLock::acquire(dir.path()).unwrap_err().to_string().contains("found another process"));
        drop(lock);
    }
}
