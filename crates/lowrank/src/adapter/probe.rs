//! The check of a merge: the merged weight against the base and the adapter side by side, on one input.
//!
//! # The bound
//!
//! A row of the stored weight meets the probe `x`, whose `n` values are random, at least 1/2 and below 1 in magnitude, of
//! either sign, and always the same. For a linear layer or a convolution that is the layer's own output (for one
//! position); for the layers that store `(in, out, k)` it is a random sum over the outputs of one input. All of it is
//! computed in `f64`, with unit roundoff `v = 2^-53`:
//!
//! - unmerged, `y = x . w + scale * B (A x)`, summed over the adapters;
//! - merged, `y' = x . w'` with the values as stored.
//!
//! With `u` the unit roundoff that the merge computes in (`2^-24`, `2^-53` for an `F64` base), `t` its smallest positive
//! value, `m = |x| . (|scale| |B| |A|)` over all `d` adapters, and `c` the weight before it is stored,
//!
//! ```text
//! |x . c - y| <= 2 * ( u (|x| . |c| + (r + d + 1) m)  +  d (r |scale| + 2) t |x| . 1
//!                      + v (n + k r + d + 3) (|x| . |c| + |x| . |w| + m) )
//! ```
//!
//! The first term is one rounding of each sum `w + delta` and the `r + d + 1` roundings behind each delta, the second what
//! underflow can take, the third the roundings of the check itself; the factor 2 covers their products. Storing `c` in
//! half precision moves a value by at most `e/2 |c| + s/2` (`e` the type's epsilon, `s` its smallest positive value),
//! which is checked value by value, so that
//!
//! ```text
//! |y' - y| <= the above + e/2 |x| . |c| + s/2 |x| . 1
//! ```
//!
//! `DoRA` multiplies what is there so far by a gain, `c = g (w + delta)`. Gains are exact on both sides; all terms above
//! are meant with the gains that they have passed by the end, and each adapter costs two roundings more of what is there
//! by then: `2 u d (|x| . |w| + m)` in all.
//!
//! The first inequality is what is enforced: its bound does not grow with the coarseness of the stored type, so that
//! a delta that is missing, transposed or scaled wrongly shows under `bf16` as it does under `f32`.

use std::ops::{Mul, Sub};

use half::{bf16, f16};

use super::delta::Term;
use super::lanes::{dot, position};
use super::layer::OutputPlaces;
use super::step::Step;
use crate::float::FloatType;
use crate::kernels::gemm::Real;
use crate::random::Random;
use crate::{Error, Result, Subject};

/// A precision that a merge computes in, and the way to and from the stored bytes.
pub(super) trait Precision: Real + Mul<Output = Self> + Sub<Output = Self> + Send + Sync {
    /// Largest relative error of one operation.
    const UNIT: f64;
    /// The smallest positive value.
    const TINY: f64;

    /// The nearest value.
    fn of(value: f64) -> Self;
    fn decode(dtype: FloatType, bytes: &[u8]) -> Vec<Self>;
    fn encode(dtype: FloatType, values: &[Self]) -> Vec<u8>;
}

impl Precision for f32 {
    const UNIT: f64 = Self::EPSILON as f64 / 2.0;
    const TINY: f64 = Self::from_bits(1) as f64;

    #[expect(clippy::cast_possible_truncation, reason = "rounding is what the function does")]
    fn of(value: f64) -> Self {
        value as Self
    }

    fn decode(dtype: FloatType, bytes: &[u8]) -> Vec<Self> {
        dtype.decode(bytes)
    }

    fn encode(dtype: FloatType, values: &[Self]) -> Vec<u8> {
        dtype.encode(values)
    }
}

/// Used for `F64` bases only.
impl Precision for f64 {
    const UNIT: f64 = Self::EPSILON / 2.0;
    const TINY: f64 = Self::from_bits(1);

    fn of(value: f64) -> Self {
        value
    }

    fn decode(_: FloatType, bytes: &[u8]) -> Vec<Self> {
        bytes.as_chunks().0.iter().map(|b| Self::from_le_bytes(*b)).collect()
    }

    fn encode(_: FloatType, values: &[Self]) -> Vec<u8> {
        values.iter().map(|v| v.to_le_bytes()).collect::<Vec<_>>().into_flattened()
    }
}

/// Rows of a weight on their way: as they were, with the deltas, and as they are stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a, T> {
    pub base: &'a [T],
    pub sum: &'a [T],
    pub stored: &'a [T],
}

/// The probe of one weight, and what the adapters make of it.
#[derive(Debug)]
pub(super) struct Probe<'a, T> {
    steps: &'a [Step<'a, T>],
    input: Vec<f64>,
    /// For each step, the product of its gain and those after it; empty where there is none.
    gains: Vec<Vec<f64>>,
    /// Where the outputs, and so the gains, are.
    outputs: OutputPlaces,
    hidden: Vec<Vec<Term>>,
    /// The sum of the input's magnitudes.
    reach: f64,
    /// What rounding can do to any output, apart from its terms: underflow.
    floor: f64,
    /// Largest relative and absolute error of storing a value.
    storing: (f64, f64),
}

impl<'a, T: Precision> Probe<'a, T> {
    pub fn new(dtype: FloatType, columns: usize, outputs: OutputPlaces, steps: &'a [Step<'a, T>]) -> Self {
        let mut random = Random::new(0, "merge probe", 0);
        let input: Vec<f64> = (0..columns)
            .map(|_| f64::from(random.uniform(0.5, 1.0)) * if random.below(2) == 0 { 1.0 } else { -1.0 })
            .collect();
        let gains = gains(steps);
        let hidden = steps.iter().zip(&gains).map(|(step, gains)| {
            let first = |group: usize| group * (step.delta.rows / step.delta.groups);
            step.delta.hidden(|group, column| {
                input[column] * if outputs.in_rows() { 1.0 } else { at(gains, outputs.at(first(group), column)) }
            })
        });
        let hidden = hidden.collect();
        let reach: f64 = input.iter().map(|x| x.abs()).sum();
        let largest = gains.iter().flatten().fold(1.0_f64, |most, gain| most.max(gain.abs()));
        let underflow = |step: &Step<'_, T>| count(step.delta.rank) * step.delta.scale.into().abs() + 3.0;
        let floor = steps.iter().map(underflow).sum::<f64>() * T::TINY * largest;
        let storing = match dtype {
            FloatType::F64 | FloatType::F32 => (0.0, 0.0),
            FloatType::F16 => (dtype.epsilon() / 2.0, f16::MIN_POSITIVE_SUBNORMAL.to_f64() / 2.0),
            FloatType::Bf16 => (dtype.epsilon() / 2.0, bf16::MIN_POSITIVE_SUBNORMAL.to_f64() / 2.0),
        };
        Self { steps, input, gains, outputs, hidden, reach, floor: floor * reach, storing }
    }

    /// Values in a row.
    pub fn columns(&self) -> usize {
        self.input.len()
    }

    /// What a value of the weight is multiplied with from `step` on.
    fn gain(&self, step: usize, row: usize, column: usize) -> f64 {
        self.gains.get(step).map_or(1.0, |gains| at(gains, self.outputs.at(row, column)))
    }

    /// The output of a row of the base, with all gains.
    fn of_base(&self, row: usize, base: &[T]) -> Term {
        if self.gains.first().is_none_or(Vec::is_empty) {
            return dot(&self.input, base);
        }
        let input = self.input.iter().enumerate().map(|(column, x)| x * self.gain(0, row, column));
        dot(&input.collect::<Vec<_>>(), base)
    }

    /// The difference between the merged and the unmerged output of `row`, and the largest that is right.
    ///
    /// # Errors
    /// When the difference is larger than that.
    pub fn check(&self, row: usize, values: Rows<'_, T>) -> Result<(f64, f64)> {
        let base = self.of_base(row, values.base);
        let sum = dot(&self.input, values.sum);
        let allowed = |value: f64| self.storing.0 * value.abs() + self.storing.1;
        let moved = |sum: T, stored: T| (Into::<f64>::into(stored) - sum.into()).abs();
        if let Some(at) = position(values.sum, values.stored, |sum, stored| moved(sum, stored) > allowed(sum.into())) {
            let (sum, stored) = (values.sum[at], values.stored[at]);
            return Err(differs(row, moved(sum, stored), allowed(sum.into())));
        }
        let stored = if self.storing == (0.0, 0.0) { sum } else { dot(&self.input, values.stored) };
        let storing = self.storing.0 * sum.magnitude + self.storing.1 * self.reach;
        let mut unmerged = base.value;
        let (mut magnitude, mut rank, mut terms) = (0.0, 0, 0);
        for (index, (step, hidden)) in self.steps.iter().zip(&self.hidden).enumerate() {
            let output = step.delta.output(row, hidden);
            // Gains within rows are in `hidden` already.
            let gain = if self.outputs.in_rows() { self.gain(index, row, 0) } else { 1.0 };
            unmerged += gain * output.value;
            magnitude += gain.abs() * output.magnitude;
            rank = rank.max(step.delta.rank);
            terms = terms.max(step.delta.rank * step.delta.taps);
        }
        let steps = count(rank + self.steps.len() + 1);
        let gained = if self.gains.iter().all(Vec::is_empty) { 0.0 } else { 2.0 * count(self.steps.len()) };
        let computing = T::UNIT * (sum.magnitude + steps * magnitude + gained * (base.magnitude + magnitude));
        let checking = f64::UNIT
            * (count(self.input.len() + terms) + steps + gained + 2.0)
            * (sum.magnitude + base.magnitude + magnitude);
        let bound = 2.0 * (computing + self.floor + checking);
        let error = (sum.value - unmerged).abs();
        if error.is_nan() {
            return Err(Error::new(
                Subject::Merge,
                format!("row {row} is too large to check: its output overflows F64"),
            )
            .with_hint("scale the weight down"));
        }
        if error > bound {
            return Err(differs(row, error, bound));
        }
        Ok(((stored.value - unmerged).abs(), bound + storing))
    }
}

/// For each step, the product of its gain and all after it.
fn gains<T: Precision>(steps: &[Step<'_, T>]) -> Vec<Vec<f64>> {
    let mut product = Vec::new();
    let mut gains: Vec<Vec<f64>> = steps
        .iter()
        .rev()
        .map(|step| {
            if let Some(gain) = &step.gain {
                product = gain.iter().enumerate().map(|(o, gain)| at(&product, o) * (*gain).into()).collect();
            }
            product.clone()
        })
        .collect();
    gains.reverse();
    gains
}

fn at(gains: &[f64], output: usize) -> f64 {
    gains.get(output).copied().unwrap_or(1.0)
}

fn differs(row: usize, error: f64, bound: f64) -> Error {
    Error::new(Subject::Merge, format!("merged and unmerged outputs differ by more than rounding in row {row}"))
        .found(format!("a difference of {error:e}"))
        .expected(format!("at most {bound:e}"))
        .with_hint("this is a defect of lowrank, not of your files; nothing was written")
}

#[expect(clippy::cast_precision_loss, reason = "sizes of tensors are exact in f64")]
fn count(size: usize) -> f64 {
    size as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::delta::Delta;
    use crate::adapter::{Factors, GroupMode, Layer, LayerKind};

    const INPUTS: usize = 400;

    /// A small adapter on one output of 400 inputs, and the row with it.
    fn row(dtype: FloatType) -> (Delta<f32>, Vec<f32>, Vec<f32>) {
        let mut random = Random::new(1, "probe", 0);
        let base: Vec<f32> = dtype.decode(&dtype.encode(&(0..INPUTS).map(|_| random.normal()).collect::<Vec<_>>()));
        let a: Vec<f32> = (0..INPUTS).map(|_| 0.01 * random.normal()).collect();
        let layer = Layer::new(LayerKind::Linear, &[1, INPUTS], 1).unwrap();
        let factors = Factors::new(layer, GroupMode::Dense, 1, 1.0, a, vec![1.0], None).unwrap();
        let delta = factors.delta().unwrap();
        let sum = base.iter().zip(&delta).map(|(base, delta)| base + delta).collect();
        (Delta::of_weight(&factors).unwrap(), base, sum)
    }

    fn check(dtype: FloatType, change: impl Fn(&mut [f32], &[f32]), spoil: impl Fn(&mut [f32])) -> Result<(f64, f64)> {
        let (delta, base, mut sum) = row(dtype);
        change(&mut sum, &base);
        let mut stored = dtype.decode(&dtype.encode(&sum));
        spoil(&mut stored);
        let steps = [Step { delta: &delta, gain: None }];
        Probe::new(dtype, INPUTS, OutputPlaces::ROWS, &steps).check(0, Rows { base: &base, sum: &sum, stored: &stored })
    }

    #[test]
    fn a_right_merge_passes_and_a_wrong_one_does_not() {
        for dtype in [FloatType::F32, FloatType::F16, FloatType::Bf16] {
            let (error, bound) = check(dtype, |_, _| {}, |_| {}).unwrap();
            assert!(error <= bound, "{dtype:?}");
            let missing = check(dtype, |sum, base| sum.copy_from_slice(base), |_| {});
            assert!(missing.is_err(), "{dtype:?}: no delta");
            let one_missing = check(dtype, |sum, base| sum[17] = base[17], |_| {});
            assert!(one_missing.is_err(), "{dtype:?}: one value without its delta");
            let scaled =
                check(dtype, |sum, base| sum.iter_mut().zip(base).for_each(|(s, b)| *s += 0.1 * (*s - b)), |_| {});
            assert!(scaled.is_err(), "{dtype:?}: wrong scale");
            let nudged = check(dtype, |sum, _| sum[17] += 2e-4, |_| {});
            assert!(nudged.is_err(), "{dtype:?}: one value off by a few roundings of its row");
            let spoilt = check(dtype, |_, _| {}, |stored| stored[3] += 0.02);
            assert!(spoilt.is_err(), "{dtype:?}: stored another value");
        }
    }
}
