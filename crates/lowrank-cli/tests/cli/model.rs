//! A small base model and recordings for it, made once by the command itself, and asked in every way.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::runner::{Ran, run_in};

/// A folder with `base/model/`, `base.toml`, `adapt.toml`, `base.csv`, `person.csv` and their recordings.
pub static WORLD: LazyLock<PathBuf> = LazyLock::new(|| {
    let world = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli");
    if world.exists() {
        fs::remove_dir_all(&world).unwrap();
    }
    fs::create_dir_all(&world).unwrap();
    let (mut base, mut person) = (vec!["path,label,split".to_owned()], vec!["path,label,split,start,end".to_owned()]);
    for (label, beat) in [("slow", 1.0), ("fast", 4.0)] {
        for (name, beat) in [("a", beat), ("b", 1.3 * beat), ("person", 2.2 * beat)] {
            let file = format!("{label}_{name}.csv");
            fs::write(world.join(&file), recording(beat)).unwrap();
            if name == "person" {
                let parts = ["train,0%,40%", "valid,40%,60%", "test,60%,"];
                person.extend(parts.map(|part| format!("{file},{label},{part}")));
            } else {
                base.push(format!("{file},{label},train"));
            }
        }
    }
    fs::write(world.join("base.csv"), base.join("\n")).unwrap();
    fs::write(world.join("person.csv"), person.join("\n")).unwrap();
    fs::write(world.join("base.toml"), BASE).unwrap();
    fs::write(world.join("adapt.toml"), ADAPT).unwrap();
    let done = run_in(&world, ["train", "base.toml", "--output", "base"]);
    assert_eq!(done.code, 0, "{done}");
    world
});

const BASE: &str = r#"
[model]
model_type = "tcn"
in_channels = 2
channels = 8
dilations = [1, 2]
sample_rate = 50
window = 50
hop = 25

[data]
manifest = "base.csv"

[train]
epochs = 8
learning_rate = 1e-2
"#;

const ADAPT: &str = r#"
[model]
base = "base/model"

[data]
manifest = "person.csv"

[lora]
r = 2
lora_alpha = 4
target_modules = ["stem", "conv1", "conv2"]
rank_pattern = { stem = 4 }
modules_to_save = ["head"]

[train]
epochs = 10
batch_size = 4
learning_rate = 1e-2
"#;

/// Twenty seconds of two channels at 50 Hz that swing `beat` times a second.
fn recording(beat: f64) -> String {
    let sample = |i: i32| {
        let phase = std::f64::consts::TAU * beat * f64::from(i) / 50.0;
        format!("{:.4},{:.4}\n", phase.sin(), 0.5 * phase.cos() + 0.1 * f64::from(i % 7))
    };
    (0..1000).map(sample).collect()
}

/// Runs `lowrank` with arguments, separated by spaces, in the world.
pub fn lowrank(args: &str) -> Ran {
    run_in(&WORLD, args.split_whitespace())
}

/// A folder in the world that is not there.
pub fn fresh(name: &str) -> PathBuf {
    let folder = WORLD.join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    folder
}

/// Every digit as `#`, and spaces that only align them as one: for numbers that differ between machines.
pub fn without_digits(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }) {
        if !((c == '#' || c == ' ') && out.ends_with(c)) {
            out.push(c);
        }
    }
    out
}

#[test]
fn evaluation_is_a_table_and_an_object() {
    let table = lowrank("eval --model base/model --manifest person.csv");
    assert_eq!((table.code, &*table.stderr), (0, ""));
    assert!(table.stdout.contains("accuracy") && table.stdout.contains("slow"), "{table}");
    let json = lowrank("eval --model base/model --manifest person.csv --split valid --json").json();
    assert_eq!((json["split"].as_str(), json["samples"].as_u64()), (Some("valid"), Some(14)));
    assert!(json["accuracy"].is_number() && json["macro_f1"].is_number() && json["loss"].is_number());
}

#[test]
fn predictions_are_a_line_a_window() {
    let all = lowrank("predict --model base/model --manifest person.csv --split test");
    assert_eq!(all.code, 0, "{all}");
    let lines: Vec<serde_json::Value> = all.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 30);
    let keys: Vec<_> = lines[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["path", "start", "end", "label", "predicted", "logits"]);
    assert_eq!((lines[0]["start"].as_f64(), lines[0]["end"].as_f64()), (Some(12.0), Some(13.0)));
    assert_eq!(lines[0]["logits"].as_array().unwrap().len(), 2);
    assert!(all.stderr.starts_with("30 windows, "), "{all}");

    let file = lowrank("predict --model base/model --manifest person.csv --split test --output lines.jsonl --json");
    assert_eq!(file.json()["summary"]["windows"], 30);
    assert_eq!(fs::read_to_string(WORLD.join("lines.jsonl")).unwrap(), all.stdout);
}

#[test]
fn recordings_need_no_manifest() {
    let done = lowrank("predict --model base/model --input slow_a.csv fast_a.csv --json");
    let predictions = done.json();
    let predictions = predictions["predictions"].as_array().unwrap();
    assert_eq!((predictions.len(), &predictions[0]["label"]), (78, &serde_json::Value::Null));
    let wrong = lowrank("predict --model base/model --input slow_a.csv gone.csv notes.txt");
    assert_eq!((wrong.code, &*wrong.stdout), (2, ""));
    insta::assert_snapshot!(wrong.stderr);
    assert_eq!(lowrank("predict --model base/model").code, 2);
}

#[test]
fn a_pipe_that_is_closed_ends_predictions_without_a_word() {
    use std::process::Stdio;
    let mut child = super::runner::command(&WORLD)
        .args(["predict", "--model", "base/model", "--manifest", "base.csv", "--quiet"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let done = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((done.code, &*done.stderr), (0, ""));
}
