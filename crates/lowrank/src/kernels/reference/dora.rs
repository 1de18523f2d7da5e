//! `DoRA`: `W'_o = m_o / |V_o| * V_o` with `V = W + delta`, by the definition.

use super::adapter::Adapter;
use crate::adapter::{DoraNorm, GroupMode};

/// What the backward pass through the weight gives, with the norm held constant.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// By `A`.
    pub da: Vec<f64>,
    /// By `B`.
    pub db: Vec<f64>,
    /// By the magnitude.
    pub dm: Vec<f64>,
}

/// The output that each value of the stored weight belongs to.
#[must_use]
pub fn outputs(adapter: &Adapter) -> Vec<usize> {
    let layer = &adapter.layer;
    let (count, columns) = (layer.weight_shape().iter().product(), layer.weight_shape()[1..].iter().product::<usize>());
    let (inputs, outputs) = (layer.in_features() / layer.groups(), layer.out_features() / layer.groups());
    let taps = layer.kernel().iter().product::<usize>();
    let output = |at: usize| {
        let (row, column) = (at / columns, at % columns);
        if layer.kind().is_transposed() { row / inputs * outputs + column / taps } else { row }
    };
    (0..count).map(output).collect()
}

/// `|V_o|`: over all inputs for a dense adapter that reaches outside its groups, and PEFT's own for [`DoraNorm::Peft`].
#[must_use]
pub fn norms(adapter: &Adapter, weight: &[f64], norm: DoraNorm) -> Vec<f64> {
    let layer = &adapter.layer;
    let (groups, count) = (layer.groups(), layer.out_features());
    let mut squares = vec![0.0; count];
    let known = !layer.kind().is_conv_transpose();
    if known && norm == DoraNorm::Peft && groups > 1 && adapter.mode != GroupMode::Shared {
        for (at, square) in weight.iter().zip(scrambled(adapter)).map(|(w, d)| (w + d) * (w + d)).enumerate() {
            squares[at / (weight.len() / count)] += square;
        }
    } else if adapter.mode == GroupMode::Dense && groups > 1 {
        let (all, width) = (adapter.dense_delta(), weight.len() / count);
        // Of each output, the values are in the order of its inputs and taps either way.
        let mut of_output = vec![Vec::new(); count];
        outputs(adapter).into_iter().zip(weight).for_each(|(output, w)| of_output[output].push(*w));
        let by_output = of_output.concat();
        for (at, delta) in all.iter().enumerate() {
            let (output, column) = (at / (width * groups), at % (width * groups));
            let inside = column / width == output / (count / groups);
            let value = delta + if inside { by_output[output * width + column % width] } else { 0.0 };
            squares[output] += value * value;
        }
    } else {
        for ((output, w), d) in outputs(adapter).into_iter().zip(weight).zip(adapter.delta()) {
            squares[output] += (w + d) * (w + d);
        }
    }
    squares.into_iter().map(f64::sqrt).collect()
}

/// PEFT's `mm(B.view(-1, r), A.view(r, -1)).reshape(W.shape)`, with the `A` of all inputs.
fn scrambled(adapter: &Adapter) -> Vec<f64> {
    let (rank, groups) = (adapter.rank, adapter.layer.groups());
    let compact = adapter.a.len() / rank;
    let width = if adapter.mode == GroupMode::Dense { compact / groups } else { compact };
    let a = |row: usize, column: usize| match adapter.mode {
        GroupMode::Dense => adapter.a[row * compact + column],
        _ if column / width == row / (rank / groups) => adapter.a[row * width + column % width],
        _ => 0.0,
    };
    let value = |at: usize| {
        let (row, column) = (at / (width * groups), at % (width * groups));
        adapter.scale * (0..rank).map(|p| adapter.b[row * rank + p] * a(p, column)).sum::<f64>()
    };
    (0..adapter.layer.out_features() * width).map(value).collect()
}

/// The weight with the adapter in it: `gain * (W + delta)`, with the gains of [`gains`].
#[must_use]
pub fn merged(adapter: &Adapter, weight: &[f64], gains: &[f64]) -> Vec<f64> {
    let sums = weight.iter().zip(adapter.delta()).map(|(w, d)| w + d);
    outputs(adapter).into_iter().zip(sums).map(|(output, value)| gains[output] * value).collect()
}

/// `m_o / |V_o|`; 0 where `V_o` is.
#[must_use]
pub fn gains(magnitude: &[f64], norms: &[f64]) -> Vec<f64> {
    magnitude.iter().zip(norms).map(|(m, norm)| if *norm == 0.0 { 0.0 } else { m / norm }).collect()
}

/// From the gradient by the merged weight to those by the factors and the magnitude.
#[must_use]
pub fn backward(adapter: &Adapter, weight: &[f64], magnitude: &[f64], norms: &[f64], dw: &[f64]) -> Gradients {
    let gains = gains(magnitude, norms);
    let mut dm = vec![0.0; magnitude.len()];
    let directions = merged(adapter, weight, &self::gains(&vec![1.0; norms.len()], norms));
    let outputs = outputs(adapter);
    for ((output, dw), direction) in outputs.iter().zip(dw).zip(directions) {
        dm[*output] += dw * direction;
    }
    let scaled: Vec<f64> = outputs.iter().zip(dw).map(|(output, dw)| gains[*output] * dw).collect();
    let (da, db) = adapter.delta_backward(&scaled);
    Gradients { da, db, dm }
}
