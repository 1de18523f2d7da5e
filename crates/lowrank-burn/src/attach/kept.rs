//! What a file of PEFT's has beside what a model computes with, kept so that it is written again.

use std::collections::BTreeMap;

use burn::module::ParamId;
use lowrank::Result;
use lowrank::adapter::copies;
use lowrank::adapter::state_dict::StateDict;
use lowrank::adapter::tensor::Tensor;
use lowrank::config::{Bias, LoraConfig};
use lowrank::float::FloatType;
use lowrank::target::Resolution;

use super::Source;
use crate::survey::Survey;
use crate::values::Values;

/// What an adapter keeps beside its parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    /// Integers of modules saved whole: how many batches a norm has seen.
    pub counters: BTreeMap<String, Tensor>,
    /// The base's own biases in modules saved whole, with `bias = "all"`: by their key, with the path of the module.
    originals: BTreeMap<String, (String, Tensor)>,
}

impl Kept {
    pub fn of(
        config: &LoraConfig,
        resolution: &Resolution,
        survey: &Survey,
        source: &Source<'_>,
        base: &dyn Fn(&[ParamId]) -> Values,
    ) -> Result<Self> {
        let module_of = |key: &str| {
            let inside = |module: &&String| key.strip_prefix(module.as_str()).is_some_and(|rest| rest.starts_with('.'));
            resolution.modules_to_save.iter().find(inside).cloned()
        };
        let counters = match source {
            Source::New { .. } => BTreeMap::new(),
            Source::State(state) | Source::Swap(state) => {
                let integers =
                    state.saved.iter().filter(|(key, tensor)| tensor.float().is_none() && module_of(key).is_some());
                integers.map(|(key, tensor)| (key.clone(), tensor.clone())).collect()
            }
        };
        let mut originals = BTreeMap::new();
        for (site, param) in survey.params().filter(|(_, param)| config.bias == Bias::All && param.name == "bias") {
            let key = site.key(param);
            let Some(module) = module_of(&key) else { continue };
            let [_, name] = copies::names(&module, &key[module.len() + 1..]);
            let stored = match source {
                Source::State(state) | Source::Swap(state) => state.copies.get(&name).cloned(),
                Source::New { .. } => None,
            };
            let tensor = if let Some(tensor) = stored {
                tensor
            } else {
                let own = base(&[param.id]).remove(&param.id).unwrap_or_default();
                Tensor::from_values(FloatType::F32, param.torch_shape(), &own)?
            };
            originals.insert(key, (module, tensor));
        }
        Ok(Self { counters, originals })
    }

    /// Adds what is kept to the tensors of the adapter.
    pub fn write(&self, state: &mut StateDict) {
        state.saved.extend(self.counters.clone());
        for (key, (module, original)) in &self.originals {
            let Some(value) = state.saved.get(key) else { continue };
            let [again, own] = copies::names(module, &key[module.len() + 1..]);
            state.copies.extend([(again, value.clone()), (own, original.clone())]);
        }
    }
}
