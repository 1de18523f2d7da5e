//! Bases that `PyTorch` wrote with weight normalisation, in both of its forms: merged, and written in every form.

mod fixture;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lowrank::Error;
use lowrank::adapter::LayerKind;
use lowrank::files::merge_checkpoint::{MergeSummary, merge_checkpoint_to};
use lowrank::files::{Checkpoint, Disk, MergeOptions, WeightNorm, check_adapter};
use lowrank::float::FloatType;

const FORMS: [&str; 2] = ["hooks", "parametrizations"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/weight_norm").join(name)
}

fn base(form: &str) -> PathBuf {
    golden(&format!("base.{form}.safetensors"))
}

fn merge(base: &Path, output: &Path, weight_norm: WeightNorm) -> Result<MergeSummary, Error> {
    let options = MergeOptions { weight_norm, ..MergeOptions::default() };
    merge_checkpoint_to(&Disk, base, &golden("adapter"), output, options, &mut |_| {})
}

fn values(checkpoint: &Checkpoint) -> BTreeMap<String, Vec<f32>> {
    checkpoint.names().map(|name| (name.to_owned(), checkpoint.read(name).unwrap().values().unwrap())).collect()
}

fn assert_close(found: &BTreeMap<String, Vec<f32>>, expected: &BTreeMap<String, Vec<f32>>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, expected) in expected {
        let largest = expected.iter().fold(1.0_f32, |most, value| most.max(value.abs()));
        for (found, expected) in found[name].iter().zip(expected) {
            assert!((found - expected).abs() <= 2e-6 * largest, "{name}: {found}, expected {expected}");
        }
    }
}

/// `g` and `v` are those that `PyTorch` gives the merged weight; a layer without an adapter keeps its bits.
#[test]
fn normalisation_is_kept_in_the_form_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    for form in FORMS {
        let output = dir.path().join(format!("{form}.safetensors"));
        let summary = merge(&base(form), &output, WeightNorm::Keep).unwrap();
        let merged: Vec<&str> = summary.merged.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((merged.len(), summary.folded.len()), (3, 0));
        assert!(["conv.weight", "fc.weight", "up.weight"].iter().all(|name| merged.contains(name)), "{merged:?}");
        let found = values(&Checkpoint::open(&output).unwrap());
        let mut expected = values(&Checkpoint::open(&golden(&format!("merged.{form}.safetensors"))).unwrap());
        for (name, own) in values(&Checkpoint::open(&base(form)).unwrap()) {
            if name.starts_with("pos.") {
                assert_eq!(found[&name], own, "{name}");
                expected.insert(name, own);
            }
        }
        assert_close(&found, &expected);
    }
}

#[test]
fn normalisation_is_folded_into_plain_weights() {
    let dir = tempfile::tempdir().unwrap();
    let expected = values(&Checkpoint::open(&golden("merged.safetensors")).unwrap());
    for form in FORMS {
        let output = dir.path().join(format!("{form}.safetensors"));
        let summary = merge(&base(form), &output, WeightNorm::Fold).unwrap();
        assert_eq!((summary.merged.len(), summary.folded), (3, vec!["pos.weight".to_owned()]));
        assert_close(&values(&Checkpoint::open(&output).unwrap()), &expected);
    }
    // A base that has none is merged as ever.
    let output = dir.path().join("plain.safetensors");
    merge(&golden("base.safetensors"), &output, WeightNorm::Fold).unwrap();
    assert_close(&values(&Checkpoint::open(&output).unwrap()), &expected);
}

#[test]
fn an_adapter_is_checked_against_the_folded_weight() {
    for form in FORMS {
        let check = check_adapter(&base(form), &golden("adapter")).unwrap();
        assert!(check.problems.is_empty(), "{:?}", check.problems);
        let kinds: Vec<_> = check.modules.iter().map(|module| (module.path.as_str(), module.kind)).collect();
        let expected = [("conv", LayerKind::Conv1d), ("fc", LayerKind::Linear), ("up", LayerKind::ConvTranspose1d)];
        assert_eq!(kinds, expected);
    }
}

#[test]
fn the_index_of_a_sharded_base_follows() {
    let dir = tempfile::tempdir().unwrap();
    let model = Checkpoint::open(&base("hooks")).unwrap();
    let folder = dir.path().join("base");
    std::fs::create_dir(&folder).unwrap();
    let (mut shards, mut map) = ([BTreeMap::new(), BTreeMap::new()], Vec::new());
    for (number, name) in model.names().enumerate() {
        map.push(format!("\"{name}\": \"model-{}.safetensors\"", number % 2));
        shards[number % 2].insert(name.to_owned(), model.read(name).unwrap());
    }
    for (number, shard) in shards.iter().enumerate() {
        fixture::save(&folder.join(format!("model-{number}.safetensors")), shard);
    }
    let index = format!("{{\"metadata\": {{\"total_size\": 1}}, \"weight_map\": {{{}}}}}", map.join(", "));
    std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();

    let output = dir.path().join("merged");
    merge(&folder, &output, WeightNorm::Fold).unwrap();
    let merged = Checkpoint::open(&output).unwrap();
    assert_close(&values(&merged), &values(&Checkpoint::open(&golden("merged.safetensors")).unwrap()));
    let index = std::fs::read_to_string(output.join("model.safetensors.index.json")).unwrap();
    let bytes: usize = merged.names().map(|name| merged.read(name).unwrap().data().len()).sum();
    assert!(index.contains(&format!("\"total_size\": {bytes}")), "{index}");
}

#[test]
fn an_output_that_becomes_zero_keeps_its_direction() {
    let dir = tempfile::tempdir().unwrap();
    let model = Checkpoint::open(&base("hooks")).unwrap();
    let mut tensors: BTreeMap<_, _> = model.names().map(|name| (name.to_owned(), model.read(name).unwrap())).collect();
    // The base of `fc` is the adapter's delta with the other sign, in its first row.
    let shape = model.get("fc.weight_v").unwrap().shape.clone();
    let [merged, plain] = ["merged.safetensors", "base.safetensors"]
        .map(|name| Checkpoint::open(&golden(name)).unwrap().read("fc.weight").unwrap().values().unwrap());
    let row: Vec<f32> = merged.iter().zip(&plain).take(shape[1]).map(|(merged, plain)| plain - merged).collect();
    let mut v = model.read("fc.weight_v").unwrap().values().unwrap();
    v[..shape[1]].copy_from_slice(&row);
    let mut g = model.read("fc.weight_g").unwrap().values().unwrap();
    g[0] = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    let of = |shape: &[usize], values: &[f32]| {
        lowrank::adapter::tensor::Tensor::from_values(FloatType::F32, shape.to_vec(), values).unwrap()
    };
    tensors.insert("fc.weight_v".into(), of(&shape, &v));
    tensors.insert("fc.weight_g".into(), of(&[shape[0], 1], &g));
    let (from, output) = (dir.path().join("base.safetensors"), dir.path().join("merged.safetensors"));
    fixture::save(&from, &tensors);
    merge(&from, &output, WeightNorm::Keep).unwrap();
    let found = values(&Checkpoint::open(&output).unwrap());
    assert!(found["fc.weight_g"][0] < 1e-5, "{}", found["fc.weight_g"][0]);
    assert!(found["fc.weight_v"].iter().take(shape[1]).any(|value| *value != 0.0));
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = Checkpoint::open(&base("hooks")).unwrap();
    let mut tensors: BTreeMap<_, _> = model.names().map(|name| (name.to_owned(), model.read(name).unwrap())).collect();
    tensors.insert("conv.weight_g".into(), fixture::tensor(&[5, 1, 1], FloatType::F32, 1.0));
    let from = dir.path().join("base.safetensors");
    fixture::save(&from, &tensors);
    let error = merge(&from, &dir.path().join("merged.safetensors"), WeightNorm::Keep).unwrap_err();
    assert!(error.to_string().contains("tensor `conv.weight_g`") && error.to_string().contains("[5, 1, 1]"), "{error}");
}
