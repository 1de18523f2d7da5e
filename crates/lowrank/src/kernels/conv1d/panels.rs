//! Kernels in the order in which the product reads them.

use std::ops::Range;

use rayon::prelude::*;

use super::super::block;
use super::super::scratch::{self, Buffer};
use super::kernel::{Kernel, Strides};
use super::window::{LANES, every};

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
/// Rows that are folded at a time: the taps of so many inputs are whole registers and whole lines of the cache.
const ROWS: usize = 16;
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
            for first in (0..rows).step_by(ROWS) {
                let rows = first..rows.min(first + ROWS);
                let (panels, after) = rest.split_at_mut(height_of(rows.len(), height) * channels.len() * taps.len());
                rest = after;
                jobs.push(Job { panels, rows, channels: channels.clone(), height });
            }
        }
        // For few, another thread is not worth waking.
        let least = (SMALL / (STEPS * ROWS)).max(1);
        jobs.retain(|job| !job.panels.is_empty());
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
    pub fn row_blocks(&self) -> impl Iterator<Item = (usize, usize)> + Clone + '_ {
        (0..self.rows).step_by(self.height).map(|first| (first, last_height(self.rows - first, self.height)))
    }

    /// The panel of a block of channels and a block of rows.
    pub fn panel(&self, (from, depth): (usize, usize), (first, height): (usize, usize)) -> &[f32] {
        let padded = height_of(self.rows, self.height);
        let start = padded * from * self.taps + first * depth * self.taps;
        &self.data[start..][..height * depth * self.taps]
    }
}

/// The panels of some rows.
struct Job<'p> {
    panels: &'p mut [f32],
    rows: Range<usize>,
    channels: Range<usize>,
    height: usize,
}

impl Job<'_> {
    /// Some channels at a time: what is unpacked or folded of them stays in the first-level cache.
    fn fill(self, kernel: &Kernel<'_>, group: usize, taps: &[usize]) {
        let few = at_a_time(kernel.taps).min(self.channels.len());
        let (rows, steps) = (self.rows.len(), self.channels.len());
        scratch::with(kernel.memory([rows, few]), |memory| {
            for done in (0..steps).step_by(few) {
                let channels = self.channels.start + done..self.channels.end.min(self.channels.start + done + few);
                let (values, strides) = kernel.block(group, self.rows.clone(), channels.clone(), memory);
                let mut panels = &mut *self.panels;
                for row in (0..rows).step_by(self.height) {
                    let width = last_height(rows - row, self.height);
                    let (panel, rest) = panels.split_at_mut(width * steps * taps.len());
                    panels = rest;
                    let data = &values[row * strides.row..];
                    let block = Rows { data, strides, channels: channels.len() };
                    let (panel, step) = (&mut panel[done * width..], steps * width);
                    match (width, rows - row) {
                        (8, 8..) => block.side_by_side::<8>(taps, panel, step),
                        (4, 4..) => block.side_by_side::<4>(taps, panel, step),
                        (_, left) => block.side_by_side_of(left.min(width), width, taps, panel, step),
                    }
                }
            }
        });
    }
}

/// Channels that are folded at a time; whole registers.
fn at_a_time(taps: usize) -> usize {
    if taps > STEPS / LANES { (STEPS / taps).max(1) } else { STEPS / taps / LANES * LANES }
}

/// The rows of one panel as they stand in a kernel.
struct Rows<'a> {
    data: &'a [f32],
    strides: Strides,
    channels: usize,
}

impl Rows<'_> {
    /// `panel[tap · step + channel · N + n]`, of `N` rows.
    fn side_by_side<const N: usize>(&self, taps: &[usize], panel: &mut [f32], step: usize) {
        for channel in 0..self.channels {
            for (index, tap) in taps.iter().enumerate() {
                let from = &self.data[channel * self.strides.channel + tap * self.strides.tap..];
                let to = &mut panel[index * step + channel * N..][..N];
                every::<N>(from, self.strides.row, to.try_into().expect("the length"));
            }
        }
    }

    /// The same of fewer rows than there is room for.
    fn side_by_side_of(&self, rows: usize, width: usize, taps: &[usize], panel: &mut [f32], step: usize) {
        for channel in 0..self.channels {
            for (index, tap) in taps.iter().enumerate() {
                let from = &self.data[channel * self.strides.channel + tap * self.strides.tap..];
                let to = &mut panel[index * step + channel * width..][..width];
                (0..rows).for_each(|row| to[row] = from[row * self.strides.row]);
                to[rows..].fill(0.0);
            }
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
