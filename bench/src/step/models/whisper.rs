//! The encoder of Whisper tiny (Radford et al., 2022) on log-mel frames.

use burn::module::{Module, Param};
use burn::nn::PaddingConfig1d;
use burn::tensor::{Device, Tensor, TensorData};
use lowrank_burn::nn::{Conv1d, Conv1dConfig, Linear, LinearConfig};

use super::{Batch, Net};
use crate::step::layers::{Head, LayerNorm, LayerNormConfig, attention, cross_entropy, gelu};

const WIDTH: usize = 384;
const HEADS: usize = 6;
const LAYERS: usize = 4;
const POSITIONS: usize = 1500;
const CLASSES: usize = 10;

/// The encoder, and a head on the mean over time.
#[derive(Module, Debug)]
pub struct Whisper {
    conv1: Conv1d,
    conv2: Conv1d,
    positions: Param<Tensor<2>>,
    layers: Vec<Layer>,
    layer_norm: LayerNorm,
    classifier: Head,
}

/// A pre-norm transformer block.
#[derive(Module, Debug)]
struct Layer {
    self_attn_layer_norm: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    final_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Layer {
    fn new(device: &Device) -> Self {
        let linear = |inputs, outputs| Linear::new(&LinearConfig::new(inputs, outputs), device);
        let norm = || LayerNorm::new(&LayerNormConfig::new(WIDTH), device);
        Self {
            self_attn_layer_norm: norm(),
            q_proj: linear(WIDTH, WIDTH),
            k_proj: Linear::new(&LinearConfig::new(WIDTH, WIDTH).with_bias(false), device),
            v_proj: linear(WIDTH, WIDTH),
            out_proj: linear(WIDTH, WIDTH),
            final_layer_norm: norm(),
            fc1: linear(WIDTH, 4 * WIDTH),
            fc2: linear(4 * WIDTH, WIDTH),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let attended = self.attention(&self.self_attn_layer_norm.forward(x.clone()));
        let x = x + attended;
        let hidden = gelu(self.fc1.forward(self.final_layer_norm.forward(x.clone())));
        x + self.fc2.forward(hidden)
    }

    fn attention(&self, x: &Tensor<3>) -> Tensor<3> {
        let project = |projection: &Linear| projection.forward(x.clone());
        let y = attention(project(&self.q_proj), project(&self.k_proj), project(&self.v_proj), HEADS, false);
        self.out_proj.forward(y)
    }
}

impl Net for Whisper {
    const TARGETS: &[&str] = &["conv1", "conv2", "q_proj", "v_proj"];
    const INPUT: [usize; 2] = [80, 300];

    fn new(device: &Device) -> Self {
        let conv = |inputs, stride| {
            let config = Conv1dConfig::new(inputs, WIDTH, 3).with_padding(PaddingConfig1d::Explicit(1, 1));
            Conv1d::new(&config.with_stride(stride), device)
        };
        Self {
            conv1: conv(80, 1),
            conv2: conv(WIDTH, 2),
            positions: Param::from_data(TensorData::new(sinusoids(), [POSITIONS, WIDTH]), device),
            layers: (0..LAYERS).map(|_| Layer::new(device)).collect(),
            layer_norm: LayerNorm::new(&LayerNormConfig::new(WIDTH), device),
            classifier: Head::new(WIDTH, CLASSES, device),
        }
    }

    fn loss(&self, batch: &Batch) -> Tensor<1> {
        let x = gelu(self.conv1.forward(batch.x.clone()));
        let x = gelu(self.conv2.forward(x)).swap_dims(1, 2);
        let [_, time, width] = x.dims();
        let x = x + self.positions.val().slice([0..time, 0..width]).unsqueeze();
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x));
        cross_entropy(self.classifier.forward(self.layer_norm.forward(x)), batch.labels(CLASSES))
    }
}

/// Sines then cosines, their periods spaced geometrically from 2 pi to 20,000 pi.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn sinusoids() -> Vec<f32> {
    let half = WIDTH / 2;
    let rate = |at: usize| (-(10_000_f32.ln()) * (at % half) as f32 / (half - 1) as f32).exp();
    let value = |position: usize, at: usize| {
        let angle = position as f32 * rate(at);
        if at < half { angle.sin() } else { angle.cos() }
    };
    (0..POSITIONS * WIDTH).map(|at| value(at / WIDTH, at % WIDTH)).collect()
}
