//! The windows of one split, in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lowrank::random::Random;
use lowrank::{Error, Result, Subject};
use rayon::prelude::*;

use super::balance::{Balance, ClassBalance};
use super::manifest::{Manifest, Recording, Split};
use super::normalisation::Normalisation;
use super::signal::{Signal, SignalFormat};

/// The windows of one split of a [`Manifest`], in the order of the manifest.
///
/// A file is decoded once, however many rows name parts of it; windows are cut and normalised when they are asked for.
#[derive(Debug, Clone)]
pub struct Dataset {
    split: Split,
    format: SignalFormat,
    labels: Vec<String>,
    labelled: bool,
    signals: Vec<(PathBuf, Signal)>,
    parts: Vec<Part>,
    windows: Vec<Window>,
    warnings: Vec<String>,
}

/// A row of the manifest, once its recording is known.
#[derive(Debug, Clone)]
struct Part {
    signal: usize,
    label: usize,
    range: Range<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    part: usize,
    start: usize,
}

/// Where a window comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source<'a> {
    /// The recording.
    pub path: &'a Path,
    /// Its first sample, at the model's rate.
    pub start: usize,
    /// The sample after its last, at the model's rate.
    pub end: usize,
    /// What it shows, as an index into [`Dataset::labels`].
    pub label: usize,
}

impl Dataset {
    /// Decodes the recordings of `split` and cuts them into the windows `format` describes.
    ///
    /// Parts of a recording are taken at the model's rate, after resampling; windows start at the part's first sample
    /// and every hop from there, as long as a whole window fits. Recordings are decoded in parallel; the result does
    /// not depend on that.
    ///
    /// # Errors
    /// All recordings that cannot be used, at once: see [`Signal::read`]; parts that reach past the end; recordings
    /// shorter than a window, unless [`super::Reading::skip_short`] leaves them out. Also when the split is empty, and
    /// when nothing of a label is left after leaving out.
    pub fn load(manifest: &Manifest, split: Split, format: &SignalFormat) -> Result<Self> {
        format.validate()?;
        let rows: Vec<&Recording> = manifest.recordings().iter().filter(|row| row.split == split).collect();
        if rows.is_empty() {
            return Err(no_rows(manifest, split));
        }
        let (places, signals) = read_once(manifest, &rows, format)?;
        let mut dataset = Self {
            split,
            format: *format,
            labels: manifest.labels().to_vec(),
            labelled: manifest.labelled(),
            signals,
            parts: Vec::new(),
            windows: Vec::new(),
            warnings: Vec::new(),
        };
        dataset.cut(manifest, &rows, &places)?;
        dataset.warn_of_constant_channels();
        Ok(dataset)
    }

    /// Fills in the parts and windows of `rows`.
    fn cut(&mut self, manifest: &Manifest, rows: &[&Recording], places: &BTreeMap<&Path, usize>) -> Result<()> {
        let (mut errors, mut short) = (Vec::new(), Vec::new());
        for row in rows {
            let place = format!("{}: line {}", manifest.path().display(), row.line);
            let Some((signal, (path, samples))) =
                places.get(row.path.as_path()).and_then(|place| Some((*place, self.signals.get(*place)?)))
            else {
                continue;
            };
            let range = match row.span.resolve(samples.samples(), self.format.rate) {
                Ok(range) => range,
                Err(error) => {
                    errors.push(error.at(path.display()).at(place));
                    continue;
                }
            };
            if range.len() < self.format.window {
                short.push(
                    Error::new(Subject::Data, "shorter than a window")
                        .at(path.display())
                        .at(place)
                        .found(format!("{} samples", range.len()))
                        .expected(format!("at least {}", self.format.window))
                        .with_hint("take the row out, or set skip_short = true to leave short recordings out"),
                );
                continue;
            }
            let part = self.parts.len();
            self.windows.extend(self.format.windows(range.clone()).map(|start| Window { part, start }));
            self.parts.push(Part { signal, label: row.label, range });
        }
        if manifest.reading.skip_short {
            self.warnings.extend(short.iter().map(|error| format!("left out: {error}")));
            errors.extend(self.emptied_classes(rows));
        } else {
            errors.extend(short);
        }
        Error::all(errors)
    }

    /// Labels the split has, but nothing long enough of.
    fn emptied_classes(&self, rows: &[&Recording]) -> Vec<Error> {
        let names = self.labels.iter().enumerate();
        let emptied = names.filter(|(label, _)| {
            rows.iter().any(|row| row.label == *label) && !self.parts.iter().any(|part| part.label == *label)
        });
        emptied
            .map(|(_, name)| {
                Error::new(Subject::Data, "every recording of a label is shorter than a window")
                    .at(self.split)
                    .found(format!("\"{name}\""))
                    .with_hint("record more of it, or take a model with a shorter window")
            })
            .collect()
    }

    fn warn_of_constant_channels(&mut self) {
        let constant = self.constant_channels();
        if !constant.is_empty() {
            let names = constant.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let warning = format!("{}: constant in every window, so not scaled: channel {names} (from 0)", self.split);
            self.warnings.push(warning);
        }
    }

    /// How many windows there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "never empty: loading nothing is an error")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Channels of every window.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.format.channels
    }

    /// Samples of every window.
    #[must_use]
    pub fn window(&self) -> usize {
        self.format.window
    }

    /// Samples a second of every window, in Hz.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.format.rate
    }

    /// The names of the labels, in the order of the model's outputs.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Whether it is known what the recordings show: see [`Manifest::labelled`].
    #[must_use]
    pub fn labelled(&self) -> bool {
        self.labelled
    }

    /// The label of every window, as indices into [`Dataset::labels`].
    #[must_use]
    pub fn window_labels(&self) -> impl ExactSizeIterator<Item = usize> {
        self.windows.iter().map(|window| self.parts[window.part].label)
    }

    /// What is allowed but worth knowing: recordings left out, channels that never change.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where window `index` comes from; `None` from [`Dataset::len`] on.
    #[must_use]
    pub fn source(&self, index: usize) -> Option<Source<'_>> {
        let window = self.windows.get(index)?;
        let part = &self.parts[window.part];
        let (path, _) = &self.signals[part.signal];
        Some(Source { path, start: window.start, end: window.start + self.format.window, label: part.label })
    }

    /// The windows in the order of `epoch`, a function of `(seed, epoch)` alone. Batches are its chunks; the last may
    /// be short.
    #[must_use]
    pub fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        Random::new(seed, "shuffle", epoch).shuffle(&mut order);
        order
    }

    /// Replaces `out` by the normalised windows `indices`, `[windows, channels, samples]`, and `labels` by theirs.
    ///
    /// # Errors
    /// When an index is not below [`Dataset::len`], or the normalisation is of another number of channels.
    pub fn fill(
        &self,
        indices: &[usize],
        normalisation: &Normalisation,
        out: &mut Vec<f32>,
        labels: &mut Vec<usize>,
    ) -> Result<()> {
        normalisation.check(self.channels())?;
        if let Some(index) = indices.iter().find(|index| **index >= self.len()) {
            return Err(Error::new(Subject::Data, "no such window")
                .found(index)
                .expected(format!("below {}", self.len())));
        }
        out.clear();
        out.reserve(indices.len() * self.channels() * self.window());
        labels.clear();
        for index in indices {
            for channel in 0..self.channels() {
                normalisation.apply(channel, self.samples(*index, channel), out);
            }
            labels.push(self.parts[self.windows[*index].part].label);
        }
        Ok(())
    }

    /// Channels with one and the same value in all windows.
    #[must_use]
    pub fn constant_channels(&self) -> Vec<usize> {
        let constant = |channel: &usize| {
            let mut values = (0..self.len()).flat_map(|index| self.samples(index, *channel));
            values.next().is_some_and(|first| values.all(|value| value.to_bits() == first.to_bits()))
        };
        (0..self.channels()).filter(constant).collect()
    }

    /// How much there is of each label.
    #[must_use]
    pub fn balance(&self) -> Balance {
        let mut classes: Vec<ClassBalance> = self
            .labels
            .iter()
            .map(|label| ClassBalance { label: label.clone(), recordings: 0, windows: 0, seconds: 0.0 })
            .collect();
        for part in &self.parts {
            let class = &mut classes[part.label];
            class.recordings += 1;
            #[expect(clippy::cast_precision_loss, reason = "a length in memory is far below 2^53")]
            let samples = part.range.len() as f64;
            class.seconds += samples / self.format.rate;
        }
        for label in self.window_labels() {
            classes[label].windows += 1;
        }
        Balance { split: self.split, classes }
    }

    /// One channel of window `index`, as recorded.
    pub(super) fn samples(&self, index: usize, channel: usize) -> &[f32] {
        let window = self.windows[index];
        let (_, signal) = &self.signals[self.parts[window.part].signal];
        &signal.channels()[channel][window.start..window.start + self.format.window]
    }
}

/// Where the recording of each path is, and the recordings.
type Decoded<'a> = (BTreeMap<&'a Path, usize>, Vec<(PathBuf, Signal)>);

/// The recordings of some rows, each decoded once, and where the recording of a path is among them.
pub(super) fn read_once<'a>(manifest: &Manifest, rows: &[&'a Recording], format: &SignalFormat) -> Result<Decoded<'a>> {
    let mut places: BTreeMap<&Path, usize> = BTreeMap::new();
    let mut paths: Vec<&Path> = Vec::new();
    for row in rows {
        places.entry(&row.path).or_insert_with(|| {
            paths.push(&row.path);
            paths.len() - 1
        });
    }
    let read = |path: &&Path| Signal::read(path, format, &manifest.reading);
    let decoded: Vec<Result<Signal>> = paths.par_iter().map(read).collect();
    let mut signals = Vec::with_capacity(paths.len());
    let mut errors = Vec::new();
    for (path, signal) in paths.iter().zip(decoded) {
        match signal {
            Ok(signal) => signals.push((path.to_path_buf(), signal)),
            Err(error) => errors.push(error),
        }
    }
    Error::all(errors)?;
    Ok((places, signals))
}

pub(super) fn no_rows(manifest: &Manifest, split: Split) -> Error {
    let count = |split| manifest.recordings().iter().filter(|row| row.split == split).count();
    let found: Vec<String> = Split::ALL.iter().map(|split| format!("{} {split}", count(*split))).collect();
    Error::new(Subject::Data, format!("no recordings in the {split} split"))
        .at(manifest.path().display())
        .found(found.join(", "))
        .with_hint(format!("give some rows \"{split}\" in the split column"))
}

#[cfg(test)]
mod tests;
