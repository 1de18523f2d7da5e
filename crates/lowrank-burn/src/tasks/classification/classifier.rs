//! What a base model for classification has beside its network.

use lowrank::{Error, Result, Subject};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::data::{Normalisation, SignalFormat};

/// The classes, and the windows they are told by.
#[derive(Debug, Clone, PartialEq)]
pub struct Classifier {
    /// The class names by index: `id2label`.
    pub labels: Vec<String>,
    /// The windows it reads: `signal`.
    pub signal: SignalFormat,
    /// What they are normalised by: `normalization`.
    pub normalization: Normalisation,
}

impl Classifier {
    /// Takes `signal`, `normalization` and `id2label` out of a `config.json`.
    ///
    /// # Errors
    /// When one is missing or wrong.
    pub fn take(keys: &mut Map<String, Value>) -> Result<Self> {
        let signal: SignalFormat = parsed("signal", keys)?;
        let normalization: Normalisation = parsed("normalization", keys)?;
        let labels = labels(&part("id2label", keys)?)?;
        signal.validate()?;
        normalization.check(signal.channels)?;
        Ok(Self { labels, signal, normalization })
    }

    /// Checks that the windows have the channels of the network.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self, channels: usize) -> Result<()> {
        if self.signal.channels == channels {
            return Ok(());
        }
        Err(Error::new(Subject::Model, "wrong number of channels")
            .at("signal")
            .found(self.signal.channels)
            .expected(format!("{channels}, the channels of the network")))
    }

    /// The keys of a `config.json`.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        let id2label = self.labels.iter().enumerate().map(|(id, label)| (id.to_string(), Value::from(label.as_str())));
        let parts = [
            ("id2label", Ok(Value::Object(id2label.collect()))),
            ("signal", serde_json::to_value(self.signal)),
            ("normalization", serde_json::to_value(&self.normalization)),
        ];
        parts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.ok()?))).collect()
    }
}

fn part(key: &str, keys: &mut Map<String, Value>) -> Result<Value> {
    keys.shift_remove(key).ok_or_else(|| {
        let error = Error::new(Subject::Model, "missing").at(key);
        error.with_hint("`lowrank train` writes this key with a base model")
    })
}

fn parsed<T: DeserializeOwned>(key: &str, keys: &mut Map<String, Value>) -> Result<T> {
    serde_json::from_value(part(key, keys)?).map_err(|error| Error::new(Subject::Model, error.to_string()).at(key))
}

/// The class names of an `id2label` object, whose keys count from 0.
fn labels(value: &Value) -> Result<Vec<String>> {
    let wrong = || {
        Error::new(Subject::Model, "not a list of classes")
            .at("id2label")
            .expected("an object {\"0\": \"name\", \"1\": ...}")
    };
    let object = value.as_object().ok_or_else(wrong)?;
    let label = |id: usize| object.get(&id.to_string()).and_then(Value::as_str).map(str::to_owned).ok_or_else(wrong);
    let labels: Vec<String> = (0..object.len()).map(label).collect::<Result<_>>()?;
    if labels.is_empty() { Err(wrong()) } else { Ok(labels) }
}
