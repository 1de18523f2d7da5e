//! Outputs, and the logarithms of the sums.

#![expect(unsafe_code, reason = "tasks write their own heads of one output")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::super::buffers::written;
use super::super::gemm::Matrix;
use super::super::lanes::arch;
use super::super::scratch;
use super::super::shared::Shared;
use super::super::strips::{Place, Start, Strips, multiply_all};
use super::scores::{Scores, softmax};
use super::{Attention, BLOCK, blocks};

/// Queries of a task: enough to be worth packing the keys and values.
const QUERIES: usize = 256;

impl Attention {
    /// `o (batch, queries, heads·head_dim)`, and `l (batch, heads, queries)` for [`Attention::backward`].
    ///
    /// # Panics
    /// When a slice does not have the size of its shape, or there are queries and no keys.
    #[must_use]
    pub fn forward(&self, q: &[f32], k: &[f32], v: &[f32]) -> (Vec<f32>, Vec<f32>) {
        self.check([q, q], [k, v]);
        let chunks = self.queries.div_ceil(QUERIES);
        let mut sums = vec![0.0; self.batch * self.heads * self.queries];
        let mut write = |output: &Shared<'_>| {
            let sums = Shared::new(&mut sums);
            (0..self.batch * self.heads * chunks).into_par_iter().for_each(|task| {
                let (head, first) = (task / chunks, task % chunks * QUERIES);
                let queries = first..self.queries.min(first + QUERIES);
                // SAFETY: the sums of a head's queries are written by one task.
                let sums = unsafe { sums.part(head * self.queries + first, queries.len()) };
                let at = [head / self.heads, head % self.heads];
                let [q, k, v] = [(q, self.queries), (k, self.keys), (v, self.keys)].map(|(x, n)| self.head(x, n, at));
                let place = Place { output, start: self.start(self.queries, at), row_stride: self.width() };
                Task { shape: self, q, k, v, queries, sums, place }.run();
            });
        };
        // SAFETY: the tasks cover the heads of every query.
        let o = unsafe { written(q.len(), |o| write(&Shared::new(o))) };
        (o, sums)
    }
}

/// Some queries of one head.
struct Task<'a> {
    shape: &'a Attention,
    q: Matrix<'a, f32>,
    k: Matrix<'a, f32>,
    v: Matrix<'a, f32>,
    queries: Range<usize>,
    sums: &'a mut [f32],
    place: Place<'a>,
}

impl Task<'_> {
    fn run(self) {
        let len = Strips::len(self.k.transposed()) + Strips::len(self.v) + BLOCK * self.shape.row();
        scratch::with(len, |memory| arch().dispatch(OnHead { task: self, memory }));
    }
}

struct OnHead<'a, 'm> {
    task: Task<'a>,
    memory: &'m mut [f32],
}

impl WithSimd for OnHead<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { task: Task { shape, q, k, v, queries, sums, place }, memory } = self;
        let (keys, rest) = memory.split_at_mut(Strips::len(k.transposed()));
        let (values, memory) = rest.split_at_mut(Strips::len(v));
        let keys = Strips::pack(k.transposed(), keys);
        let values = Strips::pack(v, values);
        for (block, sums) in blocks(queries).zip(sums.chunks_mut(BLOCK)) {
            let mut scores = Scores::new(simd, shape, q, keys, block.clone(), memory);
            softmax(simd, shape, &mut scores, sums);
            let place = Place { start: place.start + block.start * place.row_stride, ..place };
            let (p, head_dim) = (scores.matrix(), shape.head_dim);
            // SAFETY: the queries of a head are written by one task.
            unsafe { multiply_all(simd, p, values, head_dim, Start::ZERO, place) };
        }
    }
}
