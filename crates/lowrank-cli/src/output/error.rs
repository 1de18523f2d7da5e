//! Errors as people and as programs read them.

use std::error::Error as _;
use std::fmt::{self, Display};
use std::io;

use lowrank::{Error, Subject};
use serde_json::{Value, json};

use super::{BAD, GOOD, ODD};

/// An error as text: what is wrong, its parts or causes as a list, and after a blank line the remedy.
pub struct Shown<'a>(pub &'a Error);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subject() {
            Subject::Interrupted => write!(f, "{ODD}interrupted:{ODD:#} {}", self.0)?,
            _ => write!(f, "{BAD}error:{BAD:#} {}", self.0)?,
        }
        for part in self.0.parts() {
            list_part(f, part)?;
        }
        for cause in causes(self.0) {
            write!(f, "\n  - {cause}")?;
        }
        match self.0.hint() {
            Some(hint) => write!(f, "\n\n{GOOD}hint:{GOOD:#} {hint}"),
            None => Ok(()),
        }
    }
}

fn list_part(f: &mut fmt::Formatter<'_>, part: &Error) -> fmt::Result {
    if !part.parts().is_empty() {
        return part.parts().iter().try_for_each(|part| list_part(f, part));
    }
    write!(f, "\n  - {part}")?;
    match part.hint() {
        Some(hint) => write!(f, "\n    {GOOD}hint:{GOOD:#} {hint}"),
        None => Ok(()),
    }
}

/// The errors underneath, but for those whose text the error has repeated.
fn causes(error: &Error) -> Vec<String> {
    let (mut causes, mut said) = (Vec::new(), error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // A missing file is told in our own words always.
        let missing = cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound);
        if !missing && !said.contains(&text) {
            causes.push(text.clone());
            said = text;
        }
        source = cause.source();
    }
    causes
}

/// An error as an object: `{"error": {"subject", "message", "hint", "parts", "causes"}}`.
pub fn object(error: &Error) -> Value {
    json!({ "error": fields(error) })
}

fn fields(error: &Error) -> Value {
    json!({
        "subject": subject(error.subject()),
        "message": error.to_string(),
        "hint": error.hint(),
        "parts": error.parts().iter().map(fields).collect::<Vec<_>>(),
        "causes": causes(error),
    })
}

/// A subject in lower case.
fn subject(subject: Subject) -> String {
    format!("{subject:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: &Error) -> String {
        anstream::adapter::strip_str(&Shown(error).to_string()).to_string()
    }

    #[test]
    fn an_error_has_a_list_and_a_hint() {
        let part = |key| Error::new(Subject::Config, "unknown key").at(key);
        let all = Error::all(vec![part("a").with_hint("did you mean `b`?"), part("c")]).unwrap_err().at("x.toml");
        assert_eq!(
            text(&all.with_hint("see the help")),
            "error: x.toml: 2 errors\n  - a: unknown key\n    hint: did you mean `b`?\n  - c: unknown key\n\nhint: see the help"
        );
    }

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let cause = || io::Error::other("disk full");
        assert_eq!(text(&Error::io("x".as_ref(), "write", cause())), "error: x: cannot write: disk full");
        let other = Error::new(Subject::File, "stopped").because(cause());
        assert_eq!(text(&other), "error: stopped\n  - disk full");
        assert_eq!(object(&other)["error"]["causes"], json!(["disk full"]));
    }
}
