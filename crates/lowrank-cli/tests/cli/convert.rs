use insta::assert_snapshot;

use super::model::without_digits;
use super::runner::{Ran, lowrank, root, run_in};

/// Converts something of the golden files into a temporary folder.
fn convert(input: &str, to: &str, output: &str, more: &[&str], dir: &tempfile::TempDir) -> Ran {
    let (input, output) = (format!("golden/{input}"), dir.path().join(output));
    let args = ["convert", &input, "--to", to, "--output", output.to_str().unwrap()];
    run_in(&root(), args.iter().chain(more)).without(dir)
}

#[test]
fn a_lycoris_file_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let base = ["--base", "golden/lycoris/kohya/base.safetensors"];
    assert_snapshot!(convert("lycoris/kohya/lycoris.safetensors", "peft", "adapter", &base, &dir));
    assert_eq!(run_in(dir.path(), ["inspect", "adapter"]).code, 0);
    let args = ["convert", "adapter", "--to", "lycoris", "--prefix", "lora_unet", "--output", "again.safetensors"];
    assert_snapshot!(run_in(dir.path(), args).without(&dir));
    let first = root().join("golden/lycoris/kohya/lycoris.safetensors");
    let diff = run_in(dir.path(), ["diff", first.to_str().unwrap(), "again.safetensors"]);
    assert_eq!(diff.code, 0, "{diff}");
}

#[test]
fn groups_that_share_their_factors_and_json() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--base", "golden/lycoris/grouped/base.safetensors", "--groups", "^conv=2,depthwise=6,image.conv=3"];
    let done = convert("lycoris/grouped/lycoris.safetensors", "peft", "adapter", &more, &dir);
    assert_snapshot!(done);
    let again = convert(
        "lycoris/grouped/lycoris.safetensors",
        "peft",
        "adapter",
        &[&more[..], &["--json", "--force"]].concat(),
        &dir,
    );
    let report = again.json();
    assert_eq!((again.code, report["modules"].as_array().unwrap().len()), (0, 3));
    assert_eq!(report["modules"][1]["groups"], 6);
}

#[test]
fn what_reaches_outside_the_groups_is_dropped_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let done = convert("adapters/conv1d_groups_dense/adapter", "peft", "adapter", &["--project"], &dir);
    assert_snapshot!(without_digits(&done.to_string()));
    let base = root().join("golden/adapters/conv1d_groups_dense/base.safetensors");
    let args = ["merge", "--base", base.to_str().unwrap(), "--adapter", "adapter", "--output", "merged.safetensors"];
    assert_eq!(run_in(dir.path(), args).code, 0);
}

#[test]
fn what_cannot_be_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = "lycoris/kohya/lycoris.safetensors";
    assert_snapshot!(convert(file, "peft", "adapter", &[], &dir));
    assert_snapshot!(convert(file, "peft", "adapter", &["--base", "golden/adapters/linear/base.safetensors"], &dir));
    assert_snapshot!(convert(file, "kohya", "adapter", &[], &dir));
    assert_snapshot!(convert("adapters/linear/adapter", "lycoris", "adapter", &[], &dir));
    assert_snapshot!(convert("adapters/linear/adapter", "lycoris", "x.safetensors", &["--groups", "fc=2"], &dir));
    assert_snapshot!(convert("adapters/embedding/adapter", "lycoris", "x.safetensors", &[], &dir));
    assert_snapshot!(convert("adapters/conv1d_groups_dense/adapter", "lycoris", "x.safetensors", &[], &dir));
    assert_snapshot!(convert("adapters/modules_to_save/adapter", "lycoris", "x.safetensors", &[], &dir));
    assert_snapshot!(lowrank("convert golden/adapters/linear/adapter"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
