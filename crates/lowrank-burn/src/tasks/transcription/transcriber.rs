//! What a base model for transcription has beside its network.

use std::path::Path;

use lowrank::{Error, Result, Subject, files};
use serde_json::{Map, Value};

use super::TextTokens;
use crate::models::Architecture;
use crate::models::whisper::{Generation, RATE, longest_window};

const GENERATION: &str = "generation_config.json";
/// A configuration is a page of text; more is something else.
const MAX_BYTES: u64 = 1 << 20;

/// How texts are written, from files that transformers has beside `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcriber {
    /// Texts as tokens: `tokenizer.json`.
    pub tokens: TextTokens,
    /// How texts begin and end: `generation_config.json`.
    pub generation: Generation,
    /// The longest window of the network, in seconds.
    pub longest_window: f64,
}

impl Transcriber {
    /// Reads what lies in a base directory beside its `config.json` with these keys.
    ///
    /// # Errors
    /// When a file is missing or wrong.
    pub fn read(keys: &Map<String, Value>, dir: &Path) -> Result<Self> {
        let path = dir.join(GENERATION);
        let text = files::read_to_string(&path, MAX_BYTES)?;
        let generation = Generation::from_json(&text).map_err(|error| error.at(path.display()))?;
        let longest_window = keys.get("max_source_positions").and_then(Value::as_f64).map_or(0.0, longest_window);
        Ok(Self { tokens: TextTokens::read(dir)?, generation, longest_window })
    }

    /// Writes it beside the `config.json` of a base directory.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        self.tokens.write(dir)?;
        files::write(&dir.join(GENERATION), self.generation.to_json().as_bytes())
    }

    /// Checks that a network transcribes, and has positions for the longest texts.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, architecture: &Architecture) -> Result<()> {
        let Architecture::Whisper(config) = architecture else {
            return Err(Error::new(Subject::Model, "the network does not transcribe").at("model_type"));
        };
        if self.generation.max_length > config.max_target_positions {
            let long = Error::new(Subject::Model, "longer than the network's texts").at("max_length").at(GENERATION);
            let expected = format!("at most max_target_positions, {}", config.max_target_positions);
            return Err(long.found(self.generation.max_length).expected(expected));
        }
        Ok(())
    }

    /// Samples a second, in Hz.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub fn rate() -> f64 {
        RATE as f64
    }
}
