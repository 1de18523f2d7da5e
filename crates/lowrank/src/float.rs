//! The floating-point types a checkpoint stores, and their way through `f32`, in which everything is computed.

use half::{bf16, f16};

/// A stored floating-point type, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// IEEE double precision.
    F64,
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// Brain float: the upper half of an `f32`.
    Bf16,
}

impl FloatType {
    /// Bytes a value takes.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name safetensors files use: `F64`, `F32`, `F16`, `BF16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// Relative distance between neighbouring values.
    #[must_use]
    pub fn epsilon(self) -> f64 {
        match self {
            Self::F64 => f64::EPSILON,
            Self::F32 => f64::from(f32::EPSILON),
            Self::F16 => f64::from(f16::EPSILON),
            Self::Bf16 => f64::from(bf16::EPSILON),
        }
    }

    /// Values from little-endian bytes; bytes past the last whole value are left out. `F64` is rounded to `f32`.
    #[must_use]
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what the function does")]
            Self::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
            Self::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Self::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Self::Bf16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        }
    }

    /// Little-endian bytes of `values`, rounded to nearest even; what is too large for the type becomes infinite.
    #[must_use]
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        fn bytes<const N: usize>(values: &[f32], encode: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
            values.iter().map(|value| encode(*value)).collect::<Vec<_>>().into_flattened()
        }
        match self {
            Self::F64 => bytes(values, |value| f64::from(value).to_le_bytes()),
            Self::F32 => bytes(values, f32::to_le_bytes),
            Self::F16 => bytes(values, |value| f16::from_f32(value).to_le_bytes()),
            Self::Bf16 => bytes(values, |value| bf16::from_f32(value).to_le_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_round_trip() {
        let values = [0.0, -1.5, 65504.0, 0.25];
        for float in [FloatType::F64, FloatType::F32, FloatType::F16] {
            assert_eq!(float.decode(&float.encode(&values)), values, "{}", float.name());
        }
        assert_eq!(FloatType::Bf16.decode(&FloatType::Bf16.encode(&[1.0, -0.5])), [1.0, -0.5]);
    }

    #[test]
    fn what_does_not_fit_half_precision_is_infinite() {
        assert_eq!(FloatType::F16.decode(&FloatType::F16.encode(&[1e6])), [f32::INFINITY]);
    }
}
