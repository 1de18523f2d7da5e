//! All that trains as one vector of numbers: out of the model, its gradients, and back into it.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients, Tensor};
use lowrank::{Error, Result, Subject, suggest};

use super::config::TrainConfig;
use super::optim::{Group, ParamSlot};
use crate::attach::{Adapters, DEFAULT};
use crate::survey::Survey;
use crate::values;

/// The parameters that train, in a fixed order.
#[derive(Debug, Clone)]
pub struct Trainable {
    slots: Vec<ParamSlot>,
    ids: Vec<ParamId>,
    ranges: HashMap<ParamId, Range<usize>>,
    frozen: Vec<ParamId>,
}

impl Trainable {
    /// The tensors of one adapter.
    ///
    /// # Errors
    /// When there is no adapter of that name.
    pub fn of_adapter(adapters: &Adapters, name: &str) -> Result<Self> {
        let tensors = adapters.trainable_tensors(name)?;
        let trainable = Self::new(tensors.into_iter().map(|tensor| (tensor.name, tensor.id, tensor.shape)));
        Ok(Self { frozen: adapters.frozen_parameters(name)?, ..trainable })
    }

    /// The tensors of the default adapter that a run trains.
    ///
    /// # Errors
    /// When there is no such adapter, or nothing of it is left to train: LoRA-FA leaves `A` alone, and `MiCA` `B`.
    pub fn of_run(adapters: &Adapters, config: &TrainConfig) -> Result<Self> {
        let all = Self::of_adapter(adapters, DEFAULT)?;
        let trained = if config.lorafa { all.without_a() } else { all };
        if trained.slots.iter().any(|slot| slot.name.contains(".lora_B.")) || !config.lorafa {
            return Ok(trained);
        }
        Err(Error::new(Subject::Config, "LoRA-FA trains B alone, and this adapter freezes it")
            .at("lorafa")
            .with_hint("leave lorafa out, or take another init_lora_weights than \"mica\""))
    }

    /// Every parameter of a model: full training.
    #[must_use]
    pub fn of_model<M: Module>(model: &M) -> Self {
        let mut lister = Lister::default();
        model.visit(&mut lister);
        Self::new(lister.found.into_iter())
    }

    /// The parameters of a model that a run without an adapter trains.
    ///
    /// # Errors
    /// When a name of [`TrainConfig::trainable`] is that of nothing in the model.
    pub fn of_full_run<M: Module>(model: &M, config: &TrainConfig) -> Result<Self> {
        let all = Self::of_model(model);
        let Some(names) = &config.trainable else { return Ok(all) };
        let survey = Survey::of(model)?;
        let keys: HashMap<ParamId, String> = survey.params().map(|(site, param)| (param.id, site.key(param))).collect();
        let unknown = names.iter().filter(|name| !keys.values().any(|key| is_in(key, name)));
        Error::all(unknown.map(|name| matches_nothing(name, keys.values())).collect())?;
        let trains = |id: &ParamId| keys.get(id).is_some_and(|key| names.iter().any(|name| is_in(key, name)));
        let trained = all.slots.into_iter().zip(all.ids).filter(|(_, id)| trains(id));
        Ok(Self::of_slots(trained, Vec::new()))
    }

    /// The model with everything else frozen, so that nothing is computed for it.
    #[must_use]
    pub(super) fn freeze_others<M: Module>(&self, model: M) -> M {
        model.map(&mut Freezer { trained: &self.ranges })
    }

    fn new(tensors: impl Iterator<Item = (String, ParamId, Vec<usize>)>) -> Self {
        let slot = |(name, id, shape): (String, ParamId, Vec<usize>)| {
            let group = Group::of(&name, shape.len(), name.contains("norm"));
            (ParamSlot { name, len: shape.iter().product(), group }, id)
        };
        Self::of_slots(tensors.map(slot), Vec::new())
    }

    fn of_slots(parameters: impl IntoIterator<Item = (ParamSlot, ParamId)>, frozen: Vec<ParamId>) -> Self {
        let (mut slots, mut ids, mut ranges, mut start) = (Vec::new(), Vec::new(), HashMap::new(), 0);
        for (slot, id) in parameters {
            ranges.insert(id, start..start + slot.len);
            start += slot.len;
            slots.push(slot);
            ids.push(id);
        }
        Self { slots, ids, ranges, frozen }
    }

    /// Without the `A` of any factors, which stay as they are then: [LoRA-FA](super::lorafa).
    #[must_use]
    pub(super) fn without_a(self) -> Self {
        let Self { slots, ids, mut frozen, .. } = self;
        let is_a = |(slot, _): &(ParamSlot, ParamId)| slot.name.ends_with(".lora_A.weight");
        let (fixed, trained): (Vec<_>, Vec<_>) = slots.into_iter().zip(ids).partition(is_a);
        frozen.extend(fixed.into_iter().map(|(_, id)| id));
        Self::of_slots(trained, frozen)
    }

    /// Where a parameter is in the vector, if it trains.
    pub(super) fn range(&self, id: ParamId) -> Option<Range<usize>> {
        self.ranges.get(&id).cloned()
    }

    /// What each run of values is.
    #[must_use]
    pub fn slots(&self) -> &[ParamSlot] {
        &self.slots
    }

    /// The parameters, in the order of the slots.
    #[must_use]
    pub fn ids(&self) -> &[ParamId] {
        &self.ids
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.iter().map(|slot| slot.len).sum()
    }

    /// Whether nothing trains.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in the model.
    #[must_use]
    pub fn read<M: Module>(&self, model: &M) -> Vec<f32> {
        let mut values = values::read(model, &self.ids);
        self.ids.iter().flat_map(|id| values.remove(id).unwrap_or_default()).collect()
    }

    /// The model with these values.
    ///
    /// # Panics
    /// When there are not [`Trainable::len`] values.
    #[must_use]
    pub fn write<M: Module>(&self, model: M, flat: &[f32]) -> M {
        values::write(model, self.by_parameter(flat))
    }

    /// The vector, parameter by parameter: for gradients, what
    /// [`Adapters::attach_with_gradients`](crate::Adapters::attach_with_gradients) takes.
    ///
    /// # Panics
    /// When there are not [`Trainable::len`] values.
    #[must_use]
    pub fn by_parameter(&self, flat: &[f32]) -> values::Values {
        self.ranges.iter().map(|(id, range)| (*id, flat[range.clone()].to_vec())).collect()
    }

    /// The values in the model that belong to the adapter and do not train.
    #[must_use]
    pub fn read_frozen<M: Module>(&self, model: &M) -> Vec<f32> {
        let mut values = values::read(model, &self.frozen);
        self.frozen.iter().flat_map(|id| values.remove(id).unwrap_or_default()).collect()
    }

    /// The model with these values in what does not train.
    ///
    /// # Errors
    /// When there are more or fewer of them.
    pub fn write_frozen<M: Module>(&self, model: M, flat: &[f32]) -> Result<M> {
        let mut present = values::read(&model, &self.frozen);
        let expected = present.values().map(Vec::len).sum::<usize>();
        if flat.len() != expected {
            return Err(Error::new(Subject::Model, "what does not train in the adapter does not fit")
                .found(format!("{} values", flat.len()))
                .expected(expected));
        }
        let mut rest = flat;
        for id in &self.frozen {
            let values = present.entry(*id).or_default();
            let (own, tail) = rest.split_at(values.len());
            values.copy_from_slice(own);
            rest = tail;
        }
        Ok(values::write(model, present))
    }

    /// Adds the gradients, times `weight`, to `flat`. A parameter that the loss does not depend on adds nothing.
    ///
    /// # Panics
    /// When `flat` has not [`Trainable::len`] values.
    pub fn add_gradients<M: Module>(&self, model: &M, gradients: &Gradients, weight: f32, flat: &mut [f32]) {
        model.visit(&mut Adder { ranges: &self.ranges, gradients, weight, flat });
    }
}

/// Whether a parameter has a name, or is in a module that has: the name is the whole path, or its end.
fn is_in(key: &str, name: &str) -> bool {
    let ends = key.match_indices('.').map(|(at, _)| at).chain([key.len()]);
    let mut modules = ends.map(|end| &key[..end]);
    modules.any(|path| path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

fn matches_nothing<'a>(name: &str, keys: impl Iterator<Item = &'a String>) -> Error {
    let error = Error::new(Subject::Config, "names nothing in the model").at("trainable").found(format!("`{name}`"));
    let segments: BTreeSet<&str> = keys.flat_map(|key| key.split('.')).collect();
    match suggest::nearest(name, segments) {
        Some(near) => error.with_hint(format!("did you mean `{near}`?")),
        None => error.with_hint("`lowrank plan` lists the modules"),
    }
}

struct Freezer<'a> {
    trained: &'a HashMap<ParamId, Range<usize>>,
}

impl ModuleMapper for Freezer<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.trained.contains_key(&param.id) { param } else { param.set_require_grad(false) }
    }
}

/// Lists every floating-point parameter by path, those of reparameterizations included.
#[derive(Default)]
struct Lister {
    path: Vec<String>,
    found: Vec<(String, ParamId, Vec<usize>)>,
}

impl ModuleVisitor for Lister {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push((self.path.join("."), param.id, param.lazy_shape().to_vec()));
    }

    fn enter_module(&mut self, name: &str, container_type: &str) {
        if !container_type.starts_with("Enum:") {
            self.path.push(name.to_owned());
        }
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        if !container_type.starts_with("Enum:") {
            self.path.pop();
        }
    }
}

struct Adder<'a> {
    ranges: &'a HashMap<ParamId, Range<usize>>,
    gradients: &'a Gradients,
    weight: f32,
    flat: &'a mut [f32],
}

impl ModuleVisitor for Adder<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(range) = self.ranges.get(&param.id) else { return };
        let Some(gradient) = param.val().grad(self.gradients) else { return };
        for (sum, value) in self.flat[range.clone()].iter_mut().zip(values::of(gradient)) {
            *sum += self.weight * value;
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Net {
        layers: Vec<Linear>,
        norm: LayerNorm,
    }

    fn net() -> Net {
        let device = Device::flex().autodiff();
        let layers = (0..2).map(|_| LinearConfig::new(3, 3).init(&device)).collect();
        Net { layers, norm: LayerNormConfig::new(3).init(&device) }
    }

    fn trainable(names: &[&str]) -> Result<Trainable> {
        let trainable = Some(names.iter().map(|name| (*name).to_owned()).collect());
        Trainable::of_full_run(&net(), &TrainConfig { trainable, ..TrainConfig::default() })
    }

    #[test]
    fn a_part_of_a_model_is_named_by_modules_and_parameters() {
        let names = |wanted: &[&str]| {
            trainable(wanted).unwrap().slots().iter().map(|slot| slot.name.clone()).collect::<Vec<_>>()
        };
        // A norm's bias has another name in Burn.
        assert_eq!(names(&["bias"]), ["layers.0.bias", "layers.1.bias", "norm.beta"]);
        assert_eq!(names(&["layers.1", "norm.weight"]), ["layers.1.weight", "layers.1.bias", "norm.gamma"]);
        assert_eq!(names(&["layers", "norm"]).len(), Trainable::of_model(&net()).slots().len());
        let error = trainable(&["bais", "ayers.1"]).unwrap_err();
        let parts: Vec<String> = error.parts().iter().map(ToString::to_string).collect();
        assert_eq!(
            parts,
            [
                "trainable: names nothing in the model: found `bais`",
                "trainable: names nothing in the model: found `ayers.1`"
            ]
        );
        assert_eq!(error.parts()[0].hint(), Some("did you mean `bias`?"));
    }

    #[test]
    fn what_does_not_train_has_no_gradient() {
        let net = net();
        let names = Some(vec!["layers.0.weight".to_owned()]);
        let trained =
            Trainable::of_full_run(&net, &TrainConfig { trainable: names, ..TrainConfig::default() }).unwrap();
        let net = trained.freeze_others(net);
        let x = Tensor::<2>::ones([1, 3], &Device::flex().autodiff());
        let y = net.norm.forward(net.layers[1].forward(net.layers[0].forward(x)));
        let gradients = (y.clone() * y).sum().backward();
        assert!(net.layers[0].weight.val().grad(&gradients).is_some());
        assert!(net.layers[0].bias.as_ref().unwrap().val().grad(&gradients).is_none());
        assert!(net.layers[1].weight.val().grad(&gradients).is_none());
    }
}
