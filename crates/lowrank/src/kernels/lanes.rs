//! A SIMD register of `f32` that reads like a number.
//!
//! Formulas in the kernels are written once, over [`Lanes`], and compiled for each instruction set that `pulp` knows;
//! [`arch`] picks the widest one of the machine. Everything here is `inline(always)`: an operation outside the
//! function that carries the instruction set would be a call.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use std::ops::{Add, Div, Mul, Neg, Sub};
use std::sync::LazyLock;

use pulp::bytemuck::cast;
use pulp::{Arch, Simd};

/// The instruction set of this machine, looked up once.
pub(super) fn arch() -> Arch {
    static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);
    *ARCH
}

/// As many `f32` as a register holds.
#[derive(Clone, Copy)]
pub(super) struct Lanes<S: Simd> {
    simd: S,
    value: S::f32s,
}

impl<S: Simd> Lanes<S> {
    #[inline(always)]
    pub fn new(simd: S, value: S::f32s) -> Self {
        Self { simd, value }
    }

    #[inline(always)]
    pub fn splat(simd: S, value: f32) -> Self {
        Self::new(simd, simd.splat_f32s(value))
    }

    /// The values of a slice shorter than a register, then zeros.
    #[inline(always)]
    pub fn partial(simd: S, values: &[f32]) -> Self {
        Self::new(simd, simd.partial_load_f32s(values))
    }

    /// The first values of a slice; zeros where it is shorter than a register.
    #[inline(always)]
    pub fn load(simd: S, values: &[f32]) -> Self {
        match S::as_simd_f32s(values) {
            ([value, ..], _) => Self::new(simd, *value),
            ([], values) => Self::partial(simd, values),
        }
    }

    /// Writes the first lanes, as many as the slice takes.
    #[inline(always)]
    pub fn store(self, values: &mut [f32]) {
        match S::as_mut_simd_f32s(values) {
            ([value, ..], _) => *value = self.value,
            ([], values) => self.simd.partial_store_f32s(values, self.value),
        }
    }

    #[inline(always)]
    pub fn value(self) -> S::f32s {
        self.value
    }

    #[inline(always)]
    fn constant(self, value: f32) -> Self {
        Self::splat(self.simd, value)
    }

    /// `self * factor + term`, rounded once where the machine can.
    #[inline(always)]
    pub fn mul_add(self, factor: impl Operand<S>, term: impl Operand<S>) -> Self {
        let (factor, term) = (factor.lanes(self.simd), term.lanes(self.simd));
        Self::new(self.simd, self.simd.mul_add_e_f32s(self.value, factor.value, term.value))
    }

    /// `Σ cₖ·selfᵏ`.
    #[inline(always)]
    pub fn polynomial<const N: usize>(self, coefficients: [f32; N]) -> Self {
        let mut sum = self.constant(coefficients[N - 1]);
        for &coefficient in coefficients[..N - 1].iter().rev() {
            sum = sum.mul_add(self, coefficient);
        }
        sum
    }

    #[inline(always)]
    pub fn abs(self) -> Self {
        Self::new(self.simd, self.simd.abs_f32s(self.value))
    }

    /// `1 - self`.
    #[inline(always)]
    pub fn one_minus(self) -> Self {
        self.constant(1.0) - self
    }

    /// `1 / self`.
    #[inline(always)]
    pub fn reciprocal(self) -> Self {
        self.constant(1.0) / self
    }

    /// The magnitude of `self` under the sign of `sign`.
    #[inline(always)]
    pub fn copysign(self, sign: Self) -> Self {
        let bit = self.simd.and_f32s(sign.value, self.simd.splat_f32s(-0.0));
        Self::new(self.simd, self.simd.or_f32s(self.abs().value, bit))
    }

    /// The larger of two numbers; of a NaN and a number, either.
    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        Self::new(self.simd, self.simd.max_f32s(self.value, other.value))
    }

    /// The larger of `self` and a bound; NaN stays NaN.
    #[inline(always)]
    pub fn at_least(self, bound: f32) -> Self {
        self.select_less(bound, bound, self)
    }

    /// The smaller of `self` and a bound; NaN stays NaN.
    #[inline(always)]
    pub fn at_most(self, bound: f32) -> Self {
        self.constant(bound).select_less(self, bound, self)
    }

    /// `if self < bound { less } else { otherwise }`, lane by lane.
    #[inline(always)]
    pub fn select_less(self, bound: impl Operand<S>, less: impl Operand<S>, otherwise: impl Operand<S>) -> Self {
        let simd = self.simd;
        let mask = simd.less_than_f32s(self.value, bound.lanes(simd).value);
        Self::new(simd, simd.select_f32s(mask, less.lanes(simd).value, otherwise.lanes(simd).value))
    }

    /// `if self <= bound { less } else { otherwise }`, lane by lane.
    #[inline(always)]
    pub fn select_at_most(self, bound: impl Operand<S>, less: impl Operand<S>, otherwise: impl Operand<S>) -> Self {
        let simd = self.simd;
        let mask = simd.less_than_or_equal_f32s(self.value, bound.lanes(simd).value);
        Self::new(simd, simd.select_f32s(mask, less.lanes(simd).value, otherwise.lanes(simd).value))
    }

    /// The first `count` lanes, and `fill` in the others.
    #[inline(always)]
    pub fn first(self, count: usize, fill: f32) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mask = self.simd.mask_between_m32s(0, count).mask();
        Self::new(self.simd, self.simd.select_f32s(mask, self.value, self.constant(fill).value))
    }

    /// Zero in the first `count` lanes.
    #[inline(always)]
    pub fn without(self, count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mask = self.simd.mask_between_m32s(0, count).mask();
        Self::new(self.simd, self.simd.select_f32s(mask, self.constant(0.0).value, self.value))
    }

    /// `2ⁿ` from the lowest nine bits of the register: `n + 127` is the exponent of a float.
    #[inline(always)]
    pub fn power_of_two(self) -> Self {
        let simd = self.simd;
        let bits: S::u32s = cast(self.value);
        let biased = simd.add_u32s(bits, simd.splat_u32s(127));
        Self::new(simd, cast(simd.wrapping_dyn_shl_u32s(biased, simd.splat_u32s(23))))
    }

    #[inline(always)]
    pub fn sum(self) -> f32 {
        self.simd.reduce_sum_f32s(self.value)
    }

    #[inline(always)]
    pub fn largest(self) -> f32 {
        self.simd.reduce_max_f32s(self.value)
    }
}

/// What stands beside [`Lanes`] in a formula: lanes, or one number for all of them.
pub(super) trait Operand<S: Simd>: Copy {
    fn lanes(self, simd: S) -> Lanes<S>;
}

impl<S: Simd> Operand<S> for Lanes<S> {
    #[inline(always)]
    fn lanes(self, _simd: S) -> Self {
        self
    }
}

impl<S: Simd> Operand<S> for f32 {
    #[inline(always)]
    fn lanes(self, simd: S) -> Lanes<S> {
        Lanes::splat(simd, self)
    }
}

macro_rules! operator {
    ($name:ident, $method:ident, $simd:ident) => {
        impl<S: Simd, O: Operand<S>> $name<O> for Lanes<S> {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: O) -> Self {
                Self::new(self.simd, self.simd.$simd(self.value, other.lanes(self.simd).value))
            }
        }
    };
}

operator!(Add, add, add_f32s);
operator!(Sub, sub, sub_f32s);
operator!(Mul, mul, mul_f32s);
operator!(Div, div, div_f32s);

impl<S: Simd> Neg for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        Self::new(self.simd, self.simd.neg_f32s(self.value))
    }
}
