//! Sensor series as CSV: a row a sample, a column a channel.

use lowrank::{Error, Result, Subject};

use super::{MAX_VALUES, Signal, too_long};

/// Decodes a CSV series. The first row is a header when none of its fields is a number.
pub(super) fn decode(bytes: &[u8], rate: f64) -> Result<Signal> {
    let mut rows = csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(bytes);
    let mut names: Option<Vec<String>> = None;
    let mut channels: Vec<Vec<f32>> = Vec::new();
    let mut record = csv::StringRecord::new();
    while rows.read_record(&mut record).map_err(|error| malformed(&error))? {
        let line = record.position().map_or(0, csv::Position::line);
        if channels.is_empty() {
            channels = vec![Vec::new(); record.len()];
            if record.iter().all(|field| !field.is_empty() && field.parse::<f64>().is_err()) {
                names = Some(record.iter().map(str::to_owned).collect());
                continue;
            }
        }
        if record.len() != channels.len() {
            return Err(Error::new(Subject::Data, "a row of another length")
                .at(format!("line {line}"))
                .found(record.len())
                .expected(format!("{} values", channels.len())));
        }
        if channels.first().map_or(0, Vec::len).saturating_mul(channels.len()) >= MAX_VALUES {
            return Err(too_long());
        }
        for (column, (channel, field)) in channels.iter_mut().zip(&record).enumerate() {
            let value = field.parse::<f64>().map_err(|_| not_a_number(line, column, names.as_deref(), field))?;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "signals are kept in f32; an overflow is refused there"
            )]
            channel.push(value as f32);
        }
    }
    Signal::new(channels, rate)
}

fn not_a_number(line: u64, column: usize, names: Option<&[String]>, field: &str) -> Error {
    let name = names.and_then(|names| names.get(column)).map(|name| format!(" ({name})")).unwrap_or_default();
    let error = Error::new(Subject::Data, "not a number")
        .at(format!("line {line}, column {}{name}", column + 1))
        .found(format!("\"{field}\""));
    if field.contains([';', '\t']) {
        return error.with_hint("separate the columns with commas, and write decimals with a point");
    }
    error
}

fn malformed(error: &csv::Error) -> Error {
    let line = error.position().map_or(0, csv::Position::line);
    let problem = match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "not UTF-8 text".to_owned(),
        _ => format!("not CSV: {error}"),
    };
    Error::new(Subject::Data, problem).at(format!("line {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_channels_with_or_without_a_header() {
        let expected = Signal::new(vec![vec![1.0, -3.5], vec![2e3, 0.25]], 50.0).unwrap();
        for text in
            ["1,2000\n-3.5,0.25\n", "x,y\n1,2e3\n-3.5,.25", "\u{feff}x , y\r\n 1 , 2e3\r\n-3.5,\"0.25\"\r\n\r\n"]
        {
            assert_eq!(decode(text.as_bytes(), 50.0).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn says_which_value_is_wrong() {
        let message = |text: &str| decode(text.as_bytes(), 50.0).unwrap_err().to_string();
        assert_eq!(message("x,y\n1,2\n3,oops\n"), "line 3, column 2 (y): not a number: found \"oops\"");
        assert_eq!(message("1,2\n3,\n"), "line 2, column 2: not a number: found \"\"");
        assert_eq!(message("1,y\n1,2\n"), "line 1, column 2: not a number: found \"y\"");
        assert_eq!(message("1,2\n3\n"), "line 2: a row of another length: found 1, expected 2 values");
        assert_eq!(message("1\nnan\n"), "channel 0, sample 1 (counted from 0): not a finite number: found NaN");
        assert_eq!(message("1\n1e60\n"), "channel 0, sample 1 (counted from 0): not a finite number: found inf");
        assert_eq!(message(""), "the recording is empty");
        assert_eq!(message("x,y\n"), "the recording is empty");
        assert_eq!(decode(b"1,2\n\xff,1\n", 50.0).unwrap_err().to_string(), "line 2: not UTF-8 text");
        let error = decode(b"x;y\n1,5;2\n", 50.0).unwrap_err();
        assert_eq!(error.to_string(), "line 2: a row of another length: found 2, expected 1 values");
        let error = decode(b"a\n1;2\n", 50.0).unwrap_err();
        assert_eq!(error.hint(), Some("separate the columns with commas, and write decimals with a point"));
    }
}
