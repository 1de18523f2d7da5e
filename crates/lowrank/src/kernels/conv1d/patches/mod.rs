//! Gradients of convolutions with few input channels, long kernels and wide strides: features of waveforms, patches,
//! filter banks.
//!
//! What a column reads, `in/groups · kernel` values, is a row of a matrix here, each channel's taps filled up to whole
//! registers. Then the lanes of a register are neighbouring taps, where [`super::product`] would have few rows to fill its
//! block with, and a pass for each phase of the stride. Every gradient is a matrix product with that matrix:
//! `dW = dy·X`, `dX = dyᵀ·W` (added up where patches overlap), `h = X·Aᵀ`, `dh = Bᵀ·dy`, `dA = dh·X` and `dB = dy·h`. Under long
//! kernels the output is one too, `Y = W·Xᵀ`.

mod forward;
mod input_gradient;
mod low_rank_gradients;
mod weight_gradient;

pub(super) use forward::{fits_forward, forward};
pub(super) use input_gradient::input_gradient;
pub(super) use low_rank_gradients::low_rank_gradients;
pub(super) use weight_gradient::weight_gradient;

use super::Problem;
use super::signals::Signals;
use super::tiles::{Tile, Tiles};
use super::window::{LANES, Reading, copy};

/// Input channels of a group from which on the rows of a general product fill its block.
const CHANNELS: usize = 8;
/// Outputs of a group that make up for the copies.
const OUTPUTS: usize = 8;
/// Columns of a tile: three registers of each of its patches fit the first-level cache.
const COLUMNS: usize = 128;

/// Taps of a kernel whose patches leave a block of the input gradient with one or two registers of columns.
pub(super) const SHORT: usize = 2 * LANES;

/// Whether the gradients are computed from patches: windows would be gathered a value at a time, and at least three fifths
/// of the lanes hold taps.
pub(super) fn fits(problem: &Problem<'_>) -> bool {
    let (axis, taps) = (problem.geometry.axes()[0], problem.taps());
    let few = problem.inputs().channels < CHANNELS && problem.outputs().channels >= OUTPUTS;
    few && axis.stride > 2 && axis.dilation == 1 && 5 * taps >= 3 * padded(taps)
}

/// Taps of a channel in whole registers.
fn padded(taps: usize) -> usize {
    taps.next_multiple_of(LANES)
}

/// From a row to the next: an odd number of cache lines, so that rows do not compete for the same places in the cache.
fn spread(width: usize) -> usize {
    width.next_multiple_of(2 * LANES) + LANES
}

/// Tiles of the columns of an output.
fn tiles(length: usize, batch: usize) -> Tiles {
    Tiles::new(length, batch, &Reading::plain(), 1, [COLUMNS, COLUMNS])
}

/// What the columns of a tile read, a row for each.
struct Patches<'a> {
    x: Signals<'a>,
    /// Of the positions that follow one another from the first of a column.
    reading: Reading<'a>,
    stride: usize,
    taps: usize,
}

impl<'a> Patches<'a> {
    fn new(problem: &Problem<'a>, x: Signals<'a>) -> Self {
        let (axis, mut reading) = (problem.geometry.axes()[0], Reading::of(problem.geometry));
        reading.taps.truncate(1);
        Self { x, reading: Reading { stride: 1, ..reading }, stride: axis.stride, taps: axis.kernel }
    }

    /// Values of a row that are computed with.
    fn width(&self) -> usize {
        self.x.rows.channels * padded(self.taps)
    }

    /// From a row to the next.
    fn row_stride(&self) -> usize {
        spread(self.width())
    }

    fn fill(&self, rows: &mut [f32], tile: Tile, group: usize) {
        let (taps, width, start) = (self.taps, padded(self.taps), self.reading.taps[0]);
        for (sample, rows) in rows.chunks_mut(tile.columns * self.row_stride()).take(tile.samples).enumerate() {
            for channel in 0..self.x.rows.channels {
                let signal = self.x.row(tile.sample + sample, group, channel);
                for (column, row) in rows.chunks_mut(self.row_stride()).enumerate() {
                    let (row, rest) = row[channel * width..][..width].split_at_mut(taps);
                    copy(row, signal, start + ((tile.first + column) * self.stride).cast_signed(), &self.reading);
                    rest.fill(0.0);
                }
            }
        }
    }
}
