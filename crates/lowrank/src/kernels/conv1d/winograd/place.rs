//! Where outputs go.

use super::super::super::shared::Shared;
use super::super::signals::{Places, Shape};

/// Column `u` of the outputs is position `u · stride + offset` of `shape`; columns that fall outside are dropped.
pub(in super::super) struct Place<'a> {
    pub values: &'a Shared<'a>,
    pub shape: Shape,
    pub places: Places<'a>,
    pub stride: usize,
    pub offset: isize,
}

/// One row of a signal.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    place: &'a Place<'a>,
    start: usize,
}

impl Place<'_> {
    pub(super) fn row(&self, sample: usize, group: usize, row: usize) -> Row<'_> {
        Row { place: self, start: self.shape.start(self.places.of(sample), group, row) }
    }
}

impl Row<'_> {
    /// Writes columns from `first`. Tasks write positions that are theirs alone.
    #[expect(unsafe_code, reason = "tiles write their own positions of one output")]
    #[inline]
    pub fn write(self, first: usize, values: &[f32]) {
        let Place { values: y, shape, stride, offset, .. } = self.place;
        let position = (first * stride).cast_signed() + offset;
        let skipped = (-position).max(0).cast_unsigned().div_ceil(*stride);
        let start = (position + (skipped * stride).cast_signed()).cast_unsigned();
        if skipped >= values.len() || start >= shape.length {
            return;
        }
        let values = &values[skipped..];
        let count = (shape.length - start).div_ceil(*stride).min(values.len());
        // SAFETY: two tasks write no position twice, and borrow single ones for a moment.
        let y = unsafe { y.part(self.start + start, (count - 1) * stride + 1) };
        if *stride == 1 {
            y.copy_from_slice(&values[..count]);
        } else {
            for (to, from) in y.iter_mut().step_by(*stride).zip(values) {
                *to = *from;
            }
        }
    }
}
