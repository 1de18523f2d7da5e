//! One multi-receptive-field fusion of HiFi-GAN's generator V1 (Kong et al., 2020), its weight norm folded.

use burn::module::Module;
use burn::nn::PaddingConfig1d;
use burn::nn::loss::{MseLoss, Reduction};
use burn::tensor::{Device, Tensor};
use lowrank_burn::nn::{Conv1d, Conv1dConfig};

use super::{Batch, Net};
use crate::step::layers::leaky_relu;

const CHANNELS: usize = 128;
const KERNELS: [usize; 3] = [3, 7, 11];
const DILATIONS: [usize; 3] = [1, 3, 5];

/// Three residual blocks side by side, and their mean.
#[derive(Module, Debug)]
pub struct HifiGan {
    resblocks: Vec<ResBlock>,
}

#[derive(Module, Debug)]
struct ResBlock {
    convs1: Vec<Conv1d>,
    convs2: Vec<Conv1d>,
}

impl ResBlock {
    fn new(kernel: usize, device: &Device) -> Self {
        let conv = |dilation| {
            let padding = dilation * (kernel - 1) / 2;
            let config = Conv1dConfig::new(CHANNELS, CHANNELS, kernel)
                .with_dilation(dilation)
                .with_padding(PaddingConfig1d::Explicit(padding, padding));
            Conv1d::new(&config, device)
        };
        Self { convs1: DILATIONS.map(conv).into(), convs2: DILATIONS.map(|_| conv(1)).into() }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.convs1.iter().zip(&self.convs2).fold(x, |x, (conv1, conv2)| {
            let y = conv1.forward(leaky_relu(x.clone()));
            x + conv2.forward(leaky_relu(y))
        })
    }
}

impl Net for HifiGan {
    const TARGETS: &[&str] = &["all-conv"];
    const INPUT: [usize; 2] = [CHANNELS, 4096];

    fn new(device: &Device) -> Self {
        Self { resblocks: KERNELS.iter().map(|kernel| ResBlock::new(*kernel, device)).collect() }
    }

    fn loss(&self, batch: &Batch) -> Tensor<1> {
        let [first, second, third] = [0, 1, 2].map(|at| self.resblocks[at].forward(batch.x.clone()));
        let y = (first + second + third).div_scalar(3.0);
        MseLoss::new().forward(y, batch.signal.clone(), Reduction::Mean)
    }
}
