//! Rows about the same samples.

use std::collections::BTreeMap;
use std::path::Path;

use lowrank::{Error, Subject};

use super::{Recording, Split};

/// Leaks are a property of how a manifest was made: the first few show it.
const MAX_WARNINGS: usize = 5;

/// Rows with the file and the part of an earlier one, by line.
pub(super) fn duplicates(recordings: &[Recording]) -> Vec<(u64, Error)> {
    let mut seen = BTreeMap::new();
    let mut errors = Vec::new();
    for recording in recordings {
        let first = *seen.entry((&recording.path, recording.span.to_string())).or_insert(recording.line);
        if first != recording.line {
            let error = Error::new(Subject::Data, "the row repeats an earlier one");
            let found = format!("{} of {}, as in line {first}", recording.span, recording.path.display());
            errors.push((recording.line, error.found(found)));
        }
    }
    errors
}

/// Warnings about samples in two splits, which make the figures of the later one too good. Parts in seconds and parts
/// in percent are not compared with each other: that takes the length of the recording.
pub(super) fn leaks(recordings: &[Recording]) -> Vec<String> {
    let mut files: BTreeMap<&Path, Vec<&Recording>> = BTreeMap::new();
    for recording in recordings {
        files.entry(&recording.path).or_default().push(recording);
    }
    let mut leaks: Vec<String> = files.iter().filter_map(|(path, rows)| leak(path, rows)).collect();
    let more = leaks.len().saturating_sub(MAX_WARNINGS);
    leaks.truncate(MAX_WARNINGS);
    if more > 0 {
        leaks.push(format!("{more} more recordings are in two splits"));
    }
    leaks
}

/// The first overlap of two splits in one file.
fn leak(path: &Path, rows: &[&Recording]) -> Option<String> {
    let sweep = |place: fn(&Recording) -> Option<(f64, f64)>| {
        let mut parts: Vec<_> = rows.iter().filter_map(|row| Some((place(row)?, *row))).collect();
        parts.sort_by(|(a, _), (b, _)| a.0.total_cmp(&b.0));
        // For each split, the part that reaches furthest so far.
        let mut furthest: [Option<(f64, &Recording)>; Split::ALL.len()] = [None; Split::ALL.len()];
        for ((start, end), row) in parts {
            for (split, reach) in Split::ALL.iter().zip(&furthest) {
                if let Some((_, other)) = reach.filter(|(reach, _)| *split != row.split && start < *reach) {
                    return Some((other, row));
                }
            }
            let own = &mut furthest[row.split as usize];
            if own.is_none_or(|(reach, _)| reach < end) {
                *own = Some((end, row));
            }
        }
        None
    };
    let (a, b) = sweep(|row| row.span.seconds()).or_else(|| sweep(|row| row.span.percent()))?;
    let (a, b) = if a.line < b.line { (a, b) } else { (b, a) };
    Some(format!(
        "{}: the same samples are in {} (line {}) and in {} (line {})",
        path.display(),
        a.split,
        a.line,
        b.split,
        b.line
    ))
}
