//! The fused operations: a frozen layer and its adapter as one node of the autodiff graph.
//!
//! Each operation has three layers, and a faster backend replaces only the innermost:
//!
//! 1. a function on Burn tensors ([`lora_conv`], [`lora_linear`]), for layers and models;
//! 2. a backend extension that carries the operation, and its backward, through autodiff;
//! 3. a body ([`ConvBody`], [`LinearBody`]): forward and gradients on one backend. The default is written in Burn
//!    operations and works on every backend.
//!
//! The backward is the reason they exist. Autodiff over `W + s·B·A` computes the dense gradient of `W`, as large and as
//! slow as training `W` itself, and throws it away; over two separate paths it keeps full-size activations. Here only
//! `x` is kept, and the gradients are low-rank from the start.

mod conv;
mod linear;

pub use conv::{ConvBody, ConvDims, LoraConv, LowRankConv, convolve, lora_conv};
pub use linear::{LinearBody, LoraLinear, lora_linear};
