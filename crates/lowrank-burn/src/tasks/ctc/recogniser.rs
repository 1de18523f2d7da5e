//! What a base model for speech recognition by CTC has beside its network.

use lowrank::{Error, Result, Subject};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::vocabulary::Vocabulary;
use crate::data::{Normalisation, SignalFormat};
use crate::models::Architecture;
use crate::models::wav2vec2::{FrameGrid, Head, SpeechConfig};

/// The characters, and the recordings that they are told from.
#[derive(Debug, Clone, PartialEq)]
pub struct Recogniser {
    /// Which output stands for which character: `vocab.json`; the blank is `pad_token_id`.
    pub vocabulary: Vocabulary,
    /// Outputs of the head: `vocab_size`.
    pub outputs: usize,
    /// Samples a second, in Hz: `sampling_rate`.
    pub rate: f64,
    /// What recordings are normalised by.
    pub normalization: Normalisation,
    /// How the loss of an utterance is counted: `ctc_loss_reduction`.
    pub reduction: CtcLossReduction,
    /// Whether utterances with too few frames for their text count nothing, rather than being refused:
    /// `ctc_zero_infinity`.
    pub zero_infinity: bool,
    /// How samples become frames.
    pub grid: FrameGrid,
}

/// How the loss of an utterance is counted.
///
/// transformers adds up (`sum`) or averages (`mean`) over a batch; here a batch's loss is the mean over its utterances with
/// both, so that it does not grow with the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CtcLossReduction {
    /// As it is.
    #[default]
    Sum,
    /// For each character of its text.
    Mean,
}

impl Recogniser {
    /// Takes the keys of CTC out of a `config.json`, with those that [`crate::models::ModelConfig::read`] adds from the files
    /// beside it.
    ///
    /// # Errors
    /// When one is missing or wrong.
    pub fn take(keys: &mut Map<String, Value>) -> Result<Self> {
        let vocab = keys.shift_remove("vocab").ok_or_else(|| {
            Error::new(Subject::Model, "missing").at("vocab.json").expected("a file beside config.json: token to id")
        })?;
        let vocab: Map<String, Value> = parsed("vocab.json", vocab)?;
        let tokenizer = keys.shift_remove("tokenizer").map(|keys| parsed("tokenizer_config.json", keys)).transpose()?;
        let blank = take(keys, "pad_token_id", 0)?;
        let outputs = take(keys, "vocab_size", 32)?;
        if blank >= outputs {
            let error = Error::new(Subject::Model, "out of range").at("pad_token_id").found(blank);
            return Err(error.expected(format!("below vocab_size, {outputs}")));
        }
        let normalization: Normalisation = take(keys, "normalization", Normalisation::per_window(1))?;
        normalization.check(1)?;
        let speech: SpeechConfig = parsed("config.json", Value::Object(keys.clone()))?;
        let recogniser = Self {
            vocabulary: Vocabulary::new(vocab, tokenizer, blank, outputs)?,
            outputs,
            rate: take(keys, "sampling_rate", 16_000.0)?,
            normalization,
            reduction: take(keys, "ctc_loss_reduction", CtcLossReduction::Sum)?,
            zero_infinity: take(keys, "ctc_zero_infinity", false)?,
            grid: speech.frame_grid(),
        };
        recogniser.format().validate()?;
        Ok(recogniser)
    }

    /// Checks that the network has a character for each frame.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, architecture: &Architecture) -> Result<()> {
        match architecture {
            Architecture::Wav2Vec2(config) | Architecture::Hubert(config) if config.head == Head::Ctc => Ok(()),
            _ => Err(Error::new(Subject::Model, "the network has no output for each frame").at("architectures")),
        }
    }

    /// The keys of a `config.json`.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        let keys = json!({
            "pad_token_id": self.vocabulary.blank(),
            "vocab_size": self.outputs,
            "sampling_rate": self.rate,
            "normalization": self.normalization,
            "ctc_loss_reduction": self.reduction,
            "ctc_zero_infinity": self.zero_infinity,
        });
        keys.as_object().cloned().unwrap_or_default()
    }

    /// The recordings it reads: mono, and long enough for a frame.
    #[must_use]
    pub fn format(&self) -> SignalFormat {
        SignalFormat { channels: 1, rate: self.rate, window: self.grid.least(), hop: 1 }
    }
}

fn take<T: DeserializeOwned>(keys: &mut Map<String, Value>, key: &str, default: T) -> Result<T> {
    match keys.shift_remove(key) {
        Some(value) => parsed(key, value),
        None => Ok(default),
    }
}

fn parsed<T: DeserializeOwned>(place: &str, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| Error::new(Subject::Model, error.to_string()).at(place))
}
