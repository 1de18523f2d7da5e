//! Attention between hidden states, as `WhisperAttention`.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::nn::{Linear, LinearConfig};
use crate::ops;

/// Attention of several heads between its projections. The projection of the keys has no bias.
#[derive(Module, Debug)]
pub struct Attention {
    /// To the keys.
    pub k_proj: Linear,
    /// To the values.
    pub v_proj: Linear,
    /// To the queries.
    pub q_proj: Linear,
    /// From the heads.
    pub out_proj: Linear,
    /// How many heads share the width.
    pub heads: usize,
}

/// The keys and values that queries look at, each `[batch, time, width]`.
#[derive(Debug, Clone)]
pub struct Seen {
    keys: Tensor<3>,
    values: Tensor<3>,
}

impl Seen {
    /// These, and later ones after them.
    #[must_use]
    pub(super) fn followed_by(self, later: Self) -> Self {
        let joined = |one, two| Tensor::cat(vec![one, two], 1);
        Self { keys: joined(self.keys, later.keys), values: joined(self.values, later.values) }
    }

    /// Those of the rows of the batch at `rows`, in that order.
    #[must_use]
    pub(super) fn of_rows(&self, rows: &Tensor<1, burn::tensor::Int>) -> Self {
        let of = |tensor: &Tensor<3>| tensor.clone().select(0, rows.clone());
        Self { keys: of(&self.keys), values: of(&self.values) }
    }
}

impl Attention {
    pub(super) fn new(width: usize, heads: usize, device: &Device) -> Self {
        let linear = |bias| Linear::new(&LinearConfig::new(width, width).with_bias(bias), device);
        Self { k_proj: linear(false), v_proj: linear(true), q_proj: linear(true), out_proj: linear(true), heads }
    }

    /// What `x` shows to queries.
    #[must_use]
    pub fn seen(&self, x: &Tensor<3>) -> Seen {
        Seen { keys: self.k_proj.forward(x.clone()), values: self.v_proj.forward(x.clone()) }
    }

    /// What the queries of `x` find; with `causal`, query `i` sees the keys up to `i`.
    ///
    /// # Shapes
    /// - input and output: `[batch, queries, width]`
    #[must_use]
    pub fn forward(&self, x: Tensor<3>, seen: &Seen, causal: bool) -> Tensor<3> {
        let queries = self.q_proj.forward(x);
        self.out_proj.forward(ops::attention(queries, seen.keys.clone(), seen.values.clone(), self.heads, causal))
    }
}
