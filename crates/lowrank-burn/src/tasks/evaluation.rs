//! The figures of one pass over a split.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{classification, ctc, forecasting, transcription, voice_activity};

/// One pass over a split. Displays as a table; as JSON it holds every number of it, and its task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Evaluation {
    /// Of windows that have a class.
    Classification(classification::Evaluation),
    /// Of forecasts.
    Forecasting(forecasting::Evaluation),
    /// Of recordings that have a text.
    Transcription(transcription::Evaluation),
    /// Of frames that are speech or not.
    VoiceActivity(voice_activity::Evaluation),
    /// Of speech, recognised by CTC.
    Ctc(ctc::Evaluation),
}

/// One figure of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Its key, such as `macro_f1`.
    pub name: &'static str,
    /// How people call it, such as `macro F1`.
    pub title: &'static str,
    /// None where it would be a division by zero.
    pub value: Option<f64>,
    /// Which way is better.
    pub better: Better,
    /// Whether it is a share, which may be told in percent.
    pub share: bool,
}

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Better {
    /// As accuracy.
    Higher,
    /// As a loss.
    Lower,
    /// Nearer to this, as the share of values in a band that is to hold so many.
    Near(f64),
}

impl Score {
    /// A share, the higher the better.
    #[must_use]
    pub fn share(name: &'static str, title: &'static str, value: Option<f64>) -> Self {
        Self { name, title, value, better: Better::Higher, share: true }
    }

    /// The mean loss.
    #[must_use]
    pub fn loss(value: Option<f64>) -> Self {
        Self { name: "loss", title: "loss", value, better: Better::Lower, share: false }
    }

    /// Whether `value` is better than `than`.
    #[must_use]
    pub fn is_better(&self, value: f64, than: f64) -> bool {
        match self.better {
            Better::Higher => value > than,
            Better::Lower => value < than,
            Better::Near(target) => (value - target).abs() < (than - target).abs(),
        }
    }
}

impl Evaluation {
    /// How many examples were seen.
    #[must_use]
    pub fn samples(&self) -> u64 {
        match self {
            Self::Classification(evaluation) => evaluation.samples,
            Self::Forecasting(evaluation) => evaluation.forecasts,
            Self::Transcription(evaluation) => evaluation.samples,
            Self::VoiceActivity(evaluation) => evaluation.all.frames,
            Self::Ctc(evaluation) => evaluation.samples,
        }
    }

    /// The figures that are told first, the loss last.
    #[must_use]
    pub fn scores(&self) -> Vec<Score> {
        match self {
            Self::Classification(evaluation) => evaluation.scores(),
            Self::Forecasting(evaluation) => evaluation.scores(),
            Self::Transcription(evaluation) => evaluation.scores(),
            Self::VoiceActivity(evaluation) => evaluation.scores(),
            Self::Ctc(evaluation) => evaluation.scores(),
        }
    }

    /// The value of one of the [`Evaluation::scores`].
    #[must_use]
    pub fn score(&self, name: &str) -> Option<f64> {
        self.scores().into_iter().find(|score| score.name == name)?.value
    }

    /// The figure that early stopping goes by: the first.
    #[must_use]
    pub fn watched(&self) -> Option<Score> {
        self.scores().into_iter().next()
    }

    /// The evaluation of a classifier.
    #[must_use]
    pub fn classification(&self) -> Option<&classification::Evaluation> {
        match self {
            Self::Classification(evaluation) => Some(evaluation),
            Self::Forecasting(_) | Self::Transcription(_) | Self::VoiceActivity(_) | Self::Ctc(_) => None,
        }
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Classification(evaluation) => evaluation.fmt(f),
            Self::Forecasting(evaluation) => evaluation.fmt(f),
            Self::Transcription(evaluation) => evaluation.fmt(f),
            Self::VoiceActivity(evaluation) => evaluation.fmt(f),
            Self::Ctc(evaluation) => evaluation.fmt(f),
        }
    }
}
