//! Tiny checkpoints of transformers: the same outputs, the same gradients of adapters, the same texts.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use lowrank::adapter::GroupMode;
use lowrank::config::{InitLoraWeights, LoraConfig, Patterns};
use lowrank::files::Checkpoint;
use lowrank_burn::attach::DEFAULT;
use lowrank_burn::models::hubert::Hubert;
use lowrank_burn::models::wav2vec2::Wav2Vec2;
use lowrank_burn::models::{Architecture, Dtype, Network, load_weights, save_weights};
use lowrank_burn::train::Trainable;
use lowrank_burn::{attach, values};
use serde_json::{Map, Value, json};

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(case)
}

fn json(path: &Path) -> Map<String, Value> {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

struct Case {
    record: Map<String, Value>,
    io: Checkpoint,
    architecture: Architecture,
    network: Network,
}

impl Case {
    fn open(name: &str, device: &Device) -> Self {
        let dir = golden(name);
        let mut keys = json(&dir.join("config.json"));
        let model_type = keys.shift_remove("model_type").unwrap();
        without_dropout(&mut keys);
        let characters = usize::try_from(keys.get("vocab_size").and_then(Value::as_u64).unwrap_or(0)).unwrap();
        let classes = keys.shift_remove("id2label").map_or(characters, |labels| labels.as_object().unwrap().len());
        let outputs = if name.contains("_ctc_") { characters } else { classes };
        let architecture = Architecture::from_map(model_type.as_str().unwrap(), keys).unwrap();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let network = load_weights(architecture.init(outputs, device), &checkpoint, Dtype::Float32).unwrap();
        let io = Checkpoint::open(&dir.join("io.safetensors")).unwrap();
        Self { record: json(&dir.join("case.json")), io, architecture, network }
    }

    fn tensor(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let stored = self.io.read(name).unwrap();
        let shape = stored.shape().to_vec();
        let values = stored.values().unwrap_or_else(|| {
            let tokens = stored.data().as_chunks().0.iter();
            #[expect(clippy::cast_precision_loss, reason = "small integers")]
            tokens.map(|bytes| i64::from_le_bytes(*bytes) as f32).collect()
        });
        (values, shape)
    }

    fn output(&self, network: &Network, input: &str, device: &Device) -> Tensor<1> {
        let (x, shape) = self.tensor(input);
        let signal = || Tensor::<3>::from_data(TensorData::new(x.clone(), [shape[0], 1, shape[1]]), device);
        match network {
            Network::Wav2Vec2(Wav2Vec2::Ctc(network)) => network.forward(signal()).flatten(0, 2),
            Network::Wav2Vec2(Wav2Vec2::SequenceClassification(network)) => network.forward(signal()).flatten(0, 1),
            Network::Hubert(Hubert::Ctc(network)) => network.forward(signal()).flatten(0, 2),
            Network::Hubert(Hubert::SequenceClassification(network)) => network.forward(signal()).flatten(0, 1),
            Network::HifiGan(network) => {
                network.forward(Tensor::from_data(TensorData::new(x, shape), device)).flatten(0, 1)
            }
            Network::Gpt2(network) => {
                let tokens = Tensor::<2, Int>::from_data(TensorData::new(x, shape).convert::<i64>(), device);
                network.forward(tokens).flatten(0, 2)
            }
            other => panic!("{other:?}"),
        }
    }

    fn lora(&self) -> LoraConfig {
        let texts = |key: &str| -> Vec<String> {
            self.record[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        let ranks = self.record["rank_pattern"].as_object().unwrap().iter();
        LoraConfig {
            r: number(&self.record["r"]),
            lora_alpha: self.record["lora_alpha"].as_f64().unwrap(),
            target_modules: Some(Patterns::List(texts("target_modules"))),
            rank_pattern: ranks.map(|(name, rank)| (name.clone(), number(rank))).collect(),
            group_mode: if self.record["group_mode"] == "shared" { GroupMode::Shared } else { GroupMode::PerGroup },
            init_lora_weights: InitLoraWeights::False,
            ..LoraConfig::default()
        }
    }
}

/// The golden outputs are those of evaluation.
fn without_dropout(keys: &mut Map<String, Value>) {
    for (_, value) in keys.iter_mut().filter(|(key, _)| key.ends_with("dropout") || key.ends_with("pdrop")) {
        *value = json!(0.0);
    }
}

fn assert_close(found: &[f32], expected: &[f32], allowed: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let gap = found.iter().zip(expected).fold(0.0_f32, |gap, (found, expected)| gap.max((found - expected).abs()));
    assert!(gap <= allowed, "{what}: off by {gap:.3e}, at most {allowed:.3e}");
}

/// Outputs of every input, of the adapted network, and the gradients of `A` and `B` of every adapter.
fn agrees(name: &str) {
    let device = Device::flex();
    let case = Case::open(name, &device);
    for number in 0..case.record["inputs"].as_u64().unwrap() {
        let found = values::of(case.output(&case.network, &format!("x.{number}"), &device));
        assert_close(&found, &case.tensor(&format!("y.{number}")).0, 1e-4, &format!("{name}, input {number}"));
    }

    let training = device.autodiff();
    let network = Case::open(name, &training).network;
    let (network, adapters) = attach(network, &case.lora(), 0).unwrap();
    let tensors = adapters.trainable_tensors(DEFAULT).unwrap();
    let factors = tensors.iter().map(|tensor| {
        let (values, shape) = case.tensor(&tensor.name);
        assert_eq!(shape, tensor.shape, "{name}: {}", tensor.name);
        (tensor.id, values)
    });
    let network = values::write(network, factors.collect());
    let adapted = case.output(&network, "x.0", &training);
    assert_close(&values::of(adapted.clone()), &case.tensor("adapted.0").0, 1e-4, &format!("{name}, adapted"));

    let cotangent = case.tensor("dy.0").0;
    let shape = [cotangent.len()];
    let dropped = adapted * Tensor::from_data(TensorData::new(cotangent, shape), &training);
    let gradients = dropped.sum().backward();
    let trainable = Trainable::of_adapter(&adapters, DEFAULT).unwrap();
    let mut flat = vec![0.0; trainable.len()];
    trainable.add_gradients(&network, &gradients, 1.0, &mut flat);
    let mut rest = flat.as_slice();
    for slot in trainable.slots() {
        let (found, next) = rest.split_at(slot.len);
        rest = next;
        let (expected, _) = case.tensor(&format!("grad.{}", slot.name));
        let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        assert_close(found, &expected, 1e-3 * largest, &format!("{name}, gradient of {}", slot.name));
    }
    assert_eq!(
        flat.len(),
        case.io.names().filter(|name| name.starts_with("grad.")).map(|name| case.tensor(name).0.len()).sum::<usize>()
    );
}

#[test]
fn wav2vec2_with_a_group_norm_and_a_ctc_head() {
    agrees("wav2vec2_ctc_group");
}

#[test]
fn wav2vec2_with_layer_norms_and_a_ctc_head() {
    agrees("wav2vec2_ctc_layer");
}

#[test]
fn wav2vec2_with_a_group_norm_and_a_classification_head() {
    agrees("wav2vec2_sequence_group");
}

#[test]
fn wav2vec2_with_layer_norms_and_a_weighted_sum_of_layers() {
    agrees("wav2vec2_sequence_layer");
}

#[test]
fn hubert_with_layer_norms_and_a_ctc_head() {
    agrees("hubert_ctc_layer");
}

#[test]
fn hubert_with_a_group_norm_and_a_weighted_sum_of_layers() {
    agrees("hubert_sequence_group");
}

#[test]
fn hifigan() {
    agrees("hifigan");
}

#[test]
fn hifigan_with_weight_norm() {
    agrees("hifigan_weight_norm");
}

#[test]
fn gpt2() {
    agrees("gpt2");
}

/// What is saved is what was loaded, under the names that it had, less weight normalisation; and so is the configuration.
#[test]
fn weights_and_keys_are_kept() {
    for name in ["wav2vec2_sequence_layer", "hubert_ctc_layer", "hifigan", "gpt2"] {
        let case = Case::open(name, &Device::flex());
        let saved = save_weights(&case.network.clone().materialize()).unwrap();
        let checkpoint = Checkpoint::open(&golden(name)).unwrap();
        let folded = |name: &str| name.contains("parametrizations");
        let names: Vec<&str> = checkpoint.names().filter(|name| !folded(name)).collect();
        assert!(!names.is_empty());
        for tensor in &names {
            let expected = checkpoint.read(tensor).unwrap();
            assert_eq!(saved[*tensor].values(), expected.values(), "{name}: {tensor}");
            assert_eq!(saved[*tensor].shape(), expected.shape(), "{name}: {tensor}");
        }
        assert_eq!(saved.len(), names.len() + checkpoint.names().filter(|name| folded(name)).count() / 2);
        let mut keys = json(&golden(name).join("config.json"));
        keys.shift_remove("id2label");
        without_dropout(&mut keys);
        for (key, value) in case.architecture.to_map() {
            if let Some(expected) = keys.shift_remove(&key) {
                let (value, expected) =
                    (value.as_f64().map_or(value, Value::from), expected.as_f64().map_or(expected, Value::from));
                assert_eq!(value, expected, "{name}: {key}");
            }
        }
        assert!(keys.is_empty(), "{name}: lost {keys:?}");
    }
}
