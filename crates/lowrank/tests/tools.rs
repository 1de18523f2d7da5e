//! Extracting from two checkpoints, resizing, checking, comparing: the way through files.

mod fixture;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use lowrank::adapter::LayerKind;
use lowrank::adapter::rank::Cut;
use lowrank::adapter::tensor::{Dtype, Tensor};
use lowrank::config::{Bias, LoraConfig, Patterns, TokenIndices};
use lowrank::files::extract_dir::{Extracted, Extraction};
use lowrank::files::{Checkpoint, adapter_dir, check_adapter, diff, extract_dir, merge_checkpoint, resize_dir};
use lowrank::float::FloatType;
use lowrank::{Error, Result};

type Model = BTreeMap<String, Tensor>;

fn full() -> Extraction {
    Extraction { cut: Cut::Rank(1000), target_modules: Vec::new(), groups: Vec::new(), save: false }
}

/// Values of `name` other than those of the base.
fn other(name: &str, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = fixture::values(name, 9, shape.iter().product()).iter().map(|value| value / 8.0).collect();
    Tensor::from_values(FloatType::F32, shape.to_vec(), &values).unwrap()
}

fn extract(base: &Path, tuned: &Path, how: &Extraction, root: &Path) -> Result<Extracted> {
    extract_dir(base, tuned, how, Some((&root.join("adapter"), true)), &mut |_, _, _| {})
}

fn merge(base: &Path, root: &Path) -> Checkpoint {
    let output = root.join("merged.safetensors");
    merge_checkpoint(base, &root.join("adapter"), &output, true, &mut |_| {}).unwrap();
    Checkpoint::open(&output).unwrap()
}

fn assert_near(found: &Tensor, expected: &Tensor, what: &str) {
    let (found, expected) = (found.values().unwrap(), expected.values().unwrap());
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-5, "{what}: {found} {expected}");
    }
}

fn text(root: &Path, error: &Error) -> String {
    let parts = if error.parts().is_empty() { std::slice::from_ref(error) } else { error.parts() };
    let text = parts.iter().fold(String::new(), |mut text, part| {
        let _ = writeln!(text, "{part}\n  hint: {}", part.hint().unwrap_or("none"));
        text
    });
    text.replace(&format!("{}/", root.display()), "")
}

/// The fixture's model, every kind of it trained in full, its biases and its counter too.
fn tuned() -> Model {
    fixture::model(FloatType::F32)
        .into_iter()
        .map(|(name, tensor)| match tensor.dtype() {
            Dtype::I64 => (name, Tensor::new(Dtype::I64, vec![], 8_i64.to_le_bytes().to_vec()).unwrap()),
            _ => (name.clone(), other(&name, tensor.shape())),
        })
        .collect()
}

#[test]
fn at_full_rank_a_merge_gives_the_tuned_model_again() {
    let dir = fixture::folder();
    let root = dir.path();
    let (base, after) = (root.join("base.safetensors"), root.join("tuned.safetensors"));
    fixture::save(&base, &fixture::model(FloatType::F32));
    let expected = tuned();
    fixture::save(&after, &expected);
    for groups in [Vec::new(), vec![("conv2".to_owned(), 2)]] {
        let how = Extraction { save: true, groups, ..full() };
        let extracted = extract(&base, &after, &how, root).unwrap();
        assert_eq!(extracted.left_out, []);
        assert_eq!(extracted.equal, [""; 0]);
        let kinds: Vec<_> = extracted.modules.iter().map(|module| (module.path.as_str(), module.kind)).collect();
        assert_eq!(kinds, fixture::LAYERS.map(|(path, kind, ..)| (path, kind)));
        for module in &extracted.modules {
            assert!(module.error < 1e-6 && module.energy > 1.0 - 1e-9, "{module:?}");
            assert_eq!(extracted.config.scaling_for(&module.path).unwrap().to_bits(), 1.0_f32.to_bits());
        }
        assert_eq!(extracted.config.bias, Bias::LoraOnly);
        assert_eq!(extracted.config.modules_to_save, Some(vec!["norm".to_owned()]));
        let merged = merge(&base, root);
        for (name, tensor) in expected.iter().filter(|(_, tensor)| tensor.dtype() == Dtype::F32) {
            assert_near(&merged.read(name).unwrap(), tensor, name);
        }
        assert_eq!(merged.read("norm.steps").unwrap(), expected["norm.steps"]);
        assert!(check_adapter(&base, &root.join("adapter")).unwrap().problems.is_empty());
    }
}

#[test]
fn trained_rows_must_be_in_the_weight() {
    let dir = fixture::folder();
    let (root, base) = (dir.path(), dir.path().join("base.safetensors"));
    fixture::save(&base, &fixture::model(FloatType::F32));
    let mut state = fixture::adapter(2);
    state.modules.remove("emb");
    for (rows, width, problem) in [
        (vec![10, 2], 6, None),
        (
            vec![11, 2],
            6,
            Some("trained rows of `emb`: a trained row is not in the weight: found row 11, expected one below 11"),
        ),
        (
            vec![3],
            5,
            Some("trained rows of `emb`: the trained rows do not fit the weight: found [1, 5], expected [1, 6]"),
        ),
    ] {
        state.tokens = [("emb".to_owned(), fixture::tensor(&[rows.len(), width], FloatType::F32, 0.5))].into();
        let targets = state.modules.keys().cloned().collect();
        let config = LoraConfig {
            target_modules: Some(Patterns::List(targets)),
            trainable_token_indices: Some(TokenIndices::Modules(vec![("emb".into(), rows.clone())])),
            ..fixture::config()
        };
        adapter_dir::write(&root.join("adapter"), &config, &state, None).unwrap();
        let check = check_adapter(&base, &root.join("adapter")).unwrap();
        assert_eq!(check.problems.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::from_iter(problem));
        if problem.is_none() {
            assert_eq!(check.rows, ["emb.weight"]);
            let (before, after) = (fixture::model(FloatType::F32)["emb.weight"].values().unwrap(), merge(&base, root));
            let after = after.read("emb.weight").unwrap().values().unwrap();
            for row in 0..11 {
                let expected = if rows.contains(&row) { &[0.5; 6][..] } else { &before[6 * row..6 * row + 6] };
                assert_eq!(&after[6 * row..6 * row + 6], expected, "row {row}");
            }
        }
    }
}

#[test]
fn groups_make_the_form_that_peft_reads() {
    let dir = fixture::folder();
    let root = dir.path();
    let (base, after) = (root.join("base.safetensors"), root.join("tuned.safetensors"));
    fixture::save(&base, &fixture::model(FloatType::F32));
    fixture::save(&after, &tuned());
    let shape = |groups: Vec<(String, usize)>| {
        let how = Extraction { cut: Cut::Rank(4), groups, ..full() };
        let extracted = extract(&base, &after, &how, root).unwrap();
        let tensors = &extracted.state.modules["encoder.conv2"];
        (tensors.a.shape().to_vec(), tensors.b.shape().to_vec())
    };
    assert_eq!(shape(Vec::new()), (vec![4, 4, 5], vec![12, 4, 1]));
    assert_eq!(shape(vec![("conv2".into(), 2)]), (vec![4, 8, 5], vec![12, 2, 1]));
}

#[test]
fn shards_and_other_types_are_read_and_what_is_equal_is_left_alone() {
    for float in [FloatType::F32, FloatType::F16, FloatType::Bf16] {
        let dir = fixture::folder();
        let root = dir.path();
        let (base, after) = (root.join("base"), root.join("tuned.safetensors"));
        fixture::save_folder(&base, float);
        let mut model = fixture::model(float);
        model.insert("head.weight".into(), other("head.weight", &[5, 7]));
        fixture::save(&after, &model);
        let extracted = extract(&base, &after, &full(), root).unwrap();
        let modules: Vec<_> = extracted.modules.iter().map(|module| (module.path.as_str(), module.rank)).collect();
        assert_eq!(modules, [("head", 5)]);
        assert_eq!(extracted.equal.len(), model.len() - 1);
        assert_eq!(extracted.left_out, []);
    }
}

#[test]
fn what_no_adapter_can_have_is_listed() {
    let dir = fixture::folder();
    let root = dir.path();
    let (base, after) = (root.join("base.safetensors"), root.join("tuned.safetensors"));
    fixture::save(&base, &fixture::model(FloatType::F32));
    let mut model = tuned();
    model.insert("emb.weight".into(), other("emb.weight", &[12, 6]));
    model.remove("encoder.conv1.bias");
    model.insert("extra.weight".into(), other("extra", &[2, 2]));
    fixture::save(&after, &model);
    let how = Extraction { target_modules: vec!["conv1".into(), "encoder.down".into()], ..full() };
    let extracted = extract(&base, &after, &how, root).unwrap();
    let modules: Vec<_> = extracted.modules.iter().map(|module| module.path.as_str()).collect();
    assert_eq!(modules, ["encoder.conv1", "encoder.down"]);
    insta::assert_debug_snapshot!(extracted.left_out);
    let saved = extract(&base, &after, &Extraction { save: true, ..how }, root).unwrap();
    insta::assert_debug_snapshot!((saved.left_out, saved.state.saved.keys().collect::<Vec<_>>(), saved.config.bias));
}

#[test]
fn transformers_conv1d_is_told_by_its_bias() {
    let dir = fixture::folder();
    let root = dir.path();
    let (base, after) = (root.join("base.safetensors"), root.join("tuned.safetensors"));
    let layers = [("attn", [6, 18], 18), ("proj", [6, 6], 6), ("fc", [6, 12], 12)];
    let model = |make: fn(&str, &[usize]) -> Tensor| -> Model {
        let weights = layers.iter().map(|(path, shape, _)| (format!("{path}.weight"), make(path, shape)));
        let biases = layers
            .iter()
            .map(|(path, _, outputs)| (format!("{path}.bias"), fixture::tensor(&[*outputs], FloatType::F32, 0.5)));
        weights.chain(biases).collect()
    };
    let before = model(|path, shape| {
        Tensor::from_values(FloatType::F32, shape.to_vec(), &fixture::values(path, 0, shape.iter().product())).unwrap()
    });
    let mut expected = model(other);
    fixture::save(&base, &before);
    fixture::save(&after, &expected);
    let extracted = extract(&base, &after, &full(), root).unwrap();
    assert!(extracted.config.fan_in_fan_out);
    assert!(extracted.modules.iter().all(|module| module.kind == LayerKind::Conv1D));
    assert_eq!(extracted.state.modules["attn"].a.shape(), [6, 6]);
    let merged = merge(&base, root);
    for (name, tensor) in &expected {
        assert_near(&merged.read(name).unwrap(), tensor, name);
    }
    // Beside an nn.Linear a square weight may be either.
    expected.insert("fc.weight".into(), other("fc", &[12, 6]));
    fixture::save(&after, &expected);
    let mut before = before;
    before.insert("fc.weight".into(), fixture::tensor(&[12, 6], FloatType::F32, 0.0));
    fixture::save(&base, &before);
    let extracted = extract(&base, &after, &full(), root).unwrap();
    assert_eq!(extracted.modules.iter().map(|module| module.path.as_str()).collect::<Vec<_>>(), ["attn", "fc"]);
    assert_eq!(extracted.left_out.len(), 1);
}

#[test]
fn two_models_that_have_nothing_to_extract() {
    let dir = fixture::folder();
    let root = dir.path();
    let (base, after) = (root.join("base.safetensors"), root.join("tuned.safetensors"));
    fixture::save(&base, &fixture::model(FloatType::F32));
    fixture::save(&after, &fixture::model(FloatType::F32));
    let mut errors = vec![extract(&base, &after, &full(), root).unwrap_err()];
    let names = Extraction { target_modules: vec!["con1".into(), "head".into(), "xyz".into()], ..full() };
    errors.push(extract(&base, &after, &names, root).unwrap_err());
    let mut broken = fixture::model(FloatType::F32);
    broken.insert("head.weight".into(), fixture::tensor(&[5, 7], FloatType::F32, f32::NAN));
    fixture::save(&after, &broken);
    errors.push(extract(&base, &after, &full(), root).unwrap_err());
    assert!(!root.join("adapter").exists());
    errors.push(extract(&base, &after, &Extraction { cut: Cut::Energy(2.0), ..full() }, root).unwrap_err());
    std::fs::create_dir(root.join("adapter")).unwrap();
    std::fs::write(root.join("adapter/mine.txt"), "mine").unwrap();
    errors.push(extract(&base, &after, &full(), root).unwrap_err());
    insta::assert_snapshot!(errors.iter().map(|error| text(root, error)).collect::<String>());
}

fn save_adapter(root: &Path, config: &LoraConfig) {
    adapter_dir::write(&root.join("adapter"), config, &fixture::adapter(1), None).unwrap();
}

#[test]
fn a_resized_adapter_merges_as_its_errors_say() {
    let dir = fixture::folder();
    let root = dir.path();
    let base = root.join("base.safetensors");
    fixture::save(&base, &fixture::model(FloatType::F32));
    let config = LoraConfig { use_rslora: true, ..fixture::config() };
    save_adapter(root, &config);
    let whole = merge(&base, root);
    let names: Vec<String> = whole.names().filter(|name| name.ends_with(".weight")).map(str::to_owned).collect();
    let read = |model: &Checkpoint| -> Vec<Tensor> { names.iter().map(|name| model.read(name).unwrap()).collect() };
    let expected = read(&whole);
    // The grouped convolution has the dense form in the file, and is no larger than its groups ask for.
    for rank in [4, 6, 16] {
        let (resized, _) =
            resize_dir(&root.join("adapter"), Cut::Rank(rank), Some((&root.join("adapter"), true))).unwrap();
        assert!(resized.modules.iter().all(|module| module.rank == rank && module.error <= 0.0));
        for ((name, expected), found) in names.iter().zip(&expected).zip(read(&merge(&base, root))) {
            assert_near(&found, expected, name);
        }
    }
    let (back, _) = resize_dir(&root.join("adapter"), Cut::Energy(1.0), Some((&root.join("adapter"), true))).unwrap();
    assert!(back.modules.iter().all(|module| module.rank <= 4), "{:?}", back.modules);
    for ((name, expected), found) in names.iter().zip(&expected).zip(read(&merge(&base, root))) {
        assert_near(&found, expected, name);
    }
}

#[test]
fn a_check_finds_everything_at_once() {
    let dir = fixture::folder();
    let root = dir.path();
    let base = root.join("base.safetensors");
    save_adapter(root, &fixture::config());
    let check = |model: &Model| {
        fixture::save(&base, model);
        check_adapter(&base, &root.join("adapter")).unwrap()
    };
    let mut model = fixture::model(FloatType::F32);
    let good = check(&model);
    assert!(good.problems.is_empty() && good.warnings.is_empty(), "{:?} {:?}", good.problems, good.warnings);
    let modules: Vec<_> =
        good.modules.iter().map(|module| (module.path.as_str(), module.kind, module.groups)).collect();
    assert_eq!(modules, fixture::LAYERS.map(|(path, kind, _, groups)| (path, kind, groups)));
    model.insert("head.weight".into(), fixture::tensor(&[5, 8], FloatType::F32, 0.0));
    model.insert("encoder.conv1.weight".into(), fixture::tensor(&[8, 6, 5], FloatType::F32, 0.0));
    model.insert("encoder.conv3.weight".into(), fixture::tensor(&[12, 4, 5], FloatType::F32, 0.0));
    model.remove("encoder.conv2.weight");
    let bad = check(&model);
    assert_eq!(bad.modules.len(), 2);
    let problems: String = bad.problems.iter().map(|error| text(root, error)).collect();
    insta::assert_snapshot!(problems);
    let config =
        LoraConfig { target_modules: Some(Patterns::List(vec!["head".into(), "haed".into()])), ..fixture::config() };
    save_adapter(root, &config);
    let odd = check(&fixture::model(FloatType::F32));
    assert!(odd.problems.is_empty());
    assert_eq!(odd.warnings, ["target_modules: `haed` is the name of no module that the adapter has"]);
}

#[test]
fn a_diff_of_two_checkpoints_has_every_tensor() {
    let dir = fixture::folder();
    let root = dir.path();
    let (first, second) = (root.join("first"), root.join("second.safetensors"));
    fixture::save_folder(&first, FloatType::F32);
    let mut model = fixture::model(FloatType::F32);
    fixture::save(&second, &model);
    let same = diff(&first, &second).unwrap();
    assert!(same.is_empty());
    assert_eq!(same.equal.len(), model.len());
    let before = model["head.bias"].values().unwrap();
    let mut after = before.clone();
    after[2] -= 0.5;
    model.insert("head.bias".into(), Tensor::from_values(FloatType::F32, vec![5], &after).unwrap());
    model.insert("head.weight".into(), fixture::tensor(&[5, 7], FloatType::F16, 0.0));
    model.insert("norm.steps".into(), Tensor::new(Dtype::I64, vec![], 8_i64.to_le_bytes().to_vec()).unwrap());
    model.insert("encoder.conv1.bias".into(), fixture::tensor(&[8], FloatType::F32, f32::NAN));
    model.remove("emb.weight");
    model.insert("new.weight".into(), fixture::tensor(&[1], FloatType::F32, 0.0));
    fixture::save(&second, &model);
    let found = diff(&first, &second).unwrap();
    assert!(!found.is_empty());
    assert_eq!(found.only, [vec!["emb.weight".to_owned()], vec!["new.weight".to_owned()]]);
    assert_eq!(found.incomparable, [("head.weight".into(), ["F32 [5, 7]".into(), "F16 [5, 7]".into()])]);
    let norm = before.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    let [nan, bias, steps] = found.different.as_slice() else { panic!("{:?}", found.different) };
    assert_eq!((nan.name.as_str(), nan.relative), ("encoder.conv1.bias", None));
    assert!(nan.max_abs.unwrap().is_infinite());
    assert_eq!(bias.name, "head.bias");
    assert!((bias.max_abs.unwrap() - 0.5).abs() < 1e-6 && (bias.relative.unwrap() - 0.5 / norm).abs() < 1e-6);
    assert_eq!((steps.name.as_str(), steps.max_abs, steps.relative), ("norm.steps", None, None));
    assert_eq!(found.equal.len(), 5);
}

#[test]
fn a_diff_of_two_adapters_is_that_of_their_deltas_too() {
    let dir = fixture::folder();
    let root = dir.path();
    let save = |name: &str, config: &LoraConfig, seed| {
        adapter_dir::write(&root.join(name), config, &fixture::adapter(seed), None).unwrap();
    };
    save("first", &fixture::config(), 1);
    save("second", &fixture::config(), 1);
    assert!(diff(&root.join("first"), &root.join("second")).unwrap().is_empty());
    // The same factors at half the scale.
    save("second", &LoraConfig { lora_alpha: 4.0, ..fixture::config() }, 1);
    let found = diff(&root.join("first"), &root.join("second")).unwrap();
    assert_eq!((found.different.len(), found.equal.len(), &found.config), (0, 10, &vec!["lora_alpha".to_owned()]));
    assert_eq!(found.deltas.len(), fixture::LAYERS.len());
    assert!(found.deltas.iter().all(|(_, relative)| (relative.unwrap() - 0.5).abs() < 1e-6), "{:?}", found.deltas);
    // Other factors of the same delta.
    let (resized, _) = resize_dir(&root.join("first"), Cut::Rank(8), Some((&root.join("second"), true))).unwrap();
    assert_eq!(resized.config.r, 8);
    let found = diff(&root.join("first"), &root.join("second")).unwrap();
    assert_eq!((found.incomparable.len(), found.config), (10, vec!["lora_alpha".to_owned(), "r".to_owned()]));
    assert!(found.deltas.iter().all(|(_, relative)| relative.unwrap() < 1e-6), "{:?}", found.deltas);
    fixture::save(&root.join("model.safetensors"), &fixture::model(FloatType::F32));
    let error = diff(&root.join("first"), &root.join("model.safetensors")).unwrap_err();
    assert!(error.to_string().starts_with("an adapter and a checkpoint cannot be compared: found an adapter in "));
}
