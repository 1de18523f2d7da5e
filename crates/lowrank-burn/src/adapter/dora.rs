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

    /// A weight in Burn's orientation with each output times its gain.
    pub(crate) fn gained<const D: usize>(&self, weight: Tensor<D>, gain: Tensor<1>) -> Tensor<D> {
        if self.layer.kind().is_conv_transpose() {
            let (shape, [groups, inputs, outputs, taps]) = (weight.dims(), self.by_group());
            let weight = weight.reshape([groups, inputs, outputs, taps]);
            return (weight * gain.reshape([groups, 1, outputs, 1])).reshape(shape);
        }
        let mut along = [1; D];
        along[usize::from(self.layer.kernel().is_empty())] = self.layer.out_features();
        weight * gain.reshape(along)
    }

    fn norms<const D: usize>(&self, base: &Tensor<D>, scale: f32) -> Tensor<1> {
        let out = self.layer.out_features();
        let (mut delta, outside) = self.measured([&self.a.val(), &self.b.val()], self.mode, scale);
        if let Some(start) = &self.start {
            delta = delta - self.measured([&start.a.val(), &start.b.val()], self.start_mode(), scale).0;
        }
        let weight = self.by_output(base.clone().detach()).cast(delta.dtype()) + delta;
        let squares = (weight.clone() * weight).sum_dim(1).reshape([out]);
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
        let known = !self.layer.kind().is_conv_transpose();
        match (if known { self.norm } else { DoraNorm::Exact }, mode) {
            (_, GroupMode::Shared) => (product(a, b, 1, scale), None),
            _ if groups == 1 => (product(a, b, 1, scale), None),
            (DoraNorm::Exact, GroupMode::PerGroup) => (product(a, b, groups, scale), None),
            (DoraNorm::Exact, GroupMode::Dense) => {
                let inside = product(self.within_groups(a.clone(), true), b.clone(), groups, scale);
                let outside = product(self.within_groups(a, false), b, groups, scale);
                // What is inside is zero in the columns of all other groups.
                let inside = inside.reshape([out, groups, n / groups]).sum_dim(1).reshape([out, n / groups]);
                (inside, Some((outside.clone() * outside).sum_dim(1).reshape([out])))
            }
            (DoraNorm::Peft, mode) => {
                let dense = mode == GroupMode::Dense;
                let a = if dense { a } else { self.within_groups(a.repeat_dim(1, groups), true) };
                let n = if dense { n / groups } else { n };
                let delta = b.reshape([out / groups, rank]).matmul(a).mul_scalar(scale);
                (delta.reshape([out, n]), None)
            }
        }
    }

    /// A dense `A` with zeros outside the groups, or inside.
    fn within_groups(&self, a: Tensor<2>, inside: bool) -> Tensor<2> {
        let ([rank, n], groups) = (a.dims(), self.layer.groups());
        let kept = |at: usize| f32::from(u8::from((at / groups == at % groups) == inside));
        let mask = TensorData::new((0..groups * groups).map(kept).collect(), [groups, 1, groups, 1]);
        let mask = Tensor::<4>::from_data(mask, (&a.device(), a.dtype()));
        (a.reshape([groups, rank / groups, groups, n / groups]) * mask).reshape([rank, n])
    }
}
