//! Reading `adapter_config.json`, and the settings of a run.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::json::{self, shown};
use super::validate::Purpose;
use super::value::FromValue;
use super::write::NAMESPACE;
use super::{AsFound, LoraConfig};
use crate::adapter::{DoraNorm, GroupMode};
use crate::suggest::nearest;
use crate::{Error, Result, Subject};

impl LoraConfig {
    /// The configuration in `text`, the `adapter_config.json` of a finished adapter, with warnings. `origin` names the
    /// file in messages.
    ///
    /// Missing keys take their defaults. Unknown ones are kept, in [`unknown`](Self::unknown), and warned of with the
    /// nearest known name.
    ///
    /// # Errors
    /// Every error of the text at once: JSON that cannot be read (longer than [`MAX_JSON_BYTES`](super::MAX_JSON_BYTES),
    /// deeper than [`MAX_DEPTH`](super::MAX_DEPTH), a key twice), an adapter that is not LoRA, values of a wrong type,
    /// and all that [`validate_for_loading`](Self::validate_for_loading) refuses.
    pub fn from_json(text: &str, origin: &str) -> Result<(Self, Vec<String>)> {
        let mut reader = Reader::new(json::object(text, origin)?);
        let positions = json::positions(text);
        let mut warnings = Vec::new();
        reader.peft_type(true);
        if reader.left.shift_remove("runtime_config").is_some() {
            warnings.push(format!("{origin}: `runtime_config` belongs to a running program and is ignored"));
        }
        let mut config = reader.config();
        reader.namespace(&mut config);
        config.unknown = std::mem::take(&mut reader.left);
        warnings.extend(config.unknown.keys().map(|key| {
            format!(
                "{origin}{}: {}; it is kept and has no effect",
                place(&positions, key),
                unknown_key(key, &Self::keys())
            )
        }));
        let errors = reader.finish(&config, Purpose::Loading);
        Error::all(
            errors
                .into_iter()
                .map(|(key, error)| error.at(format!("{origin}{}: {key}", place(&positions, key))))
                .collect(),
        )?;
        Ok((config, warnings))
    }

    /// The configuration in `table`, the settings of a run: PEFT's keys, `group_mode` and `dora_norm`. `origin` names the
    /// file or its section in messages.
    ///
    /// # Errors
    /// Every error of the table at once: unknown keys (with the nearest known name), values of a wrong type, and all
    /// that [`validate`](Self::validate) refuses.
    pub fn from_table(table: &Map<String, Value>, origin: &str) -> Result<Self> {
        let mut reader = Reader::new(table.clone());
        reader.peft_type(false);
        let mut config = reader.config();
        reader.read("group_mode", &mut config.group_mode);
        reader.read("dora_norm", &mut config.dora_norm);
        let known: Vec<_> = Self::keys().into_iter().chain(["group_mode", "dora_norm"]).collect();
        let left = std::mem::take(&mut reader.left);
        let unknown = left.keys().map(|key| Error::new(Subject::Config, unknown_key(key, &known)).at(origin));
        let mut errors: Vec<_> = unknown.collect();
        if config.inference_mode {
            let error = Error::new(Subject::Config, "an adapter in inference mode trains nothing");
            reader
                .errors
                .push(("inference_mode", error.with_hint("leave it out: it is written when the adapter is saved")));
        }
        let wrong = reader.finish(&config, Purpose::Training);
        errors.extend(wrong.into_iter().map(|(key, error)| error.at(format!("{origin}: {key}"))));
        Error::all(errors)?;
        Ok(config)
    }
}

/// `:line:column` of `key`, when it is known.
fn place(positions: &HashMap<&str, (usize, usize)>, key: &str) -> String {
    positions.get(key).map_or_else(String::new, |(line, column)| format!(":{line}:{column}"))
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(right) => format!("unknown key `{key}`, nearest is `{right}`"),
        None => format!("unknown key `{key}`"),
    }
}

/// Takes keys out of an object one by one, and keeps what is wrong with them.
struct Reader {
    all: Map<String, Value>,
    left: Map<String, Value>,
    errors: Vec<(&'static str, Error)>,
}

impl Reader {
    fn new(all: Map<String, Value>) -> Self {
        Self { left: all.clone(), all, errors: Vec::new() }
    }

    /// Reads `key` into `field`, which keeps its value when there is no such key.
    fn read<T: FromValue>(&mut self, key: &'static str, field: &mut T) {
        let Some(value) = self.left.shift_remove(key) else { return };
        match T::from_value(&value) {
            Some(value) => *field = value,
            None => self.wrong_value(key, &value, T::expected()),
        }
    }

    fn wrong_value(&mut self, key: &'static str, value: &Value, expected: impl std::fmt::Display) {
        let error = Error::new(Subject::Config, "wrong value").found(shown(value)).expected(expected);
        self.errors.push((key, error));
    }

    fn peft_type(&mut self, required: bool) {
        match self.left.shift_remove("peft_type") {
            Some(Value::String(name)) if name == "LORA" => {}
            Some(Value::String(name)) if name.chars().all(|char| char.is_ascii_uppercase() || char == '_') => {
                let problem = format!("the adapter is {name}, which is not supported");
                let hint = super::unsupported::MERGE;
                self.errors.push(("peft_type", Error::new(Subject::Config, problem).expected("LORA").with_hint(hint)));
            }
            Some(value) => self.wrong_value("peft_type", &value, "\"LORA\""),
            None if required => {
                let error = Error::new(Subject::Config, "missing, so this is no adapter's configuration");
                let hint = "an adapter's folder has it in adapter_config.json; a model's config.json is another file";
                self.errors.push(("peft_type", error.expected("\"LORA\"").with_hint(hint)));
            }
            None => {}
        }
    }

    fn config(&mut self) -> LoraConfig {
        let mut config = LoraConfig::default();
        self.supported(&mut config);
        self.unsupported(&mut config);
        let written = config.values().into_iter();
        let respelt = written.filter_map(|(key, value)| {
            let found = self.all.get(key)?;
            (*found != value).then(|| (key, value, found.clone()))
        });
        config.as_found = AsFound(respelt.collect());
        config
    }

    fn supported(&mut self, config: &mut LoraConfig) {
        self.read("task_type", &mut config.task_type);
        self.read("auto_mapping", &mut config.auto_mapping);
        self.read("peft_version", &mut config.peft_version);
        self.read("base_model_name_or_path", &mut config.base_model_name_or_path);
        self.read("revision", &mut config.revision);
        self.read("inference_mode", &mut config.inference_mode);
        self.read("r", &mut config.r);
        self.read("lora_alpha", &mut config.lora_alpha);
        self.read("lora_dropout", &mut config.lora_dropout);
        self.read("use_rslora", &mut config.use_rslora);
        self.read("target_modules", &mut config.target_modules);
        self.read("exclude_modules", &mut config.exclude_modules);
        self.read("fan_in_fan_out", &mut config.fan_in_fan_out);
        self.read("bias", &mut config.bias);
        self.read("lora_bias", &mut config.lora_bias);
        self.read("modules_to_save", &mut config.modules_to_save);
        self.read("trainable_token_indices", &mut config.trainable_token_indices);
        self.read("use_dora", &mut config.use_dora);
        self.read("init_lora_weights", &mut config.init_lora_weights);
        self.read("layers_to_transform", &mut config.layers_to_transform);
        self.read("layers_pattern", &mut config.layers_pattern);
        self.read("rank_pattern", &mut config.rank_pattern);
        self.read("alpha_pattern", &mut config.alpha_pattern);
    }

    fn unsupported(&mut self, config: &mut LoraConfig) {
        self.read("megatron_config", &mut config.megatron_config);
        self.read("megatron_core", &mut config.megatron_core);
        self.read("loftq_config", &mut config.loftq_config);
        self.read("eva_config", &mut config.eva_config);
        self.read("corda_config", &mut config.corda_config);
        self.read("lora_ga_config", &mut config.lora_ga_config);
        self.read("velora_config", &mut config.velora_config);
        self.read("alora_invocation_tokens", &mut config.alora_invocation_tokens);
        self.read("use_qalora", &mut config.use_qalora);
        self.read("qalora_group_size", &mut config.qalora_group_size);
        self.read("monteclora_config", &mut config.monteclora_config);
        self.read("layer_replication", &mut config.layer_replication);
        self.read("target_parameters", &mut config.target_parameters);
        self.read("use_bdlora", &mut config.use_bdlora);
        self.read("arrow_config", &mut config.arrow_config);
        self.read("kasa_config", &mut config.kasa_config);
        self.read("ensure_weight_tying", &mut config.ensure_weight_tying);
    }

    /// What the file holds under our own key. An unknown setting in it is an error: it comes from a later version of
    /// this crate, and says how the adapter's tensors are to be understood.
    fn namespace(&mut self, config: &mut LoraConfig) {
        if config.use_dora {
            config.dora_norm = DoraNorm::Peft;
        }
        let Some(value) = self.left.shift_remove(NAMESPACE) else { return };
        let Value::Object(settings) = &value else {
            return self.wrong_value(NAMESPACE, &value, "an object");
        };
        for (key, setting) in settings {
            match key.as_str() {
                "group_mode" => self.setting(setting, &mut config.group_mode),
                "dora_norm" => self.setting(setting, &mut config.dora_norm),
                "conv_transpose" => self.setting(setting, &mut config.conv_transpose),
                _ => {
                    let error = Error::new(Subject::Config, format!("unknown setting `{key}`"));
                    self.errors.push((NAMESPACE, error.with_hint("read this adapter with the version that wrote it")));
                }
            }
        }
    }

    fn setting<T: FromValue>(&mut self, value: &Value, field: &mut T) {
        match T::from_value(value) {
            Some(value) => *field = value,
            None => self.wrong_value(NAMESPACE, value, T::expected()),
        }
    }

    /// All errors, those of types and those of values. A key of a wrong type kept its default, and is not judged again.
    fn finish(self, config: &LoraConfig, purpose: Purpose) -> Vec<(&'static str, Error)> {
        let mut errors = self.errors;
        let judged: Vec<_> = errors.iter().map(|(key, _)| *key).collect();
        errors.extend(config.problems(purpose).into_iter().filter(|(key, _)| !judged.contains(key)));
        errors
    }
}

impl FromValue for DoraNorm {
    fn from_value(value: &Value) -> Option<Self> {
        serde_json::from_value(value.clone()).ok()
    }

    fn expected() -> String {
        "\"exact\" or \"peft\"".into()
    }
}

impl FromValue for GroupMode {
    fn from_value(value: &Value) -> Option<Self> {
        serde_json::from_value(value.clone()).ok()
    }

    fn expected() -> String {
        "\"per_group\", \"shared\" or \"dense\"".into()
    }
}
