//! `DoRA` against the referee: norms, merged weights, whole or row by row, and several adapters in turn.

use lowrank::adapter::merge::RowMerge;
use lowrank::adapter::{DoraNorm, Factors, GroupMode, Layer, LayerKind, Magnitude, merge};
use lowrank::float::FloatType;
use lowrank::kernels::reference::adapter::Adapter;
use lowrank::kernels::reference::dora;
use proptest::prelude::*;

use crate::problem::{Problem, Spec, any, grouped, wide};
use crate::properties::{assert_close, cases};

const NORMS: [DoraNorm; 2] = [DoraNorm::Exact, DoraNorm::Peft];

fn problem(spec: &Spec) -> Problem {
    Problem::new(&Spec { lora_bias: false, ..spec.clone() })
}

/// The problem's factors with a magnitude of either sign.
fn with_magnitude(problem: &Problem, norm: DoraNorm) -> Factors {
    #[expect(clippy::cast_possible_truncation, reason = "drawn as f32")]
    let values = problem.draw(problem.layer.out_features()).into_iter().map(|m| m as f32).collect();
    problem.factors.clone().with_magnitude(Magnitude { values, norm }).unwrap()
}

/// The magnitude and the norms of an adapter.
fn lengths(factors: &Factors, weight: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let magnitude = factors.magnitude().unwrap();
    (wide(&magnitude.values), dora::norms(&Adapter::new(factors), &wide(weight), magnitude.norm))
}

fn merging(spec: &Spec, dtype: FloatType, norm: DoraNorm) {
    let problem = problem(&Spec { reaches_outside: false, ..spec.clone() });
    let stored = dtype.encode(&problem.weight);
    let weight = dtype.decode(&stored);
    let factors = with_magnitude(&problem, norm);
    let (magnitude, norms) = lengths(&factors, &weight);
    let gains = dora::gains(&magnitude, &norms);
    let adapter = Adapter::new(&factors);
    let expected = dora::merged(&adapter, &wide(&weight), &gains);
    // Where the base and the delta cancel out, the weight and the norm are as inexact as they are large.
    let terms = problem.adapter_magnitude().delta();
    let positive: Vec<f64> = weight.iter().map(|w| f64::from(*w).abs()).collect();
    let norm_terms = dora::norms(&problem.adapter_magnitude(), &positive, norm);
    let outputs = dora::outputs(&adapter);
    let mut sizes = vec![0.0_f64; norms.len()];
    for (at, output) in outputs.iter().enumerate() {
        sizes[*output] += positive[at] + terms[at];
    }
    let merged = merge(&stored[..], dtype, &[&factors]).unwrap();
    let report = *merged.report();
    assert!(report.max_error <= report.bound, "{report:?}");
    let close = |bytes: &[u8]| {
        let values: Vec<f64> = match dtype {
            FloatType::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            _ => wide(&dtype.decode(bytes)),
        };
        assert_eq!(values.len(), expected.len());
        for (at, (value, expected)) in values.iter().zip(&expected).enumerate() {
            let output = outputs[at];
            let (unit, store) = match dtype {
                FloatType::F64 => (1e-14, 0.0),
                FloatType::F32 => (3e-7, 0.0),
                FloatType::F16 | FloatType::Bf16 => (3e-7, dtype.epsilon()),
            };
            let gain = magnitude[output].abs() / norms[output];
            let inexact = gain * sizes[output] * (1.0 + norm_terms[output] / norms[output]) * unit;
            let allowed = inexact + store * expected.abs().max(1e-4);
            assert!((value - expected).abs() <= allowed, "{at}: {value}, expected {expected} +- {allowed:e}");
        }
    };
    close(merged.weight());
    let mut rows = RowMerge::new(dtype, &[&factors]).unwrap();
    assert!(rows.measures() && rows.merge(0, &stored).is_err(), "not measured yet");
    let step = 3 * rows.row_bytes();
    stored.chunks(step).enumerate().try_for_each(|(index, part)| rows.measure(3 * index, part)).unwrap();
    let parts = stored.chunks(step).enumerate().map(|(index, part)| rows.merge(3 * index, part).unwrap().0);
    close(&parts.collect::<Vec<_>>().concat());
    assert_eq!(merged.unmerge(), stored);
}

proptest! {
    #![proptest_config(cases(2_500))]

    #[test]
    fn merged_weights_are_the_referees(spec in any()) {
        for norm in NORMS {
            merging(&spec, FloatType::F32, norm);
        }
        merging(&spec, FloatType::F64, DoraNorm::Exact);
        merging(&spec, FloatType::F16, DoraNorm::Exact);
        merging(&spec, FloatType::Bf16, DoraNorm::Exact);
    }

    #[test]
    fn norms_are_the_referees(spec in any()) {
        let problem = problem(&spec);
        for norm in NORMS {
            let norms = problem.factors.norms(&problem.weight, norm).unwrap();
            assert_close("norm", &norms, &dora::norms(&problem.adapter(), &wide(&problem.weight), norm), |_| 1e-9);
        }
    }

    /// PEFT's norm is one of the zero-filled dense form and of the compact one alike, and another than the exact one.
    #[test]
    fn pefts_norm_does_not_depend_on_the_form(spec in grouped()) {
        let problem = problem(&Spec { mode: GroupMode::PerGroup, ..spec });
        let of = |factors: &Factors| factors.norms(&problem.weight, DoraNorm::Peft).unwrap();
        assert_close("norm", &of(&problem.factors.to_dense().unwrap()), &of(&problem.factors), |_| 1e-9);
    }

    /// `g_3 (g_1 (W + delta_1) + delta_2 + delta_3)`, each norm that of the base with one adapter alone.
    #[test]
    fn several_adapters_follow_each_other(spec in any(), seed in prop::num::u64::ANY) {
        let spec = Spec { reaches_outside: false, ..spec };
        let (first, third) = (problem(&spec), problem(&Spec { seed, ..spec.clone() }));
        let adapters = [
            with_magnitude(&first, DoraNorm::Exact),
            first.factors.clone(),
            with_magnitude(&third, DoraNorm::Exact),
        ];
        let mut expected = wide(&first.weight);
        for factors in &adapters {
            let gains = match factors.magnitude() {
                Some(_) => {
                    let (magnitude, norms) = lengths(factors, &first.weight);
                    dora::gains(&magnitude, &norms)
                }
                None => vec![1.0; first.layer.out_features()],
            };
            expected = dora::merged(&Adapter::new(factors), &expected, &gains);
        }
        let base: Vec<u8> = first.weight.iter().flat_map(|w| f64::from(*w).to_le_bytes()).collect();
        let merged = merge(base, FloatType::F64, &adapters.each_ref()).unwrap();
        let values: Vec<f64> = merged.weight().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        assert_close("merged", &values, &expected, |_| 1e-8);
    }
}

/// The magnitude that an adapter starts with leaves the base what it is.
#[test]
fn a_magnitude_of_the_norms_changes_nothing() {
    for (kind, shape, groups) in [
        (LayerKind::Linear, &[5, 7][..], 1),
        (LayerKind::Conv1D, &[7, 5], 1),
        (LayerKind::Embedding, &[9, 4], 1),
        (LayerKind::Conv1d, &[6, 2, 3], 2),
        (LayerKind::Conv3d, &[4, 3, 2, 2, 2], 1),
        (LayerKind::ConvTranspose1d, &[6, 2, 3], 2),
    ] {
        let layer = Layer::new(kind, shape, groups).unwrap();
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        let weight: Vec<f32> = (0_u8..).take(count(shape)).map(|at| f32::from(at % 11) - 4.5).collect();
        let a = vec![0.5; count(&layer.a_shape(2, GroupMode::PerGroup))];
        let b = vec![0.0; count(&layer.b_shape(2, GroupMode::PerGroup))];
        let factors = Factors::new(layer, GroupMode::PerGroup, 2, 1.0, a, b, None).unwrap();
        for norm in NORMS {
            #[expect(clippy::cast_possible_truncation, reason = "a magnitude is f32")]
            let values = factors.norms(&weight, norm).unwrap().into_iter().map(|norm| norm as f32).collect();
            let factors = factors.clone().with_magnitude(Magnitude { values, norm }).unwrap();
            let merged = merge(FloatType::F32.encode(&weight), FloatType::F32, &[&factors]).unwrap();
            assert!(merged.report().max_delta < 1e-6, "{kind}: {:?}", merged.report());
        }
    }
}

#[test]
fn an_output_of_zeros_stays_one() {
    let layer = Layer::new(LayerKind::Linear, &[2, 2], 1).unwrap();
    let factors = Factors::new(layer, GroupMode::PerGroup, 1, 1.0, vec![1.0, 2.0], vec![0.0, 0.0], None).unwrap();
    let magnitude = Magnitude { values: vec![3.0, 10.0], norm: DoraNorm::Exact };
    let factors = factors.with_magnitude(magnitude).unwrap();
    let merged = merge(FloatType::F32.encode(&[0.0, 0.0, 3.0, 4.0]), FloatType::F32, &[&factors]).unwrap();
    assert_eq!(FloatType::F32.decode(merged.weight()), [0.0, 0.0, 6.0, 8.0]);
}

#[test]
fn magnitudes_that_do_not_fit_or_are_not_finite_are_refused() {
    let layer = Layer::new(LayerKind::Linear, &[2, 3], 1).unwrap();
    let plain = |bias| Factors::new(layer.clone(), GroupMode::PerGroup, 1, 1.0, vec![0.0; 3], vec![0.0; 2], bias);
    let magnitude = |values| Magnitude { values, norm: DoraNorm::Exact };
    assert!(plain(None).unwrap().with_magnitude(magnitude(vec![1.0; 3])).is_err());
    let error = plain(Some(vec![0.0; 2])).unwrap().with_magnitude(magnitude(vec![1.0; 2])).unwrap_err();
    assert!(error.to_string().contains("lora_bias"), "{error}");
    let broken = plain(None).unwrap().with_magnitude(magnitude(vec![1.0, f32::NAN])).unwrap();
    let error = merge(vec![0; 24], FloatType::F32, &[&broken]).unwrap_err();
    assert!(error.to_string().contains("lora_magnitude_vector is not finite at [1]"), "{error}");
    let base = FloatType::F32.encode(&[1.0, 1.0, 1.0, 1.0, f32::NAN, 1.0]);
    let sound = plain(None).unwrap().with_magnitude(magnitude(vec![1.0; 2])).unwrap();
    let error = merge(base, FloatType::F32, &[&sound]).unwrap_err();
    assert!(error.to_string().contains("the base weight is not finite at [1, 1]"), "{error}");
}
