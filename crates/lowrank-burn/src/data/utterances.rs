//! The recordings of one split as they are, not cut into windows.

use std::path::PathBuf;

use lowrank::{Error, Result, Subject};

use super::dataset::{no_rows, read_once};
use super::manifest::{Manifest, Recording, Split};
use super::normalisation::Normalisation;
use super::signal::SignalFormat;

/// A row of a manifest: the part of a recording that it means.
#[derive(Debug, Clone, PartialEq)]
pub struct Utterance {
    /// The recording.
    pub path: PathBuf,
    /// Where the part begins in it, in seconds.
    pub start: f64,
    /// What it shows, as an index into [`Manifest::labels`].
    pub label: usize,
    /// Its samples, a channel each, at the rate that was asked for.
    pub channels: Vec<Vec<f32>>,
}

impl Utterance {
    /// Samples in every channel.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.channels.first().map_or(0, Vec::len)
    }

    /// The samples, normalised as one window: channel after channel.
    ///
    /// # Errors
    /// When the normalisation is of another number of channels.
    pub fn normalised(&self, normalisation: &Normalisation) -> Result<Vec<f32>> {
        normalisation.check(self.channels.len())?;
        let mut values = Vec::with_capacity(self.channels.len() * self.samples());
        for (channel, samples) in self.channels.iter().enumerate() {
            normalisation.apply(channel, samples, &mut values);
        }
        Ok(values)
    }
}

/// Decodes the recordings of `split`, as `rate` and channels of `format` say, in the order of the manifest. `window` is the
/// least number of samples that a part has to have.
///
/// # Errors
/// As [`super::Dataset::load`]: all recordings that cannot be used, at once; parts that are shorter than `window`, unless
/// [`super::Reading::skip_short`] leaves them out, which the second of the results then tells.
pub fn utterances(manifest: &Manifest, split: Split, format: &SignalFormat) -> Result<(Vec<Utterance>, Vec<String>)> {
    format.validate()?;
    let rows: Vec<&Recording> = manifest.recordings().iter().filter(|row| row.split == split).collect();
    if rows.is_empty() {
        return Err(no_rows(manifest, split));
    }
    let (places, signals) = read_once(manifest, &rows, format)?;
    let (mut found, mut errors, mut short) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let Some((path, signal)) = places.get(row.path.as_path()).and_then(|place| signals.get(*place)) else {
            continue;
        };
        let place =
            |error: Error| error.at(path.display()).at(format!("{}: line {}", manifest.path().display(), row.line));
        match row.span.resolve(signal.samples(), format.rate) {
            Err(error) => errors.push(place(error)),
            Ok(range) if range.len() < format.window => {
                let error = Error::new(Subject::Data, "too short").found(format!("{} samples", range.len()));
                short.push(place(
                    error
                        .expected(format!("at least {}", format.window))
                        .with_hint("take the row out, or set skip_short = true to leave short recordings out"),
                ));
            }
            Ok(range) => {
                #[expect(clippy::cast_precision_loss, reason = "a position in memory is far below 2^53")]
                let start = range.start as f64 / format.rate;
                let channels = signal.channels().iter().map(|channel| channel[range.clone()].to_vec()).collect();
                found.push(Utterance { path: path.clone(), start, label: row.label, channels });
            }
        }
    }
    let mut warnings = Vec::new();
    if manifest.reading.skip_short && !found.is_empty() {
        warnings.extend(short.iter().map(|error| format!("left out: {error}")));
    } else {
        errors.extend(short);
    }
    Error::all(errors)?;
    Ok((found, warnings))
}
