//! The CPU: steps of `f32` by [`lowrank::kernels::lstm`], anything else by the default.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use lowrank::kernels::lstm::{LstmBackward, LstmForward};

use super::body::{LstmBody, LstmStep, step, step_backward};
use crate::ops::flex::{are_f32, contiguous, tensor, values, values_mut};

impl LstmBody for Flex {
    fn lstm_step(input: FlexTensor, recurrent: FlexTensor, before: FlexTensor) -> LstmStep<Self> {
        let shape = before.shape();
        if !are_f32([&input, &recurrent, &before]) || shape[1] == 0 {
            return step::<Self>(input, recurrent, before);
        }
        let (input, mut gates, before) = (contiguous(input), contiguous(recurrent), contiguous(before));
        let (mut cell, mut output) = (vec![0.0; shape.num_elements()], vec![0.0; shape.num_elements()]);
        let (input, before) = (values(&input), values(&before));
        LstmForward { input, gates: values_mut(&mut gates), before, cell: &mut cell, output: &mut output }
            .run(shape[1]);
        LstmStep { gates, cell: tensor(cell, shape.clone()), output: tensor(output, shape) }
    }

    fn lstm_step_backward(
        gates: FlexTensor,
        before: FlexTensor,
        cell: FlexTensor,
        doutput: FlexTensor,
        dcell: FlexTensor,
    ) -> (FlexTensor, FlexTensor) {
        let (shape, hidden) = (gates.shape(), before.shape()[1]);
        if !are_f32([&gates, &before, &cell, &doutput, &dcell]) || hidden == 0 {
            return step_backward::<Self>(&gates, before, cell, doutput, dcell);
        }
        let (gates, before, cell) = (contiguous(gates), contiguous(before), contiguous(cell));
        let (doutput, mut dcell) = (contiguous(doutput), contiguous(dcell));
        let mut dgates = vec![0.0; shape.num_elements()];
        LstmBackward {
            gates: values(&gates),
            before: values(&before),
            cell: values(&cell),
            doutput: values(&doutput),
            dcell: values_mut(&mut dcell),
            dgates: &mut dgates,
        }
        .run(hidden);
        (tensor(dgates, shape), dcell)
    }
}
