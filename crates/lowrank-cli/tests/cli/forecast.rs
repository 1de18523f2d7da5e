//! A small forecaster, trained, evaluated and asked on series in a file.

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use super::runner::{Ran, root, run_in};

/// The little Fracast of `golden/models`: 64 steps of context, 6 ahead.
fn world() -> TempDir {
    let world = tempfile::tempdir().unwrap();
    fs::create_dir(world.path().join("base")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(root().join("golden/models/fracast").join(name), world.path().join("base").join(name)).unwrap();
    }
    let mut text = "when,a,b\n".to_owned();
    for step in 0..160_u32 {
        let wave = f64::from(step % 8) + 0.1 * f64::from(step % 5);
        let gap = if step == 70 { String::new() } else { format!("{}", 10.0 - wave) };
        writeln!(text, "t{step},{wave},{gap}").unwrap();
    }
    fs::write(world.path().join("series.csv"), text).unwrap();
    let rows = [
        "path,series,split,start,end,season,stride",
        "series.csv,a,train,,110,8,",
        "series.csv,b,train,64,110,8,3",
        "series.csv,a,valid,110,134,8,",
        "series.csv,a,test,134,,8 4,",
    ];
    fs::write(world.path().join("manifest.csv"), rows.join("\n")).unwrap();
    fs::write(world.path().join("adapt.toml"), ADAPT).unwrap();
    world
}

const ADAPT: &str = r#"
[model]
base = "base"

[data]
manifest = "manifest.csv"

[lora]
r = 2
lora_alpha = 4
target_modules = "all-layers"
group_mode = "shared"

[train]
max_steps = 30
batch_size = 8
learning_rate = 2e-2
eval_every = 10
early_stopping_patience = 5
"#;

fn lowrank(world: &TempDir, args: &str) -> Ran {
    run_in(world.path(), args.split_whitespace())
}

fn done(world: &TempDir, args: &str) -> Ran {
    let ran = lowrank(world, args);
    assert_eq!(ran.code, 0, "{ran}");
    ran
}

#[test]
fn an_adapter_is_trained_evaluated_and_asked() {
    let world = world();
    let outcome = done(&world, "train adapt.toml --output run --json").json();
    let mase = |part: &str| outcome[part]["mase"].as_f64().unwrap();
    assert!(mase("after") < mase("before"), "{outcome:#}");
    assert_eq!((&outcome["after"]["task"], &outcome["after"]["forecasts"]), (&"forecasting".into(), &4.into()));
    assert!(outcome["best_step"].as_u64().unwrap() > 0);

    let model = "--model base --adapter run/adapter --manifest manifest.csv";
    let evaluation = done(&world, &format!("eval {model} --split test --json")).json();
    assert_eq!(evaluation["mase"], outcome["after"]["mase"]);
    assert_eq!(evaluation["seasons"].as_array().unwrap().len(), 2);
    assert_eq!(evaluation["steps"].as_array().unwrap().len(), 6);
    let table = done(&world, &format!("eval {model} --split test")).stdout;
    assert!(table.starts_with("MASE(8) ") && table.contains("seasonal naive"), "{table}");

    let lines = done(&world, &format!("predict {model} --split test")).stdout;
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((lines.lines().count(), &first["series"], &first["origin"]), (4, &"a".into(), &134.into()));
    assert_eq!(first["actual"].as_array().unwrap().len(), 6);
    // What follows every series, of which nothing is known yet.
    let ahead = done(&world, "predict --model base --input series.csv --json").json();
    let ahead = ahead["predictions"].as_array().unwrap();
    let names: Vec<&Value> = ahead.iter().map(|prediction| &prediction["series"]).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(ahead[0]["origin"], 160);
    assert_eq!(ahead[0]["quantiles"]["0.9"].as_array().unwrap().len(), 6);

    // The merged model says the same; its names are the package's.
    done(&world, "merge --base base --adapter run/adapter --output merged");
    let merged = done(&world, "predict --model merged --manifest manifest.csv --split test").stdout;
    let merged: Value = serde_json::from_str(merged.lines().next().unwrap()).unwrap();
    let of = |line: &Value| line["quantiles"]["0.5"][0].as_f64().unwrap();
    assert!((of(&first) - of(&merged)).abs() < 1e-3, "{first} {merged}");
}

#[test]
fn all_weights_train_without_an_adapter_and_biases_alone_with_bias_all() {
    let world = world();
    let (before, lora) = ADAPT.split_once("[lora]").unwrap();
    let (_, train) = lora.split_once("[train]").unwrap();
    fs::write(world.path().join("full.toml"), format!("{before}[train]{train}")).unwrap();
    let outcome = done(&world, "train full.toml --output full --json").json();
    assert!(outcome["after"]["loss"].as_f64().unwrap() < outcome["before"]["loss"].as_f64().unwrap(), "{outcome:#}");
    assert_eq!(outcome["trainable_parameters"], outcome["all_parameters"]);
    done(&world, "eval --model full/model --manifest manifest.csv --split test");
    let biases =
        "train adapt.toml --output biases --json --bias all --target-modules head.out_proj --r 1 --lora-alpha 1e-9";
    let outcome = done(&world, biases).json();
    assert!(outcome["after"]["loss"].as_f64().unwrap() < outcome["before"]["loss"].as_f64().unwrap(), "{outcome:#}");
}

#[test]
fn what_cannot_be_forecast_is_said() {
    let world = world();
    let error = |args: &str| {
        let ran = lowrank(&world, args);
        assert_eq!(ran.code, 2, "{ran}");
        ran.stderr
    };
    let manifest = |text: &str| fs::write(world.path().join("wrong.csv"), text).unwrap();
    manifest(
        "path,series,start,end\nseries.csv,when,,\nseries.csv,c,,\nseries.csv,a,150,170\nseries.csv,,,\nseries.csv,a,3,\n",
    );
    let said = error("eval --model base --manifest wrong.csv --split train");
    for part in [
        "line 2, series when: not a number: found \"t0\"",
        "no such series: found \"c\"",
        "reaches past the end of the series: found step 170, expected 160 at most",
        "which series is not said: found 2 of them",
    ] {
        assert!(said.contains(part), "{said}");
    }
    manifest("path,label\nseries.csv,x\n");
    assert!(error("eval --model base --manifest wrong.csv").contains("unknown field `label`"));
    assert!(
        error("eval --model base --manifest manifest.csv --sample-rate 50")
            .contains("`sample_rate` means nothing for this model")
    );
    assert!(error("train adapt.toml --label-smoothing 0.1").contains("label_smoothing is for classes"));
    assert!(error("train adapt.toml --manifest wrong.csv").contains("unknown field"));
}
