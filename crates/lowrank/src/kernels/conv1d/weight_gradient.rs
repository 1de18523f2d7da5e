//! The gradient of a dense weight.

use rayon::prelude::*;

use super::super::scratch;
use super::Problem;
use super::depthwise;
use super::patches;
use super::short;
use super::signals::Signals;
use super::sums::{Rows, add_sums};
use super::tiles::{CHANNELS, Tile, Tiles, blocks};
use super::window::{Layout, Reading};
use crate::threads::awake;

/// The gradient `dW (out, in/groups, kernel)` of a dense weight, of `x (batch, in, length)` and `dy (batch, out, columns)`.
///
/// # Panics
/// When a slice does not have the size of its shape, and where [`Problem::output_length`] is an error.
#[must_use]
pub fn weight_gradient(problem: &Problem<'_>, x: &[f32], dy: &[f32]) -> Vec<f32> {
    awake(|| {
        let (inputs, outputs, n) = (problem.inputs(), problem.outputs(), problem.row());
        let reading = Reading::of(problem.geometry);
        let x = Signals::new(x, inputs, problem.batch, "x");
        let dy = Signals::new(dy, outputs, problem.batch, "dy");
        if depthwise::fits(problem) {
            return depthwise::weight_gradient(problem, x, dy);
        }
        if short::fits(problem) {
            return short::weight_gradient(problem, x, dy);
        }
        if patches::fits(problem) {
            return patches::weight_gradient(problem, x, dy);
        }
        let tiles = Tiles::summed(problem, &reading);
        // As many outputs a task as leave several tasks: each reads all of its group's inputs.
        let share = (outputs.channels / 4).next_multiple_of(8).clamp(8, CHANNELS);
        let mut dw = vec![0.0; outputs.groups * outputs.channels * n];
        dw.par_chunks_exact_mut(outputs.channels * n).enumerate().for_each(|(group, dw)| {
            dw.par_chunks_mut(share * n).enumerate().for_each(|(index, dw)| {
                let outputs = dw.len() / n;
                let task = Task { x, dy, reading: &reading, group, first: index * share, outputs };
                let mut sums = vec![0.0; dw.len()];
                for tile in 0..tiles.count() {
                    task.add(tiles.get(tile), &mut sums);
                }
                transpose(&sums, dw, problem.taps());
            });
        });
        dw
    })
}

struct Task<'a> {
    x: Signals<'a>,
    dy: Signals<'a>,
    reading: &'a Reading<'a>,
    group: usize,
    /// The first output, and how many.
    first: usize,
    outputs: usize,
}

impl Task<'_> {
    /// Adds the sums of one tile, which are tap by tap.
    fn add(&self, tile: Tile, sums: &mut [f32]) {
        let (inputs, outputs) = (self.x.rows.channels, self.outputs);
        let (of_x, plain) = (Layout::new(self.reading, tile.columns, tile.samples), Reading::plain());
        let of_dy = Layout::spaced(&plain, tile.columns, tile.samples, of_x.sample_stride);
        let size = outputs * of_dy.row_stride;
        scratch::with(size + CHANNELS.min(inputs) * of_x.row_stride, |memory| {
            let (narrow, window) = memory.split_at_mut(size);
            self.dy.fill(narrow, (&of_dy, &plain), tile.first, [tile.sample, self.group, self.first]);
            let dy = Rows { data: narrow, count: outputs, stride: of_dy.row_stride, step: 0 };
            for (from, depth) in blocks(inputs) {
                let window = &mut window[..depth * of_x.row_stride];
                self.x.fill(window, (&of_x, self.reading), tile.first, [tile.sample, self.group, from]);
                for (offset, sums) in of_x.taps.iter().zip(sums.chunks_exact_mut(outputs * inputs)) {
                    let x = Rows { data: &window[*offset..], count: depth, stride: of_x.row_stride, step: 0 };
                    add_sums(x, dy, [1, of_x.width()], &mut sums[from..], inputs);
                }
            }
        });
    }
}

/// `to[i, tap] = from[tap, i]`, a line of the cache at a time.
fn transpose(from: &[f32], to: &mut [f32], taps: usize) {
    let count = from.len() / taps;
    for (block, to) in to.chunks_mut(LINE * taps).enumerate() {
        for (tap, from) in from.chunks_exact(count).enumerate() {
            to[tap..].iter_mut().step_by(taps).zip(&from[block * LINE..]).for_each(|(to, value)| *to = *value);
        }
    }
}

/// Values of a line of the cache.
const LINE: usize = 16;
