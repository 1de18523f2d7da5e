//! The recordings of a run, as its task lists them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lowrank::{Error, Result, Subject};

use super::{Task, forecasting};
use crate::data::{self, Reading, Split};

/// The recordings of a run.
#[derive(Debug, Clone)]
pub enum Manifest {
    /// Each with a label: for classification.
    Recordings(data::Manifest),
    /// Parts of series: for forecasting.
    Series(forecasting::Manifest),
}

impl Manifest {
    /// Reads the manifest of a model's task; without a task, of a new classifier, which takes its labels from there.
    ///
    /// # Errors
    /// When the file cannot be read, or a row is wrong: see [`data::Manifest::read`].
    pub fn read(path: &Path, task: Option<&Task>, reading: Reading) -> Result<Self> {
        let labels = match task {
            Some(Task::Forecasting(_)) => {
                of_steps(&reading)?;
                return forecasting::Manifest::read(path).map(Self::Series);
            }
            Some(Task::Classification(classifier)) => Some(&*classifier.labels),
            None => None,
        };
        let mut manifest = data::Manifest::read(path, labels)?;
        manifest.reading = reading;
        Ok(Self::Recordings(manifest))
    }

    /// Whole recordings of which nothing is known, in split [`Split::Test`]: for predictions.
    ///
    /// # Errors
    /// All files that are missing or of an unknown kind.
    pub fn of_recordings(paths: &[PathBuf], task: &Task, reading: Reading) -> Result<Self> {
        let classifier = match task {
            Task::Forecasting(_) => {
                of_steps(&reading)?;
                return forecasting::Manifest::of_series(paths).map(Self::Series);
            }
            Task::Classification(classifier) => classifier,
        };
        let mut manifest = data::Manifest::of_recordings(paths, &classifier.labels)?;
        manifest.reading = reading;
        Ok(Self::Recordings(manifest))
    }

    /// The manifest's own file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Recordings(manifest) => manifest.path(),
            Self::Series(manifest) => manifest.path(),
        }
    }

    /// How the recordings are read.
    #[must_use]
    pub fn reading(&self) -> Reading {
        match self {
            Self::Recordings(manifest) => manifest.reading,
            Self::Series(_) => Reading::default(),
        }
    }

    /// What is allowed but probably not meant.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Recordings(manifest) => manifest.warnings(),
            Self::Series(manifest) => manifest.warnings(),
        }
    }

    /// Whether there are recordings of a split.
    #[must_use]
    pub fn has(&self, split: Split) -> bool {
        match self {
            Self::Recordings(manifest) => manifest.recordings().iter().any(|recording| recording.split == split),
            Self::Series(manifest) => manifest.rows().iter().any(|row| row.split == split),
        }
    }

    /// What has to be the same for a run to go on, wherever the recordings lie.
    #[must_use]
    pub fn identity(&self) -> String {
        let mut text = String::new();
        match self {
            Self::Recordings(manifest) => {
                for recording in manifest.recordings() {
                    let (split, name, label) = (recording.split, recording.path.file_name(), recording.label);
                    let _ = writeln!(text, "{split:?} {name:?} {label}");
                }
            }
            Self::Series(manifest) => text += &manifest.identity(),
        }
        text
    }
}

/// Series are read step by step, as they are.
fn of_steps(reading: &Reading) -> Result<()> {
    if *reading == Reading::default() {
        return Ok(());
    }
    let error = Error::new(Subject::Config, "`sample_rate`, `mix_to_mono` and `skip_short` are for recordings");
    Err(error.with_hint("leave them out: a forecaster reads series step by step"))
}
