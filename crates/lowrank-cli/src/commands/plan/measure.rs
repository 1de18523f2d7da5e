//! How long a step takes: a few real ones, thrown away.

use std::env;
use std::process;
use std::time::Instant;

use lowrank::files::storage::{Disk, Storage as _};
use lowrank::{Result, Subject};
use lowrank_burn::train::{self, Event, Observer, Run};

use super::report::Data;

/// Steps that are taken: the first warms up, the others count.
const STEPS: usize = 3;

/// A run evaluates before its first step; when that takes more batches, it is not worth the wait.
const TEST_BATCHES: usize = 50;

/// Whether measuring takes no longer than reading the recordings did, more or less.
pub fn cheap(data: &Data) -> bool {
    data.test_batches() <= TEST_BATCHES
}

/// Takes the first steps of `run`, in a folder of their own that is removed. `None` when the run is over before that.
///
/// # Errors
/// As a run, but that it was stopped.
pub fn seconds_per_step(mut run: Run) -> Result<Option<f64>> {
    run.output = env::temp_dir().join(format!("lowrank-plan-{}", process::id()));
    let mut clock = Clock::default();
    let done = train::run(&run, &mut clock);
    // What stays behind in the system's temporary folder harms nobody.
    let _ = Disk.remove(&run.output);
    match done {
        Err(error) if error.subject() != Subject::Interrupted => Err(error),
        _ => Ok(clock.mean()),
    }
}

/// Stops a run after some steps, and keeps when each was done.
#[derive(Default)]
struct Clock {
    done: Vec<Instant>,
}

impl Clock {
    fn mean(&self) -> Option<f64> {
        let (first, last) = (self.done.first()?, self.done.last()?);
        let steps = u32::try_from(self.done.len() - 1).ok().filter(|steps| *steps > 0)?;
        Some(last.duration_since(*first).as_secs_f64() / f64::from(steps))
    }
}

impl Observer for Clock {
    fn event(&mut self, event: &Event<'_>) {
        if matches!(event, Event::Step { .. } | Event::Skipped { .. }) {
            self.done.push(Instant::now());
        }
    }

    fn interrupted(&self) -> bool {
        self.done.len() >= STEPS
    }
}
