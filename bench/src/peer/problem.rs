//! The numbers of one layer, the same for every Rust peer.

use lowrank::random::Random;

use crate::geometry::Geometry;

/// `alpha / r`, at every rank.
pub const SCALE: f32 = 2.0;

/// A layer with an adapter, its input and the gradient of its output.
///
/// All groups of a grouped convolution share `A`: this form takes any rank, and is what a low-rank change of the weight
/// as the matrix `[out, in/groups * kernel]` is.
pub struct Problem {
    /// The layer.
    pub geometry: Geometry,
    /// The adapter's rank.
    pub rank: usize,
    /// `[batch, in, length]`.
    pub x: Vec<f32>,
    /// `[out, in/groups, kernel]`.
    pub weight: Vec<f32>,
    /// `[out]`.
    pub bias: Vec<f32>,
    /// `[rank, in/groups * kernel]`.
    pub a: Vec<f32>,
    /// `[out, rank]`; not zero, so that nothing can be left out.
    pub b: Vec<f32>,
    /// `[batch, out, output length]`.
    pub dy: Vec<f32>,
}

impl Problem {
    /// Random numbers for a layer.
    pub fn draw(geometry: &Geometry, rank: usize) -> Self {
        let mut random = Random::new(0, "bench", 0);
        let mut draw = |count: usize, bound: f32| (0..count).map(|_| random.uniform(-bound, bound)).collect();
        let (outputs, row) = (geometry.outputs, geometry.row());
        #[expect(clippy::cast_precision_loss, reason = "the size of a random number")]
        let bound = 1.0 / (row as f32).sqrt();
        Self {
            rank,
            x: draw(geometry.batch * geometry.inputs * geometry.length, 1.0),
            weight: draw(outputs * row, bound),
            bias: if geometry.bias { draw(outputs, bound) } else { Vec::new() },
            a: draw(rank * row, bound),
            b: draw(outputs * rank, 0.1),
            dy: draw(geometry.batch * outputs * geometry.output_length(), 1.0),
            geometry: geometry.clone(),
        }
    }

    /// The shape of the input.
    pub fn x_shape(&self) -> [usize; 3] {
        [self.geometry.batch, self.geometry.inputs, self.geometry.length]
    }

    /// The shape of the output.
    pub fn y_shape(&self) -> [usize; 3] {
        [self.geometry.batch, self.geometry.outputs, self.geometry.output_length()]
    }

    /// The shape of the weight.
    pub fn weight_shape(&self) -> [usize; 3] {
        [self.geometry.outputs, self.geometry.inputs / self.geometry.groups, self.geometry.kernel]
    }
}
