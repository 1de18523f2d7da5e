//! Weights in the transformed domain.

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
        let [rows, channels] = kernel.size;
        let height = block::height();
        let mut block = 0;
        let places: Vec<_> = (0..scheme.sums())
            .map(|sum| {
                let steps = channels * if sum < scheme.points() { filters(scheme) } else { scheme.single.len() };
                // Rows must not compete for the same places in the cache.
                let stride = steps.next_multiple_of(32) + 16;
                block += height * stride;
                (block - height * stride, stride)
            })
            .collect();
        let mut data = Buffer::new(rows.div_ceil(height) * block);
        data.par_chunks_mut(block).enumerate().with_min_len(LEAST.div_ceil(block)).for_each(|(index, data)| {
            let rows = index * height..rows.min((index + 1) * height);
            let (of_kernel, count) = (kernel.memory([rows.len(), channels]), rows.len());
            scratch::with(of_kernel + count * scheme.most_taps() * channels, |memory| {
                let (memory, line) = memory.split_at_mut(of_kernel);
                let (values, strides) = kernel.block(group, rows, 0..channels, memory);
                if count < height {
                    data.fill(0.0);
                }
                Task { scheme, values, channels, strides, rows: count, places: &places, data }.run(line);
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

/// Values of a task at least: for fewer, another thread is not worth waking.
const LEAST: usize = 1 << 13;

fn filters(scheme: &Scheme) -> usize {
    scheme.filtered.iter().map(|run| run.filters).sum()
}

/// One block of rows.
struct Task<'a> {
    scheme: &'a Scheme,
    values: &'a [f32],
    channels: usize,
    strides: Strides,
    rows: usize,
    places: &'a [(usize, usize)],
    data: &'a mut [f32],
}

impl Task<'_> {
    /// With memory for the taps of all rows.
    fn run(mut self, line: &mut [f32]) {
        let mut first = 0;
        for run in &self.scheme.filtered {
            self.progression(run, line, |task, row, taps| match task.scheme.length {
                2 => task.transform(&Two::G, row, taps, first),
                3 => task.transform(&Three::G, row, taps, first),
                _ => task.transform(&Four::G, row, taps, first),
            });
            first += run.filters;
        }
        for (index, run) in self.scheme.single.iter().enumerate() {
            self.progression(run, line, |task, row, taps| {
                for output in 0..OUTPUTS {
                    let start = task.start(task.scheme.points() + output, row, index);
                    task.data[start..][..taps.len()].copy_from_slice(taps);
                }
            });
        }
    }

    /// Gives `write` the taps of every row, each tap's channels one after the other.
    fn progression(&mut self, run: &Progression, line: &mut [f32], write: impl Fn(&mut Self, usize, &[f32])) {
        let (count, channels, strides) = (run.taps.len(), self.channels, self.strides);
        for (row, line) in line.chunks_exact_mut(count * channels).take(self.rows).enumerate() {
            for (tap, line) in run.taps.iter().zip(line.chunks_exact_mut(channels)) {
                let source = &self.values[row * strides.row + tap * strides.tap..];
                line.iter_mut().zip(source.iter().step_by(strides.channel)).for_each(|(to, from)| *to = *from);
            }
        }
        for (row, taps) in line.chunks_exact(count * channels).take(self.rows).enumerate() {
            write(self, row, taps);
        }
    }

    /// The filters from `first` of a row.
    fn transform<const R: usize, const E: usize>(
        &mut self,
        g: &'static [[f32; R]; E],
        row: usize,
        taps: &[f32],
        first: usize,
    ) {
        for (filter, taps) in taps.chunks(R * self.channels).enumerate() {
            let starts = std::array::from_fn(|point| self.start(point, row, first + filter));
            arch().dispatch(Transform { g, taps, channels: self.channels, data: &mut *self.data, starts });
        }
    }

    /// Where the values of one filter, or single tap, begin.
    fn start(&self, sum: usize, row: usize, index: usize) -> usize {
        let (start, stride) = self.places[sum];
        start + row * stride + index * self.channels
    }
}

/// `data[starts[e] + channel] = Σ_j g[e][j] · taps[j, channel]`, over the taps there are.
struct Transform<'a, const R: usize, const E: usize> {
    g: &'static [[f32; R]; E],
    taps: &'a [f32],
    channels: usize,
    data: &'a mut [f32],
    starts: [usize; E],
}

impl<const R: usize, const E: usize> pulp::WithSimd for Transform<'_, R, E> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let Self { g, taps, channels, data, starts } = self;
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
