use insta::assert_snapshot;

use super::model::without_digits;
use super::runner::{Ran, lowrank, root, run_in};

/// Resizes a golden adapter into a temporary folder.
fn resize(case: &str, more: &[&str], dir: &tempfile::TempDir) -> Ran {
    let (adapter, output) = (format!("golden/adapters/{case}/adapter"), dir.path().join("resized"));
    let args = ["resize", &adapter, "--output", output.to_str().unwrap()];
    run_in(&root(), args.iter().chain(more)).without(dir)
}

#[test]
fn an_adapter_of_a_lower_rank() {
    let dir = tempfile::tempdir().unwrap();
    assert_snapshot!(without_digits(&resize("patterns_rslora", &["--rank", "2"], &dir).to_string()));
    assert_eq!(run_in(dir.path(), ["inspect", "resized"]).code, 0);
}

#[test]
fn a_higher_rank_merges_to_the_same_weights() {
    for case in ["linear_rslora", "conv1d_groups_block", "conv2d_uneven", "embedding", "conv1d_lora_bias"] {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(resize(case, &["--rank", "24"], &dir).code, 0);
        let golden = root().join(format!("golden/adapters/{case}"));
        let [base, adapter] = ["base.safetensors", "adapter"].map(|name| golden.join(name).display().to_string());
        for (adapter, output) in [(&*adapter, "golden.safetensors"), ("resized", "grown.safetensors")] {
            let ran = run_in(dir.path(), ["merge", "--base", &base, "--adapter", adapter, "--output", output]);
            assert_eq!(ran.code, 0, "{case}: {ran}");
        }
        let report = run_in(dir.path(), ["diff", "golden.safetensors", "grown.safetensors", "--json"]).json();
        assert!(report["incomparable"].as_array().unwrap().is_empty());
        for tensor in report["different"].as_array().unwrap() {
            assert!(tensor["relative"].as_f64().unwrap() < 1e-6, "{case}: {tensor}");
        }
    }
}

#[test]
fn without_an_output_nothing_is_written() {
    let done = lowrank("resize golden/adapters/linear/adapter --energy 0.5 --json");
    assert_eq!((done.code, &*done.stderr), (0, ""));
    let report = done.json();
    assert!(report["output"].is_null());
    for module in report["modules"].as_array().unwrap() {
        assert!(module["energy"].as_f64().unwrap() >= 0.5, "{module}");
        assert!(module["r"].as_u64() <= module["from"].as_u64(), "{module}");
    }
}

#[test]
fn what_cannot_be_asked() {
    assert_snapshot!(lowrank("resize golden/adapters/linear/adapter"));
    assert_snapshot!(lowrank("resize golden/adapters/linear/adapter --rank 2 --energy 0.5"));
    assert_snapshot!(lowrank("resize golden/adapters/linear/adapter --rnak 2"));
    assert_snapshot!(lowrank("resize golden/adapters/linear/adapter --energy 95"));
    assert_snapshot!(lowrank("resize golden/adapters/liner/adapter --rank 2"));
    assert_snapshot!(lowrank("resize golden/adapters/linear/adapter --rank 2 --output golden/adapters/linear/adapter"));
}
