//! Fracast, a forecaster that needs no training on a series: quantiles of the next steps from the last ones.
//!
//! One block, a causal depthwise filter with a feed-forward layer, encodes the context at the dilations 1, 2, 4, …, 512, told
//! each time at which scale it is; the head reads the mean and the end of that, and the context continued by the season that a
//! periodogram finds in it. The network, its names and the published weights are those of the package `fracast` 0.1.0
//! (Apache-2.0); parts of it come from `TinyCast` (arXiv:2608.15767).
//!
//! Module paths are the package's: `core.in_proj`, `core.periodic.proj`, `core.scale.to_gb`, `core.block.dw` (a
//! [`BareConv1d`](crate::nn::BareConv1d), `core.block.dw_weight` in the file), `core.block.pw`, `core.block.ffn.up`,
//! `head.future_conv.block.dw`, and so on. An adapter on `core.block.dw` works at all ten dilations.

mod block;
mod config;
mod context;
mod head;
mod periods;

use burn::module::Module;
use burn::nn::RmsNorm;
use burn::tensor::{Device, Tensor};
use lowrank::Result;

pub use block::{Block, HorizonBlock, ScaleCondition, SwiGlu};
pub use config::{FracastConfig, Keys};
pub use context::{Context, Input, MIN_OBSERVED};
pub use head::{FutureStates, Head};

use block::{linear, rms_norm, scale_features};
use context::RECENCY;

use crate::nn::Linear;

/// The network.
#[derive(Module, Debug)]
pub struct Fracast {
    /// The encoder of the context.
    pub core: Core,
    /// From there to quantiles.
    pub head: Head,
    #[module(skip)]
    keys: Keys,
}

/// The encoder: `core` in the checkpoint.
#[derive(Module, Debug)]
pub struct Core {
    /// From a value, whether it is there, and its distance.
    pub in_proj: Linear,
    /// The phase of each period.
    pub periodic: Periodic,
    /// The block that serves at every scale.
    pub block: Block,
    /// Which tells it at which.
    pub scale: ScaleCondition,
    /// After the last.
    pub norm: RmsNorm,
}

/// The phases of the periods of a series.
#[derive(Module, Debug)]
pub struct Periodic {
    /// To the width of the network.
    pub proj: Linear,
}

impl Fracast {
    /// A network with Burn's initialisation.
    #[must_use]
    pub fn new(config: &FracastConfig, device: &Device) -> Self {
        let keys = config.model.clone();
        let phases = 2 * keys.periodic_topk * keys.periodic_harmonics;
        let core = Core {
            in_proj: linear(2 + RECENCY, keys.d_model, device),
            periodic: Periodic { proj: linear(phases, keys.d_model, device) },
            block: Block::new(&keys, device),
            scale: ScaleCondition::new(&keys, device),
            norm: rms_norm(keys.d_model, device),
        };
        Self { core, head: Head::new(&keys, device), keys }
    }

    /// What the network reads of a series up to now; what is missing is not a number. Only the last values count, as many as
    /// the context is long; a shorter series is one whose beginning is missing.
    ///
    /// # Errors
    /// When fewer than [`MIN_OBSERVED`] values are finite.
    pub fn context(&self, history: &[f32]) -> Result<Context> {
        Context::new(&self.keys, history)
    }

    /// Series as tensors on a device.
    #[must_use]
    pub fn input(&self, contexts: &[Context], device: &Device) -> Input {
        Input::new(&self.keys, contexts, device)
    }

    /// The quantiles of the next steps, in the unit of each context ([`Context::denormalise`]).
    ///
    /// # Shapes
    /// - output: `[batch, horizon, quantiles]`
    #[must_use]
    pub fn forward(&self, input: Input) -> Tensor<3> {
        let Input { features, phases, fill } = input;
        let device = features.device();
        let x = self.core.in_proj.forward(features) + self.core.periodic.proj.forward(phases);
        let x = self.keys.dilations().into_iter().fold(x, |x, dilation| {
            let scale = scale_features(dilation, self.keys.scale_frequencies(), &device);
            self.core.block.forward(self.core.scale.forward(x, scale), dilation)
        });
        self.head.forward(&self.keys, &self.core.norm.forward(x), fill)
    }
}

#[cfg(test)]
mod tests;
