//! What the two kinds of Burn layer share: ours and the stock one.

use std::collections::HashMap;

use anyhow::Result;
use burn::module::{Module, Param, ParamId};
use burn::nn::PaddingConfig1d;
use burn::nn::conv::Conv1dConfig;
use burn::tensor::{Device, Tensor, TensorData};
use lowrank::adapter::GroupMode;
use lowrank::config::{LoraConfig, Patterns};
use lowrank_burn::{Adapters, values};

use super::problem::SCALE;
use super::{Mode, Peer, Problem, seed, timed};
use crate::geometry::Geometry;

/// A model of one convolution, called `layer`.
pub trait Layer: Module {
    /// `[batch, in, length]` to `[batch, out, length]`.
    fn forward(&self, x: Tensor<3>) -> Tensor<3>;

    /// The parameters of the layer itself.
    fn base(&self) -> (&Param<Tensor<3>>, Option<&Param<Tensor<1>>>);
}

/// A layer of Burn, as it infers and as it trains.
pub struct BurnPeer<M> {
    name: &'static str,
    infer: Option<(M, Tensor<3>)>,
    train: (M, Tensor<3>),
    dy: Tensor<3>,
}

impl<M: Layer> BurnPeer<M> {
    /// A peer that computes `train` on inputs with gradients, and `infer` on inputs without.
    pub fn new(name: &'static str, infer: Option<M>, train: M, inputs: &Inputs) -> Self {
        let infer = infer.map(|model| (model, inputs.plain.clone()));
        Self { name, infer, train: (train, inputs.tracked.clone()), dy: inputs.dy.clone() }
    }
}

#[cfg(test)]
impl<M: Layer> BurnPeer<M> {
    /// The output of the training step, and the gradient of its input.
    pub fn results(&self) -> [Vec<f32>; 2] {
        let (model, x) = &self.train;
        let y = model.forward(x.clone());
        let dx = x.grad(&seed::backward(y.clone(), self.dy.clone())).unwrap();
        [y, dx].map(values::of)
    }
}

impl<M: Layer> Peer for BurnPeer<M> {
    fn name(&self) -> &str {
        self.name
    }

    fn takes(&self, mode: Mode) -> bool {
        match mode {
            Mode::Infer => self.infer.is_some(),
            mode => mode == Mode::Train,
        }
    }

    fn run(&mut self, mode: Mode) -> Result<f64> {
        if let (Mode::Infer, Some((model, x))) = (mode, &self.infer) {
            return Ok(timed(|| model.forward(x.clone())));
        }
        let (model, x) = &self.train;
        Ok(timed(|| seed::backward(model.forward(x.clone()), self.dy.clone())))
    }
}

/// The input without gradients and with, and the gradient of the output; the tensors are shared by the peers.
pub struct Inputs {
    plain: Tensor<3>,
    tracked: Tensor<3>,
    dy: Tensor<3>,
}

impl Inputs {
    /// The inputs of a problem.
    pub fn new(problem: &Problem) -> Self {
        let tensor = |values: &[f32], shape: [usize; 3], device: &Device| {
            Tensor::<3>::from_data(TensorData::new(values.to_vec(), shape), device)
        };
        let (plain, autodiff) = (Device::flex(), Device::flex().autodiff());
        Self {
            plain: tensor(&problem.x, problem.x_shape(), &plain),
            tracked: tensor(&problem.x, problem.x_shape(), &autodiff).require_grad(),
            dy: tensor(&problem.dy, problem.y_shape(), &autodiff),
        }
    }
}

/// Burn's configuration of a layer.
pub fn config(geometry: &Geometry) -> Conv1dConfig {
    let (left, right) = geometry.ends();
    Conv1dConfig::new(geometry.inputs, geometry.outputs, geometry.kernel)
        .with_stride(geometry.stride)
        .with_dilation(geometry.dilation)
        .with_groups(geometry.groups)
        .with_padding(PaddingConfig1d::Explicit(left, right))
        .with_bias(geometry.bias)
}

/// The model with the problem's weight and bias.
pub fn with_base<M: Layer>(model: M, problem: &Problem) -> M {
    let (weight, bias) = model.base();
    let mut own = HashMap::from([(weight.id, problem.weight.clone())]);
    own.extend(bias.map(|bias| (bias.id, problem.bias.clone())));
    values::write(model, own)
}

/// The model with the problem's adapter on it.
pub fn with_adapter<M: Layer>(model: M, problem: &Problem) -> lowrank::Result<M> {
    #[expect(clippy::cast_precision_loss, reason = "a small rank")]
    let lora_alpha = f64::from(SCALE) * problem.rank as f64;
    let config = LoraConfig {
        r: problem.rank,
        lora_alpha,
        target_modules: Some(Patterns::List(vec!["layer".into()])),
        group_mode: if problem.geometry.groups > 1 { GroupMode::Shared } else { GroupMode::default() },
        ..LoraConfig::default()
    };
    let mut adapters = Adapters::default();
    let model = adapters.attach(model, "default", &config, 0)?;
    let ids: Vec<ParamId> = adapters.trainable_tensors("default")?.iter().map(|tensor| tensor.id).collect();
    Ok(values::write(model, HashMap::from([(ids[0], problem.a.clone()), (ids[1], problem.b.clone())])))
}

/// The model without gradients of its own.
pub fn frozen<M: Layer>(model: M) -> M {
    model.no_grad()
}
