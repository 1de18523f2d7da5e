//! JSON read strictly: bounded in size and depth, no key twice, and each top-level key's line and column known.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::{Error, Result, Subject};

/// The longest configuration that is read, in bytes. One that names each of 10,000 modules stays below it.
pub const MAX_JSON_BYTES: usize = 1 << 20;

/// The deepest nesting of a configuration that is read. PEFT's own files go three deep.
pub const MAX_DEPTH: usize = 64;

/// The object in `text`.
///
/// # Errors
/// When `text` is too long, is no JSON or no object, nests too deep, or has a key twice. Python reads the last of two
/// equal keys; which one was meant cannot be known.
pub(super) fn object(text: &str, origin: &str) -> Result<Map<String, Value>> {
    if text.len() > MAX_JSON_BYTES {
        return Err(Error::new(Subject::Config, "configuration is too long")
            .at(origin)
            .found(format!("{} bytes", text.len()))
            .expected(format!("at most {MAX_JSON_BYTES}")));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: 0 }.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(Error::new(Subject::Config, "not a configuration")
            .at(origin)
            .found(shown(&other))
            .expected("a JSON object, {...}")),
        Err(error) => Err(Error::new(Subject::Config, format!("cannot read JSON: {error}")).at(origin).because(error)),
    }
}

/// `value` as it stands in a message: JSON, cut when long.
pub(super) fn shown(value: &Value) -> String {
    const LIMIT: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LIMIT) {
        Some((cut, _)) => format!("{}...", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}

/// Line and column, from 1, of each key of the outermost object of `text`, which is valid JSON.
pub(super) fn positions(text: &str) -> HashMap<&str, (usize, usize)> {
    let mut found = HashMap::new();
    let (mut depth, mut line, mut line_start) = (0_usize, 1, 0);
    let mut opened: Option<(usize, usize, usize)> = None;
    let mut last_string = None;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        if let Some((start, line, column)) = opened {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    last_string = text.get(start + 1..at).map(|key| (key, (line, column)));
                    opened = None;
                }
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => opened = Some((at, line, at - line_start + 1)),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b':' if depth == 1 => found.extend(last_string),
            b'\n' => (line, line_start) = (line + 1, at + 1),
            _ => {}
        }
    }
    found
}

/// Reads any JSON value, `depth` levels down.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key `{key}` stands twice")));
            }
            object.insert(key, entries.next_value_seed(inner)?);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        object(text, "adapter_config.json").unwrap_err().to_string()
    }

    #[test]
    fn reads_what_serde_json_reads() {
        let text = r#"{"a": [1, -2, 1.5, 1e300, "\u00e9\n", true, null], "b": {"c": {}}, "d": []}"#;
        assert_eq!(Value::Object(object(text, "x").unwrap()), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn a_key_twice_is_refused_with_its_line() {
        let message = refused("{\n  \"r\": 8,\n  \"r\": 4\n}");
        assert_eq!(message, "adapter_config.json: cannot read JSON: key `r` stands twice at line 3 column 5");
        assert!(refused(r#"{"rank_pattern": {"a": 1, "a": 2}}"#).contains("`a` stands twice"));
        assert!(refused(r#"{"r": 1, "\u0072": 2}"#).contains("`r` stands twice"), "an escape hides no key");
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(object(&nested(MAX_DEPTH), "x").is_ok());
        assert!(refused(&nested(MAX_DEPTH + 1)).contains("nested deeper than 64 levels at line 1 column"));
        assert!(refused(&"[".repeat(MAX_JSON_BYTES)).contains("nested deeper"));
    }

    #[test]
    fn size_is_bounded() {
        assert!(refused(&" ".repeat(MAX_JSON_BYTES + 1)).contains("found 1048577 bytes, expected at most 1048576"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (text, part) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("[1]", "found [1], expected a JSON object"),
            ("{\"r\": NaN}", "line 1 column 7"),
            ("{} {}", "trailing characters"),
            ("{\"r\": 8,}", "trailing comma"),
            ("{\"a\": \"\\ud800\"}", "line 1"),
            ("{\"a\": 1e999}", "number out of range"),
            ("\u{feff}{}", "expected value"),
        ] {
            assert!(refused(text).contains(part), "{text:?}: {}", refused(text));
        }
    }

    #[test]
    fn positions_are_those_of_the_outer_keys() {
        let text = "{\"a\": {\"b\": \"c:\"},\n  \"d\\\"\": [\"e\", {\"f\": 1}], \"g\":\"}\"}";
        let mut found: Vec<_> = positions(text).into_iter().collect();
        found.sort_unstable();
        assert_eq!(found, [("a", (1, 2)), ("d\\\"", (2, 3)), ("g", (2, 27))]);
    }
}
