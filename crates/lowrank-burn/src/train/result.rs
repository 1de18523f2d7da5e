//! What a run leaves behind: the adapter or the base, its card, the report and `result.json`.

use std::fmt::Write as _;
use std::path::Path;

use burn::module::Module;
use lowrank::config::LoraConfig;
use lowrank::files::{self, adapter_dir};
use lowrank::{Error, Result, Subject};

use super::log::{LOG_FILE, LogLine};
use super::outcome::Outcome;
use super::report::{ClassBalance, REPORT_FILE, Report};
use super::run::{Data, Run};
use crate::attach::{Adapters, DEFAULT};
use crate::models::{BaseModel, ModelConfig, Network};
use crate::tasks::{Evaluation, Examples};

/// The settings of a run, as a run file has them.
pub const SETTINGS: &str = "run.toml";
/// What came of a run.
pub const RESULT: &str = "result.json";
/// The folder of the adapter, as PEFT has it, in a run's folder.
pub const ADAPTER: &str = "adapter";
/// The folder of the base model that full training makes, in a run's folder.
pub const MODEL: &str = "model";
/// Bytes of a `result.json` that is read back.
const RESULT_BYTES: u64 = 16 << 20;
/// Bytes of a log that is read back: ten million steps.
const LOG_BYTES: u64 = 2 << 30;

/// Everything the files of a finished run are written from.
pub(super) struct Results<'a> {
    pub run: &'a Run,
    pub data: &'a Data,
    pub model: &'a ModelConfig,
    pub network: &'a Network,
}

impl Results<'_> {
    /// The outcome of a run that is finished.
    pub fn read_outcome(output: &Path) -> Option<Outcome> {
        let path = output.join(RESULT);
        let text = files::exists(&path).then(|| files::read_to_string(&path, RESULT_BYTES).ok()).flatten()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes all of them; `result.json`, which says that the run is finished, comes last.
    pub fn write(&self, adapters: Option<&Adapters>, mut outcome: Outcome) -> Result<Outcome> {
        let output = &self.run.output;
        match (adapters, &self.run.lora) {
            (Some(adapters), Some(lora)) => {
                let card = card(lora, &outcome);
                let dir = output.join(ADAPTER);
                adapters.save(self.network, DEFAULT, &dir, Some(&card))?;
                outcome.adapter_bytes = Some(adapter_bytes(&dir)?);
            }
            _ => {
                BaseModel { config: self.model.clone(), network: self.network.valid() }.save(&output.join(MODEL))?;
            }
        }
        self.report(&outcome)?;
        let text = serde_json::to_string_pretty(&outcome)
            .map_err(|error| Error::new(Subject::File, error.to_string()).at(RESULT))?;
        files::write(&output.join(RESULT), text.as_bytes())?;
        Ok(outcome)
    }

    fn report(&self, outcome: &Outcome) -> Result<()> {
        let log = log_lines(&self.run.output.join(LOG_FILE))?;
        let splits: Vec<_> = self.data.splits().collect();
        let skipped = (outcome.skipped_steps > 0).then(|| format!("{} steps were skipped", outcome.skipped_steps));
        let warnings = splits.iter().flat_map(|(_, examples)| examples.warnings().iter().cloned());
        let report = Report {
            title: &format!("{} on {}", self.title(), self.run.manifest.path().display()),
            command: &self.run.command,
            config: &self.run.settings,
            before: outcome.before.as_ref(),
            after: outcome.after.as_ref().or(outcome.valid.as_ref()),
            log: &log,
            best_step: outcome.best_step,
            trainable_params: outcome.trainable_parameters as u64,
            all_params: outcome.all_parameters as u64,
            seconds: outcome.seconds,
            balance: &balance(&splits),
            notes: &warnings.chain(skipped).collect::<Vec<_>>(),
        };
        report.save(&self.run.output.join(REPORT_FILE))
    }

    fn title(&self) -> &'static str {
        if self.run.lora.is_some() { "LoRA adapter" } else { "Base model" }
    }
}

/// The adapter's `README.md`: the same for the same run, whenever and wherever it was done.
fn card(lora: &LoraConfig, outcome: &Outcome) -> String {
    let base = lora.base_model_name_or_path.as_deref().unwrap_or("a local base model");
    let mut card = format!(
        "---\nlibrary_name: peft\nbase_model: {base}\ntags:\n- lora\n- conv1d\n---\n\n# LoRA adapter\n\n\
         A low-rank adapter for `{base}`, rank {}, alpha {}, {} trained parameters of {}.\n\n\
         | | before | after |\n|---|---|---|\n",
        lora.r, lora.lora_alpha, outcome.trainable_parameters, outcome.all_parameters
    );
    let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    let (before, after) = (outcome.before.as_ref(), outcome.after.as_ref());
    for score in after.or(before).map(Evaluation::scores).unwrap_or_default() {
        let of = |evaluation: Option<&Evaluation>| figure(evaluation.and_then(|one| one.score(score.name)));
        let _ = writeln!(card, "| {} | {} | {} |", score.title, of(before), of(after));
    }
    card += "\nOn recordings that were not trained on. Use it with `lowrank eval --adapter`, merge it with `lowrank \
             merge`, or load it in Python with `peft.PeftModel.from_pretrained`. Trained by `lowrank`.\n";
    card
}

/// The log of a run, line by line.
fn log_lines(path: &Path) -> Result<Vec<LogLine>> {
    let text = files::read_to_string(path, LOG_BYTES)?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Examples of each class in each split.
fn balance(splits: &[(&str, &dyn Examples)]) -> ClassBalance {
    let counts: Vec<_> = splits.iter().map(|(_, examples)| examples.counts()).collect();
    let labels = counts.first().into_iter().flatten().map(|(label, _)| label.clone());
    let of = |class: usize| counts.iter().filter_map(|counts| Some(counts.get(class)?.1)).collect();
    ClassBalance {
        splits: splits.iter().map(|(name, _)| (*name).to_owned()).collect(),
        classes: labels.enumerate().map(|(class, label)| (label, of(class))).collect(),
    }
}

/// Bytes of the files that make an adapter.
fn adapter_bytes(dir: &Path) -> Result<u64> {
    let sizes = [adapter_dir::CONFIG, adapter_dir::WEIGHTS, adapter_dir::CARD]
        .map(|name| files::read_bytes(&dir.join(name), u64::MAX - 1).map(|bytes| bytes.len() as u64));
    sizes.into_iter().sum()
}
