//! The modules of an adapter: how large their change is, how many directions it has, and what is broken.

use std::fmt::{self, Display};
use std::path::Path;

use lowrank::Result;
use lowrank::adapter::infer::kind_of;
use lowrank::adapter::state_dict::ModuleTensors;
use lowrank::adapter::tensor::Tensor;
use lowrank::config::LoraConfig;
use lowrank::files::{Adapter, adapter_dir};
use serde::Serialize;

use super::spectrum::{Spectrum, spectrum, ungrouped};
use crate::commands::{Exit, Failure};
use crate::output::table::{Align, Table};
use crate::output::{BAD, GOOD, Output, units};

#[derive(Debug, Serialize)]
struct Report {
    path: String,
    base_model: Option<String>,
    peft_version: Option<String>,
    modules: Vec<Module>,
    saved: Vec<Saved>,
    parameters: usize,
    bytes: usize,
    /// Modules whose adapter changes nothing.
    dead: usize,
    /// Values that are NaN or infinite.
    non_finite: usize,
}

#[derive(Debug, Serialize)]
struct Module {
    name: String,
    kind: String,
    groups: usize,
    dtype: String,
    a_shape: Vec<usize>,
    b_shape: Vec<usize>,
    r: usize,
    alpha: f64,
    scale: f32,
    /// Of the change of the weight; absent when a value is not finite.
    norm: Option<f64>,
    effective_rank: Option<f64>,
    non_finite: usize,
    dead: bool,
    parameters: usize,
}

/// A parameter of the base, or some rows of one, that the adapter brings new values for.
#[derive(Debug, Serialize)]
struct Saved {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    non_finite: usize,
}

/// Shows the adapter in `dir`.
pub fn run(dir: &Path, output: Output) -> Result<Exit, Failure> {
    let adapter = adapter_dir::read(dir)?;
    for warning in &adapter.warnings {
        output.warn(warning);
    }
    let report = Report::of(dir, adapter)?;
    output.result(&report)?;
    Ok(if report.dead + report.non_finite == 0 { Exit::Done } else { Exit::Negative })
}

impl Report {
    fn of(dir: &Path, adapter: Adapter) -> Result<Self> {
        let Adapter { config, state, .. } = adapter;
        let modules = state.modules.iter().map(|(name, tensors)| Module::of(name, tensors, &config));
        let modules = modules.collect::<Result<Vec<_>>>()?;
        let mut saved: Vec<_> = state.saved.iter().map(|(name, tensor)| Saved::of(name, tensor)).collect();
        let rows = |module: &String| format!("{module}.token_adapter.trainable_tokens_delta");
        saved.extend(state.tokens.iter().map(|(module, tensor)| Saved::of(&rows(module), tensor)));
        let tensors = state.modules.values().flat_map(|module| module.parts().map(|(_, tensor)| tensor));
        let beside = || state.saved.values().chain(state.tokens.values());
        let bytes = tensors.chain(beside()).map(|tensor| tensor.data().len()).sum();
        let factors: usize = modules.iter().map(|module| module.parameters).sum();
        let broken = modules.iter().map(|module| module.non_finite).chain(saved.iter().map(|saved| saved.non_finite));
        Ok(Self {
            path: dir.display().to_string(),
            base_model: config.base_model_name_or_path,
            peft_version: config.peft_version,
            parameters: factors + beside().map(values).sum::<usize>(),
            bytes,
            dead: modules.iter().filter(|module| module.dead).count(),
            non_finite: broken.sum(),
            modules,
            saved,
        })
    }
}

impl Module {
    fn of(name: &str, tensors: &ModuleTensors, config: &LoraConfig) -> Result<Self> {
        let (r, scale) = (tensors.rank(), config.scaling_for(name)?);
        let groups = groups(tensors);
        let non_finite = tensors.parts().map(|(_, tensor)| tensor.non_finite()).sum();
        let spectrum = delta(tensors, f64::from(scale), groups);
        let still =
            tensors.bias.as_ref().is_none_or(|bias| bias.values().unwrap_or_default().iter().all(|x| *x == 0.0));
        Ok(Self {
            name: name.to_owned(),
            kind: kind_of(name, tensors, config).to_string(),
            groups,
            dtype: tensors.a.dtype().to_string(),
            a_shape: tensors.a.shape().to_vec(),
            b_shape: tensors.b.shape().to_vec(),
            r,
            alpha: config.alpha_for(name)?,
            scale,
            norm: spectrum.map(|spectrum| spectrum.norm),
            effective_rank: spectrum.map(|spectrum| spectrum.effective_rank),
            non_finite,
            dead: still && spectrum.is_some_and(|spectrum| spectrum.norm == 0.0),
            parameters: tensors.parts().map(|(_, tensor)| values(tensor)).sum(),
        })
    }

    fn state(&self) -> String {
        match (self.non_finite, self.dead) {
            (0, false) => "ok".into(),
            (0, true) => "no effect".into(),
            (count, _) => format!("{count} NaN or infinite"),
        }
    }
}

impl Saved {
    fn of(name: &str, tensor: &Tensor) -> Self {
        let (dtype, shape) = (tensor.dtype().to_string(), tensor.shape().to_vec());
        Self { name: name.to_owned(), dtype, shape, non_finite: tensor.non_finite() }
    }
}

/// Groups of the convolution: PEFT's `B` has `r/g` columns. Factors that all groups share do not show them.
fn groups(tensors: &ModuleTensors) -> usize {
    let columns = tensors.b.shape().get(1).copied().unwrap_or(0);
    tensors.rank().checked_div(columns).filter(|groups| groups * columns == tensors.rank()).unwrap_or(1)
}

fn delta(tensors: &ModuleTensors, scale: f64, groups: usize) -> Option<Spectrum> {
    let (r, a, b) = (tensors.rank(), tensors.a.values()?, tensors.b.values()?);
    if groups > 1 { spectrum(scale, &ungrouped(&b, r, groups), &a, r) } else { spectrum(scale, &b, &a, r) }
}

fn values(tensor: &Tensor) -> usize {
    tensor.shape().iter().product()
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.table())?;
        if !self.saved.is_empty() {
            writeln!(f, "{}", self.saved_table())?;
        }
        let (parameters, bytes) = (units::thousands(self.parameters), units::bytes(self.bytes as u64));
        writeln!(f, "{}, {parameters} parameters, {bytes}", units::count(self.modules.len() as u64, "module"))?;
        if let Some(base) = &self.base_model {
            writeln!(f, "base model: {base}")?;
        }
        let broken = format!("{} NaN or infinite", units::count(self.non_finite as u64, "value"));
        let dead = format!("{} without effect", units::count(self.dead as u64, "module"));
        match (self.non_finite, self.dead) {
            (0, 0) => writeln!(f, "{GOOD}sound:{GOOD:#} every value is finite, and every module has an effect"),
            (0, _) => writeln!(f, "{BAD}broken:{BAD:#} {dead}"),
            (_, 0) => writeln!(f, "{BAD}broken:{BAD:#} {broken}"),
            _ => writeln!(f, "{BAD}broken:{BAD:#} {broken}, {dead}"),
        }
    }
}

impl Report {
    fn table(&self) -> Table {
        let mut table = Table::new(&[
            ("module", Align::Left),
            ("kind", Align::Left),
            ("A", Align::Left),
            ("B", Align::Left),
            ("type", Align::Left),
            ("r", Align::Right),
            ("alpha", Align::Right),
            ("scale", Align::Right),
            ("norm", Align::Right),
            ("effective rank", Align::Right),
            ("state", Align::Left),
        ]);
        for module in &self.modules {
            let grouped = if module.groups > 1 { format!(" / {}", module.groups) } else { String::new() };
            let number = |number: Option<f64>| number.map_or_else(|| "-".into(), units::short);
            table.row([
                module.name.clone(),
                format!("{}{grouped}", module.kind),
                units::shape(&module.a_shape),
                units::shape(&module.b_shape),
                module.dtype.clone(),
                module.r.to_string(),
                module.alpha.to_string(),
                module.scale.to_string(),
                number(module.norm),
                module.effective_rank.map_or_else(|| "-".into(), |rank| format!("{rank:.2}")),
                module.state(),
            ]);
        }
        table
    }

    fn saved_table(&self) -> Table {
        let columns =
            [("saved in full", Align::Left), ("type", Align::Left), ("shape", Align::Left), ("state", Align::Left)];
        let mut table = Table::new(&columns);
        for saved in &self.saved {
            let state =
                if saved.non_finite == 0 { "ok".into() } else { format!("{} NaN or infinite", saved.non_finite) };
            table.row([saved.name.clone(), saved.dtype.clone(), units::shape(&saved.shape), state]);
        }
        table
    }
}
