//! Transposed convolutions: the forward of one is the input gradient of a convolution with the same weight, its input
//! gradient is that convolution, and the weight has one gradient for both, with `x` and `dy` in each other's place.
//!
//! So all of it is [`ConvBody`]'s, by its kernels where a backend has them.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Slice, TensorMetadata};
use burn::tensor::Shape;

use super::super::cast::cast_as;
use super::ConvDims;
use super::body::ConvBody;

/// A transposed convolution, by the convolution whose transpose it is: from its outputs to its inputs, with the same weight,
/// `[in, out/groups, kernel…]` of the one and `[out, in/groups, kernel…]` of the other.
#[derive(Debug, Clone)]
pub struct Transposed {
    pub(super) conv: Box<ConvDims>,
    padding_out: Vec<usize>,
}

impl Transposed {
    /// The transpose of `conv`; along each axis `padding_out`, below its stride, is how many outputs there are that no
    /// complete stride ends with.
    #[must_use]
    pub fn new(conv: ConvDims, padding_out: &[usize]) -> Self {
        Self { conv: Box::new(conv), padding_out: padding_out.to_vec() }
    }

    /// The same in one group.
    pub(super) fn ungrouped(&self) -> Self {
        Self { conv: Box::new(self.conv.ungrouped()), padding_out: self.padding_out.clone() }
    }

    /// `y = convᵀ(x, W) + bias`.
    pub(super) fn forward<B: ConvBody>(
        &self,
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: Option<FloatTensor<B>>,
    ) -> FloatTensor<B> {
        let weight = cast_as::<B>(weight, &x);
        let (input, kernel) = (x.shape(), weight.shape());
        let outputs = kernel[1] * self.conv.groups();
        let geometry = self.conv.geometry(outputs, &kernel);
        let lengths = geometry.and_then(|conv| conv.transposed_lengths(&input[2..], &self.padding_out));
        let lengths = lengths.unwrap_or_else(|error| panic!("{error}"));
        let shape = [&[input[0], outputs][..], &lengths].concat();
        // Only its shape is looked at: one value, seen as often as needed.
        let one: Vec<Slice> = input.iter().map(|_| Slice::from(0..1)).collect();
        let like = B::float_expand(B::float_slice(x.clone(), &one), Shape::from(shape));
        let y = B::plain_dx(like, weight, x, &self.conv);
        let Some(bias) = bias else { return y };
        let mut along = vec![1; input.num_dims()];
        along[1] = outputs;
        B::float_add(y, B::float_reshape(bias, Shape::from(along)))
    }

    /// `dx = conv(dy, W)`.
    pub(super) fn dx<B: ConvBody>(&self, weight: FloatTensor<B>, dy: FloatTensor<B>) -> FloatTensor<B> {
        let weight = cast_as::<B>(weight, &dy);
        let zeros = B::float_zeros(Shape::new([weight.shape()[0]]), &dy.device(), dy.dtype().into());
        B::plain_forward(dy, weight, zeros, &self.conv)
    }

    /// The gradient of `W`.
    pub(super) fn dw<B: ConvBody>(
        &self,
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        dy: FloatTensor<B>,
    ) -> FloatTensor<B> {
        B::plain_dw(dy, weight, x, &self.conv)
    }

    /// A matrix `[rows, in/groups · Πk]`, with `rows` the outputs of a weight or the ranks of `A`, as the weight of this
    /// convolution is laid out: `[in, rows/groups, k…]`, in the `kernel`'s shape.
    pub(super) fn laid_out<B: Backend>(&self, matrix: FloatTensor<B>, kernel: &Shape) -> FloatTensor<B> {
        let (groups, rows) = (self.conv.groups(), matrix.shape()[0]);
        let mut shape = kernel.clone();
        shape[1] = rows / groups;
        B::float_reshape(swapped::<B>(matrix, [groups, rows, kernel[0]]), shape)
    }

    /// The reverse of [`Self::laid_out`].
    pub(super) fn as_matrix<B: Backend>(&self, weight: FloatTensor<B>) -> FloatTensor<B> {
        let (groups, shape) = (self.conv.groups(), weight.shape());
        let (inputs, rows) = (shape[0], shape[1] * groups);
        let columns = shape.num_elements() / rows;
        B::float_reshape(swapped::<B>(weight, [groups, inputs, rows]), Shape::new([rows, columns]))
    }
}

/// `[rows, columns/g, k…]` as `[columns, rows/g, k…]`, group by group: `[g, rows/g, columns/g, Πk]` with its middle axes
/// swapped.
fn swapped<B: Backend>(tensor: FloatTensor<B>, [groups, rows, columns]: [usize; 3]) -> FloatTensor<B> {
    let taps = tensor.shape().num_elements() / (rows * columns / groups);
    let shape = Shape::new([groups, rows / groups, columns / groups, taps]);
    B::float_swap_dims(B::float_reshape(tensor, shape), 1, 2)
}
