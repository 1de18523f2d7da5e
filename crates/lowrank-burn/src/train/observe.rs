//! What a run tells whoever watches it, and how it is asked to stop.

use crate::tasks::Evaluation;

/// Something that happened in a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Everything is loaded and the first step is next.
    Started {
        /// Steps of the whole run.
        total: u64,
        /// Steps in an epoch.
        steps_per_epoch: u64,
        /// Parameters that train.
        trainable: usize,
        /// All parameters.
        all: usize,
        /// Examples to train on.
        examples: usize,
        /// What one of them is called, such as `window`.
        unit: &'static str,
    },
    /// The run goes on from a checkpoint.
    Resumed {
        /// Steps done before.
        step: u64,
    },
    /// A step was taken.
    Step {
        /// Steps done, this one included.
        step: u64,
        /// Steps of the whole run.
        total: u64,
        /// Mean loss of its batches.
        loss: f64,
        /// Its learning rate.
        learning_rate: f64,
        /// Length of its gradient before clipping.
        grad_norm: f64,
    },
    /// A step was skipped and the parameters left as they were.
    Skipped {
        /// Steps done, this one included.
        step: u64,
        /// What was not finite.
        reason: String,
    },
    /// A split was evaluated.
    Evaluated {
        /// Steps done.
        step: u64,
        /// `before`, `valid` or `after`.
        name: &'static str,
        /// The figures.
        evaluation: &'a Evaluation,
    },
    /// A checkpoint is safe on the medium.
    Checkpointed {
        /// Steps done.
        step: u64,
    },
    /// Something the user should know, though the run goes on.
    Warning(&'a str),
}

/// Watches a run.
pub trait Observer {
    /// Called for every event, in order.
    fn event(&mut self, event: &Event<'_>);

    /// Asked before every step: whether to save a checkpoint and stop.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Watches nothing and never stops.
impl Observer for () {
    fn event(&mut self, _event: &Event<'_>) {}
}
