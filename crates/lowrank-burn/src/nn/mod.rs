//! Layers that are drop-in replacements for Burn's: the same fields and names, the same parameters, and a forward that
//! sends an attached adapter through the fused operations of [`crate::ops`].
//!
//! Change `use burn::nn::conv::Conv1d` to `use lowrank_burn::nn::Conv1d` and a model trains its adapters without the
//! dense weight gradient, and with `lora_dropout`. [`Conv1d`] has PyTorch's padding modes besides; [`BareConv1d`] is the filter that
//! serves at many dilations. [`HfConv1D`] and [`MultiheadAttention`] have no counterpart in Burn.
//!
//! What stands between such layers is here too, in one pass over memory each: [`LayerNorm`], [`GroupNorm`], [`BatchNorm`] by
//! its running statistics, [`Gelu`] and [`Lstm`]. Adapters do not attach to them.

mod adapted;
mod bare_conv1d;
mod batch_norm;
mod conv;
mod conv1d;
mod conv2d;
mod conv3d;
mod conv_transpose1d;
mod conv_transpose2d;
mod dora;
mod embedding;
mod gelu;
mod group_norm;
mod hf_conv1d;
mod layer_norm;
mod linear;
mod lstm;
mod multihead_attention;
mod observe;

pub use bare_conv1d::BareConv1d;
pub use batch_norm::{BatchNorm, BatchNormConfig};
pub use conv_transpose1d::{ConvTranspose1d, ConvTranspose1dConfig};
pub use conv_transpose2d::{ConvTranspose2d, ConvTranspose2dConfig};
pub use conv1d::{Conv1d, Conv1dConfig};
pub use conv2d::{Conv2d, Conv2dConfig};
pub use conv3d::{Conv3d, Conv3dConfig};
pub use embedding::{Embedding, EmbeddingConfig};
pub use gelu::Gelu;
pub use group_norm::{GroupNorm, GroupNormConfig};
pub use hf_conv1d::HfConv1D;
pub use layer_norm::{LayerNorm, LayerNormConfig};
pub use linear::{Linear, LinearConfig};
pub use lstm::{Lstm, LstmConfig};
pub use multihead_attention::MultiheadAttention;

/// Marks a layer whose forward knows adapters. Attaching sees it in the layer's `Debug` form.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fused;
