//! The recordings of one split as their rows mean them, uncut.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lowrank::{Error, Result};
use rayon::prelude::*;

use super::dataset::no_rows;
use super::manifest::{Manifest, Recording, Split};
use super::signal::{Signal, SignalFormat};

/// The part of a recording that a row of a [`Manifest`] means.
#[derive(Debug, Clone)]
pub struct Part {
    /// The recording.
    pub path: PathBuf,
    /// What it shows, as an index into [`Manifest::labels`].
    pub label: usize,
    /// Its samples in the recording, at the model's rate.
    pub range: Range<usize>,
    /// Its values, a channel each.
    pub channels: Vec<Vec<f32>>,
    /// The row's line in the manifest.
    pub line: u64,
}

impl Part {
    /// The parts of a split, in the order of the manifest, at the rate and channels of `format`; its windows do not count.
    /// Recordings are decoded in parallel; the result does not depend on that.
    ///
    /// # Errors
    /// All recordings that cannot be used, at once: see [`Signal::read`]; parts that reach past the end. Also when the split
    /// is empty.
    pub fn load(manifest: &Manifest, split: Split, format: &SignalFormat) -> Result<Vec<Self>> {
        let rows: Vec<&Recording> = manifest.recordings().iter().filter(|row| row.split == split).collect();
        if rows.is_empty() {
            return Err(no_rows(manifest, split));
        }
        let mut by_path: BTreeMap<&Path, Vec<(usize, &Recording)>> = BTreeMap::new();
        for (at, row) in rows.iter().enumerate() {
            by_path.entry(&row.path).or_default().push((at, row));
        }
        let decoded: Vec<Vec<(usize, Result<Self>)>> =
            by_path.into_par_iter().map(|(path, rows)| of_file(manifest, path, &rows, format)).collect();
        let mut parts: Vec<(usize, Result<Self>)> = decoded.into_iter().flatten().collect();
        parts.sort_by_key(|(at, _)| *at);
        let (mut good, mut errors) = (Vec::with_capacity(parts.len()), Vec::new());
        for (_, part) in parts {
            match part {
                Ok(part) => good.push(part),
                Err(error) => errors.push(error),
            }
        }
        Error::all(errors)?;
        Ok(good)
    }
}

/// The parts that some rows mean of one file, each with the row's place; one error when it cannot be read.
fn of_file(
    manifest: &Manifest,
    path: &Path,
    rows: &[(usize, &Recording)],
    format: &SignalFormat,
) -> Vec<(usize, Result<Part>)> {
    let signal = match Signal::read(path, format, &manifest.reading) {
        Ok(signal) => signal,
        Err(error) => return rows.first().map(|(at, _)| (*at, Err(error))).into_iter().collect(),
    };
    let part = |row: &Recording| {
        let place = format!("{}: line {}", manifest.path().display(), row.line);
        let range = row.span.resolve(signal.samples(), format.rate);
        let range = range.map_err(|error| error.at(path.display()).at(place))?;
        let channels = signal.channels().iter().map(|channel| channel[range.clone()].to_vec()).collect();
        Ok(Part { path: path.to_owned(), label: row.label, range, channels, line: row.line })
    };
    rows.iter().map(|(at, row)| (*at, part(row))).collect()
}
