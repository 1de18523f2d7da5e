//! The keys of a `config.json`.

use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::models::huggingface as hf;

/// What transformers' `SpeechT5HifiGanConfig` says, with its defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HifiGanConfig {
    /// Bins of the spectrogram.
    pub model_in_dim: usize,
    /// Samples a second of the waveform, in Hz.
    pub sampling_rate: usize,
    /// Channels before the first upsampling, each of which halves them.
    pub upsample_initial_channel: usize,
    /// Strides of the transposed convolutions.
    pub upsample_rates: Vec<usize>,
    /// Their kernels.
    pub upsample_kernel_sizes: Vec<usize>,
    /// Kernels of the residual blocks after each.
    pub resblock_kernel_sizes: Vec<usize>,
    /// Dilations of each of these blocks.
    pub resblock_dilation_sizes: Vec<Vec<usize>>,
    /// Of the activations.
    pub leaky_relu_slope: f64,
    /// Whether the spectrogram is normalised by the checkpoint's `mean` and `scale`.
    pub normalize_before: bool,
    /// Keys that change nothing here, kept for a rewrite.
    #[serde(flatten)]
    pub kept: Map<String, Value>,
}

impl Default for HifiGanConfig {
    fn default() -> Self {
        Self {
            model_in_dim: 80,
            sampling_rate: 16_000,
            upsample_initial_channel: 512,
            upsample_rates: vec![4; 4],
            upsample_kernel_sizes: vec![8; 4],
            resblock_kernel_sizes: vec![3, 7, 11],
            resblock_dilation_sizes: vec![vec![1, 3, 5]; 3],
            leaky_relu_slope: 0.1,
            normalize_before: true,
            kept: Map::new(),
        }
    }
}

impl HifiGanConfig {
    pub(in crate::models) fn from_map(keys: Map<String, Value>) -> Result<Self> {
        let config: Self = hf::parse("speecht5_hifigan", keys)?;
        let mut errors = config.misfits();
        let fields = serde_json::to_value(Self::default()).ok().and_then(|fields| fields.as_object().cloned());
        errors.extend(hf::unknown(&config.kept, &[], &fields.unwrap_or_default()));
        Error::all(errors)?;
        Ok(config)
    }

    fn misfits(&self) -> Vec<Error> {
        let lists = [
            ("upsample_rates", &self.upsample_rates),
            ("upsample_kernel_sizes", &self.upsample_kernel_sizes),
            ("resblock_kernel_sizes", &self.resblock_kernel_sizes),
        ];
        let each = lists.iter().flat_map(|(key, list)| list.iter().map(move |size| (*key, *size)));
        let dilations = self.resblock_dilation_sizes.iter().flatten().map(|size| ("resblock_dilation_sizes", *size));
        let sizes = [("model_in_dim", self.model_in_dim), ("upsample_rates", self.upsample_rates.len())];
        let mut errors = hf::zeros(sizes.into_iter().chain(each).chain(dilations));
        let counts = [
            ("upsample_kernel_sizes", self.upsample_kernel_sizes.len(), self.upsample_rates.len()),
            ("resblock_dilation_sizes", self.resblock_dilation_sizes.len(), self.resblock_kernel_sizes.len()),
        ];
        for (key, found, expected) in counts.into_iter().filter(|(_, found, expected)| found != expected) {
            errors.push(Error::new(Subject::Model, "wrong number of values").at(key).found(found).expected(expected));
        }
        let halvings = u32::try_from(self.upsample_rates.len()).unwrap_or(u32::MAX);
        if self.upsample_initial_channel.checked_shr(halvings).unwrap_or(0) == 0 {
            let error = Error::new(Subject::Model, "too few channels to be halved so often");
            errors.push(error.at("upsample_initial_channel").found(self.upsample_initial_channel));
        }
        errors
    }
}
