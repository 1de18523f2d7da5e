//! The keys of a `config.json`.

use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::models::hidden_act::HiddenAct;
use crate::models::huggingface as hf;

/// What transformers' `GPT2Config` says, with its defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpt2Config {
    /// Tokens.
    pub vocab_size: usize,
    /// The longest sequence.
    pub n_positions: usize,
    /// Width of the transformer.
    pub n_embd: usize,
    /// Its layers.
    pub n_layer: usize,
    /// Heads of each.
    pub n_head: usize,
    /// Width inside its feed-forward part; four times `n_embd` without.
    pub n_inner: Option<usize>,
    /// The activation there.
    pub activation_function: HiddenAct,
    /// Dropout of each layer's outputs.
    pub resid_pdrop: f64,
    /// Dropout of the embedded tokens.
    pub embd_pdrop: f64,
    /// `ε` of the norms.
    pub layer_norm_epsilon: f64,
    /// Keys that change nothing here, kept for a rewrite.
    #[serde(flatten)]
    pub kept: Map<String, Value>,
}

/// Keys of other heads, and of dropout of the attention's weights, which is not applied here.
const WITHOUT_EFFECT: &[&str] = &[
    "attn_pdrop",
    "n_ctx",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "reorder_and_upcast_attn",
];

/// Keys that may be there, with the one value under which nothing is missing here.
const FIXED: [(&str, bool); 4] = [
    ("add_cross_attention", false),
    ("scale_attn_by_inverse_layer_idx", false),
    ("scale_attn_weights", true),
    ("tie_word_embeddings", true),
];

impl Default for Gpt2Config {
    fn default() -> Self {
        Self {
            vocab_size: 50_257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: HiddenAct::GeluNew,
            resid_pdrop: 0.1,
            embd_pdrop: 0.1,
            layer_norm_epsilon: 1e-5,
            kept: Map::new(),
        }
    }
}

impl Gpt2Config {
    pub(in crate::models) fn from_map(keys: Map<String, Value>) -> Result<Self> {
        let config: Self = hf::parse("gpt2", keys)?;
        let sizes = [
            ("vocab_size", config.vocab_size),
            ("n_positions", config.n_positions),
            ("n_embd", config.n_embd),
            ("n_head", config.n_head),
            ("n_inner", config.inner()),
        ];
        let mut errors = hf::zeros(sizes);
        errors.extend(hf::shares([("resid_pdrop", config.resid_pdrop), ("embd_pdrop", config.embd_pdrop)]));
        if config.n_head > 0 && !config.n_embd.is_multiple_of(config.n_head) {
            let error = Error::new(Subject::Model, "does not divide n_embd").at("n_head").found(config.n_head);
            errors.push(error.expected(format!("a divisor of {}", config.n_embd)));
        }
        let own: Vec<&str> = WITHOUT_EFFECT.iter().copied().chain(FIXED.map(|(key, _)| key)).collect();
        let fields = serde_json::to_value(Self::default()).ok().and_then(|fields| fields.as_object().cloned());
        errors.extend(hf::unknown(&config.kept, &own, &fields.unwrap_or_default()));
        for (key, value) in FIXED {
            if let Some(found) = config.kept.get(key).filter(|found| **found != Value::Bool(value)) {
                errors.push(Error::new(Subject::Model, "not supported").at(key).found(found).expected(value));
            }
        }
        Error::all(errors)?;
        Ok(config)
    }

    /// Width inside the feed-forward part.
    #[must_use]
    pub fn inner(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }
}
