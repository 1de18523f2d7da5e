//! A tiny Whisper that transformers saved, trained on texts, asked for them, and told of in figures.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::runner::{Ran, root, run_in};

/// A folder with two recordings, `sounds.csv` and `adapt.toml`.
fn world() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, period) in [("a", 20.0), ("b", 43.0)] {
        let sample = |at: i32| format!("{:.4}\n", 0.3 * (std::f64::consts::TAU * f64::from(at) / period).sin());
        fs::write(folder.path().join(format!("{name}.csv")), (0..6400).map(sample).collect::<String>()).unwrap();
    }
    let rows = "path,text,split\na.csv,zero uno,train\nb.csv,\"Due, tre!\",train\n";
    fs::write(folder.path().join("sounds.csv"), rows).unwrap();
    let base = base();
    let settings = format!(
        "[model]\nbase = \"{}\"\n[data]\nmanifest = \"sounds.csv\"\nwindow_seconds = 0.5\n[lora]\nr = 4\n\
         target_modules = [\"conv1\", \"conv2\", \"q_proj\", \"v_proj\", \"fc1\", \"fc2\"]\n[train]\nmax_steps = 100\nbatch_size = 2\n\
         learning_rate = 2e-2\nspeed_perturbation = 0.05\ngain_perturbation = 3\n",
        base.display()
    );
    fs::write(folder.path().join("adapt.toml"), settings).unwrap();
    folder
}

fn base() -> PathBuf {
    root().join("golden/whisper/base")
}

fn lowrank(folder: &TempDir, args: &str) -> Ran {
    run_in(folder.path(), args.replace("BASE", base().to_str().unwrap()).split_whitespace())
}

fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("adapter/adapter_model.safetensors")).unwrap()
}

#[test]
fn an_adapter_learns_texts_the_same_way_each_time() {
    let folder = world();
    let done = lowrank(&folder, "train adapt.toml --output run");
    assert_eq!(done.code, 0, "{done}");
    let next = "--adapter run/adapter --manifest sounds.csv --window-seconds 0.5";
    assert!(done.stdout.contains(next), "{done}");
    assert_eq!(lowrank(&folder, "train run/run.toml --output again").code, 0);
    assert_eq!(weights(&folder.path().join("run")), weights(&folder.path().join("again")));

    let figures = |adapter: &str| {
        lowrank(
            &folder,
            &format!("eval --model BASE {adapter} --manifest sounds.csv --window-seconds 0.5 --split train --json"),
        )
    };
    let (before, after) = (figures("").json(), figures("--adapter run/adapter").json());
    let loss = |figures: &serde_json::Value| figures["loss"].as_f64().unwrap();
    assert!(loss(&after) < 0.5 * loss(&before), "{before} {after}");
    assert_eq!((after["samples"].as_u64(), after["words"]["items"].as_u64()), (Some(2), Some(4)));
    assert_eq!(after["task"], "transcription");
    assert!(after["cer"].as_f64().unwrap() < before["cer"].as_f64().unwrap(), "{before} {after}");
}

#[test]
fn texts_are_lines_or_subtitles() {
    let folder = world();
    let done = lowrank(&folder, "predict --model BASE --manifest sounds.csv --num-beams 2");
    assert_eq!((done.code, &*done.stderr), (0, "2 recordings, 2 labelled, 0 exact\n"), "{done}");
    let line: serde_json::Value = serde_json::from_str(done.stdout.lines().nth(1).unwrap()).unwrap();
    assert_eq!((line["reference"].as_str(), line["end"].as_f64()), (Some("Due, tre!"), Some(0.4)));
    assert_eq!(line["tokens"].as_array().unwrap().len(), line["log_probs"].as_array().unwrap().len());
    // Half of a recording a window: two subtitles.
    let done = lowrank(&folder, "predict --model BASE --input a.csv --window-seconds 0.2 --output a.srt");
    assert_eq!((done.code, &*done.stderr), (0, "1 recordings, 0 labelled, 0 exact\n"), "{done}");
    let srt = fs::read_to_string(folder.path().join("a.srt")).unwrap();
    assert!(
        srt.contains("00:00:00,000 --> 00:00:00,200\n") && srt.contains("00:00:00,200 --> 00:00:00,400\n"),
        "{srt}"
    );
    let several = lowrank(&folder, "predict --model BASE --input a.csv b.csv --output a.srt");
    assert!(several.stderr.contains("subtitles are of one recording: found b.csv, expected a.csv"), "{several}");
}

#[test]
fn a_base_that_trained_in_full_is_a_base_again() {
    let folder = world();
    let text = fs::read_to_string(folder.path().join("adapt.toml")).unwrap();
    let (before, after) = text.split_once("[lora]").unwrap();
    let train = after.split_once("[train]").unwrap().1.replace("max_steps = 100", "max_steps = 2");
    fs::write(folder.path().join("full.toml"), format!("{before}[train]{train}")).unwrap();
    let done = lowrank(&folder, "train full.toml --output run");
    assert_eq!(done.code, 0, "{done}");
    for file in ["tokenizer.json", "generation_config.json"] {
        let [ours, theirs] =
            [folder.path().join("run/model"), base()].map(|dir| fs::read_to_string(dir.join(file)).unwrap());
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(json(&ours), json(&theirs), "{file}");
    }
    assert_eq!(lowrank(&folder, "eval --model run/model --manifest sounds.csv --split train").code, 0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = world();
    let said = |args: &str| {
        let done = lowrank(&folder, args);
        assert_eq!(done.code, 2, "{done}");
        done.stderr
    };
    let long = said("eval --model BASE --manifest sounds.csv --split train --window-seconds 2");
    assert!(long.contains("window_seconds: out of range: found 2, expected from 0.02 up to 1"), "{long}");
    let short = said("train adapt.toml --output run --window-seconds 0.2");
    assert!(
        short.contains("a recording to learn is longer than a window: found 0.4 s, expected at most 0.2 s"),
        "{short}"
    );
    let skipped = said("eval --model BASE --manifest sounds.csv --skip-short");
    assert!(skipped.contains("`skip_short` means nothing for this model"), "{skipped}");
    let wordy = format!("path,text\na.csv,{}\n", "zero ".repeat(30));
    fs::write(folder.path().join("wordy.csv"), wordy).unwrap();
    let wordy = said("eval --model BASE --manifest wordy.csv --split train");
    assert!(wordy.contains("a text is longer than the model's: found"), "{wordy}");
    let labelled = "path,label\na.csv,zero\n";
    fs::write(folder.path().join("labelled.csv"), labelled).unwrap();
    let labelled = said("eval --model BASE --manifest labelled.csv");
    assert!(labelled.contains("unknown column: found \"label\", expected path, text, split, start, end"), "{labelled}");
}
