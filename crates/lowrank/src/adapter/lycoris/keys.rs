//! The keys of a LyCORIS file, sorted by module.

use std::collections::{BTreeMap, BTreeSet};

use super::Locon;
use crate::adapter::tensor::Tensor;
use crate::error::{Error, Result, Subject};

/// The prefixes that LyCORIS and kohya's sd-scripts write, one for each model that a file may be for.
pub const PREFIXES: [&str; 6] = ["lycoris", "lora_unet", "lora_te", "lora_te1", "lora_te2", "lora_te3"];

/// What is done about anything but `LoCon`.
const EXTRACT: &str = "merge it into the base with LyCORIS, and make an adapter of the change with `lowrank extract`";

/// The ends of keys that belong to other algorithms than `LoCon`, with the algorithm.
const OTHERS: [(&str, &str); 14] = [
    ("hada_", "LoHa"),
    ("lokr_", "LoKr"),
    ("oft_", "OFT"),
    ("rescale", "OFT"),
    ("diff", "a full difference"),
    ("w_norm", "a trained norm"),
    ("b_norm", "a trained norm"),
    ("on_input", "IA3"),
    ("a1.", "GLoRA"),
    ("a2.", "GLoRA"),
    ("b1.", "GLoRA"),
    ("b2.", "GLoRA"),
    ("q_layer.", "T-LoRA"),
    ("p_layer.", "T-LoRA"),
];

/// A tensor of one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Down,
    Up,
    Mid,
    Alpha,
    DoraScale,
}

impl Part {
    pub(super) const ALL: [Self; 5] = [Self::Down, Self::Up, Self::Mid, Self::Alpha, Self::DoraScale];

    /// The end of the key.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Down => "lora_down.weight",
            Self::Up => "lora_up.weight",
            Self::Mid => "lora_mid.weight",
            Self::Alpha => "alpha",
            Self::DoraScale => "dora_scale",
        }
    }
}

/// The modules of one prefix.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// The prefix, without the `_` behind it.
    pub prefix: String,
    /// The modules, by what is left of their names: the path with `_` for every dot.
    pub modules: BTreeMap<String, Locon>,
    /// The modules under other prefixes.
    pub left_out: Vec<String>,
}

/// The name of the module at `path`.
#[must_use]
pub fn name_of(path: &str) -> String {
    path.replace('.', "_")
}

impl Named {
    /// Sorts the tensors of a file by module, and takes the modules under `prefix`; without one, under the prefix of
    /// [`PREFIXES`] that the file has.
    ///
    /// # Errors
    /// All of these at once: keys of other algorithms, by name; keys that are none of LyCORIS's; half of a pair. Else when
    /// there is no module under the prefix, or, without one, modules under none or several of [`PREFIXES`].
    pub fn from_tensors(tensors: BTreeMap<String, Tensor>, prefix: Option<&str>) -> Result<Self> {
        let mut parts = BTreeMap::<String, BTreeMap<Part, Tensor>>::new();
        let mut strangers = BTreeMap::<&str, Vec<String>>::new();
        for (key, tensor) in tensors {
            let (module, end) = key.split_once('.').unwrap_or((&key, ""));
            match Part::ALL.into_iter().find(|part| part.suffix() == end) {
                Some(part) => {
                    parts.entry(module.to_owned()).or_default().insert(part, tensor);
                }
                None => strangers.entry(algorithm(end)).or_default().push(key),
            }
        }
        // LoHa and others have an alpha of their own, which is no news beside their factors.
        let stranger = |module: &str| strangers.values().flatten().any(|key| key.split('.').next() == Some(module));
        parts.retain(|module, parts| parts.len() > 1 || !parts.contains_key(&Part::Alpha) || !stranger(module));
        let mut errors: Vec<Error> = strangers.iter().map(|(algorithm, keys)| refused(algorithm, keys)).collect();
        let mut all = BTreeMap::new();
        for (module, parts) in parts {
            match whole(parts) {
                Ok(locon) => {
                    all.insert(module, locon);
                }
                Err(_) if stranger(&module) => {}
                Err(error) => errors.push(error.at(format_args!("module `{module}`"))),
            }
        }
        Error::all(errors)?;
        let prefix = match prefix {
            Some(prefix) => prefix.trim_end_matches('_').to_owned(),
            None => only_prefix(&all)?,
        };
        let mut named = Self { prefix, ..Self::default() };
        for (module, locon) in all {
            match module.strip_prefix(&named.prefix).and_then(|rest| rest.strip_prefix('_')) {
                Some(name) => {
                    named.modules.insert(name.to_owned(), locon);
                }
                None => named.left_out.push(module),
            }
        }
        if named.modules.is_empty() {
            return Err(Error::new(Subject::Adapter, format!("no module has the prefix `{}`", named.prefix))
                .found(first(&named.left_out)));
        }
        Ok(named)
    }
}

/// The one prefix that all modules have.
fn only_prefix(modules: &BTreeMap<String, Locon>) -> Result<String> {
    let of = |module: &str| {
        PREFIXES.into_iter().find(|prefix| module.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_')))
    };
    let found: BTreeSet<Option<&str>> = modules.keys().map(|module| of(module)).collect();
    let names: Vec<&str> = found.iter().copied().flatten().collect();
    match (names.as_slice(), found.contains(&None)) {
        ([one], false) => Ok((*one).to_owned()),
        ([], false) => Err(Error::new(Subject::Adapter, "there are no tensors").expected("the factors of an adapter")),
        ([_, _, ..], false) => Err(Error::new(Subject::Adapter, "the adapters of several models in one file")
            .found(names.join(", "))
            .expected("one prefix")
            .with_hint("name one with `--prefix`, and its model with `--base`; each becomes an adapter of its own")),
        (_, true) => {
            let strange: Vec<String> = modules.keys().filter(|module| of(module).is_none()).cloned().collect();
            Err(Error::new(Subject::Adapter, "modules under another prefix than LyCORIS's and kohya's")
                .found(first(&strange))
                .expected(format!("one of {}", PREFIXES.join(", ")))
                .with_hint("say with `--prefix` what stands before the path of the module"))
        }
    }
}

/// The tensors of one module, when none is missing.
fn whole(mut parts: BTreeMap<Part, Tensor>) -> Result<Locon> {
    let half = |there: Part, missing: Part| {
        Error::new(Subject::Adapter, format!("`{}` without `{}`", there.suffix(), missing.suffix()))
            .with_hint("the file is incomplete: save the adapter again")
    };
    let (down, up) = (parts.remove(&Part::Down), parts.remove(&Part::Up));
    let first = parts.keys().next().copied().unwrap_or(Part::Alpha);
    match (down, up) {
        (Some(down), Some(up)) => Locon::new(
            down,
            up,
            parts.remove(&Part::Mid),
            parts.remove(&Part::Alpha).as_ref(),
            parts.remove(&Part::DoraScale),
        ),
        (Some(_), None) => Err(half(Part::Down, Part::Up)),
        (None, Some(_)) => Err(half(Part::Up, Part::Down)),
        (None, None) => Err(half(first, Part::Up)),
    }
}

/// The algorithm that the end of a key belongs to; nothing when it is no one's.
fn algorithm(end: &str) -> &'static str {
    OTHERS.iter().find(|(mark, _)| end.starts_with(mark)).map_or("", |(_, algorithm)| *algorithm)
}

fn refused(algorithm: &str, keys: &[String]) -> Error {
    let error = match algorithm {
        "" => Error::new(Subject::Adapter, "not a key of LyCORIS or kohya"),
        algorithm => Error::new(Subject::Adapter, format!("{algorithm} has no form in PEFT's LoRA")),
    };
    let error = error.found(first(keys)).expected("lora_down, lora_up, lora_mid, alpha and dora_scale");
    let has = |mark: &str| keys.iter().any(|key| key.contains(mark));
    match algorithm {
        "" if has(".lora_A.") || has(".lora_B.") || has(".lora_embedding_") => {
            error.with_hint("these are PEFT's keys: name the folder of the adapter, with its adapter_config.json")
        }
        "" if has(".lora.down.") || has("lora_linear_layer") => {
            error.with_hint("these are old keys of diffusers: load the file there, and save it again")
        }
        "" => error,
        _ => error.with_hint(EXTRACT),
    }
}

/// The first of some names, and how many others there are.
fn first(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [one] => format!("`{one}`"),
        [one, others @ ..] => format!("`{one}` and {} more", others.len()),
    }
}
