//! What a base model for forecasting has beside its network.

use lowrank::{Error, Result, Subject};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What is forecast from what.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Forecaster {
    /// Steps of context.
    #[serde(rename = "W")]
    pub context: usize,
    /// Steps that are forecast.
    pub horizon: usize,
    /// The quantiles that are forecast, rising.
    pub quantiles: Vec<f64>,
}

impl Forecaster {
    /// Reads it from the network's own keys in a `config.json`: there are no others.
    ///
    /// # Errors
    /// When one is missing or wrong.
    pub fn read(keys: &Map<String, Value>) -> Result<Self> {
        let model = keys.get("model").cloned().unwrap_or_default();
        serde_json::from_value(model).map_err(|error| Error::new(Subject::Model, error.to_string()).at("model"))
    }

    /// The place of the quantile that is nearest to one half.
    #[must_use]
    pub fn median(&self) -> usize {
        let distance = |place: &usize| (self.quantiles[*place] - 0.5).abs();
        (0..self.quantiles.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or_default()
    }

    /// The share of values that the outermost quantiles are to enclose.
    #[must_use]
    pub fn band(&self) -> f64 {
        self.quantiles.last().zip(self.quantiles.first()).map_or(0.0, |(last, first)| last - first)
    }
}
