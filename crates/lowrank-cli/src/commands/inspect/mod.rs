//! `lowrank inspect`: what is in an adapter, or in a safetensors file.

mod adapter;
mod spectrum;
mod weights;

use lowrank::files;

use super::{Exit, Failure};
use crate::args::InspectArgs;
use crate::output::Output;

/// The file that makes a folder an adapter's.
const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Shows what is at a path.
pub fn run(args: &InspectArgs, output: Output) -> Result<Exit, Failure> {
    if files::exists(&args.path.join(ADAPTER_CONFIG)) {
        return adapter::run(&args.path, output);
    }
    weights::run(&args.path, output)
}
