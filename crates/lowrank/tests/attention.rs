//! An adapter that PEFT made on `nn.MultiheadAttention`: read, checked, merged once, saved as it was.

use std::fs;
use std::path::{Path, PathBuf};

use lowrank::files::{Checkpoint, adapter_dir, check_adapter, merge_checkpoint};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/attention").join(name)
}

#[test]
fn both_projections_are_merged_once() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("merged.safetensors");
    let summary =
        merge_checkpoint(&golden("base.safetensors"), &golden("adapter"), &output, false, &mut |_| {}).unwrap();
    let mut merged: Vec<_> = summary.merged.iter().map(|(name, _)| name.as_str()).collect();
    merged.sort_unstable();
    assert_eq!(merged, ["attn.in_proj_weight", "attn.out_proj.weight"]);
    let [found, expected] = [output, golden("merged.safetensors")].map(|path| Checkpoint::open(&path).unwrap());
    assert_eq!(found.names().collect::<Vec<_>>(), expected.names().collect::<Vec<_>>());
    for name in expected.names() {
        let [found, expected] = [&found, &expected].map(|model| model.read(name).unwrap().values().unwrap());
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() <= 2e-6 * expected.abs().max(1.0), "{name}: {found}, expected {expected}");
        }
    }
}

#[test]
fn it_fits_its_base_and_no_other() {
    let check = check_adapter(&golden("base.safetensors"), &golden("adapter")).unwrap();
    assert!(check.problems.is_empty(), "{:?}", check.problems);
    let modules: Vec<_> = check.modules.iter().map(|module| module.path.as_str()).collect();
    assert_eq!(modules, ["attn", "attn.out_proj"]);
    let other = check_adapter(&golden("../weight_norm/base.safetensors"), &golden("adapter")).unwrap();
    assert_eq!(other.problems.len(), 2, "{:?}", other.problems);
}

#[test]
fn it_is_saved_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = adapter_dir::read(&golden("adapter")).unwrap();
    adapter_dir::write(dir.path(), &adapter.config, &adapter.state, None).unwrap();
    for name in ["adapter_model.safetensors", "adapter_config.json"] {
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), fs::read(golden("adapter").join(name)).unwrap(), "{name}");
    }
}
