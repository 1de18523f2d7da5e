//! `dx = convᵀ(dy, W + s·B·A)`.
//!
//! With `u + padding = stride·v + ρ`, position `u` of the input is read by the taps with `dilation·j mod stride = ρ`, in
//! column `v − ⌊dilation·j / stride⌋`: for each phase `ρ` a convolution of `dy` with some of the taps.

use rayon::prelude::*;

use super::super::lanes::arch;
use super::super::scratch;
use super::super::shared::Shared;
use super::direct::Direct;
use super::product::{Epilogue, Matrix, Product, Source};
use super::tiles::{Tile, Tiles};
use super::weights::{Panels, Strides, Weight};
use super::window::{Layout, Outside, Reading, fill};
use super::{Channels, Problem};
use crate::geometry::{ConvGeometry, PaddingMode};

/// The gradient `dx (batch, in, length)` of the input, of `dy (batch, out, columns)`.
///
/// # Panics
/// When a slice does not have the size of its shape, and where [`Problem::output_length`] is an error.
pub fn input_gradient(problem: &Problem<'_>, dy: &[f32], weight: &Weight<'_>, dx: &mut [f32]) {
    let Channels { groups, input, output } = problem.channels();
    assert_eq!(dx.len(), problem.batch * groups * input * problem.length, "values of dx");
    assert_eq!(dy.len(), problem.batch * groups * output * problem.columns(), "values of dy");
    assert!(weight.fits(groups * output, input * problem.taps()), "values of the weight");
    let (before, after) = problem.geometry.padding(0);
    if problem.geometry.padding_mode() == PaddingMode::Zeros {
        return gradient(problem, dy, weight, dx, problem.length, before);
    }
    let padded = problem.length + before + after;
    let mut whole = vec![0.0; problem.batch * groups * input * padded];
    gradient(problem, dy, weight, &mut whole, padded, 0);
    let rows = dx.par_chunks_mut(problem.length).zip(whole.par_chunks(padded));
    rows.for_each(|(dx, whole)| fold_padding(problem.geometry, whole, dx));
}

/// Adds the gradient of every padded position to that of the position it repeats.
fn fold_padding(geometry: &ConvGeometry, whole: &[f32], dx: &mut [f32]) {
    let (before, _) = geometry.padding(0);
    let length = dx.len();
    dx.copy_from_slice(&whole[before..][..length]);
    for position in (0..before).chain(before + length..whole.len()) {
        if let Some(source) = geometry.source(0, position, length) {
            dx[source] += whole[position];
        }
    }
}

/// The taps of one phase of the stride.
struct Phase {
    taps: Vec<usize>,
    /// By group.
    panels: Vec<Panels>,
}

fn gradient(problem: &Problem<'_>, dy: &[f32], weight: &Weight<'_>, dx: &mut [f32], length: usize, before: usize) {
    let Channels { groups, input, output } = problem.channels();
    let (axis, taps, columns) = (problem.geometry.axes()[0], problem.taps(), problem.columns());
    let folded = weight.folded(input * taps);
    let phases: Vec<Phase> = (0..axis.stride)
        .map(|phase| {
            let of_phase: Vec<usize> = (0..taps).filter(|tap| tap * axis.dilation % axis.stride == phase).collect();
            let strides = Strides { row: taps, channel: input * taps, tap: 1 };
            let pack = |weight: &[f32]| Panels::pack(weight, [input, output], &of_phase, strides);
            Phase { panels: folded.chunks_exact(output * input * taps).map(pack).collect(), taps: of_phase }
        })
        .collect();
    let back = |tap: usize| -(tap * axis.dilation / axis.stride).cast_signed();
    let reading = Reading { stride: 1, taps: (0..taps).map(back).collect(), outside: Outside::Zeros };
    let (from, to) = (before / axis.stride, (length - 1 + before) / axis.stride + 1);
    let layout = Layout::new(&reading, to - from, 1);
    let values = output * Layout::values_a_column(&reading);
    let tiles = Tiles::new(to - from, problem.batch, values, layout.sample_stride - (to - from), [48, 1536]);
    let dx = Shared::new(dx);
    (0..tiles.count() * groups).into_par_iter().for_each(|task| {
        Task {
            dy,
            reading: &reading,
            phases: &phases,
            group: task % groups,
            channels: problem.channels(),
            tile: tiles.get(task / groups),
            columns,
            from,
            before,
            length,
            dx: &dx,
        }
        .run();
    });
}

struct Task<'a> {
    dy: &'a [f32],
    reading: &'a Reading<'a>,
    phases: &'a [Phase],
    group: usize,
    channels: Channels,
    tile: Tile,
    columns: usize,
    /// The column `v` that the tiles begin at.
    from: usize,
    before: usize,
    length: usize,
    dx: &'a Shared<'a>,
}

impl Task<'_> {
    fn run(&self) {
        let Channels { groups, input, output } = self.channels;
        let tile = self.tile;
        let layout = Layout::new(self.reading, tile.columns, tile.samples);
        let (window, width) = (output * layout.row_stride, layout.width());
        let direct = self.phases.len() == 1 && tile.samples == 1;
        scratch::with(window + if direct { 0 } else { input * width }, |memory| {
            let (window, sums) = memory.split_at_mut(window);
            let first = (self.from + tile.first).cast_signed();
            for (channel, row) in window.chunks_exact_mut(layout.row_stride).enumerate() {
                let start = |n| ((tile.sample + n) * groups + self.group) * output + channel;
                fill(row, &layout, self.reading, first, |n| &self.dy[start(n) * self.columns..][..self.columns]);
            }
            for (phase, Phase { taps, panels }) in self.phases.iter().enumerate() {
                let taps: Vec<usize> = taps.iter().map(|tap| layout.taps[*tap]).collect();
                let (source, panels) =
                    (Source { window, row_stride: layout.row_stride, taps: &taps }, &panels[self.group]);
                if direct {
                    let start = |row| self.row(tile.sample, row) + tile.first;
                    let sink = Direct { output: self.dx, start };
                    arch().dispatch(Product { panels, source, columns: width, epilogue: Epilogue::NONE, sink });
                } else {
                    let sink = Matrix { data: &mut *sums, row_stride: width };
                    arch().dispatch(Product { panels, source, columns: width, epilogue: Epilogue::NONE, sink });
                    self.scatter(sums, &layout, phase);
                }
            }
        });
    }

    /// Where a channel of a signal begins in `dx`.
    fn row(&self, sample: usize, channel: usize) -> usize {
        ((sample * self.channels.groups + self.group) * self.channels.input + channel) * self.length
    }

    /// From the columns of one phase to positions a stride apart.
    #[expect(unsafe_code, reason = "tiles write their own positions of one output")]
    fn scatter(&self, sums: &[f32], layout: &Layout, phase: usize) {
        let stride = self.phases.len();
        // Columns whose position lies in the signal.
        let begin = self.from + self.tile.first;
        let position = |column: usize| ((begin + column) * stride + phase).checked_sub(self.before);
        let skipped = usize::from(position(0).is_none());
        let Some(start) = position(skipped).filter(|start| *start < self.length) else { return };
        let count = (self.length - start).div_ceil(stride).min(layout.columns.saturating_sub(skipped));
        if count == 0 {
            return;
        }
        for (channel, sums) in sums.chunks_exact(layout.width()).enumerate() {
            for sample in 0..layout.samples {
                let sums = &sums[sample * layout.sample_stride + skipped..][..count];
                let start = self.row(self.tile.sample + sample, channel) + start;
                // SAFETY: two tasks write no position twice, and borrow single ones for a moment.
                let dx = unsafe { self.dx.part(start, (count - 1) * stride + 1) };
                for (to, from) in dx.iter_mut().step_by(stride).zip(sums) {
                    *to = *from;
                }
            }
        }
    }
}
