//! Sums that go where they belong at once.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use super::super::shared::Shared;
use super::product::Sink;

/// Rows of an output, each beginning at `start(row)`. Tasks make it for columns that are theirs alone.
pub(super) struct Direct<'a, P> {
    pub output: &'a Shared<'a>,
    pub start: P,
}

impl<P: Fn(usize) -> usize> Sink for Direct<'_, P> {
    #[inline(always)]
    #[expect(unsafe_code, reason = "tiles write their own columns of one output")]
    fn values(&mut self, row: usize, column: usize, columns: usize) -> &mut [f32] {
        // SAFETY: the columns of a tile are written by its task alone, one borrow at a time.
        unsafe { self.output.part((self.start)(row) + column, columns) }
    }
}
