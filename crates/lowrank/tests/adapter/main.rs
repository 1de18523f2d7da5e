//! Adapters on random layers, held against the referee: every way through an adapter is the same function.
//!
//! `PROPTEST_CASES` sets the number of problems of each property, for longer runs.

mod combine;
mod dora;
mod frozen;
mod problem;
mod properties;
mod referee;
mod remade;
