//! The list of recordings: a CSV file with the columns `path` and `label`, and optionally `split`, `start` and `end`.

mod columns;
mod overlap;
mod rows;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use lowrank::suggest::nearest;
use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};

use super::decode::Encoding;
use super::signal::Reading;
use super::span::Span;

/// A row takes some fifty bytes: a million recordings.
const MAX_FILE: u64 = 64 << 20;

/// A wrong column makes every row wrong; after this many the rest is counted.
const MAX_ERRORS: usize = 20;

/// What a recording is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Learned from.
    Train,
    /// Looked at during training, to choose when to stop.
    Valid,
    /// Looked at once, for the figures that are reported.
    Test,
}

impl Split {
    /// All three, in the order they are used.
    pub const ALL: [Self; 3] = [Self::Train, Self::Valid, Self::Test];

    /// The name a manifest has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One row of a [`Manifest`].
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// The file.
    pub path: PathBuf,
    /// What it shows, as an index into [`Manifest::labels`].
    pub label: usize,
    /// What it is for.
    pub split: Split,
    /// The part of the file that is meant.
    pub span: Span,
    /// The row's line in the manifest, counted from 1.
    pub line: u64,
}

/// Which recordings there are, what they show, and which split they belong to.
///
/// The file is CSV with a header, its columns in any order:
///
/// | column | holds |
/// |---|---|
/// | `path` | a recording; relative to the manifest's folder (`..` may leave it) or absolute |
/// | `label` | what it shows; for transcription the column is `text`, and holds what is said |
/// | `split` | `train`, `valid` or `test`; without it, `train` |
/// | `start`, `end` | the part meant: seconds (`12.5`) or a share (`30%`); without them, the whole recording |
///
/// One file may be in several rows, with different parts of it.
#[derive(Debug, Clone)]
pub struct Manifest {
    path: PathBuf,
    labels: Vec<String>,
    labelled: bool,
    recordings: Vec<Recording>,
    warnings: Vec<String>,
    /// How the recordings are read.
    pub reading: Reading,
}

/// What the rows say of a recording.
#[derive(Clone, Copy)]
enum Truth<'a> {
    /// One of a model's labels.
    Labels(&'a [String]),
    /// A label of a new model.
    NewLabels,
    /// Where in it something is: the task reads that.
    Tracks,
    /// What is said.
    Texts,
}

impl Truth<'_> {
    fn column(self) -> &'static str {
        match self {
            Self::Labels(_) | Self::NewLabels | Self::Tracks => "label",
            Self::Texts => "text",
        }
    }
}

impl Manifest {
    /// Reads a manifest. `labels` are those of the model, in its order; with `None`, for a new base model, they are
    /// collected from the rows and sorted.
    ///
    /// # Errors
    /// All at once, by line: unknown, missing and repeated columns, missing files and files of an unknown kind,
    /// labels the model does not know, unknown splits, malformed parts, rows that repeat one before; for a new base
    /// model also a label without a training recording. And when there is no row at all.
    pub fn read(path: &Path, labels: Option<&[String]>) -> Result<Self> {
        let text = lowrank::files::read_to_string(path, MAX_FILE)?;
        Self::parse(&text, path, labels.map_or(Truth::NewLabels, Truth::Labels), lowrank::files::exists)
    }

    /// Reads a manifest whose labels are label tracks, or what else the task has for them: [`Manifest::labels`] are those
    /// of the rows, sorted.
    ///
    /// # Errors
    /// As [`Manifest::read`], but any label will do.
    pub fn read_tracks(path: &Path) -> Result<Self> {
        let text = lowrank::files::read_to_string(path, MAX_FILE)?;
        Self::parse(&text, path, Truth::Tracks, lowrank::files::exists)
    }

    /// Reads a manifest whose recordings are speech: the column `text` in the place of `label` is what is said. The
    /// [`Manifest::labels`] are the texts then.
    ///
    /// # Errors
    /// As [`Manifest::read`], but any text will do.
    pub fn read_texts(path: &Path) -> Result<Self> {
        let text = lowrank::files::read_to_string(path, MAX_FILE)?;
        Self::parse(&text, path, Truth::Texts, lowrank::files::exists)
    }

    /// [`Manifest::read`] on its text; `exists` says whether there is a file.
    fn parse(text: &str, path: &Path, truth: Truth<'_>, exists: fn(&Path) -> bool) -> Result<Self> {
        let name = path.display();
        let folder = path.parent().unwrap_or(Path::new(""));
        let (mut rows, mut errors) = rows::parse(text, folder, truth.column()).map_err(|error| error.at(&name))?;
        if rows.is_empty() && errors.is_empty() {
            return Err(no_rows(path));
        }
        let collected = match truth {
            Truth::Labels(labels) => labels.to_vec(),
            Truth::NewLabels | Truth::Tracks | Truth::Texts => {
                rows.iter().map(|row| row.label.clone()).collect::<BTreeSet<_>>().into_iter().collect()
            }
        };
        let mut recordings = Vec::with_capacity(rows.len());
        for row in rows.drain(..) {
            if !exists(&row.path) {
                errors.push((row.line, missing(&row.path)));
            }
            match collected.iter().position(|label| *label == row.label) {
                Some(label) => recordings.push(row.with_label(label)),
                None => errors.push((row.line, unknown_label(&row.label, &collected))),
            }
        }
        errors.extend(overlap::duplicates(&recordings));
        if matches!(truth, Truth::NewLabels) && errors.is_empty() {
            errors.extend(unlearnable(&recordings, &collected));
        }
        Error::all(first_errors(errors, path)).map_err(|error| named(error, path))?;

        let mut warnings = overlap::leaks(&recordings);
        if !matches!(truth, Truth::Tracks | Truth::Texts) {
            warnings.extend(label_warnings(&recordings, &collected, matches!(truth, Truth::Labels(_))));
        }
        let (path, reading) = (path.to_owned(), Reading::default());
        Ok(Self { path, labels: collected, labelled: true, recordings, warnings, reading })
    }

    /// Whole recordings of which it is not known what they show: all of them carry the first label and are in split
    /// [`Split::Test`]. For predictions, whose labels are then of no meaning.
    ///
    /// # Errors
    /// All files that are missing or of an unknown kind.
    pub fn of_recordings(paths: &[PathBuf], labels: &[String]) -> Result<Self> {
        let check = |path: &PathBuf| match Encoding::of(path) {
            Ok(_) if lowrank::files::exists(path) => None,
            Ok(_) => Some(Error::new(Subject::Data, "no such file").at(path.display())),
            Err(error) => Some(error),
        };
        Error::all(paths.iter().filter_map(check).collect())?;
        let recording = |(index, path): (usize, &PathBuf)| Recording {
            path: path.clone(),
            label: 0,
            split: Split::Test,
            span: Span::default(),
            line: index as u64 + 1,
        };
        Ok(Self {
            path: "input".into(),
            labels: labels.to_vec(),
            labelled: false,
            recordings: paths.iter().enumerate().map(recording).collect(),
            warnings: Vec::new(),
            reading: Reading::default(),
        })
    }

    /// The manifest's own file; `input` for [`Manifest::of_recordings`].
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The labels, in the order of the model's outputs; of a manifest of texts, the texts.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Whether the rows say what the recordings show; not so for [`Manifest::of_recordings`].
    #[must_use]
    pub fn labelled(&self) -> bool {
        self.labelled
    }

    /// The rows, in the order of the file.
    #[must_use]
    pub fn recordings(&self) -> &[Recording] {
        &self.recordings
    }

    /// What is allowed but probably not meant: parts of a recording in two splits, labels without a training
    /// recording, labels that differ in case only.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn no_rows(path: &Path) -> Error {
    Error::new(Subject::Data, "the manifest lists no recordings").at(path.display())
}

fn missing(path: &Path) -> Error {
    Error::new(Subject::Data, "no such file")
        .found(path.display())
        .with_hint("paths are relative to the manifest's folder, or absolute")
}

fn unknown_label(label: &str, known: &[String]) -> Error {
    let error = Error::new(Subject::Data, "unknown label")
        .found(format!("\"{label}\""))
        .expected(format!("one of {}", list(known)));
    match nearest(label, known.iter().map(String::as_str)) {
        Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
        None => error.with_hint("a model keeps the labels it was trained with; train a new base for others"),
    }
}

/// The first names of a list that may be long.
fn list(names: &[String]) -> String {
    let shown = names.iter().take(8).map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    if names.len() > 8 { format!("{shown} and {} more", names.len() - 8) } else { shown }
}

fn has_training(recordings: &[Recording], label: usize) -> bool {
    recordings.iter().any(|recording| recording.label == label && recording.split == Split::Train)
}

/// Labels a new base model would have an output for, and nothing to learn it from.
fn unlearnable(recordings: &[Recording], labels: &[String]) -> Vec<(u64, Error)> {
    let first_line = |label| recordings.iter().find(|r| r.label == label).map_or(0, |recording| recording.line);
    let empty = labels.iter().enumerate().filter(|(label, _)| !has_training(recordings, *label));
    empty
        .map(|(label, name)| {
            let error = Error::new(Subject::Data, "a label without a training recording").found(format!("\"{name}\""));
            (first_line(label), error.with_hint("put a recording of it into the train split, or take its rows out"))
        })
        .collect()
}

fn label_warnings(recordings: &[Recording], labels: &[String], known: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let absent: Vec<String> = labels
        .iter()
        .enumerate()
        .filter(|(label, _)| known && !has_training(recordings, *label))
        .map(|(_, name)| name.clone())
        .collect();
    if !absent.is_empty() && recordings.iter().any(|recording| recording.split == Split::Train) {
        warnings
            .push(format!("no training recording shows {}: an adapter may unlearn what it never sees", list(&absent)));
    }
    let folded: Vec<String> = labels.iter().map(|label| label.to_lowercase()).collect();
    for (i, label) in labels.iter().enumerate() {
        if let Some(j) = folded.iter().take(i).position(|other| *other == folded[i]) {
            warnings.push(format!("two labels differ in case only: \"{}\" and \"{label}\"", labels[j]));
        }
    }
    warnings
}

/// In the order of the file, each with its line.
fn first_errors(mut errors: Vec<(u64, Error)>, path: &Path) -> Vec<Error> {
    errors.sort_by_key(|(line, _)| *line);
    let more = errors.len().saturating_sub(MAX_ERRORS);
    let mut first: Vec<Error> =
        errors.into_iter().take(MAX_ERRORS).map(|(line, e)| e.at(format!("line {line}")).at(path.display())).collect();
    if more > 0 {
        first.push(Error::new(Subject::Data, format!("{more} more errors")).at(path.display()));
    }
    first
}

/// A compound error says which file it is about; a single one does already.
fn named(error: Error, path: &Path) -> Error {
    if error.parts().is_empty() { error } else { error.at(path.display()) }
}

#[cfg(test)]
mod tests;
