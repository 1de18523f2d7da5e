//! Low-rank adapters (`LoRA`) for models with convolutions in them, without a framework.
//!
//! This crate knows what an adapter *is*: its configuration ([`config`]), the modules it lands on ([`target`]), the
//! factors of one module with their delta and merge ([`adapter`]), how they start ([`init`]), the arithmetic behind
//! them ([`kernels`]) and the files they live in ([`files`]). Names, shapes and files are those of Hugging Face PEFT
//! 0.21.2; where PEFT's arithmetic disagrees with the merged weight `W + delta`, the merged weight is the truth here.
//!
//! For adapters on Burn models see the `lowrank-burn` crate; for the command line, `lowrank-cli`.

pub mod adapter;
pub mod config;
pub mod digits;
pub mod error;
pub mod files;
pub mod float;
pub mod geometry;
pub mod init;
pub mod kernels;
pub mod memory;
pub mod random;
pub mod suggest;
pub mod svd;
pub mod target;
pub mod threads;
pub mod weight_norm;

pub use error::{Error, Result, Subject};
