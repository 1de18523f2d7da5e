//! The weights of a network, in and out of safetensors files under `PyTorch`'s names and layouts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use burn::module::{Module, ParamId};
use lowrank::adapter::tensor::Tensor;
use lowrank::files::Checkpoint;
use lowrank::float::FloatType;
use lowrank::{Error, Result, Subject, suggest};

use super::weight_norm;
use crate::attach::transpose;
use crate::survey::Survey;
use crate::values;

/// The network with the weights of a checkpoint.
///
/// A weight that the checkpoint holds in the form of weight normalisation, old (`weight_g`, `weight_v`) or new
/// (`parametrizations.weight.original0`, `.original1`), is folded.
///
/// # Errors
/// All tensors that are missing, of another shape, not floating point, not finite, or left over, at once.
pub fn load<M: Module>(network: M, checkpoint: &Checkpoint) -> Result<M> {
    let survey = Survey::of(&network)?;
    let mut unused: BTreeSet<&str> = checkpoint.names().collect();
    let mut errors = Vec::new();
    let mut loaded: HashMap<ParamId, Vec<f32>> = HashMap::new();
    for (site, param) in survey.params() {
        let read = Reader { checkpoint, unused: &mut unused }.read(&site.key(param), &param.torch_shape());
        match read {
            Ok(values) => {
                loaded.insert(param.id, transpose(values, &param.torch_shape(), param.transposed));
            }
            Err(error) => errors.push(error),
        }
    }
    errors
        .extend(unused.into_iter().map(|name| Error::new(Subject::Model, "no such parameter in the network").at(name)));
    Error::all(errors)?;
    Ok(values::write(network, loaded))
}

/// The weights of a network as tensors, in single precision.
///
/// # Errors
/// When a parameter carries a reparameterization; materialise the network first.
pub fn save<M: Module>(network: &M) -> Result<BTreeMap<String, Tensor>> {
    let survey = Survey::of(network)?;
    let ids: Vec<ParamId> = survey.params().map(|(_, param)| param.id).collect();
    let mut values = values::read(network, &ids);
    let tensors = survey.params().map(|(site, param)| {
        let own = values.remove(&param.id).unwrap_or_default();
        let own = transpose(own, &param.shape, param.transposed);
        Ok((site.key(param), Tensor::from_values(FloatType::F32, param.torch_shape(), &own)?))
    });
    tensors.collect()
}

struct Reader<'a, 'b> {
    checkpoint: &'b Checkpoint,
    unused: &'a mut BTreeSet<&'b str>,
}

impl Reader<'_, '_> {
    fn read(&mut self, key: &str, shape: &[usize]) -> Result<Vec<f32>> {
        if self.checkpoint.get(key).is_some() {
            return self.values(key, shape);
        }
        let module = key.strip_suffix("weight").unwrap_or(key);
        let forms = [
            (format!("{module}weight_g"), format!("{module}weight_v")),
            (
                format!("{module}parametrizations.weight.original0"),
                format!("{module}parametrizations.weight.original1"),
            ),
        ];
        for (g, v) in forms {
            if self.checkpoint.get(&g).is_some() && self.checkpoint.get(&v).is_some() {
                let mut lengths = vec![1; shape.len()];
                lengths[0] = shape[0];
                return Ok(weight_norm::fold(&self.values(&g, &lengths)?, &self.values(&v, shape)?));
            }
        }
        let error =
            Error::new(Subject::Model, "missing from the checkpoint").at(key).expected(format!("shape {shape:?}"));
        Err(match suggest::nearest(key, self.checkpoint.names()) {
            Some(near) => error.with_hint(format!("the nearest tensor there is `{near}`")),
            None => error,
        })
    }

    fn values(&mut self, key: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.unused.remove(key);
        let tensor = self.checkpoint.read(key)?;
        if tensor.shape() != shape {
            return Err(Error::new(Subject::Model, "wrong shape")
                .at(key)
                .found(format!("{:?}", tensor.shape()))
                .expected(format!("{shape:?}")));
        }
        let values = tensor.values().ok_or_else(|| {
            Error::new(Subject::Model, "not a floating-point tensor").at(key).found(format!("{:?}", tensor.dtype()))
        })?;
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(Error::new(Subject::Model, "not finite").at(key).found(value)),
            None => Ok(values),
        }
    }
}
