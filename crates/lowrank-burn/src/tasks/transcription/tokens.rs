//! Texts as tokens and back: a `tokenizer.json`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use lowrank::{Error, Result, Subject, files};
use tokenizers::Tokenizer;

/// The file's name in a base directory.
const FILE: &str = "tokenizer.json";
/// Bytes of a `tokenizer.json`; those of multilingual models have a few million.
const MAX_BYTES: u64 = 64 << 20;

/// A tokenizer, and the file that it was read from.
#[derive(Clone)]
pub struct TextTokens {
    text: Arc<str>,
    tokenizer: Arc<Tokenizer>,
}

impl TextTokens {
    /// Reads the `tokenizer.json` of a base directory.
    ///
    /// # Errors
    /// When it is missing, or not a tokenizer.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let text = files::read_to_string(&path, MAX_BYTES)?;
        let tokenizer = text.parse::<Tokenizer>().map_err(|error| wrong(&*error).at(path.display()))?;
        Ok(Self { text: text.into(), tokenizer: Arc::new(tokenizer) })
    }

    /// Writes it into a base directory.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        files::write(&dir.join(FILE), self.text.as_bytes())
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens of a text as Whisper writes it, after a space; no special ones are added.
    ///
    /// # Errors
    /// When the tokenizer cannot take the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode(format!(" {}", text.trim()), false).map_err(|error| wrong(&*error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of tokens, special ones left out, without space around it.
    ///
    /// # Errors
    /// When the tokenizer cannot take the tokens.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let text = self.tokenizer.decode(tokens, true).map_err(|error| wrong(&*error))?;
        Ok(text.trim().to_owned())
    }
}

fn wrong(error: &(dyn std::error::Error + Send + Sync)) -> Error {
    Error::new(Subject::Model, format!("the tokenizer does not work: {error}"))
}

impl PartialEq for TextTokens {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for TextTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextTokens").field("tokens", &self.len()).finish_non_exhaustive()
    }
}
