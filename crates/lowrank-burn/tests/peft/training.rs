//! What trains, and what does not.

use burn::tensor::Device;
use lowrank::config::{Bias, LoraConfig};
use lowrank_burn::train::Trainable;
use lowrank_burn::{Adapters, attach, load};

use super::net::{KINDS, Net, config, distance, with};

/// Some steps of plain gradient descent on the adapter of that name.
fn trained(mut net: Net, adapters: &Adapters, name: &str, device: &Device) -> Net {
    let trainable = Trainable::of_adapter(adapters, name).unwrap();
    for _ in 0..3 {
        let error = net.output(device).sub_scalar(1.0);
        let gradients = (error.clone() * error).mean().backward();
        let (mut flat, mut step) = (trainable.read(&net), vec![0.0; trainable.len()]);
        trainable.add_gradients(&net, &gradients, 1.0, &mut step);
        flat.iter_mut().zip(&step).for_each(|(value, gradient)| *value -= 0.01 * gradient);
        net = trainable.write(net, &flat);
    }
    net
}

/// PEFT's `test_only_params_are_updated`, `test_training_custom_models`, `test_parameters_after_loading_model`,
/// `test_inference_safetensors` and `test_disable_adapters`, for a layer of every kind.
#[test]
fn training_moves_the_adapter_alone_and_it_comes_back_from_its_file() {
    let (device, folder) = (Device::flex().autodiff(), tempfile::tempdir().unwrap());
    let plain = Net::new(&device).forward(&device);
    for kind in KINDS {
        for dora in [false, true] {
            let config = LoraConfig { use_dora: dora, ..config(&[kind]) };
            let (net, adapters) = attach(Net::new(&device), &config, 1).unwrap();
            let (bits, before) = (net.base_bits(), adapters.state(&net, "default").unwrap().1);
            let off = adapters.disabled(|| net.forward(&device));
            assert!(distance(&off, &plain) < 1e-6, "{kind}");
            let net = trained(net, &adapters, "default", &device);
            let (after, place) = (adapters.state(&net, "default").unwrap().1, format!("{kind}, DoRA {dora}"));
            assert_eq!(net.base_bits(), bits, "{place}");
            for (path, module) in &before.modules {
                for ((part, old), (_, new)) in module.parts().zip(after.modules[path].parts()) {
                    assert_ne!(old, new, "{place}: {part:?} has not moved");
                }
            }
            assert_eq!(adapters.disabled(|| net.forward(&device)), off, "{place}");
            let dir = folder.path().join(&place);
            adapters.save(&net, "default", &dir, None).unwrap();
            let (again, loaded) = load(Net::new(&device), &dir).unwrap();
            assert_eq!(loaded.state(&again, "default").unwrap().1, after, "{place}");
            assert_eq!(again.forward(&device), net.forward(&device), "{place}");
        }
    }
}

/// PEFT's `TestRequiresGrad`: exactly these names train, and with another adapter active its own.
#[test]
fn the_tensors_that_train_are_these() {
    let device = Device::flex().autodiff();
    let names = |config: &LoraConfig| {
        let (_, adapters) = attach(Net::new(&device), config, 1).unwrap();
        adapters.trainable_tensors("default").unwrap().into_iter().map(|tensor| tensor.name).collect::<Vec<_>>()
    };
    let both = |layer: &str| [format!("{layer}.lora_A.weight"), format!("{layer}.lora_B.weight")];
    assert_eq!(names(&config(&["emb", "conv1"])), [both("emb"), both("conv1")].concat());
    let whole = LoraConfig { modules_to_save: Some(vec!["head".into()]), ..config(&["conv2"]) };
    assert_eq!(names(&whole), [vec!["head.weight".to_owned(), "head.bias".into()], both("conv2").to_vec()].concat());
    let biases = LoraConfig { bias: Bias::All, ..config(&["conv2"]) };
    let all = ["conv1.bias", "conv2.bias", "head.bias"].map(str::to_owned);
    assert_eq!(names(&biases), [all.to_vec(), both("conv2").to_vec()].concat());
    let own = LoraConfig { bias: Bias::LoraOnly, ..config(&["conv2"]) };
    assert_eq!(names(&own), [vec!["conv2.bias".to_owned()], both("conv2").to_vec()].concat());
    let of_b = LoraConfig { lora_bias: true, ..config(&["head"]) };
    assert_eq!(names(&of_b), [both("head").to_vec(), vec!["head.lora_B.bias".into()]].concat());

    let mut adapters = Adapters::default();
    let net = with(Net::new(&device), &mut adapters, "first", &config(&["conv1"]), 1);
    let net = with(net, &mut adapters, "second", &config(&["head"]), 2);
    // conv1: 4 x (3 x 3) + 4 x 2, head: 4 x (16 + 3)
    assert_eq!(adapters.trainable_parameters(&net).trainable, 76);
    adapters.set_active(&["first"]).unwrap();
    assert_eq!(adapters.trainable_parameters(&net).trainable, 44);
}

/// Adapters train on a base that others are merged into: the gradient is that of the weights as they are.
#[test]
fn an_adapter_trains_on_what_another_was_merged_into() {
    let device = Device::flex().autodiff();
    let mut adapters = Adapters::default();
    let net = with(Net::new(&device), &mut adapters, "merged", &config(&["conv1", "head"]), 1);
    let net = adapters.merge(net).unwrap();
    let bits = net.base_bits();
    let net = with(net, &mut adapters, "live", &config(&["conv1", "emb"]), 2);
    let before = net.forward(&device);
    let net = trained(net, &adapters, "live", &device);
    assert_eq!(net.base_bits(), bits);
    assert!(distance(&net.forward(&device), &before) > 1e-4);
}
