//! Every key a run file can have, once: files are checked against this table, and the flags with their help are made
//! from it.

mod kind;

use lowrank::config::LoraConfig;
use lowrank_burn::train::TrainConfig;
use serde_json::{Map, Value};

pub use kind::Kind;

/// A table of a run file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// What stands above the first table.
    Top,
    /// The model to start from.
    Model,
    /// The recordings.
    Data,
    /// The adapter, in PEFT's words.
    Lora,
    /// How to train.
    Train,
}

impl Section {
    /// The tables that have a name.
    pub const TABLES: [Self; 4] = [Self::Model, Self::Data, Self::Lora, Self::Train];

    /// The name in a run file; empty for [`Section::Top`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Top => "",
            Self::Model => "model",
            Self::Data => "data",
            Self::Lora => "lora",
            Self::Train => "train",
        }
    }

    /// The heading of its flags in the help.
    fn heading(self) -> &'static str {
        match self {
            Self::Top => "Run",
            Self::Model => "[model]: a base directory, or the architecture of a new base",
            Self::Data => "[data]: the recordings",
            Self::Lora => "[lora]: the adapter, under PEFT's names; without this table, all weights train",
            Self::Train => "[train]: how to train",
        }
    }
}

/// One key of a run file.
#[derive(Debug)]
pub struct Key {
    /// The table it belongs to.
    pub section: Section,
    /// Its name there.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    value_name: &'static str,
    help: &'static str,
}

/// All keys, in the order of the help.
pub const KEYS: &[Key] = &[
    key(
        Section::Top,
        "seed",
        Kind::Whole,
        "N",
        "Seed of everything random: factors, dropout, order of the data [default: 0]",
    ),
    key(
        Section::Top,
        "output",
        Kind::Path,
        "DIR",
        "Where the adapter (or new base) goes [default: lowrank-runs/NAME OF FILE]",
    ),
    key(Section::Model, "base", Kind::Path, "DIR", "Base model: a folder with config.json and model.safetensors"),
    key(
        Section::Model,
        "dtype",
        Kind::Word(&["auto", "float32", "bfloat16", "float16"]),
        "TYPE",
        "Base: how Conv1d and Linear weights are held: auto (as in the file), bfloat16, float16 [default: float32]",
    ),
    key(Section::Model, "model_type", Kind::Word(&["tcn"]), "NAME", "Architecture of a new base; its keys follow"),
    key(Section::Model, "in_channels", Kind::Whole, "N", "tcn: channels of the signal"),
    key(Section::Model, "channels", Kind::Whole, "N", "tcn: channels of every hidden layer"),
    key(Section::Model, "stem_kernel_size", Kind::Whole, "N", "tcn: kernel of the first convolution"),
    key(Section::Model, "kernel_size", Kind::Whole, "N", "tcn: kernel of the convolutions in the blocks"),
    key(Section::Model, "dilations", Kind::Wholes, "N,N,..", "tcn: dilation of each block"),
    key(Section::Model, "causal", Kind::Flag, "", "tcn: let a position see only the past"),
    key(Section::Model, "weight_norm", Kind::Flag, "", "tcn: train convolutions as direction and length"),
    key(Section::Model, "dropout", Kind::Number, "P", "tcn: dropout between the convolutions of a block"),
    key(
        Section::Model,
        "sample_rate",
        Kind::Number,
        "HZ",
        "New base: the rate it hears; recordings are resampled to it",
    ),
    key(Section::Model, "window", Kind::Whole, "N", "New base: samples in a window"),
    key(Section::Model, "hop", Kind::Whole, "N", "New base: samples from one window to the next"),
    key(
        Section::Data,
        "manifest",
        Kind::Path,
        "CSV",
        "List of recordings: path,label,split,start,end; for transcription text in place of label",
    ),
    key(Section::Data, "sample_rate", Kind::Number, "HZ", "Rate of CSV and NPY recordings [default: the model's]"),
    key(Section::Data, "mix_to_mono", Kind::Flag, "", "Average the channels for a model that takes one"),
    key(Section::Data, "skip_short", Kind::Flag, "", "Leave out recordings shorter than a window, with a warning"),
    key(
        Section::Data,
        "window_seconds",
        Kind::Number,
        "S",
        "Transcription: seconds of a window, up to the model's [default: the model's]",
    ),
    key(Section::Lora, "r", Kind::Whole, "N", "Rank"),
    key(Section::Lora, "lora_alpha", Kind::Number, "X", "Numerator of the scale, lora_alpha / r"),
    key(Section::Lora, "lora_dropout", Kind::Number, "P", "Probability with which an input of the adapter is dropped"),
    key(
        Section::Lora,
        "target_modules",
        Kind::Modules,
        "NAMES",
        "Modules that get an adapter: names or ends of paths (a,b), all-linear, all-conv, all-layers, or a regex for whole paths",
    ),
    key(Section::Lora, "exclude_modules", Kind::Modules, "NAMES", "Modules that get none all the same"),
    key(Section::Lora, "rank_pattern", Kind::Pairs, "NAME=N,..", "Ranks of single modules; the first match counts"),
    key(Section::Lora, "alpha_pattern", Kind::Pairs, "NAME=X,..", "Alphas of single modules; the first match counts"),
    key(
        Section::Lora,
        "group_mode",
        Kind::Word(&["per_group", "shared", "dense"]),
        "FORM",
        "Adapters on grouped convolutions",
    ),
    key(Section::Lora, "use_rslora", Kind::Flag, "", "Scale by lora_alpha / sqrt(r)"),
    key(Section::Lora, "use_dora", Kind::Flag, "", "Train the length of each output's weights on its own (DoRA)"),
    key(
        Section::Lora,
        "dora_norm",
        Kind::Word(&["exact", "peft"]),
        "NORM",
        "DoRA on grouped convolutions: the norm, or the one that PEFT takes",
    ),
    key(
        Section::Lora,
        "init_lora_weights",
        Kind::Init,
        "INIT",
        "How the factors start: true, false, gaussian, orthogonal, pissa, pissa_niter_N, olora, mica, lora_ga, eva or corda",
    ),
    key(
        Section::Lora,
        "bias",
        Kind::Word(&["none", "all", "lora_only"]),
        "WHICH",
        "Biases of the base that train along",
    ),
    key(Section::Lora, "lora_bias", Kind::Flag, "", "Give B a bias"),
    key(Section::Lora, "modules_to_save", Kind::Names, "NAMES", "Modules that train in full and are saved along"),
    key(Section::Lora, "layers_to_transform", Kind::Wholes, "N,N,..", "Only these layers of the targeted modules"),
    key(Section::Lora, "layers_pattern", Kind::Names, "NAMES", "Names that layer numbers follow in a path"),
    key(
        Section::Lora,
        "task_type",
        Kind::Word(TASKS),
        "TASK",
        "PEFT's task, such as SEQ_CLS; classification saves the head along",
    ),
    key(Section::Train, "epochs", Kind::Whole, "N", "Passes over the training windows"),
    key(Section::Train, "max_steps", Kind::Whole, "N", "Optimiser steps, whatever the epochs come to"),
    key(Section::Train, "batch_size", Kind::Whole, "N", "Windows in a batch"),
    key(Section::Train, "eval_batch_size", Kind::Whole, "N", "Windows in a batch of an evaluation"),
    key(Section::Train, "gradient_accumulation_steps", Kind::Whole, "N", "Batches averaged for one step"),
    key(Section::Train, "optimizer", Kind::Word(&["adamw", "sgd"]), "NAME", "Optimiser"),
    key(Section::Train, "learning_rate", Kind::Number, "X", "Learning rate at its peak"),
    key(Section::Train, "betas", Kind::Numbers, "X,X", "adamw: how slowly the averages forget"),
    key(Section::Train, "eps", Kind::Number, "X", "adamw: keeps the quotient finite"),
    key(Section::Train, "momentum", Kind::Number, "X", "sgd: how slowly the buffer forgets"),
    key(Section::Train, "weight_decay", Kind::Number, "X", "Weight decay, decoupled for adamw"),
    key(Section::Train, "loraplus_lr_ratio", Kind::Number, "X", "LoRA+: how many times the rate of A the rate of B is"),
    key(Section::Train, "loraplus_lr_embedding", Kind::Number, "X", "LoRA+: the rate of embeddings"),
    key(Section::Train, "lorafa", Kind::Flag, "", "LoRA-FA: leave A as it began, and train B alone"),
    key(
        Section::Train,
        "trainable",
        Kind::Names,
        "NAMES",
        "Without an adapter: only these modules and parameters, by name or the end of their path",
    ),
    key(
        Section::Train,
        "schedule",
        Kind::Word(&["constant", "linear", "cosine"]),
        "NAME",
        "How the learning rate falls",
    ),
    key(Section::Train, "warmup_ratio", Kind::Number, "X", "Steps in which the rate rises, as a share of all"),
    key(Section::Train, "warmup_steps", Kind::Whole, "N", "Steps in which the rate rises; instead of warmup_ratio"),
    key(Section::Train, "max_grad_norm", Kind::Number, "X", "Longer gradients are shortened to this norm"),
    key(Section::Train, "label_smoothing", Kind::Number, "P", "Probability the target shares with the other classes"),
    key(
        Section::Train,
        "speed_perturbation",
        Kind::Number,
        "X",
        "Transcription: learn recordings faster or slower by up to X",
    ),
    key(
        Section::Train,
        "gain_perturbation",
        Kind::Number,
        "DB",
        "Transcription: learn recordings louder or quieter by up to DB",
    ),
    key(Section::Train, "num_beams", Kind::Whole, "N", "Transcription: beams of an evaluation; 1 is greedy"),
    key(Section::Train, "eval_every", Kind::Whole, "N", "Steps between evaluations on split valid [default: an epoch]"),
    key(
        Section::Train,
        "early_stopping_patience",
        Kind::Whole,
        "N",
        "Evaluations without a better accuracy on split valid before the run ends with the best parameters",
    ),
    key(
        Section::Train,
        "checkpoint_every",
        Kind::Whole,
        "N",
        "Steps between checkpoints [default: an epoch; at most one a second]",
    ),
    key(
        Section::Train,
        "max_skipped_steps",
        Kind::Whole,
        "N",
        "Steps in a row that may be skipped for a NaN or infinity",
    ),
];

const TASKS: &[&str] = &["SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"];

const fn key(section: Section, name: &'static str, kind: Kind, value_name: &'static str, help: &'static str) -> Key {
    Key { section, name, kind, value_name, help }
}

impl Key {
    /// The key of that name in a table.
    pub fn find(section: Section, name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.section == section && key.name == name)
    }

    /// The flag, without its dashes.
    pub fn flag(&self) -> String {
        let flag = self.name.replace('_', "-");
        // The one name that two tables have.
        if self.section == Section::Model && self.name == "sample_rate" { format!("model-{flag}") } else { flag }
    }

    /// The flag as clap wants it. `defaults` are those of the tables, see [`defaults`].
    pub fn arg(&'static self, defaults: &Map<String, Value>) -> clap::Arg {
        let kind = self.kind;
        let flag = self.flag();
        let default = defaults.get(self.name).filter(|_| matches!(self.section, Section::Lora | Section::Train));
        let help = match default.and_then(shown) {
            Some(default) => format!("{} [default: {default}]", self.help),
            None => self.help.to_owned(),
        };
        let arg = clap::Arg::new(flag.clone()).long(flag).help(help).help_heading(self.section.heading());
        let arg = match kind {
            Kind::Flag => arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL"),
            _ => arg.value_name(self.value_name),
        };
        let arg = if self.name == "base" { arg.visible_alias("model") } else { arg };
        match kind {
            Kind::Flag => arg.hide_possible_values(true).value_parser(words(&["true", "false"])),
            Kind::Word(known) => arg.hide_possible_values(known.len() > 3).value_parser(words(known)),
            Kind::Path => arg.value_hint(clap::ValueHint::AnyPath).value_parser(move |text: &str| kind.parse(text)),
            _ => arg.allow_negative_numbers(true).value_parser(move |text: &str| kind.parse(text)),
        }
    }
}

/// One of some words, with `true` and `false` as what they say.
fn words(known: &'static [&'static str]) -> impl clap::builder::TypedValueParser<Value = Value> {
    use clap::builder::TypedValueParser as _;
    clap::builder::PossibleValuesParser::new(known).map(|word| match word.as_str() {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => Value::String(word),
    })
}

/// The values that keys of `[lora]` and `[train]` have when they are left out.
pub fn defaults() -> Map<String, Value> {
    let lora = serde_json::from_str::<Map<String, Value>>(&LoraConfig::default().to_json()).unwrap_or_default();
    let train = serde_json::to_value(TrainConfig::default());
    let train = train.ok().and_then(|train| train.as_object().cloned()).unwrap_or_default();
    lora.into_iter().chain(train).collect()
}

/// A default as the help shows it; none for what is simply not there.
fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Bool(true) => Some("true".into()),
        Value::Number(number) if number.as_f64() != Some(0.0) => Some(number.to_string()),
        Value::String(word) => Some(word.clone()),
        Value::Array(items) if !items.is_empty() => {
            Some(items.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn every_flag_is_one_key() {
        let flags: BTreeSet<String> = KEYS.iter().map(Key::flag).collect();
        assert_eq!(flags.len(), KEYS.len());
    }

    #[test]
    fn the_tables_have_the_keys_of_their_configurations() {
        let names =
            |section| KEYS.iter().filter(|key| key.section == section).map(|key| key.name).collect::<BTreeSet<_>>();
        let train = serde_json::to_value(TrainConfig::default()).unwrap();
        let expected: BTreeSet<&str> = train.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names(Section::Train), expected);
        for name in names(Section::Lora) {
            let table = Map::from_iter([(name.to_owned(), json!([[]]))]);
            let error = LoraConfig::from_table(&table, "lora").unwrap_err().to_string();
            assert!(!error.contains("unknown"), "{error}");
        }
    }
}
