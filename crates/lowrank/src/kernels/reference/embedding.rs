//! Embeddings: `nn.Embedding`.

use super::Gradients;

/// `y[n, d] = w[ids[n], d]`, for `w` of shape `(num_embeddings, dim)`.
#[must_use]
pub fn forward(dim: usize, ids: &[usize], w: &[f64]) -> Vec<f64> {
    ids.iter().flat_map(|id| &w[id * dim..][..dim]).copied().collect()
}

/// The gradients of `sum(dy * forward(ids, w))`; there is none by the indices, and no bias.
#[must_use]
pub fn backward(dim: usize, ids: &[usize], w: &[f64], dy: &[f64]) -> Gradients {
    let mut dw = vec![0.0; w.len()];
    for (id, dy) in ids.iter().zip(dy.chunks_exact(dim)) {
        for d in 0..dim {
            dw[id * dim + d] += dy[d];
        }
    }
    Gradients { dx: Vec::new(), dw, dbias: Vec::new() }
}
