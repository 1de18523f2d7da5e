//! The `lowrank` command: train, evaluate, merge and inspect LoRA adapters.

mod args;
mod commands;
mod interrupt;
mod keys;
mod output;
mod run_file;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: lowrank::memory::Allocator = lowrank::memory::Allocator;

fn main() -> ExitCode {
    lowrank::memory::keep_pages();
    lowrank::threads::take_part();
    match args::Cli::try_parse() {
        Ok(cli) => commands::run(cli),
        Err(error) => commands::usage(&error),
    }
}
