//! Frozen weights in the precision the model holds them in.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

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
            Self::F16(values) => {
                to.iter_mut().zip(&values[place]).for_each(|(to, value)| *to = from_f16(value.to_bits()));
            }
            Self::Bf16(values) => {
                to.iter_mut().zip(&values[place]).for_each(|(to, value)| *to = from_bf16(value.to_bits()));
            }
        }
    }
}

/// The value of a [`bf16`]: the upper half of an `f32`.
#[inline(always)]
fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The value of an [`f16`], without branches, so that a loop takes several at a time; the `half` crate's calls take eight, and
/// cost more than the product where there are few rows.
#[inline(always)]
fn from_f16(bits: u16) -> f32 {
    /// The exponent of an infinity, before it is moved to that of an `f32`; and the way there.
    const LAST: u32 = 0x1f << 23;
    const SHIFT: u32 = (127 - 15) << 23;
    /// The smallest normal number, 2⁻¹⁴.
    const SMALLEST: u32 = SHIFT + (1 << 23);
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let normal = magnitude + if magnitude >= LAST { 2 * SHIFT } else { SHIFT };
    // Below it, multiples of 2⁻²⁴: read as what is beyond the smallest.
    let subnormal = f32::from_bits(magnitude + SMALLEST) - f32::from_bits(SMALLEST);
    let value = if magnitude < 1 << 23 { subnormal.to_bits() } else { normal };
    f32::from_bits(value | u32::from(bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_half_precision_is_exact() {
        let f16: Vec<_> = (0..=u16::MAX).map(f16::from_bits).collect();
        let bf16: Vec<_> = (0..=u16::MAX).map(bf16::from_bits).collect();
        let exact = [f16.iter().map(|v| v.to_f32()).collect::<Vec<_>>(), bf16.iter().map(|v| v.to_f32()).collect()];
        for (values, exact) in [Values::F16(&f16), Values::Bf16(&bf16)].into_iter().zip(exact) {
            let mut unpacked = vec![0.0; exact.len()];
            values.unpack(0, &mut unpacked);
            for (got, exact) in unpacked.iter().zip(&exact) {
                assert!(got.to_bits() == exact.to_bits() || got.is_nan() && exact.is_nan(), "{got} instead of {exact}");
            }
        }
    }
}
