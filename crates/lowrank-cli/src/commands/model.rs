//! A model ready to be asked: a base directory, and an adapter on it.

use burn::tensor::Device;
use lowrank::Result;
use lowrank_burn::attach::DEFAULT;
use lowrank_burn::data::{Dataset, Manifest, Reading};
use lowrank_burn::models::{BaseModel, ModelConfig, Network};
use lowrank_burn::train::{Prediction, evaluate};

use crate::args::ModelArgs;
use crate::output::Output;

/// A network and what goes with it.
pub struct Model {
    /// What its `config.json` says.
    pub config: ModelConfig,
    network: Network,
    reading: Reading,
    batch_size: usize,
    device: Device,
}

impl Model {
    /// Loads what the arguments name.
    ///
    /// # Errors
    /// When a file is missing or malformed, or the adapter does not fit the base.
    pub fn load(args: &ModelArgs, output: Output) -> Result<Self> {
        let device = Device::flex();
        let BaseModel { config, network } = BaseModel::load(&args.model, &device, args.dtype)?;
        let network = match &args.adapter {
            Some(dir) => {
                let (network, adapters) = lowrank_burn::load(network, dir)?;
                adapters.warnings(DEFAULT)?.iter().for_each(|warning| output.warn(warning));
                network
            }
            None => network,
        };
        let (series_rate, mix_to_mono, skip_short) = (args.sample_rate, args.mix_to_mono, args.skip_short);
        let reading = Reading { series_rate, mix_to_mono, skip_short };
        Ok(Self { config, network, reading, batch_size: args.batch_size.get(), device })
    }

    /// A manifest, read as the arguments say.
    pub fn read_as_asked(&self, mut manifest: Manifest) -> Manifest {
        manifest.reading = self.reading;
        manifest
    }

    /// The logits of every window, in order.
    ///
    /// # Errors
    /// When the windows do not fit the network, or a logit is not finite.
    pub fn logits(&self, dataset: &Dataset) -> Result<Vec<Vec<f32>>> {
        evaluate::logits(&self.network, dataset, &self.config.normalization, self.batch_size, &self.device)
    }

    /// What the network says about every window.
    ///
    /// # Errors
    /// As [`Self::logits`].
    pub fn predictions(&self, dataset: &Dataset) -> Result<Vec<Prediction>> {
        Ok(evaluate::predictions(self.logits(dataset)?, dataset, self.config.signal.rate))
    }
}
