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
    /// Of a group.
    pub rank: usize,
    pub factors: &'a Factors,
    /// Whether signals are read where they are.
    pub in_place: bool,
    /// Whether those of the output are, which `in_place` implies.
    pub dy_in_place: bool,
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
                shape.add_product(bt, dy, &shape.columns, dh);
            }
            for ((from, depth), a) in blocks(inputs).zip(&self.factors.a[block]) {
                let x = wide(self.x, &shape.of_x, self.reading, (from, depth)).rows(of_x, true);
                for read in &shape.products {
                    shape.add_product(a, x, read, h);
                }
                for (read, da) in shape.sums.iter().zip(da.chunks_exact_mut(inputs * rank)) {
                    let x = Rows { data: &x.data[read.offsets[0]..], ..x };
                    add_sums(low(&dh[read.column..]), x, read.size(), &mut da[from * rank..], rank);
                }
            }
            for (from, depth) in blocks(outputs) {
                // The only block is still in its window.
                let dy = wide(self.dy, &shape.of_dy, &plain, (from, depth)).rows(of_dy, outputs > CHANNELS);
                let dy = Rows { data: &dy.data[shape.columns.offsets[0]..], ..dy };
                add_sums(low(h), dy, shape.columns.size(), &mut db[from * rank..], rank);
            }
        });
    }

    /// Signals of `x` side by side, copied with what stands outside of them; those of `dy` where they are, if they are long.
    fn in_windows(&self, tile: Tile) -> Shape {
        let of_x = Layout::new(self.reading, tile.columns, tile.samples);
        let width = of_x.width();
        let whole = Read { offsets: of_x.taps.clone(), first: 0, column: 0, width, segments: 1 };
        let sums = whole.taps();
        let (stride, step) = (width.next_multiple_of(LANES), of_x.sample_stride);
        let of_dy = (!self.dy_in_place).then(|| Layout::spaced(&Reading::plain(), tile.columns, tile.samples, step));
        let columns = match of_dy {
            Some(_) => Read { offsets: vec![0], first: 0, column: 0, width, segments: 1 },
            None => Read::columns(tile),
        };
        Shape { step, stride, products: vec![whole], sums, columns, of_x: Some(of_x), of_dy }
    }

    /// A segment for each signal; a tap reads for the columns whose position lies in the signal.
    fn in_signals(&self, tile: Tile) -> Shape {
        let (first, length) = (tile.first.cast_signed(), self.x.rows.length.cast_signed());
        let read = |(first_tap, tap): (usize, &isize)| {
            let from = first.max(-tap);
            let to = (first + tile.columns.cast_signed()).min(length - tap);
            let offset = (from + tap).clamp(0, length).cast_unsigned();
            let column = (from - first).min(tile.columns.cast_signed()).cast_unsigned();
            let width = (to - from).max(0).cast_unsigned();
            Read { offsets: vec![offset], first: first_tap, column, width, segments: tile.samples }
        };
        let step = tile.columns.next_multiple_of(LANES);
        let sums: Vec<_> = self.reading.taps.iter().enumerate().map(read).collect();
        let (stride, products) = (tile.samples * step, together(&sums));
        Shape { step, stride, products, sums, columns: Read::columns(tile), of_x: None, of_dy: None }
    }
}

/// The columns that all taps read, at once, and on both sides of them what each reads besides.
fn together(taps: &[Read]) -> Vec<Read> {
    let from = taps.iter().map(|read| read.column).max().unwrap_or(0);
    let to = taps.iter().map(Read::end).min().unwrap_or(0).max(from);
    let offsets = taps.iter().map(|read| read.offsets[0] + from - read.column).collect();
    let all = Read { offsets, first: 0, column: from, width: to - from, segments: taps[0].segments };
    let sides = taps.iter().flat_map(|read| [read.part(0, from), read.part(to, usize::MAX)]);
    [all].into_iter().chain(sides).filter(|read| read.width > 0).collect()
}

/// How the low-rank signals of a tile lie in memory, and where the wide ones are read.
struct Shape {
    /// From a segment to the next.
    step: usize,
    /// From a row to the next.
    stride: usize,
    /// Of `x`, for the products.
    products: Vec<Read>,
    /// Of `x`, tap by tap, for the sums.
    sums: Vec<Read>,
    /// Of `dy`.
    columns: Read,
    /// Of windows, where signals are copied.
    of_x: Option<Layout>,
    of_dy: Option<Layout>,
}

/// Taps from `first` that read the wide rows at `offsets` for `width` columns from `column`, of each of some segments.
#[derive(Clone)]
struct Read {
    offsets: Vec<usize>,
    first: usize,
    column: usize,
    width: usize,
    segments: usize,
}

impl Read {
    /// The columns of a tile where they are, a segment for each signal.
    fn columns(tile: Tile) -> Self {
        Self { offsets: vec![tile.first], first: 0, column: 0, width: tile.columns, segments: tile.samples }
    }

    /// Each tap alone.
    fn taps(&self) -> Vec<Self> {
        let tap = |(index, offset): (usize, &usize)| Self { offsets: vec![*offset], first: index, ..self.clone() };
        self.offsets.iter().enumerate().map(tap).collect()
    }

    /// What lies in columns `from..to`.
    fn part(&self, from: usize, to: usize) -> Self {
        let column = from.clamp(self.column, self.end());
        let offsets = self.offsets.iter().map(|offset| offset + column - self.column).collect();
        Self { offsets, column, width: to.clamp(column, self.end()) - column, ..*self }
    }

    fn end(&self) -> usize {
        self.column + self.width
    }

    fn size(&self) -> [usize; 2] {
        [self.segments, self.width]
    }
}

impl Shape {
    /// Adds `panels · rows` to low-rank signals.
    fn add_product(&self, panels: &Panels, rows: Rows<'_>, read: &Read, out: &mut [f32]) {
        for segment in 0..read.segments {
            let window = &rows.data[segment * rows.step..];
            let source = Source { window, row_stride: rows.stride, taps: &read.offsets, first: read.first };
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
            let data = signals.rows_from(tile.sample, self.group, from);
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
