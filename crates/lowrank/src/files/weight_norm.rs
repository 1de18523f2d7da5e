//! Weights that a checkpoint holds with weight normalisation.

use super::checkpoint::Checkpoint;
use crate::adapter::tensor::{Dtype, Tensor, float_type};
use crate::error::{Error, Result, Subject};
use crate::float::FloatType;
use crate::weight_norm::{Lengths, names, weight_of};

/// A weight in the form `g · v / |v|`, by the names of the two.
#[derive(Debug, Clone)]
pub(super) struct Normed {
    pub g: String,
    pub v: String,
    pub g_shape: Vec<usize>,
    /// The shape of `v`, and of the weight.
    pub shape: Vec<usize>,
    /// The type of `v`.
    pub dtype: Dtype,
    lengths: Lengths,
}

impl Normed {
    /// The weight `name` of a checkpoint that has no tensor of that name, but its `g` and `v`.
    ///
    /// # Errors
    /// When the two do not belong together.
    pub fn find(base: &Checkpoint, name: &str) -> Result<Option<Self>> {
        if base.get(name).is_some() {
            return Ok(None);
        }
        for [g, v] in names(name) {
            let (Some(length), Some(direction)) = (base.get(&g), base.get(&v)) else { continue };
            let Some(lengths) = Lengths::of(&length.shape, &direction.shape) else {
                return Err(Error::new(Subject::Model, "the lengths of weight normalisation do not fit its direction")
                    .at(format_args!("tensor `{g}`"))
                    .found(format!("{:?} for `{v}` {:?}", length.shape, direction.shape))
                    .expected("the length of one axis, and ones"));
            };
            let (g_shape, shape, dtype) = (length.shape.clone(), direction.shape.clone(), direction.dtype);
            return Ok(Some(Self { g, v, g_shape, shape, dtype, lengths }));
        }
        Ok(None)
    }

    /// The name that the weight has without weight normalisation.
    pub fn weight(&self) -> String {
        weight_of(&self.v).unwrap_or_default()
    }

    /// The folded weight, in single precision but for a `v` in double.
    ///
    /// # Errors
    /// When the two are not floating point.
    pub fn fold(&self, g: &Tensor, v: &Tensor) -> Result<Tensor> {
        of_values(self.float(), self.shape.clone(), &self.lengths.fold(&wide(g)?, &wide(v)?))
    }

    /// The type that the weight is folded in.
    pub fn float(&self) -> FloatType {
        if self.dtype == Dtype::F64 { FloatType::F64 } else { FloatType::F32 }
    }

    /// The `g` of a weight, in the type `dtype`.
    ///
    /// # Errors
    /// When a type is not floating point.
    pub fn lengths_of(&self, weight: &Tensor, dtype: Dtype) -> Result<Tensor> {
        of_values(floating(dtype)?, self.g_shape.clone(), &self.lengths.measure(&wide(weight)?))
    }

    /// The `v` of a weight, in the type of the one it had. What has no length keeps its direction, which `g` makes zero.
    ///
    /// # Errors
    /// When a type is not floating point.
    pub fn direction_of(&self, weight: &Tensor, before: &Tensor) -> Result<Tensor> {
        let (mut values, before) = (wide(weight)?, wide(before)?);
        let lengths = self.lengths.measure(&values);
        for (at, value) in values.iter_mut().enumerate() {
            if lengths[self.lengths.at(at)] == 0.0 {
                *value = before[at];
            }
        }
        of_values(floating(self.dtype)?, self.shape.clone(), &values)
    }
}

/// A folded weight in the type of its `v`.
///
/// # Errors
/// When the type is not floating point, or a value is too large for it.
pub(super) fn narrowed(weight: &Tensor, dtype: Dtype) -> Result<Tensor> {
    of_values(floating(dtype)?, weight.shape().to_vec(), &wide(weight)?)
}

fn floating(dtype: Dtype) -> Result<FloatType> {
    float_type(dtype).ok_or_else(|| {
        Error::new(Subject::Merge, "weight normalisation is not floating point")
            .found(dtype)
            .expected("F32 or the like")
    })
}

fn wide(tensor: &Tensor) -> Result<Vec<f64>> {
    match floating(tensor.dtype())? {
        FloatType::F64 => Ok(tensor.data().as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()),
        float => Ok(float.decode(tensor.data()).into_iter().map(f64::from).collect()),
    }
}

fn of_values(float: FloatType, shape: Vec<usize>, values: &[f64]) -> Result<Tensor> {
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(Error::new(Subject::Merge, "a weight with weight normalisation is not finite")
            .found(value)
            .with_hint("is there a direction of zeros in the base?"));
    }
    if float == FloatType::F64 {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        return Tensor::new(Dtype::F64, shape, bytes);
    }
    #[expect(clippy::cast_possible_truncation, reason = "stored in single precision or less")]
    let narrow: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    let tensor = Tensor::from_values(float, shape, &narrow)?;
    if tensor.non_finite() > 0 {
        return Err(Error::new(Subject::Merge, format!("a weight is too large for {}", float.name()))
            .with_hint("merge into a base converted to a type with a larger range"));
    }
    Ok(tensor)
}
