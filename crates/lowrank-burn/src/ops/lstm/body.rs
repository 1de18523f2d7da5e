//! What a backend computes for each step: the default in Burn's operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar, TensorMetadata};
use burn::tensor::Slice;

/// What one step of a cell gives.
#[derive(Debug, Clone)]
pub struct LstmStep<B: Backend> {
    /// The activations of the gates, `[batch, 4·hidden]`.
    pub gates: FloatTensor<B>,
    /// The cell state, `[batch, hidden]`.
    pub cell: FloatTensor<B>,
    /// The hidden state, `[batch, hidden]`.
    pub output: FloatTensor<B>,
}

/// The element-wise part of an LSTM cell and its gradients, on one backend.
///
/// Gates are `[batch, 4·hidden]`: `i`, `f`, `g`, `o`; states are `[batch, hidden]`.
pub trait LstmBody: Backend {
    /// One step, from the two summands of the gates and the cell state before.
    fn lstm_step(input: FloatTensor<Self>, recurrent: FloatTensor<Self>, before: FloatTensor<Self>) -> LstmStep<Self> {
        step::<Self>(input, recurrent, before)
    }

    /// `(dgates, dbefore)` of one step, from the gradients of what it gave.
    fn lstm_step_backward(
        gates: FloatTensor<Self>,
        before: FloatTensor<Self>,
        cell: FloatTensor<Self>,
        doutput: FloatTensor<Self>,
        dcell: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        step_backward::<Self>(&gates, before, cell, doutput, dcell)
    }
}

pub(super) fn step<B: Backend>(
    input: FloatTensor<B>,
    recurrent: FloatTensor<B>,
    before: FloatTensor<B>,
) -> LstmStep<B> {
    let [i, f, g, o] = split::<B>(&B::float_add(input, recurrent));
    let (i, f, g, o) = (B::sigmoid(i), B::sigmoid(f), B::float_tanh(g), B::sigmoid(o));
    let cell = B::float_add(B::float_mul(f.clone(), before), B::float_mul(i.clone(), g.clone()));
    let output = B::float_mul(o.clone(), B::float_tanh(cell.clone()));
    LstmStep { gates: B::float_cat(vec![i, f, g, o], 1), cell, output }
}

pub(super) fn step_backward<B: Backend>(
    gates: &FloatTensor<B>,
    before: FloatTensor<B>,
    cell: FloatTensor<B>,
    doutput: FloatTensor<B>,
    dcell: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [i, f, g, o] = split::<B>(gates);
    let tanh = B::float_tanh(cell);
    let through = B::float_mul(B::float_mul(doutput.clone(), o.clone()), tanh_slope::<B>(tanh.clone()));
    let dcell = B::float_add(dcell, through);
    let dgates = vec![
        B::sigmoid_backward(i.clone(), B::float_mul(dcell.clone(), g.clone())),
        B::sigmoid_backward(f.clone(), B::float_mul(dcell.clone(), before)),
        B::float_mul(tanh_slope::<B>(g), B::float_mul(dcell.clone(), i)),
        B::sigmoid_backward(o, B::float_mul(doutput, tanh)),
    ];
    (B::float_cat(dgates, 1), B::float_mul(dcell, f))
}

/// `1 - y²` for `y = tanh x`.
fn tanh_slope<B: Backend>(y: FloatTensor<B>) -> FloatTensor<B> {
    B::float_add_scalar(B::float_neg(B::float_mul(y.clone(), y)), Scalar::from(1.0))
}

fn split<B: Backend>(gates: &FloatTensor<B>) -> [FloatTensor<B>; 4] {
    let hidden = (gates.shape()[1] / 4).cast_signed();
    let gate = |index| Slice::new(index * hidden, Some((index + 1) * hidden), 1);
    [0, 1, 2, 3].map(|index| B::float_slice(gates.clone(), &[Slice::full(), gate(index)]))
}
