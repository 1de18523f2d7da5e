//! What is on a model: parameters that train, and the state of each adapted layer.

use std::fmt;

use burn::module::Module;
use lowrank::digits::grouped;
use serde::Serialize;

use super::{Adapters, Role};

/// How many parameters of a model train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TrainableParameters {
    /// Those of the active adapters.
    pub trainable: usize,
    /// All, the base's and every adapter's.
    pub all: usize,
}

impl TrainableParameters {
    /// The share that trains, in percent.
    #[must_use]
    pub fn percent(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a percentage is shown with four digits")]
        let share = self.trainable as f64 / self.all.max(1) as f64;
        100.0 * share
    }
}

/// PEFT's line: `trainable params: 17,704 || all params: 118,959 || trainable%: 14.8824`.
impl fmt::Display for TrainableParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trainable, all) = (grouped(self.trainable as u64, ','), grouped(self.all as u64, ','));
        write!(f, "trainable params: {trainable} || all params: {all} || trainable%: {:.4}", self.percent())
    }
}

/// The adapters of one layer (PEFT's `TunerLayerStatus`).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerStatus {
    /// The module's path.
    pub name: String,
    /// Its kind, for instance `Conv1d`.
    pub module_type: String,
    /// Whether adapters are on at all.
    pub enabled: bool,
    /// The active ones among those on this layer.
    pub active_adapters: Vec<String>,
    /// Those merged into its base.
    pub merged_adapters: Vec<String>,
    /// All adapters on this layer, each with its rank and scale.
    pub available_adapters: Vec<(String, usize, f32)>,
}

impl Adapters {
    /// Counts the parameters that train now (PEFT's `get_nb_trainable_parameters`).
    #[must_use]
    pub fn trainable_parameters<M: Module>(&self, model: &M) -> TrainableParameters {
        let state = self.control.read();
        let active = self.entries.iter().filter(|(name, _)| state.active.contains(name));
        let parts = active.flat_map(|(_, entry)| &entry.parts).filter(|part| part.trains);
        TrainableParameters {
            trainable: parts.map(|part| part.shape.iter().product::<usize>()).sum(),
            all: model.num_params(),
        }
    }

    /// The state of every adapted layer, by path (PEFT's `get_layer_status`).
    #[must_use]
    pub fn layer_status(&self) -> Vec<LayerStatus> {
        let state = self.control.read();
        let mut layers: Vec<LayerStatus> = Vec::new();
        for (name, entry) in &self.entries {
            for target in &entry.resolution.targets {
                let place = layers.iter().position(|layer| layer.name == target.path).unwrap_or_else(|| {
                    layers.push(LayerStatus {
                        name: target.path.clone(),
                        module_type: target.layer.kind().to_string(),
                        enabled: state.enabled,
                        active_adapters: Vec::new(),
                        merged_adapters: Vec::new(),
                        available_adapters: Vec::new(),
                    });
                    layers.len() - 1
                });
                let layer = &mut layers[place];
                layer.available_adapters.push((name.clone(), target.rank, target.scale));
                if state.active.contains(name) {
                    layer.active_adapters.push(name.clone());
                }
                if state.merged.contains(name) {
                    layer.merged_adapters.push(name.clone());
                }
            }
        }
        layers.sort_by(|a, b| a.name.cmp(&b.name));
        layers
    }

    /// The trainable tensors of an adapter: a name for each, the parameter that holds it, and how many values it has.
    ///
    /// # Errors
    /// When there is no adapter of that name.
    pub fn trainable_tensors(&self, name: &str) -> lowrank::Result<Vec<TrainableTensor>> {
        let tensors = self.entry(name)?.parts.iter().filter(|part| part.trains).map(|part| {
            let name = match &part.role {
                Role::A(path) | Role::StartA(path) => format!("{path}.lora_A.weight"),
                Role::B(path) | Role::StartB(path) => format!("{path}.lora_B.weight"),
                Role::Bias(path) => format!("{path}.lora_B.bias"),
                Role::Magnitude(path) => format!("{path}.lora_magnitude_vector"),
                Role::Tokens(path) => format!("{path}.token_adapter.trainable_tokens_delta"),
                Role::Saved(key, _) => key.clone(),
            };
            TrainableTensor { name, id: part.id, shape: part.shape.clone() }
        });
        Ok(tensors.collect())
    }

    /// The parameters that belong to an adapter and that training leaves alone: the start of `"pissa"` and `"olora"`, the
    /// `B` of `"mica"`, the statistics of a norm in `modules_to_save`.
    ///
    /// # Errors
    /// When there is no adapter of that name.
    pub fn frozen_parameters(&self, name: &str) -> lowrank::Result<Vec<burn::module::ParamId>> {
        Ok(self.entry(name)?.parts.iter().filter(|part| !part.trains).map(|part| part.id).collect())
    }
}

/// A tensor that training changes.
#[derive(Debug, Clone)]
pub struct TrainableTensor {
    /// Its name: PEFT's key without the prefix, or the base parameter's.
    pub name: String,
    /// The parameter that holds it.
    pub id: burn::module::ParamId,
    /// Its shape in a file.
    pub shape: Vec<usize>,
}
