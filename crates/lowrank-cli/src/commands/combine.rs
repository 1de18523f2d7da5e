//! `lowrank combine`: several adapters into one.

use std::fmt::{self, Display};

use lowrank::adapter::combine::{Combination, Combined};
use lowrank::files::combine_dirs;
use serde::Serialize;

use super::{Exit, Failure};
use crate::args::CombineArgs;
use crate::output::bar::Bar;
use crate::output::table::{Align, Table};
use crate::output::{GOOD, Output, units};

#[derive(Debug, Serialize)]
struct Report {
    adapters: Vec<Weighted>,
    output: String,
    combination_type: &'static str,
    r: usize,
    modules: Vec<ModuleReport>,
    /// Tensors that an adapter saved in full, taken as they are.
    saved: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Weighted {
    adapter: String,
    weight: f64,
}

#[derive(Debug, Serialize)]
struct ModuleReport {
    module: String,
    /// How many of the adapters have it.
    adapters: usize,
    r: usize,
    /// From the weighted sum of the deltas, as a share of it.
    distance: Option<f64>,
}

/// Combines.
pub fn run(args: &CombineArgs, output: Output) -> Result<Exit, Failure> {
    let how = Combination {
        combination_type: args.combination_type,
        svd_rank: args.svd_rank,
        density: args.density,
        majority_sign_method: args.majority_sign_method,
        seed: args.seed,
    };
    let bar = Bar::of_parts(output);
    let mut progress = |name: &str, done: usize, total: usize| bar.at(name, done as u64, total as u64);
    let combined = combine_dirs(&args.adapters, &args.weights, &how, &args.output, args.force, &mut progress);
    bar.finish();
    let combined = combined?;
    for warning in &combined.warnings {
        output.warn(warning);
    }
    output.result(&Report::of(args, combined))?;
    Ok(Exit::Done)
}

impl Report {
    fn of(args: &CombineArgs, combined: Combined) -> Self {
        let adapters = args.adapters.iter().zip(&args.weights);
        let modules = combined.modules.into_iter();
        Self {
            adapters: adapters
                .map(|(adapter, weight)| Weighted { adapter: adapter.display().to_string(), weight: *weight })
                .collect(),
            output: args.output.display().to_string(),
            combination_type: args.combination_type.name(),
            r: combined.config.r,
            modules: modules
                .map(|module| ModuleReport {
                    module: module.path,
                    adapters: module.adapters,
                    r: module.rank,
                    distance: module.distance,
                })
                .collect(),
            saved: combined.state.saved.into_keys().collect(),
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            ("module", Align::Left),
            ("adapters", Align::Right),
            ("r", Align::Right),
            ("distance", Align::Right),
        ]);
        for module in &self.modules {
            let distance = module.distance.map_or_else(|| "-".to_owned(), units::short);
            table.row([module.module.clone(), module.adapters.to_string(), module.r.to_string(), distance]);
        }
        writeln!(f, "{table}")?;
        for name in &self.saved {
            writeln!(f, "saved in full: {name}")?;
        }
        let (output, kind) = (&self.output, self.combination_type);
        let (adapters, modules) =
            (units::count(self.adapters.len() as u64, "adapter"), units::count(self.modules.len() as u64, "module"));
        writeln!(f, "{GOOD}combined:{GOOD:#} {output} ({kind} of {adapters}, {modules})")
    }
}
