use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use lowrank::config::{LoraConfig, Patterns};
use lowrank::files::Checkpoint;
use serde_json::{Value, json};

use super::*;
use crate::models::{Architecture, BaseModel, Dtype, Network};
use crate::tasks::Task;
use crate::train::Trainable;
use crate::{attach, values};

/// What `golden/make_fracast.py` made with the package.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/fracast")
}

fn io() -> Checkpoint {
    Checkpoint::open(&golden().join("io.safetensors")).unwrap()
}

fn read(io: &Checkpoint, name: &str) -> Vec<f32> {
    io.read(name).unwrap().values().unwrap()
}

fn base(device: &Device) -> (BaseModel, Fracast) {
    let base = BaseModel::load(&golden(), device, Dtype::Float32).unwrap();
    let Network::Fracast(network) = base.network.clone() else { panic!("{:?}", base.config) };
    (base, network)
}

/// Both of the same length, and nowhere further apart than `share` of the largest.
fn close(found: &[f32], expected: &[f32], share: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= share * largest, "{what}: {found}, not {expected}, of {largest}");
    }
}

#[test]
fn forecasts_are_those_of_the_package() {
    let device = Device::flex();
    let (base, network) = base(&device);
    let Task::Forecasting(forecaster) = &base.config.task else { panic!("{:?}", base.config.task) };
    assert_eq!((forecaster.context, forecaster.horizon, forecaster.median()), (64, 6, 1));
    let io = io();
    // A whole context, a short one, one with gaps, one without a season; then all of them as one batch.
    let contexts: Vec<Context> =
        (0..4).map(|number| network.context(&read(&io, &format!("x.{number}"))).unwrap()).collect();
    let batch = values::of(network.forward(network.input(&contexts, &device)));
    for (number, context) in contexts.iter().enumerate() {
        let alone = values::of(network.forward(network.input(&contexts[number..=number], &device)));
        let expected = read(&io, &format!("y.{number}"));
        for found in [&alone[..], &batch[18 * number..18 * (number + 1)]] {
            #[expect(clippy::cast_possible_truncation, reason = "the golden file is in single precision")]
            let found: Vec<f32> = found.iter().map(|value| context.denormalise(*value) as f32).collect();
            close(&found, &expected, 1e-5, &format!("series {number}"));
        }
    }
}

#[test]
fn gradients_of_an_adapter_on_every_layer_are_pytorchs() {
    let device = Device::flex().autodiff();
    let (_, network) = base(&device);
    let config = LoraConfig {
        r: 2,
        lora_alpha: 4.0,
        target_modules: Some(Patterns::Regex("all-layers".into())),
        group_mode: lowrank::adapter::GroupMode::Shared,
        ..LoraConfig::default()
    };
    let (network, adapters) = attach(network, &config, 0).unwrap();
    let io = io();
    let tensors = adapters.trainable_tensors("default").unwrap();
    assert!(tensors.iter().any(|tensor| tensor.name == "core.block.dw.lora_A.weight" && tensor.shape == [2, 1, 3]));
    let named = io.names().filter(|name| name.starts_with("grad.")).count();
    assert_eq!(tensors.len(), named, "every layer is adapted on both sides");
    let factors: HashMap<_, _> = tensors.iter().map(|tensor| (tensor.id, read(&io, &tensor.name))).collect();
    let network = values::write(network, factors);

    let histories = ["history.0", "history.1", "history.2"].map(|name| io.get(name).map(|_| read(&io, name)));
    let histories: Vec<Vec<f32>> = histories.into_iter().flatten().collect();
    assert!(histories.len() > 1);
    let contexts: Vec<Context> = histories.iter().map(|history| network.context(history).unwrap()).collect();
    let targets = contexts.iter().enumerate().flat_map(|(number, context)| {
        read(&io, &format!("target.{number}")).into_iter().map(|value| context.normalise(value))
    });
    let targets = TensorData::new(targets.collect::<Vec<_>>(), [contexts.len(), 6, 1]);
    let below = Tensor::<3>::from_data(targets, &device) - network.forward(network.input(&contexts, &device));
    let levels = Tensor::<3>::from_data(TensorData::new(vec![0.1_f32, 0.5, 0.9], [1, 1, 3]), &device);
    let loss = (below.clone() * levels + crate::ops::relu(below.neg())).mean();
    close(&[loss.clone().into_scalar::<f32>()], &read(&io, "loss"), 1e-5, "loss");

    let trainable = Trainable::of_adapter(&adapters, "default").unwrap();
    let mut flat = vec![0.0; trainable.len()];
    trainable.add_gradients(&network, &loss.backward(), 1.0, &mut flat);
    let mut rest = flat.as_slice();
    for slot in trainable.slots() {
        let (own, tail) = rest.split_at(slot.len);
        close(own, &read(&io, &format!("grad.{}", slot.name)), 1e-3, &slot.name);
        rest = tail;
    }
}

#[test]
fn a_base_is_written_under_the_names_of_the_package() {
    let (base, _) = base(&Device::flex());
    let folder = tempfile::tempdir().unwrap();
    base.save(folder.path()).unwrap();
    let [ours, theirs] = [folder.path(), &golden()].map(|dir| Checkpoint::open(dir).unwrap());
    let names = |checkpoint: &Checkpoint| checkpoint.names().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for name in ours.names() {
        assert_eq!(read(&ours, name), read(&theirs, name), "{name}");
    }
    let again = BaseModel::load(folder.path(), &Device::flex(), Dtype::Float32).unwrap();
    assert_eq!(again.config, base.config);
}

fn config(changes: &Value) -> Result<FracastConfig> {
    let text = std::fs::read_to_string(golden().join("config.json")).unwrap();
    let mut keys: Value = serde_json::from_str(&text).unwrap();
    keys.as_object_mut().unwrap().shift_remove("model_type");
    for (table, values) in changes.as_object().unwrap() {
        for (key, value) in values.as_object().unwrap() {
            keys[table][key] = value.clone();
        }
    }
    match Architecture::from_map("fracast", keys.as_object().unwrap().clone())? {
        Architecture::Fracast(config) => Ok(config),
        other => panic!("{other:?}"),
    }
}

#[test]
fn wrong_keys_are_refused_by_name() {
    assert!(config(&json!({"model": {"n_heads": 8, "family": "fracast"}, "pyramid": {"mode": "none"}})).is_ok());
    let message = |changes: Value| config(&changes).unwrap_err().to_string();
    assert_eq!(message(json!({"model": {"d_modle": 8}})), "model: d_modle: unknown key");
    let near = config(&json!({"model": {"casual": true}})).unwrap_err();
    assert_eq!(near.hint(), Some("did you mean `causal`?"));
    assert_eq!(
        message(json!({"model": {"causal": false}})),
        "model: causal: not a network that can be built here: found false, expected true"
    );
    assert_eq!(message(json!({"model": {"n_stages": 0}})), "n_stages: out of range: found 0, expected 1 to 65536");
    assert!(message(json!({"model": {"n_stages": 60}})).starts_with("dilation_base: out of range"));
    assert!(message(json!({"model": {"quantiles": [0.5, 0.1]}})).starts_with("model: quantiles: out of range"));
    assert!(message(json!({"pyramid": {"ratios": [2]}})).starts_with("pyramid: ratios: not a network"));
    assert!(message(json!({"model": {"W": "x"}})).contains("invalid type"));
}

#[test]
fn too_little_is_not_forecast() {
    let (_, network) = base(&Device::flex());
    let error = network.context(&[1.0, f32::NAN, 2.0]).unwrap_err();
    assert_eq!(error.to_string(), "too little context for a forecast: found 2 values, expected 8 or more");
    // A constant series has no range, and no season.
    let context = network.context(&[3.0; 70]).unwrap();
    assert_eq!((context.normalise(3.0), context.denormalise(0.0)), (0.0, 3.0));
}
