//! The forward that the convolutions share.

use burn::module::Param;
use burn::tensor::Tensor;
use lowrank::adapter::GroupMode;

use super::adapted::{Adapted, Seen, by_sample};
use super::dora::{self, Share};
use super::observe;
use crate::adapter::LowRank;
use crate::ops::{ConvDims, Factors, LowRankConv, OwnConv, convolve, convolve_each, lora_conv};

/// `conv(x, weight)` with the adapters on `weight`, plus `bias`.
pub(super) fn forward<const D: usize>(
    x: Tensor<D>,
    weight: &Param<Tensor<D>>,
    bias: Option<&Param<Tensor<1>>>,
    dims: &ConvDims,
) -> Tensor<D> {
    observe::convolution(&x, weight, dims);
    let at_once = |x: &Tensor<D>, seen: &[Seen<'_, D>], which: &[usize]| {
        // Before anything is looked up: what is trained on, and other axes, go one adapter after the other.
        if x.is_tracked() || !matches!(dims, ConvDims::One(..)) {
            return None;
        }
        let own = seen.iter().map(|(weight, bias)| one_pass(x, weight, bias.clone())).collect::<Option<Vec<_>>>()?;
        convolve_each(x, &seen.first()?.0.base(), &own, which, dims)
    };
    by_sample(x, weight, bias, at_once, |x, weight, bias| adapted(x, weight, bias, dims))
}

/// What some samples of a mixed batch are convolved with, where that is one kernel.
fn one_pass<const D: usize>(x: &Tensor<D>, weight: &Adapted<'_, D>, bias: Option<Tensor<1>>) -> Option<OwnConv<D>> {
    let Some(paths) = weight.low_rank() else {
        let weight = weight.changes().then(|| weight.val());
        return Some(OwnConv { weight, factors: None, bias });
    };
    if dora::any(&paths) {
        let scaled = dora::scaled(x, [&weight.base(), &weight.original()], &paths)?;
        let (path, scale) = (scaled.path, scaled.scale);
        let factors = Factors { a: path.a.val(), b: scaled.b, scale, blocks: path.blocks() };
        return Some(OwnConv { weight: Some(scaled.weight), factors: Some(factors), bias });
    }
    if paths.iter().any(|(path, _)| !path.fits_weight() || path.drops(x)) {
        return None;
    }
    let begun = paths.iter().any(|(path, _)| path.start.is_some());
    let own = begun.then(|| reduced(weight.base(), &paths));
    Some(OwnConv { weight: own, factors: Some(stack(&paths)), bias })
}

fn adapted<const D: usize>(
    x: Tensor<D>,
    weight: &Adapted<'_, D>,
    bias: Option<Tensor<1>>,
    dims: &ConvDims,
) -> Tensor<D> {
    let Some(paths) = weight.low_rank() else {
        return convolve(x, weight.val(), bias, dims);
    };
    if dora::any(&paths) {
        return with_dora(x, weight, &paths, bias, dims);
    }
    let weight = reduced(weight.base(), &paths);
    let (folded, apart): (Vec<_>, Vec<_>) =
        paths.into_iter().partition(|(path, _)| path.fits_weight() && !path.drops(&x));
    let y = match folded.as_slice() {
        [] => convolve(x.clone(), weight, bias, dims),
        folded => {
            let Factors { a, b, scale, blocks } = stack(folded);
            lora_conv(x.clone(), weight, a, b, bias, &LowRankConv { dims: dims.clone(), scale, blocks })
        }
    };
    apart.into_iter().fold(y, |y, (path, multiplier)| y + two_path(path.seen(x.clone()), path, multiplier, dims))
}

/// The forward when one of the adapters has a magnitude: one pass for it alone, else one adapter after the other.
fn with_dora<const D: usize>(
    x: Tensor<D>,
    weight: &Adapted<'_, D>,
    paths: &[(&LowRank, f32)],
    bias: Option<Tensor<1>>,
    dims: &ConvDims,
) -> Tensor<D> {
    let original = weight.original();
    let weight = weight.base();
    if let Some(scaled) = dora::scaled(&x, [&weight, &original], paths) {
        let spec = LowRankConv { dims: dims.clone(), scale: scaled.scale, blocks: scaled.path.blocks() };
        let (a, b) = (scaled.path.a.val(), scaled.b.clone());
        let y = lora_conv(x, scaled.weight.clone(), a, b, bias.clone(), &spec);
        return scaled.trained(y, bias, 1);
    }
    let shares = paths.iter().flat_map(|&(path, multiplier)| {
        let taken = path.start.as_ref().map(|_| {
            let added = convolve(x.clone(), path.reduced(weight.zeros_like(), multiplier), None, dims);
            Share { added, gain: None, dropped: None }
        });
        let seen = path.seen(x.clone());
        let drops = path.magnitude.is_some() && path.drops(&x);
        let share = Share {
            gain: path.gain(&original, multiplier).map(|gain| dora::along(gain, 1)),
            dropped: drops.then(|| convolve(seen.clone(), path.reduced(weight.clone(), multiplier), None, dims)),
            added: two_path(seen, path, multiplier, dims),
        };
        taken.into_iter().chain([share])
    });
    let y = dora::in_turn(convolve(x.clone(), weight.clone(), None, dims), shares);
    match bias {
        Some(bias) => y + dora::along(bias, 1),
        None => y,
    }
}

/// The base weight without what the adapters began with.
pub(super) fn reduced<const D: usize>(base: Tensor<D>, paths: &[(&LowRank, f32)]) -> Tensor<D> {
    paths.iter().fold(base, |base, (path, multiplier)| path.reduced(base, *multiplier))
}

/// The factors of several adapters as those of one: `A` stacked, `B` side by side and scaled, block by block.
fn stack(paths: &[(&LowRank, f32)]) -> Factors {
    let blocks = paths.first().map_or(1, |(path, _)| path.blocks());
    if let [(path, multiplier)] = paths {
        return Factors { a: path.a.val(), b: path.b.val(), scale: path.scale * multiplier, blocks };
    }
    let (a, b): (Vec<_>, Vec<_>) = paths
        .iter()
        .map(|(path, multiplier)| {
            let (a, b) = (path.a.val(), path.b.val().mul_scalar(path.scale * multiplier));
            let ([rank, n], [out, _]) = (a.dims(), b.dims());
            (a.reshape([blocks, rank / blocks, n]), b.reshape([blocks, out / blocks, rank / blocks]))
        })
        .unzip();
    let (a, b) = (Tensor::cat(a, 1), Tensor::cat(b, 2));
    let ([_, rank, n], [_, out, _]) = (a.dims(), b.dims());
    Factors { a: a.reshape([blocks * rank, n]), b: b.reshape([blocks * out, rank]), scale: 1.0, blocks }
}

/// The adapter's path on its own: `s·conv(conv(x, A), B)`.
///
/// For what cannot be folded into the weight: dropout, which the base does not see, and the dense grouped form.
fn two_path<const D: usize>(x: Tensor<D>, path: &LowRank, multiplier: f32, dims: &ConvDims) -> Tensor<D> {
    let (a, b) = (path.a.val(), path.b.val());
    let groups = path.layer.groups();
    let rank = a.dims()[0];
    let mut a_shape = [1; D];
    a_shape[0] = rank;
    a_shape[1] = a.dims()[1] / path.layer.kernel().iter().product::<usize>();
    a_shape[2..].copy_from_slice(path.layer.kernel());
    let mut b_shape = [1; D];
    b_shape[..2].copy_from_slice(&b.dims());
    let (a, b) = (a.reshape(a_shape), b.reshape(b_shape));
    let a = match dims {
        ConvDims::Transposed(_) => inputs_first(a, if path.mode == GroupMode::PerGroup { groups } else { 1 }),
        _ => a,
    };

    let h = match path.mode {
        GroupMode::Shared if groups > 1 => shared_rows(x, a, groups, rank, dims),
        GroupMode::Dense => convolve(x, a, None, &dims.ungrouped()),
        GroupMode::PerGroup | GroupMode::Shared => convolve(x, a, None, dims),
    };
    convolve(h, b, None, &dims.pointwise(groups)).mul_scalar(path.scale * multiplier)
}

/// The input of a transposed convolution, and what is left of its `padding_out` below the stride: a whole stride of it is
/// what one more input of zero gives.
pub(super) fn within_stride<const D: usize, const N: usize>(
    input: Tensor<D>,
    stride: [usize; N],
    padding_out: [usize; N],
) -> (Tensor<D>, [usize; N]) {
    let longer = |input: Tensor<D>, at: usize| {
        let mut shape = input.dims();
        shape[2 + at] = padding_out[at] / stride[at];
        if shape[2 + at] == 0 {
            return input;
        }
        let zeros = Tensor::zeros(shape, (&input.device(), input.dtype()));
        Tensor::cat(vec![input, zeros], 2 + at)
    };
    ((0..N).fold(input, longer), std::array::from_fn(|at| padding_out[at] % stride[at]))
}

/// `A` `[r, in/g, k…]` as the weight of a transposed convolution, `[in, r/g, k…]`.
fn inputs_first<const D: usize>(a: Tensor<D>, groups: usize) -> Tensor<D> {
    let mut shape = a.dims();
    let [rank, inputs] = [shape[0], shape[1]];
    let taps = shape[2..].iter().product::<usize>();
    (shape[0], shape[1]) = (inputs * groups, rank / groups);
    a.reshape([groups, rank / groups, inputs, taps]).swap_dims(1, 2).reshape(shape)
}

/// `A` over each group of `x`: the groups become samples, and the ranks of each group channels.
fn shared_rows<const D: usize>(x: Tensor<D>, a: Tensor<D>, groups: usize, rank: usize, dims: &ConvDims) -> Tensor<D> {
    let mut split = x.dims();
    let batch = split[0];
    split[0] *= groups;
    split[1] /= groups;
    let h = convolve(x.reshape(split), a, None, &dims.ungrouped());
    let mut joined = h.dims();
    joined[0] = batch;
    joined[1] = groups * rank;
    h.reshape(joined)
}
