//! Whole models resolved: what is chosen, and what is said of what is not.

use serde_json::{Value, json};

use super::*;

fn module(path: &str, class: &str, shape: &[usize], groups: usize) -> ModuleInfo {
    let kind = match class {
        "Linear" => Some(LayerKind::Linear),
        "Conv1D" => Some(LayerKind::Conv1D),
        "Embedding" => Some(LayerKind::Embedding),
        "Conv1d" => Some(LayerKind::Conv1d),
        "Conv2d" => Some(LayerKind::Conv2d),
        _ => None,
    };
    let layer = kind.map(|kind| Layer::new(kind, shape, groups).unwrap());
    ModuleInfo { path: path.into(), class: class.into(), layer }
}

/// A small speech model.
fn model() -> Vec<ModuleInfo> {
    let mut modules = vec![
        module("", "Model", &[], 1),
        module("encoder", "Encoder", &[], 1),
        module("encoder.conv1", "Conv1d", &[16, 80, 3], 1),
        module("encoder.act", "GELU", &[], 1),
        module("encoder.layers", "ModuleList", &[], 1),
    ];
    for layer in 0..3 {
        let path = |name: &str| format!("encoder.layers.{layer}.{name}");
        modules.push(module(&path("q_proj"), "Linear", &[16, 16], 1));
        modules.push(module(&path("depthwise"), "Conv1d", &[16, 1, 3], 16));
        modules.push(module(&path("fc1"), "Linear", &[32, 16], 1));
    }
    modules.push(module("embed", "Embedding", &[100, 16], 1));
    modules.push(module("head", "Head", &[], 1));
    modules.push(module("head.fc1", "Linear", &[4, 16], 1));
    modules
}

fn config(settings: Value) -> LoraConfig {
    LoraConfig::from_table(&serde_json::from_value(settings).unwrap(), "run.toml").unwrap()
}

fn resolved(settings: Value) -> Resolution {
    resolve(&config(settings), &model()).unwrap()
}

fn paths(settings: Value) -> Vec<String> {
    resolved(settings).targets.into_iter().map(|target| target.path).collect()
}

/// Every error with its hint.
fn errors(settings: Value) -> Vec<String> {
    let error = resolve(&config(settings), &model()).unwrap_err();
    let single = |error: &Error| format!("{error}; {}", error.hint().unwrap_or_default());
    if error.parts().is_empty() { vec![single(&error)] } else { error.parts().iter().map(single).collect() }
}

#[test]
fn names_patterns_and_words_choose() {
    assert_eq!(
        paths(json!({"target_modules": ["encoder.conv1", "fc1"], "exclude_modules": "head.*"})),
        ["encoder.conv1", "encoder.layers.0.fc1", "encoder.layers.1.fc1", "encoder.layers.2.fc1"]
    );
    assert_eq!(paths(json!({"target_modules": r".*\.(conv1|1\.fc1)"})), ["encoder.conv1", "encoder.layers.1.fc1"]);
    assert_eq!(paths(json!({"target_modules": "all-linear"})).len(), 7);
    assert_eq!(paths(json!({"target_modules": "ALL-Conv", "r": 16})).len(), 4);
    assert_eq!(paths(json!({"target_modules": "all-layers", "r": 16})).len(), 12);
}

#[test]
fn a_target_says_what_chose_it_and_carries_its_rank_and_scale() {
    let settings = json!({
        "target_modules": ["fc1", "head.fc1"], "r": 4, "lora_alpha": 6,
        "rank_pattern": {r"layers\.[01]\.fc1": 2, "fc1": 3}, "alpha_pattern": {"^head.fc1": 12}
    });
    let found: Vec<_> =
        resolved(settings).targets.into_iter().map(|target| (target.pattern, target.rank, target.scale)).collect();
    let fc1 = || "fc1".to_owned();
    assert_eq!(found, [(fc1(), 2, 3.0), (fc1(), 2, 3.0), (fc1(), 3, 2.0), ("head.fc1".into(), 3, 4.0)]);
}

#[test]
fn a_word_is_written_as_the_paths_it_stood_for() {
    let resolution = resolved(json!({"target_modules": "all-conv", "r": 16, "exclude_modules": ["depthwise"]}));
    assert_eq!(resolution.target_modules, Patterns::List(vec!["encoder.conv1".into()]));
    let names = json!({"target_modules": ["fc1"]});
    assert_eq!(resolved(names).target_modules, Patterns::List(vec!["fc1".into()]));
}

#[test]
fn a_word_whose_paths_would_stand_for_other_modules_is_refused() {
    let modules = [module("conv", "Conv1d", &[2, 2, 1], 1), module("block.conv", "Linear", &[2, 2], 1)];
    let error = resolve(&config(json!({"target_modules": "all-conv"})), &modules).unwrap_err();
    assert!(error.to_string().contains("`conv` would also stand for `block.conv`"), "{error}");
    let excluded = json!({"target_modules": "all-conv", "exclude_modules": ["block.conv"]});
    assert_eq!(resolve(&config(excluded), &modules).unwrap().targets.len(), 1);
}

#[test]
fn entries_that_match_nothing_are_all_named_with_what_is_near() {
    assert_eq!(
        errors(json!({"target_modules": ["fc1", "fc3", "self_attn.q_proj", "xyzzy"]})),
        [
            "target_modules: `fc3` matches no module; did you mean `fc1`?",
            "target_modules: `self_attn.q_proj` matches no module; the model's modules are called conv1, depthwise, embed, fc1, q_proj",
            "target_modules: `xyzzy` matches no module; the model's modules are called conv1, depthwise, embed, fc1, q_proj",
        ]
    );
    assert_eq!(
        errors(json!({"target_modules": ["encoder.conv2"]})),
        ["target_modules: `encoder.conv2` matches no module; did you mean `encoder.conv1`?"]
    );
}

#[test]
fn a_string_that_should_be_a_list_or_a_word_is_recognised() {
    assert_eq!(
        errors(json!({"target_modules": "conv1"})),
        [
            "target_modules: `conv1` matches no module; a string has to match the whole path; to name modules, write a list: [\"conv1\"]"
        ]
    );
    assert!(errors(json!({"target_modules": "all_linear"}))[0].ends_with("did you mean \"all-linear\"?"));
    let only_linear = [module("a", "Linear", &[2, 2], 1)];
    let error = resolve(&config(json!({"target_modules": "all-conv"})), &only_linear).unwrap_err();
    assert_eq!(error.hint(), Some("the model has no layer for \"all-conv\""));
}

#[test]
fn without_targets_there_is_nothing_to_resolve() {
    assert!(errors(json!({}))[0].starts_with("target_modules: missing"));
    assert!(errors(json!({"target_modules": []}))[0].starts_with("target_modules: no module gets an adapter"));
    let all_excluded = errors(json!({"target_modules": ["conv1"], "exclude_modules": ["encoder.conv1"]}));
    assert!(all_excluded[0].starts_with("target_modules: no module gets an adapter"), "{all_excluded:?}");
}

#[test]
fn modules_that_cannot_be_adapted_are_named_by_entry() {
    assert_eq!(
        errors(json!({"target_modules": r"encoder(\.[a-z]+[0-9]*)?"})),
        [r"target_modules: `encoder(\.[a-z]+[0-9]*)?` matches modules that cannot be adapted: found encoder (Encoder), \
          encoder.act (GELU), encoder.layers (ModuleList), expected modules of Linear, Conv1D, Embedding, Conv1d, Conv2d, \
          Conv3d, ConvTranspose1d, ConvTranspose2d; write the pattern narrower, or name them in exclude_modules"
            .replace("\\\n          ", "")]
    );
}

#[test]
fn layers_restrict_names_but_not_whole_paths() {
    let settings = json!({"target_modules": ["q_proj", "encoder.layers.0.fc1"], "layers_to_transform": 2});
    assert_eq!(paths(settings), ["encoder.layers.0.fc1", "encoder.layers.2.q_proj"]);
    let settings = json!({"target_modules": ["q_proj"], "layers_to_transform": [0, 1], "layers_pattern": ["layers"]});
    assert_eq!(paths(settings), ["encoder.layers.0.q_proj", "encoder.layers.1.q_proj"]);
}

#[test]
fn layers_that_are_nowhere_are_refused() {
    let errors = |settings: Value| errors(settings).join("\n");
    assert_eq!(
        errors(json!({"target_modules": ["q_proj"], "layers_to_transform": [2, 3]})),
        "layers_to_transform: no targeted module is in layer 3; they are in layers 0, 1, 2"
    );
    assert_eq!(
        errors(json!({"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": ["layers", "h"]})),
        "layers_pattern: `h` finds the layer of no targeted module; it must stand right before the layer's number in a path"
    );
    assert_eq!(
        errors(json!({"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "h"})),
        "target_modules: `q_proj` matches no module in layers_to_transform; no layer number was found in their paths: see layers_pattern"
    );
    assert!(
        errors(json!({"target_modules": ["encoder.conv1"], "layers_to_transform": 1}))
            .starts_with("layers_to_transform: has no effect")
    );
}

#[test]
fn saved_modules_and_what_is_in_them_get_no_adapter() {
    let resolution = resolved(json!({"target_modules": ["fc1"], "modules_to_save": ["head"]}));
    assert_eq!(resolution.modules_to_save, ["head"]);
    assert_eq!(resolution.targets.len(), 3);
    let nested =
        resolved(json!({"target_modules": ["q_proj"], "modules_to_save": ["head.fc1", "head", "encoder.conv1"]}));
    assert_eq!(nested.modules_to_save, ["encoder.conv1", "head"], "in the order of the model, the outermost");
}

#[test]
fn names_to_save_need_no_dot_before_them_but_must_not_hit_a_target() {
    let resolution = resolved(json!({"target_modules": ["q_proj"], "modules_to_save": ["wise"]}));
    assert_eq!(resolution.modules_to_save.len(), 3);
    let clash = errors(json!({"target_modules": ["encoder.conv1", "head.fc1"], "modules_to_save": ["onv1", "ead"]}));
    assert_eq!(clash.len(), 2, "{clash:?}");
    assert!(clash[1].contains("module `head.fc1` would be saved in full and have an adapter"));
}

#[test]
fn a_name_to_save_that_matches_nothing_is_refused_but_not_a_tasks_own() {
    let refused = errors(json!({"target_modules": ["fc1"], "modules_to_save": ["embd"]}));
    assert_eq!(refused, ["modules_to_save: `embd` matches no module; did you mean `embed`?"]);
    let container = errors(json!({"target_modules": ["head.fc1"], "modules_to_save": ["layers"]}));
    assert!(container[0].contains("`encoder.layers` is a ModuleList"), "{container:?}");

    let task = |names: Value| {
        resolved(json!({"target_modules": ["q_proj"], "task_type": "SEQ_CLS", "modules_to_save": names}))
    };
    assert_eq!(
        task(json!(["classifier", "score"])).warnings,
        ["task_type SEQ_CLS saves classifier and score, which the model does not have"]
    );
    assert_eq!(task(json!(["classifier", "score", "head"])).modules_to_save, ["head"]);

    let mut modules = model();
    modules.push(module("score", "Linear", &[2, 16], 1));
    let config = config(json!({"target_modules": "all-linear", "task_type": "SEQ_CLS"}));
    let resolution = resolve(&config, &modules).unwrap();
    assert_eq!((resolution.modules_to_save, resolution.targets.len()), (vec!["score".to_owned()], 7));
}

#[test]
fn keys_of_patterns_that_match_no_target_are_refused() {
    assert_eq!(
        errors(
            json!({"target_modules": ["fc1"], "rank_pattern": {"fc2": 4, "fc1": 2}, "alpha_pattern": {"q_proj": 4}})
        ),
        [
            "rank_pattern: `fc2` matches no targeted module; did you mean `fc1`?",
            "alpha_pattern: `q_proj` matches no targeted module; the model's modules are called fc1",
        ]
    );
    let shadowed = resolved(json!({"target_modules": ["fc1"], "rank_pattern": {"fc1": 4, "head.fc1": 2}}));
    assert_eq!(shadowed.warnings, ["rank_pattern: `head.fc1` has no effect: earlier keys match all its modules"]);
}

#[test]
fn what_excludes_nothing_is_a_warning() {
    let resolution =
        resolved(json!({"target_modules": ["fc1", "conv1"], "exclude_modules": ["haed", "encoder.conv1"], "r": 4}));
    assert_eq!(
        resolution.warnings,
        [
            "target_modules: every module that `conv1` matches is in exclude_modules or modules_to_save",
            "exclude_modules: `haed` matches no module; did you mean `head`?",
        ]
    );
}

#[test]
fn ranks_must_suit_the_groups() {
    let refused = errors(json!({"target_modules": ["depthwise"], "r": 8}));
    assert_eq!(refused.len(), 1);
    assert!(refused[0].starts_with(
        "encoder.layers.0.depthwise, encoder.layers.1.depthwise, encoder.layers.2.depthwise: rank is no multiple of the \
         convolution's groups: found rank 8, expected a multiple of 16"
    ));
    assert!(
        errors(json!({"target_modules": ["depthwise"], "r": 8, "group_mode": "dense"}))[0].contains("multiple of 16")
    );
    let shared = resolved(json!({"target_modules": ["depthwise"], "r": 3, "group_mode": "shared"}));
    assert!(shared.warnings.is_empty() && shared.targets.iter().all(|target| target.mode == GroupMode::Shared));
}

#[test]
fn ranks_that_are_more_than_the_weight_can_use_are_warned_of() {
    let warnings = |settings: Value| resolved(settings).warnings;
    assert_eq!(
        warnings(json!({"target_modules": ["depthwise"], "r": 4, "group_mode": "shared"})),
        [
            "encoder.layers.0.depthwise, encoder.layers.1.depthwise, encoder.layers.2.depthwise: rank 4 is more than the \
          weight can use: rank 3 reaches every change of it"
        ]
    );
    assert_eq!(warnings(json!({"target_modules": ["depthwise"], "r": 16})), [""; 0]);
    assert!(warnings(json!({"target_modules": ["depthwise"], "r": 32}))[0].contains("rank 16 reaches"));
    assert!(warnings(json!({"target_modules": ["head.fc1"], "r": 8}))[0].contains("rank 4 reaches"));
}

#[test]
fn flags_that_do_not_suit_the_layers() {
    assert!(
        errors(json!({"target_modules": ["embed"], "lora_bias": true}))[0]
            .contains("lora_bias: an adapter on an Embedding")
    );
    let warnings = resolved(json!({"target_modules": ["head.fc1"], "r": 2, "fan_in_fan_out": true})).warnings;
    assert_eq!(warnings, ["fan_in_fan_out has no effect on Linear layers: head.fc1"]);
}

#[test]
fn errors_of_every_sort_come_at_once() {
    let settings = json!({
        "target_modules": ["fc9", "depthwise"], "modules_to_save": ["nobody"], "rank_pattern": {"nothing": 2}, "r": 3
    });
    assert_eq!(errors(settings).len(), 4);
}

#[test]
fn a_pattern_that_takes_too_long_stops_at_once() {
    let modules = [module(&"a".repeat(100), "Linear", &[2, 2], 1)];
    let error = resolve(&config(json!({"target_modules": r"(a|aa)+\1b"})), &modules).unwrap_err();
    assert!(error.to_string().contains("takes too long"), "{error}");
}
