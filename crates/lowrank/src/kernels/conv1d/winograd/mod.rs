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
use super::super::shared::Shared;
use super::product::Epilogue;
use super::signals::{Shape, Signals};
use super::weights::Strides;
use super::window::Reading;
use filters::Filters;
use minimal::{Four, Minimal, Three, Two};
use place::Place;
#[cfg(test)]
pub(super) use scheme::FORCED;
pub(super) use scheme::Scheme;
use task::{Pass, Sizes, Task};
use tiles::Tiles;

/// The weights of a pass, `(groups · rows, channels, taps)` in some order.
pub(super) struct Kernel<'a> {
    pub values: &'a [f32],
    /// Rows and channels of a group.
    pub size: [usize; 2],
    /// From a group to the next.
    pub group: usize,
    pub strides: Strides,
}

/// Where the columns go: column `u` is position `u · stride + offset`.
pub(super) struct Output<'a> {
    pub y: &'a Shared<'a>,
    pub shape: Shape,
    pub stride: usize,
    pub offset: isize,
    pub epilogue: Epilogue<'a>,
}

impl<'a> Output<'a> {
    /// Sums as they are, at neighbouring positions from `offset`.
    pub fn plain(y: &'a Shared<'a>, shape: Shape, offset: isize) -> Self {
        Self { y, shape, stride: 1, offset, epilogue: Epilogue::NONE }
    }
}

/// Computes columns `first..first + count` of every signal of the batch.
pub(super) fn convolve(
    scheme: &Scheme,
    reading: &Reading<'_>,
    (x, batch): (Signals<'_>, usize),
    (first, count): (usize, usize),
    kernel: &Kernel<'_>,
    output: &Output<'_>,
) {
    match scheme.length {
        2 => with::<Two, _, _>(scheme, reading, (x, batch), (first, count), kernel, output),
        3 => with::<Three, _, _>(scheme, reading, (x, batch), (first, count), kernel, output),
        _ => with::<Four, _, _>(scheme, reading, (x, batch), (first, count), kernel, output),
    }
}

fn with<M: Minimal<R, E>, const R: usize, const E: usize>(
    scheme: &Scheme,
    reading: &Reading<'_>,
    (x, batch): (Signals<'_>, usize),
    (first, count): (usize, usize),
    kernel: &Kernel<'_>,
    output: &Output<'_>,
) {
    let groups = x.rows.groups;
    let [rows, channels] = kernel.size;
    let filters: Vec<_> = (0..groups)
        .map(|group| Filters::new(scheme, &kernel.values[group * kernel.group..], kernel.size, kernel.strides))
        .collect();
    let Output { y, shape, stride, offset, .. } = *output;
    let pass = Pass::<M, R, E> {
        minimal: PhantomData,
        scheme,
        reading,
        x,
        first,
        y: Place { values: y, shape, stride, offset: offset + (first * stride).cast_signed() },
    };
    let tiles = Tiles::new(scheme, count, batch, channels);
    (0..tiles.count() * groups).into_par_iter().for_each(|index| {
        let (tile, group) = (tiles.get(index / groups), index % groups);
        let filters = &filters[group];
        let epilogue = output.epilogue.of_group(group, rows);
        let sizes = Sizes::new(scheme, channels, tile, filters.height);
        scratch::with(sizes.len(), |memory| {
            arch().dispatch(Task { pass: &pass, filters, epilogue, group, tile, sizes, memory });
        });
    });
}
