//! Factors extracted from a delta and factors of another rank, against the delta of the referee.

use lowrank::adapter::extract::{Nearest, extract};
use lowrank::adapter::rank::Cut;
use lowrank::adapter::resize::resize;
use lowrank::adapter::{Factors, GroupMode};
use lowrank::kernels::reference::adapter::Adapter;
use proptest::prelude::*;

use crate::problem::{Problem, Spec, any};
use crate::properties::cases;

fn cut() -> impl Strategy<Value = Cut> {
    prop_oneof![(1..20_usize).prop_map(Cut::Rank), (0.01..1.0_f64).prop_map(Cut::Energy), Just(Cut::Energy(1.0))]
}

fn inside() -> impl Strategy<Value = Spec> {
    any().prop_map(|spec| Spec { reaches_outside: false, ..spec })
}

proptest! {
    #![proptest_config(cases(5_000))]

    #[test]
    fn a_resized_adapter_is_as_far_away_as_it_says_and_none_of_its_rank_is_nearer(spec in inside(), cut in cut()) {
        let factors = Problem::new(&spec).factors;
        let delta = Adapter::new(&factors).delta();
        let found = resize(&factors, cut, "m").unwrap();
        keeps(&delta, &found, cut, factors.layer().groups());
        prop_assert_eq!(found.factors.scale().to_bits(), factors.scale().to_bits());
        prop_assert_eq!(found.factors.bias(), factors.bias());
        prop_assert!(matches!(cut, Cut::Rank(_)) || found.factors.rank() <= factors.rank());
        if found.factors.rank() >= factors.rank() {
            prop_assert!(found.error < 1e-6);
        }
        nearest(&delta, &found, &factors);
    }

    #[test]
    fn an_extracted_adapter_is_as_far_away_as_it_says(spec in inside(), cut in cut(), shared in proptest::bool::ANY) {
        let problem = Problem::new(&spec);
        let delta: Vec<f64> = problem.weight.iter().map(|value| f64::from(*value)).collect();
        let mode = if shared { GroupMode::Shared } else { GroupMode::PerGroup };
        let found = extract(&delta, &problem.layer, mode, cut).unwrap();
        prop_assert_eq!(found.factors.mode(), mode);
        keeps(&delta, &found, cut, if shared { 1 } else { problem.layer.groups() });
        if found.factors.rank() >= problem.layer.max_rank() * problem.layer.groups() {
            prop_assert!(found.error < 1e-6);
        }
    }
}

/// The error and the energy are those of the delta, and the cut is what was asked for.
fn keeps(delta: &[f64], found: &Nearest, cut: Cut, groups: usize) {
    let error = distance(&Adapter::new(&found.factors).delta(), delta);
    assert!((error - found.error).abs() < 1e-5, "{error} {}", found.error);
    assert!((1.0 - found.error * found.error - found.energy).abs() < 1e-9);
    match cut {
        Cut::Rank(rank) => assert!(found.factors.rank() <= rank.next_multiple_of(groups)),
        Cut::Energy(share) => assert!(found.energy >= share - 1e-9, "{} {share}", found.energy),
    }
}

/// The factors are no farther away than what the dense delta gives at their rank.
fn nearest(delta: &[f64], found: &Nearest, factors: &Factors) {
    let dense = extract(delta, factors.layer(), factors.mode(), Cut::Rank(found.factors.rank())).unwrap();
    assert!(found.error < dense.error + 1e-5, "{} {}", found.error, dense.error);
}

/// The distance from `whole`, as a share of its norm; 0 where both are zero.
fn distance(found: &[f64], whole: &[f64]) -> f64 {
    assert_eq!(found.len(), whole.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let gap = norm(&mut found.iter().zip(whole).map(|(found, whole)| found - whole));
    if gap > 0.0 { gap / norm(&mut whole.iter().copied()) } else { 0.0 }
}
