//! The decision on one module: PEFT's `check_target_module_exists`.

use super::layers::Layers;
use super::names::{Hits, Names};
use super::pattern::{InLayer, Pattern, Role};
use super::saved;
use super::{ATTENTION, ModuleInfo};
use crate::adapter::LayerKind;
use crate::config::{LoraConfig, Patterns};
use crate::{Error, Result, Subject};

/// A word of `target_modules` for modules of certain kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// `all-linear`
    Linear,
    /// `all-conv`
    Conv,
    /// `all-layers`
    Layers,
}

impl Word {
    pub(super) const ALL: [Self; 3] = [Self::Linear, Self::Conv, Self::Layers];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Linear => "all-linear",
            Self::Conv => "all-conv",
            Self::Layers => "all-layers",
        }
    }

    /// The word that `patterns` is, in any case.
    pub(super) fn of(patterns: &Patterns) -> Option<Self> {
        let Patterns::Regex(text) = patterns else { return None };
        Self::ALL.into_iter().find(|word| word.name().eq_ignore_ascii_case(text))
    }

    fn includes(self, class: &str, kind: LayerKind) -> bool {
        match self {
            Self::Linear => matches!(kind, LayerKind::Linear | LayerKind::Conv1D) && class != ATTENTION,
            Self::Conv => kind.kernel_axes() > 0 && !kind.is_conv_transpose(),
            Self::Layers => true,
        }
    }
}

/// The rules of a configuration, compiled.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    exclude: Option<Names<'a>>,
    saved: Vec<Pattern>,
    targets: Targets<'a>,
    layers: Option<Layers<'a>>,
}

#[derive(Debug)]
enum Targets<'a> {
    Word(Word),
    Names(Names<'a>),
}

/// What becomes of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Targeted,
    /// Not named at all.
    NotNamed,
    /// Named by the end of its path, but in a layer that is not wanted, or in none.
    OtherLayer,
    /// In `exclude_modules`.
    Excluded,
    /// In `modules_to_save`, or inside a module there.
    Saved,
}

/// The decision on a module, and what led to it.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) verdict: Verdict,
    /// The entries of `target_modules` that name it.
    pub(super) named_by: Hits,
    /// The entries of `exclude_modules` that name it.
    pub(super) excluded_by: Hits,
    /// Its layer, when the layer was asked for, and the place of the pattern that found it in `layers_pattern`.
    pub(super) layer: Option<(usize, InLayer)>,
}

impl<'a> Rules<'a> {
    /// # Errors
    /// Without `target_modules`, and when a pattern cannot be compiled.
    pub(super) fn new(config: &'a LoraConfig) -> Result<Self> {
        let Some(target_modules) = config.target_modules.as_ref() else {
            return Err(Error::new(Subject::Target, "missing").at("target_modules").with_hint(
                "name the modules that get an adapter, or use \"all-linear\", \"all-conv\" or \"all-layers\"",
            ));
        };
        let targets = match Word::of(target_modules) {
            Some(word) => Targets::Word(word),
            None => Targets::Names(Names::new(target_modules)?),
        };
        let saved = saved::names(config).map(|name| Pattern::new(name.text, Role::Saved)).collect::<Result<_>>()?;
        let exclude = config.exclude_modules.as_ref().map(Names::new).transpose()?;
        Ok(Self { exclude, saved, targets, layers: Layers::new(config)? })
    }

    pub(super) fn decide(&self, module: &ModuleInfo) -> Result<Decision> {
        let path = &module.path;
        let named_by = match &self.targets {
            Targets::Names(names) => names.hits(path)?,
            Targets::Word(word) => {
                let included = module.layer.as_ref().is_some_and(|layer| word.includes(&module.class, layer.kind()));
                Hits { entries: vec![0; usize::from(included)], exact: included.then_some(0) }
            }
        };
        let excluded_by = self.exclude.as_ref().map(|names| names.hits(path)).transpose()?.unwrap_or_default();
        let mut decision = Decision { verdict: Verdict::Targeted, named_by, excluded_by, layer: None };
        decision.verdict = if !decision.excluded_by.entries.is_empty() {
            Verdict::Excluded
        } else if self.is_saved(path)? {
            Verdict::Saved
        } else if decision.named_by.entries.is_empty() {
            Verdict::NotNamed
        } else {
            match &self.layers {
                Some(layers) if decision.named_by.exact.is_none() => {
                    decision.layer = layers.of(path)?;
                    let wanted =
                        matches!(decision.layer, Some((_, InLayer::Number(index))) if layers.wanted.contains(&index));
                    if wanted { Verdict::Targeted } else { Verdict::OtherLayer }
                }
                _ => Verdict::Targeted,
            }
        };
        Ok(decision)
    }

    fn is_saved(&self, path: &str) -> Result<bool> {
        for pattern in &self.saved {
            if pattern.matches(path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
