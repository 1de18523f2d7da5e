//! The transforms of minimal filtering, `y = Aᵀ·((G·w) ⊙ (Bᵀ·x))`: four outputs of a filter of `R` taps from `E = R + 3` products.
//!
//! Outputs and taps are the coefficients of polynomials, which are multiplied at `E` points (Toom, 1963; Cook, 1966; as filters,
//! Winograd, 1980). The points are 0, ±1, ±2, and ∞ or ±½: in pairs, which halves the transforms, and small powers of two, which
//! keep the rounding of `f32` within twice that of the direct sum.

#![expect(clippy::needless_range_loop, reason = "loops of a constant length over arrays, which become registers")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::Simd;

/// Outputs of one application.
pub(super) const OUTPUTS: usize = 4;

/// Filtering `y[i] = Σ_j w[j]·x[i + j]` by `R` taps with `E` products.
///
/// The matrices are constants of a type, so that the compiler writes their factors into the transforms.
pub(super) trait Minimal<const R: usize, const E: usize> {
    /// `G`, of the filter.
    const G: [[f32; R]; E];
    /// `Bᵀ`, of the inputs.
    const BT: [[f32; E]; E];
    /// `Aᵀ`, of the products.
    const AT: [[f32; E]; OUTPUTS];

    /// `Bᵀ` with the even and the odd part of each pair of points `±p` in place of their rows: `(row ± next) / 2`.
    const INPUTS: [[f32; E]; E] = even_and_odd(Self::BT);
    /// `Aᵀ` for the sum and the difference of each pair of products.
    const OUTPUTS: [[f32; E]; OUTPUTS] = sums_and_differences(Self::AT);

    /// `Bᵀ·x`.
    #[inline(always)]
    fn inputs<S: Simd>(simd: S, x: &[S::f32s; E]) -> [S::f32s; E] {
        let mut values = [simd.splat_f32s(0.0); E];
        for e in 0..E {
            values[e] = sum(simd, &Self::INPUTS[e], x);
        }
        paired(simd, &mut values);
        values
    }

    /// `Aᵀ·products`.
    #[inline(always)]
    fn outputs<S: Simd>(simd: S, mut products: [S::f32s; E]) -> [S::f32s; OUTPUTS] {
        paired(simd, &mut products);
        let mut outputs = [simd.splat_f32s(0.0); OUTPUTS];
        for i in 0..OUTPUTS {
            outputs[i] = sum(simd, &Self::OUTPUTS[i], &products);
        }
        outputs
    }
}

/// Two taps.
pub(super) struct Two;

impl Minimal<2, 5> for Two {
    const G: [[f32; 2]; 5] = [
        [0.25, 0.0],
        [1.0 / 6.0, 1.0 / 6.0],
        [1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0],
        [1.0 / 24.0, -1.0 / 12.0],
    ];
    const BT: [[f32; 5]; 5] = [
        [4.0, 0.0, -5.0, 0.0, 1.0],
        [0.0, 4.0, 4.0, -1.0, -1.0],
        [0.0, -4.0, 4.0, 1.0, -1.0],
        [0.0, -2.0, -1.0, 2.0, 1.0],
        [0.0, 2.0, -1.0, -2.0, 1.0],
    ];
    const AT: [[f32; 5]; OUTPUTS] = [
        [1.0, 1.0, 1.0, 1.0, 1.0],
        [0.0, 1.0, -1.0, 2.0, -2.0],
        [0.0, 1.0, 1.0, 4.0, 4.0],
        [0.0, 1.0, -1.0, 8.0, -8.0],
    ];
}

/// Three taps.
pub(super) struct Three;

impl Minimal<3, 6> for Three {
    const G: [[f32; 3]; 6] = [
        [0.25, 0.0, 0.0],
        [1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0],
        [1.0 / 6.0, -1.0 / 6.0, 1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];
    const BT: [[f32; 6]; 6] = [
        [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
        [0.0, 4.0, 4.0, -1.0, -1.0, 0.0],
        [0.0, -4.0, 4.0, 1.0, -1.0, 0.0],
        [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
        [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
        [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
    ];
    const AT: [[f32; 6]; OUTPUTS] = [
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
        [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
        [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
    ];
}

/// Four taps.
pub(super) struct Four;

impl Minimal<4, 7> for Four {
    const G: [[f32; 4]; 7] = [
        [0.25, 0.0, 0.0, 0.0],
        [1.0 / 18.0, 1.0 / 18.0, 1.0 / 18.0, 1.0 / 18.0],
        [1.0 / 18.0, -1.0 / 18.0, 1.0 / 18.0, -1.0 / 18.0],
        [1.0 / 360.0, 1.0 / 180.0, 1.0 / 90.0, 1.0 / 45.0],
        [1.0 / 360.0, -1.0 / 180.0, 1.0 / 90.0, -1.0 / 45.0],
        [16.0 / 45.0, 8.0 / 45.0, 4.0 / 45.0, 2.0 / 45.0],
        [16.0 / 45.0, -8.0 / 45.0, 4.0 / 45.0, -2.0 / 45.0],
    ];
    const BT: [[f32; 7]; 7] = [
        [4.0, 0.0, -21.0, 0.0, 21.0, 0.0, -4.0],
        [0.0, -4.0, -4.0, 17.0, 17.0, -4.0, -4.0],
        [0.0, 4.0, -4.0, -17.0, 17.0, 4.0, -4.0],
        [0.0, 2.0, 1.0, -10.0, -5.0, 8.0, 4.0],
        [0.0, -2.0, 1.0, 10.0, -5.0, -8.0, 4.0],
        [0.0, 4.0, 8.0, -5.0, -10.0, 1.0, 2.0],
        [0.0, -4.0, 8.0, 5.0, -10.0, -1.0, 2.0],
    ];
    const AT: [[f32; 7]; OUTPUTS] = [
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        [0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5],
        [0.0, 1.0, 1.0, 4.0, 4.0, 0.25, 0.25],
        [0.0, 1.0, -1.0, 8.0, -8.0, 0.125, -0.125],
    ];
}

/// `Σ factors[i]·x[i]` over factors that are not zero; they are constants.
#[inline(always)]
#[expect(clippy::float_cmp, reason = "constants are zero and one exactly")]
fn sum<S: Simd, const I: usize>(simd: S, factors: &[f32; I], x: &[S::f32s; I]) -> S::f32s {
    let mut sum = simd.splat_f32s(0.0);
    let mut first = true;
    for i in 0..I {
        if factors[i] != 0.0 {
            let factor = simd.splat_f32s(factors[i]);
            sum = match (first, factors[i] == 1.0) {
                (true, true) => x[i],
                (true, false) => simd.mul_f32s(factor, x[i]),
                (false, true) => simd.add_f32s(x[i], sum),
                (false, false) => simd.mul_add_e_f32s(factor, x[i], sum),
            };
            first = false;
        }
    }
    sum
}

/// The sum and the difference of each pair, in its place: points come as `0, p, −p, q, −q, …`.
#[inline(always)]
fn paired<S: Simd, const E: usize>(simd: S, values: &mut [S::f32s; E]) {
    for pair in 0..(E - 1) / 2 {
        let (first, second) = (values[1 + 2 * pair], values[2 + 2 * pair]);
        values[1 + 2 * pair] = simd.add_f32s(first, second);
        values[2 + 2 * pair] = simd.sub_f32s(first, second);
    }
}

const fn even_and_odd<const E: usize>(mut rows: [[f32; E]; E]) -> [[f32; E]; E] {
    let mut pair = 1;
    while pair + 1 < E {
        let mut i = 0;
        while i < E {
            let (plus, minus) = (rows[pair][i], rows[pair + 1][i]);
            rows[pair][i] = plus.midpoint(minus);
            rows[pair + 1][i] = plus.midpoint(-minus);
            i += 1;
        }
        pair += 2;
    }
    rows
}

const fn sums_and_differences<const E: usize>(mut rows: [[f32; E]; OUTPUTS]) -> [[f32; E]; OUTPUTS] {
    let mut i = 0;
    while i < OUTPUTS {
        let mut pair = 1;
        while pair + 1 < E {
            let (plus, minus) = (rows[i][pair], rows[i][pair + 1]);
            rows[i][pair] = plus.midpoint(minus);
            rows[i][pair + 1] = plus.midpoint(-minus);
            pair += 2;
        }
        i += 1;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters<M: Minimal<R, E>, const R: usize, const E: usize>() {
        let wide = |value: f32| f64::from(value);
        for tap in 0..R {
            for input in 0..E {
                for output in 0..OUTPUTS {
                    let through = (0..E).map(|e| wide(M::AT[output][e]) * wide(M::G[e][tap]) * wide(M::BT[e][input]));
                    let expected = f64::from(u8::from(output + tap == input));
                    assert!((through.sum::<f64>() - expected).abs() < 2e-6, "{output} {tap} {input}");
                }
            }
        }
    }

    #[test]
    fn the_matrices_filter() {
        filters::<Two, _, _>();
        filters::<Three, _, _>();
        filters::<Four, _, _>();
    }
}
