//! From tokens and what the encoder heard to hidden states of the next tokens, with everything computed once.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use super::attention::Seen;
use super::{Attention, WhisperConfig};
use crate::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use crate::ops::gelu;

/// The decoder.
#[derive(Module, Debug)]
pub struct Decoder {
    /// A vector for each token; also the projection to the logits.
    pub embed_tokens: Embedding,
    /// A vector for each position.
    pub embed_positions: Embedding,
    /// The blocks.
    pub layers: Vec<DecoderLayer>,
    /// After the last block.
    pub layer_norm: LayerNorm,
    /// What embeddings of tokens are multiplied by.
    pub embed_scale: f64,
}

/// A pre-norm block.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// To the tokens so far.
    pub self_attn: Attention,
    /// Before it.
    pub self_attn_layer_norm: LayerNorm,
    /// To what the encoder heard.
    pub encoder_attn: Attention,
    /// Before it.
    pub encoder_attn_layer_norm: LayerNorm,
    /// Out of the width.
    pub fc1: Linear,
    /// Back into it.
    pub fc2: Linear,
    /// Before the two.
    pub final_layer_norm: LayerNorm,
}

/// What the decoder has computed of a batch so far: keys and values of every block.
#[derive(Debug, Clone)]
pub struct Cache {
    layers: Vec<LayerCache>,
    /// Tokens so far.
    tokens: usize,
}

#[derive(Debug, Clone)]
struct LayerCache {
    heard: Seen,
    said: Option<Seen>,
}

impl Cache {
    /// That of the rows of the batch at `rows`, in that order; a row may be there more than once.
    #[must_use]
    pub fn of_rows(&self, rows: &Tensor<1, Int>) -> Self {
        let layers = self.layers.iter().map(|layer| LayerCache {
            heard: layer.heard.of_rows(rows),
            said: layer.said.as_ref().map(|said| said.of_rows(rows)),
        });
        Self { layers: layers.collect(), tokens: self.tokens }
    }
}

impl Decoder {
    pub(super) fn new(config: &WhisperConfig, device: &Device) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a width")]
        let root = (config.d_model as f64).sqrt();
        let embedding = |rows| Embedding::new(&EmbeddingConfig::new(rows, config.d_model), device);
        Self {
            embed_tokens: embedding(config.vocab_size),
            embed_positions: embedding(config.max_target_positions),
            layers: (0..config.decoder_layers).map(|_| DecoderLayer::new(config, device)).collect(),
            layer_norm: LayerNorm::new(&LayerNormConfig::new(config.d_model), device),
            embed_scale: if config.scale_embedding { root } else { 1.0 },
        }
    }

    /// A cache before the first token, from the encoder's hidden states `[batch, time, d_model]`.
    #[must_use]
    pub fn begin(&self, heard: &Tensor<3>) -> Cache {
        let layer = |layer: &DecoderLayer| LayerCache { heard: layer.encoder_attn.seen(heard), said: None };
        Cache { layers: self.layers.iter().map(layer).collect(), tokens: 0 }
    }

    /// Hidden states of the next tokens: all of a text at once after [`Self::begin`], then one token at a time.
    ///
    /// # Shapes
    /// - tokens: `[batch, length]`
    /// - output: `[batch, length, d_model]`
    ///
    /// # Panics
    /// When there are more tokens than `max_target_positions`, or several at once after others.
    #[must_use]
    pub fn forward(&self, tokens: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        let length = tokens.dims()[1];
        assert!(length == 1 || cache.tokens == 0, "after the first tokens, one at a time");
        let embedded = self.embed_tokens.forward(tokens).mul_scalar(self.embed_scale);
        let positions = self.embed_positions.weight.val().narrow(0, cache.tokens, length);
        cache.tokens += length;
        let x = embedded + positions.unsqueeze();
        let x = self.layers.iter().zip(&mut cache.layers).fold(x, |x, (layer, cache)| layer.forward(x, cache));
        self.layer_norm.forward(x)
    }

    /// Logits of the next token by its hidden state: `x·Wᵀ` with the table of tokens, adapted if it is.
    ///
    /// # Shapes
    /// - input: `[rows, d_model]`
    /// - output: `[rows, vocab_size]`
    #[must_use]
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        hidden.matmul(self.embed_tokens.weight.val().transpose())
    }
}

impl DecoderLayer {
    fn new(config: &WhisperConfig, device: &Device) -> Self {
        let (width, inner) = (config.d_model, config.decoder_ffn_dim);
        let norm = || LayerNorm::new(&LayerNormConfig::new(width), device);
        let attention = || Attention::new(width, config.decoder_attention_heads, device);
        Self {
            self_attn: attention(),
            self_attn_layer_norm: norm(),
            encoder_attn: attention(),
            encoder_attn_layer_norm: norm(),
            fc1: Linear::new(&LinearConfig::new(width, inner), device),
            fc2: Linear::new(&LinearConfig::new(inner, width), device),
            final_layer_norm: norm(),
        }
    }

    fn forward(&self, x: Tensor<3>, cache: &mut LayerCache) -> Tensor<3> {
        let normed = self.self_attn_layer_norm.forward(x.clone());
        let new = self.self_attn.seen(&normed);
        let said = match cache.said.take() {
            Some(earlier) => earlier.followed_by(new),
            None => new,
        };
        let causal = x.dims()[1] > 1;
        let x = x + self.self_attn.forward(normed, &said, causal);
        cache.said = Some(said);
        let normed = self.encoder_attn_layer_norm.forward(x.clone());
        let x = x + self.encoder_attn.forward(normed, &cache.heard, false);
        let hidden = gelu(self.fc1.forward(self.final_layer_norm.forward(x.clone())));
        x + self.fc2.forward(hidden)
    }
}
