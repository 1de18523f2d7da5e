//! Other values for an adapter in place.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use lowrank::adapter::GroupMode;
use lowrank::config::{Bias, InitLoraWeights, LoraConfig};
use lowrank_burn::train::Trainable;
use lowrank_burn::{Adapters, attach, load};
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::net::{LAYERS, Net, adapted, any_config, config, distance, ids, scrambled};

/// Saves an adapter of that configuration with values of its own.
fn write(config: &LoraConfig, dir: &Path) {
    let (net, adapters) = attach(Net::new(&Device::flex()), config, 77).unwrap();
    let net = scrambled(net, &adapters, "default");
    adapters.save(&net, "default", dir, None).unwrap();
}

/// A step of plain gradient descent.
fn trained(net: Net, adapters: &Adapters, device: &Device) -> (Net, f32, f32) {
    let trainable = Trainable::of_adapter(adapters, "a").unwrap();
    let loss = |net: &Net| (net.forward(ids(4, device)) - 1.0).powi_scalar(2).sum();
    let before = loss(&net);
    let (mut flat, mut step) = (trainable.read(&net), vec![0.0; trainable.len()]);
    trainable.add_gradients(&net, &before.backward(), 1.0, &mut step);
    assert_eq!(flat.len(), step.len());
    assert!(step.iter().any(|gradient| *gradient != 0.0));
    let size: f32 = step.iter().map(|gradient| gradient * gradient).sum();
    flat.iter_mut().zip(&step).for_each(|(value, gradient)| *value -= 1e-3 * gradient / size.sqrt().max(1.0));
    let net = trainable.write(net, &flat);
    let after = loss(&net).into_scalar();
    (net, before.into_scalar(), after)
}

proptest! {
    #![proptest_config(Config { cases: 60, failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_swapped_adapter_computes_and_saves_what_a_fresh_load_does_and_trains(
        old in any_config(),
        other in any_config(),
        (rank, form) in (prop_oneof![Just(8_usize), Just(4)], any::<bool>()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("new");
        let old = LoraConfig { r: 12 - rank, ..old };
        // Any form and start that a file has, in the parameters of the old.
        let new = LoraConfig { r: rank, lora_alpha: 3.0, group_mode: if form { other.group_mode } else { old.group_mode }, ..old.clone() };
        write(&new, &dir);
        let device = Device::flex().autodiff();
        let (net, mut adapters) = adapted(&[old, other], &device);
        adapters.set_active(&["b", "a"]).unwrap();
        adapters.set_scale("a", 0.5).unwrap();
        let (original, ids_before) = (net.bits(), trainable(&adapters));
        let net = adapters.hotswap(net, "a", &dir).unwrap();
        prop_assert_eq!(net.bits(), original);
        prop_assert_eq!(adapters.active(), ["b", "a"]);
        prop_assert_eq!(trainable(&adapters), ids_before, "the parameters are the same ones");
        adapters.set_active(&["a"]).unwrap();
        let scaled = net.forward(ids(3, &device));
        adapters.set_scale("a", 1.0).unwrap();

        let (fresh, loaded) = load(Net::new(&device), &dir).unwrap();
        prop_assert_eq!(values(&net.forward(ids(3, &device))), values(&fresh.forward(ids(3, &device))));
        loaded.set_scale("default", 0.5).unwrap();
        prop_assert_eq!(values(&scaled), values(&fresh.forward(ids(3, &device))));
        let [found, expected] = [adapters.state(&net, "a"), loaded.state(&fresh, "default")].map(Result::unwrap);
        prop_assert_eq!(found.1, expected.1);
        prop_assert_eq!((found.0.r, found.0.lora_alpha), (expected.0.r, expected.0.lora_alpha));

        let again = folder.path().join("again");
        adapters.save(&net, "a", &again, None).unwrap();
        let (reloaded, _) = load(Net::new(&device), &again).unwrap();
        prop_assert!(distance(&reloaded.forward(ids(3, &device)), &net.forward(ids(3, &device))) < 1e-6);

        let counts = adapters.trainable_parameters(&net);
        prop_assert_eq!(counts.trainable, loaded.trainable_parameters(&fresh).trainable);
        let (_, before, after) = trained(net, &adapters, &device);
        prop_assert!(after < before, "{before} {after}");
    }
}

fn values(y: &Tensor<2>) -> Vec<f32> {
    lowrank_burn::values::of(y.clone())
}

/// What the tensors that train are called, and who holds them.
fn trainable(adapters: &Adapters) -> Vec<(String, burn::module::ParamId)> {
    adapters.trainable_tensors("a").unwrap().into_iter().map(|tensor| (tensor.name, tensor.id)).collect()
}

#[test]
fn the_tensors_of_the_base_stay_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new");
    write(&LoraConfig { r: 8, ..config(&LAYERS) }, &dir);
    let device = Device::flex();
    let (net, mut adapters) = adapted(&[config(&LAYERS), config(&["conv"])], &device);
    let before = places(&net);
    let net = adapters.hotswap(net, "a", &dir).unwrap();
    assert_eq!(places(&net), before);
    let net = adapters.rename(net, "a", "other").unwrap();
    assert_eq!(places(&net), before);
}

/// Where the base's weights are in memory.
fn places(net: &Net) -> Vec<usize> {
    fn place<const D: usize>(weight: Tensor<D>) -> usize {
        match weight.into_dispatch().kind {
            burn::backend::DispatchTensorKind::Flex(tensor) => tensor.float().bytes().as_ptr().addr(),
            other @ burn::backend::DispatchTensorKind::Autodiff(_) => panic!("{other:?} is not Flex's"),
        }
    }
    let [conv, grouped] = [&net.conv, &net.grouped].map(|conv| place(conv.weight.base()));
    vec![conv, grouped, place(net.plane.weight.base()), place(net.head.weight.base()), place(net.embed.weight.base())]
}

#[test]
fn what_a_file_lacks_is_left_without_effect() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex();
    for use_dora in [false, true] {
        let dir = folder.path().join(use_dora.to_string());
        let of = |targets: &[&str]| LoraConfig { use_dora, ..config(targets) };
        write(&LoraConfig { r: 8, ..of(&["conv"]) }, &dir);
        let (net, mut adapters) = adapted(&[of(&LAYERS)], &device);
        let net = adapters.hotswap(net, "a", &dir).unwrap();
        let (fresh, _) = load(Net::new(&device), &dir).unwrap();
        assert!(distance(&net.forward(ids(3, &device)), &fresh.forward(ids(3, &device))) < 1e-5, "DoRA {use_dora}");
        let again = folder.path().join(format!("again {use_dora}"));
        adapters.save(&net, "a", &again, None).unwrap();
        let (again, loaded) = load(Net::new(&device), &again).unwrap();
        assert_eq!(loaded.targets("default").unwrap().len(), LAYERS.len());
        assert!(distance(&again.forward(ids(3, &device)), &net.forward(ids(3, &device))) < 1e-6, "DoRA {use_dora}");
    }
}

#[test]
fn an_adapter_that_began_as_a_part_of_the_base_takes_a_plain_one() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new");
    let pissa = LoraConfig {
        init_lora_weights: InitLoraWeights::Pissa,
        r: 2,
        rank_pattern: vec![("grouped".into(), 4), ("plane".into(), 2)],
        ..config(&["conv", "grouped", "plane", "head"])
    };
    write(&pissa, &dir);
    let device = Device::flex().autodiff();
    let (net, mut adapters) = adapted(&[pissa], &device);
    let net = adapters.hotswap(net, "a", &dir).unwrap();
    let (fresh, loaded) = load(Net::new(&device), &dir).unwrap();
    assert_eq!(values(&net.forward(ids(3, &device))), values(&fresh.forward(ids(3, &device))));
    assert!(adapters.frozen_parameters("a").unwrap().is_empty());
    assert_eq!(
        adapters.trainable_parameters(&net).all,
        loaded.trainable_parameters(&fresh).all,
        "nothing is left over"
    );
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex();
    let old = LoraConfig { r: 4, ..config(&["conv", "head"]) };
    let (net, mut adapters) = adapted(&[old.clone(), config(&["plane"])], &device);
    let mut at = 0;
    let mut refused = |adapters: &mut Adapters, new: LoraConfig, wrong: &[&str]| {
        at += 1;
        let dir = folder.path().join(at.to_string());
        write(&new, &dir);
        let state = adapters.state(&net, "a").unwrap();
        let before = net.forward(ids(2, &device));
        let error = adapters.hotswap(net.clone(), "a", &dir).unwrap_err();
        let text: Vec<String> = error.into_parts().iter().map(ToString::to_string).collect();
        for wrong in wrong {
            assert!(text.iter().any(|text| text.contains(wrong)), "{wrong}: {text:?}");
        }
        assert_eq!(text.len(), wrong.len(), "{text:?}");
        assert_eq!(adapters.state(&net, "a").unwrap(), state);
        assert_eq!(values(&net.forward(ids(2, &device))), values(&before));
    };
    refused(
        &mut adapters,
        config(&["conv", "grouped", "embed"]),
        &["grouped: the model has no such", "embed: the model has no such"],
    );
    refused(
        &mut adapters,
        LoraConfig { use_rslora: true, lora_dropout: 0.5, ..old.clone() },
        &["`use_rslora`", "`lora_dropout`"],
    );
    refused(
        &mut adapters,
        LoraConfig { alpha_pattern: vec![("conv".into(), 3.0)], ..old.clone() },
        &["`alpha_pattern`"],
    );
    refused(&mut adapters, LoraConfig { use_dora: true, ..old.clone() }, &["`use_dora`"]);
    refused(
        &mut adapters,
        LoraConfig { lora_bias: true, bias: Bias::LoraOnly, ..old.clone() },
        &["`lora_bias`", "`bias`"],
    );
    let saved = LoraConfig { modules_to_save: Some(vec!["plane".into()]), ..old.clone() };
    refused(&mut adapters, saved, &["`modules_to_save`"]);

    let dir = folder.path().join("fits");
    write(&old, &dir);
    assert!(adapters.hotswap(net.clone(), "d", &dir).unwrap_err().to_string().contains("no adapter `d`"));
    assert!(adapters.hotswap(net.clone(), "a", &folder.path().join("nowhere")).is_err());
    let merged = adapters.merge_adapters(net.clone(), &["a"]).unwrap();
    let error = adapters.hotswap(merged.clone(), "a", &dir).unwrap_err();
    assert!(error.to_string().contains("`a` is merged into the base"), "{error}");
    let net = adapters.unmerge(merged);
    let net = adapters.merge_adapters(net, &["b"]).unwrap();
    assert!(adapters.hotswap(net, "a", &dir).is_ok(), "another one may be merged");
}

#[test]
fn a_stock_layer_takes_no_dense_form_by_a_swap_either() {
    #[derive(Module, Debug)]
    struct Stock {
        grouped: burn::nn::conv::Conv1d,
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("dense");
    write(&LoraConfig { group_mode: GroupMode::Dense, ..config(&["grouped"]) }, &dir);
    let device = Device::flex();
    let grouped = burn::nn::conv::Conv1dConfig::new(8, 8, 3).with_groups(4).init(&device);
    let (net, mut adapters) = attach(Stock { grouped }, &config(&["grouped"]), 0).unwrap();
    let error = adapters.hotswap(net, "default", &dir).unwrap_err();
    assert!(error.to_string().contains("a dense adapter on a grouped convolution"), "{error}");
}

#[test]
fn a_failed_load_leaves_the_adapters_as_they_were() {
    #[derive(Module, Debug)]
    struct Small {
        conv: lowrank_burn::nn::Conv1d,
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("other");
    write(&config(&["conv", "grouped"]), &dir);
    let device = Device::flex();
    let conv = lowrank_burn::nn::Conv1d::new(&burn::nn::conv::Conv1dConfig::new(4, 8, 3), &device);
    let (net, mut adapters) = attach(Small { conv }, &config(&["conv"]), 0).unwrap();
    assert!(adapters.load(net, "new", &dir).is_err());
    assert_eq!(adapters.names().collect::<Vec<_>>(), ["default"]);
    assert_eq!(adapters.active(), ["default"]);
}
