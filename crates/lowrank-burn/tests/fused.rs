//! Random layers with adapters, drop-in and stock, forward and backward, against the f64 reference.

mod problem;

use proptest::prelude::*;
use proptest::test_runner::Config;

use problem::{Route, conv_problem, embedding_problem, linear_problem};

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
    fn a_drop_in_linear_agrees_with_the_reference(problem in linear_problem()) {
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
    fn a_stock_linear_agrees_with_the_reference(problem in linear_problem()) {
        problem.check(Route::Stock);
    }

    #[test]
    fn a_stock_embedding_agrees_with_the_reference(problem in embedding_problem()) {
        problem.check(Route::Stock);
    }
}
