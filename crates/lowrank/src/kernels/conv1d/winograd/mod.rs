//! Convolution with fewer multiplications than taps: minimal filtering over one axis.
//!
//! Taps that read one phase of the stride at equal distances are a filter, and four of its outputs need only 5, 6 or 7
//! products instead of 8, 12 or 16 (see [`minimal`]). Longer filters are sums of several of four taps, which share the
//! transformed input, and are transformed back once. What is left between is a product of matrices for every point, on
//! [`block::multiply`](super::super::block::multiply): with `c` channels on each side the transforms cost about `24/c` of it.
//!
//! Lanes are groups of four outputs, so a register holds outputs four apart (times the dilation). The rounding is at most
//! about twice that of the direct sum.

mod filters;
mod lines;
mod minimal;
mod place;
mod scheme;
mod task;
mod tiles;

use std::marker::PhantomData;

use rayon::prelude::*;

use super::super::lanes::arch;
use super::super::scratch;
use super::kernel::Kernel;
use super::product::Epilogue;
use super::signals::Signals;
use super::window::Reading;
use filters::Filters;
use minimal::{Four, Minimal, Three, Two};
pub(super) use place::Place;
#[cfg(test)]
pub(super) use scheme::FORCED;
pub(super) use scheme::Scheme;
use task::{Sizes, Task};
use tiles::Tiles;

/// Columns of every signal of a batch, by minimal filtering.
pub(super) struct Convolution<'a> {
    pub scheme: &'a Scheme,
    pub reading: &'a Reading<'a>,
    pub x: Signals<'a>,
    pub batch: usize,
    /// The first column, and how many.
    pub columns: (usize, usize),
    pub kernel: Kernel<'a>,
    pub epilogue: Epilogue<'a>,
    pub y: Place<'a>,
}

impl Convolution<'_> {
    pub fn run(&self) {
        match self.scheme.length {
            2 => self.by::<Two, _, _>(),
            3 => self.by::<Three, _, _>(),
            _ => self.by::<Four, _, _>(),
        }
    }

    fn by<M: Minimal<R, E>, const R: usize, const E: usize>(&self) {
        let ([rows, channels], groups) = (self.kernel.size, self.x.rows.groups);
        let tiles = Tiles::new(self.scheme, self.columns.1, self.batch, channels);
        (0..groups).into_par_iter().for_each(|group| {
            let filters = &Filters::new(self.scheme, &self.kernel, group);
            let epilogue = self.epilogue.of_group(group, rows);
            (0..tiles.count()).into_par_iter().for_each(|tile| {
                let tile = tiles.get(tile);
                let sizes = Sizes::new(self.scheme, channels, tile, filters.height);
                let minimal = PhantomData::<M>;
                scratch::with(sizes.len(), |memory| {
                    arch().dispatch(Task { minimal, convolution: self, filters, epilogue, group, tile, sizes, memory });
                });
            });
        });
    }
}
