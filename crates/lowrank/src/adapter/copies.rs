//! The biases that PEFT writes three times.
//!
//! With `bias = "all"` PEFT collects every tensor whose name has `bias` in it. For a module in `modules_to_save` these are
//! the trained bias under the module's own name, the same again as `head.modules_to_save.bias`, and the base's as
//! `head.original_module.bias`. PEFT reads the first; the others are kept so that a file is written as it was.

use std::collections::BTreeMap;

use super::keys::PREFIX;
use super::tensor::Tensor;
use crate::config::{Bias, LoraConfig};
use crate::error::{Error, Result, Subject};

const AGAIN: &str = ".modules_to_save.";
const ORIGINAL: &str = ".original_module.";

/// The names of the copies of the bias `rest` of a module in `modules_to_save`: of its value, and of the base's.
///
/// ```
/// let [again, original] = lowrank::adapter::copies::names("head", "bias");
/// assert_eq!([again.as_str(), original.as_str()], ["head.modules_to_save.bias", "head.original_module.bias"]);
/// ```
#[must_use]
pub fn names(module: &str, rest: &str) -> [String; 2] {
    [AGAIN, ORIGINAL].map(|middle| format!("{module}{middle}{rest}"))
}

/// Takes the copies out of the tensors of a file.
///
/// # Errors
/// When a value and its copy differ: PEFT would take one of the two without a word.
pub(super) fn split(tensors: &mut BTreeMap<String, Tensor>, config: &LoraConfig) -> Result<BTreeMap<String, Tensor>> {
    if config.bias != Bias::All {
        return Ok(BTreeMap::new());
    }
    let of = |key: &str, middle: &str| Some(key.replacen(middle, ".", 1)).filter(|name| name != key);
    let mut errors = Vec::new();
    let found = tensors.iter().filter(|(key, _)| key.ends_with("bias")).filter_map(|(key, tensor)| {
        if let Some(first) = of(key, AGAIN).and_then(|name| tensors.get(&name)) {
            if first != tensor {
                errors.push(
                    Error::new(Subject::Adapter, "another value than that of the same bias without `modules_to_save`")
                        .at(format_args!("tensor `{key}`"))
                        .with_hint("save the adapter again with PEFT's `save_pretrained`"),
                );
            }
            return Some(key.clone());
        }
        of(key, ORIGINAL).filter(|name| tensors.contains_key(name)).map(|_| key.clone())
    });
    let found: Vec<String> = found.collect();
    Error::all(errors)?;
    let name = |key: &str| key.strip_prefix(PREFIX).unwrap_or(key).to_owned();
    Ok(found.into_iter().filter_map(|key| tensors.remove(&key).map(|tensor| (name(&key), tensor))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::FloatType;

    fn tensors(named: &[(&str, f32)]) -> BTreeMap<String, Tensor> {
        let tensor = |value| Tensor::from_values(FloatType::F32, vec![1], &[value]).unwrap();
        named.iter().map(|(name, value)| (format!("{PREFIX}{name}"), tensor(*value))).collect()
    }

    #[test]
    fn copies_of_a_bias_are_told_from_names_that_only_look_like_them() {
        let all = LoraConfig { bias: Bias::All, ..LoraConfig::default() };
        let file = [
            ("head.bias", 1.0),
            ("head.modules_to_save.bias", 1.0),
            ("head.original_module.bias", 2.0),
            // The adapter's name is in the key of this one.
            ("head.modules_to_save.default.bias", 1.0),
            ("conv.bias", 3.0),
        ];
        let mut left = tensors(&file);
        let copies = split(&mut left, &all).unwrap();
        assert_eq!(copies.keys().collect::<Vec<_>>(), ["head.modules_to_save.bias", "head.original_module.bias"]);
        assert_eq!(left.len(), 3);
        assert!(split(&mut tensors(&file), &LoraConfig::default()).unwrap().is_empty(), "nothing else writes them");

        let error = split(&mut tensors(&[("head.bias", 1.0), ("head.modules_to_save.bias", 2.0)]), &all).unwrap_err();
        assert!(error.to_string().contains("head.modules_to_save.bias"), "{error}");
    }
}
