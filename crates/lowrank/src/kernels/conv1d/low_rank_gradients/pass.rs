//! The sums of one tile.

use super::super::super::scratch;
use super::super::panels::Panels;
use super::super::product::{self, Source, add_product};
use super::super::signals::Signals;
use super::super::sums::{Rows, add_sums};
use super::super::tiles::{CHANNELS, Tile, blocks};
use super::super::window::{LANES, Layout, Reading};
use super::factors::Factors;

pub(super) struct Pass<'a> {
    pub x: Signals<'a>,
    pub dy: Signals<'a>,
    pub reading: &'a Reading<'a>,
    pub taps: usize,
    /// Of a group.
    pub rank: usize,
    pub factors: &'a Factors,
    /// Whether signals are read where they are.
    pub in_place: bool,
}

impl Pass<'_> {
    /// Adds the sums of one tile, not yet scaled.
    pub fn add(&self, tile: Tile, group: usize, da: &mut [f32], db: &mut [f32]) {
        let (inputs, outputs, rank) = (self.x.rows.channels, self.dy.rows.channels, self.rank);
        let shape = if self.in_place { self.in_signals(tile) } else { self.in_windows(tile) };
        let block = group * self.factors.a.len() / self.factors.bt.len();
        let windows = [&shape.of_x, &shape.of_dy].map(|layout| layout.as_ref().map_or(0, |layout| layout.row_stride));
        let windows = [CHANNELS.min(inputs) * windows[0], CHANNELS.min(outputs) * windows[1]];
        scratch::with(windows[0] + windows[1] + 2 * rank * shape.stride, |memory| {
            let (of_x, memory) = memory.split_at_mut(windows[0]);
            let (of_dy, narrow) = memory.split_at_mut(windows[1]);
            narrow.fill(0.0);
            let (h, dh) = narrow.split_at_mut(rank * shape.stride);
            let low = |data| Rows { data, count: rank, stride: shape.stride, step: shape.step };
            let plain = Reading::plain();
            let wide = |signals, layout, reading, place| Wide { signals, layout, reading, tile, group, place };
            for ((from, depth), bt) in blocks(outputs).zip(&self.factors.bt[group]) {
                let dy = wide(self.dy, &shape.of_dy, &plain, (from, depth)).rows(of_dy, true);
                shape.add_product(bt, dy, &shape.whole(), dh);
            }
            for ((from, depth), a) in blocks(inputs).zip(&self.factors.a[block]) {
                let x = wide(self.x, &shape.of_x, self.reading, (from, depth)).rows(of_x, true);
                let mut tap = from * self.taps;
                for (a, read) in a.iter().zip(&shape.reads) {
                    shape.add_product(a, x, read, h);
                    for offset in &read.offsets {
                        let x = Rows { data: &x.data[*offset..], ..x };
                        let size = [shape.segments, read.width];
                        add_sums(low(&dh[read.column..]), x, size, &mut da[tap..], [inputs * self.taps, self.taps]);
                        tap += 1;
                    }
                }
            }
            for (from, depth) in blocks(outputs) {
                // The only block is still in its window.
                let dy = wide(self.dy, &shape.of_dy, &plain, (from, depth)).rows(of_dy, outputs > CHANNELS);
                let dy = Rows { data: &dy.data[shape.first..], ..dy };
                add_sums(low(h), dy, [shape.segments, shape.width], &mut db[from * rank..], [1, rank]);
            }
        });
    }

    /// Signals side by side, copied with what stands outside of them.
    fn in_windows(&self, tile: Tile) -> Shape {
        let of_x = Layout::new(self.reading, tile.columns, tile.samples);
        let of_dy = Layout::spaced(&Reading::plain(), tile.columns, tile.samples, of_x.sample_stride);
        let width = of_x.width();
        let reads = vec![Read { offsets: of_x.taps.clone(), column: 0, width }];
        let stride = width.next_multiple_of(LANES);
        Shape { segments: 1, width, step: 0, stride, reads, first: 0, of_x: Some(of_x), of_dy: Some(of_dy) }
    }

    /// A segment for each signal; a tap reads for the columns whose position lies in the signal.
    fn in_signals(&self, tile: Tile) -> Shape {
        let (first, length) = (tile.first.cast_signed(), self.x.rows.length.cast_signed());
        let read = |tap: &isize| {
            let from = first.max(-tap);
            let to = (first + tile.columns.cast_signed()).min(length - tap);
            let offset = (from + tap).clamp(0, length).cast_unsigned();
            let column = (from - first).min(tile.columns.cast_signed()).cast_unsigned();
            Read { offsets: vec![offset], column, width: (to - from).max(0).cast_unsigned() }
        };
        let step = tile.columns.next_multiple_of(LANES);
        Shape {
            segments: tile.samples,
            width: tile.columns,
            step,
            stride: tile.samples * step,
            reads: self.reading.taps.iter().map(read).collect(),
            first: tile.first,
            of_x: None,
            of_dy: None,
        }
    }
}

/// How the low-rank signals of a tile lie in memory, and where the wide ones are read.
struct Shape {
    segments: usize,
    /// Columns of a segment.
    width: usize,
    /// From a segment to the next.
    step: usize,
    /// From a row to the next.
    stride: usize,
    reads: Vec<Read>,
    /// Where `dy` is read.
    first: usize,
    /// Of windows, where signals are copied.
    of_x: Option<Layout>,
    of_dy: Option<Layout>,
}

/// Taps that read the wide rows at `offsets` for `width` columns from `column`.
struct Read {
    offsets: Vec<usize>,
    column: usize,
    width: usize,
}

impl Shape {
    /// The columns of `dy`.
    fn whole(&self) -> Read {
        Read { offsets: vec![self.first], column: 0, width: self.width }
    }

    /// Adds `panels · rows` to low-rank signals.
    fn add_product(&self, panels: &Panels, rows: Rows<'_>, read: &Read, out: &mut [f32]) {
        for segment in 0..self.segments {
            let source =
                Source { window: &rows.data[segment * rows.step..], row_stride: rows.stride, taps: &read.offsets };
            let data = &mut out[segment * self.step + read.column..];
            add_product(panels, source, read.width, product::Matrix { data, row_stride: self.stride });
        }
    }
}

/// Some channels of the signals of a tile.
struct Wide<'a> {
    signals: Signals<'a>,
    layout: &'a Option<Layout>,
    reading: &'a Reading<'a>,
    tile: Tile,
    group: usize,
    /// The first channel, and how many.
    place: (usize, usize),
}

impl<'a> Wide<'a> {
    /// Their rows; in `window`, which is filled or still holds them, where signals are copied.
    fn rows(&self, window: &'a mut [f32], fill: bool) -> Rows<'a> {
        let (signals, tile, (from, count)) = (self.signals, self.tile, self.place);
        let Some(layout) = self.layout else {
            let shape = signals.rows;
            let data = &signals.values[shape.start(tile.sample, self.group, from)..];
            let step = shape.groups * shape.channels * shape.length;
            return Rows { data, count, stride: shape.length, step };
        };
        let window = &mut window[..count * layout.row_stride];
        if fill {
            signals.fill(window, (layout, self.reading), tile.first, [tile.sample, self.group, from]);
        }
        Rows { data: window, count, stride: layout.row_stride, step: 0 }
    }
}
