//! How the columns of a batch are cut into tasks.

use super::WINDOW;

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
const TASKS: usize = 8;

impl Tiles {
    /// `values` is what a window holds for each column, `halo` what a signal adds beside its columns.
    pub fn new(length: usize, batch: usize, values: usize, halo: usize, [least, most]: [usize; 2]) -> Self {
        let fit = (WINDOW / values.max(1)).clamp(least, most);
        let share = (length * batch).div_ceil(TASKS).clamp(least, fit);
        let per_signal = length.div_ceil(share);
        let columns = length.div_ceil(per_signal).next_multiple_of(16).min(length);
        let per_signal = length.div_ceil(columns);
        let samples = if per_signal == 1 { (share / (length + halo)).clamp(1, batch.max(1)) } else { 1 };
        Self { columns, samples, per_signal, blocks: batch.div_ceil(samples), length, batch }
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
