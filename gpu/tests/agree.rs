//! The fused operations and a training step on a GPU against the same on the CPU, in `f32`: values and gradients.

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, DeviceKind, Gradients, Int, Tensor, TensorData};
use lowrank::config::{InitLoraWeights, LoraConfig, Patterns};
use lowrank::geometry::PaddingMode;
use lowrank::random::Random;
use lowrank_burn::models::{Architecture, Network};
use lowrank_burn::ops::{self, ConvDims, LowRankConv};
use lowrank_burn::train::Trainable;
use lowrank_burn::{attach, values};
use serde_json::json;

fn devices() -> [Device; 2] {
    [Device::wgpu(DeviceKind::DefaultDevice), Device::flex()]
}

/// The values of a leaf's gradient.
type Gradient = Box<dyn Fn(&Gradients) -> Vec<f32>>;

/// Draws the inputs of an operation, the same on every device.
struct Inputs {
    device: Device,
    random: Random,
    gradients: Vec<Gradient>,
}

impl Inputs {
    fn new(device: &Device) -> Self {
        Self { device: device.clone(), random: Random::new(0, "gpu", 0), gradients: Vec::new() }
    }

    /// A tensor that takes no gradient.
    fn constant<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.random.normal()).collect();
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    /// A tensor whose gradient is compared.
    fn leaf<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        let tensor = self.constant(shape);
        if !self.device.is_autodiff() {
            return tensor;
        }
        let tensor = tensor.require_grad();
        let leaf = tensor.clone();
        self.gradients.push(Box::new(move |gradients| values::of(leaf.grad(gradients).expect("a gradient"))));
        tensor
    }
}

/// What an operation gives with autodiff and without, and the gradient of each leaf for a random gradient of the output.
fn run<const D: usize>(device: &Device, operation: impl Fn(&mut Inputs) -> Tensor<D>) -> Vec<Vec<f32>> {
    let alone = operation(&mut Inputs::new(device));
    let mut inputs = Inputs::new(&device.clone().autodiff());
    let y = operation(&mut inputs);
    let dy = inputs.constant(y.dims());
    let gradients = (y.clone() * dy).sum().backward();
    let leaves = inputs.gradients.iter().map(|gradient| gradient(&gradients));
    [values::of(alone), values::of(y)].into_iter().chain(leaves).collect()
}

#[track_caller]
fn assert_close(name: &str, gpu: &[f32], cpu: &[f32]) {
    assert_eq!(gpu.len(), cpu.len(), "{name}");
    let scale = cpu.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
    for (index, (gpu, cpu)) in gpu.iter().zip(cpu).enumerate() {
        assert!((gpu - cpu).abs() <= 2e-5 * scale, "{name}[{index}]: {gpu} on the GPU, {cpu} on the CPU");
    }
}

#[track_caller]
fn compare<const D: usize>(name: &str, operation: impl Fn(&mut Inputs) -> Tensor<D>) {
    let [gpu, cpu] = devices().map(|device| run(&device, &operation));
    assert_eq!(gpu.len(), cpu.len(), "{name}");
    for (index, (gpu, cpu)) in gpu.iter().zip(&cpu).enumerate() {
        assert_close(&format!("{name}, result {index}"), gpu, cpu);
    }
}

/// A convolution with an adapter and one without.
fn compare_convolutions<const D: usize>(shape: [usize; D], kernel: [usize; D], dims: &ConvDims, blocks: usize) {
    let name = format!("{dims:?}, {blocks} blocks");
    let n = kernel[1..].iter().product();
    let spec = LowRankConv { dims: dims.clone(), scale: 0.5, blocks };
    compare(&name, |inputs| {
        let (x, weight) = (inputs.leaf(shape), inputs.constant(kernel));
        let (a, b) = (inputs.leaf([2 * blocks, n]), inputs.leaf([kernel[0], 2]));
        ops::lora_conv(x, weight, a, b, Some(inputs.constant([kernel[0]])), &spec)
    });
    compare(&format!("{name}, no adapter"), |inputs| {
        ops::convolve(inputs.leaf(shape), inputs.leaf(kernel), Some(inputs.leaf([kernel[0]])), dims)
    });
}

/// Stride, dilation, groups and blocks; the third stride leaves positions that no output reads.
const GEOMETRIES: [(usize, usize, usize, usize); 5] =
    [(1, 1, 1, 1), (2, 3, 1, 1), (3, 1, 2, 2), (2, 2, 2, 1), (1, 2, 6, 6)];

#[test]
fn conv1d() {
    for mode in [PaddingMode::Zeros, PaddingMode::Reflect, PaddingMode::Replicate, PaddingMode::Circular] {
        for (stride, dilation, groups, blocks) in GEOMETRIES {
            let options = ConvOptions::new_with_padding([stride], [(2, 3)], [dilation], groups);
            compare_convolutions([2, 6, 20], [12, 6 / groups, 3], &ConvDims::One(options, mode), blocks);
        }
    }
}

#[test]
fn conv2d() {
    for (stride, dilation, groups, blocks) in GEOMETRIES {
        let options = ConvOptions::new([stride, 1], [2, 1], [1, dilation], groups);
        compare_convolutions([2, 6, 9, 8], [12, 6 / groups, 3, 2], &ConvDims::Two(options), blocks);
    }
}

#[test]
fn linear() {
    compare("linear with an adapter", |inputs| {
        let (x, weight) = (inputs.leaf([2, 5, 12]), inputs.constant([12, 7]));
        let (a, b) = (inputs.leaf([3, 12]), inputs.leaf([7, 3]));
        ops::lora_linear(x, weight, a, b, Some(inputs.leaf([7])), 0.5)
    });
    compare("linear", |inputs| ops::linear(inputs.leaf([2, 5, 12]), inputs.leaf([12, 7]), Some(inputs.leaf([7]))));
}

#[test]
fn norms() {
    compare("layer norm", |inputs| {
        ops::layer_norm(inputs.leaf([3, 4, 30]), inputs.leaf([30]), Some(inputs.leaf([30])), 1e-2)
    });
    compare("group norm", |inputs| {
        ops::group_norm(inputs.leaf([3, 6, 30]), Some(inputs.leaf([6])), Some(inputs.leaf([6])), 2, 1e-2)
    });
    compare("batch norm", |inputs| {
        let (x, parameters) = (inputs.leaf([3, 6, 30]), [inputs.leaf([6]), inputs.leaf([6])]);
        ops::batch_norm_eval(x, parameters, [inputs.constant([6]), inputs.constant([6]).abs() + 0.5], 1e-2)
    });
}

#[test]
fn softmax() {
    for dim in 0..3 {
        compare(&format!("softmax along {dim}"), |inputs| ops::softmax(inputs.leaf([3, 4, 30]), dim));
    }
}

#[test]
fn attention() {
    for causal in [false, true] {
        compare(&format!("attention, causal: {causal}"), |inputs| {
            ops::attention(inputs.leaf([2, 9, 12]), inputs.leaf([2, 11, 12]), inputs.leaf([2, 11, 12]), 3, causal)
        });
    }
}

#[test]
fn activations() {
    let x = |inputs: &mut Inputs| inputs.leaf([4, 50]) * 3.0;
    compare("relu", |inputs| ops::relu(x(inputs)));
    compare("leaky relu", |inputs| ops::leaky_relu(x(inputs), 0.1));
    compare("leaky relu of a negative slope", |inputs| ops::leaky_relu(x(inputs), -0.1));
    compare("gelu", |inputs| ops::gelu(x(inputs)));
    compare("approximate gelu", |inputs| ops::gelu_approximate(x(inputs)));
    compare("silu", |inputs| ops::silu(x(inputs)));
}

#[test]
fn lstm() {
    compare("lstm", |inputs| {
        let states = [inputs.leaf([2, 5]), inputs.leaf([2, 5])];
        let (output, cell) = ops::lstm(inputs.leaf([4, 2, 20]), inputs.leaf([20, 5]), states);
        Tensor::cat(vec![output, cell.unsqueeze()], 0)
    });
    compare("lstm cell", |inputs| {
        let states = [inputs.leaf([2, 5]), inputs.leaf([2, 5])];
        Tensor::cat(ops::lstm_cell(inputs.leaf([2, 20]), inputs.leaf([20, 5]), states).to_vec(), 1)
    });
}

/// The loss, the gradients of the factors, the factors after a step, and the logits of the merged network.
fn training_step(base: &Network, device: &Device) -> [Vec<f32>; 4] {
    let device = device.clone().autodiff();
    let targets = Some(Patterns::Regex("all-layers".into()));
    // Both factors start away from zero, so that both have a gradient.
    let init_lora_weights = InitLoraWeights::False;
    let config = LoraConfig { r: 4, target_modules: targets, init_lora_weights, ..LoraConfig::default() };
    let (network, adapters) = attach(base.clone().fork(&device), &config, 0).unwrap();
    let trainable = Trainable::of_adapter(&adapters, "default").unwrap();

    let input = Inputs::new(&device).constant([4, 3, 40]);
    let labels = Tensor::<1, Int>::from_data([0, 1, 2, 1], &device);
    let loss = CrossEntropyLossConfig::new().init(&device).forward(network.forward(input.clone()).unwrap(), labels);
    let gradients = loss.backward();
    let mut flat = vec![0.0; trainable.len()];
    trainable.add_gradients(&network, &gradients, 1.0, &mut flat);

    let gradients = GradientsParams::from_grads(gradients, &network);
    let network = SgdConfig::new().init().step(0.1, network, gradients);
    let factors = trainable.read(&network);
    let merged = adapters.merge_and_unload(network).unwrap();
    [values::of(loss), flat, factors, values::of(merged.forward(input))]
}

#[test]
fn a_training_step() {
    let keys = json!({"in_channels": 3, "channels": 8, "dilations": [1, 2, 4], "causal": true});
    let architecture = Architecture::from_map("tcn", keys.as_object().unwrap().clone()).unwrap();
    let base = architecture.init(3, &Device::flex().autodiff());
    let [gpu, cpu] = devices().map(|device| training_step(&base, &device));
    for ((name, gpu), cpu) in ["loss", "gradients", "factors", "merged logits"].into_iter().zip(gpu).zip(cpu) {
        assert_close(name, &gpu, &cpu);
    }
}
