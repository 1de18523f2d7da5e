//! Which changes a parameter is read with.

use std::sync::Arc;

use burn::module::{ParamId, Reparameterization};
use burn::tensor::Tensor;
use lowrank::init::Moments;
use lowrank::{Error, Subject};

use super::{Change, Control, LoraAdapter, Mixed};

/// Whose changes a parameter is read with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Who<'a> {
    /// Those of the active adapters.
    Active,
    /// Those of one adapter, or of none.
    Only(Option<&'a str>),
}

impl Reparameterization for LoraAdapter {
    const NAME: &'static str = "lora_adapter";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        if let Some(mixed) = self.mixed()
            && mixed.shares(|name| self.has(name)).iter().any(|share| share.name.is_some())
        {
            self.refuse(Error::new(Subject::Adapter, "this layer reads one weight for the whole batch").with_hint(
                "use the layer of that name in `lowrank_burn::nn` instead of Burn's: same fields, same weights",
            ));
            return base;
        }
        self.value(base, Who::Active)
    }
}

impl LoraAdapter {
    pub(crate) fn new(param: ParamId, changes: Vec<Change>, control: Control) -> Self {
        Self { changes, param, control }
    }

    /// What says which adapters are in force.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// The changes that are in force, in the order in which their adapters were activated, each with the factor its
    /// adapter was scaled by.
    #[must_use]
    pub fn active(&self) -> Vec<(&Change, f32)> {
        self.seen_by(Who::Active)
    }

    /// The changes that somebody sees, in order.
    pub(crate) fn seen_by(&self, who: Who<'_>) -> Vec<(&Change, f32)> {
        let state = self.control.read();
        if !state.is_on() {
            return Vec::new();
        }
        let of = |name: &str| {
            let multiplier = state.multiplier(name);
            let own = self.changes.iter().filter(|change| change.adapter() == name);
            own.map(|change| (change, multiplier)).collect::<Vec<_>>()
        };
        match who {
            Who::Active => {
                let live = state.active.iter().filter(|name| !state.merged.contains(name));
                live.flat_map(|name| of(name)).collect()
            }
            Who::Only(name) => name.map(of).unwrap_or_default(),
        }
    }

    /// `base` with the changes that somebody sees.
    pub(crate) fn value<const D: usize>(&self, base: Tensor<D>, who: Who<'_>) -> Tensor<D> {
        let changes = self.seen_by(who);
        if changes.is_empty() {
            return self.ground(base);
        }
        let apply = |(value, original): (Tensor<D>, Tensor<D>), (change, multiplier): (&Change, f32)| {
            let value = change.apply(value, &original, multiplier);
            if matches!(change, Change::Replace(_)) { (value.clone(), value) } else { (value, original) }
        };
        let original = self.original(&base);
        changes.into_iter().fold((base, original), apply).0
    }

    /// What the changes stand on: the base with what is merged into it, but without while adapters are disabled.
    pub(crate) fn ground<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let state = self.control.read();
        let without = !state.enabled && !state.bypassed && state.observed.is_none();
        drop(state);
        if without { self.original(&base) } else { base }
    }

    /// The base without anything merged into it: what the norm of `DoRA` is taken of.
    pub(crate) fn original<const D: usize>(&self, base: &Tensor<D>) -> Tensor<D> {
        let original = self.control.read().originals.get(&self.param).cloned();
        match original.as_ref().and_then(|original| original.downcast_ref()) {
            Some(original) => like(original, base),
            None => base.clone(),
        }
    }

    /// Whether an adapter changes this parameter.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.changes.iter().any(|change| change.adapter() == name)
    }

    /// Whose changes each sample sees, where it is not the active adapters'.
    pub(crate) fn mixed(&self) -> Option<Arc<Mixed>> {
        let state = self.control.read();
        state.mixed.clone().filter(|_| state.is_on())
    }

    /// Says that this parameter cannot be read sample by sample.
    pub(crate) fn refuse(&self, error: Error) {
        self.control.write().refused.get_or_insert((self.param, error));
    }

    /// Gives `add` the sums over this module's inputs, where they are observed.
    pub(crate) fn observe(&self, mut add: impl FnMut(&mut Moments)) {
        if self.control.read().observed.is_none() {
            return;
        }
        let mut state = self.control.write();
        let Some(observed) = &mut state.observed else { return };
        for change in &self.changes {
            if let Change::LowRank(low_rank) = change
                && let Some(moments) = observed.get_mut(&low_rank.a.id)
            {
                add(moments);
            }
        }
    }
}

/// A frozen tensor on the side of autodiff that another one is on: a model and its `valid()` share what is kept for both.
pub(crate) fn like<const D: usize>(tensor: &Tensor<D>, other: &Tensor<D>) -> Tensor<D> {
    let tensor = tensor.clone();
    if other.is_autodiff() { tensor.autodiff() } else { tensor.without_autodiff() }
}
