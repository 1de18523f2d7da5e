//! Every kernel against the `f64` reference, on random shapes.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::kernels::reference;
use crate::kernels::testing::{assert_sums_close, assert_threads_do_not_matter, computes_with_what_is_left, wide};
use crate::random::Random;

#[derive(Debug, Clone, Copy)]
struct Case {
    rows: usize,
    inputs: usize,
    outputs: usize,
    rank: usize,
    seed: u64,
}

/// Sizes around those of a block, and on both sides of where it pays to fold.
fn case() -> impl Strategy<Value = Case> {
    let size = || prop_oneof![1_usize..10, 10_usize..150];
    let rows = prop_oneof![4 => 0_usize..10, 4 => 10_usize..100, 1 => 100_usize..400];
    (rows, size(), size(), prop_oneof![1_usize..20, Just(50)], any::<u64>())
        .prop_map(|(rows, inputs, outputs, rank, seed)| Case { rows, inputs, outputs, rank, seed })
}

struct Drawn {
    x: Vec<f32>,
    w: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    bias: Vec<f32>,
    dy: Vec<f32>,
}

const SCALE: f32 = 0.5;

impl Drawn {
    fn new(case: Case) -> Self {
        let Case { rows, inputs, outputs, rank, seed } = case;
        let draw = |purpose, len| {
            let mut random = Random::new(seed, purpose, 0);
            (0..len).map(|_| random.normal()).collect()
        };
        Self {
            x: draw("x", rows * inputs),
            w: draw("w", inputs * outputs),
            a: draw("a", rank * inputs),
            b: draw("b", outputs * rank),
            bias: draw("bias", outputs),
            dy: draw("dy", rows * outputs),
        }
    }

    /// `y`, `dx`, `dA`, `dB`, `dW`, and `y` without adapter and bias.
    fn results(&self, case: Case) -> [Vec<f32>; 6] {
        let Case { inputs, outputs, rank, .. } = case;
        let low = LowRank { a: &self.a, b: &self.b, rank, scale: SCALE };
        let plain = Weight { base: Values::F32(&self.w), inputs, outputs, low_rank: None };
        let weight = Weight { low_rank: Some(low), ..plain };
        let (da, db) = low_rank_gradients(&self.x, &self.dy, [inputs, outputs], &low);
        [
            forward(&self.x, &weight, Some(&self.bias)),
            input_gradient(&self.dy, &weight),
            da,
            db,
            weight_gradient(&self.x, &self.dy, [inputs, outputs]),
            forward(&self.x, &plain, None),
        ]
    }

    #[expect(clippy::many_single_char_names, reason = "the names of the equation")]
    fn reference(&self, case: Case) -> [Vec<f64>; 6] {
        let Case { inputs, outputs, rank, .. } = case;
        let (x, dy, a, b, w) = (wide(&self.x), wide(&self.dy), wide(&self.a), wide(&self.b), wide(&self.w));
        // The reference has `W (out, in)`.
        let w = reference::linear::transpose(inputs, outputs, &w);
        let scale = f64::from(SCALE);
        let delta = |o: usize, i: usize| (0..rank).map(|p| scale * b[o * rank + p] * a[p * inputs + i]).sum::<f64>();
        let folded: Vec<_> = (0..w.len()).map(|at| w[at] + delta(at / inputs, at % inputs)).collect();
        let y = reference::linear::forward(inputs, outputs, &x, &folded, Some(&wide(&self.bias)));
        let gradients = reference::linear::backward(inputs, outputs, &x, &folded, &dy);
        let (mut da, mut db) = (vec![0.0; a.len()], vec![0.0; b.len()]);
        for (at, dw) in gradients.dw.iter().enumerate() {
            let (o, i) = (at / inputs, at % inputs);
            for p in 0..rank {
                da[p * inputs + i] += scale * b[o * rank + p] * dw;
                db[o * rank + p] += scale * a[p * inputs + i] * dw;
            }
        }
        let dw = reference::linear::transpose(outputs, inputs, &gradients.dw);
        [y, gradients.dx, da, db, dw, reference::linear::forward(inputs, outputs, &x, &w, None)]
    }
}

fn check(case: Case) {
    let values = Drawn::new(case);
    let (results, expected) = (values.results(case), values.reference(case));
    let Case { rows, inputs, outputs, .. } = case;
    let terms = [inputs, outputs, rows * outputs, rows * inputs, rows, inputs];
    let names = ["y", "dx", "dA", "dB", "dW", "plain y"];
    for (((name, got), expected), terms) in names.iter().zip(&results).zip(&expected).zip(terms) {
        assert_sums_close(&format!("{name} of {case:?}"), got, expected, terms);
    }
}

proptest! {
    #![proptest_config(Config { cases: 20_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_kernel_agrees_with_the_reference(case in case()) {
        check(case);
    }

    #[test]
    fn every_kernel_of_registers_agrees_with_the_reference(case in case()) {
        without_matrix_unit(|| check(case));
    }
}

/// Several blocks of steps and of rows, and several tasks: the update folded and as a path of its own, and right factors
/// that are packed at once and in parts.
const LARGE: [Case; 7] = [
    Case { rows: 700, inputs: 300, outputs: 70, rank: 3, seed: 1 },
    Case { rows: 130, inputs: 130, outputs: 500, rank: 70, seed: 2 },
    Case { rows: 64, inputs: 400, outputs: 410, rank: 8, seed: 3 },
    Case { rows: 200, inputs: 1000, outputs: 96, rank: 4, seed: 4 },
    Case { rows: 40, inputs: 1500, outputs: 1530, rank: 2, seed: 5 },
    Case { rows: 1, inputs: 700, outputs: 300, rank: 8, seed: 6 },
    Case { rows: 600, inputs: 5, outputs: 3, rank: 1, seed: 7 },
];

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use crate::kernels::amx::without as without_matrix_unit;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn without_matrix_unit<R>(run: impl FnOnce() -> R) -> R {
    run()
}

#[test]
fn large_problems_agree_with_the_reference() {
    LARGE.into_iter().for_each(check);
    without_matrix_unit(|| LARGE.into_iter().for_each(check));
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    for case in LARGE {
        let values = Drawn::new(case);
        let results = || values.results(case).concat();
        assert_threads_do_not_matter(&format!("{case:?}"), results);
        assert_threads_do_not_matter(&format!("{case:?}, registers"), || without_matrix_unit(results));
    }
}

#[test]
fn what_is_left_in_memory_is_not_computed_with() {
    let mut runner = TestRunner::deterministic();
    let random: Vec<_> = (0..1000).map(|_| case().new_tree(&mut runner).unwrap().current()).collect();
    for case in random.into_iter().chain(LARGE) {
        let values = Drawn::new(case);
        let run = || drop(values.results(case));
        assert!(!computes_with_what_is_left(run), "{case:?}");
        assert!(!computes_with_what_is_left(|| without_matrix_unit(run)), "{case:?}, registers");
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn the_matrix_unit_is_taken_where_there_is_one() {
    let takes = |Case { rows, inputs, outputs, .. }: Case| {
        let [x, w] = [[rows, inputs], [inputs, outputs]].map(|shape| (vec![1.0; shape[0] * shape[1]], shape));
        let [x, w] = [&x, &w].map(|(values, shape)| Matrix::row_major(values, *shape));
        tiles::takes(&[(x, Right::plain(w))], [rows, outputs])
    };
    let there = crate::kernels::amx::available();
    assert_eq!(LARGE.map(takes), [there, there, there, there, there, false, false]);
    assert_eq!(without_matrix_unit(|| LARGE.map(takes)), [false; 7]);
}

/// A row with an infinite value, and a column with one.
#[test]
fn what_is_not_finite_stays_in_its_row_and_column() {
    let case = LARGE[0];
    let Case { rows, inputs, outputs, .. } = case;
    let mut values = Drawn::new(case);
    values.x[3 * inputs + 5] = f32::INFINITY;
    values.w[7 * outputs + 2] = f32::NEG_INFINITY;
    let weight = Weight { base: Values::F32(&values.w), inputs, outputs, low_rank: None };
    let check = || {
        let y = forward(&values.x, &weight, Some(&values.bias));
        for (at, value) in y.iter().enumerate() {
            let finite = at / outputs != 3 && at % outputs != 2;
            assert_eq!(value.is_finite(), finite, "row {} of {rows}, column {}", at / outputs, at % outputs);
        }
    };
    check();
    without_matrix_unit(check);
}

/// Few rows and many, folded and not, and every width of a strip.
#[test]
fn half_precision_weights_give_the_bits_of_the_unpacked_ones() {
    let sizes = [[130, 130], [70, 300], [300, 49], [33, 16], [5, 700], [1, 1]];
    let rows = [0, 1, 2, 3, 8, 9, 40, 600];
    for ([inputs, outputs], rows) in sizes.into_iter().flat_map(|size| rows.map(|rows| (size, rows))) {
        let case = Case { rows, inputs, outputs, rank: 5, seed: 7 };
        let drawn = Drawn::new(case);
        let f16: Vec<_> = drawn.w.iter().map(|value| half::f16::from_f32(*value)).collect();
        let bf16: Vec<_> = drawn.w.iter().map(|value| half::bf16::from_f32(*value)).collect();
        let unpacked = [
            (Values::F16(&f16), f16.iter().map(|value| value.to_f32()).collect::<Vec<_>>()),
            (Values::Bf16(&bf16), bf16.iter().map(|value| value.to_f32()).collect()),
        ];
        let low = LowRank { a: &drawn.a, b: &drawn.b, rank: 5, scale: SCALE };
        for (low_rank, (base, values)) in
            [None, Some(low)].into_iter().flat_map(|low| unpacked.iter().map(move |one| (low, one)))
        {
            let results = |base| {
                let weight = Weight { base, inputs, outputs, low_rank };
                [forward(&drawn.x, &weight, Some(&drawn.bias)), input_gradient(&drawn.dy, &weight)]
            };
            assert_eq!(results(*base), results(Values::F32(values)), "{case:?}, adapter: {}", low_rank.is_some());
        }
    }
}
