//! Two heaps: one for small blocks, one for large ones.

use std::alloc::{GlobalAlloc, Layout, System};

use mimalloc::MiMalloc;

/// The global allocator of a program that trains: blocks of less than 8 kB are mimalloc's, larger ones the system allocator's.
///
/// Small blocks that live long, lying among the large ones of a training step, keep it from getting the same warm memory in
/// every step: the longer such a process runs, the slower is the adapter of a short convolution. mimalloc alone would do,
/// but takes more memory for the large ones.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: lowrank::memory::Allocator = lowrank::memory::Allocator;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Allocator;

/// Bytes of the smallest block that is large.
const LARGE: usize = 8 << 10;

/// The heap of the blocks of a size.
fn heap(size: usize) -> &'static dyn GlobalAlloc {
    if size < LARGE { &MiMalloc } else { &System }
}

// SAFETY: a block's size tells which heap it is from, and each of them keeps the trait's promises.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { heap(layout.size()).alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { heap(layout.size()).alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on, to the heap that the block is from.
        unsafe { heap(layout.size()).dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if (layout.size() < LARGE) == (new_size < LARGE) {
            // SAFETY: the caller's promise is passed on, to the heap that the block is from.
            return unsafe { heap(new_size).realloc(pointer, layout, new_size) };
        }
        // SAFETY: the caller promises that the new size is valid with this alignment, and that the block is `layout`'s.
        // The blocks are two, and both hold what is copied. Without a new block the old one is left as it was.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !moved.is_null() {
                pointer.copy_to_nonoverlapping(moved, layout.size().min(new_size));
                self.dealloc(pointer, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_block_keeps_its_content_wherever_it_grows_or_shrinks(
            sizes in prop::collection::vec(prop_oneof![1..64usize, LARGE - 2..LARGE + 2, 1usize..1 << 20], 1..8),
            align in (0u32..8).prop_map(|power| 1usize << power),
        ) {
            let value = |at: usize| (at * 7 + 1).to_le_bytes()[0];
            let mut layout = Layout::from_size_align(sizes[0], align).unwrap();
            // SAFETY: no size is 0; each block is read and written within its size, and freed once, by its layout.
            unsafe {
                let mut block = Allocator.alloc_zeroed(layout);
                prop_assert!((0..layout.size()).all(|at| *block.add(at) == 0));
                (0..layout.size()).for_each(|at| block.add(at).write(value(at)));
                for &size in &sizes[1..] {
                    block = Allocator.realloc(block, layout, size);
                    let kept = layout.size().min(size);
                    layout = Layout::from_size_align(size, align).unwrap();
                    prop_assert!(block.addr().is_multiple_of(align));
                    prop_assert!((0..kept).all(|at| *block.add(at) == value(at)));
                    (kept..size).for_each(|at| block.add(at).write(value(at)));
                }
                Allocator.dealloc(block, layout);
            }
        }
    }
}
