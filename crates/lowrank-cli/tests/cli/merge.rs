use std::fs;

use insta::assert_snapshot;

use super::model::without_digits;
use super::runner::{lowrank, root, run_in};

/// Merges a golden adapter into a temporary file.
fn merge(case: &str, dir: &tempfile::TempDir, more: &[&str]) -> super::runner::Ran {
    let (base, adapter) =
        (format!("golden/adapters/{case}/base.safetensors"), format!("golden/adapters/{case}/adapter"));
    let output = dir.path().join("merged.safetensors");
    let args = ["merge", "--base", &base, "--adapter", &adapter, "--output", output.to_str().unwrap()];
    run_in(&root(), args.iter().chain(more)).without(dir)
}

#[test]
fn an_adapter_and_its_saved_modules() {
    let dir = tempfile::tempdir().unwrap();
    assert_snapshot!(without_digits(&merge("modules_to_save", &dir, &[]).to_string()));
    assert!(dir.path().join("merged.safetensors").exists());
}

#[test]
fn rows_of_an_embedding() {
    let dir = tempfile::tempdir().unwrap();
    assert_snapshot!(without_digits(&merge("tokens_list", &dir, &[]).to_string()));
    let golden = "golden/adapters/tokens_list";
    assert_snapshot!(lowrank(&format!("check {golden}/adapter --base {golden}/base.safetensors")));
    let inspected = lowrank(&format!("inspect {golden}/adapter --json")).json();
    assert_eq!(inspected["saved"][0]["name"], "embed_tokens.token_adapter.trainable_tokens_delta");
}

#[test]
fn json_has_the_largest_delta_and_error() {
    let dir = tempfile::tempdir().unwrap();
    let done = merge("patterns", &dir, &["--json"]);
    assert_eq!((done.code, &*done.stderr), (0, ""));
    let report = done.json();
    assert_eq!(report["merged"].as_array().unwrap().len(), 4);
    assert!(report["max_delta"].as_f64().unwrap() > 0.0);
    for tensor in report["merged"].as_array().unwrap() {
        assert!(tensor["max_error"].as_f64() <= tensor["bound"].as_f64(), "{tensor}");
    }
}

#[test]
fn an_output_that_is_there_needs_force() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("merged.safetensors");
    fs::write(&output, "mine").unwrap();
    assert_snapshot!(merge("linear", &dir, &[]));
    assert_eq!(fs::read(&output).unwrap(), b"mine");
    assert_eq!(merge("linear", &dir, &["--force"]).code, 0);
    assert_ne!(fs::read(&output).unwrap(), b"mine");
}

#[test]
fn an_adapter_that_reaches_outside_its_groups() {
    let dir = tempfile::tempdir().unwrap();
    assert_snapshot!(merge("conv1d_groups_dense", &dir, &[]));
    assert!(!dir.path().join("merged.safetensors").exists());
}

#[test]
fn an_adapter_of_another_model() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("merged.safetensors");
    let (base, adapter) = ("golden/adapters/conv1d_k3/base.safetensors", "golden/adapters/patterns/adapter");
    let args = ["merge", "--base", base, "--adapter", adapter, "--output", output.to_str().unwrap()];
    assert_snapshot!(run_in(&root(), args));
}
