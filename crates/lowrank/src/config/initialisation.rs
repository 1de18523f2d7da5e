//! `lora_ga_config`, `eva_config` and `corda_config`: tables in the file, typed here.

use serde_json::{Map, Value};

use super::validate::{Problems, Purpose, error, suggest};
use super::{InitLoraWeights, LoraConfig};
use crate::Result;
use crate::init::{Corda, Direction, Eva, LoraGa, Scaling};

const DIRECTIONS: [(&str, Direction); 4] = [
    ("ArB2r", Direction::ArB2r),
    ("A2rBr", Direction::A2rBr),
    ("ArBr", Direction::ArBr),
    ("random", Direction::Random),
];
const SCALINGS: [(&str, Scaling); 4] = [
    ("stable", Scaling::Stable),
    ("weight_svd", Scaling::WeightSvd),
    ("gd_scale", Scaling::GdScale),
    ("unit", Scaling::Unit),
];
const METHODS: [(&str, Corda); 2] = [("ipm", Corda::InstructionPreviewed), ("kpm", Corda::KnowledgePreserved)];

impl LoraConfig {
    /// `lora_ga_config`; PEFT's defaults where it, or a key of it, is missing.
    ///
    /// # Errors
    /// When a key is unknown, or its value is none of PEFT's.
    pub fn lora_ga(&self) -> Result<LoraGa> {
        let mut typed = LoraGa::default();
        each(self.lora_ga_config.as_ref(), &["direction", "scale", "stable_gamma"], |key, value| {
            match key {
                "direction" => typed.direction = named(key, value, &DIRECTIONS)?,
                "scale" => typed.scale = named(key, value, &SCALINGS)?,
                _ => typed.stable_gamma = number(key, value, f64::MIN_POSITIVE, "a positive number")?,
            }
            Ok(())
        })?;
        Ok(typed)
    }

    /// `eva_config`; PEFT's defaults where it, or a key of it, is missing. `tau` and the mask of labels are read and have no
    /// effect: the directions are those of all inputs that are shown, whole.
    ///
    /// # Errors
    /// When a key is unknown, or its value out of range.
    pub fn eva(&self) -> Result<Eva> {
        let keys = ["rho", "tau", "use_label_mask", "label_mask_value", "whiten", "adjust_scaling_factors"];
        let mut typed = Eva::default();
        each(self.eva_config.as_ref(), &keys, |key, value| {
            match key {
                "rho" => typed.rho = number(key, value, 1.0, "a number of at least 1")?,
                "whiten" => typed.whiten = flag(key, value)?,
                "adjust_scaling_factors" => typed.adjust_scaling_factors = flag(key, value)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(typed)
    }

    /// `corda_config`; PEFT's defaults where it, or a key of it, is missing. Settings about files and progress of PEFT's own
    /// preparation are read and have no effect.
    ///
    /// # Errors
    /// When a key is unknown, or the method is none of PEFT's.
    pub fn corda(&self) -> Result<Corda> {
        let keys = [
            "corda_method",
            "cache_file",
            "covariance_file",
            "verbose",
            "use_float16_for_covariance",
            "prune_temporary_fields",
        ];
        let mut typed = Corda::default();
        each(self.corda_config.as_ref(), &keys, |key, value| {
            if key == "corda_method" {
                typed = named(key, value, &METHODS)?;
            }
            Ok(())
        })?;
        Ok(typed)
    }

    /// Tables that are wrong, or of an initialisation that is another.
    pub(super) fn initialisation_tables(&self, purpose: Purpose) -> Problems {
        let tables = [
            ("lora_ga_config", &self.lora_ga_config, InitLoraWeights::LoraGa, self.lora_ga().err()),
            ("eva_config", &self.eva_config, InitLoraWeights::Eva, self.eva().err()),
            ("corda_config", &self.corda_config, InitLoraWeights::Corda, self.corda().err()),
        ];
        let problem = |(key, table, init, wrong): (&'static str, &Option<_>, InitLoraWeights, Option<_>)| {
            if self.init_lora_weights == init {
                return wrong.map(|wrong| (key, wrong));
            }
            let name = super::write::init(&init);
            (purpose == Purpose::Training && table.is_some()).then(|| {
                let error = error(format!("has no effect without init_lora_weights {name}"));
                (key, error.with_hint(format!("leave it out, or set init_lora_weights to {name}")))
            })
        };
        tables.into_iter().filter_map(problem).collect()
    }
}

/// Gives `take` every key of a table, all of them known.
fn each(
    table: Option<&Map<String, Value>>,
    keys: &[&str],
    mut take: impl FnMut(&str, &Value) -> Result<()>,
) -> Result<()> {
    for (key, value) in table.into_iter().flatten() {
        if !keys.contains(&key.as_str()) {
            return Err(suggest(error("unknown key").found(format!("`{key}`")), key, keys));
        }
        take(key, value)?;
    }
    Ok(())
}

fn named<T: Copy>(key: &str, value: &Value, known: &[(&str, T)]) -> Result<T> {
    let name = value.as_str().unwrap_or_default();
    if let Some((_, typed)) = known.iter().find(|(known, _)| *known == name) {
        return Ok(*typed);
    }
    let names: Vec<&str> = known.iter().map(|(known, _)| *known).collect();
    let error = error("unknown").at(key).found(value).expected(format!("one of {}", names.join(", ")));
    Err(suggest(error, name, &names))
}

fn number(key: &str, value: &Value, least: f64, expected: &str) -> Result<f64> {
    let number = value.as_f64().filter(|number| number.is_finite() && *number >= least);
    number.ok_or_else(|| error("out of range").at(key).found(value).expected(expected))
}

fn flag(key: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| error("wrong value").at(key).found(value).expected("true or false"))
}
