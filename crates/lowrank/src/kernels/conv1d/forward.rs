//! `y = f(conv(x, W + s·B·A) + b)`.

use rayon::prelude::*;

use super::super::activation::Activation;
use super::super::lanes::arch;
use super::super::scratch;
use super::super::shared::Shared;
use super::direct::Direct;
use super::product::{Epilogue, Matrix, Product, Source};
use super::tiles::{Tile, Tiles};
use super::weights::{Panels, Strides, Weight};
use super::window::{Layout, Outside, Reading, fill};
use super::{Channels, Problem};
use crate::geometry::ConvGeometry;

/// Convolves `x (batch, in, length)` into `y (batch, out, columns)`, adds a bias `(out)`, and applies an activation while
/// the values are in registers.
///
/// # Panics
/// When a slice does not have the size of its shape, and where [`Problem::output_length`] is an error.
pub fn forward(
    problem: &Problem<'_>,
    x: &[f32],
    weight: &Weight<'_>,
    bias: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) {
    let (columns, channels, taps) = (problem.columns(), problem.channels(), problem.taps());
    let Channels { groups, input, output } = channels;
    assert_eq!(x.len(), problem.batch * groups * input * problem.length, "values of x");
    assert_eq!(y.len(), problem.batch * groups * output * columns, "values of y");
    assert!(weight.fits(groups * output, input * taps), "values of the weight");
    assert!(bias.is_none_or(|bias| bias.len() == groups * output), "values of the bias");
    let folded = weight.folded(input * taps);
    let panels: Vec<Panels> = folded
        .chunks_exact(output * input * taps)
        .map(|weight| {
            let strides = Strides { row: input * taps, channel: taps, tap: 1 };
            Panels::pack(weight, [output, input], &(0..taps).collect::<Vec<_>>(), strides)
        })
        .collect();
    let reading = reading(problem.geometry);
    let layout = Layout::new(&reading, columns, 1);
    let values = input * Layout::values_a_column(&reading);
    let tiles = Tiles::new(columns, problem.batch, values, layout.sample_stride - columns, [48, 1536]);
    let y = Shared::new(y);
    (0..tiles.count() * groups).into_par_iter().for_each(|task| {
        let (tile, group) = (tiles.get(task / groups), task % groups);
        let bias = bias.map(|bias| &bias[group * output..][..output]);
        Task {
            x: &|sample, channel| {
                &x[((sample * groups + group) * input + channel) * problem.length..][..problem.length]
            },
            reading: &reading,
            panels: &panels[group],
            inputs: input,
            epilogue: Epilogue { bias, activation },
            tile,
            y: &y,
            start: &|sample, row| ((sample * groups + group) * output + row) * columns + tile.first,
        }
        .run();
    });
}

/// What column `t` of the output reads.
pub(super) fn reading(geometry: &ConvGeometry) -> Reading<'_> {
    let axis = geometry.axes()[0];
    let (before, _) = geometry.padding(0);
    let taps = (0..axis.kernel).map(|tap| (tap * axis.dilation).cast_signed() - before.cast_signed()).collect();
    Reading { stride: axis.stride, taps, outside: Outside::Padding(geometry) }
}

struct Task<'a, X, P> {
    x: &'a X,
    reading: &'a Reading<'a>,
    panels: &'a Panels,
    inputs: usize,
    epilogue: Epilogue<'a>,
    tile: Tile,
    y: &'a Shared<'a>,
    start: &'a P,
}

impl<'a, X: Fn(usize, usize) -> &'a [f32], P: Fn(usize, usize) -> usize> Task<'a, X, P> {
    fn run(&self) {
        let tile = self.tile;
        let layout = Layout::new(self.reading, tile.columns, tile.samples);
        let window = self.inputs * layout.row_stride;
        let gathered = if tile.samples > 1 { self.panels.rows() * layout.width() } else { 0 };
        scratch::with(window + gathered, |memory| {
            let (window, sums) = memory.split_at_mut(window);
            for (channel, row) in window.chunks_exact_mut(layout.row_stride).enumerate() {
                fill(row, &layout, self.reading, tile.first.cast_signed(), |n| (self.x)(tile.sample + n, channel));
            }
            let source = Source { window, row_stride: layout.row_stride, taps: &layout.taps };
            let (panels, epilogue) = (self.panels, self.epilogue);
            if tile.samples == 1 {
                let rows = Direct { output: self.y, start: |row| (self.start)(tile.sample, row) };
                arch().dispatch(Product { panels, source, columns: tile.columns, epilogue, sink: rows });
            } else {
                let rows = Matrix { data: &mut *sums, row_stride: layout.width() };
                arch().dispatch(Product { panels, source, columns: layout.width(), epilogue, sink: rows });
                self.scatter(sums, &layout);
            }
        });
    }
}

impl<X, P: Fn(usize, usize) -> usize> Task<'_, X, P> {
    /// From columns of several signals side by side to each signal's rows.
    #[expect(unsafe_code, reason = "tiles write their own columns of one output")]
    fn scatter(&self, sums: &[f32], layout: &Layout) {
        for (row, sums) in sums.chunks_exact(layout.width()).enumerate() {
            for sample in 0..layout.samples {
                let start = (self.start)(self.tile.sample + sample, row);
                // SAFETY: the columns of a tile are written by its task alone.
                let y = unsafe { self.y.part(start, layout.columns) };
                y.copy_from_slice(&sums[sample * layout.sample_stride..][..layout.columns]);
            }
        }
    }
}
