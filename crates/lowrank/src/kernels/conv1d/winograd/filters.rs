//! Weights in the transformed domain.

use rayon::prelude::*;

use super::super::super::block::{self, Scalars};
use super::super::super::lanes::{Lanes, arch};
use super::super::super::scratch;
use super::super::weights::Strides;
use super::minimal::{self, Minimal, OUTPUTS};
use super::scheme::{Progression, Scheme};

/// Transformed weights, by blocks of rows: for each sum of the scheme the rows of the block one after the other, each with
/// the filters and channels (or single taps and channels) that are added up.
pub(super) struct Filters {
    data: Vec<f32>,
    /// Rows of a block; those that do not exist are zero.
    pub height: usize,
    pub rows: usize,
    /// Where the sums of a block begin, and how long their rows are.
    places: Vec<(usize, usize)>,
    block: usize,
}

impl Filters {
    /// Of the kernel `(rows, channels, taps)` that stands in `values` at `strides`.
    pub fn new(scheme: &Scheme, values: &[f32], [rows, channels]: [usize; 2], strides: Strides) -> Self {
        let height = arch().dispatch(Height);
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
        let mut data = vec![0.0; rows.div_ceil(height) * block];
        data.par_chunks_mut(block).enumerate().for_each(|(index, data)| {
            let rows = index * height..rows.min((index + 1) * height);
            let task = Task { scheme, values, channels, strides, rows, places: &places, data };
            task.run();
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

fn filters(scheme: &Scheme) -> usize {
    scheme.filtered.iter().map(|run| run.filters).sum()
}

struct Height;

impl pulp::WithSimd for Height {
    type Output = usize;

    fn with_simd<S: pulp::Simd>(self, _simd: S) -> usize {
        block::rows::<S>()
    }
}

/// One block of rows.
struct Task<'a> {
    scheme: &'a Scheme,
    values: &'a [f32],
    channels: usize,
    strides: Strides,
    rows: std::ops::Range<usize>,
    places: &'a [(usize, usize)],
    data: &'a mut [f32],
}

impl Task<'_> {
    fn run(mut self) {
        let (mut filter, mut single) = (0, 0);
        for run in &self.scheme.filtered {
            self.progression(run, |task, row, taps| match task.scheme.length {
                2 => task.transform(&minimal::TWO, row, taps, filter),
                3 => task.transform(&minimal::THREE, row, taps, filter),
                _ => task.transform(&minimal::FOUR, row, taps, filter),
            });
            filter += run.filters;
        }
        for run in &self.scheme.single {
            self.progression(run, |task, row, taps| {
                for output in 0..OUTPUTS {
                    task.place(task.scheme.points() + output, row, single).copy_from_slice(taps);
                }
            });
            single += 1;
        }
    }

    /// Gives `write` the taps of every row, each tap's channels one after the other.
    fn progression(&mut self, run: &Progression, write: impl Fn(&mut Self, usize, &[f32])) {
        let (count, channels, strides) = (run.taps.len(), self.channels, self.strides);
        let rows = self.rows.clone();
        scratch::with(rows.len() * count * channels, |taps| {
            for channel in 0..channels {
                for (index, row) in rows.clone().enumerate() {
                    let source = &self.values[row * strides.row + channel * strides.channel..];
                    for (at, tap) in run.taps.iter().enumerate() {
                        taps[(index * count + at) * channels + channel] = source[tap * strides.tap];
                    }
                }
            }
            for (row, taps) in taps.chunks_exact(count * channels).enumerate() {
                write(self, row, taps);
            }
        });
    }

    fn transform<const R: usize, const E: usize>(
        &mut self,
        minimal: &Minimal<R, E>,
        row: usize,
        taps: &[f32],
        first: usize,
    ) {
        for (filter, taps) in taps.chunks(R * self.channels).enumerate() {
            for (point, factors) in minimal.g.iter().enumerate() {
                let place = self.place(point, row, first + filter);
                place.fill(0.0);
                for (tap, factor) in taps.chunks_exact(place.len()).zip(factors) {
                    arch().dispatch(AddScaled { to: &mut *place, values: tap, factor: *factor });
                }
            }
        }
    }

    /// The values of one filter, or single tap, for every channel.
    fn place(&mut self, sum: usize, row: usize, index: usize) -> &mut [f32] {
        let (start, stride) = self.places[sum];
        &mut self.data[start + row * stride + index * self.channels..][..self.channels]
    }
}

/// `to += factor · values`.
struct AddScaled<'a> {
    to: &'a mut [f32],
    values: &'a [f32],
    factor: f32,
}

impl pulp::WithSimd for AddScaled<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let factor = Lanes::splat(simd, self.factor);
        let lanes = S::F32_LANES;
        for (to, values) in self.to.chunks_mut(lanes).zip(self.values.chunks(lanes)) {
            factor.mul_add(Lanes::load(simd, values), Lanes::load(simd, to)).store(to);
        }
    }
}
