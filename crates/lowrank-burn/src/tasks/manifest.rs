//! The recordings of a run, as its task lists them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lowrank::{Error, Result, Subject};

use super::{Task, forecasting};
use crate::data::{self, Reading, Split};

/// The recordings of a run.
#[derive(Debug, Clone)]
pub enum Manifest {
    /// Each with a label, a text for transcription, or a label track for voice activity.
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
        check(task, reading)?;
        let mut manifest = match task {
            None => data::Manifest::read(path, None)?,
            Some(Task::Classification(classifier)) => data::Manifest::read(path, Some(&classifier.labels))?,
            Some(Task::Transcription(_) | Task::Ctc(_)) => data::Manifest::read_texts(path)?,
            Some(Task::VoiceActivity(_)) => data::Manifest::read_tracks(path)?,
            Some(Task::Forecasting(_)) => return forecasting::Manifest::read(path).map(Self::Series),
            Some(Task::None) => return Err(Task::missing()),
        };
        manifest.reading = reading;
        Ok(Self::Recordings(manifest))
    }

    /// Whole recordings of which nothing is known, in split [`Split::Test`]: for predictions.
    ///
    /// # Errors
    /// All files that are missing or of an unknown kind.
    pub fn of_recordings(paths: &[PathBuf], task: &Task, reading: Reading) -> Result<Self> {
        check(Some(task), reading)?;
        let labels = match task {
            Task::Classification(classifier) => &*classifier.labels,
            Task::Transcription(_) => &[String::new()],
            Task::VoiceActivity(_) | Task::Ctc(_) => &[],
            Task::Forecasting(_) => return forecasting::Manifest::of_series(paths).map(Self::Series),
            Task::None => return Err(Task::missing()),
        };
        let mut manifest = data::Manifest::of_recordings(paths, labels)?;
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
                    let label_name = manifest.labels().get(label);
                    let _ = writeln!(text, "{split:?} {name:?} {label} {label_name:?}");
                }
            }
            Self::Series(manifest) => text += &manifest.identity(),
        }
        if let Some(window) = self.reading().window_seconds {
            let _ = writeln!(text, "{window} s");
        }
        text
    }
}

/// Ways to read that mean nothing for a task are errors, not ignored.
fn check(task: Option<&Task>, reading: Reading) -> Result<()> {
    let (key, hint) = match task {
        Some(Task::Transcription(_)) if reading.skip_short => {
            ("skip_short", "no recording is too short for a transcription: silence follows it")
        }
        Some(Task::Transcription(_)) => return Ok(()),
        Some(Task::Forecasting(_)) => {
            let set = [
                ("sample_rate", reading.series_rate.is_some()),
                ("mix_to_mono", reading.mix_to_mono),
                ("skip_short", reading.skip_short),
                ("window_seconds", reading.window_seconds.is_some()),
            ];
            let Some((key, _)) = set.into_iter().find(|(_, set)| *set) else { return Ok(()) };
            (key, "a forecaster reads series step by step, as they are")
        }
        _ if reading.window_seconds.is_some() => ("window_seconds", "its window is in its config.json"),
        _ => return Ok(()),
    };
    Err(Error::new(Subject::Config, format!("`{key}` means nothing for this model")).with_hint(hint))
}
