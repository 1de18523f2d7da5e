//! One stored tensor: its type, its shape and its bytes as the file has them.

pub use safetensors::Dtype;

use crate::error::{Error, Result, Subject};
use crate::float::FloatType;

/// A tensor in row-major order, little endian, owning its bytes.
///
/// Any type a safetensors file can hold is carried; only the four of [`FloatType`] can be computed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Tensor {
    /// A tensor of `shape` from its bytes.
    ///
    /// # Errors
    /// When `data` is not as long as the type and the shape ask for.
    pub fn new(dtype: Dtype, shape: Vec<usize>, data: Vec<u8>) -> Result<Self> {
        match byte_len(dtype, &shape) {
            Some(expected) if expected == data.len() => Ok(Self { dtype, shape, data }),
            expected => Err(Error::new(Subject::Adapter, format!("wrong number of bytes for {dtype} {shape:?}"))
                .found(data.len())
                .expected(expected.map_or("a size that can be addressed".to_owned(), |size| size.to_string()))),
        }
    }

    /// A tensor of `values`, rounded to `float`.
    ///
    /// # Errors
    /// When the shape does not hold as many values.
    pub fn from_values(float: FloatType, shape: Vec<usize>, values: &[f32]) -> Result<Self> {
        Self::new(stored(float), shape, float.encode(values))
    }

    /// The stored type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The bytes, little endian.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The bytes, little endian, by value.
    #[must_use]
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// The floating-point type, or `None` for anything else.
    #[must_use]
    pub fn float(&self) -> Option<FloatType> {
        float_type(self.dtype)
    }

    /// The values as `f32`, or `None` when the type is not one of [`FloatType`].
    #[must_use]
    pub fn values(&self) -> Option<Vec<f32>> {
        self.float().map(|float| float.decode(&self.data))
    }

    /// How many values are NaN or infinite; none in a tensor that is not of a [`FloatType`].
    #[must_use]
    pub fn non_finite(&self) -> usize {
        // F64 is looked at in its own width: a value beyond f32's range is large, not infinite.
        match self.float() {
            Some(FloatType::F64) => {
                self.data.as_chunks().0.iter().filter(|bytes| !f64::from_le_bytes(**bytes).is_finite()).count()
            }
            Some(float) => {
                let chunk = float.size() * 4096;
                let not_finite = |bytes| float.decode(bytes).iter().filter(|value| !value.is_finite()).count();
                self.data.chunks(chunk).map(not_finite).sum()
            }
            None => 0,
        }
    }

    /// Whether every byte is zero, which for the types of [`FloatType`] means that every value is `+0`.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.data.iter().all(|byte| *byte == 0)
    }
}

/// The type `dtype` is computed with, or `None` for integers, eight-bit floats and the like.
#[must_use]
pub fn float_type(dtype: Dtype) -> Option<FloatType> {
    match dtype {
        Dtype::F64 => Some(FloatType::F64),
        Dtype::F32 => Some(FloatType::F32),
        Dtype::F16 => Some(FloatType::F16),
        Dtype::BF16 => Some(FloatType::Bf16),
        _ => None,
    }
}

/// The stored type of `float`.
#[must_use]
pub fn stored(float: FloatType) -> Dtype {
    match float {
        FloatType::F64 => Dtype::F64,
        FloatType::F32 => Dtype::F32,
        FloatType::F16 => Dtype::F16,
        FloatType::Bf16 => Dtype::BF16,
    }
}

/// Bytes a tensor takes; `None` when that cannot be addressed, or is not a whole number of bytes.
#[must_use]
pub fn byte_len(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let elements = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))?;
    let bits = elements.checked_mul(dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_must_fit_the_shape() {
        assert!(Tensor::new(Dtype::F32, vec![2, 3], vec![0; 24]).is_ok());
        assert!(Tensor::new(Dtype::F32, vec![], vec![0; 4]).is_ok());
        let error = Tensor::new(Dtype::F32, vec![2, 3], vec![0; 23]).unwrap_err();
        assert_eq!(error.to_string(), "wrong number of bytes for F32 [2, 3]: found 23, expected 24");
        assert!(Tensor::new(Dtype::F64, vec![usize::MAX, 2], vec![]).is_err());
    }

    #[test]
    fn sizes_that_cannot_be_addressed_have_no_length() {
        assert_eq!(byte_len(Dtype::F32, &[usize::MAX, 2]), None);
        assert_eq!(byte_len(Dtype::F64, &[usize::MAX / 4]), None);
        assert_eq!(byte_len(Dtype::F4, &[3]), None);
        assert_eq!(byte_len(Dtype::F4, &[4]), Some(2));
        assert_eq!(byte_len(Dtype::I64, &[0, usize::MAX]), Some(0));
    }

    #[test]
    fn non_finite_values_are_counted_in_every_type() {
        for float in [FloatType::F64, FloatType::F32, FloatType::F16, FloatType::Bf16] {
            let values = [1.0, f32::NAN, f32::INFINITY, 0.0, f32::NEG_INFINITY];
            assert_eq!(Tensor::from_values(float, vec![5], &values).unwrap().non_finite(), 3, "{}", float.name());
        }
        let large = Tensor::new(Dtype::F64, vec![1], 1e300_f64.to_le_bytes().to_vec()).unwrap();
        assert_eq!(large.non_finite(), 0);
        assert_eq!(Tensor::new(Dtype::I64, vec![1], vec![255; 8]).unwrap().non_finite(), 0);
    }
}
