//! `h = X·Aᵀ` and `dB = dy·h`, `dh = Bᵀ·dy` and `dA = dh·X`.

use rayon::prelude::*;

use super::super::super::parts::{PARTS, parts};
use super::super::super::scratch;
use super::super::Problem;
use super::super::matrix::{Matrix, Panels, add_product};
use super::super::signals::Signals;
use super::super::tiles::Tile;
use super::super::weights::LowRank;
use super::super::window::{LANES, Layout, Reading};
use super::{Patches, padded, tiles};

/// See `conv1d::low_rank_gradients`.
pub(in super::super) fn low_rank_gradients(
    problem: &Problem<'_>,
    x: Signals<'_>,
    dy: Signals<'_>,
    low: &LowRank<'_>,
) -> (Vec<f32>, Vec<f32>) {
    let (outputs, taps, n) = (problem.outputs(), problem.taps(), problem.row());
    let (rank, shared) = (low.rank / low.blocks, outputs.groups / low.blocks);
    let patches = Patches::new(problem, x);
    let (width, lanes) = (patches.width(), rank.next_multiple_of(LANES));
    let at: Vec<_> = low.a.chunks_exact(rank * n).flat_map(|a| transposed(a, [rank, n], taps, lanes)).collect();
    let tiles = tiles(outputs.length, problem.batch);
    let tasks = tiles.count() * outputs.groups;
    let partial: Vec<_> = parts(tasks, PARTS)
        .map(|tasks| {
            let mut da = vec![0.0; low.rank * width];
            let mut db = vec![0.0; outputs.groups * outputs.channels * lanes];
            for task in tasks {
                let (group, tile) = (task / tiles.count(), tiles.get(task % tiles.count()));
                let block = group / shared;
                let at = &at[block * width * lanes..][..width * lanes];
                let b = &low.b[group * outputs.channels * rank..][..outputs.channels * rank];
                let da = &mut da[block * rank * width..][..rank * width];
                let db = &mut db[group * outputs.channels * lanes..][..outputs.channels * lanes];
                Task { patches: &patches, dy, group, tile, at, b, rank }.add(da, db);
            }
            (da, db)
        })
        .collect();
    let (mut da, mut db) = (vec![0.0; low.a.len()], vec![0.0; low.b.len()]);
    for (part_of_da, part_of_db) in &partial {
        add_scaled(&mut da, taps, part_of_da, padded(taps), low.scale);
        add_scaled(&mut db, rank, part_of_db, lanes, low.scale);
    }
    (da, db)
}

/// Adds rows that are `from_width` wide, of which `width` count.
fn add_scaled(to: &mut [f32], width: usize, from: &[f32], from_width: usize, scale: f32) {
    for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(from_width)) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += scale * from);
    }
}

/// A row for each value of a patch, with the rows of `A` side by side.
fn transposed(a: &[f32], [rank, n]: [usize; 2], taps: usize, lanes: usize) -> Vec<f32> {
    let mut at = vec![0.0; n / taps * padded(taps) * lanes];
    for (p, a) in a.chunks_exact(n).enumerate().take(rank) {
        for (index, value) in a.iter().enumerate() {
            at[(index / taps * padded(taps) + index % taps) * lanes + p] = *value;
        }
    }
    at
}

struct Task<'a> {
    patches: &'a Patches<'a>,
    dy: Signals<'a>,
    group: usize,
    tile: Tile,
    /// `Aᵀ`.
    at: &'a [f32],
    b: &'a [f32],
    /// Of a group.
    rank: usize,
}

impl Task<'_> {
    /// Adds the sums of one tile, not yet scaled.
    fn add(&self, da: &mut [f32], db: &mut [f32]) {
        let (patches, tile, rank, outputs) = (self.patches, self.tile, self.rank, self.dy.rows.channels);
        let (plain, lanes) = (Reading::plain(), rank.next_multiple_of(LANES));
        let layout = Layout::new(&plain, tile.columns, tile.samples);
        let (rows, width, columns) = (layout.width(), patches.width(), layout.width().next_multiple_of(LANES));
        let sizes = [outputs * layout.row_stride, rows * patches.row_stride(), rows * lanes, rank * columns];
        scratch::with(sizes.iter().sum::<usize>() + patches.memory(tile.columns), |memory| {
            let (dy, memory) = memory.split_at_mut(sizes[0]);
            let (x, memory) = memory.split_at_mut(sizes[1]);
            let (h, memory) = memory.split_at_mut(sizes[2]);
            let (dh, line) = memory.split_at_mut(sizes[3]);
            self.dy.fill(dy, (&layout, &plain), tile.first, [tile.sample, self.group, 0]);
            patches.fill(x, line, tile, self.group);
            h.fill(0.0);
            dh.fill(0.0);
            let [at, of_dy] =
                [(self.at, lanes), (&*dy, layout.row_stride)].map(|(data, stride)| Matrix { data, stride });
            add_product(Panels::rows(x, patches.row_stride()), at, [width, lanes], (&mut *h, lanes));
            add_product(
                Panels::rows(dy, layout.row_stride),
                Matrix { data: h, stride: lanes },
                [rows, lanes],
                (db, lanes),
            );
            add_product(Panels::columns(self.b, rank), of_dy, [outputs, columns], (&mut *dh, columns));
            let x = Matrix { data: x, stride: patches.row_stride() };
            add_product(Panels::rows(dh, columns), x, [rows, width], (da, width));
        });
    }
}
