//! From log-mel frames to hidden states: two convolutions, positions, pre-norm blocks.

use burn::module::Module;
use burn::nn::PaddingConfig1d;
use burn::tensor::{Device, Tensor};

use super::{Attention, WhisperConfig};
use crate::nn::{Conv1d, Conv1dConfig, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use crate::ops::gelu;

/// The encoder.
#[derive(Module, Debug)]
pub struct Encoder {
    /// From mel bins to the width.
    pub conv1: Conv1d,
    /// Halves the frames.
    pub conv2: Conv1d,
    /// A vector for each position; sinusoids in the published checkpoints, never trained.
    pub embed_positions: Embedding,
    /// The blocks.
    pub layers: Vec<EncoderLayer>,
    /// After the last block.
    pub layer_norm: LayerNorm,
}

/// A pre-norm block.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    /// Between all positions.
    pub self_attn: Attention,
    /// Before it.
    pub self_attn_layer_norm: LayerNorm,
    /// Out of the width.
    pub fc1: Linear,
    /// Back into it.
    pub fc2: Linear,
    /// Before the two.
    pub final_layer_norm: LayerNorm,
}

impl Encoder {
    pub(super) fn new(config: &WhisperConfig, device: &Device) -> Self {
        let conv = |inputs, stride| {
            let settings = Conv1dConfig::new(inputs, config.d_model, 3).with_stride(stride);
            Conv1d::new(&settings.with_padding(PaddingConfig1d::Explicit(1, 1)), device)
        };
        let positions = EmbeddingConfig::new(config.max_source_positions, config.d_model);
        Self {
            conv1: conv(config.num_mel_bins, 1),
            conv2: conv(config.d_model, 2),
            embed_positions: Embedding::new(&positions, device).no_grad(),
            layers: (0..config.encoder_layers).map(|_| EncoderLayer::new(config, device)).collect(),
            layer_norm: LayerNorm::new(&LayerNormConfig::new(config.d_model), device),
        }
    }

    /// Hidden states of a window. A window shorter than the longest is not padded to it: its positions are the first.
    ///
    /// # Shapes
    /// - input: `[batch, num_mel_bins, frames]`
    /// - output: `[batch, frames / 2, d_model]`
    ///
    /// # Panics
    /// When there are more frames than `2 * max_source_positions`.
    #[must_use]
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let x = gelu(self.conv1.forward(input));
        let x = gelu(self.conv2.forward(x)).swap_dims(1, 2);
        let positions = self.embed_positions.weight.val().narrow(0, 0, x.dims()[1]);
        let x = x + positions.unsqueeze();
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x));
        self.layer_norm.forward(x)
    }
}

impl EncoderLayer {
    fn new(config: &WhisperConfig, device: &Device) -> Self {
        let (width, inner) = (config.d_model, config.encoder_ffn_dim);
        let norm = || LayerNorm::new(&LayerNormConfig::new(width), device);
        Self {
            self_attn: Attention::new(width, config.encoder_attention_heads, device),
            self_attn_layer_norm: norm(),
            fc1: Linear::new(&LinearConfig::new(width, inner), device),
            fc2: Linear::new(&LinearConfig::new(inner, width), device),
            final_layer_norm: norm(),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let normed = self.self_attn_layer_norm.forward(x.clone());
        let seen = self.self_attn.seen(&normed);
        let x = x + self.self_attn.forward(normed, &seen, false);
        let hidden = gelu(self.fc1.forward(self.final_layer_norm.forward(x.clone())));
        x + self.fc2.forward(hidden)
    }
}
