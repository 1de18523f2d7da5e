//! The gradient of the taps of one row.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::{Simd, WithSimd};

use super::taps::{Pair, Single, Taps};

/// `totals[tap] += Σ_t row[t] · window[at(tap) + t]`, a register of partial sums for each tap. `row` is zero to the end of
/// its last register.
pub(super) struct Correlation<'a> {
    pub taps: &'a Taps,
    pub window: &'a [f32],
    pub row: &'a [f32],
    pub totals: &'a mut [f32],
}

impl WithSimd for Correlation<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut pairs = self.taps.pairs.as_slice();
        while !pairs.is_empty() {
            let done = match pairs.len() {
                8.. if S::REGISTER_COUNT >= 32 => self.pairs::<S, 8>(simd, pairs),
                4.. => self.pairs::<S, 4>(simd, pairs),
                2.. => self.pairs::<S, 2>(simd, pairs),
                _ => self.pairs::<S, 1>(simd, pairs),
            };
            pairs = &pairs[done..];
        }
        let mut singles = self.taps.singles.as_slice();
        while !singles.is_empty() {
            let done = match singles.len() {
                8.. => self.singles::<S, 8>(simd, singles),
                4.. => self.singles::<S, 4>(simd, singles),
                3 => self.singles::<S, 3>(simd, singles),
                2 => self.singles::<S, 2>(simd, singles),
                _ => self.singles::<S, 1>(simd, singles),
            };
            singles = &singles[done..];
        }
    }
}

impl Correlation<'_> {
    /// `P` pairs, and returns `P`.
    #[inline(always)]
    fn pairs<S: Simd, const P: usize>(&mut self, simd: S, pairs: &[Pair]) -> usize {
        let (row, _) = S::as_simd_f32s(self.row);
        let registers = row.len();
        let mut x = [row; P];
        let mut sums = [[simd.splat_f32s(0.0); 2]; P];
        for p in 0..P {
            x[p] = S::as_simd_f32s(&self.window[pairs[p].at..][..(registers + 1) * S::F32_LANES]).0;
        }
        let mut before = simd.splat_f32s(0.0);
        for register in 0..registers {
            let now = row[register];
            for p in 0..P {
                let x = x[p][register];
                sums[p][0] = simd.mul_add_e_f32s(now, x, sums[p][0]);
                sums[p][1] = simd.mul_add_e_f32s(before, x, sums[p][1]);
            }
            before = now;
        }
        let (totals, _) = S::as_mut_simd_f32s(self.totals);
        for p in 0..P {
            sums[p][1] = simd.mul_add_e_f32s(before, x[p][registers], sums[p][1]);
            for (tap, sum) in pairs[p].taps.into_iter().zip(sums[p]) {
                totals[tap] = simd.add_f32s(totals[tap], sum);
            }
        }
        P
    }

    /// `P` taps alone, and returns `P`.
    #[inline(always)]
    fn singles<S: Simd, const P: usize>(&mut self, simd: S, singles: &[Single]) -> usize {
        let (row, _) = S::as_simd_f32s(self.row);
        let registers = row.len();
        let mut x = [row; P];
        let mut sums = [simd.splat_f32s(0.0); P];
        for p in 0..P {
            x[p] = S::as_simd_f32s(&self.window[singles[p].at..][..registers * S::F32_LANES]).0;
        }
        for register in 0..registers {
            for p in 0..P {
                sums[p] = simd.mul_add_e_f32s(row[register], x[p][register], sums[p]);
            }
        }
        let (totals, _) = S::as_mut_simd_f32s(self.totals);
        for p in 0..P {
            let tap = singles[p].tap;
            totals[tap] = simd.add_f32s(totals[tap], sums[p]);
        }
        P
    }
}

/// `out[tap] = Σ totals[tap]`.
pub(super) struct Totals<'a> {
    pub totals: &'a [f32],
    pub out: &'a mut [f32],
}

impl WithSimd for Totals<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (totals, _) = S::as_simd_f32s(self.totals);
        for (out, total) in self.out.iter_mut().zip(totals) {
            *out = simd.reduce_sum_f32s(*total);
        }
    }
}
