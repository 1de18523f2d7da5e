//! A random layer with a random adapter, which knows what it should compute.

mod layers;

use std::collections::HashMap;

use burn::tensor::{Device, Int, Tensor, TensorData};
use lowrank::adapter::{DoraNorm, Factors, GroupMode, Layer, LayerKind, Magnitude};
use lowrank::config::{LoraConfig, Patterns};
use lowrank::geometry::{Axis, ConvGeometry, Padding, PaddingMode};
use lowrank::kernels::reference::{AdapterGradients, Gradients, adapter::Adapter, conv, conv_transpose, dora, linear};
use lowrank::random::Random;
use lowrank_burn::{Adapters, values};
use proptest::prelude::*;

use layers::Net;

/// Through which layer the adapter is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// A layer of `lowrank_burn::nn`.
    DropIn,
    /// Burn's own.
    Stock,
}

/// What is computed, apart from the values.
#[derive(Debug, Clone)]
pub enum Shape {
    Conv {
        geometry: ConvGeometry,
        lengths: Vec<usize>,
    },
    /// The transpose of `conv`.
    Transposed {
        conv: ConvGeometry,
        lengths: Vec<usize>,
        padding_out: Vec<usize>,
    },
    /// `of` a `Linear`, or of transformers' `Conv1D`.
    Linear {
        inputs: usize,
        outputs: usize,
        of: LayerKind,
    },
    Embedding {
        rows: usize,
        dim: usize,
    },
}

#[derive(Debug, Clone)]
pub struct Problem {
    pub shape: Shape,
    pub batch: usize,
    /// Rank over the groups for the forms that need a multiple of them.
    pub rank: usize,
    pub mode: GroupMode,
    pub bias: bool,
    pub lora_bias: bool,
    /// The norm of `DoRA`, when the adapter has a magnitude.
    pub dora: Option<DoraNorm>,
    pub seed: u64,
}

/// Everything a layer gives: its output, and the gradients of a random linear function of it.
struct Result {
    y: Vec<f64>,
    dx: Vec<f64>,
    da: Vec<f64>,
    db: Vec<f64>,
    dbias: Vec<f64>,
    dm: Vec<f64>,
}

prop_compose! {
    fn axis()(
        kernel in prop_oneof![4 => 1_usize..6, 1 => 6_usize..32],
        stride in 1_usize..6,
        dilation in 1_usize..9,
        before in 0_usize..12,
        after in 0_usize..12,
        padding in 0..4,
    ) -> Axis {
        let padding = match padding {
            0 => Padding::Valid,
            1 if stride == 1 => Padding::Same,
            2 => Padding::Explicit(before, before),
            _ => Padding::Explicit(before, after),
        };
        Axis { kernel, stride, dilation, padding }
    }
}

prop_compose! {
    pub fn conv_problem(axes: usize)(
        axes in prop::collection::vec(axis(), axes),
        lengths in prop::collection::vec(1_usize..(if axes == 1 { 60 } else { 14 }), axes),
        groups in prop_oneof![2 => Just(1_usize), 1 => 2_usize..5],
        (inputs, outputs) in (1_usize..4, 1_usize..4),
        padding_mode in prop_oneof![
            3 => Just(PaddingMode::Zeros),
            1 => Just(PaddingMode::Reflect),
            1 => Just(PaddingMode::Replicate),
            1 => Just(PaddingMode::Circular),
        ],
        mode in prop_oneof![Just(GroupMode::PerGroup), Just(GroupMode::Shared), Just(GroupMode::Dense)],
        (rank, batch, seed) in (1_usize..4, 1_usize..4, any::<u64>()),
        (bias, lora_bias) in (any::<bool>(), any::<bool>()),
    ) -> Problem {
        // The two-dimensional layers have zeros only, as Burn's.
        let padding_mode = if axes.len() == 1 { padding_mode } else { PaddingMode::Zeros };
        let geometry = ConvGeometry::new(inputs * groups, outputs * groups, groups, padding_mode, axes).unwrap();
        let rank = if mode == GroupMode::Shared { rank } else { rank * groups };
        Problem { shape: Shape::Conv { geometry, lengths }, batch, rank, mode, bias, lora_bias: bias && lora_bias, dora: None, seed }
    }
}

prop_compose! {
    pub fn linear_problem()(
        (inputs, outputs, batch, rank) in (1_usize..12, 1_usize..12, 1_usize..7, 1_usize..6),
        (bias, lora_bias, seed) in (any::<bool>(), any::<bool>(), any::<u64>()),
    ) -> Problem {
        let shape = Shape::Linear { inputs, outputs, of: LayerKind::Linear };
        let mode = GroupMode::PerGroup;
        Problem { shape, batch, rank, mode, bias, lora_bias: bias && lora_bias, dora: None, seed }
    }
}

/// A convolution over three axes has as many zeros before each as after; here it has few taps.
pub fn conv3d_problem() -> impl Strategy<Value = Problem> {
    conv_problem(3).prop_map(|problem| {
        let Shape::Conv { geometry, lengths } = &problem.shape else { return problem };
        let axis = |axis: &Axis| Axis {
            kernel: axis.kernel % 4 + 1,
            stride: axis.stride % 3 + 1,
            dilation: axis.dilation % 3 + 1,
            padding: match axis.padding {
                Padding::Explicit(before, _) => Padding::Explicit(before % 4, before % 4),
                _ => Padding::Valid,
            },
        };
        let along = geometry.axes().iter().map(axis).collect();
        let (inputs, outputs) = (geometry.in_channels(), geometry.out_channels());
        let geometry = ConvGeometry::new(inputs, outputs, geometry.groups(), PaddingMode::Zeros, along).unwrap();
        let lengths = lengths.iter().map(|length| length % 8 + 1).collect();
        Problem { shape: Shape::Conv { geometry, lengths }, ..problem }
    })
}

prop_compose! {
    pub fn transposed_problem(axes: usize)(
        problem in conv_problem(axes),
        padding_out in prop::collection::vec(0_usize..8, axes),
    ) -> Problem {
        let Shape::Conv { geometry, lengths } = &problem.shape else { return problem };
        let axis = |axis: &Axis| {
            let before = if let Padding::Explicit(before, _) = axis.padding { before % 6 } else { 0 };
            Axis { padding: Padding::Explicit(before, before), ..*axis }
        };
        let along: Vec<Axis> = geometry.axes().iter().map(axis).collect();
        // As PyTorch asks for.
        let padding_out = padding_out.iter().zip(&along).map(|(out, axis)| out % axis.stride.max(axis.dilation));
        let padding_out = padding_out.collect();
        let (inputs, outputs, groups) = (geometry.in_channels(), geometry.out_channels(), geometry.groups());
        let conv = ConvGeometry::new(outputs, inputs, groups, PaddingMode::Zeros, along).unwrap();
        let lengths = lengths.iter().map(|length| length.div_ceil(4)).collect();
        Problem { shape: Shape::Transposed { conv, lengths, padding_out }, ..problem }
    }
}

pub fn hf_conv1d_problem() -> impl Strategy<Value = Problem> {
    // It always has a bias.
    linear_problem().prop_map(|problem| {
        let Shape::Linear { inputs, outputs, .. } = problem.shape else { return problem };
        let shape = Shape::Linear { inputs, outputs, of: LayerKind::Conv1D };
        Problem { shape, bias: true, ..problem }
    })
}

prop_compose! {
    pub fn embedding_problem()(
        (rows, dim, batch, rank, seed) in (1_usize..12, 1_usize..12, 1_usize..7, 1_usize..6, any::<u64>()),
    ) -> Problem {
        let shape = Shape::Embedding { rows, dim };
        let mode = GroupMode::PerGroup;
        Problem { shape, batch, rank, mode, bias: false, lora_bias: false, dora: None, seed }
    }
}

impl Problem {
    /// The same problem with a magnitude. A dense adapter on groups is not one here: it has no merged weight to be held
    /// against.
    pub fn with_dora(self, norm: DoraNorm) -> Self {
        let mode = if self.mode == GroupMode::Dense { GroupMode::PerGroup } else { self.mode };
        Self { dora: Some(norm), lora_bias: false, mode, ..self }
    }

    /// Computes the problem both ways and compares.
    pub fn check(&self, route: Route) {
        if !self.is_possible(route) {
            return;
        }
        let values = Values::draw(self);
        let expected = values.reference(self);
        let found = values.network(self, route);
        let tolerance = 1e-5 * values.cancellation();
        for (what, found, expected) in [
            ("y", &found.y, &expected.y),
            ("dx", &found.dx, &expected.dx),
            ("dA", &found.da, &expected.da),
            ("dB", &found.db, &expected.db),
            ("dB.bias", &found.dbias, &expected.dbias),
            ("dm", &found.dm, &expected.dm),
        ] {
            assert_eq!(found.len(), expected.len(), "{what}: number of values; {self:?}");
            // Burn adds up a bias's gradient in single precision, over every output of a channel: its rounding grows with the
            // root of their number.
            #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
            let terms = if what == "dB.bias" { values.dy.len() as f64 / found.len().max(1) as f64 } else { 1.0 };
            let least = (terms / 100.0).sqrt().max(1.0);
            let scale = expected.iter().fold(least, |scale, value| scale.max(value.abs()));
            for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
                let error = (found - expected).abs() / scale;
                assert!(error < tolerance, "{what}[{at}] is {found}, should be {expected}; {self:?}");
            }
        }
    }

    /// Geometries without an output are refused in one place and not computed; stock layers know zeros only, leave
    /// dilation out of `Same`, take no dense grouped form, and no grouped form with a stride.
    fn is_possible(&self, route: Route) -> bool {
        if let Shape::Transposed { .. } = &self.shape {
            let stock = self.mode != GroupMode::Dense || self.layer().groups() == 1;
            return self.transposed().is_some() && (route == Route::DropIn || stock);
        }
        let Shape::Conv { geometry, lengths } = &self.shape else { return true };
        let stock = || {
            let plain = |axis: &Axis| axis.padding != Padding::Same || axis.dilation == 1;
            geometry.padding_mode() == PaddingMode::Zeros
                && geometry.axes().iter().all(plain)
                && (geometry.groups() == 1 || self.mode != GroupMode::Dense && geometry.axes()[0].stride == 1)
        };
        geometry.output_lengths(lengths).is_ok() && (route == Route::DropIn || stock())
    }

    /// The lengths of a transposed convolution's output, and those of its input with what stands for a whole stride of
    /// its `padding_out`; none where nothing is left within the padding.
    fn transposed(&self) -> Option<(Vec<usize>, Vec<usize>)> {
        let Shape::Transposed { conv, lengths, padding_out } = &self.shape else { return None };
        let axes = || conv.axes().iter().zip(padding_out);
        let inputs: Vec<usize> = lengths.iter().zip(axes()).map(|(n, (axis, out))| n + out / axis.stride).collect();
        let rest: Vec<usize> = axes().map(|(axis, out)| out % axis.stride).collect();
        Some((conv.transposed_lengths(&inputs, &rest).ok()?, inputs))
    }

    /// For each position of the longer input of a transposed convolution, that in the input itself.
    fn places(&self) -> Vec<Option<usize>> {
        let (Shape::Transposed { lengths, .. }, Some((_, longer))) = (&self.shape, self.transposed()) else {
            return Vec::new();
        };
        let along = |places: Vec<Option<usize>>, (length, longer): (&usize, &usize)| {
            let mut inner = Vec::new();
            for place in places {
                inner.extend((0..*longer).map(|at| place.filter(|_| at < *length).map(|place| place * length + at)));
            }
            inner
        };
        lengths.iter().zip(&longer).fold(vec![Some(0)], along)
    }

    /// The input with zeros for whole strides of `padding_out`.
    fn longer(&self, x: &[f64]) -> Vec<f64> {
        let places = self.places();
        let length = places.iter().flatten().count();
        let row = |x: &[f64]| places.iter().map(|place| place.map_or(0.0, |place| x[place])).collect::<Vec<_>>();
        x.chunks_exact(length).flat_map(row).collect()
    }

    /// The gradient of the input, of that of the longer one.
    fn shorter(&self, dx: &[f64]) -> Vec<f64> {
        let places = self.places();
        let inside = |(at, _): &(usize, &f64)| places[at % places.len()].is_some();
        dx.iter().enumerate().filter(inside).map(|(_, dx)| *dx).collect()
    }

    pub fn layer(&self) -> Layer {
        match &self.shape {
            Shape::Transposed { conv, .. } => {
                let kind = [LayerKind::ConvTranspose1d, LayerKind::ConvTranspose2d][conv.axes().len() - 1];
                Layer::new(kind, &conv.weight_shape(), conv.groups()).unwrap()
            }
            Shape::Conv { geometry, .. } => {
                let kind = [LayerKind::Conv1d, LayerKind::Conv2d, LayerKind::Conv3d][geometry.axes().len() - 1];
                Layer::new(kind, &geometry.weight_shape(), geometry.groups()).unwrap()
            }
            Shape::Linear { inputs, outputs, of: LayerKind::Conv1D } => {
                Layer::new(LayerKind::Conv1D, &[*inputs, *outputs], 1).unwrap()
            }
            Shape::Linear { inputs, outputs, of } => Layer::new(*of, &[*outputs, *inputs], 1).unwrap(),
            Shape::Embedding { rows, dim } => Layer::new(LayerKind::Embedding, &[*rows, *dim], 1).unwrap(),
        }
    }

    fn input_len(&self) -> usize {
        self.batch
            * match &self.shape {
                Shape::Conv { geometry, lengths } => geometry.in_channels() * lengths.iter().product::<usize>(),
                Shape::Transposed { conv, lengths, .. } => conv.out_channels() * lengths.iter().product::<usize>(),
                Shape::Linear { inputs, .. } => *inputs,
                Shape::Embedding { .. } => 1,
            }
    }

    fn output_len(&self) -> usize {
        self.batch
            * match &self.shape {
                Shape::Conv { geometry, lengths } => {
                    geometry.out_channels() * geometry.output_lengths(lengths).unwrap().iter().product::<usize>()
                }
                Shape::Transposed { conv, .. } => {
                    conv.in_channels() * self.transposed().unwrap().0.iter().product::<usize>()
                }
                Shape::Linear { outputs, .. } => *outputs,
                Shape::Embedding { dim, .. } => *dim,
            }
    }
}

/// The numbers of a problem.
struct Values {
    x: Vec<f32>,
    ids: Vec<usize>,
    w: Vec<f32>,
    bias: Option<Vec<f32>>,
    factors: Factors,
    dy: Vec<f32>,
}

impl Values {
    fn draw(problem: &Problem) -> Self {
        let mut random = Random::new(problem.seed, "problem", 0);
        let mut draw = |n: usize| (0..n).map(|_| random.uniform(-1.0, 1.0)).collect::<Vec<f32>>();
        let layer = problem.layer();
        let (rank, mode, outputs) = (problem.rank, problem.mode, layer.out_features());
        let count = |shape: Vec<usize>| shape.iter().product::<usize>();
        let (a, b) = (draw(count(layer.a_shape(rank, mode))), draw(count(layer.b_shape(rank, mode))));
        let lora_bias = problem.lora_bias.then(|| draw(outputs));
        let scale = 0.5 + draw(1)[0].abs();
        let w = draw(layer.weight_shape().iter().product());
        let bias = problem.bias.then(|| draw(outputs));
        let (x, dy) = (draw(problem.input_len()), draw(problem.output_len()));
        let magnitude = problem.dora.map(|norm| Magnitude { values: magnitudes(&mut draw, outputs), norm });
        let ids = (0..problem.batch).map(|_| random.below(layer.in_features())).collect();
        let factors = Factors::new(layer, mode, rank, scale, a, b, lora_bias).unwrap();
        let factors = match magnitude {
            Some(magnitude) => factors.with_magnitude(magnitude).unwrap(),
            None => factors,
        };
        Self { x, ids, w, bias, factors, dy }
    }

    /// Base and adapter side by side, in f64.
    fn reference(&self, problem: &Problem) -> Result {
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        let (x, w, dy) = (wide(&self.x), wide(&self.w), wide(&self.dy));
        let bias = self.bias.as_deref().map(wide);
        let adapter = Adapter::new(&self.factors);
        if let Some(magnitude) = self.factors.magnitude() {
            return self.dora_reference(problem, &adapter, magnitude);
        }
        let (base, base_dx, beside, gradients) = match &problem.shape {
            Shape::Conv { geometry, lengths } => (
                conv::forward(geometry, lengths, &x, &w, bias.as_deref()).unwrap(),
                conv::backward(geometry, lengths, &x, &w, &dy).unwrap().dx,
                adapter.conv_forward(geometry, lengths, &x).unwrap(),
                adapter.conv_backward(geometry, lengths, &x, &dy).unwrap(),
            ),
            Shape::Transposed { conv, .. } => {
                let (outputs, x) = (problem.transposed().unwrap().0, problem.longer(&x));
                let base = conv_transpose::backward(conv, &outputs, &x, &w, &dy).unwrap();
                let gradients = adapter.conv_transpose_backward(conv, &outputs, &x, &dy).unwrap();
                let dx = problem.shorter(&gradients.dx);
                (
                    conv_transpose::forward(conv, &outputs, &x, &w, bias.as_deref()).unwrap(),
                    problem.shorter(&base.dx),
                    adapter.conv_transpose_forward(conv, &outputs, &x).unwrap(),
                    AdapterGradients { dx, ..gradients },
                )
            }
            Shape::Linear { inputs, outputs, of } => {
                let w = if *of == LayerKind::Conv1D { linear::transpose(*inputs, *outputs, &w) } else { w };
                (
                    linear::forward(*inputs, *outputs, &x, &w, bias.as_deref()),
                    linear::backward(*inputs, *outputs, &x, &w, &dy).dx,
                    adapter.linear_forward(&x),
                    adapter.linear_backward(&x, &dy),
                )
            }
            Shape::Embedding { dim, .. } => (
                lowrank::kernels::reference::embedding::forward(*dim, &self.ids, &w),
                Vec::new(),
                adapter.embedding_forward(&self.ids),
                adapter.embedding_backward(&self.ids, &dy),
            ),
        };
        let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect();
        Result {
            y: sum(&base, &beside),
            dx: sum(&base_dx, &gradients.dx),
            da: gradients.da,
            db: gradients.db,
            dbias: if problem.lora_bias { gradients.dbias } else { Vec::new() },
            dm: Vec::new(),
        }
    }

    /// How much larger than 1 errors may be: where `DoRA` divides by the norm of what nearly cancels out, its rounding is
    /// a large part of it.
    fn cancellation(&self) -> f64 {
        let Some(magnitude) = self.factors.magnitude() else { return 1.0 };
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        let size = |values: &[f64]| values.iter().map(|value| value.abs()).collect::<Vec<_>>();
        let (w, adapter) = (wide(&self.w), Adapter::new(&self.factors));
        let norms = dora::norms(&adapter, &w, magnitude.norm);
        let terms = Adapter { a: size(&adapter.a), b: size(&adapter.b), ..adapter };
        let terms = dora::norms(&terms, &size(&w), magnitude.norm);
        norms.iter().zip(terms).fold(1.0, |most, (norm, terms)| most.max(terms / norm / 16.0))
    }

    /// The layer with the merged weight, in f64.
    fn dora_reference(&self, problem: &Problem, adapter: &Adapter, magnitude: &Magnitude) -> Result {
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        let (x, w, dy, m) = (wide(&self.x), wide(&self.w), wide(&self.dy), wide(&magnitude.values));
        let bias = self.bias.as_deref().map(wide);
        let norms = dora::norms(adapter, &w, magnitude.norm);
        let merged = dora::merged(adapter, &w, &dora::gains(&m, &norms));
        let (y, gradients) = match &problem.shape {
            Shape::Conv { geometry, lengths } => (
                conv::forward(geometry, lengths, &x, &merged, bias.as_deref()).unwrap(),
                conv::backward(geometry, lengths, &x, &merged, &dy).unwrap(),
            ),
            Shape::Transposed { conv, .. } => {
                let (outputs, x) = (problem.transposed().unwrap().0, problem.longer(&x));
                let gradients = conv_transpose::backward(conv, &outputs, &x, &merged, &dy).unwrap();
                let dx = problem.shorter(&gradients.dx);
                let y = conv_transpose::forward(conv, &outputs, &x, &merged, bias.as_deref()).unwrap();
                (y, Gradients { dx, ..gradients })
            }
            Shape::Linear { inputs, outputs, of: LayerKind::Conv1D } => {
                let merged = linear::transpose(*inputs, *outputs, &merged);
                let gradients = linear::backward(*inputs, *outputs, &x, &merged, &dy);
                let dw = linear::transpose(*outputs, *inputs, &gradients.dw);
                (linear::forward(*inputs, *outputs, &x, &merged, bias.as_deref()), Gradients { dw, ..gradients })
            }
            Shape::Linear { inputs, outputs, .. } => (
                linear::forward(*inputs, *outputs, &x, &merged, bias.as_deref()),
                linear::backward(*inputs, *outputs, &x, &merged, &dy),
            ),
            Shape::Embedding { dim, .. } => (
                lowrank::kernels::reference::embedding::forward(*dim, &self.ids, &merged),
                lowrank::kernels::reference::embedding::backward(*dim, &self.ids, &merged, &dy),
            ),
        };
        let dora::Gradients { da, db, dm } = dora::backward(adapter, &w, &m, &norms, &gradients.dw);
        Result { y, dx: gradients.dx, da, db, dbias: Vec::new(), dm }
    }

    /// A Burn model of one layer, with an adapter attached.
    fn network(&self, problem: &Problem, route: Route) -> Result {
        let device = Device::flex().autodiff();
        let net = Net::new(problem, route, &device);
        let scale = f64::from(self.factors.scale());
        #[expect(clippy::cast_precision_loss, reason = "a small rank")]
        let lora_alpha = scale * problem.rank as f64;
        let config = LoraConfig {
            r: problem.rank,
            lora_alpha,
            target_modules: Some(Patterns::List(vec!["layer".into()])),
            group_mode: problem.mode,
            lora_bias: problem.lora_bias,
            use_dora: problem.dora.is_some(),
            dora_norm: problem.dora.unwrap_or_default(),
            ..LoraConfig::default()
        };
        let mut adapters = Adapters::default();
        let net = adapters.attach(net, "default", &config, 0).unwrap();
        let tensors = adapters.trainable_tensors("default").unwrap();
        let ids: Vec<_> = tensors.iter().map(|tensor| tensor.id).collect();
        let mut own = net.base_values(&self.w, self.bias.as_deref());
        own.insert(ids[0], self.factors.a().to_vec());
        own.insert(ids[1], self.factors.b().to_vec());
        let third = self.factors.magnitude().map(|magnitude| &magnitude.values[..]).or(self.factors.bias());
        own.extend(ids.get(2).map(|id| (*id, third.unwrap().to_vec())));
        let net = values::write(net, own);

        let (y, x) = self.forward(&net, problem, &device);
        let dy = Tensor::<1>::from_data(TensorData::new(self.dy.clone(), [self.dy.len()]), &device);
        let gradients = (y.clone() * dy).sum().backward();
        let dx = x.map(|x| values::of(x.grad(&gradients).unwrap())).unwrap_or_default();
        let by_id: HashMap<_, _> = net.gradients(&gradients, &ids);
        let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<_>>();
        let of = |at: usize| ids.get(at).map(|id| wide(by_id[id].clone())).unwrap_or_default();
        let (dbias, dm) = if problem.dora.is_some() { (Vec::new(), of(2)) } else { (of(2), Vec::new()) };
        Result { y: wide(values::of(y)), dx: wide(dx), da: of(0), db: of(1), dbias, dm }
    }

    /// The output, flattened, and the input as the leaf its gradient belongs to.
    fn forward(&self, net: &Net, problem: &Problem, device: &Device) -> (Tensor<1>, Option<Tensor<1>>) {
        if let Shape::Embedding { .. } = problem.shape {
            let ids: Vec<i64> = self.ids.iter().map(|id| i64::try_from(*id).unwrap()).collect();
            let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, problem.batch]), device);
            return (net.look_up(ids), None);
        }
        let x = Tensor::<1>::from_data(TensorData::new(self.x.clone(), [self.x.len()]), device).require_grad();
        (net.forward(x.clone(), problem), Some(x))
    }
}

/// Magnitudes of either sign, now and then zero.
fn magnitudes(draw: &mut impl FnMut(usize) -> Vec<f32>, outputs: usize) -> Vec<f32> {
    draw(outputs).into_iter().map(|m| if m.abs() < 0.02 { 0.0 } else { 2.0 * m }).collect()
}
