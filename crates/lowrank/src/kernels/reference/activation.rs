//! Activations and their derivatives, one value at a time.

use std::f64::consts::{FRAC_2_SQRT_PI, PI, SQRT_2, TAU};

use crate::kernels::activation::Activation;

/// `f(x)`.
#[must_use]
pub fn value(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu(slope) => x.max(0.0) + f64::from(slope) * x.min(0.0),
        Activation::Gelu => x * normal_cdf(x),
        Activation::GeluTanh => x * (1.0 + tanh_argument(x).tanh()) / 2.0,
        Activation::Silu => x * sigmoid(x),
    }
}

/// `f'(x)`; at a kink, that from below.
#[must_use]
pub fn derivative(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => 1.0,
        Activation::Relu => f64::from(x > 0.0),
        Activation::LeakyRelu(slope) => {
            if x > 0.0 {
                1.0
            } else {
                slope.into()
            }
        }
        Activation::Gelu => normal_cdf(x) + x * normal_density(x),
        Activation::GeluTanh => {
            let tanh = tanh_argument(x).tanh();
            0.5 * (1.0 + tanh) + x * (1.0 - tanh * tanh) * (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044_715 * x * x) / 2.0
        }
        Activation::Silu => sigmoid(x) + x * sigmoid(x) * sigmoid(-x),
    }
}

/// `1 / (1 + e⁻ˣ)`.
#[must_use]
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `Φ(x)`: the share of a normal distribution below `x`.
#[must_use]
pub fn normal_cdf(x: f64) -> f64 {
    erfc(-x / SQRT_2) / 2.0
}

/// `φ(x)`: the density of a normal distribution.
#[must_use]
pub fn normal_density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / TAU.sqrt()
}

fn tanh_argument(x: f64) -> f64 {
    (2.0 / PI).sqrt() * (x + 0.044_715 * x.powi(3))
}

/// `2/√π · ∫ₓ^∞ e^(-t²) dt`: by the series of `erf` near zero, by the continued fraction beyond (Abramowitz and Stegun,
/// 7.1.5 and 7.1.14).
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 2.5 {
        let (mut power, mut sum) = (x, x);
        for n in (1..100).map(f64::from) {
            power *= -x * x / n;
            sum += power / (2.0 * n + 1.0);
        }
        return 1.0 - FRAC_2_SQRT_PI * sum;
    }
    let fraction = (1..200).rev().map(f64::from).fold(x, |rest, n| x + n / 2.0 / rest);
    (-x * x).exp() / (PI.sqrt() * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erfc_of_tables() {
        for (x, exact) in
            [(0.5, 0.479_500_122_186_953_5), (2.0, 4.677_734_981_047_266e-3), (3.0, 2.209_049_699_858_544e-5)]
        {
            assert!((erfc(x) / exact - 1.0).abs() < 1e-12, "{x}");
            assert!((erfc(-x) - 2.0 + exact).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn derivatives_are_those_of_the_values() {
        let kinds = [Activation::LeakyRelu(0.1), Activation::Gelu, Activation::GeluTanh, Activation::Silu];
        for kind in kinds.into_iter().chain([Activation::Identity, Activation::Relu]) {
            for x in (-40..40).map(|step| f64::from(step) / 7.0 + 0.01) {
                let difference = (value(kind, x + 1e-5) - value(kind, x - 1e-5)) / 2e-5;
                assert!((difference - derivative(kind, x)).abs() < 1e-8, "{kind:?} at {x}");
            }
        }
    }
}
