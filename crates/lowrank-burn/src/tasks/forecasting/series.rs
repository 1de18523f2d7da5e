//! Series in CSV files: a row a step, a column a series.

use std::path::Path;

use lowrank::suggest::nearest;
use lowrank::{Error, Result, Subject};

/// Larger files are refused: a run keeps all of them in memory.
const MAX_FILE: u64 = 1 << 30;

/// What a missing value is written as, in lower case.
const MISSING: [&str; 4] = ["", "na", "nan", "null"];

/// One column, its missing values not a number.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub name: String,
    pub values: Vec<f32>,
}

/// The columns of a file.
#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<(String, Result<Vec<f32>, Bad>)>,
}

/// The first field of a column that is no number.
#[derive(Debug, Clone)]
struct Bad {
    line: u64,
    field: String,
}

impl Columns {
    /// Reads a file. The first row is a header when none of its fields is a number.
    ///
    /// # Errors
    /// When it cannot be read, is not CSV, or has rows of several lengths or none.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = lowrank::files::read_bytes(path, MAX_FILE)?;
        Self::parse(&bytes).map_err(|error| error.at(path.display()))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(bytes);
        let mut columns: Vec<(String, Result<Vec<f32>, Bad>)> = Vec::new();
        let mut record = csv::StringRecord::new();
        let malformed = |error: csv::Error| Error::new(Subject::Data, format!("not CSV: {error}"));
        while reader.read_record(&mut record).map_err(malformed)? {
            let line = record.position().map_or(0, csv::Position::line);
            if columns.is_empty() {
                let header = record.iter().all(|field| number(field).is_none_or(f32::is_nan));
                let name = |(place, field): (usize, &str)| {
                    let name = if header { field.to_owned() } else { format!("column {}", place + 1) };
                    (name, Ok(Vec::new()))
                };
                columns = record.iter().enumerate().map(name).collect();
                if header {
                    continue;
                }
            }
            if record.len() != columns.len() {
                return Err(Error::new(Subject::Data, "a row of another length")
                    .at(format!("line {line}"))
                    .found(record.len())
                    .expected(format!("{} values", columns.len())));
            }
            for ((_, values), field) in columns.iter_mut().zip(&record) {
                match (&mut *values, number(field)) {
                    (Ok(values), Some(value)) => values.push(value),
                    (Ok(_), None) => *values = Err(Bad { line, field: field.to_owned() }),
                    (Err(_), _) => {}
                }
            }
        }
        if columns.iter().all(|(_, values)| values.as_ref().is_ok_and(Vec::is_empty)) {
            return Err(Error::new(Subject::Data, "the file has no values"));
        }
        Ok(Self { columns })
    }

    /// The series called `name`; without a name, the only one there is.
    ///
    /// # Errors
    /// When there is none of that name, or not one alone, or it has values that are no numbers.
    pub fn series(&self, name: Option<&str>) -> Result<Series> {
        let Some(name) = name else {
            return match self.all()?.as_slice() {
                [only] => Ok(only.clone()),
                several => Err(Error::new(Subject::Data, "which series is not said")
                    .found(format!("{} of them", several.len()))
                    .with_hint(format!("name one in the column `series`: {}", self.names().join(", ")))),
            };
        };
        let Some((name, values)) = self.columns.iter().find(|(known, _)| known == name) else {
            let error = Error::new(Subject::Data, "no such series").found(format!("\"{name}\""));
            let names = self.names();
            return Err(match nearest(name, names.iter().copied()) {
                Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
                None => error.with_hint(format!("the series there: {}", names.join(", "))),
            });
        };
        finished(name, values)
    }

    /// All series. A first column in which the first value is no number tells the time, and is none.
    ///
    /// # Errors
    /// When one of them has values that are no numbers.
    pub fn all(&self) -> Result<Vec<Series>> {
        let times =
            usize::from(self.columns.len() > 1 && self.columns.first().is_some_and(|(_, values)| values.is_err()));
        self.columns.iter().skip(times).map(|(name, values)| finished(name, values)).collect()
    }

    fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|(name, _)| name.as_str()).collect()
    }
}

fn finished(name: &str, values: &Result<Vec<f32>, Bad>) -> Result<Series> {
    match values {
        Ok(values) => Ok(Series { name: name.to_owned(), values: values.clone() }),
        Err(Bad { line, field }) => Err(Error::new(Subject::Data, "not a number")
            .at(format!("line {line}, series {name}"))
            .found(format!("\"{field}\""))
            .with_hint("leave a missing value empty, or write NA")),
    }
}

/// A number; not a number where it is missing.
fn number(field: &str) -> Option<f32> {
    if MISSING.contains(&field.to_ascii_lowercase().as_str()) {
        return Some(f32::NAN);
    }
    #[expect(clippy::cast_possible_truncation, reason = "series are kept in f32; what overflows is no number here")]
    let value = field.parse::<f64>().ok()? as f32;
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_series_with_or_without_a_header() {
        let columns = Columns::parse(b"when,a,b\n2014-01-01,1,2e1\n2014-01-02,,NA\n2014-01-03,-.5,3\n").unwrap();
        let all = columns.all().unwrap();
        assert_eq!(all.iter().map(|series| series.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((all[0].values[0], all[0].values[2]), (1.0, -0.5));
        assert!(all[0].values[1].is_nan() && all[1].values[1].is_nan());
        assert_eq!(columns.series(Some("b")).unwrap().values[2..], [3.0]);
        let bare = Columns::parse(b"1\n2\n").unwrap();
        assert_eq!((bare.series(None).unwrap().name.as_str(), bare.names()), ("column 1", vec!["column 1"]));
    }

    #[test]
    fn says_what_is_wrong() {
        let columns = Columns::parse(b"when,demand,x\nMon,1,2\nTue,oops,3\n").unwrap();
        let message = |name| columns.series(name).unwrap_err();
        assert_eq!(message(Some("demand")).to_string(), "line 3, series demand: not a number: found \"oops\"");
        assert_eq!(message(Some("Demand")).hint(), Some("did you mean \"demand\"?"));
        assert_eq!(
            Columns::parse(b"a,b\n1,2\n").unwrap().series(None).unwrap_err().problem(),
            "which series is not said"
        );
        let error = |text: &str| Columns::parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error("a,b\n1\n"), "line 2: a row of another length: found 1, expected 2 values");
        assert_eq!(error(""), "the file has no values");
        assert_eq!(error("a,b\n"), "the file has no values");
        assert_eq!(message(Some("when")).to_string(), "line 2, series when: not a number: found \"Mon\"");
    }
}
