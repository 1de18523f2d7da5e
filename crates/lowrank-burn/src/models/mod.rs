//! Architectures, one folder each, built from a `config.json` by its `model_type`.
//!
//! Module paths are those a `PyTorch` user would give, so that weights and adapters are the same files on both sides.
//! A new architecture is a folder with its configuration and its module, and one line in [`Network`] and
//! [`Architecture`].

mod base;
mod dtype;
pub mod fracast;
pub mod silero_vad;
pub mod tcn;
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
}

/// The network of one architecture.
#[derive(Module, Debug)]
pub enum Network {
    /// A dilated temporal convolutional network.
    Tcn(tcn::Tcn),
    /// A forecaster.
    Fracast(fracast::Fracast),
    /// Speech to text.
    Whisper(whisper::Whisper),
    /// A voice activity detector.
    SileroVad(silero_vad::SileroVad),
}

const MODEL_TYPES: [&str; 4] = ["tcn", "fracast", "whisper", "silero_vad"];

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
        }
    }

    /// Channels of the signal it reads.
    #[must_use]
    pub fn channels(&self) -> usize {
        match self {
            Self::Tcn(config) => config.in_channels,
            Self::Fracast(_) | Self::Whisper(_) | Self::SileroVad(_) => 1,
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
    /// When the network is no classifier.
    pub fn forward(&self, input: Tensor<3>) -> Result<Tensor<2>> {
        let no_classes = |found: &str| Err(Error::new(Subject::Model, "the network is no classifier").found(found));
        match self {
            Self::Tcn(tcn) => Ok(tcn.forward(input)),
            Self::Fracast(_) => no_classes("fracast"),
            Self::Whisper(_) => no_classes("whisper"),
            Self::SileroVad(_) => no_classes("silero_vad"),
        }
    }
}
