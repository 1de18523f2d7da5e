//! [`LoraConfig`]: what PEFT's `adapter_config.json` says, key by key.
//!
//! Names, defaults and the written form are those of PEFT 0.21.2. Every key is either followed, or refused by name
//! with what it would need; none is dropped. A configuration is read for one of two purposes:
//!
//! - [`LoraConfig::from_json`] reads the file of a *finished* adapter. Keys it does not know are kept for a rewrite and
//!   named in warnings, as PEFT does with files of later versions.
//! - [`LoraConfig::from_table`] reads the settings of a *run*, where an unknown key is a mistake.
//!
//! Both report every error at once.

mod initialisation;
mod json;
mod python_json;
mod read;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod typos;
mod unsupported;
mod validate;
mod value;
mod write;

pub use json::{MAX_DEPTH, MAX_JSON_BYTES};
pub(crate) use validate::layer_patterns;
pub use validate::{MAX_RANK, MAX_REGEXES};
pub use value::{AsFound, Bias, InitLoraWeights, LayerIndices, Patterns, TokenIndices};

use serde_json::{Map, Value};

use crate::Result;
use crate::adapter::{DoraNorm, GroupMode};
use crate::target::first_match;

/// The PEFT version whose `adapter_config.json` is written, unless the file that was read names another.
pub const PEFT_VERSION: &str = "0.21.2";

/// PEFT's `LoraConfig`: where adapters go, of which rank, and how they start.
///
/// The fields are PEFT's keys with PEFT's defaults; [`group_mode`](Self::group_mode) and
/// [`dora_norm`](Self::dora_norm) are those that PEFT does not have. Fields of features that are not supported hold what the file said, so that [`validate`](Self::validate) can
/// name them and a rewrite can keep them.
///
/// ```
/// use lowrank::config::{LoraConfig, Patterns};
///
/// let config = LoraConfig {
///     r: 4,
///     lora_alpha: 16.0,
///     target_modules: Some(Patterns::List(vec!["conv1".into(), "conv2".into()])),
///     rank_pattern: vec![("conv2".into(), 8)],
///     ..LoraConfig::default()
/// };
/// config.validate()?;
/// assert_eq!(config.rank_for("encoder.conv2")?, 8);
/// assert_eq!(config.scaling_for("encoder.conv1")?, 4.0);
/// # Ok::<(), lowrank::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "the keys are PEFT's")]
pub struct LoraConfig {
    /// PEFT's task: `SEQ_CLS`, `SEQ_2_SEQ_LM`, `CAUSAL_LM`, `TOKEN_CLS`, `QUESTION_ANS` or `FEATURE_EXTRACTION`.
    /// Classification tasks save the model's head as well, see [`crate::target::resolve`].
    pub task_type: Option<String>,
    /// The Python class of the base model. Kept, never followed.
    pub auto_mapping: Option<Map<String, Value>>,
    /// The PEFT version that wrote the file; written as [`PEFT_VERSION`] when absent, as PEFT fills in its own.
    pub peft_version: Option<String>,
    /// Where the base model came from. Kept and shown, never followed.
    pub base_model_name_or_path: Option<String>,
    /// The revision of the base model. Kept and shown, never followed.
    pub revision: Option<String>,
    /// PEFT's mark of an adapter that is not being trained. Nothing here depends on it, and it is written `true`, as
    /// PEFT writes it when it saves an adapter.
    pub inference_mode: bool,

    /// The rank.
    pub r: usize,
    /// The numerator of the scale: `lora_alpha / r`, with [`use_rslora`](Self::use_rslora) `lora_alpha / sqrt(r)`.
    /// Written as an integer when it is whole.
    pub lora_alpha: f64,
    /// The probability with which an input of `A` is dropped in training; in `[0, 1)`.
    pub lora_dropout: f64,
    /// Whether the scale is rank-stabilised.
    pub use_rslora: bool,
    /// The modules that get an adapter. A string is a pattern for the whole path, or one of the words `all-linear`
    /// (`Linear` and transformers' `Conv1D`), `all-conv` (`Conv1d`, `Conv2d`, `Conv3d`; not in PEFT) and `all-layers`
    /// (everything that can be adapted, transposed convolutions too; not in PEFT). A list names modules by path or by the end of their path.
    pub target_modules: Option<Patterns>,
    /// Modules that get none although they are targeted.
    pub exclude_modules: Option<Patterns>,
    /// Whether targeted weights are stored as `(in, out)`. The kind of a layer decides; PEFT corrects the flag alike.
    pub fan_in_fan_out: bool,
    /// Which biases of the base model train along.
    pub bias: Bias,
    /// Whether `B` has a bias.
    pub lora_bias: bool,
    /// Modules that train in full and are saved with the adapter.
    pub modules_to_save: Option<Vec<String>>,
    /// Single rows of an embedding that train, and are saved, with the adapter.
    pub trainable_token_indices: Option<TokenIndices>,
    /// Whether the length of each output's weights is trained on its own ([`DoRA`](crate::adapter::dora)).
    pub use_dora: bool,
    /// How `A` and `B` start.
    pub init_lora_weights: InitLoraWeights,
    /// Only these layers of the targeted modules; an empty list is no restriction.
    pub layers_to_transform: Option<LayerIndices>,
    /// The names that layer numbers follow in a path (`layers` in `encoder.layers.3.fc1`), as patterns; without, the
    /// first number is the layer's.
    pub layers_pattern: Option<Patterns>,
    /// Ranks of single modules: the first pattern that matches counts. The order is kept when written (PEFT sorts, and
    /// may so change which pattern is first).
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas of single modules, looked up as [`rank_pattern`](Self::rank_pattern), and independently of it.
    pub alpha_pattern: Vec<(String, f64)>,

    /// Megatron's parallel layers: not supported.
    pub megatron_config: Option<Value>,
    /// Megatron's Python module, of no effect without [`megatron_config`](Self::megatron_config).
    pub megatron_core: Option<String>,
    /// The settings of the `LoftQ` initialisation: not supported.
    pub loftq_config: Map<String, Value>,
    /// The settings of the `EVA` initialisation: of no effect on a finished adapter.
    pub eva_config: Option<Map<String, Value>>,
    /// The settings of the `CorDA` initialisation: of no effect on a finished adapter.
    pub corda_config: Option<Map<String, Value>>,
    /// The settings of the `LoRA-GA` initialisation: of no effect on a finished adapter.
    pub lora_ga_config: Option<Map<String, Value>>,
    /// `VeLoRA`'s compressed activations: not supported.
    pub velora_config: Option<Value>,
    /// Adapters that begin at a token sequence (`aLoRA`): not supported.
    pub alora_invocation_tokens: Option<Value>,
    /// Adapters on `GPTQ`-quantised layers (`QALoRA`): not supported.
    pub use_qalora: bool,
    /// The pool size of `QALoRA`, of no effect without [`use_qalora`](Self::use_qalora).
    pub qalora_group_size: usize,
    /// Monte Carlo sampling on top of the factors: not supported.
    pub monteclora_config: Option<Value>,
    /// Layers stacked several times: not supported.
    pub layer_replication: Option<Value>,
    /// Adapters on bare parameters: not supported.
    pub target_parameters: Option<Vec<String>>,
    /// Block-diagonal factors (`BD-LoRA`): not supported.
    pub use_bdlora: Option<Value>,
    /// Routing between adapters (`Arrow`): not supported.
    pub arrow_config: Option<Value>,
    /// Adapters in singular-value form (`KaSA`): not supported.
    pub kasa_config: Option<Value>,
    /// Adapters shared by tied layers: not supported.
    pub ensure_weight_tying: bool,

    /// The form of adapters on grouped convolutions. PEFT has no key for it: files hold it under `"lowrank"`, when it
    /// is not the default.
    pub group_mode: GroupMode,
    /// The norm that the magnitudes of `DoRA` go with on grouped convolutions. PEFT has no key for it: a file without one
    /// under `"lowrank"` has PEFT's norm.
    pub dora_norm: DoraNorm,
    /// The adapted modules that are transposed convolutions, by path. PEFT has no adapters for them: files hold the list
    /// under `"lowrank"`, because shapes do not always tell, and PEFT's users get a merged weight instead. Of no effect on a
    /// model that knows its layers.
    pub conv_transpose: Vec<String>,
    /// Keys that are not PEFT's, kept for a rewrite.
    pub unknown: Map<String, Value>,
    /// Spellings of the file that was read (`16.0` where `16` would be written), kept for a rewrite.
    pub as_found: AsFound,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            task_type: None,
            auto_mapping: None,
            peft_version: None,
            base_model_name_or_path: None,
            revision: None,
            inference_mode: false,
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            use_rslora: false,
            target_modules: None,
            exclude_modules: None,
            fan_in_fan_out: false,
            bias: Bias::None,
            lora_bias: false,
            modules_to_save: None,
            use_dora: false,
            init_lora_weights: InitLoraWeights::True,
            layers_to_transform: None,
            layers_pattern: None,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            megatron_config: None,
            megatron_core: Some("megatron.core".into()),
            trainable_token_indices: None,
            loftq_config: Map::new(),
            eva_config: None,
            corda_config: None,
            lora_ga_config: None,
            velora_config: None,
            alora_invocation_tokens: None,
            use_qalora: false,
            qalora_group_size: 16,
            monteclora_config: None,
            layer_replication: None,
            target_parameters: None,
            use_bdlora: None,
            arrow_config: None,
            kasa_config: None,
            ensure_weight_tying: false,
            group_mode: GroupMode::default(),
            dora_norm: DoraNorm::default(),
            conv_transpose: Vec::new(),
            unknown: Map::new(),
            as_found: AsFound::default(),
        }
    }
}

impl LoraConfig {
    /// The rank of the module at `path`: that of the first key of `rank_pattern` that matches, else `r`.
    ///
    /// A key matches the whole path or its end after a dot: `re.match(rf"(.*\.)?({key})$", path)` in PEFT.
    ///
    /// # Errors
    /// When a key is no pattern, or takes too long on `path`.
    pub fn rank_for(&self, path: &str) -> Result<usize> {
        Ok(*first_match(&self.rank_pattern, path)?.unwrap_or(&self.r))
    }

    /// The alpha of the module at `path`, looked up in `alpha_pattern` as [`rank_for`](Self::rank_for) does.
    ///
    /// # Errors
    /// When a key is no pattern, or takes too long on `path`.
    pub fn alpha_for(&self, path: &str) -> Result<f64> {
        Ok(*first_match(&self.alpha_pattern, path)?.unwrap_or(&self.lora_alpha))
    }

    /// The scale of the module at `path`: `alpha / r`, with `use_rslora` `alpha / sqrt(r)`.
    ///
    /// # Errors
    /// When a key of the patterns is no pattern, or takes too long on `path`.
    pub fn scaling_for(&self, path: &str) -> Result<f32> {
        Ok(self.scaling(self.alpha_for(path)?, self.rank_for(path)?))
    }

    /// The scale at `alpha` and `rank`: `alpha / rank`, with `use_rslora` `alpha / sqrt(rank)`.
    ///
    /// ```
    /// use lowrank::config::LoraConfig;
    ///
    /// let config = LoraConfig { use_rslora: true, ..LoraConfig::default() };
    /// assert_eq!(config.scaling(8.0, 16), 2.0);
    /// ```
    #[must_use]
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "ranks are small, scales are f32")]
    pub fn scaling(&self, alpha: f64, rank: usize) -> f32 {
        let rank = rank as f64;
        (alpha / if self.use_rslora { rank.sqrt() } else { rank }) as f32
    }

    /// The configuration with the default start: for an adapter of which the shapes matter alone.
    #[must_use]
    pub fn with_plain_start(&self) -> Self {
        Self {
            init_lora_weights: InitLoraWeights::True,
            lora_ga_config: None,
            eva_config: None,
            corda_config: None,
            ..self.clone()
        }
    }

    /// The configuration of factors of twice the rank at the same scale: what an adapter whose start was taken out of
    /// the base is saved as, so that it fits the original base
    /// ([`Factors::without_start`](crate::adapter::Factors::without_start)).
    ///
    /// Ranks double; alphas double too, with `use_rslora` they grow by the root of 2; `init_lora_weights` is `true`.
    #[must_use]
    pub fn with_rank_doubled(&self) -> Self {
        let growth = if self.use_rslora { std::f64::consts::SQRT_2 } else { 2.0 };
        let mut config = self.with_plain_start();
        config.r *= 2;
        config.rank_pattern.iter_mut().for_each(|(_, rank)| *rank *= 2);
        config.lora_alpha *= growth;
        config.alpha_pattern.iter_mut().for_each(|(_, alpha)| *alpha *= growth);
        config
    }
}
