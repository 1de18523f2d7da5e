//! What is done with adapters outside of training: switching between two, merging one, taking it out again.

use anyhow::{Result, bail};
use burn::tensor::Device;
use lowrank_burn::Adapters;

use super::models::Net;
use super::{ADAPTER, config};
use crate::peer::lowrank::LORA;
use crate::peer::{Mode, Peer, timed};

const OTHER: &str = "other";

/// A model with two adapters.
pub struct Manager<M> {
    model: Option<M>,
    adapters: Adapters,
}

impl<M: Net> Manager<M> {
    /// A model with random weights and adapters.
    pub fn new() -> Result<Self> {
        let mut adapters = Adapters::default();
        let model = adapters.attach(M::new(&Device::flex()), ADAPTER, &config::<M>(), 0)?;
        let model = adapters.attach(model, OTHER, &config::<M>(), 1)?;
        adapters.set_active(&[ADAPTER])?;
        Ok(Self { model: Some(model), adapters })
    }

    fn switch(&self) -> Result<f64> {
        let mut switched = Ok(());
        let ms = timed(|| switched = self.adapters.set_active(&[OTHER]));
        switched?;
        self.adapters.set_active(&[ADAPTER])?;
        Ok(ms)
    }

    fn merge(&mut self, merge: bool) -> Result<f64> {
        let Some(model) = self.model.take() else { bail!("an earlier merge has failed") };
        let mut merged = None;
        let merge_ms = timed(|| merged = Some(self.adapters.merge(model)));
        let Some(merged) = merged.transpose()? else { bail!("nothing was merged") };
        let unmerge_ms = timed(|| self.model = Some(self.adapters.unmerge(merged)));
        Ok(if merge { merge_ms } else { unmerge_ms })
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
        if mode == Mode::Switch { self.switch() } else { self.merge(mode == Mode::Merge) }
    }
}
