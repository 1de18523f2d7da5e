//! `dX = dyᵀ·W`, added up where patches overlap; under short kernels `dXᵀ = Wᵀ·dy`, whose lanes are columns.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::super::super::lanes::{Lanes, arch};
use super::super::super::scratch;
use super::super::super::shared::Shared;
use super::super::Problem;
use super::super::kernel::Kernel;
use super::super::matrix::{self, Matrix, PANEL, add_product};
use super::super::panels::Panels;
use super::super::product::{self, Epilogue, Product, Source};
use super::super::signals::{Shape, Signals};
use super::super::tiles::{Tile, Tiles};
use super::super::weights::Weight;
use super::super::window::{Layout, Reading};
use super::{COLUMNS, SHORT, padded, spread};

/// Columns of a tile of a short kernel: of each output a few pages of memory are read at a time.
const SHORT_COLUMNS: usize = 512;

/// See `conv1d::input_gradient`; of inputs of which `before` positions are missing in front.
pub(in super::super) fn input_gradient(
    problem: &Problem<'_>,
    dy: Signals<'_>,
    weight: &Weight<'_>,
    dx: &mut [f32],
    (inputs, before): (Shape, usize),
) {
    let (stride, taps) = (problem.geometry.axes()[0].stride, problem.taps());
    let (from, to) = (before / stride, (inputs.length - 1 + before) / stride + 1);
    let factor = if taps > SHORT { Factor::rows(problem, weight) } else { Factor::panels(problem, weight) };
    let most = if taps > SHORT { COLUMNS } else { SHORT_COLUMNS };
    let tiles = Tiles::new(to - from, problem.batch, &Reading::plain(), 1, [COLUMNS, most]);
    let (dx, factor) = (&Shared::new(dx), &factor);
    (0..tiles.count() * inputs.groups).into_par_iter().for_each(|task| {
        let (tile, group) = (tiles.get(task / inputs.groups), task % inputs.groups);
        Task { dy, factor, taps, stride, group, tile, begin: from + tile.first, before, inputs, dx }.run();
    });
}

/// The weight as the products read it.
enum Factor {
    /// Rows as wide as a patch, one for each output.
    Rows(Vec<f32>),
    /// For each group a row for each tap, over the outputs.
    Panels(Vec<Panels>),
}

impl Factor {
    fn rows(problem: &Problem<'_>, weight: &Weight<'_>) -> Self {
        let (outputs, taps, weight) = (problem.outputs(), problem.taps(), weight.folded(problem.row()));
        let width = problem.inputs().channels * padded(taps);
        let mut rows = vec![0.0; outputs.groups * outputs.channels * spread(width)];
        let of_rows = rows.par_chunks_exact_mut(spread(width)).zip(weight.par_chunks_exact(problem.row()));
        of_rows.with_min_len(64).for_each(|(row, weight)| {
            for (row, weight) in row.chunks_mut(padded(taps)).zip(weight.chunks_exact(taps)) {
                row[..taps].copy_from_slice(weight);
            }
        });
        Self::Rows(rows)
    }

    fn panels(problem: &Problem<'_>, weight: &Weight<'_>) -> Self {
        let outputs = problem.outputs();
        let kernel = Kernel::new(weight, [outputs.channels, problem.row(), 1]).transposed();
        Self::Panels((0..outputs.groups).map(|group| Panels::pack(&kernel, group, 0..outputs.channels, &[0])).collect())
    }
}

struct Task<'a> {
    dy: Signals<'a>,
    factor: &'a Factor,
    taps: usize,
    stride: usize,
    group: usize,
    tile: Tile,
    /// The column that reads the tile's first position first.
    begin: usize,
    before: usize,
    inputs: Shape,
    dx: &'a Shared<'a>,
}

impl Task<'_> {
    fn run(&self) {
        // The columns that reach into the tile's positions: `halo` of them begin before it.
        let (tile, halo) = (self.tile, (self.taps - 1) / self.stride);
        let (first, end) = (self.begin.saturating_sub(halo), self.begin + tile.columns);
        let columns = end.min(self.dy.rows.length).saturating_sub(first).max(1);
        let line = ((columns - 1) * self.stride + self.taps).max((end - first) * self.stride);
        match self.factor {
            Factor::Rows(rows) => self.by_columns(rows, first, columns, line),
            Factor::Panels(panels) => self.by_taps(&panels[self.group], first, columns, line),
        }
    }

    /// A row for each column.
    fn by_columns(&self, rows: &[f32], first: usize, columns: usize, line: usize) {
        let (tile, plain) = (self.tile, Reading::plain());
        let layout = Layout::new(&plain, columns, tile.samples);
        let width = self.inputs.channels * padded(self.taps);
        // Panels side by side, an odd number of cache lines apart.
        let panel = spread(self.dy.rows.channels * PANEL);
        let (panels, patches) = (layout.width().div_ceil(PANEL) * panel, layout.width() * width);
        scratch::with(layout.row_stride + panels + patches + line, |memory| {
            let (row, memory) = memory.split_at_mut(layout.row_stride);
            let (panels, memory) = memory.split_at_mut(panels);
            let (patches, line) = memory.split_at_mut(patches);
            for channel in 0..self.dy.rows.channels {
                let place = [tile.sample, self.group, channel];
                self.dy.fill(row, (&layout, &plain), first, place);
                for (panel, columns) in panels.chunks_exact_mut(panel).zip(row.chunks_exact(PANEL)) {
                    panel[channel * PANEL..][..PANEL].copy_from_slice(columns);
                }
            }
            patches.fill(0.0);
            let dy = matrix::Panels { data: panels, panel_stride: panel, row_stride: 1, step_stride: PANEL };
            let rows = &rows[self.group * self.dy.rows.channels * spread(width)..];
            let weight = Matrix { data: rows, stride: spread(width) };
            add_product(dy, weight, [self.dy.rows.channels, width], (patches, width));
            for (sample, patches) in patches.chunks_exact(columns * width).enumerate() {
                for channel in 0..self.inputs.channels {
                    let patches = Matrix { data: &patches[channel * padded(self.taps)..], stride: width };
                    line.fill(0.0);
                    arch().dispatch(Overlap { patches, taps: self.taps, stride: self.stride, line: &mut *line });
                    self.write(&line[(self.begin - first) * self.stride..], tile.sample + sample, channel);
                }
            }
        });
    }

    /// A row for each tap, of the output where it is.
    fn by_taps(&self, panels: &Panels, first: usize, columns: usize, line: usize) {
        let (taps, of_dy) = (self.taps, self.dy.rows);
        // No column at all may reach the last positions.
        let columns = if first < of_dy.length { columns } else { 0 };
        let size = self.inputs.channels * taps * columns;
        scratch::with(size + line, |memory| {
            let (rows, line) = memory.split_at_mut(size);
            for sample in self.tile.sample..self.tile.sample + self.tile.samples {
                let window = self.dy.rows_from(sample, self.group, 0);
                let source = Source { window, row_stride: of_dy.length, taps: &[first], first: 0 };
                let sink = product::Matrix { data: &mut *rows, row_stride: columns };
                arch().dispatch(Product { panels, source, columns, epilogue: Epilogue::NONE, sink });
                for channel in 0..self.inputs.channels {
                    line.fill(0.0);
                    for tap in 0..taps {
                        let row = &rows[(channel * taps + tap) * columns..][..columns];
                        let line = line[tap..].iter_mut().step_by(self.stride);
                        line.zip(row).for_each(|(line, value)| *line += value);
                    }
                    self.write(&line[(self.begin - first) * self.stride..], sample, channel);
                }
            }
        });
    }

    /// Of positions from those of `begin` on, the tile's that lie in the signal.
    #[expect(unsafe_code, reason = "tiles write their own positions of one output")]
    fn write(&self, line: &[f32], sample: usize, channel: usize) {
        let begin = self.begin * self.stride;
        let end = (begin + self.tile.columns * self.stride).min(self.inputs.length + self.before);
        let skipped = self.before.saturating_sub(begin);
        let (first, count) = (begin + skipped - self.before, end - begin - skipped);
        // SAFETY: the positions of a tile are written by its task alone.
        let dx = unsafe { self.dx.part(self.inputs.start(sample, self.group, channel) + first, count) };
        dx.copy_from_slice(&line[skipped..][..count]);
    }
}

/// `line[column · stride + tap] += patches[column, tap]`.
struct Overlap<'a> {
    patches: Matrix<'a>,
    taps: usize,
    stride: usize,
    line: &'a mut [f32],
}

impl WithSimd for Overlap<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]
    fn with_simd<S: Simd>(self, simd: S) {
        for (column, patch) in self.patches.data.chunks(self.patches.stride).enumerate() {
            let line = &mut self.line[column * self.stride..][..self.taps];
            let ((line, line_tail), (patch, patch_tail)) =
                (S::as_mut_simd_f32s(line), S::as_simd_f32s(&patch[..self.taps]));
            for (line, patch) in line.iter_mut().zip(patch) {
                *line = simd.add_f32s(*line, *patch);
            }
            if !line_tail.is_empty() {
                (Lanes::partial(simd, line_tail) + Lanes::partial(simd, patch_tail)).store(line_tail);
            }
        }
    }
}
