//! The generator of HiFi-GAN (Kong, Kim and Bae, "HiFi-GAN: Generative Adversarial Networks for Efficient and High Fidelity
//! Speech Synthesis", 2020), with the keys and module paths of transformers' `SpeechT5HifiGan`.
//!
//! A convolution over the frames of a log-mel spectrogram; then, for every factor of the upsampling, a transposed convolution
//! and the mean of residual blocks of different kernels, whose convolutions are dilated; then a convolution to one channel,
//! and `tanh`. Checkpoints with weight normalisation are folded when they are loaded.

mod config;

use burn::module::{Module, RunningState};
use burn::nn::PaddingConfig1d;
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Tensor};

use crate::nn::{Conv1d, Conv1dConfig, ConvTranspose1d, ConvTranspose1dConfig};
use crate::ops::leaky_relu;
pub use config::HifiGanConfig;

/// The slope before the last convolution, where PyTorch's own default stands in the original.
const LAST_SLOPE: f32 = 0.01;

/// The network.
#[derive(Module, Debug)]
pub struct HifiGan {
    /// From the bins of the spectrogram.
    pub conv_pre: Conv1d,
    /// Each halves the channels.
    pub upsampler: Vec<ConvTranspose1d>,
    /// For each of the upsampler's, one a kernel.
    pub resblocks: Vec<ResidualBlock>,
    /// To one channel.
    pub conv_post: Conv1d,
    /// Of each bin: with `normalize_before`, what is taken from the spectrogram.
    pub mean: RunningState<Tensor<1>>,
    /// Of each bin: with `normalize_before`, what it is then divided by.
    pub scale: RunningState<Tensor<1>>,
    normalize_before: bool,
    slope: f32,
}

/// Pairs of convolutions beside a residual path each.
#[derive(Module, Debug)]
pub struct ResidualBlock {
    /// The dilated ones.
    pub convs1: Vec<Conv1d>,
    /// The others.
    pub convs2: Vec<Conv1d>,
    slope: f32,
}

impl HifiGan {
    /// A generator with Burn's initialisation.
    #[must_use]
    pub fn new(config: &HifiGanConfig, device: &Device) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "a slope, of single precision as all else")]
        let slope = config.leaky_relu_slope as f32;
        let channels = |stage: usize| config.upsample_initial_channel >> stage;
        let up = |(stage, (rate, kernel)): (usize, (&usize, &usize))| {
            let config = ConvTranspose1dConfig::new([channels(stage), channels(stage + 1)], *kernel)
                .with_stride(*rate)
                .with_padding(kernel.saturating_sub(*rate) / 2);
            ConvTranspose1d::new(&config, device)
        };
        let stages = config.upsample_rates.len();
        let block = |stage: usize| {
            let kinds = config.resblock_kernel_sizes.iter().zip(&config.resblock_dilation_sizes);
            kinds.map(move |(kernel, dilations)| {
                ResidualBlock::new(channels(stage + 1), *kernel, dilations, slope, device)
            })
        };
        Self {
            conv_pre: conv(config.model_in_dim, channels(0), 7, 1, device),
            upsampler: config.upsample_rates.iter().zip(&config.upsample_kernel_sizes).enumerate().map(up).collect(),
            resblocks: (0..stages).flat_map(block).collect(),
            conv_post: conv(channels(stages), 1, 7, 1, device),
            mean: RunningState::new(Tensor::zeros([config.model_in_dim], device)),
            scale: RunningState::new(Tensor::ones([config.model_in_dim], device)),
            normalize_before: config.normalize_before,
            slope,
        }
    }

    /// The waveform of a log-mel spectrogram.
    ///
    /// # Shapes
    /// - input: `[batch, frames, model_in_dim]`
    /// - output: `[batch, frames · Πupsample_rates]`, from -1 to 1
    #[must_use]
    pub fn forward(&self, spectrogram: Tensor<3>) -> Tensor<2> {
        let spectrogram = if self.normalize_before {
            let device = spectrogram.device();
            let [mean, scale] =
                [&self.mean, &self.scale].map(|state| state.value().to_device(&device).detach().unsqueeze::<3>());
            (spectrogram - mean) / scale
        } else {
            spectrogram
        };
        let x = self.conv_pre.forward(spectrogram.swap_dims(1, 2));
        let kinds = self.resblocks.len() / self.upsampler.len().max(1);
        let stages = self.upsampler.iter().zip(self.resblocks.chunks(kinds.max(1)));
        let x = stages.fold(x, |x, (up, blocks)| {
            let x = up.forward(leaky_relu(x, self.slope));
            let sum = blocks.iter().map(|block| block.forward(x.clone())).reduce(|sum, y| sum + y);
            #[expect(clippy::cast_precision_loss, reason = "a handful of kernels")]
            sum.map_or(x, |sum| sum.div_scalar(blocks.len() as f32))
        });
        tanh(self.conv_post.forward(leaky_relu(x, LAST_SLOPE))).squeeze_dim(1)
    }
}

impl ResidualBlock {
    fn new(channels: usize, kernel: usize, dilations: &[usize], slope: f32, device: &Device) -> Self {
        Self {
            convs1: dilations.iter().map(|dilation| conv(channels, channels, kernel, *dilation, device)).collect(),
            convs2: dilations.iter().map(|_| conv(channels, channels, kernel, 1, device)).collect(),
            slope,
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.convs1.iter().zip(&self.convs2).fold(x, |x, (conv1, conv2)| {
            let y = conv1.forward(leaky_relu(x.clone(), self.slope));
            x + conv2.forward(leaky_relu(y, self.slope))
        })
    }
}

/// A convolution that keeps the length, for odd kernels.
fn conv(inputs: usize, outputs: usize, kernel: usize, dilation: usize, device: &Device) -> Conv1d {
    let padding = dilation * kernel.saturating_sub(1) / 2;
    let config = Conv1dConfig::new(inputs, outputs, kernel)
        .with_dilation(dilation)
        .with_padding(PaddingConfig1d::Explicit(padding, padding));
    Conv1d::new(&config, device)
}
