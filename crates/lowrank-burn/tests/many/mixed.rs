//! Batches in which every sample has an adapter of its own, against runs with that adapter alone.

use burn::module::Module;
use burn::nn as stock;
use burn::nn::conv::Conv1dConfig;
use burn::tensor::{Device, Distribution, Tensor};
use lowrank::config::{Bias, LoraConfig};
use lowrank_burn::train::Trainable;
use lowrank_burn::{Adapters, attach, nn};
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::net::{LAYERS, NAMES, Net, adapted, any_config, config, distance, ids};

const BASE: &str = "__base__";

/// What each sample gives in a run of the whole batch with its adapter alone.
fn alone(net: &Net, adapters: &Adapters, samples: &[&str], device: &Device) -> Tensor<2> {
    let x = ids(samples.len(), device);
    let active = adapters.active();
    let rows = samples.iter().enumerate().map(|(at, name)| {
        adapters.set_active(if *name == BASE { &[] } else { std::slice::from_ref(name) }).unwrap();
        net.forward(x.clone()).narrow(0, at, 1)
    });
    let y = Tensor::cat(rows.collect(), 0);
    adapters.set_active(&active.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    y
}

fn any_samples() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", BASE]), 1..9)
}

proptest! {
    #![proptest_config(Config { cases: 400, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_sample_gets_what_its_adapter_gives_alone(
        configs in prop::collection::vec(any_config(), 3),
        samples in any_samples(),
        factors in prop::collection::vec(prop_oneof![Just(1.0_f32), Just(0.5), Just(-2.0), Just(0.0)], 3),
    ) {
        let device = Device::flex();
        let (net, adapters) = adapted(&configs, &device);
        for (name, factor) in NAMES.iter().zip(factors) {
            adapters.set_scale(name, factor).unwrap();
        }
        let expected = alone(&net, &adapters, &samples, &device);
        let found = adapters.mixed(&samples, || net.forward(ids(samples.len(), &device))).unwrap();
        let error = distance(&found, &expected);
        prop_assert!(error < 1e-5, "{error}");
    }
}

proptest! {
    #![proptest_config(Config { cases: 60, failure_persistence: None, ..Config::default() })]

    #[test]
    fn gradients_reach_every_adapter_from_its_own_samples(
        configs in prop::collection::vec(any_config(), 3),
        samples in any_samples(),
    ) {
        prop_assume!(samples.iter().any(|name| NAMES.contains(name)));
        let device = Device::flex().autodiff();
        let (net, adapters) = adapted(&configs, &device);
        let loss = |y: Tensor<2>| (y.clone() * y).sum();
        let mixed = adapters.mixed(&samples, || loss(net.forward(ids(samples.len(), &device)))).unwrap().backward();
        for name in NAMES.iter().filter(|name| samples.contains(name)) {
            adapters.set_active(&[name]).unwrap();
            let own: Vec<_> = (0..samples.len()).filter(|at| samples[*at] == *name).collect();
            let y = net.forward(ids(samples.len(), &device));
            let rows = own.into_iter().map(|at| y.clone().narrow(0, at, 1));
            let alone = loss(Tensor::cat(rows.collect(), 0)).backward();
            let trainable = Trainable::of_adapter(&adapters, name).unwrap();
            let [mut found, mut expected] = [(); 2].map(|()| vec![0.0; trainable.len()]);
            trainable.add_gradients(&net, &mixed, 1.0, &mut found);
            trainable.add_gradients(&net, &alone, 1.0, &mut expected);
            let scale = expected.iter().fold(1.0_f32, |most, value| most.max(value.abs()));
            prop_assert!(expected.iter().any(|value| *value != 0.0));
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert!((found - expected).abs() < 2e-5 * scale, "{name}: {found} {expected}");
            }
        }
    }
}

/// Layers so wide that the factors of all adapters are less work than the weight.
#[derive(Module, Debug)]
struct Wide {
    first: nn::Linear,
    second: nn::Linear,
}

impl Wide {
    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        self.second.forward(self.first.forward(x).tanh().mean_dim(1).squeeze_dim::<2>(1))
    }
}

#[test]
fn wide_linear_layers_take_all_adapters_in_one_pass() {
    let device = Device::flex();
    let linear = |inputs, outputs| nn::Linear::new(&stock::LinearConfig::new(inputs, outputs), &device);
    let net = Wide { first: linear(60, 50), second: linear(50, 70) };
    let ranks = [("a", 2, 1.0), ("b", 5, 8.0), ("c", 3, 2.0)];
    for bias in [Bias::None, Bias::LoraOnly] {
        let (mut net, mut adapters) = (net.clone(), Adapters::default());
        for (seed, (name, r, lora_alpha)) in (0..).zip(ranks) {
            let targets: &[&str] = if name == "b" { &["first"] } else { &["first", "second"] };
            let config = LoraConfig { r, lora_alpha, bias, ..config(targets) };
            net = adapters.attach(net, name, &config, seed).unwrap();
        }
        let x = Tensor::random([6, 4, 60], Distribution::Normal(0.0, 1.0), &device);
        for samples in [["a", "b", "c", BASE, "b", "a"], ["c", "c", "a", "a", "a", BASE]] {
            let rows = samples.iter().enumerate().map(|(at, name)| {
                adapters.set_active(if *name == BASE { &[] } else { std::slice::from_ref(name) }).unwrap();
                net.forward(x.clone().narrow(0, at, 1))
            });
            let expected = Tensor::cat(rows.collect(), 0);
            adapters.set_active(&["a"]).unwrap();
            let found = adapters.mixed(&samples, || net.forward(x.clone())).unwrap();
            let base = adapters.disabled(|| net.forward(x.clone()));
            assert!(distance(&found, &expected) < 1e-5, "{samples:?}, {bias:?}");
            assert!(distance(&found, &base) > 1e-2);
        }
    }
}

#[test]
fn dropout_in_training_drops_and_leaves_the_samples_of_the_base_alone() {
    let device = Device::flex().autodiff();
    for layer in LAYERS {
        if layer != "embed" {
            dropout_drops_on(layer, &device);
        }
    }
    dropout_drops_on("attn", &device);
}

fn dropout_drops_on(layer: &str, device: &Device) {
    let dropped = LoraConfig { lora_dropout: 0.5, ..config(&[layer]) };
    let (net, adapters) = adapted(&[dropped], device);
    let samples = ["a", BASE, "a", BASE];
    let run = || adapters.mixed(&samples, || net.forward(ids(4, device))).unwrap();
    let (first, base) = (run(), adapters.disabled(|| net.forward(ids(4, device))));
    let row = |y: &Tensor<2>, at| y.clone().narrow(0, at, 1);
    // Two runs may drop the same values of so few.
    assert!((0..10).any(|_| distance(&row(&first, 0), &row(&run(), 0)) > 1e-4), "{layer}");
    assert!(distance(&row(&first, 3), &row(&base, 3)) < 1e-6, "{layer}");
}

#[test]
fn disabled_adapters_and_those_that_are_not_asked_for_play_no_part() {
    let device = Device::flex();
    let everywhere = config(&["embed", "conv", "grouped", "plane", "head"]);
    let (net, adapters) = adapted(&[everywhere.clone(), LoraConfig { use_dora: true, ..everywhere }], &device);
    adapters.set_active(&["a", "b"]).unwrap();
    let x = || ids(2, &device);
    let base = adapters.disabled(|| net.forward(x()));
    let mixed = |samples: &[&str]| adapters.mixed(samples, || net.forward(x()));
    assert!(distance(&mixed(&[BASE, BASE]).unwrap(), &base) < 1e-6);
    let off = adapters.disabled(|| mixed(&["a", "b"])).unwrap();
    assert!(distance(&off, &base) < 1e-6, "off is off, also for those that are named");
    assert!(distance(&mixed(&["a", "b"]).unwrap(), &base) > 1e-2);
    let nested = adapters.mixed(&["a", "a"], || mixed(&[BASE, BASE])).unwrap().unwrap();
    assert!(distance(&nested, &base) < 1e-6, "the inner scope counts");
    assert_eq!(adapters.active(), ["a", "b"]);
}

#[test]
fn what_cannot_be_mixed_is_refused_by_name() {
    let device = Device::flex();
    let (net, mut adapters) = adapted(&[config(&["conv", "head"]), config(&["embed"])], &device);
    let run = |adapters: &Adapters, samples: &[&str]| {
        adapters.mixed(samples, || net.forward(ids(2, &device))).map(drop).map_err(|error| error.to_string())
    };
    let unknown = run(&adapters, &["a", "d", "e"]).unwrap_err();
    assert!(unknown.contains("2 errors"), "{unknown}");
    assert!(run(&adapters, &["a", "d"]).unwrap_err().contains("no adapter `d`"));
    let length = run(&adapters, &["a", BASE, "a"]).unwrap_err();
    assert!(length.starts_with("conv: the first axis") && length.contains("found [2, 4, 12], expected 3"), "{length}");
    assert!(run(&adapters, &["a"]).unwrap_err().starts_with("conv: the first axis"));
    assert!(run(&adapters, &[]).is_ok(), "nobody asked for an adapter");
    assert!(run(&adapters, &["a", "b"]).is_ok());
    let merged = adapters.merge_adapters(net.clone(), &["b"]).unwrap();
    assert!(run(&adapters, &["a", "a"]).unwrap_err().contains("nothing merged into it: found adapter `b` in it"));
    let net = adapters.unmerge(merged);
    let error = adapters.attach(net, BASE, &config(&["conv"]), 0).unwrap_err();
    assert!(error.to_string().contains("stands for no adapter"), "{error}");
}

#[derive(Module, Debug)]
struct Half {
    first: nn::Conv1d,
    second: stock::conv::Conv1d,
    norm: stock::LayerNorm,
}

impl Half {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.norm.forward(self.second.forward(self.first.forward(x)))
    }
}

#[test]
fn stock_layers_are_refused_when_an_adapter_of_the_batch_is_on_them() {
    let device = Device::flex();
    let net = Half {
        first: nn::Conv1d::new(&Conv1dConfig::new(2, 2, 1), &device),
        second: Conv1dConfig::new(2, 2, 1).init(&device),
        norm: stock::LayerNormConfig::new(6).init(&device),
    };
    let (net, mut adapters) = attach(net, &config(&["first"]), 0).unwrap();
    let net = adapters.attach(net, "stock", &config(&["second"]), 0).unwrap();
    let saved = LoraConfig { modules_to_save: Some(vec!["norm".into()]), ..config(&["first"]) };
    let net = adapters.attach(net, "saved", &saved, 0).unwrap();
    let run = |samples: &[&str]| adapters.mixed(samples, || net.forward(Tensor::ones([2, 2, 6], &device)));
    assert!(run(&["default", BASE]).is_ok());
    for (name, module) in [("stock", "second"), ("saved", "norm")] {
        let error = run(&["default", name]).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{module}: this layer reads one weight")), "{error}");
        assert!(error.hint().unwrap().contains("lowrank_burn::nn"));
    }
    assert!(run(&["default", BASE]).is_ok(), "a refusal is forgotten with its scope");
}
