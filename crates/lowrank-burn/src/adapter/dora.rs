//! [`DoRA`](lowrank::adapter::dora) on Burn's tensors: what an adapter multiplies the outputs with.

use burn::tensor::{Tensor, TensorData};
use lowrank::adapter::{DoraNorm, GroupMode};

use super::{LowRank, product};

impl LowRank {
    /// `m / |W + s·B·A|` for each output, given the base `W` in Burn's orientation; none without `DoRA`.
    ///
    /// Gradients reach `m` alone: the norm is a constant. Where it is zero, so is the gain.
    pub(crate) fn gain<const D: usize>(&self, base: &Tensor<D>, multiplier: f32) -> Option<Tensor<1>> {
        let magnitude = self.magnitude.as_ref()?.val();
        let norms = self.norms(base, self.scale * multiplier);
        let none = norms.clone().equal_elem(0.0);
        Some(magnitude / norms.mask_fill(none, f32::INFINITY))
    }

    /// The axis of the outputs in a weight in Burn's orientation: the last of a matrix, the first of a kernel.
    pub(crate) fn output_axis(&self) -> usize {
        usize::from(self.layer.kernel().is_empty())
    }

    fn norms<const D: usize>(&self, base: &Tensor<D>, scale: f32) -> Tensor<1> {
        let (out, axis) = (self.layer.out_features(), self.output_axis());
        let (mut delta, outside) = self.measured([&self.a.val(), &self.b.val()], self.mode, scale);
        if let Some(start) = &self.start {
            delta = delta - self.measured([&start.a.val(), &start.b.val()], self.start_mode(), scale).0;
        }
        let delta = self.oriented(delta);
        let weight = base.clone().detach().cast(delta.dtype()).reshape(delta.dims()) + delta;
        let squares = (weight.clone() * weight).sum_dim(1 - axis).reshape([out]);
        match outside {
            Some(outside) => (squares + outside).sqrt(),
            None => squares.sqrt(),
        }
    }

    /// The delta of some factors that the norm is taken with, `[out, n]`, and the squares of what dense ones have outside
    /// their groups.
    fn measured(&self, factors: [&Tensor<2>; 2], mode: GroupMode, scale: f32) -> (Tensor<2>, Option<Tensor<1>>) {
        let [a, b] = factors.map(|factor| factor.clone().detach());
        let (groups, [rank, n], [out, _]) = (self.layer.groups(), a.dims(), b.dims());
        match (self.norm, mode) {
            (_, GroupMode::Shared) => (product(a, b, 1, scale), None),
            _ if groups == 1 => (product(a, b, 1, scale), None),
            (DoraNorm::Exact, GroupMode::PerGroup) => (product(a, b, groups, scale), None),
            (DoraNorm::Exact, GroupMode::Dense) => {
                let inside = product(self.by_group(a.clone(), true), b.clone(), groups, scale);
                let outside = product(self.by_group(a, false), b, groups, scale);
                // What is inside is zero in the columns of all other groups.
                let inside = inside.reshape([out, groups, n / groups]).sum_dim(1).reshape([out, n / groups]);
                (inside, Some((outside.clone() * outside).sum_dim(1).reshape([out])))
            }
            (DoraNorm::Peft, mode) => {
                let dense = mode == GroupMode::Dense;
                let a = if dense { a } else { self.by_group(a.repeat_dim(1, groups), true) };
                let n = if dense { n / groups } else { n };
                let delta = b.reshape([out / groups, rank]).matmul(a).mul_scalar(scale);
                (delta.reshape([out, n]), None)
            }
        }
    }

    /// A dense `A` with zeros outside the groups, or inside.
    fn by_group(&self, a: Tensor<2>, inside: bool) -> Tensor<2> {
        let ([rank, n], groups) = (a.dims(), self.layer.groups());
        let kept = |at: usize| f32::from(u8::from((at / groups == at % groups) == inside));
        let mask = TensorData::new((0..groups * groups).map(kept).collect(), [groups, 1, groups, 1]);
        let mask = Tensor::<4>::from_data(mask, (&a.device(), a.dtype()));
        (a.reshape([groups, rank / groups, groups, n / groups]) * mask).reshape([rank, n])
    }
}
