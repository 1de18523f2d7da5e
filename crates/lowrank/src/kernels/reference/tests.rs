//! The referee on trial: worked examples, and central finite differences of every gradient on random problems.

use super::adapter::Adapter;
use super::{attention, conv, conv_transpose, embedding, linear, lstm, norm, softmax};
use crate::adapter::{GroupMode, Layer, LayerKind};
use crate::geometry::{Axis, ConvGeometry, Padding, PaddingMode};
use crate::random::Random;

fn draw(random: &mut Random, count: usize) -> Vec<f64> {
    (0..count).map(|_| f64::from(random.uniform(-1.0, 1.0))).collect()
}

/// Whether `gradient` is that of `loss` at `point`, in some twenty places. The losses here are linear in each value, so
/// that the central difference is exact but for rounding, whatever the step.
fn assert_gradient(name: &str, gradient: &[f64], point: &[f64], loss: impl Fn(&[f64]) -> f64) {
    assert_differences(name, gradient, point, 0.5, 1e-9, loss);
}

/// As [`assert_gradient`], for a loss that is curved.
fn assert_curved_gradient(name: &str, gradient: &[f64], point: &[f64], loss: impl Fn(&[f64]) -> f64) {
    assert_differences(name, gradient, point, 1e-4, 1e-5, loss);
}

fn assert_differences(
    name: &str,
    gradient: &[f64],
    point: &[f64],
    step: f64,
    tolerance: f64,
    loss: impl Fn(&[f64]) -> f64,
) {
    assert_eq!(gradient.len(), point.len(), "{name}");
    for index in (0..point.len()).step_by(point.len() / 20 + 1) {
        let at = |step: f64| {
            let mut moved = point.to_vec();
            moved[index] += step;
            loss(&moved)
        };
        let difference = (at(step) - at(-step)) / (2.0 * step);
        let error = (difference - gradient[index]).abs();
        assert!(error < tolerance * (1.0 + difference.abs()), "{name}[{index}]: {difference} and {}", gradient[index]);
    }
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn geometry(random: &mut Random, axes: usize) -> (ConvGeometry, Vec<usize>) {
    let modes = [PaddingMode::Zeros, PaddingMode::Reflect, PaddingMode::Replicate, PaddingMode::Circular];
    let groups = 1 + random.below(3);
    let (mut shapes, mut lengths) = (Vec::new(), Vec::new());
    for _ in 0..axes {
        let (kernel, dilation) = (1 + random.below(3), 1 + random.below(2));
        let padding = Padding::Explicit(random.below(3), random.below(3));
        shapes.push(Axis { kernel, stride: 1 + random.below(2), dilation, padding });
        lengths.push(5 + random.below(2));
    }
    let (inputs, outputs) = (groups * (1 + random.below(2)), groups * (1 + random.below(2)));
    (ConvGeometry::new(inputs, outputs, groups, modes[random.below(4)], shapes).unwrap(), lengths)
}

fn adapter(random: &mut Random, layer: Layer, mode: GroupMode, bias: bool) -> Adapter {
    let rank = if mode == GroupMode::Shared { 1 + random.below(3) } else { layer.groups() * (1 + random.below(2)) };
    let a = draw(random, layer.a_shape(rank, mode).iter().product());
    let b = draw(random, layer.b_shape(rank, mode).iter().product());
    let bias = bias.then(|| draw(random, layer.out_features()));
    Adapter { scale: f64::from(random.uniform(-2.0, 2.0)), layer, mode, rank, a, b, bias }
}

#[test]
fn a_convolution_by_hand() {
    // Two channels in two groups, stride 2, reflected by one at the front: channel 0 reads 2, 1, 2, 3.
    let axis = Axis { stride: 2, padding: Padding::Explicit(1, 0), ..Axis::new(2) };
    let geometry = ConvGeometry::new(2, 2, 2, PaddingMode::Reflect, vec![axis]).unwrap();
    let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let y = conv::forward(&geometry, &[3], &x, &[1.0, 10.0, 1.0, -1.0], Some(&[0.0, 100.0])).unwrap();
    assert_eq!(y, [12.0, 32.0, 101.0, 99.0]);
}

#[test]
fn a_plane_convolution_by_hand() {
    let geometry = ConvGeometry::new(1, 1, 1, PaddingMode::Zeros, vec![Axis::new(2), Axis::new(2)]).unwrap();
    let x: Vec<f64> = (1..=9).map(f64::from).collect();
    let y = conv::forward(&geometry, &[3, 3], &x, &[1.0, 2.0, 3.0, 4.0], None).unwrap();
    assert_eq!(y, [37.0, 47.0, 67.0, 77.0]);
}

#[test]
fn an_empty_batch_has_outputs_and_gradients_of_nothing() {
    let geometry = ConvGeometry::new(2, 4, 2, PaddingMode::Zeros, vec![Axis::new(3)]).unwrap();
    assert!(conv::forward(&geometry, &[5], &[], &[1.0; 12], None).unwrap().is_empty());
    let gradients = conv::backward(&geometry, &[5], &[], &[1.0; 12], &[]).unwrap();
    assert_eq!((gradients.dx, gradients.dw, gradients.dbias), (vec![], vec![0.0; 12], vec![0.0; 4]));
}

#[test]
fn the_delta_of_the_worked_example() {
    let layer = Layer::new(LayerKind::Conv1d, &[2, 2, 2], 1).unwrap();
    let a = vec![1.0, 2.0, 3.0, 4.0];
    let adapter = Adapter { layer, mode: GroupMode::Dense, rank: 1, scale: 2.0, a, b: vec![1.0, -1.0], bias: None };
    assert_eq!(adapter.delta(), [2.0, 4.0, 6.0, 8.0, -2.0, -4.0, -6.0, -8.0]);
    assert_eq!(adapter.dense_delta(), adapter.delta());
}

#[test]
fn convolution_gradients_are_the_finite_differences() {
    for case in 0..60 {
        let mut random = Random::new(11, "conv gradients", case);
        let axes = 1 + random.below(3);
        let (geometry, lengths) = geometry(&mut random, axes);
        let x = draw(&mut random, 2 * geometry.in_channels() * lengths.iter().product::<usize>());
        let w = draw(&mut random, geometry.weight_shape().iter().product());
        let bias = draw(&mut random, geometry.out_channels());
        let forward =
            |x: &[f64], w: &[f64], bias: &[f64]| conv::forward(&geometry, &lengths, x, w, Some(bias)).unwrap();
        let dy = draw(&mut random, forward(&x, &w, &bias).len());
        let gradients = conv::backward(&geometry, &lengths, &x, &w, &dy).unwrap();
        assert_gradient("dx", &gradients.dx, &x, |x| dot(&dy, &forward(x, &w, &bias)));
        assert_gradient("dw", &gradients.dw, &w, |w| dot(&dy, &forward(&x, w, &bias)));
        assert_gradient("dbias", &gradients.dbias, &bias, |bias| dot(&dy, &forward(&x, &w, bias)));
    }
}

#[test]
fn convolution_adapter_gradients_are_the_finite_differences() {
    for case in 0..60 {
        let mut random = Random::new(12, "conv adapter gradients", case);
        let axes = 1 + random.below(3);
        let (geometry, lengths) = geometry(&mut random, axes);
        let kind = [LayerKind::Conv1d, LayerKind::Conv2d, LayerKind::Conv3d][axes - 1];
        let layer = Layer::new(kind, &geometry.weight_shape(), geometry.groups()).unwrap();
        let mode = [GroupMode::Dense, GroupMode::PerGroup, GroupMode::Shared][random.below(3)];
        let adapter = adapter(&mut random, layer, mode, true);
        let x = draw(&mut random, 2 * geometry.in_channels() * lengths.iter().product::<usize>());
        let forward = |adapter: &Adapter, x: &[f64]| adapter.conv_forward(&geometry, &lengths, x).unwrap();
        let dy = draw(&mut random, forward(&adapter, &x).len());
        let gradients = adapter.conv_backward(&geometry, &lengths, &x, &dy).unwrap();
        assert_gradient("dx", &gradients.dx, &x, |x| dot(&dy, &forward(&adapter, x)));
        assert_factor_gradients(&adapter, (&gradients.da, &gradients.db), |adapter| dot(&dy, &forward(adapter, &x)));
        let bias = adapter.bias.clone().unwrap();
        assert_gradient("dbias", &gradients.dbias, &bias, |bias| {
            dot(&dy, &forward(&Adapter { bias: Some(bias.to_vec()), ..adapter.clone() }, &x))
        });
    }
}

#[test]
fn transposed_convolution_gradients_are_the_finite_differences() {
    for case in 0..40 {
        let mut random = Random::new(18, "transposed gradients", case);
        let axes = 1 + random.below(2);
        let (geometry, lengths) = geometry(&mut random, axes);
        let inputs = geometry.output_lengths(&lengths).unwrap().iter().product::<usize>();
        let x = draw(&mut random, 2 * geometry.out_channels() * inputs);
        let w = draw(&mut random, geometry.weight_shape().iter().product());
        let bias = draw(&mut random, geometry.in_channels());
        let forward = |x: &[f64], w: &[f64], bias: &[f64]| {
            conv_transpose::forward(&geometry, &lengths, x, w, Some(bias)).unwrap()
        };
        let dy = draw(&mut random, forward(&x, &w, &bias).len());
        let gradients = conv_transpose::backward(&geometry, &lengths, &x, &w, &dy).unwrap();
        assert_gradient("dx", &gradients.dx, &x, |x| dot(&dy, &forward(x, &w, &bias)));
        assert_gradient("dw", &gradients.dw, &w, |w| dot(&dy, &forward(&x, w, &bias)));
        assert_gradient("dbias", &gradients.dbias, &bias, |bias| dot(&dy, &forward(&x, &w, bias)));

        let kind = [LayerKind::ConvTranspose1d, LayerKind::ConvTranspose2d][axes - 1];
        let layer = Layer::new(kind, &geometry.weight_shape(), geometry.groups()).unwrap();
        let mode = [GroupMode::Dense, GroupMode::PerGroup, GroupMode::Shared][random.below(3)];
        let adapter = adapter(&mut random, layer, mode, true);
        let forward = |adapter: &Adapter, x: &[f64]| adapter.conv_transpose_forward(&geometry, &lengths, x).unwrap();
        let gradients = adapter.conv_transpose_backward(&geometry, &lengths, &x, &dy).unwrap();
        assert_gradient("adapter dx", &gradients.dx, &x, |x| dot(&dy, &forward(&adapter, x)));
        assert_factor_gradients(&adapter, (&gradients.da, &gradients.db), |adapter| dot(&dy, &forward(adapter, &x)));
    }
}

#[test]
fn linear_gradients_are_the_finite_differences() {
    for case in 0..40 {
        let mut random = Random::new(13, "linear gradients", case);
        let (inputs, outputs) = (1 + random.below(5), 1 + random.below(5));
        let (x, w) = (draw(&mut random, 3 * inputs), draw(&mut random, inputs * outputs));
        let (bias, dy) = (draw(&mut random, outputs), draw(&mut random, 3 * outputs));
        let forward = |x: &[f64], w: &[f64], bias: &[f64]| linear::forward(inputs, outputs, x, w, Some(bias));
        let gradients = linear::backward(inputs, outputs, &x, &w, &dy);
        assert_gradient("dx", &gradients.dx, &x, |x| dot(&dy, &forward(x, &w, &bias)));
        assert_gradient("dw", &gradients.dw, &w, |w| dot(&dy, &forward(&x, w, &bias)));
        assert_gradient("dbias", &gradients.dbias, &bias, |bias| dot(&dy, &forward(&x, &w, bias)));

        let layer = Layer::new(LayerKind::Linear, &[outputs, inputs], 1).unwrap();
        let adapter = adapter(&mut random, layer, GroupMode::Dense, true);
        let gradients = adapter.linear_backward(&x, &dy);
        assert_gradient("adapter dx", &gradients.dx, &x, |x| dot(&dy, &adapter.linear_forward(x)));
        assert_factor_gradients(&adapter, (&gradients.da, &gradients.db), |adapter| {
            dot(&dy, &adapter.linear_forward(&x))
        });
    }
}

#[test]
fn embedding_gradients_are_the_finite_differences() {
    for case in 0..40 {
        let mut random = Random::new(14, "embedding gradients", case);
        let (rows, dim) = (1 + random.below(5), 1 + random.below(5));
        let ids: Vec<usize> = (0..4).map(|_| random.below(rows)).collect();
        let (w, dy) = (draw(&mut random, rows * dim), draw(&mut random, 4 * dim));
        let gradients = embedding::backward(dim, &ids, &w, &dy);
        assert_gradient("dw", &gradients.dw, &w, |w| dot(&dy, &embedding::forward(dim, &ids, w)));

        let layer = Layer::new(LayerKind::Embedding, &[rows, dim], 1).unwrap();
        let adapter = adapter(&mut random, layer, GroupMode::Dense, false);
        let gradients = adapter.embedding_backward(&ids, &dy);
        assert_factor_gradients(&adapter, (&gradients.da, &gradients.db), |adapter| {
            dot(&dy, &adapter.embedding_forward(&ids))
        });
    }
}

#[test]
fn delta_gradients_are_the_finite_differences() {
    let kinds = [
        (LayerKind::Linear, &[3, 4][..], 1),
        (LayerKind::Conv1D, &[4, 3], 1),
        (LayerKind::Embedding, &[5, 2], 1),
        (LayerKind::Conv1d, &[6, 2, 3], 2),
        (LayerKind::Conv2d, &[4, 1, 2, 3], 4),
        (LayerKind::Conv3d, &[2, 2, 1, 2, 2], 1),
        (LayerKind::ConvTranspose1d, &[4, 3, 2], 2),
    ];
    for (case, (kind, shape, groups)) in kinds.into_iter().enumerate() {
        for mode in [GroupMode::Dense, GroupMode::PerGroup, GroupMode::Shared] {
            let mut random = Random::new(15, mode.name(), case as u64);
            let adapter = adapter(&mut random, Layer::new(kind, shape, groups).unwrap(), mode, false);
            let dw = draw(&mut random, shape.iter().product());
            let (da, db) = adapter.delta_backward(&dw);
            assert_factor_gradients(&adapter, (&da, &db), |adapter| dot(&dw, &adapter.delta()));
        }
    }
}

fn assert_factor_gradients(adapter: &Adapter, (da, db): (&[f64], &[f64]), loss: impl Fn(&Adapter) -> f64) {
    assert_gradient("da", da, &adapter.a, |a| loss(&Adapter { a: a.to_vec(), ..adapter.clone() }));
    assert_gradient("db", db, &adapter.b, |b| loss(&Adapter { b: b.to_vec(), ..adapter.clone() }));
}

#[test]
fn softmax_gradients_are_the_finite_differences() {
    for case in 0..20 {
        let mut random = Random::new(16, "softmax gradients", case);
        let width = 1 + random.below(6);
        let (x, dy) = (draw(&mut random, 3 * width), draw(&mut random, 3 * width));
        let dx = softmax::backward(&softmax::forward(&x, width), &dy, width);
        assert_curved_gradient("dx", &dx, &x, |x| dot(&dy, &softmax::forward(x, width)));
    }
}

#[test]
fn attention_gradients_are_the_finite_differences() {
    for case in 0..20 {
        let mut random = Random::new(19, "attention gradients", case);
        let (queries, keys, head_dim) = (1 + random.below(4), 1 + random.below(4), 1 + random.below(3));
        let (q, d_o) = (draw(&mut random, queries * head_dim), draw(&mut random, queries * head_dim));
        let (k, v) = (draw(&mut random, keys * head_dim), draw(&mut random, keys * head_dim));
        let causal = case % 2 == 0;
        let loss = |q: &[f64], k: &[f64], v: &[f64]| dot(&d_o, &attention::forward([q, k, v], head_dim, causal));
        let [dq, dk, dv] = attention::backward([&q, &k, &v], &d_o, head_dim, causal);
        assert_curved_gradient("dq", &dq, &q, |q| loss(q, &k, &v));
        assert_curved_gradient("dk", &dk, &k, |k| loss(&q, k, &v));
        assert_curved_gradient("dv", &dv, &v, |v| loss(&q, &k, v));
    }
}

#[test]
fn normalisation_gradients_are_the_finite_differences() {
    for case in 0..20 {
        let mut random = Random::new(17, "normalisation gradients", case);
        let (sets, parameters) = (1 + random.below(3), 1 + random.below(4));
        let set: Vec<_> = (0..24).map(|place| place % sets).collect();
        let parameter: Vec<_> = (0..24).map(|_| random.below(parameters)).collect();
        let sets = norm::Sets { set: &set, parameter: &parameter };
        let (x, dy) = (draw(&mut random, 24), draw(&mut random, 24));
        let (gamma, beta) = (draw(&mut random, parameters), draw(&mut random, parameters));
        let loss =
            |x: &[f64], gamma: &[f64], beta: &[f64]| dot(&dy, &sets.forward(x, [gamma, beta], &sets.moments(x), 0.1));
        let gradients = sets.backward(&x, &gamma, 0.1, &dy);
        assert_curved_gradient("dx", &gradients.dx, &x, |x| loss(x, &gamma, &beta));
        assert_curved_gradient("dγ", &gradients.dgamma, &gamma, |gamma| loss(&x, gamma, &beta));
        assert_curved_gradient("dβ", &gradients.dbeta, &beta, |beta| loss(&x, &gamma, beta));

        let moments = sets.moments(&draw(&mut random, 24));
        let gradients = sets.backward_given(&x, &gamma, &moments, 0.1, &dy);
        assert_curved_gradient("dx, moments given", &gradients.dx, &x, |x| {
            dot(&dy, &sets.forward(x, [&gamma, &beta], &moments, 0.1))
        });
    }
}

#[test]
fn lstm_gradients_are_the_finite_differences() {
    for case in 0..20 {
        let mut random = Random::new(18, "LSTM gradients", case);
        let (rows, hidden) = (1 + random.below(3), 1 + random.below(4));
        let (gates, before) = (draw(&mut random, 4 * rows * hidden), draw(&mut random, rows * hidden));
        let (dcell, doutput) = (draw(&mut random, rows * hidden), draw(&mut random, rows * hidden));
        let loss = |gates: &[f64], before: &[f64]| {
            let (cell, output) = lstm::forward(gates, before, hidden);
            dot(&dcell, &cell) + dot(&doutput, &output)
        };
        let (dgates, dbefore) = lstm::backward(&gates, &before, hidden, [&dcell, &doutput]);
        assert_curved_gradient("dgates", &dgates, &gates, |gates| loss(gates, &before));
        assert_curved_gradient("dbefore", &dbefore, &before, |before| loss(&gates, before));
    }
}
