//! JSON as Python's `json.dumps(..., indent=2)` writes it, byte for byte.

use std::fmt::Write;

use serde_json::{Map, Value};

/// `value` on as many lines as Python puts it on, without a line end at the end.
pub(super) fn dumps(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, 0);
    out
}

/// `value` with the keys of every object in it sorted, as `sort_keys=True` has them.
pub(super) fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<_> = object.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(entries.into_iter().collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

fn write_value(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => out.push_str(&float_repr(float)),
            _ => out.push_str(&number.to_string()),
        },
        Value::String(text) => write_string(out, text),
        Value::Array(items) => write_block(out, ['[', ']'], items, indent, |out, item, indent| {
            write_value(out, item, indent);
        }),
        Value::Object(entries) => write_block(out, ['{', '}'], entries, indent, |out, (key, value), indent| {
            write_string(out, key);
            out.push_str(": ");
            write_value(out, value, indent);
        }),
    }
}

fn write_block<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl IntoIterator<Item = T>,
    indent: usize,
    write_item: impl Fn(&mut String, T, usize),
) {
    out.push(open);
    let mut empty = true;
    for item in items {
        out.push_str(if empty { "\n" } else { ",\n" });
        out.extend(std::iter::repeat_n(' ', indent + 2));
        write_item(out, item, indent + 2);
        empty = false;
    }
    if !empty {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent));
    }
    out.push(close);
}

/// Everything outside printable ASCII as `\u` escapes, in UTF-16.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(char),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

/// The shortest digits that read back as `value`, with an exponent below `1e-4` and from `1e16` on.
fn float_repr(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        return format!("{value:?}");
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn floats_are_pythons() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (16.0, "16.0"),
            (0.05, "0.05"),
            (0.1 + 0.2, "0.30000000000000004"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (1e-100, "1e-100"),
            (123_456_789.123, "123456789.123"),
            (1e15, "1000000000000000.0"),
            (9_007_199_254_740_993.0, "9007199254740992.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
        ] {
            assert_eq!(float_repr(value), expected);
        }
    }

    #[test]
    fn strings_are_escaped_to_ascii() {
        let text = dumps(&json!("\"\\/ é\u{7f}😀\n\r\t\u{8}\u{c}\u{1}"));
        assert_eq!(text, r#""\"\\/ \u00e9\u007f\ud83d\ude00\n\r\t\b\f\u0001""#);
    }

    #[test]
    fn blocks_are_indented_and_empty_ones_are_not() {
        let value = sorted(json!({"b": [1, {"z": null, "Y": []}], "a": {}, "é": true}));
        let expected = "{\n  \"a\": {},\n  \"b\": [\n    1,\n    {\n      \"Y\": [],\n      \"z\": null\n    }\n  ],\n  \"\\u00e9\": true\n}";
        assert_eq!(dumps(&value), expected);
    }
}
