//! A run as it goes: a bar with the loss on a terminal, a line an evaluation elsewhere.

use std::fmt;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use lowrank_burn::attach::TrainableParameters;
use lowrank_burn::tasks::Evaluation;
use lowrank_burn::train::{Event, Observer};

use super::{ODD, Output, units};
use crate::interrupt;

const TEMPLATE: &str = "{bar:24} {pos}/{len}  {rate}  ETA {eta}  {msg}";

/// Characters of the curve.
const WIDTH: usize = 24;

/// Tells of a run on stderr.
pub struct Progress {
    output: Output,
    bar: ProgressBar,
    losses: Vec<f64>,
    total: u64,
}

impl Progress {
    /// Nothing is shown before the run tells something.
    pub fn new(output: Output) -> Self {
        let target = if output.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
            // A bar that cannot be drawn is no reason to end a run.
            let _ = write!(text, "{:.1}/s", state.per_sec());
        };
        let bar = ProgressBar::with_draw_target(None, target).with_style(style.with_key("rate", rate));
        Self { output, bar, losses: Vec::new(), total: 0 }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn say(&self, line: &str) {
        if self.losses.is_empty() {
            // There is no bar yet, and taking one away would draw it.
            self.output.say(line);
        } else {
            self.bar.suspend(|| self.output.say(line));
        }
    }

    fn step(&mut self, step: u64, total: u64, loss: f64, learning_rate: f64) {
        self.losses.push(loss);
        self.bar.set_length(total);
        self.bar.set_position(step);
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("loss {loss:.4}  lr {learning_rate:.1e}  {}", sparkline(&self.losses, WIDTH)));
        }
    }

    fn evaluated(&self, step: u64, name: &str, evaluation: &Evaluation) {
        let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
        let scores = evaluation.scores();
        let scores: Vec<_> = scores.iter().map(|score| format!("{} {}", score.title, figure(score.value))).collect();
        let scores = format!("{name}: {}", scores.join(", "));
        match self.losses.last().filter(|_| name == "valid") {
            Some(loss) => self.say(&format!("step {step}/{}: loss {loss:.4}, {scores}", self.total)),
            None => self.say(&scores),
        }
    }
}

impl Observer for Progress {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { total, steps_per_epoch, trainable, all, examples, unit } => {
                self.total = *total;
                self.say(&TrainableParameters { trainable: *trainable, all: *all }.to_string());
                let examples = units::count(*examples as u64, unit);
                self.say(&format!("{examples}, {steps_per_epoch} steps an epoch, {}", units::count(*total, "step")));
            }
            Event::Resumed { step } => {
                self.bar.set_position(*step);
                self.bar.reset_eta();
                self.say(&format!("resumed after step {step}"));
            }
            Event::Step { step, total, loss, learning_rate, .. } => self.step(*step, *total, *loss, *learning_rate),
            Event::Skipped { step, reason } => {
                self.say(&format!("{ODD}warning:{ODD:#} step {step} skipped: {reason}"));
            }
            Event::Evaluated { step, name, evaluation } => self.evaluated(*step, name, evaluation),
            Event::Warning(warning) => self.say(&format!("{ODD}warning:{ODD:#} {warning}")),
            _ => {}
        }
    }

    fn interrupted(&self) -> bool {
        interrupt::requested()
    }
}

/// The course of `values` in so many characters, each the mean of an equal share of them.
fn sparkline(values: &[f64], width: usize) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let width = width.min(values.len());
    let mean = |share: usize| {
        let values = &values[share * values.len() / width..(share + 1) * values.len() / width];
        #[expect(clippy::cast_precision_loss, reason = "a number of steps is far below 2^53")]
        let count = values.len() as f64;
        values.iter().sum::<f64>() / count
    };
    let means: Vec<f64> = (0..width).map(mean).collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let span = means.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a level from 0 to 7; saturates")]
    let level = |mean: &f64| if span > 0.0 { ((mean - low) / span * 7.0).round() as usize } else { 0 };
    means.iter().map(|mean| LEVELS[level(mean).min(7)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_falls_with_the_loss() {
        assert_eq!(sparkline(&[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 8), "█▇▆▅▄▃▂▁");
        assert_eq!(sparkline(&[4.0, 4.0, 2.0, 2.0, 0.0, 0.0], 3), "█▅▁");
        assert_eq!(sparkline(&[1.0, 1.0], 24), "▁▁");
        assert_eq!(sparkline(&[], 24), "");
    }
}
