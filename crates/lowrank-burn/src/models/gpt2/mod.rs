//! GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019), with the keys and module paths of
//! transformers' `GPT2LMHeadModel`, whose linear layers are transformers' `Conv1D`.
//!
//! Tokens and their positions are looked up, layers of causal attention and feed-forward parts follow, and the logits of the
//! next token are the product with the table of tokens. Sequences of a batch have one length; there is no attention mask.

mod config;

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Int, Tensor};

use crate::models::hidden_act::HiddenAct;
use crate::nn::{Embedding, EmbeddingConfig, HfConv1D, LayerNorm, LayerNormConfig};
use crate::ops::{attention, linear};
pub use config::Gpt2Config;

/// The network.
#[derive(Module, Debug)]
pub struct Gpt2 {
    /// All but the logits, which are of the table of tokens.
    pub transformer: Transformer,
}

/// transformers' `GPT2Model`.
#[derive(Module, Debug)]
pub struct Transformer {
    /// Tokens.
    pub wte: Embedding,
    /// Positions.
    pub wpe: Embedding,
    /// Of the sum of both.
    pub drop: Dropout,
    /// The layers.
    pub h: Vec<Block>,
    /// After them.
    pub ln_f: LayerNorm,
}

/// Attention and a feed-forward part, each after a norm and beside a residual path.
#[derive(Module, Debug)]
pub struct Block {
    /// Before the attention.
    pub ln_1: LayerNorm,
    /// Over the tokens so far.
    pub attn: Attention,
    /// Before the feed-forward part.
    pub ln_2: LayerNorm,
    /// For each token.
    pub mlp: Mlp,
}

/// Causal attention of several heads.
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries, keys and values side by side.
    pub c_attn: HfConv1D,
    /// Of the heads together.
    pub c_proj: HfConv1D,
    /// Of the outputs.
    pub resid_dropout: Dropout,
    heads: usize,
}

/// Two linear layers around an activation.
#[derive(Module, Debug)]
pub struct Mlp {
    /// To the inner width.
    pub c_fc: HfConv1D,
    /// Back.
    pub c_proj: HfConv1D,
    /// Of the outputs.
    pub dropout: Dropout,
    #[module(skip)]
    activation: HiddenAct,
}

impl Gpt2 {
    /// A network with random weights.
    #[must_use]
    pub fn new(config: &Gpt2Config, device: &Device) -> Self {
        let width = config.n_embd;
        let transformer = Transformer {
            wte: Embedding::new(&EmbeddingConfig::new(config.vocab_size, width), device),
            wpe: Embedding::new(&EmbeddingConfig::new(config.n_positions, width), device),
            drop: DropoutConfig::new(config.embd_pdrop).init(),
            h: (0..config.n_layer).map(|_| Block::new(config, device)).collect(),
            ln_f: norm(config, device),
        };
        Self { transformer }
    }

    /// Logits of the token after each.
    ///
    /// # Shapes
    /// - input: `[batch, tokens]`, ids below `vocab_size`, at most `n_positions` of them
    /// - output: `[batch, tokens, vocab_size]`
    ///
    /// # Panics
    /// When an id or the length is too large.
    #[must_use]
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let wte = &self.transformer.wte;
        linear(self.transformer.forward(tokens), wte.weight.val().transpose(), None)
    }
}

impl Transformer {
    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let ([_, length], device) = (tokens.dims(), tokens.device());
        let positions = Tensor::arange(0..i64::try_from(length).unwrap_or(i64::MAX), &device).unsqueeze();
        let x = self.drop.forward(self.wte.forward(tokens) + self.wpe.forward(positions));
        self.ln_f.forward(self.h.iter().fold(x, |x, block| block.forward(x)))
    }
}

impl Block {
    fn new(config: &Gpt2Config, device: &Device) -> Self {
        let (width, inner) = (config.n_embd, config.inner());
        let dropout = || DropoutConfig::new(config.resid_pdrop).init();
        Self {
            ln_1: norm(config, device),
            attn: Attention {
                c_attn: HfConv1D::new(width, 3 * width, device),
                c_proj: HfConv1D::new(width, width, device),
                resid_dropout: dropout(),
                heads: config.n_head,
            },
            ln_2: norm(config, device),
            mlp: Mlp {
                c_fc: HfConv1D::new(width, inner, device),
                c_proj: HfConv1D::new(inner, width, device),
                dropout: dropout(),
                activation: config.activation_function,
            },
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attn.forward(self.ln_1.forward(x));
        x.clone() + self.mlp.forward(self.ln_2.forward(x))
    }
}

impl Attention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let width = x.dims()[2];
        let all = self.c_attn.forward(x);
        let [q, k, v] = [0, 1, 2].map(|part| all.clone().narrow(2, part * width, width));
        self.resid_dropout.forward(self.c_proj.forward(attention(q, k, v, self.heads, true)))
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.activation.forward(self.c_fc.forward(x));
        self.dropout.forward(self.c_proj.forward(x))
    }
}

fn norm(config: &Gpt2Config, device: &Device) -> LayerNorm {
    LayerNorm::new(&LayerNormConfig::new(config.n_embd).with_epsilon(config.layer_norm_epsilon), device)
}
