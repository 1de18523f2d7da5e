//! Layer normalisation: each row on its own (Ba, Kiros and Hinton, 2016).

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Moments, count, moments};
use crate::kernels::buffers::Buffers;
use crate::kernels::lanes::{Lanes, arch};
use crate::kernels::reduce::sum;

/// Values a core takes at a time: enough to be worth the hand-over.
const CHUNK: usize = 1 << 14;

/// `y = γ·(x - mean) / √(variance + ε) + β` for each row of `γ.len()` values, on all cores; `moments` has one element for
/// each row, and is written.
///
/// # Panics
/// When the sizes do not fit.
pub fn layer_norm<'a>(
    x: impl Into<Buffers<'a>>,
    [gamma, beta]: [&[f32]; 2],
    epsilon: f32,
    moments: &mut [Moments],
) -> &'a mut [f32] {
    let x = x.into();
    let width = gamma.len();
    assert_eq!(x.len(), moments.len() * width, "a row of values for each moment");
    assert_eq!(beta.len(), width, "as many of γ and β");
    let rows = rows_of_chunk(width);
    x.chunks_beside(rows * width, (moments, rows), |_, x, moments| {
        arch().dispatch(Forward { x, gamma, beta, epsilon, moments })
    })
}

/// `dx = (γ·dy - mean(γ·dy) - x̂·mean(γ·dy·x̂)) / √(variance + ε)` for each row, with `x̂ = (x - mean) / √(variance + ε)`, on all
/// cores.
///
/// # Panics
/// When the sizes do not fit.
pub fn layer_norm_backward<'a>(
    x: &[f32],
    gamma: &[f32],
    moments: &[Moments],
    dy: impl Into<Buffers<'a>>,
) -> &'a mut [f32] {
    let dy = dy.into();
    let width = gamma.len();
    assert_eq!(x.len(), moments.len() * width, "a row of values for each moment");
    assert_eq!(x.len(), dy.len(), "a gradient is as long as the values");
    let rows = rows_of_chunk(width);
    dy.chunks(rows * width, |index, dy| {
        let x = &x[index * rows * width..][..dy.len()];
        arch().dispatch(Backward { x, gamma, moments: &moments[index * rows..], dy })
    })
}

/// `dγ = Σ dy·x̂` and `dβ = Σ dy` over the rows, on all cores; `gradients` are written.
///
/// # Panics
/// When the sizes do not fit.
pub fn layer_norm_parameters(x: &[f32], moments: &[Moments], dy: &[f32], [dgamma, dbeta]: [&mut [f32]; 2]) {
    let width = dgamma.len();
    assert_eq!(x.len(), moments.len() * width, "a row of values for each moment");
    assert_eq!(x.len(), dy.len(), "a gradient is as long as the values");
    assert_eq!(dbeta.len(), width, "as many of γ and β");
    let strips = dgamma.par_chunks_mut(STRIP).zip(dbeta.par_chunks_mut(STRIP));
    strips.enumerate().for_each(|(index, (dgamma, dbeta))| {
        arch().dispatch(Parameters { x, width, first: index * STRIP, moments, dy, dgamma, dbeta });
    });
}

fn rows_of_chunk(width: usize) -> usize {
    assert!(width > 0, "rows without values");
    CHUNK.div_ceil(width)
}

struct Forward<'g, 'm, 'a> {
    x: Buffers<'a>,
    gamma: &'g [f32],
    beta: &'g [f32],
    epsilon: f32,
    moments: &'m mut [Moments],
}

impl<'a> WithSimd for Forward<'_, '_, 'a> {
    type Output = &'a mut [f32];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { x, gamma, beta, epsilon, moments: written } = self;
        let width = gamma.len();
        x.rows(
            width,
            #[inline(always)]
            |row, x| {
                let mean = sum(
                    simd,
                    [x.values()],
                    #[inline(always)]
                    |[x]| x,
                ) / count(width);
                let squares = sum(
                    simd,
                    [x.values()],
                    #[inline(always)]
                    |[x]| (x - mean) * (x - mean),
                );
                let rstd = moments(mean, squares / count(width), epsilon)[1];
                written[row] = [mean, rstd];
                x.map(
                    simd,
                    [gamma, beta],
                    #[inline(always)]
                    |x, [gamma, beta]| ((x - mean) * rstd).mul_add(gamma, beta),
                )
            },
        )
    }
}

struct Backward<'x, 'a> {
    x: &'x [f32],
    gamma: &'x [f32],
    moments: &'x [Moments],
    dy: Buffers<'a>,
}

impl<'a> WithSimd for Backward<'_, 'a> {
    type Output = &'a mut [f32];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { x, gamma, moments, dy } = self;
        let width = gamma.len();
        dy.rows(
            width,
            #[inline(always)]
            |row, dy| {
                let x = &x[row * width..][..width];
                let [mean, rstd] = moments[row];
                let level = sum(
                    simd,
                    [gamma, dy.values()],
                    #[inline(always)]
                    |[gamma, dy]| gamma * dy,
                ) / count(width);
                let tilt = sum(
                    simd,
                    [gamma, dy.values(), x],
                    #[inline(always)]
                    |[gamma, dy, x]| gamma * dy * (x - mean),
                );
                let tilt = tilt * rstd * rstd / count(width);
                dy.map(
                    simd,
                    [gamma, x],
                    #[inline(always)]
                    |dy, [gamma, x]| ((x - mean).mul_add(-tilt, gamma * dy) - level) * rstd,
                )
            },
        )
    }
}

/// Columns whose sums a core keeps in its nearest cache.
const STRIP: usize = 64;

/// Rows summed before they join the total, so that long sums stay accurate.
const BLOCK: usize = 128;

struct Parameters<'x, 'a> {
    x: &'x [f32],
    width: usize,
    first: usize,
    moments: &'x [Moments],
    dy: &'x [f32],
    dgamma: &'a mut [f32],
    dbeta: &'a mut [f32],
}

impl WithSimd for Parameters<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, width, first, moments, dy, dgamma, dbeta } = self;
        let strip = dgamma.len();
        dgamma.fill(0.0);
        dbeta.fill(0.0);
        for (block, moments) in moments.chunks(BLOCK).enumerate() {
            let (mut tilts, mut levels) = ([0.0; STRIP], [0.0; STRIP]);
            for (row, &[mean, rstd]) in moments.iter().enumerate() {
                let begin = (block * BLOCK + row) * width + first;
                let (x, dy) = (&x[begin..][..strip], &dy[begin..][..strip]);
                Buffers::from(&mut tilts[..strip]).map(
                    simd,
                    [x, dy],
                    #[inline(always)]
                    |sum, [x, dy]| ((x - mean) * rstd).mul_add(dy, sum),
                );
                Buffers::from(&mut levels[..strip]).map(
                    simd,
                    [dy],
                    #[inline(always)]
                    |sum, [dy]| sum + dy,
                );
            }
            let add = |sum: Lanes<S>, [part]: [Lanes<S>; 1]| sum + part;
            Buffers::from(&mut *dgamma).map(simd, [&tilts[..]], add);
            Buffers::from(&mut *dbeta).map(simd, [&levels[..]], add);
        }
    }
}
