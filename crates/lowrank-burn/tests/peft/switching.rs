//! Several adapters: together, taken off, each with biases of its own.

use burn::tensor::Device;
use lowrank::adapter::combine::{Combination, CombinationType};
use lowrank::config::{Bias, LoraConfig};
use lowrank::files::combine_dirs;
use lowrank_burn::{Adapters, load, values};

use super::net::{KINDS, Net, config, distance, with};

/// PEFT's `test_multiple_active_adapters_forward`: two that are active are one that was combined by `cat`.
#[test]
fn adapters_active_together_are_their_combination() {
    let (device, folder) = (Device::flex(), tempfile::tempdir().unwrap());
    for kind in KINDS {
        let mut adapters = Adapters::default();
        let net = with(Net::new(&device), &mut adapters, "a", &config(&[kind]), 1);
        let other = LoraConfig { r: 2, use_rslora: true, ..config(&[kind]) };
        let net = with(net, &mut adapters, "b", &other, 2);
        adapters.set_active(&["a", "b"]).unwrap();
        let dirs = ["a", "b"].map(|name| folder.path().join(kind).join(name));
        for (name, dir) in ["a", "b"].iter().zip(&dirs) {
            adapters.save(&net, name, dir, None).unwrap();
        }
        let cat = Combination { combination_type: CombinationType::Cat, ..Combination::default() };
        let combined = folder.path().join(kind).join("combined");
        combine_dirs(&dirs, &[1.0, 1.0], &cat, &combined, false, &mut |_, _, _| {}).unwrap();
        let (one, _) = load(Net::new(&device), &combined).unwrap();
        assert!(distance(&one.forward(&device), &net.forward(&device)) < 1e-5, "{kind}");
    }
}

/// PEFT's `test_delete_adapter_properly_cleans_up_after_itself`, `test_delete_unknown_adapter_raises` and
/// `test_delete_merged_adapter_only_rejects_the_merged_one`.
#[test]
fn a_deleted_adapter_leaves_nothing_behind() {
    let device = Device::flex();
    let mut adapters = Adapters::default();
    let net = with(Net::new(&device), &mut adapters, "stays", &config(&["conv1", "head"]), 1);
    let (alone, parameters) = (net.forward(&device), burn::module::Module::num_params(&net));
    let net = with(net, &mut adapters, "goes", &config(&KINDS), 2);
    let error = adapters.delete(net.clone(), "gone").unwrap_err();
    assert!(error.to_string().contains("there is no adapter `gone`"), "{error}");
    adapters.set_active(&["stays"]).unwrap();
    let net = adapters.merge(net).unwrap();
    assert!(adapters.delete(net.clone(), "stays").unwrap_err().to_string().contains("merged into the base"));
    let net = adapters.delete(net, "goes").unwrap();
    let net = adapters.unmerge(net);
    assert_eq!(net.forward(&device), alone);
    assert_eq!(burn::module::Module::num_params(&net), parameters);
    assert_eq!(adapters.names().collect::<Vec<_>>(), ["stays"]);
    assert!(adapters.layer_status().iter().all(|layer| layer.available_adapters.len() == 1));
}

/// PEFT refuses a second adapter with biases (`test_adding_multiple_adapters_with_bias_raises`), since it would train the base's
/// own. Here the biases are the adapter's, and each brings its own.
#[test]
fn each_adapter_has_biases_of_its_own() {
    let device = Device::flex();
    let mut adapters = Adapters::default();
    let biased = LoraConfig { bias: Bias::All, ..config(&["conv1"]) };
    let plain = Net::new(&device).forward(&device);
    let mut net = with(Net::new(&device), &mut adapters, "a", &biased, 1);
    net = with(net, &mut adapters, "b", &biased, 1);
    let own = adapters.trainable_tensors("b").unwrap().into_iter().filter(|tensor| tensor.name == "head.bias");
    let moved = own.map(|tensor| (tensor.id, vec![9.0; 3])).collect();
    let net = values::write(net, moved);
    let output = |name| {
        adapters.set_active(&[name]).unwrap();
        net.forward(&device)
    };
    let (a, b) = (output("a"), output("b"));
    assert!(distance(&a, &b) > 0.1);
    assert_eq!(output("a"), a);
    assert_eq!(adapters.disabled(|| net.forward(&device)), plain);
}

/// PEFT's `test_disable_adapter_is_reentrant`.
#[test]
fn adapters_that_are_off_already_stay_off() {
    let device = Device::flex();
    let net = Net::new(&device);
    let base = net.forward(&device);
    let (net, adapters) = lowrank_burn::attach(net, &config(&KINDS), 1).unwrap();
    adapters.disabled(|| {
        adapters.disabled(|| assert_eq!(net.forward(&device), base));
        assert_eq!(net.forward(&device), base);
    });
    assert!(distance(&net.forward(&device), &base) > 1e-3);
}
