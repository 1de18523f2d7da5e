//! Floats as sums of three bfloat16, in the order of tiles.
//!
//! The first part of a float has its sign, exponent and eight bits of its significand, the second the next eight of what is
//! left, the third the rest: 24 bits, all there are.
//!
//! A block of a panel holds the first parts of its two tiles, then the second and the third. A tile of the left factor has a
//! row of 32 steps for each of its rows; one of the right factor has a row for each pair of steps, with both values of a
//! column side by side. What is not there is zero.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::Simd;
use pulp::bytemuck::cast_slice;

use super::super::gemm::Matrix;
use super::super::lanes::Lanes;
use super::{BLOCK, PANEL, PARTS, STEPS, TILE};

/// The upper half of the bits of a float.
const UPPER: u32 = 0xffff_0000;
/// Values of a tile.
const VALUES: usize = TILE * STEPS;

/// The parts of a value, each in the upper half of its bits.
#[inline(always)]
fn split(value: f32) -> [u32; PARTS] {
    let first = value.to_bits() & UPPER;
    let left = value - f32::from_bits(first);
    let second = left.to_bits() & UPPER;
    let third = left - f32::from_bits(second);
    [first, second, third.to_bits() & UPPER]
}

/// The parts of values of even and odd steps, side by side.
#[inline(always)]
fn pairs(even: &[f32; TILE], odd: &[f32; TILE]) -> [[u32; TILE]; PARTS] {
    let mut parts = [[0; TILE]; PARTS];
    for at in 0..TILE {
        let (even, odd) = (split(even[at]), split(odd[at]));
        for part in 0..PARTS {
            parts[part][at] = even[part] >> 16 | odd[part];
        }
    }
    parts
}

/// Packs a matrix with contiguous rows, panel by panel, each as many blocks as its columns take.
#[inline(always)]
pub fn pack_left<S: Simd>(simd: S, matrix: Matrix<'_, f32>, panels: &mut [u16]) {
    debug_assert_eq!(matrix.column_stride, 1);
    let blocks = matrix.columns.div_ceil(STEPS);
    for (index, block) in panels.chunks_exact_mut(BLOCK).enumerate() {
        let (first_row, step) = (index / blocks * PANEL, index % blocks * STEPS);
        let count = STEPS.min(matrix.columns - step);
        for row in 0..PANEL {
            let mut values = [0.0; STEPS];
            if first_row + row < matrix.rows {
                let from = &matrix.data[(first_row + row) * matrix.row_stride + step..][..count];
                // Register by register: a copy of what may be a part of a block would be a call.
                for at in (0..count).step_by(S::F32_LANES) {
                    Lanes::load(simd, &from[at..]).store(&mut values[at..at + S::F32_LANES]);
                }
            }
            let [mut even, mut odd] = [[0.0; TILE]; 2];
            for (pair, values) in values.as_chunks().0.iter().enumerate() {
                [even[pair], odd[pair]] = *values;
            }
            for (part, pairs) in pairs(&even, &odd).iter().enumerate() {
                block[part * 2 * VALUES + row * STEPS..][..STEPS].copy_from_slice(cast_slice(pairs));
            }
        }
    }
}

/// Packs two panels of the right factor from a strip: rows of as many columns, one for each step.
#[inline(always)]
pub fn pack_right(strip: &[f32], panels: &mut [u16]) {
    let (rows, _) = strip.as_chunks::<{ 2 * PANEL }>();
    let size = panels.len() / 2;
    for (index, rows) in rows.chunks(STEPS).enumerate() {
        for (panel, panels) in panels.chunks_exact_mut(size).enumerate() {
            let block = &mut panels[index * BLOCK..][..BLOCK];
            for pair in 0..STEPS / 2 {
                for tile in 0..2 {
                    let column = panel * PANEL + tile * TILE;
                    let [mut even, mut odd] = [[0.0; TILE]; 2];
                    for (values, step) in [(&mut even, 2 * pair), (&mut odd, 2 * pair + 1)] {
                        if step < rows.len() {
                            values.copy_from_slice(&rows[step][column..column + TILE]);
                        }
                    }
                    for (part, pairs) in pairs(&even, &odd).iter().enumerate() {
                        let at = (part * 2 + tile) * VALUES + pair * STEPS;
                        block[at..at + STEPS].copy_from_slice(cast_slice(pairs));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_parts_of_a_float_are_the_float(value in prop::num::f32::NORMAL) {
            prop_assume!(value.abs() > 1e-33);
            let sum: f64 = split(value).iter().map(|bits| f64::from(f32::from_bits(*bits))).sum();
            prop_assert_eq!(sum.to_bits(), f64::from(value).to_bits(), "{:e}", value);
        }
    }
}
