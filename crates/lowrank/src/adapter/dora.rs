//! `DoRA`: the weight with an adapter in it, taken apart into a direction and a length for each output.
//!
//! With `V = W + scale B A` and `|V_o|` the Euclidean norm of what output `o` is computed from,
//!
//! ```text
//! W'_o = m_o / |V_o| * V_o
//! ```
//!
//! where `m`, the magnitude, is trained and starts as `|V|`, so that the layer starts from its base
//! (<https://huggingface.co/papers/2402.09353>). In training the norm is a constant, as in section 4.3 there. Outputs are
//! the rows of a linear layer's weight and of a convolution's, the columns of transformers' `Conv1D` and of an
//! embedding, and the second axis of a transposed convolution's. Where `V_o` is zero it has no direction, and `W'_o` is zero.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::delta::Delta;
use super::factors::Factors;
use super::group::GroupMode;
use super::layer::{Layer, OutputPlaces};
use crate::kernels::gemm::Real;
use crate::{Error, Result, Subject};

/// Values of the weight that are worked on at a time.
const BLOCK: usize = 1 << 14;

/// Which norm a magnitude goes with. It matters for convolutions with groups alone: elsewhere the two are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoraNorm {
    /// The norm of `W + scale B A`.
    #[default]
    Exact,
    /// The norm that PEFT 0.21.2 takes, which meets the rows of `B` with the `A` of other groups: output `o` with that of
    /// group `o mod g`. Adapters that PEFT trained are what they were trained to be with this one only. Transposed
    /// convolutions, which PEFT does not adapt, have the exact norm either way.
    Peft,
}

impl DoraNorm {
    /// The name configurations use: `exact`, `peft`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Peft => "peft",
        }
    }
}

impl fmt::Display for DoraNorm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `lora_magnitude_vector`: the length of each output's weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Magnitude {
    /// One value an output.
    pub values: Vec<f32>,
    /// What they are lengths in place of.
    pub norm: DoraNorm,
}

impl Factors {
    /// The norm of `W + scale B A` for each output, given the values of `W`: what a magnitude starts as.
    ///
    /// A dense adapter that reaches outside its groups has the norm over all inputs.
    ///
    /// ```
    /// use lowrank::adapter::{DoraNorm, Factors, GroupMode, Layer, LayerKind};
    ///
    /// let layer = Layer::new(LayerKind::Linear, &[2, 2], 1)?;
    /// let factors = Factors::new(layer, GroupMode::default(), 1, 2.0, vec![1.0, 1.0], vec![0.0, 1.0], None)?;
    /// assert_eq!(factors.norms(&[3.0, 4.0, 4.0, 6.0], DoraNorm::Exact)?, [5.0, 10.0]);
    /// # Ok::<(), lowrank::Error>(())
    /// ```
    ///
    /// # Errors
    /// When `weight` has not the values of the layer's weight.
    pub fn norms(&self, weight: &[f32], norm: DoraNorm) -> Result<Vec<f64>> {
        let mut norms = Norms::<f64>::new(self, norm)?;
        let weight: Vec<f64> = weight.iter().map(|value| f64::from(*value)).collect();
        norms.measure(0, &weight)?;
        Ok(norms.finish()?.collect())
    }
}

/// The squares of an adapter's norms, summed over the rows of the stored weight as they come.
#[derive(Debug, Clone)]
pub(super) struct Norms<T> {
    /// What is added to the weight. It has the values of the weight in their order, though not always its rows.
    delta: Delta<T>,
    columns: usize,
    outputs: OutputPlaces,
    rows: usize,
    measured: usize,
    squares: Vec<f64>,
}

impl<T: Real> Norms<T> {
    pub fn new(factors: &Factors, norm: DoraNorm) -> Result<Self> {
        let layer = factors.layer();
        let grouped = layer.groups() > 1 && factors.mode() != GroupMode::Shared;
        let scrambled = norm == DoraNorm::Peft && grouped && !layer.kind().is_conv_transpose();
        let (delta, squares) = if scrambled {
            (Delta::as_peft_has_it(&factors.to_dense()?), vec![0.0; layer.out_features()])
        } else {
            (Delta::of_weight(&factors.project().0)?, outside(factors))
        };
        let rows = layer.weight_shape()[0];
        let columns = layer.weight_shape()[1..].iter().product();
        Ok(Self { delta, columns, outputs: layer.outputs(), rows, measured: 0, squares })
    }

    /// Takes in the rows of the weight from `first` on. They come in order, each once.
    pub fn measure(&mut self, first: usize, weight: &[T]) -> Result<()> {
        let rows = weight.len() / self.columns;
        if weight.len() != rows * self.columns || first != self.measured || first + rows > self.rows {
            return Err(Error::new(Subject::Merge, "the norms of DoRA are taken over the rows of the weight in order")
                .found(format!("{} values from row {first} on", weight.len()))
                .expected(format!("rows of {} from {} on, {} in all", self.columns, self.measured, self.rows)));
        }
        let step = (BLOCK / self.columns).max(1);
        for (index, block) in weight.chunks(step * self.columns).enumerate() {
            let row = first + index * step;
            let delta = self.delta(row..row + block.len() / self.columns);
            for (offset, (weight, delta)) in
                block.chunks_exact(self.columns).zip(delta.chunks_exact(self.columns)).enumerate()
            {
                self.add(row + offset, weight, delta);
            }
        }
        self.measured += rows;
        Ok(())
    }

    /// The norms, when the whole weight was measured.
    pub fn finish(&self) -> Result<impl Iterator<Item = f64>> {
        if self.measured != self.rows {
            return Err(Error::new(Subject::Merge, "the norms of DoRA need the whole weight")
                .found(format!("{} rows", self.measured))
                .expected(self.rows));
        }
        Ok(self.squares.iter().map(|square| square.sqrt()))
    }

    fn add(&mut self, row: usize, weight: &[T], delta: &[T]) {
        let squares = weight.iter().zip(delta).map(|(weight, delta)| {
            let value: f64 = (*weight + *delta).into();
            value * value
        });
        if self.outputs.in_rows() {
            self.squares[row] += squares.sum::<f64>();
        } else {
            squares.enumerate().for_each(|(column, square)| self.squares[self.outputs.at(row, column)] += square);
        }
    }

    /// The values of the delta that meet some rows of the weight.
    fn delta(&self, rows: Range<usize>) -> Vec<T> {
        // PEFT's has a row for as many rows of the weight as there are groups.
        let together = self.delta.columns / self.columns;
        let whole = rows.start / together..rows.end.div_ceil(together);
        let mut values = vec![T::from(0.0); whole.len() * self.delta.columns];
        self.delta.rows(whole.clone(), &mut values);
        let before = (rows.start - whole.start * together) * self.columns;
        values.drain(..before);
        values.truncate(rows.len() * self.columns);
        values
    }
}

/// The squares of what a dense adapter has outside its groups, for each output.
fn outside(factors: &Factors) -> Vec<f64> {
    let (layer, rank) = (factors.layer(), factors.rank());
    let (outputs, groups) = (layer.out_features(), layer.groups());
    if factors.mode() != GroupMode::Dense || groups == 1 {
        return vec![0.0; outputs];
    }
    let columns = factors.a().len() / rank;
    let (width, rank, per_group) = (columns / groups, rank / groups, outputs / groups);
    let square = |output: usize| {
        let group = output / per_group;
        let b = &factors.b()[output * rank..][..rank];
        let of_column = |column: usize| {
            let a = (group * rank..).map(|row| f64::from(factors.a()[row * columns + column]));
            let sum: f64 = b.iter().zip(a).map(|(b, a)| f64::from(*b) * a).sum();
            (f64::from(factors.scale()) * sum).powi(2)
        };
        (0..columns).filter(|column| column / width != group).map(of_column).sum()
    };
    (0..outputs).map(square).collect()
}

/// `m / |V|`, and zero where there is no direction.
pub(super) fn gain(magnitude: f32, norm: f64) -> f64 {
    if norm == 0.0 { 0.0 } else { f64::from(magnitude) / norm }
}

/// The magnitude is for these outputs, and its layer has no `lora_bias`.
pub(super) fn check_magnitude(layer: &Layer, values: usize, bias: bool) -> Result<()> {
    if values != layer.out_features() {
        return Err(Error::new(Subject::Adapter, "the magnitude has the wrong number of values")
            .found(values)
            .expected(layer.out_features()));
    }
    if bias {
        return Err(Error::new(Subject::Adapter, "lora_bias is not possible with DoRA")
            .with_hint("set lora_bias or use_dora to false"));
    }
    Ok(())
}
