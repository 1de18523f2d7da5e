//! Writing `adapter_config.json`.

use serde_json::{Map, Value, json};

use super::python_json::{dumps, sorted};
use super::{InitLoraWeights, LayerIndices, LoraConfig, PEFT_VERSION, Patterns, TokenIndices};
use crate::adapter::{DoraNorm, GroupMode};

/// The key under which a file holds what PEFT has no key for.
pub(super) const NAMESPACE: &str = "lowrank";

impl LoraConfig {
    /// The text of `adapter_config.json`, as PEFT 0.21.2 writes it when it saves an adapter: every key, sorted, two
    /// spaces of indent, ASCII, no line end at the end, `inference_mode` true.
    ///
    /// A file that PEFT saved with an adapter is rewritten byte for byte. The order of lists is kept (PEFT holds
    /// `target_modules` as a set and writes it in any order), and that of `rank_pattern` and `alpha_pattern`, where
    /// the first match counts (PEFT sorts them).
    ///
    /// ```
    /// use lowrank::config::LoraConfig;
    ///
    /// let text = LoraConfig::default().to_json();
    /// assert!(text.starts_with("{\n  \"alora_invocation_tokens\": null,\n  \"alpha_pattern\": {},\n"));
    /// assert!(text.ends_with("  \"velora_config\": null\n}"));
    /// ```
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut entries: Vec<(&str, Value)> = self.values();
        for (key, value) in &mut entries {
            let as_found = self.as_found.0.iter().find(|(name, written, _)| name == key && written == value);
            if let Some((_, _, found)) = as_found {
                value.clone_from(found);
            }
        }
        entries.push(("inference_mode", true.into()));
        entries.push(("peft_type", "LORA".into()));
        let own = self.own_settings();
        if !own.is_empty() {
            entries.push((NAMESPACE, own.into()));
        }
        entries.extend(self.unknown.iter().map(|(key, value)| (key.as_str(), value.clone())));
        entries.sort_by_key(|(key, _)| *key);
        let in_order = |key| key == "rank_pattern" || key == "alpha_pattern";
        let object = entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), if in_order(key) { value } else { sorted(value) }))
            .collect();
        dumps(&Value::Object(object))
    }

    /// What PEFT has no key for, where it is not what a file without it would mean.
    fn own_settings(&self) -> Map<String, Value> {
        let group_mode = (self.group_mode != GroupMode::default()).then(|| ("group_mode", self.group_mode.name()));
        let dora_norm =
            (self.use_dora && self.dora_norm != DoraNorm::Peft).then(|| ("dora_norm", self.dora_norm.name()));
        let names = group_mode.into_iter().chain(dora_norm).map(|(key, name)| (key.to_owned(), name.into()));
        let transposed =
            (!self.conv_transpose.is_empty()).then(|| ("conv_transpose".to_owned(), json!(self.conv_transpose)));
        names.chain(transposed).collect()
    }

    /// The names of all keys that a configuration can have.
    pub(super) fn keys() -> Vec<&'static str> {
        let keys = Self::default().values().into_iter().map(|(key, _)| key);
        keys.chain(["inference_mode", "peft_type"]).collect()
    }

    /// Every field that is PEFT's, as written, but for the two that are written the same always.
    pub(super) fn values(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("alora_invocation_tokens", json!(self.alora_invocation_tokens)),
            ("alpha_pattern", object(&self.alpha_pattern, |alpha| number(*alpha))),
            ("arrow_config", json!(self.arrow_config)),
            ("auto_mapping", json!(self.auto_mapping)),
            ("base_model_name_or_path", json!(self.base_model_name_or_path)),
            ("bias", self.bias.name().into()),
            ("corda_config", json!(self.corda_config)),
            ("ensure_weight_tying", self.ensure_weight_tying.into()),
            ("eva_config", json!(self.eva_config)),
            ("exclude_modules", patterns(self.exclude_modules.as_ref())),
            ("fan_in_fan_out", self.fan_in_fan_out.into()),
            ("init_lora_weights", init(&self.init_lora_weights)),
            ("kasa_config", json!(self.kasa_config)),
            ("layer_replication", json!(self.layer_replication)),
            ("layers_pattern", patterns(self.layers_pattern.as_ref())),
            ("layers_to_transform", layers(self.layers_to_transform.as_ref())),
            ("loftq_config", json!(self.loftq_config)),
            ("lora_alpha", number(self.lora_alpha)),
            ("lora_bias", self.lora_bias.into()),
            ("lora_dropout", self.lora_dropout.into()),
            ("lora_ga_config", json!(self.lora_ga_config)),
            ("megatron_config", json!(self.megatron_config)),
            ("megatron_core", json!(self.megatron_core)),
            ("modules_to_save", json!(self.modules_to_save)),
            ("monteclora_config", json!(self.monteclora_config)),
            ("peft_version", self.peft_version.as_deref().unwrap_or(PEFT_VERSION).into()),
            ("qalora_group_size", self.qalora_group_size.into()),
            ("r", self.r.into()),
            ("rank_pattern", object(&self.rank_pattern, |rank| (*rank).into())),
            ("revision", json!(self.revision)),
            ("target_modules", patterns(self.target_modules.as_ref())),
            ("target_parameters", json!(self.target_parameters)),
            ("task_type", json!(self.task_type)),
            ("trainable_token_indices", tokens(self.trainable_token_indices.as_ref())),
            ("use_bdlora", json!(self.use_bdlora)),
            ("use_dora", self.use_dora.into()),
            ("use_qalora", self.use_qalora.into()),
            ("use_rslora", self.use_rslora.into()),
            ("velora_config", json!(self.velora_config)),
        ]
    }
}

fn patterns(patterns: Option<&Patterns>) -> Value {
    match patterns {
        None => Value::Null,
        Some(Patterns::Regex(pattern)) => pattern.as_str().into(),
        Some(Patterns::List(names)) => names.as_slice().into(),
    }
}

fn layers(layers: Option<&LayerIndices>) -> Value {
    match layers {
        None => Value::Null,
        Some(LayerIndices::One(index)) => (*index).into(),
        Some(LayerIndices::List(indices)) => indices.as_slice().into(),
    }
}

fn tokens(tokens: Option<&TokenIndices>) -> Value {
    match tokens {
        None => Value::Null,
        Some(TokenIndices::Embedding(indices)) => indices.as_slice().into(),
        Some(TokenIndices::Modules(modules)) => object(modules, |indices| indices.as_slice().into()),
    }
}

pub(super) fn init(init: &InitLoraWeights) -> Value {
    match init {
        InitLoraWeights::True => true.into(),
        InitLoraWeights::False => false.into(),
        InitLoraWeights::Gaussian => "gaussian".into(),
        InitLoraWeights::Orthogonal => "orthogonal".into(),
        InitLoraWeights::Pissa => "pissa".into(),
        InitLoraWeights::PissaNiter(iterations) => format!("pissa_niter_{iterations}").into(),
        InitLoraWeights::Olora => "olora".into(),
        InitLoraWeights::Mica => "mica".into(),
        InitLoraWeights::LoraGa => "lora_ga".into(),
        InitLoraWeights::Eva => "eva".into(),
        InitLoraWeights::Corda => "corda".into(),
        InitLoraWeights::Other(name) => name.as_str().into(),
    }
}

fn object<T>(entries: &[(String, T)], value: impl Fn(&T) -> Value) -> Value {
    entries.iter().map(|(key, item)| (key.clone(), value(item))).collect::<Map<_, _>>().into()
}

/// An integer when `value` is whole, as the alphas that people write are.
#[expect(clippy::cast_possible_truncation, reason = "whole and below the limit")]
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { (value as i64).into() } else { value.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_pefts() {
        let peft = include_str!("testdata/default.json");
        let saved = peft.replace("\"inference_mode\": false", "\"inference_mode\": true");
        assert_eq!(LoraConfig::default().to_json(), saved);
    }

    #[test]
    fn alphas_are_integers_when_whole() {
        for (alpha, expected) in [(16.0, "16"), (0.5, "0.5"), (-2.0, "-2"), (1e20, "1e+20")] {
            let text = LoraConfig { lora_alpha: alpha, ..LoraConfig::default() }.to_json();
            assert!(text.contains(&format!("\"lora_alpha\": {expected},\n")), "{text}");
        }
    }

    #[test]
    fn the_group_mode_is_written_only_when_it_is_not_the_default() {
        assert!(!LoraConfig::default().to_json().contains("lowrank"));
        let text = LoraConfig { group_mode: GroupMode::Shared, ..LoraConfig::default() }.to_json();
        assert!(
            text.contains("  \"lowrank\": {\n    \"group_mode\": \"shared\"\n  },\n  \"megatron_config\""),
            "{text}"
        );
    }

    #[test]
    fn patterns_keep_their_order() {
        let rank_pattern = vec![("z".into(), 2), ("a".into(), 4)];
        let text = LoraConfig { rank_pattern, ..LoraConfig::default() }.to_json();
        assert!(text.contains("\"rank_pattern\": {\n    \"z\": 2,\n    \"a\": 4\n  }"), "{text}");
    }
}
