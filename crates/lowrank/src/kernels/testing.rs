//! What the tests of the kernels share.

use pulp::{Simd, WithSimd};

use super::lanes::arch;
use super::scratch;
use crate::random::Random;

/// What an operation gives with each instruction set of this machine, and without any.
pub(super) fn on_every_set<Op: WithSimd>(op: impl Fn() -> Op) -> Vec<(&'static str, Op::Output)> {
    let mut results = vec![("scalar", pulp::Scalar.vectorize(op()))];
    #[cfg(target_arch = "x86_64")]
    {
        let v3 = pulp::x86::V3::try_new().map(|simd| ("x86-v3", Simd::vectorize(simd, op())));
        let v4 = pulp::x86::V4::try_new().map(|simd| ("x86-v4", Simd::vectorize(simd, op())));
        results.extend(v3.into_iter().chain(v4));
    }
    results.push(("this machine's", arch().dispatch(op())));
    results
}

/// Whether `run` gives the same bits on 1, 2, 3 and 8 threads.
pub(super) fn assert_threads_do_not_matter(name: &str, run: impl Fn() -> Vec<f32> + Sync) {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&run).iter().map(|value| value.to_bits()).collect::<Vec<_>>()
    };
    let one = on(1);
    for threads in [2, 3, 8] {
        assert!(on(threads) == one, "{name} on {threads} threads");
    }
}

/// Whether `run` computes with what others have left in the memory that it is lent. That may be a denormal number, which
/// costs the processor a hundred times what another does; its status says so.
pub(super) fn computes_with_what_is_left(run: impl Fn() + Sync) -> bool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        scratch::LEFT.set(Some(f32::from_bits(1)));
        denormals_met(&run)
    })
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the processor's status")]
fn denormals_met(run: impl Fn()) -> bool {
    use std::arch::asm;

    const FLAGS: u32 = 0x3f;
    const DENORMAL: u32 = 2;
    let mut status = 0_u32;
    // SAFETY: the status is read and written back with its flags cleared, which are nobody's.
    unsafe {
        asm!("stmxcsr [{}]", in(reg) &raw mut status);
        status &= !FLAGS;
        asm!("ldmxcsr [{}]", in(reg) &raw const status);
    }
    run();
    // SAFETY: as above.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut status) };
    status & DENORMAL != 0
}

#[cfg(not(target_arch = "x86_64"))]
fn denormals_met(run: impl Fn()) -> bool {
    run();
    false
}

/// Normal values, spread by 3.
pub(super) fn draw(seed: u64, purpose: &str, len: usize) -> Vec<f32> {
    let mut random = Random::new(seed, purpose, 0);
    (0..len).map(|_| 3.0 * random.normal()).collect()
}

pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// Whether values are exact within `tolerance` times their size, or 1.
#[track_caller]
pub(super) fn assert_close(name: &str, got: &[f32], exact: &[f64], tolerance: f64) {
    assert_eq!(got.len(), exact.len(), "{name}");
    for (index, (&got, &exact)) in got.iter().zip(exact).enumerate() {
        let error = (f64::from(got) - exact).abs();
        assert!(error <= tolerance * exact.abs().max(1.0), "{name}[{index}]: {got} instead of {exact}, {error:e} off");
    }
}

/// Whether sums of `terms` random values are exact within 1e-5 of the largest, or of what is usual for so many: a single
/// value may be small by chance, its terms are not.
#[track_caller]
pub(super) fn assert_sums_close(name: &str, got: &[f32], exact: &[f64], terms: usize) {
    assert_eq!(got.len(), exact.len(), "{name}");
    let usual = f64::from(u32::try_from(terms).unwrap()).sqrt();
    let scale = exact.iter().fold(usual.max(1.0), |largest, value| largest.max(value.abs()));
    for (index, (got, exact)) in got.iter().zip(exact).enumerate() {
        let error = (f64::from(*got) - exact).abs();
        assert!(error <= 1e-5 * scale, "{name}[{index}]: {got} instead of {exact}");
    }
}
