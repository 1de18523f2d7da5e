//! Each channel brought to mean 0 and standard deviation 1.

use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};

use super::dataset::Dataset;

/// The mean and standard deviation of every channel, part of a base model: `x -> (x - mean) / std`.
///
/// Kept in `f32`, in which it is applied, so that a value written to JSON and read back gives the same bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// Mean of each channel, in the recordings' unit.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, in the recordings' unit.
    pub std: Vec<f32>,
    /// Whether each window is brought to mean 0 and variance 1 before that, channel by channel: `do_normalize` of
    /// transformers' feature extractors for speech.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub per_window: bool,
}

/// What transformers adds to the variance of a window.
const WINDOW_EPSILON: f64 = 1e-7;

impl Normalisation {
    /// The mean and the (population) standard deviation over all windows of `dataset`, each sample counted as often as
    /// it is in a window; summed in `f64`, window by window.
    ///
    /// A channel that is constant is only centred: its `std` is 1. [`Dataset::constant_channels`] tells which those
    /// are, and [`Dataset::warnings`] says so.
    #[must_use]
    pub fn fit(dataset: &Dataset) -> Self {
        let constant = dataset.constant_channels();
        let (mean, std) = (0..dataset.channels())
            .map(|channel| {
                let (mean, std) = moments(dataset, channel);
                let flat = constant.contains(&channel) || std == 0.0;
                (mean, if flat { 1.0 } else { std })
            })
            .unzip();
        Self { mean, std, per_window: false }
    }

    /// The one that brings each window to mean 0 and variance 1: `(x - mean) / √(variance + 1e-7)`.
    #[must_use]
    pub fn per_window(channels: usize) -> Self {
        Self { per_window: true, ..Self::identity(channels) }
    }

    /// The one that changes nothing, for models that take recordings as they are.
    #[must_use]
    pub fn identity(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], std: vec![1.0; channels], per_window: false }
    }

    /// Checks that there is a finite mean and a positive standard deviation for each of `channels`.
    ///
    /// # Errors
    /// When there is not.
    pub fn check(&self, channels: usize) -> Result<()> {
        for (key, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != channels {
                return Err(Error::new(Subject::Data, "a value for each channel is needed")
                    .at(format!("normalisation: {key}"))
                    .found(values.len())
                    .expected(channels));
            }
        }
        let good = |mean: f32, std: f32| mean.is_finite() && std.is_finite() && std > 0.0;
        match self.mean.iter().zip(&self.std).position(|(mean, std)| !good(*mean, *std)) {
            None => Ok(()),
            Some(channel) => Err(Error::new(Subject::Data, "not a mean and a standard deviation")
                .at(format!("normalisation: channel {channel}"))
                .found(format!("mean {}, std {}", self.mean[channel], self.std[channel]))
                .expected("finite numbers, std above 0")),
        }
    }

    /// Appends the normalised `samples` of `channel` to `out`.
    pub(super) fn apply(&self, channel: usize, samples: &[f32], out: &mut Vec<f32>) {
        let (mean, std) = (self.mean[channel], self.std[channel]);
        if self.per_window {
            let (own_mean, own_std) = window_moments(samples);
            out.extend(samples.iter().map(|value| ((value - own_mean) / own_std - mean) / std));
            return;
        }
        out.extend(samples.iter().map(|value| (value - mean) / std));
    }
}

/// Mean and standard deviation of one window, the sums in `f64`.
fn window_moments(samples: &[f32]) -> (f32, f32) {
    #[expect(clippy::cast_precision_loss, reason = "a count of samples in memory is far below 2^53")]
    let count = samples.len().max(1) as f64;
    let mean = samples.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let variance = samples.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
    #[expect(clippy::cast_possible_truncation, reason = "the samples are in f32")]
    let rounded = (mean as f32, (variance + WINDOW_EPSILON).sqrt() as f32);
    rounded
}

fn moments(dataset: &Dataset, channel: usize) -> (f32, f32) {
    let sum_over = |term: &dyn Fn(f64) -> f64| {
        let windows = (0..dataset.len()).map(|index| dataset.samples(index, channel));
        windows.map(|window| window.iter().map(|value| term(f64::from(*value))).sum::<f64>()).sum::<f64>()
    };
    #[expect(clippy::cast_precision_loss, reason = "a count of samples in memory is far below 2^53")]
    let count = (dataset.len() * dataset.window()) as f64;
    let mean = sum_over(&|value| value) / count;
    let variance = sum_over(&|value| (value - mean).powi(2)) / count;
    #[expect(clippy::cast_possible_truncation, reason = "kept in f32, see the type")]
    let rounded = (mean as f32, variance.sqrt() as f32);
    rounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_does_not_fit() {
        let message = |mean: &[f32], std: &[f32]| {
            Normalisation { mean: mean.to_vec(), std: std.to_vec(), per_window: false }
                .check(2)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message(&[0.0], &[1.0]),
            "normalisation: mean: a value for each channel is needed: found 1, expected 2"
        );
        assert_eq!(
            message(&[0.0; 2], &[1.0, 0.0]),
            "normalisation: channel 1: not a mean and a standard deviation: found mean 0, std 0, expected finite \
             numbers, std above 0"
        );
        assert!(Normalisation::identity(2).check(2).is_ok());
    }

    #[test]
    fn a_window_by_itself() {
        let mut out = Vec::new();
        Normalisation::per_window(1).apply(0, &[1.0, 2.0, 3.0, 6.0], &mut out);
        // numpy: (x - x.mean()) / np.sqrt(x.var() + 1e-7)
        for (found, expected) in out.iter().zip([-1.069_045, -0.534_522_5, 0.0, 1.603_567_4_f32]) {
            assert!((found - expected).abs() < 1e-6, "{out:?}");
        }
        let json = serde_json::to_string(&Normalisation::identity(1)).unwrap();
        assert_eq!(json, r#"{"mean":[0.0],"std":[1.0]}"#);
    }

    #[test]
    fn survives_json_bit_by_bit() {
        let normalisation =
            Normalisation { mean: vec![0.1, -1.0 / 3.0, 1e-30], std: vec![1e20, 2.0 / 3.0, 0.7], per_window: false };
        let json = serde_json::to_string(&normalisation).unwrap();
        assert_eq!(serde_json::from_str::<Normalisation>(&json).unwrap(), normalisation);
    }
}
