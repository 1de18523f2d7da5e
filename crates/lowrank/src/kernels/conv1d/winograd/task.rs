//! One tile: its inputs transformed, multiplied, and transformed back.

#![expect(clippy::needless_range_loop, reason = "loops of a constant length over arrays, which become registers")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};

use super::super::super::activation::Activation;
use super::super::super::block::{self, AHEAD, COLUMNS, Rows};
use super::super::super::lanes::Lanes;
use super::super::product::{Epilogue, write};
use super::super::window::copy;
use super::Convolution;
use super::filters::Filters;
use super::lines::{SLACK, merge, split};
use super::minimal::{Minimal, OUTPUTS};
use super::scheme::{Progression, Scheme};
use super::tiles::Tile;

/// Values of the widest register.
const LANES: usize = 16;

/// One tile of one group.
pub(super) struct Task<'a, M, const R: usize, const E: usize> {
    pub minimal: PhantomData<M>,
    pub convolution: &'a Convolution<'a>,
    pub filters: &'a Filters,
    pub epilogue: Epilogue<'a>,
    pub group: usize,
    pub tile: Tile,
    pub sizes: Sizes,
    pub memory: &'a mut [f32],
}

/// Where everything lies in the memory of a tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// From the lanes of a signal to those of the next.
    apart: usize,
    /// Lanes of all signals.
    lanes: usize,
    /// Lanes of a source that are read, for the registers of all sums.
    reach: usize,
    /// From a channel to the next.
    row: usize,
    /// From a point, or a row of single taps, to the next.
    source: usize,
    /// All transformed inputs.
    window: usize,
    /// One line of a signal.
    line: usize,
    /// One of the four rows a line is split into.
    split: usize,
    /// The sums of one row of outputs.
    sums: usize,
    products: usize,
}

impl Sizes {
    pub fn new(scheme: &Scheme, channels: usize, tile: Tile, height: usize) -> Self {
        let blocks = tile.blocks + scheme.longest() - 1;
        let apart = blocks * tile.width;
        let lanes = (tile.samples - 1) * apart + tile.blocks * tile.width;
        // A whole register may be read from any lane on, and an odd number of cache lines from row to row keeps rows from
        // competing for the same places in the cache.
        let row = (tile.samples * apart + LANES).next_multiple_of(32) + 16;
        let source = channels * row;
        let split = ((blocks + 1) * tile.width).next_multiple_of(LANES) + 2 * SLACK;
        let line = OUTPUTS * split;
        let sums = lanes.next_multiple_of(LANES) + LANES + SLACK;
        Self {
            apart,
            lanes,
            reach: lanes.next_multiple_of(LANES) + apart - tile.blocks * tile.width,
            row,
            source,
            window: scheme.sources() * source,
            line,
            split,
            sums,
            products: scheme.sums() * height * sums,
        }
    }

    /// Values of all of it.
    pub fn len(&self) -> usize {
        self.window + self.line + (OUTPUTS * self.split).max(OUTPUTS * self.sums) + self.products
    }
}

impl<M: Minimal<R, E>, const R: usize, const E: usize> WithSimd for Task<'_, M, R, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { minimal, convolution, filters, epilogue, group, tile, sizes, memory } = self;
        let (window, rest) = memory.split_at_mut(sizes.window);
        let (line, rest) = rest.split_at_mut(sizes.line);
        let (rows, products) = rest.split_at_mut((OUTPUTS * sizes.split).max(OUTPUTS * sizes.sums));
        let channels = convolution.x.rows.channels;
        for channel in 0..channels {
            for sample in 0..tile.samples {
                let signal = convolution.x.row(tile.sample + sample, group, channel);
                let start = sample * sizes.apart;
                let window = &mut window[channel * sizes.row + start..];
                // What no signal fills is zero: arithmetic with what is left there may be slow.
                let lanes = if sample + 1 == tile.samples { sizes.reach - start } else { sizes.apart };
                fill::<S, M, R, E>(simd, convolution, tile, sizes, signal, line, rows, (window, lanes));
            }
        }
        let taps = sources(convolution.scheme, tile, sizes);
        let back = Back { minimal, convolution, tile, sizes, epilogue, group };
        let mut first = 0;
        while first < filters.rows {
            let source = Source { window, row: sizes.row, channels, taps: &taps };
            match filters.height {
                8 => multiply::<S, 8>(simd, filters, first, source, sizes, products),
                _ => multiply::<S, 4>(simd, filters, first, source, sizes, products),
            }
            for row in first..filters.rows.min(first + filters.height) {
                let products = &products[(row - first) * sizes.sums..];
                back.row(simd, products, filters.height * sizes.sums, row, rows, line);
            }
            first += filters.height;
        }
    }
}

/// Fills so many lanes of `window` with the inputs of one channel of one signal, every source `sizes.source` from the last.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "three places of memory, which are borrowed apart")]
fn fill<S: Simd, M: Minimal<R, E>, const R: usize, const E: usize>(
    simd: S,
    convolution: &Convolution<'_>,
    tile: Tile,
    sizes: Sizes,
    signal: &[f32],
    line: &mut [f32],
    rows: &mut [f32],
    (window, lanes): (&mut [f32], usize),
) {
    for (index, run) in convolution.scheme.filtered.iter().enumerate() {
        let blocks = tile.blocks + run.filters;
        read(convolution, tile, sizes, run, blocks, signal, line, rows);
        clear::<S, OUTPUTS>(simd, rows, sizes.split, blocks * tile.width, blocks * tile.width + SLACK);
        let window = &mut window[index * E * sizes.source..];
        let mut start = 0;
        while start < (blocks - 1) * tile.width {
            let mut x = [simd.splat_f32s(0.0); E];
            for i in 0..E {
                let at = i % OUTPUTS * sizes.split + i / OUTPUTS * tile.width + start;
                x[i] = load(simd, &rows[at..]);
            }
            let transformed = M::inputs(simd, &x);
            for e in 0..E {
                store(simd, transformed[e], &mut window[e * sizes.source + start..]);
            }
            start += S::F32_LANES;
        }
        clear::<S, E>(simd, window, sizes.source, start, lanes);
    }
    for (index, run) in convolution.scheme.single.iter().enumerate() {
        read(convolution, tile, sizes, run, tile.blocks, signal, line, rows);
        let first = convolution.scheme.filtered.len() * E + index * OUTPUTS;
        let window = &mut window[first * sizes.source..];
        let count = tile.blocks * tile.width;
        for i in 0..OUTPUTS {
            window[i * sizes.source..][..count].copy_from_slice(&rows[i * sizes.split..][..count]);
        }
        clear::<S, OUTPUTS>(simd, window, sizes.source, count, lanes);
    }
}

/// Zero in lanes `from..to` of `N` rows, and in up to a register of what is filled later.
#[inline(always)]
fn clear<S: Simd, const N: usize>(simd: S, rows: &mut [f32], stride: usize, mut from: usize, to: usize) {
    while from < to {
        for n in 0..N {
            store(simd, simd.splat_f32s(0.0), &mut rows[n * stride + from..]);
        }
        from += S::F32_LANES;
    }
}

/// The four rows of what one progression reads, in `blocks` blocks.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two places of memory, which are borrowed apart")]
fn read(
    convolution: &Convolution<'_>,
    tile: Tile,
    sizes: Sizes,
    run: &Progression,
    blocks: usize,
    signal: &[f32],
    line: &mut [f32],
    rows: &mut [f32],
) {
    let (spacing, stride) = (convolution.scheme.spacing, convolution.reading.stride);
    let position = |column: usize| run.start + (column * stride).cast_signed();
    let first = convolution.columns.0 + OUTPUTS * tile.first * spacing;
    if tile.width == spacing {
        let len = OUTPUTS * blocks * spacing;
        copy(&mut line[..len], signal, position(first), convolution.reading);
        split(line, spacing, rows, sizes.split, blocks);
    } else {
        for at in 0..OUTPUTS * blocks {
            let row = &mut rows[at % OUTPUTS * sizes.split + at / OUTPUTS * tile.width..][..tile.width];
            copy(row, signal, position(first + at * spacing + tile.from), convolution.reading);
        }
    }
}

#[inline(always)]
fn load<S: Simd>(simd: S, values: &[f32]) -> S::f32s {
    Lanes::load(simd, &values[..S::F32_LANES]).value()
}

#[inline(always)]
fn store<S: Simd>(simd: S, value: S::f32s, values: &mut [f32]) {
    Lanes::new(simd, value).store(&mut values[..S::F32_LANES]);
}

/// For every sum, where its inputs begin.
fn sources(scheme: &Scheme, tile: Tile, sizes: Sizes) -> Vec<Vec<usize>> {
    let point = |point: usize| {
        let filters = |(index, run): (usize, &Progression)| {
            let source = (index * scheme.points() + point) * sizes.source;
            (0..run.filters).map(move |filter| source + filter * tile.width)
        };
        scheme.filtered.iter().enumerate().flat_map(filters).collect()
    };
    let output = |output: usize| {
        let first = scheme.filtered.len() * scheme.points() + output;
        (0..scheme.single.len()).map(|index| (first + index * OUTPUTS) * sizes.source).collect()
    };
    let singles = if scheme.single.is_empty() { 0 } else { OUTPUTS };
    (0..scheme.points()).map(point).chain((0..singles).map(output)).collect()
}

#[derive(Clone, Copy)]
struct Source<'a> {
    window: &'a [f32],
    row: usize,
    channels: usize,
    taps: &'a [Vec<usize>],
}

/// All sums of a block of rows: `products[sum][row][lane]`.
#[inline(always)]
fn multiply<S: Simd, const M: usize>(
    simd: S,
    filters: &Filters,
    first: usize,
    source: Source<'_>,
    sizes: Sizes,
    products: &mut [f32],
) {
    for (sum, products) in products.chunks_exact_mut(M * sizes.sums).enumerate() {
        let mut lane = 0;
        while lane < sizes.lanes {
            let left = (sizes.lanes - lane).div_ceil(S::F32_LANES);
            let place = (filters, first, sum);
            match left {
                1 => block::<S, M, 1>(simd, place, source, lane, products, sizes.sums),
                2 => block::<S, M, 2>(simd, place, source, lane, products, sizes.sums),
                _ => block::<S, M, COLUMNS>(simd, place, source, lane, products, sizes.sums),
            }
            lane += left.min(COLUMNS) * S::F32_LANES;
        }
    }
}

#[inline(always)]
fn block<S: Simd, const M: usize, const N: usize>(
    simd: S,
    (filters, first, sum): (&Filters, usize, usize),
    source: Source<'_>,
    lane: usize,
    products: &mut [f32],
    stride: usize,
) {
    let Source { window, row: row_stride, taps, channels: depth, .. } = source;
    let b = Rows { data: &window[lane..], row_stride, taps: &taps[sum], depth, ahead: AHEAD * row_stride };
    let sums: [[S::f32s; N]; M] = block::product(simd, filters.scalars(first, sum), b);
    for m in 0..M {
        write(simd, &sums[m], &mut products[m * stride + lane..][..N * S::F32_LANES]);
    }
}

/// The way back to the signals.
struct Back<'a, M, const R: usize, const E: usize> {
    minimal: PhantomData<M>,
    convolution: &'a Convolution<'a>,
    tile: Tile,
    sizes: Sizes,
    epilogue: Epilogue<'a>,
    group: usize,
}

impl<M: Minimal<R, E>, const R: usize, const E: usize> Back<'_, M, R, E> {
    /// One row of the output from its `products`, every sum `stride` from the last.
    #[inline(always)]
    fn row<S: Simd>(&self, simd: S, products: &[f32], stride: usize, row: usize, rows: &mut [f32], line: &mut [f32]) {
        let sizes = self.sizes;
        let bias = simd.splat_f32s(self.epilogue.bias.map_or(0.0, |bias| bias[row]));
        let singles = !self.convolution.scheme.single.is_empty();
        let mut start = 0;
        while start < sizes.lanes {
            let mut points = [simd.splat_f32s(0.0); E];
            for e in 0..E {
                points[e] = load(simd, &products[e * stride + start..]);
            }
            let mut y = M::outputs(simd, points);
            for i in 0..OUTPUTS {
                let mut value = Lanes::new(simd, y[i]) + Lanes::new(simd, bias);
                if singles {
                    value = value + Lanes::new(simd, load(simd, &products[(E + i) * stride + start..]));
                }
                if self.epilogue.activation != Activation::Identity {
                    value = self.epilogue.activation.apply(value);
                }
                y[i] = value.value();
                store(simd, y[i], &mut rows[i * sizes.sums + start..]);
            }
            start += S::F32_LANES;
        }
        self.write(row, rows, line);
    }

    #[inline(always)]
    fn write(&self, row: usize, rows: &[f32], line: &mut [f32]) {
        let (tile, sizes, spacing) = (self.tile, self.sizes, self.convolution.scheme.spacing);
        let first = self.convolution.columns.0 + OUTPUTS * tile.first * spacing;
        for sample in 0..tile.samples {
            let rows = &rows[sample * sizes.apart..];
            let y = self.convolution.y.row(tile.sample + sample, self.group, row);
            if tile.width == spacing {
                merge(rows, sizes.sums, spacing, line, tile.blocks);
                y.write(first, &line[..OUTPUTS * tile.blocks * spacing]);
            } else {
                for at in 0..OUTPUTS * tile.blocks {
                    let values = &rows[at % OUTPUTS * sizes.sums + at / OUTPUTS * tile.width..][..tile.width];
                    y.write(first + at * spacing + tile.from, values);
                }
            }
        }
    }
}
