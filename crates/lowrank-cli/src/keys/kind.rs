//! What the value of a key is, in a run file and as the text of a flag.

use serde_json::{Map, Value};

/// What the value of a key is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// True or false.
    Flag,
    /// A whole number, not negative.
    Whole,
    /// A number.
    Number,
    /// One of some words.
    Word(&'static [&'static str]),
    /// True, false, or a name that the configuration of adapters judges.
    Init,
    /// A path; one in a run file is relative to the file.
    Path,
    /// Whole numbers.
    Wholes,
    /// Numbers.
    Numbers,
    /// Names.
    Names,
    /// Names, or a pattern for whole paths.
    Modules,
    /// A number for each of some names.
    Pairs,
}

impl Kind {
    /// The value a flag's text stands for.
    ///
    /// # Errors
    /// What the text should have been.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        let wrong = || format!("expected {}", self.expected());
        match self {
            Self::Flag | Self::Word(_) | Self::Path => Ok(text.into()),
            Self::Init => Ok(text.parse().map_or_else(|_| text.into(), Value::Bool)),
            Self::Whole => whole(text).ok_or_else(wrong),
            Self::Number => number(text).ok_or_else(wrong),
            Self::Wholes => text.split(',').map(whole).collect::<Option<_>>().map(Value::Array).ok_or_else(wrong),
            Self::Numbers => text.split(',').map(number).collect::<Option<_>>().map(Value::Array).ok_or_else(wrong),
            Self::Modules if text.starts_with("all-") || !text.chars().all(in_names) => Ok(text.into()),
            Self::Names | Self::Modules => Ok(text.split(',').map(|name| Value::from(name.trim())).collect()),
            Self::Pairs => pairs(text).map(Value::Object).ok_or_else(wrong),
        }
    }

    /// Whether a run file may have this value.
    pub fn accepts(self, value: &Value) -> bool {
        let all = |one: fn(&Value) -> bool| value.as_array().is_some_and(|values| values.iter().all(one));
        match self {
            Self::Flag => value.is_boolean(),
            Self::Init => value.is_boolean() || value.is_string(),
            Self::Whole => value.is_u64(),
            Self::Number => value.is_number(),
            Self::Word(known) => value.as_str().is_some_and(|word| known.contains(&word)),
            Self::Path => value.as_str().is_some_and(|path| !path.is_empty()),
            Self::Wholes => all(Value::is_u64),
            Self::Numbers => all(Value::is_number),
            Self::Names => all(Value::is_string),
            Self::Modules => value.is_string() || all(Value::is_string),
            Self::Pairs => value.as_object().is_some_and(|pairs| pairs.values().all(Value::is_number)),
        }
    }

    /// What a value should be, in words.
    pub fn expected(self) -> String {
        match self {
            Self::Flag => "true or false".into(),
            Self::Init => "true, false or a name".into(),
            Self::Whole => "a whole number, not negative".into(),
            Self::Number => "a number".into(),
            Self::Word(known) => known.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "),
            Self::Path => "a path".into(),
            Self::Wholes => "whole numbers".into(),
            Self::Numbers => "numbers".into(),
            Self::Names => "names".into(),
            Self::Modules => "names, or one pattern".into(),
            Self::Pairs => "a number for each name".into(),
        }
    }
}

/// What a list of module names is made of; a text with anything else is a regular expression.
fn in_names(char: char) -> bool {
    char.is_alphanumeric() || matches!(char, '_' | '-' | '.' | ',' | ' ')
}

fn whole(text: &str) -> Option<Value> {
    text.trim().parse::<u64>().ok().map(Value::from)
}

/// A whole number stays one: ranks are whole.
fn number(text: &str) -> Option<Value> {
    let finite = |text: &str| text.parse().ok().and_then(serde_json::Number::from_f64).map(Value::Number);
    whole(text).or_else(|| finite(text.trim()))
}

/// `name=number,..`, in order.
fn pairs(text: &str) -> Option<Map<String, Value>> {
    let pair =
        |text: &str| text.rsplit_once('=').and_then(|(name, value)| Some((name.trim().to_owned(), number(value)?)));
    text.split(',').map(pair).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_of_flags_become_values() {
        assert_eq!(Kind::Whole.parse("8"), Ok(json!(8)));
        assert_eq!(Kind::Number.parse("-1e-3"), Ok(json!(-1e-3)));
        assert_eq!(Kind::Numbers.parse("0.9, 0.95"), Ok(json!([0.9, 0.95])));
        assert_eq!(Kind::Pairs.parse("^conv1=4,head=16"), Ok(json!({"^conv1": 4, "head": 16})));
        assert_eq!(Kind::Modules.parse("conv1,conv2"), Ok(json!(["conv1", "conv2"])));
        assert_eq!(Kind::Modules.parse("head"), Ok(json!(["head"])));
        assert_eq!(Kind::Modules.parse("all-conv"), Ok(json!("all-conv")));
        assert_eq!(Kind::Modules.parse(r"blocks\.\d+\.conv1"), Ok(json!(r"blocks\.\d+\.conv1")));
        assert_eq!(Kind::Init.parse("false"), Ok(json!(false)));
        assert_eq!(Kind::Init.parse("pissa_niter_4"), Ok(json!("pissa_niter_4")));
        assert_eq!(Kind::Whole.parse("-1"), Err("expected a whole number, not negative".into()));
        assert_eq!(Kind::Number.parse("nan"), Err("expected a number".into()));
        assert_eq!(Kind::Pairs.parse("head"), Err("expected a number for each name".into()));
    }
}
