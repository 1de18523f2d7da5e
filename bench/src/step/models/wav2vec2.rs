//! The feature encoder of wav2vec 2.0 base (Baevski et al., 2020) on samples.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use lowrank_burn::nn::{Conv1d, Conv1dConfig};

use super::{Batch, Net};
use crate::step::layers::{GroupNorm, GroupNormConfig, Head, cross_entropy, gelu};

const CHANNELS: usize = 512;
const CLASSES: usize = 10;
/// Kernel and stride of each layer.
const SIZES: [(usize, usize); 7] = [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)];

/// The encoder, and a head on the mean over time.
#[derive(Module, Debug)]
pub struct Wav2Vec2 {
    conv_layers: Vec<Layer>,
    classifier: Head,
}

#[derive(Module, Debug)]
struct Layer {
    conv: Conv1d,
    layer_norm: Option<GroupNorm>,
}

impl Layer {
    fn new(at: usize, (kernel, stride): (usize, usize), device: &Device) -> Self {
        let inputs = if at == 0 { 1 } else { CHANNELS };
        let config = Conv1dConfig::new(inputs, CHANNELS, kernel).with_stride(stride).with_bias(false);
        let norm = || GroupNorm::new(&GroupNormConfig::new(CHANNELS, CHANNELS), device);
        Self { conv: Conv1d::new(&config, device), layer_norm: (at == 0).then(norm) }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let y = self.conv.forward(x);
        gelu(match &self.layer_norm {
            Some(norm) => norm.forward(y),
            None => y,
        })
    }
}

impl Net for Wav2Vec2 {
    const TARGETS: &[&str] = &["all-conv"];
    const INPUT: [usize; 2] = [1, 48_000];

    fn new(device: &Device) -> Self {
        let layers = SIZES.into_iter().enumerate();
        Self {
            conv_layers: layers.map(|(at, size)| Layer::new(at, size, device)).collect(),
            classifier: Head::new(CHANNELS, CLASSES, device),
        }
    }

    fn loss(&self, batch: &Batch) -> Tensor<1> {
        let features = self.conv_layers.iter().fold(batch.x.clone(), |x, layer| layer.forward(x));
        cross_entropy(self.classifier.forward(features.swap_dims(1, 2)), batch.labels(CLASSES))
    }
}
