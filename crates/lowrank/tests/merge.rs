//! Merging into checkpoints: what is changed, what is copied, what is refused.

mod fixture;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use lowrank::Error;
use lowrank::adapter::state_dict::{ModuleTensors, StateDict};
use lowrank::adapter::tensor::{Dtype, Tensor};
use lowrank::adapter::{Factors, GroupMode, Layer, LayerKind};
use lowrank::config::{Bias, LoraConfig};
use lowrank::files::merge_checkpoint::MergeSummary;
use lowrank::files::{Checkpoint, adapter_dir, merge_checkpoint};
use lowrank::float::FloatType;

fn merge(base: &Path, adapter: &Path, output: &Path) -> Result<MergeSummary, Error> {
    merge_checkpoint(base, adapter, output, false, &mut |_| {})
}

fn text(root: &Path, error: &Error) -> String {
    let mut text = String::new();
    let parts = if error.parts().is_empty() { std::slice::from_ref(error) } else { error.parts() };
    for part in parts {
        writeln!(text, "{part}").unwrap();
        writeln!(text, "  hint: {}", part.hint().unwrap_or("none")).unwrap();
    }
    text.replace(&format!("{}/", root.display()), "")
}

fn save_adapter(root: &Path, config: &LoraConfig, state: &StateDict) {
    adapter_dir::write(&root.join("adapter"), config, state, None).unwrap();
}

#[test]
fn every_kind_and_type_gets_its_delta() {
    for float in [FloatType::F64, FloatType::F32, FloatType::F16, FloatType::Bf16] {
        let root = tempfile::tempdir().unwrap();
        let (base, out) = (root.path().join("base.safetensors"), root.path().join("out.safetensors"));
        save_adapter(root.path(), &fixture::config(), &fixture::adapter(1));
        fixture::save(&base, &fixture::model(float));
        let summary = merge(&base, &root.path().join("adapter"), &out).unwrap();
        assert_eq!((summary.merged.len(), summary.unchanged), (5, 5));
        let (before, after) = (fixture::model(float), Checkpoint::open(&out).unwrap());
        assert_eq!(before.len(), 10);
        for (path, kind, shape, groups) in fixture::LAYERS {
            let name = format!("{path}.weight");
            let delta = fixture::factors(path, kind, shape, groups, 1).delta().unwrap();
            let merged = after.read(&name).unwrap();
            assert_eq!((merged.dtype(), merged.shape()), (before[&name].dtype(), shape));
            let values = before[&name].values().unwrap().into_iter().zip(delta).zip(merged.values().unwrap());
            for ((weight, delta), merged) in values {
                let [weight, delta, merged] = [weight, delta, merged].map(f64::from);
                let epsilon = float.epsilon().max(f64::from(f32::EPSILON));
                let tolerance = 4.0 * epsilon * (weight.abs() + delta.abs() + 1.0);
                assert!(
                    (weight + delta - merged).abs() <= tolerance,
                    "{name} {}: {weight} + {delta}, {merged}",
                    float.name()
                );
            }
        }
        for name in ["head.bias", "norm.steps", "encoder.conv2.bias"] {
            assert_eq!(after.read(name).unwrap(), before[name], "{name}");
        }
        assert_eq!(after.shards()[0].metadata()["format"], "pt");
    }
}

/// As in models that call `F.conv1d` with parameters of their own.
#[test]
fn a_layer_without_a_module_of_its_own_gets_its_delta() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    save_adapter(root.path(), &fixture::config(), &fixture::adapter(1));
    let model = fixture::model(FloatType::F32);
    let bare = |name: &str| name.replace("encoder.conv2.", "encoder.conv2_");
    fixture::save(&path("base.safetensors"), &model);
    fixture::save(&path("bare.safetensors"), &model.into_iter().map(|(name, tensor)| (bare(&name), tensor)).collect());
    for name in ["base", "bare"] {
        merge(&path(&format!("{name}.safetensors")), &path("adapter"), &path(&format!("{name}-out.safetensors")))
            .unwrap();
    }
    let [plain, merged] =
        ["base-out.safetensors", "bare-out.safetensors"].map(|name| Checkpoint::open(&path(name)).unwrap());
    for name in plain.names() {
        assert_eq!(plain.read(name).unwrap(), merged.read(&bare(name)).unwrap(), "{name}");
    }
}

#[test]
fn a_folder_keeps_its_shards_and_its_other_files() {
    let root = tempfile::tempdir().unwrap();
    let (base, out) = (root.path().join("base"), root.path().join("out"));
    save_adapter(root.path(), &fixture::config(), &fixture::adapter(1));
    fixture::save_folder(&base, FloatType::F32);
    for name in [
        "pytorch_model.bin",
        "model.fp16.safetensors",
        "adapter_config.json",
        "adapter_model.safetensors",
        ".gitattributes",
    ] {
        fs::write(base.join(name), "x").unwrap();
    }
    let mut last = (0, 0);
    let summary = merge_checkpoint(&base, &root.path().join("adapter"), &out, false, &mut |progress| {
        assert!(progress.done >= last.0 && progress.done <= progress.total && !progress.tensor.is_empty());
        last = (progress.done, progress.total);
    })
    .unwrap();
    assert!(last.0 == last.1 && last.0 > 0, "the last report is the whole: {last:?}");
    let left_out = [
        ".gitattributes",
        "adapter_config.json",
        "adapter_model.safetensors",
        "model.fp16.safetensors",
        "pytorch_model.bin",
    ];
    assert_eq!(summary.left_out, left_out);
    let (before, after) = (fixture::contents(&base), fixture::contents(&out));
    let names: Vec<_> = before.keys().filter(|name| !left_out.contains(&name.as_str())).collect();
    assert_eq!(after.keys().collect::<Vec<_>>(), names);
    for name in ["config.json", "1_Pooling/config.json", "model.safetensors.index.json"] {
        assert_eq!(before[name], after[name]);
    }
    let single = root.path().join("single.safetensors");
    fixture::save(&single, &fixture::model(FloatType::F32));
    merge(&single, &root.path().join("adapter"), &root.path().join("merged.safetensors")).unwrap();
    let (sharded, whole) =
        (Checkpoint::open(&out).unwrap(), Checkpoint::open(&root.path().join("merged.safetensors")).unwrap());
    for name in whole.names() {
        assert_eq!(sharded.read(name).unwrap(), whole.read(name).unwrap(), "{name}");
    }
}

#[test]
fn saved_tensors_replace_and_biases_add_up() {
    let root = tempfile::tempdir().unwrap();
    let (base, out) = (root.path().join("base.safetensors"), root.path().join("out.safetensors"));
    fixture::save(&base, &fixture::model(FloatType::Bf16));
    let config = LoraConfig {
        bias: Bias::All,
        lora_bias: true,
        modules_to_save: Some(vec!["norm".into(), "down".into()]),
        ..fixture::config()
    };
    let mut state = fixture::adapter(1);
    state.modules.retain(|path, _| path == "head");
    state.modules.get_mut("head").unwrap().bias = Some(fixture::tensor(&[5], FloatType::F32, 0.25));
    state.saved.insert("head.bias".into(), fixture::tensor(&[5], FloatType::F32, 1.0));
    state.saved.insert("encoder.conv1.bias".into(), fixture::tensor(&[8], FloatType::F32, 3.0));
    state.saved.insert("encoder.down.weight".into(), fixture::tensor(&[4, 1, 3, 3], FloatType::F32, 4.0));
    state.saved.insert("norm.steps".into(), Tensor::new(Dtype::I64, vec![], 9_i64.to_le_bytes().to_vec()).unwrap());
    save_adapter(root.path(), &config, &state);
    let summary = merge(&base, &root.path().join("adapter"), &out).unwrap();
    assert_eq!(summary.merged.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["head.bias", "head.weight"]);
    assert_eq!(summary.replaced.len(), 4);
    let after = Checkpoint::open(&out).unwrap();
    // scale 2 times 0.25 on top of the trained bias, in the base's type.
    for (name, expected) in [("head.bias", 1.5), ("encoder.conv1.bias", 3.0), ("encoder.down.weight", 4.0)] {
        let tensor = after.read(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::BF16);
        assert_eq!(tensor.values().unwrap(), vec![expected; tensor.shape().iter().product()], "{name}");
    }
    assert_eq!(after.read("norm.steps").unwrap().data(), 9_i64.to_le_bytes());
}

#[test]
fn shared_factors_are_merged_without_knowing_the_groups() {
    let root = tempfile::tempdir().unwrap();
    let (base, out) = (root.path().join("base.safetensors"), root.path().join("out.safetensors"));
    fixture::save(&base, &fixture::model(FloatType::F32));
    let (shape, mode) = ([12, 4, 5], GroupMode::Shared);
    let layer = Layer::new(LayerKind::Conv1d, &shape, 2).unwrap();
    let (a, b) = (fixture::values("A", 5, 3 * 4 * 5), fixture::values("B", 5, 12 * 3));
    let factors = Factors::new(layer, mode, 3, 2.0, a, b, None).unwrap();
    let tensors = ModuleTensors::from_factors(&factors, FloatType::F32).unwrap();
    assert_eq!((tensors.a.shape(), tensors.b.shape()), (&[3, 4, 5][..], &[12, 3, 1][..]));
    let state = StateDict { modules: BTreeMap::from([("encoder.conv2".into(), tensors)]), ..StateDict::default() };
    let config = LoraConfig { r: 3, lora_alpha: 6.0, group_mode: mode, ..fixture::config() };
    save_adapter(root.path(), &config, &state);
    merge(&base, &root.path().join("adapter"), &out).unwrap();
    let before = fixture::model(FloatType::F32)["encoder.conv2.weight"].values().unwrap();
    let after = Checkpoint::open(&out).unwrap().read("encoder.conv2.weight").unwrap().values().unwrap();
    for ((weight, delta), merged) in before.iter().zip(factors.delta().unwrap()).zip(after) {
        assert!((weight + delta - merged).abs() < 1e-5);
    }
}

#[test]
fn an_adapter_of_zeros_changes_no_bit() {
    let root = tempfile::tempdir().unwrap();
    let (base, out) = (root.path().join("base.safetensors"), root.path().join("out.safetensors"));
    fixture::save(&base, &fixture::model(FloatType::F16));
    let mut state = fixture::adapter(1);
    for module in state.modules.values_mut() {
        module.b = fixture::zeros(FloatType::F32, module.b.shape());
    }
    save_adapter(root.path(), &fixture::config(), &state);
    merge(&base, &root.path().join("adapter"), &out).unwrap();
    assert_eq!(fs::read(&base).unwrap(), fs::read(&out).unwrap());
}

#[test]
fn adapters_of_other_models_are_refused_with_all_that_is_wrong() {
    let root = tempfile::tempdir().unwrap();
    let (base, out) = (root.path().join("base.safetensors"), root.path().join("out.safetensors"));
    let mut model = fixture::model(FloatType::F32);
    let head = model.remove("head.weight").unwrap();
    model.insert("model.head.weight".into(), head);
    let conv = model.remove("encoder.conv1.weight").unwrap();
    model.insert("conv1.weight".into(), conv);
    model.insert("encoder.conv2.weight_g".into(), fixture::tensor(&[12, 1, 1], FloatType::F32, 1.0));
    model.remove("encoder.conv2.weight");
    model.insert("encoder.down.weight".into(), fixture::tensor(&[4, 2, 3, 3], FloatType::F32, 1.0));
    model.insert("emb.weight".into(), Tensor::new(Dtype::I8, vec![11, 6], vec![1; 66]).unwrap());
    fixture::save(&base, &model);
    save_adapter(root.path(), &fixture::config(), &fixture::adapter(1));
    let error = merge(&base, &root.path().join("adapter"), &out).unwrap_err();
    assert!(!out.exists());
    insta::assert_snapshot!(text(root.path(), &error));
}

#[test]
fn saved_tensors_that_do_not_fit_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let (base, out) = (root.path().join("base.safetensors"), root.path().join("out.safetensors"));
    fixture::save(&base, &fixture::model(FloatType::F16));
    let config =
        LoraConfig { modules_to_save: Some(vec!["norm".into(), "head".into(), "gone".into()]), ..fixture::config() };
    let mut state = fixture::adapter(1);
    state.modules.remove("head");
    state.saved.insert("head.bias".into(), fixture::tensor(&[6], FloatType::F32, 1.0));
    state.saved.insert("gone.weight".into(), fixture::tensor(&[6], FloatType::F32, 1.0));
    save_adapter(root.path(), &config, &state);
    let mut report = text(root.path(), &merge(&base, &root.path().join("adapter"), &out).unwrap_err());
    for saved in [
        ("head.bias", fixture::tensor(&[5], FloatType::F32, 1e9)),
        ("norm.steps", fixture::tensor(&[], FloatType::F32, 1.0)),
    ] {
        state.saved = BTreeMap::from([(saved.0.to_owned(), saved.1)]);
        save_adapter(root.path(), &config, &state);
        report += &text(root.path(), &merge(&base, &root.path().join("adapter"), &out).unwrap_err());
    }
    assert!(!out.exists());
    insta::assert_snapshot!(report);
}

#[test]
fn a_square_weight_with_contradicting_neighbours_is_not_guessed() {
    let root = tempfile::tempdir().unwrap();
    let (base, out) = (root.path().join("base.safetensors"), root.path().join("out.safetensors"));
    fixture::save(
        &base,
        &BTreeMap::from([
            ("square.weight".to_owned(), fixture::tensor(&[6, 6], FloatType::F32, 1.0)),
            ("wide.weight".to_owned(), fixture::tensor(&[6, 9], FloatType::F32, 1.0)),
        ]),
    );
    let mut state = StateDict::default();
    for (path, kind, shape) in [("square", LayerKind::Linear, [6, 6]), ("wide", LayerKind::Conv1D, [6, 9])] {
        let factors = fixture::factors(path, kind, &shape, 1, 1);
        let tensors = ModuleTensors::from_factors(&factors, FloatType::F32).unwrap();
        state.modules.insert(path.into(), tensors);
    }
    save_adapter(root.path(), &fixture::config(), &state);
    let error = merge(&base, &root.path().join("adapter"), &out).unwrap_err();
    insta::assert_snapshot!(text(root.path(), &error));
    save_adapter(root.path(), &LoraConfig { fan_in_fan_out: true, ..fixture::config() }, &state);
    assert_eq!(merge(&base, &root.path().join("adapter"), &out).unwrap().merged.len(), 2);
}

#[test]
fn outputs_in_the_way_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let (file, folder) = (root.path().join("base.safetensors"), root.path().join("base"));
    fixture::save(&file, &fixture::model(FloatType::F32));
    fixture::save_folder(&folder, FloatType::F32);
    save_adapter(root.path(), &fixture::config(), &fixture::adapter(1));
    fs::create_dir(root.path().join("other")).unwrap();
    fs::write(root.path().join("other/thesis.txt"), "years of work").unwrap();
    fixture::save_folder(&root.path().join("old"), FloatType::F32);
    fs::write(root.path().join("old/thesis.txt"), "years of work").unwrap();
    fs::write(root.path().join("old/1_Pooling/notes.txt"), "more").unwrap();
    let before = fixture::contents(root.path());
    let mut report = String::new();
    for (base, output, force) in [
        (&file, "base.safetensors", false),
        (&folder, "base", false),
        (&folder, "adapter", true),
        (&folder, "other", true),
        (&folder, "old", true),
        (&folder, "base.safetensors", true),
        (&file, "old", true),
        (&file, "out.bin", false),
        (&file, "missing/out.safetensors", false),
        (&folder, "missing/out", false),
        (&folder, "base/out", false),
        (&folder, "base/1_Pooling/out", false),
    ] {
        let result =
            merge_checkpoint(base, &root.path().join("adapter"), &root.path().join(output), force, &mut |_| {});
        let error = result.expect_err(output);
        write!(report, "{output}, force {force}\n{}", text(root.path(), &error)).unwrap();
        assert!(fixture::contents(root.path()) == before, "{output}");
    }
    insta::assert_snapshot!(report);
    fs::remove_file(root.path().join("old/thesis.txt")).unwrap();
    fs::remove_file(root.path().join("old/1_Pooling/notes.txt")).unwrap();
    merge_checkpoint(&folder, &root.path().join("adapter"), &root.path().join("old"), true, &mut |_| {}).unwrap();
}
