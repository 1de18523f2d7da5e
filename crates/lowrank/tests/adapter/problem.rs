//! A random problem that knows its answer: a layer, an input and an adapter, and the referee's way through them.

use lowrank::Result;
use lowrank::adapter::{Factors, GroupMode, Layer, LayerKind};
use lowrank::geometry::{Axis, ConvGeometry, Padding, PaddingMode};
use lowrank::kernels::reference::adapter::Adapter;
use lowrank::kernels::reference::{AdapterGradients, Gradients, conv, conv_transpose, embedding, linear};
use lowrank::random::Random;
use proptest::prelude::*;

/// What a problem is drawn from. Everything else follows from `seed`, so that this is what a failure prints.
#[derive(Debug, Clone)]
pub struct Spec {
    pub kind: LayerKind,
    /// Inputs and outputs of a group, of a transposed convolution outputs and inputs; rows and width of an embedding.
    pub features: (usize, usize),
    pub groups: usize,
    pub padding_mode: PaddingMode,
    /// Axes and input lengths of a convolution, of a transposed one output lengths.
    pub axes: Vec<(Axis, usize)>,
    pub batch: usize,
    pub mode: GroupMode,
    /// Rank of a group; in `shared` form, of all.
    pub rank: usize,
    pub base_bias: bool,
    pub lora_bias: bool,
    /// Whether a dense adapter has entries outside its groups.
    pub reaches_outside: bool,
    pub seed: u64,
}

impl Spec {
    /// A convolution of one axis with one sample and no biases, to be changed where it matters.
    pub fn conv1d(features: (usize, usize), groups: usize, axis: Axis, length: usize) -> Self {
        Self {
            kind: LayerKind::Conv1d,
            features,
            groups,
            padding_mode: PaddingMode::Zeros,
            axes: vec![(axis, length)],
            batch: 1,
            mode: GroupMode::PerGroup,
            rank: 1,
            base_bias: false,
            lora_bias: false,
            reaches_outside: false,
            seed: 0,
        }
    }
}

pub struct Problem {
    pub layer: Layer,
    /// The convolution, or the one whose transpose it is, and the lengths that it reads.
    pub conv: Option<(ConvGeometry, Vec<usize>)>,
    pub factors: Factors,
    pub weight: Vec<f32>,
    pub bias: Option<Vec<f32>>,
    /// Input values; the indices of an embedding are in `ids`.
    pub x: Vec<f64>,
    pub ids: Vec<usize>,
    random: Random,
}

impl Problem {
    pub fn new(spec: &Spec) -> Self {
        let mut random = Random::new(spec.seed, "problem", 0);
        let (inputs, outputs) = spec.features;
        let conv = (!spec.axes.is_empty()).then(|| {
            let axes = spec.axes.iter().map(|(axis, _)| *axis).collect();
            let (inputs, outputs) = (inputs * spec.groups, outputs * spec.groups);
            let geometry = ConvGeometry::new(inputs, outputs, spec.groups, spec.padding_mode, axes).unwrap();
            (geometry, spec.axes.iter().map(|(_, length)| *length).collect::<Vec<_>>())
        });
        let shape = match (&conv, spec.kind.is_transposed()) {
            (Some((geometry, _)), _) => geometry.weight_shape(),
            (None, true) => vec![inputs, outputs],
            (None, false) => vec![outputs, inputs],
        };
        let layer = Layer::new(spec.kind, &shape, spec.groups).unwrap();
        let values = conv.as_ref().map_or(1, |(geometry, lengths)| {
            if !spec.kind.is_conv_transpose() {
                return lengths.iter().product();
            }
            geometry.output_lengths(lengths).map_or(1, |lengths| lengths.iter().product())
        });
        let count = if spec.kind == LayerKind::Embedding { 0 } else { spec.batch * layer.in_features() * values };
        let ids = (0..spec.batch * 3).map(|_| random.below(layer.in_features())).collect();
        Self {
            factors: factors(spec, &layer, &mut random),
            weight: draw(&mut random, shape.iter().product()),
            bias: spec.base_bias.then(|| draw(&mut random, layer.out_features())),
            x: wide(&draw(&mut random, count)),
            ids,
            layer,
            conv,
            random,
        }
    }

    /// Whether the input is long enough; when it is not, every way must say so.
    pub fn has_output(&self) -> bool {
        self.conv.as_ref().is_none_or(|(geometry, lengths)| geometry.output_lengths(lengths).is_ok())
    }

    pub fn adapter(&self) -> Adapter {
        Adapter::new(&self.factors)
    }

    /// The layer with a weight and a bias, on an input.
    pub fn layer_forward(&self, x: &[f64], weight: &[f64], bias: Option<&[f64]>) -> Result<Vec<f64>> {
        let (inputs, outputs) = (self.layer.in_features(), self.layer.out_features());
        Ok(match (&self.conv, self.layer.kind()) {
            (Some((geometry, lengths)), kind) if kind.is_conv_transpose() => {
                conv_transpose::forward(geometry, lengths, x, weight, bias)?
            }
            (Some((geometry, lengths)), _) => conv::forward(geometry, lengths, x, weight, bias)?,
            (None, LayerKind::Embedding) => embedding::forward(outputs, &self.ids, weight),
            (None, LayerKind::Conv1D) => {
                linear::forward(inputs, outputs, x, &linear::transpose(inputs, outputs, weight), bias)
            }
            (None, _) => linear::forward(inputs, outputs, x, weight, bias),
        })
    }

    pub fn layer_backward(&self, weight: &[f64], dy: &[f64]) -> Gradients {
        let (inputs, outputs) = (self.layer.in_features(), self.layer.out_features());
        match (&self.conv, self.layer.kind()) {
            (Some((geometry, lengths)), kind) if kind.is_conv_transpose() => {
                conv_transpose::backward(geometry, lengths, &self.x, weight, dy).unwrap()
            }
            (Some((geometry, lengths)), _) => conv::backward(geometry, lengths, &self.x, weight, dy).unwrap(),
            (None, LayerKind::Embedding) => embedding::backward(outputs, &self.ids, weight, dy),
            (None, LayerKind::Conv1D) => {
                let weight = linear::transpose(inputs, outputs, weight);
                let gradients = linear::backward(inputs, outputs, &self.x, &weight, dy);
                Gradients { dw: linear::transpose(outputs, inputs, &gradients.dw), ..gradients }
            }
            (None, _) => linear::backward(inputs, outputs, &self.x, weight, dy),
        }
    }

    /// What an adapter adds to the output, on its own way.
    pub fn adapter_forward(&self, x: &[f64], adapter: &Adapter) -> Result<Vec<f64>> {
        Ok(match (&self.conv, self.layer.kind()) {
            (Some((geometry, lengths)), kind) if kind.is_conv_transpose() => {
                adapter.conv_transpose_forward(geometry, lengths, x)?
            }
            (Some((geometry, lengths)), _) => adapter.conv_forward(geometry, lengths, x)?,
            (None, LayerKind::Embedding) => adapter.embedding_forward(&self.ids),
            (None, _) => adapter.linear_forward(x),
        })
    }

    pub fn adapter_backward(&self, adapter: &Adapter, dy: &[f64]) -> AdapterGradients {
        match (&self.conv, self.layer.kind()) {
            (Some((geometry, lengths)), kind) if kind.is_conv_transpose() => {
                adapter.conv_transpose_backward(geometry, lengths, &self.x, dy).unwrap()
            }
            (Some((geometry, lengths)), _) => adapter.conv_backward(geometry, lengths, &self.x, dy).unwrap(),
            (None, LayerKind::Embedding) => adapter.embedding_backward(&self.ids, dy),
            (None, _) => adapter.linear_backward(&self.x, dy),
        }
    }

    /// The output without merging, and the sum of its terms' magnitudes.
    pub fn unmerged(&self) -> (Vec<f64>, Vec<f64>) {
        let forward = |x: &[f64], weight: &[f64], bias: Option<&[f64]>, adapter: &Adapter| {
            let layer = self.layer_forward(x, weight, bias).unwrap();
            add(&layer, &self.adapter_forward(x, adapter).unwrap())
        };
        let (weight, bias) = (wide(&self.weight), self.bias.as_deref().map(wide));
        let positive = bias.as_deref().map(magnitudes);
        (
            forward(&self.x, &weight, bias.as_deref(), &self.adapter()),
            forward(&magnitudes(&self.x), &magnitudes(&weight), positive.as_deref(), &self.adapter_magnitude()),
        )
    }

    /// The adapter with all signs positive: its delta and its output bound the terms of the real one's.
    pub fn adapter_magnitude(&self) -> Adapter {
        let adapter = self.adapter();
        Adapter {
            scale: adapter.scale.abs(),
            a: magnitudes(&adapter.a),
            b: magnitudes(&adapter.b),
            bias: adapter.bias.as_deref().map(magnitudes),
            ..adapter
        }
    }

    /// Random values, for a gradient of the output.
    pub fn draw(&self, count: usize) -> Vec<f64> {
        wide(&draw(&mut self.random.clone(), count))
    }
}

/// An adapter as `spec` has it.
pub fn factors(spec: &Spec, layer: &Layer, random: &mut Random) -> Factors {
    let rank = if spec.mode == GroupMode::Shared { spec.rank } else { spec.rank * spec.groups };
    let mut a = draw(random, layer.a_shape(rank, spec.mode).iter().product());
    if spec.mode == GroupMode::Dense && !spec.reaches_outside {
        for (index, a) in a.iter_mut().enumerate() {
            if !is_inside(layer, rank, index) {
                *a = 0.0;
            }
        }
    }
    let b = draw(random, layer.b_shape(rank, spec.mode).iter().product());
    let bias = (spec.lora_bias && spec.kind != LayerKind::Embedding).then(|| draw(random, layer.out_features()));
    Factors::new(layer.clone(), spec.mode, rank, random.uniform(-2.0, 2.0), a, b, bias).unwrap()
}

/// Whether an entry of a dense `A` lies in the group of its row.
pub fn is_inside(layer: &Layer, rank: usize, index: usize) -> bool {
    let taps: usize = layer.kernel().iter().product();
    let (row, input) = (index / taps / layer.in_features(), index / taps % layer.in_features());
    row / (rank / layer.groups()) == input / (layer.in_features() / layer.groups())
}

fn draw(random: &mut Random, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.uniform(-1.0, 1.0)).collect()
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

pub fn add(x: &[f64], y: &[f64]) -> Vec<f64> {
    assert_eq!(x.len(), y.len(), "sizes of a sum");
    x.iter().zip(y).map(|(x, y)| x + y).collect()
}

fn magnitudes(values: &[f64]) -> Vec<f64> {
    values.iter().map(|value| value.abs()).collect()
}

/// Any problem of any kind.
pub fn any() -> impl Strategy<Value = Spec> {
    prop_oneof![6 => conv(1), 2 => conv(2), 1 => conv(3), 1 => flat(), 3 => transposed(1), 1 => transposed(2)]
}

/// A transposed convolution: the geometry of any convolution that knows zeros only.
fn transposed(axes: usize) -> impl Strategy<Value = Spec> {
    let kind = [LayerKind::ConvTranspose1d, LayerKind::ConvTranspose2d][axes - 1];
    let zeros = |spec: &Spec| spec.padding_mode == PaddingMode::Zeros;
    conv(axes).prop_filter("padded with zeros", zeros).prop_map(move |spec| Spec { kind, ..spec })
}

/// Any convolution with more than one group.
pub fn grouped() -> impl Strategy<Value = Spec> {
    any().prop_filter("one group", |spec| spec.groups > 1)
}

fn flat() -> impl Strategy<Value = Spec> {
    let kind = prop_oneof![Just(LayerKind::Linear), Just(LayerKind::Conv1D), Just(LayerKind::Embedding)];
    (kind, (1..12_usize, 1..12_usize), mode(), 1..5_usize, 0..4_usize, any_bools(), any_seed()).prop_map(
        |(kind, features, mode, rank, batch, [base_bias, lora_bias, _], seed)| Spec {
            kind,
            features,
            batch,
            mode,
            rank,
            base_bias: base_bias && kind != LayerKind::Embedding,
            lora_bias,
            seed,
            axes: Vec::new(),
            ..Spec::conv1d((1, 1), 1, Axis::new(1), 1)
        },
    )
}

fn conv(axes: usize) -> impl Strategy<Value = Spec> {
    let kind = [LayerKind::Conv1d, LayerKind::Conv2d, LayerKind::Conv3d][axes - 1];
    // Depthwise: one input a group.
    let channels = prop_oneof![3 => ((1..4_usize, 1..4_usize), 1..5_usize), 1 => ((Just(1), 1..3_usize), 2..9_usize)];
    let padding_mode = prop_oneof![
        Just(PaddingMode::Zeros),
        Just(PaddingMode::Reflect),
        Just(PaddingMode::Replicate),
        Just(PaddingMode::Circular)
    ];
    let largest_kernel = [31, 5, 3][axes - 1];
    let largest_dilation = [8, 3, 2][axes - 1];
    let axes = padding_mode.prop_flat_map(move |padding_mode| {
        (Just(padding_mode), prop::collection::vec(axis(largest_kernel, largest_dilation, padding_mode), axes))
    });
    let batch = prop_oneof![1 => Just(0_usize), 9 => 1..4_usize];
    (channels, axes, batch, mode(), 1..4_usize, any_bools(), any_seed()).prop_map(
        move |(
            (features, groups),
            (padding_mode, axes),
            batch,
            mode,
            rank,
            [base_bias, lora_bias, reaches_outside],
            seed,
        )| Spec {
            kind,
            features,
            groups,
            padding_mode,
            axes,
            batch,
            mode,
            rank,
            base_bias,
            lora_bias,
            reaches_outside,
            seed,
        },
    )
}

/// An axis with an input length that is mostly long enough.
fn axis(largest_kernel: usize, largest_dilation: usize, mode: PaddingMode) -> impl Strategy<Value = (Axis, usize)> {
    let padding = prop_oneof![
        Just(Padding::Valid),
        Just(Padding::Same),
        (0..8_usize).prop_map(|both| Padding::Explicit(both, both)),
        (0..8_usize, 0..8_usize).prop_map(|(before, after)| Padding::Explicit(before, after)),
    ];
    let short = prop::bool::weighted(0.06);
    (1..=largest_kernel, 1..=5_usize, 1..=largest_dilation, padding, 0..9_usize, short).prop_map(
        move |(kernel, stride, dilation, padding, extra, short)| {
            let stride = if padding == Padding::Same { 1 } else { stride };
            let span = dilation * (kernel - 1) + 1;
            let (before, after) = match padding {
                Padding::Valid => (0, 0),
                Padding::Same => ((span - 1) / 2, span / 2),
                Padding::Explicit(before, after) => (before, after),
            };
            let least = match mode {
                PaddingMode::Zeros | PaddingMode::Replicate => 1,
                PaddingMode::Reflect => before.max(after) + 1,
                PaddingMode::Circular => before.max(after).max(1),
            };
            let enough = least.max((span + extra).saturating_sub(before + after));
            (Axis { kernel, stride, dilation, padding }, if short { 1 + enough / 4 } else { enough })
        },
    )
}

fn mode() -> impl Strategy<Value = GroupMode> {
    prop_oneof![Just(GroupMode::Dense), Just(GroupMode::PerGroup), Just(GroupMode::Shared)]
}

fn any_bools() -> impl Strategy<Value = [bool; 3]> {
    prop::array::uniform3(prop::bool::ANY)
}

fn any_seed() -> impl Strategy<Value = u64> {
    // Not shrunk: another seed is another problem, not a smaller one.
    prop::num::u64::ANY.no_shrink()
}
