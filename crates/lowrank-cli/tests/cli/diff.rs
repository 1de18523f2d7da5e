use insta::assert_snapshot;

use super::model::without_digits;
use super::runner::lowrank;

#[test]
fn what_is_equal_is_a_yes() {
    assert_snapshot!(lowrank("diff golden/adapters/linear/adapter golden/adapters/linear/adapter"));
    let base = "golden/adapters/conv1d_k3/base.safetensors";
    assert_snapshot!(lowrank(&format!("diff {base} {base}")));
}

#[test]
fn two_adapters_of_one_model() {
    let done = lowrank("diff golden/combined/factors/a golden/combined/factors/b");
    assert_eq!(done.code, 1);
    assert_snapshot!(without_digits(&done.to_string()));
}

#[test]
fn two_checkpoints() {
    let (first, second) = ("golden/adapters/linear/base.safetensors", "golden/adapters/linear_f16/base.safetensors");
    assert_snapshot!(without_digits(&lowrank(&format!("diff {first} {second}")).to_string()));
    let json = lowrank(&format!("diff {first} {second} --json"));
    assert_eq!((json.code, &*json.stderr), (1, ""));
    assert_eq!(json.json()["same"], false);
}

#[test]
fn what_cannot_be_compared() {
    let base = "golden/adapters/linear/base.safetensors";
    assert_snapshot!(lowrank(&format!("diff {base} golden/adapters/linear/adapter")));
    assert_snapshot!(lowrank(&format!("diff {base} golden/adapters/linear/bsae.safetensors")));
    assert_snapshot!(lowrank(&format!("diff {base}")));
    assert_snapshot!(lowrank(&format!("diff {base} {base} --jsn")));
}
