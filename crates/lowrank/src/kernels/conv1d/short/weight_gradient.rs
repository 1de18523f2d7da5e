//! The gradient of a dense weight.

use rayon::prelude::*;

use super::super::super::parts::{self, PARTS};
use super::super::super::scratch;
use super::super::Problem;
use super::super::matrix::{Matrix, PANEL, Panels, add_product};
use super::super::signals::Signals;
use super::super::window::LANES;
use super::side_by_side::side_by_side;
use super::{links, samples};

/// See `conv1d::weight_gradient`.
pub(in super::super) fn weight_gradient(problem: &Problem<'_>, x: Signals<'_>, dy: Signals<'_>) -> Vec<f32> {
    let (outputs, taps, n, links) = (problem.outputs(), problem.taps(), problem.row(), links(problem));
    let width = x.rows.channels.next_multiple_of(LANES);
    let matrix = outputs.channels * width;
    let partial: Vec<_> = parts(problem.batch)
        .map(|tiles| {
            let mut sums = vec![0.0; outputs.groups * taps * matrix];
            scratch::with(x.rows.length * samples(problem.batch) * width, |channels| {
                for (first, samples) in tiles {
                    for group in 0..outputs.groups {
                        side_by_side(x, [first, samples, group], channels);
                        for link in &links {
                            let b = &channels[link.input * samples * width..][..samples * width];
                            let a = of_channels(dy, [first, group, link.output]);
                            let sums = &mut sums[(group * taps + link.tap) * matrix..][..matrix];
                            add_product(a, Matrix { data: b, stride: width }, [samples, width], (sums, width));
                        }
                    }
                }
            });
            sums
        })
        .collect();
    let mut dw = vec![0.0; outputs.groups * outputs.channels * n];
    dw.par_chunks_exact_mut(n).enumerate().for_each(|(row, dw)| {
        let (group, output) = (row / outputs.channels, row % outputs.channels);
        for sums in &partial {
            for tap in 0..taps {
                let sums = &sums[(group * taps + tap) * matrix + output * width..][..x.rows.channels];
                dw[tap..].iter_mut().step_by(taps).zip(sums).for_each(|(dw, sum)| *dw += sum);
            }
        }
    });
    dw
}

/// The tiles `(first, samples)` of every part.
pub(super) fn parts(batch: usize) -> impl IndexedParallelIterator<Item = impl Iterator<Item = (usize, usize)>> {
    let samples = samples(batch);
    let tiles = parts::parts(batch.div_ceil(samples), PARTS);
    tiles.map(move |tiles| tiles.map(move |tile| (tile * samples, samples.min(batch - tile * samples))))
}

/// A row for each channel of a group, a step for each signal from the first.
pub(super) fn of_channels(signals: Signals<'_>, [first, group, position]: [usize; 3]) -> Panels<'_> {
    let shape = signals.rows;
    Panels {
        data: &signals.rows_from(first, group, 0)[position..],
        panel_stride: PANEL * shape.length,
        row_stride: shape.length,
        step_stride: shape.len(1),
    }
}
