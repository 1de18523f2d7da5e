//! Merging and unmerging any of several adapters, in any order.

use burn::module::Module;
use burn::tensor::{DType, Device};
use lowrank::adapter::GroupMode;
use lowrank::config::LoraConfig;
use lowrank_burn::Adapters;
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::net::{LAYERS, NAMES, Net, adapted, any_config, config, distance, ids};

/// Adapters that have a merged weight: none in the dense form, none that replaces what `DoRA` stands on.
fn mergeable() -> impl Strategy<Value = Vec<LoraConfig>> {
    let plain = any_config().prop_map(|config| LoraConfig {
        group_mode: if config.group_mode == GroupMode::Dense { GroupMode::PerGroup } else { config.group_mode },
        modules_to_save: None,
        ..config
    });
    prop::collection::vec(plain, 3)
}

/// The model with these merged together, in this order, on a base that nothing was ever merged into.
fn at_once(configs: &[LoraConfig], names: &[&str], device: &Device) -> (Net, Adapters) {
    let (net, mut adapters) = adapted(configs, device);
    let net = adapters.merge_adapters(net, names).unwrap();
    (net, adapters)
}

proptest! {
    #![proptest_config(Config { cases: 150, failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_base_has_the_bits_of_what_is_merged_and_the_output_stays(
        configs in mergeable(),
        flips in prop::collection::vec(0_usize..3, 1..10),
    ) {
        let device = Device::flex();
        let (mut net, mut adapters) = adapted(&configs, &device);
        adapters.set_active(&NAMES).unwrap();
        let original = net.bits();
        let mut merged: Vec<&str> = Vec::new();
        for at in flips {
            let name = NAMES[at];
            if merged.contains(&name) {
                net = adapters.unmerge_adapters(net, &[name]).unwrap();
                merged.retain(|other| *other != name);
            } else {
                net = adapters.merge_adapters(net, &[name]).unwrap();
                merged.push(name);
            }
            let (same, others) = at_once(&configs, &merged, &device);
            prop_assert_eq!(net.bits(), same.bits());
            if merged.is_empty() {
                prop_assert_eq!(net.bits(), original.clone());
            }
            // Those in the base come first, then those that are live, in their order.
            let live = others.unmerge_all(same);
            let order: Vec<&str> = merged.iter().copied().chain(NAMES.into_iter().filter(|name| !merged.contains(name))).collect();
            live.1.set_active(&order).unwrap();
            let error = distance(&net.forward(ids(3, &device)), &live.0.forward(ids(3, &device)));
            prop_assert!(error < 1e-5, "{merged:?}: {error}");
        }
        let off = adapters.disabled(|| net.forward(ids(3, &device)));
        let plain = Net::new(&device).forward(ids(3, &device));
        prop_assert!(distance(&off, &plain) < 1e-6, "off is the original, whatever is merged");
        prop_assert_eq!(adapters.unmerge(net).bits(), original);
    }
}

trait UnmergeAll {
    fn unmerge_all(self, net: Net) -> (Net, Adapters);
}

impl UnmergeAll for Adapters {
    fn unmerge_all(mut self, net: Net) -> (Net, Adapters) {
        (self.unmerge(net), self)
    }
}

#[test]
fn merging_one_after_the_other_is_merging_at_once_with_dora_too() {
    let device = Device::flex();
    let dora = LoraConfig { use_dora: true, ..config(&LAYERS) };
    let configs = [config(&LAYERS), dora.clone(), dora];
    let (net, mut adapters) = adapted(&configs, &device);
    adapters.set_active(&NAMES).unwrap();
    let live = net.forward(ids(3, &device));
    let mut net = net;
    for name in NAMES {
        net = adapters.merge_adapters(net, &[name]).unwrap();
        assert!(distance(&net.forward(ids(3, &device)), &live) < 1e-5, "{name}");
    }
    assert_eq!(net.bits(), at_once(&configs, &NAMES, &device).0.bits());
    let net = adapters.unmerge_adapters(net, &["b", "a"]).unwrap();
    assert_eq!(net.bits(), at_once(&configs, &["c"], &device).0.bits());
    let net = adapters.merge(net).unwrap();
    assert_eq!(net.bits(), at_once(&configs, &["c", "a", "b"], &device).0.bits(), "the rest of the active ones, last");
    let net = adapters.merge(net).unwrap();
    assert_eq!(net.bits(), at_once(&configs, &["c", "a", "b"], &device).0.bits(), "again is nothing");
}

/// PEFT subtracts what the adapter is by then: another scale or other factors leave a base that nobody had.
#[test]
fn what_has_changed_since_the_merge_does_not_matter_to_unmerging() {
    let device = Device::flex();
    let configs = [config(&LAYERS), config(&["conv", "head"])];
    let (net, mut adapters) = adapted(&configs, &device);
    let original = net.bits();
    let net = adapters.merge_adapters(net, &["a", "b"]).unwrap();
    adapters.set_scale("a", 3.0).unwrap();
    adapters.set_scale("b", 3.0).unwrap();
    let net = crate::net::scrambled(net, &adapters, "b");
    let net = adapters.unmerge_adapters(net, &["a"]).unwrap();
    assert_eq!(net.bits(), at_once(&configs, &["b"], &device).0.bits(), "as it was merged");
    assert_eq!(adapters.unmerge(net).bits(), original);
}

/// The network with its weights in that type, but for the embedding's, which is the type of everything behind it.
fn held(mut net: Net, dtype: DType) -> Net {
    macro_rules! cast {
        ($($weight:expr),+) => { $($weight = $weight.map(|weight| weight.cast(dtype));)+ };
    }
    cast!(net.conv.weight, net.grouped.weight, net.back.weight, net.plane.weight, net.volume.weight);
    cast!(net.project.weight, net.attn.in_proj_weight, net.attn.out_proj.weight, net.head.weight);
    net
}

#[test]
fn half_precision_is_restored_to_the_bit_and_computed_with_as_its_values() {
    let device = Device::flex();
    let targets = [&LAYERS[1..], &["attn"]].concat();
    let adapted = |net| {
        let mut adapters = Adapters::default();
        let net = adapters.attach(net, "a", &config(&targets), 1).unwrap();
        (adapters.attach(net, "b", &config(&["conv"]), 2).unwrap(), adapters)
    };
    for dtype in [DType::F16, DType::BF16] {
        let half = held(Net::new(&device), dtype);
        let (net, mut adapters) = adapted(half.clone());
        let (single, others) = adapted(held(half, DType::F32));
        for adapters in [&adapters, &others] {
            adapters.set_active(&["a", "b"]).unwrap();
        }
        let error = distance(&net.forward(ids(2, &device)), &single.forward(ids(2, &device)));
        assert!(error < 1e-5, "{dtype:?}: {error}");
        let original = net.bits();
        let only_b = adapters.merge_adapters(net, &["b"]).unwrap();
        let with_b = only_b.bits();
        let net = adapters.merge_adapters(only_b, &["a"]).unwrap();
        let net = adapters.unmerge_adapters(net, &["a"]).unwrap();
        assert_eq!(net.bits(), with_b, "{dtype:?}");
        assert_eq!(net.conv.weight.base().dtype(), dtype);
        assert_eq!(adapters.unmerge(net).bits(), original, "{dtype:?}");
    }
}

#[test]
fn a_model_and_its_valid_form_are_unmerged_on_their_own_side_of_autodiff() {
    let device = Device::flex().autodiff();
    let dora = LoraConfig { use_dora: true, ..config(&LAYERS) };
    let (net, mut adapters) = adapted(&[dora.clone(), dora], &device);
    let merged = adapters.merge_adapters(net.clone(), &["a"]).unwrap();
    adapters.set_active(&["a", "b"]).unwrap();
    let inner = Device::flex();
    let (live, valid) = (merged.forward(ids(2, &device)), merged.valid().forward(ids(2, &inner)));
    assert!(distance(&live.inner(), &valid) < 1e-6);
    let off = adapters.disabled(|| merged.valid().forward(ids(2, &inner)));
    assert!(distance(&off, &Net::new(&inner).forward(ids(2, &inner))) < 1e-6);
    let valid = adapters.unmerge(merged.valid());
    assert!(!valid.conv.weight.base().device().is_autodiff());
    assert_eq!(valid.bits(), net.bits());
}

#[test]
fn an_adapter_that_is_put_on_a_merged_base_stands_on_the_original() {
    let device = Device::flex();
    let (net, mut adapters) = adapted(&[config(&LAYERS)], &device);
    let net = adapters.merge(net).unwrap();
    let before = net.forward(ids(2, &device));
    let fresh =
        LoraConfig { use_dora: true, init_lora_weights: lowrank::config::InitLoraWeights::True, ..config(&LAYERS) };
    let net = adapters.attach(net, "b", &fresh, 3).unwrap();
    assert!(distance(&net.forward(ids(2, &device)), &before) < 1e-5, "fresh, it changes nothing");
    let net = adapters.unmerge(net);
    adapters.set_active(&["b"]).unwrap();
    let base = adapters.disabled(|| net.forward(ids(2, &device)));
    assert!(distance(&net.forward(ids(2, &device)), &base) < 1e-5, "and nothing without the other either");
}

#[test]
fn what_cannot_be_merged_or_unmerged_is_refused_and_changes_nothing() {
    let device = Device::flex();
    let dense = LoraConfig { group_mode: GroupMode::Dense, ..config(&["grouped"]) };
    let saved = LoraConfig { modules_to_save: Some(vec!["head".into()]), ..config(&["conv"]) };
    let dora = LoraConfig { use_dora: true, ..config(&["head"]) };
    let (net, mut adapters) = adapted(&[dense, saved, dora], &device);
    let original = net.bits();
    let refused =
        |adapters: &mut Adapters, names: &[&str]| adapters.merge_adapters(net.clone(), names).unwrap_err().to_string();
    assert!(refused(&mut adapters, &["d"]).contains("no adapter `d`"));
    assert!(refused(&mut adapters, &["a", "b"]).contains("a:"), "a dense form has no merged weight");
    assert!(refused(&mut adapters, &["b", "b"]).contains("merged already"));
    assert!(adapters.unmerge_adapters(net.clone(), &["b"]).unwrap_err().to_string().contains("not merged"));
    assert_eq!(adapters.layer_status().iter().map(|layer| layer.merged_adapters.len()).sum::<usize>(), 0);
    let merged = adapters.merge_adapters(net, &["c", "b"]).unwrap();
    assert!(adapters.merge_adapters(merged.clone(), &["c"]).unwrap_err().to_string().contains("merged already"));
    for name in ["b", "c"] {
        let error = adapters.delete(merged.clone(), name).unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}` is merged")), "{error}");
    }
    let merged = adapters.delete(merged, "a").unwrap();
    assert_eq!(adapters.unmerge(merged).bits(), original);
}
