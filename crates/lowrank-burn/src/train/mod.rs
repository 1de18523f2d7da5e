//! Training: from a base model and recordings to an adapter, on one machine, through interruptions.
//!
//! [`run`] is the whole; the pieces are public for those who write their own loop: [`optim`] and [`schedule`] on flat
//! vectors of parameters, [`metrics`], [`evaluate`], [`checkpoint`].

pub mod checkpoint;
mod config;
pub mod early_stopping;
pub mod evaluate;
#[cfg(test)]
mod faulty;
mod flat;
pub mod gradient;
pub mod log;
pub mod metrics;
mod observe;
pub mod optim;
mod outcome;
pub mod report;
mod result;
mod run;
pub mod schedule;
mod trainer;

pub use config::{OptimizerName, TrainConfig};
pub use evaluate::Prediction;
pub use flat::Trainable;
pub use observe::{Event, Observer};
pub use outcome::Outcome;
pub use result::{ADAPTER, MODEL, RESULT, SETTINGS};
pub use run::{Run, Start, run};
