//! The `lowrank` command as its users see it: whole outputs and exit codes.

mod combine;
mod errors;
mod help;
mod inspect;
mod merge;
mod model;
mod plan;
mod runner;
mod train;
