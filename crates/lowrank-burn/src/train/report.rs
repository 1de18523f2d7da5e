//! `report.html`: a run on one page, with nothing outside it. No scripts, no links; it follows the reader's light or
//! dark scheme.

use std::path::Path;

use lowrank::Result;
use lowrank::digits;
use lowrank::files::atomic;

use super::log::LogLine;
use crate::tasks::classification::figure;
use crate::tasks::{Evaluation, Score};

mod chart;
mod heat_map;
mod svg;

use chart::{Series, line_chart};
use heat_map::heat_map;

/// The name of the report in a run's folder.
pub const REPORT_FILE: &str = "report.html";

/// How many samples of each class each split has.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassBalance {
    /// The names of the splits, such as `train` and `valid`.
    pub splits: Vec<String>,
    /// Every class with its samples in each split.
    pub classes: Vec<(String, Vec<u64>)>,
}

/// What a report tells.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// The heading.
    pub title: &'a str,
    /// The command that made the run.
    pub command: &'a str,
    /// The run's configuration, as TOML.
    pub config: &'a str,
    /// The evaluation before training.
    pub before: Option<&'a Evaluation>,
    /// The evaluation of the parameters that were kept.
    pub after: Option<&'a Evaluation>,
    /// The lines of the run's log.
    pub log: &'a [LogLine],
    /// The step whose parameters were kept.
    pub best_step: Option<u64>,
    /// Parameters that were trained.
    pub trainable_params: u64,
    /// All parameters of the model with its adapter.
    pub all_params: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Samples a class and split.
    pub balance: &'a ClassBalance,
    /// What the reader should know: warnings, steps that were skipped.
    pub notes: &'a [String],
}

impl Report<'_> {
    /// The page.
    #[must_use]
    pub fn to_html(&self) -> String {
        let title = escape(self.title);
        let sections = [
            self.cards(),
            self.notes(),
            self.scores(),
            self.curves(),
            self.confusion(),
            self.classes(),
            self.balance(),
            section("Configuration", &format!("<pre>{}</pre>", escape(self.config))),
        ];
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n\
             <header>\n<h1>{title}</h1>\n<code>{}</code>\n</header>\n{}\
             <footer>Made by lowrank {}.</footer>\n</main>\n</body>\n</html>\n",
            include_str!("report/style.css"),
            escape(self.command),
            sections.concat(),
            env!("CARGO_PKG_VERSION"),
        )
    }

    /// Writes the page to `path`, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        atomic::write(path, self.to_html().as_bytes())
    }

    fn cards(&self) -> String {
        let mut cards = String::new();
        for score in self.told().into_iter().filter(|score| score.name != "loss") {
            let before = self.before.and_then(|before| before.score(score.name));
            if let Some(after) = score.value {
                let more = before.map_or_else(String::new, |before| format!("from {}", shown(&score, Some(before))));
                cards += &card(&capitalised(score.title), &shown(&score, Some(after)), &more);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "for a percentage with two decimals")]
        let share = 100.0 * self.trainable_params as f64 / self.all_params.max(1) as f64;
        let more = format!("{share:.2} % of {}", grouped(self.all_params));
        cards += &card("Trained parameters", &grouped(self.trainable_params), &more);
        let steps = self.log.iter().map(|line| line.step).max().unwrap_or_default();
        let best = self.best_step.map_or_else(String::new, |step| format!(", best at {}", grouped(step)));
        let more = format!("{} steps{best}", grouped(steps));
        format!("<div class=\"cards\">\n{cards}{}</div>\n", card("Training time", &duration(self.seconds), &more))
    }

    /// The scores of what was kept.
    fn told(&self) -> Vec<Score> {
        self.after.map(Evaluation::scores).unwrap_or_default()
    }

    fn notes(&self) -> String {
        if self.notes.is_empty() {
            return String::new();
        }
        let items: Vec<String> = self.notes.iter().map(|note| format!("<li>{}</li>\n", escape(note))).collect();
        format!("<section class=\"notes\">\n<h2>Notes</h2>\n<ul>\n{}</ul>\n</section>\n", items.concat())
    }

    /// Before and after, side by side.
    fn scores(&self) -> String {
        let (Some(before), Some(after)) = (self.before, self.after) else { return String::new() };
        let rows: Vec<String> = self.told().iter().map(|score| change(score, before.score(score.name))).collect();
        let samples = format!("Before and after, on {} samples", grouped(after.samples()));
        section(&samples, &table(&["", "before", "after", "change"], &rows.concat()))
    }

    fn curves(&self) -> String {
        let points = |value: fn(&LogLine) -> Option<f64>| -> Vec<(f64, f64)> {
            let point = |line: &LogLine| {
                #[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
                let step = line.step as f64;
                value(line).map(|value| (step, value))
            };
            self.log.iter().filter_map(point).collect()
        };
        let train = Series { name: "training", class: "train", points: points(|line| line.loss), smooth: true };
        let eval = points(|line| line.eval.as_ref()?.get("loss").copied());
        let eval = Series { name: "evaluation", class: "eval", points: eval, smooth: false };
        let lr = Series { name: "learning rate", class: "lr", points: points(|line| line.lr), smooth: false };
        let both = if eval.points.is_empty() { vec![train] } else { vec![train, eval] };
        let loss = line_chart("Loss over optimiser steps", &both, self.best_step);
        let rate = line_chart("Learning rate over optimiser steps", &[lr], None);
        let body = format!(
            "<div class=\"pair\">\n<div>\n<h3>Loss</h3>\n{loss}</div>\n<div>\n<h3>Learning rate</h3>\n{rate}</div>\n</div>"
        );
        section("Training", &body)
    }

    fn confusion(&self) -> String {
        let maps: Vec<String> = [("Before", self.before), ("After", self.after)]
            .into_iter()
            .filter_map(|(name, evaluation)| Some((name, evaluation?.classification()?)))
            .filter(|(_, evaluation)| !evaluation.classes.is_empty())
            .map(|(name, evaluation)| {
                format!("<div>\n<h3>{name}</h3>\n{}</div>\n", heat_map(name, &evaluation.confusion))
            })
            .collect();
        if maps.is_empty() {
            return String::new();
        }
        section("What was taken for what", &format!("<div class=\"pair\">\n{}</div>", maps.concat()))
    }

    /// Precision, recall and F1 of every class.
    fn classes(&self) -> String {
        let [before, after] = [self.before, self.after].map(|one| one.and_then(Evaluation::classification));
        let Some(after) = after.filter(|after| !after.classes.is_empty()) else { return String::new() };
        let row = |number: usize| {
            let class = &after.classes[number];
            let before = before.and_then(|before| before.classes.get(number)).and_then(|class| class.f1);
            let (label, support) = (escape(&class.label), grouped(class.support));
            let [precision, recall, f1, before] = [class.precision, class.recall, class.f1, before].map(percent);
            format!(
                "<tr><td>{label}</td><td>{support}</td><td>{precision}</td><td>{recall}</td><td>{f1}</td><td>{before}</td></tr>\n"
            )
        };
        let rows: Vec<String> = (0..after.classes.len()).map(row).collect();
        section("Classes", &table(&["", "samples", "precision", "recall", "F1", "F1 before"], &rows.concat()))
    }

    fn balance(&self) -> String {
        let counts = || self.balance.classes.iter().flat_map(|(_, counts)| counts);
        let Some(most) = counts().max().filter(|most| **most > 0) else { return String::new() };
        let bar = |(number, (count, split)): (usize, (&u64, &String))| {
            #[expect(clippy::cast_precision_loss, reason = "the length of a bar; its text takes the other quarter")]
            let width = 75.0 * *count as f64 / *most as f64;
            let text = format!("{} {}", escape(split), grouped(*count));
            format!(
                "<div class=\"bar\"><i style=\"width:{width:.1}%;--split:{number}\"></i><span>{text}</span></div>\n"
            )
        };
        let row = |(label, counts): &(String, Vec<u64>)| {
            let bars: String = counts.iter().zip(&self.balance.splits).enumerate().map(bar).collect();
            let (label, total) = (escape(label), grouped(counts.iter().sum()));
            format!("<tr><td>{label}</td><td class=\"bars\">\n{bars}</td><td>{total}</td></tr>\n")
        };
        let rows: String = self.balance.classes.iter().map(row).collect();
        section("Class balance", &table(&["", "", "samples"], &rows))
    }
}

/// A score before and after: a row of a table.
fn change(score: &Score, before: Option<f64>) -> String {
    let change = before.zip(score.value).map(|(before, after)| after - before);
    let class = match before.zip(score.value) {
        Some((before, after)) if score.is_better(after, before) => "good",
        Some((before, after)) if score.is_better(before, after) => "bad",
        _ => "",
    };
    let change = match change {
        Some(change) if score.share => format!("{:+.1} points", 100.0 * change),
        Some(change) => format!("{change:+.4}"),
        None => "-".to_owned(),
    };
    let (name, before, after) = (capitalised(score.title), shown(score, before), shown(score, score.value));
    format!("<tr><td>{name}</td><td>{before}</td><td>{after}</td><td class=\"{class}\">{change}</td></tr>\n")
}

/// A value of a score as people read it.
fn shown(score: &Score, value: Option<f64>) -> String {
    if score.share { percent(value) } else { figure(value, 4) }
}

fn capitalised(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

fn section(heading: &str, body: &str) -> String {
    format!("<section>\n<h2>{heading}</h2>\n{body}\n</section>\n")
}

fn card(name: &str, value: &str, more: &str) -> String {
    format!(
        "<div class=\"card\"><div class=\"name\">{name}</div><div class=\"value\">{value}</div>\
         <div class=\"more\">{more}</div></div>\n"
    )
}

fn table(header: &[&str], rows: &str) -> String {
    let header: Vec<String> = header.iter().map(|cell| format!("<th>{cell}</th>")).collect();
    format!(
        "<div class=\"scroll\"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>",
        header.concat()
    )
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.1} %", 100.0 * value))
}

/// A number with a thin space between groups of three digits.
fn grouped(number: u64) -> String {
    digits::grouped(number, '\u{2009}')
}

fn duration(seconds: f64) -> String {
    if !(seconds.is_finite() && seconds >= 0.0) {
        return "-".to_owned();
    }
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a finite number of seconds above 0")]
    let seconds = seconds.round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours} h {minutes:02} min") } else { format!("{minutes} min {seconds:02} s") }
}

/// `text` as it may stand in HTML, in and between tags.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            '\n' | '\t' => escaped.push(character),
            control if control.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
