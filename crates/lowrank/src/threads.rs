//! Threads that compute.
//!
//! A model hands the threads of rayon's pool some hundred pieces of work, one after the other, and so does a kernel some.
//! In between they would fall asleep, and to wake one takes as long as a small piece of work does.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::Yield;

/// Threads that are kept awake: the kernels cut most of their work into eight pieces.
const MOST: usize = 8;
/// How long they look for more after the last piece of work.
const LINGER: Duration = Duration::from_micros(200);

/// Pieces of work that keep threads awake.
static WORKING: AtomicUsize = AtomicUsize::new(0);
/// Threads that look for work.
static LOOKING: AtomicUsize = AtomicUsize::new(0);
/// When the last piece of work ended, in nanoseconds since [`BEGIN`].
static ENDED: AtomicU64 = AtomicU64::new(0);
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Makes the calling thread one of rayon's global pool: for the main thread of a program, which then has nothing to hand
/// over. A pool that is there already stays as it is.
///
/// Another thread that waits for the pool must not be waited for: in a pool of one there would be nobody to work.
pub fn take_part() {
    // An error says that there is a pool.
    drop(rayon::ThreadPoolBuilder::new().use_current_thread().build_global());
}

/// Runs `work` on a thread of rayon's pool, which this one may be, and keeps up to eight threads of the pool awake until
/// shortly after.
///
/// The kernels of convolutions and linear layers do so themselves; around a whole step, nothing is handed over in between.
/// Threads that are awake look for work over and over, and let any other process go first; a processor with nothing else to
/// do is busy meanwhile, as with the threads of `PyTorch`.
pub fn awake<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if rayon::current_thread_index().is_some() {
        let _working = Working::begin();
        return work();
    }
    rayon::scope(|_| {
        let _working = Working::begin();
        work()
    })
}

/// A piece of work, until it is dropped, also in a panic.
struct Working;

impl Working {
    /// On a thread of the pool.
    fn begin() -> Self {
        WORKING.fetch_add(1, Ordering::Relaxed);
        let threads = rayon::current_num_threads().min(MOST);
        let looking = LOOKING.fetch_max(threads, Ordering::Relaxed);
        (looking..threads).for_each(|_| rayon::spawn(look));
        Self
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        ENDED.store(since_begin(), Ordering::Relaxed);
        WORKING.fetch_sub(1, Ordering::Relaxed);
    }
}

fn since_begin() -> u64 {
    u64::try_from(BEGIN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Looks for work once, and leaves the same task behind. It must not wait for the end itself: it may have been taken up by a
/// thread that waits for a piece of the work.
fn look() {
    let lingers = || Duration::from_nanos(since_begin().saturating_sub(ENDED.load(Ordering::Relaxed))) < LINGER;
    if WORKING.load(Ordering::Relaxed) == 0 && !lingers() {
        LOOKING.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    if rayon::yield_now() != Some(Yield::Executed) {
        std::thread::yield_now();
    }
    rayon::spawn(look);
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
    fn work_from_outside_goes_to_the_pool() {
        let index = std::thread::spawn(|| (rayon::current_thread_index(), awake(rayon::current_thread_index)));
        let (outside, inside) = index.join().unwrap();
        assert!(outside.is_none() && inside.is_some(), "{outside:?} {inside:?}");
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
