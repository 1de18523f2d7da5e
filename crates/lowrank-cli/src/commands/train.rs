//! `lowrank train`: a run file to an adapter, or to a new base model.

use std::fmt::{self, Display};
use std::path::Path;

use burn::tensor::Device;
use lowrank::Result;
use lowrank_burn::models::{BaseModel, Dtype};
use lowrank_burn::tasks::{Evaluation, Manifest};
use lowrank_burn::train::{self, Outcome, Run, Start};
use serde::Serialize;

use super::{Exit, Failure};
use crate::args::TrainArgs;
use crate::interrupt;
use crate::output::progress::Progress;
use crate::output::table::{Align, Table};
use crate::output::{GOOD, Output, units};
use crate::run_file::{Model, RunPlan, Settings};

/// Trains.
pub fn run(args: TrainArgs, output: Output) -> Result<Exit, Failure> {
    let plan = RunPlan::new(&Settings::read(Some(&args.file), args.settings.0)?)?;
    let mut next = Next::of(&plan);
    let run = prepare(plan, args.resume)?;
    next.reading += &reading_flags(&run);
    interrupt::install(output)?;
    output.say(format_args!("{} with {}", next.what(), run.manifest.path().display()));
    let mut progress = Progress::new(output);
    let outcome = train::run(&run, &mut progress);
    progress.finish();
    output.result(&Report { outcome: outcome?, next })?;
    Ok(Exit::Done)
}

/// The run that a plan makes.
///
/// # Errors
/// When the base or the manifest cannot be read.
pub fn prepare(plan: RunPlan, resume: bool) -> Result<Run> {
    let path = plan.manifest()?.to_owned();
    let start = match plan.model {
        Model::Base(dir) => Start::Base(Box::new(BaseModel::load(&dir, &Device::flex(), plan.dtype)?)),
        Model::New { architecture, signal } => Start::New { architecture, signal },
    };
    let manifest = Manifest::read(&path, start.task(), plan.reading)?;
    Ok(Run {
        start,
        lora: plan.lora,
        manifest,
        config: plan.train,
        seed: plan.seed,
        output: plan.output,
        resume,
        command: command_line(),
        settings: plan.settings,
    })
}

/// The command as it was given.
fn command_line() -> String {
    let quoted = |arg: String| if arg.contains(char::is_whitespace) { format!("'{arg}'") } else { arg };
    let args = std::env::args_os().skip(1).map(|arg| quoted(arg.to_string_lossy().into_owned()));
    ["lowrank".to_owned()].into_iter().chain(args).collect::<Vec<_>>().join(" ")
}

/// The flags that read other recordings as this run reads its own.
fn reading_flags(run: &Run) -> String {
    let rate = match &run.start {
        Start::Base(base) => base.config.task.rate(),
        Start::New { signal, .. } => signal.rate,
    };
    let reading = run.manifest.reading();
    let other_rate = reading.series_rate.filter(|series| series.total_cmp(&rate).is_ne());
    let mut flags = other_rate.map(|series| format!(" --sample-rate {series}")).unwrap_or_default();
    flags += &reading.window_seconds.map(|window| format!(" --window-seconds {window}")).unwrap_or_default();
    for (flag, set) in [(" --mix-to-mono", reading.mix_to_mono), (" --skip-short", reading.skip_short)] {
        flags += if set { flag } else { "" };
    }
    flags
}

/// How to use what comes out.
#[derive(Debug)]
struct Next {
    base: Option<String>,
    manifest: String,
    adapter: bool,
    reading: String,
}

impl Next {
    fn of(plan: &RunPlan) -> Self {
        let shown = |path: &Path| path.display().to_string();
        let base = match &plan.model {
            Model::Base(dir) => Some(shown(dir)),
            Model::New { .. } => None,
        };
        Self {
            base,
            manifest: plan.manifest.as_deref().map(shown).unwrap_or_default(),
            adapter: plan.lora.is_some(),
            reading: match plan.dtype {
                Dtype::Float32 => String::new(),
                dtype => format!(" --dtype {}", dtype.name()),
            },
        }
    }

    fn what(&self) -> String {
        match (&self.base, self.adapter) {
            (Some(base), true) => format!("adapting {base}"),
            (Some(base), false) => format!("training all of {base}"),
            (None, _) => "training a new base".to_owned(),
        }
    }
}

/// What came of it; as JSON the outcome alone.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    outcome: Outcome,
    #[serde(skip)]
    next: Next,
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { before, after, valid, output, .. } = &self.outcome;
        let shown = [("before", before), ("after", after), ("valid", valid)];
        let shown: Vec<_> = shown.into_iter().filter_map(|(name, one)| Some((name, one.as_ref()?))).collect();
        if !shown.is_empty() {
            writeln!(f, "{}", scores(&shown))?;
        }
        let made = if self.next.adapter { "adapter:" } else { "base model:" };
        let made_in = Path::new(output).join(if self.next.adapter { train::ADAPTER } else { train::MODEL });
        let result = made_in.display();
        write!(f, "{GOOD}{made}{GOOD:#} {result}")?;
        if let Some(bytes) = self.outcome.adapter_bytes {
            write!(f, " ({})", units::bytes(bytes))?;
        }
        write!(f, ", {} in {}", units::count(self.outcome.steps, "step"), units::seconds(self.outcome.seconds))?;
        match self.outcome.skipped_steps {
            0 => writeln!(f)?,
            skipped => writeln!(f, ", {skipped} of them skipped")?,
        }
        let Next { base, manifest, adapter, reading } = &self.next;
        let model = match base.as_ref().filter(|_| *adapter) {
            Some(base) => format!("--model {base} --adapter {result}"),
            None => format!("--model {result}"),
        };
        writeln!(f, "next:    lowrank eval {model} --manifest {manifest}{reading}")
    }
}

fn scores(evaluations: &[(&'static str, &Evaluation)]) -> Table {
    let columns = evaluations.iter().map(|(name, _)| (*name, Align::Right));
    let mut table = Table::new(&[("", Align::Left)].into_iter().chain(columns).collect::<Vec<_>>());
    let shown = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.4}"));
    for score in evaluations.first().map(|(_, one)| one.scores()).unwrap_or_default() {
        let cells = evaluations.iter().map(|(_, one)| shown(one.score(score.name)));
        table.row([score.title.to_owned()].into_iter().chain(cells));
    }
    let samples = evaluations.iter().map(|(_, one)| one.samples().to_string());
    table.row(["samples".to_owned()].into_iter().chain(samples));
    table
}
