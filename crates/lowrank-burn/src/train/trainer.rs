//! One optimiser step after another.

use burn::tensor::Device;
use lowrank::random::Random;
use lowrank::{Error, Result, Subject};

use super::config::TrainConfig;
use super::flat::Trainable;
use super::gradient::{clip_norm, non_finite, norm};
use super::lorafa::Projections;
use super::optim::Optimizer;
use super::schedule::Schedule;
use crate::models::Network;
use crate::tasks::Examples;

/// A network in training: its parameters that train, the optimiser, and where in the data it is.
pub(super) struct Trainer<'a> {
    pub network: Network,
    pub trainable: Trainable,
    /// The values of `trainable`, which the network holds too.
    pub params: Vec<f32>,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
    /// Steps done, skipped ones included.
    pub step: u64,
    pub skipped: u64,
    skipped_in_a_row: u64,
    data: &'a dyn Examples,
    config: &'a TrainConfig,
    device: Device,
    seed: u64,
    /// The order of the examples in an epoch.
    order: (u64, Vec<usize>),
    /// With LoRA-FA.
    projections: Option<Projections>,
}

/// What a step did.
pub(super) enum Step {
    Taken { loss: f64, learning_rate: f64, grad_norm: f64 },
    Skipped(String),
}

impl<'a> Trainer<'a> {
    /// A network before its first step, on a device with autodiff.
    pub fn new(
        network: Network,
        trainable: Trainable,
        data: &'a dyn Examples,
        config: &'a TrainConfig,
        seed: u64,
    ) -> Result<Self> {
        let device = network.device();
        let peak = config.learning_rate;
        let optimizer = Optimizer::new(config.optimizer(), peak, config.loraplus(), trainable.slots().to_vec())?;
        Ok(Self {
            params: trainable.read(&network),
            network,
            trainable,
            optimizer,
            schedule: config.schedule(total_steps(data, config))?,
            step: 0,
            skipped: 0,
            skipped_in_a_row: 0,
            data,
            config,
            device,
            seed,
            order: (0, data.order(seed, 0)),
            projections: None,
        })
    }

    /// With other gradients for the `B`s, where there are any: LoRA-FA.
    pub fn with_projections(self, projections: Option<Projections>) -> Self {
        Self { projections, ..self }
    }

    /// Steps of the whole run.
    pub fn total(&self) -> u64 {
        self.schedule.total_steps()
    }

    /// Steps in an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        steps_per_epoch(self.data, self.config)
    }

    /// The epoch of the next step.
    pub fn epoch(&self) -> u64 {
        self.step / self.steps_per_epoch()
    }

    /// Puts other values into the network.
    pub fn set_params(&mut self, params: Vec<f32>) {
        self.network = self.trainable.write(self.network.clone(), &params);
        self.params = params;
    }

    /// Puts what a checkpoint has of the adapter beside its parameters into the network.
    pub fn set_frozen(&mut self, frozen: &[f32]) -> Result<()> {
        self.network = self.trainable.write_frozen(self.network.clone(), frozen)?;
        Ok(())
    }

    /// Takes the next step.
    ///
    /// Everything random in it, dropout and the order of the examples, is a function of the seed and the step's number, so
    /// that a resumed run takes the same one.
    ///
    /// # Errors
    /// When too many steps in a row had to be skipped: the run has diverged.
    pub fn step(&mut self) -> Result<Step> {
        let learning_rate = self.schedule.lr(self.step);
        self.device.seed(Random::new(self.seed, "dropout", self.step).bits());
        // On a thread of the pool: from any other, every kernel would first be handed over to it.
        let (loss, mut grads) = lowrank::threads::awake(|| self.gradients())?;
        self.step += 1;
        if let Some(reason) = self.unusable(loss, &grads) {
            return self.skip(reason);
        }
        self.skipped_in_a_row = 0;
        if let Some(projections) = &self.projections {
            projections.apply(&mut grads);
        }
        let grad_norm = match self.config.max_grad_norm {
            Some(max) => clip_norm(&mut grads, max),
            None => norm(&grads),
        };
        self.optimizer.step(learning_rate, &mut self.params, &grads)?;
        self.network = self.trainable.write(self.network.clone(), &self.params);
        Ok(Step::Taken { loss, learning_rate, grad_norm })
    }

    /// Mean loss and mean gradient over the batches of a step.
    fn gradients(&mut self) -> Result<(f64, Vec<f32>)> {
        let batches = self.batches();
        #[expect(clippy::cast_precision_loss, reason = "a handful of batches")]
        let weight = 1.0 / batches.len() as f32;
        let (mut mean_loss, mut grads) = (0.0, vec![0.0; self.trainable.len()]);
        for indices in batches {
            let loss = self.data.loss(&self.network, &indices)?;
            mean_loss += f64::from(weight) * f64::from(loss.clone().into_scalar::<f32>());
            self.trainable.add_gradients(&self.network, &loss.backward(), weight, &mut grads);
        }
        Ok((mean_loss, grads))
    }

    /// The examples of this step, batch by batch. A step never reaches into the next epoch.
    fn batches(&mut self) -> Vec<Vec<usize>> {
        let epoch = self.epoch();
        if self.order.0 != epoch {
            self.order = (epoch, self.data.order(self.seed, epoch));
        }
        let accumulated = self.config.gradient_accumulation_steps;
        let first = usize::try_from(self.step % self.steps_per_epoch()).unwrap_or(0) * accumulated;
        self.order.1.chunks(self.config.batch_size).skip(first).take(accumulated).map(<[usize]>::to_vec).collect()
    }

    fn unusable(&self, loss: f64, grads: &[f32]) -> Option<String> {
        if !loss.is_finite() {
            return Some(format!("the loss is {loss}"));
        }
        non_finite(self.trainable.slots(), grads).map(|culprit| format!("the gradient {culprit}"))
    }

    fn skip(&mut self, reason: String) -> Result<Step> {
        self.skipped += 1;
        self.skipped_in_a_row += 1;
        if self.skipped_in_a_row < self.config.max_skipped_steps {
            return Ok(Step::Skipped(reason));
        }
        Err(Error::new(
            Subject::Diverged,
            format!("{} steps in a row were not finite; {reason}", self.skipped_in_a_row),
        )
        .at(format_args!("step {}", self.step))
        .with_hint("lower learning_rate, or set max_grad_norm; the last checkpoint is intact"))
    }

    /// What a checkpoint has to know beside the progress, and what it gives back.
    pub fn counters(&self) -> [(&'static str, u64); 2] {
        [("skipped_steps", self.skipped), ("skipped_in_a_row", self.skipped_in_a_row)]
    }

    /// Takes the counters of a checkpoint over.
    pub fn restore_counters(&mut self, value: impl Fn(&str) -> u64) {
        self.skipped = value("skipped_steps");
        self.skipped_in_a_row = value("skipped_in_a_row");
    }
}

fn steps_per_epoch(data: &dyn Examples, config: &TrainConfig) -> u64 {
    data.len().div_ceil(config.batch_size).div_ceil(config.gradient_accumulation_steps) as u64
}

/// Steps of a whole run.
pub(super) fn total_steps(data: &dyn Examples, config: &TrainConfig) -> u64 {
    config.max_steps.unwrap_or_else(|| config.epochs.saturating_mul(steps_per_epoch(data, config)))
}
