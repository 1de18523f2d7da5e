//! What is done with adapters outside of training: switching between two, merging one, taking it out again, reading another
//! into its place, and batches in which every sample has its own.

use anyhow::{Result, bail};
use burn::tensor::Device;
use lowrank_burn::Adapters;
use tempfile::TempDir;

use super::models::{Batch, Net};
use super::{ADAPTER, config};
use crate::peer::lowrank::LORA;
use crate::peer::{Mode, Peer, timed};

/// The adapters of a mixed batch.
const NAMES: [&str; 8] = [ADAPTER, OTHER, "third", "fourth", "fifth", "sixth", "seventh", "eighth"];
const OTHER: &str = "other";

/// A model with eight adapters, one of them active.
pub struct Manager<M> {
    model: Option<M>,
    adapters: Adapters,
    /// A batch, and the adapter of each sample: neighbours have different ones.
    batch: Batch,
    samples: Vec<&'static str>,
    /// Another adapter on disk.
    folder: TempDir,
}

impl<M: Net> Manager<M> {
    /// A model with random weights and adapters, on a random batch of at least a sample for each.
    pub fn new(examples: usize) -> Result<Self> {
        let device = Device::flex();
        let (mut model, mut adapters) = (M::new(&device), Adapters::default());
        for (seed, name) in (0..).zip(NAMES) {
            model = adapters.attach(model, name, &config::<M>(), seed)?;
        }
        adapters.set_active(&[ADAPTER])?;
        let folder = tempfile::tempdir()?;
        adapters.save(&model, OTHER, &folder.path().join(OTHER), None)?;
        let examples = examples.max(NAMES.len());
        let samples = NAMES.into_iter().cycle().take(examples).collect();
        Ok(Self { model: Some(model), adapters, batch: Batch::new::<M>(examples, &device), samples, folder })
    }

    fn switch(&self) -> Result<f64> {
        let mut switched = Ok(());
        let ms = timed(|| switched = self.adapters.set_active(&[OTHER]));
        switched?;
        self.adapters.set_active(&[ADAPTER])?;
        Ok(ms)
    }

    fn merge(&mut self, merge: bool) -> Result<f64> {
        let model = self.taken()?;
        let mut merged = None;
        let merge_ms = timed(|| merged = Some(self.adapters.merge(model)));
        let Some(merged) = merged.transpose()? else { bail!("nothing was merged") };
        let unmerge_ms = timed(|| self.model = Some(self.adapters.unmerge(merged)));
        Ok(if merge { merge_ms } else { unmerge_ms })
    }

    fn hotswap(&mut self) -> Result<f64> {
        let (model, dir) = (self.taken()?, self.folder.path().join(OTHER));
        let mut swapped = None;
        let ms = timed(|| swapped = Some(self.adapters.hotswap(model, ADAPTER, &dir)));
        self.model = swapped.transpose()?;
        Ok(ms)
    }

    /// A forward; as in training, from a thread of the pool.
    fn forward(&self, mixed: bool) -> Result<f64> {
        let Some(model) = &self.model else { bail!("an earlier merge has failed") };
        let loss = || model.loss(&self.batch).into_scalar::<f32>();
        let run = || if mixed { self.adapters.mixed(&self.samples, loss) } else { Ok(loss()) };
        let mut result = Ok(0.0);
        let ms = timed(|| result = rayon::join(run, || ()).0);
        anyhow::ensure!(result?.is_finite(), "the loss is not finite");
        Ok(ms)
    }

    fn taken(&mut self) -> Result<M> {
        let Some(model) = self.model.take() else { bail!("an earlier merge has failed") };
        Ok(model)
    }
}

impl<M: Net> Peer for Manager<M> {
    fn name(&self) -> &str {
        LORA
    }

    fn takes(&self, mode: Mode) -> bool {
        Mode::MANAGE.contains(&mode)
    }

    fn run(&mut self, mode: Mode) -> Result<f64> {
        match mode {
            Mode::Switch => self.switch(),
            Mode::Hotswap => self.hotswap(),
            Mode::Single | Mode::Mixed => self.forward(mode == Mode::Mixed),
            _ => self.merge(mode == Mode::Merge),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::models::tcn::Tcn;

    #[test]
    fn everything_that_is_measured_runs_and_leaves_the_model_there() {
        let mut manager = Manager::<Tcn>::new(2).unwrap();
        assert_eq!(manager.samples.len(), NAMES.len());
        for mode in Mode::MANAGE.into_iter().chain(Mode::MANAGE) {
            assert!(manager.run(mode).unwrap() >= 0.0);
        }
    }
}
