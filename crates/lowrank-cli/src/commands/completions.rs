//! `lowrank completions`: completions of a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Exit, Failure};
use crate::args::Cli;
use crate::output;

/// Prints the completions of `shell`.
pub fn run(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lowrank", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
