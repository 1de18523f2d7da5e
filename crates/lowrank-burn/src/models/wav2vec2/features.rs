//! From samples to the transformer's inputs: the convolutions of the feature encoder, and the projection.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor};

use super::config::{FeatExtractNorm, SpeechConfig};
use crate::models::hidden_act::HiddenAct;
use crate::nn::{Conv1d, Conv1dConfig, GroupNorm, GroupNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};

/// `feature_extractor`: convolutions that shorten the signal, by 320 in the published models.
#[derive(Module, Debug)]
pub struct FeatureEncoder {
    /// In order.
    pub conv_layers: Vec<ConvLayer>,
}

/// A convolution, a norm or none, and the activation.
#[derive(Module, Debug)]
pub struct ConvLayer {
    /// Without padding.
    pub conv: Conv1d,
    /// Its norm.
    pub layer_norm: Option<ChannelNorm>,
    #[module(skip)]
    activation: HiddenAct,
}

/// The norm of a [`ConvLayer`]; both are called `layer_norm` in a checkpoint.
#[derive(Module, Debug)]
pub enum ChannelNorm {
    /// Each channel by itself, over all positions.
    Group(GroupNorm),
    /// The channels of each position.
    Layer(LayerNorm),
}

impl FeatureEncoder {
    /// An encoder with Burn's initialisation.
    #[must_use]
    pub fn new(config: &SpeechConfig, device: &Device) -> Self {
        let layer = |(at, channels): (usize, &usize)| {
            let inputs = if at == 0 { 1 } else { config.conv_dim[at - 1] };
            let conv = Conv1dConfig::new(inputs, *channels, config.conv_kernel[at])
                .with_stride(config.conv_stride[at])
                .with_bias(config.conv_bias);
            let norm = match config.feat_extract_norm {
                FeatExtractNorm::Group if at > 0 => None,
                FeatExtractNorm::Group => {
                    Some(ChannelNorm::Group(GroupNorm::new(&GroupNormConfig::new(*channels, *channels), device)))
                }
                FeatExtractNorm::Layer => {
                    Some(ChannelNorm::Layer(LayerNorm::new(&LayerNormConfig::new(*channels), device)))
                }
            };
            ConvLayer { conv: Conv1d::new(&conv, device), layer_norm: norm, activation: config.feat_extract_activation }
        };
        Self { conv_layers: config.conv_dim.iter().enumerate().map(layer).collect() }
    }

    /// Applies the convolutions.
    ///
    /// # Shapes
    /// - input: `[batch, 1, samples]`
    /// - output: `[batch, channels, frames]`
    #[must_use]
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        self.conv_layers.iter().fold(input, |x, layer| layer.forward(x))
    }
}

impl ConvLayer {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let y = self.conv.forward(x);
        self.activation.forward(match &self.layer_norm {
            None => y,
            Some(ChannelNorm::Group(norm)) => norm.forward(y),
            Some(ChannelNorm::Layer(norm)) => norm.forward(y.swap_dims(1, 2)).swap_dims(1, 2),
        })
    }
}

/// `feature_projection`: a norm, and a linear layer to the transformer's width.
#[derive(Module, Debug)]
pub struct FeatureProjection {
    /// Of the features; `HuBERT` may be without.
    pub layer_norm: Option<LayerNorm>,
    /// To `hidden_size`.
    pub projection: Linear,
    /// Of the projected features.
    pub dropout: Dropout,
}

impl FeatureProjection {
    /// A projection with Burn's initialisation.
    #[must_use]
    pub fn new(config: &SpeechConfig, device: &Device) -> Self {
        let features = config.conv_dim.last().copied().unwrap_or(1);
        let norm = LayerNormConfig::new(features).with_epsilon(config.layer_norm_eps);
        Self {
            layer_norm: config.feat_proj_layer_norm.then(|| LayerNorm::new(&norm, device)),
            projection: Linear::new(&LinearConfig::new(features, config.hidden_size), device),
            dropout: DropoutConfig::new(config.feat_proj_dropout).init(),
        }
    }

    /// Projects features.
    ///
    /// # Shapes
    /// - input: `[batch, frames, channels]`
    /// - output: `[batch, frames, hidden_size]`
    #[must_use]
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let x = match &self.layer_norm {
            Some(norm) => norm.forward(input),
            None => input,
        };
        self.dropout.forward(self.projection.forward(x))
    }
}
