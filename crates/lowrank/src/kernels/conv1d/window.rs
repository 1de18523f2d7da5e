//! The part of a signal that a tile of columns reads, in the order in which it is read.
//!
//! Columns lie side by side, so that a register holds neighbours whatever the stride: positions of one phase of the
//! stride form a run, and a tap is an offset into the run of its phase. Where taps are further apart than a tile is
//! wide (a large dilation), each has a run of its own.

use std::ops::Range;

use crate::geometry::{ConvGeometry, PaddingMode};

/// Values of the widest register.
pub(super) const LANES: usize = 16;

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
    order.sort_by_key(|tap| (reading.taps[*tap].rem_euclid(stride), reading.taps[*tap]));
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
    let stride = reading.stride.cast_signed();
    for (run, place) in layout.runs.iter().zip(window.chunks_exact_mut(layout.run_stride)) {
        let width = layout.columns + run.extra;
        for sample in 0..layout.samples {
            let part = &mut place[sample * layout.sample_stride..][..layout.sample_stride];
            let (read, rest) = part.split_at_mut(width);
            copy(read, channel(sample), run.start + first * stride, reading);
            rest.fill(0.0);
        }
        place[layout.samples * layout.sample_stride..].fill(0.0);
    }
    window[layout.runs.len() * layout.run_stride..].fill(0.0);
}

/// `to[u] = signal[start + u · stride]`.
pub(super) fn copy(to: &mut [f32], signal: &[f32], start: isize, reading: &Reading<'_>) {
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

fn gather(to: &mut [f32], from: &[f32], stride: usize) {
    match stride {
        1 => to.copy_from_slice(&from[..to.len()]),
        2 => gather_every::<2>(to, from),
        _ => {
            for (to, from) in to.iter_mut().zip(from.iter().step_by(stride)) {
                *to = *from;
            }
        }
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
