//! How sums over a batch are cut up: by the number of tasks, never by that of threads, so that the bits are the same for any.

use std::ops::Range;

use rayon::prelude::*;

/// Partial sums at most.
pub(super) const PARTS: usize = 8;

/// `tasks` in at most `most` ranges of neighbours, to be summed one by one and added up in this order.
pub(super) fn parts(tasks: usize, most: usize) -> impl IndexedParallelIterator<Item = Range<usize>> {
    let parts = tasks.min(most);
    (0..parts).into_par_iter().map(move |part| tasks * part / parts..tasks * (part + 1) / parts)
}
