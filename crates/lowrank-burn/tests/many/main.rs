//! Several adapters on one model: mixed batches, merging in any order, hot-swapping, renaming, scopes.

mod beginnings;
mod hotswap;
mod merging;
mod mixed;
mod net;
mod switching;
