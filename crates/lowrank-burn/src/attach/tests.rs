use burn::module::Module;
use burn::nn::conv as stock;
use burn::tensor::{DType, Device, Tensor, TensorData};
use lowrank::adapter::{DoraNorm, GroupMode};
use lowrank::config::{Bias, InitLoraWeights, LoraConfig, Patterns};
use lowrank::random::Random;

use super::*;
use crate::nn::{Conv1d, Conv1dConfig, Linear, LinearConfig};
use crate::train::Trainable;

#[derive(Module, Debug)]
struct Net {
    conv1: Conv1d,
    conv2: Conv1d,
    head: Linear,
}

impl Net {
    /// Always the same: Burn's own generator is shared by all tests.
    fn new(device: &Device) -> Self {
        let net = Self {
            conv1: Conv1d::new(&Conv1dConfig::new(4, 8, 3).with_dilation(2), device),
            conv2: Conv1d::new(&Conv1dConfig::new(8, 8, 3).with_groups(4), device),
            head: Linear::new(&LinearConfig::new(8, 3), device),
        };
        let survey = Survey::of(&net).unwrap();
        let own = survey.params().map(|(site, param)| (param.id, drawn(&site.key(param), param.len())));
        values::write(net, own.collect())
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        self.head.forward(self.conv2.forward(self.conv1.forward(x)).mean_dim(2).squeeze_dim(2))
    }
}

#[derive(Module, Debug)]
struct StockNet {
    conv: stock::Conv1d,
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn input(device: &Device) -> Tensor<3> {
    Tensor::from_data(TensorData::new(drawn("input", 160), [2, 4, 20]), device)
}

fn drawn(purpose: &str, n: usize) -> Vec<f32> {
    let mut random = Random::new(1, purpose, 0);
    (0..n).map(|_| random.uniform(-0.5, 0.5)).collect()
}

/// Factors that have an effect.
fn config(targets: &[&str]) -> LoraConfig {
    LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        target_modules: Some(Patterns::List(targets.iter().map(|target| (*target).to_owned()).collect())),
        init_lora_weights: InitLoraWeights::False,
        ..LoraConfig::default()
    }
}

fn dora(targets: &[&str]) -> LoraConfig {
    LoraConfig { use_dora: true, ..config(targets) }
}

fn distance(a: &Tensor<2>, b: &Tensor<2>) -> f32 {
    (a.clone() - b.clone()).abs().max().into_scalar()
}

#[test]
fn a_fresh_adapter_changes_nothing_and_freezes_the_base() {
    let device = device();
    let net = Net::new(&device);
    let before = net.forward(input(&device));
    let config = LoraConfig { init_lora_weights: InitLoraWeights::True, ..config(&["conv1", "conv2", "head"]) };
    let (net, adapters) = attach(net, &config, 0).unwrap();
    assert!(distance(&net.forward(input(&device)), &before) < 1e-6);
    assert!(!net.conv1.weight.base().is_require_grad());
    // conv1: 4*(4*3 + 8), conv2: 4*(2*3) + 8*1, head: 4*(8 + 3)
    let counts = adapters.trainable_parameters(&net);
    assert_eq!(counts.trainable, 80 + 32 + 44);
    let base = (8 * 4 * 3 + 8) + (8 * 2 * 3 + 8) + (8 * 3 + 3);
    assert_eq!(counts.all, base + counts.trainable);
    assert_eq!(
        counts.to_string(),
        format!("trainable params: 156 || all params: 343 || trainable%: {:.4}", 15600.0 / 343.0)
    );
}

#[test]
fn the_same_seed_gives_the_same_factors_whatever_else_is_adapted() {
    let device = device();
    let both = attach(Net::new(&device), &config(&["conv1", "head"]), 3).unwrap();
    let one = attach(Net::new(&device), &config(&["head"]), 3).unwrap();
    let state = |(net, adapters): &(Net, Adapters)| adapters.state(net, DEFAULT).unwrap().1;
    assert_eq!(state(&both).modules["head"], state(&one).modules["head"]);
    let other = attach(Net::new(&device), &config(&["head"]), 4).unwrap();
    assert_ne!(state(&one).modules["head"], state(&other).modules["head"]);
}

#[test]
fn several_adapters_add_up_and_each_can_be_switched() {
    let device = device();
    let mut adapters = Adapters::default();
    let net = Net::new(&device);
    let base = net.forward(input(&device));
    let net = adapters.attach(net, "a", &config(&["conv1", "conv2"]), 1).unwrap();
    let a = net.forward(input(&device));
    let net = adapters.attach(net, "b", &config(&["conv1", "conv2", "head"]), 2).unwrap();
    assert_eq!(adapters.active(), ["b"]);
    let b = net.forward(input(&device));
    adapters.set_active(&["a"]).unwrap();
    assert!(distance(&net.forward(input(&device)), &a) < 1e-6, "attaching another left the first as it was");
    assert!(distance(&a, &b) > 1e-2 && distance(&a, &base) > 1e-2);

    adapters.set_active(&["a", "b"]).unwrap();
    let both = net.forward(input(&device));
    let fused = net.clone().materialize().forward(input(&device));
    assert!(distance(&both, &fused) < 1e-5, "the sum of the deltas is what materialising gives");
    assert!(adapters.disabled(|| distance(&net.forward(input(&device)), &base)) < 1e-6);
    adapters.set_scale("a", 0.0).unwrap();
    assert!(distance(&net.forward(input(&device)), &b) < 1e-5);

    let net = adapters.delete(net, "b").unwrap();
    assert_eq!(adapters.names().collect::<Vec<_>>(), ["a"]);
    adapters.set_scale("a", 1.0).unwrap();
    assert!(distance(&net.forward(input(&device)), &a) < 1e-6);
    assert!(distance(&adapters.unload(net).forward(input(&device)), &base) < 1e-6);
}

#[test]
fn merging_keeps_the_output_and_unmerging_restores_the_bits() {
    let device = device();
    let config = LoraConfig { lora_bias: true, ..config(&["conv1", "conv2", "head"]) };
    let (net, mut adapters) = attach(Net::new(&device), &config, 5).unwrap();
    let bits = |net: &Net| {
        let weights = [values::of(net.conv1.weight.base()), values::of(net.conv2.weight.base())];
        let biases = values::of(net.head.bias.as_ref().unwrap().base());
        weights.concat().into_iter().chain(biases).map(f32::to_bits).collect::<Vec<_>>()
    };
    let (before, original) = (net.forward(input(&device)), bits(&net));
    let net = adapters.merge(net).unwrap();
    assert!(distance(&net.forward(input(&device)), &before) < 1e-5);
    assert_ne!(bits(&net), original);
    assert_eq!(adapters.layer_status()[0].merged_adapters, [DEFAULT]);
    assert!(adapters.delete(net.clone(), DEFAULT).unwrap_err().to_string().contains("merged into the base"));
    let net = adapters.unmerge(net);
    assert_eq!(bits(&net), original);
    assert!(distance(&net.forward(input(&device)), &before) < 1e-6);
    let plain = adapters.merge_and_unload(net).unwrap();
    assert!(distance(&plain.forward(input(&device)), &before) < 1e-5);
}

#[test]
fn what_is_saved_is_what_is_loaded() {
    let device = device();
    let folder = tempfile::tempdir().unwrap();
    for (at, config) in [
        config(&["conv1", "conv2", "head"]),
        LoraConfig { use_rslora: true, lora_bias: true, bias: Bias::LoraOnly, ..config(&["conv1"]) },
        LoraConfig { bias: Bias::All, rank_pattern: vec![("conv1".into(), 2)], ..config(&["conv1", "head"]) },
        LoraConfig { modules_to_save: Some(vec!["head".into()]), ..config(&["conv1"]) },
        LoraConfig { group_mode: GroupMode::Shared, r: 3, ..config(&["conv2"]) },
        LoraConfig { group_mode: GroupMode::Dense, ..config(&["conv2"]) },
        dora(&["conv1", "conv2", "head"]),
        LoraConfig { dora_norm: DoraNorm::Peft, ..dora(&["conv2"]) },
        LoraConfig { group_mode: GroupMode::Dense, ..dora(&["conv2"]) },
        LoraConfig { group_mode: GroupMode::Dense, dora_norm: DoraNorm::Peft, ..dora(&["conv2"]) },
    ]
    .into_iter()
    .enumerate()
    {
        let (net, adapters) = attach(Net::new(&device), &config, 9).unwrap();
        let net = scrambled(net, &adapters);
        let before = net.forward(input(&device));
        let dir = folder.path().join(at.to_string());
        adapters.save(&net, DEFAULT, &dir, Some("card")).unwrap();
        let (again, loaded) = load(Net::new(&device), &dir).unwrap();
        assert!(distance(&again.forward(input(&device)), &before) < 1e-6, "case {at}");
        assert_eq!(loaded.state(&again, DEFAULT).unwrap().1, adapters.state(&net, DEFAULT).unwrap().1, "case {at}");
    }
}

/// The net with other values in everything that trains.
fn scrambled(net: Net, adapters: &Adapters) -> Net {
    let tensors = adapters.trainable_tensors(DEFAULT).unwrap();
    let mut random = Random::new(1, "scramble", 0);
    let own = values::read(&net, &tensors.iter().map(|tensor| tensor.id).collect::<Vec<_>>());
    let mut own: Vec<_> = own.into_iter().collect();
    own.sort_by_key(|(id, _)| tensors.iter().position(|tensor| tensor.id == *id));
    let changed =
        own.into_iter().map(|(id, values)| (id, values.iter().map(|v| v + random.uniform(-0.1, 0.1)).collect()));
    values::write(net, changed.collect())
}

#[test]
fn an_adapter_of_another_model_is_refused_with_all_reasons() {
    let device = device();
    let folder = tempfile::tempdir().unwrap();
    let (net, adapters) = attach(Net::new(&device), &config(&["conv1", "head"]), 9).unwrap();
    adapters.save(&net, DEFAULT, folder.path(), None).unwrap();
    let other = StockNet { conv: Conv1dConfig::new(4, 8, 3).init(&device) };
    let error = load(other, folder.path()).unwrap_err();
    let text = format!("{error} {:?}", error.parts().iter().map(ToString::to_string).collect::<Vec<_>>());
    assert!(text.contains("conv1") && text.contains("head"), "{text}");
}

#[test]
fn dropout_needs_a_layer_that_knows_adapters() {
    let device = device();
    let dropped = LoraConfig { lora_dropout: 0.5, ..config(&["conv"]) };
    let stock = StockNet { conv: Conv1dConfig::new(4, 8, 3).init(&device) };
    let error = attach(stock, &dropped, 0).unwrap_err();
    assert!(error.hint().unwrap().contains("lowrank_burn::nn::Conv1d"), "{error}");

    let dropped = LoraConfig { lora_dropout: 0.5, ..config(&["conv1", "conv2", "head"]) };
    let (net, _) = attach(Net::new(&device), &dropped, 0).unwrap();
    let (first, second) = (net.forward(input(&device)), net.forward(input(&device)));
    assert!(distance(&first, &second) > 1e-3, "another draw drops others");
    let valid = net.valid();
    let plain = Device::flex();
    let calm = valid.forward(Tensor::ones([2, 4, 20], &plain));
    assert!(distance(&calm, &valid.forward(Tensor::ones([2, 4, 20], &plain))) < 1e-6);
    assert!(distance(&calm, &valid.clone().materialize().forward(Tensor::ones([2, 4, 20], &plain))) < 1e-5);
}

#[test]
fn names_that_are_taken_missing_or_not_names_are_refused() {
    let device = device();
    let (net, mut adapters) = attach(Net::new(&device), &config(&["conv1"]), 0).unwrap();
    let taken = adapters.attach(net.clone(), DEFAULT, &config(&["conv1"]), 0).unwrap_err();
    assert!(taken.to_string().contains("already"), "{taken}");
    let odd = adapters.attach(net, "a.b", &config(&["conv1"]), 0).unwrap_err();
    assert!(odd.to_string().contains("a.b"), "{odd}");
    assert_eq!(adapters.set_active(&["defualt"]).unwrap_err().hint(), Some("did you mean `default`?"));
}

/// The net with its frozen weights in a type, and their biases as they were.
fn held_in(mut net: Net, dtype: DType) -> Net {
    net.conv1.weight = net.conv1.weight.map(|weight| weight.cast(dtype).detach());
    net.conv2.weight = net.conv2.weight.map(|weight| weight.cast(dtype).detach());
    net.head.weight = net.head.weight.map(|weight| weight.cast(dtype).detach());
    net
}

/// The gradients of all that trains.
struct Found {
    gradients: burn::tensor::Gradients,
    found: Vec<Vec<f32>>,
}

impl ModuleVisitor for Found {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.extend(param.val().grad(&self.gradients).map(values::of));
    }
}

fn gradients(net: &Net) -> Vec<Vec<f32>> {
    let gradients = net.forward(input(&device())).powi_scalar(2).sum().backward();
    let mut found = Found { gradients, found: Vec::new() };
    net.visit(&mut found);
    found.found
}

#[test]
fn a_base_of_half_precision_trains_as_its_values_in_single_precision() {
    let everything = config(&["conv1", "conv2", "head"]);
    let configs = [
        LoraConfig { lora_bias: true, ..everything.clone() },
        LoraConfig { bias: Bias::All, modules_to_save: Some(vec!["head".into()]), ..config(&["conv1"]) },
        LoraConfig { group_mode: GroupMode::Dense, ..everything },
    ];
    for (dtype, config) in
        [DType::F16, DType::BF16].into_iter().flat_map(|dtype| configs.iter().map(move |c| (dtype, c)))
    {
        let half = held_in(Net::new(&device()), dtype);
        let (single, _) = attach(held_in(half.clone(), DType::F32), config, 3).unwrap();
        let (half, adapters) = attach(half, config, 3).unwrap();
        assert_eq!(half.conv1.weight.base().dtype(), dtype);
        let y = [&half, &single].map(|net| values::of(net.forward(input(&device()))));
        assert_eq!(y[0], y[1], "{dtype:?}");
        assert_eq!(gradients(&half), gradients(&single), "{dtype:?}");
        assert_eq!(gradients(&half).len(), adapters.trainable_tensors(DEFAULT).unwrap().len());
    }
}

#[test]
fn what_trains_on_a_base_of_half_precision_is_not_rounded_to_it() {
    let config = LoraConfig { modules_to_save: Some(vec!["head".into()]), ..config(&["conv1"]) };
    let (net, adapters) = attach(held_in(Net::new(&device()), DType::BF16), &config, 3).unwrap();
    let trained = adapters.trainable_tensors(DEFAULT).unwrap();
    let head = trained.iter().find(|tensor| tensor.name.contains("head.weight")).unwrap();
    let other: Vec<f32> = drawn("other", 24);
    let net = values::write(net, [(head.id, other.clone())].into());
    assert_eq!(values::of(net.head.weight.val()), other);
}

#[test]
fn merging_keeps_half_precision_and_unmerging_its_bits() {
    for dtype in [DType::F16, DType::BF16] {
        let (net, mut adapters) = attach(held_in(Net::new(&device()), dtype), &config(&["conv1", "head"]), 5).unwrap();
        let (before, original) = (net.forward(input(&device())), values::of(net.head.weight.base()));
        let net = adapters.merge(net).unwrap();
        assert_eq!([net.conv1.weight.base().dtype(), net.head.weight.base().dtype()], [dtype; 2]);
        let difference = distance(&net.forward(input(&device())), &before);
        assert!(difference > 0.0 && difference < 2e-2, "{difference}");
        let net = adapters.unmerge(net);
        assert_eq!(values::of(net.head.weight.base()), original);
        assert_eq!(values::of(net.forward(input(&device()))), values::of(before));
    }
}

/// The net after its adapter has taken some steps of plain gradient descent.
fn trained(net: Net, adapters: &Adapters, device: &Device) -> Net {
    let trainable = Trainable::of_adapter(adapters, DEFAULT).unwrap();
    let mut net = net;
    for _ in 0..5 {
        let error = net.forward(input(device)).sub_scalar(1.0);
        let gradients = (error.clone() * error).sum().backward();
        let (mut flat, mut step) = (trainable.read(&net), vec![0.0; trainable.len()]);
        trainable.add_gradients(&net, &gradients, 1.0, &mut step);
        assert!(step.iter().any(|gradient| *gradient != 0.0));
        flat.iter_mut().zip(&step).for_each(|(value, gradient)| *value -= 0.02 * gradient);
        net = trainable.write(net, &flat);
    }
    net
}

#[test]
fn an_adapter_that_begins_as_a_part_of_the_base_changes_nothing_trains_and_fits_the_original() {
    use GroupMode::{Dense, PerGroup, Shared};
    let device = device();
    let plain = Net::new(&device).forward(input(&device));
    let weights = |net: &Net| [values::of(net.conv1.weight.base()), values::of(net.head.weight.base())].concat();
    let folder = tempfile::tempdir().unwrap();
    let begun = |init, mode, r, dropout| LoraConfig {
        init_lora_weights: init,
        group_mode: mode,
        r,
        lora_dropout: dropout,
        rank_pattern: vec![("head".into(), 2)],
        ..config(&["conv1", "conv2", "head"])
    };
    for (at, config) in [
        begun(InitLoraWeights::Pissa, PerGroup, 4, 0.0),
        begun(InitLoraWeights::PissaNiter(4), Shared, 3, 0.0),
        begun(InitLoraWeights::Olora, PerGroup, 8, 0.5),
        begun(InitLoraWeights::Olora, Dense, 4, 0.0),
        LoraConfig { use_rslora: true, ..begun(InitLoraWeights::Pissa, Shared, 4, 0.0) },
        begun(InitLoraWeights::Orthogonal, Shared, 4, 0.0),
        begun(InitLoraWeights::Mica, PerGroup, 4, 0.0),
    ]
    .into_iter()
    .enumerate()
    {
        let (net, adapters) = attach(Net::new(&device), &config, 9).unwrap();
        let begins = net.valid().forward(input(&Device::flex()));
        let plain_inner = Net::new(&Device::flex()).forward(input(&Device::flex()));
        assert!(distance(&begins, &plain_inner) < 1e-5, "case {at}");
        assert_eq!(weights(&net), weights(&Net::new(&device)), "case {at}: the base is untouched");

        let net = trained(net, &adapters, &device);
        let after = net.valid().forward(input(&Device::flex()));
        assert!(distance(&after, &plain_inner) > 1e-4, "case {at}");
        let off = adapters.disabled(|| net.forward(input(&device)));
        assert!(distance(&off, &plain) < 1e-6, "case {at}: off, it is the original");
        adapters.set_scale(DEFAULT, 0.0).unwrap();
        assert!(distance(&net.valid().forward(input(&Device::flex())), &plain_inner) < 1e-5, "case {at}");
        adapters.set_scale(DEFAULT, 1.0).unwrap();

        let dir = folder.path().join(at.to_string());
        adapters.save(&net, DEFAULT, &dir, None).unwrap();
        let (again, loaded) = load(Net::new(&device), &dir).unwrap();
        let again = again.valid().forward(input(&Device::flex()));
        assert!(distance(&again, &after) < 1e-5, "case {at}: what is saved fits the original base");
        let doubles = config.init_lora_weights.reduces_base();
        assert_eq!(loaded.config(DEFAULT).unwrap().r, if doubles { 2 * config.r } else { config.r }, "case {at}");
        if config.group_mode != Dense {
            let merged = adapters.merge_and_unload(net).unwrap();
            assert!(distance(&merged.valid().forward(input(&Device::flex())), &after) < 1e-5, "case {at}");
        }
    }
}

#[test]
fn b_of_mica_stays_and_does_not_count_as_trainable() {
    let device = device();
    let config = LoraConfig { init_lora_weights: InitLoraWeights::Mica, ..config(&["conv1"]) };
    let (net, adapters) = attach(Net::new(&device), &config, 9).unwrap();
    assert_eq!(adapters.trainable_parameters(&net).trainable, 4 * 4 * 3);
    let b = |net: &Net| adapters.state(net, DEFAULT).unwrap().1.modules["conv1"].b.clone();
    let before = b(&net);
    assert_eq!(b(&trained(net, &adapters, &device)), before);
}

#[test]
fn a_fresh_dora_adapter_changes_nothing_and_trains_its_magnitudes() {
    let device = device();
    for norm in [DoraNorm::Exact, DoraNorm::Peft] {
        let net = Net::new(&device);
        let before = net.forward(input(&device));
        let config = LoraConfig {
            init_lora_weights: InitLoraWeights::True,
            dora_norm: norm,
            ..dora(&["conv1", "conv2", "head"])
        };
        let (net, adapters) = attach(net, &config, 0).unwrap();
        assert!(distance(&net.forward(input(&device)), &before) < 1e-5);
        // The factors, as without DoRA, and a magnitude for each of 8 + 8 + 3 outputs.
        assert_eq!(adapters.trainable_parameters(&net).trainable, 156 + 19);
        let names: Vec<_> = adapters.trainable_tensors(DEFAULT).unwrap();
        let magnitudes = names.into_iter().filter(|tensor| tensor.name.ends_with("lora_magnitude_vector"));
        assert_eq!(magnitudes.map(|tensor| tensor.shape).collect::<Vec<_>>(), [vec![1, 8, 1], vec![1, 8, 1], vec![3]]);
    }
}

#[test]
fn dora_merges_to_its_output_and_unmerges_to_the_bits() {
    let device = device();
    for norm in [DoraNorm::Exact, DoraNorm::Peft] {
        let config = LoraConfig { dora_norm: norm, ..dora(&["conv1", "conv2", "head"]) };
        let (net, mut adapters) = attach(Net::new(&device), &config, 5).unwrap();
        let net = scrambled(net, &adapters);
        let weight = |net: &Net| values::of(net.conv2.weight.base());
        let (before, original) = (net.forward(input(&device)), weight(&net));
        let net = adapters.merge(net).unwrap();
        assert!(distance(&net.forward(input(&device)), &before) < 1e-5);
        assert_ne!(weight(&net), original);
        let net = adapters.unmerge(net);
        assert_eq!(weight(&net), original);
        let folded = net.clone().materialize().forward(input(&device));
        assert!(distance(&folded, &before) < 1e-5, "the way of stock layers");
    }
}

/// PEFT's order: each adapter with `DoRA` multiplies what those before it have made, with the norm of the base and itself.
#[test]
fn dora_among_other_adapters() {
    let device = device();
    let targets = ["conv1", "conv2", "head"];
    let mut adapters = Adapters::default();
    let net = adapters.attach(Net::new(&device), "first", &dora(&targets), 1).unwrap();
    let net = adapters.attach(net, "plain", &config(&targets), 2).unwrap();
    let net = adapters.attach(net, "last", &dora(&targets), 3).unwrap();
    for active in [&["first", "plain"][..], &["plain", "first"], &["first", "plain", "last"]] {
        adapters.set_active(active).unwrap();
        adapters.set_scale("first", 0.5).unwrap();
        let live = net.forward(input(&device));
        let folded = net.clone().materialize().forward(input(&device));
        assert!(distance(&live, &folded) < 1e-5, "{active:?}");
        let merged = adapters.merge(net.clone()).unwrap();
        assert!(distance(&live, &merged.forward(input(&device))) < 1e-5, "{active:?}");
        drop(adapters.unmerge(merged));
    }
    adapters.set_active(&["plain", "first"]).unwrap();
    let turned = net.forward(input(&device));
    adapters.set_active(&["first", "plain"]).unwrap();
    assert!(distance(&net.forward(input(&device)), &turned) > 1e-3, "the order counts");

    adapters.set_active(&["plain", "last"]).unwrap();
    let live = net.forward(input(&device));
    adapters.set_active(&["plain"]).unwrap();
    let merged = adapters.merge(net).unwrap();
    adapters.set_active(&["last"]).unwrap();
    assert!(distance(&merged.forward(input(&device)), &live) < 1e-5, "live on what is merged, the norm is the base's");
    let merged = adapters.merge(merged).unwrap();
    assert!(distance(&merged.forward(input(&device)), &live) < 1e-5);
}

/// The gradient of the magnitude cannot be taken from an output that is nothing but its bias.
#[test]
fn a_magnitude_of_zero_has_the_gradient_of_its_direction() {
    let device = device();
    let (net, adapters) = attach(Net::new(&device), &dora(&["conv1"]), 5).unwrap();
    let magnitude = adapters.trainable_tensors(DEFAULT).unwrap().remove(2);
    let gradient = |first: f32| {
        let own = values::read(&net, &[magnitude.id]).remove(&magnitude.id).unwrap();
        let own = [&[first], &own[1..]].concat();
        let net = values::write(net.clone(), [(magnitude.id, own)].into());
        let gradients = net.conv1.forward(input(&device)).sum().backward();
        let active = net.conv1.weight.reparameterization::<LoraAdapter>().unwrap().active();
        let Change::LowRank(low_rank) = active[0].0 else { panic!("a change of low rank") };
        values::of(low_rank.magnitude.as_ref().unwrap().val().grad(&gradients).unwrap())
    };
    let (without, with) = (gradient(0.0), gradient(1.0));
    for (without, with) in without.iter().zip(&with) {
        assert!((without - with).abs() < 1e-4 * with.abs().max(1.0), "the layer is linear in it: {without} {with}");
    }
    assert!(with[0].abs() > 1e-3);
}

/// PEFT's formula: `y + (g - 1)·W·x' + g·s·B·A·x'`, with `x'` the input without what is dropped.
#[test]
fn dropout_with_dora_drops_the_input_of_the_gain_too() {
    let device = device();
    let dropped = LoraConfig { lora_dropout: 0.5, ..dora(&["conv1", "conv2", "head"]) };
    let (net, _) = attach(Net::new(&device), &dropped, 0).unwrap();
    let (first, second) = (net.forward(input(&device)), net.forward(input(&device)));
    assert!(distance(&first, &second) > 1e-3, "another draw drops others");
    let calm = net.valid().forward(Tensor::ones([2, 4, 20], &Device::flex()));
    let folded = net.valid().materialize().forward(Tensor::ones([2, 4, 20], &Device::flex()));
    assert!(distance(&calm, &folded) < 1e-5);
    // A gain of 1 and no delta leave nothing that could be dropped.
    let fresh = LoraConfig { init_lora_weights: InitLoraWeights::True, ..dropped };
    let (net, adapters) = attach(Net::new(&device), &fresh, 0).unwrap();
    let base = adapters.disabled(|| net.forward(input(&device)));
    assert!(distance(&net.forward(input(&device)), &base) < 1e-5);
}

/// The norm is that of the base with the change since the start, in the model and in the file.
#[test]
fn dora_on_factors_that_begin_as_a_part_of_the_base() {
    let device = device();
    let folder = tempfile::tempdir().unwrap();
    let begun = |mode, norm, dropout| LoraConfig {
        init_lora_weights: InitLoraWeights::Pissa,
        group_mode: mode,
        dora_norm: norm,
        lora_dropout: dropout,
        rank_pattern: vec![("head".into(), 2)],
        ..dora(&["conv1", "conv2", "head"])
    };
    for (at, config) in [
        begun(GroupMode::PerGroup, DoraNorm::Exact, 0.0),
        begun(GroupMode::PerGroup, DoraNorm::Peft, 0.0),
        begun(GroupMode::Dense, DoraNorm::Exact, 0.0),
        begun(GroupMode::PerGroup, DoraNorm::Exact, 0.5),
    ]
    .into_iter()
    .enumerate()
    {
        let plain = Net::new(&Device::flex()).forward(input(&Device::flex()));
        let (net, adapters) = attach(Net::new(&device), &config, 9).unwrap();
        let output = |net: &Net| net.valid().forward(input(&Device::flex()));
        assert!(distance(&output(&net), &plain) < 1e-5, "case {at}");
        let net = trained(net, &adapters, &device);
        let after = output(&net);
        assert!(distance(&after, &plain) > 1e-4, "case {at}");
        let dir = folder.path().join(at.to_string());
        adapters.save(&net, DEFAULT, &dir, None).unwrap();
        let (again, _) = load(Net::new(&device), &dir).unwrap();
        assert!(distance(&output(&again), &after) < 1e-5, "case {at}: what is saved fits the original base");
        if config.group_mode != GroupMode::Dense {
            assert!(distance(&net.valid().materialize().forward(input(&Device::flex())), &after) < 1e-5, "case {at}");
            let merged = adapters.merge_and_unload(net).unwrap();
            assert!(distance(&output(&merged), &after) < 1e-5, "case {at}");
        }
    }
}
