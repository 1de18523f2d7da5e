//! What a base model for voice activity has beside its network.

use lowrank::{Error, Result, Subject};
use serde_json::{Map, Value};

use crate::data::SignalFormat;
use crate::models::Architecture;

/// How recordings are heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Detector {
    /// One channel at a rate. A window is what one example of training is; evaluation and prediction hear whole recordings.
    pub signal: SignalFormat,
}

impl Detector {
    /// Takes `signal` out of a `config.json`.
    ///
    /// # Errors
    /// When it is missing or wrong.
    pub fn take(keys: &mut Map<String, Value>) -> Result<Self> {
        let wrong = |error: Error| error.at("signal");
        let value = keys.shift_remove("signal").ok_or_else(|| {
            let error = Error::new(Subject::Model, "missing").expected("channels, sample_rate, window and hop");
            wrong(error)
        })?;
        let signal: SignalFormat =
            serde_json::from_value(value).map_err(|error| wrong(Error::new(Subject::Model, error.to_string())))?;
        signal.validate()?;
        Ok(Self { signal })
    }

    /// Checks that the network is a detector, and a window whole frames of it.
    ///
    /// # Errors
    /// When it is not so.
    pub fn check(&self, architecture: &Architecture) -> Result<()> {
        let Architecture::SileroVad(config) = architecture else {
            return Err(Error::new(Subject::Model, "not a network for voice activity").at("model_type"));
        };
        let wrong = |key: &str, found: usize, expected: String| {
            Error::new(Subject::Model, "does not fit the network").at(key).at("signal").found(found).expected(expected)
        };
        let SignalFormat { channels, window, .. } = self.signal;
        let channels = (channels != 1).then(|| wrong("channels", channels, "1".into()));
        let whole = window.is_multiple_of(config.frame);
        let window = (!whole).then(|| wrong("window", window, format!("a multiple of {}, a frame", config.frame)));
        Error::all(channels.into_iter().chain(window).collect())
    }

    /// The keys of a `config.json`.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        let signal = serde_json::to_value(self.signal).ok();
        signal.map(|signal| ("signal".to_owned(), signal)).into_iter().collect()
    }
}
