//! A dilated temporal convolutional network on windows of six sensors: the one of `lowrank_burn::models`.

use burn::tensor::{Device, Tensor};
pub use lowrank_burn::models::tcn::Tcn;
use lowrank_burn::models::tcn::TcnConfig;

use super::{Batch, Net};
use crate::step::layers::cross_entropy;

const CLASSES: usize = 7;

impl Net for Tcn {
    const TARGETS: &[&str] = &["all-conv"];
    const INPUT: [usize; 2] = [6, 128];

    fn new(device: &Device) -> Self {
        let config = TcnConfig {
            in_channels: 6,
            channels: 64,
            stem_kernel_size: 5,
            kernel_size: 3,
            dilations: vec![1, 2, 4, 8],
            causal: false,
            weight_norm: false,
            dropout: 0.0,
        };
        Self::new(&config, CLASSES, device)
    }

    fn loss(&self, batch: &Batch) -> Tensor<1> {
        cross_entropy(self.forward(batch.x.clone()), batch.labels(CLASSES))
    }
}
