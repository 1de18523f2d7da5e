//! A whole training step: forward, loss, backward, `AdamW` on the adapters.
//!
//! The optimiser is that of `lowrank_burn::train`, on all trained values as one vector.

use anyhow::Result;
use burn::tensor::Device;
use lowrank_burn::train::Trainable;
use lowrank_burn::train::optim::{Optimizer, OptimizerConfig};

use super::models::{Batch, Net};
use super::{ADAPTER, config};
use crate::peer::lowrank::LORA;
use crate::peer::{Mode, Peer, timed};

const LEARNING_RATE: f64 = 1e-4;

/// A model in training.
pub struct Trainer<M> {
    model: Option<M>,
    trainable: Trainable,
    params: Vec<f32>,
    gradients: Vec<f32>,
    optimizer: Optimizer,
    batch: Batch,
}

impl<M: Net> Trainer<M> {
    /// A model with random weights and adapters, on a random batch.
    pub fn new(examples: usize) -> Result<Self> {
        let device = Device::flex().autodiff();
        device.seed(0);
        let (model, adapters) = lowrank_burn::attach(M::new(&device), &config::<M>(), 0)?;
        let trainable = Trainable::of_adapter(&adapters, ADAPTER)?;
        let slots = trainable.slots().to_vec();
        Ok(Self {
            params: trainable.read(&model),
            gradients: vec![0.0; trainable.len()],
            optimizer: Optimizer::new(OptimizerConfig::default(), LEARNING_RATE, None, slots)?,
            model: Some(model),
            trainable,
            batch: Batch::new::<M>(examples, &device),
        })
    }

    /// Takes a step and returns the loss before it.
    fn step(&mut self) -> Result<f32> {
        let Some(model) = self.model.take() else { anyhow::bail!("an earlier step has failed") };
        let loss = model.loss(&self.batch);
        self.gradients.fill(0.0);
        self.trainable.add_gradients(&model, &loss.backward(), 1.0, &mut self.gradients);
        self.optimizer.step(LEARNING_RATE, &mut self.params, &self.gradients)?;
        self.model = Some(self.trainable.write(model, &self.params));
        Ok(loss.into_scalar::<f32>())
    }
}

impl<M: Net> Peer for Trainer<M> {
    fn name(&self) -> &str {
        LORA
    }

    fn takes(&self, mode: Mode) -> bool {
        mode == Mode::Step
    }

    fn trainable(&self) -> Option<usize> {
        Some(self.trainable.len())
    }

    fn run(&mut self, _mode: Mode) -> Result<f64> {
        let mut loss = Ok(0.0);
        // As `lowrank_burn::train` does.
        let ms = timed(|| loss = lowrank::threads::awake(|| self.step()));
        let loss = loss?;
        anyhow::ensure!(loss.is_finite(), "the loss is {loss}");
        Ok(ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::models::tcn::Tcn;

    #[test]
    fn the_loss_goes_down() {
        let mut trainer = Trainer::<Tcn>::new(4).unwrap();
        let first = trainer.step().unwrap();
        let last = (0..40).map(|_| trainer.step().unwrap()).last().unwrap();
        assert!(last < first, "{first} to {last}");
    }
}
