//! How a row is cut.

use super::super::window::{Layout, Reading};

/// Columns of a tile: with its window, it stays in the first-level cache.
const COLUMNS: usize = 2048;

/// Tiles of a row: full ones and a last one, each with its window's layout and what a kernel derives from that.
pub(super) struct Tiles<T> {
    length: usize,
    columns: usize,
    full: (Layout, T),
    last: (Layout, T),
}

impl<T> Tiles<T> {
    pub fn new(length: usize, reading: &Reading<'_>, plan: impl Fn(&Layout) -> T) -> Self {
        let tiles = length.div_ceil(COLUMNS);
        let columns = length.div_ceil(tiles).next_multiple_of(16).min(length);
        let of = |columns| {
            let layout = Layout::new(reading, columns, 1);
            let plan = plan(&layout);
            (layout, plan)
        };
        Self { length, columns, full: of(columns), last: of((length - 1) % columns + 1) }
    }

    /// Columns of a full tile.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Values of the window of a full tile.
    pub fn row_stride(&self) -> usize {
        self.full.0.row_stride
    }

    /// First column, columns and plan of every tile.
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize, &(Layout, T))> {
        (0..self.length).step_by(self.columns).map(|first| {
            let columns = self.columns.min(self.length - first);
            (first, columns, if columns == self.columns { &self.full } else { &self.last })
        })
    }
}
