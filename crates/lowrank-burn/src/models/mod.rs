//! Architectures, one folder each, built from a `config.json` by its `model_type`.
//!
//! Module paths are those a `PyTorch` user would give, so that weights and adapters are the same files on both sides.
//! A new architecture is a folder with its configuration and its module, and one line in [`Network`] and
//! [`Architecture`].

mod base;
mod dtype;
pub mod fracast;
pub mod gpt2;
pub mod hidden_act;
pub mod hifigan;
pub mod hubert;
pub(crate) mod huggingface;
pub mod silero_vad;
pub mod tcn;
pub mod wav2vec2;
mod weight_norm;
mod weights;
pub mod whisper;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use lowrank::{Error, Result, Subject, suggest};
use serde_json::{Map, Value};

pub use base::{BaseModel, ModelConfig};
pub use dtype::Dtype;
pub use weights::{load as load_weights, save as save_weights};

/// The configuration of one architecture.
#[derive(Debug, Clone, PartialEq)]
pub enum Architecture {
    /// `"model_type": "tcn"`.
    Tcn(tcn::TcnConfig),
    /// `"model_type": "fracast"`.
    Fracast(fracast::FracastConfig),
    /// `"model_type": "whisper"`.
    Whisper(whisper::WhisperConfig),
    /// `"model_type": "silero_vad"`.
    SileroVad(silero_vad::SileroVadConfig),
    /// `"model_type": "wav2vec2"`.
    Wav2Vec2(wav2vec2::SpeechConfig),
    /// `"model_type": "hubert"`.
    Hubert(wav2vec2::SpeechConfig),
    /// `"model_type": "speecht5_hifigan"`.
    HifiGan(hifigan::HifiGanConfig),
    /// `"model_type": "gpt2"`.
    Gpt2(gpt2::Gpt2Config),
}

/// The network of one architecture.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a Burn module cannot be boxed, and there is one")]
pub enum Network {
    /// A dilated temporal convolutional network.
    Tcn(tcn::Tcn),
    /// A forecaster.
    Fracast(fracast::Fracast),
    /// Speech to text.
    Whisper(whisper::Whisper),
    /// A voice activity detector.
    SileroVad(silero_vad::SileroVad),
    /// wav2vec 2.0, with one of its heads.
    Wav2Vec2(wav2vec2::Wav2Vec2),
    /// `HuBERT`, with one of its heads.
    Hubert(hubert::Hubert),
    /// HiFi-GAN's generator.
    HifiGan(hifigan::HifiGan),
    /// GPT-2.
    Gpt2(gpt2::Gpt2),
}

const MODEL_TYPES: [&str; 8] =
    ["tcn", "fracast", "whisper", "silero_vad", "wav2vec2", "hubert", "speecht5_hifigan", "gpt2"];

impl Architecture {
    /// Reads the keys of `model_type`'s own configuration.
    ///
    /// # Errors
    /// When there is no such architecture, or a key is unknown, missing or out of range.
    pub fn from_map(model_type: &str, keys: Map<String, Value>) -> Result<Self> {
        match model_type {
            "tcn" => tcn::TcnConfig::from_map(keys).map(Self::Tcn),
            "fracast" => fracast::FracastConfig::from_map(keys).map(Self::Fracast),
            "whisper" => whisper::WhisperConfig::from_map(keys).map(Self::Whisper),
            "silero_vad" => silero_vad::SileroVadConfig::from_map(keys).map(Self::SileroVad),
            "wav2vec2" => wav2vec2::SpeechConfig::from_map(model_type, keys).map(Self::Wav2Vec2),
            "hubert" => wav2vec2::SpeechConfig::from_map(model_type, keys).map(Self::Hubert),
            "speecht5_hifigan" => hifigan::HifiGanConfig::from_map(keys).map(Self::HifiGan),
            "gpt2" => gpt2::Gpt2Config::from_map(keys).map(Self::Gpt2),
            other => {
                let error =
                    Error::new(Subject::Model, "unknown architecture").at("model_type").found(format!("`{other}`"));
                let known = MODEL_TYPES.join(", ");
                Err(match suggest::nearest(other, MODEL_TYPES) {
                    Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                    None => error.with_hint(format!("the architectures here: {known}")),
                })
            }
        }
    }

    /// `model_type` and its own keys.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        let (model_type, keys) = match self {
            Self::Tcn(config) => ("tcn", serde_json::to_value(config)),
            Self::Fracast(config) => ("fracast", serde_json::to_value(config)),
            Self::Whisper(config) => ("whisper", serde_json::to_value(config)),
            Self::SileroVad(config) => ("silero_vad", serde_json::to_value(config)),
            Self::Wav2Vec2(config) => ("wav2vec2", serde_json::to_value(config)),
            Self::Hubert(config) => ("hubert", serde_json::to_value(config)),
            Self::HifiGan(config) => ("speecht5_hifigan", serde_json::to_value(config)),
            Self::Gpt2(config) => ("gpt2", serde_json::to_value(config)),
        };
        let mut map = Map::new();
        map.insert("model_type".into(), model_type.into());
        if let Ok(Value::Object(keys)) = keys {
            map.extend(keys);
        }
        map
    }

    /// A network with fresh random weights, for `classes` classes where it tells any.
    #[must_use]
    pub fn init(&self, classes: usize, device: &Device) -> Network {
        match self {
            Self::Tcn(config) => Network::Tcn(tcn::Tcn::new(config, classes, device)),
            Self::Fracast(config) => Network::Fracast(fracast::Fracast::new(config, device)),
            Self::Whisper(config) => Network::Whisper(whisper::Whisper::new(config, device)),
            Self::SileroVad(config) => Network::SileroVad(silero_vad::SileroVad::new(config, device)),
            Self::Wav2Vec2(config) => Network::Wav2Vec2(wav2vec2::Wav2Vec2::new(config, classes, device)),
            Self::Hubert(config) => Network::Hubert(hubert::Hubert::new(config, classes, device)),
            Self::HifiGan(config) => Network::HifiGan(hifigan::HifiGan::new(config, device)),
            Self::Gpt2(config) => Network::Gpt2(gpt2::Gpt2::new(config, device)),
        }
    }

    /// Channels of the signal it reads; none where it reads tokens.
    #[must_use]
    pub fn channels(&self) -> usize {
        match self {
            Self::Tcn(config) => config.in_channels,
            Self::Fracast(_) | Self::Whisper(_) | Self::SileroVad(_) | Self::Wav2Vec2(_) | Self::Hubert(_) => 1,
            Self::HifiGan(config) => config.model_in_dim,
            Self::Gpt2(_) => 0,
        }
    }
}

impl Network {
    /// The device that its weights are on.
    #[must_use]
    pub fn device(&self) -> Device {
        self.devices().into_iter().next().unwrap_or_default()
    }

    /// Logits of a batch of windows.
    ///
    /// # Shapes
    /// - input: `[batch, channels, samples]`, normalised
    /// - output: `[batch, classes]`
    ///
    /// # Errors
    /// When the network is not a classifier.
    pub fn forward(&self, input: Tensor<3>) -> Result<Tensor<2>> {
        match self {
            Self::Tcn(tcn) => Ok(tcn.forward(input)),
            Self::Wav2Vec2(wav2vec2::Wav2Vec2::SequenceClassification(network)) => Ok(network.forward(input)),
            Self::Hubert(hubert::Hubert::SequenceClassification(network)) => Ok(network.forward(input)),
            _ => Err(Self::unfit("classification")),
        }
    }

    /// The network is not for a task.
    pub(crate) fn unfit(task: &str) -> Error {
        Error::new(Subject::Model, format!("the network is not for {task}"))
            .with_hint("`architectures` in its config.json says what it is for")
    }
}
