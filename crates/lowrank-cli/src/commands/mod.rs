//! The commands: arguments to a checked plan, the plan to the library, its answer to the output.

mod check;
mod combine;
mod completions;
mod convert;
mod diff;
mod eval;
mod extract;
mod inspect;
mod merge;
mod model;
mod plan;
mod predict;
mod resize;
mod train;

use std::io;
use std::process::ExitCode;

use lowrank::{Error, Subject};
use serde_json::json;

use crate::args::{Action, Cli};
use crate::output::{self, Output};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The answer to what was asked is no.
    Negative,
    /// The input was wrong.
    WrongInput,
    /// Training diverged.
    Diverged,
    /// The user stopped it, and its state is saved.
    Interrupted,
}

impl Exit {
    /// The code the process ends with.
    fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Negative => 1,
            Self::WrongInput => 2,
            Self::Diverged => 3,
            Self::Interrupted => 130,
        })
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// Something is wrong.
    Error(Error),
    /// Stdout cannot be written to; when it is a pipe that nobody reads any more, nothing is wrong.
    Stdout(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Runs a command to the end of the process.
pub fn run(cli: Cli) -> ExitCode {
    let output = cli.output();
    let done = match cli.command {
        Action::Train(args) => train::run(args, output),
        Action::Eval(args) => eval::run(&args, output),
        Action::Predict(args) => predict::run(&args, output),
        Action::Merge(args) => merge::run(&args, output),
        Action::Combine(args) => combine::run(&args, output),
        Action::Extract(args) => extract::run(&args, output),
        Action::Resize(args) => resize::run(&args, output),
        Action::Convert(args) => convert::run(&args, output),
        Action::Check(args) => check::run(&args, output),
        Action::Diff(args) => diff::run(&args, output),
        Action::Inspect(args) => inspect::run(&args, output),
        Action::Plan(args) => plan::run(args, output),
        Action::Completions { shell } => completions::run(shell),
    };
    match done {
        Ok(exit) => exit.code(),
        Err(failure) => failed(&failure, output).code(),
    }
}

/// Tells of a failure.
fn failed(failure: &Failure, output: Output) -> Exit {
    match failure {
        Failure::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Failure::Stdout(error) => {
            output::talk(&format_args!("error: cannot write to stdout: {error}"));
            Exit::WrongInput
        }
        Failure::Error(error) => {
            output::talk(&output::error::Shown(error));
            if output.json {
                // A stdout that cannot be written to is no news beside this error.
                let _ = output::object(&output::error::object(error));
            }
            match error.subject() {
                Subject::Diverged => Exit::Diverged,
                Subject::Interrupted => Exit::Interrupted,
                _ => Exit::WrongInput,
            }
        }
    }
}

/// Ends as clap wants: with its help or version on stdout, or with its error.
pub fn usage(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|arg| arg == "--json");
    if error.use_stderr() && json {
        let message = error.to_string();
        let message = message.trim_start_matches("error: ").trim_end();
        let object = json!({ "error": { "subject": "usage", "message": message } });
        let _ = output::object(&object);
    }
    // Nobody is left to tell when this fails.
    let _ = error.print();
    if error.use_stderr() { Exit::WrongInput.code() } else { Exit::Done.code() }
}
