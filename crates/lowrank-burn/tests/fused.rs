//! Random layers with adapters, drop-in and stock, forward and backward, against the f64 reference.

mod problem;

use proptest::prelude::*;
use proptest::test_runner::Config;

use lowrank::adapter::{DoraNorm, GroupMode};
use lowrank::geometry::{Axis, ConvGeometry, Padding, PaddingMode};
use problem::{Problem, Route, Shape, conv_problem, conv3d_problem, embedding_problem};
use problem::{hf_conv1d_problem, linear_problem, transposed_problem};

fn cases(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn a_drop_in_conv1d_agrees_with_the_reference(problem in conv_problem(1)) {
        problem.check(Route::DropIn);
    }
}

proptest! {
    #![proptest_config(cases(5000))]

    #[test]
    fn a_stock_conv1d_agrees_with_the_reference(problem in conv_problem(1)) {
        problem.check(Route::Stock);
    }

    #[test]
    fn a_drop_in_conv2d_agrees_with_the_reference(problem in conv_problem(2)) {
        problem.check(Route::DropIn);
    }

    #[test]
    fn a_drop_in_conv_transpose1d_agrees_with_the_reference(problem in transposed_problem(1)) {
        problem.check(Route::DropIn);
    }

    #[test]
    fn a_drop_in_linear_agrees_with_the_reference(problem in linear_problem()) {
        problem.check(Route::DropIn);
    }

    #[test]
    fn transformers_conv1d_agrees_with_the_reference(problem in hf_conv1d_problem()) {
        problem.check(Route::DropIn);
    }

    #[test]
    fn a_drop_in_embedding_agrees_with_the_reference(problem in embedding_problem()) {
        problem.check(Route::DropIn);
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn a_stock_conv2d_agrees_with_the_reference(problem in conv_problem(2)) {
        problem.check(Route::Stock);
    }

    #[test]
    fn a_drop_in_conv_transpose2d_agrees_with_the_reference(problem in transposed_problem(2)) {
        problem.check(Route::DropIn);
    }

    #[test]
    fn a_drop_in_conv3d_agrees_with_the_reference(problem in conv3d_problem()) {
        problem.check(Route::DropIn);
    }

    #[test]
    fn a_stock_conv_transpose_agrees_with_the_reference(
        problem in prop_oneof![transposed_problem(1), transposed_problem(2)],
    ) {
        problem.check(Route::Stock);
    }

    #[test]
    fn a_stock_linear_agrees_with_the_reference(problem in linear_problem()) {
        problem.check(Route::Stock);
    }

    #[test]
    fn a_stock_embedding_agrees_with_the_reference(problem in embedding_problem()) {
        problem.check(Route::Stock);
    }
}

fn norm() -> impl Strategy<Value = DoraNorm> {
    prop_oneof![Just(DoraNorm::Exact), Just(DoraNorm::Peft)]
}

proptest! {
    #![proptest_config(cases(5000))]

    #[test]
    fn a_drop_in_conv1d_with_dora_agrees_with_the_reference(problem in conv_problem(1), norm in norm()) {
        problem.with_dora(norm).check(Route::DropIn);
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn other_layers_with_dora_agree_with_the_reference(
        problem in prop_oneof![
            conv_problem(2),
            conv3d_problem(),
            transposed_problem(1),
            transposed_problem(2),
            linear_problem(),
            hf_conv1d_problem(),
            embedding_problem(),
        ],
        norm in norm(),
    ) {
        problem.with_dora(norm).check(Route::DropIn);
    }

    #[test]
    fn stock_layers_with_dora_agree_with_the_reference(
        problem in prop_oneof![
            conv_problem(1),
            conv_problem(2),
            transposed_problem(1),
            transposed_problem(2),
            linear_problem(),
            embedding_problem(),
        ],
        norm in norm(),
    ) {
        problem.with_dora(norm).check(Route::Stock);
    }
}

/// A grouped convolution of one axis, in every grouped form.
fn check_grouped(axis: Axis, length: usize) {
    for mode in [GroupMode::PerGroup, GroupMode::Shared, GroupMode::Dense] {
        let geometry = ConvGeometry::new(4, 2, 2, PaddingMode::Zeros, vec![axis]).unwrap();
        let shape = Shape::Conv { geometry, lengths: vec![length] };
        Problem { shape, batch: 2, rank: 2, mode, bias: true, lora_bias: false, dora: None, seed: 0 }
            .check(Route::DropIn);
    }
}

/// Burn 0.22.1 computes another weight gradient here.
#[test]
fn a_stride_that_leaves_a_remainder_in_a_grouped_convolution() {
    check_grouped(Axis { stride: 2, padding: Padding::Explicit(7, 6), ..Axis::new(1) }, 21);
    check_grouped(Axis { stride: 4, ..Axis::new(1) }, 6);
}

#[test]
fn a_grouped_convolution_whose_outputs_read_padding_alone() {
    check_grouped(Axis { stride: 5, padding: Padding::Explicit(8, 0), ..Axis::new(1) }, 1);
    check_grouped(Axis { stride: 3, padding: Padding::Explicit(4, 0), ..Axis::new(2) }, 1);
}
