//! The vectors of a checkpoint as safetensors files.

use std::path::Path;

use lowrank::float::FloatType;
use lowrank::{Error, Result, Subject};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::manifest::Manifest;
use super::{Checkpoint, Progress};
use crate::train::optim::OptimizerState;

const PARAMS: &str = "params.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const BEST: &str = "best.safetensors";
const FROZEN: &str = "frozen.safetensors";

/// The files, by name.
pub(super) fn write(checkpoint: &Checkpoint) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let Checkpoint { params, optimizer, best_params, frozen, .. } = checkpoint;
    let mut files =
        vec![(PARAMS, file(&[("params", params)])?), (OPTIMIZER, file(&[("m", &optimizer.m), ("v", &optimizer.v)])?)];
    if let Some(best) = best_params {
        files.push((BEST, file(&[("params", best)])?));
    }
    if !frozen.is_empty() {
        files.push((FROZEN, file(&[("params", frozen)])?));
    }
    Ok(files)
}

/// The vectors in the folder `dir`: a checkpoint but for its progress.
pub(super) fn read(dir: &Path, manifest: &Manifest<'static>) -> Result<Checkpoint> {
    let [params] = vectors(dir, PARAMS, manifest, ["params"])?;
    let [m, v] = vectors(dir, OPTIMIZER, manifest, ["m", "v"])?;
    let optional = |name| manifest.has(name).then(|| vectors(dir, name, manifest, ["params"])).transpose();
    let best_params = optional(BEST)?.map(|[best]| best);
    let frozen = optional(FROZEN)?.map(|[frozen]| frozen).unwrap_or_default();
    let optimizer = OptimizerState { step: manifest.optimizer_step(), m, v };
    Ok(Checkpoint { progress: Progress::default(), params, optimizer, best_params, frozen })
}

fn file(vectors: &[(&str, &[f32])]) -> Result<Vec<u8>> {
    let refused = |error| Error::new(Subject::File, "cannot write a vector").because(error);
    let bytes: Vec<Vec<u8>> = vectors.iter().map(|(_, values)| FloatType::F32.encode(values)).collect();
    let views = vectors.iter().zip(&bytes).map(|((name, values), bytes)| {
        Ok((*name, TensorView::new(Dtype::F32, vec![values.len()], bytes).map_err(refused)?))
    });
    safetensors::serialize(views.collect::<Result<Vec<_>>>()?, None).map_err(refused)
}

fn vectors<const N: usize>(
    dir: &Path,
    file: &str,
    manifest: &Manifest<'static>,
    names: [&str; N],
) -> Result<[Vec<f32>; N]> {
    let bytes = manifest.read(dir, file)?;
    let place = dir.join(file);
    let malformed = |problem: &str| Error::new(Subject::File, problem).at(place.display());
    let tensors =
        SafeTensors::deserialize(&bytes).map_err(|error| malformed("not a safetensors file").because(error))?;
    let mut found = [const { Vec::new() }; N];
    for (name, values) in names.into_iter().zip(&mut found) {
        let tensor = tensors.tensor(name).map_err(|error| malformed("a vector is missing").because(error))?;
        if tensor.dtype() != Dtype::F32 {
            return Err(malformed("a vector of another type").found(tensor.dtype()).expected(Dtype::F32));
        }
        *values = FloatType::F32.decode(tensor.data());
    }
    Ok(found)
}
