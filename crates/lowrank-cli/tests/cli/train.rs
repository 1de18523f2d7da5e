use std::fs;

use insta::assert_snapshot;

use super::model::{WORLD, fresh, lowrank, without_digits};

#[test]
fn an_adapter_is_trained_evaluated_and_merged() {
    fresh("adapted");
    let done = lowrank("train adapt.toml --output adapted");
    assert_eq!(done.code, 0, "{done}");
    assert_snapshot!(without_digits(&done.to_string()));
    let accuracy =
        |args: &str| lowrank(&format!("eval {args} --manifest person.csv --json")).json()["accuracy"].clone();
    fresh("adapted-merged");
    let merged = lowrank("merge --base base/model --adapter adapted/adapter --output adapted-merged");
    assert_eq!(merged.code, 0, "{merged}");
    assert_eq!(accuracy("--model base/model --adapter adapted/adapter"), accuracy("--model adapted-merged"));
    assert_eq!(lowrank("inspect adapted/adapter").code, 0);
}

#[test]
fn an_adapter_trains_on_a_base_of_half_precision() {
    fresh("half");
    let done = lowrank("train adapt.toml --dtype bfloat16 --output half");
    assert_eq!(done.code, 0, "{done}");
    let next = "lowrank eval --model base/model --adapter half/adapter --manifest person.csv --dtype bfloat16";
    assert!(done.stdout.contains(next), "{done}");
    let report = lowrank(&next["lowrank ".len()..]);
    assert_eq!(report.code, 0, "{report}");

    let refused = lowrank("train base.toml --dtype float16 --output half-base");
    assert_eq!(refused.code, 2, "{refused}");
    let message = "--dtype: `dtype` is for frozen weights, and without [lora] all weights train";
    assert!(refused.stderr.contains(message), "{refused}");
}

#[test]
fn an_adapter_with_dora_is_trained_evaluated_and_merged() {
    let folder = fresh("dora");
    let settings = fs::read_to_string(WORLD.join("adapt.toml")).unwrap().replace("[lora]", "[lora]\nuse_dora = true");
    fs::write(WORLD.join("dora.toml"), settings).unwrap();
    let done = lowrank("train dora.toml --output dora --json");
    assert_eq!(done.code, 0, "{done}");
    assert!(fs::read_to_string(folder.join("adapter/adapter_config.json")).unwrap().contains("\"use_dora\": true"));
    let accuracy =
        |args: &str| lowrank(&format!("eval {args} --manifest person.csv --json")).json()["accuracy"].clone();
    fresh("dora-merged");
    let merged = lowrank("merge --base base/model --adapter dora/adapter --output dora-merged");
    assert_eq!(merged.code, 0, "{merged}");
    assert_eq!(accuracy("--model base/model --adapter dora/adapter"), accuracy("--model dora-merged"));
}

#[test]
fn json_is_the_outcome() {
    fresh("as-json");
    let done = lowrank("train adapt.toml --output as-json --json --quiet");
    assert_eq!((done.code, &*done.stderr), (0, ""));
    let outcome = done.json();
    for figure in [&outcome["before"]["accuracy"], &outcome["after"]["accuracy"], &outcome["seconds"]] {
        assert!(figure.is_number(), "{outcome}");
    }
    assert!(outcome["trainable_parameters"].as_u64().unwrap() > 0 && outcome["adapter_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn the_runs_own_settings_repeat_it() {
    let (first, second) = (fresh("first"), fresh("second"));
    assert_eq!(lowrank("train adapt.toml --output first --seed 3 --lora-dropout 0.1").code, 0);
    let again = lowrank("train first/run.toml --output second");
    assert_eq!(again.code, 0, "{again}");
    let weights = |folder: &std::path::Path| fs::read(folder.join("adapter/adapter_model.safetensors")).unwrap();
    assert_eq!(weights(&first), weights(&second));
}

#[test]
fn folders_with_other_files_or_an_earlier_run_are_left_alone() {
    let folder = fresh("thesis");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("thesis.txt"), "mine").unwrap();
    assert_snapshot!(lowrank("train adapt.toml --output thesis"));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    assert_snapshot!(lowrank("train adapt.toml --output base"));
}

#[test]
fn divergence_has_an_exit_code_of_its_own() {
    fresh("diverged");
    let done =
        lowrank("train adapt.toml --output diverged --learning-rate 1e30 --optimizer sgd --max-grad-norm 1e30 --json");
    assert_eq!(done.code, 3, "{done}");
    assert_eq!(done.json()["error"]["subject"], "diverged");
}

#[test]
#[cfg(unix)]
fn ctrl_c_saves_and_resuming_ends_with_the_same_bits() {
    use std::process::{Command, Stdio};
    use std::thread::sleep;
    use std::time::Duration;

    use super::runner::{Ran, command};

    let (whole, parts) = (fresh("whole"), fresh("parts"));
    let args = ["train", "adapt.toml", "--epochs", "40", "--json", "--output"];
    let done = super::runner::run_in(&WORLD, args.iter().copied().chain(["whole"]));
    assert_eq!(done.code, 0, "{done}");

    let mut child = command(&WORLD);
    let child = child.args(args).arg("parts").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !parts.join("metrics.jsonl").exists() {
        sleep(Duration::from_millis(5));
    }
    let second = super::runner::run_in(&WORLD, args.iter().copied().chain(["parts", "--resume"]));
    assert!(second.code == 0 || second.stderr.contains("the folder is in use: found process"), "{second}");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let stopped = Ran::of(child.wait_with_output().unwrap());
    // A run may have been over before the signal came; then there is nothing to go on with.
    if stopped.code == 130 {
        assert_eq!(stopped.json()["error"]["subject"], "interrupted");
        assert!(stopped.stderr.contains("run the same command with --resume to go on"), "{stopped}");
        let resumed = super::runner::run_in(&WORLD, args.iter().copied().chain(["parts", "--resume"]));
        assert_eq!(resumed.code, 0, "{resumed}");
    }
    let weights = |folder: &std::path::Path| fs::read(folder.join("adapter/adapter_model.safetensors")).unwrap();
    assert_eq!(weights(&whole), weights(&parts));
}
