//! Agreement with what PEFT itself targets, for the random cases of `golden/targets.json`.

use serde_json::Value;

use super::rules::{Rules, Verdict};
use super::{ModuleInfo, first_match};
use crate::adapter::{Layer, LayerKind};
use crate::config::LoraConfig;

const CASES: &str = include_str!("../../../../golden/targets.json");

fn modules(model: &Value) -> Vec<ModuleInfo> {
    let layer = Layer::new(LayerKind::Linear, &[2, 2], 1).unwrap();
    let paths = model.as_array().unwrap().iter().map(|path| path.as_str().unwrap().to_owned());
    paths.map(|path| ModuleInfo { path, class: "Linear".into(), layer: Some(layer.clone()) }).collect()
}

fn places(list: &Value) -> Vec<usize> {
    serde_json::from_value(list.clone()).unwrap()
}

#[test]
fn the_same_modules_are_targeted_and_excluded_as_in_peft() {
    let golden: Value = serde_json::from_str(CASES).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 240);
    for case in cases {
        let modules = modules(&golden["models"][usize::try_from(case["model"].as_u64().unwrap()).unwrap()]);
        let config = LoraConfig::from_table(case["config"].as_object().unwrap(), "case").unwrap();
        let rules = Rules::new(&config).unwrap();
        let (mut targeted, mut excluded) = (Vec::new(), Vec::new());
        for (place, module) in modules.iter().enumerate() {
            match rules.decide(module).unwrap().verdict {
                Verdict::Targeted => targeted.push(place),
                Verdict::Excluded | Verdict::Saved => excluded.push(place),
                Verdict::NotNamed | Verdict::OtherLayer => {}
            }
        }
        assert_eq!(targeted, places(&case["targeted"]), "{case}");
        assert_eq!(excluded, places(&case["excluded"]), "{case}");
    }
}

#[test]
fn the_same_keys_of_a_rank_pattern_count_as_in_peft() {
    let golden: Value = serde_json::from_str(CASES).unwrap();
    let cases = golden["keys"].as_array().unwrap();
    assert!(cases.len() >= 120);
    for case in cases {
        let modules = modules(&golden["models"][usize::try_from(case["model"].as_u64().unwrap()).unwrap()]);
        let keys = case["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned());
        let patterns: Vec<_> = keys.enumerate().map(|(place, key)| (key, place)).collect();
        for (module, chosen) in std::iter::zip(&modules, case["chosen"].as_array().unwrap()) {
            let found = first_match(&patterns, &module.path).unwrap();
            assert_eq!(
                found.copied(),
                chosen.as_u64().map(|place| usize::try_from(place).unwrap()),
                "{case} {}",
                module.path
            );
        }
    }
}
