//! `h = X·Aᵀ` and `dB = dy·h`, `dh = Bᵀ·dy` and `dA = dh·X`.

use rayon::prelude::*;

use super::super::super::parts::{PARTS, parts};
use super::super::super::scratch;
use super::super::Problem;
use super::super::matrix::{Matrix, Panels, add_product};
use super::super::signals::Signals;
use super::super::sums::{Rows, add_sums};
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
    let (outputs, taps) = (problem.outputs(), problem.taps());
    let (rank, shared) = (low.rank / low.blocks, outputs.groups / low.blocks);
    let patches = Patches::new(problem, x);
    let width = patches.width();
    let mut a = vec![0.0; low.rank * width];
    add_scaled(&mut a, padded(taps), low.a, taps, 1.0);
    let tiles = tiles(outputs.length, problem.batch);
    let tasks = tiles.count() * outputs.groups;
    let partial: Vec<_> = parts(tasks, PARTS)
        .map(|tasks| {
            let mut da = vec![0.0; low.rank * width];
            let mut db = vec![0.0; low.b.len()];
            for task in tasks {
                let (group, tile) = (task / tiles.count(), tiles.get(task % tiles.count()));
                let block = group / shared;
                let (of_a, of_b) = (block * rank * width, group * outputs.channels * rank);
                let (of_a, of_b) = (of_a..of_a + rank * width, of_b..of_b + outputs.channels * rank);
                let task =
                    Task { patches: &patches, dy, group, tile, a: &a[of_a.clone()], b: &low.b[of_b.clone()], rank };
                task.add(&mut da[of_a], &mut db[of_b]);
            }
            (da, db)
        })
        .collect();
    let (mut da, mut db) = (vec![0.0; low.a.len()], vec![0.0; low.b.len()]);
    for (part_of_da, part_of_db) in &partial {
        add_scaled(&mut da, taps, part_of_da, padded(taps), low.scale);
        add_scaled(&mut db, rank, part_of_db, rank, low.scale);
    }
    (da, db)
}

/// Adds rows that are `from_width` wide to rows that are `width` wide, of each as much as both have.
fn add_scaled(to: &mut [f32], width: usize, from: &[f32], from_width: usize, scale: f32) {
    for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(from_width)) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += scale * from);
    }
}

struct Task<'a> {
    patches: &'a Patches<'a>,
    dy: Signals<'a>,
    group: usize,
    tile: Tile,
    /// Its rows with the taps filled up as those of patches.
    a: &'a [f32],
    b: &'a [f32],
    /// Of a group.
    rank: usize,
}

impl Task<'_> {
    /// Adds the sums of one tile, not yet scaled.
    fn add(&self, da: &mut [f32], db: &mut [f32]) {
        let (patches, tile, rank, outputs) = (self.patches, self.tile, self.rank, self.dy.rows.channels);
        let plain = Reading::plain();
        let layout = Layout::new(&plain, tile.columns, tile.samples);
        let (rows, width, columns) = (layout.width(), patches.width(), layout.width().next_multiple_of(LANES));
        let sizes = [outputs * layout.row_stride, rows * patches.row_stride(), rank * columns, rank * columns];
        scratch::with(sizes.iter().sum(), |memory| {
            let (dy, memory) = memory.split_at_mut(sizes[0]);
            let (x, memory) = memory.split_at_mut(sizes[1]);
            let (h, dh) = memory.split_at_mut(sizes[2]);
            self.dy.fill(dy, (&layout, &plain), tile.first, [tile.sample, self.group, 0]);
            patches.fill(x, tile, self.group);
            h.fill(0.0);
            dh.fill(0.0);
            let lines = |data, count, stride| Rows { data, count, stride, step: 0 };
            let of_dy = Matrix { data: dy, stride: layout.row_stride };
            add_sums(lines(x, rows, patches.row_stride()), lines(self.a, rank, width), [1, width], h, columns);
            add_sums(lines(h, rank, columns), lines(dy, outputs, layout.row_stride), [1, rows], db, rank);
            add_product(Panels::columns(self.b, rank), of_dy, [outputs, columns], (&mut *dh, columns));
            let x = Matrix { data: x, stride: patches.row_stride() };
            add_product(Panels::rows(dh, columns), x, [rows, width], (da, width));
        });
    }
}
