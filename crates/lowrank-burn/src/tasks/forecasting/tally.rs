//! Figures of forecasts in the making.

use std::collections::BTreeMap;

use super::Forecaster;
use super::evaluation::{Evaluation, SeasonFigures, StepFigures};

/// One forecast, and what came.
pub(super) struct Judged<'a> {
    /// By step, then by quantile.
    pub quantiles: &'a [f64],
    /// What came, not a number where that is unknown.
    pub actual: &'a [f32],
    /// For every season of the series: its length, the unit of errors, and the forecasts of the naive methods.
    pub seasons: &'a [Season],
    /// The pinball loss, in the unit of the network.
    pub loss: f64,
}

/// A season of the series that is forecast.
pub(super) struct Season {
    pub length: usize,
    pub scale: Option<f64>,
    pub naive: Vec<f64>,
    pub shifted: Vec<f64>,
}

/// Sums over forecasts.
pub(super) struct Tally<'a> {
    forecaster: &'a Forecaster,
    forecasts: u64,
    loss: Mean,
    watched: Mean,
    seasons: BTreeMap<usize, SeasonSums>,
    steps: Vec<StepSums>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: f64,
}

#[derive(Default)]
struct SeasonSums {
    first: usize,
    mase: Mean,
    naive: Mean,
    shifted: Mean,
}

#[derive(Clone, Copy, Default)]
struct StepSums {
    error: Mean,
    scaled: Mean,
    inside: Mean,
    /// Sum of the pinball losses of all quantiles.
    pinball: f64,
    /// Sum of the values' sizes.
    size: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        if value.is_finite() {
            self.sum += value;
            self.count += 1.0;
        }
    }

    fn get(self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

impl<'a> Tally<'a> {
    pub fn new(forecaster: &'a Forecaster) -> Self {
        Self {
            forecaster,
            forecasts: 0,
            loss: Mean::default(),
            watched: Mean::default(),
            seasons: BTreeMap::new(),
            steps: vec![StepSums::default(); forecaster.horizon],
        }
    }

    pub fn add(&mut self, judged: &Judged<'_>) {
        self.forecasts += 1;
        self.loss.add(judged.loss);
        let (width, median) = (self.forecaster.quantiles.len(), self.forecaster.median());
        let medians: Vec<f64> = judged.quantiles.chunks(width).map(|step| step[median]).collect();
        let unit = judged.seasons.first().and_then(|season| season.scale);
        for (place, season) in judged.seasons.iter().enumerate() {
            let Some(scale) = season.scale else { continue };
            let sums = self
                .seasons
                .entry(season.length)
                .or_insert_with(|| SeasonSums { first: place, ..SeasonSums::default() });
            let mase = |forecast: &[f64]| mean_error(forecast, judged.actual) / scale;
            let own = mase(&medians);
            sums.mase.add(own);
            sums.naive.add(mase(&season.naive));
            sums.shifted.add(mase(&season.shifted));
            if place == 0 {
                self.watched.add(own);
            }
        }
        let steps = self.steps.iter_mut().zip(judged.quantiles.chunks(width)).zip(judged.actual);
        for ((sums, quantiles), actual) in steps.filter(|(_, actual)| actual.is_finite()) {
            let actual = f64::from(*actual);
            let error = (quantiles[median] - actual).abs();
            sums.error.add(error);
            if let Some(unit) = unit {
                sums.scaled.add(error / unit);
            }
            let inside = quantiles[0] <= actual && actual <= quantiles[width - 1];
            sums.inside.add(f64::from(u8::from(inside)));
            sums.size += actual.abs();
            let levels = self.forecaster.quantiles.iter().zip(quantiles);
            sums.pinball += levels.map(|(level, forecast)| pinball(*level, actual - forecast)).sum::<f64>();
        }
    }

    pub fn evaluation(self) -> Evaluation {
        let levels = self.forecaster.quantiles.iter().map(|_| 1.0).sum::<f64>();
        let wql = |pinball: f64, size: f64| (size > 0.0).then(|| 2.0 * pinball / (levels * size));
        let mut all = StepSums::default();
        for sums in &self.steps {
            all.pinball += sums.pinball;
            all.size += sums.size;
            for (whole, part) in [(&mut all.error, sums.error), (&mut all.inside, sums.inside)] {
                whole.sum += part.sum;
                whole.count += part.count;
            }
        }
        let mut seasons: Vec<(usize, SeasonFigures)> = (self.seasons.into_iter())
            .map(|(season, sums)| {
                let (mase, naive, shifted) = (sums.mase.get(), sums.naive.get(), sums.shifted.get());
                (sums.first, SeasonFigures { season, mase, naive, shifted })
            })
            .collect();
        seasons.sort_by_key(|(place, figures)| (*place, figures.season));
        let step = |(number, sums): (usize, &StepSums)| StepFigures {
            step: number as u64 + 1,
            mae: sums.error.get(),
            mase: sums.scaled.get(),
            wql: wql(sums.pinball, sums.size),
            coverage: sums.inside.get(),
        };
        Evaluation {
            forecasts: self.forecasts,
            loss: self.loss.get(),
            mase: self.watched.get(),
            mae: all.error.get(),
            wql: wql(all.pinball, all.size),
            coverage: all.inside.get(),
            band: self.forecaster.band(),
            seasons: seasons.into_iter().map(|(_, figures)| figures).collect(),
            steps: self.steps.iter().enumerate().map(step).collect(),
        }
    }
}

/// The loss of a quantile forecast that is `below` the value (Koenker and Bassett, "Regression Quantiles", 1978).
pub(super) fn pinball(level: f64, below: f64) -> f64 {
    (level * below).max((level - 1.0) * below)
}

fn mean_error(forecast: &[f64], actual: &[f32]) -> f64 {
    let errors = forecast.iter().zip(actual).map(|(forecast, actual)| (forecast - f64::from(*actual)).abs());
    super::naive::mean(errors).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_the_textbooks() {
        let forecaster = Forecaster { context: 8, horizon: 2, quantiles: vec![0.1, 0.5, 0.9] };
        let season = |length, scale, naive: [f64; 2]| Season {
            length,
            scale,
            naive: naive.to_vec(),
            shifted: vec![f64::NAN; 2],
        };
        let mut tally = Tally::new(&forecaster);
        let seasons = [season(4, Some(2.0), [10.0, 12.0]), season(2, Some(1.0), [8.0, 8.0])];
        tally.add(&Judged {
            quantiles: &[8.0, 9.0, 11.0, 8.0, 9.0, 10.0],
            actual: &[10.0, 12.0],
            seasons: &seasons,
            loss: 0.5,
        });
        tally.add(&Judged {
            quantiles: &[4.0, 5.0, 6.0, 0.0, 0.0, 0.0],
            actual: &[5.0, f32::NAN],
            seasons: &seasons,
            loss: 1.5,
        });
        let figures = tally.evaluation();
        assert_eq!((figures.forecasts, figures.loss, figures.band), (2, Some(1.0), 0.8));
        // Errors 1, 3 and 0; the second forecast has one value.
        assert_eq!(figures.mae, Some(4.0 / 3.0));
        assert_eq!(figures.mase, Some(f64::midpoint(2.0 / 2.0, 0.0)));
        assert_eq!(figures.coverage, Some(2.0 / 3.0));
        let sums = [0.1 * 2.0 + 0.5 * 1.0 + 0.1 * 1.0, 0.1 * 4.0 + 0.5 * 3.0 + 0.9 * 2.0, 0.1 * 1.0 + 0.1 * 1.0];
        let expected = 2.0 * sums.iter().sum::<f64>() / (3.0 * 27.0);
        assert!((figures.wql.unwrap() - expected).abs() < 1e-12);
        let mases: Vec<_> = figures.seasons.iter().map(|season| (season.season, season.mase, season.naive)).collect();
        assert_eq!(mases[0], (4, Some(0.5), Some(f64::midpoint(0.0, 5.0 / 2.0))));
        assert_eq!(mases[1], (2, Some(1.0), Some(f64::midpoint(3.0, 3.0))));
        assert_eq!(figures.seasons[0].shifted, None);
        let first = &figures.steps[0];
        assert_eq!((first.step, first.mae, first.mase, first.coverage), (1, Some(0.5), Some(0.25), Some(1.0)));
        assert_eq!((figures.steps[1].coverage, figures.steps[1].mase), (Some(0.0), Some(1.5)));
    }

    #[test]
    fn nothing_seen_is_nothing_claimed() {
        let forecaster = Forecaster { context: 8, horizon: 1, quantiles: vec![0.5] };
        let figures = Tally::new(&forecaster).evaluation();
        assert_eq!((figures.mase, figures.wql, figures.coverage, figures.loss), (None, None, None, None));
    }

    #[test]
    fn pinball_weighs_both_sides() {
        assert_eq!((pinball(0.9, 2.0), pinball(0.9, -2.0)), (1.8, 0.199_999_999_999_999_96));
    }
}
