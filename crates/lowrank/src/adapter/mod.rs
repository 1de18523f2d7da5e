//! The adapter of one module: its factors, what they add to the weight, and the weight with it.
//!
//! [`Layer`] says what the adapter sits on, [`Factors`] are `A` and `B` with their scale, [`merge`](merge::merge) puts
//! their delta into a stored weight, and [`dora`] gives each output of that weight a length of its own; [`combine`] makes
//! one adapter of several, [`extract`] one of two weights, [`resize`] one of another rank. [`keys`], [`tensor`] and
//! [`state_dict`] hold the factors of a whole model under PEFT's names, [`lycoris`] under those of other tools, [`infer`] finds the layer under them, and
//! [`inspect`] puts them into numbers. Factors have PEFT's orientation and shapes everywhere.

mod blocks;
pub mod combine;
pub mod copies;
mod delta;
pub mod dora;
pub mod extract;
pub mod factors;
pub mod group;
pub mod infer;
pub mod inspect;
pub mod keys;
mod lanes;
pub mod layer;
pub mod lycoris;
pub mod merge;
mod probe;
pub mod rank;
pub mod resize;
pub mod state_dict;
mod step;
pub mod tensor;
#[cfg(test)]
mod testing;
pub(crate) mod tokens;

pub use dora::{DoraNorm, Magnitude};
pub use factors::Factors;
pub use group::GroupMode;
pub use layer::{Layer, LayerKind};
pub use merge::{MergeReport, Merged, merge, merge_bias};
