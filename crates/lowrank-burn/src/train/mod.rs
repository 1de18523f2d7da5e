//! Training: from a base model and recordings to an adapter, on one machine, through interruptions.
//!
//! [`run`] is the whole; the pieces are public for those who write their own loop: [`optim`] and [`schedule`] on flat
//! vectors of parameters, [`checkpoint`].

mod begin;
pub mod checkpoint;
mod config;
pub mod early_stopping;
#[cfg(test)]
mod faulty;
mod flat;
pub mod gradient;
pub mod log;
mod lorafa;
mod observe;
pub mod optim;
mod outcome;
pub mod report;
mod result;
mod run;
pub mod schedule;
mod trainer;

pub use config::{OptimizerName, TrainConfig};
pub use flat::Trainable;
pub use observe::{Event, Observer};
pub use outcome::Outcome;
pub use result::{ADAPTER, MODEL, RESULT, SETTINGS};
pub use run::{Run, Start, run};
