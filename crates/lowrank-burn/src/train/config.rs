//! How a run trains: the `[train]` table of a run file.

use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};

use super::optim::{LoraPlus, OptimizerConfig};
use super::schedule::{Schedule, ScheduleKind, Warmup};
use crate::tasks::Task;

/// The names of the optimisers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// Adam with decoupled weight decay.
    #[default]
    AdamW,
    /// Stochastic gradient descent.
    Sgd,
}

/// Everything about training but the model and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training windows.
    pub epochs: u64,
    /// Optimiser steps, whatever the epochs come to.
    pub max_steps: Option<u64>,
    /// Windows in a batch.
    pub batch_size: usize,
    /// Windows in a batch of an evaluation.
    pub eval_batch_size: usize,
    /// Batches whose gradients are averaged for one step.
    pub gradient_accumulation_steps: usize,
    /// The optimiser.
    pub optimizer: OptimizerName,
    /// Learning rate at the peak of the schedule.
    pub learning_rate: f64,
    /// `AdamW`: how slowly the averages forget.
    pub betas: [f64; 2],
    /// `AdamW`: keeps the quotient finite.
    pub eps: f64,
    /// SGD: how slowly the buffer forgets.
    pub momentum: f64,
    /// Weight decay, decoupled for `AdamW`.
    pub weight_decay: f64,
    /// `LoRA+`: how many times the rate of A the rate of B is.
    pub loraplus_lr_ratio: Option<f64>,
    /// `LoRA+`: the rate of embeddings.
    pub loraplus_lr_embedding: f64,
    /// LoRA-FA: `A` stays as it began, and `B` trains with the gradient that comes nearest to that of the whole weight.
    pub lorafa: bool,
    /// Without an adapter: the modules and parameters that train, by name or the end of their path. None: all of them.
    pub trainable: Option<Vec<String>>,
    /// How the learning rate falls.
    pub schedule: ScheduleKind,
    /// Steps in which it rises, as a share of all.
    pub warmup_ratio: f64,
    /// Steps in which it rises; instead of `warmup_ratio`.
    pub warmup_steps: Option<u64>,
    /// Largest norm of a gradient; longer ones are shortened to it.
    pub max_grad_norm: Option<f64>,
    /// Probability mass that the target shares with the other classes.
    pub label_smoothing: f32,
    /// Transcription: largest change of speed with which a recording is learned; 0.1 is from nine tenths to eleven tenths.
    pub speed_perturbation: f32,
    /// Transcription: largest change of level with which a recording is learned, in dB.
    pub gain_perturbation: f32,
    /// Transcription: beams of an evaluation; 1 is greedy.
    pub num_beams: usize,
    /// Steps between evaluations on the `valid` split; without it, one an epoch.
    pub eval_every: Option<u64>,
    /// Evaluations without a better accuracy on `valid` before the run ends with the best parameters.
    pub early_stopping_patience: Option<u32>,
    /// Steps between checkpoints; without it, one an epoch, but not more than one a second.
    pub checkpoint_every: Option<u64>,
    /// Steps in a row that may be skipped for a loss or gradient that is not finite.
    pub max_skipped_steps: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            max_steps: None,
            batch_size: 16,
            eval_batch_size: 64,
            gradient_accumulation_steps: 1,
            optimizer: OptimizerName::AdamW,
            learning_rate: 1e-3,
            betas: [0.9, 0.999],
            eps: 1e-8,
            momentum: 0.9,
            weight_decay: 0.01,
            loraplus_lr_ratio: None,
            loraplus_lr_embedding: 1e-6,
            lorafa: false,
            trainable: None,
            schedule: ScheduleKind::Cosine,
            warmup_ratio: 0.1,
            warmup_steps: None,
            max_grad_norm: Some(1.0),
            label_smoothing: 0.0,
            speed_perturbation: 0.0,
            gain_perturbation: 0.0,
            num_beams: 1,
            eval_every: None,
            early_stopping_patience: None,
            checkpoint_every: None,
            max_skipped_steps: 5,
        }
    }
}

impl TrainConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// All values out of range, at once.
    pub fn validate(&self) -> Result<()> {
        let mut errors = Vec::new();
        let mut check = |key: &str, fine: bool, found: String, expected: &str| {
            if !fine {
                errors.push(Error::new(Subject::Config, "out of range").at(key).found(found).expected(expected));
            }
        };
        let positive = [
            ("epochs", self.epochs),
            ("batch_size", self.batch_size as u64),
            ("eval_batch_size", self.eval_batch_size as u64),
            ("num_beams", self.num_beams as u64),
            ("gradient_accumulation_steps", self.gradient_accumulation_steps as u64),
            ("max_steps", self.max_steps.unwrap_or(1)),
            ("eval_every", self.eval_every.unwrap_or(1)),
            ("checkpoint_every", self.checkpoint_every.unwrap_or(1)),
            ("max_skipped_steps", self.max_skipped_steps),
            ("early_stopping_patience", u64::from(self.early_stopping_patience.unwrap_or(1))),
        ];
        for (key, value) in positive {
            check(key, value > 0, value.to_string(), "1 or more");
        }
        let rate = self.learning_rate;
        check("learning_rate", rate.is_finite() && rate > 0.0, rate.to_string(), "a positive number");
        let smoothing = self.label_smoothing;
        check("label_smoothing", (0.0..1.0).contains(&smoothing), smoothing.to_string(), "a number from 0 to below 1");
        let speed = self.speed_perturbation;
        check("speed_perturbation", (0.0..=0.5).contains(&speed), speed.to_string(), "a number from 0 to 0.5");
        let gain = self.gain_perturbation;
        check("gain_perturbation", (0.0..=40.0).contains(&gain), gain.to_string(), "a number from 0 to 40");
        let norm = self.max_grad_norm.unwrap_or(1.0);
        check("max_grad_norm", norm.is_finite() && norm > 0.0, norm.to_string(), "a positive number");
        errors.extend(self.optimizer().validate().err());
        // How many steps there are is known when the data are read: no warm-up is too long before.
        errors.extend(self.schedule(self.warmup_steps.unwrap_or(1).max(1)).err());
        Error::all(errors)
    }

    /// Checks that nothing is set that means nothing for a task.
    ///
    /// # Errors
    /// All keys that do.
    pub(crate) fn check_for(&self, task: &Task) -> Result<()> {
        let transcribes = matches!(task, Task::Transcription(_));
        let searches = transcribes || matches!(task, Task::Ctc(_));
        let set = [
            ("speed_perturbation", self.speed_perturbation > 0.0 && !transcribes),
            ("gain_perturbation", self.gain_perturbation > 0.0 && !transcribes),
            ("num_beams", self.num_beams > 1 && !searches),
        ];
        let error =
            |key| Error::new(Subject::Config, "is for transcription, and this model does something else").at(key);
        Error::all(set.into_iter().filter(|(_, set)| *set).map(|(key, _)| error(key)).collect())
    }

    /// The optimiser's own settings.
    #[must_use]
    pub fn optimizer(&self) -> OptimizerConfig {
        let (betas, eps, weight_decay, momentum) = (self.betas, self.eps, self.weight_decay, self.momentum);
        match self.optimizer {
            OptimizerName::AdamW => OptimizerConfig::AdamW { betas, eps, weight_decay },
            OptimizerName::Sgd => OptimizerConfig::Sgd { momentum, nesterov: false, weight_decay },
        }
    }

    /// The rates of `LoRA+`, when asked for.
    #[must_use]
    pub fn loraplus(&self) -> Option<LoraPlus> {
        let loraplus_lr_embedding = self.loraplus_lr_embedding;
        self.loraplus_lr_ratio.map(|loraplus_lr_ratio| LoraPlus { loraplus_lr_ratio, loraplus_lr_embedding })
    }

    /// The learning rates of a run of `total` steps.
    ///
    /// # Errors
    /// When the warm-up is out of range.
    pub fn schedule(&self, total: u64) -> Result<Schedule> {
        let warmup = match self.warmup_steps {
            Some(steps) => Warmup::Steps(steps),
            None => Warmup::Ratio(self.warmup_ratio),
        };
        Schedule::new(self.schedule, self.learning_rate, warmup, total)
    }
}
