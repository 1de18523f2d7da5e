//! How the columns of a batch are cut into tasks.

use super::window::{Layout, Reading};
use super::{Problem, WINDOW};

/// Tiles of a batch: some columns of one signal, or all columns of several.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiles {
    /// Columns of a tile.
    pub columns: usize,
    /// Signals of a tile.
    pub samples: usize,
    per_signal: usize,
    blocks: usize,
    length: usize,
    batch: usize,
}

/// One task: columns `first..first + columns` of signals `sample..sample + samples`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub sample: usize,
    pub samples: usize,
    pub first: usize,
    pub columns: usize,
}

/// Tasks that a batch is cut into where it is large enough, so that cores finish together.
pub(super) const TASKS: usize = 8;

impl Tiles {
    /// Tiles of `length` columns a signal, whose windows hold `channels`; of `least` to `most` columns.
    pub fn new(length: usize, batch: usize, reading: &Reading<'_>, channels: usize, [least, most]: [usize; 2]) -> Self {
        let halo = Layout::new(reading, length, 1).sample_stride - length;
        let values = channels * Layout::values_a_column(reading);
        let fit = (WINDOW / values.max(1)).clamp(least, most);
        let share = (length * batch).div_ceil(TASKS).clamp(least, fit);
        let per_signal = length.div_ceil(share);
        let columns = length.div_ceil(per_signal).next_multiple_of(16).min(length);
        let per_signal = length.div_ceil(columns);
        let samples = if per_signal == 1 { (share / (length + halo)).clamp(1, batch.max(1)) } else { 1 };
        Self { columns, samples, per_signal, blocks: batch.div_ceil(samples), length, batch }
    }

    /// Tiles for sums along the columns of an output, with blocks of the channels of both sides.
    pub fn summed(problem: &Problem<'_>, reading: &Reading<'_>) -> Self {
        let (inputs, outputs) = (problem.inputs(), problem.outputs());
        let channels = inputs.channels.max(outputs.channels).min(CHANNELS);
        Self::new(outputs.length, problem.batch, reading, channels, SUMMED)
    }

    pub fn count(&self) -> usize {
        self.per_signal * self.blocks
    }

    pub fn get(&self, index: usize) -> Tile {
        let sample = index / self.per_signal * self.samples;
        let first = index % self.per_signal * self.columns;
        Tile {
            sample,
            samples: self.samples.min(self.batch - sample),
            first,
            columns: self.columns.min(self.length - first),
        }
    }
}

/// Channels whose windows are in memory at a time, where sums go along the columns.
pub(super) const CHANNELS: usize = 64;

/// Columns of a tile for sums along them: as many as make the last step, across a register, small, and few enough for eight
/// rows of a low-rank signal to stay in the first-level cache.
pub(super) const SUMMED: [usize; 2] = [256, 512];

/// Blocks of [`CHANNELS`] channels as `(first, count)`.
pub(super) fn blocks(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..channels).step_by(CHANNELS).map(move |from| (from, CHANNELS.min(channels - from)))
}
