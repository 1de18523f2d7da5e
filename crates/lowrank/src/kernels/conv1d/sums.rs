//! Sums along the columns of two sets of rows.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::{Simd, WithSimd};

use super::super::block::{self, Lines};
use super::super::lanes::arch;

/// Some rows of segments.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub data: &'a [f32],
    pub count: usize,
    /// From a row to the next.
    pub stride: usize,
    /// From a segment of a row to the next.
    pub step: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn from(self, row: usize) -> Lines<'a> {
        Lines { data: &self.data[row * self.stride..], stride: self.stride, step: self.step }
    }
}

/// `out[q · row + p] += Σ_i Σ_t a[p, i, t] · b[q, i, t]` over so many segments of such a length.
pub(super) fn add_sums(a: Rows<'_>, b: Rows<'_>, size: [usize; 2], out: &mut [f32], row: usize) {
    arch().dispatch(Sums { a, b, size, out, row });
}

struct Sums<'a> {
    a: Rows<'a>,
    b: Rows<'a>,
    size: [usize; 2],
    out: &'a mut [f32],
    row: usize,
}

impl WithSimd for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut p = 0;
        while p < self.a.count {
            let left = (self.a.count - p).min(block::rows::<S>());
            let rows = if left.is_power_of_two() { left } else { left.next_power_of_two() / 2 };
            match rows {
                8 => self.rows::<S, 8>(simd, p),
                4 => self.rows::<S, 4>(simd, p),
                2 => self.rows::<S, 2>(simd, p),
                _ => self.rows::<S, 1>(simd, p),
            }
            p += rows;
        }
    }
}

impl Sums<'_> {
    /// Of `P` rows of `a` from `p`, and all of `b`.
    #[inline(always)]
    fn rows<S: Simd, const P: usize>(&mut self, simd: S, p: usize) {
        let mut q = 0;
        while q + 3 <= self.b.count {
            self.block::<S, P, 3>(simd, p, q);
            q += 3;
        }
        while q < self.b.count {
            self.block::<S, P, 1>(simd, p, q);
            q += 1;
        }
    }

    #[inline(always)]
    fn block<S: Simd, const P: usize, const Q: usize>(&mut self, simd: S, p: usize, q: usize) {
        let sums: [[f32; P]; Q] = block::dot(simd, self.a.from(p), self.b.from(q), self.size);
        for (j, sums) in sums.iter().enumerate() {
            let out = &mut self.out[(q + j) * self.row + p..][..P];
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
        }
    }
}
