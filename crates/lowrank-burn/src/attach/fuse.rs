//! Merging adapters into the base of a model, and taking them out again to the bit.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use lowrank::adapter::{Factors, Magnitude, merge};
use lowrank::float::FloatType;
use lowrank::{Error, Result, Subject};

use super::{Adapters, build};
use crate::adapter::{Change, LowRank, like};
use crate::values;

/// An adapter in the base, as it was when it was merged.
#[derive(Debug, Clone)]
pub(super) struct InBase {
    pub name: String,
    pub changes: build::Changes,
    multiplier: f32,
}

/// Base tensors as they were before anything was merged into them.
type Originals = HashMap<ParamId, Arc<dyn Any + Send + Sync>>;

impl Adapters {
    /// Puts the changes of the active adapters into the base's own values (PEFT's `merge_adapter`); the model computes
    /// the same as before, at the cost of its base alone. Those that are merged already stay.
    ///
    /// The base is always its original with the merged adapters in it, in the order in which they were merged, rounded
    /// once: merging one after the other gives the bits of merging them together, and `DoRA` the norm of the original.
    /// Every merge is checked: all values finite in the base's type, and merged against unmerged on a probe, as
    /// [`lowrank::adapter::merge()`] does.
    ///
    /// # Errors
    /// When a check fails, an adapter does not fit the weight (the dense grouped form), or one with `DoRA` stands on a
    /// weight that another one replaces (`modules_to_save`); nothing is merged then.
    pub fn merge<M: Module>(&mut self, model: M) -> Result<M> {
        let active = self.active();
        let new: Vec<&str> = active.iter().map(String::as_str).filter(|name| !self.is_merged(name)).collect();
        self.put(model, &new)
    }

    /// As [`Adapters::merge`], of these adapters, active or not (PEFT's `merge_adapter` with `adapter_names`).
    ///
    /// # Errors
    /// When one of them does not exist, or is merged already; and as [`Adapters::merge`].
    pub fn merge_adapters<M: Module>(&mut self, model: M, names: &[&str]) -> Result<M> {
        for (at, name) in names.iter().enumerate() {
            self.entry(name)?;
            if self.is_merged(name) || names[..at].contains(name) {
                return Err(Error::new(Subject::Merge, format!("adapter `{name}` is merged already")));
            }
        }
        self.put(model, names)
    }

    /// Gives the base back the bits it had before the first merge; every merged adapter is live again.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "every method that changes a model takes it and gives it back")]
    pub fn unmerge<M: Module>(&mut self, model: M) -> M {
        let restored = self.without_merged(&model);
        self.merged.clear();
        let mut state = self.control.write();
        state.merged.clear();
        state.originals.clear();
        drop(state);
        restored
    }

    /// Takes these adapters out of the base, in any order. What remains has the bits of the original base with the
    /// remaining ones merged into it, as if these had never been; PEFT subtracts each delta as it is by then, and divides
    /// by what `DoRA` multiplied with.
    ///
    /// # Errors
    /// When one of them does not exist or is not merged, or the remaining ones cannot be merged without it; nothing has
    /// changed then.
    pub fn unmerge_adapters<M: Module>(&mut self, model: M, names: &[&str]) -> Result<M> {
        for name in names {
            self.entry(name)?;
            if !self.is_merged(name) {
                return Err(Error::new(Subject::Merge, format!("adapter `{name}` is not merged")));
            }
        }
        let (out, remaining): (Vec<_>, Vec<_>) =
            self.merged.iter().cloned().partition(|merged| names.contains(&merged.name.as_str()));
        self.rebase(model, remaining, &out)
    }

    /// The base with the active adapters merged in, and no adapter on it (PEFT's `merge_and_unload`).
    ///
    /// # Errors
    /// As [`Adapters::merge`].
    pub fn merge_and_unload<M: Module>(mut self, model: M) -> Result<M> {
        let merged = self.merge(model)?;
        Ok(self.unload(merged))
    }

    fn is_merged(&self, name: &str) -> bool {
        self.merged.iter().any(|merged| merged.name == name)
    }

    /// The model on its original base; it shares all tensors.
    pub(super) fn without_merged<M: Module>(&self, model: &M) -> M {
        let originals = self.control.read().originals.clone();
        if originals.is_empty() { model.clone() } else { model.clone().map(&mut Restorer { originals }) }
    }

    /// Merges more adapters.
    fn put<M: Module>(&mut self, model: M, names: &[&str]) -> Result<M> {
        let present = self.present(&model);
        let state = self.control.read();
        let new = names.iter().map(|name| InBase {
            name: (*name).to_owned(),
            changes: present.iter().filter(|(_, change)| change.adapter() == *name).cloned().collect(),
            multiplier: state.multiplier(name),
        });
        let new: Vec<InBase> = new.collect();
        drop(state);
        let merged = self.merged.iter().chain(&new).cloned().collect();
        self.rebase(model, merged, &new)
    }

    /// The model on its original base with `merged` in it, where `changed` has come or gone.
    fn rebase<M: Module>(&mut self, model: M, merged: Vec<InBase>, changed: &[InBase]) -> Result<M> {
        let touched = changed.iter().flat_map(|adapter| adapter.changes.iter().map(|(param, _)| *param));
        let mut work: HashMap<ParamId, Vec<(Change, f32)>> = touched.map(|param| (param, Vec::new())).collect();
        for adapter in &merged {
            for (param, change) in &adapter.changes {
                if let Some(changes) = work.get_mut(param) {
                    changes.push((change.clone(), adapter.multiplier));
                }
            }
        }
        let untouched: HashSet<ParamId> =
            work.iter().filter(|(_, changes)| changes.is_empty()).map(|(param, _)| *param).collect();
        let originals = self.control.read().originals.clone();
        let mut fuser = Fuser { work, originals, errors: Vec::new() };
        let model = model.map(&mut fuser);
        Error::all(fuser.errors)?;
        let mut state = self.control.write();
        state.originals = fuser.originals;
        state.originals.retain(|param, _| !untouched.contains(param));
        state.merged = merged.iter().map(|adapter| adapter.name.clone()).collect();
        drop(state);
        self.merged = merged;
        Ok(model)
    }
}

/// Puts changes on the originals of base parameters, all or none: the caller looks at `errors`.
struct Fuser {
    /// The changes of a parameter in order, each with its multiplier.
    work: HashMap<ParamId, Vec<(Change, f32)>>,
    originals: Originals,
    errors: Vec<Error>,
}

impl ModuleMapper for Fuser {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(changes) = self.work.remove(&param.id) else { return param };
        let base = param.base();
        let kept = self.originals.entry(param.id).or_insert_with(|| Arc::new(base.clone()));
        let original = kept.downcast_ref().map_or_else(|| base.clone(), |original| like(original, &base));
        let low_rank = |change: &Change| matches!(change, Change::LowRank(_));
        let mut runs = changes.chunk_by(|(a, _), (b, _)| low_rank(a) && low_rank(b));
        let mut pure = true;
        let fused = runs.try_fold(original, |value, run| {
            let value = fuse(value, run, pure);
            pure = matches!(run, [(Change::Replace(_), _), ..]);
            value
        });
        match fused {
            Ok(value) => param.map(|tensor| value.set_require_grad(tensor.is_require_grad())),
            Err(error) => {
                self.errors.push(error);
                param
            }
        }
    }
}

struct Restorer {
    originals: Originals,
}

impl ModuleMapper for Restorer {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let original = self.originals.remove(&param.id);
        match original.as_ref().and_then(|original| original.downcast_ref::<Tensor<D>>()) {
            Some(original) => param.map(|tensor| like(original, &tensor)),
            None => param,
        }
    }
}

/// A base parameter with more changes in it, in its own type: some of low rank, or one of another kind. `pure` says that
/// it has none so far.
fn fuse<const D: usize>(base: Tensor<D>, changes: &[(Change, f32)], pure: bool) -> Result<Tensor<D>> {
    let Some((change, multiplier)) = changes.first() else { return Ok(base) };
    match change {
        Change::LowRank(low_rank) => {
            let names: Vec<&str> = changes.iter().map(|(change, _)| change.adapter()).collect();
            let here = |error: Error| error.at(names.join(", "));
            let factors = changes.iter().filter_map(|(change, multiplier)| match change {
                Change::LowRank(low_rank) => Some(factors(low_rank, *multiplier, None)),
                Change::Replace(_) | Change::Rows(_) | Change::Shift(_) => None,
            });
            let factors: Vec<Factors> = factors.collect::<Result<_>>()?;
            if !pure && factors.iter().any(|factors| factors.magnitude().is_some()) {
                return Err(here(
                    Error::new(Subject::Merge, "DoRA's norm is that of the base, which another adapter replaces here")
                        .with_hint("merge it without the one that has this module in `modules_to_save`"),
                ));
            }
            let transposed = low_rank.layer.kernel().is_empty() && !low_rank.layer.kind().is_transposed();
            let base = if transposed { base.transpose() } else { base };
            let adapters: Vec<&Factors> = factors.iter().collect();
            let merged =
                with_bytes(base, |bytes, float| Ok(merge(bytes, float, &adapters)?.into_weight())).map_err(here)?;
            Ok(if transposed { merged.transpose() } else { merged })
        }
        Change::Replace(replace) => {
            let values = values::of(replace.value.val());
            with_bytes(base, |_, float| Ok(float.encode(&values)))
        }
        Change::Rows(rows) => {
            let (values, dim) = (values::of(rows.value.val()), rows.value.dims()[1]);
            with_bytes(base, |bytes, float| {
                let (mut bytes, width) = (bytes.to_vec(), dim * float.size());
                for (index, row) in rows.indices.iter().zip(values.chunks_exact(dim)) {
                    bytes[index * width..(index + 1) * width].copy_from_slice(&float.encode(row));
                }
                Ok(bytes)
            })
        }
        Change::Shift(shift) => {
            let values = values::of(shift.value.val());
            let scale = shift.scale * multiplier;
            with_bytes(base, |bytes, float| {
                let shifted: Vec<f32> = float.decode(bytes).iter().zip(&values).map(|(b, v)| b + scale * v).collect();
                match shifted.iter().position(|value| !value.is_finite()) {
                    Some(at) => {
                        Err(Error::new(Subject::Merge, "the merged bias is not finite").found(format!("index {at}")))
                    }
                    None => Ok(float.encode(&shifted)),
                }
            })
        }
    }
}

/// The factors of a change to the base as they are in the model now.
pub(super) fn factors(low_rank: &LowRank, multiplier: f32, bias: Option<Vec<f32>>) -> Result<Factors> {
    let rank = low_rank.a.dims()[0];
    let scale = low_rank.scale * multiplier;
    let new = |mode, a: &Param<Tensor<2>>, b: &Param<Tensor<2>>, bias| {
        Factors::new(low_rank.layer.clone(), mode, rank, scale, values::of(a.val()), values::of(b.val()), bias)
    };
    let factors = new(low_rank.mode, &low_rank.a, &low_rank.b, bias)?;
    let factors = match &low_rank.start {
        Some(start) => factors.without_start(&new(low_rank.start_mode(), &start.a, &start.b, None)?)?,
        None => factors,
    };
    match &low_rank.magnitude {
        Some(m) => factors.with_magnitude(Magnitude { values: values::of(m.val()), norm: low_rank.norm }),
        None => Ok(factors),
    }
}

/// A tensor made from the bytes of another of the same shape, type and device.
fn with_bytes<const D: usize>(
    tensor: Tensor<D>,
    work: impl FnOnce(&[u8], FloatType) -> Result<Vec<u8>>,
) -> Result<Tensor<D>> {
    let (shape, dtype, device) = (tensor.shape(), tensor.dtype(), tensor.device());
    let float = match dtype {
        DType::F64 => FloatType::F64,
        DType::F32 => FloatType::F32,
        DType::F16 => FloatType::F16,
        DType::BF16 => FloatType::Bf16,
        other => {
            return Err(Error::new(Subject::Merge, "cannot merge into this type")
                .found(format!("{other:?}"))
                .expected("a floating-point base; dequantise it first"));
        }
    };
    let bytes = work(tensor.into_data().as_bytes(), float)?;
    let data = TensorData::from_bytes_vec(bytes, shape, dtype);
    Ok(Tensor::from_data(data, (&device, dtype)))
}
