//! Merging again, one after the other, with dropout, with what is broken.

use burn::tensor::Device;
use lowrank::config::LoraConfig;
use lowrank_burn::{Adapters, attach, values};

use super::net::{KINDS, Net, config, distance, with};

/// PEFT's `test_merge_layers_is_idempotent`.
#[test]
fn merging_again_changes_nothing() {
    let device = Device::flex();
    let (net, mut adapters) = attach(Net::new(&device), &config(&KINDS), 1).unwrap();
    let net = adapters.merge(net).unwrap();
    let (once, bits) = (net.forward(&device), net.base_bits());
    let net = adapters.merge(net).unwrap();
    assert_eq!((net.forward(&device), net.base_bits()), (once, bits));
}

/// PEFT's `test_merge_layers_is_deterministic_in_train_mode`.
#[test]
fn dropout_does_not_reach_what_is_merged() {
    let device = Device::flex().autodiff();
    let kinds = ["emb", "conv1", "conv2", "head"];
    let merged = |dropout| {
        let config = LoraConfig { lora_dropout: dropout, ..config(&kinds) };
        let (net, mut adapters) = attach(Net::new(&device), &config, 1).unwrap();
        adapters.merge(net).unwrap().base_bits()
    };
    assert_eq!(merged(0.5), merged(0.5));
    assert_eq!(merged(0.5), merged(0.0));
}

/// PEFT's `test_sequential_merge_matches_batch_merge` and `test_unmerge_after_sequential_merge_restores_base`.
#[test]
fn adapters_merge_one_after_the_other_as_all_at_once() {
    let device = Device::flex();
    let mut adapters = Adapters::default();
    let net = Net::new(&device);
    let original = net.base_bits();
    let net = with(net, &mut adapters, "a", &config(&KINDS), 1);
    let net = with(net, &mut adapters, "b", &config(&["emb", "conv1", "head"]), 2);
    adapters.set_active(&["a", "b"]).unwrap();
    let live = net.forward(&device);
    let net = adapters.merge(net).unwrap();
    let at_once = net.forward(&device);
    assert!(distance(&at_once, &live) < 1e-5);
    let mut net = adapters.unmerge(net);
    for name in ["b", "a"] {
        adapters.set_active(&[name]).unwrap();
        net = adapters.merge(net).unwrap();
    }
    assert!(distance(&net.forward(&device), &at_once) < 1e-5);
    let net = adapters.unmerge(net);
    assert_eq!(net.base_bits(), original);
    adapters.set_active(&["a", "b"]).unwrap();
    assert_eq!(net.forward(&device), live);
}

/// PEFT's `test_lora_safe_merge_does_not_mutate_base_layer_on_non_finite_bias`.
#[test]
fn a_bias_that_is_not_finite_leaves_the_base_as_it_was() {
    let device = Device::flex();
    for layer in ["head", "conv1", "conv2"] {
        let config = LoraConfig { lora_bias: true, ..config(&[layer]) };
        let (net, mut adapters) = attach(Net::new(&device), &config, 1).unwrap();
        let bias =
            adapters.trainable_tensors("default").unwrap().into_iter().find(|tensor| tensor.name.ends_with("bias"));
        let bias = bias.unwrap();
        let broken = vec![f32::NAN; bias.shape.iter().product()];
        let net = values::write(net, [(bias.id, broken)].into());
        let before = net.base_bits();
        let error = adapters.merge(net.clone()).unwrap_err();
        assert!(error.to_string().contains("not finite"), "{layer}: {error}");
        assert_eq!(net.base_bits(), before, "{layer}");
        assert!(adapters.layer_status().iter().all(|layer| layer.merged_adapters.is_empty()), "{layer}");
    }
}

/// PEFT's `test_merge_with_lora_bias_when_base_layer_has_no_bias_warns_and_raises`: here it is refused before anything trains.
#[test]
fn a_bias_of_b_needs_one_in_the_layer() {
    let device = Device::flex();
    let error = attach(Net::new(&device), &LoraConfig { lora_bias: true, ..config(&["conv3"]) }, 1).unwrap_err();
    assert!(error.to_string().contains("`lora_bias` needs a layer that has a bias"), "{error}");
}

/// PEFT's `test_disable_adapters_with_merging`: what is merged is in the weights until it is taken out, to the bit.
#[test]
fn unmerged_and_off_it_is_the_base() {
    let device = Device::flex();
    let net = Net::new(&device);
    let (base, bits) = (net.forward(&device), net.base_bits());
    let (net, mut adapters) = attach(net, &config(&KINDS), 1).unwrap();
    let merged = adapters.merge(net).unwrap();
    assert!(distance(&merged.forward(&device), &base) > 1e-3);
    let net = adapters.unmerge(merged);
    assert_eq!(adapters.disabled(|| net.forward(&device)), base);
    assert_eq!(adapters.unload(net).base_bits(), bits);
}
