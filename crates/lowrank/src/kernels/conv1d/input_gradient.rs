//! `dx = convᵀ(dy, W + s·B·A)`.
//!
//! With `u + padding = stride·v + ρ`, position `u` of the input is read by the taps with `dilation·j mod stride = ρ`, in
//! column `v − ⌊dilation·j / stride⌋`: for each phase `ρ` a convolution of `dy` with some of the taps.

use rayon::prelude::*;

use super::super::buffers::written;
use super::super::lanes::arch;
use super::super::scratch;
use super::super::shared::Shared;
use super::Problem;
use super::depthwise;
use super::direct::Direct;
use super::kernel::Kernel;
use super::panels::Panels;
use super::patches;
use super::product::{Epilogue, Matrix, Product, Source};
use super::short;
use super::signals::{Shape, Signals};
use super::tiles::{Tile, Tiles};
use super::weights::Weight;
use super::window::{Layout, Reading};
use super::winograd::{Convolution, Place, Scheme};
use crate::geometry::{ConvGeometry, PaddingMode};
use crate::threads::awake;

/// The gradient `dx (batch, in, length)` of the input, of `dy (batch, out, columns)`.
///
/// # Panics
/// When a slice does not have the size of its shape, and where [`Problem::output_length`] is an error.
#[must_use]
pub fn input_gradient(problem: &Problem<'_>, dy: &[f32], weight: &Weight<'_>) -> Vec<f32> {
    awake(|| {
        let inputs = problem.inputs();
        if short::fits(problem) {
            return fresh(problem, dy, weight, inputs, |dy, weight, dx| {
                short::input_gradient(problem, dy, weight, dx);
            });
        }
        let (before, after) = problem.geometry.padding(0);
        let padded = |inputs, before| {
            let write =
                |dy: Signals<'_>, w: &Weight<'_>, dx: &mut [f32]| gradient(problem, dy, w, dx, (inputs, before));
            fresh(problem, dy, weight, inputs, write)
        };
        if problem.geometry.padding_mode() == PaddingMode::Zeros {
            return padded(inputs, before);
        }
        let extended = Shape { length: inputs.length + before + after, ..inputs };
        let whole = padded(extended, 0);
        let mut dx = vec![0.0; inputs.len(problem.batch)];
        let rows = dx.par_chunks_mut(inputs.length).zip(whole.par_chunks(extended.length));
        rows.for_each(|(dx, whole)| fold_padding(problem.geometry, whole, dx));
        dx
    })
}

/// What `write` makes of the gradient of the output and the weight: every value of `inputs`.
#[expect(unsafe_code, reason = "the output is fresh memory")]
fn fresh(
    problem: &Problem<'_>,
    dy: &[f32],
    weight: &Weight<'_>,
    inputs: Shape,
    write: impl FnOnce(Signals<'_>, &Weight<'_>, &mut [f32]),
) -> Vec<f32> {
    let (outputs, n) = (problem.outputs(), problem.row());
    let dy = Signals::new(dy, outputs, problem.batch, "dy");
    assert!(weight.fits(outputs.groups * outputs.channels, n), "values of the weight");
    // SAFETY: every position of an input belongs to one phase, and the tiles of a phase cover its positions.
    unsafe { written(inputs.len(problem.batch), |dx| write(dy, weight, dx)) }
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

/// Values of a weight that is folded as a whole, for all phases: it stays in the second-level cache.
const FOLDED_ONCE: usize = 1 << 17;

/// The taps of one phase of the stride.
struct Phase {
    index: usize,
    taps: Vec<usize>,
}

/// The gradient of inputs of which `before` positions are missing in front.
fn gradient(
    problem: &Problem<'_>,
    dy: Signals<'_>,
    weight: &Weight<'_>,
    dx: &mut [f32],
    (inputs, before): (Shape, usize),
) {
    let (axis, outputs) = (problem.geometry.axes()[0], problem.outputs());
    if depthwise::fits(problem) {
        return depthwise::input_gradient(problem, dy, &weight.folded(problem.row()), dx, (inputs, before));
    }
    if patches::fits(problem) {
        return patches::input_gradient(problem, dy, weight, dx, (inputs, before));
    }
    let reading = Reading::back(problem.geometry);
    let (from, to) = (before / axis.stride, (inputs.length - 1 + before) / axis.stride + 1);
    // Every phase would fold all taps for its own.
    let folded;
    let weight = if axis.stride > 1 && weight.base.len() <= FOLDED_ONCE {
        folded = weight.folded(problem.row());
        &Weight::plain(&folded)
    } else {
        weight
    };
    let kernel = Kernel::back(weight, problem);
    let dx = Shared::new(dx);
    let mut phases = Vec::new();
    for index in 0..axis.stride {
        let taps: Vec<usize> = (0..problem.taps()).filter(|tap| tap * axis.dilation % axis.stride == index).collect();
        let scheme = Scheme::new(&reading, &taps).filter(|scheme| scheme.pays(kernel.size, to - from, problem.batch));
        if let Some(scheme) = scheme {
            let offset = index.cast_signed() - before.cast_signed();
            let y = Place { values: &dx, shape: inputs, places: dy.places, stride: axis.stride, offset };
            let (scheme, reading, batch, columns) = (&scheme, &reading, problem.batch, (from, to - from));
            let epilogue = Epilogue::NONE;
            Convolution { scheme, reading, x: dy, batch, columns, kernel, epilogue, y }.run();
        } else {
            phases.push(Phase { index, taps });
        }
    }
    if phases.is_empty() {
        return;
    }
    let tiles = Tiles::new(to - from, problem.batch, &reading, outputs.channels, [48, 1536]);
    (0..inputs.groups).into_par_iter().for_each(|group| {
        let pack = |phase: &Phase| Panels::pack(&kernel, group, 0..outputs.channels, &phase.taps);
        let panels: Vec<_> = phases.iter().map(pack).collect();
        (0..tiles.count()).into_par_iter().for_each(|tile| {
            let (phases, panels, stride, tile) = (&phases, &panels, axis.stride, tiles.get(tile));
            Task { dy, reading: &reading, phases, panels, stride, group, tile, from, before, inputs, dx: &dx }.run();
        });
    });
}

struct Task<'a> {
    dy: Signals<'a>,
    reading: &'a Reading<'a>,
    phases: &'a [Phase],
    /// Of every phase.
    panels: &'a [Panels],
    stride: usize,
    group: usize,
    tile: Tile,
    /// The column `v` that the tiles begin at.
    from: usize,
    before: usize,
    inputs: Shape,
    dx: &'a Shared<'a>,
}

impl Task<'_> {
    fn run(&self) {
        let tile = self.tile;
        let layout = Layout::new(self.reading, tile.columns, tile.samples);
        let (window, width) = (self.dy.rows.channels * layout.row_stride, layout.width());
        let direct = self.stride == 1 && tile.samples == 1;
        scratch::with(window + if direct { 0 } else { self.inputs.channels * width }, |memory| {
            let (window, sums) = memory.split_at_mut(window);
            let first = self.from + tile.first;
            self.dy.fill(window, (&layout, self.reading), first, [tile.sample, self.group, 0]);
            for (Phase { index, taps }, panels) in self.phases.iter().zip(self.panels) {
                let taps: Vec<usize> = taps.iter().map(|tap| layout.taps[*tap]).collect();
                let source = Source { window, row_stride: layout.row_stride, taps: &taps, first: 0 };
                let (columns, epilogue) = (width, Epilogue::NONE);
                if direct {
                    let start = |row| self.inputs.start(tile.sample, self.group, row) + tile.first;
                    arch().dispatch(Product {
                        panels,
                        source,
                        columns,
                        epilogue,
                        sink: Direct { output: self.dx, start },
                    });
                } else {
                    let sink = Matrix { data: &mut *sums, row_stride: width };
                    arch().dispatch(Product { panels, source, columns, epilogue, sink });
                    self.scatter(sums, &layout, *index);
                }
            }
        });
    }

    /// From the columns of one phase to positions a stride apart.
    #[expect(unsafe_code, reason = "tiles write their own positions of one output")]
    fn scatter(&self, sums: &[f32], layout: &Layout, phase: usize) {
        let stride = self.stride;
        // Columns whose position lies in the signal.
        let begin = self.from + self.tile.first;
        let position = |column: usize| ((begin + column) * stride + phase).checked_sub(self.before);
        let skipped = usize::from(position(0).is_none());
        let Some(start) = position(skipped).filter(|start| *start < self.inputs.length) else { return };
        let count = (self.inputs.length - start).div_ceil(stride).min(layout.columns.saturating_sub(skipped));
        if count == 0 {
            return;
        }
        for (channel, sums) in sums.chunks_exact(layout.width()).enumerate() {
            for sample in 0..layout.samples {
                let sums = &sums[sample * layout.sample_stride + skipped..][..count];
                let start = self.inputs.start(self.tile.sample + sample, self.group, channel) + start;
                // SAFETY: two tasks write no position twice, and borrow single ones for a moment.
                let dx = unsafe { self.dx.part(start, (count - 1) * stride + 1) };
                for (to, from) in dx.iter_mut().step_by(stride).zip(sums) {
                    *to = *from;
                }
            }
        }
    }
}
