//! The gradients of the factors; `h` and `dh` are `(position, sample, rank)`.

use rayon::prelude::*;

use super::super::super::scratch;
use super::super::Problem;
use super::super::matrix::{Matrix, Panels, add_product};
use super::super::signals::Signals;
use super::super::weights::LowRank;
use super::super::window::LANES;
use super::convolve::of_signals;
use super::weight_gradient::{of_channels, parts, side_by_side};
use super::{Link, links, packed};

/// See `conv1d::low_rank_gradients`.
pub(in super::super) fn low_rank_gradients(
    problem: &Problem<'_>,
    x: Signals<'_>,
    dy: Signals<'_>,
    low: &LowRank<'_>,
) -> (Vec<f32>, Vec<f32>) {
    let (outputs, taps, n) = (problem.outputs(), problem.taps(), problem.row());
    let rank = low.rank / low.blocks;
    let a = packed([low.blocks * taps, x.rows.channels, rank], |matrix, channel, p| {
        low.a[(matrix / taps * rank + p) * n + channel * taps + matrix % taps]
    });
    let b = packed([outputs.groups, outputs.channels, rank], |group, channel, p| {
        low.b[(group * outputs.channels + channel) * rank + p]
    });
    let pass = Pass { x, dy, links: &links(problem), taps, rank, blocks: low.blocks, a: &a, b: &b };
    let (width, lanes) = (x.rows.channels.next_multiple_of(LANES), rank.next_multiple_of(LANES));
    let partial: Vec<_> = parts(problem.batch)
        .map(|tiles| {
            let (mut da, mut db) = (vec![0.0; low.blocks * taps * rank * width], vec![0.0; b.len()]);
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
                let part = &part_of_da[((row / rank * taps + tap) * rank + row % rank) * width..];
                da[tap..].iter_mut().step_by(taps).zip(part).for_each(|(da, part)| *da += low.scale * part);
            }
        }
        for (db, part) in db.chunks_exact_mut(rank).zip(part_of_db.chunks_exact(lanes)) {
            db.iter_mut().zip(part).for_each(|(db, part)| *db += low.scale * part);
        }
    }
    (da, db)
}

struct Pass<'a> {
    x: Signals<'a>,
    dy: Signals<'a>,
    links: &'a [Link],
    taps: usize,
    /// Of a block.
    rank: usize,
    blocks: usize,
    /// For each block and tap, `Aᵀ`.
    a: &'a [f32],
    b: &'a [f32],
}

impl Pass<'_> {
    /// Adds the sums of a group of some signals, not yet scaled.
    fn add(&self, [first, samples, group]: [usize; 3], da: &mut [f32], db: &mut [f32]) {
        let (inputs, outputs, lanes) = (self.x.rows, self.dy.rows, self.rank.next_multiple_of(LANES));
        let width = inputs.channels.next_multiple_of(LANES);
        let block = group * self.blocks / inputs.groups;
        let b = &self.b[group * outputs.channels * lanes..][..outputs.channels * lanes];
        let db = &mut db[group * outputs.channels * lanes..][..outputs.channels * lanes];
        let narrow = outputs.length * samples * lanes;
        scratch::with(inputs.length * samples * width + 2 * narrow, |memory| {
            let (narrows, x) = memory.split_at_mut(2 * narrow);
            narrows.fill(0.0);
            let (h, dh) = narrows.split_at_mut(narrow);
            side_by_side(self.x, [first, samples, group], x);
            for link in self.links {
                let a = &self.a[(block * self.taps + link.tap) * inputs.channels * lanes..];
                let signals = of_signals(&self.x.values[inputs.start(first, group, 0) + link.input..], inputs);
                let h = &mut h[link.output * samples * lanes..][..samples * lanes];
                add_product(signals, Matrix { data: a, stride: lanes }, [inputs.channels, lanes], (h, lanes));
            }
            let of_outputs = h.chunks_exact(samples * lanes).zip(dh.chunks_exact_mut(samples * lanes));
            for (output, (h, dh)) in of_outputs.enumerate() {
                let signals = of_signals(&self.dy.values[outputs.start(first, group, 0) + output..], outputs);
                add_product(signals, Matrix { data: b, stride: lanes }, [outputs.channels, lanes], (dh, lanes));
                let channels = of_channels(self.dy, [first, group, output]);
                add_product(channels, Matrix { data: h, stride: lanes }, [samples, lanes], (&mut *db, lanes));
            }
            for link in self.links {
                let dh = Panels::columns(&dh[link.output * samples * lanes..], lanes);
                let x = Matrix { data: &x[link.input * samples * width..], stride: width };
                let da = &mut da[(block * self.taps + link.tap) * self.rank * width..][..self.rank * width];
                add_product(dh, x, [samples, width], (da, width));
            }
        });
    }
}
