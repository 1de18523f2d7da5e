//! Arithmetic on slices: the referee every faster path is held against, and the kernels themselves.
//!
//! [`mod@reference`] is plain loops in `f64`, written to be read. What is fast stands beside it, one kernel a file, and is
//! tested against it; `unsafe` code exists in those files only.

pub(crate) mod gemm;
pub mod reference;
