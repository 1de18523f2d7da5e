//! How the lanes of a batch are cut into tasks.

use super::minimal::OUTPUTS;
use super::scheme::Scheme;

/// Blocks `first..first + blocks` of lanes of signals `sample..sample + samples`, and of each block lanes `from..from + width`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub sample: usize,
    pub samples: usize,
    pub first: usize,
    pub blocks: usize,
    pub from: usize,
    pub width: usize,
}

/// Tiles of a batch: some blocks of one signal, all blocks of several, or a part of the lanes of a single block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiles {
    samples: usize,
    blocks: usize,
    width: usize,
    batch: usize,
    all_blocks: usize,
    spacing: usize,
}

/// Lanes of a tile: few enough that its transformed inputs stay in the second-level cache, and enough for the weights to be
/// read from behind it while the products of the last ones are computed.
const LANES: [usize; 2] = [48, 192];
/// Transformed inputs of a tile.
const WINDOW: usize = 112 * 1024;
/// Tasks that a batch is cut into where it is large enough.
const TASKS: usize = 8;

/// Of few parts of a single signal an even number: three for two threads would take as long as four.
fn even(parts: usize, all_blocks: usize, batch: usize) -> usize {
    if batch == 1 && parts < TASKS { parts.next_multiple_of(2).min(all_blocks) } else { parts }
}

impl Tiles {
    /// Tiles of `columns` a signal, of so many channels.
    pub fn new(scheme: &Scheme, columns: usize, batch: usize, channels: usize) -> Self {
        let spacing = scheme.spacing;
        let all_blocks = columns.div_ceil(OUTPUTS * spacing);
        let fit = (WINDOW / (channels * scheme.sources())).clamp(LANES[0], LANES[1]);
        let lanes = (all_blocks * spacing * batch).div_ceil(TASKS).clamp(LANES[0], fit) / 16 * 16;
        let tile = Self { samples: 1, blocks: 1, width: spacing, batch, all_blocks, spacing };
        if spacing > lanes {
            let parts = spacing.div_ceil(lanes);
            return Self { width: spacing.div_ceil(parts).next_multiple_of(16).min(spacing), ..tile };
        }
        let parts = even(all_blocks.div_ceil(lanes / spacing), all_blocks, batch);
        let blocks = all_blocks.div_ceil(parts);
        let apart = (blocks + scheme.longest() - 1) * spacing;
        let samples = if parts == 1 { (lanes / apart).clamp(1, batch) } else { 1 };
        Self { samples, blocks, ..tile }
    }

    fn parts(&self) -> (usize, usize) {
        (self.all_blocks.div_ceil(self.blocks), self.spacing.div_ceil(self.width))
    }

    pub fn count(&self) -> usize {
        let (blocks, widths) = self.parts();
        self.batch.div_ceil(self.samples) * blocks * widths
    }

    pub fn get(&self, index: usize) -> Tile {
        let (blocks, widths) = self.parts();
        let from = index % widths * self.width;
        let first = index / widths % blocks * self.blocks;
        let sample = index / widths / blocks * self.samples;
        Tile {
            sample,
            samples: self.samples.min(self.batch - sample),
            first,
            blocks: self.blocks.min(self.all_blocks - first),
            from,
            width: self.width.min(self.spacing - from),
        }
    }
}
