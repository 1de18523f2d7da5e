//! PEFT's features that are not supported, by name, with what each would need.

use super::validate::{Problems, Purpose, error, suggest};
use super::write::init;
use super::{InitLoraWeights, LoraConfig, Patterns};
use crate::Error;

/// PEFT's marker for an adapter without any target.
const NO_TARGETS: &str = "dummy-target-modules";

const INITIALISATIONS: [&str; 10] =
    ["gaussian", "eva", "olora", "pissa", "pissa_niter_4", "corda", "loftq", "orthogonal", "lora_ga", "mica"];

pub(super) const MERGE: &str = "merge the adapter in PEFT (merge_and_unload) and use the merged weights";

/// What a name of `init_lora_weights` does to the base model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BaseModel {
    /// A part is moved into the factors, which fit the rest alone. PEFT can convert such an adapter.
    Reduced,
    /// Replaced by a quantised one.
    Quantised,
}

impl LoraConfig {
    pub(super) fn unsupported(&self, purpose: Purpose) -> Problems {
        let way_out = |mergeable| match (purpose, mergeable) {
            (Purpose::Training, _) => "leave it out, or train in PEFT",
            (Purpose::Loading, true) => MERGE,
            (Purpose::Loading, false) => "such an adapter can only be used in PEFT",
        };
        let requested = [
            (
                "target_parameters",
                self.target_parameters.as_ref().is_some_and(|names| !names.is_empty()),
                "adapters on parameters without a module",
                true,
            ),
            ("layer_replication", self.layer_replication.is_some(), "layers that are stacked several times", false),
            ("megatron_config", self.megatron_config.is_some(), "Megatron's parallel layers", false),
            ("use_qalora", self.use_qalora, "GPTQ-quantised layers", false),
            (
                "alora_invocation_tokens",
                self.alora_invocation_tokens.is_some(),
                "adapters that begin at a token sequence",
                false,
            ),
            ("arrow_config", self.arrow_config.is_some(), "routing between adapters", false),
            (
                "kasa_config",
                self.kasa_config.is_some(),
                "adapters in singular-value form on a truncated base model",
                true,
            ),
            ("monteclora_config", self.monteclora_config.is_some(), "Monte Carlo sampling on top of the factors", true),
            ("velora_config", self.velora_config.is_some(), "a backward pass on compressed activations", true),
            ("use_bdlora", self.use_bdlora.is_some(), "block-diagonal factors", true),
            ("ensure_weight_tying", self.ensure_weight_tying, "adapters that tied layers share", true),
        ];
        let mut problems: Problems = requested
            .into_iter()
            .filter(|(_, requested, _, _)| *requested)
            .map(|(key, _, needs, mergeable)| (key, not_supported(needs).with_hint(way_out(mergeable))))
            .collect();
        if self.target_modules == Some(Patterns::Regex(NO_TARGETS.into())) {
            let error = error(format!("{NO_TARGETS:?} stands for an adapter without targets, which has no use here"));
            problems.push(("target_modules", error));
        }
        problems.extend(self.initialisation(purpose).map(|error| ("init_lora_weights", error)));
        if purpose == Purpose::Training {
            problems.extend(self.without_effect());
        }
        problems
    }

    fn initialisation(&self, purpose: Purpose) -> Option<Error> {
        let base = match &self.init_lora_weights {
            InitLoraWeights::Other(name) => {
                if !name.eq_ignore_ascii_case("loftq") {
                    let expected =
                        format!("true, false, {}", INITIALISATIONS.map(|name| format!("{name:?}")).join(", "));
                    let error = error("unknown initialisation").found(format!("{name:?}")).expected(expected);
                    return Some(suggest(error, name, &INITIALISATIONS));
                }
                if purpose == Purpose::Training {
                    let problem = format!("not supported: {name:?} needs a quantised base model");
                    return Some(
                        error(problem).with_hint(
                            "leave init_lora_weights out, or take \"pissa\" or \"olora\", which also begin from a decomposition \
                            of the weight; for an adapter on a quantised model, make it in PEFT",
                        ),
                    );
                }
                BaseModel::Quantised
            }
            known if purpose == Purpose::Loading && known.reduces_base() => BaseModel::Reduced,
            _ => return None,
        };
        let remedy = match base {
            BaseModel::Reduced => {
                "in PEFT, save the adapter with path_initial_model_for_weight_conversion, which makes it fit the original \
                 base model"
            }
            BaseModel::Quantised => MERGE,
        };
        let name = init(&self.init_lora_weights);
        let problem = format!("{name} changes the base model, so that the adapter does not fit the original one");
        Some(error(problem).with_hint(format!(
            "{remedy}; if the base model is the changed one, saved after initialisation, set init_lora_weights to true"
        )))
    }

    /// Settings that only a feature reads that is off.
    fn without_effect(&self) -> Problems {
        let default = Self::default();
        let settings = [
            ("loftq_config", !self.loftq_config.is_empty(), "init_lora_weights \"loftq\""),
            ("qalora_group_size", self.qalora_group_size != default.qalora_group_size, "use_qalora"),
            ("megatron_core", self.megatron_core != default.megatron_core, "megatron_config"),
        ];
        let set = settings.into_iter().filter(|(_, set, _)| *set);
        set.map(|(key, _, feature)| {
            let error = error(format!("has no effect: it belongs to {feature}, which is not supported"));
            (key, error.with_hint("leave it out"))
        })
        .collect()
    }
}

fn not_supported(needs: &str) -> Error {
    error(format!("not supported yet: it needs {needs}"))
}
