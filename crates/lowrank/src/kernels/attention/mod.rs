//! Scaled dot-product attention (Vaswani et al., 2017) of several heads, where the projections put them.
//!
//! `o_i = Σ_j p_ij·v_j` with `p_ij = e^(s_ij) / Σ_j e^(s_ij)` and `s_ij = q_i·k_j / √head_dim`, for each head: columns
//! `h·head_dim` to `(h + 1)·head_dim` of rows `[batch, time, heads·head_dim]`. No head is moved or copied out, and the
//! scores exist for one block of queries at a time, in the memory of a thread. The backward computes them again from the
//! logarithm of each row's sum, `l_i = ln Σ_j e^(s_ij)`: `p_ij = e^(s_ij − l_i)`, `dv_j = Σ_i p_ij·do_i`,
//! `ds_ij = p_ij·(dp_ij − Σ_j p_ij·dp_ij)` with `dp_ij = do_i·v_j`, `dq_i = Σ_j ds_ij·k_j / √head_dim`, and `dk_j`
//! likewise.
//!
//! Scratch of a thread: the keys and values of one head, packed, and their gradients; and a block of rows of the scores.
//! A task is a head of one example (in the forward, some of its queries), so that no sum depends on the number of threads.

mod backward;
mod forward;
mod scores;

use std::ops::Range;

use super::gemm::Matrix;

/// The shape of an attention over `[batch, time, heads·head_dim]`.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Examples.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Rows of `q` of an example.
    pub queries: usize,
    /// Rows of `k` and `v` of an example.
    pub keys: usize,
    /// Whether query `i` sees the keys `j ≤ i` alone, as in `PyTorch`'s `is_causal`.
    pub causal: bool,
}

/// Rows of the scores at a time: whole blocks of a product, on any machine.
const BLOCK: usize = 48;

impl Attention {
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// `1 / √head_dim`.
    #[expect(clippy::cast_precision_loss, reason = "a head has few columns")]
    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Where a head of an example begins in rows of so many an example.
    fn start(&self, rows: usize, [example, head]: [usize; 2]) -> usize {
        example * rows * self.width() + head * self.head_dim
    }

    /// A head of an example, `(rows, head_dim)`.
    fn head<'a>(&self, values: &'a [f32], rows: usize, head: [usize; 2]) -> Matrix<'a, f32> {
        let start = self.start(rows, head).min(values.len());
        Matrix::new(&values[start..], [rows, self.head_dim], [self.width(), 1])
    }

    /// How many keys a query sees.
    fn seen(&self, query: usize) -> usize {
        if self.causal { self.keys.min(query + 1) } else { self.keys }
    }

    /// Columns of a row of scores in scratch.
    fn row(&self) -> usize {
        self.keys.next_multiple_of(16)
    }

    fn check(&self, of_queries: [&[f32]; 2], of_keys: [&[f32]; 2]) {
        assert!(self.keys > 0 || self.queries == 0, "queries without keys");
        for (values, rows) in of_queries.iter().map(|q| (q, self.queries)).chain(of_keys.iter().map(|k| (k, self.keys)))
        {
            assert_eq!(values.len(), self.batch * rows * self.width(), "values of [batch, time, heads · head_dim]");
        }
    }
}

/// The blocks of some queries.
fn blocks(queries: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    queries.clone().step_by(BLOCK).map(move |first| first..queries.end.min(first + BLOCK))
}

#[cfg(test)]
mod tests;
