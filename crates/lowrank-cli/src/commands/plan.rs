//! `lowrank plan`: what a run would adapt, train and write, without training.

mod measure;
mod report;

use std::path::Path;

use burn::module::Module as _;
use burn::tensor::Device;
use lowrank::Result;
use lowrank::adapter::GroupMode;
use lowrank::files::adapter_dir;
use lowrank::target::Target;
use lowrank_burn::attach::{DEFAULT, TrainableParameters};
use lowrank_burn::data::{self, Split};
use lowrank_burn::models::{BaseModel, Network};
use lowrank_burn::survey::{ModuleSite, ParamSite, Survey};
use lowrank_burn::tasks::{Examples, Manifest};
use lowrank_burn::train::report::REPORT_FILE;
use lowrank_burn::train::{ADAPTER, MODEL, OptimizerName, RESULT, SETTINGS, Start, TrainConfig, Trainable};

use self::report::{Data, Module, Report};
use super::train::prepare;
use super::{Exit, Failure};
use crate::args::PlanArgs;
use crate::output::Output;
use crate::run_file::{Model, RunPlan, Settings};

/// Shows the plan.
pub fn run(args: PlanArgs, output: Output) -> Result<Exit, Failure> {
    let plan = RunPlan::new(&Settings::read(args.file.as_deref(), args.settings.0)?)?;
    let model = Planned::of(&plan)?;
    let adapted = Adapted::of(&model.network, &plan)?;
    adapted.warnings.iter().for_each(|warning| output.warn(warning));
    let data = plan.manifest.as_deref().map(|path| examples(path, &plan, &model, output)).transpose()?;
    let (trainable, all) = (adapted.parameters.trainable, adapted.parameters.all);
    let modules = adapted.modules(&Survey::of(&model.network)?)?;
    let report = Report {
        base: model.base,
        output: plan.output.display().to_string(),
        writes: writes(plan.lora.is_some()),
        adapter: plan.lora.is_some(),
        bytes: modules.iter().map(|module| module.bytes).sum(),
        optimizer_bytes: optimizer_bytes(&plan.train, trainable),
        trainable_parameters: trainable,
        all_parameters: all,
        modules,
        seconds_per_step: match &data {
            Some(data) if measure::cheap(data) => measure::seconds_per_step(prepare(plan, false)?)?,
            _ => None,
        },
        data,
    };
    output.result(&report)?;
    Ok(Exit::Done)
}

/// The model of a plan.
struct Planned {
    base: Option<String>,
    network: Network,
    start: Start,
}

impl Planned {
    fn of(plan: &RunPlan) -> Result<Self> {
        match &plan.model {
            Model::Base(dir) => {
                let model = BaseModel::load(dir, &Device::flex(), plan.dtype)?;
                let base = Some(dir.display().to_string());
                Ok(Self { base, network: model.network.clone(), start: Start::Base(Box::new(model)) })
            }
            Model::New { architecture, signal } => {
                let outputs = match &plan.manifest {
                    Some(path) => data::Manifest::read(path, None)?.labels().len(),
                    None => 1,
                };
                let network = architecture.init(outputs, &Device::flex());
                let start = Start::New { architecture: architecture.clone(), signal: *signal };
                Ok(Self { base: None, network, start })
            }
        }
    }
}

/// What an adapter does to a model; nothing without one.
struct Adapted {
    targets: Vec<Target>,
    saved: Vec<String>,
    /// Modules of which some rows train, with their values.
    rows: Vec<(String, usize)>,
    parameters: TrainableParameters,
    warnings: Vec<String>,
    /// Whether an adapter has a value an output beside its factors: `lora_bias`, or the magnitude of `use_dora`.
    vectors: bool,
    full: bool,
}

impl Adapted {
    fn of(network: &Network, plan: &RunPlan) -> Result<Self> {
        let all = network.num_params();
        let Some(lora) = &plan.lora else {
            let trainable = Trainable::of_full_run(network, &plan.train)?;
            let parameters = TrainableParameters { trainable: trainable.len(), all };
            let (targets, rows, warnings) = (Vec::new(), Vec::new(), Vec::new());
            let survey = Survey::of(network)?;
            let trained = survey.params().filter(|(_, param)| trainable.ids().contains(&param.id));
            let saved = trained.map(|(site, param)| site.key(param)).collect();
            return Ok(Self { targets, saved, rows, parameters, warnings, vectors: false, full: true });
        };
        // A plan needs shapes alone, and some starts would need a run.
        let shapes = if lora.init_lora_weights.needs_data() { lora.with_plain_start() } else { lora.clone() };
        let (adapted, adapters) = lowrank_burn::attach(network.clone(), &shapes, plan.seed)?;
        let tensors = adapters.trainable_tensors(DEFAULT)?;
        let rows = tensors.iter().filter_map(|tensor| {
            let module = tensor.name.strip_suffix(".token_adapter.trainable_tokens_delta")?;
            Some((module.to_owned(), tensor.shape.iter().product()))
        });
        let rows = rows.collect();
        let tensors = tensors.into_iter().map(|tensor| tensor.name);
        Ok(Self {
            targets: adapters.targets(DEFAULT)?.to_vec(),
            saved: tensors.filter(|name| !name.contains(".lora_")).collect(),
            rows,
            parameters: TrainableParameters {
                trainable: Trainable::of_run(&adapters, &plan.train)?.len(),
                ..adapters.trainable_parameters(&adapted)
            },
            warnings: adapters.warnings(DEFAULT)?.to_vec(),
            vectors: lora.lora_bias || lora.use_dora,
            full: false,
        })
    }

    /// Every module that has parameters of its own.
    fn modules(&self, survey: &Survey) -> Result<Vec<Module>> {
        survey.modules.iter().filter(|site| !site.params.is_empty()).map(|site| self.module(site)).collect()
    }

    fn module(&self, site: &ModuleSite) -> Result<Module> {
        let target = self.targets.iter().find(|target| target.path == site.path);
        let saved = site.params.iter().filter(|param| self.saved.contains(&site.key(param)));
        let rows = self.rows.iter().filter(|(path, _)| *path == site.path).map(|(_, values)| values);
        let saved: usize = saved.map(ParamSite::len).chain(rows.copied()).sum();
        let factors = target.map_or((0, 0), |target| factors(target, self.vectors));
        let shape = site.param("weight").or(site.params.first()).map(ParamSite::torch_shape);
        let parameters = site.params.iter().map(ParamSite::len).sum();
        Ok(Module {
            name: site.path.clone(),
            kind: site.class.clone(),
            groups: site.layer()?.map_or(1, |layer| layer.groups()),
            shape: shape.unwrap_or_default(),
            parameters,
            pattern: target.map(|target| target.pattern.clone()),
            r: target.map(|target| target.rank),
            alpha: target.map(|target| target.alpha),
            scale: target.map(|target| target.scale),
            group_mode: target.filter(|target| target.layer.groups() > 1).map(|target| target.mode.to_string()),
            adapter_parameters: factors.0,
            saved_parameters: saved,
            bytes: 4 * (factors.1 + if self.full { parameters } else { saved }),
        })
    }
}

/// Values of a module's adapter, with a vector beside its factors or without: those that train, and those of the file, in which PEFT's dense form has zeros
/// outside the groups.
fn factors(target: &Target, vector: bool) -> (usize, usize) {
    let count = |mode| {
        let shapes = [target.layer.a_shape(target.rank, mode), target.layer.b_shape(target.rank, mode)];
        shapes.iter().map(|shape| shape.iter().product::<usize>()).sum::<usize>()
    };
    let stored = if target.mode == GroupMode::Shared { GroupMode::Shared } else { GroupMode::Dense };
    let vector = if vector { target.layer.out_features() } else { 0 };
    (count(target.mode) + vector, count(stored) + vector)
}

/// Single precision: two averages a parameter for `AdamW`, one buffer for SGD with momentum.
fn optimizer_bytes(train: &TrainConfig, trainable: usize) -> usize {
    match train.optimizer {
        OptimizerName::AdamW => 8 * trainable,
        OptimizerName::Sgd if train.momentum > 0.0 => 4 * trainable,
        OptimizerName::Sgd => 0,
    }
}

/// The files of a run.
fn writes(adapter: bool) -> Vec<String> {
    let (folder, files) = if adapter {
        (ADAPTER, [adapter_dir::WEIGHTS, adapter_dir::CONFIG, adapter_dir::CARD].as_slice())
    } else {
        (MODEL, ["model.safetensors", "config.json"].as_slice())
    };
    let result = files.iter().map(|file| format!("{folder}/{file}"));
    result.chain(["metrics.jsonl", REPORT_FILE, SETTINGS, RESULT].map(str::to_owned)).collect()
}

/// The examples of every split, and the steps they come to.
fn examples(path: &Path, plan: &RunPlan, model: &Planned, output: Output) -> Result<Data> {
    let manifest = Manifest::read(path, model.start.task(), plan.reading)?;
    let (train, config) = model.start.begin(&manifest, &plan.train)?;
    let unit = train.unit();
    let mut counts = Vec::new();
    let mut count = |split: Split, loaded: &dyn Examples| {
        loaded.warnings().iter().for_each(|warning| output.warn(warning));
        counts.push((split.name(), loaded.len()));
    };
    count(Split::Train, &*train);
    for split in [Split::Valid, Split::Test].into_iter().filter(|split| manifest.has(*split)) {
        count(split, &*config.task.load(&manifest, split, &plan.train)?);
    }
    manifest.warnings().iter().for_each(|warning| output.warn(warning));
    Ok(Data::new(path, unit, counts, &plan.train))
}
