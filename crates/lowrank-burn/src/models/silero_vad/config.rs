//! The keys of a Silero VAD's `config.json`.

use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Strides of the four convolutions.
pub(super) const STRIDES: [usize; 4] = [1, 2, 2, 1];

/// The keys of a Silero VAD's `config.json`. Left out, they are those of the 16 kHz network of the package `silero-vad` 6.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SileroVadConfig {
    /// Samples of a frame, which gets one probability.
    pub frame: usize,
    /// Samples before a frame that are looked at with it.
    pub context: usize,
    /// Samples of a window of the Fourier transform; a quarter of them is added behind a frame, mirrored.
    pub n_fft: usize,
    /// Samples from one such window to the next.
    pub hop_length: usize,
    /// Channels of the four convolutions; the last are also those of the LSTM.
    pub channels: [usize; 4],
}

impl Default for SileroVadConfig {
    fn default() -> Self {
        Self { frame: 512, context: 64, n_fft: 256, hop_length: 128, channels: [128, 64, 64, 128] }
    }
}

impl SileroVadConfig {
    /// Reads the keys.
    ///
    /// # Errors
    /// All keys that are unknown or out of range; and when what the convolutions leave of a frame is not one step.
    pub fn from_map(keys: Map<String, Value>) -> Result<Self> {
        let config: Self = serde_json::from_value(Value::Object(keys))
            .map_err(|error| Error::new(Subject::Model, error.to_string()))?;
        let sizes = [("frame", config.frame), ("context", config.context), ("n_fft", config.n_fft)];
        let sizes = sizes.into_iter().chain([("hop_length", config.hop_length)]);
        let channels = config.channels.iter().map(|channels| ("channels", *channels));
        let zero = |(key, _)| Error::new(Subject::Model, "out of range").at(key).found(0).expected("1 or more");
        Error::all(sizes.chain(channels).filter(|(_, size)| *size == 0).map(zero).collect())?;
        if config.context > config.frame {
            let error = Error::new(Subject::Model, "more than a frame").at("context").found(config.context);
            return Err(error.expected(format!("at most {}", config.frame)));
        }
        // Strides of 1, 2, 2 and 1 with a kernel of three leave one step of at most four.
        match config.columns() {
            Some(1..=4) => Ok(config),
            columns => Err(Error::new(Subject::Model, "a frame has to make 1 to 4 columns of the Fourier transform")
                .at("hop_length")
                .found(columns.unwrap_or(0))
                .expected("(context + frame + n_fft / 4 - n_fft) / hop_length + 1 from 1 to 4")),
        }
    }

    /// Samples added behind a frame.
    pub(super) fn padding(&self) -> usize {
        self.n_fft / 4
    }

    /// Frequencies of the Fourier transform.
    pub(super) fn bins(&self) -> usize {
        self.n_fft / 2 + 1
    }

    /// Columns of the Fourier transform in a frame; none when it is shorter than a window.
    fn columns(&self) -> Option<usize> {
        let samples = self.context.checked_add(self.frame)?.checked_add(self.padding())?;
        Some(samples.checked_sub(self.n_fft)? / self.hop_length + 1)
    }
}
