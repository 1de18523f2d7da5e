//! Adapters of a model, to PEFT's directories and back.

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::{Module, ParamId};
use lowrank::adapter::state_dict::{ModuleTensors, StateDict};
use lowrank::adapter::tensor::Tensor;
use lowrank::adapter::{DoraNorm, Factors, GroupMode, LayerKind, Magnitude};
use lowrank::config::{InitLoraWeights, LoraConfig, TokenIndices};
use lowrank::files::adapter_dir;
use lowrank::float::FloatType;
use lowrank::target::Resolution;
use lowrank::{Error, Result, Subject, suggest};

use super::build::transpose;
use super::kept::Kept;
use super::{Adapters, DEFAULT, Entry, Part, Role, Source};
use crate::values;

/// Puts the adapter of a directory on a model, as PEFT's `PeftModel.from_pretrained`.
///
/// # Errors
/// As [`Adapters::load`].
pub fn load<M: Module>(model: M, dir: &Path) -> Result<(M, Adapters)> {
    let mut adapters = Adapters::default();
    let model = adapters.load(model, DEFAULT, dir)?;
    Ok((model, adapters))
}

impl Adapters {
    /// Puts the adapter of a PEFT directory on the model and makes it the active one.
    ///
    /// # Errors
    /// When a file is missing or malformed, asks for what is not supported, or does not fit the model: a module or a
    /// shape that is not there, a tensor that would be left over, a target without tensors.
    pub fn load<M: Module>(&mut self, model: M, name: &str, dir: &Path) -> Result<M> {
        let adapter = adapter_dir::read(dir)?;
        let here = |error: Error| error.at(dir.display());
        self.add(model, name, &adapter.config, &Source::State(&adapter.state)).map_err(here)
    }

    /// An adapter as it is in the model now: its configuration as PEFT writes it, and its tensors in single precision.
    ///
    /// An adapter that began as a part of the base (`"pissa"`, `"olora"`) is given as the change since, of twice the rank:
    /// a plain adapter that fits the original base, as PEFT saves it with `path_initial_model_for_weight_conversion`.
    ///
    /// # Errors
    /// When there is no adapter of that name.
    pub fn state<M: Module>(&self, model: &M, name: &str) -> Result<(LoraConfig, StateDict)> {
        let entry = self.entry(name)?;
        let ids: Vec<ParamId> = entry.parts.iter().map(|part| part.id).collect();
        let mut values = values::read(model, &ids);
        let mut state = StateDict::default();
        let mut find = |role: &Role| {
            let part = entry.parts.iter().find(|part| part.role == *role)?;
            values.remove(&part.id)
        };
        for target in &entry.resolution.targets {
            let path = &target.path;
            let (Some(a), Some(b)) = (find(&Role::A(path.clone())), find(&Role::B(path.clone()))) else { continue };
            let (mode, rank) = entry.form(path).unwrap_or((target.mode, target.rank));
            let bias = find(&Role::Bias(path.clone()));
            let new = |mode, a, b, bias| Factors::new(target.layer.clone(), mode, rank, target.scale, a, b, bias);
            let factors = new(mode, a, b, bias)?;
            let start = (find(&Role::StartA(path.clone())), find(&Role::StartB(path.clone())));
            let mut factors = match start {
                (Some(a), Some(b)) => {
                    let mode = if mode == GroupMode::Dense { GroupMode::PerGroup } else { mode };
                    factors.without_start(&new(mode, a, b, None)?)?
                }
                // A layer that began at nothing, in an adapter whose ranks all double.
                _ if entry.config.init_lora_weights.reduces_base() => {
                    let zeros = |values: &[f32]| vec![0.0; values.len()];
                    factors.without_start(&new(mode, zeros(factors.a()), zeros(factors.b()), None)?)?
                }
                _ => factors,
            };
            if let Some(values) = find(&Role::Magnitude(path.clone())) {
                factors = factors.with_magnitude(Magnitude { values, norm: entry.config.dora_norm })?;
            }
            state.modules.insert(path.clone(), ModuleTensors::from_factors(&factors, FloatType::F32)?);
        }
        for (path, _) in &entry.resolution.token_indices {
            let role = Role::Tokens(path.clone());
            let Some(part) = entry.parts.iter().find(|part| part.role == role) else { continue };
            let own = values.remove(&part.id).unwrap_or_default();
            state.tokens.insert(path.clone(), Tensor::from_values(FloatType::F32, part.shape.clone(), &own)?);
        }
        for part in &entry.parts {
            if let (Role::Saved(key, transposed), Some(own)) = (&part.role, values.remove(&part.id)) {
                let mut stored = part.shape.clone();
                if *transposed {
                    stored.reverse();
                }
                let own = transpose(own, &stored, *transposed);
                state.saved.insert(key.clone(), Tensor::from_values(FloatType::F32, part.shape.clone(), &own)?);
            }
        }
        entry.kept.write(&mut state);
        Ok((entry.saved_config(), state))
    }

    /// Writes an adapter to PEFT's directory layout; `card` becomes its `README.md`.
    ///
    /// # Errors
    /// When there is no adapter of that name, a value is not finite, or a file cannot be written; what was there before
    /// is unchanged then.
    pub fn save<M: Module>(&self, model: &M, name: &str, dir: &Path, card: Option<&str>) -> Result<()> {
        let (config, state) = self.state(model, name)?;
        adapter_dir::write(dir, &config, &state, card)
    }
}

impl Entry {
    /// The configuration as a file has it: words of our own spelt out as the modules they stand for, no norm named where
    /// PEFT's is the same, no start that PEFT refuses on a convolution, which it would do while loading the adapter.
    fn saved_config(&self) -> LoraConfig {
        let init = &self.config.init_lora_weights;
        let targets = &self.resolution.targets;
        let refused = matches!(init, InitLoraWeights::Orthogonal | InitLoraWeights::Mica | InitLoraWeights::Eva)
            && targets.iter().any(|target| !target.layer.kernel().is_empty());
        let grouped = targets.iter().any(|target| target.layer.groups() > 1);
        LoraConfig {
            conv_transpose: {
                let transposed = targets.iter().filter(|target| target.layer.kind().is_conv_transpose());
                transposed.map(|target| target.path.clone()).collect()
            },
            dora_norm: if grouped { self.config.dora_norm } else { DoraNorm::Peft },
            target_modules: Some(self.resolution.target_modules.clone()),
            trainable_token_indices: self.saved_tokens(),
            inference_mode: true,
            ..if init.reduces_base() {
                self.config.with_rank_doubled()
            } else if refused {
                self.config.with_plain_start()
            } else {
                self.config.clone()
            }
        }
    }

    /// The rows that train. PEFT asks the model for the embedding that a list without a name is for: one that is not called
    /// `embed_tokens` is named, so that it is found in any model.
    fn saved_tokens(&self) -> Option<TokenIndices> {
        let configured = self.config.trainable_token_indices.clone()?;
        Some(match (&configured, self.resolution.token_indices.as_slice()) {
            (TokenIndices::Embedding(_), [(path, indices)]) if !path.ends_with("embed_tokens") => {
                TokenIndices::Modules(vec![(path.clone(), indices.clone())])
            }
            _ => configured,
        })
    }

    /// The form of a module's factors and their rank, which a file may have given.
    fn form(&self, path: &str) -> Option<(GroupMode, usize)> {
        let a = self.parts.iter().find(|part| part.role == Role::A(path.to_owned()))?;
        self.changes.iter().find_map(|(_, change)| match change {
            crate::adapter::Change::LowRank(low_rank) if low_rank.a.id == a.id => {
                Some((low_rank.mode, *a.shape.first()?))
            }
            _ => None,
        })
    }
}

/// The configuration of a new adapter with `fan_in_fan_out` as PEFT corrects it: the last linear layer decides.
pub(super) fn corrected(config: &LoraConfig, resolution: &Resolution) -> LoraConfig {
    let mut kinds = resolution.targets.iter().rev().map(|target| target.layer.kind());
    let last = kinds.find(|kind| matches!(kind, LayerKind::Linear | LayerKind::Conv1D));
    let fan_in_fan_out = last.map_or(config.fan_in_fan_out, |kind| kind == LayerKind::Conv1D);
    LoraConfig { fan_in_fan_out, ..config.clone() }
}

/// Every tensor of a file must have found its place among the modules and parameters of an adapter.
pub(super) fn all_used(state: &StateDict, resolution: &Resolution, parts: &[Part], kept: &Kept) -> Result<()> {
    let targets: BTreeSet<&str> = resolution.targets.iter().map(|target| target.path.as_str()).collect();
    let saved = parts.iter().filter_map(|part| part.role.saved_key());
    let saved: BTreeSet<&str> = saved.chain(kept.counters.keys().map(String::as_str)).collect();
    let left = |kind: &str, key: &str, known: &BTreeSet<&str>| {
        let error = Error::new(Subject::Adapter, format!("the model has no such {kind}")).at(key);
        match suggest::nearest(key, known.iter().copied()) {
            Some(near) => error.with_hint(format!("the nearest there is `{near}`: is the adapter for another base?")),
            None => error.with_hint("is the adapter for another base?"),
        }
    };
    let modules = state.modules.keys().filter(|path| !targets.contains(path.as_str()));
    let values = state.saved.keys().filter(|key| !saved.contains(key.as_str()));
    let rows: BTreeSet<&str> = resolution.token_indices.iter().map(|(path, _)| path.as_str()).collect();
    let strange = state.tokens.keys().filter(|path| !rows.contains(path.as_str()));
    let errors = modules.map(|path| left("adapted module", path, &targets));
    let errors = errors.chain(strange.map(|path| left("embedding with trained rows", path, &rows)));
    Error::all(errors.chain(values.map(|key| left("trained parameter", key, &saved))).collect())
}

impl Role {
    fn saved_key(&self) -> Option<&str> {
        match self {
            Self::Saved(key, _) => Some(key),
            _ => None,
        }
    }
}
