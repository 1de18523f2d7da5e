//! What networks are trained for: each task has its recordings, its loss, its figures and its predictions.
//!
//! Training, evaluation and prediction know examples only: [`Manifest`] lists the recordings of a run, [`Task::load`] makes
//! [`Examples`] of one split of them, and an [`Evaluation`] tells its [`Score`]s. A new task is a folder with its examples
//! and its evaluation, and one line in [`Task`], [`Manifest`] and [`Evaluation`].

pub mod classification;
pub mod ctc;
mod edits;
mod evaluation;
mod examples;
pub mod forecasting;
mod manifest;
pub mod transcription;
pub mod voice_activity;

use std::path::Path;

use lowrank::{Error, Result, Subject};
use serde_json::{Map, Value};

use crate::data::Split;
use crate::models::{Architecture, huggingface};
use crate::train::TrainConfig;

pub use edits::{EditCounts, character_errors, edits, word_errors};
pub use evaluation::{Better, Evaluation, Score};
pub use examples::{Examples, Predictions};
pub use manifest::Manifest;

/// What a base model is for, and what its `config.json` says about that.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// One class for each window of a recording.
    Classification(classification::Classifier),
    /// The next steps of a series.
    Forecasting(forecasting::Forecaster),
    /// A text for each recording.
    Transcription(transcription::Transcriber),
    /// Speech or none for each frame of a recording.
    VoiceActivity(voice_activity::Detector),
    /// A character for each frame of a recording of speech.
    Ctc(Box<ctc::Recogniser>),
    /// None here: the network can be loaded, merged and adapted from Rust, but has no examples to train on.
    None,
}

impl Task {
    /// Takes the keys of the task out of a `config.json`, and what lies beside it in `dir`.
    ///
    /// # Errors
    /// When a key or a file is missing or wrong.
    pub fn take(model_type: &str, keys: &mut Map<String, Value>, dir: &Path) -> Result<Self> {
        match (model_type, huggingface::class(keys)) {
            ("fracast", _) => forecasting::Forecaster::read(keys).map(Self::Forecasting),
            ("whisper", _) => transcription::Transcriber::read(keys, dir).map(Self::Transcription),
            ("silero_vad", _) => voice_activity::Detector::take(keys).map(Self::VoiceActivity),
            ("speecht5_hifigan" | "gpt2", _) => Ok(Self::None),
            (_, Some(class)) if class.ends_with("ForCTC") => {
                ctc::Recogniser::take(keys).map(|recogniser| Self::Ctc(Box::new(recogniser)))
            }
            _ => classification::Classifier::take(keys).map(Self::Classification),
        }
    }

    /// Writes what lies beside a `config.json`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        match self {
            Self::Transcription(transcriber) => transcriber.write(dir),
            Self::Ctc(recogniser) => recogniser.vocabulary.write(dir),
            Self::Classification(_) | Self::Forecasting(_) | Self::VoiceActivity(_) | Self::None => Ok(()),
        }
    }

    /// There is no task for the network.
    pub(crate) fn missing() -> Error {
        Error::new(Subject::Model, "there is no task here for this network")
            .at("model_type")
            .with_hint("it can be adapted from Rust, and adapters of it can be merged, combined and inspected")
    }

    /// Checks that a network can do it.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(&self, architecture: &Architecture) -> Result<()> {
        match self {
            Self::Classification(classifier) => classifier.check(architecture.channels()),
            Self::Forecasting(_) | Self::None => Ok(()),
            Self::Transcription(transcriber) => transcriber.check(architecture),
            Self::VoiceActivity(detector) => detector.check(architecture),
            Self::Ctc(recogniser) => recogniser.check(architecture),
        }
    }

    /// The keys of the task in a `config.json`.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        match self {
            Self::Classification(classifier) => classifier.to_map(),
            Self::Forecasting(_) | Self::Transcription(_) | Self::None => Map::new(),
            Self::VoiceActivity(detector) => detector.to_map(),
            Self::Ctc(recogniser) => recogniser.to_map(),
        }
    }

    /// Samples a second of the recordings that the network reads, in Hz; 1 for series, which have steps.
    #[must_use]
    pub fn rate(&self) -> f64 {
        match self {
            Self::Classification(classifier) => classifier.signal.rate,
            Self::Forecasting(_) => 1.0,
            Self::Transcription(_) => transcription::Transcriber::rate(),
            Self::VoiceActivity(detector) => detector.signal.rate,
            Self::Ctc(recogniser) => recogniser.rate,
            Self::None => 0.0,
        }
    }

    /// Outputs of the network's head.
    #[must_use]
    pub fn outputs(&self) -> usize {
        match self {
            Self::Classification(classifier) => classifier.labels.len(),
            Self::Forecasting(forecaster) => forecaster.quantiles.len(),
            Self::Transcription(transcriber) => transcriber.tokens.len(),
            Self::VoiceActivity(_) => 1,
            Self::Ctc(recogniser) => recogniser.outputs,
            Self::None => 0,
        }
    }

    /// The examples of one split.
    ///
    /// # Errors
    /// When a recording cannot be used, or there is none.
    pub fn load(&self, manifest: &Manifest, split: Split, config: &TrainConfig) -> Result<Box<dyn Examples>> {
        config.check_for(self)?;
        match (self, manifest) {
            (Self::Classification(classifier), Manifest::Recordings(manifest)) => {
                let windows = classification::Windows::load(manifest, split, classifier, config)?;
                Ok(Box::new(windows))
            }
            (Self::Forecasting(forecaster), Manifest::Series(manifest)) => {
                Ok(Box::new(forecasting::Forecasts::load(manifest, split, forecaster, config)?))
            }
            (Self::Transcription(transcriber), Manifest::Recordings(manifest)) => {
                Ok(Box::new(transcription::Utterances::load(manifest, split, transcriber, config)?))
            }
            (Self::VoiceActivity(detector), Manifest::Recordings(manifest)) => {
                Ok(Box::new(voice_activity::Recordings::load(manifest, split, detector, config)?))
            }
            (Self::Ctc(recogniser), Manifest::Recordings(manifest)) => {
                Ok(Box::new(ctc::Utterances::load(manifest, split, recogniser, config)?))
            }
            (Self::None, _) => Err(Self::missing()),
            (_, manifest) => {
                Err(Error::new(Subject::Data, "the manifest is for another task").at(manifest.path().display()))
            }
        }
    }
}
