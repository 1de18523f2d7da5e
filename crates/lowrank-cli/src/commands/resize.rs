//! `lowrank resize`: an adapter at another rank.

use std::fmt::{self, Display};

use lowrank::adapter::resize::Resized;
use lowrank::files::resize_dir;
use serde::Serialize;

use super::{Exit, Failure};
use crate::args::ResizeArgs;
use crate::output::table::{Align, Table};
use crate::output::{GOOD, Output, units};

#[derive(Debug, Serialize)]
struct Report {
    adapter: String,
    output: Option<String>,
    r: usize,
    lora_alpha: f64,
    modules: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    module: String,
    /// The rank it had.
    from: usize,
    r: usize,
    /// The share of the energy of the delta that is kept.
    energy: f64,
    /// What is missing, as a share of the delta.
    error: f64,
}

/// Resizes.
pub fn run(args: &ResizeArgs, output: Output) -> Result<Exit, Failure> {
    let target = args.output.as_deref().map(|output| (output, args.force));
    let (resized, warnings) = resize_dir(&args.adapter, args.cut.cut(), target)?;
    for warning in &warnings {
        output.warn(warning);
    }
    output.result(&Report::of(args, resized))?;
    Ok(Exit::Done)
}

impl Report {
    fn of(args: &ResizeArgs, resized: Resized) -> Self {
        let modules = resized.modules.into_iter();
        Self {
            adapter: args.adapter.display().to_string(),
            output: args.output.as_ref().map(|output| output.display().to_string()),
            r: resized.config.r,
            lora_alpha: resized.config.lora_alpha,
            modules: modules
                .map(|module| Line {
                    module: module.path,
                    from: module.from,
                    r: module.rank,
                    energy: module.energy,
                    error: module.error,
                })
                .collect(),
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            ("module", Align::Left),
            ("from", Align::Right),
            ("r", Align::Right),
            ("energy", Align::Right),
            ("error", Align::Right),
        ]);
        for module in &self.modules {
            let ranks = [module.from, module.r].map(|rank| rank.to_string());
            let numbers = [module.energy, module.error].map(units::short);
            table.row([module.module.clone()].into_iter().chain(ranks).chain(numbers));
        }
        writeln!(f, "{table}")?;
        let output = self.output.as_deref().unwrap_or("nothing written, no --output");
        let modules = units::count(self.modules.len() as u64, "module");
        writeln!(f, "{GOOD}resized:{GOOD:#} {output} ({modules}, r {}, lora_alpha {})", self.r, self.lora_alpha)
    }
}
