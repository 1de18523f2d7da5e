use super::super::log::Scores;
use super::*;
use crate::tasks::classification::{self, ConfusionMatrix, MeanLoss};

fn evaluation(counts: [[u64; 3]; 3], mean: f64) -> Evaluation {
    let mut confusion = ConfusionMatrix::new(["idle", "<bearing> & \"gear\"", "imbalance"].map(str::to_owned).to_vec());
    for (truth, row) in counts.iter().enumerate() {
        for (predicted, count) in row.iter().enumerate() {
            (0..*count).for_each(|_| confusion.add(truth, predicted).unwrap());
        }
    }
    let mut loss = MeanLoss::default();
    loss.add(mean, confusion.samples());
    Evaluation::Classification(classification::Evaluation::new(confusion, loss))
}

fn log() -> Vec<LogLine> {
    let step = |step: u64| {
        let x = f64::from(u32::try_from(step).unwrap());
        let loss = Some(0.1 + 1.0 / (1.0 + x / 10.0));
        let eval = step
            .is_multiple_of(10)
            .then(|| loss.map(|loss| ("loss".to_owned(), loss + 0.05)).into_iter().collect::<Scores>());
        LogLine { step, loss, lr: Some(1e-3 * (1.0 - x / 60.0)), eval, ..LogLine::default() }
    };
    (1..=60).map(step).collect()
}

fn html(filled: bool) -> String {
    let (before, after) =
        (evaluation([[5, 3, 2], [4, 4, 2], [1, 1, 8]], 1.05), evaluation([[9, 1, 0], [0, 10, 0], [0, 0, 10]], 0.21));
    let balance = ClassBalance {
        splits: vec!["train".to_owned(), "valid".to_owned()],
        classes: vec![("idle".to_owned(), vec![12_000, 10]), ("<bearing> & \"gear\"".to_owned(), vec![300, 10])],
    };
    let empty = ClassBalance::default();
    let (log, notes) = (log(), ["step 7 was skipped: conv.lora_A[3] is NaN".to_owned()]);
    Report {
        title: "<Pump 7> & co",
        command: "lowrank train --config pump.toml",
        config: "[train]\nname = \"a < b\"\n",
        before: filled.then_some(&before),
        after: filled.then_some(&after),
        log: if filled { &log } else { &[] },
        best_step: filled.then_some(50),
        trainable_params: 12_345,
        all_params: 1_234_567,
        seconds: 192.4,
        balance: if filled { &balance } else { &empty },
        notes: if filled { &notes } else { &[] },
    }
    .to_html()
}

/// Checks that every tag is closed in order, and returns the text between the tags.
fn text_of(html: &str) -> String {
    let (mut open, mut text) = (Vec::new(), String::new());
    let mut rest = html.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some((before, after)) = rest.split_once('<') {
        if open.last() != Some(&"style") {
            text += before;
            text.push(' ');
        }
        let (tag, after) = after.split_once('>').unwrap();
        assert!(!tag.contains('<') && tag.matches('"').count().is_multiple_of(2), "<{tag}>");
        rest = after;
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closes something else");
        } else if !tag.ends_with('/') && name != "meta" {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    let words = |line: &str| line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    text.lines().map(words).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_page_is_well_formed_and_stands_alone() {
    for filled in [true, false] {
        let html = html(filled);
        text_of(&html);
        for forbidden in ["<script", "http", "url(", "@import", "src=", "href=", "onload", "<Pump", "<bearing", "NaN\""]
        {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
    }
}

#[test]
fn a_page_holds_the_runs_figures() {
    insta::assert_snapshot!(text_of(&html(true)).replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}

#[test]
fn an_empty_run_has_a_page_too() {
    let text = text_of(&html(false));
    assert!(text.contains("Loss over optimiser steps: no values."), "{text}");
    assert!(!text.contains("Notes") && !text.contains("Classes"), "{text}");
}

#[test]
fn figures_are_for_people() {
    assert_eq!(grouped(0) + " " + &grouped(999) + " " + &grouped(1_234_567), "0 999 1\u{2009}234\u{2009}567");
    let durations = [0.25, 59.0, 60.0, 3599.6, 7265.0, f64::NAN].map(duration);
    assert_eq!(durations, ["0.2 s", "59.0 s", "1 min 00 s", "1 h 00 min", "2 h 01 min", "-"]);
    assert_eq!(escape("<a href='x'>\u{0}&\n"), "&lt;a href=&#39;x&#39;&gt;\u{fffd}&amp;\n");
}

#[test]
fn a_page_is_saved_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(REPORT_FILE);
    let report = Report {
        title: "t",
        command: "c",
        config: "",
        before: None,
        after: None,
        log: &[],
        best_step: None,
        trainable_params: 0,
        all_params: 0,
        seconds: 0.0,
        balance: &ClassBalance::default(),
        notes: &[],
    };
    report.save(&path).unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), report.to_html());
}
