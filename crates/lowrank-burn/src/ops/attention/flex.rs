//! The CPU: `f32` by [`lowrank::kernels::attention`], anything else by the default.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use lowrank::kernels::attention::Attention;

use super::Heads;
use super::body::{self, AttentionBody};
use crate::ops::flex::{are_f32, contiguous, tensor, values};

impl AttentionBody for Flex {
    fn attention_forward(q: FlexTensor, k: FlexTensor, v: FlexTensor, heads: Heads) -> (FlexTensor, FlexTensor) {
        if !are_f32([&q, &k, &v]) {
            return body::forward::<Self>(q, k, v, heads);
        }
        let (shape, [q, k, v]) = (shape(&q, &k, heads), [q, k, v].map(contiguous));
        let (o, sums) = shape.forward(values(&q), values(&k), values(&v));
        (tensor(o, q.shape()), tensor(sums, [shape.batch, shape.heads, shape.queries]))
    }

    fn attention_backward(qkv: [FlexTensor; 3], sums: FlexTensor, d_o: FlexTensor, heads: Heads) -> [FlexTensor; 3] {
        let [q, k, v] = qkv;
        if !are_f32([&q, &k, &v, &sums, &d_o]) {
            return body::backward::<Self>([q, k, v], sums, d_o, heads);
        }
        let ([q, k, v], [sums, d_o]) = ([q, k, v].map(contiguous), [sums, d_o].map(contiguous));
        let inputs = [&q, &k, &v].map(values);
        let [dq, dk, dv] = shape(&q, &k, heads).backward(inputs, values(&sums), values(&d_o));
        [tensor(dq, q.shape()), tensor(dk, k.shape()), tensor(dv, v.shape())]
    }
}

fn shape(q: &FlexTensor, k: &FlexTensor, heads: Heads) -> Attention {
    let (of_q, of_k) = (q.shape(), k.shape());
    Attention {
        batch: of_q[0],
        heads: heads.count,
        head_dim: of_q[2] / heads.count,
        queries: of_q[1],
        keys: of_k[1],
        causal: heads.causal,
    }
}
