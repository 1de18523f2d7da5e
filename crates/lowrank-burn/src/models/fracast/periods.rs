//! The periods of a series: peaks of its periodogram that noise would not show.

use realfft::RealFftPlanner;
use realfft::num_complex::Complex;

use super::config::Keys;

/// The `periodic_topk` strongest periods in steps, the strongest first; 0 where there are no more.
///
/// A line of the periodogram counts when it is higher than its neighbours and holds more than `ln(n/α)/n` of the power, the
/// share that the highest of `n` lines of white noise exceeds with probability `α` (Fisher, "Tests of Significance in Harmonic
/// Analysis", 1929). What is missing is the mean of the rest.
pub(super) fn significant(keys: &Keys, values: &[f32], observed: &[f32]) -> Vec<usize> {
    let length = values.len();
    let transformed = length.next_power_of_two();
    let shares = periodogram(values, observed, transformed);
    let lines = real(shares.len());
    let threshold = (lines.max(2.0) / keys.periodic_alpha).ln() / lines.max(2.0);
    let longest = (length / 2).max(2);
    let first = (transformed / longest).saturating_sub(1).max(1);
    let last = (transformed / keys.periodic_min_period.max(2)).saturating_sub(1).min(shares.len().saturating_sub(2));
    let is_peak = |line: &usize| {
        let share = shares[*line];
        share > shares[line - 1] && share > shares[line + 1] && share >= threshold
    };
    let mut peaks: Vec<usize> = (first..=last).filter(is_peak).collect();
    peaks.sort_by(|a, b| shares[*b].total_cmp(&shares[*a]));
    let period = |line: usize| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the length of the series")]
        let period = (real(transformed) / real(line + 1)).round_ties_even() as usize;
        period
    };
    let found = peaks.into_iter().map(period).chain(std::iter::repeat(0));
    found.take(keys.periodic_topk).collect()
}

/// The share of the power at every frequency above 0.
fn periodogram(values: &[f32], observed: &[f32], transformed: usize) -> Vec<f64> {
    let seen = || values.iter().zip(observed).filter(|(_, observed)| **observed > 0.0);
    let mean = seen().map(|(value, _)| f64::from(*value)).sum::<f64>() / real(seen().count().max(1));
    let transform = RealFftPlanner::<f64>::new().plan_fft_forward(transformed);
    let mut signal = transform.make_input_vec();
    for ((out, value), observed) in signal.iter_mut().zip(values).zip(observed) {
        *out = if *observed > 0.0 { f64::from(*value) - mean } else { 0.0 };
    }
    let mut spectrum = transform.make_output_vec();
    if transform.process(&mut signal, &mut spectrum).is_err() {
        // The buffers come from the transform itself, so they fit.
        spectrum.fill(Complex::default());
    }
    let power: Vec<f64> = spectrum.iter().skip(1).map(Complex::norm_sqr).collect();
    let total = power.iter().sum::<f64>().max(1e-12);
    power.into_iter().map(|line| line / total).collect()
}

#[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^53")]
fn real(number: usize) -> f64 {
    number as f64
}
