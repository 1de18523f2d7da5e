//! What two checkpoints, or two adapters, differ by.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::adapter_dir::{self, Adapter, CONFIG};
use super::checkpoint::Checkpoint;
use super::read::exists;
use crate::adapter::combine::adapters::layer_of;
use crate::adapter::combine::distance;
use crate::adapter::keys::PREFIX;
use crate::adapter::tensor::{Dtype, Tensor};
use crate::config::LoraConfig;
use crate::error::{Error, Result, Subject};

/// What was found, by tensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Diff {
    /// The tensors that are equal: in type, shape and every bit, but for the sign of zeros.
    pub equal: Vec<String>,
    /// The tensors of one type and shape whose values differ.
    pub different: Vec<DifferentTensor>,
    /// The tensors of one name that differ in type or shape, each with both.
    pub incomparable: Vec<(String, [String; 2])>,
    /// The tensors that only the first has, and those that only the second has.
    pub only: [Vec<String>; 2],
    /// Of two adapters: the modules whose deltas differ, each with the Frobenius norm of the difference as a share of that of
    /// the first's delta, if it has one.
    pub deltas: Vec<(String, Option<f64>)>,
    /// Of two adapters: the keys of the configuration that differ.
    pub config: Vec<String>,
}

/// Two tensors that differ.
#[derive(Debug, Clone, PartialEq)]
pub struct DifferentTensor {
    /// The name.
    pub name: String,
    /// The largest difference of two values; none for types that are not floating point, infinite where one value is not
    /// finite.
    pub max_abs: Option<f64>,
    /// The Frobenius norm of the difference, as a share of that of the first; none where that is zero.
    pub relative: Option<f64>,
}

impl Diff {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let same = self.different.is_empty() && self.incomparable.is_empty() && self.deltas.is_empty();
        same && self.only.iter().all(Vec::is_empty) && self.config.is_empty()
    }
}

/// Compares what is at two paths: two adapters' folders, or two checkpoints. Of checkpoints, one tensor of each is in memory
/// at a time.
///
/// # Errors
/// When one is an adapter and the other is not, and when one cannot be read.
pub fn diff(first: &Path, second: &Path) -> Result<Diff> {
    let paths = [first, second];
    let [one, other] = paths.map(|path| exists(&path.join(CONFIG)));
    if one != other {
        let what = |adapter: bool| if adapter { "an adapter" } else { "a checkpoint" };
        return Err(Error::new(Subject::File, "an adapter and a checkpoint cannot be compared")
            .found(format!("{} in {}, {} in {}", what(one), first.display(), what(other), second.display()))
            .with_hint("merge the adapter first: `lowrank merge`"));
    }
    if one {
        return diff_adapters(&adapter_dir::read(first)?, &adapter_dir::read(second)?);
    }
    let [first, second] = [Checkpoint::open(first)?, Checkpoint::open(second)?];
    let mut diff = Diff::default();
    let names: BTreeSet<&str> = first.names().chain(second.names()).collect();
    for name in names {
        let read = |file: &Checkpoint| file.get(name).map(|_| file.read(name)).transpose();
        diff.tensor(name, read(&first)?.as_ref(), read(&second)?.as_ref());
    }
    Ok(diff)
}

/// Compares two adapters: tensors by the path of their module, deltas, and configurations. Deltas are compared by way of
/// their factors, so that a distance below about `1e-8` is that of rounding; those of modules whose shapes differ are not. The
/// magnitudes of `DoRA` are no part of a delta, and among the tensors.
///
/// # Errors
/// When two deltas cannot be brought into one form.
pub fn diff_adapters(first: &Adapter, second: &Adapter) -> Result<Diff> {
    let mut diff = Diff::default();
    let tensors = [first, second].map(|adapter| adapter.state.to_tensors());
    let names: BTreeSet<&String> = tensors.iter().flat_map(|tensors| tensors.keys()).collect();
    for name in names {
        let [one, other] = [0, 1].map(|side| tensors[side].get(name).copied());
        diff.tensor(name.strip_prefix(PREFIX).unwrap_or(name), one, other);
    }
    for (path, one) in &first.state.modules {
        let Some(other) = second.state.modules.get(path) else { continue };
        let Ok(layer) = layer_of(&[one, other]) else { continue };
        let factors = |adapter: &Adapter| adapter.state.factors(path, &layer, &adapter.config);
        // Tensors of other shapes are in the list already.
        let (Ok(one), Ok(other)) = (factors(first), factors(second)) else { continue };
        let relative = distance(&other, &[(&one, 1.0)])?;
        if relative.is_none_or(|relative| relative > 0.0) && one != other {
            diff.deltas.push((path.clone(), relative));
        }
    }
    let [one, other] = [first, second].map(|adapter| keys(&adapter.config));
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    diff.config = keys.into_iter().filter(|key| one.get(*key) != other.get(*key)).cloned().collect();
    Ok(diff)
}

/// The keys of a configuration, as it is written.
fn keys(config: &LoraConfig) -> BTreeMap<String, Value> {
    serde_json::from_str(&config.to_json()).unwrap_or_default()
}

impl Diff {
    fn tensor(&mut self, name: &str, first: Option<&Tensor>, second: Option<&Tensor>) {
        let name = name.to_owned();
        let (first, second) = match (first, second) {
            (Some(first), Some(second)) => (first, second),
            (one, _) => return self.only[usize::from(one.is_none())].push(name),
        };
        let shown = |tensor: &Tensor| format!("{} {:?}", tensor.dtype(), tensor.shape());
        if shown(first) != shown(second) {
            return self.incomparable.push((name, [shown(first), shown(second)]));
        }
        if first.data() == second.data() {
            return self.equal.push(name);
        }
        match first.values().zip(second.values()) {
            // As f32, two f64 may look equal.
            Some((one, other)) if one == other && first.dtype() != Dtype::F64 => self.equal.push(name),
            Some((first, second)) => self.different.push(different(name, &first, &second)),
            None => self.different.push(DifferentTensor { name, max_abs: None, relative: None }),
        }
    }
}

fn different(name: String, first: &[f32], second: &[f32]) -> DifferentTensor {
    let (mut max_abs, mut gap, mut whole) = (0.0_f64, 0.0, 0.0);
    for (first, second) in first.iter().zip(second) {
        let (first, second) = (f64::from(*first), f64::from(*second));
        // Two infinite values of one sign are equal; two NaN are not.
        let difference = if first.to_bits() == second.to_bits() { 0.0 } else { (second - first).abs() };
        max_abs = max_abs.max(if difference.is_nan() { f64::INFINITY } else { difference });
        gap += difference * difference;
        whole += first * first;
    }
    let relative = (gap / whole).sqrt();
    DifferentTensor { name, max_abs: Some(max_abs), relative: relative.is_finite().then_some(relative) }
}
