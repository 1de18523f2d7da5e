use std::fs;
use std::process::Stdio;

use insta::assert_snapshot;

use super::runner::{Ran, command, lowrank, root, run_in};

#[test]
fn every_wrong_key_of_a_run_file_at_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("run.toml"),
        "sed = 1\n[model]\nbase = \"base\"\n[lora]\nr = 8\n[train]\nlerning_rate = 1e-3\nepochs = \"ten\"\n",
    )
    .unwrap();
    assert_snapshot!(run_in(dir.path(), ["train", "run.toml"]));
    let json = run_in(dir.path(), ["plan", "run.toml", "--json"]);
    assert_eq!(json.code, 2);
    let error = &json.json()["error"];
    assert_eq!(error["subject"], "config");
    assert_eq!(error["parts"][1]["hint"], "did you mean `learning_rate`?");
    assert_eq!(error["parts"].as_array().unwrap().len(), 3);
}

#[test]
fn a_configuration_of_peft_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[model]\nbase = \"base\"\n\n[lora]\nr = 0\nlora_alhpa = 16\nensure_weight_tying = true\n";
    fs::write(dir.path().join("run.toml"), text).unwrap();
    assert_snapshot!(run_in(dir.path(), ["plan", "run.toml", "--lora-dropout", "1.5"]));
}

#[test]
fn a_wrong_flag() {
    assert_snapshot!(lowrank("train run.toml --lerning-rate 3"));
    assert_snapshot!(lowrank("train run.toml --epochs -1"));
    let json = lowrank("train run.toml --epochs many --json");
    assert_eq!(json.code, 2);
    assert_eq!(json.json()["error"]["subject"], "usage");
}

#[test]
fn a_path_with_a_slip_and_a_file_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let base = root().join("golden/adapters/linear/base.safetensors");
    let bytes = fs::read(&base).unwrap();
    fs::write(dir.path().join("base.safetensors"), &bytes).unwrap();
    fs::write(dir.path().join("short.safetensors"), &bytes[..bytes.len() - 7]).unwrap();
    fs::write(dir.path().join("header.safetensors"), &bytes[..20]).unwrap();
    assert_snapshot!(run_in(dir.path(), ["inspect", "bsae.safetensors"]));
    assert_snapshot!(run_in(dir.path(), ["inspect", "short.safetensors"]));
    assert_snapshot!(run_in(dir.path(), ["inspect", "header.safetensors"]));
}

#[test]
fn a_pipe_that_nobody_reads_is_no_error() {
    let mut child = command(&root())
        .args(["inspect", "golden/adapters/linear/base.safetensors"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let done = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((done.code, &*done.stderr), (0, ""));
}

#[test]
fn colours_are_for_terminals() {
    let plain = lowrank("inspect nowhere");
    assert!(!plain.stderr.contains('\x1b'));
    let forced = Ran::of(command(&root()).args(["inspect", "nowhere"]).env("CLICOLOR_FORCE", "1").output().unwrap());
    assert!(forced.stderr.starts_with("\x1b["), "{}", forced.stderr);
    let without = [("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")];
    let without = Ran::of(command(&root()).args(["inspect", "nowhere"]).envs(without).output().unwrap());
    assert!(!without.stderr.contains('\x1b'));
}
