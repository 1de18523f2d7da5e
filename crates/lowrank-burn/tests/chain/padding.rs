//! What stands around the input of a convolution, where the layer does not add it itself.

use burn::tensor::{Int, Tensor, TensorData};
use lowrank::geometry::PaddingMode;
use serde_json::Value;

use super::Signal;

/// Padding of the axes of a signal, from the first behind the channels.
#[derive(Debug, Clone)]
pub struct Padded {
    sides: Vec<(usize, usize)>,
    mode: PaddingMode,
}

/// The padding that a model has to add before a layer of that description: 2-D and 3-D convolutions know zeros only, those
/// in 3-D as many on both sides.
pub fn before(row: &Value) -> Option<Padded> {
    let (sides, mode) = match row["class"].as_str() {
        Some("Conv2d" | "Conv3d") => (sides(row), mode(row)),
        _ => return None,
    };
    let uneven = sides.len() == 3 && sides.iter().any(|(before, after)| before != after);
    (mode != PaddingMode::Zeros || uneven).then_some(Padded { sides, mode })
}

/// How much is added before and after each axis. `PyTorch` adds the odd one of `"same"` behind.
pub fn sides(row: &Value) -> Vec<(usize, usize)> {
    let (kernel, dilation) = (along(&row["kernel_size"]), along(&row["dilation"]));
    match row["padding"].as_str() {
        Some("valid") => vec![(0, 0); kernel.len()],
        Some("same") => {
            let total = kernel.iter().zip(&dilation).map(|(kernel, dilation)| dilation * (kernel - 1));
            total.map(|total| (total / 2, total - total / 2)).collect()
        }
        _ => along(&row["padding"]).into_iter().map(|each| (each, each)).collect(),
    }
}

pub fn mode(row: &Value) -> PaddingMode {
    serde_json::from_value(row["padding_mode"].clone()).unwrap()
}

/// A list of numbers, one an axis.
pub fn along(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|each| usize::try_from(each.as_u64().unwrap()).unwrap()).collect()
}

impl Padded {
    pub fn apply(&self, x: Signal) -> Signal {
        match x {
            Signal::Four(x) => Signal::Four(self.around(x)),
            Signal::Five(x) => Signal::Five(self.around(x)),
            _ => panic!("padding before a convolution of another rank"),
        }
    }

    fn around<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.sides.iter().enumerate().fold(x, |x, (axis, sides)| self.along(x, axis + 2, *sides))
    }

    fn along<const D: usize>(&self, x: Tensor<D>, axis: usize, (before, after): (usize, usize)) -> Tensor<D> {
        if self.mode == PaddingMode::Zeros {
            let zeros = |count| {
                let mut shape = x.dims();
                shape[axis] = count;
                (count > 0).then(|| Tensor::zeros(shape, &x.device()))
            };
            let parts = [zeros(before), Some(x.clone()), zeros(after)];
            return Tensor::cat(parts.into_iter().flatten().collect(), axis);
        }
        let length = i64::try_from(x.dims()[axis]).unwrap();
        let [before, after] = [before, after].map(|count| i64::try_from(count).unwrap());
        let from = |at: i64| match self.mode {
            PaddingMode::Circular | PaddingMode::Zeros => at.rem_euclid(length),
            PaddingMode::Replicate => at.clamp(0, length - 1),
            PaddingMode::Reflect => (length - 1) - ((length - 1) - at.abs()).abs(),
        };
        let positions: Vec<i64> = (-before..length + after).map(from).collect();
        let count = positions.len();
        let positions = Tensor::<1, Int>::from_data(TensorData::new(positions, [count]), &x.device());
        x.select(axis, positions)
    }
}
