//! Silero VAD: whether somebody speaks, frame by frame.
//!
//! The network of the package `silero-vad` 6 (MIT; Silero Team, 2021), under the names of its
//! `silero_vad_16k.safetensors`. For a frame `x` and the samples before it:
//!
//! `X = stft_conv(mirrored(context, x))`, `h = sqrt(re(X)² + im(X)²)`; four times `h = relu(conv(h))`, down to one step;
//! `h, c = lstm_cell(h; h, c)`; `logit = final_conv(relu(h))`, and the probability is its sigmoid.
//!
//! Nothing but the LSTM knows of other frames, so the rest is computed for all of them at once, and the LSTM over time after
//! that. Chunk by chunk with a [`State`] gives the same as all at once; a [`Listener`] does so at the least cost.

mod config;
mod listener;

use burn::module::Module;
use burn::nn::{Initializer, LstmState, PaddingConfig1d};
use burn::tensor::{Device, Tensor};
use lowrank::geometry::PaddingMode;

use crate::nn::{Conv1d, Conv1dConfig, Lstm};
use crate::ops::relu;

pub use config::SileroVadConfig;
pub use listener::Listener;

/// The network.
#[derive(Module, Debug)]
pub struct SileroVad {
    /// The Fourier transform: real parts, then imaginary parts.
    pub stft_conv: Conv1d,
    /// The first convolution, on magnitudes.
    pub conv1: Conv1d,
    /// The second convolution.
    pub conv2: Conv1d,
    /// The third convolution.
    pub conv3: Conv1d,
    /// The fourth convolution, which leaves one step of a frame.
    pub conv4: Conv1d,
    /// From frame to frame.
    pub lstm_cell: Lstm,
    /// To one logit.
    pub final_conv: Conv1d,
    /// Samples of a frame.
    pub frame: usize,
    /// Samples before a frame that are looked at with it.
    pub context: usize,
}

/// What has to be known of a recording to go on with it.
#[derive(Debug, Clone)]
pub struct State {
    /// The last samples, `[batch, context]`.
    pub context: Tensor<2>,
    /// The states of the LSTM, `[batch, channels]`.
    pub lstm: LstmState<2>,
}

impl SileroVad {
    /// A network with random weights; the Fourier transform too is one until weights are loaded.
    #[must_use]
    pub fn new(config: &SileroVadConfig, device: &Device) -> Self {
        let bins = config.bins();
        let stft = Conv1dConfig::new(1, 2 * bins, config.n_fft).with_stride(config.hop_length).with_bias(false);
        let stft = stft.with_padding(PaddingConfig1d::Explicit(0, config.padding()));
        let conv = |at: usize| {
            let inputs = if at == 0 { bins } else { config.channels[at - 1] };
            let settings = Conv1dConfig::new(inputs, config.channels[at], 3).with_stride(config::STRIDES[at]);
            Conv1d::new(&settings.with_padding(PaddingConfig1d::Explicit(1, 1)), device)
        };
        Self {
            stft_conv: Conv1d::new(&stft, device).with_padding_mode(PaddingMode::Reflect),
            conv1: conv(0),
            conv2: conv(1),
            conv3: conv(2),
            conv4: conv(3),
            lstm_cell: lstm_cell(config.channels[3], device),
            final_conv: Conv1d::new(&Conv1dConfig::new(config.channels[3], 1, 1), device),
            frame: config.frame,
            context: config.context,
        }
    }

    /// The state before the first sample: silence.
    #[must_use]
    pub fn start(&self, batch: usize, device: &Device) -> State {
        let lstm = LstmState::initial([batch, self.lstm_cell.d_hidden], device);
        State { context: Tensor::zeros([batch, self.context], device), lstm }
    }

    /// The logits of every frame of a batch of recordings, and the state to go on with.
    ///
    /// The package pads the end of a recording with zeros to a whole frame; that is left to the caller here, who alone knows
    /// where it ends.
    ///
    /// # Shapes
    /// - input: `[batch, samples]`, at 16 kHz for the package's weights, -1 to 1
    /// - output: `[batch, samples / frame]`
    ///
    /// # Panics
    /// When there is no sample, the samples are no whole frames, or the state is of another batch.
    #[must_use]
    pub fn forward(&self, input: Tensor<2>, state: State) -> (Tensor<2>, State) {
        let [batch, samples] = input.dims();
        assert!(samples > 0 && samples.is_multiple_of(self.frame), "{samples} samples are no frames of {}", self.frame);
        let frames = samples / self.frame;
        let State { context, lstm } = state;
        let last = input.clone().narrow(1, samples - self.context, self.context);
        let steps = self.steps(self.framed(input, context)).reshape([batch, frames, self.lstm_cell.d_hidden]);
        let (hidden, lstm) = self.lstm_cell.forward(steps, Some(lstm));
        let logits = self.final_conv.forward(relu(hidden).swap_dims(1, 2));
        (logits.squeeze_dim(1), State { context: last, lstm })
    }

    /// Every frame behind the samples before it: `[batch * frames, context + frame]`.
    fn framed(&self, input: Tensor<2>, context: Tensor<2>) -> Tensor<2> {
        let [batch, samples] = input.dims();
        let (frames, width) = (samples / self.frame, self.context + self.frame);
        let input = input.reshape([batch, frames, self.frame]);
        let tails = input.clone().narrow(2, self.frame - self.context, self.context);
        let context = context.unsqueeze_dim(1);
        let before = if frames > 1 { Tensor::cat(vec![context, tails.narrow(1, 0, frames - 1)], 1) } else { context };
        Tensor::cat(vec![before, input], 2).reshape([batch * frames, width])
    }

    /// What the LSTM reads of each frame: `[frames, context + frame]` to `[frames, channels]`.
    fn steps(&self, frames: Tensor<2>) -> Tensor<2> {
        let h = magnitude(&self.stft_conv.forward(frames.unsqueeze_dim(1)));
        let convolutions = [&self.conv1, &self.conv2, &self.conv3, &self.conv4];
        convolutions.into_iter().fold(h, |h, conv| relu(conv.forward(h))).squeeze_dim(2)
    }
}

/// `sqrt(re² + im²)` of real parts and imaginary parts, one below the other.
///
/// The root of nothing has no derivative, and silence is common: below the least positive square it is taken as constant.
fn magnitude(x: &Tensor<3>) -> Tensor<3> {
    let bins = x.dims()[1] / 2;
    let [re, im] = [0, bins].map(|start| x.clone().narrow(1, start, bins));
    (re.clone() * re + im.clone() * im).clamp_min(f32::MIN_POSITIVE).sqrt()
}

/// A cell as `PyTorch` draws it: uniform within one over the root of its width.
fn lstm_cell(width: usize, device: &Device) -> Lstm {
    #[expect(clippy::cast_precision_loss, reason = "a width is small")]
    let bound = 1.0 / (width as f64).sqrt();
    let uniform = Initializer::Uniform { min: -bound, max: bound };
    Lstm {
        weight_ih: uniform.init([4 * width, width], device),
        weight_hh: uniform.init([4 * width, width], device),
        bias_ih: Some(uniform.init([4 * width], device)),
        bias_hh: Some(uniform.init([4 * width], device)),
        d_hidden: width,
        batch_first: true,
        reverse: false,
    }
}

#[cfg(test)]
mod tests;
