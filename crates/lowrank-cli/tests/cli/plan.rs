use std::fs;

use insta::assert_snapshot;

use super::model::{WORLD, lowrank};

#[test]
fn a_plan_shows_every_module_and_trains_nothing() {
    let plan = lowrank("plan adapt.toml --output planned");
    assert_eq!((plan.code, &*plan.stderr), (0, ""), "{plan}");
    let measured = |line: &&str| line.starts_with("time");
    assert_eq!(plan.stdout.lines().filter(measured).count(), 1, "{plan}");
    let rest: Vec<_> = plan.stdout.lines().filter(|line| !measured(line)).collect();
    assert_snapshot!(rest.join("\n"));
    assert!(!WORLD.join("planned").exists());
}

#[test]
fn the_plan_is_what_training_does() {
    for settings in ["", " --use-dora"] {
        let plan = lowrank(&format!("plan adapt.toml --json{settings}")).json();
        let output = super::model::fresh("as-planned");
        let done = lowrank(&format!("train adapt.toml --output as-planned --json{settings}")).json();
        for count in ["trainable_parameters", "all_parameters"] {
            assert_eq!(plan[count], done[count], "{count}");
        }
        assert_eq!(plan["data"]["steps"], done["steps"]);
        for name in plan["writes"].as_array().unwrap() {
            assert!(output.join(name.as_str().unwrap()).exists(), "{name}");
        }
        let header = fs::read(output.join("adapter/adapter_model.safetensors")).unwrap();
        let bytes = header.len() as u64 - 8 - u64::from_le_bytes(header[..8].try_into().unwrap());
        assert_eq!(plan["bytes"], bytes);
    }
}

#[test]
fn flags_alone_are_a_plan() {
    assert_snapshot!(lowrank("plan --model base/model --target-modules conv1 --r 4 --use-rslora"));
}

#[test]
fn a_new_base_trains_in_full() {
    let plan = lowrank("plan base.toml --json").json();
    assert_eq!((plan["base"].is_null(), plan["adapter"].as_bool()), (true, Some(false)));
    assert_eq!(plan["trainable_parameters"], plan["all_parameters"]);
}

#[test]
fn a_dead_pattern_is_an_error() {
    assert_snapshot!(lowrank("plan adapt.toml --target-modules conv1,con2 --rank-pattern steem=4"));
}
