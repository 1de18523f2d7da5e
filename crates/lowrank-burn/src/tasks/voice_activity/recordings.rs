//! The recordings of a split as examples: windows of them to train on, all of them to evaluate and predict.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::nn::loss::BinaryCrossEntropyLossConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use lowrank::{Error, Result, Subject, files};
use rayon::prelude::*;
use serde::Serialize;

use super::metrics::{Evaluation, Scored, is_speech, sigmoid};
use super::{Detector, Track};
use crate::data::{Manifest, Recording, Signal, Split};
use crate::models::Network;
use crate::models::silero_vad::SileroVad;
use crate::tasks::{self, Examples, Predictions};
use crate::train::TrainConfig;
use crate::values;

/// A label track is a page of text; more is something else.
const MAX_TRACK: u64 = 16 << 20;
/// The label of a recording without speech.
const NONE: &str = "none";
/// The label of a clean recording, in which all that is not silent is speech.
const ENERGY: &str = "energy";
/// Frames of all recordings of a batch that are computed at once, about: a few kilobytes each.
const BLOCK: usize = 4096;

/// The recordings of a split, with where in them somebody speaks.
#[derive(Debug, Clone)]
pub struct Recordings {
    parts: Vec<Part>,
    /// The part and the first sample of each window.
    windows: Vec<(usize, usize)>,
    window: usize,
    rate: f64,
    label_smoothing: f32,
    warnings: Vec<String>,
}

/// A row of the manifest, once its recording is known.
#[derive(Debug, Clone)]
struct Part {
    path: PathBuf,
    signal: Arc<Signal>,
    range: Range<usize>,
    track: Track,
}

/// What the network says about one recording.
#[derive(Debug, Serialize)]
struct Prediction {
    path: String,
    /// Seconds from one probability to the next.
    frame: f64,
    segments: Vec<Segment>,
    /// One a frame.
    probabilities: Vec<f32>,
}

/// A part of a recording that is taken for speech, in seconds.
#[derive(Debug, PartialEq, Serialize)]
struct Segment {
    start: f64,
    end: f64,
}

impl Recordings {
    /// The recordings of a split.
    ///
    /// The label of a row is `none` (no speech in it), `energy` (a clean recording: see [`Track::by_energy`]) or a label
    /// track, relative to the manifest's folder: see [`Track::parse`]. Windows are cut from each row every hop, while a
    /// whole one fits; a shorter recording is one window, silence behind it, or left out with
    /// [`skip_short`](crate::data::Reading::skip_short).
    ///
    /// # Errors
    /// All recordings and label tracks that cannot be used, at once; and when the split is empty.
    pub fn load(manifest: &Manifest, split: Split, detector: &Detector, config: &TrainConfig) -> Result<Self> {
        let format = &detector.signal;
        let rows: Vec<&Recording> = manifest.recordings().iter().filter(|row| row.split == split).collect();
        // A file is decoded once, however many rows name parts of it.
        let paths: BTreeSet<&Path> = rows.iter().map(|row| &*row.path).collect();
        let read = |path: &Path| Signal::read(path, format, &manifest.reading);
        let decoded: Vec<_> = paths.into_par_iter().map(|path| (path, read(path))).collect();
        let (mut signals, mut errors) = (BTreeMap::new(), Vec::new());
        for (path, signal) in decoded {
            match signal {
                Ok(signal) => drop(signals.insert(path, Arc::new(signal))),
                Err(error) => errors.push(error),
            }
        }
        Error::all(errors)?;
        let mut recordings = Self {
            parts: Vec::new(),
            windows: Vec::new(),
            window: format.window,
            rate: format.rate,
            label_smoothing: config.label_smoothing,
            warnings: Vec::new(),
        };
        let mut errors = Vec::new();
        for (row, signal) in rows.iter().filter_map(|row| Some((row, signals.get(&*row.path)?))) {
            let place = format!("{}: line {}", manifest.path().display(), row.line);
            errors.extend(recordings.add(manifest, row, signal, format.hop).err().map(|error| error.at(place)));
        }
        Error::all(errors)?;
        if recordings.windows.is_empty() {
            return Err(Error::new(Subject::Data, format!("no recordings in the {split} split"))
                .at(manifest.path().display())
                .with_hint(format!("give some rows \"{split}\" in the split column")));
        }
        Ok(recordings)
    }

    /// Adds a row and its windows.
    fn add(&mut self, manifest: &Manifest, row: &Recording, signal: &Arc<Signal>, hop: usize) -> Result<()> {
        let path = row.path.display();
        let range = row.span.resolve(signal.samples(), self.rate).map_err(|error| error.at(&path))?;
        if range.len() < self.window && manifest.reading.skip_short {
            self.warnings.push(format!("left out: {path}: shorter than a window"));
            return Ok(());
        }
        let label = manifest.labels().get(row.label).map_or(NONE, String::as_str);
        let track = self.track(manifest.path(), label, signal)?.within(&range);
        let part = self.parts.len();
        let last = range.end.saturating_sub(self.window).max(range.start);
        self.windows.extend((range.start..=last).step_by(hop.max(1)).map(|start| (part, start)));
        self.parts.push(Part { path: row.path.clone(), signal: signal.clone(), range, track });
        Ok(())
    }

    /// Where somebody speaks, by the label of a row.
    fn track(&self, manifest: &Path, label: &str, signal: &Signal) -> Result<Track> {
        match label {
            NONE => Ok(Track::default()),
            ENERGY => {
                let samples = signal.channels().first().map(Vec::as_slice).unwrap_or_default();
                Ok(Track::by_energy(samples, self.rate))
            }
            name => {
                let path = manifest.parent().unwrap_or(Path::new("")).join(name);
                let unknown = || {
                    let error = Error::new(Subject::Data, "no such label track").found(path.display());
                    error.expected(format!("{NONE}, {ENERGY}, or a file of start and end in seconds"))
                };
                if !files::exists(&path) {
                    return Err(unknown());
                }
                let text = files::read_to_string(&path, MAX_TRACK)?;
                let track = Track::parse(&text, self.rate).map_err(|error| error.at(path.display()))?;
                if track.end() > signal.samples() {
                    #[expect(clippy::cast_precision_loss, reason = "a length in memory is far below 2^53")]
                    let seconds = [track.end(), signal.samples()].map(|sample| sample as f64 / self.rate);
                    let error = Error::new(Subject::Data, "reaches past the end of the recording").at(path.display());
                    return Err(error.found(format!("{} s", seconds[0])).expected(format!("at most {} s", seconds[1])));
                }
                Ok(track)
            }
        }
    }

    /// The logits of every frame of every part, `batch_size` of them side by side.
    fn logits(&self, network: &Network, batch_size: usize) -> Result<Vec<Vec<f32>>> {
        let (vad, device) = (detector(network)?, network.device());
        let mut all = Vec::with_capacity(self.parts.len());
        for parts in self.parts.chunks(batch_size.max(1)) {
            all.extend(logits_of(parts, vad, &device));
        }
        match all.iter().position(|logits| logits.iter().any(|logit| !logit.is_finite())) {
            Some(part) => {
                Err(Error::new(Subject::Diverged, "the network's output is not finite").at(self.parts[part].name()))
            }
            None => Ok(all),
        }
    }
}

impl Part {
    /// Appends `samples` samples of it from `start` on, silence behind its end.
    fn fill(&self, start: usize, samples: usize, out: &mut Vec<f32>) {
        let end = (start + samples).min(self.range.end);
        let filled = out.len() + samples;
        out.extend(self.signal.channels().iter().flat_map(|channel| channel.get(start..end).unwrap_or_default()));
        out.resize(filled, 0.0);
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// The network as a detector.
fn detector(network: &Network) -> Result<&SileroVad> {
    let Network::SileroVad(vad) = network else {
        return Err(Error::new(Subject::Model, "not a network for voice activity"));
    };
    Ok(vad)
}

/// The logits of some parts side by side, block by block.
fn logits_of(parts: &[Part], vad: &SileroVad, device: &Device) -> Vec<Vec<f32>> {
    let frames: Vec<usize> = parts.iter().map(|part| part.range.len().div_ceil(vad.frame)).collect();
    let longest = frames.iter().copied().max().unwrap_or_default();
    let block = (BLOCK / parts.len()).max(1);
    let mut logits: Vec<Vec<f32>> = frames.iter().map(|frames| Vec::with_capacity(*frames)).collect();
    let mut state = vad.start(parts.len(), device);
    for first in (0..longest).step_by(block) {
        let count = block.min(longest - first);
        let mut samples = Vec::with_capacity(parts.len() * count * vad.frame);
        for part in parts {
            part.fill(part.range.start + first * vad.frame, count * vad.frame, &mut samples);
        }
        let input = Tensor::from_data(TensorData::new(samples, [parts.len(), count * vad.frame]), device);
        let (output, next) = vad.forward(input, state);
        state = next;
        for ((row, logits), frames) in values::of(output).chunks(count).zip(&mut logits).zip(&frames) {
            logits.extend(row.iter().take(frames.saturating_sub(first)));
        }
    }
    logits
}

/// Runs of frames that are taken for speech, in a part of so many samples of a recording at `rate`.
fn segments(logits: &[f32], frame: usize, range: &Range<usize>, rate: f64) -> Vec<Segment> {
    #[expect(clippy::cast_precision_loss, reason = "a position in memory is far below 2^53")]
    let second = |at: usize| (range.start + at * frame).min(range.end) as f64 / rate;
    let (mut segments, mut at) = (Vec::new(), 0);
    for run in logits.chunk_by(|a, b| is_speech(*a) == is_speech(*b)) {
        if run.first().is_some_and(|logit| is_speech(*logit)) {
            segments.push(Segment { start: second(at), end: second(at + run.len()) });
        }
        at += run.len();
    }
    segments
}

impl Examples for Recordings {
    fn len(&self) -> usize {
        self.windows.len()
    }

    fn unit(&self) -> &'static str {
        "window"
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn loss(&self, network: &Network, indices: &[usize]) -> Result<Tensor<1>> {
        let (vad, device) = (detector(network)?, network.device());
        let frames = self.window / vad.frame;
        let (mut samples, mut labels) = (Vec::new(), Vec::new());
        for index in indices {
            let Some((part, start)) = self.windows.get(*index).map(|(part, start)| (&self.parts[*part], *start)) else {
                return Err(Error::new(Subject::Data, "no such window").found(index).expected(self.windows.len()));
            };
            part.fill(start, frames * vad.frame, &mut samples);
            labels.extend(part.track.frames(start, vad.frame, frames).into_iter().map(i64::from));
        }
        let count = indices.len();
        let input = Tensor::from_data(TensorData::new(samples, [count, frames * vad.frame]), &device);
        let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [count * frames]), &device);
        let (logits, _) = vad.forward(input, vad.start(count, &device));
        let smoothing = (self.label_smoothing > 0.0).then_some(self.label_smoothing);
        let loss = BinaryCrossEntropyLossConfig::new().with_logits(true).with_smoothing(smoothing).init(&device);
        Ok(loss.forward(logits.reshape([count * frames]), labels))
    }

    /// F1, area under the curve, false alarms, misses and mean cross-entropy, of whole recordings.
    fn evaluate(&self, network: &Network, batch_size: usize) -> Result<tasks::Evaluation> {
        let frame = detector(network)?.frame;
        let scored = self.parts.iter().zip(self.logits(network, batch_size)?).map(|(part, logits)| {
            let labels = part.track.frames(part.range.start, frame, logits.len());
            let scored: Vec<Scored> = logits.into_iter().zip(labels).collect();
            (part.name(), scored)
        });
        Ok(tasks::Evaluation::VoiceActivity(Evaluation::new(scored.collect())))
    }

    /// A line for each recording: where somebody speaks, and the probability of every frame.
    fn predict(&self, network: &Network, batch_size: usize) -> Result<Predictions> {
        let (mut predictions, mut count) = (Predictions::default(), 0);
        let samples = detector(network)?.frame;
        #[expect(clippy::cast_precision_loss, reason = "a frame is short")]
        let frame = samples as f64 / self.rate;
        for (part, logits) in self.parts.iter().zip(self.logits(network, batch_size)?) {
            let segments = segments(&logits, samples, &part.range, self.rate);
            count += segments.len() as u64;
            let probabilities = logits.into_iter().map(sigmoid).collect();
            predictions.push(&Prediction { path: part.name(), frame, segments, probabilities })?;
        }
        predictions.counts = vec![("recordings", predictions.lines.len() as u64), ("segments", count)];
        Ok(predictions)
    }
}

#[cfg(test)]
mod tests;
