//! Arithmetic on slices: the referee every faster path is held against, and the kernels themselves.
//!
//! [`mod@reference`] is plain loops in `f64`, written to be read. What is fast stands beside it, one kernel a file, and is
//! tested against it; `unsafe` code exists in those files only.

mod across;
pub mod activation;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod amx;
pub mod attention;
mod block;
pub mod buffers;
pub mod conv1d;
pub(crate) mod gemm;
mod lanes;
pub mod linear;
pub mod lstm;
mod math;
pub mod norm;
mod parts;
mod reduce;
pub mod reference;
mod scratch;
mod shared;
pub mod softmax;
mod strips;
#[cfg(test)]
mod testing;
mod values;

pub use values::Values;
