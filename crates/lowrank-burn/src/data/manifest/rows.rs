//! The rows of a manifest, each by itself.

use std::path::{Path, PathBuf};

use csv::StringRecord;
use lowrank::suggest::nearest;
use lowrank::{Error, Result, Subject};

use super::columns::Columns;
use super::{Recording, Split};
use crate::data::decode::Encoding;
use crate::data::span::{Bound, Span};

/// A row whose label is still a word.
pub(super) struct Row {
    pub(super) path: PathBuf,
    pub(super) label: String,
    pub(super) line: u64,
    split: Split,
    span: Span,
}

impl Row {
    pub(super) fn with_label(self, label: usize) -> Recording {
        Recording { path: self.path, label, split: self.split, span: self.span, line: self.line }
    }
}

/// Errors by line.
pub(super) type Errors = Vec<(u64, Error)>;

/// The good rows, and the errors of the header and of the other rows; `truth` names the column of the labels.
pub(super) fn parse(text: &str, folder: &Path, truth: &'static str) -> Result<(Vec<Row>, Errors)> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let mut record = StringRecord::new();
    let malformed = |error: csv::Error| Error::new(Subject::Data, format!("not CSV: {error}"));
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    if !reader.read_record(&mut record).map_err(malformed)? {
        return Ok((rows, errors));
    }
    let line_of = |record: &StringRecord| record.position().map_or(0, csv::Position::line);
    let columns = match Columns::read(&record, truth) {
        Ok(columns) => columns,
        Err(wrong) => return Ok((rows, wrong.into_iter().map(|error| (line_of(&record), error)).collect())),
    };
    while reader.read_record(&mut record).map_err(malformed)? {
        let line = line_of(&record);
        match row(&record, &columns, truth, folder, line) {
            Ok(row) => rows.push(row),
            Err(wrong) => errors.extend(wrong.into_iter().map(|error| (line, error))),
        }
    }
    Ok((rows, errors))
}

fn row(record: &StringRecord, columns: &Columns, truth: &str, folder: &Path, line: u64) -> Result<Row, Vec<Error>> {
    if record.len() != columns.count {
        let error = Error::new(Subject::Data, "a row of another length than the header")
            .found(record.len())
            .expected(format!("{} fields", columns.count));
        return Err(vec![error.with_hint("a field with a comma in it needs quotes: \"a, b.wav\"")]);
    }
    let mut errors = Vec::new();
    let mut required = |name| {
        let field = columns.get(record, name);
        if field.is_none() {
            errors.push(Error::new(Subject::Data, format!("no {name}")));
        }
        field.unwrap_or_default()
    };
    let (path, label) = (required("path"), required(truth));
    if !path.is_empty() {
        errors.extend(Encoding::of(Path::new(path)).err());
    }
    let mut bound = |name| match columns.get(record, name).map(Bound::parse).transpose() {
        Ok(bound) => bound,
        Err(error) => {
            errors.push(error.at(name));
            None
        }
    };
    let span = Span { start: bound("start"), end: bound("end") };
    errors.extend(empty_span(&span));
    let split = match columns.get(record, "split").map_or(Ok(Split::Train), split) {
        Ok(split) => split,
        Err(error) => {
            errors.push(error);
            Split::Train
        }
    };
    if errors.is_empty() {
        Ok(Row { path: folder.join(path), label: label.to_owned(), line, split, span })
    } else {
        Err(errors)
    }
}

/// A start that is not before the end can be told without the recording when both are of one kind.
fn empty_span(span: &Span) -> Option<Error> {
    let (start, end) = span.seconds().or_else(|| span.percent())?;
    (start >= end).then(|| Error::new(Subject::Data, "holds no sample").found(span).expected("a start before the end"))
}

fn split(name: &str) -> Result<Split> {
    Split::ALL.into_iter().find(|split| split.name() == name).ok_or_else(|| {
        let error = Error::new(Subject::Data, "unknown split")
            .found(format!("\"{name}\""))
            .expected(Split::ALL.map(Split::name).join(", "));
        let meant = match name.to_ascii_lowercase().as_str() {
            "val" | "validation" | "dev" => Some("valid"),
            "training" => Some("train"),
            "eval" | "evaluation" | "testing" => Some("test"),
            other => nearest(other, Split::ALL.map(Split::name)),
        };
        match meant {
            Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
            None => error,
        }
    })
}
