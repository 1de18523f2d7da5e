//! Sums across the lanes of many registers.

#![expect(unsafe_code, reason = "shuffles that `pulp` has no name for")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::Simd;

/// The sum of the lanes of each register.
///
/// One by one, with 16 lanes, that takes eight instructions each; sixteen together take three.
#[inline(always)]
pub(super) fn sums<S: Simd>(simd: S, values: &[S::f32s], sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if size_of::<S::f32s>() == size_of::<x86::Register>() {
        for (sums, values) in sums.chunks_mut(x86::LANES).zip(values.chunks(x86::LANES)) {
            // SAFETY: registers of this size are those of AVX-512, which the machine has: `simd` says so.
            let all = unsafe {
                if values.len() <= x86::LANES / 2 {
                    x86::sums::<S, { x86::LANES / 2 }>(simd, values)
                } else {
                    x86::sums::<S, { x86::LANES }>(simd, values)
                }
            };
            sums.copy_from_slice(&all[..sums.len()]);
        }
        return;
    }
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = simd.reduce_sum_f32s(*value);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512, _mm512_add_ps, _mm512_castpd_ps, _mm512_castps_pd, _mm512_shuffle_f32x4, _mm512_unpackhi_pd,
        _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };

    use pulp::Simd;

    pub type Register = __m512;
    pub const LANES: usize = 16;

    /// Of `N` registers, eight or sixteen, or fewer and zeros: in each round two become one, with half as many values of
    /// each register, until one is left; of eight the last round adds its halves.
    ///
    /// # Safety
    /// `S` is AVX-512.
    #[inline(always)]
    pub unsafe fn sums<S: Simd, const N: usize>(simd: S, values: &[S::f32s]) -> [f32; LANES] {
        let mut registers = [simd.splat_f32s(0.0); N];
        registers[..values.len()].copy_from_slice(values);
        // SAFETY: both are registers of sixteen `f32`, and the instructions are there.
        unsafe {
            let mut v: [__m512; N] = std::mem::transmute_copy(&registers);
            // No closures: they would not have the instruction set.
            for i in 0..N / 2 {
                let (a, b) = (v[2 * i], v[2 * i + 1]);
                v[i] = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            }
            for i in 0..N / 4 {
                let (a, b) = (_mm512_castps_pd(v[2 * i]), _mm512_castps_pd(v[2 * i + 1]));
                let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
                v[i] = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            }
            (v[0], v[1]) = if N == LANES {
                (halves(v[0], v[1]), halves(v[2], v[3]))
            } else {
                let both = halves(v[0], v[1]);
                (both, both)
            };
            std::mem::transmute(halves(v[0], v[1]))
        }
    }

    /// Sums of neighbouring quarters, those of `a` before those of `b`.
    ///
    /// # Safety
    /// The machine has AVX-512.
    #[inline(always)]
    unsafe fn halves(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller answers for the instructions.
        unsafe {
            let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
            _mm512_add_ps(even, _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b))
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Simd, WithSimd};

    use super::super::lanes::arch;

    struct OfLanes<const N: usize>;

    impl<const N: usize> WithSimd for OfLanes<N> {
        type Output = ();

        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        fn with_simd<S: Simd>(self, simd: S) {
            let value = |register: usize, lane: usize| (1 + 100 * register + lane) as f32;
            let values: [S::f32s; N] = std::array::from_fn(|register| {
                let values: Vec<f32> = (0..S::F32_LANES).map(|lane| value(register, lane)).collect();
                simd.partial_load_f32s(&values)
            });
            let mut sums = [f32::NAN; N];
            super::sums(simd, &values, &mut sums);
            let sum = |register: usize| (0..S::F32_LANES).map(|lane| value(register, lane)).sum::<f32>();
            let expected: Vec<f32> = (0..N).map(sum).collect();
            assert_eq!(sums.to_vec(), expected);
        }
    }

    #[test]
    fn every_register_has_its_sum() {
        arch().dispatch(OfLanes::<1>);
        arch().dispatch(OfLanes::<3>);
        arch().dispatch(OfLanes::<8>);
        arch().dispatch(OfLanes::<16>);
        arch().dispatch(OfLanes::<24>);
    }
}
