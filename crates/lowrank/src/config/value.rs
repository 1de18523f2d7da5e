//! The types of configuration values, and how each is read from JSON.

use serde_json::{Map, Value};

/// Modules, by a pattern or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patterns {
    /// One string: a Python regular expression for the whole path, or one of the words of
    /// [`LoraConfig::target_modules`](super::LoraConfig::target_modules).
    Regex(String),
    /// Names. In `layers_pattern` each is a regular expression as well.
    List(Vec<String>),
}

impl Patterns {
    /// The single strings.
    #[must_use]
    pub fn entries(&self) -> &[String] {
        match self {
            Self::Regex(pattern) => std::slice::from_ref(pattern),
            Self::List(names) => names,
        }
    }
}

/// Which biases of the base model train, and are saved, with the adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bias {
    /// None.
    #[default]
    None,
    /// Every bias of the model.
    All,
    /// The biases of the modules that have an adapter.
    LoraOnly,
}

impl Bias {
    /// PEFT's name: `none`, `all`, `lora_only`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::All => "all",
            Self::LoraOnly => "lora_only",
        }
    }
}

/// How the factors start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum InitLoraWeights {
    /// `true`: `A` uniform as a new layer's weight, `B` zero, so that the adapter starts without effect.
    #[default]
    True,
    /// `false`: both as a new layer's weight, so that the adapter has an effect from the start; for tests.
    False,
    /// `"gaussian"`, in any case: `A` normal with deviation `1/r`, `B` zero.
    Gaussian,
    /// `"orthogonal"`: both random, with a product of zero; the rank has to be even.
    Orthogonal,
    /// `"pissa"`: the principal singular vectors of the base weight, which keeps the rest.
    Pissa,
    /// `"pissa_niter_N"`: as `"pissa"`, by a randomised decomposition of `N` iterations.
    PissaNiter(usize),
    /// `"olora"`: the first columns of `Q` and rows of `R` of the base weight `Q R`, which keeps the rest.
    Olora,
    /// `"mica"`: `B` the least singular vectors of the base weight, frozen; `A` zero.
    Mica,
    /// `"lora_ga"`: singular vectors of the loss's gradient on training data; the base keeps the rest.
    LoraGa,
    /// `"eva"`: `A` the principal directions of the layer's inputs on training data, `B` zero; ranks go where these vary most.
    Eva,
    /// `"corda"`: the part of the base weight that its inputs on training data use most, or least; the base keeps the rest.
    Corda,
    /// Another of PEFT's names, or an unknown one: see [`LoraConfig::validate`](super::LoraConfig::validate).
    Other(String),
}

impl InitLoraWeights {
    /// Whether the factors begin as a part of the base weight, which is left with the rest.
    #[must_use]
    pub fn reduces_base(&self) -> bool {
        matches!(self, Self::Pissa | Self::PissaNiter(_) | Self::Olora | Self::LoraGa | Self::Corda)
    }

    /// Whether it begins from training data.
    #[must_use]
    pub fn needs_data(&self) -> bool {
        matches!(self, Self::LoraGa | Self::Eva | Self::Corda)
    }

    /// The initialisation of that name, in any case.
    fn named(name: &str) -> Self {
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "gaussian" => Self::Gaussian,
            "orthogonal" => Self::Orthogonal,
            "pissa" => Self::Pissa,
            "olora" => Self::Olora,
            "mica" => Self::Mica,
            "lora_ga" => Self::LoraGa,
            "eva" => Self::Eva,
            "corda" => Self::Corda,
            _ => match lower.strip_prefix("pissa_niter_").map(str::parse) {
                Some(Ok(iterations)) => Self::PissaNiter(iterations),
                _ => Self::Other(name.to_owned()),
            },
        }
    }
}

/// The value of `layers_to_transform`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerIndices {
    /// One layer.
    One(usize),
    /// Several.
    List(Vec<usize>),
}

impl LayerIndices {
    /// The single indices.
    #[must_use]
    pub fn indices(&self) -> &[usize] {
        match self {
            Self::One(index) => std::slice::from_ref(index),
            Self::List(indices) => indices,
        }
    }
}

/// The value of `trainable_token_indices`: which rows of an embedding train, in the order in which their values are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenIndices {
    /// Rows of the token embedding: the module `embed_tokens`, or a model's only embedding.
    Embedding(Vec<usize>),
    /// Rows of the modules whose path ends with a name, with or without a dot before; the first that matches counts.
    Modules(Vec<(String, Vec<usize>)>),
}

impl TokenIndices {
    /// The lists, each with its name.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[usize])> {
        let (own, named) = match self {
            Self::Embedding(indices) => (Some(("embed_tokens", indices.as_slice())), &[][..]),
            Self::Modules(modules) => (None, modules.as_slice()),
        };
        own.into_iter().chain(named.iter().map(|(name, indices)| (name.as_str(), indices.as_slice())))
    }

    /// The rows of the module at `path`.
    #[must_use]
    pub fn of(&self, path: &str) -> Option<&[usize]> {
        match self {
            Self::Embedding(indices) => Some(indices),
            Self::Modules(modules) => {
                modules.iter().find(|(name, _)| path.ends_with(name.as_str())).map(|(_, indices)| indices.as_slice())
            }
        }
    }
}

/// Values of a file that would be written in another spelling: what would be written, and what was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AsFound(pub(super) Vec<(&'static str, Value, Value)>);

/// A value that can be read from JSON.
pub(super) trait FromValue: Sized {
    /// The value, when `value` is one.
    fn from_value(value: &Value) -> Option<Self>;

    /// What `from_value` accepts, in words.
    fn expected() -> String;
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_bool()
    }

    fn expected() -> String {
        "true or false".into()
    }
}

impl FromValue for usize {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }

    fn expected() -> String {
        "a whole number, not negative".into()
    }
}

impl FromValue for f64 {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_f64()
    }

    fn expected() -> String {
        "a number".into()
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().map(Into::into)
    }

    fn expected() -> String {
        "a string".into()
    }
}

impl FromValue for Value {
    fn from_value(value: &Value) -> Option<Self> {
        Some(value.clone())
    }

    fn expected() -> String {
        "a value".into()
    }
}

impl FromValue for Map<String, Value> {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_object().cloned()
    }

    fn expected() -> String {
        "an object".into()
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        if value.is_null() { Some(None) } else { T::from_value(value).map(Some) }
    }

    fn expected() -> String {
        format!("{} or null", T::expected())
    }
}

impl FromValue for Vec<String> {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(String::from_value).collect()
    }

    fn expected() -> String {
        "a list of strings".into()
    }
}

impl<T: FromValue> FromValue for Vec<(String, T)> {
    fn from_value(value: &Value) -> Option<Self> {
        if value.is_null() {
            return Some(Self::new());
        }
        value.as_object()?.iter().map(|(key, value)| Some((key.clone(), T::from_value(value)?))).collect()
    }

    fn expected() -> String {
        format!("an object whose values are each {}", T::expected())
    }
}

impl FromValue for Patterns {
    fn from_value(value: &Value) -> Option<Self> {
        String::from_value(value).map(Self::Regex).or_else(|| Vec::from_value(value).map(Self::List))
    }

    fn expected() -> String {
        "a string or a list of strings".into()
    }
}

impl FromValue for LayerIndices {
    fn from_value(value: &Value) -> Option<Self> {
        usize::from_value(value).map(Self::One).or_else(|| Vec::from_value(value).map(Self::List))
    }

    fn expected() -> String {
        "a layer's number or a list of them".into()
    }
}

impl FromValue for Vec<usize> {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(usize::from_value).collect()
    }

    fn expected() -> String {
        "a list of whole numbers, not negative".into()
    }
}

impl FromValue for TokenIndices {
    fn from_value(value: &Value) -> Option<Self> {
        if value.is_null() {
            return None;
        }
        Vec::from_value(value).map(Self::Embedding).or_else(|| Vec::from_value(value).map(Self::Modules))
    }

    fn expected() -> String {
        "a list of row numbers, or an object with one for each module".into()
    }
}

impl FromValue for Bias {
    fn from_value(value: &Value) -> Option<Self> {
        [Self::None, Self::All, Self::LoraOnly].into_iter().find(|bias| value.as_str() == Some(bias.name()))
    }

    fn expected() -> String {
        "\"none\", \"all\" or \"lora_only\"".into()
    }
}

impl FromValue for InitLoraWeights {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(true) => Some(Self::True),
            Value::Bool(false) => Some(Self::False),
            Value::String(name) => Some(Self::named(name)),
            _ => None,
        }
    }

    fn expected() -> String {
        "true, false or the name of an initialisation".into()
    }
}
