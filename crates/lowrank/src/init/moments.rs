//! What the inputs of a layer look like on training data: the sums that `"eva"` and `"corda"` begin from.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};

use crate::Result;
use crate::adapter::{GroupMode, Layer};
use crate::geometry::ConvGeometry;

/// `Σ x` and `Σ x·xᵀ` over the columns `x` that the rows of `A` are multiplied with: the inputs of a linear layer, the unfolded
/// inputs `(in/g · Πkernel)` of a convolution. Where each group has rows of `A` of its own, each has sums of its own; where one
/// `A` serves all groups, their columns are counted together.
///
/// In `f64`, by one thread: the same bits for any number of them.
#[derive(Debug, Clone)]
pub struct Moments {
    groups: usize,
    rows: usize,
    blocks: Vec<Block>,
}

/// The sums of one block.
#[derive(Debug, Clone)]
struct Block {
    count: f64,
    sums: Vec<f64>,
    products: Mat<f64>,
}

/// Columns that are multiplied at a time.
const COLUMNS: usize = 512;

impl Moments {
    /// No inputs yet.
    #[must_use]
    pub fn new(layer: &Layer, mode: GroupMode) -> Self {
        let rows = layer.weight_shape().iter().product::<usize>() / layer.out_features();
        let blocks = if mode == GroupMode::Shared { 1 } else { layer.groups() };
        let block = Block { count: 0.0, sums: vec![0.0; rows], products: Mat::zeros(rows, rows) };
        Self { groups: layer.groups(), rows, blocks: vec![block; blocks] }
    }

    /// Adds inputs of a linear layer, `(count, in)`.
    ///
    /// # Panics
    /// When they are not whole inputs.
    pub fn add_linear(&mut self, inputs: &[f32]) {
        assert!(inputs.len().is_multiple_of(self.rows), "whole inputs");
        for inputs in inputs.chunks(COLUMNS * self.rows) {
            let columns = Mat::from_fn(self.rows, inputs.len() / self.rows, |row, column| {
                f64::from(inputs[column * self.rows + row])
            });
            self.blocks[0].add(&columns);
        }
    }

    /// Adds a batch `(batch, in, lengths..)` on its way through a convolution.
    ///
    /// # Errors
    /// When the signals are too short.
    ///
    /// # Panics
    /// When `x` has not the values of its shape, or the convolution is another than the layer's.
    pub fn add_convolution(&mut self, geometry: &ConvGeometry, x: &[f32], lengths: &[usize]) -> Result<()> {
        let unfolded = Unfolded::new(geometry, lengths)?;
        assert_eq!(self.rows, geometry.weight_shape()[1..].iter().product::<usize>(), "rows of a column");
        let sample = geometry.in_channels() * unfolded.positions;
        assert!(x.len().is_multiple_of(sample), "whole samples");
        for sample in x.chunks_exact(sample) {
            for (group, input) in sample.chunks_exact(sample.len() / self.groups).enumerate() {
                for first in (0..unfolded.outputs).step_by(COLUMNS) {
                    let count = COLUMNS.min(unfolded.outputs - first);
                    let columns =
                        Mat::from_fn(self.rows, count, |row, column| unfolded.get(input, row, first + column));
                    let block = group * self.blocks.len() / self.groups;
                    self.blocks[block].add(&columns);
                }
            }
        }
        Ok(())
    }

    /// Columns that were added, over all blocks.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.blocks.iter().map(|block| block.count).sum()
    }

    /// Independent blocks of rows of `A`.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Values of a column.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `Σ (x − x̄)(x − x̄)ᵀ` of a block, row-major: what is left when the mean is taken out.
    pub(super) fn scatter(&self, block: usize) -> Vec<f64> {
        let Block { count, sums, products } = &self.blocks[block];
        let value = |at: usize| {
            let (row, column) = (at / self.rows, at % self.rows);
            products[(row, column)] - sums[row] * sums[column] / count.max(1.0)
        };
        (0..self.rows * self.rows).map(value).collect()
    }

    /// `Σ x·xᵀ / count` of a block.
    pub(super) fn covariance(&self, block: usize) -> Mat<f64> {
        let Block { count, products, .. } = &self.blocks[block];
        Mat::from_fn(self.rows, self.rows, |row, column| products[(row, column)] / count.max(1.0))
    }
}

impl Block {
    fn add(&mut self, columns: &Mat<f64>) {
        for (sum, row) in self.sums.iter_mut().zip(columns.row_iter()) {
            *sum += row.iter().sum::<f64>();
        }
        for _ in 0..columns.ncols() {
            self.count += 1.0;
        }
        matmul(self.products.as_mut(), Accum::Add, columns.as_ref(), columns.transpose(), 1.0, Par::Seq);
    }
}

/// Where every value of every column is read.
struct Unfolded {
    /// For each axis, for each output and tap, the position in the input; none where zeros stand.
    sources: Vec<Vec<Option<usize>>>,
    kernels: Vec<usize>,
    lengths: Vec<usize>,
    output_lengths: Vec<usize>,
    /// Positions of a channel of the input.
    positions: usize,
    /// Positions of the output.
    outputs: usize,
}

impl Unfolded {
    fn new(geometry: &ConvGeometry, lengths: &[usize]) -> Result<Self> {
        let output_lengths = geometry.output_lengths(lengths)?;
        let axes = geometry.axes().iter().enumerate();
        let sources = axes.map(|(index, axis)| {
            let places = (0..output_lengths[index]).flat_map(|t| (0..axis.kernel).map(move |tap| (t, tap)));
            places
                .map(|(t, tap)| geometry.source(index, t * axis.stride + tap * axis.dilation, lengths[index]))
                .collect()
        });
        Ok(Self {
            sources: sources.collect(),
            kernels: geometry.axes().iter().map(|axis| axis.kernel).collect(),
            lengths: lengths.to_vec(),
            positions: lengths.iter().product(),
            outputs: output_lengths.iter().product(),
            output_lengths,
        })
    }

    /// Value `row` (channel by channel, tap by tap) of column `output`; `input` is that of one group.
    fn get(&self, input: &[f32], row: usize, output: usize) -> f64 {
        let (mut row, mut output, mut place, mut stride) = (row, output, 0, 1);
        for axis in (0..self.kernels.len()).rev() {
            let (kernel, length) = (self.kernels[axis], self.output_lengths[axis]);
            let Some(position) = self.sources[axis][output % length * kernel + row % kernel] else { return 0.0 };
            place += position * stride;
            stride *= self.lengths[axis];
            row /= kernel;
            output /= length;
        }
        f64::from(input[row * self.positions + place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::LayerKind;
    use crate::geometry::{Axis, Padding, PaddingMode};
    use crate::kernels::reference::conv;
    use crate::random::Random;

    fn drawn(count: usize) -> Vec<f32> {
        let mut random = Random::new(1, "inputs", 0);
        (0..count).map(|_| random.normal() + 0.5).collect()
    }

    /// A convolution is linear in its unfolded inputs: with the sums of these, so are the sums of its outputs.
    #[test]
    fn sums_over_unfolded_inputs_give_those_of_the_outputs() {
        let axis = |kernel, stride, dilation| Axis { kernel, stride, dilation, padding: Padding::Explicit(2, 1) };
        for (kind, axes, lengths, mode) in [
            (LayerKind::Conv1d, vec![axis(3, 2, 2)], vec![11], PaddingMode::Reflect),
            (LayerKind::Conv1d, vec![axis(5, 1, 1)], vec![700], PaddingMode::Zeros),
            (LayerKind::Conv2d, vec![axis(2, 1, 1), axis(3, 2, 1)], vec![5, 6], PaddingMode::Zeros),
        ] {
            let geometry = ConvGeometry::new(6, 4, 2, mode, axes).unwrap();
            let layer = Layer::new(kind, &geometry.weight_shape(), 2).unwrap();
            let (batch, len) = (3, lengths.iter().product::<usize>());
            let x = drawn(batch * 6 * len);
            let weight = drawn(geometry.weight_shape().iter().product());
            let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
            let y = conv::forward(&geometry, &lengths, &wide(&x), &wide(&weight), None).unwrap();
            let outputs = y.len() / batch / 4;
            for (grouped, blocks) in [(GroupMode::PerGroup, 2), (GroupMode::Shared, 1)] {
                let mut moments = Moments::new(&layer, grouped);
                moments.add_convolution(&geometry, &x, &lengths).unwrap();
                assert_eq!(
                    (moments.blocks(), moments.count()),
                    (blocks, f64::from(u32::try_from(batch * outputs * 2).unwrap()))
                );
                let n = moments.rows();
                if blocks == 1 {
                    continue;
                }
                for out in 0..4 {
                    let w = wide(&weight[out * n..][..n]);
                    let block = &moments.blocks[out / 2];
                    let sum: f64 = block.sums.iter().zip(&w).map(|(x, w)| x * w).sum();
                    let square: f64 = (0..n)
                        .flat_map(|p| (0..n).map(move |q| (p, q)))
                        .map(|(p, q)| w[p] * w[q] * block.products[(p, q)])
                        .sum();
                    let own = || (0..batch).flat_map(|sample| &y[(sample * 4 + out) * outputs..][..outputs]);
                    let expected = (own().sum::<f64>(), own().map(|y| y * y).sum::<f64>());
                    assert!((sum - expected.0).abs() < 1e-6 * (1.0 + expected.1), "{kind}");
                    assert!((square - expected.1).abs() < 1e-6 * (1.0 + expected.1), "{kind}");
                }
            }
        }
    }

    #[test]
    fn inputs_of_a_linear_layer_are_rows() {
        let layer = Layer::new(LayerKind::Linear, &[2, 3], 1).unwrap();
        let mut moments = Moments::new(&layer, GroupMode::default());
        moments.add_linear(&[1.0, 2.0, 0.0, 3.0, 0.0, -1.0]);
        assert_eq!((moments.count(), moments.blocks[0].sums.as_slice()), (2.0, &[4.0, 2.0, -1.0][..]));
        assert!((moments.blocks[0].products[(0, 2)] + 3.0).abs() < 1e-12);
        // Around their mean, two points lie on a line.
        let svd = crate::svd::Svd::of(&moments.scatter(0), [3, 3]).unwrap();
        assert!(svd.singular_values()[1] < 1e-12 && (svd.singular_values()[0] - 4.5).abs() < 1e-12);
    }
}
