//! `dW = dy·X`.

use rayon::prelude::*;

use super::super::super::parts::{PARTS, parts};
use super::super::super::scratch;
use super::super::Problem;
use super::super::matrix::{Matrix, Panels, add_product};
use super::super::signals::Signals;
use super::super::tiles::Tile;
use super::super::window::{Layout, Reading};
use super::{Patches, padded, tiles};

/// Values of all partial sums: the batch is cut up where the gradient is small, a large one is shared out by outputs.
const SUMS: usize = 1 << 16;

/// See `conv1d::weight_gradient`.
pub(in super::super) fn weight_gradient(problem: &Problem<'_>, x: Signals<'_>, dy: Signals<'_>) -> Vec<f32> {
    let (outputs, taps, n) = (problem.outputs(), problem.taps(), problem.row());
    let patches = Patches::new(problem, x);
    let (width, tiles) = (patches.width(), tiles(outputs.length, problem.batch));
    let most = (SUMS / (outputs.channels * width)).clamp(1, PARTS);
    let share = if most.min(tiles.count()) > 1 { outputs.channels } else { (outputs.channels / 4).next_multiple_of(8) };
    let mut dw = vec![0.0; outputs.groups * outputs.channels * n];
    dw.par_chunks_exact_mut(outputs.channels * n).enumerate().for_each(|(group, dw)| {
        dw.par_chunks_mut(share * n).enumerate().for_each(|(index, dw)| {
            let task = Task { patches: &patches, dy, group, first: index * share, outputs: dw.len() / n };
            let sums = parts(tiles.count(), most).map(|part| {
                let mut sums = vec![0.0; task.outputs * width];
                for tile in part {
                    task.add(tiles.get(tile), &mut sums);
                }
                sums
            });
            for sums in sums.collect::<Vec<_>>() {
                for (dw, sums) in dw.chunks_exact_mut(taps).zip(sums.chunks_exact(padded(taps))) {
                    dw.iter_mut().zip(sums).for_each(|(dw, sum)| *dw += sum);
                }
            }
        });
    });
    dw
}

struct Task<'a> {
    patches: &'a Patches<'a>,
    dy: Signals<'a>,
    group: usize,
    /// The first output.
    first: usize,
    outputs: usize,
}

impl Task<'_> {
    /// Adds the sums of one tile. The output is read where it is, but for several short signals at once.
    fn add(&self, tile: Tile, sums: &mut [f32]) {
        let (patches, plain) = (self.patches, Reading::plain());
        let (width, stride) = (patches.width(), patches.row_stride());
        let layout = Layout::new(&plain, tile.columns, tile.samples);
        let window = if tile.samples == 1 { 0 } else { self.outputs * layout.row_stride };
        scratch::with(window + layout.width() * stride, |memory| {
            let (window, x) = memory.split_at_mut(window);
            patches.fill(x, tile, self.group);
            let dy = if window.is_empty() {
                let rows = self.dy.rows_from(tile.sample, self.group, self.first);
                Panels::rows(&rows[tile.first..], self.dy.rows.length)
            } else {
                self.dy.fill(window, (&layout, &plain), tile.first, [tile.sample, self.group, self.first]);
                Panels::rows(window, layout.row_stride)
            };
            add_product(dy, Matrix { data: x, stride }, [layout.width(), width], (sums, width));
        });
    }
}
