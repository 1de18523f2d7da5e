//! What the user sees: data on stdout, talk on stderr.

pub mod bar;
pub mod error;
pub mod progress;
pub mod table;
pub mod units;

use std::fmt::Display;
use std::io::{self, Write};

use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;

use crate::commands::Failure;

/// Of headings and what matters.
pub const STRONG: Style = Style::new().bold();
/// Of `error:`, and of what is broken.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Of `warning:`, and of what deserves a look.
pub const ODD: Style = AnsiColor::Yellow.on_default().bold();
/// Of `hint:`, and of what went well.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();

/// How to talk to the user.
///
/// Styles are written always; the streams take them out where nobody would see them as such.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Exactly one JSON object on stdout, at the end.
    pub json: bool,
    /// Nothing on stderr but errors.
    pub quiet: bool,
}

impl Output {
    /// A line of talk.
    pub fn say(self, line: impl Display) {
        if !self.quiet {
            talk(&line);
        }
    }

    /// Something that is probably not meant.
    pub fn warn(self, warning: impl Display) {
        self.say(format_args!("{ODD}warning:{ODD:#} {warning}"));
    }

    /// The result of a command: its text, or it as JSON.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub fn result(self, report: &(impl Serialize + Display)) -> Result<(), Failure> {
        if self.json { object(report) } else { print(report) }
    }
}

/// The JSON object of a command.
///
/// # Errors
/// When stdout cannot be written to.
pub fn object(report: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(report).map_err(|error| Failure::Stdout(error.into()))?;
    print(&format_args!("{text}\n"))
}

/// Data.
///
/// # Errors
/// When stdout cannot be written to.
pub fn print(text: &impl Display) -> Result<(), Failure> {
    let mut stdout = io::BufWriter::new(anstream::stdout().lock());
    write!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(Failure::Stdout)
}

/// A line on stderr. When even that cannot be written to, there is nobody left to tell.
pub fn talk(line: &impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}
