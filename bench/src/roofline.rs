//! What the machine can do at most: its rate of arithmetic, and that of memory.

use std::time::Instant;

use gemm::Parallelism;
use rayon::prelude::*;

use crate::record::Ceilings;

const SIZE: usize = 2048;
/// Values of one array of the triad: 256 MB.
const VALUES: usize = 1 << 26;

/// Measures now and then, on buffers of its own.
pub struct Gauge {
    left: Vec<f32>,
    right: Vec<f32>,
    product: Vec<f32>,
    arrays: [Vec<f32>; 3],
    ceilings: Ceilings,
}

impl Gauge {
    /// A gauge, warmed up.
    pub fn new() -> Self {
        let matrix = || vec![0.5; SIZE * SIZE];
        let arrays = [vec![0.5; VALUES], vec![0.25; VALUES], vec![0.125; VALUES]];
        let mut gauge =
            Self { left: matrix(), right: matrix(), product: matrix(), arrays, ceilings: Ceilings::default() };
        gauge.gemm();
        gauge.triad();
        gauge
    }

    /// One measurement of each rate.
    pub fn sample(&mut self) {
        let (gemm, triad) = (self.gemm(), self.triad());
        self.ceilings.gemm_gflops.push(gemm);
        self.ceilings.triad_gb_s.push(triad);
    }

    /// All measurements so far.
    pub fn ceilings(&self) -> &Ceilings {
        &self.ceilings
    }

    fn gemm(&mut self) -> f64 {
        let start = Instant::now();
        product(&self.left, &self.right, &mut self.product);
        #[expect(clippy::cast_precision_loss, reason = "2^34")]
        let flops = (2 * SIZE * SIZE * SIZE) as f64;
        flops / start.elapsed().as_secs_f64() / 1e9
    }

    fn triad(&mut self) -> f64 {
        let [sum, left, right] = &mut self.arrays;
        let share = VALUES.div_ceil(rayon::current_num_threads());
        let start = Instant::now();
        let parts = sum.par_chunks_mut(share).zip(left.par_chunks(share)).zip(right.par_chunks(share));
        parts.for_each(|((sum, left), right)| {
            for ((sum, left), right) in sum.iter_mut().zip(left).zip(right) {
                *sum = left + 3.0 * right;
            }
        });
        #[expect(clippy::cast_precision_loss, reason = "less than a gigabyte")]
        let bytes = (3 * VALUES * size_of::<f32>()) as f64;
        bytes / start.elapsed().as_secs_f64() / 1e9
    }
}

/// `out = left @ right`, all row-major and [`SIZE`] x [`SIZE`], on the threads there are.
#[expect(unsafe_code, reason = "the gemm crate takes pointers")]
fn product(left: &[f32], right: &[f32], out: &mut [f32]) {
    assert!([left.len(), right.len(), out.len()] == [SIZE * SIZE; 3]);
    let row = SIZE.cast_signed();
    let threads = match rayon::current_num_threads() {
        1 => Parallelism::None,
        threads => Parallelism::Rayon(threads),
    };
    // SAFETY: every matrix has SIZE * SIZE values, in rows of SIZE, and `out` is borrowed alone.
    unsafe {
        gemm::gemm(
            SIZE,
            SIZE,
            SIZE,
            out.as_mut_ptr(),
            1,
            row,
            false,
            left.as_ptr(),
            1,
            row,
            right.as_ptr(),
            1,
            row,
            0.0,
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
}
