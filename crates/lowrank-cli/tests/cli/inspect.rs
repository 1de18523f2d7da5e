use std::fs;
use std::path::Path;

use insta::assert_snapshot;

use super::runner::{lowrank, root, run_in};

/// Copies a golden adapter, with every value of the tensors whose names have this in them made `value`.
fn with_values(case: &str, to: &Path, part: &str, value: f32) {
    let from = root().join("golden/adapters").join(case).join("adapter");
    fs::copy(from.join("adapter_config.json"), to.join("adapter_config.json")).unwrap();
    let mut bytes = fs::read(from.join("adapter_model.safetensors")).unwrap();
    let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap() + 8;
    let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    for (_, tensor) in tensors.as_object().unwrap().iter().filter(|(name, _)| name.contains(part)) {
        let offset = |i: usize| header + usize::try_from(tensor["data_offsets"][i].as_u64().unwrap()).unwrap();
        bytes[offset(0)..offset(1)].chunks_exact_mut(4).for_each(|bytes| bytes.copy_from_slice(&value.to_le_bytes()));
    }
    fs::write(to.join("adapter_model.safetensors"), bytes).unwrap();
}

#[test]
fn golden_adapters_of_every_kind() {
    for case in [
        "linear",
        "conv1d_k3",
        "conv1d_groups_block",
        "conv2d_uneven",
        "embedding",
        "hf_conv1d",
        "linear_f16",
        "modules_to_save",
        "patterns_rslora",
        "conv1d_lora_bias",
    ] {
        assert_snapshot!(format!("inspect_{case}"), lowrank(&format!("inspect golden/adapters/{case}/adapter")));
    }
}

#[test]
fn json_is_one_object() {
    let report = lowrank("inspect golden/adapters/patterns/adapter --json");
    assert_eq!((report.code, &*report.stderr), (0, ""));
    let report = report.json();
    let modules = report["modules"].as_array().unwrap();
    assert_eq!((report["dead"].as_u64(), report["non_finite"].as_u64()), (Some(0), Some(0)));
    assert!(modules.len() > 1 && modules.iter().all(|module| module["norm"].as_f64().unwrap() > 0.0));
}

#[test]
fn a_dead_module_is_a_no() {
    let dir = tempfile::tempdir().unwrap();
    with_values("conv1d_k3", dir.path(), "lora_B", 0.0);
    assert_snapshot!(run_in(dir.path(), ["inspect", "."]));
}

#[test]
fn a_value_that_is_not_finite_is_a_no() {
    let dir = tempfile::tempdir().unwrap();
    with_values("conv1d_k3", dir.path(), "lora_A", f32::NAN);
    assert_snapshot!(run_in(dir.path(), ["inspect", "."]));
    let json = run_in(dir.path(), ["inspect", ".", "--json"]);
    assert_eq!(json.code, 1);
    assert_eq!(json.json()["modules"][0]["norm"], serde_json::Value::Null);
}

#[test]
fn tensors_of_a_file() {
    assert_snapshot!(lowrank("inspect golden/adapters/linear/base.safetensors"));
}

#[test]
fn adapters_that_are_somewhere_else() {
    assert_snapshot!(lowrank("inspect golden/adapters/named_adapter/adapter"));
}

#[test]
fn an_adapter_with_dora() {
    assert_snapshot!(lowrank("inspect golden/adapters/dora_chain/adapter"));
}
