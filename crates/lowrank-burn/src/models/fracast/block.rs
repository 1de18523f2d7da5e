//! What the network is made of.

use burn::module::Module;
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor, TensorData};

use super::config::Keys;
use super::context::real;
use crate::nn::{BareConv1d, Conv1dConfig, Linear, LinearConfig};
use crate::ops::silu;

/// `torch.nn.RMSNorm` without an `eps` of its own.
pub(super) fn rms_norm(width: usize, device: &Device) -> RmsNorm {
    RmsNormConfig::new(width).with_epsilon(f64::from(f32::EPSILON)).init(device)
}

pub(super) fn linear(inputs: usize, outputs: usize, device: &Device) -> Linear {
    Linear::new(&LinearConfig::new(inputs, outputs), device)
}

fn depthwise(width: usize, kernel: usize, device: &Device) -> BareConv1d {
    BareConv1d::new(&Conv1dConfig::new(width, width, kernel).with_groups(width), device)
}

/// `down(silu(gate) · value)`, with `gate` and `value` the halves of `up(x)` (Shazeer, "GLU Variants Improve Transformer", 2020).
#[derive(Module, Debug)]
pub struct SwiGlu {
    /// To both halves.
    pub up: Linear,
    /// And back.
    pub down: Linear,
}

impl SwiGlu {
    pub(super) fn new(width: usize, hidden: usize, device: &Device) -> Self {
        Self { up: linear(width, 2 * hidden, device), down: linear(hidden, width, device) }
    }

    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let both = self.up.forward(x);
        let hidden = both.dims()[2] / 2;
        let (gate, value) = (both.clone().narrow(2, 0, hidden), both.narrow(2, hidden, hidden));
        self.down.forward(silu(gate) * value)
    }
}

/// A causal depthwise filter, a mix of the channels, and a feed-forward layer, each beside a residual path. One block serves at
/// every scale: the dilation comes with the input.
#[derive(Module, Debug)]
pub struct Block {
    /// The filter, `dw_weight` and `dw_bias`.
    pub dw: BareConv1d,
    /// From channel to channel.
    pub pw: Linear,
    /// The feed-forward layer.
    pub ffn: SwiGlu,
    /// After the filter.
    pub norm1: RmsNorm,
    /// After the feed-forward layer.
    pub norm2: RmsNorm,
}

impl Block {
    pub(super) fn new(keys: &Keys, device: &Device) -> Self {
        let width = keys.d_model;
        Self {
            dw: depthwise(width, keys.kernel_size, device),
            pw: linear(width, width, device),
            ffn: SwiGlu::new(width, keys.d_hidden(), device),
            norm1: rms_norm(width, device),
            norm2: rms_norm(width, device),
        }
    }

    /// `[batch, length, width]` to the same.
    pub(super) fn forward(&self, x: Tensor<3>, dilation: usize) -> Tensor<3> {
        let filtered = self.dw.forward(x.clone().swap_dims(1, 2), dilation).swap_dims(1, 2);
        let x = self.norm1.forward(x + self.pw.forward(filtered));
        self.norm2.forward(x.clone() + self.ffn.forward(x))
    }
}

/// Tells a block at which scale it works: `x·(1 + γ) + β`, with `γ` and `β` from the logarithm of the dilation.
#[derive(Module, Debug)]
pub struct ScaleCondition {
    /// To `γ` and `β`.
    pub to_gb: Linear,
}

impl ScaleCondition {
    pub(super) fn new(keys: &Keys, device: &Device) -> Self {
        Self { to_gb: linear(2 * keys.scale_frequencies(), 2 * keys.d_model, device) }
    }

    pub(super) fn forward(&self, x: Tensor<3>, features: Tensor<3>) -> Tensor<3> {
        let width = x.dims()[2];
        let both = self.to_gb.forward(features);
        let (gamma, beta) = (both.clone().narrow(2, 0, width), both.narrow(2, width, width));
        x * gamma.add_scalar(1.0) + beta
    }
}

/// Sines and cosines of `log2(dilation)`: `[1, 1, 2 · frequencies]`.
pub(super) fn scale_features(dilation: usize, frequencies: usize, device: &Device) -> Tensor<3> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a small number, as in PyTorch")]
    let tau = (dilation as f64).log2() as f32;
    let angle = |frequency: usize| tau / 2_f32.powf(real(frequency)) * std::f32::consts::PI;
    let sines = (0..frequencies).map(|frequency| angle(frequency).sin());
    let features: Vec<f32> = sines.chain((0..frequencies).map(|frequency| angle(frequency).cos())).collect();
    Tensor::from_data(TensorData::new(features, [1, 1, 2 * frequencies]), device)
}

/// A causal depthwise filter along the horizon beside a residual path.
#[derive(Module, Debug)]
pub struct HorizonBlock {
    /// The filter, `dw_weight` and `dw_bias`.
    pub dw: BareConv1d,
    /// After it.
    pub norm: RmsNorm,
}

impl HorizonBlock {
    pub(super) fn new(keys: &Keys, device: &Device) -> Self {
        Self { dw: depthwise(keys.d_model, keys.head_fc_kernel, device), norm: rms_norm(keys.d_model, device) }
    }

    pub(super) fn forward(&self, x: Tensor<3>, dilation: usize) -> Tensor<3> {
        let filtered = self.dw.forward(x.clone().swap_dims(1, 2), dilation).swap_dims(1, 2);
        self.norm.forward(x + filtered)
    }
}
