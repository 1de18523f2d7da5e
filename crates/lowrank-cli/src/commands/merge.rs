//! `lowrank merge`: an adapter into the weights of its base model.

use std::fmt::{self, Display};

use lowrank::files::merge_checkpoint::{MergeSummary, Progress, merge_checkpoint_to};
use lowrank::files::{Disk, MergeOptions};
use serde::Serialize;

use super::{Exit, Failure};
use crate::args::MergeArgs;
use crate::output::bar::Bar;
use crate::output::table::{Align, Table};
use crate::output::{GOOD, Output, units};

#[derive(Debug, Serialize)]
struct Report {
    base: String,
    adapter: String,
    output: String,
    merged: Vec<Merged>,
    /// Tensors that the adapter had a new value for.
    replaced: Vec<String>,
    /// Weights without weight normalisation now, and without an adapter.
    folded: Vec<String>,
    /// Tensors of which some rows were replaced.
    rows: Vec<RowsReplaced>,
    /// How many tensors are as they were.
    unchanged: usize,
    /// Files of the base folder that are not in the output.
    left_out: Vec<String>,
    max_delta: f64,
    max_error: f64,
}

#[derive(Debug, Serialize)]
struct RowsReplaced {
    name: String,
    rows: usize,
}

/// A tensor with the adapter in it, and what the check of its merge measured.
#[derive(Debug, Serialize)]
struct Merged {
    name: String,
    /// The largest magnitude that was added.
    max_delta: f64,
    /// The largest difference between merged and unmerged output on the probe.
    max_error: f64,
    /// The largest difference that rounding can explain.
    bound: f64,
}

/// Merges.
pub fn run(args: &MergeArgs, output: Output) -> Result<Exit, Failure> {
    let bar = Bar::of_bytes(output);
    let mut progress = |progress: Progress<'_>| bar.at(progress.tensor, progress.done, progress.total);
    let options = MergeOptions { force: args.force, weight_norm: args.weight_norm };
    let merged = merge_checkpoint_to(&Disk, &args.base, &args.adapter, &args.output, options, &mut progress);
    bar.finish();
    let summary = merged?;
    for warning in &summary.warnings {
        output.warn(warning);
    }
    output.result(&Report::of(args, summary))?;
    Ok(Exit::Done)
}

impl Report {
    fn of(args: &MergeArgs, summary: MergeSummary) -> Self {
        let merged = summary.merged.into_iter().map(|(name, report)| Merged {
            name,
            max_delta: report.max_delta,
            max_error: report.max_error,
            bound: report.bound,
        });
        let merged: Vec<_> = merged.collect();
        let largest = |of: fn(&Merged) -> f64| merged.iter().map(of).fold(0.0, f64::max);
        Self {
            base: args.base.display().to_string(),
            adapter: args.adapter.display().to_string(),
            output: args.output.display().to_string(),
            max_delta: largest(|merged| merged.max_delta),
            max_error: largest(|merged| merged.max_error),
            merged,
            replaced: summary.replaced,
            folded: summary.folded,
            rows: summary.rows.into_iter().map(|(name, rows)| RowsReplaced { name, rows }).collect(),
            unchanged: summary.unchanged,
            left_out: summary.left_out,
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            ("tensor", Align::Left),
            ("max delta", Align::Right),
            ("max error", Align::Right),
            ("allowed", Align::Right),
        ]);
        for merged in &self.merged {
            let numbers = [merged.max_delta, merged.max_error, merged.bound].map(units::short);
            table.row([merged.name.clone()].into_iter().chain(numbers));
        }
        if !self.merged.is_empty() {
            writeln!(f, "{table}")?;
        }
        for name in &self.replaced {
            writeln!(f, "replaced: {name}")?;
        }
        for name in &self.folded {
            writeln!(f, "folded: {name}")?;
        }
        for RowsReplaced { name, rows } in &self.rows {
            writeln!(f, "{} replaced: {name}", units::count(*rows as u64, "row"))?;
        }
        for name in &self.left_out {
            writeln!(f, "left out: {name}")?;
        }
        let (merged, replaced) = (self.merged.len() + self.rows.len(), self.replaced.len());
        let unchanged = self.unchanged;
        let output = &self.output;
        writeln!(f, "{GOOD}merged:{GOOD:#} {output} (tensors: {merged} changed, {replaced} replaced, {unchanged} kept)")
    }
}
