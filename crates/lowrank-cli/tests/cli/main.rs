//! The `lowrank` command as its users see it: whole outputs and exit codes.

mod check;
mod combine;
mod convert;
mod diff;
mod errors;
mod extract;
mod forecast;
mod help;
mod inspect;
mod merge;
mod model;
mod plan;
mod resize;
mod runner;
mod train;
mod transcribe;
