//! A [`Storage`] that fails, for tests.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::Permissions;
use std::io;
use std::path::Path;

use lowrank::files::storage::{Disk, OpenFile, Storage};

/// The disk, until an operation fails. A write that fails has written half of its bytes. Nothing waits for the medium:
/// what a killed process has handed over, the system keeps.
pub struct Faulty {
    done: Cell<u64>,
    first: u64,
    last: u64,
}

impl Faulty {
    /// The process dies after so many operations: no later one happens.
    pub fn dies_after(operations: u64) -> Self {
        Self { done: Cell::new(0), first: operations + 1, last: u64::MAX }
    }

    /// No operation fails.
    pub fn never() -> Self {
        Self::dies_after(u64::MAX - 1)
    }

    /// Only operation `number`, counted from 1, fails.
    pub fn once(number: u64) -> Self {
        Self { done: Cell::new(0), first: number, last: number }
    }

    /// How many operations were asked for.
    pub fn operations(&self) -> u64 {
        self.done.get()
    }

    fn fails(&self) -> bool {
        self.done.set(self.done.get() + 1);
        (self.first..=self.last).contains(&self.done.get())
    }

    fn next<T>(&self, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.fails() { Err(io::ErrorKind::StorageFull.into()) } else { operation() }
    }
}

impl Storage for Faulty {
    fn create(&self, path: &Path, permissions: Option<&Permissions>) -> io::Result<OpenFile> {
        self.next(|| Disk.create(path, permissions))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.next(|| Disk.create_dir(path))
    }

    fn write(&self, file: &mut OpenFile, bytes: &[u8]) -> io::Result<()> {
        if self.fails() {
            // The very last write before a death tears; after it nothing happens.
            if self.done.get() == self.first {
                Disk.write(file, &bytes[..bytes.len() / 2])?;
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        Disk.write(file, bytes)
    }

    fn sync(&self, _: &OpenFile) -> io::Result<()> {
        self.next(|| Ok(()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.next(|| Disk.rename(from, to))
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.next(|| Ok(()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.next(|| Disk.remove(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.next(|| Disk.list(dir))
    }
}
