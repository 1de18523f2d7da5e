//! Convolutions of single rows: one input channel a group, and few outputs of it.
//!
//! The general product shares what it loads between the outputs of a group. With one output there is nothing to share, and
//! a register that crosses a cache line takes two cycles to load for one multiplication. So a row is held by many
//! registers of columns, and taps that lie a register apart are taken together: what the later one reads for a register
//! of columns, the earlier one reads for the next.

mod correlation;
mod row;
mod taps;
mod tiles;

use rayon::prelude::*;

use super::super::lanes::arch;
use super::super::scratch;
use super::Problem;
use super::product::Epilogue;
use super::signals::{Shape, Signals};
use super::window::{LANES, Reading};
use correlation::{Correlation, Totals};
use row::Row;
use taps::Taps;
use tiles::Tiles;

/// Outputs of an input up to which rows are convolved one by one.
const OUTPUTS: usize = 4;
/// Rows of a batch from which on threads share them, and not the columns of each.
const ROWS: usize = 8;

/// Whether rows are convolved one by one.
pub(super) fn fits(problem: &Problem<'_>) -> bool {
    let inputs = problem.inputs();
    inputs.channels == 1 && problem.outputs().channels <= OUTPUTS && problem.batch * inputs.groups >= ROWS
}

/// See `conv1d::forward`; of the folded weight.
pub(super) fn forward(problem: &Problem<'_>, x: Signals<'_>, weight: &[f32], epilogue: Epilogue<'_>, y: &mut [f32]) {
    let (outputs, taps, reading) = (problem.outputs(), problem.taps(), Reading::of(problem.geometry));
    let tiles = Tiles::new(outputs.length, &reading, |layout| Taps::new(layout.taps.iter().copied().enumerate()));
    each_row(y, outputs, |sample, group, y| {
        scratch::with(tiles.row_stride(), |window| {
            for (first, columns, (layout, order)) in tiles.iter() {
                let window = &mut window[..layout.row_stride];
                x.fill(window, (layout, &reading), first, [sample, group, 0]);
                for (channel, y) in y.chunks_exact_mut(outputs.length).enumerate() {
                    let output = group * outputs.channels + channel;
                    arch().dispatch(Row {
                        taps: order,
                        weight: &weight[output * taps..][..taps],
                        window,
                        bias: epilogue.bias.map_or(0.0, |bias| bias[output]),
                        activation: epilogue.activation,
                        out: &mut y[first..][..columns],
                    });
                }
            }
        });
    });
}

/// See `conv1d::input_gradient`; of the folded weight, and of inputs of which `before` positions are missing in front.
pub(super) fn input_gradient(
    problem: &Problem<'_>,
    dy: Signals<'_>,
    weight: &[f32],
    dx: &mut [f32],
    (inputs, before): (Shape, usize),
) {
    let (axis, taps, channels) = (problem.geometry.axes()[0], problem.taps(), dy.rows.channels);
    let reading = Reading::back(problem.geometry);
    let (from, to) = (before / axis.stride, (inputs.length - 1 + before) / axis.stride + 1);
    let tiles = Tiles::new(to - from, &reading, |layout| {
        let place = |at: usize| (at, at / taps * layout.row_stride + layout.taps[at % taps]);
        let of = |phase| (0..channels * taps).filter(move |at| at % taps * axis.dilation % axis.stride == phase);
        (0..axis.stride).map(|phase| Taps::new(of(phase).map(place))).collect::<Vec<_>>()
    });
    let window = channels * tiles.row_stride();
    each_row(dx, inputs, |sample, group, dx| {
        let weight = &weight[group * channels * taps..][..channels * taps];
        scratch::with(window + tiles.columns(), |memory| {
            let (window, sums) = memory.split_at_mut(window);
            for (first, columns, (layout, phases)) in tiles.iter() {
                let window = &mut window[..channels * layout.row_stride];
                dy.fill(window, (layout, &reading), from + first, [sample, group, 0]);
                if let [taps] = &phases[..] {
                    arch().dispatch(Row::plain(taps, weight, window, &mut dx[first..][..columns]));
                    continue;
                }
                for (phase, taps) in phases.iter().enumerate() {
                    arch().dispatch(Row::plain(taps, weight, window, &mut sums[..columns]));
                    for (column, sum) in sums[..columns].iter().enumerate() {
                        let position = ((from + first + column) * axis.stride + phase).checked_sub(before);
                        if let Some(dx) = position.and_then(|position| dx.get_mut(position)) {
                            *dx = *sum;
                        }
                    }
                }
            }
        });
    });
}

/// See `conv1d::weight_gradient`.
pub(super) fn weight_gradient(problem: &Problem<'_>, x: Signals<'_>, dy: Signals<'_>) -> Vec<f32> {
    let (outputs, taps, reading) = (problem.outputs(), problem.taps(), Reading::of(problem.geometry));
    let tiles = Tiles::new(outputs.length, &reading, |layout| Taps::new(layout.taps.iter().copied().enumerate()));
    let (window, row) = (tiles.row_stride(), tiles.columns().next_multiple_of(LANES));
    let mut dw = vec![0.0; outputs.groups * outputs.channels * taps];
    each_row(&mut dw, Shape { length: taps, ..outputs }, |_, group, dw| {
        scratch::with(window + row + dw.len() * LANES, |memory| {
            let (window, memory) = memory.split_at_mut(window);
            let (row, totals) = memory.split_at_mut(row);
            totals.fill(0.0);
            for sample in 0..problem.batch {
                for (first, columns, (layout, order)) in tiles.iter() {
                    let window = &mut window[..layout.row_stride];
                    x.fill(window, (layout, &reading), first, [sample, group, 0]);
                    for (channel, totals) in totals.chunks_exact_mut(taps * LANES).enumerate() {
                        let row = &mut row[..columns.next_multiple_of(LANES)];
                        row[..columns].copy_from_slice(&dy.row(sample, group, channel)[first..][..columns]);
                        row[columns..].fill(0.0);
                        arch().dispatch(Correlation { taps: order, window, row, totals });
                    }
                }
            }
            for (out, totals) in dw.chunks_exact_mut(taps).zip(totals.chunks_exact(taps * LANES)) {
                arch().dispatch(Totals { totals, out });
            }
        });
    });
    dw
}

/// Does `work` for the rows of every group of every signal, as `(sample, group, values)`.
fn each_row(values: &mut [f32], shape: Shape, work: impl Fn(usize, usize, &mut [f32]) + Sync) {
    let rows = values.par_chunks_exact_mut(shape.channels * shape.length).enumerate();
    rows.for_each(|(row, values)| work(row / shape.groups, row % shape.groups, values));
}
