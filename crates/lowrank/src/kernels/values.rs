//! Frozen weights in the precision the model holds them in.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// The values of a frozen weight, in the type the model holds them in.
///
/// Kernels compute in `f32`. Half precision is unpacked part by part on the way, never as a whole: the results have the bits
/// that the unpacked weight gives.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Half precision.
    F16(&'a [f16]),
    /// Brain floating point.
    Bf16(&'a [bf16]),
}

impl<'a> Values<'a> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// The values themselves, where they are `f32`.
    #[inline(always)]
    pub(super) fn in_place(self) -> Option<&'a [f32]> {
        match self {
            Self::F32(values) => Some(values),
            Self::F16(_) | Self::Bf16(_) => None,
        }
    }

    /// Writes the values from `start` on as `f32`.
    #[inline(always)]
    pub(super) fn unpack(self, start: usize, to: &mut [f32]) {
        let place = start..start + to.len();
        match self {
            Self::F32(values) => to.copy_from_slice(&values[place]),
            Self::F16(values) => values[place].convert_to_f32_slice(to),
            Self::Bf16(values) => {
                for (to, value) in to.iter_mut().zip(&values[place]) {
                    *to = f32::from_bits(u32::from(value.to_bits()) << 16);
                }
            }
        }
    }
}
