//! A batch of signals in memory.

use super::window::{Layout, Reading, fill};

/// `(batch, groups · channels, length)`, rows one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub groups: usize,
    /// Channels of a group.
    pub channels: usize,
    pub length: usize,
}

impl Shape {
    /// Values of a batch.
    pub fn len(self, batch: usize) -> usize {
        batch * self.groups * self.channels * self.length
    }

    /// Where a channel of a group of a signal begins.
    pub fn start(self, sample: usize, group: usize, channel: usize) -> usize {
        ((sample * self.groups + group) * self.channels + channel) * self.length
    }
}

/// Signals to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signals<'a> {
    pub values: &'a [f32],
    pub rows: Shape,
    pub places: Places<'a>,
}

/// Which signals of a batch they are: all of them, or those at these places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places<'a>(pub Option<&'a [usize]>);

impl Places<'_> {
    pub fn of(self, sample: usize) -> usize {
        self.0.map_or(sample, |places| places[sample])
    }
}

impl<'a> Signals<'a> {
    /// # Panics
    /// When there are not as many values as the batch has.
    pub fn new(values: &'a [f32], rows: Shape, batch: usize, name: &str) -> Self {
        assert_eq!(values.len(), rows.len(batch), "values of {name}");
        Self { values, rows, places: Places(None) }
    }

    /// One channel of a group of a signal.
    pub fn row(&self, sample: usize, group: usize, channel: usize) -> &'a [f32] {
        &self.rows_from(sample, group, channel)[..self.rows.length]
    }

    /// All values from the first of a channel on.
    pub fn rows_from(&self, sample: usize, group: usize, channel: usize) -> &'a [f32] {
        &self.values[self.rows.start(self.places.of(sample), group, channel)..]
    }

    /// Fills rows of a window with what columns from `first` of signals from `sample` read of a group's channels from
    /// `channel`.
    pub fn fill(
        &self,
        window: &mut [f32],
        (layout, reading): (&Layout, &Reading<'_>),
        first: usize,
        [sample, group, channel]: [usize; 3],
    ) {
        for (index, row) in window.chunks_exact_mut(layout.row_stride).enumerate() {
            fill(row, layout, reading, first.cast_signed(), |n| self.row(sample + n, group, channel + index));
        }
    }
}
