use super::*;
use crate::init::{Init, initialise};
use crate::kernels::reference::adapter::Adapter;
use crate::random::Random;

fn grouped() -> Layer {
    Layer::new(LayerKind::Conv1d, &[6, 2, 3], 2).unwrap()
}

fn random(layer: &Layer, mode: GroupMode, rank: usize) -> Factors {
    let mut random = Random::new(3, mode.name(), rank as u64);
    let mut draw = |shape: Vec<usize>| (0..elements(&shape)).map(|_| random.normal()).collect::<Vec<_>>();
    let (a, b) = (draw(layer.a_shape(rank, mode)), draw(layer.b_shape(rank, mode)));
    let bias = (layer.kind() != LayerKind::Embedding).then(|| draw(vec![layer.out_features()]));
    Factors::new(layer.clone(), mode, rank, 0.5, a, b, bias).unwrap()
}

fn assert_close(values: &[f32], expected: &[f64]) {
    assert_eq!(values.len(), expected.len());
    for (value, expected) in values.iter().zip(expected) {
        assert!((f64::from(*value) - expected).abs() < 1e-5, "{value} {expected}");
    }
}

#[test]
fn transposed_layers_have_a_transposed_delta() {
    for kind in [LayerKind::Conv1D, LayerKind::Embedding] {
        let layer = Layer::new(kind, &[3, 2], 1).unwrap();
        let factors =
            Factors::new(layer, GroupMode::Dense, 1, 1.0, vec![1.0, 2.0, 3.0], vec![1.0, 10.0], None).unwrap();
        assert_eq!(factors.delta().unwrap(), [1.0, 10.0, 2.0, 20.0, 3.0, 30.0], "{kind}");
    }
}

#[test]
fn one_hand_checked_delta_in_each_grouped_form() {
    let layer = Layer::new(LayerKind::Conv1d, &[2, 1, 2], 2).unwrap();
    let delta = |mode, rank, a: &[f32], b: &[f32]| {
        Factors::new(layer.clone(), mode, rank, 10.0, a.to_vec(), b.to_vec(), None).unwrap().delta().unwrap()
    };
    assert_eq!(delta(GroupMode::PerGroup, 2, &[1.0, 2.0, 3.0, 4.0], &[1.0, -1.0]), [10.0, 20.0, -30.0, -40.0]);
    assert_eq!(delta(GroupMode::Shared, 1, &[1.0, 2.0], &[1.0, -1.0]), [10.0, 20.0, -10.0, -20.0]);
    let dense = [1.0, 2.0, 0.0, 0.0, 0.0, -0.0, 3.0, 4.0];
    assert_eq!(delta(GroupMode::Dense, 2, &dense, &[1.0, -1.0]), [10.0, 20.0, -30.0, -40.0]);
}

#[test]
fn compact_forms_become_dense_and_come_back() {
    let layer = grouped();
    let per_group = random(&layer, GroupMode::PerGroup, 4);
    let dense = per_group.to_dense().unwrap();
    assert_eq!((dense.mode(), dense.rank(), dense.a().len()), (GroupMode::Dense, 4, 4 * 4 * 3));
    assert_eq!(dense.to_per_group().unwrap(), per_group);
    assert_eq!(dense.delta().unwrap(), per_group.delta().unwrap());
    assert_eq!(dense.to_dense().unwrap(), dense);

    let shared = random(&layer, GroupMode::Shared, 3);
    let dense = shared.to_dense().unwrap();
    assert_eq!((dense.mode(), dense.rank(), dense.a().len()), (GroupMode::Dense, 6, 6 * 4 * 3));
    assert_eq!((dense.b(), dense.bias(), dense.scale().to_bits()), (shared.b(), shared.bias(), 0.5_f32.to_bits()));
    assert_close(&dense.delta().unwrap(), &Adapter::new(&shared).delta());
}

#[test]
fn without_groups_the_forms_differ_in_name_only() {
    let layer = Layer::new(LayerKind::Linear, &[4, 5], 1).unwrap();
    for mode in [GroupMode::Dense, GroupMode::PerGroup, GroupMode::Shared] {
        let factors = random(&layer, mode, 3);
        for other in [factors.to_dense().unwrap(), factors.to_per_group().unwrap()] {
            assert_eq!((other.a(), other.b(), other.rank()), (factors.a(), factors.b(), 3));
        }
        assert_close(&factors.delta().unwrap(), &Adapter::new(&factors).delta());
    }
}

#[test]
fn an_adapter_that_reaches_outside_its_groups_says_where_and_what_to_do() {
    let mut a = vec![0.0; 2 * 4 * 3];
    a[12 + 2] = -0.5; // row 1 belongs to group 1, input 0 to group 0
    let factors = Factors::new(grouped(), GroupMode::Dense, 2, 1.0, a, vec![1.0; 6], None).unwrap();
    for error in [factors.delta().unwrap_err(), factors.to_per_group().unwrap_err()] {
        assert_eq!(
            error.to_string(),
            "the adapter reaches outside the 2 groups of the convolution: found -0.5 at [1, 0, 2] of A, expected 0"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("project")));
    }
}

#[test]
fn projection_drops_what_does_not_fit_and_says_how_much() {
    let factors = random(&grouped(), GroupMode::Dense, 4);
    let (projected, lost) = factors.project();
    let (inside, all) = (Adapter::new(&factors).delta(), Adapter::new(&factors).dense_delta());
    assert_close(&projected.delta().unwrap(), &inside);
    let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
    assert!((lost - (1.0 - norm(&inside) / norm(&all)).sqrt()).abs() < 1e-9, "{lost}");

    let fitting = random(&grouped(), GroupMode::PerGroup, 4);
    assert_eq!(fitting.project(), (fitting.clone(), 0.0));
    let (projected, lost) = fitting.to_dense().unwrap().project();
    assert!(projected == fitting && lost < 1e-9);
    let nothing = Factors::new(grouped(), GroupMode::Dense, 2, 1.0, vec![1.0; 24], vec![0.0; 6], None).unwrap();
    assert!(nothing.project().1.abs() < 1e-9);
}

#[test]
fn wrong_ranks_and_sizes_are_refused() {
    let new = |mode, rank, a: usize, b: usize, bias: Option<usize>| {
        let zeros = |count| vec![0.0; count];
        Factors::new(grouped(), mode, rank, 1.0, zeros(a), zeros(b), bias.map(zeros)).map(|_| ())
    };
    assert!(new(GroupMode::PerGroup, 2, 12, 6, Some(6)).is_ok());
    let error = new(GroupMode::PerGroup, 3, 18, 9, None).unwrap_err();
    assert_eq!(error.to_string(), "r must be a multiple of the 2 groups: found r = 3, group_mode \"per_group\"");
    assert_eq!(error.hint(), Some("use r = 4, or group_mode \"shared\", which takes any rank"));
    assert_eq!(
        new(GroupMode::Dense, 2, 12, 6, None).unwrap_err().to_string(),
        "A has the wrong number of values: found 12, expected those of [2, 4, 3] (Conv1d, dense, r = 2)"
    );
    for wrong in [
        new(GroupMode::Shared, 0, 0, 0, None),
        new(GroupMode::Dense, usize::MAX, 0, 0, None),
        new(GroupMode::Shared, usize::MAX, 0, 0, None),
        new(GroupMode::PerGroup, 2, 12, 5, None),
        new(GroupMode::PerGroup, 2, 12, 6, Some(2)),
    ] {
        assert!(wrong.is_err());
    }
    let embedding = Layer::new(LayerKind::Embedding, &[2, 2], 1).unwrap();
    let biased = Factors::new(embedding, GroupMode::Dense, 1, 1.0, vec![0.0; 2], vec![0.0; 2], Some(vec![0.0; 2]));
    assert_eq!(biased.unwrap_err().to_string(), "lora_bias is not possible on an Embedding");
}

#[test]
fn the_change_since_the_start_fits_the_original_weight() {
    for groups in [1, 2, 4] {
        let layer = Layer::new(LayerKind::Conv1d, &[8, 8 / groups, 3], groups).unwrap();
        let draw = |mode, seed| {
            let random = &mut Random::new(seed, "start", 0);
            initialise(&layer, mode, 4, 1.5, false, Init::False, random).unwrap()
        };
        for mode in [GroupMode::PerGroup, GroupMode::Shared] {
            let (trained, start) = (draw(mode, 1), draw(mode, 2));
            let change = trained.without_start(&start).unwrap();
            assert_eq!((change.rank(), change.mode()), (8, mode));
            let (trained, start, change) = (trained.delta().unwrap(), start.delta().unwrap(), change.delta().unwrap());
            for ((trained, start), change) in trained.iter().zip(&start).zip(change) {
                assert!((trained - start - change).abs() < 1e-6, "{groups} {mode}");
            }
        }
        let trained = draw(GroupMode::PerGroup, 1);
        let dense = trained.to_dense().unwrap().without_start(&trained).unwrap();
        assert!(dense.delta().unwrap().iter().all(|change| change.abs() < 1e-6));
        let other = Factors { scale: 2.0, ..trained.clone() };
        assert!(trained.without_start(&other).is_err());
    }
}
