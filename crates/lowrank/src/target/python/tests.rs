//! Patterns as Python parses them.

use super::*;

fn translated(pattern: &str) -> String {
    translate(pattern).map(|translated| translated.pattern).unwrap()
}

#[test]
fn common_patterns_stay_as_they_are() {
    for pattern in [
        r".*\.(q|v)_proj",
        r"(.*\.)?(conv1)$",
        r"(?:^|.*?\.)layers\.(?P<idx>\d+)\.",
        r"encoder\.layers\.[0-3]\.fc[12]",
        r"(?!.*decoder).*conv\d+",
        r"a(?i:b|c)*?d{2,3}\b",
        r"(?s)a.b",
    ] {
        assert_eq!(translated(pattern), pattern);
    }
}

#[test]
fn what_rust_reads_otherwise_is_rewritten() {
    for (python, rust) in [
        (r"a\Z", r"a\z"),
        (r"\<a\>", "<a>"),
        (r"[a&&b]", r"[a\&\&b]"),
        (r"[[]a]", r"[\[]a\]"),
        (r"[]a]", r"[\]a]"),
        (r"[^]-]", r"[^\]\-]"),
        (r"[a-c\-z]", r"[a-c\-z]"),
        (r"[\b]", "[\u{8}]"),
        (r"x{,3}", r"x{0,3}"),
        (r"x{3}", r"x{3,3}"),
        (r"x{,}", r"x{0,}"),
        (r"x{a", r"x\{a"),
        (r"x{}", r"x\{\}"),
        (r"\b{start}", r"\b\{start\}"),
        (r"\101\0", "A\0"),
        (r"(a)\1", r"(a)(?:\1)"),
        (r"(?P<n>a)(?P=n)1", r"(?P<n>a)(?:\1)1"),
        (r"a(?#note)b", "ab"),
        (r"(?u)(?i)a", "(?i)a"),
        (r"\x2e\u00e9\U0001f600", r"\.é😀"),
        (r"#&-~ ", r"\#\&\-\~ "),
    ] {
        assert_eq!(translated(python), rust, "{python}");
    }
}

#[test]
fn only_what_needs_it_backtracks() {
    for (pattern, backtracks) in [
        ("(a|b)*", false),
        ("(?i:a)", false),
        ("a+?", false),
        ("(?=a)", true),
        ("(?<!a)", true),
        ("(?>a)", true),
        ("a++", true),
        (r"(a)\1", true),
    ] {
        assert_eq!(translate(pattern).unwrap().backtracks, backtracks, "{pattern}");
    }
}

#[test]
fn what_python_refuses_is_refused_and_named() {
    for (pattern, part) in [
        ("(a", "missing `)`"),
        ("a)", "unbalanced"),
        ("[a", "missing `]`"),
        ("[]", "missing `]`"),
        ("*a", "nothing to repeat"),
        ("^*", "nothing to repeat"),
        ("a|+", "nothing to repeat"),
        ("a**", "repetition of a repetition"),
        ("a{2}{3}", "repetition of a repetition"),
        ("a{3,2}", "ends below"),
        ("a{99999999999}", "too large"),
        (r"\q", "unknown escape"),
        (r"\p{L}", "unknown escape"),
        (r"\z", "unknown escape"),
        (r"[\A]", "unknown escape"),
        (r"\x4", "incomplete"),
        (r"\ud800", "no character"),
        ("a\\", "nothing after"),
        (r"\1", "no group has number 1"),
        (r"(\1)", "still open"),
        (r"\400", "too large"),
        ("(?P=x)", "no group is called"),
        ("(?P<a>x)(?P<a>y)", "two groups"),
        ("(?P<1>x)", "bad group name"),
        ("(?<name>x)", "unknown group kind"),
        ("(?~a)", "unknown group kind"),
        ("a(?i)", "at its start"),
        ("(?i", "missing `)`"),
        ("(?-i)", "unknown flag"),
        ("(?-:a)", "missing flag"),
        ("(?x)a", "flag `x` is not supported"),
        ("(a)(?(1)b|c)", "conditional groups are not supported"),
        (r"\N{DIGIT ONE}", "not supported"),
        ("[b-a]", "backwards"),
        (r"[\d-a]", "from one character"),
        (&"(".repeat(65), "deeper than 64"),
    ] {
        let message = translate(pattern).err().unwrap_or_default();
        assert!(message.contains(part), "{pattern}: {message:?}");
    }
}
