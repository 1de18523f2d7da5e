//! The figures of forecasts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tasks::classification::figure;
use crate::tasks::{Better, Score};

/// Lines of the table by step.
const PARTS: usize = 6;

/// The figures of forecasts. Displays as a table; as JSON it holds every number of it.
///
/// What is missing in a series is left out everywhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// How many forecasts were made.
    pub forecasts: u64,
    /// The mean pinball loss, in the network's unit, where the context goes from 0 to 1.
    pub loss: Option<f64>,
    /// Mean absolute scaled error of the median: a forecast's mean error in units of the mean change from one season to the
    /// next before the first origin, averaged over forecasts; by the first season of each series.
    pub mase: Option<f64>,
    /// Mean absolute error of the median.
    pub mae: Option<f64>,
    /// Weighted quantile loss: twice the pinball losses, averaged over quantiles, over the sum of the values' sizes.
    pub wql: Option<f64>,
    /// Share of the values between the outermost quantiles.
    pub coverage: Option<f64>,
    /// What that share should be.
    pub band: f64,
    /// For every length of season that a manifest names, in its order.
    pub seasons: Vec<SeasonFigures>,
    /// For every step of the horizon.
    pub steps: Vec<StepFigures>,
}

/// MASE by one season, of the network and of what any forecast has to beat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeasonFigures {
    /// Its length in steps.
    pub season: usize,
    /// Of the network.
    pub mase: Option<f64>,
    /// Of the value one season ago.
    pub naive: Option<f64>,
    /// Of that value, moved by the difference of the last horizon's mean from the one a season before.
    pub shifted: Option<f64>,
}

/// The figures of one step of the horizon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepFigures {
    /// Counted from 1.
    pub step: u64,
    /// See [`Evaluation::mae`].
    pub mae: Option<f64>,
    /// See [`Evaluation::mase`].
    pub mase: Option<f64>,
    /// See [`Evaluation::wql`].
    pub wql: Option<f64>,
    /// See [`Evaluation::coverage`].
    pub coverage: Option<f64>,
}

impl Evaluation {
    /// MASE, which is watched, where a season is given; weighted quantile loss, coverage, and the loss last.
    #[must_use]
    pub fn scores(&self) -> Vec<Score> {
        let lower = |name, title, value| Score { name, title, value, better: Better::Lower, share: false };
        let mase = (!self.seasons.is_empty()).then(|| lower("mase", "MASE", self.mase));
        let coverage = Score {
            name: "coverage",
            title: "coverage",
            value: self.coverage,
            better: Better::Near(self.band),
            share: true,
        };
        mase.into_iter().chain([lower("wql", "WQL", self.wql), coverage, Score::loss(self.loss)]).collect()
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for SeasonFigures { season, mase, naive, shifted } in &self.seasons {
            let (name, mase) = (format!("MASE({season})"), figure(*mase, 4));
            let (naive, shifted) = (figure(*naive, 4), figure(*shifted, 4));
            writeln!(f, "{name:<18}{mase:>8}   seasonal naive {naive}, with level shift {shifted}")?;
        }
        writeln!(f, "{:<18}{:>8}", "WQL", figure(self.wql, 4))?;
        writeln!(f, "{:<18}{:>8}   of {:.2}", "coverage", figure(self.coverage, 4), self.band)?;
        writeln!(f, "{:<18}{:>8}", "MAE", figure(self.mae, 4))?;
        writeln!(f, "{:<18}{:>8}", "loss", figure(self.loss, 4))?;
        writeln!(f, "{:<18}{:>8}\n", "forecasts", self.forecasts)?;
        write!(f, "{:<10}{:>8}{:>8}{:>8}{:>10}", "steps", "MAE", "MASE", "WQL", "coverage")?;
        for part in self.steps.chunks(self.steps.len().div_ceil(PARTS).max(1)) {
            let mean = |value: fn(&StepFigures) -> Option<f64>| super::naive::mean(part.iter().filter_map(value));
            let (first, last) = (part.first().map_or(0, |step| step.step), part.last().map_or(0, |step| step.step));
            let [error, scaled, wql] = [mean(|step| step.mae), mean(|step| step.mase), mean(|step| step.wql)];
            let [error, scaled, wql] = [error, scaled, wql].map(|value| figure(value, 4));
            let coverage = figure(mean(|step| step.coverage), 3);
            let steps = format!("{first}-{last}");
            write!(f, "\n{steps:<10}{error:>8}{scaled:>8}{wql:>8}{coverage:>10}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_seasons_and_the_horizon_in_parts() {
        let step = |step| StepFigures { step, mae: Some(0.5), mase: None, wql: Some(0.25), coverage: Some(1.0) };
        let evaluation = Evaluation {
            forecasts: 3,
            loss: Some(0.125),
            mase: Some(0.75),
            mae: Some(0.5),
            wql: Some(0.25),
            coverage: Some(0.7),
            band: 0.8,
            seasons: vec![SeasonFigures { season: 336, mase: Some(0.75), naive: Some(1.5), shifted: None }],
            steps: (1..=8).map(step).collect(),
        };
        let expected = [
            "MASE(336)           0.7500   seasonal naive 1.5000, with level shift -",
            "WQL                 0.2500",
            "coverage            0.7000   of 0.80",
            "MAE                 0.5000",
            "loss                0.1250",
            "forecasts                3",
            "",
            "steps          MAE    MASE     WQL  coverage",
            "1-2         0.5000       -  0.2500     1.000",
            "3-4         0.5000       -  0.2500     1.000",
            "5-6         0.5000       -  0.2500     1.000",
            "7-8         0.5000       -  0.2500     1.000",
        ];
        assert_eq!(evaluation.to_string().lines().collect::<Vec<_>>(), expected);
        let names: Vec<_> = evaluation.scores().into_iter().map(|score| score.name).collect();
        assert_eq!(names, ["mase", "wql", "coverage", "loss"]);
        assert!(evaluation.scores()[2].is_better(0.75, 0.9) && !evaluation.scores()[2].is_better(0.95, 0.7));
        let json = serde_json::to_string(&evaluation).unwrap();
        assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), evaluation);
    }
}
