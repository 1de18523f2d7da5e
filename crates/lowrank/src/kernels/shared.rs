//! One output that many tasks write, each its own part.

#![expect(unsafe_code, reason = "tasks write rows of one buffer that interleave; the caller keeps them apart")]

use std::marker::PhantomData;

/// A slice that several threads write, at places that do not overlap.
pub(super) struct Shared<'a> {
    data: *mut f32,
    len: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: the only access is `Shared::part`, whose callers keep parts of different threads apart.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub fn new(values: &'a mut [f32]) -> Self {
        Self { data: values.as_mut_ptr(), len: values.len(), lifetime: PhantomData }
    }

    /// Writes values from `start` on.
    ///
    /// # Safety
    /// Nobody else uses these places meanwhile.
    ///
    /// # Panics
    /// When they reach beyond the slice.
    #[inline]
    pub unsafe fn write(&self, start: usize, values: &[f32]) {
        assert!(start <= self.len && values.len() <= self.len - start, "values beyond the output");
        // SAFETY: inside the slice by the check, and apart from what others use by the caller's promise.
        unsafe { self.data.add(start).copy_from_nonoverlapping(values.as_ptr(), values.len()) }
    }

    /// `len` values from `start`.
    ///
    /// # Safety
    /// While the part is in use, no other part overlaps it.
    ///
    /// # Panics
    /// When the part reaches beyond the slice.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps parts apart")]
    #[inline]
    pub unsafe fn part(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(start <= self.len && len <= self.len - start, "a part beyond the output");
        // SAFETY: inside the slice by the check, and not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}
