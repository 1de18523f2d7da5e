use std::collections::BTreeMap;

use super::*;
use crate::adapter::LayerKind;
use crate::adapter::state_dict::{ModuleTensors, StateDict};
use crate::adapter::tensor::{Dtype, Tensor};
use crate::config::{Bias, LayerIndices, LoraConfig, Patterns};
use crate::float::FloatType;

fn layer(kind: LayerKind, shape: &[usize], groups: usize) -> Layer {
    Layer::new(kind, shape, groups).unwrap()
}

fn random(layer: &Layer, mode: GroupMode, rank: usize, seed: u64) -> Factors {
    let mut random = Random::new(seed, "combine", rank as u64);
    let mut draw = |shape: Vec<usize>| (0..shape.iter().product()).map(|_| random.normal()).collect::<Vec<f32>>();
    let (a, b) = (draw(layer.a_shape(rank, mode)), draw(layer.b_shape(rank, mode)));
    Factors::new(layer.clone(), mode, rank, 0.5, a, b, None).unwrap()
}

/// An adapter of `modules`, each a path, its layer and its rank.
fn adapter(config: LoraConfig, modules: &[(&str, Layer, usize)], seed: u64) -> (LoraConfig, StateDict) {
    let mut state = StateDict::default();
    for (path, layer, rank) in modules {
        let factors = random(layer, GroupMode::PerGroup, *rank, seed);
        let mut tensors = ModuleTensors::from_factors(&factors, FloatType::F32).unwrap();
        if config.lora_bias {
            let outputs = layer.out_features();
            tensors.bias = Some(Tensor::from_values(FloatType::F32, vec![outputs], &vec![1.0; outputs]).unwrap());
        }
        state.modules.insert((*path).to_owned(), tensors);
    }
    (config, state)
}

fn config(r: usize, alpha: f64, targets: &[&str]) -> LoraConfig {
    LoraConfig { r, lora_alpha: alpha, target_modules: Some(list(targets)), ..LoraConfig::default() }
}

fn list(names: &[&str]) -> Patterns {
    Patterns::List(names.iter().map(ToString::to_string).collect())
}

fn run(adapters: &[(LoraConfig, StateDict)], weights: &[f64], how: &Combination) -> Result<Combined> {
    let names = ["first", "second", "third"];
    let sources: Vec<Source<'_>> = adapters
        .iter()
        .zip(weights)
        .zip(names)
        .map(|(((config, state), weight), name)| Source { name, config, state, weight: *weight })
        .collect();
    let combined = combine_adapters(&sources, how, &mut |_, _, _| {})?;
    combined.config.validate_for_loading().unwrap();
    combined.state.check(&combined.config).unwrap();
    Ok(combined)
}

fn cat() -> Combination {
    Combination::new(CombinationType::Cat)
}

fn delta(config: &LoraConfig, state: &StateDict, path: &str, layer: &Layer) -> Vec<f32> {
    state.factors(path, layer, config).unwrap().delta().unwrap()
}

fn assert_sum(combined: &Combined, adapters: &[(LoraConfig, StateDict)], weights: &[f64], path: &str, layer: &Layer) {
    let found = delta(&combined.config, &combined.state, path, layer);
    let mut expected = vec![0.0; found.len()];
    for ((config, state), weight) in
        adapters.iter().zip(weights).filter(|((_, state), _)| state.modules.contains_key(path))
    {
        for (sum, value) in expected.iter_mut().zip(delta(config, state, path, layer)) {
            *sum += weight * f64::from(value);
        }
    }
    for (found, expected) in found.iter().zip(&expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-5, "{path}: {found} {expected}");
    }
}

#[test]
fn linear_has_the_products_of_one_adapter_with_the_other() {
    let layer = layer(LayerKind::Linear, &[1, 1], 1);
    let factors =
        |a: f32, b: f32, scale| Factors::new(layer.clone(), GroupMode::default(), 1, scale, vec![a], vec![b], None);
    let (first, second) = (factors(1.0, 2.0, 4.0).unwrap(), factors(3.0, 5.0, 1.0).unwrap());
    let both = |first_weight, second_weight| {
        let adapters = [(&first, first_weight), (&second, second_weight)];
        let combined = combine(&adapters, &Combination::new(CombinationType::Linear), "fc").unwrap();
        (combined.a()[0], combined.b()[0])
    };
    // sqrt(1 * 4) = 2 and sqrt(1) = 1: A = 2 * 1 + 3, B = 2 * 2 + 5.
    assert_eq!(both(1.0, 1.0), (5.0, 9.0));
    assert_eq!(both(-1.0, 1.0), (1.0, 9.0));
    assert_eq!(both(0.0, -4.0), (-6.0, 10.0));
}

#[test]
fn one_adapter_is_weighted_exactly_by_every_type() {
    for (kind, shape, groups) in [
        (LayerKind::Linear, &[6, 5][..], 1),
        (LayerKind::Conv1D, &[5, 6], 1),
        (LayerKind::Embedding, &[9, 6], 1),
        (LayerKind::Conv1d, &[6, 2, 3], 2),
        (LayerKind::Conv2d, &[6, 4, 2, 3], 1),
        (LayerKind::Conv3d, &[4, 4, 2, 1, 2], 1),
        (LayerKind::ConvTranspose1d, &[4, 6, 3], 2),
    ] {
        let layer = layer(kind, shape, groups);
        for (mode, combination_type) in [GroupMode::PerGroup, GroupMode::Shared]
            .into_iter()
            .flat_map(|mode| CombinationType::ALL.map(|combination_type| (mode, combination_type)))
        {
            let factors = random(&layer, mode, 2, 1);
            let density = (combination_type.pruning() != how::Pruning::None).then_some(1.0);
            let how = Combination { density, ..Combination::new(combination_type) };
            let combined = combine(&[(&factors, -0.75)], &how, "m").unwrap();
            assert_eq!((combined.mode(), combined.rank()), (mode, 2), "{kind} {combination_type}");
            for (found, one) in combined.delta().unwrap().iter().zip(factors.delta().unwrap()) {
                assert!((found + 0.75 * one).abs() < 1e-5, "{kind} {combination_type}: {found} {one}");
            }
            assert!(distance(&combined, &[(&factors, -0.75)]).unwrap().unwrap() < 1e-6);
        }
    }
}

#[test]
fn an_svd_takes_no_more_rank_than_the_layer_has() {
    let conv = layer(LayerKind::Conv1d, &[8, 1, 3], 4);
    let factors = random(&conv, GroupMode::PerGroup, 4, 1);
    let rank = |kind, svd_rank| {
        let density = (kind != CombinationType::Svd).then_some(1.0);
        let how = Combination { svd_rank, density, ..Combination::new(kind) };
        combine(&[(&factors, 1.0), (&factors, 1.0)], &how, "m").unwrap().rank()
    };
    assert_eq!(rank(CombinationType::Svd, None), 4);
    // Rounded up to the four groups; two outputs a group are the limit, and the ranks of the adapters together.
    assert_eq!(rank(CombinationType::Svd, Some(5)), 8);
    assert_eq!(rank(CombinationType::TiesSvd, Some(100)), 8);
    let thin = random(&layer(LayerKind::Linear, &[9, 9], 1), GroupMode::PerGroup, 1, 1);
    let how = Combination { svd_rank: Some(5), ..Combination::default() };
    assert_eq!(combine(&[(&thin, 1.0)], &how, "m").unwrap().rank(), 1);
}

#[test]
fn a_seed_is_a_choice() {
    let factors = random(&layer(LayerKind::Linear, &[9, 9], 1), GroupMode::PerGroup, 4, 1);
    let with = |seed, module| {
        let how = Combination { seed, density: Some(0.5), ..Combination::new(CombinationType::DareLinear) };
        combine(&[(&factors, 1.0), (&factors, 1.0)], &how, module).unwrap()
    };
    assert_eq!(with(None, "m"), with(Some(0), "m"));
    assert!(with(Some(1), "m") != with(Some(0), "m") && with(None, "n") != with(None, "m"));
}

#[test]
fn a_distance_is_that_of_the_deltas() {
    let layer = layer(LayerKind::Conv1d, &[6, 2, 3], 2);
    let (first, second) = (random(&layer, GroupMode::PerGroup, 4, 1), random(&layer, GroupMode::Shared, 2, 2));
    let adapters = [(&first, 1.5), (&second, -1.0)];
    let combined = combine(&adapters, &Combination { svd_rank: Some(2), ..Combination::default() }, "m").unwrap();
    let (first, second, found) = (first.delta().unwrap(), second.delta().unwrap(), combined.delta().unwrap());
    let sum: Vec<f64> = first.iter().zip(&second).map(|(x, y)| 1.5 * f64::from(*x) - f64::from(*y)).collect();
    let norm = |values: Vec<f64>| values.iter().map(|value| value * value).sum::<f64>().sqrt();
    let gap = sum.iter().zip(&found).map(|(sum, found)| sum - f64::from(*found)).collect();
    let expected = norm(gap) / norm(sum.clone());
    assert!(expected > 0.1);
    assert!((distance(&combined, &adapters).unwrap().unwrap() - expected).abs() < 1e-6);
    let zero = [(adapters[0].0, 0.0)];
    let combined = combine(&zero, &cat(), "m").unwrap();
    assert_eq!(distance(&combined, &zero).unwrap(), None);
}

#[test]
fn ranks_and_alphas_of_every_module_give_the_scale_one() {
    let conv = |outputs| layer(LayerKind::Conv1d, &[outputs, 4, 3], 1);
    let modules = |ranks: [usize; 3]| {
        [("net.conv1", conv(6), ranks[0]), ("net.conv2", conv(6), ranks[1]), ("conv1", conv(5), ranks[2])]
    };
    let targets = ["conv1", "conv2"];
    let first = LoraConfig {
        use_rslora: true,
        rank_pattern: vec![("conv2".into(), 3)],
        alpha_pattern: vec![("conv1".into(), 9.0)],
        ..config(2, 4.0, &targets)
    };
    let adapters = [adapter(first, &modules([2, 3, 2]), 1), adapter(config(4, 2.0, &targets), &modules([4, 4, 4]), 2)];
    let combined = run(&adapters, &[0.5, -2.0], &cat()).unwrap();
    let config = &combined.config;
    assert_eq!((config.r, config.lora_alpha, config.use_rslora), (6, 6.0, false));
    assert_eq!(config.rank_pattern, [(r"^net\.conv2".into(), 7)]);
    assert_eq!(config.alpha_pattern, [(r"^net\.conv2".into(), 7.0)]);
    for (path, layer, _) in modules([0; 3]) {
        assert_eq!(config.scaling_for(path).unwrap().to_bits(), 1.0_f32.to_bits());
        assert_sum(&combined, &adapters, &[0.5, -2.0], path, &layer);
    }
    assert_eq!(
        combined.modules.iter().map(|module| (module.adapters, module.rank)).collect::<Vec<_>>(),
        [(2, 6), (2, 6), (2, 7)]
    );
}

#[test]
fn targets_are_those_of_all_adapters() {
    let fc = || layer(LayerKind::Linear, &[4, 4], 1);
    let of = |config: LoraConfig, path, seed| adapter(config, &[(path, fc(), 2)], seed);
    let targets = |adapters: &[(LoraConfig, StateDict)]| {
        let combined = run(adapters, &[1.0, 1.0], &cat()).unwrap();
        assert_eq!(combined.config.exclude_modules, None);
        combined.config.target_modules.unwrap()
    };
    let adapters = [of(config(2, 2.0, &["b", "a"]), "a", 1), of(config(2, 2.0, &["a", "c"]), "c", 2)];
    assert_eq!(targets(&adapters), list(&["b", "a", "c"]));
    let adapters = [of(config(2, 2.0, &["b", "a"]), "a", 1), of(config(2, 2.0, &["a", "b"]), "b", 2)];
    assert_eq!(targets(&adapters), list(&["b", "a"]));
    let pattern = LoraConfig { target_modules: Some(Patterns::Regex("x.*".into())), ..config(2, 2.0, &[]) };
    let adapters = [of(pattern.clone(), "xa", 1), of(pattern.clone(), "xb", 2)];
    assert_eq!(targets(&adapters), Patterns::Regex("x.*".into()));
    let adapters = [of(pattern, "xa", 1), of(config(2, 2.0, &["c"]), "n.c", 2)];
    assert_eq!(targets(&adapters), list(&["n.c", "xa"]));
    let layers = LoraConfig { layers_to_transform: Some(LayerIndices::One(0)), ..config(2, 2.0, &["c"]) };
    let adapters = [of(layers, "n.0.c", 1), of(config(2, 2.0, &["c"]), "n.1.c", 2)];
    assert_eq!(targets(&adapters), list(&["n.0.c", "n.1.c"]));
}

#[test]
fn a_bias_of_b_is_combined_and_filled_up() {
    let fc = || layer(LayerKind::Linear, &[3, 4], 1);
    let biased = LoraConfig { lora_bias: true, ..config(2, 4.0, &["a"]) };
    let adapters = [
        adapter(biased.clone(), &[("a", fc(), 2)], 1),
        adapter(config(2, 2.0, &["a", "b"]), &[("a", fc(), 2), ("b", fc(), 2)], 2),
    ];
    for kind in [CombinationType::Linear, CombinationType::Cat, CombinationType::Svd] {
        let combined = run(&adapters, &[-1.5, 1.0], &Combination::new(kind)).unwrap();
        let bias = |path: &str| combined.state.modules[path].bias.as_ref().unwrap().values().unwrap();
        assert!(combined.config.lora_bias);
        assert_eq!((bias("a"), bias("b")), (vec![-3.0; 3], vec![0.0; 3]), "{kind}");
    }
    let embedding = layer(LayerKind::Embedding, &[7, 3], 1);
    let adapters = [adapter(biased, &[("a", fc(), 2)], 1), adapter(config(2, 2.0, &["e"]), &[("e", embedding, 2)], 2)];
    let error = run(&adapters, &[1.0, 1.0], &cat()).unwrap_err();
    assert_eq!(error.to_string(), "module `e`: lora_bias is not possible on an Embedding: found lora_bias in first");
}

#[test]
fn a_shared_adapter_and_one_of_each_group_become_one() {
    let conv = layer(LayerKind::Conv1d, &[6, 2, 3], 3);
    let mut adapters = [
        adapter(config(3, 3.0, &["c"]), &[("c", conv.clone(), 3)], 1),
        adapter(config(2, 4.0, &["c"]), &[], 2),
        adapter(config(2, 4.0, &["c"]), &[], 2),
    ];
    let shared = random(&conv, GroupMode::Shared, 2, 3);
    let tensors = ModuleTensors::from_factors(&shared, FloatType::F32).unwrap();
    adapters[1].1.modules.insert("c".into(), tensors.clone());
    adapters[2].1.modules.insert("c".into(), tensors);
    let combined = run(&adapters[..2], &[1.0, 2.0], &cat()).unwrap();
    assert_eq!((combined.config.r, combined.state.modules["c"].a.shape()), (9, &[9, 6, 3][..]));
    assert_sum(&combined, &adapters[..2], &[1.0, 2.0], "c", &conv);
    let combined = run(&adapters[1..], &[1.0, 2.0], &cat()).unwrap();
    assert_eq!(combined.state.modules["c"].a.shape(), [4, 2, 3]);
    assert_sum(&combined, &adapters[1..], &[1.0, 2.0], "c", &conv);
}

#[test]
fn what_is_saved_in_full_comes_along_when_it_is_one() {
    let fc = || layer(LayerKind::Linear, &[3, 4], 1);
    let head = |value: f32| Tensor::from_values(FloatType::F32, vec![2], &[value; 2]).unwrap();
    let save = |name: &str, value, seed| {
        let config = LoraConfig { modules_to_save: Some(vec![name.into()]), ..config(2, 2.0, &["fc"]) };
        let (config, mut state) = adapter(config, &[("fc", fc(), 2)], seed);
        state.saved.insert(format!("{name}.weight"), head(value));
        (config, state)
    };
    let combined = run(&[save("head", 1.0, 1), save("norm", 2.0, 2)], &[1.0, 0.5], &cat()).unwrap();
    assert_eq!(combined.config.modules_to_save, Some(vec!["head".into(), "norm".into()]));
    assert_eq!(
        combined.state.saved,
        BTreeMap::from([("head.weight".into(), head(1.0)), ("norm.weight".into(), head(2.0))])
    );
    assert_eq!(combined.warnings, ["second: tensors saved in full (1) are taken as they are, without the weight"]);
    assert!(run(&[save("head", 1.0, 1), save("head", 1.0, 2)], &[1.0, 1.0], &cat()).is_ok());
    let error = run(&[save("head", 1.0, 1), save("head", 2.0, 2)], &[1.0, 1.0], &cat()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor `head.weight`: two adapters save different values, which cannot be combined: found one in first and one \
        in second"
    );
    let adapts_head = adapter(config(2, 2.0, &["head"]), &[("head", fc(), 2)], 3);
    let error = run(&[save("head", 1.0, 1), adapts_head], &[1.0, 1.0], &cat()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "module `head`: one adapter saves the module in full, another adapts it: found `head` in modules_to_save"
    );
    let biases = |bias, seed| {
        let (config, mut state) = adapter(LoraConfig { bias, ..config(2, 2.0, &["fc"]) }, &[("fc", fc(), 2)], seed);
        state.saved.insert("fc.bias".into(), head(3.0));
        (config, state)
    };
    let plain = adapter(config(2, 2.0, &["fc"]), &[("fc", fc(), 2)], 4);
    assert_eq!(run(&[plain.clone(), biases(Bias::All, 1)], &[1.0, 1.0], &cat()).unwrap().config.bias, Bias::All);
    assert_eq!(run(&[biases(Bias::LoraOnly, 1), plain], &[1.0, 1.0], &cat()).unwrap().config.bias, Bias::LoraOnly);
}

#[test]
fn a_type_that_adapters_share_is_kept() {
    let fc = || layer(LayerKind::Linear, &[3, 4], 1);
    let of = |float, seed| {
        let (config, mut state) = adapter(config(2, 2.0, &["fc"]), &[("fc", fc(), 2)], seed);
        let factors = random(&fc(), GroupMode::PerGroup, 2, seed);
        state.modules.insert("fc".into(), ModuleTensors::from_factors(&factors, float).unwrap());
        (config, state)
    };
    let dtype =
        |first, second| run(&[of(first, 1), of(second, 2)], &[1.0, 1.0], &cat()).unwrap().state.modules["fc"].a.dtype();
    assert_eq!(dtype(FloatType::Bf16, FloatType::Bf16), Dtype::BF16);
    assert_eq!(dtype(FloatType::Bf16, FloatType::F16), Dtype::F32);
}

#[test]
fn settings_that_are_wrong_or_belong_elsewhere_are_refused() {
    let of = |combination_type| Combination::new(combination_type);
    let mut report = Vec::new();
    for how in [
        of(CombinationType::Ties),
        Combination { density: Some(0.0), ..of(CombinationType::Ties) },
        Combination { density: Some(1.5), ..of(CombinationType::DareLinear) },
        Combination { density: Some(f64::NAN), ..of(CombinationType::MagnitudePruneSvd) },
        Combination { density: Some(0.5), ..of(CombinationType::Svd) },
        Combination { svd_rank: Some(2), ..of(CombinationType::Cat) },
        Combination { svd_rank: Some(0), ..of(CombinationType::Svd) },
        Combination { seed: Some(2), density: Some(0.5), ..of(CombinationType::TiesSvd) },
        Combination {
            majority_sign_method: Some(MajoritySign::Frequency),
            density: Some(0.5),
            ..of(CombinationType::DareLinear)
        },
    ] {
        let error = how.check().unwrap_err();
        report.push(format!("{error} | {}", error.hint().unwrap_or("no hint")));
    }
    insta::assert_snapshot!(report.join("\n"));
}

#[test]
fn adapters_that_do_not_go_together_are_refused() {
    let linear = Combination::new(CombinationType::Linear);
    let fc = |inputs| layer(LayerKind::Linear, &[4, inputs], 1);
    let of = |config: LoraConfig, layer, rank| adapter(config, &[("fc", layer, rank)], 1);
    let plain = || of(config(2, 2.0, &["fc"]), fc(4), 2);
    let mut report = Vec::new();
    for (other, how) in [
        (of(config(3, 2.0, &["fc"]), fc(4), 3), linear),
        (of(config(2, 2.0, &["fc"]), fc(5), 2), linear),
        (of(config(2, 2.0, &["fc"]), layer(LayerKind::Embedding, &[4, 4], 1), 2), linear),
        (of(config(2, 2.0, &["fc"]), layer(LayerKind::Conv1d, &[4, 4, 3], 1), 2), cat()),
        (of(LoraConfig { use_dora: true, ..config(2, 2.0, &["fc"]) }, fc(4), 2), cat()),
    ] {
        let error = run(&[plain(), other], &[1.0, 1.0], &how).unwrap_err();
        report.push(format!("{error} | {}", error.hint().unwrap_or("no hint")));
    }
    insta::assert_snapshot!(report.join("\n"));
    assert!(run(&[plain()], &[f64::NAN], &cat()).is_err());
    assert!(run(&[plain()], &[1e300], &cat()).is_err());
    assert!(run(&[], &[], &cat()).is_err() && combine(&[], &cat(), "m").is_err());
    let (first, second) = (random(&fc(4), GroupMode::Dense, 2, 1), random(&fc(5), GroupMode::Dense, 2, 1));
    let error = combine(&[(&first, 1.0), (&second, 1.0)], &cat(), "m").unwrap_err();
    assert!(error.to_string().starts_with("adapters for different layers cannot be combined: found Linear [4, 5]"));
}

#[test]
fn adapters_of_different_bases_are_a_warning() {
    let of = |base: &str, seed| {
        let config = LoraConfig { base_model_name_or_path: Some(base.into()), ..config(2, 2.0, &["fc"]) };
        adapter(config, &[("fc", layer(LayerKind::Linear, &[4, 4], 1), 2)], seed)
    };
    assert!(run(&[of("whisper", 1), of("whisper", 2)], &[1.0, 2.0], &cat()).unwrap().warnings.is_empty());
    let warnings = run(&[of("whisper", 1), of("hubert", 2)], &[1.0, 2.0], &cat()).unwrap().warnings;
    assert_eq!(warnings, ["the adapters name different base models: `whisper` in first, `hubert` in second"]);
}
