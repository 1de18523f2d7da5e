//! What is attached to one parameter: the changes that adapters make to it.

mod control;
mod dora;
mod in_force;
mod mixed;
mod rows;

use burn::module::{Module, Param, ParamId};
use burn::nn::Dropout;
use burn::tensor::Tensor;
use lowrank::adapter::{DoraNorm, GroupMode, Layer};

pub(crate) use control::Control;
pub(crate) use in_force::{Who, like};
pub(crate) use mixed::{BASE, Mixed};

pub use rows::Rows;

/// The changes that the adapters of a model make to one of its parameters.
///
/// Attached to the parameter as a Burn [`Reparameterization`](burn::module::Reparameterization), so that an unmodified layer reads the adapted value from
/// [`Param::val`]: the base, with the active adapters' changes in order. The drop-in layers of [`crate::nn`] look for it
/// and compute the same through the fused operations of [`crate::ops`].
#[derive(Module, Debug)]
pub struct LoraAdapter {
    changes: Vec<Change>,
    /// The parameter they are made to.
    #[module(skip)]
    param: ParamId,
    #[module(skip)]
    control: Control,
}

/// A change that one adapter makes to one parameter.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a Burn module cannot be boxed, and there are a few hundred at most")]
pub enum Change {
    /// A weight plus `s·B·A`, with `DoRA` as long as the magnitude says.
    LowRank(LowRank),
    /// Another value instead: `modules_to_save`, and the biases that `bias = "all"` or `"lora_only"` trains.
    Replace(Replace),
    /// Other values in some rows of an embedding: `trainable_token_indices`.
    Rows(Rows),
    /// A bias plus `s·lora_B.bias`: the option `lora_bias`.
    Shift(Shift),
}

/// The factors of one adapter on one weight.
#[derive(Module, Debug)]
pub struct LowRank {
    /// `A` with its kernel flattened, `[r, n]`: `n = in` for a linear layer, `num_embeddings` for an embedding,
    /// `in/groups · Πkernel` for a convolution (`in · Πkernel` in the dense grouped form).
    pub a: Param<Tensor<2>>,
    /// `B` without its axes of size 1, `[out, r]`; `[out, r/groups]` in the dense and per-group forms.
    pub b: Param<Tensor<2>>,
    /// What the adapter began with, when that is a part of the base weight.
    pub start: Option<Start>,
    /// The magnitude of `DoRA`, `[out]`, when the adapter has one.
    pub magnitude: Option<Param<Tensor<1>>>,
    /// Dropout on the input of the adapter's path, when the configuration has any.
    pub dropout: Option<Dropout>,
    /// The adapter's name.
    #[module(skip)]
    pub adapter: String,
    /// The layer the factors belong to.
    #[module(skip)]
    pub layer: Layer,
    /// The form of the factors on a grouped convolution.
    #[module(skip)]
    pub mode: GroupMode,
    /// `alpha / r`, or `alpha / sqrt(r)` with rsLoRA.
    #[module(skip)]
    pub scale: f32,
    /// The norm that the magnitude goes with.
    #[module(skip)]
    pub norm: DoraNorm,
}

/// The factors that an adapter began with and that its base lacks while it is in force: `init_lora_weights` `"pissa"` and
/// `"olora"`.
///
/// The layer computes with `(W - s·B₀·A₀) + s·B·A`. The base keeps `W`: an adapter that is switched off, scaled by 0 or
/// taken off leaves the original model, and several adapters of any kind stand on the same base.
#[derive(Module, Debug)]
pub struct Start {
    /// `A₀`, frozen, in the shape of `A`; without the inputs of other groups when `A` is in the dense form.
    pub a: Param<Tensor<2>>,
    /// `B₀`, frozen, in the shape of `B`.
    pub b: Param<Tensor<2>>,
}

/// A value that takes a parameter's place.
#[derive(Module, Debug)]
pub struct Replace {
    /// The value, flattened.
    pub value: Param<Tensor<1>>,
    /// The adapter's name.
    #[module(skip)]
    pub adapter: String,
    /// Whether the layer takes it as it is, where the base is of half precision.
    #[module(skip)]
    pub keeps_type: bool,
}

/// `lora_B.bias`.
#[derive(Module, Debug)]
pub struct Shift {
    /// The bias, `[out]`.
    pub value: Param<Tensor<1>>,
    /// The adapter's name.
    #[module(skip)]
    pub adapter: String,
    /// The scale of the adapter's factors, which PEFT applies to this bias too.
    #[module(skip)]
    pub scale: f32,
}

impl Change {
    /// The adapter that makes the change.
    #[must_use]
    pub fn adapter(&self) -> &str {
        match self {
            Self::LowRank(low_rank) => &low_rank.adapter,
            Self::Replace(replace) => &replace.adapter,
            Self::Rows(rows) => &rows.adapter,
            Self::Shift(shift) => &shift.adapter,
        }
    }

    /// Gives the change to an adapter of another name.
    pub(crate) fn rename(&mut self, name: &str) {
        let adapter = match self {
            Self::LowRank(low_rank) => &mut low_rank.adapter,
            Self::Replace(replace) => &mut replace.adapter,
            Self::Rows(rows) => &mut rows.adapter,
            Self::Shift(shift) => &mut shift.adapter,
        };
        name.clone_into(adapter);
    }

    /// `value` with the change in it; `base` is what it was before the first, or what has taken its place.
    fn apply<const D: usize>(&self, value: Tensor<D>, base: &Tensor<D>, multiplier: f32) -> Tensor<D> {
        let shape = value.shape();
        let dtype = value.dtype();
        match self {
            Self::LowRank(low_rank) => {
                let delta = low_rank.delta(low_rank.scale * multiplier);
                let sum = low_rank.reduced(value, multiplier) + delta.reshape(shape).cast(dtype);
                match low_rank.gain(base, multiplier) {
                    Some(gain) => low_rank.gained(sum, gain.cast(dtype)),
                    None => sum,
                }
            }
            Self::Replace(replace) => {
                let value = replace.value.val().reshape(shape);
                if replace.keeps_type { value } else { value.cast(dtype) }
            }
            Self::Rows(rows) => rows.put_into(value),
            Self::Shift(shift) => {
                let bias = shift.value.val().mul_scalar(shift.scale * multiplier);
                value + bias.reshape(shape).cast(dtype)
            }
        }
    }
}

impl LowRank {
    /// Independent low-rank blocks: one a group when each group has its own rows of `A`, otherwise 1.
    #[must_use]
    pub fn blocks(&self) -> usize {
        match self.mode {
            GroupMode::PerGroup => self.layer.groups(),
            GroupMode::Dense | GroupMode::Shared => 1,
        }
    }

    /// Whether the change fits the weight: all but the dense form on a grouped convolution, whose delta reaches across
    /// groups.
    #[must_use]
    pub fn fits_weight(&self) -> bool {
        self.layer.groups() == 1 || self.mode != GroupMode::Dense
    }

    /// Whether dropout is applied now: it is configured and `input` is being trained on.
    #[must_use]
    pub fn drops<const D: usize>(&self, input: &Tensor<D>) -> bool {
        self.dropout.as_ref().is_some_and(|dropout| dropout.training.is_enabled() && input.device().is_autodiff())
    }

    /// What the adapter sees of `x`: some values are dropped where dropout is applied.
    #[must_use]
    pub fn seen<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match &self.dropout {
            Some(dropout) => dropout.forward(x),
            None => x,
        }
    }

    /// `scale·B·A` as a matrix in Burn's orientation: `[out, n]` for convolutions, `[in, out/g · Πkernel]` for transposed
    /// ones, `[in, out]` for linear layers, `[num, dim]` for embeddings.
    fn delta(&self, scale: f32) -> Tensor<2> {
        self.oriented(product(self.a.val(), self.b.val(), self.blocks(), scale))
    }

    /// The base weight that the factors stand on: without what the adapter began with, `W - s·B₀·A₀`.
    #[must_use]
    pub fn reduced<const D: usize>(&self, base: Tensor<D>, multiplier: f32) -> Tensor<D> {
        let Some(start) = &self.start else { return base };
        let blocks = if self.start_mode() == GroupMode::PerGroup { self.layer.groups() } else { 1 };
        let taken = self.oriented(product(start.a.val(), start.b.val(), blocks, self.scale * multiplier));
        let (shape, dtype) = (base.shape(), base.dtype());
        base - taken.reshape(shape).cast(dtype)
    }

    /// The form of [`Start`]: that of the factors, but `per_group` for `dense` ones, since it is a part of the weight.
    #[must_use]
    pub fn start_mode(&self) -> GroupMode {
        if self.mode == GroupMode::Dense { GroupMode::PerGroup } else { self.mode }
    }

    /// `[out, n]` as a matrix in Burn's orientation.
    fn oriented(&self, delta: Tensor<2>) -> Tensor<2> {
        if self.layer.kernel().is_empty() {
            return delta.transpose();
        }
        if !self.layer.kind().is_conv_transpose() {
            return delta;
        }
        let [groups, inputs, outputs, taps] = self.by_group();
        delta.reshape([groups, outputs, inputs, taps]).swap_dims(1, 2).reshape([groups * inputs, outputs * taps])
    }

    /// A weight in Burn's orientation as `[out, n]`.
    fn by_output<const D: usize>(&self, weight: Tensor<D>) -> Tensor<2> {
        let out = self.layer.out_features();
        let n = weight.shape().num_elements() / out;
        if self.layer.kernel().is_empty() {
            return weight.reshape([n, out]).transpose();
        }
        if !self.layer.kind().is_conv_transpose() {
            return weight.reshape([out, n]);
        }
        weight.reshape(self.by_group()).swap_dims(1, 2).reshape([out, n])
    }

    /// The axes of a transposed convolution's weight: groups, inputs and outputs of a group, taps.
    fn by_group(&self) -> [usize; 4] {
        let layer = &self.layer;
        let groups = layer.groups();
        [groups, layer.in_features() / groups, layer.out_features() / groups, layer.kernel().iter().product()]
    }
}

/// `scale·B·A`, `[out, n]`, block by block.
fn product(a: Tensor<2>, b: Tensor<2>, blocks: usize, scale: f32) -> Tensor<2> {
    let ([rank, n], [out, _]) = (a.dims(), b.dims());
    let a = a.reshape([blocks, rank / blocks, n]);
    let b = b.reshape([blocks, out / blocks, rank / blocks]);
    b.matmul(a).reshape([out, n]).mul_scalar(scale)
}
