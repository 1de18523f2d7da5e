//! The drop-in layer: frozen, with an adapter, and trained in full.

use anyhow::Result;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use lowrank_burn::nn::Conv1d;

use super::Problem;
use super::burn_layer::{BurnPeer, Inputs, Layer, config, frozen, with_adapter, with_base};

/// A model of one drop-in layer.
#[derive(Module, Debug)]
pub struct DropIn {
    layer: Conv1d,
}

impl Layer for DropIn {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.layer.forward(x)
    }

    fn base(&self) -> (&Param<Tensor<3>>, Option<&Param<Tensor<1>>>) {
        (&self.layer.weight, self.layer.bias.as_ref())
    }
}

/// Frozen with an adapter: the layer this benchmark is about.
pub const LORA: &str = "lowrank";
/// Frozen without one.
pub const FROZEN: &str = "lowrank-frozen";
/// The weight and the bias trained.
pub const FULL: &str = "lowrank-full";

/// The layer with its adapter.
pub fn lora(problem: &Problem, inputs: &Inputs) -> Result<BurnPeer<DropIn>> {
    let on = |device: &Device| with_adapter(base(problem, device), problem);
    let (infer, train) = (on(&Device::flex())?, on(&Device::flex().autodiff())?);
    Ok(BurnPeer::new(LORA, Some(infer), train, inputs))
}

/// The layer alone, frozen.
pub fn without_adapter(problem: &Problem, inputs: &Inputs) -> BurnPeer<DropIn> {
    let on = |device: &Device| frozen(base(problem, device));
    BurnPeer::new(FROZEN, Some(on(&Device::flex())), on(&Device::flex().autodiff()), inputs)
}

/// The layer alone, trained. Its inference is that of the frozen one.
pub fn full(problem: &Problem, inputs: &Inputs) -> BurnPeer<DropIn> {
    BurnPeer::new(FULL, None, base(problem, &Device::flex().autodiff()), inputs)
}

fn base(problem: &Problem, device: &Device) -> DropIn {
    let layer = Conv1d::new(&config(&problem.geometry), device).with_padding_mode(problem.geometry.padding_mode);
    with_base(DropIn { layer }, problem)
}
