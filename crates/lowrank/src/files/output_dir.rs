//! The folder a command writes its results to.

use std::path::Path;

use super::atomic::is_temporary;
use super::lock::LOCK_FILE;
use super::read::{create_dir, list};
use crate::error::{Error, Result, Subject};

/// What is to happen with results that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// They are in the way.
    Refuse,
    /// They are gone on with, and must be there.
    Resume,
}

/// Makes `dir` ready to write to: creates it, or finds it empty, or finds the results of an earlier run in it, known by
/// one of the names in `marks`.
///
/// # Errors
/// When there is an earlier run and `earlier` says to refuse one, when there is none and it says to resume, and in any
/// case when there are other files: nothing that belongs to someone else is mixed with results.
pub fn prepare(dir: &Path, marks: &[&str], earlier: Earlier) -> Result<()> {
    let names = if dir.is_dir() { list(dir)? } else { Vec::new() };
    let ours = names.iter().any(|name| marks.contains(&name.as_str()));
    // A lock, and what a killed writer left, are nobody's content.
    let foreign = names.iter().find(|name| *name != LOCK_FILE && !is_temporary(name));
    let refuse = |problem: &str| Error::new(Subject::File, problem.to_owned()).at(dir.display());
    match (ours, foreign, earlier) {
        (true, _, Earlier::Resume) => Ok(()),
        (true, _, Earlier::Refuse) => Err(refuse("the folder holds an earlier run")
            .with_hint("resume that run, write to another folder, or remove this one")),
        (false, Some(name), _) => Err(refuse("the folder holds files that are not ours")
            .found(format!("`{name}`"))
            .expected("a new or an empty folder")
            .with_hint("write to another folder")),
        (false, None, Earlier::Resume) => Err(refuse("there is no run to resume")
            .expected(format!("one of {}", marks.join(", ")))
            .with_hint("start the run without resuming, or name the folder of the earlier one")),
        (false, None, Earlier::Refuse) => create_dir(dir),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_new_empty_and_own_folders_are_written_to() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/run");
        let go =
            |earlier| prepare(&dir, &["run.json", "checkpoints"], earlier).map_err(|error| error.problem().to_owned());
        assert_eq!(go(Earlier::Resume).unwrap_err(), "there is no run to resume");
        assert!(!dir.exists(), "a refusal creates nothing");
        assert!(go(Earlier::Refuse).is_ok() && dir.is_dir());
        assert!(go(Earlier::Refuse).is_ok(), "an empty folder will do");
        fs::write(dir.join(LOCK_FILE), "1").unwrap();
        assert!(go(Earlier::Refuse).is_ok(), "a lock is no content");
        fs::write(dir.join("thesis.txt"), "x").unwrap();
        for earlier in [Earlier::Refuse, Earlier::Resume] {
            assert_eq!(go(earlier).unwrap_err(), "the folder holds files that are not ours");
        }
        fs::create_dir(dir.join("checkpoints")).unwrap();
        assert!(go(Earlier::Resume).is_ok());
        assert_eq!(go(Earlier::Refuse).unwrap_err(), "the folder holds an earlier run");
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        fs::write(&path, "x").unwrap();
        assert!(prepare(&path, &["run.json"], Earlier::Refuse).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }
}
