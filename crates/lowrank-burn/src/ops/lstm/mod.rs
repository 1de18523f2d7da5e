//! LSTM (Hochreiter and Schmidhuber, 1997; with a forget gate, Gers et al., 2000).

mod body;
mod flex;
mod graph;
mod sequence;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

pub use body::{LstmBody, LstmStep};
pub use graph::Lstm;

/// Runs an LSTM over time: `(output, cell)`, the hidden state after every step and the cell state after the last.
///
/// With `z = input[t] + hidden·weight_hhᵀ`, split into `i`, `f`, `g`, `o`:
///
/// `cell = σ(f)·cell + σ(i)·tanh(g)`, `hidden = σ(o)·tanh(cell)`
///
/// The sequence is one operation: the part of the gates that the input makes is one large product outside, and the
/// gradients of all steps are gathered here.
///
/// # Shapes
/// - `input`: `[time, batch, 4·hidden]`, the input times `weight_ihᵀ` plus the biases
/// - `weight_hh`: `[4·hidden, hidden]`, as `PyTorch` has it
/// - `hidden`, `cell`: `[batch, hidden]`, the states before the first step
/// - output: `[time, batch, hidden]` and `[batch, hidden]`
///
/// # Panics
/// When a shape does not fit another, or there is no step.
#[must_use]
pub fn lstm(input: Tensor<3>, weight_hh: Tensor<2>, [hidden, cell]: [Tensor<2>; 2]) -> (Tensor<3>, Tensor<2>) {
    let [time, batch, gates] = input.dims();
    let width = gates / 4;
    assert!(time > 0, "no step");
    assert_eq!(weight_hh.dims(), [gates, width], "weight_hh of {gates} gates");
    assert_eq!([hidden.dims(), cell.dims()], [[batch, width]; 2], "states of the batch");
    let states: Tensor<3> = Tensor::from_dispatch(<Dispatch as Lstm>::lstm(
        input.into_dispatch(),
        weight_hh.into_dispatch(),
        hidden.into_dispatch(),
        cell.into_dispatch(),
    ));
    (states.clone().narrow(0, 0, time), states.narrow(0, time, 1).squeeze_dim(0))
}

/// One step of [`lstm`]: `[hidden, cell]` after it.
///
/// # Shapes
/// - `input`: `[batch, 4·hidden]`, the others as there
///
/// # Panics
/// When a shape does not fit another.
#[must_use]
pub fn lstm_cell(input: Tensor<2>, weight_hh: Tensor<2>, states: [Tensor<2>; 2]) -> [Tensor<2>; 2] {
    let (output, cell) = lstm(input.unsqueeze(), weight_hh, states);
    [output.squeeze_dim(0), cell]
}
