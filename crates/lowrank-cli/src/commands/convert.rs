//! `lowrank convert`: an adapter in another form.

use std::fmt::{self, Display};

use lowrank::adapter::lycoris::PREFIXES;
use lowrank::files::convert::{Converted, ToLycoris, ToPeft, convert_to_lycoris, convert_to_peft};
use lowrank::{Error, Subject};
use serde::Serialize;

use super::{Exit, Failure};
use crate::args::{ConvertArgs, Form};
use crate::output::table::{Align, Table};
use crate::output::{GOOD, Output, units};

#[derive(Debug, Serialize)]
struct Report {
    adapter: String,
    output: String,
    to: &'static str,
    modules: Vec<Line>,
    /// Modules of other models in the same file.
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    module: String,
    kind: String,
    groups: usize,
    /// The rank it had.
    from: usize,
    r: usize,
    /// What reached outside the groups, as a share of the delta.
    dropped: f64,
}

/// Converts.
pub fn run(args: &ConvertArgs, output: Output) -> Result<Exit, Failure> {
    let base = args.base.as_deref();
    let converted = match args.to {
        Form::Peft => {
            let how = ToPeft { base, prefix: args.prefix.clone(), groups: args.groups.clone(), project: args.project };
            convert_to_peft(&args.adapter, &how, &args.output, args.force)?
        }
        Form::Lycoris if !args.groups.is_empty() => {
            return Err(Error::new(
                Subject::Config,
                "`--groups` has no use for a LyCORIS file, in which groups share A",
            )
            .with_hint("leave it out")
            .into());
        }
        Form::Lycoris => {
            let prefix = args.prefix.clone().unwrap_or_else(|| PREFIXES[0].to_owned());
            let how = ToLycoris { prefix, base, project: args.project };
            convert_to_lycoris(&args.adapter, &how, &args.output, args.force)?
        }
    };
    for warning in &converted.warnings {
        output.warn(warning);
    }
    output.result(&Report::of(args, converted))?;
    Ok(Exit::Done)
}

impl Report {
    fn of(args: &ConvertArgs, converted: Converted) -> Self {
        let modules = converted.modules.into_iter();
        Self {
            adapter: args.adapter.display().to_string(),
            output: args.output.display().to_string(),
            to: args.to.name(),
            modules: modules
                .map(|module| Line {
                    module: module.path,
                    kind: module.kind.to_string(),
                    groups: module.groups,
                    from: module.from,
                    r: module.rank,
                    dropped: module.dropped,
                })
                .collect(),
            left_out: converted.left_out,
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            ("module", Align::Left),
            ("kind", Align::Left),
            ("groups", Align::Right),
            ("from", Align::Right),
            ("r", Align::Right),
            ("dropped", Align::Right),
        ]);
        for module in &self.modules {
            let counts = [module.groups, module.from, module.r].map(|count| count.to_string());
            let cells = [module.module.clone(), module.kind.clone()];
            table.row(cells.into_iter().chain(counts).chain([units::short(module.dropped)]));
        }
        writeln!(f, "{table}")?;
        for name in &self.left_out {
            writeln!(f, "left out: {name}")?;
        }
        let (output, to, modules) = (&self.output, self.to, units::count(self.modules.len() as u64, "module"));
        writeln!(f, "{GOOD}converted:{GOOD:#} {output} (to {to}, {modules})")
    }
}
