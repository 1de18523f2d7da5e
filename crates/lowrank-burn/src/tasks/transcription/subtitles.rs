//! Predictions as subtitles.

use std::fmt::Write as _;

use lowrank::{Error, Result, Subject};
use serde::Deserialize;

use crate::tasks::Predictions;

#[derive(Deserialize)]
struct Line {
    path: String,
    start: f64,
    end: f64,
    text: String,
}

/// The texts of one recording as an SRT file: a subtitle for each window that has a text.
///
/// # Errors
/// When the predictions are not of texts, or of several recordings: times begin anew with each.
pub fn subtitles(predictions: &Predictions) -> Result<String> {
    let (mut srt, mut count, mut first) = (String::new(), 0, None);
    for line in &predictions.lines {
        let line: Line = serde_json::from_str(line).map_err(|_| {
            let error = Error::new(Subject::Data, "subtitles are of texts, and this model does not transcribe");
            error.with_hint("give --output another ending than .srt: the predictions are JSON, an object a line")
        })?;
        if *first.get_or_insert_with(|| line.path.clone()) != line.path {
            return Err(Error::new(Subject::Data, "subtitles are of one recording")
                .found(&line.path)
                .expected(first.unwrap_or_default())
                .with_hint("ask for one recording at a time with --input"));
        }
        if !line.text.is_empty() {
            count += 1;
            let _ = write!(srt, "{count}\n{} --> {}\n{}\n\n", time(line.start), time(line.end), line.text);
        }
    }
    Ok(srt)
}

/// `HH:MM:SS,mmm`.
fn time(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a recording")]
    let ms = (seconds * 1000.0).round() as u64;
    format!("{:02}:{:02}:{:02},{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subtitle_for_each_window_with_a_text() {
        let line = |path: &str, start: f64, text: &str| {
            format!(
                r#"{{"path": "{path}", "start": {start}, "end": {}, "text": "{text}", "tokens": []}}"#,
                start + 30.0
            )
        };
        let of = |lines: Vec<String>| subtitles(&Predictions { lines, ..Predictions::default() });
        let srt = of(vec![line("a.wav", 0.0, "uno"), line("a.wav", 30.0, ""), line("a.wav", 3600.5, "due")]).unwrap();
        assert_eq!(srt, "1\n00:00:00,000 --> 00:00:30,000\nuno\n\n2\n01:00:00,500 --> 01:00:30,500\ndue\n\n");
        let error = of(vec![line("a.wav", 0.0, "uno"), line("b.wav", 0.0, "due")]).unwrap_err();
        assert_eq!(error.to_string(), "subtitles are of one recording: found b.wav, expected a.wav");
        assert!(of(vec!["{}".into()]).is_err());
    }
}
