//! candle: the frozen layer's forward, and a training step with the adapter on the weight.

use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use candle_nn::{Conv1d, Conv1dConfig, Module};
use lowrank::geometry::PaddingMode;

use super::problem::SCALE;
use super::{Mode, Peer, Problem, timed};
use crate::geometry::Geometry;

/// Its name in tables.
pub const CANDLE: &str = "candle";

/// A layer of candle, and the variables of its adapter.
pub struct Candle {
    geometry: Geometry,
    frozen: Conv1d,
    input: Tensor,
    x: Var,
    weight: Tensor,
    bias: Option<Tensor>,
    a: Var,
    b: Var,
    dy: Tensor,
}

impl Candle {
    /// The layer, or why candle cannot.
    pub fn new(problem: &Problem) -> Result<Self, String> {
        let mode = problem.geometry.padding_mode;
        if mode != PaddingMode::Zeros {
            return Err(format!("candle's conv1d has no padding mode {mode}"));
        }
        Self::build(problem).map_err(|error| error.to_string())
    }

    fn build(problem: &Problem) -> candle_core::Result<Self> {
        let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
        let geometry = problem.geometry.clone();
        let weight = tensor(&problem.weight, &problem.weight_shape())?;
        let bias = geometry.bias.then(|| tensor(&problem.bias, &[geometry.outputs])).transpose()?;
        let input = tensor(&problem.x, &problem.x_shape())?;
        Ok(Self {
            frozen: Conv1d::new(weight.clone(), bias.clone(), config(&geometry)),
            x: Var::from_tensor(&input)?,
            input,
            weight,
            bias,
            a: Var::from_tensor(&tensor(&problem.a, &[problem.rank, geometry.row()])?)?,
            b: Var::from_tensor(&tensor(&problem.b, &[geometry.outputs, problem.rank])?)?,
            dy: tensor(&problem.dy, &problem.y_shape())?,
            geometry,
        })
    }

    fn infer(&self) -> candle_core::Result<Tensor> {
        self.frozen.forward(&self.padded(&self.input)?)
    }

    fn adapted(&self) -> candle_core::Result<Tensor> {
        let delta = self.b.matmul(&self.a)?.affine(f64::from(SCALE), 0.0)?;
        let weight = (&self.weight + delta.reshape(self.weight.shape())?)?;
        let layer = Conv1d::new(weight, self.bias.clone(), config(&self.geometry));
        layer.forward(&self.padded(&self.x)?)
    }

    /// candle starts a backward from ones, so the gradient of the output is multiplied in.
    fn train(&self) -> candle_core::Result<impl Sized> {
        (self.adapted()? * &self.dy)?.sum_all()?.backward()
    }

    /// The input with padding that differs between the ends: candle's own is the same at both.
    fn padded(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self.geometry.ends() {
            (left, right) if left != right => x.pad_with_zeros(2, left, right),
            _ => Ok(x.clone()),
        }
    }
}

#[cfg(test)]
impl Candle {
    /// The output of the training step, and the gradient of its input.
    pub fn results(&self) -> [Vec<f32>; 2] {
        let y = self.adapted().unwrap();
        let gradients = (&y * &self.dy).unwrap().sum_all().unwrap().backward().unwrap();
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
        [flat(&y), flat(gradients.get(&self.x).unwrap())]
    }
}

fn config(geometry: &Geometry) -> Conv1dConfig {
    let (left, right) = geometry.ends();
    Conv1dConfig {
        padding: if left == right { left } else { 0 },
        stride: geometry.stride,
        dilation: geometry.dilation,
        groups: geometry.groups,
        cudnn_fwd_algo: None,
    }
}

impl Peer for Candle {
    fn name(&self) -> &str {
        CANDLE
    }

    fn takes(&self, mode: Mode) -> bool {
        [Mode::Infer, Mode::Train].contains(&mode)
    }

    fn run(&mut self, mode: Mode) -> Result<f64> {
        let mut result = Ok(());
        let ms = timed(|| {
            result = if mode == Mode::Infer { self.infer().map(drop) } else { self.train().map(drop) };
        });
        result?;
        Ok(ms)
    }
}
