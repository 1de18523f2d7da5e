//! Threads of a process that trains.
//!
//! A training step hands the threads of the pool some hundred pieces of work, one after the other. In between they fall
//! asleep, and to wake one takes as long as a small piece of work does.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::{Scope, Yield};

/// Threads that are kept awake beside the one that works: the kernels cut most of their work into eight pieces.
const MOST: usize = 7;

/// Runs `work` on a thread of rayon's pool, and keeps up to seven others awake until it is done.
///
/// They look for work over and over, and let any other process go first; a processor with nothing else to do is busy
/// meanwhile, as with the threads of `PyTorch`.
pub fn awake<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let done = AtomicBool::new(false);
    rayon::scope(|scope| {
        let _done = Done(&done);
        (1..rayon::current_num_threads()).take(MOST).for_each(|_| scope.spawn(|scope| look(scope, &done)));
        work()
    })
}

/// Looks for work once, and leaves the same task behind. It must not wait for the end itself: it may have been taken up by a
/// thread that waits for a piece of the work.
fn look<'s>(scope: &Scope<'s>, done: &'s AtomicBool) {
    if done.load(Ordering::Acquire) {
        return;
    }
    if rayon::yield_now() != Some(Yield::Executed) {
        std::thread::yield_now();
    }
    scope.spawn(|scope| look(scope, done));
}

/// Says so when it goes, also in a panic.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    fn on<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
    }

    /// Pieces within pieces, so that threads wait for each other while they are kept awake.
    fn sum(values: &[u64], depth: usize) -> u64 {
        match (depth, values) {
            (0, _) | (_, [] | [_]) => values.par_iter().sum(),
            _ => {
                let (left, right) = values.split_at(values.len() / 2);
                let (left, right) = rayon::join(|| sum(left, depth - 1), || sum(right, depth - 1));
                left + right
            }
        }
    }

    #[test]
    fn work_within_work_ends_on_any_number_of_threads() {
        let values: Vec<u64> = (0..1000).collect();
        for threads in [1, 2, 3, 8] {
            for _ in 0..50 {
                assert_eq!(on(threads, || awake(|| sum(&values, 6))), 499_500);
            }
        }
    }

    #[test]
    fn awake_within_awake() {
        assert_eq!(on(3, || awake(|| awake(|| (0..100).into_par_iter().map(|at| awake(|| at)).sum::<u64>()))), 4950);
    }

    #[test]
    fn a_panic_ends_it() {
        let run = || on(3, || awake(|| (0..10).into_par_iter().for_each(|at| assert!(at != 7, "seven"))));
        let panic = std::panic::catch_unwind(run).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"seven"));
    }
}
