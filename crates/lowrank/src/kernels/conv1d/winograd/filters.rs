//! Weights in the transformed domain.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use rayon::prelude::*;

use super::super::super::block::{self, Scalars};
use super::super::super::lanes::{Lanes, arch};
use super::super::super::scratch::{self, Buffer};
use super::super::kernel::{Kernel, Strides};
use super::minimal::{Four, Minimal, OUTPUTS, Three, Two};
use super::scheme::{Progression, Scheme};

/// Transformed weights, by blocks of rows: for each sum of the scheme the rows of the block one after the other, each with
/// the filters and channels (or single taps and channels) that are added up.
pub(super) struct Filters {
    data: Buffer,
    /// Rows of a block; those that do not exist are zero.
    pub height: usize,
    pub rows: usize,
    /// Where the sums of a block begin, and how long their rows are.
    places: Vec<(usize, usize)>,
    block: usize,
}

impl Filters {
    /// Of the kernels of a group.
    pub fn new(scheme: &Scheme, kernel: &Kernel<'_>, group: usize) -> Self {
        let [rows, all] = kernel.size;
        let height = block::height();
        let mut block = 0;
        let places: Vec<_> = (0..scheme.sums())
            .map(|sum| {
                let steps = all * if sum < scheme.points() { filters(scheme) } else { scheme.single.len() };
                // Rows must not compete for the same places in the cache.
                let stride = steps.next_multiple_of(32) + 16;
                block += height * stride;
                (block - height * stride, stride)
            })
            .collect();
        let mut data = Buffer::new(rows.div_ceil(height) * block);
        let share = if rows < TASKS * ROWS { height } else { ROWS };
        let size = share / height * block;
        data.par_chunks_mut(size).enumerate().with_min_len(LEAST.div_ceil(size)).for_each(|(index, data)| {
            let rows = index * share..rows.min((index + 1) * share);
            if rows.len() < data.len() / block * height {
                data.fill(0.0);
            }
            let few = at_a_time(rows.len() * kernel.taps).min(all);
            let of_kernel = kernel.memory([rows.len(), few]);
            scratch::with(of_kernel + rows.len() * scheme.most_taps() * few, |memory| {
                let (memory, line) = memory.split_at_mut(of_kernel);
                for first in (0..all).step_by(few) {
                    let channels = first..all.min(first + few);
                    let (values, strides) = kernel.block(group, rows.clone(), channels.clone(), memory);
                    let slots = Slots { sums: &places, block, height, channels: all, first };
                    let count = [rows.len(), channels.len()];
                    Task { scheme, values, strides, count, slots, data: &mut *data }.run(line);
                }
            });
        });
        Self { data, height, rows, places, block }
    }

    /// The factors of one sum, for the block of rows from `first`.
    pub fn scalars(&self, first: usize, sum: usize) -> Scalars<'_> {
        let (start, stride) = self.places[sum];
        let data = &self.data[first / self.height * self.block + start..][..self.height * stride];
        Scalars { data, row_stride: stride, step_stride: 1 }
    }
}

/// Rows of a task: the taps of so many inputs are whole registers and whole lines of the cache, whatever the kernel.
const ROWS: usize = 16;
/// Tasks for which rows are taken so many at a time.
const TASKS: usize = 8;
/// Values of a task at least: for fewer, another thread is not worth waking.
const LEAST: usize = 1 << 13;
/// Weights that are transformed at a time, which stay in the first-level cache.
const WEIGHTS: usize = 1 << 13;
/// Channels that are put side by side at a time: they lie in as many lines of the cache.
const CHANNELS: usize = 16;

/// Channels that are transformed at a time, of so many weights each; whole registers.
fn at_a_time(weights: usize) -> usize {
    (WEIGHTS / weights / CHANNELS).max(1) * CHANNELS
}

fn filters(scheme: &Scheme) -> usize {
    scheme.filtered.iter().map(|run| run.filters).sum()
}

/// Where the transformed weights of some channels go.
#[derive(Clone, Copy)]
struct Slots<'a> {
    /// Where the sums of a block begin, and how long their rows are.
    sums: &'a [(usize, usize)],
    block: usize,
    height: usize,
    /// All channels.
    channels: usize,
    /// The first of them.
    first: usize,
}

impl Slots<'_> {
    /// Of one filter, or single tap, of a row.
    #[inline(always)]
    fn of(&self, sum: usize, row: usize, index: usize) -> usize {
        let (start, stride) = self.sums[sum];
        row / self.height * self.block + start + row % self.height * stride + index * self.channels + self.first
    }
}

/// Some rows and channels.
struct Task<'a> {
    scheme: &'a Scheme,
    values: &'a [f32],
    strides: Strides,
    /// Rows, and channels.
    count: [usize; 2],
    slots: Slots<'a>,
    data: &'a mut [f32],
}

impl Task<'_> {
    /// With memory for the taps of all rows.
    fn run(mut self, line: &mut [f32]) {
        let mut first = 0;
        for run in &self.scheme.filtered {
            self.side_by_side(run, line);
            match self.scheme.length {
                2 => self.transform(&Two::G, run, line, first),
                3 => self.transform(&Three::G, run, line, first),
                _ => self.transform(&Four::G, run, line, first),
            }
            first += run.filters;
        }
        let [_, channels] = self.count;
        for (index, run) in self.scheme.single.iter().enumerate() {
            self.side_by_side(run, line);
            for (row, taps) in line.chunks_exact(channels).take(self.count[0]).enumerate() {
                for output in 0..OUTPUTS {
                    let start = self.slots.of(self.scheme.points() + output, row, index);
                    self.data[start..][..channels].copy_from_slice(taps);
                }
            }
        }
    }

    /// `line[row, tap, channel]` of the taps of a progression. A few channels after the other, so that what is read of
    /// them stays in the cache, however far they lie apart.
    fn side_by_side(&self, run: &Progression, line: &mut [f32]) {
        let ([rows, channels], strides) = (self.count, self.strides);
        for first in (0..channels).step_by(CHANNELS) {
            let count = CHANNELS.min(channels - first);
            for row in 0..rows {
                for (index, tap) in run.taps.iter().enumerate() {
                    let from = &self.values[row * strides.row + tap * strides.tap + first * strides.channel..];
                    let to = &mut line[(row * run.taps.len() + index) * channels + first..][..count];
                    to.iter_mut().zip(from.iter().step_by(strides.channel)).for_each(|(to, from)| *to = *from);
                }
            }
        }
    }

    /// The filters of a progression, from `first` on, of all rows.
    fn transform<const R: usize, const E: usize>(
        &mut self,
        g: &'static [[f32; R]; E],
        run: &Progression,
        line: &[f32],
        first: usize,
    ) {
        let ([rows, channels], slots) = (self.count, self.slots);
        let line = &line[..rows * run.taps.len() * channels];
        arch().dispatch(Transform { g, line, taps: run.taps.len(), channels, first, slots, data: &mut *self.data });
    }
}

/// `data[e, channel] = Σ_j g[e][j] · line[j, channel]` of every filter of every row, over the taps there are.
struct Transform<'a, const R: usize, const E: usize> {
    g: &'static [[f32; R]; E],
    line: &'a [f32],
    /// Of a row.
    taps: usize,
    channels: usize,
    /// The first filter.
    first: usize,
    slots: Slots<'a>,
    data: &'a mut [f32],
}

impl<const R: usize, const E: usize> pulp::WithSimd for Transform<'_, R, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let Self { g, line, taps, channels, first, slots, data } = self;
        for (row, line) in line.chunks_exact(taps * channels).enumerate() {
            for (filter, taps) in line.chunks(R * channels).enumerate() {
                let starts: [usize; E] = std::array::from_fn(|point| slots.of(point, row, first + filter));
                for channel in (0..channels).step_by(S::F32_LANES) {
                    let count = S::F32_LANES.min(channels - channel);
                    let mut values = [Lanes::splat(simd, 0.0); R];
                    for (value, taps) in values.iter_mut().zip(taps.chunks_exact(channels)) {
                        *value = Lanes::load(simd, &taps[channel..][..count]);
                    }
                    for (factors, start) in g.iter().zip(starts) {
                        let mut sum = Lanes::splat(simd, 0.0);
                        for (factor, value) in factors.iter().zip(values) {
                            sum = value.mul_add(*factor, sum);
                        }
                        sum.store(&mut data[start + channel..][..count]);
                    }
                }
            }
        }
    }
}
