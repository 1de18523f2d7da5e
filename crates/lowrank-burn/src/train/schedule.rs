//! The learning rate over a run: warm-up, then constant, linear or cosine, by the formulas of Hugging Face transformers'
//! `get_{constant,linear,cosine}_schedule_with_warmup`.

use std::f64::consts::PI;

use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};

/// The shape of the learning rate after warm-up; names as `lr_scheduler_type` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Stays at its peak.
    Constant,
    /// Falls in a straight line to 0 at the end of the run.
    #[default]
    Linear,
    /// Falls along half a cosine to 0 at the end of the run.
    Cosine,
}

/// How long the rate rises from 0 to its peak.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Warmup {
    /// So many optimiser steps.
    Steps(u64),
    /// This share of all steps, rounded up.
    Ratio(f64),
}

impl Default for Warmup {
    fn default() -> Self {
        Self::Steps(0)
    }
}

/// A learning rate for every optimiser step of a run.
///
/// With `w` warm-up steps out of `n`, step `t` (counted from 0) has `lr * t / w` while `t < w`; after that, with
/// `p = (t - w) / (n - w)`, `lr`, `lr * (1 - p)` or `lr * (1 + cos(pi * p)) / 2`. As with transformers, the very first
/// step of a run with warm-up therefore has the rate 0.
///
/// ```
/// use lowrank_burn::train::schedule::{Schedule, ScheduleKind, Warmup};
///
/// let schedule = Schedule::new(ScheduleKind::Linear, 0.1, Warmup::Ratio(0.2), 10)?;
/// assert_eq!([schedule.lr(0), schedule.lr(1), schedule.lr(2), schedule.lr(6)], [0.0, 0.05, 0.1, 0.05]);
/// # Ok::<(), lowrank::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    kind: ScheduleKind,
    peak: f64,
    warmup: u64,
    total: u64,
}

impl Schedule {
    /// The schedule of a run of `total` optimiser steps whose rate is `peak` after warm-up.
    ///
    /// # Errors
    /// `Subject::Config`, all at once: a rate that is not a number above 0, a ratio outside 0 to 1, a warm-up that is
    /// longer than the run.
    pub fn new(kind: ScheduleKind, peak: f64, warmup: Warmup, total: u64) -> Result<Self> {
        let out_of_range = |key: &str, found: f64, expected: &str| {
            Error::new(Subject::Config, "out of range").at(key).found(found).expected(expected)
        };
        let mut errors = Vec::new();
        if !(peak.is_finite() && peak > 0.0) {
            errors.push(out_of_range("learning_rate", peak, "a number above 0"));
        }
        let warmup = match warmup {
            Warmup::Steps(steps) => steps,
            Warmup::Ratio(ratio) if (0.0..=1.0).contains(&ratio) => share(ratio, total),
            Warmup::Ratio(ratio) => {
                errors.push(out_of_range("warmup_ratio", ratio, "a number from 0 to 1"));
                0
            }
        };
        if warmup > total {
            errors.push(
                Error::new(Subject::Config, "the warm-up is longer than the run")
                    .at("warmup_steps")
                    .found(warmup)
                    .expected(format!("at most {total}"))
                    .with_hint("warm up for fewer steps, or train for more"),
            );
        }
        Error::all(errors)?;
        Ok(Self { kind, peak, warmup, total })
    }

    /// The learning rate of step `step`, counted from 0. Past the end of the run it stays where it ended (transformers'
    /// cosine rises again there).
    #[must_use]
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (real(step) / real(self.warmup));
        }
        let progress = real(step - self.warmup) / real((self.total - self.warmup).max(1));
        let factor = match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => real(self.total.saturating_sub(step)) / real((self.total - self.warmup).max(1)),
            ScheduleKind::Cosine => 0.5 * (1.0 + (PI * progress.min(1.0)).cos()),
        };
        self.peak * factor
    }

    /// Steps during which the rate rises.
    #[must_use]
    pub fn warmup_steps(&self) -> u64 {
        self.warmup
    }

    /// Steps of the whole run.
    #[must_use]
    pub fn total_steps(&self) -> u64 {
        self.total
    }
}

#[expect(clippy::cast_precision_loss, reason = "a run has fewer than 2^53 steps")]
fn real(steps: u64) -> f64 {
    steps as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a ratio of at most 1 of a u64")]
fn share(ratio: f64, total: u64) -> u64 {
    (real(total) * ratio).ceil() as u64
}

#[cfg(test)]
#[expect(clippy::unreadable_literal, reason = "numbers as the reference prints them")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rates(kind: ScheduleKind, warmup: u64) -> Vec<f64> {
        let schedule = Schedule::new(kind, 1.0, Warmup::Steps(warmup), 10).unwrap();
        (0..=10).map(|step| schedule.lr(step)).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{found:?} is not {expected:?}");
    }

    #[test]
    fn rates_are_those_of_transformers() {
        // The lambdas of transformers 5.23's schedules for 10 steps, without and with 4 steps of warm-up.
        let linear = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0];
        assert_close(&rates(ScheduleKind::Linear, 0), &linear);
        let cosine = [
            1.0,
            0.9755282581475768,
            0.9045084971874737,
            0.7938926261462366,
            0.6545084971874737,
            0.5,
            0.34549150281252633,
            0.2061073738537635,
            0.09549150281252633,
            0.024471741852423234,
            0.0,
        ];
        assert_close(&rates(ScheduleKind::Cosine, 0), &cosine);
        let third = 1.0 / 3.0;
        let warm = [0.0, 0.25, 0.5, 0.75, 1.0, 2.5 * third, 2.0 * third, 0.5, third, 0.5 * third, 0.0];
        assert_close(&rates(ScheduleKind::Linear, 4), &warm);
        let warm_cosine = [0.0, 0.25, 0.5, 0.75, 1.0, 0.9330127018922194, 0.75, 0.5, 0.25, 0.06698729810778065, 0.0];
        assert_close(&rates(ScheduleKind::Cosine, 4), &warm_cosine);
        assert_close(&rates(ScheduleKind::Constant, 0), &[1.0; 11]);
        assert_close(&rates(ScheduleKind::Constant, 4)[..6], &[0.0, 0.25, 0.5, 0.75, 1.0, 1.0]);
    }

    #[test]
    fn a_ratio_is_rounded_up() {
        let warmup = |ratio| Schedule::new(ScheduleKind::Linear, 1.0, Warmup::Ratio(ratio), 25).unwrap().warmup_steps();
        assert_eq!((warmup(0.0), warmup(0.05), warmup(1.0)), (0, 2, 25));
    }

    #[test]
    fn wrong_settings_are_all_named() {
        let error = Schedule::new(ScheduleKind::Linear, f64::NAN, Warmup::Steps(11), 10).unwrap_err();
        let parts: Vec<String> = error.parts().iter().map(ToString::to_string).collect();
        assert_eq!(parts[0], "learning_rate: out of range: found NaN, expected a number above 0");
        assert_eq!(parts[1], "warmup_steps: the warm-up is longer than the run: found 11, expected at most 10");
        assert!(Schedule::new(ScheduleKind::Linear, 1.0, Warmup::Ratio(-0.1), 10).is_err());
        assert!(Schedule::new(ScheduleKind::Linear, 1.0, Warmup::Ratio(f64::NAN), 10).is_err());
    }

    #[test]
    fn names_are_transformers() {
        assert_eq!(serde_json::to_string(&ScheduleKind::Cosine).unwrap(), r#""cosine""#);
        assert_eq!(serde_json::from_str::<Warmup>(r#"{"ratio": 0.1}"#).unwrap(), Warmup::Ratio(0.1));
        assert!(serde_json::from_str::<ScheduleKind>(r#""polynomial""#).is_err());
    }

    proptest! {
        #[test]
        fn the_rate_rises_then_never_rises_again(kind in 0..3usize, warmup in 0..30u64, more in 0..60u64) {
            let kind = [ScheduleKind::Constant, ScheduleKind::Linear, ScheduleKind::Cosine][kind];
            let schedule = Schedule::new(kind, 0.3, Warmup::Steps(warmup), warmup + more).unwrap();
            let rates: Vec<f64> = (0..warmup + more + 5).map(|step| schedule.lr(step)).collect();
            let (rising, falling) = rates.split_at(usize::try_from(warmup).unwrap());
            prop_assert!(rising.is_sorted() && falling.is_sorted_by(|a, b| a >= b));
            prop_assert!(rates.iter().all(|rate| (0.0..=0.3).contains(rate)));
        }
    }
}
