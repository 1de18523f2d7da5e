//! What the files of a merged model hold: the tensors of the base, but for weights with weight normalisation.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::checkpoint::Checkpoint;
use super::limits;
use super::merge_checkpoint::WeightNorm;
use super::read::read_to_string;
use super::shards::INDEX;
use super::weight_norm::Normed;
use crate::adapter::tensor::{Dtype, byte_len};
use crate::error::{Error, Result, Subject};
use crate::weight_norm::weight_of;

/// The weights with weight normalisation that are not written as they are.
pub(super) struct Layout {
    form: WeightNorm,
    /// By the names of their `g` and `v`.
    parts: BTreeMap<String, (Normed, Part)>,
    bytes: u64,
}

/// What a tensor is of a weight with weight normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `g`.
    Length,
    /// `v`.
    Direction,
    /// The weight itself.
    Folded,
}

/// A tensor that is written.
pub(super) struct Output {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// The weight it is of, when that is one with weight normalisation.
    pub normed: Option<(Normed, Part)>,
}

impl Part {
    /// Whether a tensor of the base is written as this part.
    pub fn stands_for(self, normed: &Normed, name: &str) -> bool {
        match self {
            Self::Length => name == normed.g,
            Self::Direction => name == normed.v,
            Self::Folded => name == normed.g || name == normed.v,
        }
    }
}

impl Layout {
    /// # Errors
    /// When a `g` does not fit its `v`.
    pub fn new(model: &Checkpoint, form: WeightNorm, changes: impl Fn(&str) -> bool) -> Result<Self> {
        let mut parts = BTreeMap::new();
        for weight in model.names().filter_map(weight_of).filter(|weight| form == WeightNorm::Fold || changes(weight)) {
            let Some(normed) = Normed::find(model, &weight)? else { continue };
            parts.insert(normed.g.clone(), (normed.clone(), Part::Length));
            parts.insert(normed.v.clone(), (normed, Part::Direction));
        }
        let mut layout = Self { form, parts, bytes: 0 };
        let outputs = model.names().filter_map(|name| layout.output(model, name));
        layout.bytes = outputs.filter_map(|(_, out)| byte_len(out.dtype, &out.shape)).map(|size| size as u64).sum();
        Ok(layout)
    }

    /// Bytes of all tensors that are written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether tensors have other names than in the base.
    pub fn renames(&self) -> bool {
        self.form == WeightNorm::Fold && !self.parts.is_empty()
    }

    /// What is written for a tensor of the base, and under which name; nothing for the `g` of a folded weight.
    pub fn output(&self, model: &Checkpoint, name: &str) -> Option<(String, Output)> {
        let info = model.get(name)?;
        let output = |normed| Output { dtype: info.dtype, shape: info.shape.clone(), normed };
        match (self.parts.get(name), self.form) {
            (None, _) => Some((name.to_owned(), output(None))),
            (Some((normed, part)), WeightNorm::Keep) => Some((name.to_owned(), output(Some((normed.clone(), *part))))),
            (Some((_, Part::Length)), WeightNorm::Fold) => None,
            (Some((normed, _)), WeightNorm::Fold) => {
                Some((normed.weight(), output(Some((normed.clone(), Part::Folded)))))
            }
        }
    }

    /// The index of a sharded model with the names and the size that are written.
    ///
    /// # Errors
    /// When the index of the base cannot be read.
    pub fn index(&self, model: &Checkpoint) -> Result<String> {
        let path = model.path().join(INDEX);
        let unreadable = || Error::new(Subject::File, "not the index of a sharded checkpoint").at(path.display());
        let text = read_to_string(&path, limits::INDEX_BYTES)?;
        let mut index: Value = serde_json::from_str(&text).map_err(|_| unreadable())?;
        if let Some(size) = index.get_mut("metadata").and_then(|metadata| metadata.get_mut("total_size")) {
            *size = json!(self.bytes);
        }
        let map = index.get_mut("weight_map").and_then(Value::as_object_mut).ok_or_else(unreadable)?;
        let shards: BTreeMap<String, Value> = std::mem::take(map)
            .into_iter()
            .filter_map(|(name, shard)| Some((self.output(model, &name)?.0, shard)))
            .collect();
        map.extend(shards);
        Ok(format!("{index:#}\n"))
    }
}
