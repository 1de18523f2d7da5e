//! Python's `re` syntax, as of Python 3.11, in the words of the `regex` and `fancy-regex` crates.
//!
//! The two engines would take most Python patterns as they are, and understand some of them otherwise: `\Z`, `\<`,
//! `[a&&b]`, `x**`, `x++`, `{,3}`, octal escapes, subroutine calls. So a pattern is parsed as Python parses it, and
//! only what has been understood is passed on. Not supported, and refused by name: conditionals, `\N{...}` and the
//! flags `a`, `L` and `x`.
//!
//! What remains different: `$` is the end of the text and nothing else (in Python it is also the place before a line
//! end there, which no module name has), look-behind may be of varying width, and look-around cannot be repeated.

/// The deepest nesting of groups, against patterns made to overflow a stack.
const MAX_NESTING: usize = 64;

/// A pattern for Rust's engines.
pub(super) struct Translated {
    /// The pattern.
    pub(super) pattern: String,
    /// Whether it needs backtracking: look-around, back-references, atomic groups, possessive repetition.
    pub(super) backtracks: bool,
}

/// `pattern`, a Python regular expression, for Rust's engines; or what is wrong with it.
pub(super) fn translate(pattern: &str) -> Result<Translated, String> {
    let mut translator = Translator { rest: pattern, ..Translator::default() };
    while let Some(char) = translator.next() {
        translator.item(char)?;
    }
    if translator.open.is_empty() {
        Ok(Translated { pattern: translator.out, backtracks: translator.backtracks })
    } else {
        Err("missing `)`".into())
    }
}

#[derive(Default)]
struct Translator<'a> {
    rest: &'a str,
    out: String,
    backtracks: bool,
    /// Capturing groups in order, by name.
    captures: Vec<Capture<'a>>,
    /// Open parentheses, with the capture that each is, if any.
    open: Vec<Option<usize>>,
    /// What a repetition would repeat.
    last: Last,
    /// Whether something other than flags and comments has come.
    begun: bool,
}

struct Capture<'a> {
    name: Option<&'a str>,
    closed: bool,
}

#[derive(Clone, Copy, PartialEq, Default)]
enum Last {
    #[default]
    Nothing,
    Item,
    Repetition,
}

/// What a backslash introduces.
enum Escape {
    Char(char),
    /// A class such as `\d`.
    Class(char),
    /// An assertion, as Rust writes it.
    Assertion(&'static str),
    /// A reference to a capture, from 1.
    Reference(usize),
}

impl<'a> Translator<'a> {
    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let char = chars.next()?;
        self.rest = chars.as_str();
        Some(char)
    }

    fn eat(&mut self, prefix: &str) -> bool {
        self.rest.strip_prefix(prefix).map(|rest| self.rest = rest).is_some()
    }

    /// Everything up to `end`, which is eaten as well.
    fn until(&mut self, end: char) -> Result<&'a str, String> {
        let (before, rest) = self.rest.split_once(end).ok_or_else(|| format!("missing `{end}`"))?;
        self.rest = rest;
        Ok(before)
    }

    /// As many characters as are `wanted`, at most `most`.
    fn run(&mut self, most: usize, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.char_indices().take(most).find(|(_, char)| !wanted(*char)).map(|(at, _)| at);
        let end = end.unwrap_or_else(|| self.rest.char_indices().nth(most).map_or(self.rest.len(), |(at, _)| at));
        let (run, rest) = self.rest.split_at(end);
        self.rest = rest;
        run
    }

    fn item(&mut self, char: char) -> Result<(), String> {
        match char {
            '(' => return self.open_group(),
            ')' => self.close_group()?,
            '*' | '+' | '?' => return self.repetition(&char.to_string()),
            '{' => return self.braces(),
            '|' | '^' | '$' => {
                self.out.push(char);
                self.last = Last::Nothing;
            }
            '.' => self.push("."),
            '[' => {
                self.class()?;
                self.last = Last::Item;
            }
            '\\' => match self.escape(false)? {
                Escape::Char(char) => self.push(&literal(char)),
                Escape::Class(class) => self.push(&format!("\\{class}")),
                Escape::Assertion(assertion) => {
                    self.out.push_str(assertion);
                    self.last = Last::Nothing;
                }
                Escape::Reference(number) => self.reference(number)?,
            },
            _ => self.push(&literal(char)),
        }
        self.begun = true;
        Ok(())
    }

    fn push(&mut self, item: &str) {
        self.out.push_str(item);
        self.last = Last::Item;
    }

    fn repetition(&mut self, repetition: &str) -> Result<(), String> {
        match self.last {
            Last::Nothing => return Err(format!("nothing to repeat before `{repetition}`")),
            Last::Repetition => return Err(format!("repetition of a repetition at `{repetition}`")),
            Last::Item => {}
        }
        self.out.push_str(repetition);
        if self.eat("?") {
            self.out.push('?');
        } else if self.eat("+") {
            self.out.push('+');
            self.backtracks = true;
        }
        self.last = Last::Repetition;
        Ok(())
    }

    /// `{m}`, `{m,}`, `{,n}` or `{m,n}`; anything else after a brace makes it a literal one.
    fn braces(&mut self) -> Result<(), String> {
        let before = self.rest;
        let digit = |char: char| char.is_ascii_digit();
        let least = self.run(usize::MAX, digit);
        let comma = self.eat(",");
        let most = if comma { self.run(usize::MAX, digit) } else { least };
        if !self.eat("}") || (least.is_empty() && !comma) {
            self.rest = before;
            self.push("\\{");
            self.begun = true;
            return Ok(());
        }
        let count = |digits: &str| digits.parse::<u32>().map_err(|_| format!("repetition {{{digits}}} is too large"));
        let least = if least.is_empty() { 0 } else { count(least)? };
        if most.is_empty() {
            return self.repetition(&format!("{{{least},}}"));
        }
        let most = count(most)?;
        if most < least {
            return Err(format!("repetition {{{least},{most}}} ends below its begin"));
        }
        self.repetition(&format!("{{{least},{most}}}"))
    }

    fn open_group(&mut self) -> Result<(), String> {
        if !self.eat("?") {
            return self.open_capture(None);
        }
        let kind = self.next().ok_or("missing group kind after `(?`")?;
        match kind {
            'P' if self.eat("<") => {
                let name = self.until('>')?;
                self.open_capture(Some(checked_name(name)?))
            }
            'P' if self.eat("=") => {
                let name = self.until(')')?;
                let number = self.captures.iter().position(|capture| capture.name == Some(name));
                self.begun = true;
                self.reference(number.ok_or_else(|| format!("no group is called `{name}`"))? + 1)
            }
            ':' => self.open("(?:", None),
            '#' => self.until(')').map(|_| ()),
            '=' | '!' => self.open_backtracking(&format!("(?{kind}")),
            '<' if self.eat("=") => self.open_backtracking("(?<="),
            '<' if self.eat("!") => self.open_backtracking("(?<!"),
            '>' => self.open_backtracking("(?>"),
            '(' => Err("conditional groups are not supported".into()),
            '-' | 'a'..='z' | 'L' => self.flags(kind),
            _ => Err(format!("unknown group kind `(?{kind}`")),
        }
    }

    fn open_capture(&mut self, name: Option<&'a str>) -> Result<(), String> {
        if let Some(name) = name.filter(|name| self.captures.iter().any(|capture| capture.name == Some(name))) {
            return Err(format!("two groups are called `{name}`"));
        }
        let opening = name.map_or_else(|| "(".into(), |name| format!("(?P<{name}>"));
        self.captures.push(Capture { name, closed: false });
        self.open(&opening, Some(self.captures.len() - 1))
    }

    fn open_backtracking(&mut self, opening: &str) -> Result<(), String> {
        self.backtracks = true;
        self.open(opening, None)
    }

    fn open(&mut self, opening: &str, capture: Option<usize>) -> Result<(), String> {
        if self.open.len() >= MAX_NESTING {
            return Err(format!("groups are nested deeper than {MAX_NESTING} levels"));
        }
        self.out.push_str(opening);
        self.open.push(capture);
        self.last = Last::Nothing;
        self.begun = true;
        Ok(())
    }

    fn close_group(&mut self) -> Result<(), String> {
        let capture = self.open.pop().ok_or("unbalanced `)`")?;
        if let Some(capture) = capture.and_then(|index| self.captures.get_mut(index)) {
            capture.closed = true;
        }
        self.push(")");
        Ok(())
    }

    /// `(?i)` at the start of the pattern, or `(?i-s:` around a part of it; `first` is the character after `(?`.
    fn flags(&mut self, first: char) -> Result<(), String> {
        let (mut on, mut off) = (String::new(), String::new());
        let mut negated = false;
        let mut flag = Some(first);
        let global = loop {
            match flag.ok_or("missing `)` after flags")? {
                ':' => break false,
                ')' if !negated => break true,
                '-' if !negated => negated = true,
                'u' if !negated => {}
                char @ ('i' | 'm' | 's') => if negated { &mut off } else { &mut on }.push(char),
                char @ ('a' | 'L' | 'x') => return Err(format!("flag `{char}` is not supported")),
                char => return Err(format!("unknown flag `{char}`")),
            }
            flag = self.next();
        };
        if negated && off.is_empty() {
            return Err("missing flag after `-`".into());
        }
        let dash = if negated { "-" } else { "" };
        if !global {
            return self.open(&format!("(?{on}{dash}{off}:"), None);
        }
        if self.begun {
            return Err("flags for the whole pattern must be at its start".into());
        }
        if !on.is_empty() {
            self.out.extend(["(?", &on, ")"]);
        }
        Ok(())
    }

    fn reference(&mut self, number: usize) -> Result<(), String> {
        match number.checked_sub(1).and_then(|index| self.captures.get(index)) {
            None => Err(format!("no group has number {number}")),
            Some(capture) if !capture.closed => Err(format!("group {number} is still open where it is referred to")),
            Some(_) => {
                self.backtracks = true;
                self.push(&format!("(?:\\{number})"));
                Ok(())
            }
        }
    }

    fn escape(&mut self, in_class: bool) -> Result<Escape, String> {
        let char = self.next().ok_or("nothing after `\\`")?;
        Ok(match char {
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => Escape::Class(char),
            'b' if in_class => Escape::Char('\u{8}'),
            'A' if !in_class => Escape::Assertion("\\A"),
            'Z' if !in_class => Escape::Assertion("\\z"),
            'b' if !in_class => Escape::Assertion("\\b"),
            'B' if !in_class => Escape::Assertion("\\B"),
            'a' => Escape::Char('\u{7}'),
            'f' => Escape::Char('\u{c}'),
            'n' => Escape::Char('\n'),
            'r' => Escape::Char('\r'),
            't' => Escape::Char('\t'),
            'v' => Escape::Char('\u{b}'),
            'x' => Escape::Char(self.hexadecimal(2)?),
            'u' => Escape::Char(self.hexadecimal(4)?),
            'U' => Escape::Char(self.hexadecimal(8)?),
            'N' => return Err("named characters, `\\N{...}`, are not supported".into()),
            '0'..='9' => self.number(char, in_class)?,
            char if char.is_ascii_alphabetic() => return Err(format!("unknown escape `\\{char}`")),
            char => Escape::Char(char),
        })
    }

    fn hexadecimal(&mut self, digits: usize) -> Result<char, String> {
        let found = self.run(digits, |char| char.is_ascii_hexdigit());
        if found.len() < digits {
            return Err(format!("incomplete escape, {digits} hexadecimal digits are needed"));
        }
        let code = u32::from_str_radix(found, 16).ok();
        code.and_then(char::from_u32).ok_or_else(|| format!("escape of no character, {found}"))
    }

    /// An octal character (`\0`, `\07`, `\101`) or a reference to a group (`\1`, `\12`), as Python tells them apart.
    fn number(&mut self, first: char, in_class: bool) -> Result<Escape, String> {
        let octal = |char: char| ('0'..='7').contains(&char);
        let before = self.rest;
        let digits = self.run(2, octal);
        if first == '0' || (octal(first) && (in_class || digits.len() == 2)) {
            let code = u32::from_str_radix(&format!("{first}{digits}"), 8).ok().filter(|code| *code <= 0o377);
            let char = code.and_then(char::from_u32);
            return char.map(Escape::Char).ok_or_else(|| format!("octal escape \\{first}{digits} is too large"));
        }
        if in_class {
            return Err(format!("unknown escape `\\{first}`"));
        }
        self.rest = before;
        let second = self.run(1, |char| char.is_ascii_digit());
        format!("{first}{second}").parse().map(Escape::Reference).map_err(|_| "bad group number".into())
    }

    /// The rest of `[...]`.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.eat("^") {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let char = self.next().ok_or("missing `]`")?;
            if char == ']' && !first {
                break;
            }
            first = false;
            let low = self.class_item(char)?;
            if self.rest.starts_with("-]") || !self.eat("-") {
                self.push_class_item(&low);
                continue;
            }
            let char = self.next().ok_or("missing `]`")?;
            let high = self.class_item(char)?;
            let (Escape::Char(low), Escape::Char(high)) = (low, high) else {
                return Err("a range in `[...]` must go from one character to another".into());
            };
            if high < low {
                return Err(format!("range `{low}-{high}` in `[...]` goes backwards"));
            }
            self.out.extend([literal(low), "-".into(), literal(high)]);
        }
        self.out.push(']');
        Ok(())
    }

    fn class_item(&mut self, char: char) -> Result<Escape, String> {
        if char == '\\' { self.escape(true) } else { Ok(Escape::Char(char)) }
    }

    fn push_class_item(&mut self, item: &Escape) {
        match item {
            Escape::Char(char) => self.out.push_str(&literal(*char)),
            Escape::Class(class) => self.out.extend(['\\', *class]),
            Escape::Assertion(_) | Escape::Reference(_) => {}
        }
    }
}

/// `char` for itself, inside a class and outside.
fn literal(char: char) -> String {
    regex::escape(char.encode_utf8(&mut [0; 4]))
}

/// A group's name, which has letters, digits and `_`, and no digit first.
fn checked_name(name: &str) -> Result<&str, String> {
    let word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    if name.is_empty() || name.starts_with(|char: char| char.is_ascii_digit()) || !name.chars().all(word) {
        return Err(format!("bad group name `{name}`"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
