//! LoRA adapters on Burn models, Conv1d first, in files that Hugging Face PEFT reads and writes.

pub mod adapter;
pub mod attach;
pub mod data;
pub mod models;
pub mod nn;
pub mod ops;
pub mod survey;
pub mod train;
pub mod values;

pub use attach::{Adapters, attach, load};
