//! Kernels in the order in which the product reads them.

use std::ops::Range;

use rayon::prelude::*;

use super::super::block;
use super::super::scratch::{self, Buffer};
use super::kernel::Kernel;

/// A matrix of kernels in the order in which the product reads it: for each block of channels, for each block of rows,
/// the taps, the channels, and the rows of the block side by side. Of rows that do not exist, the values are unknown.
pub(super) struct Panels {
    data: Buffer,
    rows: usize,
    /// Rows of a full block.
    height: usize,
    channels: usize,
    /// Channels of a full block.
    depth: usize,
    taps: usize,
}

/// Steps of a block of channels: the rows of the window that it reads stay in the first-level cache.
const STEPS: usize = 256;
/// Channels of a block at most.
pub(super) const CHANNELS: usize = 64;

impl Panels {
    /// Packs some channels and taps of the kernels of a group.
    pub fn pack(kernel: &Kernel<'_>, group: usize, channels: Range<usize>, taps: &[usize]) -> Self {
        let height = block::height();
        let (rows, first_channel, channels) = (kernel.size[0], channels.start, channels.len());
        let depth = (STEPS / taps.len().max(1)).clamp(8, CHANNELS).min(channels.max(1));
        let padded = height_of(rows, height);
        let mut data = Buffer::new(padded * channels * taps.len());
        let blocks = rows.div_ceil(height);
        let mut rest = &mut *data;
        let mut jobs = Vec::new();
        for from in (0..channels).step_by(depth) {
            let depth = depth.min(channels - from);
            for block in 0..blocks {
                let width = last_height(rows - block * height, height);
                let (panel, after) = rest.split_at_mut(width * depth * taps.len());
                rest = after;
                jobs.push((panel, block * height, first_channel + from, depth, width));
            }
        }
        let fill = |(panel, first, from, depth, width): (&mut [f32], usize, usize, usize, usize)| {
            if panel.is_empty() {
                return;
            }
            let rows = first..rows.min(first + width);
            scratch::with(kernel.memory([rows.len(), depth]), |memory| {
                let (values, strides) = kernel.block(group, rows.clone(), from..from + depth, memory);
                for channel in 0..depth {
                    let of_row = |row: usize| &values[row * strides.row + channel * strides.channel..];
                    let panel = panel[channel * width..].chunks_mut(depth * width);
                    match (width, rows.len()) {
                        (8, 8) => side_by_side::<8>(std::array::from_fn(of_row), taps, strides.tap, panel),
                        (4, 4) => side_by_side::<4>(std::array::from_fn(of_row), taps, strides.tap, panel),
                        (_, count) => {
                            for (tap, panel) in taps.iter().zip(panel) {
                                (0..count).for_each(|row| panel[row] = of_row(row)[tap * strides.tap]);
                            }
                        }
                    }
                }
            });
        };
        if jobs.len() * STEPS * height < 1 << 15 {
            jobs.into_iter().for_each(fill);
        } else {
            jobs.into_par_iter().for_each(fill);
        }
        Self { data, rows, height, channels, depth, taps: taps.len() }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Blocks of channels as `(first, count)`; one empty block where there is nothing to add up.
    pub fn channel_blocks(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.channels.max(1)).step_by(self.depth.max(1)).map(|from| (from, self.depth.min(self.channels - from)))
    }

    /// Blocks of rows as `(first, height)`.
    pub fn row_blocks(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.rows).step_by(self.height).map(|first| (first, last_height(self.rows - first, self.height)))
    }

    /// The panel of a block of channels and a block of rows.
    pub fn panel(&self, (from, depth): (usize, usize), (first, height): (usize, usize)) -> &[f32] {
        let padded = height_of(self.rows, self.height);
        let start = padded * from * self.taps + first * depth * self.taps;
        &self.data[start..][..height * depth * self.taps]
    }
}

/// The taps of some rows, those of one tap side by side.
fn side_by_side<'p, const N: usize>(
    rows: [&[f32]; N],
    taps: &[usize],
    stride: usize,
    panel: impl Iterator<Item = &'p mut [f32]>,
) {
    let end = taps.iter().fold(0, |end, tap| end.max(tap * stride + 1));
    let mut rows = rows;
    for row in &mut rows {
        *row = &row[..end];
    }
    for (tap, panel) in taps.iter().zip(panel) {
        let panel: &mut [f32; N] = (&mut panel[..N]).try_into().expect("the length");
        for n in 0..N {
            panel[n] = rows[n][tap * stride];
        }
    }
}

/// Rows of the block that `left` rows remain for: a power of two, so that few kernels are enough.
fn last_height(left: usize, height: usize) -> usize {
    left.next_power_of_two().min(height)
}

/// All rows, the last block padded.
fn height_of(rows: usize, height: usize) -> usize {
    let full = rows / height * height;
    if rows == full { full } else { full + last_height(rows - full, height) }
}
