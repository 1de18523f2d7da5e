//! `lowrank diff`: what two adapters or two checkpoints differ by.

use std::fmt::{self, Display};

use lowrank::files;
use lowrank::files::diff::Diff;
use serde::Serialize;

use super::{Exit, Failure};
use crate::args::DiffArgs;
use crate::output::table::{Align, Table};
use crate::output::{GOOD, ODD, Output, units};

#[derive(Debug, Serialize)]
struct Report {
    first: String,
    second: String,
    same: bool,
    different: Vec<Line>,
    /// Tensors of another type or shape.
    incomparable: Vec<Shapes>,
    only_first: Vec<String>,
    only_second: Vec<String>,
    /// Of two adapters: modules whose deltas differ.
    deltas: Vec<Delta>,
    /// Of two adapters: keys of `adapter_config.json`.
    config: Vec<String>,
    equal: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    tensor: String,
    max_abs: Option<f64>,
    relative: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Shapes {
    tensor: String,
    first: String,
    second: String,
}

#[derive(Debug, Serialize)]
struct Delta {
    module: String,
    relative: Option<f64>,
}

/// Compares.
pub fn run(args: &DiffArgs, output: Output) -> Result<Exit, Failure> {
    let diff = files::diff(&args.first, &args.second)?;
    let report = Report::of(args, diff);
    output.result(&report)?;
    Ok(if report.same { Exit::Done } else { Exit::Negative })
}

impl Report {
    fn of(args: &DiffArgs, diff: Diff) -> Self {
        let (same, [only_first, only_second]) = (diff.is_empty(), diff.only);
        let different = diff.different.into_iter();
        let incomparable = diff.incomparable.into_iter();
        Self {
            first: args.first.display().to_string(),
            second: args.second.display().to_string(),
            same,
            different: different
                .map(|tensor| Line { tensor: tensor.name, max_abs: tensor.max_abs, relative: tensor.relative })
                .collect(),
            incomparable: incomparable.map(|(tensor, [first, second])| Shapes { tensor, first, second }).collect(),
            only_first,
            only_second,
            deltas: diff.deltas.into_iter().map(|(module, relative)| Delta { module, relative }).collect(),
            config: diff.config,
            equal: diff.equal,
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), units::short);
        let mut table = Table::new(&[("tensor", Align::Left), ("max abs", Align::Right), ("relative", Align::Right)]);
        for tensor in &self.different {
            table.row([tensor.tensor.clone(), number(tensor.max_abs), number(tensor.relative)]);
        }
        if !self.different.is_empty() {
            writeln!(f, "{table}")?;
        }
        let mut table = Table::new(&[("delta of module", Align::Left), ("relative", Align::Right)]);
        for delta in &self.deltas {
            table.row([delta.module.clone(), number(delta.relative)]);
        }
        if !self.deltas.is_empty() {
            writeln!(f, "{table}")?;
        }
        for Shapes { tensor, first, second } in &self.incomparable {
            writeln!(f, "other type or shape: {tensor} ({first} and {second})")?;
        }
        for (names, path) in [(&self.only_first, &self.first), (&self.only_second, &self.second)] {
            for name in names {
                writeln!(f, "only in {path}: {name}")?;
            }
        }
        for key in &self.config {
            writeln!(f, "adapter_config.json: {key}")?;
        }
        let (first, second, equal) = (&self.first, &self.second, self.equal.len());
        if self.same {
            return writeln!(f, "{GOOD}equal:{GOOD:#} {first} and {second} ({})", units::count(equal as u64, "tensor"));
        }
        let others = self.different.len() + self.incomparable.len();
        let only = self.only_first.len() + self.only_second.len();
        writeln!(
            f,
            "{ODD}different:{ODD:#} {first} and {second} ({equal} equal, {others} different, {only} in one only)"
        )
    }
}
