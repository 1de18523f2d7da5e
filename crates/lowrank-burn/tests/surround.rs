//! What surrounds the adapters, against Burn's own operations and against the default body in `f64`: values and gradients.

use burn::module::{Param, RunningState};
use burn::nn::{LstmConfig, LstmState};
use burn::tensor::ops::{AttentionModuleOptions, ConvOptions, PadMode};
use burn::tensor::{Bool, DType, Device, FloatDType, Tensor, TensorData, activation, module};
use lowrank::geometry::PaddingMode;
use lowrank::random::Random;
use lowrank_burn::ops::{ConvDims, LowRankConv};
use lowrank_burn::{nn, ops};
use proptest::prelude::*;
use proptest::test_runner::Config;

/// Draws the inputs of a comparison.
struct Inputs {
    random: Random,
    device: Device,
}

impl Inputs {
    fn new(seed: u64) -> Self {
        Self { random: Random::new(seed, "surround", 0), device: Device::flex().autodiff() }
    }

    fn draw<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| 2.0 * self.random.normal()).collect();
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.cast(FloatDType::F64).into_data().try_to_vec().unwrap()
}

#[track_caller]
fn assert_close(name: &str, got: &[f64], exact: &[f64]) {
    assert_eq!(got.len(), exact.len(), "{name}");
    let scale = exact.iter().fold(1.0_f64, |largest, value| largest.max(value.abs()));
    for (index, (got, exact)) in got.iter().zip(exact).enumerate() {
        assert!((got - exact).abs() <= 1e-5 * scale, "{name}[{index}]: {got} instead of {exact}");
    }
}

/// The values of `f(inputs)`, and the gradient of its sum weighted by `dy` for each input: in `f32`, or in `f64`.
fn run<const D: usize, const E: usize>(
    dtype: DType,
    x: &Tensor<D>,
    parameters: &[Tensor<E>],
    dy: Option<&Tensor<D>>,
    f: &impl Fn(Tensor<D>, Vec<Tensor<E>>) -> Tensor<D>,
) -> Vec<Vec<f64>> {
    let float: FloatDType = dtype.into();
    let x = x.clone().cast(float).detach().require_grad();
    let parameters: Vec<_> =
        parameters.iter().map(|parameter| parameter.clone().cast(float).detach().require_grad()).collect();
    let y = f(x.clone(), parameters.clone());
    let mut results = vec![values(y.clone())];
    if let Some(dy) = dy {
        let gradients = (y * dy.clone().cast(float)).sum().backward();
        results.push(values(x.grad(&gradients).unwrap()));
        results.extend(parameters.iter().map(|parameter| values(parameter.grad(&gradients).unwrap())));
    }
    results
}

/// Ours in `f32` against ours in `f64`, which is the default body, and against Burn's.
fn compare<const D: usize, const E: usize>(
    name: &str,
    (x, parameters, dy): (Tensor<D>, Vec<Tensor<E>>, Tensor<D>),
    ours: impl Fn(Tensor<D>, Vec<Tensor<E>>) -> Tensor<D>,
    burns: impl Fn(Tensor<D>, Vec<Tensor<E>>) -> Tensor<D>,
) {
    let fast = run(DType::F32, &x, &parameters, Some(&dy), &ours);
    for (other, results) in [
        ("our default in f64", run(DType::F64, &x, &parameters, Some(&dy), &ours)),
        ("Burn in f64", run(DType::F64, &x, &parameters, Some(&dy), &burns)),
    ] {
        for (index, (got, exact)) in fast.iter().zip(&results).enumerate() {
            assert_close(&format!("{name}, result {index}, against {other}"), got, exact);
        }
    }
    // Nobody else reads a tensor without gradients: it may be overwritten, and its values are the same.
    let alone = ours(x.inner().detach(), parameters.into_iter().map(Tensor::inner).collect());
    assert_close(&format!("{name} in place"), &values(alone), &fast[0]);
}

/// The input with what is added at its ends.
fn padded(x: Tensor<3>, (before, after): (usize, usize), mode: PaddingMode) -> Tensor<3> {
    let length = x.dims()[2];
    match mode {
        PaddingMode::Zeros => x.pad([(before, after)], PadMode::Constant(0.0)),
        PaddingMode::Reflect => x.pad([(before, after)], PadMode::Reflect),
        PaddingMode::Replicate => x.pad([(before, after)], PadMode::Edge),
        PaddingMode::Circular => {
            let repeated = Tensor::cat(vec![x.clone(), x.clone(), x], 2);
            repeated.narrow(2, length - before, length + before + after)
        }
    }
}

fn cases(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn activations_agree(seed: u64, rows in 1_usize..20, width in 1_usize..300, slope in 0.0_f32..1.0) {
        let mut inputs = Inputs::new(seed);
        let mut check = |name: &str, ours: &dyn Fn(Tensor<2>) -> Tensor<2>, burns: &dyn Fn(Tensor<2>) -> Tensor<2>| {
            let tensors = (inputs.draw([rows, width]), Vec::<Tensor<1>>::new(), inputs.draw([rows, width]));
            compare(name, tensors, |x, _| ours(x), |x, _| burns(x));
            // A transposed view is not contiguous.
            let tensors = (inputs.draw([width, rows]), Vec::<Tensor<1>>::new(), inputs.draw([width, rows]));
            compare(name, tensors, |x, _| ours(x.transpose()).transpose(), |x, _| burns(x));
        };
        check("relu", &ops::relu, &activation::relu);
        check("gelu", &ops::gelu, &activation::gelu);
        check("gelu_approximate", &ops::gelu_approximate, &activation::gelu_approximate);
        check("silu", &ops::silu, &activation::silu);
        check("leaky_relu", &|x| ops::leaky_relu(x, slope), &|x| activation::leaky_relu(x, slope.into()));
    }

    #[test]
    fn convolutions_agree(
        seed: u64,
        (groups, blocks) in prop_oneof![Just((1, 1)), Just((2, 1)), Just((2, 2)), Just((3, 3))],
        (inputs, outputs, rank) in (1_usize..4, 1_usize..4, 1_usize..3),
        (kernel, stride, dilation) in (1_usize..5, 1_usize..4, 1_usize..3),
        (batch, length, padding) in (1_usize..3, 8_usize..30, (0_usize..8, 0_usize..8)),
        mode in prop_oneof![
            Just(PaddingMode::Zeros),
            Just(PaddingMode::Reflect),
            Just(PaddingMode::Replicate),
            Just(PaddingMode::Circular),
        ],
    ) {
        let (columns, n) = ((length + padding.0 + padding.1).checked_sub(dilation * (kernel - 1) + 1), inputs * kernel);
        prop_assume!(columns.is_some());
        let columns = columns.unwrap() / stride + 1;
        let mut draw = Inputs::new(seed);
        let (x, dy) = (draw.draw([batch, groups * inputs, length]), draw.draw([batch, groups * outputs, columns]));
        let weight = draw.draw([groups * outputs, inputs, kernel]);
        let factors = vec![draw.draw([blocks * rank, n]), draw.draw([groups * outputs, rank])];
        let options = |padding| ConvOptions::new_with_padding([stride], [padding], [dilation], groups);
        let spec = LowRankConv { dims: ConvDims::One(options(padding), mode), scale: 0.5, blocks };
        let ours = |x: Tensor<3>, factors: Vec<Tensor<2>>| {
            let weight = weight.clone().cast(FloatDType::from(x.dtype()));
            let [a, b] = factors.try_into().unwrap();
            ops::lora_conv(x, weight, a, b, None, &spec)
        };
        let burns = |x: Tensor<3>, factors: Vec<Tensor<2>>| {
            let weight = weight.clone().cast(FloatDType::from(x.dtype()));
            let [a, b]: [Tensor<2>; 2] = factors.try_into().unwrap();
            let update = b.reshape([blocks, groups * outputs / blocks, rank]).matmul(a.reshape([blocks, rank, n]));
            let weight = weight + update.reshape([groups * outputs, inputs, kernel]).mul_scalar(0.5);
            module::conv1d(padded(x, padding, mode), weight, None, options((0, 0)))
        };
        // Burn's weight gradient is wrong where a stride leaves a remainder in a grouped convolution.
        let remainder = (length + padding.0 + padding.1 - dilation * (kernel - 1) - 1) % stride;
        let tensors = (x, factors, dy);
        if groups > 1 && remainder > 0 {
            compare("convolution", tensors, ours, ours);
        } else {
            compare("convolution", tensors, ours, burns);
        }
    }

    #[test]
    fn softmax_agrees(seed: u64, shape in [1_usize..6, 1_usize..20, 1_usize..200], dim in 0_usize..3) {
        let mut inputs = Inputs::new(seed);
        let tensors = (inputs.draw(shape), Vec::<Tensor<1>>::new(), inputs.draw(shape));
        compare("softmax", tensors, |x, _| ops::softmax(x, dim), |x, _| activation::softmax(x, dim));
    }

    #[test]
    fn layer_norm_agrees(seed: u64, shape in [1_usize..6, 1_usize..20, 2_usize..200]) {
        let mut inputs = Inputs::new(seed);
        let parameters = vec![inputs.draw([shape[2]]), inputs.draw([shape[2]])];
        let tensors = (inputs.draw(shape), parameters, inputs.draw(shape));
        let pair = |parameters: Vec<Tensor<1>>| <[Tensor<1>; 2]>::try_from(parameters).unwrap();
        compare(
            "layer_norm",
            tensors,
            |x, parameters| { let [gamma, beta] = pair(parameters); ops::layer_norm(x, gamma, Some(beta), 1e-2) },
            |x, parameters| { let [gamma, beta] = pair(parameters); module::layer_norm(x, gamma, Some(beta), 1e-2) },
        );
    }

    #[test]
    fn group_norm_agrees(seed: u64, batch in 1_usize..4, groups in 1_usize..4, each in 1_usize..5, length in 1_usize..100) {
        prop_assume!(each * length > 1);
        let mut inputs = Inputs::new(seed);
        let shape = [batch, groups * each, length];
        let parameters = vec![inputs.draw([shape[1]]), inputs.draw([shape[1]])];
        let tensors = (inputs.draw(shape), parameters, inputs.draw(shape));
        let apply = |by_burn: bool| move |x: Tensor<3>, parameters: Vec<Tensor<1>>| {
            let [gamma, beta] = <[Tensor<1>; 2]>::try_from(parameters).unwrap();
            if by_burn {
                let sets = x.clone().reshape([batch * groups, each * length]);
                let (variance, mean) = sets.clone().var_mean_bias(1);
                let normalised = ((sets - mean) / variance.add_scalar(1e-2).sqrt()).reshape(shape);
                normalised * gamma.reshape([1, shape[1], 1]) + beta.reshape([1, shape[1], 1])
            } else {
                ops::group_norm(x, Some(gamma), Some(beta), groups, 1e-2)
            }
        };
        compare("group_norm", tensors, apply(false), apply(true));
    }

    #[test]
    fn batch_norm_agrees(seed: u64, shape in [1_usize..5, 1_usize..10, 1_usize..100]) {
        let mut inputs = Inputs::new(seed);
        let parameters = vec![inputs.draw([shape[1]]), inputs.draw([shape[1]])];
        // A variance near zero would make large terms that cancel in the gradient of gamma, beyond what f32 can hold.
        let (mean, variance) = (inputs.draw([shape[1]]), inputs.draw([shape[1]]).abs() + 0.5);
        let tensors = (inputs.draw(shape), parameters, inputs.draw(shape));
        let apply = |by_burn: bool| {
            let (mean, variance) = (mean.clone(), variance.clone());
            move |x: Tensor<3>, parameters: Vec<Tensor<1>>| {
                let [gamma, beta] = <[Tensor<1>; 2]>::try_from(parameters).unwrap();
                let float: FloatDType = x.dtype().into();
                let (mean, variance) = (mean.clone().cast(float), variance.clone().cast(float));
                let (mean, variance) =
                    if x.device().is_autodiff() { (mean, variance) } else { (mean.inner(), variance.inner()) };
                if by_burn {
                    module::batch_norm(x, gamma, beta, mean, variance, 1e-2)
                } else {
                    ops::batch_norm_eval(x, [gamma, beta], [mean, variance], 1e-2)
                }
            }
        };
        compare("batch_norm", tensors, apply(false), apply(true));
    }

    #[test]
    fn attention_agrees(
        seed: u64,
        batch in 1_usize..3,
        heads in 1_usize..4,
        head_dim in 1_usize..40,
        queries in 1_usize..50,
        keys in 1_usize..50,
        causal: bool,
    ) {
        let mut inputs = Inputs::new(seed);
        let (of_q, of_k) = ([batch, queries, heads * head_dim], [batch, keys, heads * head_dim]);
        // Scores in the hundreds would turn on one key alone.
        let parameters = vec![inputs.draw(of_k) * 0.5, inputs.draw(of_k)];
        let tensors = (inputs.draw(of_q) * 0.5, parameters, inputs.draw(of_q));
        let pair = |parameters: Vec<Tensor<3>>| <[Tensor<3>; 2]>::try_from(parameters).unwrap();
        compare("attention", tensors, |q, parameters| {
            let [k, v] = pair(parameters);
            ops::attention(q, k, v, heads, causal)
        }, |q, parameters| {
            let [k, v] = pair(parameters);
            let split = |x: Tensor<3>| {
                let [batch, time, _] = x.dims();
                x.reshape([batch, time, heads, head_dim]).swap_dims(1, 2)
            };
            let mask = Tensor::<2, Bool>::tril_mask([queries, keys], 0, &q.device());
            let mask = mask.unsqueeze::<4>().expand([batch, heads, queries, keys]);
            let options = AttentionModuleOptions::default();
            let y = module::attention(split(q), split(k), split(v), causal.then_some(mask), None, options);
            y.swap_dims(1, 2).reshape(of_q)
        });
    }

    #[test]
    fn linear_agrees(seed: u64, shape in [1_usize..5, 1_usize..20, 1_usize..70], output in 1_usize..70, bias: bool) {
        let mut inputs = Inputs::new(seed);
        let mut parameters = vec![inputs.draw([shape[2], output])];
        parameters.extend(bias.then(|| inputs.draw([1, output])));
        let tensors = (inputs.draw(shape), parameters, inputs.draw([shape[0], shape[1], output]));
        let apply = |f: fn(Tensor<3>, Tensor<2>, Option<Tensor<1>>) -> Tensor<3>| move |x, parameters: Vec<Tensor<2>>| {
            let mut parameters = parameters.into_iter();
            f(x, parameters.next().unwrap(), parameters.next().map(|bias| bias.squeeze_dim(0)))
        };
        compare("linear", tensors, apply(ops::linear), apply(module::linear));
    }

    #[test]
    fn lstm_agrees(seed: u64, time in 1_usize..6, batch in 1_usize..5, hidden in 1_usize..40) {
        let mut inputs = Inputs::new(seed);
        let (shape, state) = ([time, batch, 4 * hidden], [batch, hidden]);
        let parameters = vec![inputs.draw([4 * hidden, hidden]) * 0.3, inputs.draw(state), inputs.draw(state)];
        let tensors = (inputs.draw(shape), parameters, inputs.draw(shape));
        // All states side by side in the shape of the input, so that the gradient of each is asked for.
        let spread = move |output: Tensor<3>, cell: Tensor<2>| {
            Tensor::cat(vec![output.clone(), output.clone() * 2.0, output, cell.unsqueeze::<3>().repeat(&[time, 1, 1])], 2)
        };
        let by_steps = |input: Tensor<3>, parameters: Vec<Tensor<2>>| {
            let [weight, mut h, mut c] = <[Tensor<2>; 3]>::try_from(parameters).unwrap();
            let mut outputs = Vec::new();
            for step in input.iter_dim(0) {
                let z = step.squeeze_dim::<2>(0) + h.matmul(weight.clone().transpose());
                let gate = |index: usize| z.clone().narrow(1, index * hidden, hidden);
                c = activation::sigmoid(gate(1)) * c + activation::sigmoid(gate(0)) * gate(2).tanh();
                h = activation::sigmoid(gate(3)) * c.clone().tanh();
                outputs.push(h.clone().unsqueeze::<3>());
            }
            spread(Tensor::cat(outputs, 0), c)
        };
        compare("lstm", tensors, |input, parameters| {
            let [weight, hidden, cell] = <[Tensor<2>; 3]>::try_from(parameters).unwrap();
            let (output, cell) = ops::lstm(input, weight, [hidden, cell]);
            spread(output, cell)
        }, by_steps);
    }
}

proptest! {
    #![proptest_config(Config { cases: 300, failure_persistence: None, ..Config::default() })]

    /// By the kernels in `f32` against the default body, which casts the weight, in `f64`.
    #[test]
    fn weights_of_half_precision_agree_with_the_default(
        seed: u64,
        [batch, time] in [1_usize..4, 1_usize..40],
        [inputs, outputs] in [1_usize..40, 1_usize..40],
        kernel in 1_usize..4,
        (float16, bias) in any::<(bool, bool)>(),
    ) {
        let half = if float16 { FloatDType::F16 } else { FloatDType::BF16 };
        let mut draw = Inputs::new(seed);
        let weight = draw.draw([inputs, outputs]).cast(half);
        let bias = bias.then(|| draw.draw([outputs]).cast(half));
        let (x, dy) = (draw.draw([batch, time, inputs]), draw.draw([batch, time, outputs]));
        let factors = [draw.draw([3, inputs]), draw.draw([outputs, 3])];
        let [adapted, plain] = [true, false].map(|adapted| {
            let (weight, bias) = (weight.clone(), bias.clone());
            move |x: Tensor<3>, factors: Vec<Tensor<2>>| match <[Tensor<2>; 2]>::try_from(factors) {
                Ok([a, b]) if adapted => ops::lora_linear(x, weight.clone(), a, b, bias.clone(), 0.5),
                _ => ops::linear(x, weight.clone(), bias.clone()),
            }
        });
        agree_in_f64("lora_linear", &x, &factors, &dy, &adapted);
        agree_in_f64("linear", &x, &[], &dy, &plain);

        let weight = draw.draw([outputs, inputs, kernel]).cast(half);
        let (x, dy) = (draw.draw([batch, inputs, time + kernel - 1]), draw.draw([batch, outputs, time]));
        let factors = [draw.draw([3, inputs * kernel]), draw.draw([outputs, 3])];
        let dims = ConvDims::One(ConvOptions::new([1], [0], [1], 1), PaddingMode::Zeros);
        let [adapted, plain] = [true, false].map(|adapted| {
            let (weight, bias, dims) = (weight.clone(), bias.clone(), dims.clone());
            move |x: Tensor<3>, factors: Vec<Tensor<2>>| match <[Tensor<2>; 2]>::try_from(factors) {
                Ok([a, b]) if adapted => {
                    let spec = LowRankConv { dims: dims.clone(), scale: 0.5, blocks: 1 };
                    ops::lora_conv(x, weight.clone(), a, b, bias.clone(), &spec)
                }
                _ => ops::convolve(x, weight.clone(), bias.clone(), &dims),
            }
        });
        agree_in_f64("lora_conv", &x, &factors, &dy, &adapted);
        agree_in_f64("convolve", &x, &[], &dy, &plain);
    }
}

/// Values and gradients in `f32` against those in `f64`.
fn agree_in_f64(
    name: &str,
    x: &Tensor<3>,
    factors: &[Tensor<2>],
    dy: &Tensor<3>,
    f: &impl Fn(Tensor<3>, Vec<Tensor<2>>) -> Tensor<3>,
) {
    let results = [DType::F32, DType::F64].map(|dtype| run(dtype, x, factors, Some(dy), f));
    for (got, exact) in results[0].iter().zip(&results[1]) {
        assert_close(name, got, exact);
    }
}

/// A weight that trains gets its gradient in its own type.
#[test]
fn the_gradient_of_a_trained_weight_of_half_precision_has_its_type() {
    let mut inputs = Inputs::new(4);
    let (x, weight) = (inputs.draw([2, 3, 5]), inputs.draw([5, 7]).cast(DType::BF16).detach().require_grad());
    let gradients = ops::linear(x.clone(), weight.clone(), None).sum().backward();
    assert_eq!(weight.grad(&gradients).unwrap().dtype(), DType::BF16);
    let weight = inputs.draw([4, 3, 2]).cast(DType::BF16).detach().require_grad();
    let dims = ConvDims::One(ConvOptions::new([1], [0], [1], 1), PaddingMode::Zeros);
    let gradients = ops::convolve(x, weight.clone(), None, &dims).sum().backward();
    assert_eq!(weight.grad(&gradients).unwrap().dtype(), DType::BF16);
}

/// Parameters that are frozen get no gradient, and those of a frozen input are there alone.
#[test]
fn a_gradient_goes_where_it_is_asked_for() {
    let mut inputs = Inputs::new(0);
    let (x, gamma, beta) = (inputs.draw([2, 4, 30]), inputs.draw([4]), inputs.draw([4]));
    let moments = [inputs.draw([4]), inputs.draw([4]).abs()];
    let grouped = |x: Tensor<3>, gamma, beta| ops::group_norm(x, Some(gamma), Some(beta), 2, 1e-5);
    let batch = |x: Tensor<3>, gamma, beta| ops::batch_norm_eval(x, [gamma, beta], moments.clone(), 1e-5);
    let norms: [&dyn Fn(Tensor<3>, Tensor<1>, Tensor<1>) -> Tensor<3>; 2] = [&grouped, &batch];
    for norm in norms {
        let tracked = x.clone().require_grad();
        let gradients = norm(tracked.clone(), gamma.clone(), beta.clone()).powi_scalar(2).sum().backward();
        assert!(tracked.grad(&gradients).is_some());
        let trained = gamma.clone().require_grad();
        let gradients = norm(x.clone(), trained.clone(), beta.clone()).powi_scalar(2).sum().backward();
        assert!(trained.grad(&gradients).is_some());
    }
}

#[test]
fn a_frozen_linear_layer_hands_on_its_gradient() {
    let mut inputs = Inputs::new(3);
    let (weight, bias) = (inputs.draw([5, 7]), inputs.draw([7]));
    let x = inputs.draw([2, 3, 5]).require_grad();
    let gradient = |y: Tensor<3>| values(x.grad(&y.powi_scalar(2).sum().backward()).unwrap());
    let ours = ops::linear(x.clone(), weight.clone(), Some(bias.clone()));
    assert_close("dx", &gradient(ours), &gradient(module::linear(x.clone(), weight, Some(bias))));
}

#[test]
fn layers_made_from_burns_agree_with_them() {
    let mut inputs = Inputs::new(1);
    let device = inputs.device.clone();
    let x = inputs.draw([3, 6, 10]);
    let parameter = |inputs: &mut Inputs, size| Param::from_tensor(inputs.draw([size]));

    let config = nn::LayerNormConfig::new(10).with_epsilon(0.1);
    let mut layer = config.init(&device);
    (layer.gamma, layer.beta) = (parameter(&mut inputs, 10), Some(parameter(&mut inputs, 10)));
    let ours = nn::LayerNorm::from_burn(layer.clone(), config.epsilon).forward(x.clone());
    assert_close("layer norm", &values(ours), &values(layer.forward(x.clone())));

    for affine in [true, false] {
        let layer = nn::GroupNormConfig::new(3, 6).with_affine(affine).init(&device);
        let ours = nn::GroupNorm::from(layer.clone()).forward(x.clone());
        assert_close("group norm", &values(ours), &values(layer.forward(x.clone())));
    }

    let mut layer = nn::BatchNormConfig::new(6).init(&device);
    (layer.gamma, layer.beta) = (parameter(&mut inputs, 6), parameter(&mut inputs, 6));
    layer.running_mean = RunningState::new(inputs.draw([6]));
    layer.running_var = RunningState::new(inputs.draw([6]).abs());
    layer.training = Param::from_bool(false);
    let ours = nn::BatchNorm::from(layer.clone()).forward(x.clone());
    assert_close("batch norm", &values(ours), &values(layer.forward(x.clone())));

    for layer in [burn::nn::Gelu::new(), burn::nn::Gelu::new_approximate()] {
        let ours = nn::Gelu::from(layer.clone()).forward(x.clone());
        assert_close("gelu", &values(ours), &values(layer.forward(x.clone())));
    }
}

#[test]
fn an_lstm_made_from_burns_agrees_with_it() {
    let mut inputs = Inputs::new(2);
    let device = inputs.device.clone();
    let x = inputs.draw([3, 7, 5]);
    for (bias, batch_first, reverse) in [(true, true, false), (false, false, false), (true, true, true)] {
        let config = LstmConfig::new(5, 4, bias).with_batch_first(batch_first).with_reverse(reverse);
        let layer = config.init(&device);
        let batch = if batch_first { 3 } else { 7 };
        for state in [None, Some(LstmState::new(inputs.draw([batch, 4]), inputs.draw([batch, 4])))] {
            let (output, last) = layer.forward(x.clone(), state.clone());
            let (ours, our_last) = nn::Lstm::try_from(layer.clone()).unwrap().forward(x.clone(), state);
            assert_close("output", &values(ours), &values(output));
            assert_close("cell", &values(our_last.cell), &values(last.cell));
            assert_close("hidden", &values(our_last.hidden), &values(last.hidden));
        }
    }
}

#[test]
fn an_lstm_that_pytorch_does_not_have_is_refused() {
    let device = Device::flex();
    for config in
        [LstmConfig::new(2, 2, true).with_clip(Some(1.0)), LstmConfig::new(2, 2, true).with_input_forget(true)]
    {
        assert!(nn::Lstm::new(&config, &device).is_err(), "{config:?}");
    }
}
