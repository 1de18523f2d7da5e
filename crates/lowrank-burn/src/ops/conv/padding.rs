//! Padding in Burn's operations, for backends whose convolutions know zeros only, and one axis.

use std::ops::Range;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Slice, TensorMetadata};
use burn::tensor::Shape;
use burn::tensor::ops::ConvOptions;
use lowrank::geometry::PaddingMode;

use super::ConvDims;

/// The input with its padding, and the same convolution without; both as they are where zeros are added.
pub(super) fn pad<B: Backend>(x: FloatTensor<B>, dims: &ConvDims) -> (FloatTensor<B>, ConvDims) {
    let Some((mode, (before, after))) = own_padding(dims) else { return (x, dims.clone()) };
    let length = x.shape()[2];
    let ends = ends(mode, length, (before, after)).map(|(end, count)| (count > 0).then(|| end.read::<B>(&x, count)));
    let [left, right] = ends;
    let parts = [left, Some(x), right].into_iter().flatten().collect();
    (B::float_cat(parts, 2), unpadded(dims))
}

/// The gradient of the input, of that of the input with its padding.
pub(super) fn fold<B: Backend>(dx: FloatTensor<B>, dims: &ConvDims) -> FloatTensor<B> {
    let Some((mode, (before, after))) = own_padding(dims) else { return dx };
    let length = dx.shape()[2] - before - after;
    let folded = positions::<B>(&dx, before..before + length);
    let pieces = [0..before, before + length..before + length + after];
    let ends = ends(mode, length, (before, after)).into_iter().zip(pieces);
    ends.filter(|((_, count), _)| *count > 0)
        .fold(folded, |folded, ((end, count), piece)| end.add::<B>(folded, positions::<B>(&dx, piece), count))
}

/// The convolution of an input that is padded already.
fn unpadded(dims: &ConvDims) -> ConvDims {
    match dims {
        ConvDims::One(options, PaddingMode::Reflect | PaddingMode::Replicate | PaddingMode::Circular) => {
            ConvDims::One(ConvOptions { padding: [(0, 0)], ..options.clone() }, PaddingMode::Zeros)
        }
        dims => dims.clone(),
    }
}

/// The mode that Burn does not know, and how much is added at each end.
fn own_padding(dims: &ConvDims) -> Option<(PaddingMode, (usize, usize))> {
    match dims {
        ConvDims::One(_, PaddingMode::Zeros) | ConvDims::Two(_) | ConvDims::Three(_) | ConvDims::Transposed(_) => None,
        ConvDims::One(options, mode) => Some((*mode, options.padding[0])),
    }
}

/// Where one end of the padding comes from.
enum End {
    /// Positions from here on, as they stand.
    Repeated(usize),
    /// Positions from here on, the other way round.
    Reversed(usize),
    /// This position, as often as needed.
    Single(usize),
}

/// Both ends, and how long they are.
fn ends(mode: PaddingMode, length: usize, (before, after): (usize, usize)) -> [(End, usize); 2] {
    let [left, right] = match mode {
        PaddingMode::Reflect => [End::Reversed(1), End::Reversed((length - 1).saturating_sub(after))],
        PaddingMode::Replicate => [End::Single(0), End::Single(length - 1)],
        PaddingMode::Circular | PaddingMode::Zeros => [End::Repeated(length.saturating_sub(before)), End::Repeated(0)],
    };
    [(left, before), (right, after)]
}

impl End {
    fn read<B: Backend>(&self, x: &FloatTensor<B>, count: usize) -> FloatTensor<B> {
        match *self {
            Self::Repeated(from) => positions::<B>(x, from..from + count),
            Self::Reversed(from) => B::float_flip(positions::<B>(x, from..from + count), &[2]),
            Self::Single(at) => {
                let mut shape = x.shape();
                shape[2] = count;
                B::float_expand(positions::<B>(x, at..at + 1), shape)
            }
        }
    }

    /// Adds the gradient of the end to that of where it comes from.
    fn add<B: Backend>(&self, dx: FloatTensor<B>, end: FloatTensor<B>, count: usize) -> FloatTensor<B> {
        let (range, end) = match *self {
            Self::Repeated(from) => (from..from + count, end),
            Self::Reversed(from) => (from..from + count, B::float_flip(end, &[2])),
            Self::Single(at) => (at..at + 1, B::float_sum_dim(end, 2)),
        };
        let sum = B::float_add(positions::<B>(&dx, range.clone()), end);
        let slices = slices(&dx.shape(), range);
        B::float_slice_assign(dx, &slices, sum)
    }
}

/// Some positions of every signal.
pub(super) fn positions<B: Backend>(x: &FloatTensor<B>, range: Range<usize>) -> FloatTensor<B> {
    B::float_slice(x.clone(), &slices(&x.shape(), range))
}

fn slices(shape: &Shape, range: Range<usize>) -> [Slice; 3] {
    [Slice::from(0..shape[0]), Slice::from(0..shape[1]), Slice::from(range)]
}
