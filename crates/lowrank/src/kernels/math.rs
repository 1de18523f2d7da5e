//! Elementary functions of [`Lanes`].
//!
//! The polynomials are minimax fits, found by iteratively reweighted least squares (Lawson's method) in `f64` and rounded
//! to `f32`. Each function states its largest error, which the tests measure over the whole range. NaN gives NaN.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::Simd;

use super::lanes::Lanes;

/// `ln 2` in two parts: the first has few enough bits that its product with a small integer is exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// `1.5·2²³`: a float of this size is an integer, and its lowest bits are that integer's.
const ROUND: f32 = 12_582_912.0;

/// `(eʳ - 1 - r) / r²` for `|r| ≤ ln 2 / 2`.
const EXP_TAIL: [f32; 5] = [0.499_999_93, 0.166_665_2, 0.041_668_39, 0.008_368_71, 0.001_381_461_3];

/// `x = n·ln 2 + r` with `|r| ≤ ln 2 / 2`, for `-88 ≤ x ≤ 88.8`: `(2ⁿ, r)`. At the ends the power is 0 and infinite.
#[inline(always)]
fn reduce<S: Simd>(x: Lanes<S>) -> (Lanes<S>, Lanes<S>) {
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2[1], n.mul_add(-LN_2[0], x));
    (shifted.power_of_two(), r)
}

/// `eˣ` for `x ≤ 88.8`, within 1.5 units in the last place; 0 below -87.68, infinite above 88.37.
#[inline(always)]
pub(super) fn exp<S: Simd>(x: Lanes<S>) -> Lanes<S> {
    let (power, r) = reduce(x.at_least(-88.0));
    power * r.polynomial([1.0, 1.0, EXP_TAIL[0], EXP_TAIL[1], EXP_TAIL[2], EXP_TAIL[3], EXP_TAIL[4]])
}

/// `eˣ - 1` for `x ≤ 0`, within 3 units in the last place.
#[inline(always)]
fn exp_m1<S: Simd>(x: Lanes<S>) -> Lanes<S> {
    let (power, r) = reduce(x.at_least(-88.0));
    power.mul_add((r * r).mul_add(r.polynomial(EXP_TAIL), r), power - 1.0)
}

/// `1 / (1 + e⁻ˣ)`, within 2e-7 of the value.
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(x: Lanes<S>) -> Lanes<S> {
    (exp((-x).at_most(88.8)) + 1.0).reciprocal()
}

/// [`sigmoid`] and its derivative `σ(x)·σ(-x)`, each within 3e-7 of the value.
#[inline(always)]
pub(super) fn sigmoid_and_slope<S: Simd>(x: Lanes<S>) -> [Lanes<S>; 2] {
    let e = exp(-x.abs());
    let larger = (e + 1.0).reciprocal();
    let smaller = e * larger;
    [x.select_less(0.0, smaller, larger), smaller * larger]
}

/// `tanh x`, within 4 units in the last place.
#[inline(always)]
pub(super) fn tanh<S: Simd>(x: Lanes<S>) -> Lanes<S> {
    let e = exp_m1(x.abs() * -2.0);
    (e / (e + 2.0)).copysign(x)
}

/// `Φ(x)`, the share of a normal distribution below `x`, within 1.2e-7.
///
/// `ln Φ(-u)` is smooth for `u ≥ 0`: the exponential of a polynomial has one formula for every size of `x`, needs no
/// division, and vanishes for large `u`, as it must.
#[inline(always)]
pub(super) fn normal_cdf<S: Simd>(x: Lanes<S>) -> Lanes<S> {
    let tail = exp(x.abs().polynomial([
        -std::f32::consts::LN_2,
        -0.797_885_7,
        -0.318_296_58,
        -0.036_393_713,
        0.004_904_343_3,
        -1.011_094_7e-4,
        -1.265_323_6e-4,
        2.676_986_2e-5,
        -1.921_438e-6,
    ]));
    x.select_less(0.0, tail, tail.one_minus())
}

/// `φ(x) = e^(-x²/2) / √(2π)`, the density of a normal distribution, within 1e-7.
#[inline(always)]
pub(super) fn normal_density<S: Simd>(x: Lanes<S>) -> Lanes<S> {
    exp((x * x).mul_add(-0.5, -0.918_938_5))
}

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::*;
    use crate::kernels::reference::activation;
    use crate::kernels::testing::on_every_set;

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        Sigmoid,
        SigmoidSlope,
        Tanh,
        Cdf,
        Density,
    }

    impl Function {
        fn exact(self, x: f64) -> f64 {
            match self {
                Self::Exp => x.exp(),
                Self::Sigmoid => activation::sigmoid(x),
                Self::SigmoidSlope => activation::sigmoid(x) * activation::sigmoid(-x),
                Self::Tanh => x.tanh(),
                Self::Cdf => activation::normal_cdf(x),
                Self::Density => activation::normal_density(x),
            }
        }
    }

    struct Evaluate<'x>(Function, &'x [f32]);

    impl WithSimd for Evaluate<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
            let mut results = self.1.to_vec();
            for chunk in results.chunks_mut(S::F32_LANES) {
                let x = Lanes::load(simd, chunk);
                let y = match self.0 {
                    Function::Exp => exp(x),
                    Function::Sigmoid => sigmoid(x),
                    Function::SigmoidSlope => sigmoid_and_slope(x)[1],
                    Function::Tanh => tanh(x),
                    Function::Cdf => normal_cdf(x),
                    Function::Density => normal_density(x),
                };
                y.store(chunk);
            }
            results
        }
    }

    /// Floats of every size and both signs within the bounds, evenly over their bits.
    fn floats(low: f32, high: f32) -> Vec<f32> {
        let all = (0..=u32::MAX).step_by(20_011).map(f32::from_bits);
        let dense = (0..50_000_u16).map(|step| low + (high - low) * f32::from(step) / 50_000.0);
        all.chain(dense).filter(|x| (low..=high).contains(x)).collect()
    }

    /// The spacing of floats at `value`.
    fn ulp(value: f64) -> f64 {
        let exponent = value.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
        (exponent - 23.0).exp2()
    }

    /// The largest of `error(x, result, exact)` over the floats within the bounds, with every instruction set.
    fn worst(function: Function, [low, high]: [f32; 2], error: impl Fn(f64, f64, f64) -> f64) -> f64 {
        let x = floats(low, high);
        let results = on_every_set(|| Evaluate(function, &x));
        let errors = results.iter().flat_map(|(_, y)| x.iter().zip(y)).map(|(&x, &y)| {
            let x = f64::from(x);
            error(x, y.into(), function.exact(x))
        });
        errors.fold(0.0, |worst, error| if error >= worst || error.is_nan() { error } else { worst })
    }

    fn in_ulps(_x: f64, y: f64, exact: f64) -> f64 {
        (y - exact).abs() / ulp(exact)
    }

    fn relative(_x: f64, y: f64, exact: f64) -> f64 {
        (y / exact - 1.0).abs()
    }

    fn absolute(_x: f64, y: f64, exact: f64) -> f64 {
        (y - exact).abs()
    }

    #[track_caller]
    fn at_most(bound: f64, error: f64) {
        assert!(error <= bound, "{error:e} is above {bound:e}");
    }

    #[test]
    fn errors_stay_within_what_each_function_states() {
        at_most(1.5, worst(Function::Exp, [-87.3, 88.3], in_ulps));
        at_most(4.0, worst(Function::Tanh, [-20.0, 20.0], in_ulps));
        at_most(2e-7, worst(Function::Sigmoid, [-87.0, 88.0], relative));
        at_most(3e-7, worst(Function::SigmoidSlope, [-87.0, 87.0], relative));
        at_most(1.2e-7, worst(Function::Cdf, [-20.0, 20.0], absolute));
        at_most(1e-7, worst(Function::Density, [-20.0, 20.0], absolute));
    }

    #[test]
    fn limits_are_exact_and_nan_stays_nan() {
        const ENDS: [f32; 7] = [f32::NEG_INFINITY, -1e30, -1e4, 1e4, 1e30, f32::INFINITY, f32::NAN];
        let cases = [
            (Function::Sigmoid, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
            (Function::SigmoidSlope, [0.0; 6]),
            (Function::Tanh, [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]),
            (Function::Cdf, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
            (Function::Density, [0.0; 6]),
        ];
        for (function, limits) in cases {
            for (set, y) in on_every_set(|| Evaluate(function, &ENDS)) {
                assert_eq!(y[..6], limits, "{set}");
                assert!(y[6].is_nan(), "{set}");
            }
        }
    }

    #[test]
    fn exp_ends_in_zero_and_infinity() {
        for (set, y) in on_every_set(|| Evaluate(Function::Exp, &[f32::NEG_INFINITY, -1e30, -88.0, 88.8, f32::NAN])) {
            assert_eq!(y[..4], [0.0, 0.0, 0.0, f32::INFINITY], "{set}");
            assert!(y[4].is_nan(), "{set}");
        }
    }

    #[test]
    fn tanh_keeps_the_sign_of_zero() {
        for (set, y) in on_every_set(|| Evaluate(Function::Tanh, &[0.0, -0.0])) {
            assert_eq!([y[0].to_bits(), y[1].to_bits()], [0.0_f32.to_bits(), (-0.0_f32).to_bits()], "{set}");
        }
    }
}
