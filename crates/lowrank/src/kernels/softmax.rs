//! Softmax of rows.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::{Simd, WithSimd};

use super::buffers::Buffers;
use super::lanes::arch;
use super::math::exp;
use super::reduce::{largest, sum};

/// Values a core takes at a time: enough to be worth the hand-over.
const CHUNK: usize = 1 << 14;

/// `yᵢ = e^(xᵢ - max x) / Σ e^(xⱼ - max x)` for each row of `width` values, on all cores.
///
/// A row of `-∞` alone gives NaN, as in `PyTorch`.
///
/// # Panics
/// When the last row is not whole.
pub fn softmax<'a>(x: impl Into<Buffers<'a>>, width: usize) -> &'a mut [f32] {
    x.into().chunks(whole_rows(width), |_, x| arch().dispatch(Forward { x, width }))
}

/// `dxᵢ = yᵢ·(dyᵢ - Σ yⱼ·dyⱼ)` for each row of `width` values, on all cores; `y` is what [`softmax`] gave.
///
/// # Panics
/// When `y` and `dy` differ in length, or the last row is not whole.
pub fn softmax_backward<'a>(y: &[f32], dy: impl Into<Buffers<'a>>, width: usize) -> &'a mut [f32] {
    let dy = dy.into();
    assert_eq!(y.len(), dy.len(), "a gradient is as long as the values");
    let size = whole_rows(width);
    dy.chunks(size, |index, dy| arch().dispatch(Backward { y: &y[index * size..][..dy.len()], dy, width }))
}

/// As many values as a chunk has, in whole rows.
fn whole_rows(width: usize) -> usize {
    assert!(width > 0, "rows without values");
    CHUNK.div_ceil(width) * width
}

struct Forward<'a> {
    x: Buffers<'a>,
    width: usize,
}

impl<'a> WithSimd for Forward<'a> {
    type Output = &'a mut [f32];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { x, width } = self;
        x.rows(
            width,
            #[inline(always)]
            |_, x| {
                let largest = largest(simd, x.values());
                let y = x.map(
                    simd,
                    [],
                    #[inline(always)]
                    |x, []| exp(x - largest),
                );
                let scale = 1.0
                    / sum(
                        simd,
                        [y],
                        #[inline(always)]
                        |[y]| y,
                    );
                Buffers::from(y).map(
                    simd,
                    [],
                    #[inline(always)]
                    |y, []| y * scale,
                )
            },
        )
    }
}

struct Backward<'y, 'a> {
    y: &'y [f32],
    dy: Buffers<'a>,
    width: usize,
}

impl<'a> WithSimd for Backward<'_, 'a> {
    type Output = &'a mut [f32];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { y, dy, width } = self;
        dy.rows(
            width,
            #[inline(always)]
            |row, dy| {
                let y = &y[row * width..][..width];
                let share = sum(
                    simd,
                    [y, dy.values()],
                    #[inline(always)]
                    |[y, dy]| y * dy,
                );
                dy.map(
                    simd,
                    [y],
                    #[inline(always)]
                    |dy, [y]| y * (dy - share),
                )
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::Config;

    use super::*;
    use crate::kernels::buffers::fresh;
    use crate::kernels::reference;
    use crate::kernels::testing::{assert_close, assert_threads_do_not_matter, draw, on_every_set, wide};

    /// `y` and `dx`, by the code of one instruction set.
    struct Both<'x>(&'x [f32], &'x [f32], usize);

    impl WithSimd for Both<'_> {
        type Output = [Vec<f32>; 2];

        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let Self(x, dy, width) = self;
            let (mut y, mut dx) = (x.to_vec(), dy.to_vec());
            Forward { x: Buffers::from(&mut y[..]), width }.with_simd(simd);
            Backward { y: &y, dy: Buffers::from(&mut dx[..]), width }.with_simd(simd);
            [y, dx]
        }
    }

    #[test]
    fn what_is_masked_has_no_share() {
        const NONE: f32 = f32::NEG_INFINITY;
        for (set, [y, dx]) in on_every_set(|| Both(&[NONE, 2.0, 2.0, NONE], &[9.0, 1.0, 3.0, 9.0], 4)) {
            assert_eq!(y, [0.0, 0.5, 0.5, 0.0], "{set}");
            assert_eq!(dx, [0.0, -0.5, 0.5, 0.0], "{set}");
        }
        for row in [[NONE; 3], [f32::NAN, 0.0, 1.0], [f32::INFINITY, 0.0, 1.0]] {
            for (set, [y, _]) in on_every_set(|| Both(&row, &row, 3)) {
                assert!(y.iter().all(|y| y.is_nan()), "{set} {row:?}: {y:?}");
            }
        }
    }

    #[test]
    fn large_values_do_not_overflow() {
        for (set, [y, _]) in on_every_set(|| Both(&[1e4, 1e4, -1e4], &[0.0; 3], 3)) {
            assert_eq!(y, [0.5, 0.5, 0.0], "{set}");
        }
    }

    #[test]
    fn threads_do_not_matter() {
        for width in [7, 150, 20_000] {
            let (x, dy) = (draw(0, "x", width * 60), draw(0, "dy", width * 60));
            assert_threads_do_not_matter(&format!("rows of {width}"), || {
                let y = fresh(&x, |x| softmax(x, width));
                let dx = fresh(&dy, |dy| softmax_backward(&y, dy, width));
                [y, dx].concat()
            });
        }
    }

    /// Where one value has nearly all the weight, what it is divided by is a sum of many that hardly change it.
    #[test]
    fn a_sum_of_many_small_values_keeps_its_digits() {
        let (seed, width) = (4_153_241_102_452_234_837, 764);
        let x = draw(seed, "x", 2 * width);
        let exact = reference::softmax::forward(&wide(&x), width);
        for (set, [y, _]) in on_every_set(|| Both(&x, &x, width)) {
            assert_close(&format!("y on {set}"), &y, &exact, 1e-6);
        }
    }

    proptest! {
        #![proptest_config(Config { cases: 200, failure_persistence: None, ..Config::default() })]

        #[test]
        fn rows_of_any_width(seed: u64, rows in 0_usize..20, width in prop_oneof![1_usize..40, 40_usize..1000]) {
            let (x, dy) = (draw(seed, "x", rows * width), draw(seed, "dy", rows * width));
            let exact = reference::softmax::forward(&wide(&x), width);
            let gradient = reference::softmax::backward(&exact, &wide(&dy), width);
            for (set, [y, dx]) in on_every_set(|| Both(&x, &dy, width)) {
                assert_close(&format!("y on {set}"), &y, &exact, 1e-6);
                assert_close(&format!("dx on {set}"), &dx, &gradient, 1e-5);
            }
            let y = fresh(&x, |x| softmax(x, width));
            assert_close("y", &y, &exact, 1e-6);
            assert_close("dx", &fresh(&dy, |dy| softmax_backward(&y, dy, width)), &gradient, 1e-5);
        }
    }
}
