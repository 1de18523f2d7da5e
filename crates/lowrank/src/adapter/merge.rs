//! The weight with its adapters in it, checked, and back.

mod rows;

pub use rows::RowMerge;

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

use super::delta::Delta;
use super::factors::Factors;
use super::lanes::{first_infinite, largest};
use super::layer::{OutputPlaces, elements, place_of};
use super::probe::{Precision, Probe, Rows};
use super::step::{Adding, Step};
use crate::float::FloatType;
use crate::{Error, Result, Subject};

/// Values of the weight that are worked on at a time: what a merge needs beside the two copies of the weight.
const BLOCK: usize = 1 << 14;

/// A tensor with adapters in it, and the one it was.
#[derive(Debug, Clone)]
pub struct Merged {
    weight: Vec<u8>,
    original: Vec<u8>,
    report: MergeReport,
}

/// What the check of a merge has measured, over all rows of the weight.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MergeReport {
    /// The largest magnitude that was added to a value; with `DoRA`, by which one was changed.
    pub max_delta: f64,
    /// The largest difference between the outputs of the merged weight, as it is stored, and those of the base with
    /// the adapters beside it, on the probe: one input with values between 1/2 and 1 in magnitude.
    pub max_error: f64,
    /// The largest difference that the rounding of the merge and of the stored type can make on that probe.
    pub bound: f64,
}

impl MergeReport {
    /// The report of two parts of a tensor together.
    #[must_use]
    pub fn widen(self, other: Self) -> Self {
        Self {
            max_delta: self.max_delta.max(other.max_delta),
            max_error: self.max_error.max(other.max_error),
            bound: self.bound.max(other.bound),
        }
    }
}

impl Merged {
    /// The merged tensor, little endian, in the type of the base.
    #[must_use]
    pub fn weight(&self) -> &[u8] {
        &self.weight
    }

    /// The merged tensor; the original is let go.
    #[must_use]
    pub fn into_weight(self) -> Vec<u8> {
        self.weight
    }

    /// The original tensor, bit for bit. PEFT subtracts the delta again, which half precision does not undo.
    #[must_use]
    pub fn unmerge(self) -> Vec<u8> {
        self.original
    }

    /// What the check has measured.
    #[must_use]
    pub fn report(&self) -> &MergeReport {
        &self.report
    }
}

/// `W + delta_1 + delta_2 + ..`, in the type and the layout of `W`.
///
/// An adapter with a [magnitude](super::dora) multiplies what is there by then, `m_i / |W + delta_i| * (.. + delta_i)`:
/// PEFT's order and PEFT's norm, that of the base with this adapter alone.
///
/// `weight` holds little-endian values of `dtype`, in the shape of the layer's weight. A `Vec` is taken over, a slice is
/// copied: beside the weight before and after, a merge needs memory for the factors and a few hundred kilobytes.
///
/// An `F64` base is merged in `f64`, any other in `f32`, and rounded once when it is stored. Values to which nothing is
/// added keep their bits: with `B = 0` or `alpha = 0` the merged weight is the base. The result does not depend on the
/// number of threads.
///
/// Every merge is checked, where PEFT looks for NaN only on request: base, factors, delta and result are finite, and on a
/// probe the merged weight does what base and adapters do side by side. The difference must stay within a bound that
/// follows from the roundings: for `r + 2` terms and `n` values in a row it is about `2^-23 (|x| . |W'| + (r + 2) |x| .
/// |scale B A|)` in `f32`, to which `F16` and `BF16` add half their spacing for each value of the row.
///
/// ```
/// use lowrank::adapter::{Factors, GroupMode, Layer, LayerKind, merge};
/// use lowrank::float::FloatType;
///
/// let layer = Layer::new(LayerKind::Linear, &[1, 2], 1)?;
/// let factors = Factors::new(layer, GroupMode::default(), 1, 2.0, vec![1.0, -3.0], vec![0.25], None)?;
/// let base = FloatType::F16.encode(&[1.0, 1.0]);
/// let merged = merge(base.clone(), FloatType::F16, &[&factors])?;
/// assert_eq!(FloatType::F16.decode(merged.weight()), [1.5, -0.5]);
/// assert!(merged.report().max_error <= merged.report().bound);
/// assert_eq!(merged.unmerge(), base);
/// # Ok::<(), lowrank::Error>(())
/// ```
///
/// # Errors
/// When the adapters are not for layers of one shape, or `weight` has not the bytes of that shape; when a `dense` adapter
/// does not fit its grouped weight; when a value is NaN or infinite in the base, in a factor, in the delta, or, which is
/// overflow, in the merged weight: the error names the first; when merged and unmerged outputs disagree.
pub fn merge(weight: impl Into<Vec<u8>>, dtype: FloatType, adapters: &[&Factors]) -> Result<Merged> {
    let original = weight.into();
    let values = original.len() / dtype.size();
    let shape = adapters.first().map_or(vec![values], |factors| factors.layer().weight_shape().to_vec());
    if dtype == FloatType::F64 {
        Tensor::<f64>::weight(dtype, adapters, shape)?.merge(original)
    } else {
        Tensor::<f32>::weight(dtype, adapters, shape)?.merge(original)
    }
}

/// `b + scale_1 * B_1.bias + ..`: the bias of a layer whose adapters have one (`lora_bias`); `None` when none has.
///
/// `bias` is the base's, and `None` for a layer without. Everything else is as in [`merge`].
///
/// # Errors
/// When an adapter has a bias and the layer has none, so that there is nothing to merge into; and as [`merge`].
pub fn merge_bias(bias: Option<&[u8]>, dtype: FloatType, adapters: &[&Factors]) -> Result<Option<Merged>> {
    let biases: Vec<(f32, &[f32])> =
        adapters.iter().filter_map(|factors| factors.bias().map(|bias| (factors.scale(), bias))).collect();
    let Some((_, first)) = biases.first() else { return Ok(None) };
    let shape = vec![first.len()];
    let Some(base) = bias else {
        return Err(Error::new(
            Subject::Merge,
            "the adapter has a bias (lora_bias), but the layer has none to merge it into",
        )
        .with_hint("keep the adapter apart, or train it without lora_bias"));
    };
    for (index, (scale, bias)) in biases.iter().enumerate() {
        check_bias(*scale, bias, &shape).map_err(|error| among(error, index, biases.len()))?;
    }
    let merged = if dtype == FloatType::F64 {
        Tensor::<f64>::bias(dtype, &biases, shape).merge(base.to_vec())
    } else {
        Tensor::<f32>::bias(dtype, &biases, shape).merge(base.to_vec())
    };
    merged.map(Some)
}

/// A tensor of the base and what is added to it.
struct Tensor<T> {
    name: &'static str,
    dtype: FloatType,
    shape: Vec<usize>,
    outputs: OutputPlaces,
    adding: Vec<Adding<T>>,
}

impl<T: Precision> Tensor<T> {
    fn weight(dtype: FloatType, adapters: &[&Factors], shape: Vec<usize>) -> Result<Self> {
        for (index, factors) in adapters.iter().enumerate() {
            check_adapter(factors, &shape).map_err(|error| among(error, index, adapters.len()))?;
        }
        let outputs = adapters.first().map_or(OutputPlaces::ROWS, |factors| factors.layer().outputs());
        let adding = adapters.iter().map(|factors| Adding::new(factors)).collect::<Result<_>>()?;
        Ok(Self { name: "weight", dtype, shape, outputs, adding })
    }

    fn bias(dtype: FloatType, biases: &[(f32, &[f32])], shape: Vec<usize>) -> Self {
        let adding = biases.iter().map(|(scale, bias)| Adding::plain(Delta::of_bias(*scale, bias))).collect();
        Self { name: "bias", dtype, shape, outputs: OutputPlaces::ROWS, adding }
    }

    /// Whether the base has to be gone through once before it is merged.
    fn measures(&self) -> bool {
        self.adding.iter().any(Adding::measures)
    }

    /// Takes the norms of the rows from `first` on, of which `original` holds whole ones.
    fn measure(&mut self, first: usize, original: &[u8]) -> Result<()> {
        let columns = elements(&self.shape[1..]);
        let bytes = (BLOCK / columns).max(1) * columns * self.dtype.size();
        for (index, block) in original.chunks(bytes).enumerate() {
            let base = T::decode(self.dtype, block);
            let row = first + index * (bytes / columns / self.dtype.size());
            self.check_finite("the base", row * columns, &base)?;
            self.adding.iter_mut().try_for_each(|adding| adding.measure(row, &base))?;
        }
        Ok(())
    }

    fn merge(mut self, original: Vec<u8>) -> Result<Merged> {
        if self.measures() {
            self.check_size(0..self.shape[0], &original)?;
            self.measure(0, &original)?;
        }
        let mut weight = vec![0; original.len()];
        let report = self.merge_blocks(0..self.shape[0], &original, &mut weight)?;
        Ok(Merged { weight, original, report })
    }

    /// Merges the rows of `range` into `out`, many at a time.
    fn merge_blocks(&self, range: Range<usize>, original: &[u8], out: &mut [u8]) -> Result<MergeReport> {
        let row_bytes = self.check_size(range.clone(), original)?;
        let columns = elements(&self.shape[1..]);
        let rows = (BLOCK / columns).max(1);
        let steps: Vec<Step<'_, T>> = self.adding.iter().map(Adding::step).collect::<Result<_>>()?;
        let probe = Probe::new(self.dtype, columns, self.outputs, &steps);
        let reports: Vec<Result<MergeReport>> = out
            .par_chunks_mut(rows * row_bytes)
            .zip(original.par_chunks(rows * row_bytes))
            .enumerate()
            .map(|(index, (out, base))| self.merge_rows(&steps, &probe, range.start + index * rows, base, out))
            .collect();
        // In order, so that the first error is the first in the tensor.
        reports.into_iter().try_fold(MergeReport::default(), |all, report| Ok(all.widen(report?)))
    }

    /// The bytes of a row, when `original` holds the rows of `range`.
    fn check_size(&self, range: Range<usize>, original: &[u8]) -> Result<usize> {
        let row_bytes = elements(&self.shape[1..]).saturating_mul(self.dtype.size());
        if Some(original.len()) == range.len().checked_mul(row_bytes) && range.end <= self.shape[0] {
            return Ok(row_bytes);
        }
        Err(Error::new(Subject::Merge, format!("the base {} has the wrong size", self.name))
            .found(format!("{} bytes", original.len()))
            .expected(format!("those of {:?} in {}", self.shape, self.dtype.name())))
    }

    /// Merges the rows from `row` on into `out`.
    fn merge_rows(
        &self,
        steps: &[Step<'_, T>],
        probe: &Probe<'_, T>,
        row: usize,
        original: &[u8],
        out: &mut [u8],
    ) -> Result<MergeReport> {
        let columns = probe.columns();
        let first = row * columns;
        let base = T::decode(self.dtype, original);
        self.check_finite("the base", first, &base)?;

        let (sum, max_delta) = self.sum(steps, row, &base)?;
        out.copy_from_slice(&T::encode(self.dtype, &sum));
        let stored = T::decode(self.dtype, out);
        if let Some((index, _)) = first_infinite(&stored) {
            return Err(self.overflow("the merged", first + index, sum[index].into()));
        }

        let mut report = MergeReport { max_delta, ..MergeReport::default() };
        for (offset, start) in (0..base.len()).step_by(columns).enumerate() {
            let part = start..start + columns;
            let values = Rows { base: &base[part.clone()], sum: &sum[part.clone()], stored: &stored[part] };
            let (max_error, bound) = probe.check(row + offset, values)?;
            report = report.widen(MergeReport { max_delta, max_error, bound });
        }
        Ok(report)
    }

    /// The rows from `row` on with all adapters in them, and the largest change to a value. Deltas are summed on their
    /// own until a gain needs the whole weight, and values to which nothing is added keep their bits.
    fn sum(&self, steps: &[Step<'_, T>], row: usize, base: &[T]) -> Result<(Vec<T>, f64)> {
        let columns = elements(&self.shape[1..]);
        let rows = row..row + base.len() / columns;
        let zero = T::from(0.0);
        let (mut sum, mut total) = (base.to_vec(), vec![zero; base.len()]);
        let mut one = vec![zero; if steps.len() > 1 { base.len() } else { 0 }];
        for (index, step) in steps.iter().enumerate() {
            if index == 0 {
                step.delta.rows(rows.clone(), &mut total);
            } else {
                step.delta.rows(rows.clone(), &mut one);
                total.iter_mut().zip(&one).for_each(|(total, one)| *total = *total + *one);
            }
            if let Some(gain) = &step.gain {
                self.add(&mut sum, &total, row * columns)?;
                for (at, value) in sum.iter_mut().enumerate() {
                    *value = *value * gain[self.outputs.at(row + at / columns, at % columns)];
                }
                total.fill(zero);
            }
        }
        self.add(&mut sum, &total, row * columns)?;
        if steps.iter().any(|step| step.gain.is_some()) {
            total.iter_mut().zip(sum.iter().zip(base)).for_each(|(change, (sum, base))| *change = *sum - *base);
        }
        let largest = largest(&total);
        Ok((sum, largest))
    }

    /// Adds a delta to the values from `first` on.
    fn add(&self, sum: &mut [T], delta: &[T], first: usize) -> Result<()> {
        if let Some((index, value)) = first_infinite(delta) {
            return Err(self.overflow("the delta", first + index, value));
        }
        for (sum, delta) in sum.iter_mut().zip(delta) {
            *sum = if *delta == T::from(0.0) { *sum } else { *sum + *delta };
        }
        Ok(())
    }

    fn check_finite(&self, what: &str, first: usize, values: &[T]) -> Result<()> {
        first_infinite(values).map_or(Ok(()), |(index, value)| {
            let place = place_of(first + index, &self.shape);
            Err(not_finite(&format!("{what} {}", self.name), &place, value))
        })
    }

    fn overflow(&self, what: &str, index: usize, value: f64) -> Error {
        let place = place_of(index, &self.shape);
        let largest = range_of(self.dtype);
        Error::new(Subject::Merge, format!("{what} {} overflows {} at {place}", self.name, self.dtype.name()))
            .found(value)
            .expected(format!("at most {largest:e} in magnitude"))
            .with_hint("lower the adapter's scale, or merge into a base converted to a type with a larger range")
    }
}

fn check_adapter(factors: &Factors, shape: &[usize]) -> Result<()> {
    let layer = factors.layer();
    if layer.weight_shape() != shape {
        return Err(Error::new(Subject::Merge, "adapters for different layers cannot be merged into one weight")
            .found(format!("{:?}", layer.weight_shape()))
            .expected(format!("{shape:?}")));
    }
    check_scale(factors.scale())?;
    let shapes = (layer.a_shape(factors.rank(), factors.mode()), layer.b_shape(factors.rank(), factors.mode()));
    let magnitude = factors.magnitude().map_or(&[][..], |magnitude| &magnitude.values);
    let parts = [
        ("lora_A", factors.a(), shapes.0),
        ("lora_B", factors.b(), shapes.1),
        ("lora_magnitude_vector", magnitude, layer.magnitude_shape()),
    ];
    for (name, values, shape) in parts {
        if let Some((index, value)) = first_infinite(values) {
            return Err(broken(not_finite(name, &place_of(index, &shape), value)));
        }
    }
    Ok(())
}

fn check_bias(scale: f32, bias: &[f32], shape: &[usize]) -> Result<()> {
    if [bias.len()] != shape {
        return Err(Error::new(Subject::Merge, "biases of different layers cannot be merged into one")
            .found(bias.len())
            .expected(shape[0]));
    }
    check_scale(scale)?;
    first_infinite(bias)
        .map_or(Ok(()), |(index, value)| Err(broken(not_finite("the bias of lora_B", &place_of(index, shape), value))))
}

fn check_scale(scale: f32) -> Result<()> {
    if scale.is_finite() {
        return Ok(());
    }
    Err(Error::new(Subject::Merge, "the scale is not finite").found(scale).with_hint("check lora_alpha and r"))
}

/// Says which of several adapters an error is about.
fn among(error: Error, index: usize, adapters: usize) -> Error {
    if adapters > 1 { error.at(format!("adapter {}", index + 1)) } else { error }
}

fn not_finite(what: &str, place: &str, value: f64) -> Error {
    Error::new(Subject::Merge, format!("{what} is not finite at {place}")).found(value).expected("a finite number")
}

fn broken(error: Error) -> Error {
    error.with_hint("the training diverged or the file is damaged: take an earlier checkpoint")
}

fn range_of(dtype: FloatType) -> f64 {
    match dtype {
        FloatType::F64 => f64::MAX,
        FloatType::F32 => f64::from(f32::MAX),
        FloatType::F16 => f16::MAX.to_f64(),
        FloatType::Bf16 => bf16::MAX.to_f64(),
    }
}

#[cfg(test)]
mod tests;
