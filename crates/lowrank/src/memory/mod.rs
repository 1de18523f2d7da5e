//! Memory of a process that trains.
//!
//! A training step allocates and frees the same few megabytes over and over. By default the C library gives large blocks
//! back to the system at once, and every step pays for fresh pages: a third of the time of a small network.

#[cfg(feature = "mimalloc")]
#[expect(unsafe_code, reason = "a global allocator's trait is unsafe")]
mod allocator;

#[cfg(feature = "mimalloc")]
pub use allocator::Allocator;

/// Keeps freed pages for the next allocation, and all of them in one place. For the beginning of `main`; it has an effect on
/// Linux with the GNU C library, where it also bounds what several threads hold on to.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library's own switch")]
pub fn keep_pages() {
    for (parameter, value) in
        [(libc::M_MMAP_THRESHOLD, i32::MAX), (libc::M_TRIM_THRESHOLD, i32::MAX), (libc::M_ARENA_MAX, 1)]
    {
        // SAFETY: the call takes two numbers, and locks what it changes; one that it does not know has no effect.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Has an effect on Linux with the GNU C library only.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_pages() {}
