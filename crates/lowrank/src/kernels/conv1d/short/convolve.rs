//! Forward and input gradient: every link adds a product of signals with a tap of the weight.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::super::super::activation::Activation;
use super::super::super::lanes::{Lanes, arch};
use super::super::super::scratch;
use super::super::Problem;
use super::super::kernel::Kernel;
use super::super::matrix::{Matrix, PANEL, Panels, add_product};
use super::super::product::Epilogue;
use super::super::signals::{Shape, Signals};
use super::super::weights::Weight;
use super::super::window::LANES;
use super::{Link, links, samples, tap_by_tap};

/// See `conv1d::forward`.
pub(in super::super) fn forward(
    problem: &Problem<'_>,
    x: Signals<'_>,
    weight: &Weight<'_>,
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    let (outputs, taps) = (problem.outputs(), problem.taps());
    let rows = tap_by_tap(&Kernel::forward(weight, problem), outputs.groups, taps);
    let samples = samples(problem.batch);
    convolve(x, &rows, (&links(problem), taps), samples, outputs, epilogue, y);
}

/// See `conv1d::input_gradient`.
pub(in super::super) fn input_gradient(problem: &Problem<'_>, dy: Signals<'_>, weight: &Weight<'_>, dx: &mut [f32]) {
    let (inputs, taps) = (problem.inputs(), problem.taps());
    let rows = tap_by_tap(&Kernel::back(weight, problem), inputs.groups, taps);
    let back = |link: Link| Link { output: link.input, input: link.output, ..link };
    let back: Vec<_> = links(problem).into_iter().map(back).collect();
    convolve(dy, &rows, (&back, taps), samples(problem.batch), inputs, Epilogue::NONE, dx);
}

/// `out[.., link.output] += in[.., link.input] · rows[group, link.tap]` for every link, and the epilogue.
fn convolve(
    signals: Signals<'_>,
    rows: &[f32],
    (links, taps): (&[Link], usize),
    samples: usize,
    shape: Shape,
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let (width, sample) = (shape.channels.next_multiple_of(LANES), shape.len(1));
    let depth = signals.rows.channels;
    out.par_chunks_mut(samples * sample).enumerate().for_each(|(tile, out)| {
        let (first, samples) = (tile * samples, out.len() / sample);
        scratch::with(shape.length * samples * width, |sums| {
            for group in 0..shape.groups {
                start(sums, epilogue.bias.map(|bias| &bias[group * shape.channels..][..shape.channels]), width);
                for link in links {
                    let from = signals.rows.start(first, group, 0) + link.input;
                    let rows = &rows[(group * taps + link.tap) * depth * width..][..depth * width];
                    let sums = &mut sums[link.output * samples * width..][..samples * width];
                    let signals = of_signals(&signals.values[from..], signals.rows);
                    add_product(signals, Matrix { data: rows, stride: width }, [depth, width], (sums, width));
                }
                let first = shape.start(0, group, 0);
                let (activation, length) = (epilogue.activation, shape.length);
                arch().dispatch(Finish {
                    sums,
                    width,
                    activation,
                    length,
                    channels: shape.channels,
                    out,
                    first,
                    sample,
                });
            }
        });
    });
}

/// A row for each signal, a step for each channel.
pub(super) fn of_signals(values: &[f32], shape: Shape) -> Panels<'_> {
    let sample = shape.len(1);
    Panels { data: values, panel_stride: PANEL * sample, row_stride: sample, step_stride: shape.length }
}

/// Rows of the bias, or of zeros.
fn start(sums: &mut [f32], bias: Option<&[f32]>, width: usize) {
    sums.fill(0.0);
    if let Some(bias) = bias {
        sums.chunks_exact_mut(width).for_each(|row| row[..bias.len()].copy_from_slice(bias));
    }
}

/// From `(position, sample, channel)` to `(sample, channel, position)`, under the activation.
struct Finish<'a> {
    sums: &'a mut [f32],
    width: usize,
    activation: Activation,
    length: usize,
    channels: usize,
    out: &'a mut [f32],
    /// Where the group begins in a signal.
    first: usize,
    /// From a signal to the next.
    sample: usize,
}

impl WithSimd for Finish<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.activation != Activation::Identity {
            for values in S::as_mut_simd_f32s(self.sums).0 {
                *values = self.activation.apply(Lanes::new(simd, *values)).value();
            }
        }
        let samples = self.out.len() / self.sample;
        for (sample, out) in self.out.chunks_exact_mut(self.sample).enumerate() {
            let out = &mut out[self.first..][..self.channels * self.length];
            for position in 0..self.length {
                let sums = &self.sums[(position * samples + sample) * self.width..][..self.channels];
                for (out, sum) in out[position..].iter_mut().step_by(self.length).zip(sums) {
                    *out = *sum;
                }
            }
        }
    }
}
