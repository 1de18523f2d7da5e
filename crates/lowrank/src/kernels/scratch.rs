//! Memory that is kept between calls, so that no kernel allocates while it runs, and none pays for fresh pages.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static WEIGHTS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

#[cfg(test)]
thread_local! {
    /// What all memory holds that this thread is lent in a test, in place of what was left there.
    pub static LEFT: Cell<Option<f32>> = const { Cell::new(None) };
}

/// Values of a line of the cache, which are as many bytes as the widest register has.
const LINE: usize = 16;

/// Lends `len` values of this thread's memory, of unknown content. No arithmetic may touch that, even to drop the result:
/// what is left there may be a denormal number, with which the processor takes a hundred times as long.
///
/// It grows to the largest that was asked for, and begins where a line of the cache does: a register that is read across
/// two lines is read twice.
///
/// # Panics
/// When `work` asks for scratch itself.
pub(super) fn with<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < len + LINE {
            grow(scratch, len);
        }
        #[cfg(test)]
        LEFT.get().into_iter().for_each(|value| scratch.fill(value));
        let start = line(scratch);
        work(&mut scratch[start..][..len])
    })
}

/// Makes room for `len` values and no more. What was there need not be copied, and is given back first.
fn grow(values: &mut Vec<f32>, len: usize) {
    *values = Vec::new();
    *values = vec![0.0; len + LINE];
}

/// Where the first line begins.
fn line(values: &[f32]) -> usize {
    values.as_ptr().align_offset(size_of::<[f32; LINE]>()).min(LINE)
}

/// Values that outlive a task, such as packed weights. The thread keeps the largest for the next call, up to [`KEPT`] values.
/// They begin as [`with`]'s do.
pub(super) struct Buffer {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

/// 16 MB.
const KEPT: usize = 1 << 22;

impl Buffer {
    /// `len` values of unknown content.
    pub fn new(len: usize) -> Self {
        let mut values = WEIGHTS.take();
        if values.len() < len + LINE {
            grow(&mut values, len);
        }
        #[cfg(test)]
        LEFT.get().into_iter().for_each(|value| values.fill(value));
        Self { start: line(&values), values, len }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..][..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..][..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.values.len() <= KEPT {
            let kept = WEIGHTS.take();
            WEIGHTS.set(if kept.len() > self.values.len() { kept } else { std::mem::take(&mut self.values) });
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::hint::black_box;

    use super::super::testing::computes_with_what_is_left;
    use super::*;

    #[test]
    fn computing_with_what_is_left_is_noticed() {
        let add_one = |value: f32| {
            black_box(black_box(value) + 1.0);
        };
        assert!(computes_with_what_is_left(|| with(1, |memory| add_one(memory[0]))));
        assert!(computes_with_what_is_left(|| add_one(Buffer::new(1)[0])));
        let filled = |memory: &mut [f32]| {
            memory.fill(1.0);
            add_one(memory[0]);
        };
        assert!(!computes_with_what_is_left(|| with(1, filled)));
    }
}
