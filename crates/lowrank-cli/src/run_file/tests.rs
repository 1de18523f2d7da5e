use serde_json::json;

use super::*;

const ADAPT: &str = r#"
seed = 7

[model]
base = "base"

[data]
manifest = "s09.csv"
sample_rate = 50

[lora]
r = 8
lora_alpha = 16
target_modules = ["conv1", "conv2"]
rank_pattern = { "z.conv1" = 4, "a.conv1" = 2 }

[train]
epochs = 3
learning_rate = 2e-3
"#;

fn settings(text: &str, flags: &[(Section, &str, Value)]) -> Result<Settings> {
    let mut settings = Settings::parse(text, "watch/x.toml")?;
    settings.file = Some("watch/x.toml".into());
    for (section, name, value) in flags {
        let key = Key::find(*section, name).unwrap();
        settings.values.retain(|setting| setting.section != *section || setting.name != *name);
        settings.push(*section, name, value.clone(), Place::Flag(format!("--{}", key.flag())));
    }
    Ok(settings)
}

/// Every error of a run file, with its hint after an arrow.
fn errors(text: &str) -> Vec<String> {
    let error = settings(text, &[]).and_then(|settings| RunPlan::new(&settings)).unwrap_err();
    let line = |error: &Error| match error.hint() {
        Some(hint) => format!("{error} -> {hint}"),
        None => error.to_string(),
    };
    if error.parts().is_empty() { vec![line(&error)] } else { error.parts().iter().map(line).collect() }
}

#[test]
fn a_run_file_is_a_plan_with_paths_beside_it() {
    let plan = RunPlan::new(&settings(ADAPT, &[]).unwrap()).unwrap();
    assert_eq!(plan.seed, 7);
    assert_eq!(plan.output, Path::new("lowrank-runs/x"));
    assert!(matches!(&plan.model, Model::Base(dir) if dir == Path::new("watch/base")));
    assert_eq!(plan.manifest.as_deref(), Some(Path::new("watch/s09.csv")));
    assert_eq!(plan.reading.series_rate, Some(50.0));
    assert_eq!((plan.train.epochs, plan.train.batch_size), (3, 16));
    let lora = plan.lora.unwrap();
    assert_eq!((lora.r, lora.base_model_name_or_path.as_deref()), (8, Some("base")));
    assert_eq!(lora.rank_pattern, [("z.conv1".to_owned(), 4), ("a.conv1".to_owned(), 2)], "in the order of the file");
}

#[test]
fn flags_win_and_their_paths_are_from_here() {
    let flags = [
        (Section::Train, "epochs", json!(9)),
        (Section::Model, "base", json!("other")),
        (Section::Top, "output", json!("out")),
        (Section::Lora, "target_modules", json!("all-conv")),
    ];
    let plan = RunPlan::new(&settings(ADAPT, &flags).unwrap()).unwrap();
    assert_eq!((plan.train.epochs, &*plan.output), (9, Path::new("out")));
    assert!(matches!(&plan.model, Model::Base(dir) if dir == Path::new("other")));
    assert_eq!(plan.lora.unwrap().target_modules, Some(lowrank::config::Patterns::Regex("all-conv".into())));
}

#[test]
fn the_settings_written_back_make_the_same_plan() {
    let plan = RunPlan::new(&settings(ADAPT, &[]).unwrap()).unwrap();
    let mut again = Settings::parse(&plan.settings, "lowrank-runs/x/run.toml").unwrap();
    again.file = Some("lowrank-runs/x/run.toml".into());
    let again = RunPlan::new(&again).unwrap();
    assert_eq!((again.seed, &again.train), (plan.seed, &plan.train));
    assert_eq!(again.manifest.as_deref(), Some(Path::new("lowrank-runs/x/../../watch/s09.csv")));
    assert_eq!(again.lora.unwrap().rank_pattern, plan.lora.unwrap().rank_pattern);
}

#[test]
fn without_lora_all_weights_train_and_a_new_base_has_its_architecture_in_the_file() {
    let text = "[model]\nmodel_type = \"tcn\"\nin_channels = 6\nchannels = 8\ndilations = [1, 2]\nsample_rate = 50\nwindow = 128\nhop = 64\n[data]\nmanifest = \"m.csv\"\n";
    let plan = RunPlan::new(&settings(text, &[]).unwrap()).unwrap();
    let Model::New { architecture, signal } = plan.model else { panic!("not a new base") };
    assert_eq!((architecture.channels(), signal.channels, signal.window, signal.hop), (6, 6, 128, 64));
    assert!(plan.lora.is_none());
    assert_eq!(
        errors(&format!("{text}[lora]\nr = 4\ntarget_modules = \"all-conv\"\n")),
        [
            "a new base has no adapter yet: [lora] needs `base` in [model] -> train the base first, without [lora]; then adapt it"
        ]
    );
}

#[test]
fn every_unknown_key_is_named_with_its_line_and_the_nearest() {
    let text = "sed = 1\nepochs = 2\n[modle]\nbase = \"b\"\n[data]\nmanifset = \"m.csv\"\n[train]\nlerning_rate = 1\nbatchsize = 2\nzzz = 1\nseed = 3\nlora = 1\n";
    assert_eq!(
        errors(text),
        [
            "watch/x.toml:1:1: unknown key `sed` -> did you mean `seed`?",
            "watch/x.toml:2:1: unknown key `epochs` -> `epochs` belongs to [train]",
            "watch/x.toml:3:2: unknown table [modle] -> did you mean [model]?",
            "watch/x.toml:6:1: unknown key `manifset` -> did you mean `manifest`?",
            "watch/x.toml:8:1: unknown key `lerning_rate` -> did you mean `learning_rate`?",
            "watch/x.toml:9:1: unknown key `batchsize` -> did you mean `batch_size`?",
            "watch/x.toml:10:1: unknown key `zzz` -> `lowrank train --help` lists the keys",
            "watch/x.toml:11:1: unknown key `seed` -> `seed` stands above the first table",
            "watch/x.toml:12:1: unknown key `lora` -> `lowrank train --help` lists the keys",
        ]
    );
}

#[test]
fn wrong_values_are_named_with_their_lines() {
    let text = "[model]\nbase = 3\n[train]\nepochs = \"many\"\noptimizer = \"adam\"\nlearning_rate = nan\nbetas = [0.9, 2026-01-01]\nmax_steps = -1\n";
    assert_eq!(
        errors(text),
        [
            "watch/x.toml:2:1: wrong value for `base`: found 3, expected a path",
            "watch/x.toml:4:1: wrong value for `epochs`: found \"many\", expected a whole number, not negative",
            "watch/x.toml:5:1: wrong value for `optimizer`: found \"adam\", expected \"adamw\" or \"sgd\" -> did you mean \"adamw\"?",
            "watch/x.toml:6:1: `learning_rate`: wrong value: found nan, expected a finite number",
            "watch/x.toml:7:1: `betas`: wrong value: found the date 2026-01-01, expected a number, text, list or table",
            "watch/x.toml:8:1: wrong value for `max_steps`: found -1, expected a whole number, not negative",
        ]
    );
}

#[test]
fn the_configurations_own_errors_have_lines_too() {
    let text = "[model]\nbase = \"b\"\nwindow = 3\n[lora]\nlora_alhpa = 3\nr = 0\nensure_weight_tying = true\n[train]\nlearning_rate = -1.0\nlabel_smoothing = 1\n";
    let errors = errors(text);
    let begins = [
        "watch/x.toml:3:1: `window` is for a new base, and `base` names one",
        "watch/x.toml:5:1: unknown key `lora_alhpa`, nearest is `lora_alpha`",
        "watch/x.toml:6:1: r: rank out of range: found 0",
        "watch/x.toml:7:1: ensure_weight_tying: not supported yet",
        "watch/x.toml:9:1: learning_rate: out of range: found -1",
        "watch/x.toml:10:1: label_smoothing: out of range: found 1",
    ];
    for (error, begin) in errors.iter().zip(begins) {
        assert!(error.starts_with(begin), "{error}\n{begin}");
    }
}

#[test]
fn every_syntax_error_is_told_with_its_place() {
    let found = errors("[model]\nbase = \n[train\nepochs = 3\n");
    assert!(found.len() > 1 && found.iter().all(|error| error.starts_with("watch/x.toml:")), "{found:?}");
    assert!(errors("[model]\nbase = 1\nbase = 2\n")[0].starts_with("watch/x.toml:3:1: duplicate key"));
    assert_eq!(errors("model = 3\n"), ["watch/x.toml:1:1: `model` is a table -> write [model], and its keys below"]);
}

#[test]
fn what_is_missing_is_said() {
    assert_eq!(
        errors("[train]\nepochs = 1\n"),
        [
            "watch/x.toml: no model: [model] has neither `base` nor `model_type` -> name a base directory, or the architecture of a new base"
        ]
    );
    let plan = RunPlan::new(&settings("[model]\nbase = \"b\"\n", &[]).unwrap()).unwrap();
    assert_eq!(plan.manifest().unwrap_err().problem(), "no recordings: `manifest` is missing in [data]");
}
