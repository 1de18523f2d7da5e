//! Recordings of speech to texts and classes, held against PyTorch and transformers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use lowrank::config::{LoraConfig, Patterns};
use lowrank::files::Checkpoint;
use lowrank_burn::data::{Reading, Split};
use lowrank_burn::models::{BaseModel, Dtype, ModelConfig};
use lowrank_burn::tasks::ctc::{Evaluation, ctc_loss};
use lowrank_burn::tasks::{self, Manifest};
use lowrank_burn::train::{Run, Start, TrainConfig, run};
use lowrank_burn::values;
use serde_json::{Value, json};

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(case)
}

#[test]
fn the_loss_and_its_gradient_are_pytorchs() {
    let device = Device::flex().autodiff();
    let io = Checkpoint::open(&golden("ctc_loss").join("io.safetensors")).unwrap();
    let read = |name: &str, what: &str| {
        let stored = io.read(&format!("{name}.{what}")).unwrap();
        (stored.values().unwrap(), stored.shape().to_vec())
    };
    for name in ["plain", "tight", "few", "silent", "long"] {
        let (logits, shape) = read(name, "logits");
        let logits = Tensor::<3>::from_data(TensorData::new(logits, shape), &device).require_grad();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small integers")]
        let labels: Vec<usize> = read(name, "labels").0.into_iter().map(|label| label as usize).collect();
        let loss = ctc_loss(logits.clone(), &labels, 0, name == "few");
        let expected = read(name, "loss").0[0];
        let found = loss.clone().into_scalar::<f32>();
        assert!((found - expected).abs() <= 1e-4 * expected.max(1.0), "{name}: {found}, not {expected}");
        let gradient = values::of(logits.grad(&loss.backward()).unwrap());
        for (found, expected) in gradient.iter().zip(read(name, "grad").0) {
            assert!((found - expected).abs() <= 1e-4, "{name}: gradient {found}, not {expected}");
        }
    }
}

/// A golden checkpoint beside its inputs as recordings, which are not normalised.
fn folder(case: &str) -> (tempfile::TempDir, Vec<String>) {
    let (dir, from) = (tempfile::tempdir().unwrap(), golden(case));
    for file in ["config.json", "model.safetensors", "vocab.json"] {
        if from.join(file).exists() {
            std::fs::copy(from.join(file), dir.path().join(file)).unwrap();
        }
    }
    let front_end = json!({"feature_size": 1, "sampling_rate": 16000, "do_normalize": false});
    std::fs::write(dir.path().join("preprocessor_config.json"), front_end.to_string()).unwrap();
    let io = Checkpoint::open(&from.join("io.safetensors")).unwrap();
    let mut names = Vec::new();
    for number in 0..2 {
        let x = io.read(&format!("x.{number}")).unwrap();
        for (row, samples) in x.values().unwrap().chunks(x.shape()[1]).enumerate() {
            let name = format!("{number}-{row}.csv");
            let lines: Vec<String> = samples.iter().map(|sample| format!("{sample}\n")).collect();
            let lines = lines.concat();
            std::fs::write(dir.path().join(&name), lines).unwrap();
            names.push(name);
        }
    }
    (dir, names)
}

/// The base, and a manifest in which each recording has a text.
fn transcribed(dir: &Path, names: &[String], text: &str) -> (BaseModel, Manifest) {
    let mut lines = "path,text,split\n".to_owned();
    for name in names {
        // One file is in one row.
        std::fs::copy(dir.join(name), dir.join(format!("test-{name}"))).unwrap();
        let _ = writeln!(lines, "{name},{text},train\ntest-{name},{text},test");
    }
    std::fs::write(dir.join("manifest.csv"), lines).unwrap();
    let base = BaseModel::load(dir, &Device::flex(), Dtype::Float32).unwrap();
    let manifest = Manifest::read(&dir.join("manifest.csv"), Some(&base.config.task), Reading::default()).unwrap();
    (base, manifest)
}

#[test]
fn recordings_become_the_texts_and_times_of_transformers() {
    for case in ["wav2vec2_ctc_group", "wav2vec2_ctc_layer", "hubert_ctc_layer"] {
        let (dir, names) = folder(case);
        let (base, manifest) = transcribed(dir.path(), &names, "TEA");
        let examples = base.config.task.load(&manifest, Split::Test, &TrainConfig::default()).unwrap();
        let predictions = examples.predict(&base.network, 8).unwrap();
        let record: Value =
            serde_json::from_str(&std::fs::read_to_string(golden(case).join("case.json")).unwrap()).unwrap();
        let expected = record["decoded"].as_array().unwrap();
        assert_eq!(predictions.lines.len(), expected.len());
        for (line, expected) in predictions.lines.iter().zip(expected) {
            let found: Value = serde_json::from_str(line).unwrap();
            assert_eq!(found["predicted"], expected["text"], "{case}");
            assert_eq!(found["text"], "TEA");
            let words: Vec<_> = found["words"]
                .as_array()
                .unwrap()
                .iter()
                .map(|word| {
                    let frame = |key: &str| (word[key].as_f64().unwrap() * 16_000.0 / 20.0).round();
                    (word["word"].as_str().unwrap(), frame("start"), frame("end"))
                })
                .collect();
            let theirs: Vec<_> = expected["words"]
                .as_array()
                .unwrap()
                .iter()
                .map(|word| (word[0].as_str().unwrap(), word[1].as_f64().unwrap(), word[2].as_f64().unwrap()))
                .collect();
            assert_eq!(words, theirs, "{case}");
        }
        assert!(predictions.ctm[0].starts_with("test-0-0 1 "), "{:?}", predictions.ctm);
        let words = expected.iter().map(|utterance| utterance["words"].as_array().unwrap().len()).sum::<usize>();
        assert_eq!(predictions.ctm.len(), words);
    }
}

#[test]
fn an_adapter_learns_what_is_said() {
    let (dir, names) = folder("wav2vec2_ctc_group");
    let (base, manifest) = transcribed(dir.path(), &names[..1], "TEA ON");
    let lora = LoraConfig {
        r: 8,
        lora_alpha: 16.0,
        target_modules: Some(Patterns::List(
            ["q_proj", "v_proj", "intermediate_dense", "lm_head"].map(String::from).into(),
        )),
        ..LoraConfig::default()
    };
    let config = TrainConfig { max_steps: Some(200), learning_rate: 2e-2, batch_size: 1, ..TrainConfig::default() };
    let outcome = run(
        &Run {
            start: Start::Base(Box::new(base)),
            lora: Some(lora),
            manifest,
            config,
            seed: 1,
            output: dir.path().join("run"),
            resume: false,
            command: String::new(),
            settings: String::new(),
        },
        &mut (),
    )
    .unwrap();
    let of = |evaluation: Option<&tasks::Evaluation>| -> Evaluation {
        match evaluation {
            Some(tasks::Evaluation::Ctc(evaluation)) => evaluation.clone(),
            other => panic!("{other:?}"),
        }
    };
    let (before, after) = (of(outcome.before.as_ref()), of(outcome.after.as_ref()));
    assert!(after.loss.unwrap() < 0.1 * before.loss.unwrap(), "{before}\n{after}");
    assert_eq!(after.wer, Some(0.0), "{after}");
}

/// A golden classifier that reads windows of so many samples.
fn classifier(case: &str, window: usize) -> (tempfile::TempDir, Vec<String>) {
    let (dir, names) = folder(case);
    let path = dir.path().join("config.json");
    let mut keys: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    keys["signal"] = json!({"channels": 1, "sample_rate": 16000.0, "window": window, "hop": window});
    std::fs::write(&path, keys.to_string()).unwrap();
    (dir, names)
}

fn logits(dir: &Path, name: &str) -> Vec<f32> {
    let base = BaseModel::load(dir, &Device::flex(), Dtype::Float32).unwrap();
    let manifest = Manifest::of_recordings(&[dir.join(name)], &base.config.task, Reading::default()).unwrap();
    let examples = base.config.task.load(&manifest, Split::Test, &TrainConfig::default()).unwrap();
    let predictions = examples.predict(&base.network, 4).unwrap();
    let line: Value = serde_json::from_str(&predictions.lines[0]).unwrap();
    serde_json::from_value(line["logits"].clone()).unwrap()
}

#[test]
fn windows_are_classified_as_transformers_does() {
    for case in ["wav2vec2_sequence_group", "wav2vec2_sequence_layer", "hubert_sequence_group"] {
        let (dir, names) = classifier(case, 1501);
        let io = Checkpoint::open(&golden(case).join("io.safetensors")).unwrap();
        let expected = io.read("y.1").unwrap().values().unwrap();
        let name = names.last().unwrap();
        let close =
            |found: &[f32]| found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() <= 1e-4);
        let found = logits(dir.path(), name);
        assert!(found.len() == expected.len() && close(&found), "{case}: {found:?}, not {expected:?}");

        // Louder, and with an offset: normalised, it is the same as the recording in its own mean and variance.
        let loud = std::fs::read_to_string(dir.path().join(name)).unwrap();
        let louder = |line: &str| format!("{}\n", 3.0 * line.parse::<f32>().unwrap() + 0.5);
        let loud = loud.lines().map(louder).collect::<Vec<_>>().concat();
        std::fs::write(dir.path().join("loud.csv"), loud).unwrap();
        std::fs::remove_file(dir.path().join("preprocessor_config.json")).unwrap();
        let [quiet, loud] = [name.as_str(), "loud.csv"].map(|name| logits(dir.path(), name));
        assert!(quiet.iter().zip(&loud).all(|(a, b)| (a - b).abs() <= 1e-4), "{case}: {quiet:?}, {loud:?}");
    }
}

#[test]
fn a_rate_that_is_not_the_front_ends_is_refused() {
    let (dir, names) = classifier("hubert_sequence_group", 700);
    let front_end = json!({"sampling_rate": 8000});
    std::fs::write(dir.path().join("preprocessor_config.json"), front_end.to_string()).unwrap();
    let error = BaseModel::load(dir.path(), &Device::flex(), Dtype::Float32).unwrap_err().to_string();
    let wrong = "sampling_rate: does not fit: found 8000, expected the sample_rate of `signal` in config.json";
    assert!(error.ends_with(wrong), "{error}");
    assert_eq!(names.len(), 3);
}

#[test]
fn a_base_is_saved_with_its_vocabulary_and_read_again() {
    let (dir, _) = folder("hubert_ctc_layer");
    let base = BaseModel::load(dir.path(), &Device::flex(), Dtype::Float32).unwrap();
    let again = dir.path().join("again");
    base.save(&again).unwrap();
    assert_eq!(ModelConfig::read(&again).unwrap(), base.config);
    assert!(BaseModel::load(&again, &Device::flex(), Dtype::Float32).is_ok());
}

#[test]
fn texts_that_cannot_be_learned_are_all_named() {
    let (dir, names) = folder("wav2vec2_ctc_group");
    let (base, _) = transcribed(dir.path(), &names, "TEA");
    let long = "TEA ".repeat(10);
    let lines = format!("path,text\n{},tea\n{},{long}\n", names[0], names[1]);
    std::fs::write(dir.path().join("wrong.csv"), lines).unwrap();
    let manifest = Manifest::read(&dir.path().join("wrong.csv"), Some(&base.config.task), Reading::default()).unwrap();
    let error = base.config.task.load(&manifest, Split::Train, &TrainConfig::default()).unwrap_err();
    let parts: Vec<String> = error.parts().iter().map(ToString::to_string).collect();
    assert_eq!(parts.len(), 2, "{error}");
    assert!(parts[0].ends_with("characters that are not in vocab.json: found \"a\", \"e\", \"t\""), "{}", parts[0]);
    assert!(
        parts[1].ends_with("a text longer than its recording: found 34 frames, expected at least 39"),
        "{}",
        parts[1]
    );
}
