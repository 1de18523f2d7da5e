//! Adapters as PEFT wrote them: read, written again, and merged into their base.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lowrank::adapter::tensor::Tensor;
use lowrank::files::{Checkpoint, adapter_dir, merge_checkpoint};
use lowrank::float::FloatType;
use serde_json::Value;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/adapters")
}

/// Every case: its folder, what `case.json` says, and its adapter's folder.
fn cases() -> Vec<(PathBuf, Value, PathBuf)> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(golden()).unwrap() {
        let dir = entry.unwrap().path();
        let case: Value = serde_json::from_str(&fs::read_to_string(dir.join("case.json")).unwrap()).unwrap();
        let adapter = dir.join(case["adapter"].as_str().unwrap());
        cases.push((dir, case, adapter));
    }
    assert!(cases.len() >= 66, "{}", cases.len());
    cases
}

fn name(dir: &Path) -> String {
    dir.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn what_peft_writes_is_written_again_byte_for_byte() {
    for (dir, _, adapter) in cases() {
        let case = name(&dir);
        let read = adapter_dir::read(&adapter).unwrap_or_else(|error| panic!("{case}: {error}"));
        let again = tempfile::tempdir().unwrap();
        adapter_dir::write(again.path(), &read.config, &read.state, None).unwrap();
        for file in [adapter_dir::WEIGHTS, adapter_dir::CONFIG] {
            let (ours, theirs) = (fs::read(again.path().join(file)).unwrap(), fs::read(adapter.join(file)).unwrap());
            assert!(ours == theirs, "{case}: {file} differs:\n{}", String::from_utf8_lossy(&ours));
        }
    }
}

#[test]
fn merged_weights_are_those_of_peft() {
    let cases = cases();
    let (all, mut merged, mut without) = (cases.len(), 0, Vec::new());
    for (dir, case, adapter) in cases {
        let place = name(&dir);
        if case["merged_by"].is_null() {
            without.push(place);
            continue;
        }
        let out = tempfile::tempdir().unwrap();
        let output = out.path().join("merged.safetensors");
        merge_checkpoint(&dir.join("base.safetensors"), &adapter, &output, false, &mut |_| {})
            .unwrap_or_else(|error| panic!("{place}: {error}: {:?}", error.parts()));
        compare(&place, &Checkpoint::open(&output).unwrap(), &Checkpoint::open(&dir.join("io.safetensors")).unwrap());
        merged += 1;
    }
    without.sort();
    assert_eq!(without, ["conv1d_depthwise_dense", "conv1d_groups_dense"], "A reaches into other groups");
    assert_eq!(merged, all - without.len());
}

fn compare(place: &str, ours: &Checkpoint, theirs: &Checkpoint) {
    for name in ours.names() {
        let (ours, theirs) = (ours.read(name).unwrap(), theirs.read(&format!("merged.{name}")).unwrap());
        assert_eq!(ours.shape(), theirs.shape(), "{place}: {name}");
        let Some(float) = ours.float() else {
            assert_eq!(ours, theirs, "{place}: {name}");
            continue;
        };
        // Half precision: PEFT may round the delta before adding it, which is one more rounding than we make.
        let tolerance = if float == FloatType::F32 { 1e-6 } else { 2.0 * float.epsilon() };
        let values = |tensor: &Tensor| tensor.values().unwrap().into_iter().map(f64::from).collect::<Vec<_>>();
        let (ours, theirs) = (values(&ours), values(&theirs));
        let largest = theirs.iter().fold(1.0_f64, |most, value| most.max(value.abs()));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!((ours - theirs).abs() <= tolerance * largest, "{place}: {name}: {ours} and {theirs}");
        }
    }
}

#[test]
fn what_cannot_be_merged_or_read_says_why() {
    let mut report = BTreeMap::new();
    for (dir, case, adapter) in cases() {
        let out = tempfile::tempdir().unwrap();
        let output = out.path().join("merged.safetensors");
        if let Err(error) = merge_checkpoint(&dir.join("base.safetensors"), &adapter, &output, false, &mut |_| {}) {
            let place = name(&dir);
            assert!(case["merged_by"].is_null(), "{place}: {error}");
            assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "{place} leaves something behind");
            let text = error.to_string().replace(&format!("{}/", dir.display()), "");
            report.insert(place, format!("{text} | hint: {}", error.hint().unwrap_or("none")));
        }
    }
    insta::assert_snapshot!(
        report.iter().map(|(place, text)| format!("{place}: {text}")).collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn named_adapters_are_found() {
    let two = golden().join("two_adapters/adapter");
    assert_eq!(adapter_dir::names(&two).unwrap(), ["default", "voice"]);
    let voice = adapter_dir::named(&two, "voice").unwrap();
    assert!(adapter_dir::read(&voice).is_ok());
    assert_eq!(adapter_dir::named(&two, "default").unwrap(), two);
    for evil in ["", ".", "..", "a/b", "/etc", "a\\b", "C:", "a.b", "a\0"] {
        assert!(adapter_dir::named(&two, evil).is_err(), "{evil:?}");
    }
}
