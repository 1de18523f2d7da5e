//! Gradients of queries, keys and values.

#![expect(unsafe_code, reason = "tasks write their own heads of three outputs")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::super::buffers::written;
use super::super::gemm::Matrix;
use super::super::lanes::arch;
use super::super::scratch;
use super::super::shared::Shared;
use super::super::strips::{Place, Start, Strips, multiply_all, multiply_in_place};
use super::scores::{Scores, softmax_again, softmax_backward};
use super::{Attention, BLOCK, blocks};

impl Attention {
    /// `[dq, dk, dv]`, of what went into [`Attention::forward`], the sums it gave, and `do (batch, queries, heads·head_dim)`.
    ///
    /// # Panics
    /// When a slice does not have the size of its shape, or there are queries and no keys.
    #[must_use]
    pub fn backward(&self, [q, k, v]: [&[f32]; 3], sums: &[f32], d_o: &[f32]) -> [Vec<f32>; 3] {
        self.check([q, d_o], [k, v]);
        assert_eq!(sums.len(), self.batch * self.heads * self.queries, "a sum for each head and query");
        let (mut dk, mut dv) = (Vec::new(), Vec::new());
        let run = |dq: &Shared<'_>, dk: &Shared<'_>, dv: &Shared<'_>| {
            (0..self.batch * self.heads).into_par_iter().for_each(|head| {
                let at = [head / self.heads, head % self.heads];
                let [q, d_o] = [q, d_o].map(|values| self.head(values, self.queries, at));
                let [k, v] = [k, v].map(|values| self.head(values, self.keys, at));
                let place = |output, rows| Place { output, start: self.start(rows, at), row_stride: self.width() };
                let places = [place(dq, self.queries), place(dk, self.keys), place(dv, self.keys)];
                let sums = &sums[head * self.queries..][..self.queries];
                Task { shape: self, q, k, v, d_o, sums, places }.run();
            });
        };
        // SAFETY: the tasks cover the heads of every query and key.
        let dq = unsafe {
            written(q.len(), |dq| {
                let dq = &Shared::new(dq);
                dv = written(v.len(), |dv| {
                    let dv = &Shared::new(dv);
                    dk = written(k.len(), |dk| run(dq, &Shared::new(dk), dv));
                });
            })
        };
        [dq, dk, dv]
    }
}

/// One head.
struct Task<'a> {
    shape: &'a Attention,
    q: Matrix<'a, f32>,
    k: Matrix<'a, f32>,
    v: Matrix<'a, f32>,
    d_o: Matrix<'a, f32>,
    sums: &'a [f32],
    /// Of `dq`, `dk` and `dv`.
    places: [Place<'a>; 3],
}

impl Task<'_> {
    fn run(self) {
        let shape = self.shape;
        let lens = [
            Strips::len(self.k.transposed()),
            Strips::len(self.v.transposed()),
            Strips::len(self.k),
            BLOCK * shape.row(),
            BLOCK * shape.row(),
            shape.keys * shape.head_dim,
            shape.keys * shape.head_dim,
            Strips::len(Matrix { rows: BLOCK, ..self.q }),
        ];
        scratch::with(lens.iter().sum(), |mut memory| {
            let memory = lens.map(|len| {
                let (part, rest) = std::mem::take(&mut memory).split_at_mut(len);
                memory = rest;
                part
            });
            arch().dispatch(OnHead { task: self, memory });
        });
    }
}

struct OnHead<'a, 'm> {
    task: Task<'a>,
    memory: [&'m mut [f32]; 8],
}

impl WithSimd for OnHead<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { task: Task { shape, q, k, v, d_o, sums, places }, memory } = self;
        let [keys_across, values_across, keys, p_memory, ds_memory, dk, dv, strip] = memory;
        let keys_across = Strips::pack(k.transposed(), keys_across);
        let values_across = Strips::pack(v.transposed(), values_across);
        let keys = Strips::pack(k, keys);
        dk.fill(0.0);
        dv.fill(0.0);
        for block in blocks(0..shape.queries) {
            let mut p = Scores::new(simd, shape, q, keys_across, block.clone(), p_memory);
            softmax_again(simd, shape, &mut p, &sums[block.clone()]);
            let mut ds = Scores::new(simd, shape, d_o, values_across, block.clone(), ds_memory);
            softmax_backward(simd, shape, &p, &mut ds);
            let place = Place { start: places[0].start + block.start * places[0].row_stride, ..places[0] };
            // SAFETY: a head is written by its task alone.
            unsafe { multiply_all(simd, ds.matrix(), keys, shape.head_dim, Start::ZERO, place) };
            for (left, right, sums) in [(&p, d_o, &mut *dv), (&ds, q, &mut *dk)] {
                let (left, right) = (left.matrix().transposed(), right.rows(block.clone()));
                let place = Place { output: &Shared::new(sums), start: 0, row_stride: shape.head_dim };
                // SAFETY: scratch of this thread, zero at first.
                unsafe { multiply_in_place(simd, left, right, Start::THERE, place, strip) };
            }
        }
        for (gradient, place) in [(dk, places[1]), (dv, places[2])] {
            for (row, values) in gradient.chunks_exact(shape.head_dim).enumerate() {
                // SAFETY: a head is written by its task alone.
                unsafe { place.output.write(place.start + row * place.row_stride, values) };
            }
        }
    }
}
