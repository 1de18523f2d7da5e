//! LoRA adapters on Burn models, Conv1d first, in files that Hugging Face PEFT reads and writes.
//!
//! [`attach`](attach()) puts an adapter on any Burn model by module path, from PEFT's own configuration; the model's code and
//! type stay what they are. [`Adapters`] switches, scales, merges, saves and loads them.
//!
//! There are two routes to the same numbers. A stock Burn layer reads the adapted weight `W + s·B·A` from its parameter,
//! and autodiff pays for a dense weight gradient. The drop-in layers of [`nn`] find the adapter and call the fused
//! operations of [`ops`]: one convolution with the folded weight, low-rank gradients, dropout.
//!
//! [`models`] builds architectures from a `config.json`, [`data`] turns recordings into windows, [`tasks`] are what networks
//! are trained for, and [`train`] is a whole run, through interruptions.
//!
//! ```
//! use burn::nn::conv::Conv1dConfig;
//! use burn::tensor::{Device, Tensor};
//! use lowrank::config::{LoraConfig, Patterns};
//!
//! # #[derive(burn::module::Module, Debug)]
//! # struct Net { encoder: lowrank_burn::nn::Conv1d }
//! let device = Device::flex().autodiff();
//! let encoder = lowrank_burn::nn::Conv1d::new(&Conv1dConfig::new(6, 64, 5).with_dilation(2), &device);
//! let target_modules = Some(Patterns::List(vec!["encoder".into()]));
//! let config = LoraConfig { r: 8, target_modules, ..LoraConfig::default() };
//! let (net, adapters) = lowrank_burn::attach(Net { encoder }, &config, 0)?;
//! assert_eq!(adapters.trainable_parameters(&net).trainable, 8 * (6 * 5 + 64));
//! let _gradients = net.encoder.forward(Tensor::zeros([1, 6, 128], &device)).sum().backward();
//! # Ok::<(), lowrank::Error>(())
//! ```
//!
//! A program's `main` begins as the command's does: [`lowrank::memory::keep_pages`] keeps freed memory for the next step, and
//! [`lowrank::threads::take_part`] makes the main thread one of those that compute, so that nothing is handed over. Its global
//! allocator is `lowrank::memory::Allocator` (feature `mimalloc` of `lowrank`): steps stay as fast in a process that has run for hours.

pub mod adapter;
pub mod attach;
pub mod data;
pub mod models;
pub mod nn;
pub mod ops;
pub mod survey;
pub mod tasks;
pub mod train;
pub mod values;

pub use attach::{Adapters, attach, load};

/// The README's example compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
