//! One output of one row.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]
#![expect(clippy::needless_range_loop, reason = "loops of a constant length over arrays, which become registers")]

use pulp::{Simd, WithSimd};

use super::super::super::activation::Activation;
use super::super::super::lanes::Lanes;
use super::taps::Taps;

/// `out[t] = f(bias + Σ_tap weight[tap] · window[at(tap) + t])`.
pub(super) struct Row<'a> {
    pub taps: &'a Taps,
    pub weight: &'a [f32],
    pub window: &'a [f32],
    pub bias: f32,
    pub activation: Activation,
    pub out: &'a mut [f32],
}

impl<'a> Row<'a> {
    /// The sum alone.
    pub fn plain(taps: &'a Taps, weight: &'a [f32], window: &'a [f32], out: &'a mut [f32]) -> Self {
        Self { taps, weight, window, bias: 0.0, activation: Activation::Identity, out }
    }

    /// `N` registers of columns, and returns `N`.
    #[inline(always)]
    fn block<S: Simd, const N: usize>(&mut self, simd: S, column: usize) -> usize {
        let mut sums = [simd.splat_f32s(self.bias); N];
        for pair in &self.taps.pairs {
            let [first, second] = pair.taps;
            let [first, second] = [simd.splat_f32s(self.weight[first]), simd.splat_f32s(self.weight[second])];
            let (x, _) = S::as_simd_f32s(&self.window[pair.at + column..][..(N + 1) * S::F32_LANES]);
            for n in 0..N {
                sums[n] = simd.mul_add_e_f32s(first, x[n], sums[n]);
                sums[n] = simd.mul_add_e_f32s(second, x[n + 1], sums[n]);
            }
        }
        for single in &self.taps.singles {
            let weight = simd.splat_f32s(self.weight[single.tap]);
            let (x, _) = S::as_simd_f32s(&self.window[single.at + column..][..N * S::F32_LANES]);
            for n in 0..N {
                sums[n] = simd.mul_add_e_f32s(weight, x[n], sums[n]);
            }
        }
        for n in 0..N {
            let sum = self.activation.apply(Lanes::new(simd, sums[n]));
            sum.store(&mut self.out[column + n * S::F32_LANES..]);
        }
        N
    }
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let registers = self.out.len().div_ceil(S::F32_LANES);
        let most = if S::REGISTER_COUNT >= 32 { 16 } else { 8 };
        let mut register = 0;
        while register < registers {
            let column = register * S::F32_LANES;
            let left = (registers - register).min(most);
            register += match left {
                16 => self.block::<S, 16>(simd, column),
                8.. => self.block::<S, 8>(simd, column),
                4.. => self.block::<S, 4>(simd, column),
                2.. => self.block::<S, 2>(simd, column),
                _ => self.block::<S, 1>(simd, column),
            };
        }
    }
}
