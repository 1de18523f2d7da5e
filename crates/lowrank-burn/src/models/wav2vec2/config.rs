//! The keys of a `config.json`, those of wav2vec 2.0 and of `HuBERT`.

use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::models::hidden_act::HiddenAct;
use crate::models::huggingface as hf;

/// What is said about a checkpoint in transformers' `Wav2Vec2Config` and `HubertConfig`, with their defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the keys are transformers'")]
pub struct SpeechConfig {
    /// Width of the transformer.
    pub hidden_size: usize,
    /// Layers of the transformer.
    pub num_hidden_layers: usize,
    /// Heads of each.
    pub num_attention_heads: usize,
    /// Width inside its feed-forward part.
    pub intermediate_size: usize,
    /// The activation there.
    pub hidden_act: HiddenAct,
    /// Dropout of each layer's outputs.
    pub hidden_dropout: f64,
    /// Dropout inside the feed-forward part.
    pub activation_dropout: f64,
    /// Dropout of the projected features.
    pub feat_proj_dropout: f64,
    /// Dropout before the CTC head.
    pub final_dropout: f64,
    /// `ε` of the transformer's norms and of the projection's.
    pub layer_norm_eps: f64,
    /// How the feature encoder is normalised.
    pub feat_extract_norm: FeatExtractNorm,
    /// The activation of the feature encoder and of the positional convolution.
    pub feat_extract_activation: HiddenAct,
    /// Channels of each convolution of the feature encoder.
    pub conv_dim: Vec<usize>,
    /// Their strides.
    pub conv_stride: Vec<usize>,
    /// Their kernels.
    pub conv_kernel: Vec<usize>,
    /// Whether they have biases.
    pub conv_bias: bool,
    /// Kernel of the positional convolution.
    pub num_conv_pos_embeddings: usize,
    /// Its groups.
    pub num_conv_pos_embedding_groups: usize,
    /// Whether a layer normalises its inputs (pre-norm) and not its outputs.
    pub do_stable_layer_norm: bool,
    /// Whether the features are normalised before they are projected; always so in wav2vec 2.0.
    pub feat_proj_layer_norm: bool,
    /// With [`Self::mask_feature_prob`], whether the checkpoint has the vector that replaces masked positions.
    pub mask_time_prob: f64,
    /// See [`Self::mask_time_prob`].
    pub mask_feature_prob: f64,
    /// Whether the classification head reads a learned mean of all layers.
    pub use_weighted_layer_sum: bool,
    /// Width of that head.
    pub classifier_proj_size: usize,
    /// What is on top of the encoder, as `architectures` in `kept` says.
    #[serde(skip)]
    pub head: Head,
    /// Keys that change nothing here, kept for a rewrite: see [`SpeechConfig::from_map`].
    #[serde(flatten)]
    pub kept: Map<String, Value>,
}

/// How samples become frames: convolutions without padding, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameGrid {
    /// Their kernels.
    pub kernels: Vec<usize>,
    /// Their strides.
    pub strides: Vec<usize>,
}

impl FrameGrid {
    /// Frames that come of so many samples; none when there are too few.
    #[must_use]
    pub fn frames(&self, samples: usize) -> usize {
        self.kernels
            .iter()
            .zip(&self.strides)
            .fold(samples, |length, (kernel, stride)| length.checked_sub(*kernel).map_or(0, |rest| rest / stride + 1))
    }

    /// The least number of samples that gives a frame.
    #[must_use]
    pub fn least(&self) -> usize {
        self.kernels.iter().zip(&self.strides).rev().fold(1, |frames, (kernel, stride)| (frames - 1) * stride + kernel)
    }

    /// Samples from one frame to the next.
    #[must_use]
    pub fn hop(&self) -> usize {
        self.strides.iter().product()
    }
}

/// How the feature encoder is normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatExtractNorm {
    /// The first convolution's channels, each by itself over all positions; the others not.
    Group,
    /// The channels of every position, after every convolution.
    Layer,
}

/// What is on top of the encoder: the Python class in `architectures`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Head {
    /// `Wav2Vec2ForCTC`, `HubertForCTC`.
    #[default]
    Ctc,
    /// `Wav2Vec2ForSequenceClassification`, `HubertForSequenceClassification`.
    SequenceClassification,
}

/// Keys of pretraining, of other heads, and of regularisations that are left out when adapters train.
const WITHOUT_EFFECT: &[&str] = &[
    // Regularisation in training, which is not applied here.
    "apply_spec_augment",
    "attention_dropout",
    "feat_extract_dropout",
    "hidden_dropout_prob",
    "layerdrop",
    "mask_channel_length",
    "mask_channel_min_space",
    "mask_channel_other",
    "mask_channel_prob",
    "mask_channel_selection",
    "mask_feature_length",
    "mask_feature_min_masks",
    "mask_time_length",
    "mask_time_min_masks",
    "mask_time_min_space",
    "mask_time_other",
    "mask_time_selection",
    "no_mask_channel_overlap",
    "no_mask_time_overlap",
    // Pretraining.
    "codevector_dim",
    "contrastive_logits_temperature",
    "diversity_loss_weight",
    "feat_quantizer_dropout",
    "freeze_feat_extract_train",
    "num_codevector_groups",
    "num_codevectors_per_group",
    "num_negatives",
    "proj_codevector_dim",
    // Other heads, and parts that `FIXED` says are not there.
    "adapter_kernel_size",
    "adapter_stride",
    "ctc_loss_reduction",
    "ctc_zero_infinity",
    "num_adapter_layers",
    "num_feat_extract_layers",
    "output_hidden_size",
    "tdnn_dilation",
    "tdnn_dim",
    "tdnn_kernel",
    "tokenizer_do_lower",
    "xvector_output_dim",
];

/// Keys that may be there, with the one value under which nothing is missing here.
const FIXED: [(&str, Value); 3] = [
    ("add_adapter", Value::Bool(false)),
    ("adapter_attn_dim", Value::Null),
    ("conv_pos_batch_norm", Value::Bool(false)),
];

impl Default for SpeechConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: HiddenAct::Gelu,
            hidden_dropout: 0.1,
            activation_dropout: 0.1,
            feat_proj_dropout: 0.0,
            final_dropout: 0.1,
            layer_norm_eps: 1e-5,
            feat_extract_norm: FeatExtractNorm::Group,
            feat_extract_activation: HiddenAct::Gelu,
            conv_dim: vec![512; 7],
            conv_stride: vec![5, 2, 2, 2, 2, 2, 2],
            conv_kernel: vec![10, 3, 3, 3, 3, 2, 2],
            conv_bias: false,
            num_conv_pos_embeddings: 128,
            num_conv_pos_embedding_groups: 16,
            do_stable_layer_norm: false,
            feat_proj_layer_norm: true,
            mask_time_prob: 0.05,
            mask_feature_prob: 0.0,
            use_weighted_layer_sum: false,
            classifier_proj_size: 256,
            head: Head::default(),
            kept: Map::new(),
        }
    }
}

impl SpeechConfig {
    /// Reads the keys of a `config.json` without `model_type`.
    ///
    /// Keys of pretraining, of other heads and of regularisation (`SpecAugment`, `LayerDrop`, dropout of the attention's
    /// weights, none of which is applied here) are kept as they are.
    ///
    /// # Errors
    /// All that is wrong, at once: keys that are unknown, of another kind or out of range, and parts that are not here:
    /// `add_adapter`, `adapter_attn_dim`, `conv_pos_batch_norm`, other heads than [`Head`] knows.
    pub fn from_map(model_type: &str, keys: Map<String, Value>) -> Result<Self> {
        let mut config: Self = hf::parse(model_type, keys)?;
        let mut errors = config.misfits();
        let fixed: Vec<&str> = FIXED.iter().map(|(key, _)| *key).collect();
        let own: Vec<&str> = WITHOUT_EFFECT.iter().chain(&fixed).copied().collect();
        errors.extend(hf::unknown(&config.kept, &own, &Self::default().fields()));
        for (key, value) in &FIXED {
            if let Some(found) = config.kept.get(*key).filter(|found| *found != value) {
                errors.push(Error::new(Subject::Model, "not supported").at(key).found(found).expected(value));
            }
        }
        match head(&config.kept) {
            Ok(head) => config.head = head,
            Err(error) => errors.push(error),
        }
        Error::all(errors)?;
        Ok(config)
    }

    /// How samples become frames.
    #[must_use]
    pub fn frame_grid(&self) -> FrameGrid {
        FrameGrid { kernels: self.conv_kernel.clone(), strides: self.conv_stride.clone() }
    }

    /// Its own keys.
    fn fields(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        }
    }

    fn misfits(&self) -> Vec<Error> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("num_conv_pos_embeddings", self.num_conv_pos_embeddings),
            ("num_conv_pos_embedding_groups", self.num_conv_pos_embedding_groups),
            ("classifier_proj_size", self.classifier_proj_size),
            ("conv_dim", self.conv_dim.len()),
        ];
        let lists =
            [("conv_dim", &self.conv_dim), ("conv_stride", &self.conv_stride), ("conv_kernel", &self.conv_kernel)];
        let each = lists.iter().flat_map(|(key, list)| list.iter().map(move |size| (*key, *size)));
        let mut errors = hf::zeros(sizes.into_iter().chain(each));
        errors.extend(hf::shares([
            ("hidden_dropout", self.hidden_dropout),
            ("activation_dropout", self.activation_dropout),
            ("feat_proj_dropout", self.feat_proj_dropout),
            ("final_dropout", self.final_dropout),
        ]));
        for (key, list) in lists.into_iter().filter(|(_, list)| list.len() != self.conv_dim.len()) {
            let error = Error::new(Subject::Model, "a value for each convolution is needed").at(key);
            errors.push(error.found(list.len()).expected(format!("{}, as in conv_dim", self.conv_dim.len())));
        }
        for key in ["num_attention_heads", "num_conv_pos_embedding_groups"] {
            let parts = if key == "num_attention_heads" {
                self.num_attention_heads
            } else {
                self.num_conv_pos_embedding_groups
            };
            if parts > 0 && !self.hidden_size.is_multiple_of(parts) {
                let error = Error::new(Subject::Model, "does not divide hidden_size").at(key);
                errors.push(error.found(parts).expected(format!("a divisor of {}", self.hidden_size)));
            }
        }
        errors
    }
}

/// What is on top of the encoder.
fn head(keys: &Map<String, Value>) -> Result<Head> {
    let class = hf::class(keys).unwrap_or_default();
    match class {
        _ if class.ends_with("ForCTC") => Ok(Head::Ctc),
        _ if class.ends_with("ForSequenceClassification") => Ok(Head::SequenceClassification),
        _ => Err(Error::new(Subject::Model, "no head that is known here")
            .at("architectures")
            .found(format!("`{class}`"))
            .expected("a class ...ForCTC or ...ForSequenceClassification")),
    }
}
