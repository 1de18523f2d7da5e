//! Who is measured: every peer computes the same layer, forward or a training step, and says how long it took.

mod burn_layer;
pub mod candle;
pub mod lowrank;
mod problem;
pub mod python;
mod seed;
pub mod stock;
#[cfg(test)]
mod tests;

use std::time::Instant;

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub use burn_layer::Inputs;
pub use problem::Problem;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A forward without gradients, the adapter live.
    Infer,
    /// A forward and the backward of a given output gradient: to the input, and to what trains.
    Train,
    /// A whole optimiser step of a model.
    Step,
    /// Activating another adapter.
    Switch,
    /// Adding an adapter to the weights.
    Merge,
    /// Taking it out of them.
    Unmerge,
    /// Reading an adapter from disk into the place of another.
    Hotswap,
    /// A forward without gradients of a batch with one adapter.
    Single,
    /// The same with an adapter for each sample, of eight in turn.
    Mixed,
}

impl Mode {
    /// What is done with adapters outside of training.
    pub const MANAGE: [Self; 6] = [Self::Switch, Self::Merge, Self::Unmerge, Self::Hotswap, Self::Single, Self::Mixed];

    /// The name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Train => "train",
            Self::Step => "step",
            Self::Switch => "switch",
            Self::Merge => "merge",
            Self::Unmerge => "unmerge",
            Self::Hotswap => "hotswap",
            Self::Single => "single",
            Self::Mixed => "mixed",
        }
    }
}

/// One way of computing a layer or a model.
pub trait Peer {
    /// Its name in tables.
    fn name(&self) -> &str;

    /// What is to be said of its figures.
    fn mark(&self) -> Option<&str> {
        None
    }

    /// How many parameters it trains.
    fn trainable(&self) -> Option<usize> {
        None
    }

    /// Whether it is measured in this mode.
    fn takes(&self, mode: Mode) -> bool;

    /// One call, in milliseconds.
    fn run(&mut self, mode: Mode) -> Result<f64>;
}

/// Milliseconds that `work` takes, the release of what it returns included.
pub fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    drop(work());
    1e3 * start.elapsed().as_secs_f64()
}
