use std::collections::BTreeMap;

use super::*;
use crate::adapter::extract::extract;
use crate::adapter::testing::{LAYERS, distance, draw};
use crate::adapter::{Layer, LayerKind};
use crate::float::FloatType;

fn factors(kind: LayerKind, shape: &[usize], groups: usize, mode: GroupMode, rank: usize) -> Factors {
    let layer = Layer::new(kind, shape, groups).unwrap();
    let (a, b) = (layer.a_shape(rank, mode).iter().product(), layer.b_shape(rank, mode).iter().product());
    let bias = (kind != LayerKind::Embedding).then(|| draw(layer.out_features(), 3));
    Factors::new(layer, mode, rank, -1.5, draw(a, 1), draw(b, 2), bias).unwrap()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

#[test]
fn every_kind_and_form_is_cut_to_the_error_that_is_said() {
    for (kind, shape, groups) in LAYERS {
        for mode in [GroupMode::PerGroup, GroupMode::Shared] {
            let whole = factors(kind, shape, groups, mode, 4 * groups);
            let delta = wide(&whole.delta().unwrap());
            for rank in [groups, 2 * groups, 3 * groups] {
                let found = resize(&whole, Cut::Rank(rank), "m").unwrap();
                let blocks = if mode == GroupMode::Shared { 1 } else { groups };
                let columns = delta.len() / whole.layer().out_features();
                let most = blocks * columns.min(whole.layer().out_features() / blocks);
                assert_eq!((found.factors.rank(), found.factors.mode()), (rank.min(most), mode), "{kind} {shape:?}");
                assert_eq!((found.factors.scale(), found.factors.bias()), (whole.scale(), whole.bias()));
                let error = distance(&found.factors.delta().unwrap(), &delta);
                assert!((error - found.error).abs() < 1e-5, "{kind} {shape:?} {mode} {rank}: {error} {}", found.error);
                // Nothing of that rank is nearer than what a decomposition of the dense delta gives.
                let dense = extract(&delta, whole.layer(), mode, Cut::Rank(rank)).unwrap();
                assert!((error - dense.error).abs() < 1e-5, "{kind} {shape:?} {mode} {rank}");
            }
        }
    }
}

#[test]
fn a_dense_form_stays_only_where_it_has_to() {
    let layer = Layer::new(LayerKind::Conv1d, &[6, 2, 3], 3).unwrap();
    let dense = Factors::new(layer.clone(), GroupMode::Dense, 6, 1.0, draw(108, 1), draw(12, 2), None).unwrap();
    let cut = resize(&dense, Cut::Rank(3), "m").unwrap();
    assert_eq!((cut.factors.mode(), cut.factors.rank()), (GroupMode::Dense, 3));
    assert!(cut.error > 0.01 && cut.error < 1.0);
    let compact = factors(LayerKind::Conv1d, &[6, 2, 3], 3, GroupMode::PerGroup, 6);
    let (cut, other) = (
        resize(&compact, Cut::Rank(3), "m").unwrap(),
        resize(&compact.to_dense().unwrap(), Cut::Rank(3), "m").unwrap(),
    );
    assert!(distance(&other.factors.delta().unwrap(), &wide(&cut.factors.delta().unwrap())) < 1e-5);
}

#[test]
fn a_higher_rank_is_the_same_adapter_and_can_be_trained() {
    for (kind, shape, groups) in LAYERS {
        for mode in [GroupMode::PerGroup, GroupMode::Shared] {
            let whole = factors(kind, shape, groups, mode, groups);
            let grown = resize(&whole, Cut::Rank(3 * groups), "m").unwrap();
            assert_eq!((grown.factors.rank(), grown.factors.mode()), (3 * groups, mode));
            let (found, delta) = (grown.factors.delta().unwrap(), whole.delta().unwrap());
            assert!(distance(&found, &wide(&delta)) < 1e-7, "{kind} {shape:?} {mode}");
            let kept = |whole: &[f32], grown: &[f32]| whole.iter().all(|value| grown.contains(value));
            assert!(kept(whole.a(), grown.factors.a()) && kept(whole.b(), grown.factors.b()));
            assert!(grown.energy >= 1.0 && grown.error <= 0.0);
            // A direction with zeros on both sides would have no gradient.
            let zeros = |values: &[f32]| values.iter().filter(|value| **value == 0.0).count();
            assert!(zeros(grown.factors.a()) == 0 || zeros(grown.factors.b()) == 0, "{kind}");
        }
    }
}

#[test]
fn a_rank_between_the_groups_is_rounded_up_and_energy_adds_none() {
    let whole = factors(LayerKind::Conv1d, &[6, 2, 3], 3, GroupMode::PerGroup, 6);
    assert_eq!(resize(&whole, Cut::Rank(2), "m").unwrap().factors.rank(), 3);
    assert_eq!(resize(&whole, Cut::Rank(7), "m").unwrap().factors.rank(), 9);
    assert_eq!(resize(&whole, Cut::Energy(1.0), "m").unwrap().factors, whole);
    assert!(resize(&whole, Cut::Energy(0.0), "m").is_err() && resize(&whole, Cut::Rank(0), "m").is_err());
}

#[test]
fn a_scale_of_zero_stays() {
    let layer = Layer::new(LayerKind::Linear, &[3, 3], 1).unwrap();
    let dead = Factors::new(layer, GroupMode::PerGroup, 2, 0.0, draw(6, 1), draw(6, 2), None).unwrap();
    let cut = resize(&dead, Cut::Rank(1), "m").unwrap();
    assert_eq!(cut.factors.delta().unwrap(), [0.0; 9]);
}

#[test]
fn alphas_follow_the_ranks() {
    for use_rslora in [false, true] {
        let config = LoraConfig {
            r: 4,
            lora_alpha: 6.0,
            use_rslora,
            lora_bias: true,
            rank_pattern: vec![("c".into(), 2)],
            alpha_pattern: vec![("b".into(), 3.0)],
            ..LoraConfig::default()
        };
        let module = |path: &str| {
            let (rank, scale) = (config.rank_for(path).unwrap(), config.scaling_for(path).unwrap());
            let whole = factors(LayerKind::Linear, &[5, 7], 1, GroupMode::PerGroup, rank);
            let bias = whole.bias().map(<[f32]>::to_vec);
            let (a, b) = (whole.a().to_vec(), whole.b().to_vec());
            Factors::new(whole.layer().clone(), GroupMode::PerGroup, rank, scale, a, b, bias).unwrap()
        };
        let paths = ["n.a", "n.b", "n.c"];
        let tensors = |path| ModuleTensors::from_factors(&module(path), FloatType::F32).unwrap();
        let modules: BTreeMap<_, _> = paths.map(|path| (path.to_owned(), tensors(path))).into();
        let state = StateDict { modules, ..StateDict::default() };
        for cut in [Cut::Rank(1), Cut::Rank(3), Cut::Rank(8), Cut::Energy(0.9), Cut::Energy(1.0)] {
            let resized = resize_adapter(&config, &state, cut).unwrap();
            resized.state.check(&resized.config).unwrap();
            for (path, report) in paths.into_iter().zip(&resized.modules) {
                let layer = Layer::new(LayerKind::Linear, &[5, 7], 1).unwrap();
                let found = resized.state.factors(path, &layer, &resized.config).unwrap();
                assert_eq!((report.path.as_str(), report.rank), (path, found.rank()));
                let error = distance(&found.delta().unwrap(), &wide(&module(path).delta().unwrap()));
                assert!((error - report.error).abs() < 1e-5, "{path} {cut:?} {use_rslora}: {error} {}", report.error);
            }
        }
    }
}
