//! The next steps of a series, as quantiles: pinball loss; MASE, weighted quantile loss and coverage, by step; origins that roll
//! over the series.

mod evaluation;
mod forecaster;
mod forecasts;
mod manifest;
mod naive;
mod series;
mod tally;

pub use evaluation::{Evaluation, SeasonFigures, StepFigures};
pub use forecaster::Forecaster;
pub use forecasts::Forecasts;
pub use manifest::{Manifest, Row};
