//! Every combination type against its definition, on flat lists of `f64`.

use lowrank::adapter::combine::{Combination, CombinationType, MajoritySign, combine};
use lowrank::adapter::{Factors, GroupMode};
use lowrank::kernels::reference::adapter::Adapter;
use lowrank::kernels::reference::dora::outputs;
use lowrank::random::Random;
use proptest::prelude::*;

use crate::problem::{Problem, Spec, any, factors, grouped};
use crate::properties::cases;

/// Weights and settings; the ranks of the adapters are drawn from the seed of the layer.
#[derive(Debug, Clone)]
struct Mix {
    weights: Vec<f64>,
    density: f64,
    sign: Option<MajoritySign>,
    svd_rank: Option<usize>,
}

fn mix() -> impl Strategy<Value = Mix> {
    let weight = prop_oneof![4 => -2.0..2.0_f64, 1 => Just(0.0), 1 => Just(1.0), 1 => Just(-1.0)];
    let sign = prop_oneof![Just(None), Just(Some(MajoritySign::Total)), Just(Some(MajoritySign::Frequency))];
    let density = prop_oneof![4 => 0.01..1.0_f64, 1 => Just(1.0)];
    (prop::collection::vec(weight, 1..5), density, sign, prop::option::of(1..20_usize))
        .prop_map(|(weights, density, sign, svd_rank)| Mix { weights, density, sign, svd_rank })
}

fn inside() -> impl Strategy<Value = Spec> {
    any().prop_map(|spec| Spec { reaches_outside: false, ..spec })
}

proptest! {
    #![proptest_config(cases(5_000))]

    #[test]
    fn sums_are_those_of_the_deltas(spec in inside(), mix in mix()) {
        exact(&spec, &mix);
    }

    #[test]
    fn factors_are_added_as_defined(spec in inside(), mix in mix()) {
        for kind in [
            CombinationType::Linear,
            CombinationType::Ties,
            CombinationType::DareLinear,
            CombinationType::DareTies,
            CombinationType::MagnitudePrune,
        ] {
            by_factors(&spec, &mix, kind);
        }
    }

    #[test]
    fn nothing_of_the_rank_is_nearer_to_the_deltas_combined(spec in inside(), mix in mix()) {
        for kind in CombinationType::ALL.into_iter().filter(|kind| kind.is_svd()) {
            by_deltas(&spec, &mix, kind);
        }
    }

    #[test]
    fn dense_adapters_that_reach_outside_their_groups_stay_what_they_are(spec in grouped(), mix in mix()) {
        let spec = Spec { mode: GroupMode::Dense, reaches_outside: true, ..spec };
        exact(&spec, &mix);
        by_factors(&spec, &mix, CombinationType::Linear);
        by_deltas(&spec, &mix, CombinationType::Svd);
        by_deltas(&spec, &mix, CombinationType::TiesSvd);
    }
}

/// The settings that `kind` takes of `mix`.
fn how(kind: CombinationType, mix: &Mix, seed: u64) -> Combination {
    let name = kind.name();
    Combination {
        combination_type: kind,
        svd_rank: mix.svd_rank.filter(|_| kind.is_svd()),
        density: ["ties", "dare", "magnitude"].iter().any(|word| name.contains(word)).then_some(mix.density),
        majority_sign_method: mix.sign.filter(|_| name.contains("ties")),
        seed: name.contains("dare").then_some(seed),
    }
}

/// As many adapters as there are weights, on the layer of `spec`, of other ranks and forms when they may be.
fn adapters(spec: &Spec, mix: &Mix, alike: bool) -> Vec<Factors> {
    let layer = Problem::new(spec).layer;
    let mut random = Random::new(spec.seed, "adapters", 0);
    let modes = [GroupMode::Dense, GroupMode::PerGroup, GroupMode::Shared];
    let one = |_| {
        let (rank, mode) = (1 + random.below(4), modes[random.below(3)]);
        let stays = alike || spec.reaches_outside;
        let other = Spec {
            rank: if alike { spec.rank } else { rank },
            mode: if stays { spec.mode } else { mode },
            ..spec.clone()
        };
        factors(&other, &layer, &mut random)
    };
    mix.weights.iter().map(one).collect()
}

fn weighted<'a>(adapters: &'a [Factors], mix: &Mix) -> Vec<(&'a Factors, f64)> {
    adapters.iter().zip(mix.weights.iter().copied()).collect()
}

/// The delta as `(out, columns)`, over all inputs when `everywhere`.
fn flat(factors: &Factors, everywhere: bool) -> Vec<f64> {
    let (layer, adapter) = (factors.layer(), Adapter::new(factors));
    if everywhere {
        return Adapter::new(&factors.to_dense().unwrap()).dense_delta();
    }
    let delta = adapter.delta();
    if !layer.kind().is_transposed() {
        return delta;
    }
    let mut of_output = vec![Vec::new(); layer.out_features()];
    outputs(&adapter).into_iter().zip(delta).for_each(|(output, value)| of_output[output].push(value));
    of_output.concat()
}

fn sum(tensors: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    (0..tensors[0].len())
        .map(|i| tensors.iter().zip(weights).map(|(tensor, weight)| weight * tensor[i]).sum())
        .collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn difference(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    norm(&x.iter().zip(y).map(|(x, y)| x - y).collect::<Vec<_>>())
}

/// The sum of the norms of what is added: what rounding is measured by.
fn size(tensors: &[Vec<f64>], weights: &[f64]) -> f64 {
    tensors.iter().zip(weights).map(|(tensor, weight)| weight.abs() * norm(tensor)).sum::<f64>() + 1e-9
}

/// The bias of `B` is the weighted sum wherever nothing is pruned.
fn check_bias(adapters: &[Factors], mix: &Mix, combined: &Factors) {
    let expected: Option<Vec<f64>> = adapters[0].bias().map(|first| {
        let term = |o: usize, (factors, weight): (&Factors, &f64)| {
            weight * f64::from(factors.scale()) * f64::from(factors.bias().unwrap()[o])
        };
        (0..first.len()).map(|o| adapters.iter().zip(&mix.weights).map(|pair| term(o, pair)).sum()).collect()
    });
    assert_eq!(expected.is_some(), combined.bias().is_some());
    for (expected, found) in expected.iter().flatten().zip(combined.bias().into_iter().flatten()) {
        assert!((expected - f64::from(*found)).abs() < 1e-5);
    }
}

fn exact(spec: &Spec, mix: &Mix) {
    let adapters = adapters(spec, mix, false);
    let everywhere = spec.reaches_outside;
    let deltas: Vec<Vec<f64>> = adapters.iter().map(|factors| flat(factors, everywhere)).collect();
    let expected = sum(&deltas, &mix.weights);
    // A rank that leaves nothing to be lost.
    for (kind, svd_rank) in [(CombinationType::Cat, None), (CombinationType::Svd, Some(1000))] {
        let how = Combination { svd_rank, ..Combination::new(kind) };
        let combined = combine(&weighted(&adapters, mix), &how, "m").unwrap();
        assert_eq!(combined.scale().to_bits(), 1.0_f32.to_bits());
        let gap = difference(&flat(&combined, everywhere), &expected);
        assert!(gap <= 1e-6 * size(&deltas, &mix.weights), "{kind}: {gap}");
        check_bias(&adapters, mix, &combined);
    }
}

/// The form that factors are added in.
fn compact(factors: &Factors) -> Factors {
    match factors.mode() {
        GroupMode::Dense => factors.to_per_group().unwrap_or_else(|_| factors.clone()),
        _ => factors.clone(),
    }
}

fn by_factors(spec: &Spec, mix: &Mix, kind: CombinationType) {
    let how = how(kind, mix, spec.seed);
    let adapters: Vec<Factors> = adapters(spec, mix, true).iter().map(compact).collect();
    let combined = combine(&weighted(&adapters, mix), &how, "m").unwrap();
    assert_eq!((combined.rank(), combined.scale().to_bits()), (adapters[0].rank(), 1.0_f32.to_bits()));

    let weights: Vec<f64> =
        adapters.iter().zip(&mix.weights).map(|(f, weight)| weight * f64::from(f.scale())).collect();
    let roots: Vec<f64> = weights.iter().map(|weight| weight.abs().sqrt()).collect();
    let signed: Vec<f64> = weights.iter().zip(&roots).map(|(w, root)| if *w < 0.0 { -root } else { *root }).collect();
    let of = |part: fn(&Factors) -> &[f32]| -> Vec<Vec<f64>> {
        adapters.iter().map(|factors| part(factors).iter().map(|value| f64::from(*value)).collect()).collect()
    };
    let expected = Adapter {
        a: defined(&of(Factors::a), &signed, &how, "lora_A"),
        b: defined(&of(Factors::b), &roots, &how, "lora_B"),
        bias: adapters[0].bias().map(|_| defined(&of(|f| f.bias().unwrap()), &weights, &how, "lora_B.bias")),
        scale: 1.0,
        ..Adapter::new(&adapters[0])
    };
    let found = Adapter::new(&combined);
    let close = |found: &[f64], expected: &[f64]| difference(found, expected) <= 1e-6 * (1.0 + norm(expected));
    assert!(close(&found.a, &expected.a) && close(&found.b, &expected.b), "{kind}");
    assert!(close(&found.bias.clone().unwrap_or_default(), &expected.bias.clone().unwrap_or_default()), "{kind}");
    let delta = |adapter: &Adapter| if spec.reaches_outside { adapter.dense_delta() } else { adapter.delta() };
    let allowed = 1e-5 * (1.0 + norm(&expected.a) * norm(&expected.b));
    assert!(difference(&delta(&found), &delta(&expected)) <= allowed, "{kind}");
}

fn by_deltas(spec: &Spec, mix: &Mix, kind: CombinationType) {
    let how = how(kind, mix, spec.seed);
    let adapters = adapters(spec, mix, false);
    let everywhere = spec.reaches_outside;
    let combined = combine(&weighted(&adapters, mix), &how, "m").unwrap();
    let deltas: Vec<Vec<f64>> = adapters.iter().map(|factors| flat(factors, everywhere)).collect();
    let expected = defined(&deltas, &mix.weights, &how, "delta");

    let shared = adapters.iter().all(|factors| factors.mode() == GroupMode::Shared);
    let groups = if shared { 1 } else { spec.groups };
    let outputs = combined.layer().out_features();
    let columns = expected.len() / outputs;
    let of_group = |factors: &Factors| match (factors.mode(), shared) {
        (GroupMode::Shared, _) => factors.rank(),
        _ => factors.rank() / groups,
    };
    let largest = adapters.iter().map(of_group).max().unwrap();
    let asked = mix.svd_rank.map_or(largest, |rank| rank.div_ceil(groups));
    assert!(combined.rank() <= asked * groups);
    let lost: f64 = expected
        .chunks(expected.len() / groups)
        .map(|block| squares_beyond(asked, block, outputs / groups, columns))
        .sum::<f64>()
        .sqrt();
    let gap = difference(&flat(&combined, everywhere), &expected);
    assert!((gap - lost).abs() <= 1e-5 * (norm(&expected) + size(&deltas, &mix.weights)), "{kind}: {gap} {lost}");
    if kind == CombinationType::Svd {
        check_bias(&adapters, mix, &combined);
    }
}

/// What a combination type makes of tensors, by its definition.
fn defined(tensors: &[Vec<f64>], weights: &[f64], how: &Combination, tensor: &str) -> Vec<f64> {
    let name = how.combination_type.name();
    let density = how.density.unwrap_or(1.0);
    let mut pruned = tensors.to_vec();
    for (index, tensor_values) in pruned.iter_mut().enumerate() {
        if name.contains("dare") {
            let mut random = Random::new(how.seed.unwrap(), &format!("dare {tensor} m"), index as u64);
            for value in tensor_values {
                *value = if f64::from(random.unit()) < density { *value / density } else { 0.0 };
            }
        } else if how.density.is_some() {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let keep = (density * tensor_values.len() as f64) as usize;
            // A stable sort: of equal magnitudes the first stay.
            let mut order: Vec<usize> = (0..tensor_values.len()).collect();
            order.sort_by(|x, y| tensor_values[*y].abs().total_cmp(&tensor_values[*x].abs()));
            order[keep..].iter().for_each(|place| tensor_values[*place] = 0.0);
        }
    }
    if !name.contains("ties") {
        return sum(&pruned, weights);
    }
    let sign = |value: f64| if value == 0.0 { 0.0 } else { value.signum() };
    let vote = |value: f64| if how.majority_sign_method == Some(MajoritySign::Frequency) { sign(value) } else { value };
    let one = |place: usize| {
        let votes: f64 = pruned.iter().map(|tensor| vote(tensor[place])).sum();
        let winner = if votes >= 0.0 { 1.0 } else { -1.0 };
        let agreeing: Vec<f64> = pruned
            .iter()
            .zip(weights)
            .filter(|(tensor, _)| sign(tensor[place]).total_cmp(&winner).is_eq())
            .map(|(tensor, weight)| weight * tensor[place])
            .collect();
        agreeing.iter().sum::<f64>() / f64::from(u32::try_from(agreeing.len().max(1)).unwrap())
    };
    (0..tensors[0].len()).map(one).collect()
}

/// The sum of the squares of all but the first `rank` singular values: the rows (or columns, when there are fewer) are
/// turned into each other, two at a time, until all are orthogonal (Hestenes), and then have the singular values' lengths.
fn squares_beyond(rank: usize, matrix: &[f64], rows: usize, columns: usize) -> f64 {
    let mut lines: Vec<Vec<f64>> = if rows <= columns {
        matrix.chunks(columns).map(<[f64]>::to_vec).collect()
    } else {
        (0..columns).map(|column| matrix.iter().skip(column).step_by(columns).copied().collect()).collect()
    };
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    for _ in 0..30 {
        for (p, q) in (0..lines.len()).flat_map(|q| (0..q).map(move |p| (p, q))) {
            let (before, from_q) = lines.split_at_mut(q);
            let (x, y) = (&mut before[p], &mut from_q[0]);
            let angle = 0.5 * (2.0 * dot(x, y)).atan2(dot(x, x) - dot(y, y));
            let (sin, cos) = angle.sin_cos();
            for (x, y) in x.iter_mut().zip(y) {
                (*x, *y) = (cos * *x + sin * *y, cos * *y - sin * *x);
            }
        }
    }
    let mut squares: Vec<f64> = lines.iter().map(|line| dot(line, line)).collect();
    squares.sort_by(|x, y| y.total_cmp(x));
    squares.iter().skip(rank).sum()
}
