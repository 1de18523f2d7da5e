//! The vectors of a checkpoint as safetensors files.

use std::path::Path;

use lowrank::float::FloatType;
use lowrank::{Error, Result, Subject};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::manifest::Manifest;
use crate::train::optim::OptimizerState;

const PARAMS: &str = "params.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const BEST: &str = "best.safetensors";

/// The files, by name.
pub(super) fn write(
    params: &[f32],
    optimizer: &OptimizerState,
    best: Option<&[f32]>,
) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut files =
        vec![(PARAMS, file(&[("params", params)])?), (OPTIMIZER, file(&[("m", &optimizer.m), ("v", &optimizer.v)])?)];
    if let Some(best) = best {
        files.push((BEST, file(&[("params", best)])?));
    }
    Ok(files)
}

/// The vectors in the folder `dir`.
pub(super) fn read(dir: &Path, manifest: &Manifest<'static>) -> Result<(Vec<f32>, OptimizerState, Option<Vec<f32>>)> {
    let [params] = vectors(dir, PARAMS, manifest, ["params"])?;
    let [m, v] = vectors(dir, OPTIMIZER, manifest, ["m", "v"])?;
    let best = manifest.has(BEST).then(|| vectors(dir, BEST, manifest, ["params"])).transpose()?;
    let optimizer = OptimizerState { step: manifest.optimizer_step(), m, v };
    Ok((params, optimizer, best.map(|[best]| best)))
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
