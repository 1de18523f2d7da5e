//! What an adapter needs to know of the layer it sits on: its kind and the shape of its weight.

use std::fmt;

use super::group::GroupMode;
use crate::{Error, Result, Subject};

/// The layers that take an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// `nn.Linear`, weight `(out, in)`.
    Linear,
    /// transformers' `Conv1D`, a linear layer with its weight transposed: `(in, out)`. Not a convolution.
    Conv1D,
    /// `nn.Embedding`, weight `(num_embeddings, embedding_dim)`.
    Embedding,
    /// `nn.Conv1d`, weight `(out, in/groups, k)`.
    Conv1d,
    /// `nn.Conv2d`, weight `(out, in/groups, kh, kw)`.
    Conv2d,
    /// `nn.Conv3d`, weight `(out, in/groups, kd, kh, kw)`.
    Conv3d,
    /// `nn.ConvTranspose1d`, weight `(in, out/groups, k)`. PEFT has no adapter for it.
    ConvTranspose1d,
    /// `nn.ConvTranspose2d`, weight `(in, out/groups, kh, kw)`. PEFT has no adapter for it.
    ConvTranspose2d,
}

impl LayerKind {
    /// Axes of the weight.
    #[must_use]
    pub fn weight_axes(self) -> usize {
        2 + self.kernel_axes()
    }

    /// Axes of the kernel: 0 for layers that are not convolutions.
    #[must_use]
    pub fn kernel_axes(self) -> usize {
        match self {
            Self::Linear | Self::Conv1D | Self::Embedding => 0,
            Self::Conv1d | Self::ConvTranspose1d => 1,
            Self::Conv2d | Self::ConvTranspose2d => 2,
            Self::Conv3d => 3,
        }
    }

    /// Whether the weight is stored with its inputs first, as `(in, out/groups, k..)`: [`Self::Conv1D`],
    /// [`Self::Embedding`] and the transposed convolutions.
    #[must_use]
    pub fn is_transposed(self) -> bool {
        matches!(self, Self::Conv1D | Self::Embedding) || self.is_conv_transpose()
    }

    /// Whether it is a transposed convolution.
    #[must_use]
    pub fn is_conv_transpose(self) -> bool {
        matches!(self, Self::ConvTranspose1d | Self::ConvTranspose2d)
    }
}

impl fmt::Display for LayerKind {
    /// `PyTorch`'s class name, and transformers' for `Conv1D`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linear => "Linear",
            Self::Conv1D => "Conv1D",
            Self::Embedding => "Embedding",
            Self::Conv1d => "Conv1d",
            Self::Conv2d => "Conv2d",
            Self::Conv3d => "Conv3d",
            Self::ConvTranspose1d => "ConvTranspose1d",
            Self::ConvTranspose2d => "ConvTranspose2d",
        })
    }
}

/// A layer's kind, the shape of its weight as `PyTorch` stores it, and its groups.
///
/// ```
/// use lowrank::adapter::{GroupMode, Layer, LayerKind};
///
/// let conv = Layer::new(LayerKind::Conv1d, &[12, 4, 5], 2)?;
/// assert_eq!((conv.in_features(), conv.out_features()), (8, 12));
/// assert_eq!(conv.a_shape(4, GroupMode::Dense), [4, 8, 5]);
/// assert_eq!(conv.a_shape(4, GroupMode::PerGroup), [4, 4, 5]);
/// assert_eq!(conv.b_shape(4, GroupMode::PerGroup), [12, 2, 1]);
/// assert_eq!(conv.b_shape(4, GroupMode::Shared), [12, 4, 1]);
/// # Ok::<(), lowrank::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layer {
    kind: LayerKind,
    weight_shape: Vec<usize>,
    groups: usize,
}

impl Layer {
    /// A layer with a weight of `weight_shape`; `groups` is 1 for all but convolutions.
    ///
    /// # Errors
    /// When the shape has not the axes of `kind` or an empty one, when the groups do not divide the output channels (of a
    /// transposed convolution the input channels), when a layer that is no convolution has groups, and when the values cannot be counted.
    pub fn new(kind: LayerKind, weight_shape: &[usize], groups: usize) -> Result<Self> {
        let wrong = |problem: String| Error::new(Subject::Adapter, problem);
        let &[rows, inner, ..] = weight_shape else {
            return Err(wrong(format!("{kind}: weight has too few axes"))
                .found(format!("{weight_shape:?}"))
                .expected(format!("{} axes", kind.weight_axes())));
        };
        if weight_shape.len() != kind.weight_axes() {
            return Err(wrong(format!("{kind}: weight has the wrong number of axes"))
                .found(format!("{weight_shape:?}"))
                .expected(format!("{} axes", kind.weight_axes())));
        }
        if weight_shape.contains(&0) {
            return Err(wrong(format!("{kind}: weight has no values")).found(format!("{weight_shape:?}")));
        }
        if groups != 1 && kind.kernel_axes() == 0 {
            return Err(wrong(format!("{kind} has no groups")).found(groups).expected(1));
        }
        if groups == 0 || rows % groups != 0 {
            let channels = if kind.is_transposed() { "input" } else { "output" };
            return Err(wrong(format!("{kind}: groups must divide the {channels} channels"))
                .found(groups)
                .expected(format!("a divisor of {rows}")));
        }
        let values = weight_shape.iter().try_fold(groups, |product, axis| product.checked_mul(*axis));
        if values.is_none_or(|values| values > isize::MAX as usize / 8) || inner.checked_mul(groups).is_none() {
            return Err(wrong(format!("{kind}: weight is too large")).found(format!("{weight_shape:?}")));
        }
        Ok(Self { kind, weight_shape: weight_shape.to_vec(), groups })
    }

    /// What the layer is.
    #[must_use]
    pub fn kind(&self) -> LayerKind {
        self.kind
    }

    /// The weight's shape, as `PyTorch` stores it.
    #[must_use]
    pub fn weight_shape(&self) -> &[usize] {
        &self.weight_shape
    }

    /// Groups of the convolution; 1 for other layers.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Inputs over all groups; `num_embeddings` of an embedding, as PEFT counts.
    #[must_use]
    pub fn in_features(&self) -> usize {
        if self.kind.is_transposed() { self.weight_shape[0] } else { self.weight_shape[1] * self.groups }
    }

    /// Outputs over all groups; `embedding_dim` of an embedding, as PEFT counts.
    #[must_use]
    pub fn out_features(&self) -> usize {
        if self.kind.is_transposed() { self.weight_shape[1] * self.groups } else { self.weight_shape[0] }
    }

    /// Where the outputs are in the stored weight.
    pub(crate) fn outputs(&self) -> OutputPlaces {
        if self.kind.is_transposed() {
            let [inputs, outputs] = [self.weight_shape[0] / self.groups, self.weight_shape[1]];
            OutputPlaces { inputs, outputs, taps: self.kernel().iter().product() }
        } else {
            OutputPlaces::ROWS
        }
    }

    /// For each value of the weight as the matrix `(out, in/g * k)`, its place in the stored one.
    pub(crate) fn by_output(&self) -> impl Iterator<Item = usize> {
        let OutputPlaces { inputs, outputs, taps } = self.outputs();
        let turned = self.kind.is_transposed();
        (0..elements(&self.weight_shape)).map(move |at| {
            if !turned {
                return at;
            }
            let (output, input, tap) = (at / (inputs * taps), at / taps % inputs, at % taps);
            let row = output / outputs * inputs + input;
            (row * outputs + output % outputs) * taps + tap
        })
    }

    /// The kernel's lengths; empty for layers that are not convolutions.
    #[must_use]
    pub fn kernel(&self) -> &[usize] {
        &self.weight_shape[2..]
    }

    /// The shape of `A` at rank `r`: `(r, in, k..)`, in [`GroupMode::PerGroup`] and [`GroupMode::Shared`]
    /// `(r, in/g, k..)`.
    #[must_use]
    pub fn a_shape(&self, r: usize, mode: GroupMode) -> Vec<usize> {
        let inputs = match mode {
            GroupMode::Dense => self.in_features(),
            GroupMode::PerGroup | GroupMode::Shared => self.in_features() / self.groups,
        };
        [&[r, inputs], self.kernel()].concat()
    }

    /// The shape of `B` at rank `r`: `(out, r/g, 1..)`, in [`GroupMode::Shared`] `(out, r, 1..)`.
    ///
    /// `r` is a multiple of the groups but in `shared`, which [`Factors::new`](super::Factors::new) checks.
    #[must_use]
    pub fn b_shape(&self, r: usize, mode: GroupMode) -> Vec<usize> {
        let columns = match mode {
            GroupMode::Dense | GroupMode::PerGroup => r / self.groups,
            GroupMode::Shared => r,
        };
        [&[self.out_features(), columns][..], &vec![1; self.kernel().len()]].concat()
    }

    /// The shape of `DoRA`'s magnitude: `(out)`, of a convolution `(1, out, 1..)`.
    #[must_use]
    pub fn magnitude_shape(&self) -> Vec<usize> {
        match self.kernel().len() {
            0 => vec![self.out_features()],
            axes => [&[1, self.out_features()][..], &vec![1; axes]].concat(),
        }
    }

    /// The largest rank a delta can have on the weight seen as the matrix `(out, in/g * k)`; for `per_group` that is
    /// the limit of `r/g`, with `out/g` in place of `out`.
    #[must_use]
    pub fn max_rank(&self) -> usize {
        let columns = self.in_features() / self.groups * self.kernel().iter().product::<usize>();
        self.out_features().min(columns)
    }
}

/// Where the outputs of a layer are in its stored weight, seen as the matrix of its first axis by all others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutputPlaces {
    /// Rows that belong to the same outputs: the inputs of a group, 1 where each row is an output.
    pub inputs: usize,
    /// Outputs in a row.
    pub outputs: usize,
    /// Values of a row that belong to the same output.
    pub taps: usize,
}

impl OutputPlaces {
    /// Each row is an output.
    pub const ROWS: Self = Self { inputs: 1, outputs: 1, taps: usize::MAX };

    /// Whether each row is an output.
    pub fn in_rows(self) -> bool {
        self.taps == usize::MAX
    }

    /// The output that a value of the weight belongs to.
    pub fn at(self, row: usize, column: usize) -> usize {
        row / self.inputs * self.outputs + column / self.taps
    }
}

/// Values in a tensor of `shape`; the largest `usize` when they cannot be counted.
pub(crate) fn elements(shape: &[usize]) -> usize {
    shape.iter().fold(1, |product: usize, axis| product.saturating_mul(*axis))
}

/// The index of a value as `PyTorch` writes it: `[2, 0, 1]`.
pub(crate) fn place_of(index: usize, shape: &[usize]) -> String {
    let mut rest = index;
    let mut place: Vec<usize> = shape
        .iter()
        .rev()
        .map(|axis| {
            let at = rest % axis;
            rest /= axis;
            at
        })
        .collect();
    place.reverse();
    format!("{place:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_counted_as_peft_counts_them() {
        for (kind, shape, groups, expected) in [
            (LayerKind::Linear, &[20, 10][..], 1, (10, 20)),
            (LayerKind::Conv1D, &[10, 20], 1, (10, 20)),
            (LayerKind::Embedding, &[100, 5], 1, (100, 5)),
            (LayerKind::Conv1d, &[16, 64, 2], 1, (64, 16)),
            (LayerKind::Conv2d, &[32, 8, 3, 3], 2, (16, 32)),
            (LayerKind::Conv3d, &[10, 5, 3, 3, 3], 1, (5, 10)),
            (LayerKind::ConvTranspose1d, &[12, 3, 4], 1, (12, 3)),
            (LayerKind::ConvTranspose2d, &[12, 3, 4, 4], 2, (12, 6)),
        ] {
            let layer = Layer::new(kind, shape, groups).unwrap();
            assert_eq!((layer.in_features(), layer.out_features()), expected, "{kind}");
        }
    }

    #[test]
    fn factor_shapes_of_every_kind() {
        let shapes = |kind, shape: &[usize]| {
            let layer = Layer::new(kind, shape, 1).unwrap();
            (layer.a_shape(4, GroupMode::Dense), layer.b_shape(4, GroupMode::Dense))
        };
        assert_eq!(shapes(LayerKind::Linear, &[20, 10]), (vec![4, 10], vec![20, 4]));
        assert_eq!(shapes(LayerKind::Conv1D, &[10, 20]), (vec![4, 10], vec![20, 4]));
        assert_eq!(shapes(LayerKind::Embedding, &[100, 5]), (vec![4, 100], vec![5, 4]));
        assert_eq!(shapes(LayerKind::Conv2d, &[6, 5, 3, 2]), (vec![4, 5, 3, 2], vec![6, 4, 1, 1]));
        assert_eq!(shapes(LayerKind::Conv3d, &[6, 5, 3, 2, 1]), (vec![4, 5, 3, 2, 1], vec![6, 4, 1, 1, 1]));
        assert_eq!(shapes(LayerKind::ConvTranspose1d, &[6, 5, 3]), (vec![4, 6, 3], vec![5, 4, 1]));
    }

    #[test]
    fn grouped_shapes_for_every_group_count() {
        for groups in [1, 2, 4] {
            let layer = Layer::new(LayerKind::Conv1d, &[12, 8 / groups, 5], groups).unwrap();
            assert_eq!(layer.a_shape(4, GroupMode::Dense), [4, 8, 5]);
            assert_eq!(layer.b_shape(4, GroupMode::Dense), [12, 4 / groups, 1]);
            assert_eq!(layer.a_shape(4, GroupMode::Shared), [4, 8 / groups, 5]);
            assert_eq!(layer.b_shape(4, GroupMode::Shared), [12, 4, 1]);
        }
    }

    #[test]
    fn outputs_of_every_layout() {
        let by_output = |kind, shape: &[usize], groups| {
            let layer = Layer::new(kind, shape, groups).unwrap();
            let places: Vec<usize> = layer.by_output().collect();
            let columns = shape[1..].iter().product::<usize>();
            let width = places.len() / layer.out_features();
            for (at, place) in places.iter().enumerate() {
                assert_eq!(layer.outputs().at(place / columns, place % columns), at / width, "{kind}");
            }
            places
        };
        assert_eq!(by_output(LayerKind::Conv1d, &[2, 1, 2], 2), [0, 1, 2, 3]);
        assert_eq!(by_output(LayerKind::Conv1D, &[2, 3], 1), [0, 3, 1, 4, 2, 5]);
        assert_eq!(by_output(LayerKind::ConvTranspose1d, &[2, 2, 2], 1), [0, 1, 4, 5, 2, 3, 6, 7]);
        assert_eq!(by_output(LayerKind::ConvTranspose1d, &[2, 1, 2], 2), [0, 1, 2, 3]);
    }

    #[test]
    fn a_depthwise_kernel_of_three_has_rank_three() {
        assert_eq!(Layer::new(LayerKind::Conv1d, &[512, 1, 3], 512).unwrap().max_rank(), 3);
        assert_eq!(Layer::new(LayerKind::Linear, &[4, 100], 1).unwrap().max_rank(), 4);
    }

    #[test]
    fn impossible_layers_are_refused() {
        for (kind, shape, groups) in [
            (LayerKind::Conv1d, &[][..], 1),
            (LayerKind::Conv1d, &[4, 4], 1),
            (LayerKind::Linear, &[4, 4, 1], 1),
            (LayerKind::Linear, &[4, 0], 1),
            (LayerKind::Linear, &[4, 4], 2),
            (LayerKind::Conv1d, &[4, 4, 3], 3),
            (LayerKind::Conv1d, &[4, 4, 3], 0),
            (LayerKind::Linear, &[usize::MAX, 2], 1),
            (LayerKind::Conv1d, &[usize::MAX / 4, 1, 1], 3),
        ] {
            assert!(Layer::new(kind, shape, groups).is_err(), "{kind} {shape:?} {groups}");
        }
    }
}
