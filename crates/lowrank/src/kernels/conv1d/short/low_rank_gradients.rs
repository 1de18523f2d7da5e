//! The gradients of the factors. `h` and `dh` are `(position, sample, rank)`, sums along the channels, which are lanes; the
//! gradients are products whose lanes are channels too.

use rayon::prelude::*;

use super::super::super::scratch;
use super::super::Problem;
use super::super::matrix::{Matrix, Panels, add_product};
use super::super::signals::Signals;
use super::super::sums::{Rows, add_sums};
use super::super::weights::LowRank;
use super::super::window::LANES;
use super::side_by_side::side_by_side;
use super::weight_gradient::parts;
use super::{Link, links, packed};

/// See `conv1d::low_rank_gradients`.
pub(in super::super) fn low_rank_gradients(
    problem: &Problem<'_>,
    x: Signals<'_>,
    dy: Signals<'_>,
    low: &LowRank<'_>,
) -> (Vec<f32>, Vec<f32>) {
    let (inputs, outputs, taps, n) = (problem.inputs(), problem.outputs(), problem.taps(), problem.row());
    let rank = low.rank / low.blocks;
    let a = packed([low.blocks, taps * rank, inputs.channels], |block, row, channel| {
        low.a[(block * rank + row % rank) * n + channel * taps + row / rank]
    });
    let bt = packed([outputs.groups, rank, outputs.channels], |group, p, channel| {
        low.b[(group * outputs.channels + channel) * rank + p]
    });
    let (links, dilation) = (links(problem), problem.geometry.axes()[0].dilation);
    let runs = links.chunk_by(|link, next| next.output == link.output && next.input == link.input + dilation).collect();
    let pass = Pass { x, dy, runs, taps, rank, blocks: low.blocks, a: &a, bt: &bt };
    let widths = [inputs, outputs].map(|shape| shape.channels.next_multiple_of(LANES));
    let partial: Vec<_> = parts(problem.batch)
        .map(|tiles| {
            let (mut da, mut db) = (vec![0.0; a.len()], vec![0.0; bt.len()]);
            for (first, samples) in tiles {
                (0..outputs.groups).for_each(|group| pass.add([first, samples, group], &mut da, &mut db));
            }
            (da, db)
        })
        .collect();
    let (mut da, mut db) = (vec![0.0; low.a.len()], vec![0.0; low.b.len()]);
    for (part_of_da, part_of_db) in &partial {
        for (row, da) in da.chunks_exact_mut(n).enumerate() {
            for tap in 0..taps {
                let part = &part_of_da[((row / rank * taps + tap) * rank + row % rank) * widths[0]..];
                da[tap..].iter_mut().step_by(taps).zip(part).for_each(|(da, part)| *da += low.scale * part);
            }
        }
        for (row, part) in part_of_db.chunks_exact(widths[1]).enumerate() {
            let db = &mut db[row / rank * outputs.channels * rank..][..outputs.channels * rank];
            db[row % rank..].iter_mut().step_by(rank).zip(part).for_each(|(db, part)| *db += low.scale * part);
        }
    }
    (da, db)
}

struct Pass<'a> {
    x: Signals<'a>,
    dy: Signals<'a>,
    /// Links of one output, of neighbouring taps that read a dilation apart.
    runs: Vec<&'a [Link]>,
    taps: usize,
    /// Of a block.
    rank: usize,
    blocks: usize,
    /// `(block, tap, rank)` of rows of channels.
    a: &'a [f32],
    /// `(group, rank)` of rows of channels.
    bt: &'a [f32],
}

impl Pass<'_> {
    /// Adds the sums of a group of some signals, not yet scaled.
    fn add(&self, [first, samples, group]: [usize; 3], da: &mut [f32], db: &mut [f32]) {
        let (inputs, outputs, rank) = (self.x.rows, self.dy.rows, self.rank);
        let [of_x, of_dy] = [inputs, outputs].map(|shape| shape.channels.next_multiple_of(LANES));
        let block = group * self.blocks / inputs.groups * self.taps * rank * of_x;
        let (a, da) = (&self.a[block..], &mut da[block..]);
        let bt = &self.bt[group * rank * of_dy..][..rank * of_dy];
        let (rows, narrow) = (outputs.length * samples, outputs.length * samples * rank);
        scratch::with(inputs.length * samples * of_x + rows * of_dy + 2 * narrow, |memory| {
            let (narrows, memory) = memory.split_at_mut(2 * narrow);
            let (x, dy) = memory.split_at_mut(inputs.length * samples * of_x);
            narrows.fill(0.0);
            let (h, dh) = narrows.split_at_mut(narrow);
            side_by_side(self.x, [first, samples, group], x);
            side_by_side(self.dy, [first, samples, group], dy);
            for run in &self.runs {
                let Link { output, input, tap } = run[0];
                let step = run.get(1).map_or(0, |next| (next.input - input) * samples * of_x);
                let a = Rows { data: &a[tap * rank * of_x..], count: rank, stride: of_x, step: rank * of_x };
                let x = Rows { data: &x[input * samples * of_x..], count: samples, stride: of_x, step };
                add_sums(a, x, [run.len(), of_x], &mut h[output * samples * rank..], rank);
            }
            let of_outputs = Rows { data: dy, count: rows, stride: of_dy, step: 0 };
            add_sums(Rows { data: bt, count: rank, stride: of_dy, step: 0 }, of_outputs, [1, of_dy], dh, rank);
            let (db, dy) = (&mut db[group * rank * of_dy..][..rank * of_dy], Matrix { data: dy, stride: of_dy });
            add_product(Panels::columns(h, rank), dy, [rows, of_dy], (db, of_dy));
            for link in self.runs.iter().copied().flatten() {
                let dh = Panels::columns(&dh[link.output * samples * rank..], rank);
                let x = Matrix { data: &x[link.input * samples * of_x..], stride: of_x };
                let da = &mut da[link.tap * rank * of_x..][..rank * of_x];
                add_product(dh, x, [samples, of_x], (da, of_x));
            }
        });
    }
}
