//! What the network reads of a series: its last values between 0 and 1, and the periods in them.
//!
//! All of it is computed on the host, from plain numbers: none of it has a gradient, and periods are found by looking.

use std::f32::consts::{LN_2, TAU};

use burn::tensor::{Device, Tensor, TensorData};
use lowrank::{Error, Result, Subject};

use super::config::Keys;
use super::periods;

/// Values that a series needs for a forecast.
pub const MIN_OBSERVED: usize = 8;

/// Numbers that tell a position how far from now it is.
pub(super) const RECENCY: usize = 5;

/// A series as the network sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// The last values, from 0 for their minimum to 1 for their maximum; 0 where there is none. `[context]`
    values: Vec<f32>,
    /// 1 where there is a value, else 0. `[context]`
    observed: Vec<f32>,
    /// Sines and cosines of the position in each period. `[context, 2 * topk * harmonics]`
    phases: Vec<f32>,
    /// The mean value of the future's place in the first period. `[horizon]`
    fill: Vec<f32>,
    minimum: f64,
    span: f64,
}

impl Context {
    /// The end of `history`, in which what is missing is not a number.
    ///
    /// # Errors
    /// When fewer than [`MIN_OBSERVED`] of its values are finite.
    pub(super) fn new(keys: &Keys, history: &[f32]) -> Result<Self> {
        let tail = &history[history.len().saturating_sub(keys.context)..];
        let finite = || tail.iter().copied().filter(|value| value.is_finite());
        let count = finite().count();
        if count < MIN_OBSERVED {
            return Err(Error::new(Subject::Data, "too little context for a forecast")
                .found(format!("{count} values"))
                .expected(format!("{MIN_OBSERVED} or more")));
        }
        let minimum = f64::from(finite().fold(f32::INFINITY, f32::min));
        let range = f64::from(finite().fold(f32::NEG_INFINITY, f32::max)) - minimum;
        let mut context = Self {
            values: vec![0.0; keys.context],
            observed: vec![0.0; keys.context],
            phases: Vec::new(),
            fill: Vec::new(),
            minimum,
            span: range.max(1e-5),
        };
        let start = keys.context - tail.len();
        for (at, value) in tail.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            context.values[start + at] = context.normalise(*value);
            context.observed[start + at] = 1.0;
        }
        let periods = periods::significant(keys, &context.values, &context.observed);
        context.phases = phases(keys, &periods);
        context.fill = context.seasonal_fill(keys, periods.first().copied().unwrap_or(0));
        Ok(context)
    }

    /// A value of the series in the network's unit.
    #[must_use]
    pub fn normalise(&self, value: f32) -> f32 {
        #[expect(clippy::cast_possible_truncation, reason = "the network computes in single precision")]
        let normalised = ((f64::from(value) - self.minimum) / self.span) as f32;
        normalised
    }

    /// A value of the network in the series' unit.
    #[must_use]
    pub fn denormalise(&self, value: f32) -> f64 {
        f64::from(value) * self.span + self.minimum
    }

    /// The context folded by `period`, and the mean of the part of a period that each step of the future falls into; of the
    /// whole context where that part was never seen.
    fn seasonal_fill(&self, keys: &Keys, period: usize) -> Vec<f32> {
        let bins = keys.head_phase_bins;
        let bin = |position: usize| {
            let share = real(position % period.max(1)) / real(period.max(1)) * real(bins);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to the number of bins")]
            let bin = share as usize;
            bin.min(bins - 1)
        };
        let (mut sums, mut counts) = (vec![0.0_f64; bins], vec![0_usize; bins]);
        for (position, value) in self.values.iter().enumerate().filter(|(at, _)| self.observed[*at] > 0.0) {
            sums[bin(position)] += f64::from(*value);
            counts[bin(position)] += 1;
        }
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "the mean of a few thousand")]
        let mean = |sum: f64, count: usize| (sum / count.max(1) as f64) as f32;
        let overall = mean(sums.iter().sum(), counts.iter().sum());
        let future = keys.context..keys.context + keys.horizon;
        future
            .map(|position| match (sums[bin(position)], counts[bin(position)]) {
                (_, 0) => overall,
                (sum, count) => mean(sum, count),
            })
            .collect()
    }
}

/// Series as tensors.
#[derive(Debug, Clone)]
pub struct Input {
    /// Value, whether there is one, and how far it is from now: `[batch, context, 7]`.
    pub(super) features: Tensor<3>,
    /// `[batch, context, 2 * topk * harmonics]`.
    pub(super) phases: Tensor<3>,
    /// `[batch, horizon]`.
    pub(super) fill: Tensor<2>,
}

impl Input {
    pub(super) fn new(keys: &Keys, contexts: &[Context], device: &Device) -> Self {
        let (batch, width) = (contexts.len(), 2 + RECENCY);
        let recency = recency(0..keys.context, keys.context);
        let mut features = Vec::with_capacity(batch * keys.context * width);
        for context in contexts {
            let values = context.values.iter().zip(&context.observed).zip(recency.chunks(RECENCY));
            values.for_each(|((value, observed), recency)| {
                features.extend([*value, *observed]);
                features.extend(recency);
            });
        }
        let phases: Vec<f32> = contexts.iter().flat_map(|context| &context.phases).copied().collect();
        let fill: Vec<f32> = contexts.iter().flat_map(|context| &context.fill).copied().collect();
        let phase_width = 2 * keys.periodic_topk * keys.periodic_harmonics;
        Self {
            features: Tensor::from_data(TensorData::new(features, [batch, keys.context, width]), device),
            phases: Tensor::from_data(TensorData::new(phases, [batch, keys.context, phase_width]), device),
            fill: Tensor::from_data(TensorData::new(fill, [batch, keys.horizon]), device),
        }
    }
}

/// How far positions are from now, which is the last of the context: linear, logarithmic, and in three decays.
/// `[positions, 5]`
///
/// In single precision and in the order of `PyTorch`, as everything here that is an angle: a rounding error of a large angle
/// is not small.
pub(super) fn recency(positions: std::ops::Range<usize>, context: usize) -> Vec<f32> {
    let now = real(context - 1);
    positions
        .flat_map(|position| {
            let delta = (real(position) - now) / real(context);
            let far = delta.abs();
            let sign = if delta == 0.0 { 0.0 } else { delta.signum() };
            [delta, sign * far.ln_1p() / LN_2, (-0.5 * far).exp(), (-2.0 * far).exp(), (-8.0 * far).exp()]
        })
        .collect()
}

/// Sine and cosine of every position in every period and its harmonics; zeros for a period of 0. `[context, 2·K·H]`
fn phases(keys: &Keys, periods: &[usize]) -> Vec<f32> {
    let mut phases = Vec::with_capacity(keys.context * 2 * periods.len() * keys.periodic_harmonics);
    for position in 0..keys.context {
        for period in periods {
            let angle = TAU * real(position) / real((*period).max(1));
            for harmonic in 1..=keys.periodic_harmonics {
                let (sine, cosine) = (angle * real(harmonic)).sin_cos();
                phases.extend(if *period > 0 { [sine, cosine] } else { [0.0, 0.0] });
            }
        }
    }
    phases
}

#[expect(clippy::cast_precision_loss, reason = "positions are far below 2^24")]
pub(super) fn real(number: usize) -> f32 {
    number as f32
}
