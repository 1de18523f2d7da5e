//! What was measured, as it goes from the measuring process to the report and into JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::geometry::Geometry;
use crate::peer::Mode;
use crate::rounds::median;

/// All calls of one peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Series {
    /// The peer.
    pub peer: String,
    /// The median of the rounds.
    pub median_ms: f64,
    /// Every round, in order.
    pub rounds_ms: Vec<f64>,
}

impl Series {
    /// # Panics
    /// When there is no round.
    pub fn new(peer: &str, rounds_ms: Vec<f64>) -> Self {
        let rounds_ms: Vec<f64> = rounds_ms.into_iter().map(rounded).collect();
        Self { peer: peer.to_owned(), median_ms: rounded(median(&rounds_ms)), rounds_ms }
    }
}

/// One peer's time over another's: the median of the rounds' own ratios, which what slows a whole round does not touch.
pub fn ratio(series: &[Series], peer: &str, over: &str) -> Option<f64> {
    let rounds = |peer| series.iter().find(|series| series.peer == peer).map(|series| &series.rounds_ms);
    let ratios: Vec<f64> = rounds(peer)?.iter().zip(rounds(over)?).map(|(ms, over)| ms / over).collect();
    Some(median(&ratios))
}

/// Five digits, which is more than a clock is good for.
fn rounded(ms: f64) -> f64 {
    format!("{ms:.4e}").parse().unwrap_or(ms)
}

/// One layer at one rank in one mode, by all peers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Layer {
    /// What was computed.
    pub geometry: Geometry,
    /// The adapters' rank.
    pub rank: usize,
    /// What was timed.
    pub mode: Mode,
    /// By peer.
    pub series: Vec<Series>,
    /// Remarks by peer: what it could not do, or did otherwise.
    pub marks: BTreeMap<String, String>,
}

impl Layer {
    /// The median of a peer.
    pub fn ms(&self, peer: &str) -> Option<f64> {
        find(&self.series, peer)
    }

    /// One peer over another; see [`ratio`].
    pub fn ratio(&self, peer: &str, over: &str) -> Option<f64> {
        ratio(&self.series, peer, over)
    }
}

/// A whole training step of one model, by all peers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// The model.
    pub model: String,
    /// Examples a step.
    pub batch: usize,
    /// By peer.
    pub series: Vec<Series>,
    /// Trained parameters by peer.
    pub trainable: BTreeMap<String, usize>,
    /// Remarks by peer.
    pub marks: BTreeMap<String, String>,
    /// Peak memory of training above the idle process, in kilobytes, by peer.
    pub peak_kb: BTreeMap<String, u64>,
    /// Milliseconds to switch to another adapter, to merge one and to take it out again: ours, and PEFT's.
    pub manage: Vec<Manage>,
}

impl Step {
    /// The median of a peer.
    pub fn ms(&self, peer: &str) -> Option<f64> {
        find(&self.series, peer)
    }

    /// One peer over another; see [`ratio`].
    pub fn ratio(&self, peer: &str, over: &str) -> Option<f64> {
        ratio(&self.series, peer, over)
    }
}

/// What an adapter's life outside of training takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manage {
    /// Which part of it.
    pub mode: Mode,
    /// By peer.
    pub series: Vec<Series>,
}

/// A network that listens frame by frame, with a live adapter and without.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Streaming {
    /// How long the sound of a call is.
    pub seconds: f64,
    /// Frames of it.
    pub frames: usize,
    /// By peer.
    pub series: Vec<Series>,
}

fn find(series: &[Series], peer: &str) -> Option<f64> {
    series.iter().find(|series| series.peer == peer).map(|series| series.median_ms)
}

/// What the machine can do, measured every now and then during the run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ceilings {
    /// The `gemm` crate's product of two matrices of 2048 x 2048, in GFLOP/s.
    pub gemm_gflops: Vec<f64>,
    /// The triad `a = b + s * c` over large arrays, in GB/s; each array counted once.
    pub triad_gb_s: Vec<f64>,
}

impl Ceilings {
    /// The median rate of the matrix product, in GFLOP/s.
    pub fn gemm(&self) -> f64 {
        median(&self.gemm_gflops)
    }

    /// The median bandwidth, in GB/s.
    pub fn bandwidth(&self) -> f64 {
        median(&self.triad_gb_s)
    }
}

/// All that was measured with one number of threads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    /// Threads of every peer.
    pub threads: usize,
    /// Versions of what was measured.
    pub versions: Map<String, Value>,
    /// The machine's own rates; empty where there are only models.
    pub ceilings: Ceilings,
    /// The named layers.
    pub layers: Vec<Layer>,
    /// The same layer at one length after another.
    pub lengths: Vec<Layer>,
    /// The same layer at one rank after another.
    pub ranks: Vec<Layer>,
    /// The models.
    pub steps: Vec<Step>,
    /// Silero VAD as it listens.
    #[serde(default)]
    pub streaming: Option<Streaming>,
}

/// One run of the benchmark.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    /// How it was started.
    pub command: String,
    /// When it ended, in UTC.
    pub date: String,
    /// The machine.
    pub machine: crate::machine::Machine,
    /// Rounds at least.
    pub rounds: usize,
    /// One for every number of threads.
    pub parts: Vec<Part>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_those_of_the_rounds() {
        let series = [Series::new("a", vec![2.0, 30.0, 6.0]), Series::new("b", vec![1.0, 10.0, 4.0, 9.0])];
        assert_eq!(ratio(&series, "a", "b"), Some(2.0));
        assert_eq!(ratio(&series, "a", "c"), None);
    }
}
