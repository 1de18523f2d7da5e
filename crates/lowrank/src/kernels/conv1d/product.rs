//! Packed weights times a window.

#![expect(clippy::needless_range_loop, reason = "loops of a constant length over arrays, which become registers")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::{Simd, WithSimd};

use super::super::activation::Activation;
use super::super::block::{self, AHEAD, COLUMNS, Rows, Scalars};
use super::super::lanes::{Lanes, arch};
use super::panels::Panels;

/// A window, read at the offsets of some taps, of which the first is the panels' `first`.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub window: &'a [f32],
    pub row_stride: usize,
    pub taps: &'a [usize],
    pub first: usize,
}

/// What is done with a sum besides writing it.
#[derive(Clone, Copy)]
pub(super) struct Epilogue<'a> {
    pub bias: Option<&'a [f32]>,
    pub activation: Activation,
}

impl Epilogue<'_> {
    pub const NONE: Self = Self { bias: None, activation: Activation::Identity };

    /// That of the `rows` of one group.
    pub fn of_group(self, group: usize, rows: usize) -> Self {
        Self { bias: self.bias.map(|bias| &bias[group * rows..][..rows]), ..self }
    }
}

/// Where the sums of a row go.
pub(super) trait Sink {
    /// `columns` values of `row` from `column` on, to be read (where a block of channels adds to them) and written.
    fn values(&mut self, row: usize, column: usize, columns: usize) -> &mut [f32];
}

/// A matrix with rows at a stride.
pub(super) struct Matrix<'a> {
    pub data: &'a mut [f32],
    pub row_stride: usize,
}

impl Sink for Matrix<'_> {
    #[inline(always)]
    fn values(&mut self, row: usize, column: usize, columns: usize) -> &mut [f32] {
        &mut self.data[row * self.row_stride + column..][..columns]
    }
}

/// `sink[row, column] = Σ_channel Σ_tap panels[row, channel, tap] · window[channel, taps[tap] + column]`, and the epilogue.
pub(super) struct Product<'a, O> {
    pub panels: &'a Panels,
    pub source: Source<'a>,
    pub columns: usize,
    pub epilogue: Epilogue<'a>,
    pub sink: O,
}

impl<O: Sink> WithSimd for Product<'_, O> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        blocks(simd, self.panels, self.source, self.columns, self.epilogue, &mut self.sink, true);
    }
}

/// As [`Product`], added to what `sink` holds.
pub(super) fn add_product(panels: &Panels, source: Source<'_>, columns: usize, sink: impl Sink) {
    arch().dispatch(Added { panels, source, columns, sink });
}

struct Added<'a, O> {
    panels: &'a Panels,
    source: Source<'a>,
    columns: usize,
    sink: O,
}

impl<O: Sink> WithSimd for Added<'_, O> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        blocks(simd, self.panels, self.source, self.columns, Epilogue::NONE, &mut self.sink, false);
    }
}

#[inline(always)]
fn blocks<S: Simd>(
    simd: S,
    panels: &Panels,
    source: Source<'_>,
    columns: usize,
    epilogue: Epilogue<'_>,
    sink: &mut impl Sink,
    mut first: bool,
) {
    let mut blocks = panels.channel_blocks().peekable();
    while let Some(channels) = blocks.next() {
        let pass = Pass { panels, source, channels, epilogue, first, last: blocks.peek().is_none() };
        if channels.1 * source.row_stride <= NEAR {
            for rows in panels.row_blocks() {
                pass.sweep(simd, columns, &std::iter::once(rows), sink);
            }
        } else {
            pass.sweep(simd, columns, &panels.row_blocks(), sink);
        }
        first = false;
    }
}

/// Values of a window that stays in the first-level cache: then all columns of some rows are written before the next rows,
/// in the order of memory.
const NEAR: usize = 5 << 10;

/// One block of channels.
#[derive(Clone, Copy)]
struct Pass<'a> {
    panels: &'a Panels,
    source: Source<'a>,
    channels: (usize, usize),
    epilogue: Epilogue<'a>,
    first: bool,
    last: bool,
}

impl Pass<'_> {
    /// All columns of some blocks of rows.
    #[inline(always)]
    fn sweep<S: Simd>(
        self,
        simd: S,
        columns: usize,
        rows: &(impl Iterator<Item = (usize, usize)> + Clone),
        sink: &mut impl Sink,
    ) {
        let (lanes, mut column) = (S::F32_LANES, 0);
        while column < columns {
            let left = columns - column;
            if left > 2 * lanes {
                self.columns::<S, COLUMNS>(simd, (column, left.min(COLUMNS * lanes)), rows.clone(), sink);
                column += COLUMNS * lanes;
            } else if left > lanes {
                self.columns::<S, 2>(simd, (column, left), rows.clone(), sink);
                column += 2 * lanes;
            } else {
                self.columns::<S, 1>(simd, (column, left), rows.clone(), sink);
                column += lanes;
            }
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const N: usize>(
        self,
        simd: S,
        (column, count): (usize, usize),
        rows: impl Iterator<Item = (usize, usize)>,
        sink: &mut impl Sink,
    ) {
        let Source { window, row_stride, taps, .. } = self.source;
        let (from, depth) = self.channels;
        let start = (from * row_stride + column).min(window.len());
        // Where more rows are to come, they need this block of columns again; else the next block is wanted.
        let ahead = if self.panels.rows() > block::rows::<S>() { AHEAD * row_stride } else { N * S::F32_LANES };
        let mut source = Rows { data: &window[start..], row_stride, taps, depth, ahead };
        let copy;
        if depth * taps.len() > 0 && source.reach(N * S::F32_LANES) > source.data.len() {
            // The last columns of signals that end with their memory: whole registers are read of a copy.
            copy = last_columns(source, count, N * S::F32_LANES);
            let row_stride = N * S::F32_LANES;
            source = Rows { data: &copy.0, row_stride, taps: &copy.1, depth, ahead: row_stride };
        }
        for rows in rows {
            match rows.1 {
                8 => self.block::<S, 8, N>(simd, rows, source, (column, count), sink),
                4 => self.block::<S, 4, N>(simd, rows, source, (column, count), sink),
                2 => self.block::<S, 2, N>(simd, rows, source, (column, count), sink),
                _ => self.block::<S, 1, N>(simd, rows, source, (column, count), sink),
            }
        }
    }

    #[inline(always)]
    fn block<S: Simd, const M: usize, const N: usize>(
        self,
        simd: S,
        rows: (usize, usize),
        source: Rows<'_>,
        (column, count): (usize, usize),
        sink: &mut impl Sink,
    ) {
        let (row, valid) = (rows.0, M.min(self.panels.rows() - rows.0));
        let panel = &self.panels.panel(self.channels, rows)[self.source.first * self.channels.1 * M..];
        let a = Scalars { data: panel, row_stride: 1, step_stride: M };
        // What the sums begin with is added at the end: an array that is filled before a loop stays in memory.
        let mut sums: [[S::f32s; N]; M] = block::product(simd, a, source);
        for m in 0..M {
            if m < valid {
                let values = sink.values(row + m, column, count);
                self.finish(simd, &mut sums[m], row + m, values);
                write(simd, &sums[m], values);
            }
        }
    }

    /// Adds what a row begins with, and applies the activation when nothing more is added.
    #[inline(always)]
    fn finish<S: Simd, const N: usize>(self, simd: S, sums: &mut [S::f32s; N], row: usize, values: &[f32]) {
        let Epilogue { bias, activation } = self.epilogue;
        if !self.first {
            add(simd, sums, values);
        } else if let Some(bias) = bias {
            for n in 0..N {
                sums[n] = simd.add_f32s(sums[n], simd.splat_f32s(bias[row]));
            }
        }
        if self.last && activation != Activation::Identity {
            for n in 0..N {
                sums[n] = activation.apply(Lanes::new(simd, sums[n])).value();
            }
        }
    }
}

/// `count` columns of every tap and row, `width` from row to row, and where the taps begin.
#[cold]
fn last_columns(rows: Rows<'_>, count: usize, width: usize) -> (Vec<f32>, Vec<usize>) {
    let size = rows.depth * width;
    let mut copy = vec![0.0; rows.taps.len() * size];
    for (tap, copy) in rows.taps.iter().zip(copy.chunks_exact_mut(size)) {
        for (channel, to) in copy.chunks_exact_mut(width).enumerate() {
            to[..count].copy_from_slice(&rows.data[channel * rows.row_stride + tap..][..count]);
        }
    }
    let taps = (0..rows.taps.len()).map(|tap| tap * size).collect();
    (copy, taps)
}

#[inline(always)]
fn add<S: Simd, const N: usize>(simd: S, sums: &mut [S::f32s; N], values: &[f32]) {
    if values.len() == N * S::F32_LANES {
        for n in 0..N {
            let value = Lanes::load(simd, &values[n * S::F32_LANES..][..S::F32_LANES]);
            sums[n] = (value + Lanes::new(simd, sums[n])).value();
        }
    } else {
        for (sum, values) in sums.iter_mut().zip(values.chunks(S::F32_LANES)) {
            *sum = (Lanes::load(simd, values) + Lanes::new(simd, *sum)).value();
        }
    }
}

/// Register by register: a copy of all of them would go through memory, and be a call.
#[inline(always)]
pub(super) fn write<S: Simd, const N: usize>(simd: S, sums: &[S::f32s; N], values: &mut [f32]) {
    if values.len() == N * S::F32_LANES {
        for n in 0..N {
            Lanes::new(simd, sums[n]).store(&mut values[n * S::F32_LANES..][..S::F32_LANES]);
        }
    } else {
        for (sums, values) in sums.iter().zip(values.chunks_mut(S::F32_LANES)) {
            Lanes::new(simd, *sums).store(values);
        }
    }
}
