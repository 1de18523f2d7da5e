use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Int, TensorData};
use lowrank::files::Checkpoint;
use lowrank::random::Random;
use serde_json::{Map, Value, json};

use super::*;
use crate::attach::DEFAULT;
use crate::models::{BaseModel, Dtype, Network};
use crate::train::Trainable;
use crate::{Adapters, values};

/// The batches of recordings in the golden file.
const INPUTS: [&str; 3] = ["one_frame", "several", "long"];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/silero_vad")
}

/// The golden network.
fn base(device: &Device) -> SileroVad {
    let Network::SileroVad(vad) = BaseModel::load(&golden(), device, Dtype::Float32).unwrap().network else {
        panic!("another network")
    };
    vad
}

/// The golden network with its adapter.
fn adapted(device: &Device) -> (SileroVad, Adapters) {
    crate::load(base(device), &golden().join("adapter")).unwrap()
}

fn io() -> Checkpoint {
    Checkpoint::open(&golden().join("io.safetensors")).unwrap()
}

fn tensor(io: &Checkpoint, name: &str, device: &Device) -> Tensor<2> {
    let stored = io.read(name).unwrap();
    Tensor::from_data(TensorData::new(stored.values().unwrap(), stored.shape().to_vec()), device)
}

fn whole(vad: &SileroVad, input: Tensor<2>) -> Tensor<2> {
    let start = vad.start(input.dims()[0], &input.device());
    vad.forward(input, start).0
}

/// In chunks of `chunk` frames, the last of what is left.
fn streamed(vad: &SileroVad, input: &Tensor<2>, chunk: usize) -> Tensor<2> {
    let [batch, samples] = input.dims();
    let mut state = vad.start(batch, &input.device());
    let mut logits = Vec::new();
    for first in (0..samples).step_by(chunk * vad.frame) {
        let piece = input.clone().narrow(1, first, (chunk * vad.frame).min(samples - first));
        let (output, next) = vad.forward(piece, state);
        logits.push(output);
        state = next;
    }
    Tensor::cat(logits, 1)
}

fn worst(a: Tensor<2>, b: Tensor<2>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    values::of(a - b).into_iter().fold(0.0, |worst, gap| worst.max(gap.abs()))
}

#[test]
fn logits_are_those_of_pytorch_with_the_adapter_and_without() {
    let (device, io) = (Device::flex(), io());
    let (plain, (with, mut adapters)) = (base(&device), adapted(&device));
    let check = |vad: &SileroVad, kind: &str, what: &str| {
        for name in INPUTS {
            let x = tensor(&io, &format!("{name}.x"), &device);
            let gap = worst(whole(vad, x), tensor(&io, &format!("{name}.{kind}"), &device));
            assert!(gap < 1e-4, "{name}, {what}: off by {gap}");
        }
    };
    check(&plain, "base", "without an adapter");
    check(&with, "adapted", "with one");
    check(&adapters.merge(with).unwrap(), "adapted", "merged");
}

#[test]
fn gradients_of_the_factors_are_those_of_pytorch() {
    let (device, io) = (Device::flex().autodiff(), io());
    let (vad, adapters) = adapted(&device);
    let trainable = Trainable::of_adapter(&adapters, DEFAULT).unwrap();
    for name in INPUTS {
        let x = tensor(&io, &format!("{name}.x"), &device);
        let labels = io.read(&format!("{name}.labels")).unwrap().values().unwrap();
        let count = labels.len();
        let labels = Tensor::<1>::from_data(TensorData::new(labels, [count]), &device).int();
        let loss = burn::nn::loss::BinaryCrossEntropyLossConfig::new().with_logits(true).init(&device);
        let loss = loss.forward(whole(&vad, x).reshape([count]), labels as Tensor<1, Int>);
        let expected = io.read(&format!("{name}.loss")).unwrap().values().unwrap()[0];
        assert!((loss.clone().into_scalar::<f32>() - expected).abs() < 1e-5, "{name}");
        let mut found = vec![0.0; trainable.len()];
        trainable.add_gradients(&vad, &loss.backward(), 1.0, &mut found);
        let mut rest = found.as_slice();
        for slot in trainable.slots() {
            let own = rest.split_off(..slot.len).unwrap();
            let expected = io.read(&format!("{name}.gradient.{}", slot.name)).unwrap().values().unwrap();
            assert_eq!(own.len(), expected.len(), "{}", slot.name);
            let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            for (own, expected) in own.iter().zip(&expected) {
                assert!((own - expected).abs() <= 1e-3 * largest, "{name}, {}: {own}, not {expected}", slot.name);
            }
        }
        assert!(found.iter().any(|value| value.abs() > 1e-4), "{name}: no gradient at all");
    }
}

#[test]
fn chunk_by_chunk_is_as_all_at_once_with_a_live_adapter() {
    let device = Device::flex();
    let (vad, adapters) = adapted(&device);
    let x = tensor(&io(), "long.x", &device);
    let all = whole(&vad, x.clone());
    for chunk in [1, 3, 7, 40] {
        assert!(worst(streamed(&vad, &x, chunk), all.clone()) < 1e-5, "{chunk} frames at a time");
    }
    adapters.set_active(&[]).unwrap();
    let plain = streamed(&vad, &x, 3);
    assert!(worst(plain.clone(), whole(&base(&device), x)) < 1e-5);
    assert!(worst(plain, all) > 1e-2, "the adapter does nothing");
}

#[test]
fn a_listener_hears_what_the_network_does_and_when_its_adapter_is_switched() {
    let device = Device::flex();
    let (vad, adapters) = adapted(&device);
    let x = tensor(&io(), "long.x", &device);
    let half = x.dims()[1] / 2;
    let halves = [0, half].map(|start| x.clone().narrow(1, start, half));
    let (first, state) = vad.forward(halves[0].clone(), vad.start(2, &device));
    adapters.set_active(&[]).unwrap();
    let (second, _) = vad.forward(halves[1].clone(), state);
    adapters.set_active(&[DEFAULT]).unwrap();

    let mut listener = Listener::new(vad.clone(), 2, &device);
    let mut heard = Vec::new();
    for start in (0..2 * half).step_by(vad.frame) {
        if start == half {
            adapters.set_active(&[]).unwrap();
        }
        heard.push(listener.hear(x.clone().narrow(1, start, vad.frame)));
    }
    assert!(worst(Tensor::cat(heard, 1), Tensor::cat(vec![first, second], 1)) < 1e-5);
}

/// The package's sizes, which the small golden network has not.
#[test]
fn the_packages_sizes_are_the_default() {
    let device = Device::flex();
    let vad = SileroVad::new(&SileroVadConfig::from_map(Map::new()).unwrap(), &device);
    assert_eq!(vad.num_params(), 309_633);
    let mut random = Random::new(0, "vad", 0);
    let samples: Vec<f32> = (0..2 * 9 * 512).map(|_| 0.1 * random.normal()).collect();
    let x = Tensor::from_data(TensorData::new(samples, [2, 9 * 512]), &device);
    assert_eq!(whole(&vad, x.clone()).dims(), [2, 9]);
    assert!(worst(streamed(&vad, &x, 4), whole(&vad, x)) < 1e-5);
}

#[test]
fn silence_has_a_finite_gradient() {
    let device = Device::flex().autodiff();
    let vad = base(&device);
    let loss = whole(&vad, Tensor::zeros([1, 3 * vad.frame], &device)).sum();
    let gradients = loss.backward();
    for (name, gradient) in
        [("stft_conv", vad.stft_conv.weight.val().grad(&gradients)), ("conv1", vad.conv1.weight.val().grad(&gradients))]
    {
        let gradient = values::of(gradient.unwrap());
        assert!(gradient.iter().all(|value| value.is_finite()), "{name}");
    }
}

#[test]
fn wrong_keys_are_refused_by_name() {
    let message = |keys: Value| {
        let Value::Object(keys) = keys else { panic!("no object") };
        SileroVadConfig::from_map(keys).unwrap_err().to_string()
    };
    assert!(message(json!({"frames": 512})).contains("unknown field `frames`"));
    assert_eq!(message(json!({"hop_length": 0})), "hop_length: out of range: found 0, expected 1 or more");
    assert_eq!(message(json!({"context": 513})), "context: more than a frame: found 513, expected at most 512");
    assert!(message(json!({"hop_length": 64})).starts_with("hop_length: a frame has to make 1 to 4 columns"));
    assert!(message(json!({"frame": 64, "context": 64})).contains("found 0"));
}
