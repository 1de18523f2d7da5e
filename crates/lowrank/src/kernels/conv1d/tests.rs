//! Every kernel against the `f64` reference, on random geometries.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::*;
use crate::geometry::{Axis, Padding, PaddingMode};
use crate::kernels::activation::Activation;
use crate::kernels::testing::{assert_sums_close, assert_threads_do_not_matter, computes_with_what_is_left, wide};
use crate::kernels::{Values, reference};
use crate::random::Random;

#[derive(Debug, Clone)]
struct Case {
    geometry: ConvGeometry,
    batch: usize,
    length: usize,
    /// Rows of `A` in a block.
    rank: usize,
    /// Of the factors; a divisor of the groups.
    blocks: usize,
    seed: u64,
}

/// Geometries with channels around the sizes of a block and every field varied, and some of each kind with its own way.
fn case() -> impl Strategy<Value = Case> {
    let few = || prop_oneof![1_usize..5, 5_usize..20];
    let (steps, padding) = (|| (1_usize..5, 1_usize..6), || (0_usize..9, 0_usize..9));
    let (batch, length) = (|| 1_usize..5, || prop_oneof![1_usize..20, 20_usize..200]);
    let kernel = || prop_oneof![1_usize..5, 5_usize..12];
    prop_oneof![
        4 => cases((1_usize..=4, few(), few()), (kernel(), steps(), padding()), (batch(), length())),
        1 => cases((2_usize..20, Just(1), 1_usize..5), (1_usize..80, steps(), padding()), (batch(), length())),
        1 => cases(
            (1_usize..=2, 1_usize..5, 8_usize..20),
            (10_usize..70, (3_usize..40, Just(1)), (0_usize..30, 0_usize..30)),
            (batch(), 50_usize..300),
        ),
        1 => cases(
            (Just(1), 1_usize..5, 8_usize..40),
            ((3_usize..6).prop_map(|registers| 16 * registers), (12_usize..40, Just(1)), (0_usize..30, 0_usize..30)),
            (batch(), 80_usize..300),
        ),
        1 => cases((1_usize..=2, 16_usize..20, 16_usize..20), (1_usize..6, steps(), padding()), (16_usize..40, 1_usize..9)),
        2 => cases(
            (1_usize..=2, 31_usize..40, 1_usize..20),
            (1_usize..18, (Just(1), 1_usize..40), (0_usize..40, 0_usize..40)),
            (1_usize..3, 60_usize..120),
        ),
    ]
}

/// Of `(groups, inputs, outputs)` (of a group), `(kernel, (stride, dilation), padding)`, and `(batch, length)`.
fn cases(
    channels: impl Strategy<Value = (usize, usize, usize)> + 'static,
    axis: impl Strategy<Value = (usize, (usize, usize), (usize, usize))> + 'static,
    size: impl Strategy<Value = (usize, usize)> + 'static,
) -> BoxedStrategy<Case> {
    let mode = prop_oneof![
        3 => Just(PaddingMode::Zeros),
        1 => Just(PaddingMode::Reflect),
        1 => Just(PaddingMode::Replicate),
        1 => Just(PaddingMode::Circular),
    ];
    let factors = (1_usize..10, 1_usize..=4, any::<u64>());
    let case = (channels, axis, mode, size, factors).prop_map(|(channels, axis, mode, size, factors)| {
        let (groups, input, output) = channels;
        let (kernel, (stride, dilation), (before, after)) = axis;
        let axis = Axis { kernel, stride, dilation, padding: Padding::Explicit(before, after) };
        let geometry = ConvGeometry::new(groups * input, groups * output, groups, mode, vec![axis]).unwrap();
        let (rank, blocks, seed) = factors;
        let blocks = if groups.is_multiple_of(blocks) { blocks } else { 1 };
        Case { geometry, batch: size.0, length: size.1, rank, blocks, seed }
    });
    case.boxed()
}

fn random(case: &Case, purpose: &str, len: usize) -> Vec<f32> {
    let mut random = Random::new(case.seed, purpose, 0);
    (0..len).map(|_| random.normal()).collect()
}

/// What every kernel makes of a case, or nothing where the geometry has no output.
fn results(case: &Case) -> Option<Vec<Vec<f32>>> {
    let problem = Problem { geometry: &case.geometry, batch: case.batch, length: case.length };
    let columns = problem.output_length().ok()?;
    let inputs = Inputs::new(case, columns);
    let weight = inputs.weight();
    let y = forward(&problem, &inputs.x, &weight, Some(&inputs.bias), Activation::LeakyRelu(0.25));
    let dx = input_gradient(&problem, &inputs.dy, &weight);
    let (da, db) = low_rank_gradients(&problem, &inputs.x, &inputs.dy, &inputs.low());
    let dw = weight_gradient(&problem, &inputs.x, &inputs.dy);
    Some(vec![y, dx, da, db, dw])
}

struct Inputs {
    x: Vec<f32>,
    w: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    bias: Vec<f32>,
    dy: Vec<f32>,
    rank: usize,
    blocks: usize,
}

impl Inputs {
    fn new(case: &Case, columns: usize) -> Self {
        let shape = case.geometry.weight_shape();
        let (out, n) = (shape[0], shape[1] * shape[2]);
        let rank = case.rank * case.blocks;
        Self {
            x: random(case, "x", case.batch * case.geometry.in_channels() * case.length),
            w: random(case, "w", out * n),
            a: random(case, "a", rank * n),
            b: random(case, "b", out * case.rank),
            bias: random(case, "bias", out),
            dy: random(case, "dy", case.batch * out * columns),
            rank,
            blocks: case.blocks,
        }
    }

    fn low(&self) -> LowRank<'_> {
        LowRank { a: &self.a, b: &self.b, rank: self.rank, blocks: self.blocks, scale: 0.5 }
    }

    fn weight(&self) -> Weight<'_> {
        Weight { base: Values::F32(&self.w), low_rank: Some(self.low()) }
    }

    /// `W + s·B·A` by its definition.
    fn folded(&self) -> Vec<f64> {
        let (n, out) = (self.a.len() / self.rank, self.b.len() * self.blocks / self.rank);
        let (rank, rows) = (self.rank / self.blocks, out / self.blocks);
        let delta = |o: usize, i: usize| {
            let terms =
                (0..rank).map(|p| f64::from(self.b[o * rank + p]) * f64::from(self.a[(o / rows * rank + p) * n + i]));
            terms.sum::<f64>() * 0.5
        };
        (0..out * n).map(|at| f64::from(self.w[at]) + delta(at / n, at % n)).collect()
    }

    /// `dA` and `dB` from the dense gradient.
    fn low_rank_gradients(&self, dw: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let n = self.a.len() / self.rank;
        let (rank, out) = (self.rank / self.blocks, dw.len() / n);
        let rows = out / self.blocks;
        let (mut da, mut db) = (vec![0.0; self.a.len()], vec![0.0; self.b.len()]);
        for o in 0..out {
            for p in 0..rank {
                let row = o / rows * rank + p;
                for i in 0..n {
                    da[row * n + i] += 0.5 * f64::from(self.b[o * rank + p]) * dw[o * n + i];
                    db[o * rank + p] += 0.5 * f64::from(self.a[row * n + i]) * dw[o * n + i];
                }
            }
        }
        (da, db)
    }
}

fn check(case: &Case) {
    let Some(results) = results(case) else { return };
    let columns = case.geometry.output_lengths(&[case.length]).unwrap()[0];
    let inputs = Inputs::new(case, columns);
    let (x, w, bias) = (wide(&inputs.x), inputs.folded(), wide(&inputs.bias));
    let y = reference::conv::forward(&case.geometry, &[case.length], &x, &w, Some(&bias)).unwrap();
    let y: Vec<f64> = y.into_iter().map(|y| if y > 0.0 { y } else { 0.25 * y }).collect();
    let gradients = reference::conv::backward(&case.geometry, &[case.length], &x, &w, &wide(&inputs.dy)).unwrap();
    let (da, db) = inputs.low_rank_gradients(&gradients.dw);
    let shape = case.geometry.weight_shape();
    let (outputs, n, positions) = (shape[0] / case.geometry.groups(), shape[1] * shape[2], case.batch * columns);
    let expected = [
        ("y", &y, n),
        ("dx", &gradients.dx, outputs * shape[2]),
        ("dA", &da, positions * shape[0] / case.blocks),
        ("dB", &db, positions * n),
        ("dW", &gradients.dw, positions),
    ];
    for ((name, expected, terms), got) in expected.into_iter().zip(&results) {
        assert_sums_close(name, got, expected, terms);
    }
}

/// Threads for which [`winograd::Scheme::pays`] answers so.
fn threads(forced: Option<bool>) -> ThreadPool {
    let start = move |_| winograd::FORCED.set(forced);
    ThreadPoolBuilder::new().num_threads(2).start_handler(start).build().unwrap()
}

static DIRECT: LazyLock<ThreadPool> = LazyLock::new(|| threads(Some(false)));
static FILTERED: LazyLock<ThreadPool> = LazyLock::new(|| threads(Some(true)));

proptest! {
    #![proptest_config(Config { cases: 20_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_kernel_agrees_with_the_reference(case in case()) {
        DIRECT.install(|| check(&case));
    }

    #[test]
    fn filtered_convolutions_agree_with_the_reference(case in case()) {
        FILTERED.install(|| check(&case));
    }
}

#[test]
fn random_cases_take_every_way() {
    let mut runner = TestRunner::deterministic();
    let mut taken = [0; 8];
    for _ in 0..2000 {
        let case = case().new_tree(&mut runner).unwrap().current();
        let problem = Problem { geometry: &case.geometry, batch: case.batch, length: case.length };
        if problem.output_length().is_ok() {
            let taps: Vec<_> = (0..problem.taps()).collect();
            let filtered = winograd::Scheme::new(&window::Reading::of(&case.geometry), &taps).is_some();
            let special = [depthwise::fits(&problem), short::fits(&problem), patches::fits(&problem)];
            let plain = !special.contains(&true);
            let in_place = plain && low_rank_gradients::in_place(&problem);
            let [depthwise, short, patches] = special;
            let product = patches::fits_forward(&problem);
            let by_taps = patches && problem.taps() <= patches::SHORT;
            let other = plain && !filtered && !in_place;
            let ways = [depthwise, short, patches && !by_taps, by_taps, product, plain && filtered, in_place, other];
            taken.iter_mut().zip(ways).for_each(|(taken, fits)| *taken += usize::from(fits));
        }
    }
    assert!(taken.into_iter().all(|count| count > 30), "{taken:?}");
}

fn one(channels: [usize; 3], axis: Axis, batch: usize, length: usize) -> Case {
    let [input, output, groups] = channels;
    let geometry = ConvGeometry::new(input, output, groups, PaddingMode::Zeros, vec![axis]).unwrap();
    Case { geometry, batch, length, rank: 3, blocks: 1, seed: 1 }
}

/// Sizes that random cases leave out: several blocks of channels, several tiles, long dilations, many short signals.
fn large() -> Vec<Case> {
    let axis = Axis { padding: Padding::Explicit(1, 1), ..Axis::new(3) };
    vec![
        one([130, 70, 1], axis, 1, 300),
        one([70, 130, 1], Axis { stride: 2, ..axis }, 2, 301),
        one([3, 5, 1], axis, 1, 40_000),
        one([70, 67, 1], Axis { dilation: 9, padding: Padding::Explicit(5, 30), ..axis }, 5, 83),
        one([36, 40, 2], Axis { dilation: 150, padding: Padding::Explicit(400, 1), ..axis }, 2, 1111),
        one([40, 3, 1], Axis { padding: Padding::Explicit(2, 3), ..Axis::new(4) }, 1, 8192),
        one([2, 3, 1], Axis { dilation: 2000, padding: Padding::Explicit(4000, 0), ..axis }, 1, 5000),
        one([6, 9, 1], axis, 300, 7),
        one([1, 9, 1], Axis { stride: 25, ..Axis::new(50) }, 2, 9000),
        one([40, 40, 40], Axis { padding: Padding::Same, ..Axis::new(31) }, 2, 3000),
        one([10, 30, 10], Axis { dilation: 5, ..Axis::new(23) }, 1, 5000),
        one([9, 9, 9], Axis { stride: 3, dilation: 4, padding: Padding::Explicit(7, 9), ..Axis::new(19) }, 3, 2500),
        one([1, 70, 1], Axis { stride: 40, ..Axis::new(48) }, 3, 9000),
        one([1, 70, 1], Axis { stride: 5, padding: Padding::Explicit(3, 0), ..Axis::new(10) }, 2, 9004),
        one([4, 24, 2], Axis { stride: 3, padding: Padding::Explicit(0, 40), ..Axis::new(14) }, 20, 7),
        one([2, 66, 1], Axis { stride: 20, padding: Padding::Explicit(9, 0), ..Axis::new(80) }, 70, 110),
        one([3, 20, 1], Axis { stride: 16, padding: Padding::Explicit(9, 20), ..Axis::new(45) }, 40, 100),
        Case {
            blocks: 2,
            ..one([4, 48, 2], Axis { stride: 3, padding: Padding::Explicit(70, 0), ..Axis::new(64) }, 2, 700)
        },
        one([33, 50, 1], axis, 150, 4),
        Case { blocks: 2, ..one([36, 64, 2], Axis { stride: 2, ..axis }, 90, 3) },
        one([192, 192, 4], Axis { padding: Padding::Explicit(16, 16), ..Axis::new(32) }, 1, 49),
        Case { blocks: 2, ..one([96, 96, 4], axis, 2, 300) },
    ]
}

#[test]
fn large_problems_agree_with_the_reference() {
    large().iter().for_each(check);
    DIRECT.install(|| large().iter().for_each(check));
    FILTERED.install(|| large().iter().for_each(check));
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    for case in large() {
        assert_threads_do_not_matter(&format!("{case:?}"), || results(&case).unwrap().concat());
    }
}

#[test]
fn what_is_left_in_memory_is_not_computed_with() {
    let mut runner = TestRunner::deterministic();
    let random: Vec<_> = (0..2000).map(|_| case().new_tree(&mut runner).unwrap().current()).collect();
    for case in random.into_iter().chain(large()) {
        for filtered in [false, true] {
            let run = || {
                winograd::FORCED.set(Some(filtered));
                drop(results(&case));
            };
            assert!(!computes_with_what_is_left(run), "{case:?}, filtered: {filtered}");
        }
    }
}

#[test]
fn signals_with_layers_of_their_own_are_as_those_layers_alone() {
    for case in large().into_iter().filter(|case| case.batch * case.length < 20_000) {
        let case = Case { batch: case.batch + 4, ..case };
        let problem = Problem { geometry: &case.geometry, batch: case.batch, length: case.length };
        let inputs = Inputs::new(&case, problem.columns());
        let f16: Vec<_> = inputs.w.iter().map(|value| half::f16::from_f32(*value)).collect();
        let layers = [
            Layer { weight: inputs.weight(), bias: Some(&inputs.bias) },
            Layer { weight: Weight::plain(&inputs.w), bias: None },
            Layer { weight: Weight { base: Values::F16(&f16), low_rank: Some(inputs.low()) }, bias: None },
        ];
        // Three of the first, then all in turn.
        let which: Vec<_> = (0..case.batch).map(|n| if n < 3 { 0 } else { n % 3 }).collect();
        let run = || forward_each(&problem, &inputs.x, &layers, &which, Activation::Relu);
        assert_threads_do_not_matter(&format!("{case:?}"), run);
        let signal = inputs.x.len() / case.batch;
        let mut expected = vec![Vec::new(); case.batch];
        for (at, Layer { weight, bias }) in layers.into_iter().enumerate() {
            let own: Vec<_> = (0..case.batch).filter(|sample| which[*sample] == at).collect();
            if own.is_empty() {
                continue;
            }
            let x: Vec<_> = own.iter().flat_map(|sample| inputs.x[sample * signal..][..signal].to_vec()).collect();
            let y = forward(&Problem { batch: own.len(), ..problem }, &x, &weight, bias, Activation::Relu);
            own.iter().zip(y.chunks_exact(y.len() / own.len())).for_each(|(sample, y)| expected[*sample] = y.to_vec());
        }
        assert_eq!(run(), expected.concat(), "{case:?}");
    }
}

#[test]
fn half_precision_weights_are_unpacked_exactly() {
    for case in large() {
        let problem = Problem { geometry: &case.geometry, batch: case.batch, length: case.length };
        let inputs = Inputs::new(&case, problem.columns());
        let f16: Vec<_> = inputs.w.iter().map(|value| half::f16::from_f32(*value)).collect();
        let bf16: Vec<_> = inputs.w.iter().map(|value| half::bf16::from_f32(*value)).collect();
        let unpacked = [
            (Values::F16(&f16), f16.iter().map(|value| value.to_f32()).collect::<Vec<_>>()),
            (Values::Bf16(&bf16), bf16.iter().map(|value| value.to_f32()).collect()),
        ];
        for (low_rank, (base, values)) in
            [None, Some(inputs.low())].into_iter().flat_map(|low| unpacked.iter().map(move |one| (low, one)))
        {
            let results = |base| {
                let weight = Weight { base, low_rank };
                let y = forward(&problem, &inputs.x, &weight, None, Activation::Identity);
                [y, input_gradient(&problem, &inputs.dy, &weight)]
            };
            assert_eq!(results(*base), results(Values::F32(values)), "{case:?}, adapter: {}", low_rank.is_some());
        }
    }
}
