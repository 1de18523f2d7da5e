//! The steps of a sequence one after the other, on any backend.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Slice};

use super::body::{LstmBody, LstmStep};

/// What the backward pass reads again.
#[derive(Debug, Clone)]
pub(super) struct Trace<B: Backend> {
    weight: FloatTensor<B>,
    /// The hidden state before the first step.
    hidden: FloatTensor<B>,
    /// What [`forward`] gave.
    states: FloatTensor<B>,
    /// The activations of every step's gates.
    gates: Vec<FloatTensor<B>>,
    /// The cell state before every step, and after the last.
    cells: Vec<FloatTensor<B>>,
}

/// What the backward pass gives.
pub(super) struct Gradients<B: Backend> {
    pub input: FloatTensor<B>,
    pub weight: Option<FloatTensor<B>>,
    pub hidden: FloatTensor<B>,
    pub cell: FloatTensor<B>,
}

/// The hidden state after every step, then the cell state after the last: `[time + 1, batch, hidden]`.
pub(super) fn forward<B: LstmBody>(
    input: &FloatTensor<B>,
    weight: FloatTensor<B>,
    hidden: FloatTensor<B>,
    cell: FloatTensor<B>,
) -> FloatTensor<B> {
    run::<B>(input, weight, hidden, cell, |_| ())
}

/// As [`forward`], with the trace.
pub(super) fn forward_traced<B: LstmBody>(
    input: &FloatTensor<B>,
    weight: FloatTensor<B>,
    hidden: FloatTensor<B>,
    cell: FloatTensor<B>,
) -> (FloatTensor<B>, Trace<B>) {
    let (mut gates, mut cells) = (Vec::new(), vec![cell.clone()]);
    let states = run::<B>(input, weight.clone(), hidden.clone(), cell, |step| {
        gates.push(step.gates.clone());
        cells.push(step.cell.clone());
    });
    (states.clone(), Trace { weight, hidden, states, gates, cells })
}

fn run<B: LstmBody>(
    input: &FloatTensor<B>,
    weight: FloatTensor<B>,
    mut hidden: FloatTensor<B>,
    mut cell: FloatTensor<B>,
    mut see: impl FnMut(&LstmStep<B>),
) -> FloatTensor<B> {
    let weight = B::float_swap_dims(weight, 0, 1);
    let mut states = Vec::new();
    for time in 0..input.shape()[0] {
        let recurrent = B::float_matmul(hidden, weight.clone());
        let step = B::lstm_step(at::<B>(input, time), recurrent, cell);
        see(&step);
        states.push(one_step::<B>(step.output.clone()));
        (hidden, cell) = (step.output, step.cell);
    }
    states.push(one_step::<B>(cell));
    B::float_cat(states, 0)
}

/// The gradients, from that of what [`forward`] gave; that of the weight only when it is wanted.
pub(super) fn backward<B: LstmBody>(trace: Trace<B>, dstates: &FloatTensor<B>, wants_weight: bool) -> Gradients<B> {
    let Trace { weight, hidden, states, gates, mut cells } = trace;
    let time = gates.len();
    let mut dcell = at::<B>(dstates, time);
    let mut dhidden: Option<FloatTensor<B>> = None;
    let mut dgates = Vec::new();
    let mut cell = cells.pop().expect("the cell state after the last step");
    for (index, (gates, before)) in gates.into_iter().zip(cells).enumerate().rev() {
        let doutput = at::<B>(dstates, index);
        let doutput = match dhidden {
            Some(dhidden) => B::float_add(doutput, dhidden),
            None => doutput,
        };
        let (dinput, dbefore) = B::lstm_step_backward(gates, before.clone(), cell, doutput, dcell);
        dhidden = Some(B::float_matmul(dinput.clone(), weight.clone()));
        dgates.push(one_step::<B>(dinput));
        (cell, dcell) = (before, dbefore);
    }
    dgates.reverse();
    let input = B::float_cat(dgates, 0);
    let weight = wants_weight.then(|| weight_gradient::<B>(&input, hidden, states));
    Gradients { input, weight, hidden: dhidden.expect("a step"), cell: dcell }
}

/// `Σ dgatesᵀ·hidden` over all steps, with the hidden state before each.
fn weight_gradient<B: Backend>(
    dgates: &FloatTensor<B>,
    hidden: FloatTensor<B>,
    states: FloatTensor<B>,
) -> FloatTensor<B> {
    let [time, batch, gates] = dgates.shape().dims();
    let mut before = vec![one_step::<B>(hidden)];
    if time > 1 {
        let last = (time - 1).cast_signed();
        before.push(B::float_slice(states, &[Slice::new(0, Some(last), 1), Slice::full(), Slice::full()]));
    }
    let rows = |tensor, width| B::float_reshape(tensor, Shape::new([time * batch, width]));
    let before = rows(B::float_cat(before, 0), gates / 4);
    B::float_matmul(B::float_swap_dims(rows(dgates.clone(), gates), 0, 1), before)
}

/// One step of `[time, batch, width]`.
fn at<B: Backend>(tensor: &FloatTensor<B>, time: usize) -> FloatTensor<B> {
    let [_, batch, width] = tensor.shape().dims();
    let time = time.cast_signed();
    let step = B::float_slice(tensor.clone(), &[Slice::new(time, Some(time + 1), 1), Slice::full(), Slice::full()]);
    B::float_reshape(step, Shape::new([batch, width]))
}

/// `[batch, width]` as `[1, batch, width]`.
fn one_step<B: Backend>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    let [batch, width] = tensor.shape().dims();
    B::float_reshape(tensor, Shape::new([1, batch, width]))
}
