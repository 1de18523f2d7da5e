//! Which tensors of a base model an adapter changes, found before anything is written.

use std::collections::BTreeMap;

use super::adapter_dir::Adapter;
use super::checkpoint::Checkpoint;
use super::weight_norm::Normed;
use crate::adapter::infer::infer_layer;
use crate::adapter::state_dict::ModuleTensors;
use crate::adapter::tensor::{Dtype, Tensor, float_type};
use crate::adapter::tokens::check_fit;
use crate::adapter::{Layer, LayerKind};
use crate::config::LoraConfig;
use crate::error::{Error, Result, Subject};
use crate::suggest::nearest;

/// The changes to one tensor; both, where a trained bias gets the bias of `B` on top.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    /// It is replaced by the tensor that the adapter saved under its name.
    pub replaced: bool,
    /// It gets the delta of this module's factors, on this layer.
    pub module: Option<(String, Layer)>,
    /// Some of its rows are replaced by those that the adapter trained for this module.
    pub tokens: Option<String>,
}

/// The changes by the base tensor's name; of a weight with weight normalisation by the name that it would have without. Every tensor of the adapter is in one of them.
///
/// # Errors
/// All at once: a module or parameter that the base has not (the hint has what it may be called there), shapes that do
/// not fit, weights that are not floating point, and square weights whose orientation cannot be told.
pub(super) fn plan(base: &Checkpoint, adapter: &Adapter) -> Result<BTreeMap<String, Change>> {
    let mut changes = BTreeMap::<String, Change>::new();
    let mut errors = Vec::new();
    let mut layers = Vec::new();
    for (parameter, tensor) in &adapter.state.saved {
        match replaceable(base, parameter, tensor.shape()) {
            Ok(()) => changes.entry(parameter.clone()).or_default().replaced = true,
            Err(error) => errors.push(error.at(format_args!("tensor `{parameter}`"))),
        }
    }
    for (path, tensor) in &adapter.state.tokens {
        match tokens(base, path, tensor, adapter) {
            Ok(()) => changes.entry(format!("{path}.weight")).or_default().tokens = Some(path.clone()),
            Err(error) => errors.push(error.at(format_args!("trained rows of `{path}`"))),
        }
    }
    for (path, module) in &adapter.state.modules {
        match adapted(base, path, module, &adapter.config) {
            Ok(layer) => {
                layers.push((path, layer.clone()));
                let bias = module.bias.is_some().then(|| parameter(base, path, "bias"));
                for name in [weight_of_module(base, path)].into_iter().chain(bias) {
                    changes.entry(name).or_default().module = Some((path.clone(), layer.clone()));
                }
            }
            Err(error) => errors.push(error.at(format_args!("module `{path}`"))),
        }
    }
    errors.extend(orientation(&layers, adapter.config.fan_in_fan_out));
    Error::all(errors)?;
    Ok(changes)
}

/// The tensor of a module's parameter. A model that calls `F.conv1d` itself holds `dw_weight` and `dw_bias` where the module
/// `dw` would have `dw.weight` and `dw.bias`.
fn parameter(base: &Checkpoint, module: &str, name: &str) -> String {
    let [with_dot, joined] = ['.', '_'].map(|joint| format!("{module}{joint}{name}"));
    if base.get(&with_dot).is_none() && base.get(&joined).is_some() { joined } else { with_dot }
}

fn tokens(base: &Checkpoint, path: &str, rows: &Tensor, adapter: &Adapter) -> Result<()> {
    let name = format!("{path}.weight");
    let Some(info) = base.get(&name) else { return Err(missing(base, &name)) };
    check_float(info.dtype)?;
    let indices = adapter.config.trainable_token_indices.as_ref().and_then(|tokens| tokens.of(path));
    check_fit(&info.shape, indices.unwrap_or_default(), rows.shape())
}

fn check_float(dtype: Dtype) -> Result<()> {
    if float_type(dtype).is_some() {
        return Ok(());
    }
    Err(Error::new(Subject::Merge, "the base weight is not floating point")
        .found(dtype)
        .expected("F32, F64, F16 or BF16")
        .with_hint("merge into the model as it was before it was quantised"))
}

fn replaceable(base: &Checkpoint, parameter: &str, shape: &[usize]) -> Result<()> {
    let Some(info) = base.get(parameter) else { return Err(missing(base, parameter)) };
    if info.shape != shape {
        return Err(Error::new(Subject::Merge, "the saved tensor has another shape than the base's")
            .found(format!("{shape:?}"))
            .expected(format!("{:?}", info.shape))
            .with_hint("a vocabulary that was resized in training must be resized in the base model first"));
    }
    Ok(())
}

/// The name of the weight that an adapter of the module at `path` is for. PEFT's adapter under the name of an
/// `nn.MultiheadAttention` is for the stacked projections of its inputs.
pub(super) fn weight_of_module(base: &Checkpoint, path: &str) -> String {
    let projections = format!("{path}.in_proj_weight");
    if base.get(&projections).is_some() { projections } else { parameter(base, path, "weight") }
}

/// Type and shape of a weight, which may be there with weight normalisation.
pub(super) fn weight(base: &Checkpoint, name: &str) -> Result<Option<(Dtype, Vec<usize>)>> {
    if let Some(info) = base.get(name) {
        return Ok(Some((info.dtype, info.shape.clone())));
    }
    Ok(Normed::find(base, name)?.map(|normed| (normed.dtype, normed.shape)))
}

/// The layer under the adapter of the module at `path`.
fn adapted(base: &Checkpoint, path: &str, module: &ModuleTensors, config: &LoraConfig) -> Result<Layer> {
    let name = weight_of_module(base, path);
    let Some((dtype, shape)) = weight(base, &name)? else { return Err(missing(base, &name)) };
    check_float(dtype)?;
    let layer = infer_layer(&shape, module, path, config)?;
    if module.bias.is_some() {
        let bias = parameter(base, path, "bias");
        let Some(info) = base.get(&bias) else {
            return Err(Error::new(Subject::Merge, "the adapter has a bias (`lora_bias`), the base layer has none")
                .expected(format!("a tensor `{bias}` to add it to"))
                .with_hint("such an adapter cannot be merged: keep it beside the model"));
        };
        if float_type(info.dtype).is_none() || info.shape != [layer.out_features()] {
            return Err(Error::new(Subject::Merge, "the base layer's bias does not fit")
                .found(format!("{} {:?}", info.dtype, info.shape))
                .expected(format!("floating point [{}]", layer.out_features())));
        }
    }
    Ok(layer)
}

/// Square weights look the same both ways. The configuration's word counts for them as long as the others, whose shapes
/// tell, do not contradict it.
fn orientation(layers: &[(&String, Layer)], fan_in_fan_out: bool) -> Option<Error> {
    let linear = |kind| matches!(kind, LayerKind::Linear | LayerKind::Conv1D);
    let square = |layer: &Layer| layer.in_features() == layer.out_features();
    let (square, telling): (Vec<_>, Vec<_>) =
        layers.iter().filter(|(_, layer)| linear(layer.kind())).partition(|(_, layer)| square(layer));
    let (path, _) = square.first()?;
    let expected = if fan_in_fan_out { LayerKind::Conv1D } else { LayerKind::Linear };
    let (other, layer) = telling.iter().find(|(_, layer)| layer.kind() != expected)?;
    Some(
        Error::new(Subject::Merge, "a square weight, which may be stored as (out, in) or as (in, out)")
            .at(format_args!("module `{path}`"))
            .found(format!("`fan_in_fan_out` {fan_in_fan_out}, but `{other}` is a {}", layer.kind()))
            .expected("a configuration that agrees with the other modules")
            .with_hint(
                "set `fan_in_fan_out` in adapter_config.json to true for transformers' Conv1D, to false for \
                nn.Linear; an adapter on both can be merged with PEFT's `merge_and_unload`",
            ),
    )
}

/// The error for a tensor that the base has not, with what it may be called there. Nothing is guessed.
fn missing(base: &Checkpoint, name: &str) -> Error {
    let error = Error::new(Subject::Merge, "not in the base model")
        .expected(format!("a tensor `{name}` in {}", base.path().display()));
    let shorter =
        name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..)).find(|tail| base.get(tail).is_some());
    if let Some(tail) = shorter {
        let prefix = name.strip_suffix(tail).unwrap_or_default();
        return error.with_hint(format!(
            "the base has `{tail}`: the adapter was trained on a model that calls it with `{prefix}` \
            in front; load the base with that model's class and save it again"
        ));
    }
    if let Some(longer) =
        base.names().find(|candidate| candidate.strip_suffix(name).is_some_and(|prefix| prefix.ends_with('.')))
    {
        return error.with_hint(format!(
            "the base has `{longer}`: the adapter was trained on the inner model; save that one as \
            the base, or train on the outer model"
        ));
    }
    match nearest(name, base.names()) {
        Some(near) => {
            error.with_hint(format!("the nearest name is `{near}`: is this the model the adapter was trained on?"))
        }
        None => error.with_hint(
            "is this the model the adapter was trained on? A tied weight (such as `lm_head`) is stored \
            under its other name only",
        ),
    }
}
