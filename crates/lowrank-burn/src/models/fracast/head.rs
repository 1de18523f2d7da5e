//! From the encoded context to the quantiles of every step of the horizon.

use burn::module::{Initializer, Module, Param};
use burn::nn::RmsNorm;
use burn::tensor::{Device, Tensor, TensorData};

use super::block::{Block, HorizonBlock, SwiGlu, linear, rms_norm};
use super::config::Keys;
use super::context::{RECENCY, recency};
use crate::nn::Linear;

/// The head: `head` in the checkpoint.
#[derive(Module, Debug)]
pub struct Head {
    /// From the mean and the last step of the context, and the distance of a step of the horizon, to its state.
    pub summary_proj: Linear,
    /// Feed-forward layers.
    pub decoder_ffns: Vec<SwiGlu>,
    /// After each of them.
    pub decoder_norms: Vec<RmsNorm>,
    /// Filters along the horizon, at dilations 1, 2, 4, and so on.
    pub fc_blocks: Vec<HorizonBlock>,
    /// To the quantiles.
    pub out_proj: Linear,
    /// The context continued into the future.
    pub future_conv: FutureStates,
    /// What a step of the horizon is beside its distance: `[horizon, width]`.
    pub queries: Param<Tensor<2>>,
}

impl Head {
    pub(super) fn new(keys: &Keys, device: &Device) -> Self {
        let width = keys.d_model;
        Self {
            summary_proj: linear(2 * width + RECENCY, width, device),
            decoder_ffns: (0..keys.head_layers).map(|_| SwiGlu::new(width, keys.head_d_ff, device)).collect(),
            decoder_norms: (0..keys.head_layers).map(|_| rms_norm(width, device)).collect(),
            fc_blocks: (0..keys.head_fc_layers).map(|_| HorizonBlock::new(keys, device)).collect(),
            out_proj: linear(width, keys.quantiles.len(), device),
            future_conv: FutureStates::new(keys, device),
            queries: Initializer::Normal { mean: 0.0, std: deviation(width) }.init([keys.horizon, width], device),
        }
    }

    /// `[batch, context, width]` and `[batch, horizon]` to `[batch, horizon, quantiles]`.
    pub(super) fn forward(&self, keys: &Keys, encoded: &Tensor<3>, fill: Tensor<2>) -> Tensor<3> {
        let [batch, length, width] = encoded.dims();
        let distance = recency(keys.context..keys.context + keys.horizon, keys.context);
        let distance = TensorData::new(distance, [1, keys.horizon, RECENCY]);
        let distance = Tensor::<3>::from_data(distance, &encoded.device()).expand([batch, keys.horizon, RECENCY]);
        let last = encoded.clone().narrow(1, length - 1, 1);
        let summary = Tensor::cat(vec![encoded.clone().mean_dim(1), last], 2);
        let summary = summary.expand([batch, keys.horizon, 2 * width]);
        let mut x = self.summary_proj.forward(Tensor::cat(vec![distance.clone(), summary], 2));
        x = x + self.queries.val().unsqueeze();
        for (ffn, norm) in self.decoder_ffns.iter().zip(&self.decoder_norms) {
            x = norm.forward(x.clone() + ffn.forward(x));
        }
        for (number, block) in self.fc_blocks.iter().enumerate() {
            x = block.forward(x, 1 << number);
        }
        x = x + self.future_conv.forward(keys, encoded, fill, distance);
        self.out_proj.forward(x)
    }
}

/// The end of the context, continued by the values of the same phase in the season, through a block of its own.
#[derive(Module, Debug)]
pub struct FutureStates {
    /// From such a value and its distance to a state.
    pub in_proj: Linear,
    /// The block, at every scale.
    pub block: Block,
    /// To what is added to the states of the horizon.
    pub out_proj: Linear,
}

impl FutureStates {
    fn new(keys: &Keys, device: &Device) -> Self {
        Self {
            in_proj: linear(1 + RECENCY, keys.d_model, device),
            block: Block::new(keys, device),
            out_proj: linear(keys.d_model, keys.d_model, device),
        }
    }

    fn forward(&self, keys: &Keys, encoded: &Tensor<3>, fill: Tensor<2>, distance: Tensor<3>) -> Tensor<3> {
        let length = encoded.dims()[1];
        let seed = keys.head_future_conv_seed.min(length);
        let future = self.in_proj.forward(Tensor::cat(vec![fill.unsqueeze_dim(2), distance], 2));
        let past = encoded.clone().narrow(1, length - seed, seed);
        let mut z = Tensor::cat(vec![past, future], 1);
        for stage in 0..keys.head_future_conv_layers {
            z = self.block.forward(z, keys.dilation(stage));
        }
        self.out_proj.forward(z.narrow(1, seed, keys.horizon))
    }
}

fn deviation(width: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a width up to 2^16")]
    let width = width as f64;
    width.powf(-0.5)
}
