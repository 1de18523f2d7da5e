//! Merging adapters into the base of a model, and taking them out again to the bit.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use lowrank::adapter::{Factors, Magnitude, merge};
use lowrank::float::FloatType;
use lowrank::{Error, Result, Subject};

use super::Adapters;
use crate::adapter::{Change, LowRank};
use crate::values;

impl Adapters {
    /// Puts the changes of the active adapters into the base's own values (PEFT's `merge_adapter`); the model computes
    /// the same as before, at the cost of its base alone.
    ///
    /// Every merge is checked: all values finite in the base's type, and merged against unmerged on a probe, as
    /// [`lowrank::adapter::merge()`] does. The values the base had are kept for [`Adapters::unmerge`].
    ///
    /// # Errors
    /// When a check fails, an adapter does not fit the weight (the dense grouped form), or one with `DoRA`, whose norm is
    /// that of the base, would go onto a base that has changed; nothing is merged then.
    pub fn merge<M: Module>(&mut self, model: M) -> Result<M> {
        let mut fuser = Fuser { changed: self.originals.keys().copied().collect(), ..Fuser::default() };
        for (param, change) in self.present(&model) {
            let state = self.control.read();
            if let Some(at) =
                state.active.iter().position(|name| name == change.adapter() && !state.merged.contains(name))
            {
                let multiplier = state.multipliers.get(change.adapter()).copied().unwrap_or(1.0);
                fuser.work.entry(param).or_default().push((at, change, multiplier));
            }
        }
        let merged = model.map(&mut fuser);
        Error::all(fuser.errors)?;
        for (id, original) in fuser.originals {
            self.originals.entry(id).or_insert(original);
        }
        let mut state = self.control.write();
        let new: Vec<String> = state.active.iter().filter(|name| !state.merged.contains(name)).cloned().collect();
        state.merged.extend(new);
        drop(state);
        Ok(merged)
    }

    /// Gives the base back the bits it had before the first merge; every merged adapter is live again.
    #[must_use]
    pub fn unmerge<M: Module>(&mut self, model: M) -> M {
        let restored = model.map(&mut Restorer { originals: std::mem::take(&mut self.originals) });
        self.control.write().merged.clear();
        restored
    }

    /// The base with the active adapters merged in, and no adapter on it (PEFT's `merge_and_unload`).
    ///
    /// # Errors
    /// As [`Adapters::merge`].
    pub fn merge_and_unload<M: Module>(mut self, model: M) -> Result<M> {
        let merged = self.merge(model)?;
        Ok(self.unload(merged))
    }
}

/// Applies changes to base parameters, all or none: the caller looks at `errors`.
#[derive(Default)]
struct Fuser {
    /// The changes of a parameter, each with its adapter's place in the order and its multiplier.
    work: HashMap<ParamId, Vec<(usize, Change, f32)>>,
    /// Parameters that have changes in them already.
    changed: HashSet<ParamId>,
    originals: HashMap<ParamId, Arc<dyn Any + Send + Sync>>,
    errors: Vec<Error>,
}

impl ModuleMapper for Fuser {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(mut changes) = self.work.remove(&param.id) else { return param };
        changes.sort_by_key(|(at, _, _)| *at);
        let original = param.base();
        let mut pure = !self.changed.contains(&param.id);
        let low_rank = |change: &Change| matches!(change, Change::LowRank(_));
        let mut runs = changes.chunk_by(|(_, a, _), (_, b, _)| low_rank(a) && low_rank(b));
        let fused = runs.try_fold(original.clone(), |value, run| {
            let value = fuse(value, run, pure);
            pure = matches!(run, [(_, Change::Replace(_), _), ..]);
            value
        });
        match fused {
            Ok(value) => {
                self.originals.insert(param.id, Arc::new(original));
                param.map(|tensor| value.set_require_grad(tensor.is_require_grad()))
            }
            Err(error) => {
                self.errors.push(error);
                param
            }
        }
    }
}

struct Restorer {
    originals: HashMap<ParamId, Arc<dyn Any + Send + Sync>>,
}

impl ModuleMapper for Restorer {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let original = self.originals.remove(&param.id);
        match original.as_ref().and_then(|original| original.downcast_ref::<Tensor<D>>()) {
            Some(original) => param.map(|_| original.clone()),
            None => param,
        }
    }
}

/// A base parameter with more changes in it, in its own type: some of low rank, or one of another kind. `pure` says that
/// it has none so far.
fn fuse<const D: usize>(base: Tensor<D>, changes: &[(usize, Change, f32)], pure: bool) -> Result<Tensor<D>> {
    let Some((_, change, multiplier)) = changes.first() else { return Ok(base) };
    match change {
        Change::LowRank(low_rank) => {
            let names: Vec<&str> = changes.iter().map(|(_, change, _)| change.adapter()).collect();
            let here = |error: Error| error.at(names.join(", "));
            let factors = changes.iter().filter_map(|(_, change, multiplier)| match change {
                Change::LowRank(low_rank) => Some(factors(low_rank, *multiplier, None)),
                Change::Replace(_) | Change::Shift(_) => None,
            });
            let factors: Vec<Factors> = factors.collect::<Result<_>>()?;
            if !pure && factors.iter().any(|factors| factors.magnitude().is_some()) {
                return Err(here(
                    Error::new(Subject::Merge, "DoRA's norm is that of the base, which other adapters have changed")
                        .with_hint("unmerge first, and merge all adapters at once"),
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
