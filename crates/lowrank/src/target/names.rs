//! Names and patterns that stand for modules.

use std::collections::HashMap;

use super::pattern::{Pattern, Role};
use crate::Result;
use crate::config::Patterns;

/// One pattern for whole paths, or a list of names.
#[derive(Debug)]
pub(super) enum Names<'a> {
    Regex(Pattern),
    /// Each name with its place in the list.
    List(HashMap<&'a str, usize>),
}

/// The entries that match a path.
#[derive(Debug, Default)]
pub(super) struct Hits {
    /// Their places, in order.
    pub(super) entries: Vec<usize>,
    /// The place of the entry that is the path itself.
    pub(super) exact: Option<usize>,
}

impl Hits {
    /// The entry that counts: the path itself if it is listed, else the first.
    pub(super) fn first(&self) -> Option<usize> {
        self.exact.or_else(|| self.entries.first().copied())
    }
}

impl<'a> Names<'a> {
    pub(super) fn new(patterns: &'a Patterns) -> Result<Self> {
        Ok(match patterns {
            Patterns::Regex(pattern) => Self::Regex(Pattern::new(pattern, Role::Path)?),
            // In reverse, so that the first of two equal names is the one that stays.
            Patterns::List(names) => {
                Self::List(names.iter().enumerate().rev().map(|(place, name)| (name.as_str(), place)).collect())
            }
        })
    }

    /// The entries that match `path`: `re.fullmatch` for a pattern, equality or the end behind a dot for a name.
    pub(super) fn hits(&self, path: &str) -> Result<Hits> {
        Ok(match self {
            Self::Regex(pattern) => Hits { entries: vec![0; usize::from(pattern.matches(path)?)], exact: None },
            Self::List(names) => {
                let exact = names.get(path).copied();
                let mut entries: Vec<_> = ends(path).filter_map(|end| names.get(end)).copied().chain(exact).collect();
                entries.sort_unstable();
                Hits { entries, exact }
            }
        })
    }
}

/// The parts of a path behind each of its dots: `b.c` and `c` of `a.b.c`.
pub(super) fn ends(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('.').filter_map(|(dot, _)| path.get(dot + 1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_whole_paths_and_ends() {
        let patterns = Patterns::List(["c", "b.c", "a.b.c", "b.c"].map(Into::into).to_vec());
        let names = Names::new(&patterns).unwrap();
        let hits = |path| names.hits(path).unwrap();
        assert_eq!((hits("a.b.c").entries, hits("a.b.c").exact), (vec![0, 1, 2], Some(2)));
        assert_eq!(hits("a.b.c").first(), Some(2));
        assert_eq!((hits("x.b.c").entries, hits("x.b.c").first()), (vec![0, 1], Some(0)));
        assert!(hits("bc").entries.is_empty());
        assert!(hits("c.d").entries.is_empty());
    }

    #[test]
    fn a_pattern_has_one_entry() {
        let patterns = Patterns::Regex("a|b".into());
        let names = Names::new(&patterns).unwrap();
        assert_eq!(names.hits("a").unwrap().entries, [0]);
        assert_eq!(names.hits("c").unwrap().first(), None);
    }
}
