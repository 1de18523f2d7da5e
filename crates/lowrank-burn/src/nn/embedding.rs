//! [`burn::nn::Embedding`] with adapters as a second, narrow look-up.

use burn::module::{Module, Param};
use burn::tensor::module::embedding;
use burn::tensor::{Device, Int, Tensor};

use super::Fused;
use super::adapted::{Adapted, by_sample, never};
use super::dora::{self, Share};

/// The configuration of an [`Embedding`] layer: Burn's own.
pub use burn::nn::EmbeddingConfig;

/// A table of vectors, as [`burn::nn::Embedding`].
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[n_embedding, d_model]`.
    pub weight: Param<Tensor<2>>,
    #[module(skip)]
    fused: Fused,
}

impl From<burn::nn::Embedding> for Embedding {
    fn from(layer: burn::nn::Embedding) -> Self {
        Self { weight: layer.weight, fused: Fused }
    }
}

impl Embedding {
    /// A layer with Burn's initialisation.
    #[must_use]
    pub fn new(config: &EmbeddingConfig, device: &Device) -> Self {
        config.init(device).into()
    }

    /// Looks up `W[id] + s·B·A[:, id]` for every id, or the row that `trainable_token_indices` has for it, with `DoRA` times its gain; `lora_dropout` does not apply to embeddings, as in PEFT.
    ///
    /// # Shapes
    /// - input: `[batch, length]`
    /// - output: `[batch, length, d_model]`
    ///
    /// # Panics
    /// When an id is not below `n_embedding`.
    #[must_use]
    pub fn forward(&self, input: Tensor<2, Int>) -> Tensor<3> {
        by_sample(input, &self.weight, None, never, |input, weight, _| adapted(input, weight))
    }
}

fn adapted(input: Tensor<2, Int>, weight: &Adapted<'_, 2>) -> Tensor<3> {
    if let Some(rows) = weight.rows() {
        let found = embedding(weight.base(), input.clone());
        return rows.into_iter().fold(found, |found, rows| rows.look_up(found, input.clone()));
    }
    let Some(paths) = weight.low_rank() else {
        return embedding(weight.val(), input);
    };
    let (original, weight) = (weight.original(), weight.base());
    let shares = paths.into_iter().map(|(path, multiplier)| {
        let rows = embedding(path.a.val().transpose(), input.clone());
        let [batch, length, rank] = rows.dims();
        let delta = rows.reshape([batch * length, rank]).matmul(path.b.val().transpose());
        let dim = delta.dims()[1];
        Share {
            added: delta.mul_scalar(path.scale * multiplier).reshape([batch, length, dim]).cast(weight.dtype()),
            gain: path.gain(&original, multiplier).map(|gain| dora::along(gain.cast(weight.dtype()), 2)),
            dropped: None,
        }
    });
    dora::in_turn(embedding(weight.clone(), input.clone()), shares)
}
