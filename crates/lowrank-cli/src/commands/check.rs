//! `lowrank check`: whether an adapter fits a base model.

use std::fmt::{self, Display};

use lowrank::files::check_adapter;
use lowrank::files::check_adapter::Check;
use serde::Serialize;

use super::{Exit, Failure};
use crate::args::CheckArgs;
use crate::output::table::{Align, Table};
use crate::output::{BAD, GOOD, Output, units};

#[derive(Debug, Serialize)]
struct Report {
    adapter: String,
    base: String,
    fits: bool,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    modules: Vec<Line>,
    /// Tensors of the base that the adapter replaces.
    replaced: Vec<String>,
    /// Tensors of the base of which it replaces rows.
    rows: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Problem {
    message: String,
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    module: String,
    kind: String,
    groups: usize,
    r: usize,
}

/// Checks.
pub fn run(args: &CheckArgs, output: Output) -> Result<Exit, Failure> {
    let check = check_adapter(&args.base, &args.adapter)?;
    for warning in &check.warnings {
        output.warn(warning);
    }
    let report = Report::of(args, check);
    output.result(&report)?;
    Ok(if report.fits { Exit::Done } else { Exit::Negative })
}

impl Report {
    fn of(args: &CheckArgs, check: Check) -> Self {
        let problems = check.problems.iter();
        let modules = check.modules.into_iter();
        Self {
            adapter: args.adapter.display().to_string(),
            base: args.base.display().to_string(),
            fits: check.problems.is_empty(),
            problems: problems
                .map(|error| Problem { message: error.to_string(), hint: error.hint().map(str::to_owned) })
                .collect(),
            warnings: check.warnings,
            modules: modules
                .map(|module| Line {
                    module: module.path,
                    kind: module.kind.to_string(),
                    groups: module.groups,
                    r: module.rank,
                })
                .collect(),
            replaced: check.replaced,
            rows: check.rows,
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = [("module", Align::Left), ("kind", Align::Left), ("groups", Align::Right), ("r", Align::Right)];
        let mut table = Table::new(&columns);
        for module in &self.modules {
            let numbers = [module.groups, module.r].map(|number| number.to_string());
            table.row([module.module.clone(), module.kind.clone()].into_iter().chain(numbers));
        }
        if !self.modules.is_empty() {
            writeln!(f, "{table}")?;
        }
        for name in &self.replaced {
            writeln!(f, "replaces: {name}")?;
        }
        for name in &self.rows {
            writeln!(f, "replaces rows: {name}")?;
        }
        for Problem { message, hint } in &self.problems {
            writeln!(f, "{BAD}problem:{BAD:#} {message}")?;
            if let Some(hint) = hint {
                writeln!(f, "  {GOOD}hint:{GOOD:#} {hint}")?;
            }
        }
        let (adapter, base, modules) = (&self.adapter, &self.base, units::count(self.modules.len() as u64, "module"));
        match self.problems.len() as u64 {
            0 => writeln!(f, "{GOOD}fits:{GOOD:#} {adapter} on {base} ({modules})"),
            count => writeln!(f, "{BAD}does not fit:{BAD:#} {adapter} on {base} ({})", units::count(count, "problem")),
        }
    }
}
