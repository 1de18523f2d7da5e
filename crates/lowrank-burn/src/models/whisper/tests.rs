//! Against transformers and PEFT: `golden/make_whisper.py`.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use lowrank::files::Checkpoint;

use super::*;
use crate::models::{BaseModel, Dtype, Network};
use crate::nn::Linear;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/whisper").join(name)
}

/// What transformers made.
struct Io(Checkpoint);

impl Io {
    fn open() -> Self {
        Self(Checkpoint::open(&golden("io.safetensors")).unwrap())
    }

    fn values(&self, name: &str) -> Vec<f32> {
        self.0.read(name).unwrap().values().unwrap()
    }

    fn tensor(&self, name: &str, device: &Device) -> Tensor<3> {
        let stored = self.0.read(name).unwrap();
        Tensor::from_data(TensorData::new(stored.values().unwrap(), stored.shape().to_vec()), device)
    }

    fn rows(&self, name: &str) -> Vec<Vec<i64>> {
        let stored = self.0.read(name).unwrap();
        let values: Vec<i64> = stored.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
        values.chunks(stored.shape()[1]).map(<[i64]>::to_vec).collect()
    }
}

fn close(found: &[f32], expected: &[f32], within: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= within, "{what}: off by {worst}");
}

fn base(device: &Device) -> Whisper {
    let Network::Whisper(whisper) = BaseModel::load(&golden("base"), device, Dtype::Float32).unwrap().network else {
        panic!("not a Whisper");
    };
    whisper
}

fn generation() -> Generation {
    Generation::from_json(&std::fs::read_to_string(golden("base/generation_config.json")).unwrap()).unwrap()
}

/// Encoder, logits and generated tokens of a model at one of the inputs.
fn agrees(io: &Io, whisper: &Whisper, name: &str, features: &str) {
    let device = Device::flex();
    let heard = whisper.hear(io.tensor(features, &device)).unwrap();
    close(&values::of(heard.clone()), &io.values(&format!("{name}.encoder")), 1e-4, &format!("{name}: encoder"));
    let batch = heard.dims()[0];
    let tokens: Vec<u32> = io.rows("decoder_input_ids").concat().iter().map(|id| u32::try_from(*id).unwrap()).collect();
    let per_row = tokens.len() / 2;
    let hidden = whisper.follow(&heard, ids(&tokens[..batch * per_row], batch, &device));
    let logits = whisper.model.decoder.logits(hidden.reshape([batch * per_row, 16]));
    close(&values::of(logits.clone()), &io.values(&format!("{name}.logits")), 1e-4, &format!("{name}: logits"));
    let generation = generation();
    for beams in [1, 3] {
        let texts = whisper.generate(&heard, &generation, beams).unwrap();
        for (text, row) in texts.iter().zip(io.rows(&format!("{name}.generated_{beams}"))) {
            let expected: Vec<u32> =
                row[2..].iter().map(|id| u32::try_from(*id).unwrap()).take_while(|id| *id != 0).collect();
            assert_eq!(text.tokens, expected, "{name}, {beams} beams");
            assert_eq!(text.log_probs.len(), text.tokens.len());
        }
    }
    let greedy = &whisper.generate(&heard, &generation, 1).unwrap()[0];
    // The cache against all tokens at once.
    let mut said = generation.prompt.clone();
    said.extend(&greedy.tokens);
    let first = heard.narrow(0, 0, 1);
    let hidden = whisper.follow(&first, ids(&said, 1, &device)).squeeze_dim::<2>(0);
    let all = values::of(whisper.model.decoder.logits(hidden));
    let again: Vec<f32> = (greedy.tokens.iter().enumerate())
        .map(|(at, token)| log_softmax(&all[(at + 1) * 300..(at + 2) * 300]).unwrap()[*token as usize])
        .collect();
    close(&greedy.log_probs, &again, 1e-4, &format!("{name}: with a cache"));
}

#[test]
fn spectrograms_are_those_of_transformers() {
    let io = Io::open();
    let (mel, audio) = (LogMel::new(80), io.values("audio"));
    let found: Vec<f32> = audio.chunks(16_000).flat_map(|sound| mel.of(sound, 100)).collect();
    close(&found, &io.values("features"), 1e-4, "one second");
    // 0.6 s of sound is as well as with silence after it.
    assert_eq!(mel.of(&audio[16_000..25_600], 100), mel.of(&audio[16_000..], 100));
    close(&mel.of(&audio[..16_000], 50), &io.values("features_half"), 1e-4, "half a second");
    let whole = mel.of(&audio[..16_000], 3000);
    let every_50th: Vec<f32> = whole.iter().step_by(50).copied().collect();
    close(&every_50th, &io.values("features_30_every_50th"), 1e-4, "thirty seconds");
}

#[test]
fn encoder_logits_and_texts_are_those_of_transformers() {
    let (io, whisper) = (Io::open(), base(&Device::flex()));
    agrees(&io, &whisper, "base", "features");
    agrees(&io, &whisper, "half", "features_half");
    let error = whisper.hear(Tensor::zeros([1, 80, 102], &Device::flex())).unwrap_err();
    assert_eq!(error.to_string(), "the window is longer than the network's: found 102 frames, expected at most 100");
}

#[test]
fn an_adapter_of_pefts_gives_its_outputs_and_gradients() {
    let (io, device) = (Io::open(), Device::flex().autodiff());
    let (whisper, adapters) = crate::load(base(&device), &golden("adapter")).unwrap();
    agrees(&io, &whisper.clone().valid(), "adapted", "features");

    let heard = whisper.hear(io.tensor("features", &device)).unwrap();
    let tokens: Vec<u32> = io.rows("decoder_input_ids").concat().iter().map(|id| u32::try_from(*id).unwrap()).collect();
    let hidden = whisper.follow(&heard, ids(&tokens, 2, &device));
    let labels = io.rows("labels").concat();
    let (places, targets): (Vec<i64>, Vec<i64>) = (0..).zip(labels).filter(|(_, label)| *label >= 0).unzip();
    let whole =
        |numbers: Vec<i64>| Tensor::<1, Int>::from_data(TensorData::new(numbers.clone(), [numbers.len()]), &device);
    let [batch, length, width] = hidden.dims();
    let hidden = hidden.reshape([batch * length, width]).select(0, whole(places));
    let loss = burn::nn::loss::CrossEntropyLossConfig::new().init(&device);
    let loss = loss.forward(whisper.model.decoder.logits(hidden), whole(targets));
    close(&values::of(loss.clone()), &io.values("loss"), 1e-4, "loss");

    let trainable = crate::train::Trainable::of_adapter(&adapters, "default").unwrap();
    let mut gradients = vec![0.0; trainable.len()];
    trainable.add_gradients(&whisper, &loss.backward(), 1.0, &mut gradients);
    let mut rest = gradients.as_slice();
    for slot in trainable.slots() {
        let (own, after) = rest.split_at(slot.len);
        rest = after;
        let name = slot.name.trim_start_matches("base_model.model.");
        let expected = io.values(&format!("gradient.base_model.model.{name}"));
        let size = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        close(own, &expected, 1e-3 * size, &slot.name);
    }
    assert_eq!(trainable.slots().len(), 2 * (2 + 2 * 2 + 4 * 2));
}

#[test]
fn keys_of_transformers_are_kept_and_others_refused() {
    let text = std::fs::read_to_string(golden("base/config.json")).unwrap();
    let read = |text: &str| {
        let mut keys: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        keys.shift_remove("model_type");
        WhisperConfig::from_map(keys)
    };
    let config = read(&text).unwrap();
    let mut expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    expected.as_object_mut().unwrap().shift_remove("model_type");
    assert_eq!(serde_json::to_value(&config).unwrap(), expected);
    let message = |from: &str, to: &str| read(&text.replace(from, to)).unwrap_err().to_string();
    assert_eq!(
        message("\"dropout\": 0.0", "\"dropout\": 0.1"),
        "dropout: has an effect that is not built: found 0.1, expected 0"
    );
    assert_eq!(message("\"init_std\"", "\"init_st\""), "unknown key `init_st`");
    assert_eq!(
        message("\"decoder_attention_heads\": 4", "\"decoder_attention_heads\": 3"),
        "decoder_attention_heads: does not divide d_model: found 3, expected a divisor of 16"
    );
}

#[test]
fn full_training_leaves_the_encoders_positions_alone() {
    let whisper = base(&Device::flex().autodiff());
    let trains = |layer: &Linear| layer.weight.is_require_grad();
    assert!(
        trains(&whisper.model.encoder.layers[0].fc1) && !whisper.model.encoder.embed_positions.weight.is_require_grad()
    );
}

#[test]
fn small_probabilities_of_many_tokens_are_not_lost() {
    let logits: Vec<f32> = (0..50_000_u16).map(|at| if at == 0 { 20.0 } else { -f32::from(at % 7) }).collect();
    let exact = logits.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
    let found = log_softmax(&logits).unwrap();
    assert!((f64::from(found[0]) - (20.0 - exact)).abs() < 1e-7, "{} {exact}", found[0]);
}
