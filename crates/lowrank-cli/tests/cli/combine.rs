use std::fs;

use insta::assert_snapshot;

use super::model::without_digits;
use super::runner::{Ran, root, run_in};

/// Combines golden adapters into a temporary folder.
fn combine(adapters: &[&str], weights: &str, more: &[&str], dir: &tempfile::TempDir) -> Ran {
    let adapters = adapters.iter().map(|name| format!("golden/combined/{name}"));
    let (weights, output) = (format!("--weights={weights}"), dir.path().join("combined").display().to_string());
    let args = ["combine".to_owned()].into_iter().chain(adapters).chain([weights, "--output".into(), output]);
    run_in(&root(), args.chain(more.iter().map(ToString::to_string))).without(dir)
}

const TWO: [&str; 2] = ["factors/a", "factors/b"];
const THREE: [&str; 3] = ["factors/a", "factors/b", "factors/c"];

#[test]
fn three_adapters_of_other_ranks_become_one() {
    let dir = tempfile::tempdir().unwrap();
    assert_snapshot!(without_digits(&combine(&THREE, "1,-0.5,2", &["--svd-rank", "4"], &dir).to_string()));
    assert_snapshot!(fs::read_to_string(dir.path().join("combined/README.md")).unwrap());
    assert_eq!(run_in(dir.path(), ["inspect", "combined"]).code, 0);
}

#[test]
fn json_has_every_module_and_its_distance() {
    let dir = tempfile::tempdir().unwrap();
    let done = combine(&THREE, "1,-0.5,2", &["--type", "cat", "--json"], &dir);
    assert_eq!((done.code, &*done.stderr), (0, ""));
    let report = done.json();
    assert_eq!((report["combination_type"].as_str(), report["r"].as_u64()), (Some("cat"), Some(8)));
    assert_eq!(report["adapters"][1]["weight"].as_f64(), Some(-0.5));
    assert_eq!(report["modules"].as_array().unwrap().len(), 6);
    for module in report["modules"].as_array().unwrap() {
        assert_eq!((module["adapters"].as_u64(), module["r"].as_u64()), (Some(3), Some(8)));
        assert!(module["distance"].as_f64().unwrap() < 1e-6, "{module}");
    }
}

#[test]
fn a_seed_makes_the_same_adapter_again() {
    let dare = |seed: &str| {
        let dir = tempfile::tempdir().unwrap();
        let more = ["--combination-type", "dare_ties_svd", "--density", "0.5", "--seed", seed];
        assert_eq!(combine(&THREE, "1,1,1", &more, &dir).code, 0);
        fs::read(dir.path().join("combined/adapter_model.safetensors")).unwrap()
    };
    assert!(dare("1") == dare("1") && dare("1") != dare("2"));
}

#[test]
fn what_is_saved_in_full_comes_along() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("combined");
    let adapter = "golden/adapters/modules_to_save/adapter";
    let args = ["combine", adapter, adapter, "--weights", "0.5,1", "--output", output.to_str().unwrap()];
    assert_snapshot!(without_digits(&run_in(&root(), args).without(&dir).to_string()));
}

#[test]
fn an_output_that_is_there_needs_force_and_to_be_an_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("combined");
    fs::create_dir(&output).unwrap();
    fs::write(output.join("thesis.txt"), "mine").unwrap();
    assert_snapshot!(combine(&TWO, "1,1", &[], &dir));
    assert_snapshot!(combine(&TWO, "1,1", &["--force"], &dir));
    assert_eq!(fs::read_dir(&output).unwrap().count(), 1);
    fs::remove_file(output.join("thesis.txt")).unwrap();
    assert_eq!(combine(&TWO, "1,1", &["--force"], &dir).code, 0);
    assert_eq!(combine(&TWO, "1,-1", &["--force"], &dir).code, 0);
    assert!(fs::read_to_string(output.join("README.md")).unwrap().contains("| golden/combined/factors/b | -1 |"));
}

#[test]
fn settings_that_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let report: Vec<String> = [
        combine(&TWO, "1", &[], &dir),
        combine(&TWO, "1,one", &[], &dir),
        combine(&TWO, "1,1", &["--type", "tise"], &dir),
        combine(&TWO, "1,1", &["--type", "ties"], &dir),
        combine(&TWO, "1,1", &["--type", "ties", "--density", "1.5"], &dir),
        combine(&TWO, "1,1", &["--density", "0.5"], &dir),
        combine(&TWO, "1,1", &["--type", "ties", "--density", "0.5", "--majority-sign-method", "most"], &dir),
        combine(&["factors/d"], "1", &[], &dir),
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    assert_snapshot!(report.join("\n"));
    assert!(!dir.path().join("combined").exists());
}

#[test]
fn adapters_that_do_not_go_together() {
    let dir = tempfile::tempdir().unwrap();
    assert_snapshot!(combine(&["factors/a", "factors/c"], "1,1", &["--type", "linear"], &dir));
    assert_snapshot!(combine(&["factors/a", "../adapters/linear/adapter"], "1,1", &[], &dir));
    assert_snapshot!(combine(&["factors/a", "../adapters/dora_linear/adapter"], "1,1", &[], &dir));
    assert!(!dir.path().join("combined").exists());
}
