//! Signals of a few positions, in large batches.
//!
//! A register of columns would hold several signals and the gaps between them. Here the lanes are channels and the rows of
//! a product are signals: for each position of the output, and each tap that reads a position of the input there, a plain
//! matrix product over the channels. Taps that read padding with zeros cost nothing.

mod convolve;
mod low_rank_gradients;
mod side_by_side;
mod weight_gradient;

pub(super) use convolve::{forward, input_gradient};
pub(super) use low_rank_gradients::low_rank_gradients;
pub(super) use weight_gradient::weight_gradient;

use rayon::prelude::*;

use super::super::scratch;
use super::Problem;
use super::kernel::Kernel;
use super::matrix::PANEL;
use super::tiles::TASKS;
use super::window::LANES;

/// Positions of an input and of an output that are few.
const POSITIONS: usize = 8;
/// Channels of a group, of both sides, that fill a register.
const CHANNELS: usize = LANES;
/// Signals that are many.
const SAMPLES: usize = 16;

/// Whether signals are the rows of a product.
pub(super) fn fits(problem: &Problem<'_>) -> bool {
    let (inputs, outputs) = (problem.inputs(), problem.outputs());
    inputs.length.max(outputs.length) <= POSITIONS
        && inputs.channels.min(outputs.channels) >= CHANNELS
        && problem.batch >= SAMPLES
}

/// Signals of a tile: as many as leave several tasks, in whole blocks of rows.
fn samples(batch: usize) -> usize {
    batch.div_ceil(TASKS).next_multiple_of(PANEL).min(64)
}

/// A tap that reads `input` for `output`.
#[derive(Clone, Copy)]
struct Link {
    output: usize,
    input: usize,
    tap: usize,
}

fn links(problem: &Problem<'_>) -> Vec<Link> {
    let axis = problem.geometry.axes()[0];
    let of_output = |output: usize| {
        (0..axis.kernel).filter_map(move |tap| {
            let padded = output * axis.stride + tap * axis.dilation;
            problem.geometry.source(0, padded, problem.length).map(|input| Link { output, input, tap })
        })
    };
    (0..problem.columns()).flat_map(of_output).collect()
}

/// For each group and tap, a row for each channel of the kernel, with what goes to its rows side by side, filled up to whole
/// registers.
fn tap_by_tap(kernel: &Kernel<'_>, groups: usize, taps: usize) -> Vec<f32> {
    let [rows, channels] = kernel.size;
    let width = rows.next_multiple_of(LANES);
    let mut matrices = vec![0.0; groups * taps * channels * width];
    matrices.par_chunks_exact_mut(taps * channels * width).enumerate().for_each(|(group, matrices)| {
        for first in (0..rows).step_by(LANES) {
            let block = first..rows.min(first + LANES);
            scratch::with(kernel.memory([block.len(), channels]), |memory| {
                let (values, strides) = kernel.block(group, block.clone(), 0..channels, memory);
                for (index, row) in matrices.chunks_exact_mut(width).enumerate() {
                    let values = &values[index % channels * strides.channel + index / channels * strides.tap..];
                    let values = values.iter().step_by(strides.row);
                    row[block.clone()].iter_mut().zip(values).for_each(|(to, value)| *to = *value);
                }
            });
        }
    });
    matrices
}

/// Matrices `(steps, width)` with rows filled up to whole registers, from `value(matrix, step, column)`.
fn packed([matrices, steps, width]: [usize; 3], value: impl Fn(usize, usize, usize) -> f32 + Sync) -> Vec<f32> {
    let mut rows = vec![0.0; matrices * steps * width.next_multiple_of(LANES)];
    rows.par_chunks_mut(width.next_multiple_of(LANES)).enumerate().with_min_len(16).for_each(|(row, values)| {
        let values = values[..width].iter_mut().enumerate();
        values.for_each(|(column, to)| *to = value(row / steps, row % steps, column));
    });
    rows
}
