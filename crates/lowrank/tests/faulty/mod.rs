//! A file system whose n-th operation fails.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::Permissions;
use std::io;
use std::path::Path;

use lowrank::files::storage::OpenFile;
use lowrank::files::{Disk, Storage};

/// What happens from the n-th operation on.
#[allow(dead_code, reason = "each test file uses some of them")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It works again.
    Recovers,
    /// Nothing works any more: what a process sees of a disk that is gone, and the disk of a process that is.
    StaysBroken,
    /// The process ends there.
    Dies,
}

pub struct Faulty {
    pub fails_at: usize,
    pub then: Then,
    pub kind: io::ErrorKind,
    pub count: Cell<usize>,
}

impl Faulty {
    pub fn new(fails_at: usize, then: Then, kind: io::ErrorKind) -> Self {
        Self { fails_at, then, kind, count: Cell::new(0) }
    }

    fn step(&self) -> io::Result<()> {
        self.count.set(self.count.get() + 1);
        let (now, at) = (self.count.get(), self.fails_at);
        match self.then {
            Then::Dies if now == at => std::process::exit(9),
            Then::Recovers if now == at => Err(self.kind.into()),
            Then::StaysBroken if now >= at => Err(self.kind.into()),
            _ => Ok(()),
        }
    }
}

impl Storage for Faulty {
    fn create(&self, path: &Path, permissions: Option<&Permissions>) -> io::Result<OpenFile> {
        self.step()?;
        Disk.create(path, permissions)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.create_dir(path)
    }

    fn write(&self, file: &mut OpenFile, bytes: &[u8]) -> io::Result<()> {
        // A write that fails has written some of it.
        if self.count.get() + 1 == self.fails_at {
            Disk.write(file, &bytes[..bytes.len() / 2])?;
        }
        self.step()?;
        Disk.write(file, bytes)
    }

    fn sync(&self, file: &OpenFile) -> io::Result<()> {
        self.step()?;
        Disk.sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        Disk.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        Disk.sync_dir(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.step()?;
        Disk.list(dir)
    }
}
