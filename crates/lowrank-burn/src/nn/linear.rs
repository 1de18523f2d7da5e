//! [`burn::nn::Linear`] with adapters on the fused operation.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::Fused;
use super::adapted::{Adapted, Seen, by_sample};
use super::conv::reduced;
use super::dora::{self, Share};
use super::observe;
use crate::adapter::{LoraAdapter, LowRank};
use crate::ops::{linear, lora_linear};

/// The configuration of a [`Linear`] layer: Burn's own.
pub use burn::nn::LinearConfig;

/// `y = x·W + b`, as [`burn::nn::Linear`].
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_input, d_output]`, the transpose of PyTorch's.
    pub weight: Param<Tensor<2>>,
    /// `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    fused: Fused,
}

impl From<burn::nn::Linear> for Linear {
    fn from(layer: burn::nn::Linear) -> Self {
        Self { weight: layer.weight, bias: layer.bias, fused: Fused }
    }
}

impl Linear {
    /// A layer with Burn's initialisation.
    #[must_use]
    pub fn new(config: &LinearConfig, device: &Device) -> Self {
        config.init(device).into()
    }

    /// Applies the layer and its active adapters.
    ///
    /// # Shapes
    /// - input: `[…, d_input]`
    /// - output: `[…, d_output]`
    ///
    /// # Panics
    /// When the last axis of `input` is not `d_input`.
    #[must_use]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        forward(input, &self.weight, self.bias.as_ref())
    }
}

/// `x·W + bias` with the adapters on `weight`, `[d_input, d_output]`.
pub(super) fn forward<const D: usize>(
    x: Tensor<D>,
    weight: &Param<Tensor<2>>,
    bias: Option<&Param<Tensor<1>>>,
) -> Tensor<D> {
    observe::linear(&x, weight);
    let at_once = |x: &Tensor<D>, seen: &[Seen<'_, 2>], which: &[usize]| {
        // Biases that differ, and what is trained on, go one adapter after the other.
        let alike = bias.is_none_or(|bias| bias.reparameterization::<LoraAdapter>().is_none());
        if alike && !x.is_tracked() { own_paths(x, seen, which) } else { None }
    };
    by_sample(x, weight, bias, at_once, adapted)
}

/// A mixed batch in one pass: the weight once, and beside it the factors of all adapters together, of which each sample
/// keeps its own.
///
/// `y = x·W + (own ∘ x·Aᵀ)·Bᵀ + bias` with the `A` of all adapters stacked, their `B` side by side, and `own` the scale of an
/// adapter or zero.
fn own_paths<const D: usize>(x: &Tensor<D>, seen: &[Seen<'_, 2>], which: &[usize]) -> Option<Tensor<D>> {
    let (weight, bias) = seen.first()?;
    let paths: Vec<_> = seen.iter().map(|(weight, _)| plain_paths(x, weight)).collect::<Option<_>>()?;
    let all: Vec<_> =
        paths.iter().enumerate().flat_map(|(at, paths)| paths.iter().map(move |path| (at, path))).collect();
    let ranks: Vec<_> = all.iter().map(|(_, (path, _))| path.a.val().dims()[0]).collect();
    let (rank, [inputs, outputs]) = (ranks.iter().sum::<usize>(), weight.base().dims());
    if rank == 0 || rank * (inputs + outputs) > inputs * outputs {
        return None;
    }
    let mut own = Vec::with_capacity(which.len() * rank);
    for which in which {
        for ((at, (path, multiplier)), rank) in all.iter().zip(&ranks) {
            let scale = if at == which { path.scale * multiplier } else { 0.0 };
            own.extend(std::iter::repeat_n(scale, *rank));
        }
    }
    let mut shape = [1; D];
    (shape[0], shape[D - 1]) = (which.len(), rank);
    let own = Tensor::<D>::from_data(TensorData::new(own, shape), &x.device()).cast(x.dtype());
    let [a, b] = [0, 1].map(|side| {
        let factors = all.iter().map(|(_, (path, _))| if side == 0 { path.a.val() } else { path.b.val() });
        Tensor::cat(factors.collect(), side).transpose()
    });
    let h = linear(x.clone(), a, None) * own;
    Some(linear(x.clone(), weight.base(), bias.clone()) + linear(h, b, None))
}

/// What some samples of a mixed batch see beside the weight, where that is no more than paths of its type.
fn plain_paths<'a, const D: usize>(x: &Tensor<D>, weight: &Adapted<'a, 2>) -> Option<Vec<(&'a LowRank, f32)>> {
    if !weight.changes() {
        return Some(Vec::new());
    }
    let paths = weight.low_rank()?;
    let plain = |path: &LowRank| path.start.is_none() && !path.drops(x) && path.a.val().dtype() == x.dtype();
    (!dora::any(&paths) && paths.iter().all(|(path, _)| plain(path))).then_some(paths)
}

fn adapted<const D: usize>(x: Tensor<D>, weight: &Adapted<'_, 2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let Some(paths) = weight.low_rank() else {
        return linear(x, weight.val(), bias);
    };
    if dora::any(&paths) {
        return with_dora(x, weight, &paths, bias);
    }
    let weight = reduced(weight.base(), &paths);
    let mut paths = paths.into_iter().peekable();
    let first = paths.next_if(|(path, _)| !path.drops(&x));
    let y = match first {
        Some((path, multiplier)) => {
            lora_linear(x.clone(), weight, path.a.val(), path.b.val(), bias, path.scale * multiplier)
        }
        None => linear(x.clone(), weight, bias),
    };
    paths.fold(y, |y, (path, multiplier)| y + two_path(path.seen(x.clone()), path, multiplier))
}

/// The forward when one of the adapters has a magnitude: one pass for it alone, else one adapter after the other.
fn with_dora<const D: usize>(
    x: Tensor<D>,
    weight: &Adapted<'_, 2>,
    paths: &[(&LowRank, f32)],
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let original = weight.original();
    let weight = weight.base();
    if let Some(scaled) = dora::scaled(&x, [&weight, &original], paths) {
        let (a, b) = (scaled.path.a.val(), scaled.b.clone());
        let y = lora_linear(x, scaled.weight.clone(), a, b, bias.clone(), scaled.scale);
        return scaled.trained(y, bias, D - 1);
    }
    let shares = paths.iter().flat_map(|&(path, multiplier)| {
        let taken = path.start.as_ref().map(|_| {
            let added = linear(x.clone(), path.reduced(weight.zeros_like(), multiplier), None);
            Share { added, gain: None, dropped: None }
        });
        let seen = path.seen(x.clone());
        let drops = path.magnitude.is_some() && path.drops(&x);
        let share = Share {
            gain: path.gain(&original, multiplier).map(|gain| dora::along(gain, D - 1)),
            dropped: drops.then(|| linear(seen.clone(), path.reduced(weight.clone(), multiplier), None)),
            added: two_path(seen, path, multiplier),
        };
        taken.into_iter().chain([share])
    });
    let y = dora::in_turn(linear(x.clone(), weight.clone(), None), shares);
    match bias {
        Some(bias) => y + dora::along(bias, D - 1),
        None => y,
    }
}

/// `s·(x·Aᵀ)·Bᵀ`.
fn two_path<const D: usize>(x: Tensor<D>, path: &LowRank, multiplier: f32) -> Tensor<D> {
    let h = linear(x, path.a.val().transpose(), None);
    linear(h, path.b.val().transpose(), None).mul_scalar(path.scale * multiplier)
}
