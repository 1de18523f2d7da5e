//! `metrics.jsonl`: what happened at each step, one JSON object a line.
//!
//! A resumed run cuts the lines after the checkpoint it starts from and goes on, so its log equals that of a run that
//! was never interrupted, but for the seconds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lowrank::files::storage::{Disk, OpenFile, Storage};
use lowrank::files::{exists, read_bytes};
use lowrank::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::tasks::{Evaluation, Score};

/// The name of the log in a run's folder.
pub const LOG_FILE: &str = "metrics.jsonl";

/// Bytes of a log that is read back: ten million steps.
const LOG_BYTES: u64 = 2 << 30;

/// The scores of an evaluation by name, those that are finite numbers.
pub type Scores = BTreeMap<String, f64>;

/// The scores of an evaluation, as the log keeps them.
#[must_use]
pub fn scores(evaluation: &Evaluation) -> Scores {
    let finite = |score: &Score| score.value.filter(|value| value.is_finite());
    evaluation.scores().iter().filter_map(|score| Some((score.name.to_owned(), finite(score)?))).collect()
}

/// One line of the log: a training step, an evaluation, or both. What does not apply is left out; a number that is not
/// finite is written as `null`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LogLine {
    /// Optimiser steps taken so far, this one included; 0 before the first.
    pub step: u64,
    /// The epoch, counted from 0.
    pub epoch: u64,
    /// The mean training loss of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// The learning rate of the step (group A's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// The length of the gradient before clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Why the parameters were left as they were, when they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// The evaluation after the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<Scores>,
    /// Seconds of training so far, interruptions left out.
    pub seconds: f64,
}

/// The log of a running training, open at its end.
pub struct MetricsLog<'s> {
    storage: &'s dyn Storage,
    path: PathBuf,
    file: OpenFile,
    torn: bool,
}

/// A log taken up again.
pub struct Resumed<'s> {
    /// The log, cut and open at its end.
    pub log: MetricsLog<'s>,
    /// The lines it kept.
    pub lines: Vec<LogLine>,
    /// What was wrong with it, if anything was.
    pub warnings: Vec<String>,
}

impl MetricsLog<'static> {
    /// Begins an empty log at `path`. One that is there is replaced.
    ///
    /// # Errors
    /// When the folder is missing or cannot be written to.
    pub fn create(path: &Path) -> Result<Self> {
        Self::start(&Disk, path, &[])
    }

    /// Takes up the log at `path` from the checkpoint made after `step`: later lines are cut, and so is a last line
    /// that a killed run did not finish. A missing log begins empty, with a warning.
    ///
    /// # Errors
    /// When the log cannot be read, or its folder not be written to; the old log is then still there.
    pub fn resume(path: &Path, step: u64) -> Result<Resumed<'static>> {
        Self::resume_on(&Disk, path, step)
    }
}

impl<'s> MetricsLog<'s> {
    /// [`MetricsLog::resume`], on any [`Storage`].
    ///
    /// # Errors
    /// As there.
    pub fn resume_on(storage: &'s dyn Storage, path: &Path, step: u64) -> Result<Resumed<'s>> {
        let (mut kept, mut lines, mut warnings) = (Vec::new(), Vec::<LogLine>::new(), Vec::new());
        let bytes = if exists(path) { read_bytes(path, LOG_BYTES)? } else { Vec::new() };
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut unreadable = 0_u64;
        for line in bytes.get(..complete).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
            match serde_json::from_slice::<LogLine>(line) {
                Ok(parsed) if parsed.step <= step => {
                    kept.extend_from_slice(line);
                    lines.push(parsed);
                }
                Ok(_) => {}
                Err(_) => unreadable += 1,
            }
        }
        if unreadable > 0 {
            warnings.push(format!("{}: left out lines that are not log lines: {unreadable}", path.display()));
        }
        let last = lines.last().map_or(0, |line| line.step);
        if last < step {
            warnings.push(format!(
                "{}: the log ends at step {last}, the checkpoint is of step {step}: the steps between are not in it",
                path.display()
            ));
        }
        let log = Self::start(storage, path, &kept)?;
        Ok(Resumed { log, lines, warnings })
    }

    /// A log that holds `content`. It gets its name when that is stored, and stays open under it.
    fn start(storage: &'s dyn Storage, path: &Path, content: &[u8]) -> Result<Self> {
        let failed = |error| Error::io(path, "write the log", error);
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // One run a folder: what has this name is of a run that was killed.
        let temporary = dir.join(format!(".{name}.lowrank-new"));
        if exists(&temporary) {
            storage.remove(&temporary).map_err(failed)?;
        }
        let mut file = storage.create(&temporary, None).map_err(failed)?;
        storage.write(&mut file, content).map_err(failed)?;
        storage.sync(&file).map_err(failed)?;
        storage.rename(&temporary, path).map_err(failed)?;
        storage.sync_dir(dir).map_err(failed)?;
        Ok(Self { storage, path: path.to_owned(), file, torn: false })
    }

    /// Appends one line.
    ///
    /// # Errors
    /// When it cannot be written; a part of it may be there, which the next line does not touch and
    /// [`MetricsLog::resume`] leaves out.
    pub fn append(&mut self, line: &LogLine) -> Result<()> {
        let mut bytes = if self.torn { vec![b'\n'] } else { Vec::new() };
        serde_json::to_writer(&mut bytes, line)
            .map_err(|error| Error::io(&self.path, "write the log", error.into()))?;
        bytes.push(b'\n');
        self.torn = true;
        self.storage.write(&mut self.file, &bytes).map_err(|error| Error::io(&self.path, "write the log", error))?;
        self.torn = false;
        Ok(())
    }

    /// Waits until every line is on the medium. To be called before a checkpoint is saved, so that the log reaches at
    /// least as far as the checkpoint.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn sync(&self) -> Result<()> {
        self.storage.sync(&self.file).map_err(|error| Error::io(&self.path, "write the log", error))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::faulty::Faulty;
    use super::*;

    fn line(step: u64) -> LogLine {
        let loss = Some(1.0 / (1.0 + f64::from(u32::try_from(step).unwrap())));
        LogLine { step, epoch: step / 4, loss, lr: Some(0.001), seconds: 0.5, ..LogLine::default() }
    }

    /// Steps `from..to`, with an evaluation before the first and after every third.
    fn train(log: &mut MetricsLog<'_>, from: u64, to: u64) -> Result<()> {
        for step in from..to {
            log.append(&line(step))?;
            if step % 3 == 0 {
                let eval = Some(Scores::from([("accuracy".to_owned(), 0.5)]));
                log.append(&LogLine { step, eval, ..LogLine::default() })?;
            }
        }
        log.sync()
    }

    #[test]
    fn lines_leave_out_what_does_not_apply() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOG_FILE);
        let mut log = MetricsLog::create(&path).unwrap();
        log.append(&LogLine { grad_norm: Some(f64::INFINITY), skipped: Some("why".to_owned()), ..line(1) }).unwrap();
        log.append(&LogLine { step: 1, eval: Some(Scores::default()), ..LogLine::default() }).unwrap();
        let expected = "{\"step\":1,\"epoch\":0,\"loss\":0.5,\"lr\":0.001,\"grad_norm\":null,\"skipped\":\"why\",\"seconds\":0.5}\n\
                        {\"step\":1,\"epoch\":0,\"eval\":{},\"seconds\":0.0}\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn a_resumed_log_is_the_uninterrupted_one() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
        train(&mut MetricsLog::create(&whole).unwrap(), 0, 20).unwrap();
        train(&mut MetricsLog::create(&cut).unwrap(), 0, 12).unwrap();
        // The run was killed in the middle of a line, four steps after its last checkpoint.
        let mut torn = fs::read(&cut).unwrap();
        torn.extend_from_slice(b"{\"step\":12,\"ep");
        fs::write(&cut, torn).unwrap();
        let mut resumed = MetricsLog::resume(&cut, 8).unwrap();
        assert_eq!((resumed.lines.len(), resumed.warnings.len()), (12, 0));
        assert_eq!(resumed.lines[2], line(1));
        train(&mut resumed.log, 9, 20).unwrap();
        assert_eq!(fs::read(&cut).unwrap(), fs::read(&whole).unwrap());
    }

    #[test]
    fn a_log_that_is_damaged_missing_or_short_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOG_FILE);
        let resumed = MetricsLog::resume(&path, 3).unwrap();
        assert!(resumed.warnings[0].contains("ends at step 0, the checkpoint is of step 3"), "{:?}", resumed.warnings);
        drop(resumed);
        fs::write(&path, b"{\"step\":1,\"epoch\":0,\"seconds\":1}\n\xff\n{\"step\":2,\"epoch\":0,\"seconds\":1}\n")
            .unwrap();
        let resumed = MetricsLog::resume(&path, 2).unwrap();
        assert_eq!(resumed.lines.len(), 2);
        assert!(resumed.warnings[0].ends_with("left out lines that are not log lines: 1"), "{:?}", resumed.warnings);
        assert_eq!(resumed.warnings.len(), 1);
    }

    #[test]
    fn a_failed_append_spoils_no_other_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOG_FILE);
        let storage = Faulty::once(7);
        let mut log = MetricsLog::start(&storage, &path, b"").unwrap();
        let results: Vec<bool> = (1..=5).map(|step| log.append(&line(step)).is_ok()).collect();
        assert_eq!(results, [true, false, true, true, true]);
        let resumed = MetricsLog::resume(&path, 5).unwrap();
        assert_eq!(resumed.lines, [line(1), line(3), line(4), line(5)]);
    }

    #[test]
    fn killed_at_any_operation_the_kept_lines_are_all_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOG_FILE);
        train(&mut MetricsLog::create(&path).unwrap(), 0, 10).unwrap();
        for operations in 0.. {
            let storage = Faulty::dies_after(operations);
            let resumed = MetricsLog::resume_on(&storage, &path, 6);
            let finished = resumed.and_then(|mut resumed| train(&mut resumed.log, 7, 10)).is_ok();
            let lines = MetricsLog::resume(&path, 6).unwrap().lines;
            assert_eq!(lines.len(), 10, "killed after {operations} operations");
            if finished {
                return;
            }
        }
    }
}
