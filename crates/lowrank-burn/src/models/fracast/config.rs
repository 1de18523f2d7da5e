//! The keys of a Fracast's `config.json`: those of the package, in its two tables `model` and `pyramid`.

use lowrank::{Error, Result, Subject, suggest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The keys of a Fracast's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FracastConfig {
    /// The network.
    pub model: Keys,
    /// Several resolutions of the context. The published network has one, and so has this.
    pub pyramid: Map<String, Value>,
}

/// The keys of the table `model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Keys {
    /// Width of every layer.
    pub d_model: usize,
    /// Steps of context.
    #[serde(rename = "W")]
    pub context: usize,
    /// Steps that are forecast.
    pub horizon: usize,
    /// The quantiles that are forecast, in order.
    pub quantiles: Vec<f64>,
    /// Parts of the horizon, and the steps of each: together they make the horizon, and have no other effect.
    pub future_queries: usize,
    /// See `future_queries`.
    pub future_patch: usize,
    /// Dilations, `dilation_base` to the power of 0, 1, and so on.
    #[serde(default = "ten")]
    pub n_stages: usize,
    /// What the dilation grows by from stage to stage.
    #[serde(default = "two")]
    pub dilation_base: usize,
    /// Kernel of the shared filters.
    #[serde(default = "three")]
    pub kernel_size: usize,
    /// Width of the feed-forward layers in the blocks, in widths of the network.
    #[serde(default = "one_and_a_half")]
    pub ffn_mult: f64,
    /// Sines and cosines that tell a block its scale.
    #[serde(default = "eight")]
    pub scale_cond_dim: usize,
    /// Periods that are looked for in the context.
    pub periodic_topk: usize,
    /// Multiples of a period's frequency that the network is shown.
    #[serde(default = "one")]
    pub periodic_harmonics: usize,
    /// The shortest period, in steps.
    #[serde(default = "two")]
    pub periodic_min_period: usize,
    /// Probability with which noise would show a period.
    #[serde(default = "five_percent")]
    pub periodic_alpha: f64,
    /// Width of the feed-forward layers in the head.
    pub head_d_ff: usize,
    /// Feed-forward layers in the head.
    #[serde(default = "one")]
    pub head_layers: usize,
    /// Filters along the horizon.
    #[serde(default = "two")]
    pub head_fc_layers: usize,
    /// Kernel of the filters along the horizon.
    #[serde(default = "three")]
    pub head_fc_kernel: usize,
    /// Stages of the block that continues the context into the future.
    #[serde(default = "six")]
    pub head_future_conv_layers: usize,
    /// Last steps of the context that it sees.
    #[serde(default = "past")]
    pub head_future_conv_seed: usize,
    /// Parts of a period of which it is shown the means.
    #[serde(default = "sixteen")]
    pub head_phase_bins: usize,
    /// Keys that have one value here, and keys without effect.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

fn one() -> usize {
    1
}
fn two() -> usize {
    2
}
fn three() -> usize {
    3
}
fn six() -> usize {
    6
}
fn eight() -> usize {
    8
}
fn ten() -> usize {
    10
}
fn sixteen() -> usize {
    16
}
fn past() -> usize {
    128
}
fn one_and_a_half() -> f64 {
    1.5
}
fn five_percent() -> f64 {
    0.05
}

/// Keys that the package does not read for this network; they are kept.
const UNREAD: [&str; 15] = [
    "n_layers",
    "n_heads",
    "d_ff",
    "dropout",
    "context_norm",
    "level_affine",
    "delta_reg",
    "max_channels",
    "max_future_patches",
    "expert",
    "align_lambda",
    "dynamic_L",
    "multi_horizon",
    "family",
    "head_conv_kernel",
];

/// As [`UNREAD`], in `pyramid`.
const UNREAD_PYRAMID: [&str; 4] = ["mode", "time_rope", "level_embed", "bottleneck"];

/// The largest width, and the longest context.
const MAX_SIZE: usize = 1 << 16;

/// Keys with the one value of the published network, and whether the package has it by default.
fn fixed(context: usize) -> [(&'static str, Value, bool); 11] {
    [
        ("level_widths", json!([context]), true),
        ("periodic_phase", json!(true), true),
        ("causal", json!(true), true),
        ("separable_conv", json!(true), true),
        ("share_stages", json!(true), true),
        ("scale_cond", json!("film"), true),
        ("recency_encoding", json!(true), true),
        ("head_kind", json!("gather"), true),
        ("head_output_mode", json!("direct"), true),
        ("head_future_conv", json!(true), false),
        ("head_seasonal_fill_mode", json!("phase_mean"), true),
    ]
}

impl FracastConfig {
    pub(in crate::models) fn from_map(keys: Map<String, Value>) -> Result<Self> {
        let config: Self = serde_json::from_value(Value::Object(keys)).map_err(|error| {
            Error::new(Subject::Model, error.to_string()).with_hint("see the keys of a `fracast`'s config.json")
        })?;
        let mut errors = config.model.sizes();
        errors.extend(config.model.others());
        errors.extend(config.strange_pyramid());
        Error::all(errors)?;
        Ok(config)
    }

    fn strange_pyramid(&self) -> Vec<Error> {
        let wrong = self.pyramid.iter().filter_map(|(key, value)| match key.as_str() {
            "ratios" if *value == json!([]) => None,
            "ratios" => Some(another_value(key, value, &json!([]))),
            key if UNREAD_PYRAMID.contains(&key) => None,
            key => Some(unknown(key, UNREAD_PYRAMID.into_iter().chain(["ratios"]))),
        });
        wrong.map(|error| error.at("pyramid")).collect()
    }
}

impl Keys {
    /// The dilations, in order.
    #[must_use]
    pub fn dilations(&self) -> Vec<usize> {
        (0..self.n_stages).map(|stage| self.dilation(stage)).collect()
    }

    pub(super) fn dilation(&self, stage: usize) -> usize {
        self.dilation_base.saturating_pow(u32::try_from(stage).unwrap_or(u32::MAX))
    }

    /// Width of the feed-forward layers in the blocks.
    pub(super) fn d_hidden(&self) -> usize {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a width up to 2^16, rounded down as the package does"
        )]
        let width = (self.d_model as f64 * self.ffn_mult) as usize;
        width
    }

    /// Sines that tell a block its scale.
    pub(super) fn scale_frequencies(&self) -> usize {
        (self.scale_cond_dim / 2).max(1)
    }

    /// What is wrong with the sizes.
    fn sizes(&self) -> Vec<Error> {
        let sizes = [
            ("d_model", self.d_model),
            ("horizon", self.horizon),
            ("n_stages", self.n_stages),
            ("dilation_base", self.dilation_base),
            ("kernel_size", self.kernel_size),
            ("scale_cond_dim", self.scale_cond_dim),
            ("periodic_topk", self.periodic_topk),
            ("periodic_harmonics", self.periodic_harmonics),
            ("periodic_min_period", self.periodic_min_period),
            ("head_d_ff", self.head_d_ff),
            ("head_fc_kernel", self.head_fc_kernel),
            ("head_future_conv_layers", self.head_future_conv_layers),
            ("head_future_conv_seed", self.head_future_conv_seed),
            ("head_phase_bins", self.head_phase_bins),
        ];
        let mut errors = Vec::new();
        let mut check = |key: &str, fine: bool, found: String, expected: String| {
            if !fine {
                errors.push(Error::new(Subject::Model, "out of range").at(key).found(found).expected(expected));
            }
        };
        for (key, size) in sizes {
            check(key, (1..=MAX_SIZE).contains(&size), size.to_string(), format!("1 to {MAX_SIZE}"));
        }
        // A spectrum of fewer than four lines has no peak.
        check("W", (8..=MAX_SIZE).contains(&self.context), self.context.to_string(), format!("8 to {MAX_SIZE}"));
        let lines = self.context.next_power_of_two() / 2;
        check("periodic_topk", self.periodic_topk <= lines, self.periodic_topk.to_string(), format!("{lines} at most"));
        let furthest = self.dilation(self.n_stages.max(self.head_future_conv_layers) - 1);
        let reach = furthest.saturating_mul(self.kernel_size);
        check("dilation_base", reach <= 1 << 24, format!("a filter over {reach} steps"), "2^24 at most".into());
        for (key, layers) in [("head_layers", self.head_layers), ("head_fc_layers", self.head_fc_layers)] {
            check(key, layers <= 20, layers.to_string(), "20 at most".into());
        }
        let parts = self.future_queries.saturating_mul(self.future_patch);
        check("future_queries", parts == self.horizon, format!("{parts} steps"), format!("{}", self.horizon));
        errors
    }

    /// What is wrong with everything but the sizes.
    fn others(&self) -> Vec<Error> {
        let mut errors = Vec::new();
        let mut range = |key: &str, found: String, expected: &str| {
            errors.push(Error::new(Subject::Model, "out of range").at(key).found(found).expected(expected));
        };
        let hidden = self.d_hidden();
        if !(self.ffn_mult.is_finite() && (1..=MAX_SIZE).contains(&hidden)) {
            range("ffn_mult", self.ffn_mult.to_string(), "a positive number that makes a width");
        }
        if !(self.periodic_alpha > 0.0 && self.periodic_alpha <= 1.0) {
            range("periodic_alpha", self.periodic_alpha.to_string(), "above 0, 1 at most");
        }
        let rising = self.quantiles.is_sorted_by(|a, b| a < b);
        let inside = self.quantiles.iter().all(|quantile| *quantile > 0.0 && *quantile < 1.0);
        if self.quantiles.is_empty() || !rising || !inside {
            range("quantiles", format!("{:?}", self.quantiles), "numbers between 0 and 1, rising");
        }
        let fixed = fixed(self.context);
        for (key, value) in &self.rest {
            match fixed.iter().find(|(name, ..)| name == key) {
                Some((_, only, _)) if only == value => {}
                Some((_, only, _)) => errors.push(another_value(key, value, only)),
                None if UNREAD.contains(&key.as_str()) => {}
                None => errors.push(unknown(key, fixed.iter().map(|(name, ..)| *name).chain(UNREAD))),
            }
        }
        let absent = fixed.iter().filter(|(key, _, default)| !default && !self.rest.contains_key(*key));
        errors.extend(absent.map(|(key, only, _)| Error::new(Subject::Model, "missing").at(key).expected(only)));
        errors.into_iter().map(|error| error.at("model")).collect()
    }
}

fn another_value(key: &str, value: &Value, only: &Value) -> Error {
    let error = Error::new(Subject::Model, "not a network that can be built here").at(key).found(value).expected(only);
    error.with_hint("only the form of the published checkpoint is built")
}

fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let error = Error::new(Subject::Model, "unknown key").at(key);
    match suggest::nearest(key, known) {
        Some(near) => error.with_hint(format!("did you mean `{near}`?")),
        None => error,
    }
}
