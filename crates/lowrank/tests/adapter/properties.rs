//! What holds for every problem. Each property is a function of its own, so that frozen problems run through them too.

use lowrank::adapter::{Factors, GroupMode, merge, merge_bias};
use lowrank::float::FloatType;
use lowrank::geometry::ConvGeometry;
use lowrank::kernels::reference::adapter::Adapter;
use lowrank::kernels::reference::{conv, conv_transpose};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::problem::{Problem, Spec, add, any, grouped, is_inside, wide};

pub fn cases(count: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if asked { default } else { ProptestConfig { cases: count, ..default } }
}

proptest! {
    #![proptest_config(cases(10_000))]

    #[test]
    fn beside_the_base_is_as_inside_its_weight(spec in any()) {
        two_ways(&spec);
    }

    #[test]
    fn merged_is_as_unmerged(spec in any()) {
        merging(&spec, FloatType::F32);
    }

    #[test]
    fn gradients_are_those_of_the_merged_weight(spec in any()) {
        gradients(&spec);
    }
}

proptest! {
    #![proptest_config(cases(2_500))]

    #[test]
    fn merged_is_as_unmerged_in_double_precision(spec in any()) {
        merging(&spec, FloatType::F64);
    }

    #[test]
    fn merged_is_as_unmerged_in_half_precision(spec in any()) {
        merging(&spec, FloatType::F16);
        merging(&spec, FloatType::Bf16);
    }

    #[test]
    fn exported_factors_are_the_same_function(spec in grouped()) {
        exporting(&spec);
    }

    #[test]
    fn dense_factors_that_reach_outside_are_refused_and_projected(spec in grouped()) {
        reaching_outside(&Spec { mode: GroupMode::Dense, reaches_outside: true, ..spec });
    }
}

/// A dense adapter with entries outside its groups has a property of its own.
fn fitting(spec: &Spec) -> Problem {
    Problem::new(&Spec { reaches_outside: false, ..spec.clone() })
}

/// `base(x) + scale * B(A(x))` is the layer with `W + delta`; both know when there is no output.
pub fn two_ways(spec: &Spec) {
    let problem = fitting(spec);
    let (adapter, weight) = (problem.adapter(), wide(&problem.weight));
    let bias = problem.bias.as_deref().map(wide);
    let folded = add(&weight, &adapter.delta());
    let inside = problem.layer_forward(&problem.x, &folded, bias.as_deref());
    if !problem.has_output() {
        assert!(inside.is_err() && problem.adapter_forward(&problem.x, &adapter).is_err());
        return;
    }
    // The bias of B is not in the weight.
    let silent = Adapter { bias: None, ..adapter };
    let base = problem.layer_forward(&problem.x, &weight, bias.as_deref()).unwrap();
    let beside = add(&base, &problem.adapter_forward(&problem.x, &silent).unwrap());
    assert_close("output", &beside, &inside.unwrap(), |_| 1e-9);
}

/// The delta is the referee's, the merged weight and bias give the unmerged output, and unmerging gives the base back.
pub fn merging(spec: &Spec, dtype: FloatType) {
    let mut problem = fitting(spec);
    let terms = problem.adapter_magnitude().delta();
    let delta = wide(&problem.factors.delta().unwrap());
    assert_close("delta", &delta, &problem.adapter().delta(), |index| 1e-6 * terms[index].max(1e-3));

    // A base has the values its type can hold.
    let stored = dtype.encode(&problem.weight);
    problem.weight = dtype.decode(&stored);
    let merged = merge(&stored[..], dtype, &[&problem.factors]).unwrap();
    let report = *merged.report();
    assert!(report.max_error <= report.bound, "{report:?}");
    let folded = decode(dtype, merged.weight());
    assert_eq!(merged.unmerge(), stored);

    let base_bias = problem.bias.as_deref().map(|bias| dtype.encode(bias));
    problem.bias = base_bias.as_deref().map(|bias| dtype.decode(bias));
    let merged_bias = merge_bias(base_bias.as_deref(), dtype, &[&problem.factors]);
    if problem.factors.bias().is_some() && problem.bias.is_none() {
        assert!(merged_bias.is_err());
        problem.factors = without_bias(&problem.factors);
    }
    let bias = match merged_bias {
        Ok(Some(merged)) => Some(decode(dtype, merged.weight())),
        Ok(None) | Err(_) => problem.bias.as_deref().map(wide),
    };
    if problem.has_output() {
        let output = problem.layer_forward(&problem.x, &folded, bias.as_deref()).unwrap();
        let (unmerged, terms) = problem.unmerged();
        let (relative, absolute) = match dtype {
            FloatType::F64 => (1e-12, 1e-12),
            FloatType::F32 => (1e-6, 1e-9),
            // One rounding, and the smallest values of f16, of which some hundreds may be summed.
            FloatType::F16 | FloatType::Bf16 => (dtype.epsilon(), 1e-4),
        };
        assert_close("merged output", &output, &unmerged, |index| relative * terms[index] + absolute);
    }
}

/// The gradients beside the base are those through the folded weight, by the chain rule.
pub fn gradients(spec: &Spec) {
    let problem = fitting(spec);
    if !problem.has_output() {
        return;
    }
    let (adapter, weight) = (problem.adapter(), wide(&problem.weight));
    let dy = problem.draw(problem.adapter_forward(&problem.x, &adapter).unwrap().len());
    let beside = problem.adapter_backward(&adapter, &dy);
    let base = problem.layer_backward(&weight, &dy);
    let folded = problem.layer_backward(&add(&weight, &adapter.delta()), &dy);

    let (mut da, db) = adapter.delta_backward(&folded.dw);
    if adapter.mode == GroupMode::Dense {
        // Outside the groups the merged weight has nothing to train, the adapter beside it does.
        for (index, da) in da.iter_mut().enumerate() {
            if !is_inside(&problem.layer, adapter.rank, index) {
                *da = beside.da[index];
            }
        }
    }
    assert_close("dA", &beside.da, &da, |_| 1e-9);
    assert_close("dB", &beside.db, &db, |_| 1e-9);
    assert_close("dx", &add(&base.dx, &beside.dx), &folded.dx, |_| 1e-9);
    let dbias: Vec<f64> = folded.dbias.iter().map(|dbias| adapter.scale * dbias).collect();
    if !dbias.is_empty() {
        assert_close("the bias of B", &beside.dbias, &dbias, |_| 1e-9);
    }
}

/// PEFT's form of a compact adapter is the same function with the same delta, and can be read back.
pub fn exporting(spec: &Spec) {
    let problem = fitting(spec);
    let dense = problem.factors.to_dense().unwrap();
    let compact = dense.to_per_group().unwrap();
    assert_eq!((dense.mode(), compact.mode()), (GroupMode::Dense, GroupMode::PerGroup));
    assert_eq!(compact.to_dense().unwrap(), dense);
    match spec.mode {
        GroupMode::Dense => assert_eq!(dense, problem.factors),
        GroupMode::PerGroup => assert_eq!(compact, problem.factors),
        GroupMode::Shared => assert_eq!(compact, problem.factors.to_per_group().unwrap()),
    }
    let delta = problem.adapter().delta();
    for factors in [&dense, &compact] {
        assert_close("delta", &Adapter::new(factors).delta(), &delta, |_| 1e-12);
    }
    let forward = |factors: &Factors| problem.adapter_forward(&problem.x, &Adapter::new(factors));
    if problem.has_output() {
        let output = forward(&problem.factors).unwrap();
        assert_close("dense output", &forward(&dense).unwrap(), &output, |_| 1e-9);
        assert_close("compact output", &forward(&compact).unwrap(), &output, |_| 1e-9);
    }
}

/// A dense adapter is a kernel over all inputs; what of it fits the grouped weight is its projection.
pub fn reaching_outside(spec: &Spec) {
    let problem = Problem::new(spec);
    let adapter = problem.adapter();
    let stored = FloatType::F32.encode(&problem.weight);
    let refused = merge(stored, FloatType::F32, &[&problem.factors]).unwrap_err();
    assert!(refused.hint().is_some_and(|hint| hint.contains("project")), "{refused}");

    let (projected, lost) = problem.factors.project();
    let (all, fits) = (adapter.dense_delta(), Adapter::new(&projected).delta());
    assert_close("projected delta", &fits, &adapter.delta(), |_| 1e-12);
    let square = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
    let expected = (1.0 - square(&fits) / square(&all)).sqrt();
    assert!((lost - expected).abs() < 1e-6, "{lost} {expected}");

    let Some((geometry, lengths)) = problem.conv.as_ref().filter(|_| problem.has_output()) else { return };
    let (inputs, outputs) = (geometry.in_channels(), geometry.out_channels());
    let ungrouped = ConvGeometry::new(inputs, outputs, 1, geometry.padding_mode(), geometry.axes().to_vec()).unwrap();
    let output = if spec.kind.is_conv_transpose() {
        // `(out, in, k)` to `(in, out, k)`.
        let taps: usize = problem.layer.kernel().iter().product();
        let kernel = |i: usize, o: usize| &all[(o * outputs + i) * taps..][..taps];
        let turned = (0..outputs).flat_map(|i| (0..inputs).flat_map(move |o| kernel(i, o))).copied();
        conv_transpose::forward(&ungrouped, lengths, &problem.x, &turned.collect::<Vec<_>>(), None).unwrap()
    } else {
        conv::forward(&ungrouped, lengths, &problem.x, &all, None).unwrap()
    };
    let silent = Adapter { bias: None, ..adapter };
    assert_close("output", &problem.adapter_forward(&problem.x, &silent).unwrap(), &output, |_| 1e-9);
}

fn without_bias(factors: &Factors) -> Factors {
    let (a, b) = (factors.a().to_vec(), factors.b().to_vec());
    Factors::new(factors.layer().clone(), factors.mode(), factors.rank(), factors.scale(), a, b, None).unwrap()
}

fn decode(dtype: FloatType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        FloatType::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        _ => wide(&dtype.decode(bytes)),
    }
}

/// `tolerance` is absolute, and by the expected value where that is larger than 1.
pub fn assert_close(name: &str, values: &[f64], expected: &[f64], tolerance: impl Fn(usize) -> f64) {
    assert_eq!(values.len(), expected.len(), "values of {name}");
    for (index, (value, expected)) in values.iter().zip(expected).enumerate() {
        let allowed = tolerance(index) * expected.abs().max(1.0);
        assert!((value - expected).abs() <= allowed, "{name} [{index}]: {value}, expected {expected} +- {allowed:e}");
    }
}

/// Properties of problems without an output would hold for nothing.
#[test]
fn most_problems_have_an_output_and_some_have_none() {
    let mut runner = TestRunner::deterministic();
    let specs: Vec<Spec> = (0..1000).map(|_| any().new_tree(&mut runner).unwrap().current()).collect();
    let with_output = specs.iter().filter(|spec| Problem::new(spec).has_output()).count();
    assert!((800..990).contains(&with_output), "{with_output} of 1000");
    for groups in 1..9 {
        assert!(specs.iter().any(|spec| spec.groups == groups), "{groups} groups");
    }
}
