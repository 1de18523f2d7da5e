//! Which taps of a convolution are filtered together.

use super::super::window::Reading;
use super::minimal::OUTPUTS;

/// Taps a filter has at most; longer ones are sums of several.
const LONGEST: usize = 4;

/// Taps at equal distances, that read one phase of the stride.
#[derive(Debug, Clone)]
pub(super) struct Progression {
    pub taps: Vec<usize>,
    /// The position that column 0 reads with the first of them.
    pub start: isize,
    /// Filters that its taps are cut into.
    pub filters: usize,
}

/// A convolution as filters of `length` taps, `spacing` columns apart, besides single taps.
///
/// Column `(4q + i)·spacing + ρ` is output `i` of lane `(q, ρ)`.
#[derive(Debug, Clone)]
pub struct Scheme {
    pub(super) spacing: usize,
    /// Taps of a filter: 2, 3 or 4.
    pub(super) length: usize,
    pub(super) filtered: Vec<Progression>,
    pub(super) single: Vec<Progression>,
}

impl Scheme {
    /// The scheme of some taps; `None` where no two of them can be filtered together.
    pub fn new(reading: &Reading<'_>, taps: &[usize]) -> Option<Self> {
        let stride = reading.stride.cast_signed();
        let mut order = taps.to_vec();
        order.sort_by_key(|tap| (reading.taps[*tap].rem_euclid(stride), reading.taps[*tap]));
        let phase = |tap: &usize| reading.taps[*tap].rem_euclid(stride);
        let phases: Vec<&[usize]> = order.chunk_by(|a, b| phase(a) == phase(b)).collect();
        let distance = |a: usize, b: usize| ((reading.taps[b] - reading.taps[a]) / stride).cast_unsigned();
        let spacing = phases.iter().find(|taps| taps.len() > 1).map(|taps| distance(taps[0], taps[1]))?;
        let even = |taps: &&[usize]| taps.windows(2).all(|pair| distance(pair[0], pair[1]) == spacing);
        if spacing == 0 || !phases.iter().all(even) {
            return None;
        }
        let length = phases.iter().map(|taps| taps.len()).max()?.min(LONGEST);
        let progression = |taps: &&[usize]| Progression {
            taps: taps.to_vec(),
            start: reading.taps[taps[0]],
            filters: taps.len().div_ceil(length),
        };
        let (filtered, single): (Vec<_>, Vec<_>) = phases.iter().map(progression).partition(|run| run.taps.len() > 1);
        Some(Self { spacing, length, filtered, single })
    }

    /// Products that filters of four outputs take, `length + 3`.
    pub(super) fn points(&self) -> usize {
        self.length + OUTPUTS - 1
    }

    /// Transformed inputs of one lane of one channel.
    pub(super) fn sources(&self) -> usize {
        self.points() * self.filtered.len() + OUTPUTS * self.single.len()
    }

    /// Sums that are kept apart until the end: one a point, and one an output for the single taps.
    pub(super) fn sums(&self) -> usize {
        self.points() + if self.single.is_empty() { 0 } else { OUTPUTS }
    }

    /// Taps of a progression, at most.
    pub(super) fn most_taps(&self) -> usize {
        self.filtered.iter().chain(&self.single).map(|run| run.taps.len()).max().unwrap_or(0)
    }

    /// Filters that follow each other, at most.
    pub(super) fn longest(&self) -> usize {
        self.filtered.iter().map(|run| run.filters).max().unwrap_or(1)
    }

    /// Whether it is faster than the direct sum for `rows` outputs of `channels` over so many columns of each of `batch` signals.
    ///
    /// In multiplications: besides the products, a column costs the transforms of its inputs and outputs, and a weight its own.
    pub fn pays(&self, [rows, channels]: [usize; 2], columns: usize, batch: usize) -> bool {
        #[cfg(test)]
        if let Some(forced) = FORCED.get() {
            return forced;
        }
        let filters: usize = self.filtered.iter().map(|run| run.filters).sum();
        let taps: usize = self.filtered.iter().chain(&self.single).map(|run| run.taps.len()).sum();
        let lanes = columns.div_ceil(OUTPUTS * self.spacing) * self.spacing;
        let products = self.points() * filters + OUTPUTS * self.single.len();
        let transforms = (channels * self.sources() + rows * self.sums()) * TRANSFORM;
        let blocks = rows.next_multiple_of(BLOCK) * channels * products;
        let filtered = batch * lanes * (blocks + transforms) + rows * channels * taps * WEIGHT;
        let direct = batch * columns * rows * channels * taps;
        channels * self.sources() <= SOURCES && 10 * filtered < 9 * direct
    }
}

#[cfg(test)]
thread_local! {
    /// What [`Scheme::pays`] answers in a test, so that either path is taken for every geometry.
    pub static FORCED: std::cell::Cell<Option<bool>> = const { std::cell::Cell::new(None) };
}

/// What transforming one value costs, in multiplications.
const TRANSFORM: usize = 24;
/// What transforming one weight costs beyond packing it for the direct sum, most of it the traffic of memory.
const WEIGHT: usize = 250;
/// Rows of a block of products.
const BLOCK: usize = 8;
/// Transformed inputs of one lane at most: those of the smallest tile would not stay in the second-level cache.
const SOURCES: usize = 1800;
