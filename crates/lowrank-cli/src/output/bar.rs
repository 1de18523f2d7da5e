//! A bar over named parts of a piece of work.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Output;

/// Shows on stderr how far a command is.
pub struct Bar(ProgressBar);

impl Bar {
    /// Over parts that are counted.
    pub fn of_parts(output: Output) -> Self {
        Self::new(output, "{bar:32} {pos}/{len} {msg}")
    }

    /// Over parts that are measured in bytes.
    pub fn of_bytes(output: Output) -> Self {
        Self::new(output, "{bar:32} {bytes}/{total_bytes} {msg}")
    }

    fn new(output: Output, template: &str) -> Self {
        let target = if output.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::with_draw_target(None, target).with_style(style))
    }

    /// At the part called `name`, with `done` of `total` behind.
    pub fn at(&self, name: &str, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
        self.0.set_message(name.to_owned());
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.0.finish_and_clear();
    }
}
