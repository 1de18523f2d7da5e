//! The gradient of `DoRA`'s magnitude, taken from the output of a layer that has the magnitude in its weight.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor};
use lowrank::kernels::norm::{BatchNorm, channel_parameters, layer_norm_parameters};

use super::flex::{are_f32, contiguous, tensor, values};
use super::graph::register;

/// The gradient of a magnitude on one backend.
pub trait MagnitudeBody: Backend {
    /// `dm[o] = Σ dy[n, o, t]·(y[n, o, t] - bias[o]) / m[o]`, with `o` along `axis`.
    fn magnitude_gradient(
        y: FloatTensor<Self>,
        m: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        axis: usize,
    ) -> FloatTensor<Self> {
        gradient::<Self>(y, m, bias, dy, axis)
    }
}

impl MagnitudeBody for Flex {
    fn magnitude_gradient(
        y: FloatTensor<Self>,
        m: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        axis: usize,
    ) -> FloatTensor<Self> {
        let [outer, outputs, length] = sides(&y.shape(), axis);
        if !are_f32([&y, &m, &bias, &dy]) || outer * length == 0 {
            return gradient::<Self>(y, m, bias, dy, axis);
        }
        let (y, m, bias, dy) = (contiguous(y), contiguous(m), contiguous(bias), contiguous(dy));
        let (y, m, bias, dy) = (values(&y), values(&m), values(&bias), values(&dy));
        let [mut dm, mut sums] = [vec![0.0; outputs], vec![0.0; outputs]];
        if length == 1 {
            // The sums are those of a normalisation that changes nothing.
            layer_norm_parameters(y, &vec![[0.0, 1.0]; outer], dy, [&mut dm, &mut sums]);
            for (at, dm) in dm.iter_mut().enumerate() {
                *dm = (*dm - bias[at] * sums[at]) / m[at];
            }
        } else {
            // `(y - bias) / m` is a normalisation by given moments, and its gradient that of `γ`.
            let moments: Vec<_> = bias.iter().zip(m).map(|(bias, m)| [*bias, 1.0 / m]).collect();
            let mut rows = vec![[0.0; 2]; outer * outputs];
            BatchNorm { channels: outputs, length }.sums(y, &moments, dy, &mut rows);
            channel_parameters(&rows, [&mut dm, &mut sums]);
        }
        tensor(dm, [outputs])
    }
}

/// Values before, along and behind an axis.
fn sides(shape: &Shape, axis: usize) -> [usize; 3] {
    [shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product()]
}

fn gradient<B: Backend>(
    y: FloatTensor<B>,
    m: FloatTensor<B>,
    bias: FloatTensor<B>,
    dy: FloatTensor<B>,
    axis: usize,
) -> FloatTensor<B> {
    let sides = sides(&y.shape(), axis);
    let [y, dy] = [y, dy].map(|tensor| B::float_reshape(tensor, Shape::from(sides)));
    let bias = B::float_reshape(bias, Shape::from([1, sides[1], 1]));
    let products = B::float_mul(dy, B::float_sub(y, bias));
    let sums = B::float_sum_dim(B::float_sum_dim(products, 2), 0);
    B::float_div(B::float_reshape(sums, Shape::from([sides[1]])), m)
}

/// The identity, through which a magnitude has its gradient.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub trait Magnitude: Backend {
    /// `y`; the gradient of `m` is [`MagnitudeBody::magnitude_gradient`], and no other tensor has one here.
    fn magnitude_of(
        y: FloatTensor<Self>,
        m: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        axis: usize,
    ) -> FloatTensor<Self>;
}

impl<B: MagnitudeBody> Magnitude for B {
    fn magnitude_of(
        y: FloatTensor<Self>,
        _m: FloatTensor<Self>,
        _bias: FloatTensor<Self>,
        _axis: usize,
    ) -> FloatTensor<Self> {
        y
    }
}

#[derive(Debug)]
struct MagnitudeBackward;

impl<B: MagnitudeBody> Backward<B, 2> for MagnitudeBackward {
    /// `y`, which is not copied, `m`, the bias and the axis.
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, usize);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let dy = grads.consume::<B>(&ops.node);
        let (y, m, bias, axis) = ops.state;
        let dm = parents[1].map(|_| B::magnitude_gradient(y, m, bias, dy.clone(), axis));
        register::<B, 2>(parents, [Some(dy), dm], grads);
    }
}

impl<B: MagnitudeBody, C: CheckpointStrategy> Magnitude for Autodiff<B, C> {
    fn magnitude_of(
        y: FloatTensor<Self>,
        m: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        axis: usize,
    ) -> FloatTensor<Self> {
        let prepared = MagnitudeBackward.prepare::<C>([y.node(), m.node()]).compute_bound().stateful();
        let (y, m, bias) = (y.into_primitive(), m.into_primitive(), bias.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish((y.clone(), m, bias, axis), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

/// `y`, the output of a layer whose weight is `m / |V|·V`, with the gradient of `m` through it, the norm held constant:
/// `dm[o] = Σ dy[n, o, t]·(y[n, o, t] - bias[o]) / m[o]`.
///
/// Nothing is computed before the backward pass, which keeps `y` and goes over it once. No value of `m` may be zero then.
///
/// # Shapes
/// - `y`: `m` is along `axis`, any other axes are summed over
/// - `m`, `bias`: `[out]`; the bias is a constant
///
/// # Panics
/// When a shape does not fit another.
#[must_use]
pub fn magnitude<const D: usize>(y: Tensor<D>, m: Tensor<1>, bias: Tensor<1>, axis: usize) -> Tensor<D> {
    assert_eq!([m.dims()[0], bias.dims()[0]], [y.dims()[axis]; 2], "a magnitude and a bias for each output");
    Tensor::from_dispatch(<Dispatch as Magnitude>::magnitude_of(
        y.into_dispatch(),
        m.into_dispatch(),
        bias.into_dispatch(),
        axis,
    ))
}
