use insta::assert_snapshot;

use super::runner::{lowrank, root, run_in};

const GOLDEN: &str = "golden/adapters";

fn check(adapter: &str, base: &str, more: &str) -> super::runner::Ran {
    lowrank(&format!("check {GOLDEN}/{adapter}/adapter --base {GOLDEN}/{base}/base.safetensors {more}"))
}

#[test]
fn an_adapter_on_its_own_base_fits() {
    assert_snapshot!(check("patterns", "patterns", ""));
    assert_snapshot!(check("modules_to_save", "modules_to_save", ""));
    for case in
        ["conv1d_groups_block", "conv1d_lora_bias", "conv3d", "embedding", "hf_conv1d", "linear_f16", "bias_all"]
    {
        let ran = check(case, case, "");
        assert_eq!((ran.code, &*ran.stderr), (0, ""), "{case}: {ran}");
    }
}

#[test]
fn every_problem_with_another_base_is_listed() {
    assert_snapshot!(check("patterns", "conv1d_k3", ""));
    let json = check("patterns", "conv1d_k3", "--json");
    assert_eq!((json.code, &*json.stderr), (1, ""));
    let report = json.json();
    assert_eq!(report["fits"], false);
    assert_eq!(report["problems"].as_array().unwrap().len(), 4);
    assert!(report["problems"][0]["hint"].is_string());
}

#[test]
fn an_adapter_that_reaches_outside_its_groups_has_no_place() {
    assert_snapshot!(check("conv1d_groups_dense", "conv1d_groups_dense", ""));
}

#[test]
fn a_rank_that_is_not_the_configuration_s_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let from = root().join(GOLDEN).join("linear");
    let text = std::fs::read_to_string(from.join("adapter/adapter_config.json")).unwrap();
    let rank = text.lines().find(|line| line.starts_with("  \"r\":")).unwrap();
    std::fs::write(dir.path().join("adapter_config.json"), text.replace(rank, "  \"r\": 17,")).unwrap();
    std::fs::copy(from.join("adapter/adapter_model.safetensors"), dir.path().join("adapter_model.safetensors"))
        .unwrap();
    let base = from.join("base.safetensors");
    let ran = run_in(dir.path(), ["check", ".", "--base", base.to_str().unwrap()]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("not the rank of the configuration: found"), "{ran}");
}

#[test]
fn what_is_not_there_is_wrong_input() {
    assert_snapshot!(lowrank("check golden/adapters/nowhere --base golden/adapters/linear/base.safetensors"));
    assert_snapshot!(lowrank("check golden/adapters/linear/adapter --base golden/adapters/linear/bsae.safetensors"));
    assert_snapshot!(lowrank("check golden/adapters/linear/adapter --bse golden/adapters/linear/base.safetensors"));
}
