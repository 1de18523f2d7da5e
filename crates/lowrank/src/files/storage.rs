//! The operations that change the file system, all of them, so that tests can make any one fail.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that is being written.
#[derive(Debug)]
pub struct OpenFile {
    /// Where it is.
    pub path: PathBuf,
    file: File,
}

/// What saving needs of a file system. [`Disk`] is the real one; tests have one whose n-th operation fails.
pub trait Storage {
    /// Creates a file that is not there yet and locks it for as long as it is open. It gets `permissions`, or what
    /// the umask leaves.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken; whatever the system reports.
    fn create(&self, path: &Path, permissions: Option<&Permissions>) -> io::Result<OpenFile>;

    /// Creates a folder in one that exists.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken; whatever the system reports.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// Whatever the system reports; some of the bytes may have been written.
    fn write(&self, file: &mut OpenFile, bytes: &[u8]) -> io::Result<()>;

    /// Waits until the file's content is on the medium.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn sync(&self, file: &OpenFile) -> io::Result<()>;

    /// Gives a file or folder another name; a file that has that name is replaced.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Waits until the names in a folder are on the medium.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Removes a file, or a folder with everything in it. Links are removed, not followed.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names in a folder.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;
}

/// The file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Storage for Disk {
    fn create(&self, path: &Path, permissions: Option<&Permissions>) -> io::Result<OpenFile> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        restrict(&mut options, permissions);
        let file = options.open(path)?;
        // A cleaner that found the file before it was locked has taken it for a leftover.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || !is_at(&file, path)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Some(permissions) = permissions {
            file.set_permissions(permissions.clone())?;
        }
        Ok(OpenFile { path: path.to_owned(), file })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn write(&self, file: &mut OpenFile, bytes: &[u8]) -> io::Result<()> {
        file.file.write_all(bytes)
    }

    fn sync(&self, file: &OpenFile) -> io::Result<()> {
        file.file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
    }
}

#[cfg(unix)]
fn restrict(options: &mut OpenOptions, permissions: Option<&Permissions>) {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    if let Some(permissions) = permissions {
        options.mode(permissions.mode());
    }
}

#[cfg(not(unix))]
fn restrict(_: &mut OpenOptions, _: Option<&Permissions>) {}

/// Whether `path` still names the open `file`.
#[cfg(unix)]
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let open = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
pub(super) fn is_at(_: &File, path: &Path) -> io::Result<bool> {
    fs::exists(path)
}
