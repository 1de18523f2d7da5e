//! The matrix unit of Intel's server processors (AMX), for products in single precision.
//!
//! It multiplies bfloat16 and adds up in `f32`, sixteen times as fast as a vector unit does both in `f32`. A float is the
//! sum of three bfloat16 to the last bit ([`pack`]). Of the nine products of the parts of two floats six are computed:
//! those left out are together less than `2⁻²¹` of the product. A sum is as close to the exact one as that of the vector
//! units, which round once a step, and the tests hold both to one bound. Two things differ: of values below `1e-33` the
//! last bits are lost, and where a factor is infinite the result is NaN.
//!
//! The system keeps the unit's state, and has to be asked for it: this is written for Linux. All other instructions are
//! found by `pulp`.

mod block;
mod pack;
mod unit;

pub(super) use block::{Sums, multiply};
pub(super) use pack::{pack_left, pack_right};
#[cfg(test)]
pub(super) use unit::without;
pub(super) use unit::{Unit, available};

/// Rows of a panel of the left factor, and columns of one of the right: two tiles.
pub(super) const PANEL: usize = 32;
/// Steps of a block: those of a tile.
pub(super) const STEPS: usize = 32;
/// Values of a block of a panel: three parts of two tiles.
pub(super) const BLOCK: usize = PARTS * PANEL * STEPS;
/// Parts of a float.
const PARTS: usize = 3;
/// Rows of a tile, and values of one with bits of `f32`.
const TILE: usize = 16;
