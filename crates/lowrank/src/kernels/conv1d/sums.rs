//! Sums along the columns of two sets of rows.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::{Simd, WithSimd};

use super::super::block;
use super::super::lanes::arch;

/// Some rows, at a stride.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub data: &'a [f32],
    pub count: usize,
    pub stride: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn from(self, row: usize) -> (&'a [f32], usize) {
        (&self.data[row * self.stride..], self.stride)
    }
}

/// `out[p · strides[0] + q · strides[1]] += Σ_t a[p, t] · b[q, t]`. Rows are read to the end of the last register: there
/// `a` or `b` must be zero.
pub(super) fn add_sums(a: Rows<'_>, b: Rows<'_>, length: usize, out: &mut [f32], strides: [usize; 2]) {
    arch().dispatch(Sums { a, b, length, out, strides });
}

struct Sums<'a> {
    a: Rows<'a>,
    b: Rows<'a>,
    length: usize,
    out: &'a mut [f32],
    strides: [usize; 2],
}

impl WithSimd for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, length, out, strides } = self;
        all(simd, a, b, length, out, strides);
    }
}

#[inline(always)]
fn all<S: Simd>(simd: S, a: Rows<'_>, b: Rows<'_>, length: usize, out: &mut [f32], strides: [usize; 2]) {
    let mut p = 0;
    while p < a.count {
        let left = (a.count - p).min(block::rows::<S>());
        let rows = if left.is_power_of_two() { left } else { left.next_power_of_two() / 2 };
        match rows {
            8 => across::<S, 8>(simd, a, p, b, length, out, strides),
            4 => across::<S, 4>(simd, a, p, b, length, out, strides),
            2 => across::<S, 2>(simd, a, p, b, length, out, strides),
            _ => across::<S, 1>(simd, a, p, b, length, out, strides),
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
    length: usize,
    out: &mut [f32],
    strides: [usize; 2],
) {
    let mut q = 0;
    while q + 3 <= b.count {
        one::<S, P, 3>(simd, a, p, b, q, length, out, strides);
        q += 3;
    }
    while q < b.count {
        one::<S, P, 1>(simd, a, p, b, q, length, out, strides);
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
    length: usize,
    out: &mut [f32],
    [p_stride, q_stride]: [usize; 2],
) {
    let mut sums = [[0.0; Q]; P];
    block::dot(simd, &mut sums, a.from(p), b.from(q), length);
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate() {
            out[(p + i) * p_stride + (q + j) * q_stride] += sum;
        }
    }
}
