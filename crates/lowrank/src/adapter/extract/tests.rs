use super::*;
use crate::adapter::LayerKind;
use crate::adapter::testing::{LAYERS, distance, draw};

#[test]
fn at_full_rank_every_kind_comes_back_and_below_it_the_error_is_what_is_said() {
    for (kind, shape, groups) in LAYERS {
        let layer = Layer::new(kind, shape, groups).unwrap();
        let delta: Vec<f64> = draw(shape.iter().product(), 1).into_iter().map(f64::from).collect();
        for mode in [GroupMode::PerGroup, GroupMode::Shared] {
            let mut last = f64::INFINITY;
            for rank in (1..=layer.max_rank()).map(|rank| rank * groups) {
                let found = extract(&delta, &layer, mode, Cut::Rank(rank)).unwrap();
                let error = distance(&found.factors.delta().unwrap(), &delta);
                assert!((error - found.error).abs() < 1e-6, "{kind} {shape:?} {mode} {rank}: {error} {}", found.error);
                assert!((found.energy + error * error - 1.0).abs() < 1e-6);
                assert!(error <= last + 1e-6);
                last = error;
            }
            assert!(last < 1e-6, "{kind} {shape:?} {mode}: {last}");
        }
    }
}

#[test]
fn an_energy_is_reached_by_no_smaller_rank() {
    for (kind, shape, groups) in LAYERS {
        let layer = Layer::new(kind, shape, groups).unwrap();
        let delta: Vec<f64> = draw(shape.iter().product(), 2).into_iter().map(f64::from).collect();
        for share in [0.05, 0.5, 0.9, 0.999] {
            let found = extract(&delta, &layer, GroupMode::PerGroup, Cut::Energy(share)).unwrap();
            assert!(found.energy >= share, "{kind} {shape:?}: {}", found.energy);
            let rank = found.factors.rank();
            if rank > groups {
                let below = extract(&delta, &layer, GroupMode::PerGroup, Cut::Rank(rank - groups)).unwrap();
                assert!(below.energy < share, "{kind} {shape:?} {rank}: {}", below.energy);
            }
        }
    }
}

#[test]
fn the_whole_energy_is_at_the_rank_that_the_delta_has() {
    let layer = Layer::new(LayerKind::Conv1d, &[8, 6, 3], 1).unwrap();
    let factors = Factors::new(layer.clone(), GroupMode::PerGroup, 2, 0.5, draw(36, 3), draw(16, 4), None).unwrap();
    // Computed in f64, so that rounding adds no rank.
    let (a, b) = (factors.a(), factors.b());
    let at =
        |row: usize, column: usize| (0..2).map(|p| f64::from(b[row * 2 + p]) * f64::from(a[p * 18 + column])).sum();
    let delta: Vec<f64> = (0..144).map(|index| at(index / 18, index % 18)).collect();
    let found = extract(&delta, &layer, GroupMode::PerGroup, Cut::Energy(1.0)).unwrap();
    assert_eq!(found.factors.rank(), 2);
    assert!(distance(&found.factors.delta().unwrap(), &delta) < 1e-6);
}

#[test]
fn numbers_that_are_wrong_are_refused() {
    let layer = Layer::new(LayerKind::Linear, &[2, 2], 1).unwrap();
    let text = |delta: &[f64], cut| extract(delta, &layer, GroupMode::PerGroup, cut).unwrap_err().to_string();
    assert_eq!(text(&[1.0; 4], Cut::Rank(0)), "the rank must be positive: found 0");
    let energy = "the energy is a share of the whole: found 1.5, expected a number above 0 and at most 1";
    assert_eq!(text(&[1.0; 4], Cut::Energy(1.5)), energy);
    assert!(text(&[1.0; 4], Cut::Energy(f64::NAN)).contains("found NaN"));
    let count = "the delta has the wrong number of values: found 3, expected those of [2, 2]";
    assert_eq!(text(&[1.0; 3], Cut::Rank(1)), count);
    assert!(text(&[1.0, f64::NAN, 0.0, 0.0], Cut::Rank(1)).contains("not finite"));
}
