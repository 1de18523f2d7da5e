//! wav2vec 2.0 (Baevski, Zhou, Mohamed and Auli, "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech
//! Representations", 2020), with the module paths of transformers.
//!
//! A stack of convolutions turns samples into features, a grouped convolution with a long kernel tells where they are, and a
//! transformer reads them. On top is what `architectures` in the `config.json` names: `Wav2Vec2ForCTC` with a character for
//! each frame, or `Wav2Vec2ForSequenceClassification` with a class for a whole window.
//!
//! Samples are mono at 16 kHz in the published models, each recording brought to mean 0 and variance 1 beforehand: see
//! [`crate::data::Normalisation`]. There is no attention mask: recordings of different lengths are run one by one, so padding
//! changes no output.

mod config;
mod encoder;
mod features;
mod model;

use burn::module::{Module, Param};
use burn::nn::Dropout;
use burn::tensor::{Device, Tensor};

use crate::nn::Linear;
pub use config::{FeatExtractNorm, FrameGrid, Head, SpeechConfig};
pub use encoder::{Attention, Encoder, EncoderLayer, FeedForward, PositionalConvEmbedding};
pub use features::{ChannelNorm, ConvLayer, FeatureEncoder, FeatureProjection};
pub use model::SpeechModel;
pub(super) use model::{ClassificationHead, CtcHead, classify};

/// The network.
#[derive(Module, Debug)]
pub enum Wav2Vec2 {
    /// `Wav2Vec2ForCTC`.
    Ctc(ForCtc),
    /// `Wav2Vec2ForSequenceClassification`.
    SequenceClassification(ForSequenceClassification),
}

/// A character for each frame.
#[derive(Module, Debug)]
pub struct ForCtc {
    /// The encoder.
    pub wav2vec2: SpeechModel,
    /// Before the head.
    pub dropout: Dropout,
    /// To the vocabulary.
    pub lm_head: Linear,
}

/// A class for a whole window.
#[derive(Module, Debug)]
pub struct ForSequenceClassification {
    /// The encoder.
    pub wav2vec2: SpeechModel,
    /// With `use_weighted_layer_sum`: one a layer, and one for what the first reads.
    pub layer_weights: Option<Param<Tensor<1>>>,
    /// To `classifier_proj_size`.
    pub projector: Linear,
    /// To the classes.
    pub classifier: Linear,
}

impl Wav2Vec2 {
    /// A network with Burn's initialisation, for so many characters or classes.
    #[must_use]
    pub fn new(config: &SpeechConfig, outputs: usize, device: &Device) -> Self {
        let wav2vec2 = SpeechModel::new(config, device);
        match config.head {
            Head::Ctc => {
                let CtcHead { dropout, lm_head } = CtcHead::new(config, outputs, device);
                Self::Ctc(ForCtc { wav2vec2, dropout, lm_head })
            }
            Head::SequenceClassification => {
                let head = ClassificationHead::new(config, outputs, device);
                let ClassificationHead { layer_weights, projector, classifier } = head;
                Self::SequenceClassification(ForSequenceClassification {
                    wav2vec2,
                    layer_weights,
                    projector,
                    classifier,
                })
            }
        }
    }
}

impl ForCtc {
    /// Logits of every frame.
    ///
    /// # Shapes
    /// - input: `[batch, 1, samples]`
    /// - output: `[batch, frames, characters]`
    #[must_use]
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let (_, output) = self.wav2vec2.forward(input);
        self.lm_head.forward(self.dropout.forward(output))
    }
}

impl ForSequenceClassification {
    /// Logits of every window.
    ///
    /// # Shapes
    /// - input: `[batch, 1, samples]`
    /// - output: `[batch, classes]`
    #[must_use]
    pub fn forward(&self, input: Tensor<3>) -> Tensor<2> {
        classify(self.wav2vec2.forward(input), self.layer_weights.as_ref(), &self.projector, &self.classifier)
    }
}

#[cfg(test)]
mod tests;
