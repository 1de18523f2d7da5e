//! Adapter directories: the round trip, and what is refused in them.

mod fixture;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use lowrank::adapter::state_dict::StateDict;
use lowrank::adapter::tensor::{Dtype, Tensor};
use lowrank::adapter::{GroupMode, Layer, LayerKind};
use lowrank::config::{Bias, LoraConfig, TokenIndices};
use lowrank::files::adapter_dir::{self, CONFIG, WEIGHTS};
use lowrank::float::FloatType;
use lowrank::{Error, Subject};

const HEAD_A: &str = "base_model.model.head.lora_A.weight";
const HEAD_B: &str = "base_model.model.head.lora_B.weight";

/// The tensors of an adapter on `head`, rank 4, from 7 to 5, under their keys.
fn head() -> BTreeMap<String, Tensor> {
    let tensor = |shape: &[usize]| fixture::tensor(shape, FloatType::F32, 0.5);
    BTreeMap::from([(HEAD_A.into(), tensor(&[4, 7])), (HEAD_B.into(), tensor(&[5, 4]))])
}

fn shown(error: &Error) -> String {
    let mut text = String::new();
    let parts = if error.parts().is_empty() { std::slice::from_ref(error) } else { error.parts() };
    for part in parts {
        writeln!(text, "  {part}").unwrap();
        if let Some(hint) = part.hint() {
            writeln!(text, "  hint: {hint}").unwrap();
        }
    }
    text
}

type Change = Box<dyn Fn(&mut BTreeMap<String, Tensor>, &mut LoraConfig)>;

fn put(key: &'static str, shape: &'static [usize]) -> Change {
    Box::new(move |tensors, _| drop(tensors.insert(key.into(), fixture::tensor(shape, FloatType::F32, 1.0))))
}

fn only(key: &'static str) -> Change {
    Box::new(move |tensors, _| tensors.retain(|name, _| name == key))
}

/// What can be wrong with the factors of a module.
fn malformed_factors() -> Vec<(&'static str, Change)> {
    vec![
        ("nothing at all", Box::new(|tensors, _| tensors.clear())),
        ("A without B", only(HEAD_A)),
        ("B without A", only(HEAD_B)),
        (
            "a bias without factors",
            Box::new(|tensors, _| {
                tensors.clear();
                tensors.insert("base_model.model.head.lora_B.bias".into(), fixture::tensor(&[5], FloatType::F32, 1.0));
            }),
        ),
        ("an embedding's A without its B", put("base_model.model.emb.lora_embedding_A", &[4, 11])),
        ("an embedding's B without its A", put("base_model.model.emb.lora_embedding_B", &[6, 4])),
        (
            "linear and embedding at once",
            Box::new(|tensors, _| {
                tensors.insert(
                    "base_model.model.head.lora_embedding_A".into(),
                    fixture::tensor(&[4, 7], FloatType::F32, 1.0),
                );
                tensors.insert(
                    "base_model.model.head.lora_embedding_B".into(),
                    fixture::tensor(&[5, 4], FloatType::F32, 1.0),
                );
            }),
        ),
        ("ranks that differ", put(HEAD_B, &[5, 3])),
        ("A of one axis", put(HEAD_A, &[28])),
        ("A and B of different axes", put(HEAD_A, &[4, 7, 3])),
        (
            "six axes",
            Box::new(|tensors, _| {
                tensors.insert(HEAD_A.into(), fixture::tensor(&[4, 7, 1, 1, 1, 1], FloatType::F32, 1.0));
                tensors.insert(HEAD_B.into(), fixture::tensor(&[5, 4, 1, 1, 1, 1], FloatType::F32, 1.0));
            }),
        ),
        (
            "B with a kernel",
            Box::new(|tensors, _| {
                tensors.insert(HEAD_A.into(), fixture::tensor(&[4, 7, 3], FloatType::F32, 1.0));
                tensors.insert(HEAD_B.into(), fixture::tensor(&[5, 4, 3], FloatType::F32, 1.0));
            }),
        ),
        (
            "groups that do not divide the outputs",
            Box::new(|tensors, _| {
                tensors.insert(HEAD_A.into(), fixture::tensor(&[4, 7, 3], FloatType::F32, 1.0));
                tensors.insert(HEAD_B.into(), fixture::tensor(&[5, 2, 1], FloatType::F32, 1.0));
            }),
        ),
        ("an empty A", put(HEAD_A, &[4, 0])),
        ("an empty B", put(HEAD_B, &[0])),
        (
            "integers",
            Box::new(|tensors, _| {
                tensors.insert(HEAD_A.into(), Tensor::new(Dtype::I8, vec![4, 7], vec![1; 28]).unwrap());
            }),
        ),
        (
            "eight-bit floats",
            Box::new(|tensors, _| {
                tensors.insert(HEAD_B.into(), Tensor::new(Dtype::F8_E4M3, vec![5, 4], vec![1; 20]).unwrap());
            }),
        ),
    ]
}

/// What can be wrong between the tensors and the configuration, and with the keys.
fn malformed_rest() -> Vec<(&'static str, Change)> {
    let prefixless = |key: &str| key.strip_prefix("base_model.model.").unwrap().to_owned();
    vec![
        ("another rank than configured", Box::new(|_, config| config.r = 8)),
        ("another rank than its pattern", Box::new(|_, config| config.rank_pattern = vec![("head".into(), 2)])),
        ("a bias that is not configured", put("base_model.model.head.lora_B.bias", &[5])),
        ("a configured bias that is missing", Box::new(|_, config| config.lora_bias = true)),
        (
            "a bias of another length",
            Box::new(|tensors, config| {
                config.lora_bias = true;
                tensors.insert("base_model.model.head.lora_B.bias".into(), fixture::tensor(&[4], FloatType::F32, 1.0));
            }),
        ),
        (
            "the same key with and without prefix",
            Box::new(move |tensors, _| {
                let again = tensors[HEAD_A].clone();
                tensors.insert(prefixless(HEAD_A), again);
            }),
        ),
        ("a magnitude that is not configured", put("base_model.model.head.lora_magnitude_vector", &[5])),
        ("a configured magnitude that is missing", Box::new(|_, config| config.use_dora = true)),
        (
            "a magnitude of another shape",
            Box::new(|tensors, config| {
                config.use_dora = true;
                let magnitude = fixture::tensor(&[1, 5], FloatType::F32, 1.0);
                tensors.insert("base_model.model.head.lora_magnitude_vector".into(), magnitude);
            }),
        ),
        (
            "a magnitude under its name in memory",
            put("base_model.model.head.lora_magnitude_vector.default.weight", &[5]),
        ),
        (
            "trained rows that are not configured",
            put("base_model.model.emb.token_adapter.trainable_tokens_delta", &[2, 6]),
        ),
        (
            "another number of trained rows",
            Box::new(|tensors, config| {
                config.trainable_token_indices = Some(TokenIndices::Embedding(vec![4, 1, 2]));
                let rows = fixture::tensor(&[2, 6], FloatType::F32, 1.0);
                tensors.insert("base_model.model.emb.token_adapter.trainable_tokens_delta".into(), rows);
            }),
        ),
        (
            "configured rows that are missing",
            Box::new(|_, config| config.trainable_token_indices = Some(TokenIndices::Embedding(vec![4]))),
        ),
        (
            "trained rows of an adapted module",
            Box::new(|tensors, config| {
                config.trainable_token_indices = Some(TokenIndices::Modules(vec![("head".into(), vec![0])]));
                let rows = fixture::tensor(&[1, 7], FloatType::F32, 1.0);
                tensors.insert("base_model.model.head.token_adapter.trainable_tokens_delta".into(), rows);
            }),
        ),
        ("an adapter name in the key", put("base_model.model.tail.lora_A.default.weight", &[4, 7])),
        (
            "half of the output projection of an attention",
            put("base_model.model.mha.base_layer.out_proj.lora_A.weight", &[4, 7]),
        ),
        ("an adapter within an adapted module", put("base_model.model.mlp.base_layer.lora_A.weight", &[4, 7])),
        ("kohya's format", put("lora_unet_down_blocks_0.lora_down.weight", &[4, 7])),
        ("a stranger", put("base_model.model.classifier.weight", &[2, 7])),
        (
            "a stranger, nearly saved",
            Box::new(|tensors, config| {
                config.modules_to_save = Some(vec!["clasifier".into()]);
                tensors
                    .insert("base_model.model.classifier.weight".into(), fixture::tensor(&[2, 7], FloatType::F32, 1.0));
            }),
        ),
        ("a trained bias that is not configured", put("base_model.model.head.base_layer.bias", &[5])),
        (
            "a bias of a module without adapter",
            Box::new(|tensors, config| {
                config.bias = Bias::LoraOnly;
                tensors
                    .insert("base_model.model.tail.base_layer.bias".into(), fixture::tensor(&[5], FloatType::F32, 1.0));
            }),
        ),
        (
            "three at once",
            Box::new(|tensors, _| {
                tensors.remove(HEAD_B);
                for key in ["base_model.model.x.y", "base_model.model.q.lora_magnitude_vector"] {
                    tensors.insert(key.into(), fixture::tensor(&[1], FloatType::F32, 1.0));
                }
            }),
        ),
    ]
}

#[test]
fn every_malformed_adapter_is_refused_with_a_reason() {
    let mut report = String::new();
    for (name, change) in malformed_factors().into_iter().chain(malformed_rest()) {
        let dir = tempfile::tempdir().unwrap();
        let (mut tensors, mut config) = (head(), fixture::config());
        change(&mut tensors, &mut config);
        fs::write(dir.path().join(CONFIG), config.to_json()).unwrap();
        fixture::save(&dir.path().join(WEIGHTS), &tensors);
        let before = fixture::contents(dir.path());
        let error = adapter_dir::read(dir.path()).expect_err(name);
        let text = shown(&error).replace(&format!("{}/", dir.path().display()), "");
        writeln!(report, "{name}\n{text}").unwrap();
        assert!(fixture::contents(dir.path()) == before, "{name} changes something");
    }
    insta::assert_snapshot!(report);
}

#[test]
fn the_round_trip_is_exact_for_every_type_and_extra() {
    for float in [FloatType::F64, FloatType::F32, FloatType::F16, FloatType::Bf16] {
        let dir = tempfile::tempdir().unwrap();
        let config = LoraConfig { bias: Bias::All, modules_to_save: Some(vec!["norm".into()]), ..fixture::config() };
        let mut state = StateDict::default();
        for (path, kind, shape, groups) in fixture::LAYERS {
            let factors = fixture::factors(path, kind, shape, groups, 1);
            let tensors = lowrank::adapter::state_dict::ModuleTensors::from_factors(&factors, float).unwrap();
            state.modules.insert(path.into(), tensors);
        }
        state.saved.insert("head.bias".into(), fixture::tensor(&[5], float, 1.0));
        state.saved.insert("other.bias".into(), fixture::tensor(&[5], float, 1.0));
        state.saved.insert("norm.steps".into(), Tensor::new(Dtype::I64, vec![], vec![1; 8]).unwrap());
        adapter_dir::write(dir.path(), &config, &state, Some("# card")).unwrap();
        let read = adapter_dir::read(dir.path()).unwrap();
        assert_eq!(read.state, state);
        assert!(read.warnings.is_empty(), "{:?}", read.warnings);
        let keys: Vec<_> = read.state.to_tensors().into_keys().filter(|key| key.ends_with("bias")).collect();
        assert_eq!(keys, ["base_model.model.head.base_layer.bias", "base_model.model.other.bias"]);
        assert_eq!(fs::read_to_string(dir.path().join("README.md")).unwrap(), "# card");
    }
}

#[test]
fn grouped_factors_come_back_in_their_form() {
    let layer = Layer::new(LayerKind::Conv1d, &[12, 4, 5], 2).unwrap();
    let state = fixture::adapter(1);
    let config = fixture::config();
    assert_eq!(state.modules["encoder.conv2"].a.shape(), [4, 8, 5], "PEFT's dense form is what is stored");
    let factors = state.factors("encoder.conv2", &layer, &config).unwrap();
    assert_eq!(factors.mode(), GroupMode::PerGroup);
    assert_eq!(factors, fixture::factors("encoder.conv2", LayerKind::Conv1d, &[12, 4, 5], 2, 1));
    let dense = LoraConfig { group_mode: GroupMode::Dense, ..config.clone() };
    assert_eq!(state.factors("encoder.conv2", &layer, &dense).unwrap().mode(), GroupMode::Dense);
    let error = state.factors("encoder.conv", &layer, &config).unwrap_err();
    assert_eq!(
        (error.subject(), error.hint()),
        (Subject::Adapter, Some("the nearest that has one is `encoder.conv1`"))
    );
    let other = Layer::new(LayerKind::Conv1d, &[12, 4, 3], 2).unwrap();
    assert!(state.factors("encoder.conv2", &other, &config).unwrap_err().to_string().contains("do not fit a Conv1d"));
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("adapter");
    let mut broken = fixture::adapter(1);
    let module = broken.modules.get_mut("head").unwrap();
    module.b = fixture::tensor(&[5, 4], FloatType::F32, f32::NAN);
    let error = adapter_dir::write(&target, &fixture::config(), &broken, None).unwrap_err();
    assert!(error.to_string().contains(HEAD_B) && error.to_string().contains("20 NaN or infinite"), "{error}");
    let config = LoraConfig { r: 8, ..fixture::config() };
    assert_eq!(adapter_dir::write(&target, &config, &fixture::adapter(1), None).unwrap_err().parts().len(), 5);
    let mut more = fixture::adapter(1);
    more.saved.insert("tail.weight".into(), fixture::tensor(&[1], FloatType::F32, 1.0));
    assert!(adapter_dir::write(&target, &fixture::config(), &more, None).is_err());
    assert!(!target.exists());
}

#[test]
fn an_existing_card_stays_without_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("README.md"), "written by hand").unwrap();
    adapter_dir::write(dir.path(), &fixture::config(), &fixture::adapter(1), None).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("README.md")).unwrap(), "written by hand");
}

#[test]
fn folders_that_are_no_adapter_say_why() {
    let refusal = |files: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        for name in files {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), "{}").unwrap();
        }
        let error = adapter_dir::read(dir.path()).unwrap_err();
        format!("{}\n{}", files.join(", "), shown(&error)).replace(&dir.path().display().to_string(), "DIR")
    };
    let mut report = String::new();
    for files in [
        &[][..],
        &["adapter_config.json"],
        &["adapter_model.safetensors"],
        &["adapter_config.json", "adapter_model.bin"],
        &["english/adapter_config.json", "french/adapter_config.json", "notes.txt"],
        &["config.json", "model.safetensors"],
        &["adapter_config.json", "adapter_model.safetensors"],
    ] {
        report += &refusal(files);
    }
    let error = adapter_dir::read(Path::new("Cargo.toml")).unwrap_err();
    report += &shown(&error);
    insta::assert_snapshot!(report);
}
