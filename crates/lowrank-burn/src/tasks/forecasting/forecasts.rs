//! The forecasts of a split as examples: what a network says about each, and how far that is from what came.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use lowrank::{Error, Result, Subject};
use serde::Serialize;
use serde_json::{Map, Value};

use super::manifest::{Manifest, Row};
use super::series::{Columns, Series};
use super::tally::{Judged, Season, Tally, pinball};
use super::{Forecaster, naive};
use crate::data::Split;
use crate::models::Network;
use crate::models::fracast::{Context, Fracast, MIN_OBSERVED};
use crate::ops::relu;
use crate::tasks::{self, Examples, Predictions};
use crate::train::TrainConfig;
use crate::values;

/// The forecasts of a split: every origin of every row.
#[derive(Debug, Clone)]
pub struct Forecasts {
    forecaster: Forecaster,
    parts: Vec<Part>,
    /// Part and first step.
    origins: Vec<(usize, usize)>,
    warnings: Vec<String>,
}

/// A row of the manifest with its series.
#[derive(Debug, Clone)]
struct Part {
    path: PathBuf,
    series: Series,
    /// Length and unit of errors.
    seasons: Vec<(usize, Option<f64>)>,
}

/// What a network says about one origin.
#[derive(Debug, Serialize)]
struct Prediction<'a> {
    path: String,
    series: &'a str,
    /// The first step of the forecast.
    origin: usize,
    /// By quantile, the steps of the horizon.
    quantiles: Map<String, Value>,
    /// What came, as far as the series goes.
    actual: Vec<Option<f32>>,
}

impl Forecasts {
    /// The forecasts of a split.
    ///
    /// # Errors
    /// All rows that cannot be used, at once: files that are no series, parts that reach past the end of one or have no whole
    /// horizon, origins without context. When the split is empty, and when a setting of `config` does not apply.
    pub fn load(manifest: &Manifest, split: Split, forecaster: &Forecaster, config: &TrainConfig) -> Result<Self> {
        if config.label_smoothing > 0.0 {
            let error = Error::new(Subject::Config, "label_smoothing is for classes, and a forecaster has none");
            return Err(error.with_hint("leave it out"));
        }
        let rows: Vec<&Row> = manifest.rows().iter().filter(|row| row.split == split).collect();
        if rows.is_empty() {
            let error = Error::new(Subject::Data, format!("no series in the {split} split"));
            return Err(error
                .at(manifest.path().display())
                .with_hint("give some rows that word in the column `split`"));
        }
        let mut files: BTreeMap<&Path, Columns> = BTreeMap::new();
        let mut forecasts =
            Self { forecaster: forecaster.clone(), parts: Vec::new(), origins: Vec::new(), warnings: Vec::new() };
        let mut errors = Vec::new();
        for row in rows {
            let added = match files.get(row.path.as_path()) {
                Some(columns) => forecasts.add(row, columns),
                None => Columns::read(&row.path).and_then(|columns| {
                    let columns = files.entry(&row.path).or_insert(columns);
                    forecasts.add(row, columns)
                }),
            };
            let place = format!("{}: line {}", manifest.path().display(), row.line);
            errors.extend(added.err().map(|error| error.at(place)));
        }
        Error::all(errors)?;
        Ok(forecasts)
    }

    /// Takes the origins of a row.
    fn add(&mut self, row: &Row, columns: &Columns) -> Result<()> {
        if row.ahead {
            for series in columns.all().map_err(|error| error.at(row.path.display()))? {
                let end = series.values.len();
                self.part(row, series, vec![end])?;
            }
            return Ok(());
        }
        let series = columns.series(row.series.as_deref()).map_err(|error| error.at(row.path.display()))?;
        let (length, horizon, context) = (series.values.len(), self.forecaster.horizon, self.forecaster.context);
        let wrong = |problem: &str, found: String, expected: String| {
            Error::new(Subject::Data, problem.to_owned()).at(row.path.display()).found(found).expected(expected)
        };
        let end = row.end.unwrap_or(length);
        if end > length {
            return Err(wrong(
                "reaches past the end of the series",
                format!("step {end}"),
                format!("{length} at most"),
            ));
        }
        let start = match row.start {
            Some(start) => start,
            None if context + horizon <= end => context,
            None => {
                let found = format!("{end} steps");
                let error = wrong("shorter than a context and a horizon", found, format!("{}", context + horizon));
                return Err(error.with_hint("say in the column `start` which step is to be forecast first"));
            }
        };
        if start + horizon > end {
            return Err(wrong("no whole horizon", format!("steps {start} to {end}"), format!("{horizon} or more")));
        }
        let stride = row.stride.unwrap_or(if row.split == Split::Train { 1 } else { horizon });
        self.part(row, series, (start..=end - horizon).step_by(stride).collect())
    }

    /// Takes the origins of a series that have something before them and, but at its end, behind.
    fn part(&mut self, row: &Row, series: Series, origins: Vec<usize>) -> Result<()> {
        let first = origins.first().copied().unwrap_or_default();
        let seasons = row.seasons.iter().map(|season| (*season, naive::scale(&series.values[..first], *season)));
        let seasons: Vec<_> = seasons.collect();
        let (place, count) = (format!("{}, series {}", row.path.display(), series.name), origins.len());
        for (season, _) in seasons.iter().filter(|(_, scale)| scale.is_none()) {
            self.warnings.push(format!("{place}: no MASE({season}): nothing to compare with before step {first}"));
        }
        let part = Part { path: row.path.clone(), series, seasons };
        let usable = origins.into_iter().filter(|origin| {
            let (before, future) = self.around(&part, *origin);
            let known = |values: &[f32]| values.iter().filter(|value| value.is_finite()).count();
            known(before) >= MIN_OBSERVED && (row.ahead || known(future) > 0)
        });
        let usable: Vec<usize> = usable.collect();
        if usable.is_empty() {
            return Err(Error::new(Subject::Data, "nothing that can be forecast")
                .at(place)
                .expected(format!("{MIN_OBSERVED} values before an origin, and one behind it")));
        }
        if usable.len() < count {
            self.warnings
                .push(format!("{place}: {} of {count} forecasts left out: too little is known", count - usable.len()));
        }
        self.origins.extend(usable.into_iter().map(|origin| (self.parts.len(), origin)));
        self.parts.push(part);
        Ok(())
    }

    /// The context before an origin, and what came, as far as the series goes.
    fn around<'p>(&self, part: &'p Part, origin: usize) -> (&'p [f32], &'p [f32]) {
        let values = &part.series.values;
        let begin = origin.saturating_sub(self.forecaster.context);
        let end = (origin + self.forecaster.horizon).min(values.len());
        (&values[begin..origin], &values[origin..end])
    }

    /// The forecast with a number.
    fn at(&self, index: usize) -> Result<(&Part, usize)> {
        let found = self.origins.get(index).and_then(|(part, origin)| Some((self.parts.get(*part)?, *origin)));
        found.ok_or_else(|| Error::new(Subject::Data, "no such forecast").found(index))
    }

    fn contexts(&self, network: &Fracast, indices: &[usize]) -> Result<Vec<Context>> {
        let context = |index: &usize| {
            let (part, origin) = self.at(*index)?;
            network.context(self.around(part, origin).0)
        };
        indices.iter().map(context).collect()
    }

    /// What the network says, in order: the context of each, and its quantiles by step, in the network's unit.
    fn outputs(&self, network: &Network, batch_size: usize) -> Result<Vec<(Context, Vec<f32>)>> {
        let (network, device) = (forecasting(network)?, network.device());
        let all: Vec<usize> = (0..self.origins.len()).collect();
        let mut outputs = Vec::with_capacity(all.len());
        for indices in all.chunks(batch_size.max(1)) {
            let contexts = self.contexts(network, indices)?;
            let said = values::of(network.forward(network.input(&contexts, &device)));
            let width = self.forecaster.horizon * self.forecaster.quantiles.len();
            outputs.extend(contexts.into_iter().zip(said.chunks(width).map(<[f32]>::to_vec)));
        }
        let broken = outputs.iter().position(|(_, said)| said.iter().any(|value| !value.is_finite()));
        match broken.map(|index| self.at(index)).transpose()? {
            Some((part, origin)) => Err(Error::new(Subject::Diverged, "the network's output is not finite")
                .at(format!("{}, series {}, step {origin}", part.path.display(), part.series.name))
                .with_hint("the weights or the adapter are broken: `lowrank inspect` counts non-finite values")),
            None => Ok(outputs),
        }
    }

    /// The pinball loss of one forecast.
    fn loss_of(&self, context: &Context, said: &[f32], actual: &[f32]) -> f64 {
        let levels = &self.forecaster.quantiles;
        let steps = said.chunks(levels.len()).zip(actual).filter(|(_, actual)| actual.is_finite());
        let losses = steps.flat_map(|(said, actual)| {
            let actual = context.normalise(*actual);
            levels.iter().zip(said).map(move |(level, said)| pinball(*level, f64::from(actual - said)))
        });
        naive::mean(losses).unwrap_or(f64::NAN)
    }
}

impl Examples for Forecasts {
    fn len(&self) -> usize {
        self.origins.len()
    }

    fn unit(&self) -> &'static str {
        "forecast"
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The mean over quantiles and steps of `max(q·(y - ŷ), (q - 1)·(y - ŷ))`.
    fn loss(&self, network: &Network, indices: &[usize]) -> Result<Tensor<1>> {
        let (network, device) = (forecasting(network)?, network.device());
        let contexts = self.contexts(network, indices)?;
        let (batch, horizon, levels) = (indices.len(), self.forecaster.horizon, &self.forecaster.quantiles);
        let (mut targets, mut known) = (vec![0.0; batch * horizon], vec![0.0; batch * horizon]);
        for (number, (index, context)) in indices.iter().zip(&contexts).enumerate() {
            let (part, origin) = self.at(*index)?;
            let future = self.around(part, origin).1.iter().enumerate().filter(|(_, value)| value.is_finite());
            for (step, value) in future {
                targets[number * horizon + step] = context.normalise(*value);
                known[number * horizon + step] = 1.0;
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "quantiles such as 0.9")]
        let quantiles: Vec<f32> = levels.iter().map(|level| *level as f32).collect();
        #[expect(clippy::cast_precision_loss, reason = "a handful of quantiles")]
        let count = known.iter().sum::<f32>() * levels.len() as f32;
        let tensor = |values, shape: [usize; 3]| Tensor::<3>::from_data(TensorData::new(values, shape), &device);
        let (targets, known) = (tensor(targets, [batch, horizon, 1]), tensor(known, [batch, horizon, 1]));
        let quantiles = tensor(quantiles, [1, 1, levels.len()]);
        let below = targets - network.forward(network.input(&contexts, &device));
        let losses = below.clone() * quantiles + relu(below.neg());
        Ok((losses * known).sum().div_scalar(count))
    }

    /// MASE, weighted quantile loss, coverage and pinball loss.
    fn evaluate(&self, network: &Network, batch_size: usize) -> Result<tasks::Evaluation> {
        let mut tally = Tally::new(&self.forecaster);
        let horizon = self.forecaster.horizon;
        for (index, (context, said)) in self.outputs(network, batch_size)?.into_iter().enumerate() {
            let (part, origin) = self.at(index)?;
            let (before, actual) = (&part.series.values[..origin], self.around(part, origin).1);
            let quantiles: Vec<f64> = said.iter().map(|value| context.denormalise(*value)).collect();
            let season = |(length, scale): &(usize, Option<f64>)| Season {
                length: *length,
                scale: *scale,
                naive: naive::seasonal(before, *length, horizon),
                shifted: naive::shifted(before, *length, horizon),
            };
            let seasons: Vec<Season> = part.seasons.iter().map(season).collect();
            let loss = self.loss_of(&context, &said, actual);
            tally.add(&Judged { quantiles: &quantiles, actual, seasons: &seasons, loss });
        }
        Ok(tasks::Evaluation::Forecasting(tally.evaluation()))
    }

    fn predict(&self, network: &Network, batch_size: usize) -> Result<Predictions> {
        let mut predictions = Predictions::default();
        let levels = &self.forecaster.quantiles;
        for (index, (context, said)) in self.outputs(network, batch_size)?.into_iter().enumerate() {
            let (part, origin) = self.at(index)?;
            let of = |place: usize| -> Value {
                let steps = said.iter().skip(place).step_by(levels.len());
                #[expect(clippy::cast_possible_truncation, reason = "series are in single precision")]
                steps.map(|value| Value::from(context.denormalise(*value) as f32)).collect()
            };
            let quantiles = levels.iter().enumerate().map(|(place, level)| (level.to_string(), of(place)));
            let actual = self.around(part, origin).1.iter().map(|value| value.is_finite().then_some(*value));
            let prediction = Prediction {
                path: part.path.display().to_string(),
                series: &part.series.name,
                origin,
                quantiles: quantiles.collect(),
                actual: actual.collect(),
            };
            predictions.push(&prediction)?;
        }
        predictions.counts = vec![("forecasts", predictions.lines.len() as u64)];
        Ok(predictions)
    }
}

/// The forecaster among the networks.
fn forecasting(network: &Network) -> Result<&Fracast> {
    let Network::Fracast(fracast) = network else {
        return Err(Error::new(Subject::Model, "the network forecasts no series"));
    };
    Ok(fracast)
}
