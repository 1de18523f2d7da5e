use insta::assert_snapshot;

use super::model::without_digits;
use super::runner::{Ran, lowrank, root, run_in};

/// Merges a golden adapter, and extracts one from the result into the same temporary folder.
fn extract(case: &str, more: &[&str], dir: &tempfile::TempDir) -> Ran {
    let base = root().join(format!("golden/adapters/{case}/base.safetensors"));
    let adapter = root().join(format!("golden/adapters/{case}/adapter"));
    let [base, adapter] = [base, adapter].map(|path| path.to_str().unwrap().to_owned());
    let merged = run_in(dir.path(), ["merge", "--base", &base, "--adapter", &adapter, "--output", "tuned.safetensors"]);
    assert_eq!(merged.code, 0, "{merged}");
    std::fs::copy(&base, dir.path().join("base.safetensors")).unwrap();
    let args = ["extract", "base.safetensors", "tuned.safetensors", "--output", "extracted"];
    run_in(dir.path(), args.iter().chain(more)).without(dir)
}

#[test]
fn an_adapter_of_every_module_that_changed() {
    let dir = tempfile::tempdir().unwrap();
    assert_snapshot!(without_digits(&extract("patterns", &["--rank", "2"], &dir).to_string()));
    assert_eq!(run_in(dir.path(), ["check", "extracted", "--base", "base.safetensors"]).code, 0);
}

#[test]
fn what_takes_no_adapter_is_listed_or_saved() {
    let dir = tempfile::tempdir().unwrap();
    assert_snapshot!(without_digits(&extract("bias_all", &["--energy", "0.99"], &dir).to_string()));
    let more = ["--energy", "0.99", "--save", "--force"];
    assert_snapshot!(without_digits(&extract_again(&dir, &more).to_string()));
    assert_eq!(run_in(dir.path(), ["check", "extracted", "--base", "base.safetensors"]).code, 0);
}

fn extract_again(dir: &tempfile::TempDir, more: &[&str]) -> Ran {
    let args = ["extract", "base.safetensors", "tuned.safetensors", "--output", "extracted"];
    run_in(dir.path(), args.iter().chain(more)).without(dir)
}

#[test]
fn json_has_every_module() {
    let dir = tempfile::tempdir().unwrap();
    let done = extract("conv1d_k3", &["--rank", "100", "--json"], &dir);
    assert_eq!((done.code, &*done.stderr), (0, ""));
    let report = done.json();
    for module in report["modules"].as_array().unwrap() {
        assert_eq!(module["kind"], "Conv1d");
        assert!(module["error"].as_f64().unwrap() < 1e-6, "{module}");
    }
}

#[test]
fn what_cannot_be_asked() {
    let base = "golden/adapters/linear/base.safetensors";
    assert_snapshot!(lowrank(&format!("extract {base} {base} --rank 2")));
    assert_snapshot!(lowrank(&format!("extract {base} golden/adapters/linear/bsae.safetensors --rank 2")));
    assert_snapshot!(lowrank(&format!("extract {base} {base} --rnk 2")));
    assert_snapshot!(lowrank(&format!("extract {base} {base} --rank 2 --target-modules nowhere")));
    assert_snapshot!(lowrank(&format!("extract {base} {base} --rank 2 --groups conv=0")));
}
