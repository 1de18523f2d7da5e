//! The plan as a table and as JSON.

use std::fmt::{self, Display};
use std::path::Path;

use lowrank_burn::attach::TrainableParameters;
use lowrank_burn::train::TrainConfig;
use serde::Serialize;

use crate::output::table::{Align, Table};
use crate::output::{STRONG, units};

/// What a run would do.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The base directory; none for a new base.
    pub base: Option<String>,
    /// Every module that has parameters of its own.
    pub modules: Vec<Module>,
    /// Parameters that train.
    pub trainable_parameters: usize,
    /// All, the adapter's included.
    pub all_parameters: usize,
    /// Whether an adapter is trained, or all weights.
    pub adapter: bool,
    /// Bytes of the weights that are written.
    pub bytes: usize,
    /// Bytes of the optimiser's state.
    pub optimizer_bytes: usize,
    /// The recordings; none without a manifest.
    pub data: Option<Data>,
    /// Measured on a few real steps; none where that would take long.
    pub seconds_per_step: Option<f64>,
    /// The folder for the results.
    pub output: String,
    /// The files in it.
    pub writes: Vec<String>,
}

/// A module, and what the adapter does to it.
#[derive(Debug, Serialize)]
pub struct Module {
    /// Its path.
    pub name: String,
    /// Its class.
    pub kind: String,
    /// Groups of a convolution.
    pub groups: usize,
    /// The shape of its weight in a checkpoint.
    pub shape: Vec<usize>,
    /// Parameters of the base.
    pub parameters: usize,
    /// The entry of `target_modules` that matched.
    pub pattern: Option<String>,
    /// The rank.
    pub r: Option<usize>,
    /// The alpha.
    pub alpha: Option<f64>,
    /// What the product of the factors is multiplied with.
    pub scale: Option<f32>,
    /// The form of the factors of a grouped convolution.
    pub group_mode: Option<String>,
    /// Parameters of the factors.
    pub adapter_parameters: usize,
    /// Parameters of the base that train in full.
    pub saved_parameters: usize,
    /// Bytes in the file that is written.
    pub bytes: usize,
}

/// The recordings of a run.
#[derive(Debug, Serialize)]
pub struct Data {
    /// The list of recordings.
    pub manifest: String,
    /// What an example is called, such as `window`.
    pub unit: &'static str,
    /// Examples of each split.
    pub examples: Vec<(&'static str, usize)>,
    /// Examples in a step.
    pub examples_per_step: usize,
    /// Steps in an epoch.
    pub steps_per_epoch: usize,
    /// Steps in all.
    pub steps: u64,
    /// Examples in a batch of an evaluation.
    #[serde(skip)]
    pub eval_batch_size: usize,
}

impl Data {
    /// The steps that `examples` come to.
    pub fn new(manifest: &Path, unit: &'static str, examples: Vec<(&'static str, usize)>, train: &TrainConfig) -> Self {
        let training = examples.iter().find(|(split, _)| *split == "train").map_or(0, |(_, count)| *count);
        let steps_per_epoch = training.div_ceil(train.batch_size).div_ceil(train.gradient_accumulation_steps);
        Self {
            manifest: manifest.display().to_string(),
            unit,
            examples,
            examples_per_step: train.batch_size * train.gradient_accumulation_steps,
            steps_per_epoch,
            steps: train.max_steps.unwrap_or_else(|| train.epochs.saturating_mul(steps_per_epoch as u64)),
            eval_batch_size: train.eval_batch_size,
        }
    }

    /// Batches of the `test` split.
    pub fn test_batches(&self) -> usize {
        let test = self.examples.iter().find(|(split, _)| *split == "test").map_or(0, |(_, count)| *count);
        test.div_ceil(self.eval_batch_size)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.table())?;
        let counts = TrainableParameters { trainable: self.trainable_parameters, all: self.all_parameters };
        writeln!(f, "{counts}")?;
        let line =
            |f: &mut fmt::Formatter<'_>, name: &str, text: String| writeln!(f, "{STRONG}{name:<10}{STRONG:#}{text}");
        line(f, "base", self.base.clone().unwrap_or_else(|| "a new one".into()))?;
        line(f, if self.adapter { "adapter" } else { "weights" }, units::bytes(self.bytes as u64))?;
        line(f, "optimiser", units::bytes(self.optimizer_bytes as u64))?;
        if let Some(data) = &self.data {
            let examples = data.examples.iter().map(|(split, count)| format!("{count} {split}")).collect::<Vec<_>>();
            line(f, &format!("{}s", data.unit), format!("{} in {}", examples.join(", "), data.manifest))?;
            let (step, epoch) = (units::count(data.examples_per_step as u64, data.unit), data.steps_per_epoch);
            line(f, "steps", format!("{} of {step}, {epoch} an epoch", data.steps))?;
            if let Some(seconds) = self.seconds_per_step {
                #[expect(clippy::cast_precision_loss, reason = "an estimate")]
                let all = units::seconds(seconds * data.steps as f64);
                line(f, "time", format!("{all}, at a measured {:.1} ms a step", 1e3 * seconds))?;
            }
        }
        line(f, "writes", format!("{}: {}", self.output, self.writes.join(", ")))
    }
}

impl Report {
    fn table(&self) -> Table {
        let mut table = Table::new(&[
            ("module", Align::Left),
            ("kind", Align::Left),
            ("weight", Align::Left),
            ("parameters", Align::Right),
            ("matched by", Align::Left),
            ("r", Align::Right),
            ("alpha", Align::Right),
            ("scale", Align::Right),
            ("trains", Align::Right),
            ("bytes", Align::Right),
        ]);
        for module in &self.modules {
            let grouped = match &module.group_mode {
                Some(mode) => format!(" / {} {mode}", module.groups),
                None if module.groups > 1 => format!(" / {}", module.groups),
                None => String::new(),
            };
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
            let trains = module.adapter_parameters + module.saved_parameters;
            let in_full = (module.pattern.is_none() && trains > 0).then(|| "(in full)".to_owned());
            table.row([
                module.name.clone(),
                format!("{}{grouped}", module.kind),
                units::shape(&module.shape),
                units::thousands(module.parameters),
                or_dash(module.pattern.clone().or(in_full)),
                or_dash(module.r.map(|r| r.to_string())),
                or_dash(module.alpha.map(|alpha| alpha.to_string())),
                or_dash(module.scale.map(|scale| scale.to_string())),
                units::thousands(trains),
                units::bytes(module.bytes as u64),
            ]);
        }
        table
    }
}
