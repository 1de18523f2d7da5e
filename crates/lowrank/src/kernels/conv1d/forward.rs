//! `y = f(conv(x, W + s·B·A) + b)`.

use rayon::prelude::*;

use super::super::activation::Activation;
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
use crate::threads::awake;

/// Convolves `x (batch, in, length)` into `y (batch, out, columns)`, adds a bias `(out)`, and applies an activation while
/// the values are in registers.
///
/// # Panics
/// When a slice does not have the size of its shape, and where [`Problem::output_length`] is an error.
#[must_use]
#[expect(unsafe_code, reason = "the output is fresh memory")]
pub fn forward(
    problem: &Problem<'_>,
    x: &[f32],
    weight: &Weight<'_>,
    bias: Option<&[f32]>,
    activation: Activation,
) -> Vec<f32> {
    let (inputs, outputs, n) = (problem.inputs(), problem.outputs(), problem.row());
    let x = Signals::new(x, inputs, problem.batch, "x");
    assert!(weight.fits(outputs.groups * outputs.channels, n), "values of the weight");
    assert!(bias.is_none_or(|bias| bias.len() == outputs.groups * outputs.channels), "values of the bias");
    let epilogue = Epilogue { bias, activation };
    // SAFETY: tiles cover the columns of every row, and each writes all of its own.
    unsafe { written(outputs.len(problem.batch), |y| awake(|| convolve(problem, x, weight, epilogue, y))) }
}

fn convolve(problem: &Problem<'_>, x: Signals<'_>, weight: &Weight<'_>, epilogue: Epilogue<'_>, y: &mut [f32]) {
    if depthwise::fits(problem) {
        return depthwise::forward(problem, x, &weight.folded(problem.row()), epilogue, y);
    }
    if short::fits(problem) {
        return short::forward(problem, x, weight, epilogue, y);
    }
    if patches::fits_forward(problem) {
        return patches::forward(problem, x, &weight.folded(problem.row()), epilogue, y);
    }
    in_tiles(problem, x, weight, epilogue, &Shared::new(y));
}

/// Whether the outputs are computed tile by tile.
pub(super) fn has_tiles(problem: &Problem<'_>) -> bool {
    !depthwise::fits(problem) && !short::fits(problem) && !patches::fits_forward(problem)
}

/// See [`forward`]; signals in the places that they have in `x`.
pub(super) fn in_tiles(
    problem: &Problem<'_>,
    x: Signals<'_>,
    weight: &Weight<'_>,
    epilogue: Epilogue<'_>,
    y: &Shared<'_>,
) {
    let (inputs, outputs, all) = (problem.inputs(), problem.outputs(), (0..problem.taps()).collect::<Vec<_>>());
    let (reading, kernel) = (Reading::of(problem.geometry), Kernel::forward(weight, problem));
    let scheme = Scheme::new(&reading, &all).filter(|scheme| scheme.pays(kernel.size, outputs.length, problem.batch));
    if let Some(scheme) = scheme {
        let (scheme, reading, batch, columns) = (&scheme, &reading, problem.batch, (0, outputs.length));
        let y = Place { values: y, shape: outputs, places: x.places, stride: 1, offset: 0 };
        return Convolution { scheme, reading, x, batch, columns, kernel, epilogue, y }.run();
    }
    let tiles = Tiles::new(outputs.length, problem.batch, &reading, inputs.channels, [48, 1536]);
    (0..inputs.groups).into_par_iter().for_each(|group| {
        let panels = &Panels::pack(&kernel, group, 0..inputs.channels, &all);
        let epilogue = epilogue.of_group(group, outputs.channels);
        (0..tiles.count()).into_par_iter().for_each(|tile| {
            Task { x, reading: &reading, panels, group, epilogue, tile: tiles.get(tile), y, outputs }.run();
        });
    });
}

struct Task<'a> {
    x: Signals<'a>,
    reading: &'a Reading<'a>,
    panels: &'a Panels,
    group: usize,
    epilogue: Epilogue<'a>,
    tile: Tile,
    y: &'a Shared<'a>,
    outputs: Shape,
}

impl Task<'_> {
    fn run(&self) {
        let tile = self.tile;
        let layout = Layout::new(self.reading, tile.columns, tile.samples);
        let window = self.x.rows.channels * layout.row_stride;
        let gathered = if tile.samples > 1 { self.panels.rows() * layout.width() } else { 0 };
        scratch::with(window + gathered, |memory| {
            let (window, sums) = memory.split_at_mut(window);
            self.x.fill(window, (&layout, self.reading), tile.first, [tile.sample, self.group, 0]);
            let source = Source { window, row_stride: layout.row_stride, taps: &layout.taps, first: 0 };
            let (panels, epilogue) = (self.panels, self.epilogue);
            if tile.samples == 1 {
                let sink = Direct { output: self.y, start: |row| self.start(tile.sample, row) };
                arch().dispatch(Product { panels, source, columns: tile.columns, epilogue, sink });
            } else {
                let sink = Matrix { data: &mut *sums, row_stride: layout.width() };
                arch().dispatch(Product { panels, source, columns: layout.width(), epilogue, sink });
                self.scatter(sums, &layout);
            }
        });
    }

    /// Where the columns of the tile begin in a row of the output.
    fn start(&self, sample: usize, row: usize) -> usize {
        self.outputs.start(self.x.places.of(sample), self.group, row) + self.tile.first
    }

    /// From columns of several signals side by side to each signal's rows.
    #[expect(unsafe_code, reason = "tiles write their own columns of one output")]
    fn scatter(&self, sums: &[f32], layout: &Layout) {
        for (row, sums) in sums.chunks_exact(layout.width()).enumerate() {
            for sample in 0..layout.samples {
                let start = self.start(self.tile.sample + sample, row);
                // SAFETY: the columns of a tile are written by its task alone.
                let y = unsafe { self.y.part(start, layout.columns) };
                y.copy_from_slice(&sums[sample * layout.sample_stride..][..layout.columns]);
            }
        }
    }
}
