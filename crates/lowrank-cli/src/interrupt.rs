//! Ctrl-C and SIGTERM: the first lets a run finish its step and save, the second ends the process.

use std::io::{self, IsTerminal as _};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use lowrank::{Error, Result, Subject};

use crate::output::{self, Output};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Takes over both signals, for a command that can stop and save.
///
/// # Errors
/// When the system does not let them be handled.
pub fn install(output: Output) -> Result<()> {
    ctrlc::set_handler(move || {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            process::exit(130);
        }
        if !output.quiet {
            // A terminal has written ^C where the next line would begin.
            let begin = if io::stderr().is_terminal() { "\n" } else { "" };
            output::talk(&format_args!("{begin}interrupted: finishing the step and saving; once more leaves at once"));
        }
    })
    .map_err(|error| Error::new(Subject::Config, format!("cannot handle Ctrl-C: {error}")))
}

/// Whether the user wants to stop.
pub fn requested() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}
