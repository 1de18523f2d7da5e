//! PyTorch's `nn.MultiheadAttention` with adapters on the fused operation.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

use super::{Fused, Linear, LinearConfig, linear};
use crate::ops::attention;

/// Attention of several heads with one weight for the projections of queries, keys and values (Vaswani et al., 2017): the
/// layer that PyTorch calls `nn.MultiheadAttention` with `batch_first=True`.
///
/// Burn's own `MultiHeadAttention` has four linear layers instead, which are adapted one by one. An adapter on this one is,
/// as in PEFT, one on `in_proj_weight` and one on `out_proj`, of one rank. PEFT 0.21.2 adds the second of them twice
/// (its issue 3774) and takes neither `DoRA`, dropout nor mixed batches here; this layer takes all but `DoRA`, which has no
/// place in PEFT's file.
#[derive(Module, Debug)]
pub struct MultiheadAttention {
    /// `[embed_dim, 3 · embed_dim]`, the transpose of PyTorch's: columns for the queries, the keys and the values.
    pub in_proj_weight: Param<Tensor<2>>,
    /// `[3 · embed_dim]`.
    pub in_proj_bias: Option<Param<Tensor<1>>>,
    /// From the heads, `embed_dim` to `embed_dim`.
    pub out_proj: Linear,
    /// How many heads share the width.
    pub num_heads: usize,
    #[module(skip)]
    fused: Fused,
}

impl MultiheadAttention {
    /// A layer with PyTorch's initialisation: the input projections uniform after Glorot and Bengio (2010), biases zero.
    ///
    /// # Panics
    /// When `num_heads` does not divide `embed_dim`.
    #[must_use]
    pub fn new(embed_dim: usize, num_heads: usize, bias: bool, device: &Device) -> Self {
        assert!(num_heads > 0 && embed_dim.is_multiple_of(num_heads), "{embed_dim} channels in {num_heads} heads");
        let (glorot, stacked) = (Initializer::XavierUniform { gain: 1.0 }, 3 * embed_dim);
        let mut out_proj = Linear::new(&LinearConfig::new(embed_dim, embed_dim).with_bias(bias), device);
        out_proj.bias = out_proj.bias.map(|_| Initializer::Zeros.init([embed_dim], device));
        Self {
            in_proj_weight: glorot.init_with([embed_dim, stacked], Some(embed_dim), Some(stacked), device),
            in_proj_bias: bias.then(|| Initializer::Zeros.init([stacked], device)),
            out_proj,
            num_heads,
            fused: Fused,
        }
    }

    /// What the positions of `x` find in one another; with `causal`, position `i` sees those up to `i`.
    ///
    /// # Shapes
    /// - input and output: `[batch, positions, embed_dim]`
    #[must_use]
    pub fn self_attention(&self, x: Tensor<3>, causal: bool) -> Tensor<3> {
        let projected = self.project(x);
        let [queries, keys, values] = [0, 1, 2].map(|at| part(&projected, at));
        self.out_proj.forward(attention(queries, keys, values, self.num_heads, causal))
    }

    /// What queries find in other positions.
    ///
    /// # Shapes
    /// - `query` and output: `[batch, queries, embed_dim]`
    /// - `key`, `value`: `[batch, keys, embed_dim]`
    #[must_use]
    pub fn forward(&self, query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Tensor<3> {
        let own = |(at, x)| part(&self.project(x), at);
        let [queries, keys, values] = [(0, query), (1, key), (2, value)].map(own);
        self.out_proj.forward(attention(queries, keys, values, self.num_heads, false))
    }

    /// Queries, keys and values side by side.
    fn project(&self, x: Tensor<3>) -> Tensor<3> {
        linear::forward(x, &self.in_proj_weight, self.in_proj_bias.as_ref())
    }
}

/// A third of the last axis.
fn part(projected: &Tensor<3>, at: usize) -> Tensor<3> {
    let width = projected.dims()[2] / 3;
    projected.clone().narrow(2, at * width, width)
}
