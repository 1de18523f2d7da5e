//! An adapter that PEFT made on `nn.MultiheadAttention`: read, checked, merged once, saved as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lowrank::adapter::combine::{Combination, CombinationType};
use lowrank::adapter::inspect::inspect;
use lowrank::adapter::rank::Cut;
use lowrank::files::{Checkpoint, adapter_dir, check_adapter, combine_dirs, merge_checkpoint, resize_dir};

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

/// What an adapter adds to each weight of the base, by a merge.
fn deltas(adapter: &Path) -> BTreeMap<String, Vec<f64>> {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("merged.safetensors");
    merge_checkpoint(&golden("base.safetensors"), adapter, &output, false, &mut |_| {}).unwrap();
    let [base, merged] = [golden("base.safetensors"), output].map(|path| Checkpoint::open(&path).unwrap());
    let of = |name: &str| {
        let [base, merged] = [&base, &merged].map(|model| model.read(name).unwrap().values().unwrap());
        merged.iter().zip(base).map(|(merged, base)| f64::from(*merged) - f64::from(base)).collect::<Vec<_>>()
    };
    ["attn.in_proj_weight", "attn.out_proj.weight"].map(|name| (name.to_owned(), of(name))).into()
}

fn assert_close(found: &BTreeMap<String, Vec<f64>>, expected: impl Fn(&str, usize) -> f64, tolerance: f64) {
    for (name, found) in found {
        for (at, found) in found.iter().enumerate() {
            let expected = expected(name, at);
            assert!((found - expected).abs() <= tolerance, "{name}[{at}]: {found}, expected {expected}");
        }
    }
}

#[test]
fn adapters_on_an_attention_are_combined_and_resized() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let own = deltas(&golden("adapter"));

    // The rank is in a pattern, which means both projections by the name of the attention.
    let mut adapter = adapter_dir::read(&golden("adapter")).unwrap();
    adapter.config.rank_pattern = vec![("attn".into(), adapter.config.r)];
    adapter.config.r = 16;
    adapter.config.alpha_pattern = vec![("attn".into(), adapter.config.lora_alpha)];
    adapter.config.lora_alpha = 1.0;
    adapter_dir::write(&at("patterned"), &adapter.config, &adapter.state, None).unwrap();
    assert_close(&deltas(&at("patterned")), |name, at| own[name][at], 1e-6);
    let report = inspect(&adapter.config, &adapter.state).unwrap();
    assert!(report.modules.iter().all(|module| module.rank == 3), "{report:?}");

    let combined = |how: &Combination| {
        let sources = [golden("adapter"), at("patterned")];
        combine_dirs(&sources, &[0.75, -0.25], how, &at("combined"), true, &mut |_, _, _| {}).unwrap();
        let read = adapter_dir::read(&at("combined")).unwrap();
        assert!(read.config.rank_pattern.is_empty(), "{:?}", read.config.rank_pattern);
        deltas(&at("combined"))
    };
    for combination_type in [CombinationType::Cat, CombinationType::Svd] {
        let found = combined(&Combination { combination_type, ..Combination::default() });
        assert_close(&found, |name, at| own[name][at] * 0.5, 2e-6);
    }
    for combination_type in [CombinationType::Linear, CombinationType::Ties, CombinationType::MagnitudePrune] {
        let density = (combination_type != CombinationType::Linear).then_some(1.0);
        let found = combined(&Combination { combination_type, density, ..Combination::default() });
        assert!(found["attn.out_proj.weight"].iter().any(|value| value.abs() > 1e-3));
    }

    let wider = resize_dir(&at("patterned"), Cut::Rank(5), Some((&at("wider"), false))).unwrap().0;
    assert_eq!(wider.modules.iter().map(|module| module.rank).collect::<Vec<_>>(), [5, 5]);
    assert_close(&deltas(&at("wider")), |name, at| own[name][at], 2e-6);
    let cut = resize_dir(&golden("adapter"), Cut::Energy(0.8), Some((&at("cut"), false))).unwrap().0;
    let [input, output] = cut.modules.as_slice() else { panic!("{:?}", cut.modules) };
    assert_eq!(input.rank, output.rank, "as PEFT can read it");
    for (name, module) in [("attn.in_proj_weight", input), ("attn.out_proj.weight", output)] {
        let norm = |values: Vec<f64>| values.iter().map(|value| value * value).sum::<f64>().sqrt();
        let found = deltas(&at("cut"));
        let left = found[name].iter().zip(&own[name]).map(|(found, own)| found - own).collect();
        assert!((norm(left) / norm(own[name].clone()) - module.error).abs() < 1e-5, "{name}: {module:?}");
    }
}
