//! Layers with `DoRA`.

use burn::tensor::Tensor;

use crate::adapter::LowRank;
use crate::ops::magnitude;

/// Below this gain, too little of an output is left beside its bias to take the gradient of the magnitude from.
const SMALLEST_GAIN: f32 = 1.0 / 64.0;

/// A layer with one adapter, `g·(W + s·B·A)`, as one without `DoRA`: base `g·W`, factors `A` and `g·B`.
pub(super) struct Scaled<'a, const D: usize> {
    pub path: &'a LowRank,
    pub scale: f32,
    pub weight: Tensor<D>,
    pub b: Tensor<2>,
}

/// What one of several adapters does to an output, or a part of that.
pub(super) struct Share<const D: usize> {
    /// What it adds.
    pub added: Tensor<D>,
    /// What it then multiplies all with, bias apart.
    pub gain: Option<Tensor<D>>,
    /// The base, without its bias, on the input that the adapter sees, where that is not the layer's.
    pub dropped: Option<Tensor<D>>,
}

/// Whether one of the adapters has a magnitude.
pub(super) fn any(paths: &[(&LowRank, f32)]) -> bool {
    paths.iter().any(|(path, _)| path.magnitude.is_some())
}

/// The adapter, when it is the only one and can be computed in one pass, on a base `weight` and what it was originally.
pub(super) fn scaled<'a, const X: usize, const D: usize>(
    x: &Tensor<X>,
    [weight, original]: [&Tensor<D>; 2],
    paths: &[(&'a LowRank, f32)],
) -> Option<Scaled<'a, D>> {
    let &[(path, multiplier)] = paths else { return None };
    if !path.fits_weight() || path.drops(x) {
        return None;
    }
    let trained = path.magnitude.as_ref()?.val().is_tracked();
    let gain = path.gain(original, multiplier)?.detach();
    if trained && gain.clone().abs().min().into_scalar::<f32>() < SMALLEST_GAIN {
        return None;
    }
    let b = path.b.val() * along(gain.clone(), 0);
    // In single precision: the product of a gain and a weight in half precision is in none.
    let weight = path.gained(path.reduced(weight.clone().cast(gain.dtype()), multiplier), gain);
    Some(Scaled { path, scale: path.scale * multiplier, weight, b })
}

impl<const D: usize> Scaled<'_, D> {
    /// The layer's output, through which the magnitude has its gradient.
    pub fn trained<const Y: usize>(&self, y: Tensor<Y>, bias: Option<Tensor<1>>, axis: usize) -> Tensor<Y> {
        let Some(m) = &self.path.magnitude else { return y };
        let m = m.val();
        let zeros = || Tensor::zeros(m.dims(), (&m.device(), m.dtype()));
        let bias = bias.map_or_else(zeros, |bias| bias.detach().cast(m.dtype()));
        magnitude(y, m, bias, axis)
    }
}

/// `y ← g·(y + added)`, adapter by adapter, from the base's output without its bias.
///
/// With dropout it is `y + (g - 1)·W·x' + g·added`, as in PEFT, with `x'` the input that the adapter sees.
pub(super) fn in_turn<const D: usize>(y: Tensor<D>, shares: impl Iterator<Item = Share<D>>) -> Tensor<D> {
    shares.fold(y, |y, Share { added, gain, dropped }| match (gain, dropped) {
        (None, _) => y + added,
        (Some(gain), None) => (y + added) * gain,
        (Some(gain), Some(base)) => y - base.clone() + (base + added) * gain,
    })
}

/// A vector along one axis of tensors of `D` axes.
pub(super) fn along<const D: usize>(vector: Tensor<1>, axis: usize) -> Tensor<D> {
    let mut shape = [1; D];
    shape[axis] = vector.dims()[0];
    vector.reshape(shape)
}
