//! From one rate to another.

use lowrank::{Error, Result, Subject};
use rubato::audioadapter_buffers::direct::SequentialSliceOfVecs;
use rubato::{Fft, FixedSync, Resampler};

use super::signal::{MAX_RATIO, Signal};

/// Least number of points of the filter at the lower of the two rates; it cuts at 97 % of what that rate can hold.
const FILTER: usize = 512;

/// How far off the ratio of two rates may be taken; the crystals of recorders are twenty times worse.
const TOLERANCE: f64 = 1e-6;

impl Signal {
    /// The signal at `rate` Hz, through a windowed sinc of at least 512 points at the lower of the two rates, in `f64`:
    /// `ceil(samples * rate / old rate)` samples, of which sample 0 stays where it is. The rates are taken for a ratio
    /// of whole numbers within one part in a million; rates closer than that are the same.
    ///
    /// Outside of a recording the filter sees the line through its first and last sample, not silence, so a constant
    /// (gravity on an accelerometer) does not ring at the ends. The same machine gives the same bits; the order of
    /// summation in its Fourier transforms, and with it the last bit, may differ between processors.
    ///
    /// # Errors
    /// When the rates are more than a factor of 256 apart, which is taken for a mistake, or `rate` is not positive.
    ///
    /// ```
    /// # use lowrank_burn::data::Signal;
    /// let signal = Signal::new(vec![vec![9.81; 100]], 50.0)?;
    /// let twice = signal.resampled(100.0)?;
    /// assert_eq!((twice.samples(), twice.rate()), (200, 100.0));
    /// assert!(twice.channels()[0].iter().all(|value| (value - 9.81).abs() < 1e-5));
    /// # Ok::<(), lowrank::Error>(())
    /// ```
    pub fn resampled(self, rate: f64) -> Result<Self> {
        let ratio = rate / self.rate();
        if (ratio - 1.0).abs() < TOLERANCE {
            return Self::new(self.into_channels(), rate);
        }
        if !(1.0 / MAX_RATIO..=MAX_RATIO).contains(&ratio) {
            return Err(Error::new(Subject::Data, "sample rates too far apart to be the same kind of recording")
                .found(format!("{} Hz", self.rate()))
                .expected(format!("{rate} Hz, or within a factor of {MAX_RATIO} of it"))
                .with_hint("check the rate that was given; if it is right, resample the recording beforehand"));
        }
        let samples = self.samples();
        let lines: Vec<Line> = self.channels().iter().map(|channel| Line::through_ends(channel)).collect();
        let input: Vec<Vec<f64>> = lines.iter().zip(self.channels()).map(|(line, c)| line.subtracted(c)).collect();
        let failed = |error: String| Error::new(Subject::Data, format!("cannot resample: {error}"));

        let buffer = SequentialSliceOfVecs::new(&input, input.len(), samples).map_err(|e| failed(e.to_string()))?;
        let (up, down) = whole_ratio(ratio);
        // Twice a whole number of the smallest blocks, so that half a block, the filter's delay, is whole at both rates.
        let blocks = 2 * (FILTER / 2).div_ceil(up.min(down));
        let output = Fft::<f64>::new(down, up, blocks * down, input.len(), FixedSync::Both)
            .map_err(|e| failed(e.to_string()))?
            .process_all(&buffer, samples, None)
            .map_err(|e| failed(e.to_string()))?
            .take_data();

        let length = output_length(samples, self.rate(), rate);
        let channels = lines.iter().enumerate().map(|(c, line)| {
            let values = output.iter().skip(c).step_by(lines.len()).take(length);
            #[expect(clippy::cast_possible_truncation, reason = "signals are kept in f32")]
            let value = |(i, value): (usize, &f64)| (value + line.at(position(i) / ratio)) as f32;
            values.enumerate().map(value).collect()
        });
        Self::new(channels.collect(), rate)
    }
}

/// The first convergent of the continued fraction of `ratio` that is within [`TOLERANCE`] of it.
fn whole_ratio(ratio: f64) -> (usize, usize) {
    let (mut previous, mut last) = ((0, 1), (1, 0));
    let mut rest = ratio;
    loop {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; saturates")]
        let whole = rest.floor() as u64;
        let next = |a: u64, b: u64| whole.saturating_mul(b).saturating_add(a);
        let (up, down) = (next(previous.0, last.0), next(previous.1, last.1));
        (previous, last) = (last, (up, down));
        #[expect(clippy::cast_precision_loss, reason = "terms are small")]
        let error = (up as f64 / down as f64 / ratio - 1.0).abs();
        rest = 1.0 / (rest - rest.floor());
        if error < TOLERANCE || !rest.is_finite() {
            break;
        }
    }
    let term = |value: u64| usize::try_from(value).unwrap_or(1).max(1);
    (term(last.0), term(last.1))
}

/// Multiplied before it is divided: 30 samples from 100 Hz to 10 Hz are 3, not the 4 that 30 * 0.1 rounds up to.
fn output_length(samples: usize, from: f64, to: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by the ratio")]
    let length = (position(samples) * to / from).ceil() as usize;
    length
}

#[expect(clippy::cast_precision_loss, reason = "a length in memory is far below 2^53")]
fn position(index: usize) -> f64 {
    index as f64
}

/// The line through a channel's first and last sample.
struct Line {
    first: f64,
    slope: f64,
}

impl Line {
    fn through_ends(channel: &[f32]) -> Self {
        let first = channel.first().copied().map_or(0.0, f64::from);
        let last = channel.last().copied().map_or(0.0, f64::from);
        Self { first, slope: (last - first) / position(channel.len().max(2) - 1) }
    }

    fn at(&self, position: f64) -> f64 {
        self.first + self.slope * position
    }

    fn subtracted(&self, channel: &[f32]) -> Vec<f64> {
        channel.iter().enumerate().map(|(i, value)| f64::from(*value) - self.at(position(i))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    fn sine(frequency: f64, rate: f64, samples: usize) -> Signal {
        #[expect(clippy::cast_possible_truncation, reason = "test signal")]
        let channel = (0..samples).map(|i| (TAU * frequency * position(i) / rate).sin() as f32).collect();
        Signal::new(vec![channel], rate).unwrap()
    }

    /// Largest difference to the same sine sampled at the new rate, away from the ends.
    fn error(frequency: f64, from: f64, to: f64) -> f64 {
        let resampled = sine(frequency, from, 4000).resampled(to).unwrap();
        let exact = sine(frequency, to, resampled.samples());
        let edge = resampled.samples() / 8;
        let pairs = resampled.channels()[0].iter().zip(&exact.channels()[0]);
        pairs.skip(edge).take(6 * edge).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
    }

    #[test]
    fn a_sine_keeps_frequency_amplitude_and_phase() {
        for (frequency, from, to) in [
            (440.0, 16_000.0, 8_000.0),
            (440.0, 8_000.0, 16_000.0),
            (1000.0, 44_100.0, 16_000.0),
            (3.0, 50.0, 31.25),
            (3.0, 100.0, 50.0),
            (2.0, 20.0, 33.3),
        ] {
            let error = error(frequency, from, to);
            assert!(error < 0.01, "{frequency} Hz from {from} to {to} Hz is off by {error}");
        }
    }

    #[test]
    fn what_the_new_rate_cannot_hold_is_removed() {
        let above = sine(3000.0, 16_000.0, 8000).resampled(4000.0).unwrap();
        let middle = &above.channels()[0][500..1500];
        assert!(middle.iter().all(|value| value.abs() < 1e-3));
        let far_above = sine(60.0, 1000.0, 20_000).resampled(10.0).unwrap();
        assert!(far_above.channels()[0][50..150].iter().all(|value| value.abs() < 1e-3));
    }

    #[test]
    fn a_ramp_stays_a_ramp_up_to_its_ends() {
        #[expect(clippy::cast_precision_loss, reason = "test signal")]
        let ramp = |n: usize, step: f32| (0..n).map(|i| 5.0 + step * i as f32).collect::<Vec<_>>();
        let signal = Signal::new(vec![ramp(60, 0.5), vec![-2.0; 60]], 10.0).unwrap().resampled(25.0).unwrap();
        assert_eq!((signal.samples(), signal.channels().len()), (150, 2));
        for (value, exact) in signal.channels()[0].iter().zip(ramp(150, 0.2)) {
            assert!((value - exact).abs() < 1e-3);
        }
    }

    #[test]
    fn rates_become_whole_ratios() {
        for (from, to, ratio) in [
            (44_100.0, 48_000.0, (160, 147)),
            (16_000.0, 8000.0, (1, 2)),
            (50.0, 31.25, (5, 8)),
            (20.0, 33.3, (333, 200)),
            (51.2, 50.0, (125, 128)),
        ] {
            assert_eq!(whole_ratio(to / from), ratio);
        }
        for i in 1..1000 {
            let ratio = (f64::from(i) * 0.618).exp2() % 256.0 + 1.0 / 256.0;
            let (up, down) = whole_ratio(ratio);
            assert!((position(up) / position(down) / ratio - 1.0).abs() < TOLERANCE, "{ratio}: {up} / {down}");
        }
    }

    #[test]
    fn lengths_are_exact() {
        assert_eq!(output_length(30, 100.0, 10.0), 3);
        for (samples, from, to, length) in
            [(30, 100.0, 10.0, 3), (1, 8000.0, 16_000.0, 2), (441, 44_100.0, 48_000.0, 480)]
        {
            assert_eq!(sine(1.0, from, samples).resampled(to).unwrap().samples(), length);
        }
        assert_eq!(sine(1.0, 50.0, 10).resampled(50.0).unwrap(), sine(1.0, 50.0, 10));
    }

    #[test]
    fn refuses_rates_of_another_kind() {
        let error = sine(1.0, 50.0, 10).resampled(16_000.0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "sample rates too far apart to be the same kind of recording: found 50 Hz, expected 16000 Hz, or within a \
             factor of 256 of it"
        );
        assert!(sine(1.0, 50.0, 10).resampled(f64::NAN).is_err());
    }
}
