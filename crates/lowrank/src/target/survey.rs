//! All modules of a model under the rules, and the entries that came to nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::hint::{listed, nearest};
use super::names::ends;
use super::pattern::InLayer;
use super::rules::{Decision, Rules, Verdict, Word};
use super::{ATTENTION, Findings, ModuleInfo, adaptable};
use crate::adapter::Layer;
use crate::adapter::keys::attention_of;
use crate::config::{LayerIndices, LoraConfig, Patterns, layer_patterns};
use crate::{Error, Result, Subject, suggest};

/// How many hints compare names; further ones of the same kind would not be read.
const MAX_HINTS: usize = 20;

/// A module that gets an adapter, before its rank is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen<'a> {
    pub(super) module: &'a ModuleInfo,
    /// The path that patterns go by: the module's own, of the output projection of an attention that of the attention.
    pub(super) path: &'a str,
    pub(super) layer: &'a Layer,
    pub(super) pattern: &'a str,
}

/// What the rules make of a model.
#[derive(Debug, Default)]
pub(super) struct Survey<'a> {
    /// The entries of `target_modules`.
    entries: &'a [String],
    /// The modules that get an adapter.
    pub(super) targets: Vec<Chosen<'a>>,
    /// Targeted modules that cannot be adapted, by the entry that targets them.
    unusable: BTreeMap<usize, Vec<&'a ModuleInfo>>,
    /// What came of the modules that each entry of `target_modules` names.
    tallies: BTreeMap<usize, Tally>,
    /// The entries of `exclude_modules` that match.
    excluding: BTreeSet<usize>,
    /// The entries of `layers_pattern` that match, and the layers that were found.
    layer_patterns: BTreeSet<usize>,
    layers: BTreeSet<usize>,
    /// Modules that no entry names.
    others: Vec<&'a str>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    targeted: usize,
    in_other_layers: usize,
}

impl<'a> Survey<'a> {
    pub(super) fn of(config: &'a LoraConfig, modules: &[&'a ModuleInfo], rules: &Rules<'a>) -> Result<Self> {
        let entries = config.target_modules.as_ref().map(Patterns::entries).unwrap_or_default();
        let mut survey = Self { entries, ..Self::default() };
        for module in modules {
            survey.add(module, &rules.decide(module)?);
        }
        survey.complete_attentions(modules);
        Ok(survey)
    }

    /// As PEFT, adapts the output projection of every attention that gets an adapter, as the attention.
    fn complete_attentions(&mut self, modules: &[&'a ModuleInfo]) {
        let is_attention = |chosen: &Chosen<'_>| chosen.module.class == ATTENTION;
        for attention in self.targets.iter().copied().filter(is_attention).collect::<Vec<_>>() {
            let output = modules.iter().find(|module| attention_of(&module.path) == Some(attention.path));
            let Some((module, layer)) = output.and_then(|module| Some((*module, module.layer.as_ref()?))) else {
                continue;
            };
            self.targets.retain(|chosen| chosen.module.path != module.path);
            let place = self.targets.iter().position(|chosen| chosen.path == attention.path).map_or(0, |at| at + 1);
            self.targets.insert(place, Chosen { module, layer, ..attention });
        }
    }

    fn add(&mut self, module: &'a ModuleInfo, decision: &Decision) {
        self.excluding.extend(&decision.excluded_by.entries);
        for entry in &decision.named_by.entries {
            let tally = self.tallies.entry(*entry).or_default();
            tally.targeted += usize::from(decision.verdict == Verdict::Targeted);
            tally.in_other_layers += usize::from(decision.verdict == Verdict::OtherLayer);
        }
        if let Some((pattern, layer)) = decision.layer {
            self.layer_patterns.insert(pattern);
            if let InLayer::Number(index) = layer {
                self.layers.insert(index);
            }
        }
        match (decision.verdict, decision.named_by.first()) {
            (Verdict::Targeted, Some(entry)) => match &module.layer {
                Some(layer) => {
                    let pattern = self.entries.get(entry).map_or("", String::as_str);
                    self.targets.push(Chosen { module, path: &module.path, layer, pattern });
                }
                None => self.unusable.entry(entry).or_default().push(module),
            },
            (Verdict::NotNamed, _) => self.others.push(&module.path),
            _ => {}
        }
    }

    /// Says which entries came to nothing, and which targets cannot be adapted.
    pub(super) fn report(&self, config: &LoraConfig, modules: &[&ModuleInfo], findings: &mut Findings) {
        self.report_entries(config, modules, findings);
        self.report_unusable(findings);
        self.report_layers(config, findings);
        if self.targets.is_empty() && findings.errors.is_empty() {
            let error = wrong("target_modules", "no module gets an adapter");
            let hint = "all that are named are in exclude_modules or modules_to_save, or the list is empty";
            findings.errors.push(error.with_hint(hint));
        }
        self.report_exclusions(config, modules, findings);
    }

    fn report_entries(&self, config: &LoraConfig, modules: &[&ModuleInfo], findings: &mut Findings) {
        let mut seen = HashSet::new();
        let mut hints = 0;
        for (place, entry) in self.entries.iter().enumerate().filter(|(_, entry)| seen.insert(*entry)) {
            match self.tallies.get(&place) {
                None => {
                    let error = wrong("target_modules", format!("`{entry}` matches no module"));
                    hints += 1;
                    findings.errors.push(if hints <= MAX_HINTS {
                        error.with_hint(unmatched_hint(config.target_modules.as_ref(), entry, modules))
                    } else {
                        error
                    });
                }
                Some(Tally { targeted: 0, in_other_layers: 0 }) => findings.warnings.push(format!(
                    "target_modules: every module that `{entry}` matches is in exclude_modules or modules_to_save"
                )),
                Some(Tally { targeted: 0, .. }) => {
                    let error = wrong("target_modules", format!("`{entry}` matches no module in layers_to_transform"));
                    findings.errors.push(error.with_hint(self.layers_hint()));
                }
                Some(_) => {}
            }
        }
    }

    fn report_unusable(&self, findings: &mut Findings) {
        for (entry, modules) in &self.unusable {
            let entry = self.entries.get(*entry).map_or("", String::as_str);
            let described: Vec<_> =
                modules.iter().map(|module| format!("{} ({})", module.path, module.class)).collect();
            let error = wrong("target_modules", format!("`{entry}` matches modules that cannot be adapted"))
                .found(listed(described.iter().map(String::as_str)))
                .expected(format!("modules of {}", adaptable()));
            findings.errors.push(error.with_hint("write the pattern narrower, or name them in exclude_modules"));
        }
    }

    fn report_layers(&self, config: &LoraConfig, findings: &mut Findings) {
        let wanted = config.layers_to_transform.as_ref().map(LayerIndices::indices).unwrap_or_default();
        if wanted.is_empty() || (self.layers.is_empty() && !findings.errors.is_empty()) {
            return;
        }
        if self.layers.is_empty() {
            let error = wrong("layers_to_transform", "has no effect: every target is named by its whole path");
            findings.errors.push(error.with_hint("leave it out, or name the targets by the ends of their paths"));
            return;
        }
        for index in wanted.iter().filter(|index| !self.layers.contains(index)) {
            let error = wrong("layers_to_transform", format!("no targeted module is in layer {index}"));
            findings.errors.push(error.with_hint(self.layers_hint()));
        }
        for (place, pattern) in layer_patterns(config.layers_pattern.as_ref()).iter().enumerate() {
            if !self.layer_patterns.contains(&place) {
                let error = wrong("layers_pattern", format!("`{pattern}` finds the layer of no targeted module"));
                findings.errors.push(error.with_hint("it must stand right before the layer's number in a path"));
            }
        }
    }

    fn report_exclusions(&self, config: &LoraConfig, modules: &[&ModuleInfo], findings: &mut Findings) {
        let entries = config.exclude_modules.as_ref().map(Patterns::entries).unwrap_or_default();
        let mut seen = HashSet::new();
        let unused =
            entries.iter().enumerate().filter(|(place, entry)| seen.insert(*entry) && !self.excluding.contains(place));
        for (_, entry) in unused.take(MAX_HINTS) {
            let hint = nearest(entry, modules.iter().copied());
            findings.warnings.push(format!("exclude_modules: `{entry}` matches no module; {hint}"));
        }
    }

    fn layers_hint(&self) -> String {
        if self.layers.is_empty() {
            return "no layer number was found in their paths: see layers_pattern".into();
        }
        let layers: Vec<_> = self.layers.iter().map(ToString::to_string).collect();
        format!("they are in layers {}", listed(layers.iter().map(String::as_str)))
    }

    /// What a saved configuration has to say for `target_modules`.
    ///
    /// A word becomes a list of paths, and a path in a list also stands for every path that ends with it. If such a one
    /// were not a target, the saved adapter would be read with more modules than it has.
    pub(super) fn target_modules(&self, config: &LoraConfig, findings: &mut Findings) -> Patterns {
        let configured = config.target_modules.clone().unwrap_or(Patterns::List(Vec::new()));
        if Word::of(&configured).is_none() {
            return configured;
        }
        let paths: HashSet<&str> = self.targets.iter().map(|target| target.path).collect();
        for other in &self.others {
            if let Some(path) = ends(other).find(|end| paths.contains(end)) {
                let problem = format!("the name of the target `{path}` would also stand for `{other}`, which is none");
                let hint = format!("name `{other}` in exclude_modules, or write target_modules as a pattern");
                findings.errors.push(wrong("target_modules", problem).with_hint(hint));
            }
        }
        let own = self.targets.iter().filter(|target| target.path == target.module.path);
        Patterns::List(own.map(|target| target.path.to_owned()).collect())
    }
}

fn wrong(key: &str, problem: impl Into<String>) -> Error {
    Error::new(Subject::Target, problem).at(key)
}

/// A remedy for an entry of `target_modules` that matches nothing.
fn unmatched_hint(patterns: Option<&Patterns>, entry: &str, modules: &[&ModuleInfo]) -> String {
    if matches!(patterns, Some(Patterns::Regex(_))) {
        if let Some(word) = suggest::nearest(entry, Word::ALL.map(Word::name)) {
            return if word == entry {
                format!("the model has no layer for {word:?}")
            } else {
                format!("did you mean {word:?}?")
            };
        }
        if modules.iter().any(|module| module.path == entry || ends(&module.path).any(|end| end == entry)) {
            return format!("a string has to match the whole path; to name modules, write a list: [{entry:?}]");
        }
    }
    nearest(entry, modules.iter().copied().filter(|module| module.layer.is_some()))
}
