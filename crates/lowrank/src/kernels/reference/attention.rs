//! Scaled dot-product attention of one head.

#![expect(clippy::many_single_char_names, reason = "the names of the equations")]

use super::softmax;

/// `√head_dim`.
#[expect(clippy::cast_precision_loss, reason = "a head has few columns")]
fn root(head_dim: usize) -> f64 {
    (head_dim as f64).sqrt()
}

/// `p (queries, keys)`: the softmax of `q·kᵀ / √head_dim`, where a query sees the keys up to its own place if `causal`.
fn probabilities(q: &[f64], k: &[f64], head_dim: usize, causal: bool) -> Vec<f64> {
    let scale = root(head_dim);
    let score = |i: usize, q: &[f64], j: usize, k: &[f64]| {
        let product: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
        if causal && j > i { f64::NEG_INFINITY } else { product / scale }
    };
    let row = |(i, q)| k.chunks(head_dim).enumerate().map(move |(j, k)| score(i, q, j, k));
    let scores: Vec<f64> = q.chunks(head_dim).enumerate().flat_map(row).collect();
    softmax::forward(&scores, k.len() / head_dim)
}

/// `o_i = Σ_j p_ij·v_j`.
#[must_use]
pub fn forward([q, k, v]: [&[f64]; 3], head_dim: usize, causal: bool) -> Vec<f64> {
    let p = probabilities(q, k, head_dim, causal);
    let keys = k.len() / head_dim;
    let value = |at: usize| {
        let (i, d) = (at / head_dim, at % head_dim);
        (0..keys).map(|j| p[i * keys + j] * v[j * head_dim + d]).sum()
    };
    (0..q.len()).map(value).collect()
}

/// `[dq, dk, dv]`, the gradients of `Σ d_o·forward`.
#[must_use]
pub fn backward([q, k, v]: [&[f64]; 3], d_o: &[f64], head_dim: usize, causal: bool) -> [Vec<f64>; 3] {
    let p = probabilities(q, k, head_dim, causal);
    let keys = k.len() / head_dim;
    let scale = root(head_dim);
    let (mut dp, mut dv) = (vec![0.0; p.len()], vec![0.0; v.len()]);
    for at in 0..p.len() {
        let (i, j) = (at / keys, at % keys);
        for d in 0..head_dim {
            dp[at] += d_o[i * head_dim + d] * v[j * head_dim + d];
            dv[j * head_dim + d] += p[at] * d_o[i * head_dim + d];
        }
    }
    let ds = softmax::backward(&p, &dp, keys);
    let (mut dq, mut dk) = (vec![0.0; q.len()], vec![0.0; k.len()]);
    for (at, ds) in ds.iter().enumerate() {
        let (i, j) = (at / keys, at % keys);
        for d in 0..head_dim {
            dq[i * head_dim + d] += ds * k[j * head_dim + d] / scale;
            dk[j * head_dim + d] += ds * q[i * head_dim + d] / scale;
        }
    }
    [dq, dk, dv]
}
