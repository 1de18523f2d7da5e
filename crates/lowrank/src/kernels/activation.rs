//! Activations: value by value, with their derivatives.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::{Simd, WithSimd};

use super::buffers::Buffers;
use super::lanes::{Lanes, arch};
use super::math::{normal_cdf, normal_density, sigmoid, sigmoid_and_slope};

/// A function of one value.
///
/// At infinities and NaN each is what its equation gives in floating point: `gelu(-∞) = -∞·0` is NaN, as in `PyTorch`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `x`.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `x` for `x > 0`, otherwise the slope times `x`.
    LeakyRelu(f32),
    /// `x·Φ(x)`, with the normal distribution's `Φ(x) = (1 + erf(x/√2)) / 2` (Hendrycks and Gimpel, 2016). Within
    /// 2e-7 times the larger of 1 and the value.
    Gelu,
    /// `x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) / 2`, the same paper's approximation.
    GeluTanh,
    /// `x / (1 + e⁻ˣ)`.
    Silu,
}

/// `2·√(2/π)`, and 0.044715 times that: `1 + tanh z = 2 / (1 + e⁻²ᶻ)`.
const TANH_FORM: [f32; 2] = [1.595_769, 0.071_354_814];

impl Activation {
    /// Values a core takes at a time: enough to be worth the hand-over.
    fn chunk(self) -> usize {
        match self {
            Self::Identity | Self::Relu | Self::LeakyRelu(_) => 1 << 16,
            Self::Gelu | Self::GeluTanh | Self::Silu => 1 << 14,
        }
    }

    /// `y = f(x)`, on all cores.
    pub fn forward<'a>(self, x: impl Into<Buffers<'a>>) -> &'a mut [f32] {
        x.into().chunks(self.chunk(), |_, x| arch().dispatch(Forward { activation: self, x }))
    }

    /// `dx = f'(x)·dy`, on all cores. [`Activation::Relu`] and [`Activation::LeakyRelu`] with a slope of at least 0 may be
    /// given their output for `x`: it has the same sign.
    ///
    /// # Panics
    /// When `x` and `dy` differ in length.
    pub fn backward<'a>(self, x: &[f32], dy: impl Into<Buffers<'a>>) -> &'a mut [f32] {
        let dy = dy.into();
        assert_eq!(x.len(), dy.len(), "a gradient is as long as the values");
        let size = self.chunk();
        dy.chunks(size, |index, dy| {
            let x = &x[index * size..][..dy.len()];
            arch().dispatch(Backward { activation: self, x, dy })
        })
    }

    /// `f(x)`, for kernels that have a tile in registers.
    #[inline(always)]
    pub(super) fn apply<S: Simd>(self, x: Lanes<S>) -> Lanes<S> {
        match self {
            Self::Identity => x,
            Self::Relu => x.select_less(0.0, 0.0, x),
            Self::LeakyRelu(slope) => x.select_less(0.0, x * slope, x),
            Self::Gelu => x * normal_cdf(x),
            Self::GeluTanh => x * sigmoid(tanh_form(x)),
            Self::Silu => x * sigmoid(x),
        }
    }

    /// `f'(x)·dy`.
    #[inline(always)]
    pub(super) fn gradient<S: Simd>(self, x: Lanes<S>, dy: Lanes<S>) -> Lanes<S> {
        match self {
            Self::Identity => dy,
            Self::Relu => x.select_at_most(0.0, 0.0, dy),
            Self::LeakyRelu(slope) => x.select_at_most(0.0, dy * slope, dy),
            Self::Gelu => dy * x.mul_add(normal_density(x), normal_cdf(x)),
            Self::GeluTanh => {
                let [share, slope] = sigmoid_and_slope(tanh_form(x));
                let inner = (x * x).mul_add(3.0 * TANH_FORM[1], TANH_FORM[0]);
                dy * (x * slope).mul_add(inner, share)
            }
            Self::Silu => {
                let [share, slope] = sigmoid_and_slope(x);
                dy * x.mul_add(slope, share)
            }
        }
    }
}

/// `2·√(2/π)·(x + 0.044715·x³)`.
#[inline(always)]
fn tanh_form<S: Simd>(x: Lanes<S>) -> Lanes<S> {
    x * (x * x).mul_add(TANH_FORM[1], TANH_FORM[0])
}

struct Forward<'a> {
    activation: Activation,
    x: Buffers<'a>,
}

impl<'a> WithSimd for Forward<'a> {
    type Output = &'a mut [f32];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { activation, x } = self;
        x.map(
            simd,
            [],
            #[inline(always)]
            |x, []| activation.apply(x),
        )
    }
}

struct Backward<'x, 'a> {
    activation: Activation,
    x: &'x [f32],
    dy: Buffers<'a>,
}

impl<'a> WithSimd for Backward<'_, 'a> {
    type Output = &'a mut [f32];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { activation, x, dy } = self;
        dy.map(
            simd,
            [x],
            #[inline(always)]
            |dy, [x]| activation.gradient(x, dy),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::Config;

    use super::*;
    use crate::kernels::buffers::fresh;
    use crate::kernels::reference::activation::{derivative, value};
    use crate::kernels::testing::{assert_close, assert_threads_do_not_matter, draw, on_every_set};

    const ALL: [Activation; 7] = [
        Activation::Identity,
        Activation::Relu,
        Activation::LeakyRelu(0.2),
        Activation::LeakyRelu(-0.5),
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
    ];

    /// `f(x)` and `f'(x)·dy`, by the code of one instruction set.
    struct Both<'x>(Activation, &'x [f32], &'x [f32]);

    impl WithSimd for Both<'_> {
        type Output = [Vec<f32>; 2];

        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let Self(activation, x, dy) = self;
            let (mut y, mut dx) = (x.to_vec(), dy.to_vec());
            Forward { activation, x: Buffers::from(&mut y[..]) }.with_simd(simd);
            Backward { activation, x, dy: Buffers::from(&mut dx[..]) }.with_simd(simd);
            [y, dx]
        }
    }

    fn exact(activation: Activation, x: &[f32], dy: &[f32]) -> [Vec<f64>; 2] {
        let values = x.iter().map(|&x| value(activation, x.into()));
        let gradients = x.iter().zip(dy).map(|(&x, &dy)| f64::from(dy) * derivative(activation, x.into()));
        [values.collect(), gradients.collect()]
    }

    #[test]
    fn values_and_derivatives_are_exact_to_rounding_on_every_instruction_set() {
        let x: Vec<f32> = (-3001_i16..=3000).map(|step| f32::from(step) / 200.0).collect();
        let ones = vec![1.0; x.len()];
        for activation in ALL {
            let exact = exact(activation, &x, &ones);
            for (set, [y, dx]) in on_every_set(|| Both(activation, &x, &ones)) {
                assert_close(&format!("{activation:?} on {set}"), &y, &exact[0], 2e-7);
                assert_close(&format!("derivative of {activation:?} on {set}"), &dx, &exact[1], 4e-7);
            }
        }
    }

    #[test]
    fn the_far_ends_are_those_of_pytorch() {
        const ENDS: [f32; 6] = [1e4, -1e4, 0.0, -0.0, f32::INFINITY, f32::NAN];
        for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Relu] {
            for (set, [y, dx]) in on_every_set(|| Both(activation, &ENDS, &[1.0; 6])) {
                assert_eq!(y[..5], [1e4, 0.0, 0.0, 0.0, f32::INFINITY], "{set} {activation:?}");
                assert!(y[3].is_sign_negative(), "{set} {activation:?} of -0");
                assert_eq!(dx[..2], [1.0, 0.0], "{set} {activation:?}");
                assert!(y[5].is_nan(), "{set} {activation:?} of NaN");
            }
        }
        for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
            for (set, [y, dx]) in on_every_set(|| Both(activation, &[f32::NEG_INFINITY, f32::NAN], &[1.0; 2])) {
                assert!(y[0].is_nan() && dx[0].is_nan() && dx[1].is_nan(), "{set} {activation:?}");
            }
        }
        for (set, [y, dx]) in on_every_set(|| Both(Activation::Relu, &[f32::NEG_INFINITY, 0.0, f32::NAN], &[3.0; 3])) {
            assert_eq!((y[0], dx), (0.0, vec![0.0, 0.0, 3.0]), "{set}");
        }
        let slope = Activation::LeakyRelu(0.1);
        for (set, [y, dx]) in on_every_set(|| Both(slope, &[f32::NEG_INFINITY, -1e4, 0.0], &[1.0; 3])) {
            assert_eq!((y, dx), (vec![f32::NEG_INFINITY, -1e3, 0.0], vec![0.1; 3]), "{set}");
        }
    }

    #[test]
    fn threads_do_not_matter() {
        let (x, dy) = (draw(0, "x", 200_001), draw(0, "dy", 200_001));
        for activation in ALL {
            assert_threads_do_not_matter(&format!("{activation:?}"), || {
                [fresh(&x, |x| activation.forward(x)), fresh(&dy, |dy| activation.backward(&x, dy))].concat()
            });
        }
    }

    proptest! {
        #![proptest_config(Config { cases: 200, failure_persistence: None, ..Config::default() })]

        #[test]
        fn any_length_in_any_buffers(seed: u64, len in 0_usize..5000, which in 0..ALL.len()) {
            let activation = ALL[which];
            let (mut x, mut dy) = (draw(seed, "x", len), draw(seed, "dy", len));
            let [values, gradients] = exact(activation, &x, &dy);
            let (mut y, mut dx) = (vec![f32::NAN; len], vec![f32::NAN; len]);
            activation.forward((&x[..], &mut y[..]));
            activation.backward(&x, (&dy[..], &mut dx[..]));
            assert_close("y", &y, &values, 2e-7);
            assert_close("dx", &dx, &gradients, 2e-6);
            prop_assert_eq!(&fresh(&x, |x| activation.forward(x)), &y);
            prop_assert_eq!(&fresh(&dy, |dy| activation.backward(&x, dy)), &dx);
            prop_assert_eq!(&*activation.backward(&x, &mut dy[..]), &dx[..]);
            prop_assert_eq!(&*activation.forward(&mut x[..]), &y[..]);
        }
    }
}
