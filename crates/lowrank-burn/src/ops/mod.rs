//! The fused operations: a frozen layer and its adapter as one node of the autodiff graph.
//!
//! Each operation has three layers, and a faster backend replaces only the innermost:
//!
//! 1. a function on Burn tensors ([`lora_conv`], [`lora_linear`]), for layers and models;
//! 2. a backend extension that carries the operation, and its backward, through autodiff;
//! 3. a body ([`ConvBody`], [`LinearBody`]): forward and gradients on one backend. The default is written in Burn
//!    operations and works on every backend.
//!
//! Flex has bodies of its own. With the feature `wgpu`, Burn's `Cube` has the default ones: `wgpu`, and the other devices of
//! that backend whose features of Burn are on. On any other backend the operations panic.
//!
//! The backward is the reason they exist. Autodiff over `W + s·B·A` computes the dense gradient of `W`, as large and as
//! slow as training `W` itself, and throws it away; over two separate paths it keeps full-size activations. Here only
//! `x` is kept, and the gradients are low-rank from the start.
//!
//! [`DoRA`](lowrank::adapter::dora) needs no operation of its own: with its gain in `W` and in `B` it is a plain adapter,
//! and [`magnitude`] takes the gradient that is left from the layer's output.
//!
//! What surrounds the adapters must not eat what they save: activations, normalisation, [`softmax`], [`attention`] and [`lstm`] follow
//! the same pattern, one pass over memory each, and keep the least that their backward can do with.

mod activation;
mod attention;
mod cast;
mod conv;
#[cfg(feature = "wgpu")]
mod cube;
mod flex;
mod graph;
mod linear;
mod lstm;
mod magnitude;
mod norm;
mod softmax;

pub use activation::{Activate, ActivationBody, activate, gelu, gelu_approximate, leaky_relu, relu, silu};
pub use attention::{Attend, AttentionBody, Heads, attention};
pub use conv::{
    ConvBody, ConvDims, Factors, LoraConv, LowRankConv, OwnConv, Transposed, convolve, convolve_each, lora_conv,
};
pub use linear::{LinearBody, LoraLinear, linear, lora_linear};
pub use lstm::{Lstm, LstmBody, LstmStep, lstm, lstm_cell};
pub use magnitude::{Magnitude, MagnitudeBody, magnitude};
pub use norm::{Norm, NormBody, NormGradients, NormWants, Normalise, batch_norm_eval, group_norm, layer_norm};
pub use softmax::{Softmax, SoftmaxBody, softmax};
