//! Kernels in the order in which the product reads them.

use std::ops::Range;

use rayon::prelude::*;

use super::super::block;
use super::super::scratch::{self, Buffer};
use super::kernel::Kernel;

/// A matrix of kernels in the order in which the product reads it: for each block of channels, for each block of rows,
/// the taps, the channels, and the rows of the block side by side. Rows that do not exist are zero.
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
/// Values that one thread packs.
const SMALL: usize = 1 << 14;
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
        let mut rest = &mut *data;
        let mut jobs = Vec::new();
        for from in (0..channels).step_by(depth) {
            let channels = first_channel + from..first_channel + channels.min(from + depth);
            for first in (0..rows).step_by(height) {
                let width = last_height(rows - first, height);
                let (panel, after) = rest.split_at_mut(width * channels.len() * taps.len());
                rest = after;
                jobs.push(Job { panel, rows: first..rows.min(first + width), channels: channels.clone(), width });
            }
        }
        // For few, another thread is not worth waking.
        let least = (SMALL / (STEPS * height)).max(1);
        jobs.retain(|job| !job.panel.is_empty());
        jobs.into_par_iter().with_min_len(least).for_each(|job| job.fill(kernel, group, taps));
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

/// One panel.
struct Job<'p> {
    panel: &'p mut [f32],
    rows: Range<usize>,
    channels: Range<usize>,
    /// Rows there is room for.
    width: usize,
}

impl Job<'_> {
    /// Some channels at a time: what is unpacked or folded of them stays in the first-level cache.
    fn fill(self, kernel: &Kernel<'_>, group: usize, taps: &[usize]) {
        let few = (STEPS / kernel.taps).clamp(1, self.channels.len());
        scratch::with(kernel.memory([self.rows.len(), few]), |memory| {
            let steps = self.channels.len() * self.width;
            for (index, first) in self.channels.clone().step_by(few).enumerate() {
                let channels = first..self.channels.end.min(first + few);
                let (values, strides) = kernel.block(group, self.rows.clone(), channels.clone(), memory);
                for channel in 0..channels.len() {
                    let row = |row: usize| &values[row * strides.row + channel * strides.channel..];
                    let panel = self.panel[(index * few + channel) * self.width..].chunks_mut(steps);
                    match (self.width, self.rows.len()) {
                        (8, 8) => side_by_side::<8>(std::array::from_fn(row), taps, strides.tap, panel),
                        (4, 4) => side_by_side::<4>(std::array::from_fn(row), taps, strides.tap, panel),
                        (_, rows) => {
                            for (tap, panel) in taps.iter().zip(panel) {
                                (0..rows).for_each(|at| panel[at] = row(at)[tap * strides.tap]);
                                panel[rows..self.width].fill(0.0);
                            }
                        }
                    }
                }
            }
        });
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
