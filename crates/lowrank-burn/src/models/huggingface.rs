//! What is common to the checkpoints that transformers writes: keys of every `config.json`, and what stands in other files.

use std::path::Path;

use lowrank::{Error, Result, Subject, files, suggest};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// Keys of every `PreTrainedConfig` that say nothing about what a network computes: they are kept, and written again.
const EVERYWHERE: &[&str] = &[
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dtype",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "problem_type",
    "return_dict",
    "sep_token_id",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_cache",
    "vocab_size",
];

/// The Python class that a checkpoint was saved from: the first of `architectures`.
pub(crate) fn class(keys: &Map<String, Value>) -> Option<&str> {
    keys.get("architectures")?.as_array()?.first()?.as_str()
}

/// A vocabulary of all writing systems has some 100,000 entries.
const MAX_BYTES: u64 = 16 << 20;

/// Adds to the keys of a `config.json` what other files of its directory say of a model of speech: `normalization` and
/// `sampling_rate` as `preprocessor_config.json` has them, `vocab` and `tokenizer` from `vocab.json` and
/// `tokenizer_config.json`.
///
/// # Errors
/// When a file cannot be read, or says that the model does not read what it is given here.
pub(crate) fn complete(keys: &mut Map<String, Value>, dir: &Path) -> Result<()> {
    if !matches!(keys.get("model_type").and_then(Value::as_str), Some("wav2vec2" | "hubert")) {
        return Ok(());
    }
    let front_end = object(dir, "preprocessor_config.json")?.unwrap_or_default();
    let wrong = |key: &str, expected: &str| {
        let error =
            Error::new(Subject::Model, "does not fit").at(key).at(dir.join("preprocessor_config.json").display());
        error.found(&front_end[key]).expected(expected)
    };
    if front_end.get("feature_size").is_some_and(|size| size.as_u64() != Some(1)) {
        return Err(wrong("feature_size", "1"));
    }
    if !keys.contains_key("normalization") {
        let per_window = front_end.get("do_normalize").and_then(Value::as_bool).unwrap_or(true);
        let mut normalization = json!({"mean": [0.0], "std": [1.0]});
        if per_window {
            normalization["per_window"] = true.into();
        }
        keys.insert("normalization".into(), normalization);
    }
    let rate = front_end.get("sampling_rate").and_then(Value::as_f64);
    if let (Some(rate), Some(signal)) = (rate, keys.get("signal"))
        && signal["sample_rate"].as_f64() != Some(rate)
    {
        return Err(wrong("sampling_rate", "the sample_rate of `signal` in config.json"));
    }
    if !class(keys).is_some_and(|class| class.ends_with("ForCTC")) {
        return Ok(());
    }
    if let (Some(rate), None) = (rate, keys.get("sampling_rate")) {
        keys.insert("sampling_rate".into(), rate.into());
    }
    for (key, file) in [("vocab", "vocab.json"), ("tokenizer", "tokenizer_config.json")] {
        if let Some(object) = object(dir, file)? {
            keys.insert(key.into(), object.into());
        }
    }
    Ok(())
}

/// The object in a file; none when there is no such file.
fn object(dir: &Path, name: &str) -> Result<Option<Map<String, Value>>> {
    let path = dir.join(name);
    if !files::exists(&path) {
        return Ok(None);
    }
    let text = files::read_to_string(&path, MAX_BYTES)?;
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::new(Subject::Model, error.to_string()).at(path.display()))
}

/// A configuration of `keys`, whose field `kept` takes what it does not name.
///
/// # Errors
/// When a value is of the wrong kind.
pub(crate) fn parse<T: DeserializeOwned>(model_type: &str, keys: Map<String, Value>) -> Result<T> {
    serde_json::from_value(Value::Object(keys)).map_err(|error| {
        Error::new(Subject::Model, error.to_string())
            .with_hint(format!("see the keys of a `{model_type}`'s config.json"))
    })
}

/// The keys in `kept` that are not known to be without effect, each as an error. `own` are such keys of the architecture
/// itself, `followed` those that it reads.
pub(crate) fn unknown(kept: &Map<String, Value>, own: &[&str], followed: &Map<String, Value>) -> Vec<Error> {
    let known = |key: &str| EVERYWHERE.contains(&key) || own.contains(&key);
    let wrong = kept.keys().filter(|key| !known(key)).map(|key| {
        let error = Error::new(Subject::Model, "unknown key").at(key);
        let names = followed.keys().map(String::as_str).filter(|name| !kept.contains_key(*name));
        match suggest::nearest(key, names) {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None => error.with_hint("a key that changes what the network computes has to be known here"),
        }
    });
    wrong.collect()
}

/// The sizes that are 0, each as an error.
pub(crate) fn zeros<'a>(sizes: impl IntoIterator<Item = (&'a str, usize)>) -> Vec<Error> {
    let zero = |(key, _)| Error::new(Subject::Model, "out of range").at(key).found(0).expected("1 or more");
    sizes.into_iter().filter(|(_, size)| *size == 0).map(zero).collect()
}

/// The probabilities that are none, each as an error.
pub(crate) fn shares<'a>(shares: impl IntoIterator<Item = (&'a str, f64)>) -> Vec<Error> {
    let wrong = |(key, share)| {
        Error::new(Subject::Model, "out of range").at(key).found(share).expected("a number from 0 to below 1")
    };
    shares.into_iter().filter(|(_, share)| !(0.0..1.0).contains(share)).map(wrong).collect()
}
