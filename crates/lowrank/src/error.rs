//! One error type: what is wrong, where, what was found, what was expected, and what to do about it.

use std::fmt;
use std::path::Path;

/// The result of anything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an [`Error`] is about, for callers that react to it rather than print it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// A configuration key or value.
    Config,
    /// A target pattern, or the modules it should have matched.
    Target,
    /// The geometry of a convolution.
    Geometry,
    /// The factors of an adapter: shapes, ranks, kinds.
    Adapter,
    /// An adapter that cannot be merged, or a merge that failed its check.
    Merge,
    /// A file: missing, unreadable, malformed, or in the way.
    File,
    /// Recordings, manifests, labels.
    Data,
    /// A model's architecture or its weights.
    Model,
    /// Training that diverged.
    Diverged,
    /// A run that the user stopped.
    Interrupted,
}

/// Why something could not be done.
///
/// Displays as `PLACE: PROBLEM: found X, expected Y`; the remedy is kept apart in [`Error::hint`] so that a command
/// can set it off. Several errors of one input (a configuration with three wrong keys) are one `Error` with
/// [`Error::parts`].
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    subject: Subject,
    place: Option<String>,
    problem: String,
    found: Option<String>,
    expected: Option<String>,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    parts: Vec<Error>,
}

impl Error {
    /// An error about `subject`; `problem` says what is wrong, in lower case and without a full stop.
    #[must_use]
    pub fn new(subject: Subject, problem: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            subject,
            place: None,
            problem: problem.into(),
            found: None,
            expected: None,
            hint: None,
            source: None,
            parts: Vec::new(),
        }))
    }

    /// A file that cannot be read or written, with the operating system's reason.
    #[must_use]
    pub fn io(path: &Path, action: &str, source: std::io::Error) -> Self {
        Self::new(Subject::File, format!("cannot {action}: {source}")).at(path.display()).because(source)
    }

    /// Where the problem is: a file, a key, a tensor, a module. Called again, it puts the wider place in front.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.0.place = Some(match self.0.place.take() {
            Some(inner) => format!("{place}: {inner}"),
            None => place.to_string(),
        });
        self
    }

    /// What was there.
    #[must_use]
    pub fn found(mut self, found: impl fmt::Display) -> Self {
        self.0.found = Some(found.to_string());
        self
    }

    /// What should have been there.
    #[must_use]
    pub fn expected(mut self, expected: impl fmt::Display) -> Self {
        self.0.expected = Some(expected.to_string());
        self
    }

    /// What the reader can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The error underneath.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// `Ok` when there are no errors, the error itself when there is one, and one error with all of them otherwise.
    ///
    /// # Errors
    /// When `errors` is not empty.
    pub fn all(mut errors: Vec<Self>) -> Result<()> {
        if errors.len() > 1 {
            let mut all = Self::new(errors[0].subject(), format!("{} errors", errors.len()));
            all.0.parts = errors;
            return Err(all);
        }
        errors.pop().map_or(Ok(()), Err)
    }

    /// What the error is about.
    #[must_use]
    pub fn subject(&self) -> Subject {
        self.0.subject
    }

    /// The problem alone, without place, found and expected.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.0.problem
    }

    /// What the reader can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The single errors of a compound one; empty otherwise.
    #[must_use]
    pub fn parts(&self) -> &[Self] {
        &self.0.parts
    }

    /// The single errors of a compound one, with its place in front of theirs; else the error itself.
    #[must_use]
    pub fn into_parts(mut self) -> Vec<Self> {
        if self.0.parts.is_empty() {
            return vec![self];
        }
        let place = self.0.place.take();
        let parts = std::mem::take(&mut self.0.parts).into_iter().flat_map(Self::into_parts);
        parts.map(|part| if let Some(place) = &place { part.at(place) } else { part }).collect()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.0.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.0.problem)?;
        match (&self.0.found, &self.0.expected) {
            (Some(found), Some(expected)) => write!(f, ": found {found}, expected {expected}"),
            (Some(found), None) => write!(f, ": found {found}"),
            (None, Some(expected)) => write!(f, ": expected {expected}"),
            (None, None) => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_place_problem_found_expected() {
        let error = Error::new(Subject::Config, "wrong type")
            .at("r")
            .at("adapter_config.json")
            .found("\"8\"")
            .expected("a whole number");
        assert_eq!(error.to_string(), "adapter_config.json: r: wrong type: found \"8\", expected a whole number");
    }

    #[test]
    fn one_error_stays_itself_and_several_become_one() {
        assert!(Error::all(vec![]).is_ok());
        let one = Error::all(vec![Error::new(Subject::Config, "a")]).unwrap_err();
        assert!(one.parts().is_empty());
        let two = Error::all(vec![Error::new(Subject::Config, "a"), Error::new(Subject::Target, "b")]).unwrap_err();
        assert_eq!((two.parts().len(), two.problem()), (2, "2 errors"));
    }
}
