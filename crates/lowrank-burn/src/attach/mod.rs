//! Adapters on a model: put on by module path, switched, merged, saved and loaded.

mod build;
mod files;
mod fuse;
mod hotswap;
mod kept;
mod observe;
mod report;
mod switch;

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId, Reparameterizer};
use burn::tensor::Tensor;
use lowrank::adapter::state_dict::StateDict;
use lowrank::config::LoraConfig;
use lowrank::target::{Resolution, Target, resolve};
use lowrank::{Error, Result, Subject, suggest};

use crate::adapter::{BASE, Change, Control, LoraAdapter};
use crate::survey::Survey;
use crate::values;

pub(crate) use build::transpose;
use kept::Kept;

pub use files::load;
pub use observe::Inputs;
pub use report::{LayerStatus, TrainableParameters, TrainableTensor};

/// The name an adapter has when none is given, as in PEFT.
pub const DEFAULT: &str = "default";

/// The adapters of one model: the counterpart of PEFT's `PeftModel`.
///
/// The model keeps its own type; every method that changes its parameters takes it and gives it back. Clones of the
/// model (`model.valid()` among them) share what is switched here: which adapters are active, enabled, and how they
/// are scaled.
#[derive(Debug, Default)]
pub struct Adapters {
    control: Control,
    entries: BTreeMap<String, Entry>,
    /// What is merged into the base, in order.
    merged: Vec<fuse::InBase>,
}

/// What is known of one adapter.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    config: LoraConfig,
    resolution: Resolution,
    /// The model it was put on.
    survey: Arc<Survey>,
    parts: Vec<Part>,
    /// The changes as they were when attached; the model holds their present values.
    changes: build::Changes,
    /// What its file has beside.
    kept: Kept,
}

/// One tensor of an adapter.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// The parameter that holds it.
    id: ParamId,
    role: Role,
    /// Its shape in an adapter file.
    shape: Vec<usize>,
    /// Whether training changes it.
    trains: bool,
}

/// What a tensor of an adapter is, with the module or the base parameter it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    A(String),
    B(String),
    Bias(String),
    /// `A` as it began, when that is a part of the base.
    StartA(String),
    /// `B` as it began.
    StartB(String),
    Magnitude(String),
    /// Rows of the module's weight (`trainable_token_indices`).
    Tokens(String),
    /// A base parameter under its `PyTorch` key, and whether Burn stores the transpose.
    Saved(String, bool),
}

/// Where the values of a new adapter come from.
pub(crate) enum Source<'a> {
    /// The initialisation that the configuration names.
    New { seed: u64, knowledge: Knowledge<'a> },
    /// Tensors read from a file.
    State(&'a StateDict),
    /// As [`Source::State`]; a module that the file does not have is left without effect.
    Swap(&'a StateDict),
}

/// What an initialisation may know of training data.
#[derive(Clone, Copy)]
pub(crate) enum Knowledge<'a> {
    Nothing,
    /// Of the loss, with respect to the base weights; as [`values::read`] has them.
    Gradients(&'a values::Values),
    Inputs(&'a Inputs),
}

/// Puts an adapter called `default` on a model; see [`Adapters::attach`].
///
/// # Errors
/// As [`Adapters::attach`].
pub fn attach<M: Module>(model: M, config: &LoraConfig, seed: u64) -> Result<(M, Adapters)> {
    let mut adapters = Adapters::default();
    let model = adapters.attach(model, DEFAULT, config, seed)?;
    Ok((model, adapters))
}

impl Adapters {
    /// Puts a new adapter on the modules that `config` targets and makes it the active one, as PEFT's `get_peft_model`.
    ///
    /// The base is frozen, all of it; the adapter's factors, and the biases and modules that the configuration trains
    /// beside them, are the only trainable parameters. The model computes what it computed before until they are trained
    /// (but for `init_lora_weights = false`). The same seed gives the same factors, whatever else the model holds.
    ///
    /// With `init_lora_weights` `"pissa"`, `"olora"`, `"lora_ga"` and `"corda"` the factors begin as a part of the base weight, which the layer
    /// subtracts again while the adapter is in force. PEFT overwrites the base with the rest instead. Here the base stays
    /// what it is: switching the adapter off, taking it off, or putting another one beside it works on the original
    /// model, and [`Adapters::set_scale`] scales the change since the start.
    ///
    /// # Errors
    /// A configuration with wrong or unsupported values, a pattern that matches nothing or a module of another kind, an
    /// adapter of that name, `lora_dropout` on a layer that is not one of [`crate::nn`], `lora_bias` on a layer without a
    /// bias. All errors of the configuration are reported at once.
    pub fn attach<M: Module>(&mut self, model: M, name: &str, config: &LoraConfig, seed: u64) -> Result<M> {
        config.validate()?;
        self.add(model, name, config, &Source::New { seed, knowledge: Knowledge::Nothing })
    }

    /// As [`Adapters::attach`], with the gradients of the loss with respect to the base weights, which
    /// `init_lora_weights = "lora_ga"` begins from (PEFT's `preprocess_loraga`): values by parameter, in Burn's layout.
    ///
    /// # Errors
    /// As [`Adapters::attach`]; and when a gradient is missing, is zero, or has fewer singular vectors than are taken.
    pub fn attach_with_gradients<M: Module>(
        &mut self,
        model: M,
        name: &str,
        config: &LoraConfig,
        seed: u64,
        gradients: &values::Values,
    ) -> Result<M> {
        config.validate()?;
        self.add(model, name, config, &Source::New { seed, knowledge: Knowledge::Gradients(gradients) })
    }

    /// As [`Adapters::attach`], with what the modules' inputs look like on training data ([`Adapters::observe`]), which
    /// `init_lora_weights` `"eva"` and `"corda"` begin from (PEFT's `initialize_lora_eva_weights` and `preprocess_corda`). With
    /// `"eva"` the configuration is to be the one of [`Adapters::redistributed`].
    ///
    /// # Errors
    /// As [`Adapters::attach`]; and when the inputs of a module are missing or do not give as many directions as it has ranks.
    pub fn attach_with_inputs<M: Module>(
        &mut self,
        model: M,
        name: &str,
        config: &LoraConfig,
        seed: u64,
        inputs: &Inputs,
    ) -> Result<M> {
        config.validate()?;
        self.add(model, name, config, &Source::New { seed, knowledge: Knowledge::Inputs(inputs) })
    }

    fn add<M: Module>(&mut self, model: M, name: &str, config: &LoraConfig, source: &Source<'_>) -> Result<M> {
        self.check_free(name)?;
        let survey = Survey::of(&model)?;
        let resolution = resolve(config, &survey.infos()?)?;
        let (changes, parts, kept) = self.build(&model, name, config, &survey, &resolution, source)?;
        if let Source::State(state) = source {
            files::all_used(state, &resolution, &parts, &kept)?;
        }
        let all = self.present(&model).into_iter().chain(changes.clone()).collect();
        let model = self.reattach(model, all);
        let config = match source {
            Source::New { .. } => files::corrected(config, &resolution),
            Source::State(_) | Source::Swap(_) => config.clone(),
        };
        let entry = Entry { config, resolution, survey: Arc::new(survey), parts, changes, kept };
        self.entries.insert(name.to_owned(), entry);
        self.control.write().active = vec![name.to_owned()];
        Ok(model)
    }

    /// The changes of an adapter and its tensors, from their source; the base they see has nothing merged into it.
    fn build<M: Module>(
        &self,
        model: &M,
        name: &str,
        config: &LoraConfig,
        survey: &Survey,
        resolution: &Resolution,
        source: &Source<'_>,
    ) -> Result<(build::Changes, Vec<Part>, Kept)> {
        let device = model.devices().into_iter().next().unwrap_or_default();
        let base = |ids: &[ParamId]| values::read(&self.without_merged(model), ids);
        let builder = build::Builder { name, config, survey, device: &device, source, base: &base };
        let (changes, parts) = builder.build(resolution)?;
        Ok((changes, parts, Kept::of(config, resolution, survey, source, &base)?))
    }

    /// Takes an adapter off the model. If it was the active one, the base is what remains active.
    ///
    /// # Errors
    /// When there is no adapter of that name, or it is merged.
    pub fn delete<M: Module>(&mut self, model: M, name: &str) -> Result<M> {
        self.entry(name)?;
        self.check_not_merged(name, "deleting it")?;
        let mut changes = self.present(&model);
        changes.retain(|(_, change)| change.adapter() != name);
        let model = self.reattach(model, changes);
        self.entries.remove(name);
        let mut state = self.control.write();
        state.active.retain(|active| active != name);
        state.multipliers.remove(name);
        drop(state);
        Ok(model)
    }

    /// Gives an adapter another name; it stays as active, scaled and merged as it is.
    ///
    /// # Errors
    /// When there is no adapter of the one name, or one of the other, or that is not a name.
    pub fn rename<M: Module>(&mut self, model: M, from: &str, to: &str) -> Result<M> {
        self.entry(from)?;
        self.check_free(to)?;
        let rename = |changes: &mut build::Changes| {
            let own = changes.iter_mut().filter(|(_, change)| change.adapter() == from);
            own.for_each(|(_, change)| change.rename(to));
        };
        let mut changes = self.present(&model);
        rename(&mut changes);
        let model = self.reattach(model, changes);
        if let Some(mut entry) = self.entries.remove(from) {
            rename(&mut entry.changes);
            self.entries.insert(to.to_owned(), entry);
        }
        for merged in self.merged.iter_mut().filter(|merged| merged.name == from) {
            to.clone_into(&mut merged.name);
            rename(&mut merged.changes);
        }
        let mut state = self.control.write();
        let state = &mut *state;
        let names = state.active.iter_mut().chain(&mut state.merged);
        names.filter(|name| *name == from).for_each(|name| to.clone_into(name));
        if let Some(multiplier) = state.multipliers.remove(from) {
            state.multipliers.insert(to.to_owned(), multiplier);
        }
        Ok(model)
    }

    /// Takes all adapters off and leaves the base as it is, merged changes included (PEFT's `unload`).
    #[must_use]
    pub fn unload<M: Module>(self, model: M) -> M {
        self.reattach(model, Vec::new())
    }

    /// The names of the adapters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The configuration of an adapter.
    ///
    /// # Errors
    /// When there is no adapter of that name.
    pub fn config(&self, name: &str) -> Result<&LoraConfig> {
        Ok(&self.entry(name)?.config)
    }

    /// The modules an adapter sits on, each with the pattern that matched it.
    ///
    /// # Errors
    /// When there is no adapter of that name.
    pub fn targets(&self, name: &str) -> Result<&[Target]> {
        Ok(&self.entry(name)?.resolution.targets)
    }

    /// What the matching of an adapter's configuration had to say.
    ///
    /// # Errors
    /// When there is no adapter of that name.
    pub fn warnings(&self, name: &str) -> Result<&[String]> {
        Ok(&self.entry(name)?.resolution.warnings)
    }

    pub(crate) fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| {
            let error = Error::new(Subject::Adapter, format!("there is no adapter `{name}`"));
            match suggest::nearest(name, self.names()) {
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None => error.with_hint(format!("the adapters here: {}", self.names().collect::<Vec<_>>().join(", "))),
            }
        })
    }

    /// Whether an adapter can have this name.
    fn check_free(&self, name: &str) -> Result<()> {
        check_name(name)?;
        if self.entries.contains_key(name) {
            return Err(Error::new(Subject::Adapter, format!("there is an adapter `{name}` already"))
                .with_hint("choose another name, or delete the old one first"));
        }
        Ok(())
    }

    fn check_not_merged(&self, name: &str, before: &str) -> Result<()> {
        if self.merged.iter().any(|merged| merged.name == name) {
            return Err(Error::new(Subject::Adapter, format!("adapter `{name}` is merged into the base"))
                .with_hint(format!("unmerge it before {before}")));
        }
        Ok(())
    }

    /// The changes on the model with the values they have now.
    fn present<M: Module>(&self, model: &M) -> build::Changes {
        let mut collector = Collector::default();
        model.visit(&mut collector);
        let changes = self.entries.values().flat_map(|entry| entry.changes.iter().cloned());
        changes.map(|(base, change)| (base, change.map(&mut collector))).collect()
    }

    /// The model with exactly these changes on its parameters.
    fn reattach<M: Module>(&self, model: M, changes: build::Changes) -> M {
        let base = self.control.with(|state| &mut state.bypassed, true, || model.materialize());
        let mut by_param: HashMap<ParamId, Vec<Change>> = HashMap::new();
        for (param, change) in changes {
            by_param.entry(param).or_default().push(change);
        }
        base.apply_reparameterization(Attacher { changes: by_param, control: self.control.clone() })
    }
}

/// A name is a segment of paths and of a file system.
fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(Error::new(Subject::Adapter, "not a name for an adapter")
            .found(format!("`{name}`"))
            .expected("letters, digits, `_` and `-`"));
    }
    if name == BASE {
        return Err(Error::new(Subject::Adapter, format!("`{BASE}` stands for no adapter in mixed batches"))
            .with_hint("choose another name"));
    }
    Ok(())
}

/// The parameters of a model's adapters as they are now; as a mapper, it puts them in the place of older ones.
#[derive(Default)]
struct Collector {
    params: HashMap<ParamId, Box<dyn Any>>,
    depth: usize,
}

impl ModuleVisitor for Collector {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.depth > 0 {
            self.params.insert(param.id, Box::new(param.clone()));
        }
    }

    fn enter_module(&mut self, _name: &str, container_type: &str) {
        self.depth += usize::from(container_type == "Reparameterization");
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.depth -= usize::from(container_type == "Reparameterization");
    }
}

impl ModuleMapper for Collector {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let present = self.params.get(&param.id).and_then(|present| present.downcast_ref());
        present.cloned().unwrap_or(param)
    }
}

/// Freezes every parameter and hangs the changes on theirs.
struct Attacher {
    changes: HashMap<ParamId, Vec<Change>>,
    control: Control,
}

impl Reparameterizer for Attacher {
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
        let changes = self.changes.remove(&param.id).filter(|changes| !changes.is_empty());
        let adapter = changes.map(|changes| LoraAdapter::new(param.id, changes, self.control.clone()));
        (param.set_require_grad(false), adapter)
    }
}

#[cfg(test)]
mod tests;
