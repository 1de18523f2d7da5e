//! The encoder that wav2vec 2.0 and `HuBERT` share, and the heads on it.

use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor};

use super::config::SpeechConfig;
use super::encoder::Encoder;
use super::features::{FeatureEncoder, FeatureProjection};
use crate::nn::{Linear, LinearConfig};
use crate::ops::softmax;

/// transformers' `Wav2Vec2Model` and `HubertModel`.
#[derive(Module, Debug)]
pub struct SpeechModel {
    /// Stands for masked positions in training with `SpecAugment`; a part of the checkpoint without effect here.
    pub masked_spec_embed: Option<Param<Tensor<1>>>,
    /// From samples to features.
    pub feature_extractor: FeatureEncoder,
    /// To the transformer's width.
    pub feature_projection: FeatureProjection,
    /// The transformer.
    pub encoder: Encoder,
}

impl SpeechModel {
    /// A model with Burn's initialisation.
    #[must_use]
    pub fn new(config: &SpeechConfig, device: &Device) -> Self {
        let masks = config.mask_time_prob > 0.0 || config.mask_feature_prob > 0.0;
        Self {
            masked_spec_embed: masks.then(|| Param::from_tensor(Tensor::zeros([config.hidden_size], device))),
            feature_extractor: FeatureEncoder::new(config, device),
            feature_projection: FeatureProjection::new(config, device),
            encoder: Encoder::new(config, device),
        }
    }

    /// The states of all layers and the outputs: see [`Encoder::forward`].
    ///
    /// # Shapes
    /// - input: `[batch, 1, samples]`
    /// - each output: `[batch, frames, hidden_size]`
    #[must_use]
    pub fn forward(&self, input: Tensor<3>) -> (Vec<Tensor<3>>, Tensor<3>) {
        let features = self.feature_extractor.forward(input).swap_dims(1, 2);
        self.encoder.forward(self.feature_projection.forward(features))
    }
}

/// The layers of a `...ForCTC` beside its encoder, before they get their places.
pub(crate) struct CtcHead {
    pub dropout: Dropout,
    pub lm_head: Linear,
}

impl CtcHead {
    pub fn new(config: &SpeechConfig, outputs: usize, device: &Device) -> Self {
        Self {
            dropout: DropoutConfig::new(config.final_dropout).init(),
            lm_head: Linear::new(&LinearConfig::new(config.hidden_size, outputs), device),
        }
    }
}

/// The layers of a `...ForSequenceClassification` beside its encoder.
pub(crate) struct ClassificationHead {
    pub layer_weights: Option<Param<Tensor<1>>>,
    pub projector: Linear,
    pub classifier: Linear,
}

impl ClassificationHead {
    pub fn new(config: &SpeechConfig, outputs: usize, device: &Device) -> Self {
        let layers = config.num_hidden_layers + 1;
        #[expect(clippy::cast_precision_loss, reason = "a handful of layers")]
        let share = 1.0 / layers as f32;
        let mean = || Param::from_tensor(Tensor::full([layers], share, device));
        Self {
            layer_weights: config.use_weighted_layer_sum.then(mean),
            projector: Linear::new(&LinearConfig::new(config.hidden_size, config.classifier_proj_size), device),
            classifier: Linear::new(&LinearConfig::new(config.classifier_proj_size, outputs), device),
        }
    }
}

/// Logits of a sequence classification: the projected outputs, or `Σ softmax(w)ᵢ·stateᵢ` of all layers' states, in the mean
/// over time.
pub(crate) fn classify(
    (states, output): (Vec<Tensor<3>>, Tensor<3>),
    layer_weights: Option<&Param<Tensor<1>>>,
    projector: &Linear,
    classifier: &Linear,
) -> Tensor<2> {
    let hidden = match layer_weights {
        None => output,
        Some(weights) => {
            let weights = softmax(weights.val(), 0);
            let share = |(at, state): (usize, Tensor<3>)| state * weights.clone().narrow(0, at, 1).reshape([1, 1, 1]);
            let shares = states.into_iter().enumerate().map(share);
            shares.reduce(|sum, share| sum + share).unwrap_or(output)
        }
    };
    classifier.forward(projector.forward(hidden).mean_dim(1).squeeze_dim(1))
}
