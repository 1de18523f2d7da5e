use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{DType, TensorData};
use lowrank::adapter::tensor::Tensor as Stored;
use lowrank::files::{Checkpoint, Disk, writer};
use lowrank::float::FloatType;
use lowrank::random::Random;
use serde_json::json;

use super::*;
use crate::models::{Dtype, load_weights, save_weights};
use crate::values;

fn config(changes: &Value) -> Result<TcnConfig> {
    let mut keys =
        json!({"in_channels": 2, "channels": 4, "stem_kernel_size": 3, "kernel_size": 3, "dilations": [1, 2]});
    for (key, value) in changes.as_object().unwrap() {
        keys[key] = value.clone();
    }
    TcnConfig::from_map(keys.as_object().unwrap().clone())
}

fn network(changes: &Value) -> Tcn {
    Tcn::new(&config(changes).unwrap(), 3, &Device::flex())
}

fn signal(values: Vec<f32>) -> Tensor<3> {
    let length = values.len() / 2;
    Tensor::from_data(TensorData::new(values, [1, 2, length]), &Device::flex())
}

fn noise(n: usize) -> Vec<f32> {
    let mut random = Random::new(0, "tcn", 0);
    (0..n).map(|_| random.normal()).collect()
}

#[test]
fn a_causal_network_does_not_see_the_future() {
    let (causal, centred) = (network(&json!({"causal": true})), network(&json!({})));
    // Without the activation between them, which may hide a change whatever the weights drawn.
    let hidden = |net: &Tcn, x: Tensor<3>| {
        let x = net.stem.forward(x);
        let first = net.blocks[0].conv1.forward(x.clone());
        values::of((x + first).narrow(2, 0, 10))
    };
    let mut changed = noise(40);
    changed[15] += 1.0;
    changed[35] += 1.0;
    assert_eq!(hidden(&causal, signal(noise(40))), hidden(&causal, signal(changed.clone())));
    let mut near = noise(40);
    near[11] += 1.0;
    assert_ne!(hidden(&centred, signal(noise(40))), hidden(&centred, signal(near)));
}

#[test]
fn wrong_keys_are_refused_by_name() {
    let message = |changes: Value| config(&changes).unwrap_err().to_string();
    assert!(message(json!({"dilation": [1]})).contains("unknown field `dilation`"));
    assert_eq!(message(json!({"channels": 0})), "channels: out of range: found 0, expected 1 or more");
    assert!(message(json!({"dropout": 1.0})).starts_with("dropout: out of range"));
}

#[test]
fn weight_norm_changes_nothing_until_it_is_trained() {
    let plain = network(&json!({}));
    let normed = Tcn::new(&config(&json!({"weight_norm": true})).unwrap(), 3, &Device::flex());
    // The same weights in both.
    let folder = tempfile::tempdir().unwrap();
    let tensors = save_weights(&plain).unwrap();
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let path = folder.path().join("model.safetensors");
    writer::complete(&Disk, &path, named).unwrap().publish().unwrap();
    let normed = load_weights(normed.materialize(), &Checkpoint::open(&path).unwrap(), Dtype::Float32).unwrap();
    let attached = normed.clone().apply_reparameterization(WeightNorm::attach());
    let (a, b) = (plain.forward(signal(noise(40))), attached.forward(signal(noise(40))));
    assert!((a - b).abs().max().into_scalar::<f32>() < 1e-5);
}

/// Both of PyTorch's ways to store a weight as direction and length.
#[test]
fn a_stored_weight_norm_is_folded() {
    let plain = network(&json!({}));
    let folder = tempfile::tempdir().unwrap();
    for (number, (g_name, v_name)) in
        [("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")]
            .into_iter()
            .enumerate()
    {
        let mut tensors: BTreeMap<String, Stored> = BTreeMap::new();
        for (name, tensor) in save_weights(&plain).unwrap() {
            let Some(module) = name.strip_suffix("weight").filter(|_| tensor.shape().len() == 3) else {
                tensors.insert(name, tensor);
                continue;
            };
            let values = tensor.values().unwrap();
            let row = values.len() / tensor.shape()[0];
            let g: Vec<f32> = values.chunks(row).map(|row| row.iter().map(|v| v * v).sum::<f32>().sqrt()).collect();
            let v: Vec<f32> = values.iter().map(|v| 3.0 * v).collect();
            let g = Stored::from_values(FloatType::F32, vec![g.len(), 1, 1], &g).unwrap();
            tensors.insert(format!("{module}{g_name}"), g);
            tensors.insert(
                format!("{module}{v_name}"),
                Stored::from_values(FloatType::F32, tensor.shape().to_vec(), &v).unwrap(),
            );
        }
        let path = folder.path().join(format!("{number}.safetensors"));
        let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        writer::complete(&Disk, &path, named).unwrap().publish().unwrap();
        let loaded = load_weights(network(&json!({})), &Checkpoint::open(&path).unwrap(), Dtype::Float32).unwrap();
        let (a, b) = (plain.forward(signal(noise(40))), loaded.forward(signal(noise(40))));
        assert!((a - b).abs().max().into_scalar::<f32>() < 1e-5, "{g_name}");
    }
}

#[test]
fn missing_strange_and_broken_tensors_are_all_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = save_weights(&network(&json!({}))).unwrap();
    tensors.remove("head.bias");
    let float = |shape: &[usize], value: f32| {
        Stored::from_values(FloatType::F32, shape.to_vec(), &vec![value; shape.iter().product()]).unwrap()
    };
    tensors.insert("haed.bias".into(), float(&[3], 0.0));
    tensors.insert("stem.bias".into(), float(&[5], 0.0));
    tensors.insert("blocks.0.conv1.bias".into(), float(&[4], f32::NAN));
    let path = folder.path().join("model.safetensors");
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    writer::complete(&Disk, &path, named).unwrap().publish().unwrap();
    let error = load_weights(network(&json!({})), &Checkpoint::open(&path).unwrap(), Dtype::Float32).unwrap_err();
    let parts: Vec<String> = error.parts().iter().map(ToString::to_string).collect();
    assert_eq!(
        parts,
        [
            "stem.bias: wrong shape: found [5], expected [4]",
            "blocks.0.conv1.bias: not finite: found NaN",
            "head.bias: missing from the checkpoint: expected shape [3]",
            "haed.bias: no such parameter in the network",
        ]
    );
    assert_eq!(error.parts()[2].hint(), Some("the nearest tensor there is `haed.bias`"));
}

#[test]
fn weights_are_held_in_the_type_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let tensors = save_weights(&network(&json!({}))).unwrap();
    let write = |float, factor| {
        let stored = tensors.iter().map(|(name, tensor)| {
            let values: Vec<f32> = tensor.values().unwrap().iter().map(|value| factor * value).collect();
            (name.as_str(), Stored::from_values(float, tensor.shape().to_vec(), &values).unwrap())
        });
        let stored: Vec<_> = stored.collect();
        let named = stored.iter().map(|(name, tensor)| (*name, tensor));
        writer::complete(&Disk, &path, named).unwrap().publish().unwrap();
    };
    let load = |dtype| load_weights(network(&json!({})), &Checkpoint::open(&path).unwrap(), dtype);
    for (stored, dtype, held) in [
        (FloatType::Bf16, Dtype::Float32, DType::F32),
        (FloatType::Bf16, Dtype::Auto, DType::BF16),
        (FloatType::F16, Dtype::Auto, DType::F16),
        (FloatType::F64, Dtype::Auto, DType::F32),
        (FloatType::F32, Dtype::Bfloat16, DType::BF16),
        (FloatType::F32, Dtype::Float16, DType::F16),
    ] {
        write(stored, 1.0);
        let loaded = load(dtype).unwrap();
        let types = [loaded.stem.weight.val().dtype(), loaded.head.weight.val().dtype()];
        assert_eq!(types, [held; 2], "{stored:?} as {dtype:?}");
        assert_eq!(loaded.stem.bias.as_ref().unwrap().val().dtype(), DType::F32);
        // As the same values in single precision.
        let single = values::single(loaded.clone());
        let [y, expected] = [loaded, single].map(|net| values::of(net.forward(signal(noise(40)))));
        assert_eq!(y, expected, "{stored:?} as {dtype:?}");
    }
    write(FloatType::F32, 1e6);
    let error = load(Dtype::Float16).unwrap_err();
    let first = &error.parts()[0];
    assert!(first.to_string().starts_with("stem.weight: too large for float16: found "), "{first}");
    assert_eq!(first.hint(), Some("load it with dtype \"float32\""));
    assert!(load(Dtype::Bfloat16).is_ok());
}
