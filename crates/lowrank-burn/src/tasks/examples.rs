//! The examples of one split, as training sees them.

use std::fmt::Debug;

use burn::tensor::Tensor;
use lowrank::random::Random;
use lowrank::{Error, Result, Subject};
use serde::Serialize;

use super::Evaluation;
use crate::models::Network;

/// The examples of one split.
#[expect(clippy::len_without_is_empty, reason = "never empty: loading nothing is an error")]
pub trait Examples: Debug + Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// What one of them is called, such as `window`.
    fn unit(&self) -> &'static str;

    /// What is allowed but worth knowing.
    fn warnings(&self) -> &[String] {
        &[]
    }

    /// How many there are of each class, where there are classes.
    fn counts(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Their order in an epoch, a function of `(seed, epoch)` alone. Batches are its chunks; the last may be short.
    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        Random::new(seed, "shuffle", epoch).shuffle(&mut order);
        order
    }

    /// The mean loss of a batch, on the device of the network.
    ///
    /// # Errors
    /// When the network is not for this task.
    fn loss(&self, network: &Network, indices: &[usize]) -> Result<Tensor<1>>;

    /// The figures of all of them, in batches. The network has to be on a device without autodiff (`model.valid()`).
    ///
    /// # Errors
    /// When an output is not finite, or the network not for this task.
    fn evaluate(&self, network: &Network, batch_size: usize) -> Result<Evaluation>;

    /// What the network says about each. The device as in [`Examples::evaluate`].
    ///
    /// # Errors
    /// As [`Examples::evaluate`].
    fn predict(&self, network: &Network, batch_size: usize) -> Result<Predictions>;
}

/// What a network says about some examples.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Predictions {
    /// JSON objects, in the order of the examples.
    pub lines: Vec<String>,
    /// Lines of a CTM file (NIST: recording, channel, start and duration in seconds, word), where words have times.
    pub ctm: Vec<String>,
    /// What can be counted in them, such as `("windows", 120)`.
    pub counts: Vec<(&'static str, u64)>,
}

impl Predictions {
    /// Adds a line.
    ///
    /// # Errors
    /// When `line` cannot be JSON.
    pub fn push(&mut self, line: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(line).map_err(|error| Error::new(Subject::Data, error.to_string()))?;
        self.lines.push(text);
        Ok(())
    }

    /// Adds those of another split.
    pub fn extend(&mut self, other: Self) {
        self.lines.extend(other.lines);
        self.ctm.extend(other.ctm);
        for (name, count) in other.counts {
            match self.counts.iter_mut().find(|(own, _)| *own == name) {
                Some((_, own)) => *own += count,
                None => self.counts.push((name, count)),
            }
        }
    }
}
