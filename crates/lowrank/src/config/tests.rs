//! Configurations read, refused and written back.

use proptest::prelude::{prop, prop_assert_eq, proptest};
use serde_json::{Map, Value, json};

use super::*;
use crate::Error;

/// Files that PEFT 0.21.2 saved with an adapter.
const SAVED: [&str; 4] = [
    include_str!("testdata/conv1d.json"),
    include_str!("testdata/full.json"),
    include_str!("testdata/odd.json"),
    include_str!("testdata/eva.json"),
];

fn table(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

/// A file with `changes` to what is written by default.
fn file(changes: Value) -> String {
    let mut object: Map<String, Value> = serde_json::from_str(&LoraConfig::default().to_json()).unwrap();
    object.extend(table(changes));
    serde_json::to_string_pretty(&object).unwrap()
}

fn read(changes: Value) -> Result<LoraConfig> {
    LoraConfig::from_json(&file(changes), "f").map(|(config, _)| config)
}

fn messages(error: &Error) -> Vec<String> {
    if error.parts().is_empty() {
        vec![error.to_string()]
    } else {
        error.parts().iter().map(Error::to_string).collect()
    }
}

fn run_errors(settings: Value) -> Vec<String> {
    LoraConfig::from_table(&table(settings), "run.toml").map_or_else(|error| messages(&error), |_| Vec::new())
}

#[test]
fn a_file_that_peft_saved_is_rewritten_byte_for_byte() {
    for text in SAVED {
        let (config, warnings) = LoraConfig::from_json(text, "adapter_config.json").unwrap();
        assert_eq!(config.to_json(), text);
        assert_eq!(warnings, [""; 0]);
    }
}

#[test]
fn every_value_of_a_full_file_is_read() {
    let (config, _) = LoraConfig::from_json(SAVED[1], "f").unwrap();
    let expected = LoraConfig {
        task_type: Some("FEATURE_EXTRACTION".into()),
        peft_version: Some("0.21.2".into()),
        base_model_name_or_path: Some("./modèle/😀\u{7f}\"\\\t".into()),
        revision: Some("main".into()),
        inference_mode: true,
        r: 4,
        lora_alpha: 16.0,
        lora_dropout: 0.05,
        use_rslora: true,
        target_modules: Some(Patterns::List(["conv1", "emb", "lin"].map(Into::into).to_vec())),
        exclude_modules: Some(Patterns::Regex("foo".into())),
        fan_in_fan_out: true,
        bias: Bias::LoraOnly,
        modules_to_save: Some(vec!["lin2".into()]),
        init_lora_weights: InitLoraWeights::Gaussian,
        layers_to_transform: Some(LayerIndices::List(vec![0, 1])),
        layers_pattern: Some(Patterns::List(["layers", "h"].map(Into::into).to_vec())),
        rank_pattern: vec![("^lin$".into(), 2), ("conv1".into(), 8)],
        alpha_pattern: vec![("conv1".into(), 32.0), ("lin".into(), 0.5)],
        ..LoraConfig::default()
    };
    assert_eq!(config, expected);
}

#[test]
fn a_changed_value_is_written_in_place_of_the_found_spelling() {
    let (mut config, _) = LoraConfig::from_json(SAVED[2], "f").unwrap();
    assert!(config.to_json().contains("\"lora_alpha\": 16.0,"));
    config.lora_alpha = 32.0;
    config.lora_dropout = 0.1;
    let text = config.to_json();
    assert!(text.contains("\"lora_alpha\": 32,") && text.contains("\"lora_dropout\": 0.1,"), "{text}");
}

#[test]
fn missing_keys_take_their_defaults() {
    let (config, warnings) = LoraConfig::from_json(r#"{"peft_type": "LORA"}"#, "f").unwrap();
    assert_eq!((config.to_json(), warnings.len()), (LoraConfig::default().to_json(), 0));
    assert_eq!(LoraConfig::from_table(&Map::new(), "run.toml").unwrap(), LoraConfig::default());
}

#[test]
fn unknown_keys_of_a_file_are_kept_and_warned_of() {
    let text = "{\n  \"peft_type\": \"LORA\",\n  \"lora_alhpa\": 16,\n  \"zeta\": {\"b\": 1, \"a\": [2.50]}\n}";
    let (config, warnings) = LoraConfig::from_json(text, "f").unwrap();
    assert_eq!(
        warnings,
        [
            "f:3:3: unknown key `lora_alhpa`, nearest is `lora_alpha`; it is kept and has no effect",
            "f:4:3: unknown key `zeta`; it is kept and has no effect"
        ]
    );
    let rewritten = config.to_json();
    assert!(rewritten.contains("\"lora_alhpa\": 16,\n  \"lora_alpha\""), "{rewritten}");
    assert!(rewritten.ends_with("\"zeta\": {\n    \"a\": [\n      2.5\n    ],\n    \"b\": 1\n  }\n}"), "{rewritten}");
}

#[test]
fn a_runtime_config_is_dropped_with_a_warning() {
    let (config, warnings) =
        LoraConfig::from_json(&file(json!({"runtime_config": {"ephemeral_gpu_offload": true}})), "f").unwrap();
    assert!(warnings[0].contains("`runtime_config`") && !config.to_json().contains("runtime_config"));
}

#[test]
fn all_errors_of_a_file_come_at_once_with_their_places() {
    let text = "{\n  \"peft_type\": \"LORA\",\n  \"r\": \"8\",\n  \"bias\": \"lora\",\n  \"lora_dropout\": 1.5, \"ensure_weight_tying\": true\n}";
    let error = LoraConfig::from_json(text, "adapter_config.json").unwrap_err();
    assert_eq!(
        messages(&error),
        [
            "adapter_config.json:3:3: r: wrong value: found \"8\", expected a whole number, not negative",
            "adapter_config.json:4:3: bias: wrong value: found \"lora\", expected \"none\", \"all\" or \"lora_only\"",
            "adapter_config.json:5:3: lora_dropout: probability out of range: found 1.5, expected at least 0 and below 1",
            "adapter_config.json:5:24: ensure_weight_tying: not supported yet: it needs adapters that tied layers share",
        ]
    );
}

#[test]
fn values_of_a_wrong_type_are_refused() {
    for (key, values) in [
        ("r", vec![json!(8.0), json!(-1), json!(null), json!(true), json!([8])]),
        ("lora_alpha", vec![json!("16"), json!(null), json!(false)]),
        ("lora_dropout", vec![json!("0.1"), json!(null)]),
        ("use_rslora", vec![json!(1), json!("true"), json!(null)]),
        ("target_modules", vec![json!(1), json!(["a", 1]), json!({"a": 1})]),
        ("exclude_modules", vec![json!(false), json!([null])]),
        ("modules_to_save", vec![json!("head"), json!([1])]),
        ("init_lora_weights", vec![json!(1), json!(null), json!([])]),
        ("layers_to_transform", vec![json!(-1), json!([1.5]), json!("1")]),
        ("layers_pattern", vec![json!(1)]),
        ("rank_pattern", vec![json!({"a": 1.0}), json!({"a": -1}), json!([]), json!("a")]),
        ("alpha_pattern", vec![json!({"a": "1"}), json!(1)]),
        ("task_type", vec![json!(1)]),
        ("loftq_config", vec![json!(null), json!([])]),
        ("auto_mapping", vec![json!("x")]),
        ("target_parameters", vec![json!("x")]),
        (
            "trainable_token_indices",
            vec![json!(1), json!([-1]), json!([1.5]), json!({"emb": 1}), json!({"emb": ["a"]})],
        ),
        ("megatron_core", vec![json!(1)]),
        ("qalora_group_size", vec![json!("16")]),
        (
            "lowrank",
            vec![
                json!("shared"),
                json!({"group_mode": "grouped"}),
                json!({"dora_norm": "row"}),
                json!({"conv_transpose": "ups"}),
            ],
        ),
    ] {
        for value in values {
            let error = read(json!({ key: value })).unwrap_err();
            let message = error.to_string();
            assert!(
                error.parts().is_empty() && message.contains(&format!(": {key}: wrong value: found ")),
                "{message}"
            );
        }
    }
}

#[test]
fn adapters_that_are_not_lora_are_refused() {
    let refused = |text: &str| LoraConfig::from_json(text, "f").unwrap_err();
    let missing = refused(r#"{"model_type": "whisper"}"#);
    assert!(missing.to_string().contains("peft_type: missing") && missing.hint().unwrap().contains("config.json"));
    assert!(refused(r#"{"peft_type": "LOHA"}"#).to_string().contains("the adapter is LOHA"));
    assert!(refused(r#"{"peft_type": 3}"#).to_string().contains("found 3, expected \"LORA\""));
}

#[test]
fn group_mode_survives_a_rewrite() {
    for mode in [GroupMode::PerGroup, GroupMode::Shared, GroupMode::Dense] {
        let config = LoraConfig { group_mode: mode, ..LoraConfig::default() };
        let (again, warnings) = LoraConfig::from_json(&config.to_json(), "f").unwrap();
        assert_eq!((again.group_mode, again.to_json(), warnings.len()), (mode, config.to_json(), 0));
    }
    let table = table(json!({"group_mode": "shared"}));
    assert_eq!(LoraConfig::from_table(&table, "run.toml").unwrap().group_mode, GroupMode::Shared);
}

#[test]
fn transposed_convolutions_survive_a_rewrite() {
    let config = LoraConfig { conv_transpose: vec!["ups.1".into(), "ups.0".into()], ..LoraConfig::default() };
    let (again, warnings) = LoraConfig::from_json(&config.to_json(), "f").unwrap();
    assert_eq!((&again.conv_transpose, again.to_json(), warnings.len()), (&config.conv_transpose, config.to_json(), 0));
}

#[test]
fn the_norm_of_dora_survives_a_rewrite_and_is_pefts_in_a_file_that_names_none() {
    for norm in [DoraNorm::Exact, DoraNorm::Peft] {
        let config = LoraConfig { use_dora: true, dora_norm: norm, ..LoraConfig::default() };
        let (again, warnings) = LoraConfig::from_json(&config.to_json(), "f").unwrap();
        assert_eq!((again.dora_norm, again.to_json(), warnings.len()), (norm, config.to_json(), 0));
    }
    assert_eq!(read(json!({"use_dora": true})).unwrap().dora_norm, DoraNorm::Peft);
    assert_eq!(read(json!({"use_dora": false})).unwrap().dora_norm, DoraNorm::Exact);
    let run = |settings| LoraConfig::from_table(&table(settings), "run.toml").unwrap().dora_norm;
    assert_eq!(run(json!({"use_dora": true})), DoraNorm::Exact);
    assert_eq!(run(json!({"use_dora": true, "dora_norm": "peft"})), DoraNorm::Peft);
}

#[test]
fn our_own_settings_of_a_later_version_are_refused() {
    let error = read(json!({"lowrank": {"group_mode": "shared", "transposed": true}})).unwrap_err();
    assert!(error.to_string().contains("lowrank: unknown setting `transposed`"), "{error}");
}

#[test]
fn runs_refuse_unknown_keys_and_what_is_for_files() {
    let errors =
        run_errors(json!({"rank": 8, "lora_alpa": 16, "runtime_config": {}, "lowrank": {}, "peft_type": "LOHA"}));
    assert_eq!(
        errors,
        [
            "run.toml: unknown key `rank`",
            "run.toml: unknown key `lora_alpa`, nearest is `lora_alpha`",
            "run.toml: unknown key `runtime_config`",
            "run.toml: unknown key `lowrank`",
            "run.toml: peft_type: the adapter is LOHA, which is not supported: expected LORA",
        ]
    );
    assert!(run_errors(json!({"inference_mode": true}))[0].contains("trains nothing"));
    assert_eq!(run_errors(json!({"peft_type": "LORA", "inference_mode": false, "r": 4})), [""; 0]);
}

#[test]
fn ranges_are_checked() {
    for (settings, part) in [
        (json!({"r": 0}), "r: rank out of range: found 0, expected 1 to 65536"),
        (json!({"r": 65537}), "found 65537"),
        (json!({"rank_pattern": {"a": 0}}), "rank of `a` out of range"),
        (json!({"lora_alpha": 1e39}), "alpha out of range"),
        (json!({"lora_alpha": 0}), "nothing would train"),
        (json!({"alpha_pattern": {"a": 1e300}}), "alpha of `a` out of range"),
        (json!({"lora_dropout": 1}), "probability out of range: found 1, expected"),
        (json!({"lora_dropout": -0.1}), "probability out of range"),
        (json!({"task_type": "CAUSAL"}), "unknown task: found \"CAUSAL\""),
        (json!({"target_modules": ""}), "target_modules: empty name"),
        (json!({"target_modules": ["a", ""]}), "target_modules: empty name"),
        (json!({"modules_to_save": [""]}), "modules_to_save: empty name"),
        (json!({"rank_pattern": {"": 1}}), "rank_pattern: empty name"),
        (json!({"target_modules": ["a".repeat(1025)]}), "is too long"),
        (json!({"exclude_modules": "("}), "exclude_modules: pattern `(`: missing `)`"),
        (json!({"rank_pattern": {"[": 1}}), "rank_pattern: pattern `[`: missing `]`"),
        (json!({"alpha_pattern": {"a)": 1}}), "unbalanced"),
        (json!({"modules_to_save": ["("]}), "modules_to_save: pattern `(`: missing `)`"),
        (json!({"layers_pattern": ["("], "layers_to_transform": 1}), "layers_pattern: pattern"),
    ] {
        let errors = run_errors(settings.clone());
        assert!(errors.len() == 1 && errors[0].contains(part), "{settings}: {errors:?}");
    }
    let infinite = LoraConfig { lora_alpha: f64::NAN, lora_dropout: f64::NAN, ..LoraConfig::default() };
    assert_eq!(infinite.validate().unwrap_err().parts().len(), 2);
    assert!(read(json!({"lora_alpha": 0})).is_ok(), "a finished adapter without effect is one");
}

#[test]
fn keys_that_exclude_each_other() {
    for (settings, part) in [
        (json!({"target_modules": "a", "layers_to_transform": [1]}), "layers_to_transform: cannot be used when"),
        (json!({"target_modules": "a", "layers_pattern": []}), "layers_pattern: cannot be used when"),
        (json!({"target_modules": ["a"], "layers_pattern": "h"}), "layers_pattern: has no effect without"),
        (json!({"lora_bias": true, "init_lora_weights": "gaussian"}), "lora_bias: needs init_lora_weights"),
        (json!({"lora_bias": true, "use_dora": true}), "lora_bias: cannot be used with use_dora"),
        (json!({"init_lora_weights": "mica", "use_dora": true}), "init_lora_weights: cannot be used with use_dora"),
    ] {
        let errors = run_errors(settings.clone());
        assert!(errors.len() == 1 && errors[0].contains(part), "{settings}: {errors:?}");
    }
    for settings in [
        json!({"target_modules": ["a"], "layers_pattern": ""}),
        json!({"target_modules": ["a"], "layers_pattern": [], "layers_to_transform": 3}),
        json!({"lora_bias": true, "init_lora_weights": false}),
    ] {
        assert_eq!(run_errors(settings), [""; 0]);
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for settings in [
        json!({"target_parameters": ["experts.w"]}),
        json!({"layer_replication": [[0, 4]]}),
        json!({"megatron_config": {}}),
        json!({"use_qalora": true}),
        json!({"alora_invocation_tokens": [1]}),
        json!({"arrow_config": {}}),
        json!({"kasa_config": {}}),
        json!({"monteclora_config": {}}),
        json!({"velora_config": {}}),
        json!({"use_bdlora": {}}),
        json!({"ensure_weight_tying": true}),
        json!({"target_modules": "dummy-target-modules"}),
    ] {
        let key = settings.as_object().unwrap().keys().next().unwrap().clone();
        for errors in [run_errors(settings.clone()), messages(&read(settings.clone()).unwrap_err())] {
            assert!(errors.len() == 1 && errors[0].contains(&format!(": {key}: ")), "{settings}: {errors:?}");
        }
    }
    assert!(read(json!({"target_parameters": []})).is_ok());
}

#[test]
fn token_indices_are_read_checked_and_written_again() {
    for (settings, indices) in [
        (json!({"trainable_token_indices": [3, 1]}), [3, 1]),
        (json!({"trainable_token_indices": {"emb": [2, 0], "a.embed": [5, 6]}}), [5, 6]),
    ] {
        let config = read(settings.clone()).unwrap();
        let tokens = config.trainable_token_indices.as_ref().unwrap();
        assert_eq!(tokens.of("model.a.embed"), Some(&indices[..]));
        let again: Value = serde_json::from_str(&config.to_json()).unwrap();
        assert_eq!(again["trainable_token_indices"], settings["trainable_token_indices"]);
    }
    for (settings, part) in [
        (json!({"trainable_token_indices": []}), "no row of `embed_tokens` would train"),
        (json!({"trainable_token_indices": {"emb": []}}), "no row of `emb` would train"),
        (json!({"trainable_token_indices": [1, 2, 1]}), "row 1 of `embed_tokens` is there twice"),
        (json!({"trainable_token_indices": {"": [1]}}), "empty name"),
        (json!({"trainable_token_indices": {"emb": [1]}, "modules_to_save": ["emb"]}), "`emb` is in modules_to_save"),
    ] {
        for errors in [run_errors(settings.clone()), messages(&read(settings.clone()).unwrap_err())] {
            assert!(errors.len() == 1 && errors[0].contains(part), "{settings}: {errors:?}");
        }
    }
}

#[test]
fn settings_of_what_is_off_are_refused_in_runs_and_kept_in_files() {
    for settings in [
        json!({"loftq_config": {"loftq_bits": 4}}),
        json!({"eva_config": {"rho": 2.0}}),
        json!({"corda_config": {}}),
        json!({"lora_ga_config": {}}),
        json!({"qalora_group_size": 32}),
        json!({"megatron_core": null}),
    ] {
        let errors = run_errors(settings.clone());
        assert!(errors.len() == 1 && errors[0].contains("has no effect"), "{settings}: {errors:?}");
        let kept = read(settings.clone()).unwrap().to_json();
        let kept: Map<String, Value> = serde_json::from_str(&kept).unwrap();
        assert!(table(settings).iter().all(|(key, value)| kept.get(key) == Some(value)));
    }
}

#[test]
fn initialisations_that_change_the_base_model_do_not_load() {
    for name in ["pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "lora_ga"] {
        let error = read(json!({"init_lora_weights": name})).unwrap_err();
        assert!(error.to_string().contains("changes the base model"), "{error}");
        assert!(error.hint().unwrap().contains("path_initial_model_for_weight_conversion"));
    }
    let loftq = read(json!({"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}})).unwrap_err();
    assert!(loftq.hint().unwrap().contains("merge_and_unload"));
    for name in ["eva", "orthogonal", "mica", "Gaussian"] {
        let config = read(json!({"init_lora_weights": name})).unwrap();
        assert!(config.to_json().contains(&format!("\"init_lora_weights\": \"{name}\"")));
    }
    for name in ["orthogonal", "mica", "pissa", "PiSSA_niter_16", "olora", "lora_ga", "eva", "corda"] {
        assert_eq!(run_errors(json!({"init_lora_weights": name})), [""; 0], "{name}");
    }
    assert!(run_errors(json!({"init_lora_weights": "loftq"}))[0].contains("needs a quantised base model"));
    for name in ["pissa_niter_", "pissa_niter_-1", "pissa_4"] {
        assert!(run_errors(json!({"init_lora_weights": name}))[0].contains("unknown initialisation"), "{name}");
    }
    let unknown = read(json!({"init_lora_weights": "gausian"})).unwrap_err();
    assert_eq!(unknown.hint(), Some("did you mean \"gaussian\"?"));
}

#[test]
fn tables_of_initialisations_are_read_and_checked() {
    use crate::init::{Corda, Direction, Eva, LoraGa, Scaling};
    let of = |table: Value| {
        let settings = json!({"init_lora_weights": "lora_ga", "lora_ga_config": table});
        LoraConfig::from_table(settings.as_object().unwrap(), "f").map(|config| config.lora_ga().unwrap())
    };
    assert_eq!(of(json!({})).unwrap(), LoraGa::default());
    let other = LoraGa { direction: Direction::A2rBr, scale: Scaling::GdScale, stable_gamma: 2.0 };
    assert_eq!(of(json!({"direction": "A2rBr", "scale": "gd_scale", "stable_gamma": 2})).unwrap(), other);
    for (table, found, hint) in [
        (json!({"direction": "ArB3r"}), "direction: unknown: found \"ArB3r\"", Some("did you mean \"ArB2r\"?")),
        (json!({"scale": 1}), "expected one of stable, weight_svd, gd_scale, unit", None),
        (json!({"stable_gamma": 0}), "stable_gamma: out of range: found 0", None),
        (json!({"gamma": 1}), "unknown key: found `gamma`", None),
    ] {
        let settings = json!({"init_lora_weights": "lora_ga", "lora_ga_config": table});
        let config = LoraConfig::from_table(settings.as_object().unwrap(), "f");
        let error = config.and_then(|config| config.validate()).unwrap_err();
        assert!(error.to_string().contains(found), "{error}");
        assert!(hint.is_none() || error.hint() == hint, "{error:?}");
    }
    let read = |init: &str, key: &str, table: Value| {
        let settings = json!({"init_lora_weights": init, (key): table});
        LoraConfig::from_table(settings.as_object().unwrap(), "f")
    };
    let table = json!({"rho": 1, "tau": 0.9, "whiten": true, "adjust_scaling_factors": false});
    let eva = read("eva", "eva_config", table).unwrap();
    assert_eq!(eva.eva().unwrap(), Eva { rho: 1.0, whiten: true, adjust_scaling_factors: false });
    assert!(read("eva", "eva_config", json!({"rho": 0.5})).unwrap_err().to_string().contains("at least 1"));
    let corda = read("corda", "corda_config", json!({"corda_method": "kpm", "cache_file": "cache.pt"})).unwrap();
    assert_eq!(corda.corda().unwrap(), Corda::KnowledgePreserved);
    assert!(read("corda", "corda_config", json!({"corda_method": "ppm"})).is_err());
}

#[test]
fn many_regular_expressions_are_refused_and_many_names_are_not() {
    let keys = |text: &str| json!({"rank_pattern": (0..5000).map(|i| (format!("{text}{i}"), 4.into())).collect::<Map<_, _>>()});
    assert_eq!(run_errors(keys("layers.0.fc")), [""; 0]);
    let errors = run_errors(keys("(?:a)"));
    assert!(errors.len() == 1 && errors[0].contains("too many regular expressions"), "{errors:?}");
    let errors = run_errors(keys("("));
    assert_eq!(errors.len(), MAX_REGEXES + 2, "no more are tried than allowed");
}

proptest! {
    #[test]
    fn numbers_survive_being_written_and_read(digits in -999_999_999_999_999..999_999_999_999_999_i64, point in 0..22) {
        let alpha: f64 = format!("{digits}e-{point}").parse().unwrap();
        let config = LoraConfig { lora_alpha: alpha, ..LoraConfig::default() };
        let (again, _) = LoraConfig::from_json(&config.to_json(), "f").unwrap();
        prop_assert_eq!(again.lora_alpha.to_bits(), alpha.to_bits());
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,80}|[{}\\[\\]\":,0-9a-e\\\\ ]{0,80}") {
        let _ = LoraConfig::from_json(&text, "f");
    }

    #[test]
    fn no_value_panics_and_what_is_accepted_is_written_stably(
        key in prop::sample::select(LoraConfig::keys()),
        value in prop::sample::select(vec!["null", "true", "0", "-1", "1.5", "1e300", "\"a\"", "\"(\"", "[]", "[1]", "[\"a\"]", "{}", "{\"a\": 1}"]),
    ) {
        let text = format!("{{\"peft_type\": \"LORA\", \"{key}\": {value}}}").replacen("\"peft_type\": \"LORA\", \"peft_type\"", "\"peft_type\"", 1);
        if let Ok((config, _)) = LoraConfig::from_json(&text, "f") {
            let written = config.to_json();
            prop_assert_eq!(LoraConfig::from_json(&written, "f").unwrap().0.to_json(), written);
        }
    }
}

#[test]
fn rank_and_alpha_are_looked_up_independently() {
    let config = LoraConfig {
        r: 4,
        lora_alpha: 2.0,
        rank_pattern: vec![("^conv".into(), 2), ("conv".into(), 16), ("a.conv".into(), 32)],
        alpha_pattern: vec![("a.conv".into(), 64.0)],
        ..LoraConfig::default()
    };
    let both = |path| (config.rank_for(path).unwrap(), config.alpha_for(path).unwrap());
    assert_eq!(both("conv"), (2, 2.0));
    assert_eq!(both("b.conv"), (16, 2.0));
    assert_eq!(both("a.conv"), (16, 64.0), "the first key counts, not the longest");
    assert_eq!(both("conv.b"), (4, 2.0));
    assert_eq!(both("myconv"), (4, 2.0));
    assert!((config.scaling_for("a.conv").unwrap() - 4.0).abs() < f32::EPSILON);
}

#[test]
fn rslora_divides_by_the_root() {
    let config = LoraConfig { r: 16, lora_alpha: 2.0, use_rslora: true, ..LoraConfig::default() };
    assert!((config.scaling_for("x").unwrap() - 0.5).abs() < f32::EPSILON);
}

#[test]
fn twice_the_rank_at_the_same_scale() {
    for use_rslora in [false, true] {
        let config = LoraConfig {
            use_rslora,
            init_lora_weights: InitLoraWeights::Olora,
            rank_pattern: vec![("conv2".into(), 4)],
            alpha_pattern: vec![("head".into(), 3.0)],
            ..LoraConfig::default()
        };
        let doubled = config.with_rank_doubled();
        assert_eq!(doubled.init_lora_weights, InitLoraWeights::True);
        for path in ["conv1", "conv2", "head"] {
            assert_eq!(doubled.rank_for(path).unwrap(), 2 * config.rank_for(path).unwrap());
            let (before, after) = (config.scaling_for(path).unwrap(), doubled.scaling_for(path).unwrap());
            assert!((before - after).abs() < 1e-6 * before, "{path}");
        }
    }
}

/// A value of `key` other than its default, with what the key goes with.
fn sample(key: &str) -> Value {
    match key {
        "corda_config" | "eva_config" | "lora_ga_config" => {
            json!({"init_lora_weights": key.trim_end_matches("_config"), key: {}})
        }
        "layers_pattern" => json!({"layers_to_transform": [0], key: "layers"}),
        "alpha_pattern" | "rank_pattern" => json!({key: {"a": 2}}),
        "trainable_token_indices" | "alora_invocation_tokens" | "layers_to_transform" => json!({key: [0]}),
        "exclude_modules" | "modules_to_save" | "target_modules" | "target_parameters" => json!({key: ["a"]}),
        "layer_replication" => json!({key: [[0, 4]]}),
        "bias" => json!({key: "all"}),
        "init_lora_weights" => json!({key: "pissa"}),
        "loftq_config" => json!({key: {"loftq_bits": 4}}),
        "lora_alpha" | "qalora_group_size" | "r" => json!({key: 3}),
        "lora_dropout" => json!({key: 0.5}),
        "peft_type" => json!({key: "LORA"}),
        "task_type" => json!({key: "SEQ_CLS"}),
        "base_model_name_or_path" | "megatron_core" | "peft_version" | "revision" => json!({key: "x"}),
        "inference_mode" => json!({key: true}),
        flag if LoraConfig::default().values().contains(&(flag, false.into())) => json!({key: true}),
        _ => json!({key: {}}),
    }
}

#[test]
fn the_table_of_keys_is_true() {
    let mut keys = Vec::new();
    for row in include_str!("../../../../docs/config.md").lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let (key, state) = (cells[1].trim_matches('`'), cells[2]);
        let errors = run_errors(sample(key));
        let refused = errors.iter().any(|error| error.contains(&format!("{key}: ")));
        match state {
            "refused" => assert!(refused, "{key} is not refused: {errors:?}"),
            "works" => assert_eq!(errors, [""; 0], "{key}"),
            "kept" => assert!(read(sample(key)).is_ok(), "{key}"),
            other => panic!("{key}: {other}"),
        }
        keys.push(key);
    }
    let mut all = LoraConfig::keys();
    all.sort_unstable();
    assert_eq!(keys, all);
}
