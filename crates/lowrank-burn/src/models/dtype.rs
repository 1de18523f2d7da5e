//! The type in which frozen weights are held.

use burn::tensor::{DType, TensorData};
use lowrank::float::FloatType;
use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};

use crate::survey::{ModuleSite, ParamSite};

/// The type in which the weights of [`crate::nn::Conv1d`], [`crate::nn::Linear`] and [`crate::nn::HfConv1D`] are held while
/// they are frozen: transformers' `dtype`.
///
/// Half precision takes half the memory. The kernels unpack it part by part and compute in single precision, so an adapter
/// trains to the bits that it would on the same values in `f32`. Everything else is in single precision: norms, biases,
/// other layers, and all that trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Single precision.
    #[default]
    Float32,
    /// Brain floating point: the range of single precision, 8 bits of accuracy.
    Bfloat16,
    /// Half precision: up to 65504, 11 bits of accuracy.
    Float16,
    /// The type that a weight has in the checkpoint; single precision for double.
    Auto,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Float32, Self::Bfloat16, Self::Float16];

    /// The name that `PyTorch` and transformers have for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
            Self::Auto => "auto",
        }
    }

    /// The type of a parameter that a checkpoint has in the type `stored`.
    pub(super) fn held(self, site: &ModuleSite, param: &ParamSite, stored: FloatType) -> FloatType {
        let class = matches!(site.class.as_str(), "Conv1d" | "Linear" | "HfConv1D");
        let can_be_half = site.fused && param.name == "weight" && class;
        match (self, stored) {
            _ if !can_be_half => FloatType::F32,
            (Self::Bfloat16, _) | (Self::Auto, FloatType::Bf16) => FloatType::Bf16,
            (Self::Float16, _) | (Self::Auto, FloatType::F16) => FloatType::F16,
            (Self::Float32, _) | (Self::Auto, FloatType::F32 | FloatType::F64) => FloatType::F32,
        }
    }
}

/// Finite values in a type.
///
/// # Errors
/// When one is too large for it.
pub(super) fn encode(values: &[f32], shape: &[usize], float: FloatType) -> Result<TensorData> {
    let (dtype, name) = match float {
        FloatType::F16 => (DType::F16, "float16"),
        FloatType::Bf16 => (DType::BF16, "bfloat16"),
        FloatType::F32 | FloatType::F64 => return Ok(TensorData::new(values.to_vec(), shape)),
    };
    let bytes = float.encode(values);
    match float.decode(&bytes).iter().position(|value| !value.is_finite()) {
        Some(at) => Err(Error::new(Subject::Model, format!("too large for {name}"))
            .found(values[at])
            .with_hint("load it with dtype \"float32\"")),
        None => Ok(TensorData::from_bytes_vec(bytes, shape, dtype)),
    }
}
