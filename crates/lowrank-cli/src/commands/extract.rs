//! `lowrank extract`: two checkpoints into an adapter.

use std::fmt::{self, Display};

use lowrank::files::extract_dir;
use lowrank::files::extract_dir::{Extracted, Extraction};
use serde::Serialize;

use super::{Exit, Failure};
use crate::args::ExtractArgs;
use crate::output::bar::Bar;
use crate::output::table::{Align, Table};
use crate::output::{GOOD, Output, units};

#[derive(Debug, Serialize)]
struct Report {
    base: String,
    tuned: String,
    output: Option<String>,
    r: usize,
    modules: Vec<Line>,
    /// Tensors that are saved in full.
    saved: Vec<String>,
    /// Tensors that differ and are not in the adapter.
    left_out: Vec<LeftOut>,
    equal: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    module: String,
    kind: String,
    r: usize,
    /// The share of the energy of the change that is kept.
    energy: f64,
    /// What is missing, as a share of the change.
    error: f64,
}

#[derive(Debug, Serialize)]
struct LeftOut {
    tensor: String,
    reason: String,
}

/// Extracts.
pub fn run(args: &ExtractArgs, output: Output) -> Result<Exit, Failure> {
    let how = Extraction {
        cut: args.cut.cut(),
        target_modules: args.target_modules.clone(),
        groups: args.groups.clone(),
        save: args.save,
    };
    let bar = Bar::of_parts(output);
    let mut progress = |name: &str, done: usize, total: usize| bar.at(name, done as u64, total as u64);
    let target = args.output.as_deref().map(|output| (output, args.force));
    let extracted = extract_dir(&args.base, &args.tuned, &how, target, &mut progress);
    bar.finish();
    output.result(&Report::of(args, extracted?))?;
    Ok(Exit::Done)
}

impl Report {
    fn of(args: &ExtractArgs, extracted: Extracted) -> Self {
        let modules = extracted.modules.into_iter();
        let left_out = extracted.left_out.into_iter();
        Self {
            base: args.base.display().to_string(),
            tuned: args.tuned.display().to_string(),
            output: args.output.as_ref().map(|output| output.display().to_string()),
            r: extracted.config.r,
            modules: modules
                .map(|module| Line {
                    module: module.path,
                    kind: module.kind.to_string(),
                    r: module.rank,
                    energy: module.energy,
                    error: module.error,
                })
                .collect(),
            saved: extracted.state.saved.into_keys().collect(),
            left_out: left_out.map(|(tensor, reason)| LeftOut { tensor, reason }).collect(),
            equal: extracted.equal,
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            ("module", Align::Left),
            ("kind", Align::Left),
            ("r", Align::Right),
            ("energy", Align::Right),
            ("error", Align::Right),
        ]);
        for module in &self.modules {
            let numbers = [module.energy, module.error].map(units::short);
            let cells = [module.module.clone(), module.kind.clone(), module.r.to_string()];
            table.row(cells.into_iter().chain(numbers));
        }
        if !self.modules.is_empty() {
            writeln!(f, "{table}")?;
        }
        for name in &self.saved {
            writeln!(f, "saved in full: {name}")?;
        }
        for LeftOut { tensor, reason } in &self.left_out {
            writeln!(f, "left out: {tensor} ({reason})")?;
        }
        for name in &self.equal {
            writeln!(f, "equal: {name}")?;
        }
        let output = self.output.as_deref().unwrap_or("nothing written, no --output");
        let modules = units::count(self.modules.len() as u64, "module");
        let (saved, left_out) = (self.saved.len(), self.left_out.len());
        writeln!(f, "{GOOD}extracted:{GOOD:#} {output} ({modules}, {saved} saved in full, {left_out} left out)")
    }
}
