//! Patterns of a configuration, ready to be matched against module paths as PEFT matches them.

use super::python::{Translated, translate};
use crate::{Error, Result, Subject};

/// The longest pattern or name, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 10;

/// The most memory one compiled pattern may take, in bytes.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// The most steps a pattern that needs backtracking may go back on one path. A pattern that is quadratic in a path of a
/// hundred characters stays below it.
const MAX_BACKTRACKS: usize = 10_000;

/// What PEFT makes of a pattern `p` before it matches it, from the start of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `target_modules`, `exclude_modules` as a string: `p` against the whole path.
    Path,
    /// A key of `rank_pattern`, `alpha_pattern`: `(.*\.)?(p)$`.
    Key,
    /// A name of `modules_to_save`, to keep adapters off it and what is in it: `(^|.*\.)p($|\..*)`.
    Saved,
    /// An entry of `layers_pattern`: `(?:^|.*?\.)p\.(?P<idx>\d+)\.`.
    Layers,
}

/// The layer that a path is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InLayer {
    /// None: the pattern does not match.
    None,
    /// The pattern matches by an alternative that takes no number.
    Unnumbered,
    /// The one of this number.
    Number(usize),
}

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    source: String,
    matcher: Matcher,
}

#[derive(Debug)]
enum Matcher {
    Plain(PlainName),
    Linear(regex::Regex),
    Backtracking(Box<fancy_regex::Regex>),
}

impl Pattern {
    /// `source`, a Python regular expression, in its `role`.
    ///
    /// # Errors
    /// When it is too long, is no Python regular expression, or compiles to something too large.
    pub(crate) fn new(source: &str, role: Role) -> Result<Self> {
        check_length(source)?;
        let plain = match role {
            Role::Key => PlainName::new(source, Rest::Empty),
            Role::Saved => PlainName::new(source, Rest::Inside),
            Role::Path | Role::Layers => None,
        };
        if let Some(plain) = plain {
            return Ok(Self { source: source.into(), matcher: Matcher::Plain(plain) });
        }
        match role {
            Role::Path => Self::compile(source, source, "\\z"),
            Role::Key => Self::compile(source, &format!(r"(.*\.)?({source})$"), ""),
            Role::Saved => Self::compile(source, &format!(r"(^|.*\.){source}($|\..*)"), ""),
            Role::Layers => Self::compile(source, &format!(r"(?:^|.*?\.){source}\.(?P<idx>\d+)\."), ""),
        }
    }

    /// What stands for `layers_pattern` when there is none: the first number between dots, but not right at the start.
    pub(crate) fn any_layer() -> Result<Self> {
        Self::compile("", r".*?\.[^.]*\.(?P<idx>\d+)\.", "")
    }

    fn compile(source: &str, python: &str, end: &str) -> Result<Self> {
        let wrong = |problem: String| Error::new(Subject::Config, problem).at(format!("pattern `{source}`"));
        let Translated { pattern, backtracks } = translate(python).map_err(wrong)?;
        let pattern = format!(r"\A(?:{pattern}){end}");
        let matcher = if backtracks {
            let built = fancy_regex::RegexBuilder::new(&pattern)
                .backtrack_limit(MAX_BACKTRACKS)
                .delegate_size_limit(MAX_COMPILED_BYTES)
                .delegate_dfa_size_limit(MAX_COMPILED_BYTES)
                .build();
            built.map(|regex| Matcher::Backtracking(Box::new(regex))).map_err(|error| error.to_string())
        } else {
            let built = regex::RegexBuilder::new(&pattern)
                .size_limit(MAX_COMPILED_BYTES)
                .dfa_size_limit(MAX_COMPILED_BYTES)
                .build();
            built.map(Matcher::Linear).map_err(|error| error.to_string())
        };
        // A message of several lines quotes the pattern as compiled, which the reader never wrote: its last line says why.
        let reason =
            |message: String| message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let matcher = matcher.map_err(|message| wrong(format!("cannot be compiled: {}", reason(message))))?;
        Ok(Self { source: source.into(), matcher })
    }

    /// Whether no regular expression engine is needed.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.matcher, Matcher::Plain(_))
    }

    /// Whether the pattern matches `path`.
    ///
    /// # Errors
    /// When it goes back too often to tell.
    pub(crate) fn matches(&self, path: &str) -> Result<bool> {
        match &self.matcher {
            Matcher::Plain(plain) => Ok(plain.matches(path)),
            Matcher::Linear(regex) => Ok(regex.is_match(path)),
            Matcher::Backtracking(regex) => regex.is_match(path).map_err(|error| self.too_slow(path, error)),
        }
    }

    /// The layer that the pattern, one of `layers_pattern`, finds in `path`.
    ///
    /// # Errors
    /// When it goes back too often to tell.
    pub(crate) fn layer(&self, path: &str) -> Result<InLayer> {
        let number = |digits: Option<&str>| digits.and_then(|digits| digits.parse().ok());
        let numbered = |index: Option<usize>| index.map_or(InLayer::Unnumbered, InLayer::Number);
        let found = match &self.matcher {
            Matcher::Plain(plain) => plain.matches(path).then_some(InLayer::Unnumbered),
            Matcher::Linear(regex) => {
                let captures = regex.captures(path);
                captures.map(|captures| numbered(number(captures.name("idx").map(|index| index.as_str()))))
            }
            Matcher::Backtracking(regex) => {
                let captures = regex.captures(path).map_err(|error| self.too_slow(path, error))?;
                captures.map(|captures| numbered(number(captures.name("idx").map(|index| index.as_str()))))
            }
        };
        Ok(found.unwrap_or(InLayer::None))
    }

    fn too_slow(&self, path: &str, error: fancy_regex::Error) -> Error {
        Error::new(Subject::Target, format!("pattern `{}` takes too long to match", self.source))
            .at(format!("module `{path}`"))
            .with_hint(
                "look-around and back-references make the engine try every way: write the pattern without, or simpler",
            )
            .because(error)
    }
}

/// Refuses a pattern or name that is too long to be one.
pub(crate) fn check_length(pattern: &str) -> Result<()> {
    if pattern.len() <= MAX_PATTERN_BYTES {
        return Ok(());
    }
    let start: String = pattern.chars().take(40).collect();
    let error = Error::new(Subject::Config, format!("pattern `{start}...` is too long"));
    Err(error.found(format!("{} bytes", pattern.len())).expected(format!("at most {MAX_PATTERN_BYTES}")))
}

/// A pattern of letters, digits, `_`, `.` (any character), `\.`, with `^` before or `$` behind: what module names look
/// like. Matched without an engine, so that thousands of them cost nothing.
#[derive(Debug)]
struct PlainName {
    /// `None` is any character.
    chars: Vec<Option<char>>,
    /// Whether it matches at the start of a path only, not behind a dot.
    at_start: bool,
    rest: Rest,
}

/// What may follow the name in a path.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rest {
    Empty,
    /// Nothing, or a dot and anything.
    Inside,
}

impl PlainName {
    fn new(pattern: &str, rest: Rest) -> Option<Self> {
        let (at_start, pattern) = pattern.strip_prefix('^').map_or((false, pattern), |pattern| (true, pattern));
        let (rest, pattern) = pattern.strip_suffix('$').map_or((rest, pattern), |pattern| (Rest::Empty, pattern));
        let mut chars = pattern.chars();
        let mut plain = Vec::with_capacity(pattern.len());
        while let Some(char) = chars.next() {
            plain.push(match char {
                '.' => None,
                '\\' => Some(chars.next().filter(|escaped| *escaped == '.')?),
                char if char.is_ascii_alphanumeric() || char == '_' => Some(char),
                _ => return None,
            });
        }
        (!plain.is_empty()).then_some(Self { chars: plain, at_start, rest })
    }

    fn matches(&self, path: &str) -> bool {
        let starts = path.match_indices('.').map(|(dot, _)| dot + 1);
        let starts = std::iter::once(0).chain(starts.filter(|_| !self.at_start));
        starts.filter_map(|start| path.get(start..)).any(|tail| {
            let mut chars = tail.chars();
            let found = self.chars.iter().all(|wanted| match (wanted, chars.next()) {
                (None, found) => found.is_some(),
                (wanted, found) => *wanted == found,
            });
            found && (chars.as_str().is_empty() || (self.rest == Rest::Inside && chars.as_str().starts_with('.')))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(pattern: &str, role: Role, paths: &[&str]) -> Vec<bool> {
        let pattern = Pattern::new(pattern, role).unwrap();
        paths.iter().map(|path| pattern.matches(path).unwrap()).collect()
    }

    #[test]
    fn a_path_pattern_matches_the_whole_path() {
        for pattern in ["conv", "a|conv", "(?=c)conv", "a|c(?=o)onv"] {
            let found = matching(pattern, Role::Path, &["conv", "conv1", "enc.conv", "a"]);
            assert_eq!(&found[..3], [true, false, false], "{pattern}");
            assert_eq!(found[3], pattern.starts_with('a'), "{pattern}");
        }
    }

    #[test]
    fn a_key_matches_at_the_end_behind_a_dot() {
        let paths = ["foo", "a.foo", "afoo", "foo.a", "foox", "a.b.foo"];
        for (pattern, expected) in [
            ("foo", [true, true, false, false, false, true]),
            ("fo+", [true, true, false, false, false, true]),
            ("^foo", [true, false, false, false, false, false]),
            ("^(foo)", [true, false, false, false, false, false]),
            ("foo$", [true, true, false, false, false, true]),
            ("a.foo", [false, true, false, false, false, false]),
            (r"b\.foo", [false, false, false, false, false, true]),
            ("...", [true, true, false, false, false, true]),
            ("....", [false, false, true, false, true, false]),
            ("foo|a", [true, true, false, true, false, true]),
        ] {
            assert_eq!(matching(pattern, Role::Key, &paths), expected, "{pattern}");
        }
    }

    #[test]
    fn plain_names_match_as_their_regular_expressions() {
        let paths =
            ["a", "b", "a.b", "b.a", "ab", "a.b.a", "é.a", "aéa", "a..b", ".a", "a.", "", ".", "ab.a", "a.ab.b"];
        for name in ["a", "b", "^a", "a$", "^a$", "a.b", r"a\.b", "^a.b$", "ab", "..", ".", "^..", r"\.", "a_b", "^.$"]
        {
            for (role, python) in
                [(Role::Key, format!(r"(.*\.)?({name})$")), (Role::Saved, format!(r"(^|.*\.){name}($|\..*)"))]
            {
                let plain = Pattern::new(name, role).unwrap();
                let regex = Pattern::compile(name, &python, "").unwrap();
                assert!(plain.is_plain() && !regex.is_plain());
                for path in paths {
                    assert_eq!(plain.matches(path).unwrap(), regex.matches(path).unwrap(), "{name} {role:?} {path:?}");
                }
            }
        }
    }

    #[test]
    fn an_alternative_in_a_saved_name_stands_alone_as_in_peft() {
        let paths = ["head", "head.fc", "x.head", "tail", "tail.x", "x.tail", "headless"];
        let expected = [true, true, true, true, true, false, true];
        assert_eq!(matching("head|tail", Role::Saved, &paths), expected);
    }

    #[test]
    fn layer_numbers() {
        let index = |pattern: &Pattern, path| pattern.layer(path).unwrap();
        let any = Pattern::any_layer().unwrap();
        assert_eq!(index(&any, "enc.layers.3.experts.0.fc"), InLayer::Number(3), "the first number");
        assert_eq!(index(&any, "layers.3.fc"), InLayer::None, "a number needs two names before it");
        assert_eq!(index(&any, "enc.layers.3"), InLayer::None, "and one behind");
        let layers = Pattern::new("layers", Role::Layers).unwrap();
        assert_eq!(index(&layers, "layers.3.fc"), InLayer::Number(3));
        assert_eq!(index(&layers, "a.layers.3.layers.4.fc"), InLayer::Number(3));
        assert_eq!(index(&layers, "mylayers.3.fc"), InLayer::None);
        let either = Pattern::new("a|b", Role::Layers).unwrap();
        assert_eq!(index(&either, "a.7.x"), InLayer::Unnumbered, "an alternative that takes no number");
        assert_eq!(index(&either, "b.7.x"), InLayer::Number(7));
        assert_eq!(index(&either, "x.b.7.x"), InLayer::None, "nor one that stands anywhere but at the start");
        let ahead = Pattern::new("(?=l)layers", Role::Layers).unwrap();
        assert_eq!(index(&ahead, "x.layers.12.fc"), InLayer::Number(12));
    }

    #[test]
    fn what_cannot_be_compiled_says_why() {
        for (pattern, part) in [
            ("(", "pattern `(`: missing `)`"),
            ("(?x)a", "pattern `(?x)a`: flag `x` is not supported"),
            ("(a{1000}){1000}", "cannot be compiled: Compiled regex exceeds size limit"),
            (&"a".repeat(1025), "is too long: found 1025 bytes, expected at most 1024"),
        ] {
            let error = Pattern::new(pattern, Role::Path).unwrap_err().to_string();
            assert!(error.contains(part), "{pattern}: {error}");
        }
        assert!(Pattern::new("(?i)a", Role::Key).unwrap_err().to_string().contains("at its start"));
    }

    #[test]
    fn hostile_patterns_end() {
        let name = "a".repeat(200);
        for pattern in ["(a+)+b", "(a|a)*b", "(a*)*b", "(?:a?){30}a{30}", "(.*)(.*)(.*)(.*)(.*)[^a!]"] {
            assert!(!Pattern::new(pattern, Role::Path).unwrap().matches(&format!("{name}!")).unwrap(), "{pattern}");
        }
        for pattern in [r"(a|aa)+\1b", r"(?:(?=a)a|a(?=.))*b", r"(a*)*\1b"] {
            let result = Pattern::new(pattern, Role::Path).and_then(|pattern| pattern.matches(&format!("{name}!")));
            let error = result.unwrap_err();
            assert!(error.to_string().contains("takes too long"), "{pattern}: {error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn look_around_that_people_write() {
        let paths = ["encoder.conv1", "decoder.conv1", "encoder.decoder.x", "conv1"];
        assert_eq!(matching(r"^(?!.*decoder).*conv\d+$", Role::Path, &paths), [true, false, false, true]);
        assert_eq!(matching(r".*(?<!decoder)\.conv1", Role::Path, &paths), [true, false, false, false]);
        assert_eq!(matching(r"(\w+)coder\.(?:(?!\1).)*", Role::Path, &paths), [true, true, true, false]);
    }
}
