//! A dilated temporal convolutional network for classification.
//!
//! A stem, residual blocks of two dilated convolutions each, the mean over time, and a linear head, after Bai, Kolter and
//! Koltun, "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence Modeling", 2018:
//!
//! `x = relu(stem(x))`; for every block `x = x + relu(conv2(drop(relu(conv1(x)))))`; `logits = head(mean_t(x))`.
//!
//! Module paths: `stem`, `blocks.{i}.conv1`, `blocks.{i}.conv2`, `head`.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, PaddingConfig1d};
use burn::tensor::{Device, Tensor};
use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::weight_norm::WeightNorm;
use crate::nn::{Conv1d, Conv1dConfig, Linear, LinearConfig};
use crate::ops::relu;

/// The keys of a TCN's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcnConfig {
    /// Channels of the signal.
    pub in_channels: usize,
    /// Channels of every hidden layer.
    pub channels: usize,
    /// Kernel of the stem.
    #[serde(default = "default_stem")]
    pub stem_kernel_size: usize,
    /// Kernel of the convolutions in the blocks.
    #[serde(default = "default_kernel")]
    pub kernel_size: usize,
    /// Dilation of each block.
    pub dilations: Vec<usize>,
    /// Whether a position sees only the past; otherwise every convolution is centred.
    #[serde(default)]
    pub causal: bool,
    /// Whether the weights of the convolutions are trained as direction and length (Salimans and Kingma, 2016). Files
    /// hold the folded weight.
    #[serde(default)]
    pub weight_norm: bool,
    /// Dropout between the two convolutions of a block.
    #[serde(default)]
    pub dropout: f64,
}

fn default_stem() -> usize {
    5
}

fn default_kernel() -> usize {
    3
}

impl TcnConfig {
    pub(super) fn from_map(keys: Map<String, Value>) -> Result<Self> {
        let config: Self = serde_json::from_value(Value::Object(keys)).map_err(|error| {
            Error::new(Subject::Model, error.to_string()).with_hint("see the keys of a `tcn`'s config.json")
        })?;
        let sizes = [
            ("in_channels", config.in_channels),
            ("channels", config.channels),
            ("stem_kernel_size", config.stem_kernel_size),
            ("kernel_size", config.kernel_size),
        ];
        let dilations = config.dilations.iter().map(|dilation| ("dilations", *dilation));
        let zero = |(key, _)| Error::new(Subject::Model, "out of range").at(key).found(0).expected("1 or more");
        let mut errors: Vec<_> = sizes.into_iter().chain(dilations).filter(|(_, size)| *size == 0).map(zero).collect();
        if !(0.0..1.0).contains(&config.dropout) {
            let range = Error::new(Subject::Model, "out of range").at("dropout");
            errors.push(range.found(config.dropout).expected("a number from 0 to below 1"));
        }
        Error::all(errors)?;
        Ok(config)
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct Tcn {
    /// From the signal's channels to the hidden ones.
    pub stem: Conv1d,
    /// One for each dilation.
    pub blocks: Vec<Block>,
    /// From the mean over time to the classes.
    pub head: Linear,
}

/// Two dilated convolutions beside a residual path.
#[derive(Module, Debug)]
pub struct Block {
    /// The first convolution.
    pub conv1: Conv1d,
    /// The second convolution.
    pub conv2: Conv1d,
    /// Between them.
    pub dropout: Dropout,
}

impl Tcn {
    /// A network with Burn's initialisation.
    #[must_use]
    pub fn new(config: &TcnConfig, classes: usize, device: &Device) -> Self {
        let conv = |channels_in, kernel_size: usize, dilation| {
            let span = dilation * (kernel_size - 1);
            let left = if config.causal { span } else { span / 2 };
            let settings = Conv1dConfig::new(channels_in, config.channels, kernel_size)
                .with_dilation(dilation)
                .with_padding(PaddingConfig1d::Explicit(left, span - left));
            let conv = Conv1d::new(&settings, device);
            if config.weight_norm { conv.apply_reparameterization(WeightNorm::attach()) } else { conv }
        };
        let block = |dilation: &usize| Block {
            conv1: conv(config.channels, config.kernel_size, *dilation),
            conv2: conv(config.channels, config.kernel_size, *dilation),
            dropout: DropoutConfig::new(config.dropout).init(),
        };
        Self {
            stem: conv(config.in_channels, config.stem_kernel_size, 1),
            blocks: config.dilations.iter().map(block).collect(),
            head: Linear::new(&LinearConfig::new(config.channels, classes), device),
        }
    }

    /// Logits of a batch of windows.
    ///
    /// # Shapes
    /// - input: `[batch, in_channels, samples]`
    /// - output: `[batch, classes]`
    #[must_use]
    pub fn forward(&self, input: Tensor<3>) -> Tensor<2> {
        let x = relu(self.stem.forward(input));
        let x = self.blocks.iter().fold(x, |x, block| {
            let h = block.dropout.forward(relu(block.conv1.forward(x.clone())));
            x + relu(block.conv2.forward(h))
        });
        self.head.forward(x.mean_dim(2).squeeze_dim(2))
    }
}

#[cfg(test)]
mod tests;
