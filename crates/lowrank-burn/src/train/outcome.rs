//! What came of a run: `result.json`.

use serde::{Deserialize, Serialize};

use crate::tasks::Evaluation;

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The `test` split before training; none without such a split, or when the model is new.
    pub before: Option<Evaluation>,
    /// The `test` split after training; none without such a split.
    pub after: Option<Evaluation>,
    /// The last evaluation on the `valid` split; the best one with early stopping.
    pub valid: Option<Evaluation>,
    /// Parameters that trained.
    pub trainable_parameters: usize,
    /// All parameters, the trained ones included.
    pub all_parameters: usize,
    /// Bytes of the adapter's folder; none for full training.
    pub adapter_bytes: Option<u64>,
    /// Steps of the schedule that were done, skipped ones included.
    pub steps: u64,
    /// Steps skipped because the loss or the gradient was not finite.
    pub skipped_steps: u64,
    /// The step whose parameters were kept, when early stopping chose one.
    pub best_step: Option<u64>,
    /// Whether early stopping ended the run.
    pub stopped_early: bool,
    /// The mean training loss of the last step.
    pub final_loss: Option<f64>,
    /// Seconds of training, loading and evaluation, interruptions left out.
    pub seconds: f64,
    /// The run's folder; the adapter is in `adapter` in it, a base model that was trained in `model`.
    pub output: String,
}
