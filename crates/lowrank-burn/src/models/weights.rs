//! The weights of a network, in and out of safetensors files under `PyTorch`'s names and layouts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use lowrank::adapter::tensor::Tensor as Stored;
use lowrank::files::Checkpoint;
use lowrank::float::FloatType;
use lowrank::weight_norm::{Lengths, names};
use lowrank::{Error, Result, Subject, suggest};

use super::dtype::{Dtype, encode};
use crate::attach::transpose;
use crate::survey::Survey;
use crate::values;

/// The network with the weights of a checkpoint.
///
/// A weight that the checkpoint holds in the form of weight normalisation, old (`weight_g`, `weight_v`) or new
/// (`parametrizations.weight.original0`, `.original1`), is folded. `dtype` is the type in which weights are held while they are
/// frozen.
///
/// # Errors
/// All tensors that are missing, of another shape, not floating point, not finite, too large for `dtype`, or left over, at
/// once.
pub fn load<M: Module>(network: M, checkpoint: &Checkpoint, dtype: Dtype) -> Result<M> {
    let survey = Survey::of(&network)?;
    let mut unused: BTreeSet<&str> = checkpoint.names().collect();
    let mut errors = Vec::new();
    let mut loaded = HashMap::new();
    for (site, param) in survey.params() {
        let (key, shape) = (site.key(param), param.torch_shape());
        let read = Reader { checkpoint, unused: &mut unused }.read(&key, &shape);
        let data = read.and_then(|(values, stored)| {
            let values = transpose(values, &shape, param.transposed);
            encode(&values, &param.shape, dtype.held(site, param, stored)).map_err(|error| error.at(&key))
        });
        match data {
            Ok(data) => {
                loaded.insert(param.id, data);
            }
            Err(error) => errors.push(error),
        }
    }
    errors
        .extend(unused.into_iter().map(|name| Error::new(Subject::Model, "no such parameter in the network").at(name)));
    Error::all(errors)?;
    Ok(network.map(&mut Loader { loaded }))
}

/// The weights of a network as tensors, in single precision.
///
/// # Errors
/// When a parameter carries a reparameterization; materialise the network first.
pub fn save<M: Module>(network: &M) -> Result<BTreeMap<String, Stored>> {
    let survey = Survey::of(network)?;
    let ids: Vec<ParamId> = survey.params().map(|(_, param)| param.id).collect();
    let mut values = values::read(network, &ids);
    let tensors = survey.params().map(|(site, param)| {
        let own = values.remove(&param.id).unwrap_or_default();
        let own = transpose(own, &param.shape, param.transposed);
        Ok((site.key(param), Stored::from_values(FloatType::F32, param.torch_shape(), &own)?))
    });
    tensors.collect()
}

/// Puts tensors in the place of parameters.
struct Loader {
    loaded: HashMap<ParamId, TensorData>,
}

impl ModuleMapper for Loader {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(data) = self.loaded.remove(&param.id) else { return param };
        param.map(|tensor| {
            let options = (&tensor.device(), data.dtype());
            Tensor::from_data(data, options).set_require_grad(tensor.is_require_grad())
        })
    }
}

struct Reader<'a, 'b> {
    checkpoint: &'b Checkpoint,
    unused: &'a mut BTreeSet<&'b str>,
}

impl Reader<'_, '_> {
    /// The values, and the type they have in the checkpoint.
    fn read(&mut self, key: &str, shape: &[usize]) -> Result<(Vec<f32>, FloatType)> {
        if self.checkpoint.get(key).is_some() {
            return self.values(key, shape);
        }
        for [g, v] in names(key) {
            let (Some(info), true) = (self.checkpoint.get(&g), self.checkpoint.get(&v).is_some()) else { continue };
            // The axis that the lengths are along is the one their shape says, which has to fit.
            let along = info.shape.clone();
            let Some(lengths) = Lengths::of(&along, shape) else {
                return Err(Error::new(Subject::Model, "the lengths of weight normalisation do not fit")
                    .at(&g)
                    .found(format!("{along:?}"))
                    .expected(format!("the length of one axis of {shape:?}, and ones")));
            };
            let ((g, _), (v, stored)) = (self.values(&g, &along)?, self.values(&v, shape)?);
            let [g, v] = [g, v].map(|values| values.into_iter().map(f64::from).collect::<Vec<_>>());
            #[expect(clippy::cast_possible_truncation, reason = "the weight is held in single precision")]
            let folded = lengths.fold(&g, &v).into_iter().map(|value| value as f32).collect();
            return Ok((folded, stored));
        }
        let error =
            Error::new(Subject::Model, "missing from the checkpoint").at(key).expected(format!("shape {shape:?}"));
        Err(match suggest::nearest(key, self.checkpoint.names()) {
            Some(near) => error.with_hint(format!("the nearest tensor there is `{near}`")),
            None => error,
        })
    }

    fn values(&mut self, key: &str, shape: &[usize]) -> Result<(Vec<f32>, FloatType)> {
        self.unused.remove(key);
        let tensor = self.checkpoint.read(key)?;
        if tensor.shape() != shape {
            return Err(Error::new(Subject::Model, "wrong shape")
                .at(key)
                .found(format!("{:?}", tensor.shape()))
                .expected(format!("{shape:?}")));
        }
        let (values, stored) = tensor.values().zip(tensor.float()).ok_or_else(|| {
            Error::new(Subject::Model, "not a floating-point tensor").at(key).found(format!("{:?}", tensor.dtype()))
        })?;
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(Error::new(Subject::Model, "not finite").at(key).found(value)),
            None => Ok((values, stored)),
        }
    }
}
