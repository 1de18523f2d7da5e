//! What a backend computes: the default in Burn's operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar, TensorMetadata};
use burn::tensor::{FloatDType, Shape, TensorData};

use super::Heads;

/// Forward and gradients of attention, on one backend.
///
/// Shapes: `q`, `o` and `d_o` `[batch, queries, width]`, `k` and `v` `[batch, keys, width]`.
pub trait AttentionBody: Backend {
    /// `o`, and `l [batch, heads, queries]`, the logarithms of the sums of `e^(q·k / √head_dim)`.
    fn attention_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: Heads,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        forward::<Self>(q, k, v, heads)
    }

    /// `[dq, dk, dv]`.
    fn attention_backward(
        qkv: [FloatTensor<Self>; 3],
        sums: FloatTensor<Self>,
        d_o: FloatTensor<Self>,
        heads: Heads,
    ) -> [FloatTensor<Self>; 3] {
        backward::<Self>(qkv, sums, d_o, heads)
    }
}

/// The default of [`AttentionBody::attention_forward`].
pub(super) fn forward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    heads: Heads,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let scores = scores::<B>(split::<B>(q, heads), split::<B>(k, heads), heads);
    let shape = scores.shape();
    let largest = B::float_max_dim(scores.clone(), 3);
    let powers = B::float_exp(B::float_sub(scores, largest.clone()));
    let sum = B::float_sum_dim(powers.clone(), 3);
    let o = B::float_matmul(B::float_div(powers, sum.clone()), split::<B>(v, heads));
    let sums = B::float_add(B::float_log(sum), largest);
    (join::<B>(o), B::float_reshape(sums, Shape::new([shape[0], shape[1], shape[2]])))
}

/// The default of [`AttentionBody::attention_backward`].
pub(super) fn backward<B: Backend>(
    qkv: [FloatTensor<B>; 3],
    sums: FloatTensor<B>,
    d_o: FloatTensor<B>,
    heads: Heads,
) -> [FloatTensor<B>; 3] {
    let [q, k, v] = qkv.map(|tensor| split::<B>(tensor, heads));
    let d_o = split::<B>(d_o, heads);
    let across = |tensor: FloatTensor<B>| B::float_swap_dims(tensor, 2, 3);
    let shape = sums.shape();
    let sums = B::float_reshape(sums, Shape::new([shape[0], shape[1], shape[2], 1]));
    let p = B::float_exp(B::float_sub(scores::<B>(q.clone(), k.clone(), heads), sums));
    let dv = B::float_matmul(across(p.clone()), d_o.clone());
    let dp = B::float_matmul(d_o, across(v));
    let mean = B::float_sum_dim(B::float_mul(p.clone(), dp.clone()), 3);
    let scale = scale(&q.shape());
    let ds = B::float_mul_scalar(B::float_mul(p, B::float_sub(dp, mean)), scale);
    let dk = B::float_matmul(across(ds.clone()), q);
    [B::float_matmul(ds, k), dk, dv].map(join::<B>)
}

/// From `[batch, time, width]` to `[batch, heads, time, head_dim]`.
fn split<B: Backend>(tensor: FloatTensor<B>, heads: Heads) -> FloatTensor<B> {
    let shape = tensor.shape();
    let (batch, time, width) = (shape[0], shape[1], shape[2]);
    let split = B::float_reshape(tensor, Shape::new([batch, time, heads.count, width / heads.count]));
    B::float_swap_dims(split, 1, 2)
}

/// Back again.
fn join<B: Backend>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    let shape = tensor.shape();
    let (batch, heads, time, head_dim) = (shape[0], shape[1], shape[2], shape[3]);
    B::float_reshape(B::float_swap_dims(tensor, 1, 2), Shape::new([batch, time, heads * head_dim]))
}

/// `q·kᵀ / √head_dim`, and `-∞` for what a query does not see.
fn scores<B: Backend>(q: FloatTensor<B>, k: FloatTensor<B>, heads: Heads) -> FloatTensor<B> {
    let scale = scale(&q.shape());
    let (queries, keys, device, dtype) = (q.shape()[2], k.shape()[2], q.device(), q.dtype());
    let s = B::float_mul_scalar(B::float_matmul(q, B::float_swap_dims(k, 2, 3)), scale);
    if !heads.causal {
        return s;
    }
    let hidden = |at: usize| if at % keys > at / keys { f32::NEG_INFINITY } else { 0.0 };
    let mask: Vec<f32> = (0..queries * keys).map(hidden).collect();
    let mask = B::float_from_data(TensorData::new(mask, [1, 1, queries, keys]), &device);
    B::float_add(s, B::float_cast(mask, FloatDType::from(dtype)))
}

/// `1 / √head_dim`.
#[expect(clippy::cast_precision_loss, reason = "a head has few columns")]
fn scale(split: &Shape) -> Scalar {
    Scalar::from(1.0 / (split[3] as f64).sqrt())
}
