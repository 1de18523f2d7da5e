//! Signals with their channels side by side.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::{Simd, WithSimd};

use super::super::super::lanes::arch;
use super::super::signals::Signals;
use super::super::window::LANES;

/// From `(sample, channel, position)` to `(position, sample, channel)`, channels filled up to whole registers.
pub(super) fn side_by_side(x: Signals<'_>, [first, samples, group]: [usize; 3], to: &mut [f32]) {
    arch().dispatch(SideBySide { x, first, samples, group, to });
}

struct SideBySide<'a> {
    x: Signals<'a>,
    first: usize,
    samples: usize,
    group: usize,
    to: &'a mut [f32],
}

impl WithSimd for SideBySide<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { x, first, samples, group, to } = self;
        let (channels, positions) = (x.rows.channels, x.rows.length);
        let width = channels.next_multiple_of(LANES);
        let to = &mut to[..positions * samples * width];
        for sample in 0..samples {
            let values = &x.rows_from(first + sample, group, 0)[..channels * positions];
            let mut rows = to[sample * width..].chunks_mut(samples * width).map(|row| {
                let (row, rest) = row[..width].split_at_mut(channels);
                rest.fill(0.0);
                row
            });
            let mut next = || rows.next().expect("a row for each position");
            match positions {
                1 => next().copy_from_slice(values),
                2 => split(values, [next(), next()]),
                4 => split(values, [next(), next(), next(), next()]),
                _ => {
                    for (position, row) in rows.enumerate() {
                        let values = values[position..].iter().step_by(positions);
                        row.iter_mut().zip(values).for_each(|(to, value)| *to = *value);
                    }
                }
            }
        }
    }
}

/// `rows[i][channel] = values[channel, i]`: of a constant number of positions, which the compiler turns into shuffles.
#[inline(always)]
fn split<const POSITIONS: usize>(values: &[f32], mut rows: [&mut [f32]; POSITIONS]) {
    let (values, _) = values.as_chunks::<POSITIONS>();
    for row in &mut rows {
        assert_eq!(row.len(), values.len(), "channels of a position");
    }
    for (channel, values) in values.iter().enumerate() {
        for i in 0..POSITIONS {
            rows[i][channel] = values[i];
        }
    }
}
