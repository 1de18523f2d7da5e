//! The transformer: positions by a convolution, then layers of attention and feed-forward parts.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, PaddingConfig1d};
use burn::tensor::{Device, Tensor};

use super::config::SpeechConfig;
use crate::models::hidden_act::HiddenAct;
use crate::nn::{Conv1d, Conv1dConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use crate::ops::attention;

/// `encoder`.
#[derive(Module, Debug)]
pub struct Encoder {
    /// Where a frame is, from those around it.
    pub pos_conv_embed: PositionalConvEmbedding,
    /// Before the layers; with `do_stable_layer_norm` after them.
    pub layer_norm: LayerNorm,
    /// Before the layers.
    pub dropout: Dropout,
    /// In order.
    pub layers: Vec<EncoderLayer>,
    pre_norm: bool,
}

/// A grouped convolution with a long kernel, which checkpoints hold with weight normalisation over the kernel's positions.
#[derive(Module, Debug)]
pub struct PositionalConvEmbedding {
    /// Keeps the length.
    pub conv: Conv1d,
    #[module(skip)]
    activation: HiddenAct,
}

/// Attention and a feed-forward part, each beside a residual path.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    /// Over all frames.
    pub attention: Attention,
    /// Of the attention's outputs.
    pub dropout: Dropout,
    /// After the attention; with `do_stable_layer_norm` before it.
    pub layer_norm: LayerNorm,
    /// For each frame.
    pub feed_forward: FeedForward,
    /// After the feed-forward part; with `do_stable_layer_norm` before it.
    pub final_layer_norm: LayerNorm,
    pre_norm: bool,
}

/// Scaled dot-product attention of several heads.
#[derive(Module, Debug)]
pub struct Attention {
    /// Keys.
    pub k_proj: Linear,
    /// Values.
    pub v_proj: Linear,
    /// Queries.
    pub q_proj: Linear,
    /// Of the heads together.
    pub out_proj: Linear,
    heads: usize,
}

/// Two linear layers around an activation.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// After the activation.
    pub intermediate_dropout: Dropout,
    /// To `intermediate_size`.
    pub intermediate_dense: Linear,
    /// Back to `hidden_size`.
    pub output_dense: Linear,
    /// Of the outputs.
    pub output_dropout: Dropout,
    #[module(skip)]
    activation: HiddenAct,
}

impl Encoder {
    /// A transformer with Burn's initialisation.
    #[must_use]
    pub fn new(config: &SpeechConfig, device: &Device) -> Self {
        Self {
            pos_conv_embed: PositionalConvEmbedding::new(config, device),
            layer_norm: norm(config, device),
            dropout: DropoutConfig::new(config.hidden_dropout).init(),
            layers: (0..config.num_hidden_layers).map(|_| EncoderLayer::new(config, device)).collect(),
            pre_norm: config.do_stable_layer_norm,
        }
    }

    /// What the first layer reads and what each layer says, as transformers' `hidden_states`, and the outputs.
    ///
    /// # Shapes
    /// - input: `[batch, frames, hidden_size]`
    /// - each output: that of the input
    #[must_use]
    pub fn forward(&self, input: Tensor<3>) -> (Vec<Tensor<3>>, Tensor<3>) {
        let x = input.clone() + self.pos_conv_embed.forward(input);
        let x = if self.pre_norm { x } else { self.layer_norm.forward(x) };
        let mut states = vec![self.dropout.forward(x)];
        for layer in &self.layers {
            let state = layer.forward(states[states.len() - 1].clone());
            states.push(state);
        }
        let last = states[states.len() - 1].clone();
        let output = if self.pre_norm { self.layer_norm.forward(last) } else { last };
        (states, output)
    }
}

impl PositionalConvEmbedding {
    fn new(config: &SpeechConfig, device: &Device) -> Self {
        let (kernel, width) = (config.num_conv_pos_embeddings, config.hidden_size);
        // An even kernel makes one frame too many, and the last is dropped.
        let padding = PaddingConfig1d::Explicit(kernel / 2, (kernel - 1) / 2);
        let conv = Conv1dConfig::new(width, width, kernel)
            .with_groups(config.num_conv_pos_embedding_groups)
            .with_padding(padding);
        Self { conv: Conv1d::new(&conv, device), activation: config.feat_extract_activation }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.activation.forward(self.conv.forward(x.swap_dims(1, 2))).swap_dims(1, 2)
    }
}

impl EncoderLayer {
    fn new(config: &SpeechConfig, device: &Device) -> Self {
        Self {
            attention: Attention::new(config.hidden_size, config.num_attention_heads, device),
            dropout: DropoutConfig::new(config.hidden_dropout).init(),
            layer_norm: norm(config, device),
            feed_forward: FeedForward::new(config, device),
            final_layer_norm: norm(config, device),
            pre_norm: config.do_stable_layer_norm,
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let attend = |x| self.dropout.forward(self.attention.forward(&x));
        if self.pre_norm {
            let x = x.clone() + attend(self.layer_norm.forward(x));
            x.clone() + self.feed_forward.forward(self.final_layer_norm.forward(x))
        } else {
            let x = self.layer_norm.forward(x.clone() + attend(x));
            self.final_layer_norm.forward(x.clone() + self.feed_forward.forward(x))
        }
    }
}

impl Attention {
    fn new(width: usize, heads: usize, device: &Device) -> Self {
        let linear = || Linear::new(&LinearConfig::new(width, width), device);
        Self { k_proj: linear(), v_proj: linear(), q_proj: linear(), out_proj: linear(), heads }
    }

    fn forward(&self, x: &Tensor<3>) -> Tensor<3> {
        let [q, k, v] = [&self.q_proj, &self.k_proj, &self.v_proj].map(|layer| layer.forward(x.clone()));
        self.out_proj.forward(attention(q, k, v, self.heads, false))
    }
}

impl FeedForward {
    fn new(config: &SpeechConfig, device: &Device) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        Self {
            intermediate_dropout: DropoutConfig::new(config.activation_dropout).init(),
            intermediate_dense: Linear::new(&LinearConfig::new(width, inner), device),
            output_dense: Linear::new(&LinearConfig::new(inner, width), device),
            output_dropout: DropoutConfig::new(config.hidden_dropout).init(),
            activation: config.hidden_act,
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.activation.forward(self.intermediate_dense.forward(x));
        let x = self.output_dense.forward(self.intermediate_dropout.forward(x));
        self.output_dropout.forward(x)
    }
}

fn norm(config: &SpeechConfig, device: &Device) -> LayerNorm {
    LayerNorm::new(&LayerNormConfig::new(config.hidden_size).with_epsilon(config.layer_norm_eps), device)
}
