//! The characters of a recogniser: `vocab.json`, as transformers' `Wav2Vec2CTCTokenizer` has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lowrank::{Error, Result, Subject, files};
use serde_json::{Map, Value};

/// Which output stands for which character.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary {
    /// The files' own objects, to write them again.
    vocab: Map<String, Value>,
    tokenizer: Option<Map<String, Value>>,
    tokens: BTreeMap<usize, String>,
    ids: BTreeMap<String, usize>,
    blank: usize,
    word_delimiter: String,
    /// Texts are put into upper case before they are looked up, and come out in lower case: transformers' `do_lower_case`.
    lower_case: bool,
}

impl Vocabulary {
    /// A vocabulary of the objects in `vocab.json` and `tokenizer_config.json`; `blank` is the id of the CTC blank, and
    /// `outputs` are those of the network.
    ///
    /// # Errors
    /// When `vocab` is not a map from tokens to ids (one of several languages is not), or an id is taken twice.
    pub fn new(
        vocab: Map<String, Value>,
        tokenizer: Option<Map<String, Value>>,
        blank: usize,
        outputs: usize,
    ) -> Result<Self> {
        let (mut tokens, mut ids, mut errors) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for (token, id) in &vocab {
            let Some(number) = id.as_u64().and_then(|id| usize::try_from(id).ok()) else {
                let error = Error::new(Subject::Model, "not an id").at(token).at("vocab.json").found(id);
                errors.push(error.with_hint("a vocabulary of several languages has to be cut down to one"));
                continue;
            };
            if let Some(other) = tokens.insert(number, token.clone()) {
                let error = Error::new(Subject::Model, "an id twice").at("vocab.json").found(number);
                errors.push(error.expected(format!("one token for it, and there are `{other}` and `{token}`")));
            }
            // Tokens that are added past the outputs (`<s>`) can neither be said nor be heard.
            if number < outputs && number != blank {
                ids.insert(token.clone(), number);
            }
        }
        Error::all(errors)?;
        let setting = |key: &str| tokenizer.as_ref().and_then(|keys| keys.get(key));
        let word_delimiter = setting("word_delimiter_token").and_then(Value::as_str).unwrap_or("|").to_owned();
        let lower_case = setting("do_lower_case").and_then(Value::as_bool).unwrap_or(false);
        Ok(Self { vocab, tokenizer, tokens, ids, blank, word_delimiter, lower_case })
    }

    /// The id of the CTC blank.
    #[must_use]
    pub fn blank(&self) -> usize {
        self.blank
    }

    /// The ids of a text: the longest tokens that fit, one after the other, words apart by the word delimiter.
    ///
    /// # Errors
    /// When a character is not in the vocabulary; all of them are named. transformers takes `<unk>` for these.
    pub fn encode(&self, text: &str) -> Result<Vec<usize>> {
        let text = if self.lower_case { text.to_uppercase() } else { text.to_owned() };
        let text = text.split_whitespace().collect::<Vec<_>>().join(&self.word_delimiter);
        let (mut rest, mut ids, mut strange) = (text.as_str(), Vec::new(), BTreeSet::new());
        while let Some(first) = rest.chars().next() {
            let longest = self.ids.iter().filter(|(token, _)| rest.starts_with(token.as_str()) && !token.is_empty());
            let length = if let Some((token, id)) = longest.max_by_key(|(token, _)| token.len()) {
                ids.push(*id);
                token.len()
            } else {
                strange.insert(first);
                first.len_utf8()
            };
            rest = &rest[length..];
        }
        if strange.is_empty() {
            return Ok(ids);
        }
        let error = Error::new(Subject::Data, "characters that are not in vocab.json")
            .found(strange.iter().map(|c| format!("\"{c}\"")).collect::<Vec<_>>().join(", "));
        let changed = |c: &char| c.to_uppercase().chain(c.to_lowercase()).map(String::from).collect::<Vec<_>>();
        let other_case = |c: &char| changed(c).iter().any(|other| self.ids.contains_key(other));
        Err(if strange.iter().any(other_case) {
            error.with_hint("the vocabulary has them in the other case: write the texts as it does")
        } else {
            error.with_hint("write the texts in the characters of the vocabulary, numbers and signs as words")
        })
    }

    /// The text of ids, without blanks among them, as transformers' tokenizer decodes them.
    #[must_use]
    pub fn decode(&self, ids: &[usize]) -> String {
        let text: String = ids.iter().map(|id| self.character(*id)).collect();
        let text = text.trim();
        if self.lower_case { text.to_lowercase() } else { text.to_owned() }
    }

    /// Whether an id stands between words.
    #[must_use]
    pub fn is_delimiter(&self, id: usize) -> bool {
        self.tokens.get(&id) == Some(&self.word_delimiter)
    }

    fn character(&self, id: usize) -> &str {
        match self.tokens.get(&id) {
            Some(token) if *token == self.word_delimiter => " ",
            Some(token) => token,
            None => "<unk>",
        }
    }

    /// Writes `vocab.json`, and `tokenizer_config.json` where there was one, beside a `config.json`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let named = [("vocab.json", Some(&self.vocab)), ("tokenizer_config.json", self.tokenizer.as_ref())];
        for (name, keys) in named {
            let Some(keys) = keys else { continue };
            files::write(&dir.join(name), format!("{:#}\n", Value::Object(keys.clone())).as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn vocabulary(tokenizer: &Value) -> Vocabulary {
        let vocab = json!({"<pad>": 0, "<s>": 1, "|": 2, "A": 3, "B": 4, "CH": 5, "C": 6, "H": 7, "<extra>": 8});
        Vocabulary::new(vocab.as_object().unwrap().clone(), tokenizer.as_object().cloned(), 0, 8).unwrap()
    }

    #[test]
    fn texts_become_ids_and_texts_again() {
        let words = vocabulary(&Value::Null);
        assert_eq!(words.encode(" AB  CHC ").unwrap(), [3, 4, 2, 5, 6]);
        assert_eq!(words.decode(&[2, 3, 4, 2, 5, 6, 2]), "AB CHC");
        let lower = vocabulary(&json!({"do_lower_case": true, "word_delimiter_token": "|"}));
        assert_eq!(lower.encode("ab").unwrap(), [3, 4]);
        assert_eq!(lower.decode(&[3, 4]), "ab");
    }

    #[test]
    fn strange_characters_are_named() {
        let words = vocabulary(&Value::Null);
        let error = words.encode("aX A?").unwrap_err();
        assert_eq!(error.to_string(), "characters that are not in vocab.json: found \"?\", \"X\", \"a\"");
        assert_eq!(error.hint(), Some("the vocabulary has them in the other case: write the texts as it does"));
        // Neither the blank nor what has no output can be written.
        assert!(words.encode("<pad>").is_err() && words.encode("<extra>").is_err());
        let nested = json!({"eng": {"a": 1}}).as_object().unwrap().clone();
        let error = Vocabulary::new(nested, None, 0, 8).unwrap_err();
        assert!(error.to_string().starts_with("vocab.json: eng: not an id"), "{error}");
    }
}
