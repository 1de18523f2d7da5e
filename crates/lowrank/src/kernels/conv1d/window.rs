//! The part of a signal that a tile of columns reads, in the order in which it is read.
//!
//! Columns lie side by side, so that a register holds neighbours whatever the stride: positions of one phase of the
//! stride form a run, and a tap is an offset into the run of its phase. Where taps are further apart than a tile is
//! wide (a large dilation), each has a run of its own.

use std::ops::Range;

use crate::geometry::{ConvGeometry, PaddingMode};

/// Values of the widest register.
pub(super) const LANES: usize = 16;

/// Runs of a window from which on they are filled from one copy of a signal.
const RUNS: usize = 2;
/// Positions of that copy.
const LINE: usize = 1024;

/// Column `t` of the signals reads, for tap `j`, position `stride · t + taps[j]`.
#[derive(Debug, Clone)]
pub(super) struct Reading<'a> {
    pub stride: usize,
    pub taps: Vec<isize>,
    /// What stands outside of the signal.
    pub outside: Outside<'a>,
}

impl<'a> Reading<'a> {
    /// What the columns of an output read of its input.
    pub fn of(geometry: &'a ConvGeometry) -> Self {
        let axis = geometry.axes()[0];
        let (before, _) = geometry.padding(0);
        let taps = (0..axis.kernel).map(|tap| (tap * axis.dilation).cast_signed() - before.cast_signed()).collect();
        Self { stride: axis.stride, taps, outside: Outside::Padding(geometry) }
    }

    /// What positions of the input, a stride apart, read of the output in the gradient: the taps of all phases.
    pub fn back(geometry: &ConvGeometry) -> Self {
        let axis = geometry.axes()[0];
        let taps = (0..axis.kernel).map(|tap| -(tap * axis.dilation / axis.stride).cast_signed()).collect();
        Self { stride: 1, taps, outside: Outside::Zeros }
    }

    /// The columns themselves.
    pub fn plain() -> Self {
        Self { stride: 1, taps: vec![0], outside: Outside::Zeros }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Outside<'a> {
    Zeros,
    /// The geometry's padding.
    Padding(&'a ConvGeometry),
}

/// Neighbouring positions of one phase.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The position that column 0 reads first.
    start: isize,
    /// Columns of the run beyond those of the tile.
    extra: usize,
}

/// How a window of `columns` columns of each of `samples` signals lies in memory.
#[derive(Debug)]
pub(super) struct Layout {
    runs: Vec<Run>,
    /// Where each tap begins, for column 0.
    pub taps: Vec<usize>,
    /// From the columns of a signal to those of the next.
    pub sample_stride: usize,
    run_stride: usize,
    /// From a channel to the next.
    pub row_stride: usize,
    pub columns: usize,
    pub samples: usize,
}

impl Layout {
    /// A whole register may be read from any column on.
    pub fn new(reading: &Reading<'_>, columns: usize, samples: usize) -> Self {
        Self::spaced(reading, columns, samples, 0)
    }

    /// As [`Layout::new`], with at least `spacing` from the columns of a signal to those of the next.
    pub fn spaced(reading: &Reading<'_>, columns: usize, samples: usize, spacing: usize) -> Self {
        let (runs, places) = runs(reading, columns);
        let sample_stride = spacing.max(columns + runs.iter().map(|run| run.extra).max().unwrap_or(0));
        let run_stride = samples * sample_stride + LANES;
        // An odd number of cache lines from row to row, so that rows do not compete for the same places in the cache.
        let row_stride = (runs.len() * run_stride).next_multiple_of(32) + 16;
        let taps = places.iter().map(|(run, shift)| run * run_stride + shift).collect();
        Self { runs, taps, sample_stride, run_stride, row_stride, columns, samples }
    }

    /// The positions from the first to the last of a signal that column 0 and those of the tile read, where there are so many
    /// runs that one copy of all is less work than to find the ends of each, and they fit.
    fn line(&self, stride: usize) -> Option<Range<isize>> {
        let start = self.runs.iter().map(|run| run.start).min()?;
        let last = |run: &Run| run.start + ((self.columns + run.extra - 1) * stride).cast_signed();
        let line = start..self.runs.iter().map(last).max()? + 1;
        (self.runs.len() > RUNS && line.len() <= LINE).then_some(line)
    }

    /// Where a run of a signal stands in a window; what is between it and the next becomes zero.
    fn place<'w>(&self, window: &'w mut [f32], run: usize, sample: usize) -> &'w mut [f32] {
        let last = [run + 1 == self.runs.len(), sample + 1 == self.samples];
        let start = run * self.run_stride + sample * self.sample_stride;
        let end = match last {
            [true, true] => window.len(),
            [false, true] => (run + 1) * self.run_stride,
            _ => start + self.sample_stride,
        };
        let (place, rest) = window[start..end].split_at_mut(self.columns + self.runs[run].extra);
        rest.fill(0.0);
        place
    }

    /// Columns from the first of the first signal to the last of the last.
    pub fn width(&self) -> usize {
        (self.samples - 1) * self.sample_stride + self.columns
    }

    /// Values of a row for a single column, to choose the size of a tile by.
    pub fn values_a_column(reading: &Reading<'_>) -> usize {
        runs(reading, usize::MAX).0.len().max(1)
    }
}

/// The runs of a tile, and run and shift of every tap.
fn runs(reading: &Reading<'_>, columns: usize) -> (Vec<Run>, Vec<(usize, usize)>) {
    let stride = reading.stride.cast_signed();
    let mut order: Vec<usize> = (0..reading.taps.len()).collect();
    order.sort_by_cached_key(|tap| (reading.taps[*tap].rem_euclid(stride), reading.taps[*tap]));
    let mut runs: Vec<Run> = Vec::new();
    let mut places = vec![(0, 0); order.len()];
    for tap in order {
        let position = reading.taps[tap];
        let joins = runs.last().and_then(|run| {
            let distance = position - run.start;
            let shift = (distance / stride).cast_unsigned();
            (distance % stride == 0 && shift - run.extra <= columns).then_some(shift)
        });
        let shift = joins.unwrap_or_else(|| {
            runs.push(Run { start: position, extra: 0 });
            0
        });
        let last = runs.len() - 1;
        runs[last].extra = shift;
        places[tap] = (last, shift);
    }
    (runs, places)
}

/// Fills `window` with what columns from `first` read of one channel of each signal; `channel(n)` is that of signal `n`.
pub(super) fn fill<'a>(
    window: &mut [f32],
    layout: &Layout,
    reading: &Reading<'_>,
    first: isize,
    channel: impl Fn(usize) -> &'a [f32],
) {
    let start = first * reading.stride.cast_signed();
    if let Some(line) = layout.line(reading.stride) {
        let mut memory = [0.0; LINE];
        let side_by_side = Reading { stride: 1, taps: Vec::new(), outside: reading.outside };
        for sample in 0..layout.samples {
            let values = &mut memory[..line.len()];
            copy(values, channel(sample), start + line.start, &side_by_side);
            for (index, run) in layout.runs.iter().enumerate() {
                let from = &values[(run.start - line.start).cast_unsigned()..];
                gather(layout.place(window, index, sample), from, reading.stride);
            }
        }
        return;
    }
    for (index, run) in layout.runs.iter().enumerate() {
        for sample in 0..layout.samples {
            copy(layout.place(window, index, sample), channel(sample), start + run.start, reading);
        }
    }
}

/// `to[u] = signal[start + u · stride]`.
pub(super) fn copy(to: &mut [f32], signal: &[f32], start: isize, reading: &Reading<'_>) {
    let last = start + (to.len().saturating_sub(1) * reading.stride).cast_signed();
    if start >= 0 && last < signal.len().cast_signed() {
        return gather(to, &signal[start.cast_unsigned()..], reading.stride);
    }
    let inside = inside(to.len(), signal.len(), start, reading.stride);
    let (before, rest) = to.split_at_mut(inside.start);
    let (body, after) = rest.split_at_mut(inside.end - inside.start);
    outside(before, signal, start, reading);
    let begin = start + (inside.start * reading.stride).cast_signed();
    if !body.is_empty() {
        gather(body, &signal[begin.cast_unsigned()..], reading.stride);
    }
    outside(after, signal, start + (inside.end * reading.stride).cast_signed(), reading);
}

/// The columns whose position lies in the signal.
fn inside(columns: usize, length: usize, start: isize, stride: usize) -> Range<usize> {
    let from = (-start).max(0).cast_unsigned().div_ceil(stride).min(columns);
    let room = (length.cast_signed() - start).max(0).cast_unsigned();
    let to = room.div_ceil(stride).min(columns);
    from..to.max(from)
}

/// `to[u] = from[u · stride]`.
fn gather(to: &mut [f32], from: &[f32], stride: usize) {
    match stride {
        1 => to.copy_from_slice(&from[..to.len()]),
        2 => gather_every::<2>(to, from),
        _ => gather_wide(to, from, stride),
    }
}

#[inline(never)]
fn gather_wide(to: &mut [f32], from: &[f32], stride: usize) {
    let (blocks, tail) = to.as_chunks_mut::<LANES>();
    for (to, from) in blocks.iter_mut().zip(from.chunks(LANES * stride)) {
        every(from, stride, to);
    }
    let from = from.iter().skip(blocks.len() * LANES * stride).step_by(stride);
    tail.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

/// `to[n] = from[n · stride]`, with one check for all of them.
///
/// # Panics
/// When one of them is not there.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a loop over a constant number of values")]
#[expect(unsafe_code, reason = "the furthest value is checked, and not each")]
pub(super) fn every<const N: usize>(from: &[f32], stride: usize, to: &mut [f32; N]) {
    assert!((N - 1) * stride < from.len(), "values at a stride");
    for (n, to) in to.iter_mut().enumerate() {
        // SAFETY: the last was checked to be there, and the others stand before it.
        *to = unsafe { *from.get_unchecked(n * stride) };
    }
}

/// A constant stride, which the compiler turns into shuffles.
fn gather_every<const STRIDE: usize>(to: &mut [f32], from: &[f32]) {
    let (whole, _) = from.as_chunks::<STRIDE>();
    let count = whole.len().min(to.len());
    let (body, tail) = to.split_at_mut(count);
    for (to, from) in body.iter_mut().zip(whole) {
        *to = from[0];
    }
    for (index, to) in tail.iter_mut().enumerate() {
        *to = from[(count + index) * STRIDE];
    }
}

fn outside(to: &mut [f32], signal: &[f32], start: isize, reading: &Reading<'_>) {
    let geometry = match reading.outside {
        Outside::Padding(geometry) if geometry.padding_mode() != PaddingMode::Zeros => geometry,
        _ => return to.fill(0.0),
    };
    let (before, _) = geometry.padding(0);
    for (column, to) in to.iter_mut().enumerate() {
        let padded = start + (column * reading.stride).cast_signed() + before.cast_signed();
        let source = usize::try_from(padded).ok().and_then(|padded| geometry.source(0, padded, signal.len()));
        *to = source.map_or(0.0, |source| signal[source]);
    }
}
