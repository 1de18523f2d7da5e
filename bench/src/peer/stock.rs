//! Burn's own convolution with an adapter on its weight.

use burn::module::{Module, Param};
use burn::nn::conv::Conv1d;
use burn::tensor::{Device, Tensor};
use lowrank::geometry::PaddingMode;

use super::Problem;
use super::burn_layer::{BurnPeer, Inputs, Layer, config, with_adapter, with_base};

/// A model of one layer of Burn.
#[derive(Module, Debug)]
pub struct Stock {
    layer: Conv1d,
}

impl Layer for Stock {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.layer.forward(x)
    }

    fn base(&self) -> (&Param<Tensor<3>>, Option<&Param<Tensor<1>>>) {
        (&self.layer.weight, self.layer.bias.as_ref())
    }
}

/// Its name in tables.
pub const WEIGHT: &str = "burn-weight";

/// The layer with its adapter, or why Burn cannot.
pub fn weight_space(problem: &Problem, inputs: &Inputs) -> Result<BurnPeer<Stock>, String> {
    if problem.geometry.padding_mode != PaddingMode::Zeros {
        return Err(format!("Burn's Conv1d has no padding mode {}", problem.geometry.padding_mode));
    }
    let on = |device: &Device| {
        let model = with_base(Stock { layer: config(&problem.geometry).init(device) }, problem);
        with_adapter(model, problem).map_err(|error| error.to_string())
    };
    let (infer, train) = (on(&Device::flex())?, on(&Device::flex().autodiff())?);
    Ok(BurnPeer::new(WEIGHT, Some(infer), train, inputs))
}
