//! Whisper (Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022): speech to text.
//!
//! The network, its configuration and its module paths are those of transformers' `WhisperForConditionalGeneration`:
//! `model.encoder.conv1`, `model.decoder.layers.{i}.encoder_attn.q_proj`. A folder that `save_pretrained` wrote is a base
//! here. `proj_out` is the table of tokens, as in every published checkpoint, and no module of its own: it takes no adapter.
//! An adapter on `embed_tokens` counts in the logits too, as it does once it is merged.
//!
//! [`LogMel`] makes what the encoder reads, [`Generation`] says how a text begins and ends, and [`Whisper::generate`] writes it:
//! greedily, or by beam search as transformers' `generate` does it for one window.

mod attention;
mod beam;
mod config;
mod decoder;
mod encoder;
mod generation;
mod greedy;
mod mel;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use lowrank::{Error, Result, Subject};

pub use attention::{Attention, Seen};
pub use config::WhisperConfig;
pub use decoder::{Cache, Decoder, DecoderLayer};
pub use encoder::{Encoder, EncoderLayer};
pub use generation::Generation;
pub use mel::{LogMel, POSITIONS_A_SECOND, RATE, longest_window};

use crate::values;

/// The network.
#[derive(Module, Debug)]
pub struct Whisper {
    /// All of it: the projection to the logits is the decoder's table of tokens.
    pub model: WhisperModel,
}

/// Encoder and decoder.
#[derive(Module, Debug)]
pub struct WhisperModel {
    /// What hears.
    pub encoder: Encoder,
    /// What writes.
    pub decoder: Decoder,
}

/// A text as it was generated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Generated {
    /// Its tokens, without the prompt and the token that ends it.
    pub tokens: Vec<u32>,
    /// The logarithm of the probability that the network gives each token after those before it.
    pub log_probs: Vec<f32>,
}

impl Whisper {
    /// A network with Burn's initialisation.
    #[must_use]
    pub fn new(config: &WhisperConfig, device: &Device) -> Self {
        Self { model: WhisperModel { encoder: Encoder::new(config, device), decoder: Decoder::new(config, device) } }
    }

    /// Rows of the spectrograms it reads.
    #[must_use]
    pub fn mel_bins(&self) -> usize {
        self.model.encoder.conv1.weight.lazy_shape()[1]
    }

    /// What the encoder makes of windows.
    ///
    /// # Shapes
    /// - input: `[batch, num_mel_bins, frames]`
    /// - output: `[batch, frames / 2, d_model]`
    ///
    /// # Errors
    /// When the windows are longer than the network's positions.
    pub fn hear(&self, input: Tensor<3>) -> Result<Tensor<3>> {
        let (positions, frames) = (self.model.encoder.embed_positions.weight.lazy_shape()[0], input.dims()[2]);
        if frames.div_ceil(2) > positions {
            return Err(Error::new(Subject::Model, "the window is longer than the network's")
                .found(format!("{frames} frames"))
                .expected(format!("at most {}", 2 * positions)));
        }
        Ok(self.model.encoder.forward(input))
    }

    /// Hidden states of the decoder for given tokens; [`Decoder::logits`] makes logits of them.
    ///
    /// # Shapes
    /// - heard: `[batch, time, d_model]`, from [`Self::hear`]
    /// - tokens: `[batch, length]`
    /// - output: `[batch, length, d_model]`
    ///
    /// # Panics
    /// When the texts are longer than the network's positions.
    #[must_use]
    pub fn follow(&self, heard: &Tensor<3>, tokens: Tensor<2, Int>) -> Tensor<3> {
        let mut cache = self.model.decoder.begin(heard);
        self.model.decoder.forward(tokens, &mut cache)
    }

    /// The text of every window of a batch `[batch, time, d_model]`, by so many beams; one beam is greedy.
    ///
    /// # Errors
    /// When a logit is not finite.
    ///
    /// # Panics
    /// When texts may be longer than the network's positions.
    pub fn generate(&self, heard: &Tensor<3>, generation: &Generation, beams: usize) -> Result<Vec<Generated>> {
        if beams > 1 { beam::search(self, heard, generation, beams) } else { greedy::search(self, heard, generation) }
    }

    /// Feeds tokens, so many for each row, and tells of each row the logarithms of the probabilities of the next one.
    fn next(&self, tokens: &[u32], rows: usize, cache: &mut Cache) -> Result<Vec<Vec<f32>>> {
        let decoder = &self.model.decoder;
        let hidden = decoder.forward(ids(tokens, rows, &decoder.embed_tokens.weight.device()), cache);
        let [_, length, _] = hidden.dims();
        let logits = decoder.logits(hidden.narrow(1, length - 1, 1).squeeze_dim(1));
        let vocabulary = logits.dims()[1];
        values::of(logits).chunks(vocabulary).map(log_softmax).collect()
    }
}

/// Tokens as a tensor `[rows, tokens / rows]`.
pub(crate) fn ids(tokens: &[u32], rows: usize, device: &Device) -> Tensor<2, Int> {
    let shape = [rows, tokens.len() / rows.max(1)];
    let tokens: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
    Tensor::from_data(TensorData::new(tokens, shape), device)
}

/// `xᵢ - log Σ e^xⱼ`.
fn log_softmax(logits: &[f32]) -> Result<Vec<f32>> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Single precision would lose the smallest of some ten thousand tokens.
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - largest).exp())).sum();
    let log = sum.ln() + f64::from(largest);
    if log.is_finite() {
        #[expect(clippy::cast_possible_truncation, reason = "a logarithm of a probability in single precision")]
        return Ok(logits.iter().map(|logit| (f64::from(*logit) - log) as f32).collect());
    }
    Err(Error::new(Subject::Diverged, "the network's output is not finite")
        .with_hint("the weights or the adapter are broken: `lowrank inspect` counts non-finite values"))
}

#[cfg(test)]
mod tests;
