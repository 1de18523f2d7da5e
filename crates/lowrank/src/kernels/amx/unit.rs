//! Whether there is a matrix unit, and its state.

#![expect(unsafe_code, reason = "instructions and a system call that no library has")]

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, __get_cpuid_max};
use std::marker::PhantomData;
use std::sync::LazyLock;

/// Whether this machine has the unit, and the system has given it to this process.
static AVAILABLE: LazyLock<bool> = LazyLock::new(|| detected() && permitted());

/// Whether there is a unit to use.
pub fn available() -> bool {
    #[cfg(test)]
    if WITHOUT.get() {
        return false;
    }
    *AVAILABLE
}

#[cfg(test)]
thread_local! {
    static WITHOUT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs `run` as on a machine without the unit, as far as this thread decides.
#[cfg(test)]
pub fn without<R>(run: impl FnOnce() -> R) -> R {
    WITHOUT.set(true);
    let result = run();
    WITHOUT.set(false);
    result
}

/// Bits of leaf 7 of `cpuid`: the unit multiplies bfloat16, and it has tiles.
const BF16: u32 = 1 << 22;
const TILES: u32 = 1 << 24;

fn detected() -> bool {
    let leaf = 7;
    __get_cpuid_max(0).0 >= leaf && {
        let bits = __cpuid_count(leaf, 0).edx;
        bits & BF16 != 0 && bits & TILES != 0
    }
}

/// Asks the system to keep the tiles of this process when it changes tasks. Where it does not know them, it refuses.
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: a request that takes two numbers and changes nothing but what this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

/// The unit of this thread with eight tiles of 16 rows of 64 bytes, until it is dropped.
pub struct Unit(PhantomData<*const ()>);

#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Unit {
    /// # Panics
    /// When there is none.
    pub fn new() -> Self {
        assert!(*AVAILABLE, "a matrix unit");
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        row_bytes[..8].fill(64);
        rows[..8].fill(16);
        let configuration = Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows };
        // SAFETY: the unit is there, and the 64 bytes are a configuration of it.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly, preserves_flags));
        }
        Self(PhantomData)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // SAFETY: the unit is there. Without state of it, the system has less to keep.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
    }
}
