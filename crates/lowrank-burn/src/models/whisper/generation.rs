//! How texts begin and end: `generation_config.json`, as transformers writes it.

use lowrank::{Error, Result, Subject};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What generation goes by.
///
/// Read are the keys below, and refused are those of other kinds of generation, unless they are off. All other keys have no
/// effect on a window without time stamps, and are kept: `alignment_heads`, `max_initial_timestamp_index`,
/// `forced_decoder_ids` (which `language` and `task` have replaced) and so on.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// Begins every text: start, language, task, "no time stamps".
    pub prompt: Vec<u32>,
    /// End a text: `eos_token_id`.
    pub ends: Vec<u32>,
    /// Most tokens of a text, prompt and end included: `max_length`.
    pub max_length: usize,
    /// Never said: `suppress_tokens`.
    pub suppressed: Vec<u32>,
    /// Never said first: `begin_suppress_tokens`.
    pub suppressed_first: Vec<u32>,
    /// Power of the length by which beam search divides: `length_penalty`.
    pub length_penalty: f64,
    /// The file as it was read.
    map: Map<String, Value>,
}

/// The keys that are read.
#[derive(Debug, Deserialize)]
struct Keys {
    decoder_start_token_id: u32,
    eos_token_id: OneOrMore,
    max_length: Option<usize>,
    no_timestamps_token_id: Option<u32>,
    suppress_tokens: Option<Vec<u32>>,
    begin_suppress_tokens: Option<Vec<u32>>,
    length_penalty: Option<f64>,
    is_multilingual: Option<bool>,
    language: Option<String>,
    task: Option<String>,
    lang_to_id: Option<Map<String, Value>>,
    task_to_id: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(u32),
    More(Vec<u32>),
}

/// Keys of other kinds of generation, and the values besides `null` at which they are off.
const OFF: [(&str, &[&str]); 11] = [
    ("do_sample", &["false"]),
    ("early_stopping", &["false"]),
    ("return_timestamps", &["false"]),
    ("num_beam_groups", &["1"]),
    ("diversity_penalty", &["0.0", "0"]),
    ("penalty_alpha", &[]),
    ("repetition_penalty", &["1.0", "1"]),
    ("no_repeat_ngram_size", &["0"]),
    ("min_length", &["0"]),
    ("min_new_tokens", &[]),
    ("guidance_scale", &["1.0", "1"]),
];

/// Positions that every published Whisper has for a text.
const MAX_LENGTH: usize = 448;

impl Generation {
    /// Reads a `generation_config.json`.
    ///
    /// # Errors
    /// When it is not JSON, a key is missing or wrong, or another kind of generation is asked for.
    pub fn from_json(text: &str) -> Result<Self> {
        let wrong = |error: serde_json::Error| Error::new(Subject::Model, error.to_string());
        let map: Map<String, Value> = serde_json::from_str(text).map_err(wrong)?;
        Error::all(map.iter().filter_map(|(key, value)| other_kind(key, value)).collect())?;
        let keys: Keys = serde_json::from_value(Value::Object(map.clone())).map_err(wrong)?;
        let prompt = prompt(&keys)?;
        Ok(Self {
            ends: match keys.eos_token_id {
                OneOrMore::One(end) => vec![end],
                OneOrMore::More(ends) => ends,
            },
            max_length: keys.max_length.unwrap_or(MAX_LENGTH),
            suppressed: keys.suppress_tokens.unwrap_or_default(),
            suppressed_first: keys.begin_suppress_tokens.unwrap_or_default(),
            length_penalty: keys.length_penalty.unwrap_or(1.0),
            prompt,
            map,
        })
    }

    /// The file again.
    #[must_use]
    pub fn to_json(&self) -> String {
        format!("{:#}\n", Value::Object(self.map.clone()))
    }

    /// Takes the probability of what may not be said next, after `said` tokens.
    pub(super) fn suppress(&self, said: usize, log_probs: &mut [f32]) {
        let first = self.suppressed_first.iter().filter(|_| said == 0);
        for token in self.suppressed.iter().chain(first) {
            if let Some(log_prob) = log_probs.get_mut(*token as usize) {
                *log_prob = f32::NEG_INFINITY;
            }
        }
    }

    /// Most tokens after the prompt, the end included.
    pub(super) fn room(&self) -> usize {
        self.max_length.saturating_sub(self.prompt.len())
    }
}

fn other_kind(key: &str, value: &Value) -> Option<Error> {
    let (_, off) = OFF.iter().find(|(name, _)| *name == key)?;
    let is_off = value.is_null() || off.contains(&&*value.to_string());
    let error = Error::new(Subject::Model, "this kind of generation is not built").at(key).found(value);
    (!is_off).then(|| error.expected(off.first().copied().unwrap_or("null")))
}

/// Start, language and task of a multilingual model, "no time stamps".
fn prompt(keys: &Keys) -> Result<Vec<u32>> {
    let mut prompt = vec![keys.decoder_start_token_id];
    if keys.is_multilingual.unwrap_or(keys.lang_to_id.is_some()) {
        let language = keys.language.as_deref().ok_or_else(|| {
            let error = Error::new(Subject::Model, "missing").at("language").expected("such as \"it\"");
            error.with_hint("a multilingual Whisper has to be told the language: it is not detected here")
        })?;
        let token = if language.starts_with("<|") { language.to_owned() } else { format!("<|{language}|>") };
        prompt.push(named("lang_to_id", keys.lang_to_id.as_ref(), &token)?);
        let task = keys.task.as_deref().unwrap_or("transcribe");
        prompt.push(named("task_to_id", keys.task_to_id.as_ref(), task)?);
    }
    prompt.extend(keys.no_timestamps_token_id);
    Ok(prompt)
}

/// The token that a table of the file has under a name.
fn named(table: &str, tokens: Option<&Map<String, Value>>, name: &str) -> Result<u32> {
    let token = tokens.and_then(|tokens| tokens.get(name)).and_then(Value::as_u64);
    token.and_then(|token| u32::try_from(token).ok()).ok_or_else(|| {
        let known: Vec<&str> = tokens.iter().flat_map(|tokens| tokens.keys().map(String::as_str)).take(8).collect();
        Error::new(Subject::Model, "no such name").at(table).found(format!("\"{name}\"")).expected(known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Generation> {
        Generation::from_json(text)
    }

    #[test]
    fn the_prompt_of_a_multilingual_model_names_language_and_task() {
        let text = r#"{"decoder_start_token_id": 9, "eos_token_id": [1, 2], "is_multilingual": true, "language": "it",
            "lang_to_id": {"<|it|>": 5}, "task_to_id": {"transcribe": 6}, "no_timestamps_token_id": 7}"#;
        let generation = read(text).unwrap();
        assert_eq!((generation.prompt, generation.ends, generation.max_length), (vec![9, 5, 6, 7], vec![1, 2], 448));
        let message = |from: &str, to: &str| read(&text.replace(from, to)).unwrap_err().to_string();
        assert_eq!(message("\"language\": \"it\",", ""), "language: missing: expected such as \"it\"");
        assert_eq!(message("\"it\"", "\"xx\""), "lang_to_id: no such name: found \"<|xx|>\", expected <|it|>");
    }

    #[test]
    fn other_kinds_of_generation_are_refused_and_the_rest_is_kept() {
        let text =
            r#"{"decoder_start_token_id": 1, "eos_token_id": 0, "do_sample": false, "alignment_heads": [[1, 2]]}"#;
        let kept: Value = serde_json::from_str(&read(text).unwrap().to_json()).unwrap();
        assert_eq!(kept, serde_json::from_str::<Value>(text).unwrap());
        let error = read(&text.replace("false", "true")).unwrap_err().to_string();
        assert_eq!(error, "do_sample: this kind of generation is not built: found true, expected false");
    }
}
