//! Scaled dot-product attention of several heads.

mod body;
mod flex;
mod graph;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

pub use body::AttentionBody;
pub use graph::Attend;

/// What attention needs beside its tensors.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// How many heads share the last axis.
    pub count: usize,
    /// Whether query `i` sees the keys `j ≤ i` alone.
    pub causal: bool,
}

/// Scaled dot-product attention (Vaswani et al., 2017) of several heads, where linear projections put them:
/// `softmax(q·kᵀ / √(width / heads))·v` for each head, columns `h·width/heads` to `(h + 1)·width/heads` of the last axis.
///
/// On the CPU no head is moved and the scores are never kept: the backward computes them again, from one number for each
/// head and query. With `causal`, query `i` sees the keys `j ≤ i` alone.
///
/// # Shapes
/// - `q`: `[batch, queries, width]`, `k`, `v`: `[batch, keys, width]`
/// - output: `[batch, queries, width]`
///
/// # Panics
/// When a shape does not fit another, or `heads` does not divide the width.
#[must_use]
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: usize, causal: bool) -> Tensor<3> {
    let ([batch, _, width], keys) = (q.dims(), k.dims());
    assert_eq!([keys, v.dims()], [[batch, keys[1], width]; 2], "keys and values of the queries' batch and width");
    assert!(heads > 0 && width.is_multiple_of(heads), "{width} columns in {heads} heads");
    Tensor::from_dispatch(<Dispatch as Attend>::attend(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        Heads { count: heads, causal },
    ))
}
