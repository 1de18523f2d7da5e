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

/// `out[p · strides[0] + q · strides[1]] += Σ_i Σ_t a[p, i, t] · b[q, i, t]` over so many segments of such a length.
pub(super) fn add_sums(a: Rows<'_>, b: Rows<'_>, size: [usize; 2], out: &mut [f32], strides: [usize; 2]) {
    arch().dispatch(Sums { a, b, size, out, strides });
}

struct Sums<'a> {
    a: Rows<'a>,
    b: Rows<'a>,
    size: [usize; 2],
    out: &'a mut [f32],
    strides: [usize; 2],
}

impl WithSimd for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, size, out, strides } = self;
        all(simd, a, b, size, out, strides);
    }
}

#[inline(always)]
fn all<S: Simd>(simd: S, a: Rows<'_>, b: Rows<'_>, size: [usize; 2], out: &mut [f32], strides: [usize; 2]) {
    let mut p = 0;
    while p < a.count {
        let left = (a.count - p).min(block::rows::<S>());
        let rows = if left.is_power_of_two() { left } else { left.next_power_of_two() / 2 };
        match rows {
            8 => across::<S, 8>(simd, a, p, b, size, out, strides),
            4 => across::<S, 4>(simd, a, p, b, size, out, strides),
            2 => across::<S, 2>(simd, a, p, b, size, out, strides),
            _ => across::<S, 1>(simd, a, p, b, size, out, strides),
        }
        p += rows;
    }
}

#[inline(always)]
fn across<S: Simd, const P: usize>(
    simd: S,
    a: Rows<'_>,
    p: usize,
    b: Rows<'_>,
    size: [usize; 2],
    out: &mut [f32],
    strides: [usize; 2],
) {
    let mut q = 0;
    while q + 3 <= b.count {
        one::<S, P, 3>(simd, a, p, b, q, size, out, strides);
        q += 3;
    }
    while q < b.count {
        one::<S, P, 1>(simd, a, p, b, q, size, out, strides);
        q += 1;
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the place of a block in both sets of rows and in the result")]
fn one<S: Simd, const P: usize, const Q: usize>(
    simd: S,
    a: Rows<'_>,
    p: usize,
    b: Rows<'_>,
    q: usize,
    size: [usize; 2],
    out: &mut [f32],
    [p_stride, q_stride]: [usize; 2],
) {
    let mut sums = [[0.0; Q]; P];
    block::dot(simd, &mut sums, a.from(p), b.from(q), size);
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate() {
            out[(p + i) * p_stride + (q + j) * q_stride] += sum;
        }
    }
}
