//! Parameter values as plain numbers, in and out of a model, by identity.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Tensor, TensorData};

/// Values by parameter.
pub type Values = HashMap<ParamId, Vec<f32>>;

/// The values of the given parameters, row-major, as `f32`; adapters' factors included.
#[must_use]
pub fn read<M: Module>(model: &M, ids: &[ParamId]) -> Values {
    let mut reader = Reader { wanted: ids.iter().map(|id| (*id, Vec::new())).collect() };
    model.visit(&mut reader);
    reader.wanted
}

/// The model with other values in the given parameters; shapes, identities and gradient settings stay.
///
/// # Panics
/// When a parameter has another number of values.
#[must_use]
pub fn write<M: Module>(model: M, values: Values) -> M {
    model.map(&mut Writer { values })
}

/// The values of a tensor as `f32`.
#[must_use]
pub fn of<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.cast(DType::F32).into_data();
    data.try_to_vec().unwrap_or_default()
}

/// The model with every parameter in single precision, in which parameters train.
pub(crate) fn single<M: Module>(model: M) -> M {
    model.map(&mut Single)
}

struct Single;

impl ModuleMapper for Single {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if param.base().dtype() == DType::F32 {
            return param;
        }
        param.map(|tensor| {
            let trains = tensor.is_require_grad();
            tensor.cast(DType::F32).detach().set_require_grad(trains)
        })
    }
}

struct Reader {
    wanted: Values,
}

impl ModuleVisitor for Reader {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(values) = self.wanted.get_mut(&param.id) {
            *values = of(param.base());
        }
    }
}

struct Writer {
    values: Values,
}

impl ModuleMapper for Writer {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(values) = self.values.remove(&param.id) else { return param };
        param.map(|tensor| {
            let data = TensorData::new(values, tensor.shape());
            let value = Tensor::<D>::from_data(data, &tensor.device()).cast(tensor.dtype());
            value.set_require_grad(tensor.is_require_grad())
        })
    }
}
