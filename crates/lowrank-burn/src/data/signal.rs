//! A recording in memory, and the form a model wants it in.

use std::ops::Range;
use std::path::Path;

use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};

use super::decode;

/// The largest ratio between two rates that are still taken for the same kind of recording.
pub(super) const MAX_RATIO: f64 = 256.0;

/// What a model takes in. Part of a base model's `config.json`, under `"signal"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalFormat {
    /// Channels of every recording.
    pub channels: usize,
    /// Samples a second, in Hz; `"sample_rate"` in the file.
    #[serde(rename = "sample_rate")]
    pub rate: f64,
    /// Samples in a window.
    pub window: usize,
    /// Samples from the start of one window to the start of the next.
    pub hop: usize,
}

impl SignalFormat {
    /// Checks that every size is at least 1 and the rate a positive number.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn validate(&self) -> Result<()> {
        let sizes = [("channels", self.channels), ("window", self.window), ("hop", self.hop)];
        let mut errors: Vec<Error> = sizes
            .iter()
            .filter(|(_, size)| *size == 0)
            .map(|(key, _)| Error::new(Subject::Data, "must be at least 1").at(key).at("signal").found(0))
            .collect();
        errors.extend(check_rate(self.rate).map_err(|error| error.at("sample_rate").at("signal")).err());
        Error::all(errors)
    }

    /// Where the windows of `range` start: at its start and every hop from there, while a whole window fits.
    pub(super) fn windows(&self, range: Range<usize>) -> impl Iterator<Item = usize> {
        let end = (range.end + 1).saturating_sub(self.window);
        (range.start..end).step_by(self.hop.max(1))
    }
}

/// How files become signals where a file alone does not say.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reading {
    /// The rate of CSV and NPY series in Hz, which these files do not carry. `None`: the rate the model wants.
    pub series_rate: Option<f64>,
    /// Whether a recording with several channels may be averaged into one for a model that takes one.
    pub mix_to_mono: bool,
    /// Whether recordings shorter than a window are left out with a warning, rather than refused.
    pub skip_short: bool,
    /// Seconds of a window of a model that hears windows of any length up to its own. `None`: the longest.
    pub window_seconds: Option<f64>,
}

/// A recording: channels x samples at a rate, whether audio or sensors.
///
/// All channels are of one length, at least one sample; every value is a finite number.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    channels: Vec<Vec<f32>>,
    rate: f64,
}

impl Signal {
    /// A signal from its channels, `rate` in Hz.
    ///
    /// # Errors
    /// Without a channel or a sample, with channels of different lengths, with a rate that is not positive, and with a
    /// NaN or an infinity, which is named by channel and sample (both counted from 0).
    pub fn new(channels: Vec<Vec<f32>>, rate: f64) -> Result<Self> {
        let samples = channels.first().map_or(0, Vec::len);
        if samples == 0 {
            return Err(Error::new(Subject::Data, "the recording is empty"));
        }
        check_rate(rate)?;
        if let Some(other) = channels.iter().find(|channel| channel.len() != samples) {
            return Err(Error::new(Subject::Data, "channels of different lengths")
                .found(format!("{} samples", other.len()))
                .expected(samples));
        }
        let bad: Vec<(usize, usize)> = channels
            .iter()
            .enumerate()
            .flat_map(|(c, channel)| {
                channel.iter().enumerate().filter(|(_, v)| !v.is_finite()).map(move |(i, _)| (c, i))
            })
            .collect();
        if let Some((channel, sample)) = bad.first() {
            let more = if bad.len() > 1 { format!(", and {} more", bad.len() - 1) } else { String::new() };
            return Err(Error::new(Subject::Data, "not a finite number")
                .at(format!("channel {channel}, sample {sample} (counted from 0)"))
                .found(format!("{}{more}", channels[*channel][*sample]))
                .with_hint("cut the recording there with the manifest's start and end, or repair it"));
        }
        Ok(Self { channels, rate })
    }

    /// Reads a file and brings it to what the model wants: channel count, then rate.
    ///
    /// WAV, FLAC, OGG Vorbis and MP3 carry their rate and are scaled to -1..1; CSV (columns are channels, with or
    /// without a header) and NPY (`(samples, channels)`, or one axis for one channel) are taken as they are, at
    /// [`Reading::series_rate`]. A differing rate is resampled, see [`Signal::resampled`].
    ///
    /// # Errors
    /// For a file that is missing, of an unknown kind, malformed or cut short; for a wrong channel count, unless it is
    /// several for one and [`Reading::mix_to_mono`] allows it; for values that are not finite.
    pub fn read(path: &Path, format: &SignalFormat, reading: &Reading) -> Result<Self> {
        let series_rate = reading.series_rate.unwrap_or(format.rate);
        let signal = decode::decode(path, series_rate)?;
        let found = signal.channels.len();
        let signal = match (found, format.channels) {
            (found, wanted) if found == wanted => signal,
            (_, 1) if reading.mix_to_mono => signal.mixed(),
            (_, wanted) => {
                let error = Error::new(Subject::Data, "wrong number of channels")
                    .at(path.display())
                    .found(found)
                    .expected(wanted);
                return Err(match wanted {
                    1 => error.with_hint("to average the channels into one, set mix_to_mono = true"),
                    _ if found == wanted + 1 => {
                        error.with_hint("if one column is the time or an index, take it out: every column is a channel")
                    }
                    _ => error,
                });
            }
        };
        signal.resampled(format.rate).map_err(|error| error.at(path.display()))
    }

    /// The samples, a channel each.
    #[must_use]
    pub fn channels(&self) -> &[Vec<f32>] {
        &self.channels
    }

    /// Samples a second, in Hz.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Samples in every channel.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.channels.first().map_or(0, Vec::len)
    }

    pub(super) fn into_channels(self) -> Vec<Vec<f32>> {
        self.channels
    }

    /// The mean of all channels as the only one.
    fn mixed(self) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a channel count")]
        let count = self.channels.len() as f64;
        #[expect(clippy::cast_possible_truncation, reason = "the mean of f32 values fits f32")]
        let mean = |i: usize| (self.channels.iter().map(|channel| f64::from(channel[i])).sum::<f64>() / count) as f32;
        Self { channels: vec![(0..self.samples()).map(mean).collect()], rate: self.rate }
    }
}

fn check_rate(rate: f64) -> Result<()> {
    if rate.is_finite() && rate > 0.0 {
        return Ok(());
    }
    Err(Error::new(Subject::Data, "the sample rate must be a positive number").found(rate).expected("a rate in Hz"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_signal_has_channels_of_one_length_and_finite_values() {
        let message = |channels: Vec<Vec<f32>>, rate| Signal::new(channels, rate).unwrap_err().to_string();
        assert_eq!(message(vec![], 1.0), "the recording is empty");
        assert_eq!(message(vec![vec![]], 1.0), "the recording is empty");
        assert_eq!(
            message(vec![vec![0.0], vec![0.0; 2]], 1.0),
            "channels of different lengths: found 2 samples, expected 1"
        );
        assert_eq!(
            message(vec![vec![0.0; 2], vec![0.0, f32::NAN]], 1.0),
            "channel 1, sample 1 (counted from 0): not a finite number: found NaN"
        );
        assert_eq!(
            message(vec![vec![f32::NEG_INFINITY, f32::NAN]], 1.0),
            "channel 0, sample 0 (counted from 0): not a finite number: found -inf, and 1 more"
        );
        assert_eq!(
            message(vec![vec![0.0]], 0.0),
            "the sample rate must be a positive number: found 0, expected a rate in Hz"
        );
    }

    #[test]
    fn mixing_is_the_mean() {
        let signal = Signal::new(vec![vec![1.0, 2.0], vec![3.0, -2.0]], 1.0).unwrap();
        assert_eq!(signal.mixed().channels(), [[2.0, 0.0]]);
    }

    #[test]
    fn the_format_is_what_config_json_holds() {
        let json = r#"{"channels":6,"sample_rate":50.0,"window":128,"hop":64}"#;
        let format: SignalFormat = serde_json::from_str(json).unwrap();
        assert_eq!(format, SignalFormat { channels: 6, rate: 50.0, window: 128, hop: 64 });
        assert_eq!(serde_json::to_string(&format).unwrap(), json);
        assert!(serde_json::from_str::<SignalFormat>(&json.replace("hop", "stride")).is_err());
        let error = SignalFormat { channels: 0, rate: f64::NAN, window: 1, hop: 0 }.validate().unwrap_err();
        assert_eq!(
            error.parts().iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "signal: channels: must be at least 1: found 0",
                "signal: hop: must be at least 1: found 0",
                "signal: sample_rate: the sample rate must be a positive number: found NaN, expected a rate in Hz",
            ]
        );
    }

    proptest! {
        #[test]
        fn windows_lie_in_their_range_and_none_is_missing(
            start in 0_usize..50, length in 0_usize..300, window in 1_usize..40, hop in 1_usize..60
        ) {
            let format = SignalFormat { channels: 1, rate: 1.0, window, hop };
            let starts: Vec<usize> = format.windows(start..start + length).collect();
            let expected = if length < window { 0 } else { (length - window) / hop + 1 };
            prop_assert_eq!(starts.len(), expected);
            for (i, at) in starts.iter().enumerate() {
                prop_assert_eq!(*at, start + i * hop);
                prop_assert!(at + window <= start + length);
            }
        }
    }
}
