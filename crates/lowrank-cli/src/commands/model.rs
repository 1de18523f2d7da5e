//! A model ready to be asked: a base directory, and an adapter on it.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use lowrank::Result;
use lowrank_burn::attach::DEFAULT;
use lowrank_burn::data::{Reading, Split};
use lowrank_burn::models::{BaseModel, ModelConfig, Network};
use lowrank_burn::tasks::{Evaluation, Examples, Manifest, Predictions};
use lowrank_burn::train::TrainConfig;

use crate::args::ModelArgs;
use crate::output::Output;

/// A network and what goes with it.
pub struct Model {
    config: ModelConfig,
    network: Network,
    reading: Reading,
    batch_size: usize,
    beams: usize,
    output: Output,
}

impl Model {
    /// Loads what the arguments name.
    ///
    /// # Errors
    /// When a file is missing or malformed, or the adapter does not fit the base.
    pub fn load(args: &ModelArgs, output: Output) -> Result<Self> {
        let BaseModel { config, network } = BaseModel::load(&args.model, &Device::flex(), args.dtype)?;
        let network = match &args.adapter {
            Some(dir) => {
                let (network, adapters) = lowrank_burn::load(network, dir)?;
                adapters.warnings(DEFAULT)?.iter().for_each(|warning| output.warn(warning));
                network
            }
            None => network,
        };
        let (series_rate, mix_to_mono, skip_short) = (args.sample_rate, args.mix_to_mono, args.skip_short);
        let reading = Reading { series_rate, mix_to_mono, skip_short, window_seconds: args.window_seconds };
        let (batch_size, beams) = (args.batch_size.get(), args.num_beams.get());
        Ok(Self { config, network, reading, batch_size, beams, output })
    }

    /// The recordings that a manifest lists for the model's task.
    ///
    /// # Errors
    /// See [`Manifest::read`].
    pub fn manifest(&self, path: &Path) -> Result<Manifest> {
        Manifest::read(path, Some(&self.config.task), self.reading)
    }

    /// Recordings without a manifest.
    ///
    /// # Errors
    /// See [`Manifest::of_recordings`].
    pub fn recordings(&self, paths: &[PathBuf]) -> Result<Manifest> {
        Manifest::of_recordings(paths, &self.config.task, self.reading)
    }

    /// How well it does on a split.
    ///
    /// # Errors
    /// When a recording cannot be used, or an output is not finite.
    pub fn evaluate(&self, manifest: &Manifest, split: Split) -> Result<Evaluation> {
        self.examples(manifest, split)?.evaluate(&self.network, self.batch_size)
    }

    /// What it says about the examples of a split.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn predict(&self, manifest: &Manifest, split: Split) -> Result<Predictions> {
        self.examples(manifest, split)?.predict(&self.network, self.batch_size)
    }

    fn examples(&self, manifest: &Manifest, split: Split) -> Result<Box<dyn Examples>> {
        let config = TrainConfig { num_beams: self.beams, ..TrainConfig::default() };
        let examples = self.config.task.load(manifest, split, &config)?;
        examples.warnings().iter().for_each(|warning| self.output.warn(warning));
        Ok(examples)
    }
}
