//! The two blocks of arithmetic that every matrix-shaped kernel is made of, kept in registers.
//!
//! [`multiply`] adds up outer products: it broadcasts one factor and reads the other along its columns. [`dot`] adds up
//! along the columns of both. They are written over `pulp`, not called from the `gemm` crate: a convolution reads one
//! packed tile at several offsets, and a library would pack it again for every tap. The block is as large as the
//! registers allow, so that a step of [`multiply`] loads `ROWS + COLUMNS` times for `ROWS · COLUMNS` multiplications.

#![expect(unsafe_code, reason = "operands are read by pointer; each function checks their ends once")]
#![expect(clippy::needless_range_loop, reason = "loops of a constant length over arrays, which become registers")]
#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use pulp::{Simd, WithSimd};

use super::across;
use super::lanes::{Lanes, arch};

/// Registers of columns in a full block.
pub(super) const COLUMNS: usize = 3;

/// Steps after which a row that is asked for is there: the second-level cache takes as long to answer.
pub(super) const AHEAD: usize = 3;

/// Rows of a full block: the accumulators fill three quarters of the registers.
#[inline(always)]
pub(super) fn rows<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 8 } else { 4 }
}

/// [`rows`] on this machine.
pub(super) fn height() -> usize {
    arch().dispatch(Height)
}

struct Height;

impl WithSimd for Height {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        rows::<S>()
    }
}

/// A factor of which one value is used at a time: `(row, step)` is at `row · row_stride + step · step_stride`.
#[derive(Clone, Copy)]
pub(super) struct Scalars<'a> {
    pub data: &'a [f32],
    pub row_stride: usize,
    pub step_stride: usize,
}

/// A factor of which registers are read: step `(tap, row)` begins at `taps[tap] + row · row_stride`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub data: &'a [f32],
    pub row_stride: usize,
    pub taps: &'a [usize],
    pub depth: usize,
    /// From what a step reads to what it asks for: rows far from each other are not foreseen by the processor.
    pub ahead: usize,
}

impl Rows<'_> {
    /// Values that are read from `data` on for registers of so many columns.
    #[inline(always)]
    pub fn reach(&self, columns: usize) -> usize {
        let furthest = self.taps.iter().fold(0, |furthest, tap| furthest.max(*tap));
        furthest + self.depth.saturating_sub(1) * self.row_stride + columns
    }
}

#[inline(always)]
unsafe fn load<S: Simd>(from: *const f32) -> S::f32s {
    // SAFETY: the caller answers for a register of readable values.
    unsafe { from.cast::<S::f32s>().read_unaligned() }
}

/// `sums[m][n] += Σ_step a[m, step] · b[step, n]`, `n` in registers.
///
/// # Panics
/// When a factor does not hold what is asked of it.
#[inline(always)]
pub(super) fn multiply<S: Simd, const M: usize, const N: usize>(
    simd: S,
    sums: &mut [[S::f32s; N]; M],
    a: Scalars<'_>,
    b: Rows<'_>,
) {
    // A copy that nothing points to stays in registers; the place it came from would be written at every step.
    *sums = added(simd, *sums, a, b);
}

/// As [`multiply`], of sums that begin with zero.
///
/// # Panics
/// When a factor does not hold what is asked of it.
#[inline(always)]
pub(super) fn product<S: Simd, const M: usize, const N: usize>(
    simd: S,
    a: Scalars<'_>,
    b: Rows<'_>,
) -> [[S::f32s; N]; M] {
    added(simd, [[simd.splat_f32s(0.0); N]; M], a, b)
}

#[inline(always)]
fn added<S: Simd, const M: usize, const N: usize>(
    simd: S,
    mut lanes: [[S::f32s; N]; M],
    a: Scalars<'_>,
    b: Rows<'_>,
) -> [[S::f32s; N]; M] {
    let steps = b.taps.len() * b.depth;
    if steps == 0 {
        return lanes;
    }
    assert!((M - 1) * a.row_stride + (steps - 1) * a.step_stride < a.data.len(), "steps beyond the scalars");
    assert!(b.reach(N * S::F32_LANES) <= b.data.len(), "steps beyond the rows");
    let mut scalar = a.data.as_ptr();
    for &tap in b.taps {
        let mut row = b.data.as_ptr().wrapping_add(tap);
        for _ in 0..b.depth {
            // SAFETY: the largest offsets into both factors were checked above; smaller ones lie before them.
            unsafe {
                let mut columns = [simd.splat_f32s(0.0); N];
                for n in 0..N {
                    columns[n] = load::<S>(row.add(n * S::F32_LANES));
                    prefetch(row.wrapping_add(b.ahead + n * S::F32_LANES));
                }
                for m in 0..M {
                    let value = simd.splat_f32s(*scalar.add(m * a.row_stride));
                    for n in 0..N {
                        lanes[m][n] = simd.mul_add_e_f32s(value, columns[n], lanes[m][n]);
                    }
                }
            }
            scalar = scalar.wrapping_add(a.step_stride);
            row = row.wrapping_add(b.row_stride);
        }
    }
    lanes
}

/// Rows that are added up along: step `t` of segment `i` of a row is at `row · stride + i · step + t`.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a> {
    pub data: &'a [f32],
    pub stride: usize,
    pub step: usize,
}

impl Lines<'_> {
    #[inline(always)]
    unsafe fn register<S: Simd>(&self, at: usize) -> S::f32s {
        // SAFETY: the caller answers for a register of readable values.
        unsafe { load::<S>(self.data.as_ptr().add(at)) }
    }

    /// Asks for what is read after the `rows` that are being read at `at`: as many rows behind them.
    #[inline(always)]
    fn prefetch(&self, rows: usize, at: usize) {
        for row in rows..2 * rows {
            prefetch(self.data.as_ptr().wrapping_add(at + row * self.stride));
        }
    }
}

/// Asks for the line of the cache at any address, which need not exist.
#[inline(always)]
fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch does not fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// `sums[q][p] = Σ_i Σ_t a[p, i, t] · b[q, i, t]` over `segments` of `length`.
///
/// # Panics
/// When a row is shorter than its segments.
#[inline(always)]
pub(super) fn dot<S: Simd, const P: usize, const Q: usize>(
    simd: S,
    a: Lines<'_>,
    b: Lines<'_>,
    size: [usize; 2],
) -> [[f32; P]; Q] {
    let lanes = along::<S, P, Q>(simd, a, b, size);
    let mut sums = [[0.0; P]; Q];
    across::sums(simd, lanes.as_flattened(), sums.as_flattened_mut());
    sums
}

/// `lanes[q][p] += left(p) · right(q)`; the fewer of them stay in registers.
#[inline(always)]
fn add<S: Simd, const P: usize, const Q: usize>(
    simd: S,
    lanes: &mut [[S::f32s; P]; Q],
    left: impl Fn(usize) -> S::f32s,
    right: impl Fn(usize) -> S::f32s,
) {
    let mut of_right = [simd.splat_f32s(0.0); Q];
    for q in 0..Q {
        of_right[q] = right(q);
    }
    for p in 0..P {
        let left = left(p);
        for q in 0..Q {
            lanes[q][p] = simd.mul_add_e_f32s(left, of_right[q], lanes[q][p]);
        }
    }
}

#[inline(always)]
fn along<S: Simd, const P: usize, const Q: usize>(
    simd: S,
    a: Lines<'_>,
    b: Lines<'_>,
    [segments, length]: [usize; 2],
) -> [[S::f32s; P]; Q] {
    let mut lanes = [[simd.splat_f32s(0.0); P]; Q];
    if segments == 0 {
        return lanes;
    }
    let end = |rows: usize, lines: Lines<'_>| (rows - 1) * lines.stride + (segments - 1) * lines.step + length;
    assert!(end(P, a) <= a.data.len() && end(Q, b) <= b.data.len(), "a row of a dot product is too short");
    let whole = length / S::F32_LANES * S::F32_LANES;
    for segment in 0..segments {
        let (a_start, b_start) = (segment * a.step, segment * b.step);
        let mut at = 0;
        while at < whole {
            b.prefetch(Q, b_start + at);
            // SAFETY: the end of the last segment of the last row of both was checked to lie inside.
            unsafe {
                add(
                    simd,
                    &mut lanes,
                    #[inline(always)]
                    |p| a.register::<S>(a_start + p * a.stride + at),
                    #[inline(always)]
                    |q| b.register::<S>(b_start + q * b.stride + at),
                );
            }
            at += S::F32_LANES;
        }
        if whole < length && whole > 0 {
            // The last whole register, without the lanes that have been added up.
            let (at, counted) = (length - S::F32_LANES, whole + S::F32_LANES - length);
            // SAFETY: as above.
            unsafe {
                add(
                    simd,
                    &mut lanes,
                    #[inline(always)]
                    |p| Lanes::new(simd, a.register::<S>(a_start + p * a.stride + at)).without(counted).value(),
                    #[inline(always)]
                    |q| b.register::<S>(b_start + q * b.stride + at),
                );
            }
        } else if whole < length {
            add(
                simd,
                &mut lanes,
                #[inline(always)]
                |p| simd.partial_load_f32s(&a.data[a_start + p * a.stride..][..length]),
                #[inline(always)]
                |q| simd.partial_load_f32s(&b.data[b_start + q * b.stride..][..length]),
            );
        }
    }
    lanes
}
