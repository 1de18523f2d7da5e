//! The transforms of minimal filtering, `y = Aᵀ·((G·w) ⊙ (Bᵀ·x))`: four outputs of a filter of `R` taps from `E = R + 3` products.
//!
//! Outputs and taps are the coefficients of polynomials, which are multiplied at `E` points (Toom, 1963; Cook, 1966; as filters,
//! Winograd, 1980). The points are 0, 1, −1, ∞, and 2, −½ as far as needed: powers of two of both signs, inside and outside
//! the unit circle, keep the rounding of `f32` within twice that of the direct sum.

#![expect(clippy::needless_range_loop, reason = "loops of a constant length over arrays, which become registers")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::Simd;

/// Outputs of one application.
pub(super) const OUTPUTS: usize = 4;

/// The three matrices, `y[i] = Σ_j w[j]·x[i + j]`.
pub(super) struct Minimal<const R: usize, const E: usize> {
    /// Of the filter.
    pub g: [[f32; R]; E],
    /// Of the inputs.
    pub bt: [[f32; E]; E],
    /// Of the products.
    pub at: [[f32; E]; OUTPUTS],
}

pub(super) const TWO: Minimal<2, 5> = Minimal {
    g: [[0.5, 0.0], [0.5, 0.5], [1.0 / 6.0, -1.0 / 6.0], [1.0 / 6.0, 1.0 / 3.0], [0.0, 1.0]],
    bt: [
        [2.0, -1.0, -2.0, 1.0, 0.0],
        [0.0, 2.0, 1.0, -1.0, 0.0],
        [0.0, -2.0, 3.0, -1.0, 0.0],
        [0.0, -1.0, 0.0, 1.0, 0.0],
        [0.0, 2.0, -1.0, -2.0, 1.0],
    ],
    at: [
        [1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 2.0, 0.0],
        [0.0, 1.0, 1.0, 4.0, 0.0],
        [0.0, 1.0, -1.0, 8.0, 1.0],
    ],
};

pub(super) const THREE: Minimal<3, 6> = Minimal {
    g: [
        [0.5, 0.0, 0.0],
        [1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0],
        [1.0 / 6.0, -1.0 / 6.0, 1.0 / 6.0],
        [1.0 / 30.0, 1.0 / 15.0, 2.0 / 15.0],
        [16.0 / 15.0, -8.0 / 15.0, 4.0 / 15.0],
        [0.0, 0.0, 0.5],
    ],
    bt: [
        [2.0, 3.0, -4.0, -3.0, 2.0, 0.0],
        [0.0, 2.0, 5.0, 1.0, -2.0, 0.0],
        [0.0, 2.0, 1.0, -5.0, 2.0, 0.0],
        [0.0, -1.0, -2.0, 1.0, 2.0, 0.0],
        [0.0, -2.0, 1.0, 2.0, -1.0, 0.0],
        [0.0, 2.0, 3.0, -4.0, -3.0, 2.0],
    ],
    at: [
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 2.0, -0.5, 0.0],
        [0.0, 1.0, 1.0, 4.0, 0.25, 0.0],
        [0.0, 1.0, -1.0, 8.0, -0.125, 1.0],
    ],
};

pub(super) const FOUR: Minimal<4, 7> = Minimal {
    g: [
        [0.25, 0.0, 0.0, 0.0],
        [1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0],
        [1.0 / 18.0, -1.0 / 18.0, 1.0 / 18.0, -1.0 / 18.0],
        [1.0 / 72.0, 1.0 / 36.0, 1.0 / 18.0, 1.0 / 9.0],
        [1.0 / 120.0, -1.0 / 60.0, 1.0 / 30.0, -1.0 / 15.0],
        [32.0 / 45.0, 16.0 / 45.0, 8.0 / 45.0, 4.0 / 45.0],
        [0.0, 0.0, 0.0, 0.5],
    ],
    bt: [
        [4.0, -8.0, -5.0, 10.0, 1.0, -2.0, 0.0],
        [0.0, -4.0, 4.0, 9.0, -1.0, -2.0, 0.0],
        [0.0, -4.0, 12.0, -7.0, -3.0, 2.0, 0.0],
        [0.0, 2.0, -3.0, -4.0, 3.0, 2.0, 0.0],
        [0.0, 2.0, -5.0, 0.0, 5.0, -2.0, 0.0],
        [0.0, 4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
        [0.0, -4.0, 8.0, 5.0, -10.0, -1.0, 2.0],
    ],
    at: [
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 0.0],
        [0.0, 1.0, 1.0, 4.0, 4.0, 0.25, 0.0],
        [0.0, 1.0, -1.0, 8.0, -8.0, 0.125, 1.0],
    ],
};

/// `matrix · x`, a column in each lane.
#[inline(always)]
pub(super) fn combine<S: Simd, const I: usize, const O: usize>(
    simd: S,
    matrix: &[[f32; I]; O],
    x: [S::f32s; I],
) -> [S::f32s; O] {
    let mut sums = [simd.splat_f32s(0.0); O];
    for o in 0..O {
        for i in 0..I {
            if matrix[o][i] != 0.0 {
                sums[o] = simd.mul_add_e_f32s(simd.splat_f32s(matrix[o][i]), x[i], sums[o]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters<const R: usize, const E: usize>(minimal: &Minimal<R, E>) {
        let wide = |value: f32| f64::from(value);
        for tap in 0..R {
            for input in 0..E {
                for output in 0..OUTPUTS {
                    let through = (0..E).map(|e| {
                        wide(minimal.at[output][e]) * wide(minimal.g[e][tap]) * wide(minimal.bt[e][input])
                    });
                    let expected = f64::from(u8::from(output + tap == input));
                    assert!((through.sum::<f64>() - expected).abs() < 2e-6, "{output} {tap} {input}");
                }
            }
        }
    }

    #[test]
    fn the_matrices_filter() {
        filters(&TWO);
        filters(&THREE);
        filters(&FOUR);
    }
}
