//! Where a kernel reads and where it writes.
//!
//! An operation value by value may overwrite its input, and a fresh result need not be zeroed before it is written: both
//! save a pass over memory, which is most of the time such an operation takes. [`Buffers`] lets each kernel be written
//! once for all three cases. What has written a part of it hands back the written slice, and that is checked; so no
//! value is taken for initialised that is not.

#![expect(unsafe_code, reason = "kernels write memory that nothing has initialised; this file says when it is")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use std::mem::MaybeUninit;

use pulp::Simd;
use rayon::iter::Either;
use rayon::prelude::*;

use super::lanes::Lanes;

/// The values a kernel reads, and the place for as many results: another slice, fresh memory, or the same place.
#[derive(Debug)]
pub struct Buffers<'a>(Place<'a>);

#[derive(Debug)]
enum Place<'a> {
    Apart(&'a [f32], &'a mut [MaybeUninit<f32>]),
    Same(&'a mut [f32]),
}

impl<'a> From<&'a mut [f32]> for Buffers<'a> {
    fn from(values: &'a mut [f32]) -> Self {
        Self(Place::Same(values))
    }
}

impl<'a> From<(&'a [f32], &'a mut [MaybeUninit<f32>])> for Buffers<'a> {
    fn from((values, results): (&'a [f32], &'a mut [MaybeUninit<f32>])) -> Self {
        assert_eq!(values.len(), results.len(), "a kernel writes as many values as it reads");
        Self(Place::Apart(values, results))
    }
}

impl<'a> From<(&'a [f32], &'a mut [f32])> for Buffers<'a> {
    fn from((values, results): (&'a [f32], &'a mut [f32])) -> Self {
        let len = results.len();
        // SAFETY: the two element types have one layout, and this module writes through the slice what is initialised.
        let results = unsafe { std::slice::from_raw_parts_mut(results.as_mut_ptr().cast::<MaybeUninit<f32>>(), len) };
        (values, results).into()
    }
}

/// What `write` makes of `values`, in fresh memory.
///
/// # Panics
/// When `write` returns another slice than that of its results, which it has then not written.
#[must_use]
pub fn fresh(values: &[f32], write: impl for<'b> FnOnce(Buffers<'b>) -> &'b mut [f32]) -> Vec<f32> {
    let len = values.len();
    let mut results = Vec::with_capacity(len);
    let place: &mut [MaybeUninit<f32>] = &mut results.spare_capacity_mut()[..len];
    Buffers::from((values, place)).checked(write);
    // SAFETY: what was checked is a slice of initialised values over exactly the first `len` places.
    unsafe { results.set_len(len) };
    results
}

/// What `write` makes of fresh memory, whose content is unknown until then.
///
/// # Safety
/// `write` writes every value, and reads none before.
pub(super) unsafe fn written(len: usize, write: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    // A test sees what was not written.
    #[cfg(test)]
    values.resize(len, f32::NAN);
    // SAFETY: the capacity is `len`; any bits are an `f32`, and none is read before it is written.
    write(unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr(), len) });
    // SAFETY: the caller has written every value.
    unsafe { values.set_len(len) };
    values
}

impl<'a> Buffers<'a> {
    pub(super) fn len(&self) -> usize {
        self.values().len()
    }

    /// What there is to read.
    #[inline(always)]
    pub(super) fn values(&self) -> &[f32] {
        match &self.0 {
            Place::Apart(values, _) => values,
            Place::Same(values) => values,
        }
    }

    fn begin(&self) -> *const f32 {
        match &self.0 {
            Place::Apart(_, results) => results.as_ptr().cast(),
            Place::Same(values) => values.as_ptr(),
        }
    }

    /// # Safety
    /// Every result has been written.
    unsafe fn written(self) -> &'a mut [f32] {
        match self.0 {
            // SAFETY: the caller has seen every place written.
            Place::Apart(_, results) => unsafe { results.assume_init_mut() },
            Place::Same(values) => values,
        }
    }

    /// Runs `write` and checks that it wrote all of `self`.
    #[inline(always)]
    fn checked(self, write: impl for<'b> FnOnce(Buffers<'b>) -> &'b mut [f32]) {
        let (begin, len) = (self.begin(), self.len());
        let written = write(self);
        assert!(std::ptr::eq(written.as_ptr(), begin) && written.len() == len, "a part of the buffer was not written");
    }

    fn par_chunks(&mut self, size: usize) -> impl IndexedParallelIterator<Item = Buffers<'_>> {
        match &mut self.0 {
            Place::Apart(values, results) => {
                let pairs = values.par_chunks(size).zip(results.par_chunks_mut(size));
                Either::Left(pairs.map(|(values, results)| Buffers(Place::Apart(values, results))))
            }
            Place::Same(values) => {
                Either::Right(values.par_chunks_mut(size).map(|values| Buffers(Place::Same(values))))
            }
        }
    }

    /// Gives `write` one chunk of `size` values after the other, the last maybe shorter, with its number, over all cores.
    ///
    /// A single chunk runs on the calling thread.
    pub(super) fn chunks(
        mut self,
        size: usize,
        write: impl for<'b> Fn(usize, Buffers<'b>) -> &'b mut [f32] + Sync,
    ) -> &'a mut [f32] {
        self.par_chunks(size).enumerate().for_each(|(index, chunk)| chunk.checked(|chunk| write(index, chunk)));
        // SAFETY: the chunks cover the buffer, and each was checked.
        unsafe { self.written() }
    }

    /// As [`Buffers::chunks`], with `share` elements of `beside` for each chunk.
    pub(super) fn chunks_beside<T: Send>(
        mut self,
        size: usize,
        (beside, share): (&mut [T], usize),
        write: impl for<'b> Fn(usize, Buffers<'b>, &mut [T]) -> &'b mut [f32] + Sync,
    ) -> &'a mut [f32] {
        assert_eq!(self.len().div_ceil(size), beside.len().div_ceil(share), "as many chunks on both sides");
        let chunks = self.par_chunks(size).zip(beside.par_chunks_mut(share));
        chunks.enumerate().for_each(|(index, (chunk, beside))| chunk.checked(|chunk| write(index, chunk, beside)));
        // SAFETY: the chunks cover the buffer, as many on both sides, and each was checked.
        unsafe { self.written() }
    }

    /// Gives `write` one row of `width` values after the other, with its number, on this thread.
    ///
    /// # Panics
    /// When the last row is not whole.
    #[inline(always)]
    pub(super) fn rows(
        self,
        width: usize,
        mut write: impl for<'b> FnMut(usize, Buffers<'b>) -> &'b mut [f32],
    ) -> &'a mut [f32] {
        assert_eq!(self.len() % width, 0, "whole rows");
        self.parts(
            0,
            width,
            #[inline(always)]
            |row, _, part| write(row, part),
        )
    }

    /// Gives `write` the part of each row that lies in this chunk, on this thread: the number of the row, where the part
    /// begins in the chunk, and the part. The chunk begins at position `start` of an array of rows of `width` values.
    #[inline(always)]
    pub(super) fn parts(
        mut self,
        start: usize,
        width: usize,
        mut write: impl for<'b> FnMut(usize, usize, Buffers<'b>) -> &'b mut [f32],
    ) -> &'a mut [f32] {
        let (len, mut begin) = (self.len(), 0);
        while begin < len {
            let row = (start + begin) / width;
            let end = ((row + 1) * width - start).min(len);
            let part = Buffers(match &mut self.0 {
                Place::Apart(values, results) => Place::Apart(&values[begin..end], &mut results[begin..end]),
                Place::Same(values) => Place::Same(&mut values[begin..end]),
            });
            part.checked(
                #[inline(always)]
                |part| write(row, begin, part),
            );
            begin = end;
        }
        // SAFETY: the parts cover the buffer, and each was checked.
        unsafe { self.written() }
    }

    /// Writes `f(value, others)` for every value, a register at a time.
    #[inline(always)]
    pub(super) fn map<S: Simd, const N: usize>(
        self,
        simd: S,
        others: [&[f32]; N],
        f: impl Fn(Lanes<S>, [Lanes<S>; N]) -> Lanes<S>,
    ) -> &'a mut [f32] {
        let others = others.map(|other| S::as_simd_f32s(&other[..self.len()]));
        let at = |index: usize| others.map(|(body, _)| Lanes::new(simd, body[index]));
        let tails = || others.map(|(_, tail)| Lanes::partial(simd, tail));
        match self.0 {
            Place::Apart(values, results) => {
                let (body, tail) = S::as_simd_f32s(values);
                let (results_body, results_tail) = S::as_uninit_mut_simd_f32s(&mut *results);
                for (index, (value, result)) in body.iter().zip(results_body).enumerate() {
                    result.write(f(Lanes::new(simd, *value), at(index)).value());
                }
                if !tail.is_empty() {
                    let value = f(Lanes::partial(simd, tail), tails());
                    let first = simd.mask_between_m32s(0, u32::try_from(tail.len()).unwrap_or(0));
                    // SAFETY: the mask reaches the places of the tail, which are borrowed alone.
                    unsafe { simd.mask_store_ptr_f32s(first, results_tail.as_mut_ptr().cast(), value.value()) };
                }
                // SAFETY: body and tail are all of the results, and as long as the values.
                unsafe { results.assume_init_mut() }
            }
            Place::Same(values) => {
                let (body, tail) = S::as_mut_simd_f32s(values);
                for (index, value) in body.iter_mut().enumerate() {
                    *value = f(Lanes::new(simd, *value), at(index)).value();
                }
                if !tail.is_empty() {
                    simd.partial_store_f32s(tail, f(Lanes::partial(simd, tail), tails()).value());
                }
                values
            }
        }
    }
}
