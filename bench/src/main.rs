//! Measures lowrank's layers and training steps beside `PyTorch`, PEFT, stock Burn and candle, in turn.
//!
//! `conv1d` and `step` start a process for every number of threads, because that is fixed when a process begins
//! (`RAYON_NUM_THREADS`, which Burn, candle and our kernels follow), gather what the processes print, and report.

mod args;
mod conv1d;
mod geometry;
mod machine;
mod peer;
mod record;
mod report;
mod roofline;
mod rounds;
mod step;
mod versions;

use std::path::PathBuf;

#[global_allocator]
static ALLOCATOR: lowrank::memory::Allocator = lowrank::memory::Allocator;

fn main() -> anyhow::Result<()> {
    // As the command does.
    lowrank::memory::keep_pages();
    machine::pin_threads()?;
    args::run()
}

/// The benchmark's folder in the repository.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
