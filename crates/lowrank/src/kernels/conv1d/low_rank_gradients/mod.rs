//! Gradients of the factors: `h = A * x` and `dB = s·dy·hᵀ`, `dh = s·Bᵀ·dy` and `dA = Σ dh·x`; where a row of the weight or a
//! group is so small that its dense gradient is less work, from that.

mod factors;
mod pass;

use rayon::prelude::*;

use super::super::gemm::Matrix;
use super::super::linear::product_of;
use super::super::parts::{PARTS, parts};
use super::Problem;
use super::patches;
use super::short;
use super::signals::Signals;
use super::tiles::Tiles;
use super::weight_gradient::weight_gradient;
use super::weights::LowRank;
use super::window::Reading;
use crate::geometry::PaddingMode;
use crate::threads::awake;
use factors::Factors;
use pass::Pass;

/// The gradients `dA (r, n)` and `dB (out, r/blocks)` of factors whose blocks divide the groups: one for each group, or
/// one that several groups share. Of `x (batch, in, length)` and `dy (batch, out, columns)`.
///
/// # Panics
/// When a slice does not have the size of its shape, when the blocks do not divide the groups, and where
/// [`Problem::output_length`] is an error.
#[must_use]
pub fn low_rank_gradients(problem: &Problem<'_>, x: &[f32], dy: &[f32], low: &LowRank<'_>) -> (Vec<f32>, Vec<f32>) {
    awake(|| {
        let (inputs, outputs, n) = (problem.inputs(), problem.outputs(), problem.row());
        assert!(inputs.groups.is_multiple_of(low.blocks), "blocks of the factors divide the groups");
        let rank = low.rank / low.blocks;
        assert_eq!(low.a.len(), low.blocks * rank * n, "values of A");
        assert_eq!(low.b.len(), outputs.groups * outputs.channels * rank, "values of B");
        // Multiplications for a column: of the dense gradient, and of `h`, `dh`, `dA` and `dB`.
        if outputs.channels * n <= 2 * rank * (n + outputs.channels) {
            return contract(&weight_gradient(problem, x, dy), low, n);
        }
        let x = Signals::new(x, inputs, problem.batch, "x");
        let dy = Signals::new(dy, outputs, problem.batch, "dy");
        if short::fits(problem) {
            return short::low_rank_gradients(problem, x, dy, low);
        }
        if patches::fits(problem) {
            return patches::low_rank_gradients(problem, x, dy, low);
        }
        let reading = Reading::of(problem.geometry);
        let in_place = in_place(problem);
        let factors = &Factors::new(problem, low);
        let dy_in_place = problem.columns() >= COLUMNS;
        let pass = Pass { x, dy, reading: &reading, rank, factors, in_place, dy_in_place };
        let of_tiles = if in_place { &Reading::plain() } else { &reading };
        let tiles = Tiles::summed(problem, of_tiles);
        let (tasks, shared) = (tiles.count() * inputs.groups, inputs.groups / low.blocks);
        let partial: Vec<_> = parts(tasks, PARTS)
            .map(|tasks| {
                let (mut da, mut db) = (vec![0.0; low.a.len()], vec![0.0; low.b.len()]);
                for task in tasks {
                    let (group, tile) = (task / tiles.count(), tiles.get(task % tiles.count()));
                    let da = &mut da[group / shared * rank * n..][..rank * n];
                    let db = &mut db[group * outputs.channels * rank..][..outputs.channels * rank];
                    pass.add(tile, group, da, db);
                }
                (da, db)
            })
            .collect();
        let (mut of_a, mut db) = (vec![0.0; low.a.len()], vec![0.0; low.b.len()]);
        for (part_of_a, part_of_b) in &partial {
            add_scaled(&mut of_a, part_of_a, low.scale);
            add_scaled(&mut db, part_of_b, low.scale);
        }
        (in_order(&of_a, [rank, inputs.channels, problem.taps()]), db)
    })
}

/// Channels of a group for which a tap is worth a pass over the tile.
const CHANNELS: usize = 32;
/// Taps up to which their passes cost less than a copy.
const TAPS: usize = 16;
/// Columns for which a tile may end with half a register.
const COLUMNS: usize = 64;

/// Whether signals are read where they are, not copied: under a stride of one a tap is a shift of the low-rank signals,
/// which are few.
pub(super) fn in_place(problem: &Problem<'_>) -> bool {
    let geometry = problem.geometry;
    geometry.axes()[0].stride == 1
        && geometry.padding_mode() == PaddingMode::Zeros
        && problem.inputs().channels >= CHANNELS
        && problem.taps() <= TAPS
        && problem.columns() >= COLUMNS
}

fn add_scaled(to: &mut [f32], values: &[f32], scale: f32) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += scale * value;
    }
}

/// Blocks of `(rank, channels, taps)` from blocks of `(taps, channels, rank)`.
fn in_order(sums: &[f32], [rank, channels, taps]: [usize; 3]) -> Vec<f32> {
    let (mut da, n) = (vec![0.0; sums.len()], channels * taps);
    for (da, sums) in da.chunks_exact_mut(rank * n).zip(sums.chunks_exact(rank * n)) {
        for channel in 0..channels {
            for (tap, sums) in sums.chunks_exact(channels * rank).enumerate() {
                let sums = &sums[channel * rank..][..rank];
                da[channel * taps + tap..].iter_mut().step_by(n).zip(sums).for_each(|(to, sum)| *to = *sum);
            }
        }
    }
    da
}

/// From the gradient of the dense weight, block by block: `dA = s·Bᵀ·dW` and `dB = s·dW·Aᵀ`.
fn contract(dw: &[f32], low: &LowRank<'_>, n: usize) -> (Vec<f32>, Vec<f32>) {
    let (rank, rows) = (low.rank / low.blocks, dw.len() / n / low.blocks);
    let (mut da, mut db) = (vec![0.0; low.a.len()], vec![0.0; low.b.len()]);
    for block in 0..low.blocks {
        let of_a = block * rank * n..(block + 1) * rank * n;
        let of_b = block * rows * rank..(block + 1) * rows * rank;
        let dw = Matrix::new(&dw[block * rows * n..], [rows, n], [n, 1]);
        let b = Matrix::row_major(&low.b[of_b.clone()], [rows, rank]);
        let a = Matrix::row_major(&low.a[of_a.clone()], [rank, n]);
        add_scaled(&mut da[of_a], &product_of(b.transposed(), dw), low.scale);
        add_scaled(&mut db[of_b], &product_of(dw, a.transposed()), low.scale);
    }
    (da, db)
}
