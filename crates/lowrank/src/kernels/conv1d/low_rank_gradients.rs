//! Gradients of the factors: `h = A * x` and `dB = s·dy·hᵀ`, `dh = s·Bᵀ·dy` and `dA = Σ dh·x`; where a row of the weight or a
//! group is so small that its dense gradient is less work, from that.

use rayon::prelude::*;

use super::super::gemm::{self, Matrix};
use super::super::parts::{PARTS, parts};
use super::super::scratch;
use super::Problem;
use super::patches;
use super::product::{self, Source, add_product};
use super::short;
use super::signals::Signals;
use super::sums::{Rows, add_sums};
use super::tiles::{CHANNELS, Tile, Tiles, blocks};
use super::weight_gradient::weight_gradient;
use super::weights::{LowRank, Panels, Strides};
use super::window::{LANES, Layout, Reading};

/// The gradients `dA (r, n)` and `dB (out, r/blocks)` of factors whose blocks divide the groups: one for each group, or
/// one that several groups share. Of `x (batch, in, length)` and `dy (batch, out, columns)`.
///
/// # Panics
/// When a slice does not have the size of its shape, when the blocks do not divide the groups, and where
/// [`Problem::output_length`] is an error.
#[must_use]
pub fn low_rank_gradients(problem: &Problem<'_>, x: &[f32], dy: &[f32], low: &LowRank<'_>) -> (Vec<f32>, Vec<f32>) {
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
    let pass = Pass { x, dy, reading: &reading, taps: problem.taps(), rank, factors: &Factors::new(problem, low) };
    let tiles = Tiles::summed(problem, &reading);
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
    let (mut da, mut db) = (vec![0.0; low.a.len()], vec![0.0; low.b.len()]);
    for (part_of_da, part_of_db) in &partial {
        add_scaled(&mut da, part_of_da, low.scale);
        add_scaled(&mut db, part_of_db, low.scale);
    }
    (da, db)
}

fn add_scaled(to: &mut [f32], values: &[f32], scale: f32) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += scale * value;
    }
}

/// From the gradient of the dense weight, block by block: `dA = s·Bᵀ·dW` and `dB = s·dW·Aᵀ`.
fn contract(dw: &[f32], low: &LowRank<'_>, n: usize) -> (Vec<f32>, Vec<f32>) {
    let (rank, rows) = (low.rank / low.blocks, dw.len() / n / low.blocks);
    let (mut da, mut db) = (vec![0.0; low.a.len()], vec![0.0; low.b.len()]);
    for block in 0..low.blocks {
        let of_a = block * rank * n..(block + 1) * rank * n;
        let of_b = block * rows * rank..(block + 1) * rows * rank;
        let dw = Matrix::new(&dw[block * rows * n..], [rows, n], [n, 1]);
        let bt = Matrix::new(&low.b[of_b.clone()], [rank, rows], [1, rank]);
        let at = Matrix::new(&low.a[of_a.clone()], [n, rank], [1, n]);
        gemm::product(low.scale, bt, dw, &mut da[of_a]);
        gemm::product(low.scale, dw, at, &mut db[of_b]);
    }
    (da, db)
}

/// The factors, packed by blocks of channels: `A` of every block over the inputs, `Bᵀ` of every group over the outputs.
struct Factors {
    a: Vec<Vec<Panels>>,
    bt: Vec<Vec<Panels>>,
}

impl Factors {
    fn new(problem: &Problem<'_>, low: &LowRank<'_>) -> Self {
        let (inputs, outputs, taps, n) =
            (problem.inputs().channels, problem.outputs().channels, problem.taps(), problem.row());
        let (rank, all) = (low.rank / low.blocks, (0..taps).collect::<Vec<_>>());
        let of_a = Strides { row: n, channel: taps, tap: 1 };
        let of_b = Strides { row: 1, channel: rank, tap: 0 };
        let pack_a = |a: &[f32]| {
            blocks(inputs).map(|(from, depth)| Panels::pack(&a[from * taps..], [rank, depth], &all, of_a)).collect()
        };
        let pack_b = |b: &[f32]| {
            blocks(outputs).map(|(from, depth)| Panels::pack(&b[from * rank..], [rank, depth], &[0], of_b)).collect()
        };
        Self {
            a: low.a.chunks_exact(rank * n).map(pack_a).collect(),
            bt: low.b.chunks_exact(outputs * rank).map(pack_b).collect(),
        }
    }
}

struct Pass<'a> {
    x: Signals<'a>,
    dy: Signals<'a>,
    reading: &'a Reading<'a>,
    taps: usize,
    /// Of a group.
    rank: usize,
    factors: &'a Factors,
}

impl Pass<'_> {
    /// Adds the sums of one tile, not yet scaled.
    fn add(&self, tile: Tile, group: usize, da: &mut [f32], db: &mut [f32]) {
        let (inputs, outputs, rank) = (self.x.rows.channels, self.dy.rows.channels, self.rank);
        let (of_x, plain) = (Layout::new(self.reading, tile.columns, tile.samples), Reading::plain());
        let of_dy = Layout::spaced(&plain, tile.columns, tile.samples, of_x.sample_stride);
        let width = of_x.width();
        let block = group * self.factors.a.len() / self.factors.bt.len();
        // The low-rank signals, with room for whole registers at the end of a row.
        let stride = width.next_multiple_of(LANES);
        let window = (CHANNELS.min(inputs) * of_x.row_stride).max(CHANNELS.min(outputs) * of_dy.row_stride);
        scratch::with(window + 2 * rank * stride, |memory| {
            let (window, narrow) = memory.split_at_mut(window);
            narrow.fill(0.0);
            let (h, dh) = narrow.split_at_mut(rank * stride);
            for ((from, depth), bt) in blocks(outputs).zip(&self.factors.bt[group]) {
                let window = &mut window[..depth * of_dy.row_stride];
                self.dy.fill(window, (&of_dy, &plain), tile.first, [tile.sample, group, from]);
                let source = Source { window, row_stride: of_dy.row_stride, taps: &of_dy.taps };
                add_product(bt, source, width, product::Matrix { data: &mut *dh, row_stride: stride });
            }
            for ((from, depth), a) in blocks(inputs).zip(&self.factors.a[block]) {
                let window = &mut window[..depth * of_x.row_stride];
                self.x.fill(window, (&of_x, self.reading), tile.first, [tile.sample, group, from]);
                let source = Source { window, row_stride: of_x.row_stride, taps: &of_x.taps };
                add_product(a, source, width, product::Matrix { data: &mut *h, row_stride: stride });
                let dh = Rows { data: dh, count: rank, stride };
                for (tap, offset) in of_x.taps.iter().enumerate() {
                    let x = Rows { data: &window[*offset..], count: depth, stride: of_x.row_stride };
                    add_sums(dh, x, width, &mut da[from * self.taps + tap..], [inputs * self.taps, self.taps]);
                }
            }
            for (from, depth) in blocks(outputs) {
                let window = &mut window[..depth * of_dy.row_stride];
                self.dy.fill(window, (&of_dy, &plain), tile.first, [tile.sample, group, from]);
                let dy = Rows { data: window, count: depth, stride: of_dy.row_stride };
                add_sums(Rows { data: h, count: rank, stride }, dy, width, &mut db[from * rank..], [1, rank]);
            }
        });
    }
}
