//! Runs the binary, and shows what it wrote.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// The root of the repository, where golden files and examples are.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The command in a folder, with nothing of the surroundings that changes its output.
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    command.current_dir(folder).env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    command
}

/// What a command wrote, and its exit code.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The one JSON object on stdout.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }

    /// Without the name of a temporary folder.
    pub fn without(mut self, folder: &TempDir) -> Self {
        for text in [&mut self.stdout, &mut self.stderr] {
            *text = text.replace(folder.path().to_str().unwrap(), "[TMP]");
        }
        self
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}\n----- stdout -----\n{}----- stderr -----\n{}", self.code, self.stdout, self.stderr)
    }
}

/// Runs `lowrank` with arguments in a folder.
pub fn run_in(folder: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
    Ran::of(command(folder).args(args).output().unwrap())
}

/// Runs `lowrank` with arguments, separated by spaces, in the root of the repository.
pub fn lowrank(args: &str) -> Ran {
    run_in(&root(), args.split_whitespace())
}
