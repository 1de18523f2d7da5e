//! TOML values as JSON, the form in which every configuration is read.

use lowrank::{Error, Result, Subject};
use serde_json::{Map, Number, Value};
use toml::de::DeValue;

use super::in_order;

/// The value in JSON; tables keep the order of the file.
///
/// # Errors
/// For what JSON does not have: dates, NaN, infinity, and whole numbers beyond 64 bits.
pub fn to_json(value: &DeValue<'_>) -> Result<Value> {
    let wrong =
        |found: String, expected: &str| Err(Error::new(Subject::Config, "wrong value").found(found).expected(expected));
    match value {
        DeValue::String(text) => Ok(text.as_ref().into()),
        DeValue::Boolean(flag) => Ok((*flag).into()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Ok(number.into()),
            Err(_) => wrong(number.to_string(), "a number of at most 64 bits"),
        },
        DeValue::Float(number) => match number.as_str().parse().ok().and_then(Number::from_f64) {
            Some(number) => Ok(Value::Number(number)),
            None => wrong(number.to_string(), "a finite number"),
        },
        DeValue::Datetime(date) => wrong(format!("the date {date}"), "a number, text, list or table"),
        DeValue::Array(items) => items.iter().map(|item| to_json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let entries = in_order(table).into_iter();
            let entries = entries.map(|(name, value)| Ok((name.get_ref().to_string(), to_json(value.get_ref())?)));
            entries.collect::<Result<Map<_, _>>>().map(Value::Object)
        }
    }
}
