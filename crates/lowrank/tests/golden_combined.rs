//! Adapters that PEFT combined with `add_weighted_adapter`: the same from the same adapters.

use std::path::{Path, PathBuf};

use lowrank::adapter::combine::{Combination, CombinationType, MajoritySign};
use lowrank::adapter::{Layer, LayerKind};
use lowrank::files::{Adapter, adapter_dir, combine_dirs};
use serde_json::Value;

#[test]
fn combined_adapters_are_those_of_peft() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/combined");
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("cases.json")).unwrap()).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 15);
    for case in cases {
        let model = folder.join(case["model"].as_str().unwrap());
        let list = |key: &str| case[key].as_array().unwrap().iter();
        let adapters: Vec<PathBuf> = list("adapters").map(|name| model.join(name.as_str().unwrap())).collect();
        let weights: Vec<f64> = list("weights").map(|weight| weight.as_f64().unwrap()).collect();
        let output = tempfile::tempdir().unwrap();
        let output = output.path().join("combined");
        combine_dirs(&adapters, &weights, &how(case), &output, false, &mut |_, _, _| {}).unwrap();
        let ours = adapter_dir::read(&output).unwrap();
        let theirs = adapter_dir::read(&model.join(case["combined"].as_str().unwrap())).unwrap();
        compare(&format!("{}/{}", case["model"], case["combined"]), &ours, &theirs);
    }
}

fn how(case: &Value) -> Combination {
    let (kind, sign) = (case["combination_type"].as_str().unwrap(), case["majority_sign_method"].as_str());
    Combination {
        combination_type: CombinationType::ALL.into_iter().find(|found| found.name() == kind).unwrap(),
        svd_rank: case["svd_rank"].as_u64().map(|rank| rank.try_into().unwrap()),
        density: case["density"].as_f64(),
        majority_sign_method: sign.and_then(|sign| MajoritySign::ALL.into_iter().find(|found| found.name() == sign)),
        seed: None,
    }
}

/// The same keys, shapes, types and configuration but for what only starts a training, and the same deltas.
fn compare(case: &str, ours: &Adapter, theirs: &Adapter) {
    let shapes = |adapter: &Adapter| -> Vec<_> {
        let tensors = adapter.state.to_tensors();
        tensors.into_iter().map(|(key, tensor)| (key, tensor.dtype(), tensor.shape().to_vec())).collect()
    };
    assert_eq!(shapes(ours), shapes(theirs), "{case}");
    let (config, expected) = (&ours.config, &theirs.config);
    assert_eq!((config.r, config.lora_alpha), (expected.r, expected.lora_alpha), "{case}");
    assert!(config.rank_pattern.is_empty() && config.alpha_pattern.is_empty() && expected.rank_pattern.is_empty());
    let targets = |adapter: &Adapter| {
        let mut names = adapter.config.target_modules.clone().unwrap().entries().to_vec();
        names.sort();
        names
    };
    assert_eq!(targets(ours), targets(theirs));
    for path in theirs.state.modules.keys() {
        let (found, expected) = (delta(ours, path), delta(theirs, path));
        let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() <= 1e-5 * largest, "{case}: {path}: {found} and {expected}");
        }
    }
}

fn delta(adapter: &Adapter, path: &str) -> Vec<f32> {
    let tensors = &adapter.state.modules[path];
    let kernel = &tensors.a.shape()[2..];
    let kind = [LayerKind::Linear, LayerKind::Conv1d, LayerKind::Conv2d, LayerKind::Conv3d][kernel.len()];
    let shape = [&[tensors.b.shape()[0], tensors.a.shape()[1]], kernel].concat();
    let layer = Layer::new(kind, &shape, 1).unwrap();
    adapter.state.factors(path, &layer, &adapter.config).unwrap().delta().unwrap()
}
