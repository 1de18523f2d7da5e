//! LyCORIS's and kohya's form of the same factors, which they call `LoCon`, and `LoRA` on linear layers.
//!
//! One safetensors file without a configuration; what PEFT's has is in the tensors:
//!
//! | tensor | key, after the module's name | shape |
//! |---|---|---|
//! | `A` | `lora_down.weight` | `(r, in)`, `(r, in/g, k..)` |
//! | `B` | `lora_up.weight` | `(out, r)`, `(out, r, 1..)` |
//! | with it, a Tucker decomposition of the kernel | `lora_mid.weight` | `(r, r, k..)`; `lora_down` is then `(r, in/g, 1..)` |
//! | the scale times `r` | `alpha` | `()` |
//! | the magnitude of `DoRA` | `dora_scale` | `(out, 1..)` |
//!
//! A module's name is a prefix (`lycoris`; kohya's `lora_unet`, `lora_te`, ..) and the module's path, with `_` for every dot:
//! which path it was, only the model can tell. Without `alpha`, or with one of 0, the scale is 1.
//!
//! On a grouped convolution the form is [`GroupMode::Shared`]: all groups share the rows of `A`. `DoRA`'s norm is the exact
//! one. Shapes and defaults are those of LyCORIS 4.1.3.

mod keys;
#[cfg(test)]
mod tests;

pub use keys::{Named, PREFIXES, name_of};

use std::collections::BTreeMap;

use keys::Part;

use super::factors::countable;
use super::tensor::{Dtype, Tensor};
use super::{DoraNorm, Factors, GroupMode, Layer, LayerKind, Magnitude};
use crate::error::{Error, Result, Subject};
use crate::float::FloatType;

/// The stored factors of one module.
#[derive(Debug, Clone, PartialEq)]
pub struct Locon {
    down: Tensor,
    up: Tensor,
    mid: Option<Tensor>,
    alpha: Option<f64>,
    dora_scale: Option<Tensor>,
}

impl Locon {
    /// The tensors of a file.
    ///
    /// # Errors
    /// When one has no values or is not of a floating-point type, and when `alpha` is not one finite value.
    pub(super) fn new(
        down: Tensor,
        up: Tensor,
        mid: Option<Tensor>,
        alpha: Option<&Tensor>,
        dora_scale: Option<Tensor>,
    ) -> Result<Self> {
        let parts = [(Part::Down, Some(&down)), (Part::Up, Some(&up)), (Part::Mid, mid.as_ref())];
        for (part, tensor) in parts.into_iter().chain([(Part::Alpha, alpha), (Part::DoraScale, dora_scale.as_ref())]) {
            let Some(tensor) = tensor else { continue };
            let wrong = |problem: &str| Error::new(Subject::Adapter, format!("`{}` {problem}", part.suffix()));
            if tensor.float().is_none() {
                return Err(wrong("has the wrong type").found(tensor.dtype()).expected("F32, F64, F16 or BF16"));
            }
            if tensor.shape().contains(&0) {
                return Err(wrong("is empty").found(format!("{:?}", tensor.shape())));
            }
        }
        let alpha = alpha.map(|alpha| match alpha.values().as_deref() {
            Some([value]) if value.is_finite() => Ok(f64::from(*value)),
            _ => Err(Error::new(Subject::Adapter, "`alpha` is not a number").found(format!("{:?}", alpha.shape()))),
        });
        Ok(Self { alpha: alpha.transpose()?, down, up, mid, dora_scale })
    }

    /// The rank: rows of `lora_down`.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.down.shape().first().copied().unwrap_or(0)
    }

    /// The numerator of the scale `alpha / r`: `r` where the file has none, or 0.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    pub fn alpha(&self) -> f64 {
        self.alpha.filter(|alpha| *alpha != 0.0).unwrap_or(self.rank() as f64)
    }

    /// Whether it has a magnitude of `DoRA`.
    #[must_use]
    pub fn is_dora(&self) -> bool {
        self.dora_scale.is_some()
    }

    /// The type its factors are stored in: that of `lora_up`, or `f32` where a Tucker decomposition is folded.
    #[must_use]
    pub fn float(&self) -> FloatType {
        let plain = self.up.float().filter(|float| self.down.float() == Some(*float) && self.mid.is_none());
        plain.unwrap_or(FloatType::F32)
    }

    /// These tensors as the factors of `layer`, in [`GroupMode::Shared`] where it has groups. A Tucker decomposition is
    /// folded into `A`:
    ///
    /// ```text
    /// A[p, i, t] = sum_q mid[p, q, t] * down[q, i]
    /// ```
    ///
    /// # Errors
    /// When the shapes do not fit `layer`; when the layer is of a kind that LyCORIS has no adapters for; with a magnitude for
    /// each input (`wd_on_output=False`), which PEFT does not have.
    pub fn factors(&self, layer: &Layer) -> Result<Factors> {
        check_kind(layer.kind())?;
        let rank = self.rank();
        let unfit = |name: &str, tensor: &Tensor, expected: &[usize]| {
            Error::new(Subject::Adapter, format!("`{name}` does not fit a {}", layer.kind()))
                .found(format!("{:?}", tensor.shape()))
                .expected(format!("{expected:?} for a weight of {:?}", layer.weight_shape()))
                .with_hint("the adapter was trained on another model, or on another version of this one")
        };
        let fitting = |part: Part, tensor: &Tensor, expected: &[usize]| {
            if same_but_ones(tensor.shape(), expected) {
                return Ok(tensor.values().unwrap_or_default());
            }
            Err(unfit(part.suffix(), tensor, expected))
        };
        let a_shape = layer.a_shape(rank, GroupMode::Shared);
        let b = fitting(Part::Up, &self.up, &layer.b_shape(rank, GroupMode::Shared))?;
        let a = match &self.mid {
            None => fitting(Part::Down, &self.down, &a_shape)?,
            Some(mid) => {
                let down = fitting(Part::Down, &self.down, &a_shape[..2])?;
                let mid = fitting(Part::Mid, mid, &[&[rank, rank], layer.kernel()].concat())?;
                countable(&a_shape)?;
                fold(&mid, &down, rank, a_shape[1])
            }
        };
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "scales are f32")]
        let scale = (self.alpha() / rank as f64) as f32;
        let factors = Factors::new(layer.clone(), GroupMode::Shared, rank, scale, a, b, None)?;
        let Some(magnitude) = &self.dora_scale else { return Ok(factors) };
        let outputs = layer.out_features();
        if !same_but_ones(magnitude.shape(), &[outputs]) {
            let error = unfit(Part::DoraScale.suffix(), magnitude, &[outputs, 1]);
            return Err(match magnitude.shape() {
                [1, _, ..] => error.with_hint(
                    "a magnitude for each input (`wd_on_output=False`) has no form in PEFT: merge it into the base with \
                    LyCORIS, and make an adapter of the change with `lowrank extract`",
                ),
                _ => error,
            });
        }
        let values = magnitude.values().unwrap_or_default();
        factors.with_magnitude(Magnitude { values, norm: DoraNorm::Exact })
    }

    /// `factors` as LyCORIS has them, rounded to `float`; `alpha` is their scale times their rank.
    ///
    /// # Errors
    /// When they have what LyCORIS has not: a bias on `B`, a scale of 0, the norm that PEFT takes on grouped convolutions,
    /// embeddings and transformers' `Conv1D`; when dense ones reach outside their groups.
    pub fn from_factors(factors: &Factors, alpha: f64, float: FloatType) -> Result<Self> {
        check_kind(factors.layer().kind())?;
        if factors.bias().is_some() {
            return Err(Error::new(Subject::Adapter, "`lora_bias` has no place in a LyCORIS file")
                .with_hint("merge the adapter into its base: `lowrank merge`"));
        }
        if alpha == 0.0 {
            return Err(Error::new(Subject::Adapter, "an alpha of 0 stands for a scale of 1 in LyCORIS")
                .with_hint("the module's adapter does nothing: leave it out"));
        }
        let shared = factors.to_shared()?;
        let (layer, rank) = (shared.layer(), shared.rank());
        let magnitude = shared.magnitude().map(|magnitude| {
            let shape = [&[layer.out_features(), 1], &vec![1; layer.kernel().len()][..]].concat();
            Tensor::from_values(float, shape, &magnitude.values)
        });
        Ok(Self {
            down: Tensor::from_values(float, layer.a_shape(rank, GroupMode::Shared), shared.a())?,
            up: Tensor::from_values(float, layer.b_shape(rank, GroupMode::Shared), shared.b())?,
            mid: None,
            alpha: Some(alpha),
            dora_scale: magnitude.transpose()?,
        })
    }

    /// The tensors with their keys.
    ///
    /// # Errors
    /// When `alpha` is not one that `f32` can hold.
    pub fn into_tensors(self, module: &str) -> Result<BTreeMap<String, Tensor>> {
        #[expect(clippy::cast_possible_truncation, reason = "checked")]
        let alpha = self.alpha() as f32;
        if !alpha.is_finite() {
            return Err(Error::new(Subject::Adapter, "`alpha` is too large").found(self.alpha()));
        }
        let alpha = Tensor::new(Dtype::F32, Vec::new(), alpha.to_le_bytes().to_vec())?;
        let parts = [
            (Part::Down, Some(self.down)),
            (Part::Up, Some(self.up)),
            (Part::Mid, self.mid),
            (Part::Alpha, Some(alpha)),
            (Part::DoraScale, self.dora_scale),
        ];
        let there =
            parts.into_iter().filter_map(|(part, tensor)| Some((format!("{module}.{}", part.suffix()), tensor?)));
        Ok(there.collect())
    }
}

/// LyCORIS adapts `nn.Linear` and convolutions.
fn check_kind(kind: LayerKind) -> Result<()> {
    match kind {
        LayerKind::Linear | LayerKind::Conv1d | LayerKind::Conv2d | LayerKind::Conv3d => Ok(()),
        LayerKind::Embedding | LayerKind::Conv1D | LayerKind::ConvTranspose1d | LayerKind::ConvTranspose2d => {
            Err(Error::new(Subject::Adapter, format!("LyCORIS has no adapter for {kind} layers"))
                .expected("Linear, Conv1d, Conv2d and Conv3d")
                .with_hint("merge the adapter into its base: `lowrank merge`"))
        }
    }
}

/// Whether two shapes are the same but for axes of length 1 at the end, which tools keep or drop for 1 x 1 kernels.
fn same_but_ones(one: &[usize], other: &[usize]) -> bool {
    let (shorter, longer) = if one.len() < other.len() { (one, other) } else { (other, one) };
    longer.starts_with(shorter) && longer.get(shorter.len()..).is_some_and(|rest| rest.iter().all(|axis| *axis == 1))
}

/// `mid (r, r, k)` times `down (r, inputs)`: `A (r, inputs, k)`.
fn fold(mid: &[f32], down: &[f32], rank: usize, inputs: usize) -> Vec<f32> {
    let taps = mid.len() / (rank * rank);
    let mut a = vec![0.0_f32; rank * inputs * taps];
    for (out, mid) in a.chunks_exact_mut(inputs * taps).zip(mid.chunks_exact(rank * taps)) {
        for (core, down) in mid.chunks_exact(taps).zip(down.chunks_exact(inputs)) {
            for (out, input) in out.chunks_exact_mut(taps).zip(down) {
                out.iter_mut().zip(core).for_each(|(sum, core)| *sum += core * input);
            }
        }
    }
    a
}
