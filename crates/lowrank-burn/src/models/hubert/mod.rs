//! `HuBERT` (Hsu et al., "`HuBERT`: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units",
//! 2021): the network of [`super::wav2vec2`], trained in another way, under module paths that begin with `hubert`.

use burn::module::{Module, Param};
use burn::nn::Dropout;
use burn::tensor::{Device, Tensor};

use super::wav2vec2::{ClassificationHead, CtcHead, Head, SpeechConfig, SpeechModel, classify};
use crate::nn::Linear;

/// The network.
#[derive(Module, Debug)]
pub enum Hubert {
    /// `HubertForCTC`.
    Ctc(ForCtc),
    /// `HubertForSequenceClassification`.
    SequenceClassification(ForSequenceClassification),
}

/// A character for each frame.
#[derive(Module, Debug)]
pub struct ForCtc {
    /// The encoder.
    pub hubert: SpeechModel,
    /// Before the head.
    pub dropout: Dropout,
    /// To the vocabulary.
    pub lm_head: Linear,
}

/// A class for a whole window.
#[derive(Module, Debug)]
pub struct ForSequenceClassification {
    /// The encoder.
    pub hubert: SpeechModel,
    /// With `use_weighted_layer_sum`: one a layer, and one for what the first reads.
    pub layer_weights: Option<Param<Tensor<1>>>,
    /// To `classifier_proj_size`.
    pub projector: Linear,
    /// To the classes.
    pub classifier: Linear,
}

impl Hubert {
    /// A network with Burn's initialisation, for so many characters or classes.
    #[must_use]
    pub fn new(config: &SpeechConfig, outputs: usize, device: &Device) -> Self {
        let hubert = SpeechModel::new(config, device);
        match config.head {
            Head::Ctc => {
                let CtcHead { dropout, lm_head } = CtcHead::new(config, outputs, device);
                Self::Ctc(ForCtc { hubert, dropout, lm_head })
            }
            Head::SequenceClassification => {
                let head = ClassificationHead::new(config, outputs, device);
                let ClassificationHead { layer_weights, projector, classifier } = head;
                Self::SequenceClassification(ForSequenceClassification { hubert, layer_weights, projector, classifier })
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
        let (_, output) = self.hubert.forward(input);
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
        classify(self.hubert.forward(input), self.layer_weights.as_ref(), &self.projector, &self.classifier)
    }
}
