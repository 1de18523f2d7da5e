//! Initialisations against PEFT's of the same weights, written by `golden/make_initialisations.py`.

use std::path::Path;

use lowrank::adapter::{Factors, GroupMode, Layer, LayerKind};
use lowrank::files::checkpoint::Checkpoint;
use lowrank::init::{Decomposition, decompose};
use lowrank::random::Random;

const SCALE: f32 = 1.5;

fn close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 2e-5, "{what}: found {found}, expected {expected}");
    }
}

/// Rows of `A` and columns of `B`, both turned where the first row of `B` has another sign than `like`.
fn with_signs_of(factors: &Factors, like: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let rank = factors.rank();
    let signs: Vec<f32> = factors.b()[..rank].iter().zip(like).map(|(own, other)| (own * other).signum()).collect();
    let columns = factors.a().len() / rank;
    let a = factors.a().iter().enumerate().map(|(index, a)| a * signs[index / columns]).collect();
    (a, factors.b().iter().enumerate().map(|(index, b)| b * signs[index % rank]).collect())
}

#[test]
fn factors_and_base_are_pefts_up_to_signs() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/initialisations.safetensors");
    let golden = Checkpoint::open(&golden).unwrap();
    let kinds = [("wide", LayerKind::Linear), ("tall", LayerKind::Linear), ("transposed", LayerKind::Conv1D)];
    let mut compared = 0;
    for (name, how) in [("pissa", Decomposition::Pissa), ("olora", Decomposition::Olora), ("mica", Decomposition::Mica)]
    {
        for (case, kind) in kinds {
            let case = format!("{name}.{case}");
            let Ok(weight) = golden.read(&format!("{case}.weight")) else { continue };
            let values = |key: &str| golden.read(&format!("{case}.{key}")).unwrap().values().unwrap();
            let layer = Layer::new(kind, weight.shape(), 1).unwrap();
            let (weight, random) = (weight.values().unwrap(), &mut Random::new(0, "unused", 0));
            let factors = decompose(&layer, GroupMode::default(), 4, SCALE, &weight, how, random).unwrap();
            let (a, b) = with_signs_of(&factors, &values("B"));
            close(&a, &values("A"), &format!("{case}.A"));
            close(&b, &values("B"), &format!("{case}.B"));
            let delta = factors.delta().unwrap();
            let base: Vec<f32> = weight.iter().zip(&delta).map(|(weight, delta)| weight - delta).collect();
            close(&base, &values("base"), &format!("{case}.base"));
            compared += 1;
        }
    }
    assert_eq!(compared, 8);
}
