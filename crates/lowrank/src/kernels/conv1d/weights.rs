//! Weights as the product reads them: folded with their adapter, and packed.

use std::borrow::Cow;

use half::{bf16, f16};
use rayon::prelude::*;

use super::super::block;
use super::super::gemm::{self, Matrix};
use super::super::lanes::arch;
use super::super::scratch::Buffer;

/// The values of a frozen weight, in the type the model holds them in.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Half precision.
    F16(&'a [f16]),
    /// Brain floating point.
    Bf16(&'a [bf16]),
}

/// A low-rank update `s·B·A` of a weight seen as the matrix `(out, n)`, `n = in/groups · kernel`.
#[derive(Debug, Clone, Copy)]
pub struct LowRank<'a> {
    /// `(r, n)`.
    pub a: &'a [f32],
    /// `(out, r / blocks)`.
    pub b: &'a [f32],
    /// `r`.
    pub rank: usize,
    /// Independent blocks: rows of `B` in block `i` meet the rows of `A` in block `i`.
    pub blocks: usize,
    /// `s`.
    pub scale: f32,
}

/// A frozen weight `(out, in/groups, kernel)` and the update that is folded into it.
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a> {
    /// `W`.
    pub base: Values<'a>,
    /// `s·B·A`.
    pub low_rank: Option<LowRank<'a>>,
}

impl<'a> Weight<'a> {
    /// A weight without an adapter.
    #[must_use]
    pub fn plain(values: &'a [f32]) -> Self {
        Self { base: Values::F32(values), low_rank: None }
    }

    /// Whether there are `out · n` values, and the factors fit them.
    pub(super) fn fits(&self, out: usize, n: usize) -> bool {
        let len = match self.base {
            Values::F32(values) => values.len(),
            Values::F16(values) => values.len(),
            Values::Bf16(values) => values.len(),
        };
        len == out * n
            && self.low_rank.is_none_or(|low| {
                low.blocks > 0
                    && out.is_multiple_of(low.blocks)
                    && low.rank.is_multiple_of(low.blocks)
                    && low.a.len() == low.rank * n
                    && low.b.len() == out * (low.rank / low.blocks)
            })
    }

    /// `W + s·B·A` as `f32`; rows are `n` long.
    pub(super) fn folded(&self, n: usize) -> Cow<'a, [f32]> {
        let mut values = match (self.base, self.low_rank) {
            (Values::F32(values), None) => return Cow::Borrowed(values),
            (Values::F32(values), Some(_)) => values.to_vec(),
            (Values::F16(values), _) => values.iter().map(|value| value.to_f32()).collect(),
            (Values::Bf16(values), _) => values.iter().map(|value| value.to_f32()).collect(),
        };
        if let Some(low) = self.low_rank {
            let (rank, rows) = (low.rank / low.blocks, values.len() / n / low.blocks);
            let of_blocks = low.a.chunks_exact(rank * n).zip(low.b.chunks_exact(rows * rank));
            let tasks = values.chunks_exact_mut(rows * n).zip(of_blocks).flat_map(|(values, (a, b))| {
                values.chunks_mut(FOLDED * n).zip(b.chunks(FOLDED * rank)).map(move |(values, b)| (values, a, b))
            });
            let fold = |(values, a, b): (&mut [f32], &[f32], &[f32])| {
                let b = Matrix::new(b, [b.len() / rank, rank], [rank, 1]);
                gemm::add_product(low.scale, b, Matrix::new(a, [rank, n], [n, 1]), values);
            };
            let tasks: Vec<_> = tasks.collect();
            if low.b.len() * n < 1 << 17 {
                tasks.into_iter().for_each(fold);
            } else {
                tasks.into_par_iter().for_each(fold);
            }
        }
        Cow::Owned(values)
    }
}

/// Rows that a task folds.
const FOLDED: usize = 64;

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

/// Where `(row, channel, tap)` stands in a weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strides {
    pub row: usize,
    pub channel: usize,
    pub tap: usize,
}

/// Steps of a block of channels: the rows of the window that it reads stay in the first-level cache.
const STEPS: usize = 256;
/// Channels of a block at most.
pub(super) const CHANNELS: usize = 64;

impl Panels {
    /// Packs `values` at `strides`, of the kernel the taps named by `taps`.
    pub fn pack(values: &[f32], [rows, channels]: [usize; 2], taps: &[usize], strides: Strides) -> Self {
        let height = arch().dispatch(Height);
        let depth = (STEPS / taps.len().max(1)).clamp(8, CHANNELS).min(channels.max(1));
        let padded = height_of(rows, height);
        let mut data = Buffer::new(padded * channels * taps.len());
        let blocks = rows.div_ceil(height);
        let mut rest = &mut *data;
        let mut jobs = Vec::new();
        for from in (0..channels).step_by(depth) {
            let depth = depth.min(channels - from);
            for block in 0..blocks {
                let height = last_height(rows - block * height, height);
                let (panel, after) = rest.split_at_mut(height * depth * taps.len());
                rest = after;
                jobs.push((panel, block, from, depth, height));
            }
        }
        let fill = |(panel, block, from, depth, width): (&mut [f32], usize, usize, usize, usize)| {
            let first = block * height;
            for row in 0..width.min(rows - first) {
                for channel in 0..depth {
                    let source = (first + row) * strides.row + (from + channel) * strides.channel;
                    for (index, tap) in taps.iter().enumerate() {
                        panel[(index * depth + channel) * width + row] = values[source + tap * strides.tap];
                    }
                }
            }
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

struct Height;

impl pulp::WithSimd for Height {
    type Output = usize;

    fn with_simd<S: pulp::Simd>(self, _simd: S) -> usize {
        block::rows::<S>()
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
