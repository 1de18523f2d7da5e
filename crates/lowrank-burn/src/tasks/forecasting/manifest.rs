//! The parts of series that a run uses: a CSV file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lowrank::{Error, Result, Subject};
use serde::Deserialize;

use crate::data::Split;

/// A row takes some fifty bytes: a million of them.
const MAX_FILE: u64 = 64 << 20;

/// A wrong column makes every row wrong; after this many the rest is counted.
const MAX_ERRORS: usize = 20;

/// One row of a [`Manifest`].
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The file.
    pub path: PathBuf,
    /// The column; none where the file has one series, or all of them are meant.
    pub series: Option<String>,
    /// What it is for.
    pub split: Split,
    /// The first step that is forecast; none for the first with a whole context before it.
    pub start: Option<usize>,
    /// The step after the last that is forecast; none for the end of the series.
    pub end: Option<usize>,
    /// Lengths of the season, in steps, for figures; the first is the one that is watched.
    pub seasons: Vec<usize>,
    /// Steps from one origin to the next; none for 1 in training and for the horizon elsewhere.
    pub stride: Option<usize>,
    /// Whether to forecast what follows the series, instead of a part of it.
    pub ahead: bool,
    /// The row's line in the manifest, counted from 1.
    pub line: u64,
}

/// Which parts of which series are forecast, and which split they belong to.
///
/// The file is CSV with a header, its columns in any order:
///
/// | column | holds |
/// |---|---|
/// | `path` | a CSV file with one column a series; relative to the manifest's folder or absolute |
/// | `series` | the name of the column, where there are several |
/// | `split` | `train`, `valid` or `test`; without it, `train` |
/// | `start`, `end` | the steps that are forecast, counted from 0, the end left out; without them, from the first that has a whole context to the last |
/// | `season` | lengths of the season in steps, such as `336 48`: MASE is told for each |
/// | `stride` | steps from one forecast to the next; without it 1 in training, the horizon elsewhere |
///
/// A forecast reads what comes before it, whatever split that is in: `start` and `end` say what it is measured by.
#[derive(Debug, Clone)]
pub struct Manifest {
    path: PathBuf,
    rows: Vec<Row>,
    warnings: Vec<String>,
}

/// A row as the file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    path: PathBuf,
    series: Option<String>,
    split: Option<Split>,
    start: Option<usize>,
    end: Option<usize>,
    season: Option<String>,
    stride: Option<usize>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// All at once, by line: unknown and missing columns, missing files, malformed fields, parts without a step. And when there
    /// is no row at all.
    pub fn read(path: &Path) -> Result<Self> {
        let text = lowrank::files::read_to_string(path, MAX_FILE)?;
        Self::parse(&text, path, lowrank::files::exists)
    }

    fn parse(text: &str, path: &Path, exists: fn(&Path) -> bool) -> Result<Self> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
        let (mut rows, mut errors) = (Vec::new(), Vec::new());
        for (number, fields) in reader.deserialize::<Fields>().enumerate() {
            let line = number as u64 + 2;
            match fields.map_err(|error| malformed(&error)).and_then(|fields| row(fields, folder, line, exists)) {
                Ok(row) => rows.push(row),
                Err(error) => errors.push(error.at(format!("line {line}")).at(path.display())),
            }
        }
        let more = errors.len().saturating_sub(MAX_ERRORS);
        errors.truncate(MAX_ERRORS);
        if more > 0 {
            errors.push(Error::new(Subject::Data, format!("{more} more errors")).at(path.display()));
        }
        Error::all(errors)?;
        if rows.is_empty() {
            return Err(Error::new(Subject::Data, "the manifest lists no series").at(path.display()));
        }
        let warnings = leaks(&rows);
        Ok(Self { path: path.to_owned(), rows, warnings })
    }

    /// What follows every series of some files, in split [`Split::Test`]: for predictions.
    ///
    /// # Errors
    /// All files that are missing.
    pub fn of_series(paths: &[PathBuf]) -> Result<Self> {
        let missing = paths.iter().filter(|path| !lowrank::files::exists(path)).map(|path| no_file(path));
        Error::all(missing.collect())?;
        let row = |(index, path): (usize, &PathBuf)| Row {
            path: path.clone(),
            series: None,
            split: Split::Test,
            start: None,
            end: None,
            seasons: Vec::new(),
            stride: None,
            ahead: true,
            line: index as u64 + 1,
        };
        let rows = paths.iter().enumerate().map(row).collect();
        Ok(Self { path: "input".into(), rows, warnings: Vec::new() })
    }

    /// The manifest's own file; `input` for [`Manifest::of_series`].
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The rows, in the order of the file.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What is allowed but probably not meant: steps in two splits.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What has to be the same for a run to go on, wherever the files lie.
    pub(crate) fn identity(&self) -> String {
        let mut text = String::new();
        for Row { path, series, split, start, end, seasons, stride, .. } in &self.rows {
            let name = path.file_name();
            let _ = writeln!(text, "{split:?} {name:?} {series:?} {start:?} {end:?} {seasons:?} {stride:?}");
        }
        text
    }
}

fn row(fields: Fields, folder: &Path, line: u64, exists: fn(&Path) -> bool) -> Result<Row> {
    let Fields { path, series, split, start, end, season, stride } = fields;
    let path = folder.join(path);
    if !exists(&path) {
        return Err(no_file(&path).with_hint("paths are relative to the manifest's folder, or absolute"));
    }
    let wrong = |key: &str, found: &dyn std::fmt::Display, expected: &str| {
        Error::new(Subject::Data, "out of range").at(key).found(found).expected(expected)
    };
    if stride == Some(0) {
        return Err(wrong("stride", &0, "1 or more"));
    }
    if let (Some(start), Some(end)) = (start, end)
        && start >= end
    {
        return Err(wrong("end", &end, &format!("above the start, {start}")));
    }
    let words = season.unwrap_or_default();
    let season = |word: &str| word.parse().ok().filter(|season: &usize| *season > 0);
    let seasons: Option<Vec<usize>> = words.split_whitespace().map(season).collect();
    let seasons = seasons.ok_or_else(|| wrong("season", &words, "steps, such as 336 or 336 48"))?;
    let split = split.unwrap_or(Split::Train);
    Ok(Row { path, series, split, start, end, seasons, stride, ahead: false, line })
}

fn no_file(path: &Path) -> Error {
    Error::new(Subject::Data, "no such file").found(path.display())
}

fn malformed(error: &csv::Error) -> Error {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => Error::new(Subject::Data, err.kind().to_string())
            .with_hint("the columns are path,series,split,start,end,season,stride; all but path may be left out"),
        _ => Error::new(Subject::Data, format!("not CSV: {error}")),
    }
}

/// Steps that one is trained on and measured by.
fn leaks(rows: &[Row]) -> Vec<String> {
    let range = |row: &Row| row.start.unwrap_or(0)..row.end.unwrap_or(usize::MAX);
    let mut warnings = Vec::new();
    for (number, a) in rows.iter().enumerate() {
        for b in &rows[number + 1..] {
            let (first, second) = (range(a), range(b));
            let overlap = first.start < second.end && second.start < first.end;
            if a.split != b.split && a.path == b.path && a.series == b.series && overlap {
                let (path, lines) = (a.path.display(), [(a.split, a.line), (b.split, b.line)]);
                let [(first, i), (second, j)] = lines;
                warnings.push(format!("{path}: the same steps are in {first} (line {i}) and in {second} (line {j})"));
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest> {
        Manifest::parse(text, Path::new("data/list.csv"), |path| !path.ends_with("gone.csv"))
    }

    #[test]
    fn reads_every_column_in_any_order() {
        let text = "season,path,series,split,start,end,stride\n336 48,a.csv,demand,test,100,200,24\n,/b.csv,,,,,\n";
        let manifest = parse(text).unwrap();
        let first = Row {
            path: "data/a.csv".into(),
            series: Some("demand".into()),
            split: Split::Test,
            start: Some(100),
            end: Some(200),
            seasons: vec![336, 48],
            stride: Some(24),
            ahead: false,
            line: 2,
        };
        assert_eq!(manifest.rows()[0], first);
        let second = &manifest.rows()[1];
        assert_eq!(
            (second.path.as_path(), second.split, second.series.clone()),
            (Path::new("/b.csv"), Split::Train, None)
        );
        assert!(second.seasons.is_empty() && manifest.warnings().is_empty());
    }

    #[test]
    fn says_all_that_is_wrong_at_once() {
        let text = "path,split,start,end,season,stride\ngone.csv,,,,,\na.csv,tset,,,,\na.csv,,9,9,,\na.csv,,,,x,\na.csv,,,,,0\n";
        let error = parse(text).unwrap_err();
        let parts: Vec<String> = error.parts().iter().map(ToString::to_string).collect();
        assert_eq!(
            parts,
            [
                "line 2: no such file: found data/gone.csv",
                "line 3: unknown variant `tset`, expected one of `train`, `valid`, `test`",
                "line 4: end: out of range: found 9, expected above the start, 9",
                "line 5: season: out of range: found x, expected steps, such as 336 or 336 48",
                "line 6: stride: out of range: found 0, expected 1 or more",
            ]
            .map(|error| format!("data/list.csv: {error}"))
        );
        assert_eq!(parse("path\n").unwrap_err().to_string(), "data/list.csv: the manifest lists no series");
        let unknown = parse("path,label\na.csv,x\n").unwrap_err();
        assert!(unknown.to_string().contains("unknown field `label`"), "{unknown}");
    }

    #[test]
    fn warns_when_steps_are_in_two_splits() {
        let text = "path,split,start,end\na.csv,train,,100\na.csv,valid,100,200\na.csv,test,150,\n";
        assert_eq!(
            parse(text).unwrap().warnings(),
            ["data/a.csv: the same steps are in valid (line 3) and in test (line 4)"]
        );
    }
}
