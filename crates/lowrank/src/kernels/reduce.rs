//! Sums and maxima of slices, in an order that depends on their lengths only.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::Simd;

use super::lanes::Lanes;

/// `Σ f(values)` over slices of one length.
#[inline(always)]
pub(super) fn sum<S: Simd, const N: usize>(simd: S, slices: [&[f32]; N], f: impl Fn([Lanes<S>; N]) -> Lanes<S>) -> f32 {
    fold(
        simd,
        slices,
        0.0,
        f,
        #[inline(always)]
        |sum, value| sum + value,
    )
    .sum()
}

/// The largest value; where one is NaN, any.
#[inline(always)]
pub(super) fn largest<S: Simd>(simd: S, values: &[f32]) -> f32 {
    fold(
        simd,
        [values],
        f32::NEG_INFINITY,
        #[inline(always)]
        |[value]| value,
        Lanes::max,
    )
    .largest()
}

/// Steps that a stream takes before it is joined to the total: rounding grows with the steps and with the joins, not with
/// their product. Where a register is one number, a row of a thousand would otherwise lose the last digit.
const STEPS: usize = 16;

/// Joins the values `f` gives, in four streams side by side, so that a step need not wait for the one before.
#[inline(always)]
fn fold<S: Simd, const N: usize>(
    simd: S,
    slices: [&[f32]; N],
    neutral: f32,
    value: impl Fn([Lanes<S>; N]) -> Lanes<S>,
    join: impl Fn(Lanes<S>, Lanes<S>) -> Lanes<S>,
) -> Lanes<S> {
    let slices = slices.map(|slice| S::as_simd_f32s(&slice[..slices[0].len()]));
    let at = |index: usize| value(slices.map(|(body, _)| Lanes::new(simd, body[index])));
    let (body, tail) = (slices[0].0.len(), slices[0].1.len());
    let mut total = Lanes::splat(simd, neutral);
    let mut index = 0;
    while index < body {
        let end = body.min(index + 4 * STEPS);
        let mut streams = [Lanes::splat(simd, neutral); 4];
        while index + 4 <= end {
            streams[0] = join(streams[0], at(index));
            streams[1] = join(streams[1], at(index + 1));
            streams[2] = join(streams[2], at(index + 2));
            streams[3] = join(streams[3], at(index + 3));
            index += 4;
        }
        while index < end {
            streams[0] = join(streams[0], at(index));
            index += 1;
        }
        let [first, second, third, fourth] = streams;
        total = join(total, join(join(first, second), join(third, fourth)));
    }
    if tail > 0 {
        total = join(total, value(slices.map(|(_, tail)| Lanes::partial(simd, tail))).first(tail, neutral));
    }
    total
}
