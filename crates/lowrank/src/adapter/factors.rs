//! The factors of one module, their delta, and the ways between the grouped forms.

use super::delta::Delta;
use super::dora::{DoraNorm, Magnitude, check_magnitude};
use super::group::GroupMode;
use super::layer::{Layer, LayerKind, elements, place_of};
use crate::{Error, Result, Subject};

/// `A`, `B` and their scale, with `DoRA` the magnitude too: the adapter of one module.
///
/// The values are row-major in PEFT's shapes, [`Layer::a_shape`] and [`Layer::b_shape`]. They are not looked at here:
/// NaN and infinity are found by [`merge`](super::merge()).
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    layer: Layer,
    mode: GroupMode,
    rank: usize,
    scale: f32,
    a: Vec<f32>,
    b: Vec<f32>,
    bias: Option<Vec<f32>>,
    magnitude: Option<Magnitude>,
}

impl Factors {
    /// Factors of `layer` with `rank` rows in `A`; `bias` is the bias of `B` (`lora_bias`), of `out_features` values.
    ///
    /// # Errors
    /// When the rank is zero or, but in [`GroupMode::Shared`], no multiple of the groups; when `a`, `b` or `bias` has
    /// not as many values as its shape; when an embedding has a bias, which PEFT refuses too.
    pub fn new(
        layer: Layer,
        mode: GroupMode,
        rank: usize,
        scale: f32,
        a: Vec<f32>,
        b: Vec<f32>,
        bias: Option<Vec<f32>>,
    ) -> Result<Self> {
        check_rank(&layer, mode, rank)?;
        check_bias(&layer, bias.is_some())?;
        let (a_shape, b_shape, bias_shape) =
            (layer.a_shape(rank, mode), layer.b_shape(rank, mode), vec![layer.out_features()]);
        let parts = [("A", Some(&a), a_shape), ("B", Some(&b), b_shape), ("the bias of B", bias.as_ref(), bias_shape)];
        for (name, values, shape) in parts {
            if let Some(values) = values.filter(|values| values.len() != elements(&shape)) {
                return Err(Error::new(Subject::Adapter, format!("{name} has the wrong number of values"))
                    .found(values.len())
                    .expected(format!("those of {shape:?} ({}, {mode}, r = {rank})", layer.kind())));
            }
        }
        Ok(Self { layer, mode, rank, scale, a, b, bias, magnitude: None })
    }

    /// The same factors with the magnitude of [`DoRA`](super::dora), one value an output.
    ///
    /// # Errors
    /// When there are not as many values as outputs, and when `B` has a bias, which PEFT refuses too.
    pub fn with_magnitude(self, magnitude: Magnitude) -> Result<Self> {
        check_magnitude(&self.layer, magnitude.values.len(), self.bias.is_some())?;
        Ok(Self { magnitude: Some(magnitude), ..self })
    }

    /// The layer the factors are for.
    #[must_use]
    pub fn layer(&self) -> &Layer {
        &self.layer
    }

    /// The grouped form of the factors.
    #[must_use]
    pub fn mode(&self) -> GroupMode {
        self.mode
    }

    /// The rank `r`: rows of `A`.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// What the product is multiplied with: `alpha / r`, or `alpha / sqrt(r)` with `rsLoRA`.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The values of `A`.
    #[must_use]
    pub fn a(&self) -> &[f32] {
        &self.a
    }

    /// The values of `B`.
    #[must_use]
    pub fn b(&self) -> &[f32] {
        &self.b
    }

    /// The bias of `B`, when the adapter has one (`lora_bias`).
    #[must_use]
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// The magnitude of [`DoRA`](super::dora), when the adapter has one.
    #[must_use]
    pub fn magnitude(&self) -> Option<&Magnitude> {
        self.magnitude.as_ref()
    }

    /// What the adapter adds to the weight before `DoRA`'s magnitude, if it has one, in the shape the weight has.
    ///
    /// For a convolution, with `j` the group of output `o` and `A_j` the rows of `A` that group has,
    ///
    /// ```text
    /// delta[o, i, t] = scale * sum_p B[o, p] * A_j[p, i, t]
    /// ```
    ///
    /// that is, `B` of one group as a matrix times `A` as the matrix `(r/g, in/g * k)`. A linear layer is the case
    /// without `t`; for [`LayerKind::Conv1D`], [`LayerKind::Embedding`] and the transposed convolutions the inputs come
    /// first, as in their weight.
    /// Where PEFT cannot compute the delta (groups, `Conv3d` with a kernel of `(1, 1, k)`), this is still the delta.
    ///
    /// The product is computed in `f32` by one thread: it does not depend on how many there are.
    ///
    /// ```
    /// use lowrank::adapter::{Factors, GroupMode, Layer, LayerKind};
    ///
    /// // Two inputs, two outputs, kernel 2, r = 1 and alpha = 2: the scale is 2.
    /// let layer = Layer::new(LayerKind::Conv1d, &[2, 2, 2], 1)?;
    /// let a = vec![1.0, 2.0, 3.0, 4.0]; // (1, 2, 2)
    /// let b = vec![1.0, -1.0]; // (2, 1, 1)
    /// let factors = Factors::new(layer, GroupMode::PerGroup, 1, 2.0, a, b, None)?;
    /// assert_eq!(factors.delta()?, [2.0, 4.0, 6.0, 8.0, -2.0, -4.0, -6.0, -8.0]);
    /// # Ok::<(), lowrank::Error>(())
    /// ```
    ///
    /// # Errors
    /// When a [`GroupMode::Dense`] adapter reaches outside its groups, so that its delta has no place in the weight.
    pub fn delta(&self) -> Result<Vec<f32>> {
        let delta = Delta::<f32>::of_weight(self)?;
        let mut values = vec![0.0; delta.rows * delta.columns];
        delta.rows(0..delta.rows, &mut values);
        Ok(values)
    }

    /// The change since `start`: factors of twice the rank, `[A; A_0]` and `[B, -B_0]`, whose delta is `s (B A - B_0 A_0)`.
    ///
    /// An adapter that began with a part of the base weight fits only what was left of it. This one fits the original
    /// (PEFT's `path_initial_model_for_weight_conversion`). Where groups have rows of their own, the halves are put
    /// together group by group.
    ///
    /// # Errors
    /// When `start` is of another layer, rank or scale; when the factors have a bias.
    pub fn without_start(&self, start: &Self) -> Result<Self> {
        if self.mode == GroupMode::Dense && start.mode == GroupMode::PerGroup {
            return self.without_start(&start.to_dense()?);
        }
        let form = |factors: &Self| (factors.layer.clone(), factors.mode, factors.rank, factors.scale.to_bits());
        if form(self) != form(start) || self.bias.is_some() || start.bias.is_some() {
            return Err(Error::new(Subject::Adapter, "not the start of these factors")
                .found(format!("r = {}, {}, scale {}", start.rank, start.mode, start.scale))
                .expected(format!("r = {}, {}, scale {}, no bias", self.rank, self.mode, self.scale)));
        }
        let blocks = if self.mode == GroupMode::Shared { 1 } else { self.layer.groups() };
        let rows = self.a.chunks_exact(self.a.len() / blocks).zip(start.a.chunks_exact(self.a.len() / blocks));
        let a = rows.flat_map(|(own, start)| own.iter().chain(start)).copied().collect();
        let columns = self.rank / blocks;
        let rows = self.b.chunks_exact(columns).zip(start.b.chunks_exact(columns));
        let b = rows.flat_map(|(own, start)| own.iter().copied().chain(start.iter().map(|b| -b))).collect();
        Self::new(self.layer.clone(), self.mode, 2 * self.rank, self.scale, a, b, None)
    }

    /// The same function in PEFT's form, [`GroupMode::Dense`].
    ///
    /// `per_group` factors get zeros outside their groups; `shared` ones get a copy of the rows of `A` for each group
    /// first, which makes their rank `r * groups`. The scale stays, so that `lora_alpha` must grow with the rank.
    ///
    /// # Errors
    /// When the dense `A` has more values than can be counted.
    pub fn to_dense(&self) -> Result<Self> {
        if self.mode == GroupMode::Dense || self.layer.groups() == 1 {
            return Ok(Self { mode: GroupMode::Dense, ..self.clone() });
        }
        let compact = self.to_per_group()?;
        let shape = self.layer.a_shape(compact.rank, GroupMode::Dense);
        let mut a = vec![0.0; countable(&shape)?];
        let (width, columns) = (compact.group_width(), elements(&shape[1..]));
        for (row, values) in compact.a.chunks_exact(width).enumerate() {
            let start = row * columns + compact.group_of(row) * width;
            a[start..start + width].copy_from_slice(values);
        }
        Ok(Self { mode: GroupMode::Dense, a, ..compact })
    }

    /// The same function in the compact form, [`GroupMode::PerGroup`].
    ///
    /// `dense` factors lose the entries of `A` outside the groups, which have to be zero; `shared` ones get a copy of
    /// the rows of `A` for each group, which makes their rank `r * groups`.
    ///
    /// # Errors
    /// When a `dense` `A` has an entry other than zero outside its group ([`Self::project`] drops them), or a copied
    /// `A` has more values than can be counted.
    pub fn to_per_group(&self) -> Result<Self> {
        let groups = self.layer.groups();
        match self.mode {
            _ if groups == 1 => Ok(Self { mode: GroupMode::PerGroup, ..self.clone() }),
            GroupMode::PerGroup => Ok(self.clone()),
            GroupMode::Shared => {
                let rank = self.rank.saturating_mul(groups);
                countable(&self.layer.a_shape(rank, GroupMode::PerGroup))?;
                Ok(Self { mode: GroupMode::PerGroup, rank, a: self.a.repeat(groups), ..self.clone() })
            }
            GroupMode::Dense => {
                let (width, columns) = (self.group_width(), self.group_width() * groups);
                let outside = |index: &usize| index % columns / width != self.group_of(index / columns);
                match (0..self.a.len()).filter(outside).find(|index| self.a[*index] != 0.0) {
                    Some(index) => Err(self.reaches_outside(index)),
                    None => Ok(self.drop_outside()),
                }
            }
        }
    }

    /// The same function in the form [`GroupMode::Shared`], of the same rank: `B` gets zeros where a row of `A` belongs to
    /// another group.
    ///
    /// # Errors
    /// When a `dense` `A` has an entry other than zero outside its group; when `B` has more values than can be counted; with
    /// a magnitude for [`DoraNorm::Peft`], which is the norm of the other forms.
    pub fn to_shared(&self) -> Result<Self> {
        let groups = self.layer.groups();
        if self.mode == GroupMode::Shared || groups == 1 {
            return Ok(Self { mode: GroupMode::Shared, ..self.clone() });
        }
        self.check_norm(DoraNorm::Exact)?;
        let compact = self.to_per_group()?;
        let mut b = vec![0.0; countable(&self.layer.b_shape(self.rank, GroupMode::Shared))?];
        let (columns, outputs) = (self.rank / groups, self.layer.out_features() / groups);
        let rows = b.chunks_exact_mut(self.rank).zip(compact.b.chunks_exact(columns)).enumerate();
        for (row, (out, values)) in rows {
            out[row / outputs * columns..][..columns].copy_from_slice(values);
        }
        Ok(Self { mode: GroupMode::Shared, b, ..compact })
    }

    /// On a grouped convolution a magnitude goes with this norm.
    pub(crate) fn check_norm(&self, expected: DoraNorm) -> Result<()> {
        match &self.magnitude {
            Some(magnitude) if self.layer.groups() > 1 && magnitude.norm != expected => Err(Error::new(
                Subject::Adapter,
                "the magnitudes of DoRA go with another norm on a grouped convolution",
            )
            .found(format!("dora_norm \"{}\"", magnitude.norm))
            .expected(format!("\"{expected}\""))
            .with_hint("merge the adapter into its base: `lowrank merge`")),
            _ => Ok(()),
        }
    }

    /// The nearest adapter that fits the grouped weight, and the share of the delta that is lost: the Frobenius norm of
    /// what lies outside the groups, by that of the whole dense delta. 0 when nothing is lost, as in all forms but
    /// [`GroupMode::Dense`].
    ///
    /// Entries of the dense delta outside the groups come from entries of `A` outside the groups and from nowhere else,
    /// so dropping those is the orthogonal projection.
    #[must_use]
    pub fn project(&self) -> (Self, f64) {
        if self.mode != GroupMode::Dense || self.layer.groups() == 1 {
            return (self.clone(), 0.0);
        }
        let (mut all, mut outside) = (0.0, 0.0);
        let rank = self.rank / self.layer.groups();
        for (left, right) in (0..self.rank).flat_map(|p| (0..rank).map(move |q| (p, p / rank * rank + q))) {
            let together = self.gram_of_b(left, right);
            let (inside, everywhere) = self.gram_of_a(left, right);
            all += together * everywhere;
            outside += together * (everywhere - inside);
        }
        let lost = if all > 0.0 { (outside.max(0.0) / all).sqrt() } else { 0.0 };
        (self.drop_outside(), lost)
    }

    /// The inner product of two columns of `B` of one group, given by the rows of `A` they meet.
    fn gram_of_b(&self, left: usize, right: usize) -> f64 {
        let rank = self.rank / self.layer.groups();
        let outputs = self.layer.out_features() / self.layer.groups();
        let rows = self.b.chunks_exact(rank).skip(self.group_of(left) * outputs).take(outputs);
        rows.map(|row| f64::from(row[left % rank]) * f64::from(row[right % rank])).sum()
    }

    /// The inner product of two rows of a dense `A` of one group: inside the group, and altogether.
    fn gram_of_a(&self, left: usize, right: usize) -> (f64, f64) {
        let width = self.group_width();
        let columns = width * self.layer.groups();
        let dot = |from: usize, to: usize| -> f64 {
            let row = |row: usize| self.a[row * columns + from..row * columns + to].iter();
            row(left).zip(row(right)).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
        };
        let group = self.group_of(left);
        (dot(group * width, (group + 1) * width), dot(0, columns))
    }

    /// A dense `A` without what lies outside the groups.
    fn drop_outside(&self) -> Self {
        let width = self.group_width();
        let rows = self.a.chunks_exact(width * self.layer.groups()).enumerate();
        let a = rows.flat_map(|(row, values)| &values[self.group_of(row) * width..][..width]).copied().collect();
        Self { mode: GroupMode::PerGroup, a, ..self.clone() }
    }

    fn reaches_outside(&self, index: usize) -> Error {
        let shape = self.layer.a_shape(self.rank, GroupMode::Dense);
        Error::new(
            Subject::Merge,
            format!("the adapter reaches outside the {} groups of the convolution", self.layer.groups()),
        )
        .found(format!("{} at {} of A", self.a[index], place_of(index, &shape)))
        .expected("0")
        .with_hint(
            "keep it apart, or train it again in the per_group form; `lowrank convert --to peft --project` drops what does \
            not fit, and says how much that is (in Rust, Factors::project)",
        )
    }

    /// Values of a row of `A` that belong to one group: `in/g * k`.
    fn group_width(&self) -> usize {
        elements(&self.layer.a_shape(1, GroupMode::PerGroup))
    }

    /// The group that a row of a `dense` or `per_group` `A` belongs to.
    fn group_of(&self, row: usize) -> usize {
        row / (self.rank / self.layer.groups())
    }
}

/// The rank is positive, and a multiple of the groups where the form needs it.
pub(crate) fn check_rank(layer: &Layer, mode: GroupMode, rank: usize) -> Result<()> {
    let groups = layer.groups();
    if rank == 0 {
        return Err(Error::new(Subject::Adapter, "r must be positive").found(0));
    }
    if mode != GroupMode::Shared && !rank.is_multiple_of(groups) {
        return Err(Error::new(Subject::Adapter, format!("r must be a multiple of the {groups} groups"))
            .found(format!("r = {rank}, group_mode \"{mode}\""))
            .with_hint(format!(
                "use r = {}, or group_mode \"shared\", which takes any rank",
                rank.checked_next_multiple_of(groups).unwrap_or(groups)
            )));
    }
    Ok(())
}

/// PEFT has no bias on the `B` of an embedding.
pub(crate) fn check_bias(layer: &Layer, bias: bool) -> Result<()> {
    if bias && layer.kind() == LayerKind::Embedding {
        return Err(Error::new(Subject::Adapter, "lora_bias is not possible on an Embedding")
            .with_hint("leave the embedding out of target_modules, or lora_bias out"));
    }
    Ok(())
}

/// The values of `shape`, when memory can hold them at all.
pub(crate) fn countable(shape: &[usize]) -> Result<usize> {
    let count = elements(shape);
    if count > isize::MAX as usize / 8 {
        return Err(Error::new(Subject::Adapter, "a factor is too large").found(format!("{shape:?}")));
    }
    Ok(count)
}

#[cfg(test)]
mod tests;
