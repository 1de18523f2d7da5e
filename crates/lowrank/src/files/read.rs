//! Reading: regular files only, within a limit, by position.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, Subject};
use crate::suggest::nearest;

/// The bytes of a file that has at most `limit` of them.
///
/// # Errors
/// When the file is missing, not a regular file, larger than `limit`, or cannot be read.
pub fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, length) = open(path)?;
    if length > limit {
        return Err(Error::new(Subject::File, "too large")
            .at(path.display())
            .found(format!("{length} bytes"))
            .expected(format!("at most {limit}")));
    }
    let mut bytes = Vec::new();
    // One byte more than the limit shows a file that grew since.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| Error::io(path, "read", error))?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(Subject::File, "grew beyond the limit while it was read")
            .at(path.display())
            .expected(format!("at most {limit} bytes")));
    }
    Ok(bytes)
}

/// The text of a file that has at most `limit` bytes.
///
/// # Errors
/// As [`read_bytes`], and when the bytes are not UTF-8.
pub fn read_to_string(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read_bytes(path, limit)?).map_err(|error| {
        Error::new(Subject::File, "not UTF-8 text")
            .at(path.display())
            .found(format!("a stray byte at position {}", error.utf8_error().valid_up_to()))
            .because(error)
    })
}

/// Whether there is something at `path`; a link that leads nowhere is nothing.
#[must_use]
pub fn exists(path: &Path) -> bool {
    fs::exists(path).unwrap_or(false)
}

/// The names in a folder, sorted; names that are not Unicode are left out.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(dir: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::io(dir, "list", error);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Creates a folder and those above it; fine when it exists.
///
/// # Errors
/// When it cannot be created, or a file has its name.
pub fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::io(path, "create the folder", error))
}

/// Opens a regular file and tells its length.
pub(super) fn open(path: &Path) -> Result<(File, u64)> {
    // Looked at before it is opened: opening a pipe would wait for a writer.
    let data = fs::metadata(path).map_err(|error| unreadable(path, error))?;
    if !data.is_file() {
        let found = if data.is_dir() { "a folder" } else { "a device, pipe or socket" };
        return Err(Error::new(Subject::File, "not a file").at(path.display()).found(found).expected("a regular file"));
    }
    let file = File::open(path).map_err(|error| unreadable(path, error))?;
    let length = file.metadata().map_err(|error| unreadable(path, error))?.len();
    Ok((file, length))
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    if source.kind() != io::ErrorKind::NotFound {
        return Error::io(path, "read", source);
    }
    let error = Error::new(Subject::File, "no such file or folder").at(path.display()).because(source);
    match sibling(path).map(|sibling| format!("did you mean `{}`?", sibling.display())).or_else(|| way(path)) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Where the missing `path` was looked for, or the first folder on the way to it that is missing too.
fn way(path: &Path) -> Option<String> {
    let path = std::path::absolute(path).ok()?;
    let missing = path.ancestors().take_while(|folder| !exists(folder)).last()?;
    Some(if missing == path {
        format!("it was looked for in `{}`", path.parent()?.display())
    } else {
        format!("there is no folder `{}`", missing.display())
    })
}

/// The file beside the missing `path` that was probably meant.
fn sibling(path: &Path) -> Option<PathBuf> {
    let names = list(super::atomic::parent(path)).ok()?;
    let name = nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(path.with_file_name(name))
}

/// Fills `buffer` from `offset` on.
#[cfg(unix)]
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills `buffer` from `offset` on.
#[cfg(windows)]
pub(super) fn read_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer = buffer.split_at_mut(count).1;
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_before_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read_to_string(&path, 5).unwrap(), "12345");
        let error = read_bytes(&path, 4).unwrap_err().to_string();
        assert!(error.ends_with("a.json: too large: found 5 bytes, expected at most 4"), "{error}");
    }

    #[test]
    fn only_regular_text_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_bytes(dir.path(), 9).unwrap_err().to_string().contains("found a folder"));
        assert!(read_bytes(Path::new("/dev/null"), 9).unwrap_err().to_string().contains("expected a regular file"));
        let path = dir.path().join("x");
        fs::write(&path, [b'a', 0xff]).unwrap();
        assert!(read_to_string(&path, 9).unwrap_err().to_string().contains("a stray byte at position 1"));
    }

    #[test]
    fn a_missing_file_names_its_neighbour() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("adapter_config.json"), "{}").unwrap();
        let error = read_bytes(&dir.path().join("adapter_cofnig.json"), 9).unwrap_err();
        assert!(error.hint().unwrap().contains("adapter_config.json"));
    }

    #[test]
    fn a_missing_file_without_one_names_the_way_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let hint = |path: &str| read_bytes(&dir.path().join(path), 9).unwrap_err().hint().unwrap().to_string();
        assert_eq!(hint("zzz"), format!("it was looked for in `{}`", dir.path().display()));
        assert_eq!(hint("a/b/zzz"), format!("there is no folder `{}`", dir.path().join("a").display()));
    }
}
