//! A whole run: from a base and a manifest to an adapter, through interruptions.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::module::{Module, ParamId};
use burn::tensor::Device;
use lowrank::config::LoraConfig;
use lowrank::files::output_dir::{self, Earlier};
use lowrank::files::storage::{Disk, Storage as _};
use lowrank::files::{self, RunLock};
use lowrank::random::Random;
use lowrank::{Error, Result, Subject};

use super::begin;
use super::checkpoint::{CHECKPOINTS, Checkpoint, Progress, sha256_of};
use super::config::TrainConfig;
use super::early_stopping::{EarlyStopping, Verdict};
use super::flat::Trainable;
use super::log::{LOG_FILE, LogLine, MetricsLog, scores};
use super::lorafa::Projections;
use super::observe::{Event, Observer};
use super::outcome::Outcome;
use super::result::{RESULT, Results, SETTINGS};
use super::trainer::{Step, Trainer};
use crate::attach::{Adapters, DEFAULT, TrainableParameters};
use crate::data::{SignalFormat, Split};
use crate::models::{Architecture, BaseModel, ModelConfig, Network};
use crate::tasks::classification::Windows;
use crate::tasks::{Evaluation, Examples, Manifest, Task};
use crate::values;

/// What training begins with.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a run has one")]
pub enum Start {
    /// A base model.
    Base(Box<BaseModel>),
    /// A classifier with fresh weights, for the labels of the manifest; its normalisation is fitted to the training windows.
    New {
        /// The network.
        architecture: Architecture,
        /// The windows it is to read.
        signal: SignalFormat,
    },
}

impl Start {
    /// What the model is for; none for a new one, which learns that from the manifest.
    #[must_use]
    pub fn task(&self) -> Option<&Task> {
        match self {
            Self::Base(base) => Some(&base.config.task),
            Self::New { .. } => None,
        }
    }

    /// The training examples, and the configuration of the model that they are for.
    ///
    /// # Errors
    /// When a recording cannot be used, or there is none to train on.
    pub fn begin(&self, manifest: &Manifest, config: &TrainConfig) -> Result<(Box<dyn Examples>, ModelConfig)> {
        match self {
            Self::Base(base) => Ok((base.config.task.load(manifest, Split::Train, config)?, base.config.clone())),
            Self::New { architecture, signal } => {
                let Manifest::Recordings(manifest) = manifest else {
                    return Err(Error::new(
                        Subject::Config,
                        "a new base is a classifier, and this is no list of recordings",
                    )
                    .at(manifest.path().display()));
                };
                let (windows, classifier) = Windows::begin(manifest, *signal, config)?;
                let (architecture, task) = (architecture.clone(), Task::Classification(classifier));
                Ok((Box::new(windows), ModelConfig { architecture, task }))
            }
        }
    }
}

/// Everything a run is made of.
#[derive(Debug, Clone)]
pub struct Run {
    /// The base, or what to make one of.
    pub start: Start,
    /// The adapter to train; without it every weight trains.
    pub lora: Option<LoraConfig>,
    /// The recordings: `train`, and if there are such rows `valid` and `test`.
    pub manifest: Manifest,
    /// How to train.
    pub config: TrainConfig,
    /// The seed of everything random.
    pub seed: u64,
    /// The folder for the results.
    pub output: PathBuf,
    /// Whether to go on with a run that is there.
    pub resume: bool,
    /// The command line, for the report.
    pub command: String,
    /// The settings as a run file would have them, for the report.
    pub settings: String,
}

/// Runs it: trains, evaluates, and leaves in `output` the folder `adapter` as PEFT has it, with a model card (or, without
/// `lora`, a base model in `model`), `metrics.jsonl`, `report.html` and `result.json`.
///
/// A checkpoint is written every so many steps, and when `observer` asks to stop. A run that is resumed ends with the same
/// bits as one that was never interrupted; one that is finished already returns its result. Burn has one random generator
/// for the whole process: of two runs at once in one process, neither is reproducible.
///
/// # Errors
/// Before anything is written: wrong settings, a base or a configuration that do not fit, unusable recordings, a folder
/// that is in use or not ours. While it runs: [`Subject::Diverged`] when too many steps in a row are not finite,
/// [`Subject::Interrupted`] when it was asked to stop and everything is saved; a file that cannot be written. The last
/// checkpoint is intact in each case.
pub fn run(run: &Run, observer: &mut dyn Observer) -> Result<Outcome> {
    let began = Instant::now();
    run.config.validate()?;
    if run.config.lorafa && run.lora.is_none() {
        let error = Error::new(Subject::Config, "LoRA-FA needs an adapter, and all weights train here").at("lorafa");
        return Err(error.with_hint("add [lora] with target_modules, or leave lorafa out"));
    }
    if run.config.trainable.is_some() && run.lora.is_some() {
        let error = Error::new(Subject::Config, "an adapter trains, and all else is frozen").at("trainable");
        return Err(error.with_hint("modules that train beside it are its modules_to_save, and biases its bias"));
    }
    let (data, model) = Data::load(run, observer)?;
    let (network, adapters) = prepare(run, &model, &*data.train)?;
    let trainable = match &adapters {
        Some(adapters) => Trainable::of_run(adapters, &run.config)?,
        None => Trainable::of_full_run(&network, &run.config)?,
    };
    let all =
        adapters.as_ref().map_or_else(|| network.num_params(), |adapters| adapters.trainable_parameters(&network).all);
    let counts = TrainableParameters { trainable: trainable.len(), all };
    let projections = match adapters.as_ref().filter(|_| run.config.lorafa) {
        Some(adapters) => Some(Projections::of(adapters, DEFAULT, &network, &trainable)?),
        None => None,
    };
    let digest = digest(run, &model, &network)?;

    files::create_dir(&run.output)?;
    let _lock = RunLock::acquire(&run.output)?;
    let resume = claim(run, observer)?;
    if let Some(outcome) = resume.then(|| Results::read_outcome(&run.output)).flatten() {
        tidy(&run.output);
        return Ok(outcome);
    }
    files::write(&run.output.join(SETTINGS), run.settings.as_bytes())?;

    let trainer = Trainer::new(network, trainable, &*data.train, &run.config, run.seed)?.with_projections(projections);
    observer.event(&Event::Started {
        total: trainer.total(),
        steps_per_epoch: trainer.steps_per_epoch(),
        trainable: counts.trainable,
        all: counts.all,
        examples: data.train.len(),
        unit: data.train.unit(),
    });
    let mut session = Session::open(run, &data, &model, trainer, digest, resume, began, observer)?;
    session.train(observer)?;
    let outcome = session.finish(adapters.as_ref(), counts, observer)?;
    tidy(&run.output);
    Ok(outcome)
}

/// Between checkpoints that nobody asked for: where an epoch is a step or two, safety would cost more than the training.
const PAUSE: Duration = Duration::from_secs(1);

/// The result is safe; what was only needed to get there can go. A run may have been killed before it came to this.
fn tidy(output: &Path) {
    let _ = Disk.remove(&output.join(CHECKPOINTS));
}

/// The splits that a run uses.
pub(super) struct Data {
    pub train: Box<dyn Examples>,
    pub valid: Option<Box<dyn Examples>>,
    pub test: Option<Box<dyn Examples>>,
}

impl Data {
    /// The splits, and the model that they are for.
    fn load(run: &Run, observer: &mut dyn Observer) -> Result<(Self, ModelConfig)> {
        let (train, model) = run.start.begin(&run.manifest, &run.config)?;
        let load = |split| {
            let there = run.manifest.has(split);
            there.then(|| model.task.load(&run.manifest, split, &run.config)).transpose()
        };
        let data = Self { train, valid: load(Split::Valid)?, test: load(Split::Test)? };
        let warnings = data.splits().flat_map(|(_, examples)| examples.warnings());
        for warning in run.manifest.warnings().iter().chain(warnings) {
            observer.event(&Event::Warning(warning));
        }
        if run.config.early_stopping_patience.is_some() && data.valid.is_none() {
            return Err(Error::new(Subject::Config, "early stopping needs recordings to watch")
                .at("early_stopping_patience")
                .expected("rows with split `valid` in the manifest")
                .with_hint("the `test` split is never looked at while training"));
        }
        Ok((data, model))
    }

    /// The splits that there are, with their names.
    pub fn splits(&self) -> impl Iterator<Item = (&'static str, &dyn Examples)> {
        let rest = [(Split::Valid, &self.valid), (Split::Test, &self.test)];
        let rest = rest.into_iter().filter_map(|(split, examples)| Some((split.name(), &**examples.as_ref()?)));
        [(Split::Train.name(), &*self.train)].into_iter().chain(rest)
    }
}

fn prepare(run: &Run, model: &ModelConfig, train: &dyn Examples) -> Result<(Network, Option<Adapters>)> {
    let device = Device::flex().autodiff();
    let network = match &run.start {
        Start::Base(base) => {
            let network = base.network.clone().train();
            // Frozen weights may be of half precision; without an adapter they train.
            if run.lora.is_some() { network } else { values::single(network) }
        }
        Start::New { architecture, .. } => {
            device.seed(Random::new(run.seed, "init", 0).bits());
            architecture.init(model.task.outputs(), &device)
        }
    };
    let Some(lora) = &run.lora else {
        return Ok((Trainable::of_full_run(&network, &run.config)?.freeze_others(network), None));
    };
    let (network, adapters) = begin::attach(network, lora, train, run)?;
    Ok((network, Some(adapters)))
}

/// What must be the same for a run to go on: settings, seed, base, and the shape of the data.
fn digest(run: &Run, model: &ModelConfig, network: &Network) -> Result<String> {
    let ids: Vec<_> = Trainable::of_model(network).ids().to_vec();
    let mut text = format!("{}\n{}\n", run.seed, model.to_json());
    text += &run.lora.as_ref().map(LoraConfig::to_json).unwrap_or_default();
    text += &serde_json::to_string(&run.config).map_err(|error| Error::new(Subject::Config, error.to_string()))?;
    text += &run.manifest.identity();
    // One at a time: the whole network would stand in memory once more.
    let of = |id: ParamId| values::read(network, &[id]).remove(&id).unwrap_or_default();
    let weights = ids.into_iter().map(|id| of(id).into_iter().flat_map(f32::to_le_bytes).collect());
    Ok(sha256_of([text.into_bytes()].into_iter().chain(weights)))
}

/// Takes the output folder, and says whether there is a run in it to go on with.
fn claim(run: &Run, observer: &mut dyn Observer) -> Result<bool> {
    let marks = [SETTINGS, RESULT, CHECKPOINTS, LOG_FILE];
    let names = files::list(&run.output)?;
    let begun = names.iter().any(|name| marks.contains(&name.as_str()));
    let resume = run.resume && begun;
    if run.resume && !begun {
        observer.event(&Event::Warning("there is no run to resume yet: starting from the beginning"));
    }
    output_dir::prepare(&run.output, &marks, if resume { Earlier::Resume } else { Earlier::Refuse })?;
    Ok(resume)
}

/// A run under way.
struct Session<'a> {
    run: &'a Run,
    data: &'a Data,
    model: &'a ModelConfig,
    trainer: Trainer<'a>,
    log: MetricsLog<'static>,
    began: Instant,
    /// When the last checkpoint was written.
    saved: Instant,
    /// Seconds before the last interruption.
    seconds_before: f64,
    digest: String,
    stopping: EarlyStopping,
    best: Option<Vec<f32>>,
    before: Option<Evaluation>,
    valid: Option<Evaluation>,
    history: Vec<LogLine>,
    stopped_early: bool,
    last_loss: Option<f64>,
}

impl<'a> Session<'a> {
    #[expect(clippy::too_many_arguments, reason = "it takes over everything that a run has prepared")]
    fn open(
        run: &'a Run,
        data: &'a Data,
        model: &'a ModelConfig,
        trainer: Trainer<'a>,
        digest: String,
        resume: bool,
        began: Instant,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let latest = if resume { Checkpoint::latest(&run.output.join(CHECKPOINTS))? } else { None };
        let log_path = run.output.join(LOG_FILE);
        let step = latest.as_ref().map(|latest| latest.checkpoint.progress.step);
        let log = match step {
            Some(step) => {
                let resumed = MetricsLog::resume(&log_path, step)?;
                resumed.warnings.iter().for_each(|warning| observer.event(&Event::Warning(warning)));
                resumed.log
            }
            None => MetricsLog::create(&log_path)?,
        };
        let patience = run.config.early_stopping_patience.map(u64::from);
        let mut session = Self {
            run,
            data,
            model,
            trainer,
            log,
            began,
            saved: Instant::now(),
            seconds_before: 0.0,
            digest,
            stopping: EarlyStopping::new(patience),
            best: None,
            before: None,
            valid: None,
            history: Vec::new(),
            stopped_early: false,
            last_loss: None,
        };
        match latest {
            Some(latest) => {
                latest.warnings.iter().for_each(|warning| observer.event(&Event::Warning(warning)));
                session.restore(latest.checkpoint)?;
                observer.event(&Event::Resumed { step: session.trainer.step });
            }
            None => session.baseline(observer)?,
        }
        Ok(session)
    }

    /// How good the base is, before anything is trained.
    fn baseline(&mut self, observer: &mut dyn Observer) -> Result<()> {
        if let (Start::Base(_), Some(test)) = (&self.run.start, &self.data.test) {
            let evaluation = self.evaluate(&**test)?;
            observer.event(&Event::Evaluated { step: 0, name: "before", evaluation: &evaluation });
            self.before = Some(evaluation);
        }
        Ok(())
    }

    fn train(&mut self, observer: &mut dyn Observer) -> Result<()> {
        while self.trainer.step < self.trainer.total() && !self.stopped_early {
            if observer.interrupted() {
                self.checkpoint(observer)?;
                return Err(Error::new(Subject::Interrupted, "stopped; everything is saved")
                    .at(format_args!("step {} of {}", self.trainer.step, self.trainer.total()))
                    .with_hint("run the same command with --resume to go on"));
            }
            self.step(observer)?;
            let (step, epoch_steps) = (self.trainer.step, self.trainer.steps_per_epoch());
            let due = |every: Option<u64>| step.is_multiple_of(every.unwrap_or(epoch_steps));
            if due(self.run.config.eval_every) || step == self.trainer.total() {
                self.validate(observer)?;
            }
            let every = self.run.config.checkpoint_every;
            let rested = every.is_some() || self.saved.elapsed() >= PAUSE;
            if due(every) && rested || step == self.trainer.total() || self.stopped_early {
                self.checkpoint(observer)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let epoch = self.trainer.epoch();
        let outcome = self.trainer.step()?;
        let (step, total, seconds) = (self.trainer.step, self.trainer.total(), self.seconds());
        let mut line = LogLine { step, epoch, seconds, ..LogLine::default() };
        match outcome {
            Step::Taken { loss, learning_rate, grad_norm } => {
                line = LogLine { loss: Some(loss), lr: Some(learning_rate), grad_norm: Some(grad_norm), ..line };
                self.last_loss = Some(loss);
                observer.event(&Event::Step { step, total, loss, learning_rate, grad_norm });
            }
            Step::Skipped(reason) => {
                line.skipped = Some(reason.clone());
                observer.event(&Event::Skipped { step, reason });
            }
        }
        self.log.append(&line)
    }

    fn validate(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let Some(valid) = &self.data.valid else { return Ok(()) };
        let evaluation = self.evaluate(&**valid)?;
        let step = self.trainer.step;
        observer.event(&Event::Evaluated { step, name: "valid", evaluation: &evaluation });
        let eval = Some(scores(&evaluation));
        let line = LogLine { step, epoch: self.trainer.epoch(), eval, seconds: self.seconds(), ..LogLine::default() };
        self.log.append(&line)?;
        self.history.push(line);
        match self.stopping.observe(step, &evaluation) {
            Verdict::Best if self.stopping.patience.is_some() => {
                self.best = Some(self.trainer.params.clone());
                self.valid = Some(evaluation);
            }
            Verdict::Best => self.valid = Some(evaluation),
            Verdict::Continue if self.stopping.patience.is_none() => self.valid = Some(evaluation),
            Verdict::Continue => {}
            Verdict::Stop => self.stopped_early = true,
        }
        Ok(())
    }

    fn evaluate(&self, examples: &dyn Examples) -> Result<Evaluation> {
        examples.evaluate(&self.trainer.network.valid(), self.run.config.eval_batch_size)
    }

    fn checkpoint(&mut self, observer: &mut dyn Observer) -> Result<()> {
        self.log.sync()?;
        let trainer = &self.trainer;
        let mut counters = trainer.counters().map(|(name, value)| (name.to_owned(), value)).to_vec();
        counters.push(("stopped_early".to_owned(), u64::from(self.stopped_early)));
        let checkpoint = Checkpoint {
            progress: Progress {
                step: trainer.step,
                epoch: trainer.epoch(),
                batch: trainer.step % trainer.steps_per_epoch(),
                seed: self.run.seed,
                config_digest: self.digest.clone(),
                slots: trainer.trainable.slots().to_vec(),
                early_stopping: self.stopping,
                baseline: self.before.clone(),
                counters: counters.into_iter().collect(),
                history: self.history.clone(),
                seconds: self.seconds(),
            },
            params: trainer.params.clone(),
            optimizer: trainer.optimizer.state().clone(),
            best_params: self.best.clone(),
            frozen: trainer.trainable.read_frozen(&trainer.network),
        };
        checkpoint.save(&self.run.output.join(CHECKPOINTS))?;
        self.saved = Instant::now();
        observer.event(&Event::Checkpointed { step: trainer.step });
        Ok(())
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let progress = checkpoint.progress;
        if progress.config_digest != self.digest {
            return Err(Error::new(
                Subject::Config,
                "the run was begun with other settings, another base or other recordings",
            )
            .at(self.run.output.display())
            .with_hint("resume with the same command, or start a new run in another folder"));
        }
        let counter = |name: &str| progress.counters.get(name).copied().unwrap_or(0);
        self.trainer.step = progress.step;
        self.trainer.restore_counters(counter);
        self.trainer.set_frozen(&checkpoint.frozen)?;
        self.trainer.set_params(checkpoint.params);
        self.trainer.optimizer.restore(checkpoint.optimizer)?;
        self.stopped_early = counter("stopped_early") > 0;
        self.stopping = progress.early_stopping;
        self.before = progress.baseline;
        self.history = progress.history;
        self.seconds_before = progress.seconds;
        self.best = checkpoint.best_params;
        Ok(())
    }

    /// Evaluates what was trained and writes the results.
    fn finish(
        mut self,
        adapters: Option<&Adapters>,
        counts: TrainableParameters,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        if let Some(best) = self.best.take() {
            self.trainer.set_params(best);
        }
        if let (None, Some(valid)) = (&self.valid, &self.data.valid) {
            self.valid = Some(self.evaluate(&**valid)?);
        }
        let after = self.data.test.as_ref().map(|test| self.evaluate(&**test)).transpose()?;
        if let Some(evaluation) = &after {
            observer.event(&Event::Evaluated { step: self.trainer.step, name: "after", evaluation });
        }
        self.log.sync()?;
        let outcome = Outcome {
            before: self.before.clone(),
            after,
            valid: self.valid.clone(),
            trainable_parameters: counts.trainable,
            all_parameters: counts.all,
            adapter_bytes: None,
            steps: self.trainer.step,
            skipped_steps: self.trainer.skipped,
            best_step: self.stopping.patience.and(self.stopping.best).map(|best| best.step),
            stopped_early: self.stopped_early,
            final_loss: self.last_loss,
            seconds: self.seconds(),
            output: self.run.output.display().to_string(),
        };
        let results = Results { run: self.run, data: self.data, model: self.model, network: &self.trainer.network };
        results.write(adapters, outcome)
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.began.elapsed().as_secs_f64()
    }
}
