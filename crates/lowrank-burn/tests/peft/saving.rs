//! Names, keys and shapes of what is saved.

use burn::tensor::Device;
use lowrank::config::{Bias, LoraConfig};
use lowrank_burn::nn::{Conv1d, Conv1dConfig};
use lowrank_burn::{Adapters, attach};

use super::net::{KINDS, Net, config, with};

/// PEFT's `test_load_multiple_adapters`.
#[test]
fn several_adapters_are_loaded_beside_each_other() {
    let (device, folder) = (Device::flex(), tempfile::tempdir().unwrap());
    let outputs = [("a", 1), ("b", 2)].map(|(name, seed)| {
        let (net, adapters) = attach(Net::new(&device), &config(&KINDS), seed).unwrap();
        adapters.save(&net, "default", &folder.path().join(name), None).unwrap();
        net.forward(&device)
    });
    let (mut net, mut adapters) = (Net::new(&device), Adapters::default());
    for name in ["a", "b"] {
        net = adapters.load(net, name, &folder.path().join(name)).unwrap();
    }
    for (name, output) in ["a", "b"].iter().zip(&outputs) {
        adapters.set_active(&[name]).unwrap();
        assert_eq!(&net.forward(&device), output, "{name}");
    }
}

/// PEFT's `test_adapter_name_makes_no_difference` and `test_save_pretrained_adapter_name_substring`.
#[test]
fn the_name_of_an_adapter_changes_neither_its_factors_nor_its_keys() {
    let device = Device::flex();
    let states = ["default", "lora_A", "conv1", "weight", "head-2"].map(|name| {
        let mut adapters = Adapters::default();
        let net = with(Net::new(&device), &mut adapters, name, &config(&KINDS), 5);
        (net.forward(&device), adapters.state(&net, name).unwrap().1)
    });
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]));
}

/// PEFT's `test_get_base_model_state_dict`.
#[test]
fn the_base_under_adapters_has_its_own_parameters() {
    let device = Device::flex();
    let keys = |net: &Net| {
        let survey = lowrank_burn::survey::Survey::of(net).unwrap();
        survey.params().map(|(site, param)| site.key(param)).collect::<Vec<_>>()
    };
    let net = Net::new(&device);
    let (before, bits) = (keys(&net), net.base_bits());
    let (net, _) = attach(net, &config(&KINDS), 1).unwrap();
    assert_eq!((keys(&net), net.base_bits()), (before, bits));
}

/// The table in part 6.6 of what PEFT's convolutions have on disk, for one, two and four groups.
#[test]
fn keys_and_shapes_of_a_grouped_convolution() {
    #[derive(burn::module::Module, Debug)]
    struct Model {
        conv: Conv1d,
    }
    let device = Device::flex();
    for groups in [1, 2, 4] {
        let conv = Conv1d::new(&Conv1dConfig::new(8, 12, 5).with_groups(groups), &device);
        let config = LoraConfig { use_dora: true, ..config(&["conv"]) };
        let (net, adapters) = attach(Model { conv }, &config, 1).unwrap();
        let (_, state) = adapters.state(&net, "default").unwrap();
        let shapes: Vec<_> =
            state.to_tensors().into_iter().map(|(key, tensor)| (key, tensor.shape().to_vec())).collect();
        let expected = [
            ("base_model.model.conv.lora_A.weight", vec![4, 8, 5]),
            ("base_model.model.conv.lora_B.weight", vec![12, 4 / groups, 1]),
            ("base_model.model.conv.lora_magnitude_vector", vec![1, 12, 1]),
        ];
        assert_eq!(shapes, expected.map(|(key, shape)| (key.to_owned(), shape)), "{groups} groups");
    }
}

/// PEFT's `test_error_raised_if_rank_not_divisible_by_groups`, and for a second adapter, for which PEFT does not ask.
#[test]
fn a_rank_that_the_groups_do_not_divide_is_refused_for_every_adapter() {
    let device = Device::flex();
    let odd = LoraConfig { r: 3, ..config(&["conv1"]) };
    let error = attach(Net::new(&device), &odd, 1).unwrap_err();
    assert!(error.to_string().contains("groups"), "{error}");
    let mut adapters = Adapters::default();
    let net = with(Net::new(&device), &mut adapters, "first", &config(&["conv1"]), 1);
    let error = adapters.attach(net, "second", &odd, 1).unwrap_err();
    assert!(error.to_string().contains("groups"), "{error}");
}

/// With `bias = "all"` PEFT writes the bias of a module saved whole three times.
#[test]
fn biases_that_peft_writes_again_are_written_again() {
    let (device, folder) = (Device::flex(), tempfile::tempdir().unwrap());
    let config = LoraConfig { bias: Bias::All, modules_to_save: Some(vec!["head".into()]), ..config(&["conv1"]) };
    let (net, adapters) = attach(Net::new(&device), &config, 1).unwrap();
    let (_, state) = adapters.state(&net, "default").unwrap();
    assert_eq!(state.copies.keys().collect::<Vec<_>>(), ["head.modules_to_save.bias", "head.original_module.bias"]);
    adapters.save(&net, "default", folder.path(), None).unwrap();
    let (again, loaded) = lowrank_burn::load(Net::new(&device), folder.path()).unwrap();
    assert_eq!(loaded.state(&again, "default").unwrap().1, state);
    assert_eq!(again.forward(&device), net.forward(&device));
}

/// Burn's own norm keeps its statistics where no adapter reaches: PEFT's would be left out without a word.
#[test]
fn statistics_of_a_stock_norm_are_refused() {
    #[derive(burn::module::Module, Debug)]
    struct Model {
        norm: burn::nn::BatchNorm,
        conv: Conv1d,
    }
    let device = Device::flex();
    let norm = burn::nn::BatchNormConfig::new(4).init(&device);
    let conv = Conv1d::new(&Conv1dConfig::new(4, 4, 3), &device);
    let config = LoraConfig { modules_to_save: Some(vec!["norm".into()]), ..config(&["conv"]) };
    let error = attach(Model { norm, conv }, &config, 1).unwrap_err();
    let parts: Vec<_> = error.parts().iter().map(ToString::to_string).collect();
    assert!(parts.iter().any(|part| part.contains("norm.running_mean")), "{error}: {parts:?}");
}
