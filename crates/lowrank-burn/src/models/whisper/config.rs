//! The `config.json` of a Whisper, as transformers writes it.

use lowrank::suggest::nearest;
use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The keys of `WhisperConfig` that say what the network is, and the others, which are kept.
///
/// A key that transformers 5.23.0 or an earlier one writes is read and written again, wherever it has no effect on what is
/// computed here; one that would have an effect that is not built (dropout, augmentation of spectrograms) is refused unless
/// it is off; any other key is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhisperConfig {
    /// Tokens, the special ones included.
    pub vocab_size: usize,
    /// Rows of the log-mel spectrogram.
    pub num_mel_bins: usize,
    /// Width of every hidden state.
    pub d_model: usize,
    /// Blocks of the encoder.
    pub encoder_layers: usize,
    /// Heads of the encoder's attention.
    pub encoder_attention_heads: usize,
    /// Width between the two linear layers of an encoder block.
    pub encoder_ffn_dim: usize,
    /// Blocks of the decoder.
    pub decoder_layers: usize,
    /// Heads of the decoder's attention.
    pub decoder_attention_heads: usize,
    /// Width between the two linear layers of a decoder block.
    pub decoder_ffn_dim: usize,
    /// Positions of the encoder: half the frames of the longest window.
    pub max_source_positions: usize,
    /// Positions of the decoder: the longest text, its prompt included.
    pub max_target_positions: usize,
    /// Whether embeddings are multiplied by `√d_model`.
    #[serde(default)]
    pub scale_embedding: bool,
    /// All other keys.
    #[serde(flatten)]
    pub kept: Map<String, Value>,
}

/// Keys without an effect on what is computed here: what generation goes by is in `generation_config.json`.
const KEPT: [&str; 40] = [
    "_name_or_path",
    "alignment_heads",
    "architectures",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_proj_size",
    "decoder_start_token_id",
    "dtype",
    "eos_token_id",
    "forced_decoder_ids",
    "id2label",
    "init_std",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "lang_ids",
    "lang_to_id",
    "mask_feature_length",
    "mask_feature_min_masks",
    "mask_feature_prob",
    "mask_time_length",
    "mask_time_min_masks",
    "mask_time_prob",
    "max_length",
    "median_filter_width",
    "num_hidden_layers",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "problem_type",
    "return_dict",
    "suppress_ids",
    "suppress_ids_begin",
    "suppress_tokens",
    "task_specific_params",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "use_weighted_layer_sum",
];

/// Keys with an effect that is not built, and the value at which they have none.
const OFF: [(&str, Off); 8] = [
    ("dropout", Off::Zero),
    ("attention_dropout", Off::Zero),
    ("activation_dropout", Off::Zero),
    ("encoder_layerdrop", Off::Zero),
    ("decoder_layerdrop", Off::Zero),
    ("apply_spec_augment", Off::Is("false")),
    ("activation_function", Off::Is("\"gelu\"")),
    ("tie_word_embeddings", Off::Is("true")),
];

/// The value at which a key is without effect.
#[derive(Clone, Copy)]
enum Off {
    Zero,
    /// As JSON.
    Is(&'static str),
}

impl Off {
    fn is(self, value: &Value) -> bool {
        match self {
            Self::Zero => value.as_f64() == Some(0.0),
            Self::Is(json) => serde_json::from_str::<Value>(json).is_ok_and(|off| *value == off),
        }
    }

    fn json(self) -> &'static str {
        match self {
            Self::Zero => "0",
            Self::Is(json) => json,
        }
    }
}

impl WhisperConfig {
    /// Reads the keys of a `config.json`, without `model_type`.
    ///
    /// # Errors
    /// All keys that are unknown or out of range, at once; the first that is missing or of a wrong type.
    pub fn from_map(keys: Map<String, Value>) -> Result<Self> {
        let config: Self = serde_json::from_value(Value::Object(keys)).map_err(|error| {
            Error::new(Subject::Model, error.to_string()).with_hint("see transformers' WhisperConfig")
        })?;
        let mut errors: Vec<Error> = config.kept.iter().filter_map(|(key, value)| wrong(key, value)).collect();
        for (key, size) in config.sizes() {
            if size == 0 {
                let zero = Error::new(Subject::Model, "out of range").at(key);
                errors.push(zero.found(0).expected("1 or more"));
            }
        }
        let heads = [
            ("encoder_attention_heads", config.encoder_attention_heads),
            ("decoder_attention_heads", config.decoder_attention_heads),
        ];
        for (key, heads) in heads {
            if heads > 0 && !config.d_model.is_multiple_of(heads) {
                let divided = Error::new(Subject::Model, "does not divide d_model").at(key);
                errors.push(divided.found(heads).expected(format!("a divisor of {}", config.d_model)));
            }
        }
        Error::all(errors)?;
        Ok(config)
    }

    fn sizes(&self) -> [(&'static str, usize); 9] {
        [
            ("vocab_size", self.vocab_size),
            ("num_mel_bins", self.num_mel_bins),
            ("d_model", self.d_model),
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("encoder_ffn_dim", self.encoder_ffn_dim),
            ("decoder_attention_heads", self.decoder_attention_heads),
            ("decoder_ffn_dim", self.decoder_ffn_dim),
            ("max_source_positions", self.max_source_positions),
            ("max_target_positions", self.max_target_positions),
        ]
    }
}

/// What is wrong with a key that says nothing about the network's shape.
fn wrong(key: &str, value: &Value) -> Option<Error> {
    if let Some((_, off)) = OFF.iter().find(|(name, _)| *name == key) {
        let error = Error::new(Subject::Model, "has an effect that is not built").at(key).found(value);
        let error = error.expected(off.json());
        return (!off.is(value)).then(|| error.with_hint("set it so in a copy of the model's config.json"));
    }
    if KEPT.contains(&key) {
        return None;
    }
    let error = Error::new(Subject::Model, format!("unknown key `{key}`"));
    let known = KEPT.into_iter().chain(OFF.map(|(name, _)| name)).chain([
        "vocab_size",
        "num_mel_bins",
        "d_model",
        "encoder_layers",
        "decoder_layers",
        "scale_embedding",
        "max_source_positions",
        "max_target_positions",
    ]);
    Some(match nearest(key, known) {
        Some(near) => error.with_hint(format!("did you mean `{near}`?")),
        None => error.with_hint("a key that transformers 5.23.0 does not write; take it out if it means nothing"),
    })
}
