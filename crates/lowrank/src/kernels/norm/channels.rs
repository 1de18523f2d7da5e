//! Group normalisation (Wu and He, 2018), of which instance normalisation is the case of one channel a group, and batch
//! normalisation with running statistics (Ioffe and Szegedy, 2015).
//!
//! Tensors are `[batch, channels, length]`, any further axes flattened into `length`. A row is one channel of one sample,
//! and `x̂ = (x - mean) / √(variance + ε)`.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Moments, count};
use crate::kernels::buffers::Buffers;
use crate::kernels::lanes::arch;
use crate::kernels::reduce::sum;

/// Values a core takes at a time. Sums are split at multiples of it, whatever the number of cores.
const CHUNK: usize = 1 << 16;

/// Normalises each group of channels of each sample.
#[derive(Debug, Clone, Copy)]
pub struct GroupNorm {
    /// Channels of a sample.
    pub channels: usize,
    /// Groups of channels that share their moments.
    pub groups: usize,
    /// Values of a channel.
    pub length: usize,
}

/// Normalises each channel by moments that are given.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm {
    /// Channels of a sample.
    pub channels: usize,
    /// Values of a channel.
    pub length: usize,
}

impl GroupNorm {
    fn channels_of_group(&self) -> usize {
        assert_eq!(self.channels % self.groups, 0, "as many channels in every group");
        self.channels / self.groups
    }

    /// Values of a group.
    fn size(&self, len: usize, moments: usize) -> usize {
        let size = self.channels_of_group() * self.length;
        assert!(size > 0, "groups without values");
        assert_eq!(len, moments * size, "a group of values for each moment");
        size
    }

    /// The moments of each sample's groups, on all cores; `moments` is written.
    ///
    /// # Panics
    /// When the sizes do not fit.
    pub fn moments(&self, x: &[f32], epsilon: f32, moments: &mut [Moments]) {
        let size = self.size(x.len(), moments.len());
        let groups = moments.par_iter_mut().zip(x.par_chunks(size)).with_min_len(CHUNK.div_ceil(size));
        groups.for_each(|(moment, x)| {
            let Spread { mean, squares, .. } = spread(x);
            *moment = super::moments(narrow(mean), narrow(squares) / count(size), epsilon);
        });
    }

    /// `y = γ·x̂ + β`, on all cores.
    ///
    /// # Panics
    /// When the sizes do not fit.
    pub fn forward<'a>(
        &self,
        x: impl Into<Buffers<'a>>,
        [gamma, beta]: [&[f32]; 2],
        moments: &[Moments],
    ) -> &'a mut [f32] {
        let x = x.into();
        self.size(x.len(), moments.len());
        let group = self.channels_of_group();
        let row = |row| (moments[row / group], [gamma[row % self.channels], beta[row % self.channels]]);
        normalise(x, self.length, row)
    }

    /// `[Σ dy, Σ dy·x̂]` of each row, on all cores; `sums` is written.
    ///
    /// # Panics
    /// When the sizes do not fit.
    pub fn sums(&self, x: &[f32], moments: &[Moments], dy: &[f32], sums: &mut [[f32; 2]]) {
        self.size(x.len(), moments.len());
        let group = self.channels_of_group();
        row_sums(x, dy, self.length, |row| moments[row / group], sums);
    }

    /// `[mean(γ·dy), mean(γ·dy·x̂)]` of each group, from what [`GroupNorm::sums`] gave; `means` is written.
    ///
    /// # Panics
    /// When the sizes do not fit.
    pub fn means(&self, gamma: &[f32], sums: &[[f32; 2]], means: &mut [[f32; 2]]) {
        let group = self.channels_of_group();
        assert_eq!(sums.len(), means.len() * group, "sums for each mean");
        for (index, (sums, means)) in sums.chunks(group).zip(means).enumerate() {
            let gamma = &gamma[index % self.groups * group..];
            *means = [0, 1].map(|which| {
                let total: f64 = sums.iter().zip(gamma).map(|(sum, &gamma)| f64::from(gamma * sum[which])).sum();
                narrow(total) / count(group * self.length)
            });
        }
    }

    /// `dx = (γ·dy - mean(γ·dy) - x̂·mean(γ·dy·x̂)) / √(variance + ε)`, on all cores; `means` is what [`GroupNorm::means`] gave.
    ///
    /// # Panics
    /// When the sizes do not fit.
    pub fn backward<'a>(
        &self,
        x: &[f32],
        gamma: &[f32],
        moments: &[Moments],
        means: &[[f32; 2]],
        dy: impl Into<Buffers<'a>>,
    ) -> &'a mut [f32] {
        let dy = dy.into();
        self.size(x.len(), moments.len());
        assert_eq!(x.len(), dy.len(), "a gradient is as long as the values");
        let norm = *self;
        dy.chunks(CHUNK, |index, dy| {
            let start = index * CHUNK;
            arch().dispatch(Backward { norm, x: &x[start..][..dy.len()], start, gamma, moments, means, dy })
        })
    }
}

impl BatchNorm {
    fn check(&self, len: usize, moments: usize) {
        assert!(self.channels * self.length > 0, "samples without values");
        assert_eq!(len % (self.channels * self.length), 0, "whole samples");
        assert_eq!(self.channels, moments, "one moment for each channel");
    }

    /// `y = γ·x̂ + β`, on all cores.
    ///
    /// # Panics
    /// When the sizes do not fit.
    pub fn forward<'a>(
        &self,
        x: impl Into<Buffers<'a>>,
        [gamma, beta]: [&[f32]; 2],
        moments: &[Moments],
    ) -> &'a mut [f32] {
        let x = x.into();
        self.check(x.len(), moments.len());
        let channel = |row: usize| row % self.channels;
        normalise(x, self.length, |row| (moments[channel(row)], [gamma[channel(row)], beta[channel(row)]]))
    }

    /// `[Σ dy, Σ dy·x̂]` of each row, on all cores; `sums` is written.
    ///
    /// # Panics
    /// When the sizes do not fit.
    pub fn sums(&self, x: &[f32], moments: &[Moments], dy: &[f32], sums: &mut [[f32; 2]]) {
        self.check(x.len(), moments.len());
        row_sums(x, dy, self.length, |row| moments[row % self.channels], sums);
    }

    /// `dx = γ·dy / √(variance + ε)`, on all cores: the moments do not depend on `x`.
    ///
    /// # Panics
    /// When the sizes do not fit.
    pub fn backward<'a>(&self, gamma: &[f32], moments: &[Moments], dy: impl Into<Buffers<'a>>) -> &'a mut [f32] {
        let dy = dy.into();
        self.check(dy.len(), moments.len());
        let channel = |row: usize| row % self.channels;
        normalise(dy, self.length, |row| ([0.0, moments[channel(row)][1]], [gamma[channel(row)], 0.0]))
    }
}

/// `dγ` and `dβ` of each channel, from the sums of its rows; `gradients` are written.
///
/// # Panics
/// When the sizes do not fit.
pub fn channel_parameters(sums: &[[f32; 2]], [dgamma, dbeta]: [&mut [f32]; 2]) {
    let channels = dgamma.len();
    assert_eq!(sums.len() % channels, 0, "whole samples");
    assert_eq!(dbeta.len(), channels, "as many of γ and β");
    dgamma.fill(0.0);
    dbeta.fill(0.0);
    for sample in sums.chunks(channels) {
        for ((dgamma, dbeta), [level, tilt]) in dgamma.iter_mut().zip(&mut *dbeta).zip(sample) {
            *dgamma += tilt;
            *dbeta += level;
        }
    }
}

/// `y = γ·x̂ + β` for each row of `length` values; `row` gives its moments, `γ` and `β`.
fn normalise(x: Buffers<'_>, length: usize, row: impl Fn(usize) -> (Moments, [f32; 2]) + Sync) -> &mut [f32] {
    x.chunks(CHUNK, |index, x| arch().dispatch(Normalise { x, start: index * CHUNK, length, row: &row }))
}

struct Normalise<'r, 'a, F> {
    x: Buffers<'a>,
    start: usize,
    length: usize,
    row: &'r F,
}

impl<'a, F: Fn(usize) -> (Moments, [f32; 2])> WithSimd for Normalise<'_, 'a, F> {
    type Output = &'a mut [f32];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { x, start, length, row } = self;
        x.parts(
            start,
            length,
            #[inline(always)]
            |index, _, x| {
                let ([mean, rstd], [gamma, beta]) = row(index);
                x.map(
                    simd,
                    [],
                    #[inline(always)]
                    |x, []| (x - mean).mul_add(rstd * gamma, beta),
                )
            },
        )
    }
}

struct Backward<'x, 'a> {
    norm: GroupNorm,
    x: &'x [f32],
    start: usize,
    gamma: &'x [f32],
    moments: &'x [Moments],
    means: &'x [[f32; 2]],
    dy: Buffers<'a>,
}

impl<'a> WithSimd for Backward<'_, 'a> {
    type Output = &'a mut [f32];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { norm, x, start, gamma, moments, means, dy } = self;
        let group = norm.channels / norm.groups;
        dy.parts(
            start,
            norm.length,
            #[inline(always)]
            |row, begin, dy| {
                let [mean, rstd] = moments[row / group];
                let [level, tilt] = means[row / group];
                let (scale, slope, shift) = (gamma[row % norm.channels] * rstd, -tilt * rstd * rstd, -level * rstd);
                let x = &x[begin..];
                dy.map(
                    simd,
                    [x],
                    #[inline(always)]
                    |dy, [x]| (x - mean).mul_add(slope, dy.mul_add(scale, shift)),
                )
            },
        )
    }
}

/// Mean of `count` values, and the sum of the squares of what they differ from it.
#[derive(Clone, Copy)]
struct Spread {
    count: f64,
    mean: f64,
    squares: f64,
}

/// The spread of a slice, halves joined (Chan, Golub and `LeVeque`, 1983).
fn spread(x: &[f32]) -> Spread {
    halves(x.len(), &|part| arch().dispatch(SpreadOf(&x[part])), &|a: Spread, b: Spread| {
        let (count, apart) = (a.count + b.count, b.mean - a.mean);
        Spread {
            count,
            mean: a.mean + apart * b.count / count,
            squares: a.squares + b.squares + apart * apart * a.count * b.count / count,
        }
    })
}

struct SpreadOf<'x>(&'x [f32]);

impl WithSimd for SpreadOf<'_> {
    type Output = Spread;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Spread {
        let Self(x) = self;
        let mean = sum(
            simd,
            [x],
            #[inline(always)]
            |[x]| x,
        ) / count(x.len());
        let squares = sum(
            simd,
            [x],
            #[inline(always)]
            |[x]| (x - mean) * (x - mean),
        );
        Spread { count: count(x.len()).into(), mean: mean.into(), squares: squares.into() }
    }
}

fn row_sums(x: &[f32], dy: &[f32], length: usize, moment: impl Fn(usize) -> Moments + Sync, sums: &mut [[f32; 2]]) {
    assert_eq!(x.len(), dy.len(), "a gradient is as long as the values");
    assert_eq!(x.len(), sums.len() * length, "a row of values for each sum");
    let rows = sums.par_iter_mut().enumerate().with_min_len(CHUNK.div_ceil(length));
    rows.for_each(|(row, sums)| {
        let (x, dy) = (&x[row * length..][..length], &dy[row * length..][..length]);
        let moment = moment(row);
        let part = |part: Range<usize>| arch().dispatch(SumsOf { x: &x[part.clone()], dy: &dy[part], moment });
        *sums = halves(length, &part, &|a: [f64; 2], b| [a[0] + b[0], a[1] + b[1]]).map(narrow);
    });
}

struct SumsOf<'x> {
    x: &'x [f32],
    dy: &'x [f32],
    moment: Moments,
}

impl WithSimd for SumsOf<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f64; 2] {
        let Self { x, dy, moment: [mean, rstd] } = self;
        let level = sum(
            simd,
            [dy],
            #[inline(always)]
            |[dy]| dy,
        );
        let tilt = sum(
            simd,
            [dy, x],
            #[inline(always)]
            |[dy, x]| dy * (x - mean),
        );
        [level.into(), (tilt * rstd).into()]
    }
}

/// `part` of `0..len`, in halves on other cores that `join` puts together, down to [`CHUNK`] values.
fn halves<T: Send>(len: usize, part: &(impl Fn(Range<usize>) -> T + Sync), join: &(impl Fn(T, T) -> T + Sync)) -> T {
    fn within<T: Send>(
        range: Range<usize>,
        part: &(impl Fn(Range<usize>) -> T + Sync),
        join: &(impl Fn(T, T) -> T + Sync),
    ) -> T {
        if range.len() <= CHUNK {
            return part(range);
        }
        let middle = range.start + range.len().div_ceil(2).next_multiple_of(CHUNK);
        let (a, b) = rayon::join(|| within(range.start..middle, part, join), || within(middle..range.end, part, join));
        join(a, b)
    }
    within(0..len, part, join)
}

#[expect(clippy::cast_possible_truncation, reason = "sums in f64 end as f32")]
fn narrow(value: f64) -> f32 {
    value as f32
}
