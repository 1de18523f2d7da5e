//! Forward and gradients against the `f64` reference, head by head, on random shapes.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::kernels::reference;
use crate::kernels::testing::{assert_threads_do_not_matter, computes_with_what_is_left};
use crate::random::Random;

/// Lengths around the sizes of a block, and heads that are not whole registers.
fn shape() -> impl Strategy<Value = Attention> {
    let length = || prop_oneof![1_usize..10, 10_usize..80];
    let head_dim = prop_oneof![1_usize..20, 20_usize..70];
    (1_usize..3, 1_usize..4, head_dim, length(), length(), any::<bool>()).prop_map(
        |(batch, heads, head_dim, queries, keys, causal)| Attention { batch, heads, head_dim, queries, keys, causal },
    )
}

/// `q`, `k`, `v` and the gradient of the output.
fn draw(shape: &Attention, seed: u64) -> [Vec<f32>; 4] {
    let rows = [shape.queries, shape.keys, shape.keys, shape.queries];
    let mut random = Random::new(seed, "attention", 0);
    rows.map(|rows| (0..shape.batch * rows * shape.width()).map(|_| 1.5 * random.normal()).collect())
}

/// `o`, `dq`, `dk` and `dv`.
fn results(shape: &Attention, [q, k, v, d_o]: &[Vec<f32>; 4]) -> [Vec<f32>; 4] {
    let (o, sums) = shape.forward(q, k, v);
    let [dq, dk, dv] = shape.backward([q, k, v], &sums, d_o);
    [o, dq, dk, dv]
}

/// Within rounding of the largest value, and of the terms that a gradient is the difference of: those cancel where one key
/// has all the weight.
fn check(shape: &Attention, seed: u64) {
    let inputs = draw(shape, seed);
    let [q, k, v, d_o] =
        inputs.each_ref().map(|values| values.iter().fold(0.0_f64, |largest, value| largest.max(value.abs().into())));
    let terms = d_o * v * q.max(k);
    let results = results(shape, &inputs);
    for example in 0..shape.batch {
        for head in 0..shape.heads {
            let of_head = |values: &[f32], rows: usize| -> Vec<f64> {
                let matrix = shape.head(values, rows, [example, head]);
                let row = |row: usize| matrix.data[row * matrix.row_stride..][..shape.head_dim].iter();
                (0..rows).flat_map(row).map(|value| f64::from(*value)).collect()
            };
            let rows = [shape.queries, shape.keys, shape.keys, shape.queries];
            let [q, k, v, d_o] = [0, 1, 2, 3].map(|at| of_head(&inputs[at], rows[at]));
            let o = reference::attention::forward([&q, &k, &v], shape.head_dim, shape.causal);
            let [dq, dk, dv] = reference::attention::backward([&q, &k, &v], &d_o, shape.head_dim, shape.causal);
            let rows = [shape.queries, shape.queries, shape.keys, shape.keys];
            for (at, exact) in [o, dq, dk, dv].iter().enumerate() {
                let got = of_head(&results[at], rows[at]);
                let scale = exact.iter().fold(0.1 * terms.max(10.0), |largest, value| largest.max(value.abs()));
                for (index, (got, exact)) in got.iter().zip(exact).enumerate() {
                    let name = ["o", "dq", "dk", "dv"][at];
                    assert!((got - exact).abs() <= 1e-5 * scale, "{name}[{index}] of {shape:?}: {got}, not {exact}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 3000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_shape_agrees_with_the_reference(shape in shape(), seed: u64) {
        check(&shape, seed);
    }
}

/// Several tasks for a head.
const LONG: Attention = Attention { batch: 1, heads: 2, head_dim: 64, queries: 530, keys: 300, causal: false };

#[test]
fn long_sequences_agree_with_the_reference() {
    check(&LONG, 1);
    check(&Attention { causal: true, ..LONG }, 2);
    check(&Attention { causal: true, queries: 100, ..LONG }, 3);
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    for causal in [false, true] {
        let shape = Attention { causal, ..LONG };
        let inputs = draw(&shape, 3);
        assert_threads_do_not_matter(&format!("{shape:?}"), || results(&shape, &inputs).concat());
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let shape = Attention { batch: 1, heads: 1, head_dim: 1, queries: 1, keys: 2, causal: false };
    let inputs = [vec![1e4], vec![1e4, -1e4], vec![1.0, 2.0], vec![1.0]];
    assert_eq!(results(&shape, &inputs), [vec![1.0], vec![0.0], vec![0.0; 2], vec![1.0, 0.0]]);
}

#[test]
fn what_is_left_in_memory_is_not_computed_with() {
    let mut runner = TestRunner::deterministic();
    for seed in 0..200 {
        let shape = shape().new_tree(&mut runner).unwrap().current();
        let inputs = draw(&shape, seed);
        assert!(!computes_with_what_is_left(|| drop(results(&shape, &inputs))), "{shape:?}");
    }
}
